"""Batches of samples of like length, in an order that a resumed run continues."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from multidiff.errors import InputError
from multidiff.lightning.module import Batch
from multidiff.random import Rng, fold

TRAIN, VALIDATION, TEST = 0, 1, 2
SPLITS = {"fit": (TRAIN, VALIDATION), "validate": (VALIDATION,), "test": (TEST,), "predict": ()}
_CUTTING = 0xC077

Cut = Callable[[int, Tensor, "Rng | None"], Any]
"""(bucket, rows in it, random numbers of the batch in training and None in evaluation) -> a batch."""

Planned = tuple[int, int, Tensor]
"""Number of a batch, its bucket, rows in it."""


def _as_it_is(made: Any) -> Any:
    return made


@dataclass(frozen=True)
class Held:
    """A split of a data set, held on the device.

    Attributes:
        lengths: samples in each bucket.
        cut: makes a batch of some of them.
        ready: brings what `cut` made to the device, where that is left to do.
        num_workers: processes that cut training batches ahead of their use; 0 cuts each when it is asked for. With any
            number `cut` must be picklable and keep to the CPU.
    """

    lengths: Sequence[int]
    cut: Cut
    ready: Callable[[Any], Batch] = _as_it_is
    num_workers: int = 0


class BucketedData(lightning.LightningDataModule):
    """Base of the domains' data modules: one packed file, its splits held in buckets of like length.

    Args:
        path: what `multidiff prepare` wrote.
        batch_size: samples a step, all devices together.
        seed: of the order of the batches and of what is random in making them.
        num_samples: that `predict` makes.
    """

    def __init__(self, path: str, batch_size: int, seed: int, num_samples: int) -> None:
        super().__init__()
        self.path, self.batch_size, self.seed, self.num_samples = Path(path), batch_size, seed, num_samples

    def splits(self) -> Sequence[int]:
        """The splits that are there; training goes without validation where there is none."""
        raise NotImplementedError

    def held(self, split: int) -> Held:
        """The samples of a split on the module's device."""
        raise NotImplementedError

    def train_dataloader(self) -> Loader:
        assert self.trainer is not None
        loop = self.trainer.fit_loop.epoch_loop
        return self._loader(TRAIN, lambda: loop.batch_progress.total.ready)

    def val_dataloader(self) -> Loader | list[Any]:
        return self._loader(VALIDATION) if VALIDATION in self.splits() else []

    def test_dataloader(self) -> Loader:
        return self._loader(TEST)

    def predict_dataloader(self) -> Numbers:
        return Numbers(self.num_samples, self.batch_size)

    def _loader(self, split: int, consumed: Callable[[], int] | None = None) -> Loader:
        assert self.trainer is not None
        held = self.held(split)
        order = BatchOrder(held.lengths, self.batch_size, self.seed, drop_last=consumed is not None)
        return Loader(held, order, consumed, (self.trainer.global_rank, self.trainer.world_size))

    def module(self) -> Any:
        """The module being trained, which says what can be spelled and is told what the data set has."""
        assert self.trainer is not None
        return self.trainer.lightning_module


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
    """Batches cut from what stays on the device.

    The training stream goes on for ever, one shuffled epoch after another; where it starts follows from the number of
    batches that the trainer has taken so far, which every checkpoint holds. Evaluation goes through the data once.

    Args:
        held: the samples.
        order: of the batches.
        consumed: how many training batches were taken so far; None for evaluation.
        part: rank and number of processes; each takes its share of every batch.
    """

    def __init__(
        self,
        held: Held,
        order: BatchOrder,
        consumed: Callable[[], int] | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.held, self.order = held, order
        self.consumed, self.part = consumed, part

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Batch]:
        cutting = Cutting(self.held.cut, None if self.consumed is None else self.order.seed, self.part)
        if self.consumed is None or not self.held.num_workers:
            made: Iterable[Any] = map(cutting.__getitem__, self._planned())
        else:
            planned: Any = self._planned()
            made = DataLoader(
                cutting,
                batch_size=None,
                sampler=planned,
                num_workers=self.held.num_workers,
                collate_fn=_as_it_is,
                worker_init_fn=_deaf,
            )
        return map(self.held.ready, made)

    def _planned(self) -> Iterator[Planned]:
        if self.consumed is None:
            yield from ((number, *batch) for number, batch in enumerate(self.order.epoch(0)))
            return
        number = self.consumed()
        epoch, done = divmod(number, len(self))
        while True:
            for place, batch in enumerate(self.order.epoch(epoch)):
                if place >= done:
                    yield number, *batch
                    number += 1
            epoch, done = epoch + 1, 0


@dataclass(frozen=True)
class Cutting(Dataset[Any]):
    """What a process needs to cut batches: each has random numbers of its own, so any process may cut any.

    Attributes:
        cut: see `Held`.
        seed: of training batches; None in evaluation.
        part: rank and number of processes that train; each takes its share of every batch.
    """

    cut: Cut
    seed: int | None
    part: tuple[int, int]

    def __getitem__(self, planned: Planned) -> Any:
        number, bucket, rows = planned
        rank, processes = self.part
        rng = None if self.seed is None else Rng.batch(fold(self.seed, number, rank, _CUTTING))
        return self.cut(bucket, rows[rank::processes], rng)


def _deaf(worker: int) -> None:
    """Ctrl-C and SIGTERM reach all processes of a run; the one that trains saves, and then ends the others."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def quantile_edges(sizes: np.ndarray, count: int = 6) -> tuple[int, ...]:
    """Bucket sizes that share the samples out evenly, the largest sample included."""
    if not len(sizes):
        return (1,)
    levels = np.arange(1, count + 1) / count
    return tuple(sorted({int(edge) for edge in np.quantile(sizes, levels, method="inverted_cdf")}))


def merged_edges(sizes: np.ndarray, edges: Sequence[int], batch_size: int) -> tuple[int, ...]:
    """`edges` less those whose bucket would not fill a batch: its samples go to the next, and none is left out.

    Raises:
        InputError: there are fewer samples than a batch holds.
    """
    if len(sizes) < batch_size:
        raise InputError(f"batch size {batch_size} is larger than the {len(sizes)} samples of the data set")
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
