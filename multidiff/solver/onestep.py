"""Solvers that remember nothing: DDPM, DDIM, Euler, ancestral Euler and Heun."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from multidiff.errors import InputError
from multidiff.plan import Call, Plan, Update
from multidiff.process import Level
from multidiff.solver.base import Point, Solver, by_part, combine, decay, first_point


def first_order(s: Point, t: Point, eta: float = 0.0) -> Update:
    """x_t = alpha_t x0 + sqrt(sigma_t^2 - n^2) eps + n z, n = eta sigma_t sqrt(1 - q^2).

    Song et al. 2021 (DDIM), equation 12.
    eps = (x - alpha_s x0) / sigma_s is what the estimate leaves of the state. eta = 0 is Euler's method on the
    probability-flow ODE in sigma / alpha; eta = 1 samples the posterior q(x_t | x_s, x0), which is ancestral sampling.
    """
    fresh = min(1.0, eta * math.sqrt(max(0.0, 1.0 - decay(s, t) ** 2)))
    kept = t.sigma * math.sqrt(1.0 - fresh**2) / s.sigma
    return combine("x", [("x", kept), ("x0", t.alpha - s.alpha * kept)], noise=t.sigma * fresh)


@dataclass(frozen=True)
class DDIM(Solver):
    """First order, exact where the estimate is constant (Song et al. 2021).

    Args:
        eta: how much of the noise is fresh: 0 none (deterministic), 1 all of the posterior's (DDPM).
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        if not self.eta >= 0:
            raise InputError(f"eta must be 0 (no fresh noise) or more, not {self.eta!r}")

    def _plan(self, levels: Sequence[Point]) -> Plan:
        steps = itertools.pairwise(levels)
        return Plan(tuple(Call(s.level, (first_order(s, t, self.eta),)) for s, t in steps))


@dataclass(frozen=True)
class DDPM(Solver):
    """Samples the posterior q(x_t | x_s, x0) at the estimate (Ho et al. 2020, with their smaller variance)."""

    def _plan(self, levels: Sequence[Point]) -> Plan:
        return DDIM(1.0)._plan(levels)


@dataclass(frozen=True)
class Euler(Solver):
    """Euler's method on the probability-flow ODE in sigma / alpha; the same numbers as `DDIM()`."""

    def _plan(self, levels: Sequence[Point]) -> Plan:
        return DDIM()._plan(levels)


@dataclass(frozen=True)
class EulerAncestral(Solver):
    """An Euler step to less noise than the next level has, then fresh noise; the same numbers as ``DDIM(eta)``.

    Args:
        eta: how much of the noise is fresh.
    """

    eta: float = 1.0

    def _plan(self, levels: Sequence[Point]) -> Plan:
        return DDIM(self.eta)._plan(levels)


@dataclass(frozen=True)
class Heun(Solver):
    """Trapezoidal rule in sigma / alpha, two calls a step, one in the last (Karras et al. 2022, algorithms 1 and 2).

    Args:
        churn: their S_churn; above 0 each step first raises the noise and is then stochastic.
        sigma_min: the noise, as sigma / alpha, above which there is churn (S_tmin).
        sigma_max: and below which (S_tmax).
        noise_scale: deviation of the added noise (S_noise).
    """

    churn: float = 0.0
    sigma_min: float = 0.0
    sigma_max: float = math.inf
    noise_scale: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.churn < math.inf:
            raise InputError(f"churn must be 0 or more, not {self.churn!r}")

    def _plan_parts(self, levels: Sequence[Level]) -> Plan:
        """Churn is laid out on the time axis, before the parts go their own ways."""
        gamma = min(self.churn / (len(levels) - 1), math.sqrt(2.0) - 1.0)
        path = [point for level in levels[:-1] for point in (level, self._raised(level, gamma))]
        return by_part(self._plan_path, [*path, levels[-1]])

    def _raised(self, level: Level, gamma: float) -> Level:
        """The level at (1 + gamma) times the noise of the first part, where churn wants it."""
        point = first_point(level)
        if gamma == 0 or point.alpha == 0 or not self.sigma_min <= point.ratio <= self.sigma_max:
            return level
        if level.process is None:
            raise InputError("churn needs levels that know their process: take them from a grid or Process.level")
        schedule = level.process.schedule
        schedule = next(iter(schedule.values())) if isinstance(schedule, Mapping) else schedule
        time = schedule.time(torch.tensor(point.log_snr - math.log1p(gamma), dtype=torch.float64))
        return level.process.level(max(level.t, float(time)))

    def _plan_path(self, path: Sequence[Point]) -> Plan:
        """`path` alternates between the levels of the grid and the raised ones where the calls are made."""
        calls: list[Call] = []
        for i in range(1, len(path) - 1, 2):
            s, t = path[i], path[i + 1]
            after = self._raise(t, path[i + 2]) if i + 2 < len(path) else ()
            calls += [Call(s.level, (first_order(s, t), *after))] if t.sigma == 0 else _trapezoid(s, t, after)
        return Plan(tuple(calls), self._raise(path[0], path[1]))

    def _raise(self, low: Point, high: Point) -> tuple[Update, ...]:
        """Noise from the level `low` up to `high`."""
        if high.level == low.level:
            return ()
        kept = high.alpha / low.alpha
        added = math.sqrt(high.sigma**2 - (kept * low.sigma) ** 2)
        return (Update("x", (("x", kept),), self.noise_scale * added),)


def _trapezoid(s: Point, t: Point, after: tuple[Update, ...]) -> list[Call]:
    """Euler's step, then the mean of both slopes.

    With z = x / c, u = sigma / c the slope is dz/du = (z - x0) / u for c = alpha, and for c = alpha + sigma as well
    (rectified flow), which stays finite where alpha_s = 0. Written out, the mean differs from Euler's step by
    c_t (u_s - u_t) / (2 u_t) times the change of the estimate.
    """
    c_s, c_t = (s.alpha, t.alpha) if s.alpha else (s.alpha + s.sigma, t.alpha + t.sigma)
    change = 0.5 * c_t * (c_t * s.sigma / (c_s * t.sigma) - 1.0)
    correct = combine("x", [("x", 1.0), ("x0", change), ("m0", -change)])
    return [
        Call(s.level, (first_order(s, t), Update("m0", (("x0", 1.0),)))),
        Call(t.level, (correct, *after)),
    ]
