"""Solvers that remember earlier estimates: DPM-Solver++ (multistep), UniPC, DEIS, LMS.

All of them put a polynomial through the last estimates and integrate it exactly. They differ in what is interpolated
(the clean state or the noise), in which variable (log-SNR or sigma / alpha), and in whether the estimate at the new
level corrects the step afterwards. Estimates are kept in a ring of registers m0, m1, ...

A step to the clean end is infinitely long in log-SNR: the polynomial in it is of degree 0 there, and the step lands on
the estimate. An estimate made where alpha = 0 lies infinitely far back and is not used.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from multidiff.errors import InputError
from multidiff.plan import Call, Plan, Update
from multidiff.solver.base import Point, Solver, combine, data_moments, decay, noise_moments, weights
from multidiff.solver.onestep import first_order


def check_order(order: int, highest: int, solver: str) -> None:
    """Raise where an order is not one that the solver has."""
    if order not in range(1, highest + 1):
        raise InputError(f"{solver} has the orders 1 to {highest}, not {order!r}")


def history(levels: Sequence[Point], k: int, order: int) -> list[int]:
    """The calls whose estimates the step after call k uses: k and up to order - 1 before it."""
    return [j for j in range(k, max(k - order, -1), -1) if j == k or levels[j].alpha]


def at_end(levels: Sequence[Point], k: int, order: int) -> int:
    """The order of step k: the last steps before the clean end are long in log-SNR, and high orders overshoot there."""
    return min(order, len(levels) - 1 - k) if levels[-1].sigma == 0 else order


def register(j: int, k: int, ring: int) -> str:
    """Where the estimate of call j is found after call k."""
    return "x0" if j == k else f"m{j % ring}"


def keep(k: int, ring: int) -> tuple[Update, ...]:
    """Store the estimate of call k in the ring; after use, since it may replace the oldest."""
    return (Update(f"m{k % ring}", (("x0", 1.0),)),) if ring else ()


def data_step(
    levels: Sequence[Point],
    k: int,
    order: int,
    ring: int,
    moments: Callable[[float, int], list[float]],
    sde: bool = False,
) -> Update:
    """DPM-Solver++ from level k to k + 1 (Lu et al. 2022b, section 4 and appendix B for the SDE).

    x_t = (sigma_t / sigma_s) x_s + alpha_t * integral of exp(lambda - lambda_t) x0(lambda), with x0 a polynomial in
    lambda. The SDE has twice the rate: exp(2 (lambda - lambda_t)), and sigma_t sqrt(1 - q^2) of fresh noise.
    `moments` integrates the powers of a step, given its length and how many.
    """
    s, t = levels[k], levels[k + 1]
    q = decay(s, t)
    rate = 2 if sde else 1
    kept = t.sigma / s.sigma * (q if sde else 1.0)
    noise = t.sigma * math.sqrt(1.0 - q * q) if sde else 0.0
    if q == 0:
        return combine("x", [("x", kept), ("x0", t.alpha - s.alpha * kept)], noise=noise)
    used = history(levels, k, at_end(levels, k, order))
    h = -math.log(q)
    nodes = [(levels[j].log_snr - s.log_snr) / h for j in used]
    terms = zip([register(j, k, ring) for j in used], weights(nodes, moments(rate * h, len(nodes))), strict=True)
    return combine("x", [("x", kept)], [(name, t.alpha * w) for name, w in terms], noise=noise)


def midpoint_moments(h: float, count: int) -> list[float]:
    """Exact, but for the mid-point weight that the papers give the linear term of second order."""
    moments = data_moments(h, count)
    if count == 2:
        moments[1] = 0.5 * moments[0]
    return moments


@dataclass(frozen=True)
class UniPC(Solver):
    """A DPM-Solver++ step whose result is corrected by the next estimate, at no further call (Zhao et al. 2023, B2).

    Args:
        order: of the predictor, 1 to 3; with the corrector the method is one order better.
    """

    order: int = 2

    def __post_init__(self) -> None:
        check_order(self.order, 3, "UniPC")

    def _plan(self, levels: Sequence[Point]) -> Plan:
        calls = []
        for k in range(len(levels) - 1):
            corrected = self._correct(levels, k) if k else Update("base", (("x", 1.0),))
            predicted = data_step(levels, k, self.order, self.order, midpoint_moments)
            terms = tuple(("base" if name == "x" else name, coef) for name, coef in predicted.terms)
            calls.append(Call(levels[k].level, (corrected, Update("x", terms), *keep(k, self.order))))
        return Plan(tuple(calls))

    def _correct(self, levels: Sequence[Point], k: int) -> Update:
        """The step from k - 1 to k once more, through the estimate at its end as well."""
        s, t = levels[k - 1], levels[k]
        q = decay(s, t)
        used = history(levels, k - 1, at_end(levels, k - 1, self.order))
        h = -math.log(q) if q else math.inf
        nodes = [1.0, *((levels[j].log_snr - s.log_snr) / h if j != k - 1 else 0.0 for j in used)]
        names = ["x0", *(register(j, k, self.order) for j in used)]
        terms = [
            (name, t.alpha * w) for name, w in zip(names, weights(nodes, midpoint_moments(h, len(nodes))), strict=True)
        ]
        return combine("base", [("base", t.sigma / s.sigma)], terms)


@dataclass(frozen=True)
class DEIS(Solver):
    """The noise as a polynomial in log-SNR, integrated over sigma / alpha (Zhang and Chen 2022, tAB in log rho).

    Args:
        order: estimates used, 1 to 3.
    """

    order: int = 3

    def __post_init__(self) -> None:
        check_order(self.order, 3, "DEIS")

    def _plan(self, levels: Sequence[Point]) -> Plan:
        return noise_plan(levels, self.order, self._weights)

    @staticmethod
    def _weights(s: Point, t: Point, used: Sequence[Point]) -> list[float]:
        """Integrals over sigma / alpha of the polynomials through the noise at the levels `used`."""
        if t.sigma == 0:
            return [-s.sigma / s.alpha] + [0.0] * (len(used) - 1)
        h = t.log_snr - s.log_snr
        nodes = [(level.log_snr - s.log_snr) / h for level in used]
        return [-s.sigma / s.alpha * w for w in weights(nodes, noise_moments(h, len(used)))]


@dataclass(frozen=True)
class LMS(Solver):
    """Adams-Bashforth on the probability-flow ODE in sigma / alpha: the noise as a polynomial in it.

    Args:
        order: estimates used, 1 to 4.
    """

    order: int = 4

    def __post_init__(self) -> None:
        check_order(self.order, 4, "LMS")

    def _plan(self, levels: Sequence[Point]) -> Plan:
        return noise_plan(levels, self.order, self._weights)

    @staticmethod
    def _weights(s: Point, t: Point, used: Sequence[Point]) -> list[float]:
        rho = [level.sigma / level.alpha for level in used]
        step = t.sigma / t.alpha - rho[0]
        moments = [1 / (k + 1) for k in range(len(used))]
        return [step * w for w in weights([(r - rho[0]) / step for r in rho], moments)]


def noise_plan(
    levels: Sequence[Point], order: int, integrate: Callable[[Point, Point, Sequence[Point]], list[float]]
) -> Plan:
    """x_t / alpha_t = x_s / alpha_s + sum of weight times noise, noise_j = (x_j - alpha_j x0_j) / sigma_j.

    The ring holds sigma_j noise_j, which costs one operation.
    """
    calls = []
    for k, (s, t) in enumerate(itertools.pairwise(levels)):
        noise = combine(f"m{k % order}", [("x", 1.0), ("x0", -s.alpha)])
        step = first_order(s, t)
        if s.alpha:
            used = history(levels, k, order)
            now, *past = [t.alpha * w for w in integrate(s, t, [levels[j] for j in used])]
            state = [("x", t.alpha / s.alpha + now / s.sigma), ("x0", -now * s.alpha / s.sigma)]
            old = [(f"m{j % order}", w / levels[j].sigma) for j, w in zip(used[1:], past, strict=True)]
            step = combine("x", state, old)
        calls.append(Call(s.level, (noise, step)))
    return Plan(tuple(calls))
