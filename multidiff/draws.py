"""Where a pipeline's call takes its random numbers from, and which samples it makes together."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multidiff.errors import InputError
from multidiff.random import Rng, fold


class Draws:
    """Where a call's random numbers come from: a seed with sample numbers, or the caller's generators.

    Args:
        seed: None where there are generators.
        generator: one for the whole call, or a list with one a sample; None where there is a seed.
        samples: of the call.

    Raises:
        InputError: `generator` is neither, or not as many as samples.
    """

    def __init__(self, seed: int | None, generator: Any, samples: int) -> None:
        self.seed, self.generator = seed, generator
        self.shared = isinstance(generator, torch.Generator)
        self._started: dict[int, Tensor] = {}
        if generator is None or self.shared:
            return
        if not isinstance(generator, Sequence) or not all(isinstance(g, torch.Generator) for g in generator):
            raise InputError("generator: give a torch.Generator, or a list of them with one for each sample")
        if len(generator) != samples:
            raise InputError(f"generator: a list of {len(generator)} for {samples} samples; give one for each")

    def rng(self, numbers: Sequence[int], rows: Sequence[int]) -> Rng:
        """The streams of one batch; asked again for the same rows, they start as they did.

        Those of a seed are on the CPU, so that every device makes the same samples.
        """
        if self.seed is not None:
            return Rng(self.seed, numbers)
        for i, generator in zip(rows, self._generators(rows), strict=False):
            if i in self._started:
                generator.set_state(self._started[i])
            self._started[i] = generator.get_state()
        return Rng.of(self.generator if self.shared else self._generators(rows))

    def _generators(self, rows: Sequence[int]) -> list[torch.Generator]:
        return [self.generator] if self.shared else [self.generator[i] for i in rows]

    def uniform(self, numbers: Sequence[int], stream: int) -> np.ndarray:
        """One number in [0, 1) a sample, for its size; those of a `stream` of their own do not move the noise."""
        if self.seed is not None:
            start = fold(self.seed, stream)
            return np.array([fold(start, i) for i in numbers], np.float64) / 2**63
        return Rng.of(self.generator).uniform(len(numbers)).numpy()


def batches(sizes: Sequence[int], batch_size: int, in_order: bool) -> list[list[int]]:
    """Rows of each batch: samples of like size together, so that little is padding, and the largest first."""
    rows = list(range(len(sizes))) if in_order else sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))
    count = -(-len(rows) // batch_size)
    edges = [len(rows) * k // count for k in range(count + 1)]
    return [rows[a:b] for a, b in itertools.pairwise(edges)]
