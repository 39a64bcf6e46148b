"""Restart sampling: an interval of noise levels is run through again and again (Xu et al. 2023, algorithm 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from multidiff.errors import InputError
from multidiff.plan import Call, Plan, Update
from multidiff.process import Level
from multidiff.solver.base import Point, Solver, by_part, first_point
from multidiff.solver.onestep import Heun


@dataclass(frozen=True)
class Restart(Solver):
    """Run another solver; each time the lower end of the interval is reached, add noise up to its upper end.

    Args:
        solver: what runs between the levels.
        sigma_min: lower end of the interval in sigma / alpha of the first part; the nearest level is taken.
        sigma_max: upper end, likewise.
        repeats: how often noise is added.
    """

    solver: Solver = field(default_factory=Heun)
    sigma_min: float = 0.05
    sigma_max: float = 0.3
    repeats: int = 2

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise InputError(f"restart needs 0 < sigma_min < sigma_max, not {self.sigma_min!r} and {self.sigma_max!r}")
        if self.repeats < 1:
            raise InputError(f"restart needs 1 repeat or more, not {self.repeats!r}")

    def _plan_parts(self, levels: Sequence[Level]) -> Plan:
        high, low = self._interval(levels)
        plan = self.solver.plan(levels[: low + 1])
        again = self.solver.plan(levels[high : low + 1])
        noise = by_part(_add_noise, [levels[low], levels[high]]).start
        calls = plan.calls
        for _ in range(self.repeats):
            calls = (*_then(calls, (*noise, *again.start)), *again.calls)
        if low < len(levels) - 1:
            rest = self.solver.plan(levels[low:])
            calls = (*_then(calls, rest.start), *rest.calls)
        return Plan(calls, plan.start)

    def _interval(self, levels: Sequence[Level]) -> tuple[int, int]:
        """Places of the upper and the lower end among the noisy levels."""
        snr = [first_point(level).log_snr for level in levels]
        places = [i for i, value in enumerate(snr) if value < math.inf]
        if len(places) < 2:
            raise InputError("restart needs a grid of 2 noisy levels or more; ask for more steps")
        low = min(places[1:], key=lambda i: abs(snr[i] + math.log(self.sigma_min)))
        high = min(places[: places.index(low)], key=lambda i: abs(snr[i] + math.log(self.sigma_max)))
        return high, low


def _add_noise(ends: Sequence[Point]) -> Plan:
    low, high = ends
    kept = high.alpha / low.alpha
    added = math.sqrt(high.sigma**2 - (kept * low.sigma) ** 2)
    return Plan((), (Update("x", (("x", kept),), added),))


def _then(calls: tuple[Call, ...], updates: tuple[Update, ...]) -> tuple[Call, ...]:
    """The same calls with something more to do after the last."""
    last = calls[-1]
    return (*calls[:-1], Call(last.level, (*last.updates, *updates)))
