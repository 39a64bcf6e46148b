"""Noise that one sample shares with another: two takes of a sound for left and right, variations of a sound."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from multidiff.random import Rng
from multidiff.space import Masked

RIGHT = 1 << 62
"""Added to a sample's number for the right one of two takes."""
TAKES = 0.25
"""How far apart their noise is."""


def streams(seed: int, numbers: Sequence[int]) -> Rng:
    """The random numbers of two takes of each sample, first all left ones."""
    return Rng(seed, [*numbers, *(number + RIGHT for number in numbers)])


def related_noise(
    rng: Rng, like: Tensor, space: Masked, seed: int, count: int, variations: tuple[int, float] | None
) -> Tensor:
    """Start noise that is partly another sample's: the base of variations, the left of two takes.

    Args:
        rng: of the samples' own noise.
        like: (B, rows, C, F) of its shape.
        count: samples, of a take or two each.
        variations: the base and the share of own noise; None for none.
    """
    noise = _own(rng, like, space)
    if variations is not None:
        base, share = variations
        bases = [base] * count + [base + RIGHT] * (len(like) - count)
        noise = _mixed(_own(Rng(seed, bases), like, space), noise, share)
    if len(like) == 2 * count:
        left, right = noise[:count], noise[count:]
        noise = torch.cat([left, _mixed(left, right, TAKES)])
    return noise


def _own(rng: Rng, like: Tensor, space: Masked) -> Tensor:
    noise = space.noise(rng, like)
    assert isinstance(noise, Tensor)
    return noise


def _mixed(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Noise that has unit deviation again, `share` of the way from the first to the second."""
    angle = 0.5 * math.pi * share
    return math.cos(angle) * first + math.sin(angle) * second
