"""Accuracy of solvers and grids on an exact 2-D mixture, beside diffusers with the same start and levels.

    python benchmarks/solvers.py

Error: root mean square over 2,048 samples against the probability-flow ODE followed at a tolerance of 1e-9, at
5, 10, 20 and 50 network calls; order: measured over 200 to 800 steps. The start is sigma = 80 times unit noise for all.
Where diffusers fails or cannot take the levels, the column says why.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import diffusers
import torch
from torch import Tensor

from multidiff import adaptive, grid, schedule, solver
from multidiff.process import Level, Process
from multidiff.random import Rng
from multidiff.sample import sample
from multidiff.testing import convergence, mixture, peer

CALLS = (5, 10, 20, 50)
OPTIONS = {"prediction_type": "sample"}
ZERO = {**OPTIONS, "final_sigmas_type": "zero"}
PEERS: dict[str, Callable] = {
    "euler": lambda: diffusers.EulerDiscreteScheduler(**OPTIONS),
    "heun": lambda: diffusers.HeunDiscreteScheduler(**OPTIONS),
    "dpm++2m": lambda: diffusers.DPMSolverMultistepScheduler(**ZERO),
    "dpm++2s": lambda: diffusers.DPMSolverSinglestepScheduler(**ZERO, lower_order_final=True),
    "dpm++3m": lambda: diffusers.DPMSolverMultistepScheduler(**ZERO, solver_order=3),
    "dpm++3s": lambda: diffusers.DPMSolverSinglestepScheduler(**ZERO, solver_order=3, lower_order_final=True),
    "unipc2": lambda: diffusers.UniPCMultistepScheduler(**ZERO, solver_order=2),
    "unipc3": lambda: diffusers.UniPCMultistepScheduler(**ZERO, solver_order=3),
    "deis3": lambda: diffusers.DEISMultistepScheduler(**OPTIONS, solver_order=3),
    "lms4": lambda: diffusers.LMSDiscreteScheduler(**OPTIONS),
}
GRIDS = {
    "karras": grid.Karras(),
    "log-snr (their exponential)": grid.LogSNR(),
    "beta": grid.Beta(),
    "uniform (their trailing)": grid.Uniform(),
}


@dataclass(frozen=True)
class Problem:
    """The mixture in one process, the start and the answer."""

    process: Process
    denoiser: mixture.GaussianMixture
    x: Tensor
    noisy: Tensor
    clean: Tensor


def problem(batch: int) -> Problem:
    process = Process(schedule.Cosine())
    denoiser = mixture.seven(process)
    first, *_, last, _ = grid.Karras()(process, 3)
    x = process.prior(Rng.batch(0), torch.zeros(batch, 2, dtype=torch.float64), t=first.t)
    noisy = adaptive.solve(denoiser, process, x, start=first.t, end=last.t, tolerance=1e-9, pair="dp54").x
    assert isinstance(noisy, Tensor)
    clean = denoiser(noisy, torch.full((batch,), last.t, dtype=torch.float64))
    return Problem(process, denoiser, x, noisy, clean)


def ours(p: Problem, method: solver.Solver, spacing: grid.Grid, calls: int) -> float:
    levels = spacing(p.process, solver.steps_for(calls, method, p.process, spacing))
    return convergence.rms(sample(p.denoiser, method.plan(levels), start_at(p, levels[0])), p.clean)


def theirs(p: Problem, name: str, spacing: grid.Grid, calls: int) -> float:
    """DEIS cannot take the clean end (0 log 0): it is given the last estimate as all others are."""
    levels = spacing(p.process, solver.steps_for(calls, solver.make(name), p.process, spacing))
    scheduler, x = PEERS[name](), start_at(p, levels[0])
    if name != "deis3":
        return convergence.rms(peer.run(scheduler, p.denoiser, levels, x), p.clean)
    noisy = peer.run(scheduler, p.denoiser, levels[:-1], x)
    return convergence.rms(p.denoiser(noisy, torch.full((len(x),), levels[-2].t, dtype=torch.float64)), p.clean)


def start_at(p: Problem, level: Level) -> Tensor:
    """The common start, or the same noise where a grid begins at t = 1 instead of sigma = 80."""
    start = grid.Karras()(p.process, 2)[0]
    return p.x if level.t == start.t else p.x / float(start.sigma) * float(level.sigma)  # type: ignore[arg-type]


def row(name: str, values: Sequence[object]) -> None:
    print(f"{name:28}" + "".join(f"{v:>19.4f}" if isinstance(v, float) else f"{v!s:>19}" for v in values))


def solvers(p: Problem, small: Problem) -> None:
    print("\nKarras levels (rho 7, 80 to 0.002): ours / diffusers at 5, 10, 20, 50 calls; measured order")
    for name in [*PEERS, "angular3"]:
        method, cells = solver.make(name), []
        for calls in CALLS:
            error = ours(p, method, grid.Karras(), calls)
            cells.append(
                f"{error:.4f} / {theirs(p, name, grid.Karras(), calls):.4f}" if name in PEERS else f"{error:.4f} / -"
            )
        steps = [200, 400, 800]
        errors = convergence.errors(method, small.denoiser, small.process, small.x, small.noisy, steps)
        row(name, [*cells, f"{convergence.order(steps, errors):.2f}"])


def grids(p: Problem) -> None:
    print("\nBest of diffusers' solvers on each grid, and ours")
    best = dict.fromkeys((10, 20), (float("inf"), ""))
    for label, spacing in GRIDS.items():
        for calls in best:
            found = min((theirs(p, name, spacing, calls), f"{name} on {label}") for name in PEERS)
            best[calls] = min(best[calls], found)
            print(f"  {calls:3} calls, {label:28} {found[1].split(' on ')[0]:9} {found[0]:.4f}")
    for calls, (error, name) in best.items():
        own = ours(p, solver.Angular(), grid.Quadratic(), calls)
        best_of_theirs = f"diffusers' best, {name}: {error:.4f}"
        print(f"{calls} calls: angular3 on quadratic {own:.4f}; {best_of_theirs}; ratio {own / error:.2f}")


def main() -> None:
    warnings.filterwarnings("ignore")
    diffusers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    p = problem(2048)
    solvers(p, problem(256))
    grids(p)


if __name__ == "__main__":
    main()
