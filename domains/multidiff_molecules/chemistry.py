"""Between arrays and RDKit, and what makes a molecule valid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem, rdBase

from multidiff.errors import InputError
from multidiff_molecules.molecule import Molecule

# Bonds an atom may have, hydrogens explicit and orders kekulised, by (element, formal charge). Neutral carbon has four
# (a carbocation would be a loophole for three); hypervalent P and S as in phosphates and sulfones; N with five
# (uncharged nitro) is refused. QM9 and ZINC250k are inside this table without an exception.
VALENCIES: dict[tuple[str, int], tuple[int, ...]] = {
    ("H", 0): (1,), ("F", 0): (1,), ("Cl", 0): (1,), ("Br", 0): (1,), ("I", 0): (1,),
    ("B", 0): (3,), ("B", -1): (4,), ("Al", 0): (3,), ("Si", 0): (4,),
    ("C", 0): (4,), ("C", -1): (3,),
    ("N", 0): (3,), ("N", -1): (2,), ("N", 1): (4,),
    ("O", 0): (2,), ("O", -1): (1,), ("O", 1): (3,),
    ("P", 0): (3, 5), ("P", 1): (4,), ("As", 0): (3, 5),
    ("S", 0): (2, 4, 6), ("S", -1): (1,), ("S", 1): (3,), ("Se", 0): (2, 4, 6),
    ("F", -1): (0,), ("Cl", -1): (0,), ("Br", -1): (0,), ("I", -1): (0,),
    ("Li", 1): (0,), ("Na", 1): (0,), ("K", 1): (0,),
}  # fmt: skip

MIN_DISTANCE = 0.5  # angstrom; the shortest bond there is, H-H, has 0.74
MAX_COORDINATE = 9999.0  # angstrom; beyond it the columns of a mol block run together

_MAX_CHARGE, _MAX_VALENCY = 3, 8
_ORDERS = (None, Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE)
_ORDER_OF = {bond_type: order for order, bond_type in enumerate(_ORDERS) if bond_type is not None}
_PERIODIC = Chem.GetPeriodicTable()


def symbol(atomic_number: int) -> str:
    """The element's symbol; `X` where there is no such element."""
    return _PERIODIC.GetElementSymbol(atomic_number) if 1 <= atomic_number <= 118 else "X"


def _allowed_table() -> NDArray[np.bool_]:
    """VALENCIES as (119, charges, valencies) truth values, so that whole molecules are looked up at once."""
    table = np.zeros((119, 2 * _MAX_CHARGE + 1, _MAX_VALENCY + 1), bool)
    for (element, charge), valencies in VALENCIES.items():
        table[_PERIODIC.GetAtomicNumber(element), charge + _MAX_CHARGE, list(valencies)] = True
    return table


_ALLOWED = _allowed_table()


def stable_atoms(molecule: Molecule) -> NDArray[np.bool_]:
    """(n,) whether each atom has a number of bonds that VALENCIES allows for its element and formal charge."""
    z, charge = molecule.atomic_numbers.astype(int), molecule.formal_charges.astype(int)
    valency = molecule.bonds.sum(axis=1, dtype=int)
    known = (z >= 1) & (z <= 118) & (abs(charge) <= _MAX_CHARGE) & (valency >= 0) & (valency <= _MAX_VALENCY)
    clip = [np.where(known, index, 0) for index in (z, charge + _MAX_CHARGE, valency)]
    return np.asarray(known & _ALLOWED[tuple(clip)], bool)


def to_rdkit(molecule: Molecule, sanitise: bool = True) -> Chem.Mol:
    """The RDKit molecule: hydrogens explicit, no implicit ones added, one 3-D conformer.

    Args:
        sanitise: perceive rings and aromaticity and assign stereo from the coordinates; with False atoms, charges
            and kekulised bonds stay exactly as in the arrays and nothing is checked.

    Raises:
        Chem.MolSanitizeException: (a ValueError) RDKit refuses the molecule; `check` gives the reason instead.
    """
    mol = Chem.RWMol()
    for z, charge in zip(molecule.atomic_numbers.tolist(), molecule.formal_charges.tolist(), strict=True):
        atom = Chem.Atom(z)
        atom.SetFormalCharge(charge)
        atom.SetNoImplicit(True)
        mol.AddAtom(atom)
    first, second = np.nonzero(np.triu(molecule.bonds, 1))
    for i, j, order in zip(first.tolist(), second.tolist(), molecule.bonds[first, second].tolist(), strict=True):
        mol.AddBond(i, j, _ORDERS[order])
    conformer = Chem.Conformer(len(molecule))
    conformer.Set3D(True)
    conformer.SetPositions(molecule.positions.astype(np.float64))
    mol.AddConformer(conformer)
    plain = mol.GetMol()
    if sanitise:
        with rdBase.BlockLogs():
            Chem.SanitizeMol(plain)
            Chem.AssignStereochemistryFrom3D(plain)
    return plain


def from_rdkit(mol: Chem.Mol) -> Molecule:
    """The arrays of an RDKit molecule; aromatic bonds are kekulised.

    Raises:
        InputError: no atoms, no 3-D conformer, hydrogens that are only implied, aromatic bonds without a Kekule form,
            or bonds that are not single, double or triple.
    """
    if mol.GetNumAtoms() == 0:
        raise InputError("the molecule has no atoms")
    if mol.GetNumConformers() == 0 or not mol.GetConformer().Is3D():
        raise InputError("the molecule has no 3-D coordinates; embed it first (RDKit: AllChem.EmbedMolecule)")
    if any(not atom.NeedsUpdatePropertyCache() and atom.GetTotalNumHs() for atom in mol.GetAtoms()):
        raise InputError("the molecule has implicit hydrogens; add them first (RDKit: AddHs(mol, addCoords=True))")
    atoms = list(mol.GetAtoms())
    return Molecule(
        atomic_numbers=np.array([atom.GetAtomicNum() for atom in atoms], np.int8),
        positions=mol.GetConformer().GetPositions().astype(np.float32),
        formal_charges=np.array([atom.GetFormalCharge() for atom in atoms], np.int8),
        bonds=_bond_matrix(_kekulised(mol)),
    )


