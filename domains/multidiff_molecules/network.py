"""The denoising network: attention over atoms with scalars, vectors and a pair stream, in dense tensors.

Each atom carries scalars (invariant under rotation) and vectors (which turn with the molecule); each pair of atoms
carries a small feature row that biases the attention, is fed by distances and by the noisy bonds, and ends as the bond
logits. Products of vectors give lengths, angles and, through the triple product, handedness: a network of distances
alone could not tell mirror images apart. Everything is exactly equivariant under rotation and permutation; translation
is removed by the zero centre of mass of the state.

The molecule that a layer looks at is the current estimate of the clean one: it starts as alpha x_t, the best linear
guess, and each layer moves it by at most the order of sigma.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multidiff.errors import InputError
from multidiff.space import Product, Space, SymmetricPairs
from multidiff.state import Parts, State

DEGREES = range(1, 5)
MOMENTS_EVERY = 2
"""Layers that share one block of higher degree."""


class MoleculeNetwork(nn.Module):
    """Predicts F of every part: "edm" for positions, logits for atoms, charges and bonds.

    Args:
        num_elements, num_charges, num_bonds: classes of the categorical parts.
        width: scalars an atom.
        vectors: vectors an atom.
        pair_width: features a pair.
        layers: blocks.
        heads: attention heads; divides `width`.
        self_conditioning: whether the last estimate is an input.
        degree: highest degree of the spherical harmonics that the layers see; above 1 through e3nn.

    Raises:
        InputError: the degree is not one of `DEGREES`.
    """

    def __init__(
        self,
        num_elements: int,
        num_charges: int = 3,
        num_bonds: int = 4,
        width: int = 128,
        vectors: int = 32,
        pair_width: int = 64,
        layers: int = 8,
        heads: int = 8,
        self_conditioning: bool = True,
        degree: int = 1,
    ) -> None:
        super().__init__()
        if degree not in DEGREES:
            raise InputError(f"degree {degree} is not allowed: from {DEGREES[0]} to {DEGREES[-1]}")
        self.self_conditioning = self_conditioning
        seen = 2 if self_conditioning else 1
        self.radial = RadialBasis()
        radial = self.radial.size
        self.embed_noise = nn.Sequential(nn.Linear(_NOISE_FEATURES, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
        self.embed_atoms = nn.Linear(seen * (num_elements + num_charges), width)
        self.embed_pairs = nn.Linear(seen * (num_bonds + radial), pair_width)
        self.embed_vectors = nn.Linear(seen, vectors, bias=False)
        self.layers = nn.ModuleList(Layer(width, vectors, pair_width, heads, radial) for _ in range(layers))
        self.atom_head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, num_elements + num_charges))
        self.bond_head = nn.Sequential(
            nn.LayerNorm(pair_width, elementwise_affine=False),
            nn.Linear(pair_width, pair_width),
            nn.SiLU(),
            nn.Linear(pair_width, num_bonds),
        )
        self.classes = (num_elements, num_charges)
        self.moments = nn.ModuleList()
        if degree > 1:
            from multidiff_molecules.harmonics import Moments

            self.moments.extend(Moments(width, vectors, pair_width, degree) for _ in range(0, layers, MOMENTS_EVERY))

    def forward(
        self, x: State, log_snr: Tensor, cond: Any = None, space: Space | None = None, previous: State | None = None
    ) -> State:
        """Outputs of all parts for noisy molecules padded to N atoms.

        Args:
            x: positions (B, N, 3), atoms (B, N, elements), charges (B, N, charges), bonds (B, N, N, bonds).
            log_snr: (B,), or (B, parts) with the positions first.
            cond: not used by this network.
            space: holds the masks of the batch.
            previous: the last estimate, like `x`, or None.
        """
        assert isinstance(x, Parts)
        assert isinstance(space, Product)
        pairs = space.spaces["bonds"]
        assert isinstance(pairs, SymmetricPairs)
        mask, pair_mask = pairs.mask, pairs.pair_mask
        log_snr = log_snr[:, None] if log_snr.dim() == 1 else log_snr
        alpha, sigma = _alpha_sigma(log_snr[:, 0])
        noise = self.embed_noise(_noise_features(log_snr, mask.sum(1)))
        estimate = alpha[:, None, None] * x["positions"].float()
        scalars, vectors, pair = self._embed(x, estimate, previous, pair_mask)
        scalars = scalars + noise[:, None]
        start, moved = estimate, torch.zeros_like(estimate)
        hidden = (~mask)[:, None, None, :] * -1e4
        for i, layer in enumerate(self.layers):
            geometry = self._geometry(estimate, pair_mask, pair.dtype)
            if self.moments and i % MOMENTS_EVERY == 0:
                direction = geometry[0][:, :, :3] * math.sqrt(_TYPICAL_ATOMS)  # of about unit length, for every degree
                scalars, vectors = self.moments[i // MOMENTS_EVERY](scalars, vectors, pair, direction)
            scalars, vectors, pair, move = layer(scalars, vectors, pair, noise, geometry, hidden)
            moved = moved - move
            estimate = start - sigma[:, None, None] * moved
        atoms, charges = self.atom_head(scalars).split(self.classes, dim=-1)
        bonds = self.bond_head(pair + pair.transpose(1, 2))
        positions = space.spaces["positions"].project(moved)
        assert isinstance(positions, Tensor)
        return Parts(positions=positions, atoms=atoms, charges=charges, bonds=bonds)

    @torch.no_grad()
    def _geometry(self, estimate: Tensor, pair_mask: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        direction, distance = _distances(estimate)
        ways = torch.cat([direction, torch.ones_like(direction[..., :1])], -1)
        ways = ways * (pair_mask[..., None] / math.sqrt(_TYPICAL_ATOMS))
        return ways.transpose(-1, -2).to(dtype), self.radial(distance).to(dtype)

    def _embed(
        self, x: Parts, estimate: Tensor, previous: State | None, pair_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        atoms = [x["atoms"], x["charges"]]
        pairs = [x["bonds"], self.radial(_distances(estimate)[1])]
        vectors = [x["positions"]]
        if self.self_conditioning and isinstance(previous, Parts):
            atoms += [previous["atoms"], previous["charges"]]
            pairs += [previous["bonds"], self.radial(_distances(previous["positions"])[1])]
            vectors += [previous["positions"]]
        elif self.self_conditioning:
            atoms, pairs, vectors = ([*seen, *map(torch.zeros_like, seen)] for seen in (atoms, pairs, vectors))
        scalars = self.embed_atoms(torch.cat(atoms, -1))
        pair = self.embed_pairs(torch.cat([p.to(x["bonds"].dtype) for p in pairs], -1))
        stacked = torch.stack([v.float() for v in vectors], -1)
        return scalars, self.embed_vectors(stacked), pair * pair_mask[..., None]


_NOISE_FEATURES = 33


class Layer(nn.Module):
    """Pairs, then attention, then a gated feed-forward step on scalars and vectors, then a move of the atoms."""

    def __init__(self, width: int, vectors: int, pair_width: int, heads: int, radial: int) -> None:
        super().__init__()
        self.heads = heads
        self.modulate = nn.Linear(width, 4 * width)
        self.pair_in = nn.Linear(pair_width + radial + heads, pair_width, bias=False)
        self.pair_from_atoms = nn.Linear(width, pair_width)
        self.angle = nn.Linear(vectors, vectors, bias=False)
        self.pair_out = nn.Linear(pair_width, pair_width, bias=False)
        self.qkv = nn.Linear(width, 3 * width)
        self.pair_to_bias = nn.Linear(pair_width, heads + vectors, bias=False)
        self.attention_out = nn.Linear(width, width)
        self.vector_values = nn.Linear(vectors, vectors, bias=False)
        self.vector_mix = nn.Linear(vectors, 4 * vectors, bias=False)
        self.expand = nn.Linear(width + 4 * vectors, 4 * width)
        self.contract = nn.Linear(4 * width, width + 2 * vectors)
        self.move = nn.Linear(vectors, 1, bias=False)
        for last in (self.pair_out, self.attention_out, self.contract, self.modulate, self.move):
            nn.init.zeros_(last.weight)
            if last.bias is not None:
                nn.init.zeros_(last.bias)

    def forward(
        self,
        scalars: Tensor,
        vectors: Tensor,
        pair: Tensor,
        noise: Tensor,
        geometry: tuple[Tensor, Tensor],
        mask: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Scalars (B, N, S), vectors (B, N, 3, V), pairs (B, N, N, P) -> the same, and a move (B, N, 3)."""
        scale_a, shift_a, scale_f, shift_f = self.modulate(F.silu(noise))[:, None].chunk(4, -1)
        ways, radial = geometry
        normed = _rms(vectors)

        h = _norm(scalars) * (1 + scale_a) + shift_a
        pair = self._pair_step(h, normed, pair, radial)
        bias, along = self.pair_to_bias(pair).split([self.heads, vectors.shape[-1]], -1)
        passed, carried = self._attention(h, normed, bias, mask)
        scalars = scalars + self.attention_out(passed)
        pulled, total = (ways.to(along.dtype) @ along).split([3, 1], 2)
        vectors = vectors + carried + pulled

        h = _norm(scalars) * (1 + scale_f) + shift_f
        a, b, c, own = self.vector_mix(_rms(vectors)).float().chunk(4, -1)
        cross = _cross(a, b)
        invariants = torch.cat([(a * b).sum(2), (cross * c).sum(2), (own * own).sum(2), total.float()[:, :, 0]], -1)
        out = self.contract(F.silu(self.expand(torch.cat([h, invariants.to(h.dtype)], -1))))
        change, gate, twist = out.split([h.shape[-1], own.shape[-1], own.shape[-1]], -1)
        vectors = vectors + gate[:, :, None] * own + twist[:, :, None] * cross
        move = self.move(vectors).float()[..., 0]
        return scalars + change, vectors, pair, move

    def _pair_step(self, h: Tensor, vectors: Tensor, pair: Tensor, radial: Tensor) -> Tensor:
        batch, n = vectors.shape[:2]
        arms = self.angle(vectors).view(batch, n, 3, self.heads, -1).permute(0, 3, 1, 2, 4).flatten(3)
        inner = (arms @ arms.transpose(-1, -2)).permute(0, 2, 3, 1).contiguous()
        ends = self.pair_from_atoms(h)
        z = self.pair_in(torch.cat([pair, radial, inner.to(pair.dtype)], -1))
        z = z.add_(_rows(ends)).add_(ends[:, None])
        return self.pair_out(F.silu(z)).add_(pair)

    def _attention(self, h: Tensor, vectors: Tensor, bias: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        batch, n, width = h.shape
        q, k, v = self.qkv(h).view(batch, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        arrows = self.vector_values(vectors).view(batch, n, 3, self.heads, -1).permute(0, 3, 1, 2, 4).flatten(3)
        bias = bias.permute(0, 3, 1, 2).reshape(-1, n, n)
        logits = torch.baddbmm(bias, q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2), alpha=q.shape[-1] ** -0.5)
        weights = (logits.view(batch, self.heads, n, n).float() + mask).softmax(-1).to(v.dtype)
        out = weights @ torch.cat([v, arrows], -1)
        passed, carried = out.split([v.shape[-1], arrows.shape[-1]], -1)
        carried = carried.unflatten(-1, (3, -1)).permute(0, 2, 3, 1, 4).reshape(vectors.shape)
        return passed.transpose(1, 2).reshape(batch, n, width), carried


_TYPICAL_ATOMS = 18


class RadialBasis(nn.Module):
    """Bumps on the logarithm of a distance: fine where bonds are, coarse far away, zero elsewhere.

    Polynomials of compact support: Gaussians underflow into denormal numbers, which cost a CPU 60 times an exponential.
    """

    centres: Tensor

    def __init__(self, size: int = 16, shortest: float = 0.25, longest: float = 7.0) -> None:
        super().__init__()
        self.size = size
        # On the CPU even where a checkpoint is only sketched: linspace on "meta" imports sympy, a third of a second.
        centres = torch.linspace(math.log(shortest), math.log(longest), size, device="cpu")
        self.register_buffer("centres", centres, persistent=False)
        self.sharpness = (size - 1) / math.log(longest / shortest)

    def forward(self, distance: Tensor) -> Tensor:
        """(...,) distances, in units of the data's deviation -> (..., size)."""
        offset = (distance.log() * self.sharpness)[..., None] - self.centres * self.sharpness
        return offset.mul_(0.5).square_().neg_().add_(1).relu_().square()


def _rows(ends: Tensor) -> Tensor:
    """(B, N, P) -> (B, N, N, P), the row's own; written out in bf16, where a CPU broadcasts at a third of the speed."""
    rows = ends[:, :, None]
    return rows if ends.dtype == torch.float32 else rows.expand(-1, -1, ends.shape[1], -1).contiguous()


def _cross(a: Tensor, b: Tensor) -> Tensor:
    """Cross product along axis 2; several times faster than torch.linalg.cross on the CPU."""
    (x, y, z), (u, v, w) = a.unbind(2), b.unbind(2)
    return torch.stack([y * w - z * v, z * u - x * w, x * v - y * u], 2)


def _distances(x: Tensor) -> tuple[Tensor, Tensor]:
    """Softened unit vectors from j to i (B, N, N, 3) and distances (B, N, N)."""
    difference = x[:, :, None] - x[:, None]
    distance = (difference.square().sum(-1) + 1e-4).sqrt()
    return difference / (distance[..., None] + 0.5), distance


def _norm(h: Tensor) -> Tensor:
    return F.layer_norm(h, h.shape[-1:])


def _rms(vectors: Tensor) -> Tensor:
    """Scale the vectors of an atom by their common root-mean-square length."""
    return vectors * (vectors.float().square().sum(2, keepdim=True).mean(-1, keepdim=True) + 1e-4).rsqrt()


def _alpha_sigma(log_snr: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma of unit-variance noise at log(alpha / sigma)."""
    return torch.sigmoid(2 * log_snr).sqrt(), torch.sigmoid(-2 * log_snr).sqrt()


def _noise_features(log_snr: Tensor, atoms: Tensor) -> Tensor:
    """Sines of the noise level at several frequencies, and the size of the molecule."""
    level = torch.atan(torch.exp(-log_snr[:, :1].clamp(-14, 14))) * 2 / math.pi
    angles = level * math.pi * 2.0 ** torch.arange(-1, 7, device=log_snr.device)
    fine = log_snr[:, :1].clamp(-10, 10) * 0.5 * 2.0 ** torch.arange(-2, 6, device=log_snr.device)
    size = atoms[:, None].to(log_snr) / _TYPICAL_ATOMS
    return torch.cat([angles.sin(), angles.cos(), fine.sin(), fine.cos(), size], -1)
