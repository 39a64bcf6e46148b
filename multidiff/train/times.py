"""How often each noise level is trained: densities of the time t, drawn stratified over the batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from multidiff.process import Process
from multidiff.random import Rng
from multidiff.registry import Entry, build
from multidiff.schedule import NoiseSchedule


class TimeDensity:
    """Maps uniform numbers to times by the inverse of a distribution function."""

    def quantile(self, u: Tensor, process: Process) -> Tensor:
        """The time below which a share `u` of the draws lies; float64 in (0, 1)."""
        raise NotImplementedError

    def draw(self, batch: int, process: Process, rng: Rng, device: torch.device | str = "cpu") -> Tensor:
        """(batch,) times, one from each of `batch` slices of equal probability, in random order.

        Stratification (Kingma et al. 2021, appendix I.1) lowers the variance of the loss.
        """
        offsets = rng.uniform(batch, device)
        slices = rng.uniform(batch, device).argsort()
        u = (slices + offsets) / batch
        return self.quantile(u.clamp(1e-6, 1 - 1e-6), process)


@dataclass(frozen=True)
class Uniform(TimeDensity):
    """Every time equally often."""

    def quantile(self, u: Tensor, process: Process) -> Tensor:
        return u


@dataclass(frozen=True)
class LogNormal(TimeDensity):
    """log(sigma / alpha) is Gaussian (Karras et al. 2022, table 1, for data of unit deviation).

    Attributes:
        mean: of log(sigma / alpha).
        std: its deviation.
    """

    mean: float = -0.5
    std: float = 1.2

    def quantile(self, u: Tensor, process: Process) -> Tensor:
        log_snr = -(self.mean + self.std * torch.special.ndtri(u))
        return _leading(process).time(log_snr).clamp(0, 1)


@dataclass(frozen=True)
class LogitNormal(TimeDensity):
    """logit(t) is Gaussian (Esser et al. 2024, equation 19).

    Attributes:
        mean: of logit(t).
        std: its deviation.
    """

    mean: float = 0.0
    std: float = 1.0

    def quantile(self, u: Tensor, process: Process) -> Tensor:
        return torch.sigmoid(self.mean + self.std * torch.special.ndtri(u))


@dataclass(frozen=True)
class Power(TimeDensity):
    """t is a power of a uniform number, so Beta(1 / exponent, 1): low noise is trained more than high.

    Attributes:
        exponent: 1 is every time equally often.
    """

    exponent: float = 1.5

    def quantile(self, u: Tensor, process: Process) -> Tensor:
        return u**self.exponent


TIMES = {
    "uniform": Entry(Uniform, summary="every time equally often"),
    "log-normal": Entry(LogNormal, summary="log(sigma / alpha) is Gaussian: EDM"),
    "power": Entry(Power, summary="t is a power of a uniform number: more often at low noise"),
    "logit-normal": Entry(LogitNormal, summary="logit(t) is Gaussian: rectified flows"),
}
"""Name -> density, for `make`."""


def make(name: str, **options: object) -> TimeDensity:
    """The density of that name; `InputError` for an unknown name or option."""
    density: TimeDensity = build("times", TIMES, name, options)
    return density


def _leading(process: Process) -> NoiseSchedule:
    """The schedule, or that of the first part."""
    schedule = process.schedule
    return schedule if isinstance(schedule, NoiseSchedule) else next(iter(schedule.values()))
