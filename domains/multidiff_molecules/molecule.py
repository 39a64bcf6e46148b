"""A molecule as arrays, and many of them packed into one file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from multidiff.errors import InputError
from multidiff.files import atomic_path


@dataclass(frozen=True, eq=False)
class Molecule:
    """One molecule of n atoms, hydrogens explicit, bonds kekulised.

    Attributes:
        atomic_numbers: (n,) int8.
        positions: (n, 3) float32, angstrom.
        formal_charges: (n,) int8, elementary charges.
        bonds: (n, n) int8, symmetric; 0 no bond, 1 single, 2 double, 3 triple.
    """

    atomic_numbers: NDArray[np.int8]
    positions: NDArray[np.float32]
    formal_charges: NDArray[np.int8]
    bonds: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.atomic_numbers)


@dataclass(frozen=True, eq=False)
class PackedMolecules:
    """N molecules, A atoms and B bonds end to end; on disk one `.npz` file.

    Atoms of molecule i are rows ``atom_offsets[i]:atom_offsets[i + 1]``, its bonds rows
    ``bond_offsets[i]:bond_offsets[i + 1]``; each bond is listed once, with atom numbers inside the molecule.

    Attributes:
        atom_offsets: (N + 1,) int64.       bond_offsets: (N + 1,) int64.
        atomic_numbers: (A,) int8.          bond_index: (B, 2) int16.
        positions: (A, 3) float32, angstrom. bond_order: (B,) int8, 1, 2 or 3.
        formal_charges: (A,) int8.          smiles: (N,) canonical SMILES, bytes.
        split: (N,) int8, 0 train, 1 validation, 2 test.
    """

    atom_offsets: NDArray[np.int64]
    atomic_numbers: NDArray[np.int8]
    positions: NDArray[np.float32]
    formal_charges: NDArray[np.int8]
    bond_offsets: NDArray[np.int64]
    bond_index: NDArray[np.int16]
    bond_order: NDArray[np.int8]
    smiles: NDArray[np.bytes_]
    split: NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.atom_offsets) - 1

    def __iter__(self) -> Iterator[Molecule]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> Molecule:
        atoms = slice(self.atom_offsets[i], self.atom_offsets[i + 1])
        rows = slice(self.bond_offsets[i], self.bond_offsets[i + 1])
        n = int(self.atom_offsets[i + 1] - self.atom_offsets[i])
        bonds = np.zeros((n, n), np.int8)
        first, second = self.bond_index[rows].T
        bonds[first, second] = bonds[second, first] = self.bond_order[rows]
        return Molecule(self.atomic_numbers[atoms], self.positions[atoms], self.formal_charges[atoms], bonds)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(N,) atoms in each molecule."""
        return np.diff(self.atom_offsets)

    def save(self, path: str | Path, **extra: NDArray[np.generic]) -> None:
        """Write all arrays (and `extra` ones) to `path`, atomically and compressed."""
        arrays = {name: getattr(self, name) for name in self.__dataclass_fields__}
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays, **extra)

    @classmethod
    def load(cls, path: str | Path) -> PackedMolecules:
        """Read a file that `multidiff prepare molecules` wrote.

        Raises:
            InputError: the file is missing, damaged, or lacks one of the arrays.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls(**{name: arrays[name] for name in cls.__dataclass_fields__})
        except FileNotFoundError:
            raise InputError(
                f"no data set at {path}; make one with 'multidiff prepare molecules INPUT {path}'"
            ) from None
        except KeyError as error:
            raise InputError(f"{path} has no array {error}; pack it with 'multidiff prepare molecules'") from error
        except Exception as error:
            raise InputError(f"{path} is not a packed molecule file or is damaged ({error})") from error

    @classmethod
    def pack(
        cls, molecules: Iterable[Molecule], smiles: Iterable[str], split: Iterable[int] | None = None
    ) -> PackedMolecules:
        """Join molecules end to end; `split` defaults to all train."""
        mols = list(molecules)
        edges = [np.argwhere(np.triu(m.bonds, 1) > 0) for m in mols]
        orders = [m.bonds[tuple(e.T)] for m, e in zip(mols, edges, strict=True)]
        return cls(
            atom_offsets=_offsets([len(m) for m in mols]),
            atomic_numbers=_join([m.atomic_numbers for m in mols], (0,), np.int8),
            positions=_join([m.positions for m in mols], (0, 3), np.float32),
            formal_charges=_join([m.formal_charges for m in mols], (0,), np.int8),
            bond_offsets=_offsets([len(e) for e in edges]),
            bond_index=_join(edges, (0, 2), np.int16),
            bond_order=_join(orders, (0,), np.int8),
            smiles=np.array([s.encode() for s in smiles], dtype=np.bytes_),
            split=np.zeros(len(mols), np.int8) if split is None else np.array(list(split), np.int8),
        )


def _offsets(lengths: list[int]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)


def _join(rows: list[NDArray], empty: tuple[int, ...], dtype: type) -> NDArray:
    return np.concatenate([np.zeros(empty, dtype), *rows]).astype(dtype)
