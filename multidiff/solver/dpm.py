"""DPM-Solver++ in all its forms: orders 1 to 3, multistep or single-step, ODE or SDE (Lu et al. 2022b)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from multidiff.plan import Call, Plan, Update
from multidiff.solver.base import Point, Solver, combine, data_moments, decay, weights
from multidiff.solver.multistep import check_order, data_step, keep


@dataclass(frozen=True)
class DPMSolverPP(Solver):
    """Exponential integrator for estimates of the clean state.

    Args:
        order: 1 (the same as DDIM), 2 or 3.
        sde: draw fresh noise at every step instead of following the ODE.
        singlestep: groups of `order` steps, each starting afresh, instead of a memory of earlier steps.
    """

    order: int = 2
    sde: bool = False
    singlestep: bool = False

    def __post_init__(self) -> None:
        check_order(self.order, 3, "DPM-Solver++")

    def _plan(self, levels: Sequence[Point]) -> Plan:
        if self.singlestep:
            return self._grouped(levels)
        ring = self.order - 1
        calls = []
        for k in range(len(levels) - 1):
            step = data_step(levels, k, self.order, ring, damped_moments, self.sde)
            calls.append(Call(levels[k].level, (step, *keep(k, ring))))
        return Plan(tuple(calls))

    def _grouped(self, levels: Sequence[Point]) -> Plan:
        """Groups of `order` steps; what is left at the end, and the step to the clean end, in smaller ones."""
        calls: list[Call] = []
        last = len(levels) - 1
        while len(calls) < last:
            k = len(calls)
            ahead = last - k - (1 if k < last - 1 and levels[-1].sigma == 0 else 0)
            calls += _group(levels[k : k + min(self.order, ahead) + 1], self.sde)
        return Plan(tuple(calls))


def damped_moments(h: float, count: int) -> list[float]:
    """Moments that agree with the exact ones in the powers of h that the order needs, and are smaller at long steps.

    The exact ones put all the weight of a long step on where it ends, far from the estimates. Of second order this is
    the papers' mid-point weight; of third order the error at 5 to 20 calls is a third less than with the exact ones.
    """
    z = -math.expm1(-h)
    return [z, 0.5 * z if count < 3 else z / 2 + z * z / 12, z * (1 - z) / 3][:count]


def _group(levels: Sequence[Point], sde: bool) -> list[Call]:
    """One single-step group: all levels but the first and the last are intermediate stages.

    Stages of the SDE draw noise of their own; it is carried on into the group's result, so that all of them lie on
    one path.
    """
    calls = []
    for i in range(len(levels) - 1):
        final = i == len(levels) - 2
        store = () if final else (Update(f"m{i}", (("x0", 1.0),)),)
        begin = (Update("start", (("x", 1.0),)),) if i == 0 else ()
        calls.append(Call(levels[i].level, (*begin, *_stage(levels, i, sde, final), *store)))
    return calls


def _stage(levels: Sequence[Point], i: int, sde: bool, final: bool) -> tuple[Update, ...]:
    """From the start of the group to level i + 1, through the estimates of the calls 0 to i."""
    s, v, u = levels[0], levels[i], levels[i + 1]
    estimates = [*(f"m{j}" for j in range(i)), "x0"]
    shares = zip(estimates, _shares(levels, i, 2 if sde else 1, final), strict=True)
    drift = [(name, u.alpha * share) for name, share in shares]
    if not sde:
        return (combine("x", [("start", u.sigma / s.sigma)], drift),)
    start = [("start", u.sigma / s.sigma * decay(s, u))]
    fresh = u.sigma * math.sqrt(1.0 - decay(v, u) ** 2)
    carried = [("noise", u.sigma / v.sigma * decay(v, u))] if i else []
    if final:
        return (combine("x", start, drift, carried, noise=fresh),)
    return combine("noise", carried, noise=fresh), combine("x", start, drift, [("noise", 1.0)])


def _shares(levels: Sequence[Point], i: int, rate: int, final: bool) -> list[float]:
    """The share of each estimate in the result at level i + 1; they add up to 1 - exp(-rate h)."""
    s = levels[0]
    if decay(s, levels[i + 1]) == 0:
        return [0.0] * i + [1.0]
    h = levels[i + 1].log_snr - s.log_snr
    nodes = [(level.log_snr - s.log_snr) / h for level in levels[: i + 1]]
    moments = data_moments(rate * h, 3)
    if final and i == 2:
        return weights(nodes, moments)
    if i == 0:
        return [moments[0]]
    slope = (0.5 * moments[0] if final else _third_order_slope(levels, rate)) / nodes[1]
    return [moments[0] - slope, slope]


def _third_order_slope(levels: Sequence[Point], rate: int) -> float:
    """How steep the third stage has to be taken for the group to be of third order, whatever its levels.

    The estimates 1 and 2 are off by what their stages left out of a linear x0, S(c) = c * first moment of (c h) for
    the stage at the fraction c; the result is of third order if b1 S(c1) + b2 (S(c2) - slope) = 0, b the final weights
    and `slope` the integral that the third stage uses in place of S(c2).
    """
    s, first, second, t = levels
    h = t.log_snr - s.log_snr
    c1, c2 = ((level.log_snr - s.log_snr) / h for level in (first, second))
    _, b1, b2 = weights([0.0, c1, c2], data_moments(rate * h, 3))
    left_out = [c * data_moments(rate * c * h, 2)[1] for c in (c1, c2)]
    return (b1 * left_out[0] / b2 + left_out[1]) / c2
