"""Run a scheduler of diffusers on our levels and our denoiser, to compare whole trajectories.

diffusers' own step tables are replaced by our levels in float64, so that only the mathematics of a step is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from multidiff.process import Level

UNIT_SIGNAL = ("Euler", "Heun", "LMS")
"""Schedulers with names like these hold x / alpha; the others keep alpha^2 + sigma^2 = 1."""


def run(
    scheduler: Any, denoiser: Callable[..., Tensor], levels: Sequence[Level], x: Tensor, **step_options: Any
) -> Tensor:
    """The result of `scheduler`, which predicts "sample" (or "epsilon"), from the state `x` at the first level.

    Args:
        levels: from a grid, of a process with one schedule.
        step_options: handed to ``scheduler.step``.
    """
    unit_signal = type(scheduler).__name__.startswith(UNIT_SIGNAL)
    path = _prepare(scheduler, levels)
    x = x / _scale(path[0], unit_signal)
    for level, timestep in zip(path[:-1], scheduler.timesteps, strict=True):
        scale = _scale(level, unit_signal)
        t = torch.full((len(x),), level.t, dtype=torch.float64)
        output = denoiser(x * scale, t)
        if scheduler.config.prediction_type == "epsilon":
            output = (x * scale - float(level.alpha) * output) / float(level.sigma)  # type: ignore[arg-type]
        scheduler.scale_model_input(x, timestep)
        x = scheduler.step(output, timestep, x, return_dict=False, **step_options)[0]
    return x * _scale(path[-1], unit_signal)


def _prepare(scheduler: Any, levels: Sequence[Level]) -> list[Level]:
    """Put our levels in the scheduler's tables; the levels it will pass, with Heun's repetitions."""
    scheduler.set_timesteps(len(levels) - 1)
    path = list(levels)
    if type(scheduler).__name__.startswith("Heun"):
        inner = [level for level in levels[1:-1] for _ in range(2)]
        path = [levels[0], *inner, levels[-1]]
    ratios = [float(level.sigma) / float(level.alpha) for level in path]  # type: ignore[arg-type]
    scheduler.sigmas = torch.tensor(ratios, dtype=torch.float64)
    scheduler.timesteps = torch.arange(len(path) - 1, 0, -1).double()
    scheduler.set_begin_index(0)
    return path


def _scale(level: Level, unit_signal: bool) -> float:
    """Our state is this factor times theirs."""
    alpha, sigma = float(level.alpha), float(level.sigma)  # type: ignore[arg-type]
    return alpha if unit_signal else (alpha * alpha + sigma * sigma) ** 0.5
