"""How much an error counts at each noise level.

A weighting w multiplies the squared error of x0 whatever the network predicts; the objective converts, so that one
weighting gives the same gradient for every prediction.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from multidiff.registry import Entry, build


class Weighting:
    """A function of log(alpha / sigma)."""

    def __call__(self, log_snr: Tensor) -> Tensor:
        """The factor on |x0_hat - x0|^2, of the shape of `log_snr`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Uniform(Weighting):
    """The plain squared error of x0."""

    def __call__(self, log_snr: Tensor) -> Tensor:
        return torch.ones_like(log_snr)


@dataclass(frozen=True)
class EDM(Weighting):
    """1 + (alpha / sigma)^2: unit weight on EDM's own target (Karras et al. 2022, table 1, unit data deviation)."""

    def __call__(self, log_snr: Tensor) -> Tensor:
        return 1 + torch.exp(2 * log_snr)


@dataclass(frozen=True)
class MinSNR(Weighting):
    """min(SNR, gamma) (Hang et al. 2023).

    Attributes:
        gamma: the cap on SNR = (alpha / sigma)^2.
    """

    gamma: float = 5.0

    def __call__(self, log_snr: Tensor) -> Tensor:
        return torch.exp(2 * log_snr).clamp(max=self.gamma)


@dataclass(frozen=True)
class Sigmoid(Weighting):
    """sigmoid(2 log_snr + bias): counts where there is signal, fades into the noise.

    For unit-variance noise and bias 0 this is alpha^2. Bounded at low noise, so it also suits cross-entropy.

    Attributes:
        bias: moves the fading towards the noise when positive.
    """

    bias: float = 0.0

    def __call__(self, log_snr: Tensor) -> Tensor:
        return torch.sigmoid(2 * log_snr + self.bias)


WEIGHTINGS = {
    "uniform": Entry(Uniform, summary="the plain squared error of x0"),
    "edm": Entry(EDM, summary="1 + SNR: unit weight on EDM's own target"),
    "min-snr": Entry(MinSNR, summary="min(SNR, gamma)"),
    "sigmoid": Entry(Sigmoid, summary="bounded, fades into the noise"),
}
"""Name -> weighting, for `make`."""


def make(name: str, **options: object) -> Weighting:
    """The weighting of that name; `InputError` for an unknown name or option."""
    weighting: Weighting = build("weighting", WEIGHTINGS, name, options)
    return weighting
