"""Packed molecules as whole arrays: join, choose, check."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from multidiff.errors import InputError
from multidiff_molecules.chemistry import MIN_DISTANCE, flat_smiles, symbol
from multidiff_molecules.cleaning import Rules, kekule_orders
from multidiff_molecules.molecule import PackedMolecules
from multidiff_molecules.report import SPLITS

BLOCK = 1_000_000  # distances worked out at once
AROMATIC = 4  # bond order, as in MDL files


def join(packs: Sequence[PackedMolecules]) -> PackedMolecules:
    """One after the other."""
    first = [PackedMolecules.pack([], []), *packs]
    return PackedMolecules(
        atom_offsets=_joined_offsets([pack.atom_offsets for pack in first]),
        bond_offsets=_joined_offsets([pack.bond_offsets for pack in first]),
        **{name: np.concatenate([getattr(pack, name) for pack in first]) for name in _ROWS},
    )


def choose(pack: PackedMolecules, keep: NDArray[np.bool_]) -> PackedMolecules:
    """The molecules i with ``keep[i]``, (N,) truth values, in their order."""
    atoms, bonds = np.diff(pack.atom_offsets), np.diff(pack.bond_offsets)
    rows = {"atom": np.repeat(keep, atoms), "bond": np.repeat(keep, bonds), "molecule": keep}
    return PackedMolecules(
        atom_offsets=np.concatenate([[0], np.cumsum(atoms[keep])]).astype(np.int64),
        bond_offsets=np.concatenate([[0], np.cumsum(bonds[keep])]).astype(np.int64),
        **{name: getattr(pack, name)[rows[per]].astype(dtype) for name, (per, dtype) in _ROWS.items()},
    )


_ROWS = {
    "atomic_numbers": ("atom", np.int8),
    "positions": ("atom", np.float32),
    "formal_charges": ("atom", np.int8),
    "bond_index": ("bond", np.int16),
    "bond_order": ("bond", np.int8),
    "smiles": ("molecule", np.bytes_),
    "split": ("molecule", np.int8),
}


def _joined_offsets(offsets: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(np.concatenate([np.diff(one) for one in offsets]))]).astype(np.int64)


def load(path: Path) -> tuple[PackedMolecules, dict[str, NDArray]]:
    """A packed file, its arrays proven to fit each other, and the further arrays it holds (properties...).

    Files of other makers may give `positions_mA`, milli-angstrom, for `positions`, and aromatic bonds the order 4;
    these are kekulised (and stay 4 where that fails).

    Raises:
        InputError: it is damaged, lacks an array, or they do not fit.
    """
    arrays = _arrays(path)
    if "positions" not in arrays and "positions_mA" in arrays:
        arrays["positions"] = arrays.pop("positions_mA").astype(np.float32) * np.float32(1e-3)
    missing = [name for name in PackedMolecules.__dataclass_fields__ if name not in arrays]
    if missing:
        raise InputError(f"{path} has no array {', '.join(missing)}; give the SD files or SMILES it was made from")
    pack = PackedMolecules(**{name: arrays.pop(name) for name in PackedMolecules.__dataclass_fields__})
    _check_layout(pack, str(path))
    return (_kekulised(pack) if np.any(pack.bond_order == AROMATIC) else pack), arrays


def _arrays(path: Path) -> dict[str, NDArray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as error:  # numpy, zipfile and zlib have many
        raise InputError(f"{path} is not a packed molecule file or is damaged ({error})") from error


def _kekulised(pack: PackedMolecules) -> PackedMolecules:
    orders = pack.bond_order.copy()
    for i in np.flatnonzero(_any(orders == AROMATIC, pack.bond_offsets) & ~_loose_bonds(pack)):
        rows = slice(pack.bond_offsets[i], pack.bond_offsets[i + 1])
        atoms = slice(pack.atom_offsets[i], pack.atom_offsets[i + 1])
        orders[rows] = kekule_orders(
            pack.atomic_numbers[atoms], pack.formal_charges[atoms], pack.bond_index[rows], orders[rows]
        )
    return replace(pack, bond_order=orders)


def _check_layout(pack: PackedMolecules, name: str) -> None:
    """Raise InputError unless the arrays of `pack` fit each other; `name` is that of the file."""
    n, atoms, bonds = len(pack), len(pack.atomic_numbers), len(pack.bond_order)
    wanted = {
        "positions": (atoms, 3),
        "formal_charges": (atoms,),
        "bond_index": (bonds, 2),
        "bond_offsets": (n + 1,),
        "smiles": (n,),
        "split": (n,),
    }
    for array, shape in wanted.items():
        if getattr(pack, array).shape != shape:
            raise InputError(f"{name}: array {array} has shape {getattr(pack, array).shape}, not {shape}; pack it anew")
    for array, end in (("atom_offsets", atoms), ("bond_offsets", bonds)):
        offsets = getattr(pack, array)
        if offsets[0] != 0 or offsets[-1] != end or np.any(np.diff(offsets) < 0):
            raise InputError(f"{name}: array {array} must rise from 0 to {end}; pack it anew")
    if not np.isin(pack.split, range(len(SPLITS))).all():
        raise InputError(f"{name}: array split must hold 0 (train), 1 (validation) and 2 (test) only")


def faults(pack: PackedMolecules, rules: Rules) -> list[tuple[str, NDArray[np.bool_]]]:
    """Reasons to skip, each with (N,) truth values; a molecule with several counts under the first."""
    allowed = np.isin(pack.atomic_numbers, [z for z in range(1, 119) if symbol(z) in ("H", *rules.elements)])
    found = [
        ("no atoms", pack.sizes == 0),
        ("too many atoms", pack.sizes > rules.max_atoms),
        ("element not allowed", _any(~allowed, pack.atom_offsets)),
        ("coordinates not finite", _any(~np.isfinite(pack.positions).all(axis=1), pack.atom_offsets)),
        ("malformed bonds", _bad_bonds(pack)),
    ]
    sound = ~np.any([bad for _, bad in found], axis=0)
    found += [("more than one fragment", _many_fragments(pack, sound)), ("overlapping atoms", _overlaps(pack, sound))]
    seen = np.zeros(len(pack), bool)
    result = []
    for reason, bad in found:
        result.append((reason, bad & ~seen))
        seen |= bad
    return result


def _any(bad_rows: ArrayLike, offsets: NDArray[np.int64]) -> NDArray[np.bool_]:
    counts = np.concatenate([[0], np.cumsum(np.asarray(bad_rows, bool))])
    return counts[offsets[1:]] > counts[offsets[:-1]]


def _bad_bonds(pack: PackedMolecules) -> NDArray[np.bool_]:
    return _loose_bonds(pack) | _any(~np.isin(pack.bond_order, (1, 2, 3)), pack.bond_offsets)


def _loose_bonds(pack: PackedMolecules) -> NDArray[np.bool_]:
    """Molecules with a bond to an atom they do not have, or of an atom to itself."""
    sizes = np.repeat(pack.sizes, np.diff(pack.bond_offsets))
    first, second = pack.bond_index.astype(np.int64).T
    inside = (first >= 0) & (second >= 0) & (first < sizes) & (second < sizes) & (first != second)
    return _any(~inside, pack.bond_offsets)


def _many_fragments(pack: PackedMolecules, sound: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Molecules of more than one fragment, of the `sound` ones."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    bonded = np.repeat(sound, np.diff(pack.bond_offsets))
    first = np.repeat(pack.atom_offsets[:-1], np.diff(pack.bond_offsets))
    i, j = (pack.bond_index.astype(np.int64) + first[:, None])[bonded].T
    atoms = len(pack.atomic_numbers)
    _, label = connected_components(coo_array((np.ones(len(i), np.int8), (i, j)), shape=(atoms, atoms)), directed=False)
    owner = np.repeat(np.arange(len(pack)), pack.sizes)
    fragments = np.bincount(owner[np.unique(label, return_index=True)[1]], minlength=len(pack))
    return sound & (fragments > 1)


def _overlaps(pack: PackedMolecules, sound: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Molecules with two atoms closer than MIN_DISTANCE, of the `sound` ones; all of one size at once."""
    bad = np.zeros(len(pack), bool)
    for size in np.unique(pack.sizes[sound & (pack.sizes > 1)]):
        same = np.flatnonzero(sound & (pack.sizes == size))
        i, j = np.triu_indices(size, 1)
        step = max(1, BLOCK // len(i))
        for some in (same[k : k + step] for k in range(0, len(same), step)):
            positions = pack.positions[pack.atom_offsets[some][:, None] + np.arange(size)]
            squared = np.square(positions[:, i] - positions[:, j]).sum(-1)
            bad[some] = squared.min(1) < MIN_DISTANCE**2
    return bad


def split_of(pack: PackedMolecules, shares: tuple[float, ...], seed: int) -> NDArray[np.int8]:
    """(N,) 0 train, 1 validation, 2 test, from a hash of the SMILES without stereo and `seed`.

    Duplicates and stereo isomers never fall into different parts, and a molecule keeps its part when others join.
    """
    edges = np.cumsum(shares[:-1])
    return np.array([np.searchsorted(edges, _draw(s.decode(), seed), side="right") for s in pack.smiles], np.int8)


def _draw(smiles: str, seed: int) -> float:
    key = f"{seed}:{flat_smiles(smiles) or smiles}".encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") / 2.0**64
