"""Adaptive Runge-Kutta on the probability-flow ODE: the one sampler whose steps depend on the state.

    dx/dt = alpha'(t) x0 + sigma'(t) (x - alpha(t) x0) / sigma(t),   x0 = denoiser(x, t)

The step is chosen for the batch as a whole, so that a sample agrees with itself in another batch only to within the
tolerance; a fixed plan is the choice where that matters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from multidiff.errors import InputError, unknown
from multidiff.grid import EARLIEST
from multidiff.process import Process
from multidiff.space import Space
from multidiff.state import State, batch_size, lincomb, map_state, tensors


@dataclass(frozen=True)
class Pair:
    """An embedded Runge-Kutta pair whose last stage is the first of the next step.

    Attributes:
        order: of the result.
        nodes: c_i; the last is 1.
        stages: a_ij, one row for each stage after the first; the last row is the result.
        error: result minus the embedded one, a weight a stage.
    """

    order: int
    nodes: tuple[float, ...]
    stages: tuple[tuple[float, ...], ...]
    error: tuple[float, ...]


PAIRS = {
    # Bogacki and Shampine 1989
    "bs32": Pair(
        3, (0, 1 / 2, 3 / 4, 1), ((1 / 2,), (0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)), (-5 / 72, 1 / 12, 1 / 9, -1 / 8)
    ),
    # Dormand and Prince 1980
    "dp54": Pair(
        5,
        (0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1),
        (
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
            (35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
        ),
        (71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
    ),
}


@dataclass(frozen=True)
class Solution:
    """Where the ODE led, and how many network calls it took."""

    x: State
    calls: int


def solve(
    denoiser: Callable[..., State],
    process: Process,
    x: State,
    *,
    start: float = 1.0,
    end: float = 0.0,
    tolerance: float = 1e-4,
    pair: str = "bs32",
    max_calls: int = 10_000,
    space: Space | None = None,
    cond: Any = None,
) -> Solution:
    """Follow the probability-flow ODE from the state `x` at time `start` to time `end`.

    Args:
        denoiser: called as ``denoiser(x, t, cond=cond, space=space)``.
        process: schedules of the state.
        tolerance: of the error a step, relative to 1 + |x| where that is largest in the batch.
        pair: "bs32" (third order, for loose tolerances) or "dp54" (fifth order).
        max_calls: give up beyond.
        end: 0 ends with the estimate made at the very last noise level, as all solvers do.

    Raises:
        InputError: unknown pair, a tolerance that is not positive, times that do not fall, too many calls, or CFG++.
    """
    if pair not in PAIRS:
        raise unknown("pair", pair, PAIRS)
    if getattr(denoiser, "moves", False):
        raise InputError("CFG++ moves the state step by step and has no ODE to follow; use Scale instead")
    if not tolerance > 0 or not 0 <= end < start <= 1:
        raise InputError(f"need tolerance > 0 and 0 <= end < start <= 1, not {tolerance!r}, {end!r}, {start!r}")
    ode = _Flow(denoiser, process, space, cond)
    x = _integrate(ode, PAIRS[pair], x, start, max(end, EARLIEST), tolerance, max_calls)
    if end == 0:
        x = ode.estimate(x, EARLIEST)
    return Solution(x, ode.calls)


def _integrate(ode: _Flow, pair: Pair, x: State, t: float, end: float, tolerance: float, max_calls: int) -> State:
    step, slope = -1e-3 * (t - end), ode(x, t)
    while t > end:
        step = max(step, end - t)
        new, slopes = _step(ode, pair, x, t, step, slope)
        error = _size(lincomb([(step * e, k) for e, k in zip(pair.error, slopes, strict=True) if e]), x, new)
        if error <= tolerance:
            t = end if step == end - t else t + step
            x, slope = new, slopes[-1]
        if ode.calls > max_calls:
            raise InputError(
                f"more than {max_calls} network calls at time {t:.3g}; allow a larger tolerance than {tolerance:g}"
            )
        step *= min(5.0, max(0.2, 0.9 * (tolerance / max(error, 1e-300)) ** (1 / pair.order)))
    return x


def _step(ode: _Flow, pair: Pair, x: State, t: float, step: float, slope: State) -> tuple[State, list[State]]:
    slopes, new = [slope], x
    for node, row in zip(pair.nodes[1:], pair.stages, strict=True):
        terms = [(step * a, k) for a, k in zip(row, slopes, strict=True) if a]
        new = lincomb([(1.0, x), *terms])
        slopes.append(ode(new, t + node * step))
    return new, slopes


def _size(error: State, *states: State) -> float:
    """The largest error relative to 1 + |x|."""
    scaled = map_state(lambda e, a, b: (e / (1 + torch.maximum(a.abs(), b.abs()))).abs().amax(), error, *states)
    return max(float(part) for part in tensors(scaled))


class _Flow:
    """The right-hand side; counts its calls."""

    def __init__(self, denoiser: Callable[..., State], process: Process, space: Space | None, cond: Any) -> None:
        self.denoiser, self.process, self.space, self.cond = denoiser, process, space, cond
        self.calls = 0

    def estimate(self, x: State, t: float) -> State:
        self.calls += 1
        time = torch.full((batch_size(x),), t, dtype=torch.float64, device=tensors(x)[0].device)
        return self.denoiser(x, time, cond=self.cond, space=self.space)

    def __call__(self, x: State, t: float) -> State:
        time = torch.tensor(t, dtype=torch.float64)
        one = torch.ones_like(time)
        alpha, d_alpha, *_ = torch.func.jvp(self.process.alpha, (time,), (one,))
        sigma, d_sigma, *_ = torch.func.jvp(self.process.sigma, (time,), (one,))
        return map_state(_slope, x, self.estimate(x, t), alpha, d_alpha, sigma, d_sigma)


def _slope(x: Tensor, x0: Tensor, alpha: Tensor, d_alpha: Tensor, sigma: Tensor, d_sigma: Tensor) -> Tensor:
    rate = float(d_sigma / sigma)
    return torch.add(x * rate, x0, alpha=float(d_alpha) - rate * float(alpha))
