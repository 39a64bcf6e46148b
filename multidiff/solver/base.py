"""What all solvers share: one scalar plan a part, and the integrals of polynomials they are made of.

Notation: a step goes from level s to level t; alpha and sigma are the signal and noise factors, lambda their
log-ratio, h = lambda_t - lambda_s, q = exp(-h) = sigma_t alpha_s / (alpha_t sigma_s). A start without signal
(alpha_s = 0) and the clean end (sigma_t = 0) both have q = 0 and h infinite.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from multidiff.errors import InputError
from multidiff.grid import Grid
from multidiff.plan import Call, Plan, Update
from multidiff.process import Level, Process
from multidiff.state import Coef


@dataclass(frozen=True)
class Point:
    """A level as one part sees it: plain numbers."""

    level: Level
    alpha: float
    sigma: float

    @property
    def log_snr(self) -> float:
        """lambda, infinite at the two ends."""
        if self.alpha == 0:
            return -math.inf
        return math.log(self.alpha / self.sigma) if self.sigma else math.inf

    @property
    def ratio(self) -> float:
        """sigma / alpha, infinite without signal."""
        return self.sigma / self.alpha if self.alpha else math.inf


class Solver:
    """Base of all solvers: `_plan` is written for one part with plain numbers, `plan` runs it for each part."""

    def plan(self, levels: Sequence[Level]) -> Plan:
        """The calls and linear combinations that lead from the first level to the last.

        Args:
            levels: two or more with falling times, as a grid gives them; the last may be the clean end or not.

        Raises:
            InputError: fewer than two levels, or times that do not fall.
        """
        levels = tuple(levels)
        if len(levels) < 2:
            raise InputError(f"a plan needs at least 2 levels, not {len(levels)}")
        if any(a.t <= b.t for a, b in itertools.pairwise(levels)):
            raise InputError("the times of the levels must fall strictly")
        return self._plan_parts(levels)

    def _plan_parts(self, levels: Sequence[Level]) -> Plan:
        return by_part(self._plan, levels)

    def _plan(self, levels: Sequence[Point]) -> Plan:
        raise NotImplementedError


def steps_for(calls: int, solver: Solver, process: Process, grid: Grid) -> int:
    """The most steps whose plan takes at most `calls` network calls.

    Raises:
        InputError: not even one step can be had for them.
    """
    steps = bisect.bisect_right(range(1, calls + 1), calls, key=lambda n: len(solver.plan(grid(process, n)).calls))
    if steps == 0:
        raise InputError(f"{calls!r} network calls are too few for a single step of {type(solver).__name__}")
    return steps


def first_point(level: Level) -> Point:
    """A level as its first part sees it."""
    return _point(level, next(iter(level.alpha)) if isinstance(level.alpha, Mapping) else None)


def by_part(build: Callable[[Sequence[Point]], Plan], levels: Sequence[Level]) -> Plan:
    """Run the scalar builder once, or once a part, and put the plans side by side."""
    alpha = levels[0].alpha
    parts = list(alpha) if isinstance(alpha, Mapping) else [None]
    return _merge({part: build([_point(level, part) for level in levels]) for part in parts})


def _point(level: Level, part: str | None) -> Point:
    alpha, sigma = level.alpha, level.sigma
    if isinstance(alpha, Mapping) and isinstance(sigma, Mapping):
        assert part is not None
        return Point(level, alpha[part], sigma[part])
    assert isinstance(alpha, float | int)
    assert isinstance(sigma, float | int)
    return Point(level, alpha, sigma)


def _merge(plans: Mapping[str | None, Plan]) -> Plan:
    """Plans of the same shape -> one plan whose coefficients are mappings; terms that are zero everywhere go."""
    calls = []
    for same in zip(*(plan.calls for plan in plans.values()), strict=True):
        calls.append(Call(same[0].level, _merge_updates(plans, [call.updates for call in same])))
    return Plan(tuple(calls), _merge_updates(plans, [plan.start for plan in plans.values()]))


def _merge_updates(parts: Iterable[str | None], updates: Sequence[Sequence[Update]]) -> tuple[Update, ...]:
    return tuple(_merge_update(dict(zip(parts, same, strict=True))) for same in zip(*updates, strict=True))


def _merge_update(updates: Mapping[str | None, Update]) -> Update:
    coefs = {part: dict(update.terms) for part, update in updates.items()}
    terms = []
    for name in dict.fromkeys(name for named in coefs.values() for name in named):
        values = {part: named.get(name, 0.0) for part, named in coefs.items()}
        if any(values.values()):
            terms.append((name, _coef(values)))
    target = next(iter(updates.values())).target
    return Update(target, tuple(terms), _coef({part: update.noise for part, update in updates.items()}))


def _coef(values: Mapping[str | None, Coef]) -> Coef:
    if None in values:
        return values[None]
    return {str(part): value for part, value in values.items() if not isinstance(value, Mapping)}


def combine(target: str, *groups: Iterable[tuple[str, float]], noise: float = 0.0) -> Update:
    """An update whose coefficients of the same register are added up, in the order of first mention."""
    total: dict[str, float] = {}
    for name, coef in itertools.chain(*groups):
        total[name] = total.get(name, 0.0) + coef
    return Update(target, tuple(total.items()), noise)


def decay(s: Point, t: Point) -> float:
    """q = exp(-h) of a step; 0 where it starts without signal or ends without noise."""
    return t.sigma * s.alpha / (t.alpha * s.sigma)


def basis(nodes: Sequence[float]) -> list[list[float]]:
    """Lagrange's polynomials on `nodes`: row j has the coefficients, constant first, of the one that is 1 at node j."""
    rows = []
    for j, node in enumerate(nodes):
        row = [1.0]
        for other in (*nodes[:j], *nodes[j + 1 :]):
            shifted = zip([0.0, *row], [*row, 0.0], strict=True)
            row = [(low - other * same) / (node - other) for low, same in shifted]
        rows.append(row)
    return rows


def weights(nodes: Sequence[float], moments: Sequence[float]) -> list[float]:
    """The integral of each Lagrange polynomial, from those of 1, x, x^2, ..."""
    return [math.fsum(c * m for c, m in zip(row, moments, strict=False)) for row in basis(nodes)]


def data_moments(h: float, count: int) -> list[float]:
    """h times the integral of exp(-h (1 - x)) x^k over [0, 1], k < count: a step driven by estimates of x0."""
    if h < 1.0:
        return [h * math.fsum((-h) ** m * _beta(k, m) for m in range(20)) for k in range(count)]
    moments = [-math.expm1(-h)]
    for k in range(1, count):
        moments.append(1.0 - k / h * moments[-1])
    return moments


def _beta(k: int, m: int) -> float:
    """The integral of x^k (1 - x)^m / m! over [0, 1]."""
    return math.factorial(k) / math.factorial(m + k + 1)


def noise_moments(h: float, count: int) -> list[float]:
    """h times the integral of exp(-h x) x^k over [0, 1], k < count: a step driven by estimates of the noise."""
    if h < 1.0:
        return [h * math.fsum((-h) ** m / math.factorial(m) / (m + k + 1) for m in range(20)) for k in range(count)]
    moments = [-math.expm1(-h)]
    for k in range(1, count):
        moments.append(k / h * moments[-1] - math.exp(-h))
    return moments
