"""The one source of noise: a stream for each sample, so that a sample does not depend on its batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_MASK = (1 << 64) - 1
_COIN = 0xC0


def fold(seed: int, *values: int) -> int:
    """Mix integers into a seed: an independent 63-bit seed for each tuple (splitmix64's finaliser)."""
    state = seed & _MASK
    for value in values:
        state = (state + 0x9E3779B97F4A7C15 * ((value & _MASK) + 1)) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


class Rng:
    """Random numbers for a batch.

    ``Rng(seed, indices)`` holds one stream a sample, named by (seed, index): sample 7 draws the same numbers alone,
    in any batch and on any number of workers. `Rng.batch` draws a whole batch from one stream, which is faster and is
    what training uses (fold step and rank into the seed).

    Draws are float32 whatever the dtype asked for, so that runs of several precisions share their noise.
    """

    def __init__(self, seed: int, indices: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.generators = [_generator(fold(seed, int(i)), device) for i in indices]
        self.per_sample = True

    @classmethod
    def batch(cls, seed: int, device: torch.device | str = "cpu") -> Rng:
        """One stream for the whole batch."""
        return cls.of(_generator(seed, device))

    @classmethod
    def of(cls, generator: torch.Generator | Sequence[torch.Generator]) -> Rng:
        """Wrap generators of the caller's: one for the whole batch, or a list with one a sample."""
        rng = cls(0, ())
        rng.per_sample = not isinstance(generator, torch.Generator)
        rng.generators = [generator] if isinstance(generator, torch.Generator) else list(generator)
        return rng

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Standard normal numbers of `shape` (batch first) with the device and dtype of `like`."""
        if not self.per_sample:
            return self._draw(0, tuple(shape)).to(like)
        self._check(shape[0])
        return torch.stack([self._draw(i, tuple(shape[1:])) for i in range(shape[0])]).to(like)

    def normal_ragged(self, lengths: Sequence[int], like: Tensor) -> Tensor:
        """Standard normal numbers end to end, ``lengths[i]`` of them from the stream of sample i."""
        if not self.per_sample:
            return self._draw(0, (sum(lengths),)).to(like)
        self._check(len(lengths))
        return torch.cat([self._draw(i, (n,)) for i, n in enumerate(lengths)]).to(like)

    def uniform(self, batch: int, device: torch.device | str = "cpu") -> Tensor:
        """(batch,) float64 numbers in [0, 1)."""
        if not self.per_sample:
            g = self.generators[0]
            return torch.rand(batch, generator=g, device=g.device, dtype=torch.float64).to(device)
        self._check(batch)
        draws = [torch.rand((), generator=g, device=g.device, dtype=torch.float64) for g in self.generators]
        return torch.stack(draws).to(device)

    def coin(self) -> float:
        """One number in [0, 1) for the whole batch, the same each time it is asked: a decision of the step."""
        return fold(self.generators[0].initial_seed(), _COIN) / 2**63

    def _draw(self, i: int, shape: tuple[int, ...]) -> Tensor:
        g = self.generators[i]
        return torch.randn(shape, generator=g, device=g.device)

    def _check(self, batch: int) -> None:
        if batch != len(self.generators):
            raise ValueError(f"{len(self.generators)} random streams for a batch of {batch}: one a sample is needed")


def _generator(seed: int, device: torch.device | str) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)
