"""Does a sample depend on its batch, and does a denoiser respect the symmetries it claims?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from multidiff.state import State, batch_size, map_state, tensors

Transform = Callable[[State], State]


def relative_error(a: State, b: State) -> float:
    """The largest difference, divided by the root mean square of `b`, over all parts."""
    pairs = zip(tensors(a), tensors(b), strict=True)
    return max(float((x - y).abs().max() / y.square().mean().sqrt().clamp(min=1e-12)) for x, y in pairs)


def batch_error(run: Callable[[list[int]], State], count: int) -> float:
    """How far samples differ when made alone.

    Args:
        run: makes the samples of the indices it is given, e.g. with ``Rng(seed, indices)``.
        count: how many samples the full batch has.

    Returns:
        The largest relative difference between a sample in the full batch and the same one alone.
    """
    together = run(list(range(count)))
    return max(relative_error(run([i]), map_state(lambda x, i=i: x[i : i + 1], together)) for i in range(count))


def equivariance_error(function: Callable[[State], State], transform: Transform, x: State) -> float:
    """How far ``function(transform(x))`` is from ``transform(function(x))``, relative.

    `function` may be a denoiser at a fixed time or a whole sampled trajectory.
    """
    with torch.no_grad():
        return relative_error(function(transform(x)), transform(function(x)))


def at_time(denoiser: Callable[..., State], t: float, **arguments: Any) -> Callable[[State], State]:
    """The denoiser as a function of the state alone."""

    def function(x: State) -> State:
        time = torch.full((batch_size(x),), t, dtype=torch.float64, device=tensors(x)[0].device)
        return denoiser(x, time, **arguments)

    return function


def rotation(seed: int = 0, *, mirror: bool = False) -> Tensor:
    """A random (3, 3) rotation; with `mirror` a reflection."""
    matrix = torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    q, r = torch.linalg.qr(matrix)
    q = q * r.diagonal().sign()
    wrong = (torch.det(q) < 0) != mirror
    return -q if wrong else q
