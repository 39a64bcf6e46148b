"""An E(n)-equivariant graph network as in the EDM paper, over all pairs, in dense tensors; written from the papers.

Satorras et al. 2021, equations 3 to 6; Hoogeboom et al. 2022, appendix B: the weight of a message is inferred
(equation 8 of the former), coordinates move along differences divided by the distance plus one, and initial squared
distances are an input of every layer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

TYPES = 6
"""One-hot atom types, the charge, and the time."""


class EGNN(nn.Module):
    """Positions and features of atoms in, the same out.

    Args:
        layers: blocks; the paper's has 9.
        width: features an atom; the paper's has 256.
    """

    def __init__(self, layers: int = 9, width: int = 256) -> None:
        super().__init__()
        self.embed = nn.Linear(TYPES + 1, width)
        self.layers = nn.ModuleList(EGNNLayer(width) for _ in range(layers))
        self.read = nn.Linear(width, TYPES)

    def forward(self, x: Tensor, h: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Positions (B, N, 3), features (B, N, TYPES + 1), mask (B, N) -> the change of the positions, features."""
        others = ~torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
        pairs = (mask[:, :, None] & mask[:, None] & others)[..., None]
        first, start = _squared(x), x
        h = self.embed(h)
        for layer in self.layers:
            x, h = layer(x, h, first, pairs)
        return (x - start) * mask[..., None], self.read(h) * mask[..., None]


class EGNNLayer(nn.Module):
    """A message for each pair, then a step of features and positions; about 0.6 M weights at width 256."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.message = _mlp(2 * width + 2, width, width, last=True)
        self.attend = nn.Sequential(nn.Linear(width, 1), nn.Sigmoid())
        self.update = _mlp(2 * width, width, width)
        self.move = nn.Sequential(_mlp(2 * width + 2, width, width, last=True), nn.Linear(width, 1, bias=False))

    def forward(self, x: Tensor, h: Tensor, first: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
        edges = self.edges(x, h, first)
        message = self.message(edges)
        message = message * self.attend(message) * pairs
        h = h + self.update(torch.cat([h, message.sum(2) / 100], -1))
        difference = x[:, :, None] - x[:, None]
        direction = difference / (_squared(x).clamp(min=1e-8).sqrt() + 1)
        return x + (direction * self.move(self.edges(x, h, first)) * pairs).sum(2) / 100, h

    @staticmethod
    def edges(x: Tensor, h: Tensor, first: Tensor) -> Tensor:
        """(B, N, N, 2 width + 2): both ends, the squared distance now and at the start."""
        n = h.shape[1]
        ends = [h[:, :, None].expand(-1, -1, n, -1), h[:, None].expand(-1, n, -1, -1)]
        return torch.cat([*ends, _squared(x), first], -1)


def _squared(x: Tensor) -> Tensor:
    return (x[:, :, None] - x[:, None]).square().sum(-1, keepdim=True)


def _mlp(inputs: int, hidden: int, outputs: int, last: bool = False) -> nn.Sequential:
    rest = [nn.SiLU()] if last else []
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, outputs), *rest)
