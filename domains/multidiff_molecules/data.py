"""Batches of molecules of like size, cut on the device from tensors that stay there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from multidiff.errors import InputError
from multidiff.space import Product
from multidiff.state import Parts
from multidiff_molecules.molecule import PackedMolecules
from multidiff_molecules.representation import Vocabulary, encode, space


@dataclass(frozen=True, eq=False)
class Bucket:
    """All molecules of up to `padded` atoms, padded: positions (M, N, 3), atoms and charges (M, N), bonds (M, N, N)."""

    padded: int
    sizes: Tensor
    positions: Tensor
    atoms: Tensor
    charges: Tensor
    bonds: Tensor

    def __len__(self) -> int:
        return len(self.sizes)

    def to(self, device: torch.device | str) -> Bucket:
        """The same bucket on another device."""
        moved = (getattr(self, name).to(device) for name in ("sizes", "positions", "atoms", "charges", "bonds"))
        return Bucket(self.padded, *moved)

    def batch(self, rows: Tensor, vocabulary: Vocabulary) -> tuple[Parts, Product]:
        """Clean states of these rows, and their space."""
        where = space(self.sizes[rows], self.padded)
        state = encode(vocabulary, self.positions[rows], self.atoms[rows], self.charges[rows], self.bonds[rows], where)
        return state, where


def buckets(
    molecules: PackedMolecules, vocabulary: Vocabulary, split: int, edges: Sequence[int] = (16, 18, 20, 24, 29)
) -> list[Bucket]:
    """Molecules of one split, sorted into buckets by size; larger than the last edge is an error, never dropped."""
    chosen = np.flatnonzero(molecules.split == split)
    if not chosen.size:
        raise InputError(f"the data set has no molecule in split {split} (0 train, 1 validation, 2 test)")
    largest = int(molecules.sizes[chosen].max())
    if largest > edges[-1]:
        raise InputError(f"a molecule has {largest} atoms, the largest bucket holds {edges[-1]}: add a larger edge")
    home = np.searchsorted(np.array(edges), molecules.sizes[chosen])
    atoms = vocabulary.element_classes(molecules.atomic_numbers)
    charges = vocabulary.charge_classes(molecules.formal_charges)
    made = (_bucket(molecules, atoms, charges, chosen[home == k], edge) for k, edge in enumerate(edges))
    return [bucket for bucket in made if len(bucket)]


def _bucket(
    molecules: PackedMolecules, atoms: np.ndarray, charges: np.ndarray, rows: np.ndarray, padded: int
) -> Bucket:
    sizes = molecules.sizes[rows]
    sample, place = _ragged(sizes)
    source = molecules.atom_offsets[rows][sample] + place
    bond_counts = np.diff(molecules.bond_offsets)[rows]
    bond_sample, bond_place = _ragged(bond_counts)
    bond_source = molecules.bond_offsets[rows][bond_sample] + bond_place
    first, second = molecules.bond_index[bond_source].astype(np.int64).T
    positions = np.zeros((len(rows), padded, 3), np.float32)
    classes = np.zeros((2, len(rows), padded), np.int8)
    bonds = np.zeros((len(rows), padded, padded), np.int8)
    positions[sample, place] = molecules.positions[source]
    classes[0, sample, place], classes[1, sample, place] = atoms[source], charges[source]
    bonds[bond_sample, first, second] = bonds[bond_sample, second, first] = molecules.bond_order[bond_source]
    arrays = (sizes, positions, classes[0], classes[1], bonds)
    return Bucket(padded, *(torch.from_numpy(np.ascontiguousarray(a)) for a in arrays))


def _ragged(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and place in the row of every entry of rows with these lengths."""
    row = np.repeat(np.arange(len(lengths)), lengths)
    return row, np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
