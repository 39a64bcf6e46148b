"""The data module of molecules."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from multidiff.lightning.data import SPLITS, TRAIN, VALIDATION, BucketedData, Held, merged_edges, quantile_edges
from multidiff.lightning.module import Batch
from multidiff_molecules.data import Bucket, buckets
from multidiff_molecules.molecule import PackedMolecules
from multidiff_molecules.representation import Vocabulary


class MoleculeData(BucketedData):
    """A packed file of molecules, held on the device as tensors.

    Args:
        path: what `multidiff prepare molecules` wrote.
        batch_size: molecules a step, all devices together.
        edges: bucket sizes in atoms, ascending; beyond the last, and by default, they are chosen from the data.
        seed: of the order of the batches.
        num_samples: molecules that `predict` makes.
    """

    def __init__(
        self,
        path: str,
        batch_size: int = 64,
        edges: Sequence[int] | None = None,
        seed: int = 0,
        num_samples: int = 16,
    ) -> None:
        super().__init__(path, batch_size, seed, num_samples)
        self.edges = tuple(edges) if edges else None
        self.buckets: dict[int, list[Bucket]] = {}

    def setup(self, stage: str) -> None:
        """Read the file once."""
        molecules = PackedMolecules.load(self.path)
        self.module().sizes = size_histogram(molecules)
        for split in SPLITS[stage]:
            sizes = molecules.sizes[molecules.split == split]
            if not len(sizes) and (stage, split) == ("fit", VALIDATION):
                continue
            edges = merged_edges(sizes, self._edges(sizes), self.batch_size if split == TRAIN else 1)
            self.buckets[split] = buckets(molecules, self.module().vocabulary, split, edges)

    def _edges(self, sizes: np.ndarray) -> tuple[int, ...]:
        given = self.edges or ()
        beyond = sizes[sizes > max(given, default=0)]
        return (*given, *quantile_edges(beyond)) if len(beyond) else given

    def splits(self) -> Sequence[int]:
        return tuple(self.buckets)

    def held(self, split: int) -> Held:
        return hold([b.to(self.module().device) for b in self.buckets[split]], self.module().vocabulary)


def hold(held: Sequence[Bucket], vocabulary: Vocabulary) -> Held:
    """Buckets as the loader wants them; nothing is random in making a batch of molecules."""

    def cut(bucket: int, rows: torch.Tensor, rng: object) -> Batch:
        mine = held[bucket]
        return *mine.batch(rows.to(mine.sizes.device), vocabulary), None

    return Held([len(b) for b in held], cut)


def size_histogram(molecules: PackedMolecules, split: int = TRAIN) -> dict[str, int]:
    """Number of atoms, as text, -> molecules of that size in a split."""
    sizes, counts = np.unique(molecules.sizes[molecules.split == split], return_counts=True)
    return {str(size): int(count) for size, count in zip(sizes, counts, strict=True)}
