"""A UNet over spectrograms whose lowest level is a transformer over time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multidiff.space import Masked
from multidiff.state import Parts
from multidiff.transformer import Block, normed, turns
from multidiff_audio.layers import Conditions, Steering


class SpectrogramUNet(nn.Module):
    """Reads noisy rows and says what the denoiser's prediction asks for.

    Convolutions at few channels see the spectrogram as a picture, at full resolution and then at half and less of its
    bands: they find what is noise from what is beside it. Below them each row, all its bands together, is one token of
    a transformer: it decides what is said, when and by whom, and holds nearly all weights. On the way up the same
    resolutions are added to what came down.

    The time axis is never halved. Norms look at one place at a time and padding is zeroed before every convolution,
    so that a sound does not depend on how far its batch is padded.

    Args:
        channels, bands: C and F of the representation's rows.
        text_size: of the vocabulary.
        widths: channels of the convolutions at each level; none makes it a plain transformer.
        width, layers, heads: of the transformer.
        text_width, text_layers, text_longest, classes, fold_time: see `Conditions`.
    """

    def __init__(
        self,
        channels: int,
        bands: int,
        text_size: int,
        widths: Sequence[int] = (32,),
        width: int = 256,
        layers: int = 6,
        heads: int = 4,
        text_width: int = 128,
        text_layers: int = 2,
        text_longest: int = 16,
        classes: Sequence[int] = (),
        fold_time: int = 2,
    ) -> None:
        super().__init__()
        self.conditions = Conditions(width, text_size, text_width, text_layers, text_longest, classes, fold_time)
        outer = [channels, *widths]
        halvings = [(1, 1), *((2, 1) for _ in widths[1:])]
        self.shrink = nn.ModuleList(_step(a, b, s) for a, b, s in zip(outer, widths, halvings, strict=False))
        self.grow = nn.ModuleList(_grow(b, a, s) for a, b, s in zip(outer, widths, halvings, strict=False))
        self.down = nn.ModuleList(Residual(n, width) for n in widths)
        self.up = nn.ModuleList(Residual(n, width) for n in widths)
        self.low = outer[-1], -(-bands // 2 ** max(0, len(widths) - 1))
        self.padding = self.low[1] * 2 ** max(0, len(widths) - 1) - bands
        numbers = self.low[0] * self.low[1]
        self.enter = nn.Linear(numbers, width)
        self.mods = nn.Sequential(nn.SiLU(), nn.Linear(width, 8 * width))
        self.blocks = nn.ModuleList(Block(width, heads, text_width) for _ in range(layers))
        self.leave = nn.Linear(width, numbers)
        self.gate = nn.Linear(width, channels * bands)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.gate.weight)
        self.heads = heads

    def forward(
        self, x: Tensor, log_snr: Tensor, cond: Parts | None = None, space: Masked | None = None, previous: None = None
    ) -> Tensor:
        """(B, N, C, F) noisy rows -> the same shape."""
        there = x.new_ones(x.shape[:2], dtype=torch.bool) if space is None else space.mask
        steering = self.conditions(log_snr, cond, there)
        mask = there[:, None, None].to(x.dtype)
        h = F.pad(x, (0, self.padding)).permute(0, 2, 3, 1) * mask
        if not torch.is_grad_enabled():  # faster forward, slower backward
            h = h.contiguous(memory_format=torch.channels_last)
        kept = []
        for shrink, block in zip(self.shrink, self.down, strict=True):
            h = block(shrink(h), steering.vector, mask)
            kept.append(h)
        h = h + self._rows(h, steering, there)
        for grow, block, beside in zip(self.grow[::-1], self.up[::-1], kept[::-1], strict=True):
            h = grow(block(h if beside is kept[-1] else h + beside, steering.vector, mask))
        out = h.permute(0, 3, 1, 2)[..., : x.shape[-1]].float()
        # The target holds noise, which no narrow network could carry through: it is passed by, level by level.
        gate = self.gate(F.silu(steering.vector)).float().reshape(len(x), 1, *x.shape[2:])
        return (out + gate * x) * there[..., None, None]

    def _rows(self, h: Tensor, steering: Steering, there: Tensor) -> Tensor:
        """The transformer: (B, c, f, N) -> the same shape."""
        mods = self.mods(steering.vector).unflatten(-1, (8, -1))
        # Contiguous: a linear map of strided rows in bfloat16 copies its weights for every sample of the batch.
        tokens = self.enter(h.permute(0, 3, 1, 2).flatten(2).contiguous()) + steering.rows
        turn = turns(tokens.shape[1:2], tokens.shape[2] // self.heads, h.device)
        for block in self.blocks:
            tokens = block(tokens, steering.words, steering.there, mods[:, :6].unsqueeze(2), turn, there[:, None, None])
        shift, scale = mods[:, 6:].unsqueeze(2).unbind(1)
        out: Tensor = self.leave(normed(tokens) * (1 + scale) + shift)
        return out.unflatten(-1, self.low).permute(0, 2, 3, 1)


class Residual(nn.Module):
    """Two convolutions beside the identity, steered by scale and shift."""

    def __init__(self, width: int, steering: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.steer = nn.Linear(steering, 2 * width)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor, vector: Tensor, mask: Tensor) -> Tensor:
        """(B, width, F, N) -> the same shape, zero where there is no sound."""
        scale, shift = self.steer(F.silu(vector))[..., None, None].chunk(2, 1)
        h = self.first(_masked(F.silu(channel_norm(x)), mask))
        h = self.second(_masked(F.silu(channel_norm(h) * (1 + scale) + shift), mask))
        return _masked(x + h.to(x.dtype), mask)


def _masked(x: Tensor, mask: Tensor) -> Tensor:
    """In the precision of `x`: a mask of another would be a slow product, and make a copy of it for the convolution."""
    return x * mask.to(x.dtype)


def channel_norm(x: Tensor) -> Tensor:
    """Each place of (B, C, F, N) at unit root mean square over its channels."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6)


def _step(inputs: int, outputs: int, stride: tuple[int, int]) -> nn.Module:
    if stride == (1, 1):
        return nn.Conv2d(inputs, outputs, 3, padding=1)
    return nn.Conv2d(inputs, outputs, stride, stride)


def _grow(inputs: int, outputs: int, stride: tuple[int, int]) -> nn.Module:
    """The way back; the last one begins at zero, where the input passed by is all there is."""
    if stride != (1, 1):
        return nn.ConvTranspose2d(inputs, outputs, stride, stride)
    last = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.zeros_(last.weight)
    return last
