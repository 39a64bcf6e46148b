"""Higher degrees: how the neighbours of an atom are spread over the sphere, through e3nn.

Moments of the neighbourhood (Batatia et al. 2022, MACE, equation 8), dense over all pairs:

    A_i^{c l m} = sum_j w_ij^{c l} R_lm(d_ij),    l = 1 ... degree

with weights from the pair stream and d_ij the softened direction, so that nothing jumps where two atoms meet. Products
of two moments tell apart what mixed vectors blur, such as planar from tetrahedral neighbours. Import this file only
where `degree` is above 1: e3nn takes seconds. Its harmonics and coupling coefficients are used bare, because its
product modules hold generated constants that change when they are copied or built without memory.
"""

from __future__ import annotations

import math

import torch
from e3nn import o3
from torch import Tensor, nn


class Moments(nn.Module):
    """Adds invariants to the scalars and vectors to the vectors of each atom; zero before training.

    The irreps are those of rotations alone (all of even parity), as the rest of the network's are.

    Args:
        width, vectors, pair_width: of the network.
        degree: the highest l.
        channels: moments of each degree.
    """

    coupling: Tensor
    place: Tensor

    def __init__(self, width: int, vectors: int, pair_width: int, degree: int, channels: int = 8) -> None:
        super().__init__()
        self.degrees = list(range(1, degree + 1))
        self.irreps = o3.Irreps([(1, (degree, 1)) for degree in self.degrees])
        self.weigh = nn.Linear(pair_width, channels * degree, bias=False)
        self.left = nn.Parameter(torch.randn(degree, channels, channels) / math.sqrt(channels))
        self.right = nn.Parameter(torch.randn(degree, channels, channels) / math.sqrt(channels))
        self.register_buffer("coupling", to_vectors(self.degrees), persistent=False)
        self.register_buffer("place", torch.tensor([d - 1 for d in self.degrees for _ in range(2 * d + 1)]), False)
        self.to_scalars = nn.Linear(channels * degree, width, bias=False)
        self.to_vectors = nn.Linear(channels * self.coupling.shape[-1], vectors, bias=False)
        for last in (self.to_scalars, self.to_vectors):
            nn.init.zeros_(last.weight)

    def forward(self, scalars: Tensor, vectors: Tensor, pair: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        """Scalars (B, N, S), vectors (B, N, 3, V), pairs (B, N, N, P), directions (B, N, 3, N) -> scalars, vectors."""
        weights = self.weigh(pair).unflatten(-1, (len(self.degrees), -1))
        with torch.autocast(pair.device.type, enabled=False):
            invariants, arrows = self.products(self.moments(weights.float(), direction.float()))
        return scalars + self.to_scalars(invariants).to(scalars.dtype), vectors + self.to_vectors(arrows)

    def moments(self, weights: Tensor, direction: Tensor) -> Tensor:
        """Weights (B, N, N, degree, C), directions (B, N, 3, N) -> moments (B, N, C, `irreps`) of unit deviation."""
        y = o3.spherical_harmonics(self.degrees, direction.transpose(-1, -2), normalize=False, normalization="norm")
        y = y.split([2 * d + 1 for d in self.degrees], -1)
        moments = torch.cat([w.transpose(-1, -2) @ part for w, part in zip(weights.unbind(-2), y, strict=True)], -1)
        return moments * (moments.square().mean((-2, -1), keepdim=True) + 1e-4).rsqrt()

    def products(self, moments: Tensor) -> tuple[Tensor, Tensor]:
        """Products of mixed moments, channel by channel: invariants (B, N, degree C), vectors (B, N, 3, C paths)."""
        a = torch.einsum("bncm,mcd->bndm", moments, self.left[self.place])
        b = torch.einsum("bncm,mcd->bndm", moments, self.right[self.place])
        squares = (a * b).split([2 * d + 1 for d in self.degrees], -1)
        invariants = torch.cat([part.sum(-1) for part in squares], -1)
        outer = (a[..., :, None] * b[..., None, :]).flatten(-2)
        arrows = (outer @ self.coupling.flatten(0, 1).flatten(1)).unflatten(-1, (3, -1))
        return invariants, arrows.transpose(2, 3).flatten(3)


def to_vectors(degrees: list[int]) -> Tensor:
    """(M, M, 3, paths) coefficients that make a vector of two moments, a path for each pair of degrees."""
    pairs = [(left, right) for left in degrees for right in degrees if abs(left - right) <= 1]
    start = {degree: degree**2 - 1 for degree in degrees}
    size = start[degrees[-1]] + 2 * degrees[-1] + 1
    coupling = torch.zeros(size, size, 3, len(pairs))
    for path, (left, right) in enumerate(pairs):
        rows = slice(start[left], start[left] + 2 * left + 1)
        columns = slice(start[right], start[right] + 2 * right + 1)
        coupling[rows, columns, :, path] = math.sqrt(3) * o3.wigner_3j(left, right, 1)
    return coupling
