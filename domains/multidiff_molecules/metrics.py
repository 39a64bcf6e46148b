"""How good generated molecules are, as the field reports it: every share is of the number asked for.

Two protocols, never mixed:

- ``generated-bonds``: bonds and formal charges as generated, kekulised integers, each atom judged by
  `chemistry.VALENCIES` (strict: no aromatic 1.5, no three-valent carbon);
- ``distance-bonds``: bonds looked up from the distances, no charges, as Hoogeboom et al. 2022 (EDM) do it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rdkit import Chem
from tqdm import tqdm

from multidiff_molecules import distance_bonds, geometry
from multidiff_molecules.chemistry import canonical_smiles, check, flat_smiles, stable_atoms
from multidiff_molecules.molecule import Molecule
from multidiff_molecules.plausibility import posebusters as count_posebusters
from multidiff_molecules.plausibility import strain

Scores = dict[str, Any]  # float, int, str, or None for what cannot be measured

PROTOCOLS = ("generated-bonds", "distance-bonds")
STRAIN_LIMIT = 2000  # most molecules of the reference that are relaxed


@dataclass(frozen=True)
class Assessed:
    """One sample under one protocol.

    Attributes:
        mol: sanitised, or None where RDKit refuses it.
        reason: '' when valid as `chemistry.check` means it.
        connected: sanitised and one fragment.     smiles: canonical, without stereo; '' without `mol`.
        stable: atoms with an allowed valency.     atoms: all atoms.
    """

    molecule: Molecule | None
    mol: Chem.Mol | None
    reason: str
    connected: bool
    smiles: str
    stable: int
    atoms: int


def assess(molecule: Molecule | None, protocol: str = "generated-bonds") -> Assessed:
    """Judge one sample; None is one that could not even be read. Without finite positions nothing counts as stable."""
    if molecule is None:
        return Assessed(None, None, "unreadable", False, "", 0, 0)
    by_distance = protocol == "distance-bonds"
    bonded = distance_bonds.with_distance_bonds(molecule) if by_distance else molecule
    mol, reason = check(bonded)
    finite = bool(np.isfinite(molecule.positions).all())
    stable = (distance_bonds.stable_atoms if by_distance else stable_atoms)(bonded)
    return Assessed(
        molecule=bonded,
        mol=mol,
        reason=reason,
        connected=mol is not None and len(Chem.GetMolFrags(mol)) == 1,
        smiles="" if mol is None else canonical_smiles(mol, stereo=False),
        stable=int(stable.sum()) if finite else 0,
        atoms=len(molecule),
    )


def score(
    samples: Sequence[Molecule | None],
    *,
    reference: Sequence[Molecule] = (),
    train_smiles: Iterable[str] | None = None,
    posebusters: int = 0,
    progress: bool = False,
) -> Scores:
    """All metrics of `samples`, one entry for each molecule asked for (None: could not be read).

    Shares lie in 0 to 1; ``NAME/n`` is the denominator of NAME. ``validity``: RDKit sanitises the whole molecule as
    generated; ``valid_connected``: and it is one fragment; ``file_valid``: what `generate` writes to molecules.sdf
    (`chemistry.check`). ``uniqueness`` and ``novelty`` are of the valid and of the unique; products such as
    ``valid_unique_novel`` are of all samples. Molecules are the same if their SMILES without stereo are.

    Args:
        reference: real molecules to compare lengths, angles, torsions and strain with.
        train_smiles: canonical SMILES of the training set, for novelty.
        posebusters: check the first so many samples with PoseBusters; 0: none.
    """
    known = None if train_smiles is None else {flat_smiles(s) or s for s in train_smiles}
    by_protocol = {
        protocol: [assess(m, protocol) for m in tqdm(samples, protocol, unit="mol", disable=not progress)]
        for protocol in PROTOCOLS
    }
    generated = by_protocol["generated-bonds"]
    real = [assess(m) for m in tqdm(reference, "reference", unit="mol", disable=not progress or not len(reference))]
    result: Scores = {"samples": len(samples), "reference": len(real)}
    result |= _shares("", {"file_valid": sum(not a.reason for a in generated)}, len(samples))
    result |= {f"rejected/{reason}": n for reason, n in Counter(a.reason for a in generated if a.reason).most_common()}
    for protocol, assessed in by_protocol.items():
        result |= _count(protocol, assessed, known)
    result |= _geometry(generated, real) if real else {}
    result |= _strain(generated, real, progress)
    return result | _posebusters(generated[:posebusters], progress)


def _shares(prefix: str, counts: dict[str, int], n: int) -> Scores:
    result: Scores = {}
    for name, count in counts.items():
        result |= {f"{prefix}{name}": count / n if n else math.nan, f"{prefix}{name}/n": n}
    return result


def _count(protocol: str, assessed: Sequence[Assessed], known: set[str] | None) -> Scores:
    """Stability, validity, uniqueness, novelty and their products under one protocol."""
    valid = [a.smiles for a in assessed if a.mol is not None]
    connected = {a.smiles for a in assessed if a.connected}
    unique = set(valid)
    counts = {
        "molecule_stability": sum(a.stable == a.atoms > 0 for a in assessed),
        "validity": len(valid),
        "valid_connected": sum(a.connected for a in assessed),
        "valid_unique": len(unique),
        "valid_connected_unique": len(connected),
    }
    if known is not None:
        counts |= {"valid_unique_novel": len(unique - known), "valid_connected_unique_novel": len(connected - known)}
    prefix = f"{protocol}/"
    result = _shares(prefix, {"atom_stability": sum(a.stable for a in assessed)}, sum(a.atoms for a in assessed))
    result |= _shares(prefix, counts, len(assessed))
    result |= _shares(prefix, {"uniqueness": len(unique)}, len(valid))
    return result | ({} if known is None else _shares(prefix, {"novelty": len(unique - known)}, len(unique)))


def _measure(assessed: Sequence[Assessed]) -> dict[str, geometry.Values]:
    """Geometry of every sample that has finite positions, broken ones included."""
    whole = [a for a in assessed if a.molecule is not None and np.isfinite(a.molecule.positions).all()]
    molecules = [a.molecule for a in whole if a.molecule is not None]
    return geometry.measure(molecules, [geometry.bond_types(m, a.mol) for m, a in zip(molecules, whole, strict=True)])


def _geometry(generated: Sequence[Assessed], real: Sequence[Assessed]) -> Scores:
    """Distances to the reference, each beside that of the reference's two halves to each other."""
    sample, reference = _measure(generated), _measure(real)
    even, odd = _measure(real[::2]), _measure(real[1::2])
    result: Scores = {}
    for kind in geometry.KINDS:
        found, halves = geometry.distance(sample[kind], reference[kind]), geometry.distance(even[kind], odd[kind])
        name = f"geometry/{kind}_w1"
        result |= {name: found.value, f"{name}/n": found.n, f"{name}/reference_n": found.n_reference}
        result |= {f"{name}/halves_of_reference": halves.value}
        result |= {f"{name}/covered": found.covered, f"{name}/foreign": found.foreign}
    return result


