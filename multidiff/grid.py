"""Where the steps fall: the noise levels that a run visits, from noise to the clean end.

A grid gives steps + 1 levels with strictly falling times; the last is exactly clean. The first is where the prior has
to be drawn (``process.prior(rng, like, t=levels[0].t)``): t = 1, or for `LogSNR` and `Karras` the level of
`sigma_max`. Where every part of a state has a schedule of its own, all share the time axis and one part's schedule
lays the grid on it: the first, or the one named by `part`.

sigma stands for sigma / alpha here, the noise for signal of unit size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from multidiff.errors import InputError, unknown
from multidiff.process import Level, Process
from multidiff.registry import Entry, build
from multidiff.schedule import Discrete, NoiseSchedule

MAX_STEPS = 10_000
"""More are never of use, and are taken for a slip of the hand."""

EARLIEST = 1e-12
"""The least time of a noisy level: t = 0 itself is the clean end."""


class Grid:
    """Base of all grids: gives the times of the noisy levels; the clean end is added here."""

    def __call__(self, process: Process, steps: int) -> tuple[Level, ...]:
        """steps + 1 levels from noise to clean.

        Raises:
            InputError: `steps` is not a whole number from 1 to `MAX_STEPS`, or the times do not fall strictly.
        """
        if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= MAX_STEPS:
            raise InputError(f"steps must be a whole number from 1 to {MAX_STEPS}, not {steps!r}")
        times = self.times(process, steps).clamp(EARLIEST, 1)
        if not (times.diff() < 0).all():
            raise InputError(f"{type(self).__name__} cannot place {steps} distinct levels; ask for fewer steps")
        return process.levels(torch.cat([times, times.new_zeros(1)]))

    def times(self, process: Process, steps: int) -> Tensor:
        """(steps,) times of the noisy levels, falling."""
        raise NotImplementedError


@dataclass(frozen=True)
class Uniform(Grid):
    """Evenly spaced in t from 1 to 0."""

    def times(self, process: Process, steps: int) -> Tensor:
        return _even(1.0, 0.0, steps + 1)[:-1]


@dataclass(frozen=True)
class LogSNR(Grid):
    """Evenly spaced in log(alpha / sigma) from `sigma_max` to `sigma_min`, within what the schedule reaches."""

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    part: str | None = None

    def times(self, process: Process, steps: int) -> Tensor:
        schedule = _schedule(process, self.part)
        low, high = _range(schedule, self.sigma_min, self.sigma_max)
        return schedule.time(-_even(math.log(high), math.log(low), steps))


@dataclass(frozen=True)
class Karras(Grid):
    """Evenly spaced in sigma^(1/rho) from `sigma_max` to `sigma_min` (Karras et al. 2022, equation 5)."""

    rho: float = 7.0
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    part: str | None = None

    def times(self, process: Process, steps: int) -> Tensor:
        schedule = _schedule(process, self.part)
        low, high = _range(schedule, self.sigma_min, self.sigma_max)
        root = _even(high ** (1 / self.rho), low ** (1 / self.rho), steps)
        return schedule.time(-self.rho * root.log())


@dataclass(frozen=True)
class Quadratic(Grid):
    """Evenly spaced in the square root of sigma / (sigma + scale), from `sigma_max` to `sigma_min`.

    Between the time of rectified flow, which hurries through small noise, and log-SNR, which dwells on both ends
    where nothing happens. Made for `multidiff.solver.Angular`.
    """

    scale: float = 1.5
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    part: str | None = None

    def times(self, process: Process, steps: int) -> Tensor:
        schedule = _schedule(process, self.part)
        low, high = _range(schedule, self.sigma_min, self.sigma_max)
        root = _even(math.sqrt(high / (high + self.scale)), math.sqrt(low / (low + self.scale)), steps).square()
        return schedule.time((1 - root).log() - root.log() - math.log(self.scale))


@dataclass(frozen=True)
class Trailing(Grid):
    """Evenly spaced on the integer steps of training, counted from the noisy end (Lin et al. 2023, table 2).

    Args:
        train_steps: how many there were; a `Discrete` schedule knows its own.
    """

    train_steps: int = 1000

    def times(self, process: Process, steps: int) -> Tensor:
        schedule = _schedule(process, None)
        count = schedule.steps if isinstance(schedule, Discrete) else self.train_steps
        return (_even(1.0, 0.0, steps + 1)[:-1] * count).round() / count


@dataclass(frozen=True)
class Beta(Grid):
    """Quantiles of a Beta(a, b) density in t: more levels near both ends (Lee et al. 2024)."""

    a: float = 0.6
    b: float = 0.6

    def times(self, process: Process, steps: int) -> Tensor:
        # With t = sin^2(angle) the density is smooth up to the ends for a, b >= 0.5.
        angle = _even(0.0, math.pi / 2, 20_001)
        middle = 0.5 * (angle[1:] + angle[:-1])
        density = middle.sin() ** (2 * self.a - 1) * middle.cos() ** (2 * self.b - 1)
        mass = torch.cat([density.new_zeros(1), density.cumsum(0)])
        quantile = _interpolate(_even(1.0, 0.0, steps + 1)[:-1], mass / mass[-1], angle)
        return quantile.sin().square()


@dataclass(frozen=True)
class Custom(Grid):
    """Levels of the caller's: falling times in (0, 1], one a step; a clean end (t = 0) may close them."""

    levels: Sequence[float]

    def times(self, process: Process, steps: int) -> Tensor:
        times = torch.tensor([float(t) for t in self.levels], dtype=torch.float64)
        times = times[:-1] if len(times) and times[-1] == 0 else times
        if len(times) != steps:
            raise InputError(f"{steps} steps were asked for, but the custom grid has {len(times)} noisy levels")
        if not ((times > 0) & (times <= 1)).all():
            raise InputError("the times of a custom grid must lie in (0, 1], with at most a 0 at the end")
        return times


