"""Batches of molecules of like size, cut on the device from tensors that stay there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from multidiff.errors import InputError
from multidiff.random import fold
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


class BatchOrder:
    """The batches of every epoch: a pure function of (seed, epoch), so that a resumed run sees the same ones.

    Args:
        lengths: rows in each bucket.
        batch_size: rows a batch; what is left over in a bucket at the end of an epoch is left out when `drop_last`.
        shuffle: whether rows and batches are shuffled.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, seed: int = 0, shuffle: bool = True, drop_last: bool = True
    ) -> None:
        if batch_size < 1:
            raise InputError(f"batch size {batch_size} is not allowed: at least 1")
        self.lengths, self.batch_size, self.seed = list(lengths), batch_size, seed
        self.shuffle, self.drop_last = shuffle, drop_last
        if not len(self):
            raise InputError(f"batch size {batch_size} is larger than every bucket {self.lengths}: use a smaller one")

    def __len__(self) -> int:
        extra = 0 if self.drop_last else self.batch_size - 1
        return sum((n + extra) // self.batch_size for n in self.lengths)

    def epoch(self, epoch: int) -> Iterator[tuple[int, Tensor]]:
        """(bucket, rows) of each batch of the epoch, in order."""
        generator = torch.Generator().manual_seed(fold(self.seed, epoch))
        batches: list[tuple[int, Tensor]] = []
        for k, n in enumerate(self.lengths):
            rows = torch.randperm(n, generator=generator) if self.shuffle else torch.arange(n)
            parts = rows.split(self.batch_size)
            batches += [(k, part) for part in parts if len(part) == self.batch_size or not self.drop_last]
        order = torch.randperm(len(batches), generator=generator) if self.shuffle else torch.arange(len(batches))
        return (batches[i] for i in order.tolist())
