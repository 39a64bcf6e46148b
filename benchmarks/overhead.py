"""CPU microseconds a step beyond the network, beside the same solver of diffusers.

    python benchmarks/overhead.py

The network is a function that returns a ready tensor. Process time on one thread, the least of many runs of 20 steps.
Planning is not part of a step: it is printed apart (diffusers plans in `set_timesteps`, which is not counted either).
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import diffusers
import torch

from multidiff import grid, schedule, solver
from multidiff.process import Process
from multidiff.random import Rng
from multidiff.sample import sample

STEPS, REPEATS = 20, 30
SHAPES = ((16, 1, 64, 64), (1, 8))
OPTIONS = {"prediction_type": "sample"}
PEERS: dict[str, Callable] = {
    "ddim": lambda: diffusers.DDIMScheduler(**OPTIONS, clip_sample=False),
    "euler": lambda: diffusers.EulerDiscreteScheduler(**OPTIONS),
    "euler-a": lambda: diffusers.EulerAncestralDiscreteScheduler(),
    "heun": lambda: diffusers.HeunDiscreteScheduler(**OPTIONS),
    "dpm++2m": lambda: diffusers.DPMSolverMultistepScheduler(**OPTIONS),
    "dpm++2m-sde": lambda: diffusers.DPMSolverMultistepScheduler(**OPTIONS, algorithm_type="sde-dpmsolver++"),
    "dpm++3m": lambda: diffusers.DPMSolverMultistepScheduler(**OPTIONS, solver_order=3),
    "dpm++2s": lambda: diffusers.DPMSolverSinglestepScheduler(**OPTIONS),
    "unipc2": lambda: diffusers.UniPCMultistepScheduler(**OPTIONS),
    "unipc3": lambda: diffusers.UniPCMultistepScheduler(**OPTIONS, solver_order=3),
    "deis3": lambda: diffusers.DEISMultistepScheduler(**OPTIONS, solver_order=3),
    "lms4": lambda: diffusers.LMSDiscreteScheduler(**OPTIONS),
    "angular3": lambda: None,
}


def least(run: Callable[[], int]) -> float:
    """Microseconds a network call of the fastest repetition."""
    times = []
    for _ in range(REPEATS):
        begin = time.process_time()
        calls = run()
        times.append((time.process_time() - begin) / calls * 1e6)
    return min(times)


def theirs(make: Callable, x: torch.Tensor, estimate: torch.Tensor) -> float | None:
    scheduler = make()
    if scheduler is None:
        return None

    def run() -> int:
        scheduler.set_timesteps(STEPS)
        state = x
        begin = time.process_time()
        for t in scheduler.timesteps:
            scheduler.scale_model_input(state, t)
            state = scheduler.step(estimate, t, state, return_dict=False)[0]
        run.spent.append((time.process_time() - begin) / len(scheduler.timesteps) * 1e6)  # type: ignore[attr-defined]
        return STEPS

    run.spent = []  # type: ignore[attr-defined]
    least(run)
    return min(run.spent)  # type: ignore[attr-defined]


def main() -> None:
    warnings.filterwarnings("ignore")
    diffusers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    process = Process(schedule.Cosine())
    levels = grid.Karras()(process, STEPS)
    print(f"{'solver':12}" + "".join(f"{shape!s:>20}: ours, diffusers, ratio" for shape in SHAPES) + "   plan")
    for name, make in PEERS.items():
        row = f"{name:12}"
        for shape in SHAPES:
            x = Rng.batch(0).normal(shape, torch.zeros(0))
            estimate = x * 0.5
            begin = time.process_time()
            plan = solver.make(name).plan(levels)
            planned = (time.process_time() - begin) * 1e3
            rng = Rng.batch(0) if plan.stochastic else None

            def run(plan=plan, x=x, estimate=estimate, rng=rng) -> int:
                sample(lambda x, t, cond=None, space=None: estimate, plan, x, rng=rng)
                return len(plan.calls)

            ours, peer = least(run), theirs(make, x, estimate)
            row += f"{ours:22.1f} " + (f"{peer:10.1f} {ours / peer:8.3f}   " if peer else f"{'-':>10} {'-':>8}   ")
        print(row + f"{planned:6.1f} ms")


if __name__ == "__main__":
    main()
