"""What the network is built of: the embedding of conditions, and a transformer block that they steer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multidiff.conditioning.text import NULL, PAD, TextEncoder
from multidiff.errors import InputError
from multidiff.state import Parts

CURVES = ("loudness", "pitch", "brightness")
DURATIONS = 48
"""Lengths that are told apart, evenly spaced in their logarithm."""


class Steering(NamedTuple):
    """What the blocks of a network are told.

    Attributes:
        vector: (B, width) noise level, length, classes and the whole prompt.
        words: (B, L, text_width), and `there` (B, 1, 1, L) true where there is one.
        rows: (B, N, width) to be added to the rows: where they are in the sound, and the curves.
    """

    vector: Tensor
    words: Tensor
    there: Tensor
    rows: Tensor


class Conditions(nn.Module):
    """Embeds the noise level, the length, and what is in a condition.

    A condition is `Parts` of some or all of: ``tokens`` (B, L) int64 (`Vocabulary.batch`); ``classes`` (B, A) int64,
    -1 where one is not given; ``curves`` (B, N, fold_time * 3), NaN where one is not given. None is no condition.

    Args:
        width: of the network.
        text_size: of the vocabulary.
        text_width, text_layers, text_longest: of the text encoder.
        classes: how many each attribute has.
        fold_time: frames in a row.
    """

    def __init__(
        self,
        width: int,
        text_size: int,
        text_width: int = 128,
        text_layers: int = 2,
        text_longest: int = 24,
        classes: Sequence[int] = (),
        fold_time: int = 2,
    ) -> None:
        super().__init__()
        self.level = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width))
        self.text = TextEncoder(text_size, text_width, text_layers, text_longest)
        self.prompt = nn.Linear(text_width, width)
        self.length = nn.Linear(32, width)
        self.place = nn.Linear(64, width)
        self.classes = nn.ModuleList(nn.Embedding(count, width) for count in classes)
        self.curves = nn.ModuleDict({name: nn.Linear(2 * fold_time, width, bias=False) for name in CURVES})
        self.seconds = nn.Linear(text_width, DURATIONS)
        self.fold_time = fold_time

    def forward(self, log_snr: Tensor, cond: Parts | None, there: Tensor) -> Steering:
        """Embed.

        Args:
            log_snr: (B,) log(alpha / sigma).
            cond: see above.
            there: (B, N) bool, true for the sound's own rows.
        """
        given: Parts = cond if cond is not None else Parts()
        lengths = there.sum(1)
        tokens = given.get("tokens")
        if tokens is None:
            tokens = torch.full((len(log_snr), 1), NULL, device=log_snr.device)
        words, is_word, prompt = self.text(_trimmed(tokens))
        vector = self.level(waves(log_snr / 8, 64, 32.0)) + self.prompt(prompt)
        vector = vector + self.length(waves(lengths.float().log() / 8, 32, 16.0))
        if "classes" in given:
            for i, embedding in enumerate(self.classes):
                number = given["classes"][:, i]
                vector = vector + embedding(number.clamp(min=0)) * (number >= 0)[:, None]
        return Steering(vector, words, is_word[:, None, None], self._rows(there, lengths, given.get("curves")))

    def durations(self, tokens: Tensor) -> Tensor:
        """(B, L) token numbers -> (B, DURATIONS) logits: what prompts say of how long their sounds are."""
        out: Tensor = self.seconds(self.text(_trimmed(tokens))[2]).float()
        return out

    def _rows(self, there: Tensor, lengths: Tensor, curves: Tensor | None) -> Tensor:
        place = torch.arange(there.shape[1], device=there.device).float()
        ends = lengths[:, None] - 1 - place
        near = torch.cat([waves((place + 1).log() / 6, 32, 16.0).expand(len(there), -1, -1),
                          waves((ends.clamp(min=0) + 1).log() / 6, 32, 16.0)], -1)  # fmt: skip
        rows = self.place(near)
        if curves is None:
            return rows
        given = ~curves.isnan()
        values = torch.where(given, curves, 0.0).unflatten(-1, (len(CURVES), self.fold_time))
        flags = given.to(values).unflatten(-1, (len(CURVES), self.fold_time))
        for i, name in enumerate(CURVES):
            rows = rows + self.curves[name](torch.cat([values[:, :, i], flags[:, :, i]], -1))
        return rows


def _trimmed(tokens: Tensor) -> Tensor:
    """(B, L) token numbers up to the last that is not PAD for all; on a CPU only: a GPU would have to be waited for."""
    return tokens if tokens.is_cuda else tokens[:, : int((tokens != PAD).any(0).nonzero()[-1]) + 1]


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

    def forward(self, x: Tensor, steering: Steering, mods: Tensor, turn: Tensor, there: Tensor) -> Tensor:
        """One block.

        Args:
            x: (B, N, width).
            mods: (B, 6, width) the shared map of the steering vector.
            turn: (N, width / heads) angles' cosines and sines, for `rotated`.
            there: (B, 1, 1, N) bool, true where a row is not padding.
        """
        shift, scale, gate, shift2, scale2, gate2 = (mods + self.offsets).unsqueeze(2).unbind(1)
        qkv = self._heads(self.qkv(normed(x) * (1 + scale) + shift), 3)
        q, k = rotated(qkv[:2], turn)
        x = x + gate * self.out(attend(q, k, qkv[2], there))
        (q,) = self._heads(self.ask(normed(x)), 1)
        k, v = self._heads(self.answer(steering.words), 2)
        x = x + self.cross(attend(q, k, v, steering.there))
        a, b = self.up(normed(x) * (1 + scale2) + shift2).chunk(2, -1)
        return x + gate2 * self.down(F.silu(a) * b)

    def _heads(self, x: Tensor, count: int) -> Tensor:
        """(B, N, count * width) -> (count, B, heads, N, width / heads)."""
        return x.unflatten(-1, (count, self.heads, -1)).permute(2, 0, 3, 1, 4)


def normed(x: Tensor) -> Tensor:
    """Each row at unit root mean square; no statistics over rows, so padding cannot change a sound."""
    return F.rms_norm(x, x.shape[-1:], eps=1e-6)


def attend(q: Tensor, k: Tensor, v: Tensor, there: Tensor) -> Tensor:
    """(B, H, N, D) queries, keys and values -> (B, N, H * D); `there` as in `Block.forward`.

    On a CPU in bfloat16 the fused kernel's backward pass is several times slower than the products written out.
    """
    if q.is_cuda or q.dtype == torch.float32:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=there)
    else:
        scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5
        out = scores.masked_fill(~there, torch.finfo(scores.dtype).min).softmax(-1).to(v.dtype) @ v
    return out.transpose(1, 2).flatten(2)


def turns(rows: int, width: int, device: torch.device) -> Tensor:
    """(rows, width) cosines and sines of rotary positions (Su et al. 2021), for heads of `width`."""
    frequencies = 100.0 ** -(torch.arange(width // 2, device=device) / (width // 2))
    angles = torch.arange(rows, device=device)[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], -1)


def rotated(x: Tensor, turn: Tensor) -> Tensor:
    """x (..., N, D) turned by its position: what attention then sees of two rows is how far apart they are."""
    cos, sin = turn.to(x.dtype).chunk(2, -1)
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)
