"""Learned weights of the loss at each noise level (Karras et al. 2024, "EDM2", equation 21)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Uncertainty(nn.Module):
    """A log-variance u of each part's loss at each noise level; the loss L becomes L / exp(u) + u.

    At the optimum exp(u) is the mean loss of that level, so that every level and part pulls at the weights alike.

    Args:
        parts: names of the parts; one called "state" where the state is a single tensor.
        features: sines and cosines of the noise level that u is a linear function of.
    """

    frequencies: Tensor

    def __init__(self, parts: Sequence[str] = ("state",), features: int = 32) -> None:
        super().__init__()
        self.parts = tuple(parts)
        angles = 2 * math.pi * torch.linspace(1 / 64, 1 / 4, features // 2)  # periods of 64 to 4 in log-SNR
        self.register_buffer("frequencies", angles, persistent=False)
        self.linear = nn.Linear(2 * (features // 2), len(self.parts))
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, log_snr: Tensor, part: str) -> Tensor:
        """u of `part`, (B,) float32, at log(alpha / sigma) (B,)."""
        angle = log_snr.float().clamp(-16, 16)[:, None] * self.frequencies
        features = torch.cat([angle.sin(), angle.cos()], dim=-1)
        return nn.functional.linear(features, self.linear.weight, self.linear.bias)[:, self.parts.index(part)]

    def weigh(self, loss: Tensor, log_snr: Tensor, part: str) -> Tensor:
        """L / exp(u) + u, (B,)."""
        u = self(log_snr, part)
        return loss * torch.exp(-u) + u
