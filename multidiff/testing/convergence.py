"""How fast a solver converges, measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from multidiff.grid import Grid, Karras
from multidiff.process import Process
from multidiff.sample import sample
from multidiff.solver.base import Solver
from multidiff.state import State, map_state, tensors


def rms(a: State, b: State) -> float:
    """Root of the mean squared difference over all numbers of two states."""
    gaps = tensors(map_state(lambda x, y: (x.double() - y.double()).square(), a, b))
    return math.sqrt(sum(float(gap.sum()) for gap in gaps) / sum(gap.numel() for gap in gaps))


def errors(
    solver: Solver,
    denoiser: Callable[..., State],
    process: Process,
    x: State,
    reference: State,
    steps: Sequence[int],
    grid: Grid | None = None,
) -> list[float]:
    """Error of a deterministic solver at its last noisy level for each number of steps.

    The step to the clean end is left out: it has the same length whatever the number of steps.

    Args:
        x: the state at the first level of `grid`.
        reference: the exact state at its last noisy level.
    """
    grid = grid or Karras()
    plans = [solver.plan(grid(process, n + 1)[:-1]) for n in steps]
    return [rms(sample(denoiser, plan, x), reference) for plan in plans]


def order(steps: Sequence[int], error: Sequence[float]) -> float:
    """The p of error ~ steps^-p, by least squares in logarithms."""
    x, y = ([math.log(value) for value in values] for values in (steps, error))
    x_mean, y_mean = sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True))
    return -slope / sum((a - x_mean) ** 2 for a in x)
