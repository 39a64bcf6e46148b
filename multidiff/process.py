"""Noise schedule and space together: how a clean state becomes a noisy one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from multidiff.random import Rng
from multidiff.schedule import NoiseSchedule
from multidiff.space import Euclidean, Space
from multidiff.state import Coef, State, expand_to, map_state


@dataclass(frozen=True)
class Level:
    """One noise level in float64: time, signal and noise factors (one number, or one for each part).

    `process` is where it comes from; a solver that needs levels of its own (churn) asks it.
    """

    t: float
    alpha: Coef
    sigma: Coef
    process: Process | None = field(default=None, repr=False, compare=False)


class Process:
    """One schedule for the whole state, or one for each part, and the space the noise lies in.

    Args:
        schedule: a schedule, or a mapping from part to schedule.
        space: where noise lies when a call names no space of its own (masks differ from batch to batch).
    """

    def __init__(self, schedule: NoiseSchedule | Mapping[str, NoiseSchedule], space: Space | None = None) -> None:
        self.schedule = schedule
        self.space = space or Euclidean()

    def alpha(self, t: Tensor) -> Tensor | Mapping[str, Tensor]:
        """Signal factors at times `t`, float64, of the shape of `t`."""
        return self._each("alpha", t)

    def sigma(self, t: Tensor) -> Tensor | Mapping[str, Tensor]:
        """Noise factors at times `t`, float64, of the shape of `t`."""
        return self._each("sigma", t)

    def log_snr(self, t: Tensor) -> Tensor | Mapping[str, Tensor]:
        """log(alpha / sigma) at times `t`, float64, of the shape of `t`."""
        return self._each("log_snr", t)

    def level(self, t: float) -> Level:
        """The level at time `t`; t = 0 is exactly clean: alpha = 1, sigma = 0 (a schedule's own end may not be)."""
        return self.levels(torch.tensor([float(t)], dtype=torch.float64))[0]

    def levels(self, t: Tensor) -> tuple[Level, ...]:
        """The level at each of the times `t`, a float64 tensor of one axis."""
        clean = t == 0
        alpha = _columns(self.alpha(t), clean, 1.0)
        sigma = _columns(self.sigma(t), clean, 0.0)
        return tuple(Level(time, a, s, self) for time, a, s in zip(t.tolist(), alpha, sigma, strict=True))

    def diffuse(self, x0: State, t: Tensor, rng: Rng, space: Space | None = None) -> tuple[State, State]:
        """x_t = alpha x0 + sigma eps.

        Args:
            x0: clean states, batch first.
            t: (B,) times in [0, 1], or (B, N) where each row of a state (B, N, ...) has a time of its own.

        Returns:
            The noisy states and the noise.
        """
        eps = (space or self.space).noise(rng, x0)
        noisy = map_state(_mix, x0, eps, self.alpha(t), self.sigma(t))
        return noisy, eps

    def prior(self, rng: Rng, like: State, space: Space | None = None, t: float = 1.0) -> State:
        """Pure noise at time `t`, of the shape of `like`: where sampling starts."""
        eps = (space or self.space).noise(rng, like)
        return map_state(lambda e, s: e * s, eps, self.level(t).sigma)

    def _each(self, name: str, t: Tensor) -> Tensor | Mapping[str, Tensor]:
        if isinstance(self.schedule, Mapping):
            return {part: getattr(schedule, name)(t) for part, schedule in self.schedule.items()}
        return getattr(self.schedule, name)(t)


def _mix(x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    return expand_to(alpha, x0) * x0 + expand_to(sigma, x0) * eps


def _columns(values: Tensor | Mapping[str, Tensor], clean: Tensor, clean_value: float) -> list[Coef]:
    """Python numbers, one a time (a mapping where each part has its own), with the clean end exact."""
    if not isinstance(values, Mapping):
        return list(values.masked_fill(clean, clean_value).tolist())
    columns = {part: value.masked_fill(clean, clean_value).tolist() for part, value in values.items()}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
