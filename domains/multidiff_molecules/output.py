"""The files of `generate molecules`: every sample is in molecules.sdf or in rejected.xyz, and in molecules.csv."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from rdkit import Chem, rdBase
from tqdm import tqdm

from multidiff.files import atomic_path, writable_folder
from multidiff_molecules.chemistry import canonical_smiles, check, symbol, to_rdkit
from multidiff_molecules.molecule import Molecule
from multidiff_molecules.properties import NAMES, Properties, properties
from multidiff_molecules.render import grid_png

Recipe = Mapping[str, object]

SDF, XYZ, CSV, PNG = "molecules.sdf", "rejected.xyz", "molecules.csv", "molecules.png"
PICTURED = 16

# RDKit would write some Kekule form of a ring it has seen to be aromatic, not the generated one.
_KEEP_BONDS = Chem.SANITIZE_ALL ^ Chem.SANITIZE_SETAROMATICITY ^ Chem.SANITIZE_KEKULIZE


@dataclass(frozen=True)
class Sample:
    """A generated molecule with what is known of it; `mol` and `properties` only where it is valid (no `reason`)."""

    index: int
    molecule: Molecule
    mol: Chem.Mol | None
    reason: str
    smiles: str
    properties: Properties


def write(
    molecules: Sequence[Molecule],
    indices: Sequence[int],
    folder: Path,
    recipe: Recipe,
    records: list[dict[str, Any]] | None = None,
) -> dict[str, object]:
    """Write molecules.sdf (the valid), rejected.xyz (the others), molecules.csv and molecules.png into `folder`.

    Each file replaces an older one at once or not at all; a molecule is valid as `chemistry.check` means it. An atom
    of rejected.xyz without a finite position has `nan` there. Molecules are looked at one after the other.

    Args:
        indices: the sample number of each molecule.
        recipe: checkpoint, settings, seed...; plain values, kept in each file (in the table: sample numbers only).
        records: is given one of each sample, in their order: sample, atoms, valid, reason, smiles.

    Returns:
        counts: ``samples`` = ``valid`` + ``rejected``, and ``reasons``, a mapping reason -> number of rejected.

    Raises:
        InputError: the folder cannot be written or the disk is full.
        ValueError: not as many indices as molecules.
    """
    folder = writable_folder(folder)
    reasons: Counter[str] = Counter()
    pictured: list[Sample] = []
    with ExitStack() as stack:
        sdf, xyz, table = (_text_file(stack, folder / name) for name in (SDF, XYZ, CSV))
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(["sample", "smiles", "valid", "reason", *NAMES])
        pairs = zip(indices, molecules, strict=True)
        for index, molecule in tqdm(pairs, "write", len(molecules), unit=" molecules", delay=2, disable=None):
            sample = _examine(index, molecule)
            reasons[sample.reason] += 1
            (xyz if sample.reason else sdf).write((xyz_record if sample.reason else sdf_record)(sample, recipe))
            rows.writerow(_row(sample))
            if not sample.reason and len(pictured) < PICTURED:
                pictured.append(sample)
            if records is not None:
                records.append(_record(sample))
    _write_png(folder / PNG, pictured, recipe)
    valid = reasons.pop("", 0)
    rejected = reasons.total()
    return {"samples": valid + rejected, "valid": valid, "rejected": rejected, "reasons": dict(reasons.most_common())}


def _examine(index: int, molecule: Molecule) -> Sample:
    mol, reason = check(molecule)
    smiles = "" if mol is None else canonical_smiles(mol)
    known = properties(mol) if mol is not None and not reason else {}
    return Sample(int(index), molecule, mol, reason, smiles, known)


def sdf_record(sample: Sample, recipe: Recipe) -> str:
    """One record: atoms, charges and kekulised bonds exactly as generated; recipe, properties and `sample` as tags."""
    with rdBase.BlockLogs():
        exact = to_rdkit(sample.molecule, sanitise=False)
        Chem.SanitizeMol(exact, _KEEP_BONDS)
        Chem.AssignStereochemistryFrom3D(exact)
        exact.SetProp("_Name", f"sample {sample.index}")
        block = Chem.MolToMolBlock(exact, kekulize=False)
    tags = {**recipe, "smiles": sample.smiles, **sample.properties, "sample": sample.index}
    lines = [f">  <{_tag_name(name)}>\n{_one_line(value)}\n\n" for name, value in tags.items()]
    return f"{block}{''.join(lines)}$$$$\n"


def _tag_name(name: str) -> str:
    return "".join(c for c in name if c.isalnum() or c in "_-. ")


def _one_line(value: object) -> str:
    """A tag's value ends at an empty line and a record at `$$$$`: neither may come from a value."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return " ".join(text.split()).replace("$$$$", "$$$ $") or "-"


def xyz_record(sample: Sample, recipe: Recipe) -> str:
    """One extended-XYZ frame; charges and bonds, which XYZ has no place for, stand in the comment line."""
    molecule = sample.molecule
    first, second = np.nonzero(np.triu(molecule.bonds, 1))
    orders = molecule.bonds[first, second]
    bonds = " ".join(f"{i}-{j}:{order}" for i, j, order in zip(first, second, orders, strict=True))
    comment = {
        "sample": str(sample.index),
        "reason": json.dumps(sample.reason),
        "charges": json.dumps(" ".join(map(str, molecule.formal_charges.tolist()))),
        "bonds": json.dumps(bonds),
        "recipe": json.dumps(json.dumps(dict(recipe), default=str)),
    }
    atoms = zip(molecule.atomic_numbers.tolist(), molecule.positions.tolist(), strict=True)
    rows = [f"{symbol(z):2s} {x:14.6f} {y:14.6f} {w:14.6f}\n" for z, (x, y, w) in atoms]
    return f"{len(molecule)}\n{' '.join(f'{k}={v}' for k, v in comment.items())}\n{''.join(rows)}"


def _text_file(stack: ExitStack, path: Path) -> TextIO:
    """Open until the stack is left, and then in the place of `path`."""
    temporary = stack.enter_context(atomic_path(path))
    return stack.enter_context(open(temporary, "w", encoding="utf-8", newline=""))


def _row(s: Sample) -> list[object]:
    known = [_cell(s.properties.get(name, "")) for name in NAMES]
    return [s.index, s.smiles, int(not s.reason), s.reason, *known]


def _record(s: Sample) -> dict[str, Any]:
    return {
        "sample": s.index,
        "atoms": len(s.molecule),
        "valid": not s.reason,
        "reason": s.reason,
        "smiles": s.smiles,
    }


def _cell(value: float | int | str) -> float | int | str:
    return "" if isinstance(value, float) and math.isnan(value) else value


def _write_png(path: Path, pictured: Sequence[Sample], recipe: Recipe) -> None:
    cards = [(s.mol, s.smiles, f"{s.properties['formula']}   QED {s.properties['qed']:.2f}") for s in pictured]
    text = {"recipe": dict(recipe), "samples": [s.index for s in pictured]}
    with atomic_path(path) as temporary:
        temporary.write_bytes(grid_png(cards, text))
