"""What guidance knows of one call of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from multidiff.denoiser import Ask
from multidiff.errors import InputError
from multidiff.process import Process
from multidiff.space import Euclidean, Product, Space
from multidiff.state import State, expand_to

Factor = float | Tensor | Mapping[str, Any]
"""A factor of the whole batch (a number), or of each sample (B,); or a mapping from part to such."""


@dataclass(frozen=True)
class Moment:
    """The question and the noise level it is asked at."""

    ask: Ask
    process: Process | None

    @cached_property
    def space(self) -> Space:
        """The subspace of the batch."""
        return self.ask.space or (self.process.space if self.process else Euclidean())

    @property
    def spaces(self) -> Any:
        """The subspace, or a mapping from part to subspace."""
        return self.space.spaces if isinstance(self.space, Product) else self.space

    @cached_property
    def alpha(self) -> Factor:
        """Signal factor: the level's own numbers where they are known, otherwise from the times."""
        return self.ask.level.alpha if self.ask.level else self._process.alpha(self.ask.t)

    @cached_property
    def sigma(self) -> Factor:
        """Noise factor."""
        return self.ask.level.sigma if self.ask.level else self._process.sigma(self.ask.t)

    @property
    def level_log_snr(self) -> float:
        """log(alpha / sigma) of the level, of its first part; infinite at the ends."""
        assert self.ask.level is not None
        alpha, sigma = _first(self.ask.level.alpha), _first(self.ask.level.sigma)
        if alpha == 0 or sigma == 0:
            return -math.inf if alpha == 0 else math.inf
        return math.log(alpha / sigma)

    @property
    def log_snr(self) -> Tensor:
        """(B,) log(alpha / sigma) at the times, of the first part."""
        value: Tensor = _first(self._process.log_snr(self.ask.t))
        return value

    @property
    def _process(self) -> Process:
        if self.process is None:
            raise InputError("this guidance needs the noise level: the denoiser must have a process")
        return self.process


@dataclass(frozen=True)
class Estimates(Moment):
    """The same with both answers, in the subspace: the one asked for and the reference."""

    first: State
    second: State


def factor(value: float | Tensor, x: Tensor) -> Any:
    """A factor of `x`: a number, or (B,) numbers that are made to fit."""
    return expand_to(value, x) if isinstance(value, torch.Tensor) else value


def _first(value: Any) -> Any:
    return next(iter(value.values())) if isinstance(value, Mapping) else value
