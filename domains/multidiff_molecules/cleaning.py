"""From one record to one molecule with 3-D coordinates, or to the reason why not."""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

from multidiff.errors import InputError
from multidiff_molecules.chemistry import MIN_DISTANCE, canonical_smiles, from_rdkit
from multidiff_molecules.molecule import Molecule
from multidiff_molecules.readers import Record

COMMON_ELEMENTS = ("H", "B", "C", "N", "O", "F", "Si", "P", "S", "Cl", "Br", "I")
FLAT = 1e-3  # angstrom of depth below which a structure is a drawing
MMFF_ROUNDS, MMFF_ITERATIONS = 10, 200  # up to 2,000 iterations, the clock looked at between rounds


@dataclass(frozen=True)
class Rules:
    """What is kept and how conformers are made; everything that decides a record's result.

    Attributes:
        elements: allowed symbols; hydrogen always is.
        max_atoms: most atoms, hydrogens included.
        largest_fragment: keep the largest fragment of salts and mixtures instead of skipping them.
        embed: make conformers for SD and mol2 records without 3-D coordinates.
        seed: of the conformers, together with the record's number.
        time_limit: seconds a molecule for its conformer.
    """

    elements: tuple[str, ...] = COMMON_ELEMENTS
    max_atoms: int = 128
    largest_fragment: bool = False
    embed: bool = False
    seed: int = 0
    time_limit: float = 10.0


@dataclass(frozen=True, eq=False)
class Cleaned:
    """A molecule, its canonical SMILES with the stereo of its coordinates, and what was done to it."""

    molecule: Molecule
    smiles: str
    notes: tuple[str, ...]


