"""`multidiff evaluate molecules PATH`: every metric of molecules on disk, whoever made them."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, rdBase

from multidiff.errors import InputError
from multidiff_molecules.chemistry import canonical_smiles, check, from_rdkit, symbol
from multidiff_molecules.metrics import Scores, score
from multidiff_molecules.molecule import Molecule, PackedMolecules
from multidiff_molecules.output import SDF, XYZ
from multidiff_molecules.readers import Record, Source, find_sources, read_records

REFERENCE_LIMIT = 5000  # molecules; the distances change by less than their own noise beyond
NAMED = 20  # unreadable records that are named one by one

_NUMBER = {symbol(z): z for z in range(1, 119)}


@dataclass(frozen=True)
class Loaded:
    """A sample as read.

    Attributes:
        molecule: None where it cannot be read; `fault` says why and `name` where it stands.
        sample: its number, in the files that `generate` writes.
    """

    molecule: Molecule | None
    name: str
    fault: str = ""
    sample: int = -1


def evaluate(
    path: str | Path,
    reference: str | Path | None = None,
    *,
    train_smiles: Iterable[str] | None = None,
    posebusters: int = 0,
    progress: bool = True,
) -> Scores:
    """All metrics (`metrics.score`) of the molecules at `path`.

    A record that cannot be read counts as a sample that is invalid, and is named under ``unreadable/``; only in
    atom stability it cannot count, as nobody knows its atoms. Hydrogens must be explicit.

    Args:
        path: SDF (`.gz` too); a folder that `generate` wrote, whose rejected.xyz counts as failures; a folder of SD
            files; a packed `.npz`; or `.xyz`, which without bonds can only do well under distance-bonds.
        reference: packed `.npz` or SDF. Geometry and strain are compared with its test part where it has one, else
            with all of it, REFERENCE_LIMIT molecules at even spacing.
        train_smiles: canonical SMILES that are not novel; default: the train part of `reference`, else all of it.
        posebusters: check the first so many samples with PoseBusters, about half a second each; 0: none.

    Returns:
        Flat and fit for JSON; what cannot be measured is None.

    Raises:
        InputError: a file is missing, of another kind, or holds no molecules at all.
    """
    if posebusters < 0:
        raise InputError(f"--posebusters {posebusters}: the number of molecules to check, 0 or more")
    samples = load(Path(path))
    real, known = ([], None) if reference is None else _load_reference(Path(reference))
    found = score(
        [s.molecule for s in samples],
        reference=real,
        train_smiles=known if train_smiles is None else train_smiles,
        posebusters=posebusters,
        progress=progress,
    )
    figures = {**found, **_unreadable(samples)}
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in figures.items()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `multidiff evaluate molecules`, named as the keywords of `evaluate`."""
    text = "check the first N molecules with PoseBusters, about half a second each (default: none)"
    parser.add_argument_group("molecules").add_argument("--posebusters", type=int, metavar="N", help=text)


def load(path: Path) -> list[Loaded]:
    """Every sample at `path`, in the order of a generated folder's sample numbers, else of the files.

    See `evaluate` for what `path` may be.

    Raises:
        InputError: nothing there can be read as molecules.
    """
    if not path.exists():
        raise InputError(f"no file or folder {path}")
    if path.is_dir() and ((path / SDF).exists() or (path / XYZ).exists()):
        samples = [s for name in (SDF, XYZ) if _has_text(path / name) for s in _load_file(path / name)]
        samples.sort(key=lambda s: s.sample)  # else the first N would all be valid ones
    elif path.suffix.lower() in (".npz", ".xyz"):
        samples = list(_load_file(path))
    else:
        samples = [s for source in _sd_sources(path) for s in _load_sd(source)]
    if not samples or all(s.fault == "empty file" for s in samples):
        raise InputError(f"no molecules in {path}; give an SD file, a packed .npz or a folder that 'generate' wrote")
    return samples


