"""A solver of your own is a list of coefficients: no loop, no shapes, no schedule.

This one is DDIM with the estimate of the clean state extrapolated from the last two calls, which makes it second order
(it is the idea of DPM-Solver++ 2M). The order is then measured on a mixture of Gaussians, whose denoiser is exact.

    python examples/own_solver.py
"""

import itertools
from collections.abc import Sequence

import torch

from multidiff import Process, Rng
from multidiff.adaptive import solve
from multidiff.grid import LogSNR
from multidiff.plan import Call, Plan, Update
from multidiff.schedule import Cosine
from multidiff.solver import DDIM, Solver
from multidiff.solver.base import Point
from multidiff.testing.convergence import errors, order
from multidiff.testing.mixture import seven

STEPS = (40, 80, 160)


class Extrapolated(Solver):
    """Second order with one call a step."""

    def _plan(self, levels: Sequence[Point]) -> Plan:
        calls, last_h = [], 0.0
        for s, t in itertools.pairwise(levels):
            h = t.log_snr - s.log_snr
            r = h / (2 * last_h) if last_h else 0.0
            gain = t.alpha - s.alpha * t.sigma / s.sigma
            terms = [("x", t.sigma / s.sigma), ("x0", gain * (1 + r))] + ([("old", -gain * r)] if r else [])
            calls.append(Call(s.level, (Update("x", tuple(terms)), Update("old", (("x0", 1.0),)))))
            last_h = h
        return Plan(tuple(calls))


def main() -> None:
    """Measure the order of both."""
    process, grid = Process(Cosine()), LogSNR()
    denoiser = seven(process)
    levels = grid(process, 2)
    x = process.prior(Rng(0, range(64)), torch.zeros(64, 2, dtype=torch.float64), t=levels[0].t)
    # The last noisy level, where errors are compared, does not depend on the number of steps.
    exact = solve(denoiser, process, x, start=levels[0].t, end=levels[-2].t, tolerance=1e-7, pair="dp54").x
    for solver in (DDIM(), Extrapolated()):
        found = errors(solver, denoiser, process, x, exact, STEPS, grid)
        shown = " ".join(f"{e:.1e}" for e in found)
        print(f"{type(solver).__name__:<14} order {order(STEPS, found):.2f}   errors {shown}")


if __name__ == "__main__":
    main()
