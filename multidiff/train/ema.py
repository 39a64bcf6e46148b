"""A running average of the weights, kept as a second network so that nothing is ever swapped."""

from __future__ import annotations

import copy

import torch
from torch import nn


class EMA(nn.Module):
    """Exponential moving average of a network's parameters, with a warm-up of the decay.

    The averaged network is an ordinary submodule: it is saved, loaded and moved with everything else.

    Args:
        network: what is averaged; copied once.
        decay: weight of the past at each update, once warm.
    """

    def __init__(self, network: nn.Module, decay: float = 0.999) -> None:
        super().__init__()
        self.decay = decay
        self.network = copy.deepcopy(network).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> EMA:
        """The average is never trained: it stays in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move the average towards `network`; `step` counts updates from 0 and ramps the decay up."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages = [average.data for average in self.network.parameters()]
        torch._foreach_lerp_(averages, [weight.data for weight in network.parameters()], 1 - decay)
        for average, value in zip(self.network.buffers(), network.buffers(), strict=True):
            average.copy_(value)
