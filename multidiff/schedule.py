"""How much signal and how much noise at a time t in [0, 1]: x_t = alpha(t) x_0 + sigma(t) eps.

t = 0 is clean, t = 1 is noise. Everything is float64; log_snr(t) = log(alpha / sigma) falls strictly and `time` is its
inverse. The ends are finite: a schedule whose formula reaches alpha = 0 or sigma = 0 is cut at a log-SNR of
`LOG_SNR_MAX` in absolute value, far beyond what a network resolves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LOG_SNR_MAX = 14.0
"""|log(alpha / sigma)| at the cut ends: a noise of 8e-7 of the signal, or the reverse."""


class NoiseSchedule:
    """Base of all schedules.

    A variance-preserving schedule defines `log_snr` and `time`; the others override `alpha` and `sigma` as well.
    """

    def log_snr(self, t: Tensor) -> Tensor:
        """log(alpha / sigma) at `t`; strictly falling."""
        raise NotImplementedError

    def time(self, log_snr: Tensor) -> Tensor:
        """The t in [0, 1] at which log(alpha / sigma) is `log_snr`."""
        raise NotImplementedError

    def alpha(self, t: Tensor) -> Tensor:
        """The factor of the signal."""
        return torch.sigmoid(2 * self.log_snr(t)).sqrt()

    def sigma(self, t: Tensor) -> Tensor:
        """The factor of the noise."""
        return torch.sigmoid(-2 * self.log_snr(t)).sqrt()


@dataclass(frozen=True)
class Cosine(NoiseSchedule):
    """alpha = cos(pi t / 2), sigma = sin(pi t / 2) (Nichol and Dhariwal 2021, without their offset)."""

    def log_snr(self, t: Tensor) -> Tensor:
        t = t.double()
        return (torch.cos(t * math.pi / 2).log() - torch.sin(t * math.pi / 2).log()).clamp(-LOG_SNR_MAX, LOG_SNR_MAX)

    def time(self, log_snr: Tensor) -> Tensor:
        return torch.atan(torch.exp(-log_snr.double())) * 2 / math.pi


@dataclass(frozen=True)
class RectifiedFlow(NoiseSchedule):
    """alpha = 1 - t, sigma = t (Liu et al. 2022; Lipman et al. 2022)."""

    def alpha(self, t: Tensor) -> Tensor:
        return (1 - t.double()).clamp(min=0)

    def sigma(self, t: Tensor) -> Tensor:
        return t.double()

    def log_snr(self, t: Tensor) -> Tensor:
        t = t.double()
        return (torch.log1p(-t) - t.log()).clamp(-LOG_SNR_MAX, LOG_SNR_MAX)

    def time(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-log_snr.double())