def _has_text(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _sd_sources(path: Path) -> list[Source]:
    sources, _ = find_sources(path, exclude=path / ".none")
    found = [source for source in sources if source.kind == "sd"]
    if not found:
        raise InputError(f"{path} holds no 3-D structures with bonds; give SDF, a packed .npz or a 'generate' folder")
    return found


def _load_file(path: Path) -> Iterator[Loaded]:
    if path.suffix.lower() == ".npz":
        return (Loaded(molecule, f"molecule {i}") for i, molecule in enumerate(PackedMolecules.load(path)))
    if path.suffix.lower() == ".xyz":
        return _load_xyz(path)
    return _load_sd(Source(path, path.name, "sd"))


def _load_sd(source: Source) -> Iterator[Loaded]:
    for record in read_records(source):
        name = f"{record.file} record {record.number}"
        title = re.match(r"sample (\d+)\s", record.text)
        try:
            yield Loaded(_parse_sd(record), name, sample=int(title[1]) if title else -1)
        except (InputError, ValueError, RuntimeError, OverflowError) as error:
            yield Loaded(None, name, str(error).splitlines()[0] if str(error) else "cannot be read")


def _parse_sd(record: Record) -> Molecule:
    if record.fault:
        raise InputError(record.fault)
    with rdBase.BlockLogs():
        mol = Chem.MolFromMolBlock(record.text, sanitize=False, removeHs=False)
    if mol is None:
        raise InputError("not a mol block")
    for atom in mol.GetAtoms():
        atom.SetNoImplicit(True)  # hydrogens that the file leaves out are missing, not implied
    mol.UpdatePropertyCache(strict=False)
    return from_rdkit(mol)


_FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S+)')


def _load_xyz(path: Path) -> Iterator[Loaded]:
    """Frames as `output.xyz_record` writes them; what follows a damaged frame cannot be told apart and is one fault."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    start = number = 0
    while any(line.strip() for line in lines[start : start + 1]):
        number += 1
        name = f"{path.name} frame {number}"
        try:
            n = int(lines[start])
            fields = {key: value.strip('"') for key, value in _FIELD.findall(lines[start + 1])}
            molecule = _parse_frame(fields, lines[start + 2 : start + 2 + n], n)
            sample = int(fields.get("sample", -1))
        except (ValueError, IndexError, OverflowError):
            yield Loaded(None, name, "damaged frame")
            return
        yield Loaded(molecule, name, sample=sample)
        start += n + 2


def _parse_frame(fields: Mapping[str, str], rows: Sequence[str], n: int) -> Molecule:
    words = [row.split() for row in rows]
    if len(words) != n:
        raise ValueError("atoms are missing")
    bonds: NDArray[np.int8] = np.zeros((n, n), np.int8)
    for i, j, order in (map(int, re.split("[-:]", bond)) for bond in fields.get("bonds", "").split()):
        bonds[i, j] = bonds[j, i] = order
    charges = [int(c) for c in fields.get("charges", "").split()] or [0] * n
    return Molecule(
        atomic_numbers=np.array([_NUMBER.get(word[0], 0) for word in words], np.int8),
        positions=np.array([word[1:4] for word in words], np.float32).reshape(n, 3),
        formal_charges=np.array(charges, np.int8).reshape(n),
        bonds=bonds,
    )


def _load_reference(path: Path) -> tuple[list[Molecule], list[str]]:
    """Molecules to compare the geometry with, and the SMILES that are not novel."""
    if path.suffix.lower() == ".npz":
        packed = PackedMolecules.load(path)
        test, train = np.flatnonzero(packed.split == 2), np.flatnonzero(packed.split == 0)
        pool = test if len(test) else np.arange(len(packed))
        return [packed[i] for i in _spaced(pool)], [s.decode() for s in packed.smiles[train]]
    molecules = [s.molecule for s in load(path) if s.molecule is not None]
    mols = [mol for mol, _ in map(check, molecules) if mol is not None]
    if not mols:
        raise InputError(f"no valid molecule in the reference {path}")
    return [molecules[i] for i in _spaced(np.arange(len(molecules)))], [canonical_smiles(mol) for mol in mols]


def _spaced(indices: NDArray[np.intp]) -> list[int]:
    """At most REFERENCE_LIMIT of the indices, at even spacing."""
    chosen = np.linspace(0, len(indices) - 1, min(len(indices), REFERENCE_LIMIT)).round().astype(int)
    return [int(i) for i in indices[chosen]]


def _unreadable(samples: Sequence[Loaded]) -> Scores:
    lost = [s for s in samples if s.molecule is None]
    named: Scores = {f"unreadable/{s.name}": s.fault for s in lost[:NAMED]}
    return named | ({"unreadable/others": len(lost) - NAMED} if len(lost) > NAMED else {})