class SkipRecord(Exception):
    """The record is not used; `reason` is counted, `detail` is shown in the example."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


def clean(record: Record, rules: Rules) -> Cleaned:
    """The molecule of `record`, hydrogens explicit and bonds kekulised.

    Raises:
        SkipRecord: it cannot be used under `rules`.
    """
    try:
        return _clean(record, rules)
    except (SkipRecord, MemoryError):
        raise
    except Chem.MolSanitizeException as error:
        raise SkipRecord("sanitisation fails", _one_line(error)) from error
    except Exception as error:  # RDKit has many; hours of work must not end for one record
        raise SkipRecord("RDKit fails", _one_line(error)) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _clean(record: Record, rules: Rules) -> Cleaned:
    if record.fault:
        raise SkipRecord(record.fault, record.detail)
    notes: list[str] = []
    mol = _one_fragment(_parse(record), rules, notes)
    _check_elements(mol, rules)
    _drop_labels(mol, notes)
    solid = _has_depth(mol)
    if not (solid or rules.embed or record.kind == "smiles"):
        raise SkipRecord("no 3-D coordinates")
    if solid:
        _check_positions(mol)
    mol = _with_hydrogens(mol, solid, record, notes)
    if mol.GetNumAtoms() > rules.max_atoms:
        raise SkipRecord("too many atoms", f"{mol.GetNumAtoms()}, at most {rules.max_atoms}")
    if not solid:
        _embed(mol, record, rules, notes)
    _check_positions(mol)
    return _finish(mol, notes)


def _parse(record: Record) -> Chem.Mol:
    """The sanitised molecule; if that fails it is read once more, unsanitised, to learn whose fault it is."""
    with _RdkitMessages() as messages:
        mol = _PARSERS[record.kind](record.text, True)
        if mol is None:
            raise _why_not_parsed(record, messages)
    if mol.GetNumAtoms() == 0:
        raise SkipRecord("no atoms")
    return mol


def _why_not_parsed(record: Record, messages: _RdkitMessages) -> SkipRecord:
    messages.lines.clear()
    raw = _PARSERS[record.kind](record.text, False)
    if raw is not None:
        try:
            Chem.SanitizeMol(raw)
        except Exception as error:  # RDKit raises several unrelated classes
            return SkipRecord("sanitisation fails", _one_line(error))
        return SkipRecord("sanitisation fails")
    detail = messages.lines[-1] if messages.lines else ""
    if element := re.search(r"Element '(\w+)' not found", detail):
        return SkipRecord("element not allowed", element[1])
    if "Cannot process coordinates" in detail and re.search(r"\b[+-]?(nan|inf)", record.text, re.IGNORECASE):
        return SkipRecord("coordinates not finite")
    return SkipRecord("unreadable record", detail)


_PARSERS = {
    "sd": lambda text, sanitize: Chem.MolFromMolBlock(text, sanitize=sanitize, removeHs=False),
    "mol2": lambda text, sanitize: Chem.MolFromMol2Block(text, sanitize=sanitize, removeHs=False),
    "smiles": lambda text, sanitize: Chem.MolFromSmiles(text, sanitize=sanitize),
}


def _one_fragment(mol: Chem.Mol, rules: Rules, notes: list[str]) -> Chem.Mol:
    fragments = Chem.GetMolFrags(mol, asMols=True, sanitizeFrags=False)
    if len(fragments) == 1:
        return mol
    if not rules.largest_fragment:
        raise SkipRecord("more than one fragment", f"{len(fragments)} fragments")
    notes.append("smaller fragments dropped")
    largest = max(fragments, key=lambda part: (part.GetNumHeavyAtoms(), part.GetNumAtoms()))
    Chem.SanitizeMol(largest)
    return largest


def _check_elements(mol: Chem.Mol, rules: Rules) -> None:
    wrong = {atom.GetSymbol() for atom in mol.GetAtoms()} - {"H", *rules.elements}
    if wrong:
        raise SkipRecord("element not allowed", ", ".join(sorted(wrong)))


def _drop_labels(mol: Chem.Mol, notes: list[str]) -> None:
    """Isotopes and map numbers have no place in the arrays; leaving them would make one molecule two SMILES."""
    if any(atom.GetIsotope() for atom in mol.GetAtoms()):
        notes.append("isotope labels dropped")
    for atom in mol.GetAtoms():
        atom.SetIsotope(0)
        atom.SetAtomMapNum(0)


def _has_depth(mol: Chem.Mol) -> bool:
    """Whether the coordinates are a structure in space, not a drawing or nothing.

    A flat structure counts when its file calls it 3-D and no atom has the four neighbours that cannot lie in a plane.
    """
    if not mol.GetNumConformers():
        return False
    z = mol.GetConformer().GetPositions()[:, 2]
    if not np.all(np.isfinite(z)) or np.ptp(z) > FLAT:
        return True
    tetrahedral = any(
        a.GetTotalDegree() >= 4 for a in mol.GetAtoms() if a.GetHybridization() == Chem.HybridizationType.SP3
    )
    return mol.GetConformer().Is3D() and not tetrahedral


def _with_hydrogens(mol: Chem.Mol, solid: bool, record: Record, notes: list[str]) -> Chem.Mol:
    if all(atom.GetTotalNumHs() == 0 for atom in mol.GetAtoms()):
        return mol
    if record.kind != "smiles":
        notes.append("hydrogens added")
    return Chem.AddHs(mol, addCoords=solid)


def _check_positions(mol: Chem.Mol) -> None:
    positions = mol.GetConformer().GetPositions().astype(np.float32)
    if not np.all(np.isfinite(positions)):
        raise SkipRecord("coordinates not finite")
    closest = closest_distance(positions)
    if closest < MIN_DISTANCE:
        raise SkipRecord("overlapping atoms", f"two atoms are {closest:.2f} angstrom apart")


def closest_distance(positions: NDArray[np.float32]) -> float:
    """The smallest distance between two of the (n, 3) positions, angstrom; infinity for one atom."""
    if len(positions) < 2:
        return np.inf
    apart = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    return float(apart[np.triu_indices(len(positions), 1)].min())


def _embed(mol: Chem.Mol, record: Record, rules: Rules, notes: list[str]) -> None:
    """One ETKDGv3 conformer, then MMFF94; a pure function of the molecule, the seed and the record's number."""
    deadline = time.monotonic() + rules.time_limit
    seed = (rules.seed * 1_000_003 + record.number) % (2**31 - 1)
    if not (_place(mol, seed, deadline, False) or _place(mol, seed, deadline, True)):
        late = time.monotonic() >= deadline
        raise SkipRecord("time limit" if late else "no conformer found")
    notes.append("conformers made")
    properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(mol)
    if properties is None:
        notes.append("conformers not relaxed (no MMFF94 types)")
        return
    field = rdForceFieldHelpers.MMFFGetMoleculeForceField(mol, properties)
    for _ in range(MMFF_ROUNDS):
        if field.Minimize(maxIts=MMFF_ITERATIONS) == 0:
            return
        if time.monotonic() >= deadline:
            raise SkipRecord("time limit", "in MMFF94")
    notes.append("conformers not fully relaxed")


