"""A transformer block that conditions steer, and its parts; the domains' networks are built of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multidiff.errors import InputError


def waves(x: Tensor, count: int, highest: float) -> Tensor:
    """Sines and cosines of x in [-1, 1] or so, (...) -> (..., count), at frequencies from 1/2 to `highest`."""
    frequencies = torch.logspace(math.log10(0.5), math.log10(highest), count // 2, device=x.device)
    angles = math.pi * x.float()[..., None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], -1)


class Block(nn.Module):
    """Attention over a sequence, attention to the words, and a gated linear unit, each steered (Peebles and Xie 2023).

    The linear map from the steering vector to the six scales, shifts and gates is shared by all blocks, each of which
    adds its own offsets (Chen et al. 2024, "PixArt-alpha", section 2.3): at this size it would else be a third of all
    weights.

    Args:
        width: of the sequence.
        heads: of the attention.
        text_width: of the words.

    Raises:
        InputError: the width is no multiple of twice the heads.
    """

    def __init__(self, width: int, heads: int, text_width: int) -> None:
        super().__init__()
        if heads < 1 or width % (2 * heads):
            raise InputError(f"width {width} must be a multiple of twice the heads {heads}")
        self.heads = heads
        hidden = 8 * width // 3 // 16 * 16
        self.offsets = nn.Parameter(torch.zeros(6, width))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.ask = nn.Linear(width, width, bias=False)
        self.answer = nn.Linear(text_width, 2 * width, bias=False)
        self.cross = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        nn.init.zeros_(self.cross.weight)

    def forward(
        self, x: Tensor, words: Tensor, is_word: Tensor, mods: Tensor, turn: Tensor, there: Tensor | None = None
    ) -> Tensor:
        """One block.

        Args:
            x: (B, N, width).
            words: (B, L, text_width).
            is_word: (B, 1, 1, L) bool.
            mods: (B, 6, R, width) the shared map of the steering vector; each of the R steers N / R neighbouring rows.
            turn: (N, width / heads) angles' cosines and sines, for `rotated`.
            there: (B, 1, 1, N) bool, true where a row is not padding; None where none is.
        """
        shift, scale, gate, shift2, scale2, gate2 = (mods + self.offsets[:, None]).unsqueeze(3).unbind(1)
        x = x.unflatten(1, (mods.shape[2], -1))
        qkv = self._heads(self.qkv(normed(x) * (1 + scale) + shift), 3)
        q, k = rotated(qkv[:2], turn)
        x = x + gate * self.out(attend(q, k, qkv[2], there)).view_as(x)
        (q,) = self._heads(self.ask(normed(x)), 1)
        k, v = self._heads(self.answer(words)[:, None], 2)
        x = x + self.cross(attend(q, k, v, is_word)).view_as(x)
        a, b = self.up(normed(x) * (1 + scale2) + shift2).chunk(2, -1)
        return (x + gate2 * self.down(F.silu(a) * b)).flatten(1, 2)

    def _heads(self, x: Tensor, count: int) -> Tensor:
        """(B, R, N / R, count * width) -> (count, B, heads, N, width / heads)."""
        return x.flatten(1, 2).unflatten(-1, (count, self.heads, -1)).permute(2, 0, 3, 1, 4)


def normed(x: Tensor) -> Tensor:
    """Each row at unit root mean square; no statistics over rows, so padding cannot change a sample."""
    return F.rms_norm(x, x.shape[-1:], eps=1e-6)


def attend(q: Tensor, k: Tensor, v: Tensor, there: Tensor | None = None) -> Tensor:
    """(B, H, N, D) queries, keys and values -> (B, N, H * D); `there` as in `Block.forward`.

    On a CPU in bfloat16 the fused kernel's backward pass is several times slower than the products written out.
    """
    if q.is_cuda or q.dtype == torch.float32:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=there)
    else:
        scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
        if there is not None:
            scores = scores.masked_fill(~there, torch.finfo(scores.dtype).min)
        out = scores.softmax(-1).to(v.dtype) @ v
    return out.transpose(1, 2).flatten(2)


def turns(shape: Sequence[int], width: int, device: torch.device) -> Tensor:
    """Cosines and sines of rotary positions (Su et al. 2021), for heads of `width`.

    Args:
        shape: sizes of the grid of rows, row-major; its axes share out the frequencies.
        width: of a head: a multiple of twice the number of axes.

    Returns:
        (rows, width).
    """
    count = width // 2 // len(shape)
    frequencies = 100.0 ** -(torch.arange(count, device=device) / count)
    places = torch.cartesian_prod(*(torch.arange(n, device=device) for n in shape)).view(-1, len(shape))
    angles = (places[..., None] * frequencies).flatten(1)
    return torch.cat([angles.cos(), angles.sin()], -1)


def rotated(x: Tensor, turn: Tensor) -> Tensor:
    """x (..., N, D) turned by its position: what attention then sees of two rows is how far apart they are."""
    cos, sin = turn.to(x.dtype).chunk(2, -1)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)
