"""The data module of molecules: batches in an order that a resumed run continues."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np

from multidiff.errors import InputError
from multidiff.lightning.module import Batch
from multidiff_molecules.data import BatchOrder, Bucket, buckets
from multidiff_molecules.molecule import PackedMolecules
from multidiff_molecules.representation import Vocabulary

TRAIN, VALIDATION, TEST = 0, 1, 2
SPLITS = {"fit": (TRAIN, VALIDATION), "validate": (VALIDATION,), "test": (TEST,), "predict": ()}


class MoleculeData(lightning.LightningDataModule):
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
        super().__init__()
        self.path, self.batch_size, self.seed, self.num_samples = Path(path), batch_size, seed, num_samples
        self.edges = tuple(edges) if edges else None
        self.buckets: dict[int, list[Bucket]] = {}

    def setup(self, stage: str) -> None:
        """Read the file once."""
        molecules = PackedMolecules.load(self.path)
        self._module().sizes = size_histogram(molecules)
        for split in SPLITS[stage]:
            sizes = molecules.sizes[molecules.split == split]
            if not len(sizes) and (stage, split) == ("fit", VALIDATION):
                continue
            edges = merged_edges(sizes, self._edges(sizes), self.batch_size if split == TRAIN else 1)
            self.buckets[split] = buckets(molecules, self._module().vocabulary, split, edges)

    def _edges(self, sizes: np.ndarray) -> tuple[int, ...]:
        given = self.edges or ()
        beyond = sizes[sizes > max(given, default=0)]
        return (*given, *quantile_edges(beyond)) if len(beyond) else given

    def train_dataloader(self) -> Loader:
        assert self.trainer is not None
        loop = self.trainer.fit_loop.epoch_loop
        return self._loader(TRAIN, lambda: loop.batch_progress.total.ready)

    def val_dataloader(self) -> Loader | list[Any]:
        return self._loader(VALIDATION) if VALIDATION in self.buckets else []

    def test_dataloader(self) -> Loader:
        return self._loader(TEST)

    def predict_dataloader(self) -> Numbers:
        return Numbers(self.num_samples, self.batch_size)

    def _loader(self, split: int, consumed: Callable[[], int] | None = None) -> Loader:
        assert self.trainer is not None
        held, training = self.buckets[split], consumed is not None
        order = BatchOrder([len(b) for b in held], self.batch_size, self.seed, drop_last=training)
        module = self._module()
        part = (self.trainer.global_rank, self.trainer.world_size)
        return Loader([b.to(module.device) for b in held], order, module.vocabulary, consumed, part)

    def _module(self) -> Any:
        """The module being trained, which says what can be spelled and is told the sizes."""
        assert self.trainer is not None
        return self.trainer.lightning_module


@dataclass(frozen=True)
class Numbers:
    """Sample numbers, a batch at a time."""

    total: int
    batch_size: int

    def __len__(self) -> int:
        return -(-self.total // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for first in range(0, self.total, self.batch_size):
            yield list(range(first, min(first + self.batch_size, self.total)))


class Loader:
    """Batches cut from tensors that stay on the device.

    The training stream goes on for ever, one shuffled epoch after another; where it starts follows from the number of
    batches that the trainer has taken so far, which every checkpoint holds. Evaluation goes through the data once.

    Args:
        held: buckets, on the device.
        order: of the batches.
        vocabulary: what the states are spelled in.
        consumed: how many training batches were taken so far; None for evaluation.
        part: rank and number of processes; each takes its share of every batch.
    """

    def __init__(
        self,
        held: Sequence[Bucket],
        order: BatchOrder,
        vocabulary: Vocabulary,
        consumed: Callable[[], int] | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.held, self.order, self.vocabulary = held, order, vocabulary
        self.consumed, self.part = consumed, part

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Batch]:
        rank, processes = self.part
        for k, rows in self._stream():
            mine = rows[rank::processes].to(self.held[k].sizes.device)
            yield *self.held[k].batch(mine, self.vocabulary), None

    def _stream(self) -> Iterator[tuple[int, Any]]:
        if self.consumed is None:
            yield from self.order.epoch(0)
            return
        epoch, done = divmod(self.consumed(), len(self))
        while True:
            for place, batch in enumerate(self.order.epoch(epoch)):
                if place >= done:
                    yield batch
            epoch, done = epoch + 1, 0


def size_histogram(molecules: PackedMolecules, split: int = TRAIN) -> dict[str, int]:
    """Number of atoms, as text, -> molecules of that size in a split."""
    sizes, counts = np.unique(molecules.sizes[molecules.split == split], return_counts=True)
    return {str(size): int(count) for size, count in zip(sizes, counts, strict=True)}


def quantile_edges(sizes: np.ndarray, count: int = 6) -> tuple[int, ...]:
    """Bucket sizes that share the molecules out evenly, the largest molecule included."""
    if not len(sizes):
        return (1,)
    levels = np.arange(1, count + 1) / count
    return tuple(sorted({int(edge) for edge in np.quantile(sizes, levels, method="inverted_cdf")}))


def merged_edges(sizes: np.ndarray, edges: Sequence[int], batch_size: int) -> tuple[int, ...]:
    """`edges` less those whose bucket would not fill a batch: its molecules go to the next, and none is left out.

    Raises:
        InputError: there are fewer molecules than a batch holds.
    """
    if len(sizes) < batch_size:
        raise InputError(f"batch size {batch_size} is larger than the {len(sizes)} molecules of the data set")
    kept: list[int] = []
    waiting = 0
    for low, high in zip((0, *edges), edges, strict=False):
        waiting += int(((sizes > low) & (sizes <= high)).sum())
        if waiting >= batch_size:
            kept.append(high)
            waiting = 0
    if waiting and kept:
        kept[-1] = edges[-1]
    return tuple(kept) or (edges[-1],)