def _even(start: float, stop: float, count: int) -> Tensor:
    return torch.linspace(start, stop, count, dtype=torch.float64)


def _interpolate(x: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    i = torch.searchsorted(knots, x).clamp(1, len(knots) - 1)
    share = (x - knots[i - 1]) / (knots[i] - knots[i - 1])
    return torch.lerp(values[i - 1], values[i], share)


def _schedule(process: Process, part: str | None) -> NoiseSchedule:
    if not isinstance(process.schedule, Mapping):
        return process.schedule
    part = next(iter(process.schedule)) if part is None else part
    if part not in process.schedule:
        raise unknown("part", part, process.schedule)
    return process.schedule[part]


def _range(schedule: NoiseSchedule, sigma_min: float, sigma_max: float) -> tuple[float, float]:
    """The wanted range of sigma / alpha, cut to what the schedule has."""
    if not 0 < sigma_min < sigma_max:
        raise InputError(f"a grid needs 0 < sigma_min < sigma_max, not {sigma_min!r} and {sigma_max!r}")
    high, low = torch.exp(-schedule.log_snr(torch.tensor([1.0, 0.0], dtype=torch.float64))).tolist()
    if sigma_min >= high or sigma_max <= low:
        raise InputError(f"the schedule reaches sigma / alpha from {low:.3g} to {high:.3g}: no overlap with the grid")
    return max(sigma_min, low), min(sigma_max, high)


GRIDS = {
    "uniform": Entry(Uniform, summary="even steps in time"),
    "log-snr": Entry(LogSNR, summary="even steps in log(alpha / sigma)"),
    "karras": Entry(Karras, summary="even steps in sigma^(1/7), finer near the clean end: EDM"),
    "quadratic": Entry(Quadratic, summary="even steps in sqrt(sigma / (sigma + 1.5)): for few calls"),
    "trailing": Entry(Trailing, summary="even integer steps counted from the noisy end: networks with integer time"),
    "beta": Entry(Beta, summary="quantiles of a Beta density in time, finer near both ends"),
    "custom": Entry(Custom, summary="times of your own"),
}
"""Name -> grid, for `make` and `multidiff list grids`."""


def make(name: str, **options: object) -> Grid:
    """The grid of that name.

    Raises:
        InputError: the name or an option is unknown.
    """
    grid: Grid = build("grid", GRIDS, name, options)
    return grid