def _strain(generated: Sequence[Assessed], real: Sequence[Assessed], progress: bool) -> Scores:
    """Median strain of the valid samples and of the reference."""
    valid = [a.mol for a in generated if a.mol is not None and not a.reason]
    found = strain(valid, progress)
    result: Scores = {"strain/median": found.median, "strain/median/n": len(found.energies)}
    if real:
        some = real[:: math.ceil(len(real) / STRAIN_LIMIT)]  # spread out: data sets are often sorted by size
        theirs = strain([a.mol for a in some if a.mol is not None and not a.reason], progress)
        result |= {"strain/median/reference": theirs.median, "strain/median/reference_n": len(theirs.energies)}
    return result | _shares("strain/", {"untyped": found.untyped, "unconverged": found.unconverged}, len(valid))


def _posebusters(first: Sequence[Assessed], progress: bool) -> Scores:
    if not first:
        return {}
    return _shares("posebusters/", count_posebusters([a.mol for a in first], progress), len(first))


_UNITS = {
    "strain/median": "kcal/mol",
    "strain/median/reference": "kcal/mol",
    **{f"geometry/{kind}_w1": unit for kind, unit in geometry.KINDS.items()},
    **{f"geometry/{kind}_w1/halves_of_reference": unit for kind, unit in geometry.KINDS.items()},
}


def format_table(scores: Scores) -> str:
    """The scores as text: a row a metric with its n, for shares the 95 % interval of Wilson, and side notes."""
    names = [name for name in scores if f"{name}/n" in scores]
    rows = [(name, *_value(scores, name), f"n={scores[f'{name}/n']}", _notes(scores, name)) for name in names]
    widths = [max([len(row[i]) for row in rows], default=0) for i in range(4)]
    lines = [f"samples {scores.get('samples', 0)}, reference molecules {scores.get('reference', 0)}"]
    lines += [f"  {name}: {count}" for name, count in scores.items() if name.startswith(("rejected/", "unreadable/"))]
    for name, value, spread, n, notes in rows:
        cells = (name.ljust(widths[0]), value.rjust(widths[1]), spread.ljust(widths[2]), n.ljust(widths[3]), notes)
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _value(scores: Scores, name: str) -> tuple[str, str]:
    value, n = scores[name], scores[f"{name}/n"]
    if not isinstance(value, float | int) or not isinstance(n, int) or math.isnan(value):
        return "-", ""
    if name in _UNITS:
        return f"{value:.4g} {_UNITS[name]}", ""
    low, high = wilson(value, n)
    return f"{100 * value:.2f} %", f"[{100 * low:.2f}, {100 * high:.2f}]"


def _notes(scores: Scores, name: str) -> str:
    notes = []
    for key, value in scores.items():
        short = key.removeprefix(f"{name}/")
        if short in (key, "n"):
            continue
        percent = f"{100 * value:.1f} %" if short in ("covered", "foreign") and isinstance(value, float) else None
        notes.append(f"{short} {percent or (f'{value:.4g}' if isinstance(value, float) else value)}")
    return ", ".join(notes)


def wilson(share: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share seen in n > 0 trials, at z standard deviations."""
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)
