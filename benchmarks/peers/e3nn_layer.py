"""One message-passing layer of e3nn tensor products over all pairs, 64 scalars and 64 vectors an atom.

The usual ways to build one: depthwise ("uvu", as in NequIP, Batzner et al. 2022) and fully connected (as in e3nn's own
example networks), the weights of each pair from its distance.
"""

from __future__ import annotations

import torch
from e3nn import nn as enn
from e3nn import o3
from torch import Tensor, nn

RADIAL = 16


class TensorProductLayer(nn.Module):
    """Features of neighbours times harmonics of directions, summed and mixed.

    Args:
        channels: of scalars, and of vectors.
        depthwise: each channel by itself; otherwise every channel to every channel.
    """

    def __init__(self, channels: int = 64, depthwise: bool = True) -> None:
        super().__init__()
        self.irreps = o3.Irreps(f"{channels}x0e + {channels}x1o")
        self.harmonics = o3.Irreps("0e + 1o")
        if depthwise:
            self.product, middle = _depthwise(self.irreps, self.harmonics)
        else:
            self.product = o3.FullyConnectedTensorProduct(
                self.irreps, self.harmonics, self.irreps, internal_weights=False, shared_weights=False
            )
            middle = self.irreps
        self.weights = enn.FullyConnectedNet([RADIAL, 64, self.product.weight_numel], torch.nn.functional.silu)
        self.mix_in, self.mix_out = o3.Linear(self.irreps, self.irreps), o3.Linear(middle, self.irreps)

    def forward(self, x: Tensor, h: Tensor, radial: Tensor) -> Tensor:
        """Positions (B, N, 3), features (B, N, irreps), radial functions (B, N, N, RADIAL) -> features."""
        batch, n = x.shape[:2]
        spread = o3.spherical_harmonics(self.harmonics, x[:, :, None] - x[:, None], True, normalization="component")
        senders = self.mix_in(h)[:, None].expand(batch, n, n, -1)
        messages = self.product(senders.flatten(0, 2), spread.flatten(0, 2), self.weights(radial.flatten(0, 2)))
        return h + self.mix_out(messages.view(batch, n, n, -1).sum(2) / n**0.5)


def _depthwise(irreps: o3.Irreps, harmonics: o3.Irreps) -> tuple[o3.TensorProduct, o3.Irreps]:
    """The product of each channel with each harmonic that ends in a scalar or a vector."""
    made, paths = [], []
    for i, (count, left) in enumerate(irreps):
        for j, (_, right) in enumerate(harmonics):
            for out in left * right:
                if out in irreps:
                    paths.append((i, j, len(made), "uvu", True))
                    made.append((count, out))
    middle = o3.Irreps(made)
    product = o3.TensorProduct(irreps, harmonics, middle, paths, internal_weights=False, shared_weights=False)
    return product, middle