def _place(mol: Chem.Mol, seed: int, deadline: float, random_start: bool) -> bool:
    left = deadline - time.monotonic()
    if left <= 0:
        return False
    settings = rdDistGeom.ETKDGv3()
    settings.randomSeed, settings.useRandomCoords = seed, random_start
    settings.timeout = max(1, round(left))
    return rdDistGeom.EmbedMolecule(mol, settings) >= 0


def _finish(mol: Chem.Mol, notes: list[str]) -> Cleaned:
    if any(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms()):
        notes.append("unpaired electrons (kept)")
    mol.GetConformer().Set3D(True)
    Chem.AssignStereochemistryFrom3D(mol)
    try:
        return Cleaned(from_rdkit(mol), canonical_smiles(mol), tuple(notes))
    except InputError as error:
        raise SkipRecord("sanitisation fails", str(error)) from error


def kekule_orders(
    numbers: NDArray[np.int8], charges: NDArray[np.int8], bonds: NDArray[np.int16], orders: NDArray[np.int8]
) -> NDArray[np.int8]:
    """(b,) orders 1 to 3 for the `bonds`, (b, 2), of a molecule some of whose `orders` are 4, aromatic.

    They come back as they are when there is no Kekule form.
    """
    types = {1: Chem.BondType.SINGLE, 2: Chem.BondType.DOUBLE, 3: Chem.BondType.TRIPLE, 4: Chem.BondType.AROMATIC}
    mol = Chem.RWMol()
    for number, charge in zip(numbers.tolist(), charges.tolist(), strict=True):
        atom = Chem.Atom(number)
        atom.SetFormalCharge(charge)
        atom.SetNoImplicit(True)
        mol.AddAtom(atom)
    try:
        for (i, j), order in zip(bonds.tolist(), orders.tolist(), strict=True):
            mol.AddBond(i, j, types[order])
            if order == 4:
                for part in (mol.GetAtomWithIdx(i), mol.GetAtomWithIdx(j), mol.GetBondBetweenAtoms(i, j)):
                    part.SetIsAromatic(True)
        mol.UpdatePropertyCache(strict=False)
        Chem.Kekulize(mol, clearAromaticFlags=True)
    except (KeyError, RuntimeError, ValueError):
        return orders
    return np.array([bond.GetBondTypeAsDouble() for bond in mol.GetBonds()], np.int8)


class _RdkitMessages(logging.Handler):
    """Collects what RDKit would print; in force in a worker process, where its log goes to Python's."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, entry: logging.LogRecord) -> None:
        text = re.sub(r"^\[[\d:]+\]\s*", "", entry.getMessage()).strip()
        if text and not text.startswith(("*", "-", "Warning")):
            self.lines.append(text)

    def __enter__(self) -> _RdkitMessages:
        logging.getLogger("rdkit").addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger("rdkit").removeHandler(self)
