"""Plan builders: each solver turns a list of noise levels into the linear combinations that a run is made of."""

from __future__ import annotations

from multidiff.registry import Entry, build
from multidiff.solver.angular import Angular
from multidiff.solver.base import Solver, steps_for
from multidiff.solver.dpm import DPMSolverPP
from multidiff.solver.multistep import DEIS, LMS, UniPC
from multidiff.solver.onestep import DDIM, DDPM, Euler, EulerAncestral, Heun
from multidiff.solver.restart import Restart

__all__ = [
    "DDIM",
    "DDPM",
    "DEIS",
    "LMS",
    "SOLVERS",
    "Angular",
    "DPMSolverPP",
    "Euler",
    "EulerAncestral",
    "Heun",
    "Restart",
    "Solver",
    "UniPC",
    "make",
    "steps_for",
]

SOLVERS = {
    "ddpm": Entry(DDPM, {}, "ancestral sampling with the posterior's variance: stochastic, many steps"),
    "ddim": Entry(DDIM, {}, "first order, deterministic; eta above 0 adds fresh noise"),
    "euler": Entry(Euler, {}, "first order on the ODE, the same numbers as ddim"),
    "euler-a": Entry(EulerAncestral, {}, "ancestral Euler: stochastic"),
    "heun": Entry(Heun, {}, "second order, two calls a step: EDM's sampler; churn makes it stochastic"),
    "dpm++1": Entry(DPMSolverPP, {"order": 1, "singlestep": False}, "DPM-Solver++ of first order, the same as ddim"),
    "dpm++2m": Entry(DPMSolverPP, {"order": 2, "sde": False, "singlestep": False}, "second order, a good first choice"),
    "dpm++2m-sde": Entry(DPMSolverPP, {"order": 2, "sde": True, "singlestep": False}, "second order on the SDE"),
    "dpm++2s": Entry(DPMSolverPP, {"order": 2, "sde": False, "singlestep": True}, "second order in pairs of steps"),
    "dpm++2s-sde": Entry(DPMSolverPP, {"order": 2, "sde": True, "singlestep": True}, "the same on the SDE"),
    "dpm++3m": Entry(DPMSolverPP, {"order": 3, "sde": False, "singlestep": False}, "third order, for 15 steps or more"),
    "dpm++3m-sde": Entry(DPMSolverPP, {"order": 3, "sde": True, "singlestep": False}, "third order on the SDE"),
    "dpm++3s": Entry(DPMSolverPP, {"order": 3, "sde": False, "singlestep": True}, "third order in triples of steps"),
    "unipc2": Entry(UniPC, {"order": 2}, "second-order prediction, corrected by the next estimate"),
    "unipc3": Entry(UniPC, {"order": 3}, "third-order prediction, corrected by the next estimate"),
    "deis3": Entry(DEIS, {"order": 3}, "third order in the noise: strong at 10 to 20 steps"),
    "lms4": Entry(LMS, {"order": 4}, "fourth order in the noise, for 30 steps or more"),
    "angular3": Entry(
        Angular, {"order": 3}, "third order in the angle: the most exact at 6 to 20 steps, on grid quadratic"
    ),
    "restart": Entry(Restart, {}, "Heun, with an interval of levels run through again"),
    "restart-sde": Entry(
        Restart,
        {"solver": DPMSolverPP(order=2, sde=True)},
        "dpm++2m-sde with a restarted interval: mends what went wrong",
    ),
}
"""Name -> solver, for `make` and `multidiff list solvers`."""


def make(name: str, **options: object) -> Solver:
    """The solver of that name.

    Raises:
        InputError: the name or an option is unknown.
    """
    solver: Solver = build("solver", SOLVERS, name, options)
    return solver