def _kekulised(mol: Chem.Mol) -> Chem.Mol:
    if not any(bond.GetIsAromatic() or bond.GetBondType() == Chem.BondType.AROMATIC for bond in mol.GetBonds()):
        return mol
    copy = Chem.Mol(mol)
    try:
        with rdBase.BlockLogs():
            copy.UpdatePropertyCache(strict=False)
            Chem.Kekulize(copy, clearAromaticFlags=True)
    except ValueError as error:
        raise InputError("the aromatic bonds have no Kekule form; give single and double bonds instead") from error
    return copy


def _bond_matrix(mol: Chem.Mol) -> NDArray[np.int8]:
    bonds = np.zeros((mol.GetNumAtoms(),) * 2, np.int8)
    for bond in mol.GetBonds():
        order = _ORDER_OF.get(bond.GetBondType())
        if order is None:
            raise InputError(f"a bond of type {bond.GetBondType()}; only single, double and triple bonds are known")
        i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        bonds[i, j] = bonds[j, i] = order
    return bonds


def check(molecule: Molecule) -> tuple[Chem.Mol | None, str]:
    """Why a molecule is not valid: `(mol, '')` for a valid one.

    Valid means: coordinates finite and no two atoms within MIN_DISTANCE, RDKit sanitises it as generated, one fragment,
    no radical electrons, and every atom as VALENCIES wants it.

    Returns:
        The sanitised molecule with stereo from the coordinates (None where RDKit refuses it or the arrays describe no
        molecule at all), and the reason, a short text fit to be counted.
    """
    reason = _malformed(molecule)
    if reason:
        return None, reason
    mol = to_rdkit(molecule, sanitise=False)
    with rdBase.BlockLogs():
        failed = Chem.SanitizeMol(mol, catchErrors=True)
        if failed != Chem.SanitizeFlags.SANITIZE_NONE:
            return None, _wrong_valency(molecule) or f"RDKit: {failed.name.removeprefix('SANITIZE_').lower()}"
        Chem.AssignStereochemistryFrom3D(mol)
    return mol, _invalid(molecule, mol)


def _malformed(molecule: Molecule) -> str:
    """What keeps the arrays from being a molecule of any kind."""
    z, bonds = molecule.atomic_numbers, molecule.bonds
    if not len(z):
        return "no atoms"
    if not np.isfinite(molecule.positions).all():
        return "non-finite coordinates"
    if abs(molecule.positions).max() > MAX_COORDINATE:
        return "coordinates out of range"
    if z.min() < 1 or z.max() > 118:
        return "unknown element"
    if bonds.min() < 0 or bonds.max() > 3 or (bonds != bonds.T).any() or bonds.diagonal().any():
        return "malformed bonds"
    return ""


def _invalid(molecule: Molecule, mol: Chem.Mol) -> str:
    """What is wrong with a molecule that RDKit sanitises."""
    if len(Chem.GetMolFrags(mol)) > 1:
        return "not connected"
    if any(atom.GetNumRadicalElectrons() for atom in mol.GetAtoms()):
        return "radical electrons"
    return _wrong_valency(molecule) or ("overlapping atoms" if _overlap(molecule) else "")


def _wrong_valency(molecule: Molecule) -> str:
    """The first atom that VALENCIES does not allow, as in `valency: C has 5`."""
    wrong = np.flatnonzero(~stable_atoms(molecule))
    if not len(wrong):
        return ""
    i = wrong[0]
    charge = int(molecule.formal_charges[i])
    sign = f"({charge:+d})" if charge else ""
    return f"valency: {symbol(int(molecule.atomic_numbers[i]))}{sign} has {molecule.bonds[i].sum(dtype=int)}"


def _overlap(molecule: Molecule) -> bool:
    if len(molecule) < 2:
        return False
    apart = molecule.positions[:, None].astype(float) - molecule.positions[None]
    squared = (apart**2).sum(-1)[np.triu_indices(len(molecule), 1)]
    return bool(squared.min() < MIN_DISTANCE**2)


_REMOVE_HS = Chem.RemoveHsParameters()
_REMOVE_HS.removeDefiningBondStereo = True  # else an imine keeps its hydrogen and has a SMILES unlike any data set's
_REMOVE_HS.removeIsotopes = False


def without_hydrogens(mol: Chem.Mol) -> Chem.Mol:
    """A copy with hydrogens as counts on the heavy atoms."""
    with rdBase.BlockLogs():
        return Chem.RemoveHs(mol, _REMOVE_HS)


def canonical_smiles(mol: Chem.Mol, stereo: bool = True) -> str:
    """RDKit's canonical SMILES of a sanitised molecule, hydrogens implied."""
    return str(Chem.MolToSmiles(without_hydrogens(mol), isomericSmiles=stereo))


def flat_smiles(smiles: str) -> str | None:
    """A SMILES without its stereo marks, canonical again; None when it cannot be read."""
    if not any(mark in smiles for mark in "@/\\"):
        return smiles
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
    return None if mol is None else str(Chem.MolToSmiles(mol, isomericSmiles=False))
