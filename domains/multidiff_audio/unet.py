"""A UNet over the spectrogram as a picture, with a transformer at its lowest resolution."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multidiff.space import Masked
from multidiff.state import Parts
from multidiff_audio.layers import Block, Conditions, Steering, turns


class AudioUNet(nn.Module):
    """Reads noisy rows and says what the denoiser's prediction asks for.

    Each level halves the bands; the time axis, which is short, is halved at the first `halve_time` of them only.
    Norms look at one place of the spectrogram at a time and padding is zeroed before every convolution, so that a
    sound does not depend on how far its batch is padded.

    Args:
        channels, bands: C and F of the representation's rows.
        widths: channels at each level.
        blocks: residual blocks at each level, on the way down and on the way up.
        halve_time: levels that halve the time axis.
        layers, heads: of the transformer at the lowest level.
        text_size, text_width, text_layers, text_longest, classes, fold_time: see `Conditions`.
    """

    def __init__(
        self,
        channels: int,
        bands: int,
        text_size: int,
        widths: Sequence[int] = (64, 128, 192, 256),
        blocks: int = 1,
        halve_time: int = 1,
        layers: int = 2,
        heads: int = 4,
        text_width: int = 128,
        text_layers: int = 2,
        text_longest: int = 24,
        classes: Sequence[int] = (),
        fold_time: int = 2,
    ) -> None:
        super().__init__()
        low = widths[-1]
        self.conditions = Conditions(low, text_size, text_width, text_layers, text_longest, classes, fold_time)
        self.strides = [(2, 2 if i < halve_time else 1) for i in range(len(widths) - 1)]
        self.enter = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.rows = nn.Linear(low, widths[0])
        self.down = nn.ModuleList(Level(width, width, low, blocks) for width in widths)
        self.up = nn.ModuleList(Level(2 * width, width, low, blocks) for width in widths)
        steps = list(zip(widths, widths[1:], self.strides, strict=False))
        self.shrink = nn.ModuleList(nn.Conv2d(wide, narrow, s, s) for wide, narrow, s in steps)
        self.grow = nn.ModuleList(nn.ConvTranspose2d(narrow, wide, s, s) for wide, narrow, s in steps)
        self.mods = nn.Sequential(nn.SiLU(), nn.Linear(low, 6 * low))
        self.pitch = nn.Parameter(torch.randn(math.ceil(bands / 2 ** len(self.strides)), low) * 0.02)
        self.blocks = nn.ModuleList(Block(low, heads, text_width) for _ in range(layers))
        self.leave = nn.Conv2d(widths[0], channels, 3, padding=1)
        nn.init.zeros_(self.leave.weight)
        self.heads = heads

    def forward(
        self, x: Tensor, log_snr: Tensor, cond: Parts | None = None, space: Masked | None = None, previous: None = None
    ) -> Tensor:
        """(B, N, C, F) noisy rows -> the same shape."""
        there = x.new_ones(x.shape[:2], dtype=torch.bool) if space is None else space.mask
        steering = self.conditions(log_snr, cond, there)
        masks = self._masks(there)
        missing = masks[0].shape[-1] - x.shape[1]
        h = F.pad(x.permute(0, 2, 3, 1), (0, missing, 0, -x.shape[3] % self._fold[0])) * masks[0]
        rows = F.pad(self.rows(steering.rows), (0, 0, 0, missing))
        h = (self.enter(h) + rows.transpose(1, 2)[:, :, None]) * masks[0]
        kept = []
        for level, blocks in enumerate(self.down):
            h = blocks(h, steering.vector, masks[level])
            kept.append(h)
            if level < len(self.strides):
                h = self.shrink[level](h) * masks[level + 1]
        h = self._attention(h, steering, masks[-1])
        for level in reversed(range(len(kept))):
            if level < len(self.strides):
                h = self.grow[level](h) * masks[level]
            h = self.up[level](torch.cat([h, kept[level]], 1), steering.vector, masks[level])
        out = self.leave(F.silu(channel_norm(h)) * masks[0]).permute(0, 3, 1, 2)
        return out[:, : x.shape[1], :, : x.shape[3]].float() * there[..., None, None]

    @property
    def _fold(self) -> tuple[int, int]:
        """By how much bands and time are smaller at the lowest level."""
        return math.prod(s[0] for s in self.strides), math.prod(s[1] for s in self.strides)

    def _masks(self, there: Tensor) -> list[Tensor]:
        """(B, 1, 1, N) of each level; a place is there if any that it was made of is."""
        mask = F.pad(there, (0, -there.shape[1] % self._fold[1]))
        masks = [mask]
        for _, stride in self.strides:
            masks.append(masks[-1].unflatten(1, (-1, stride)).any(-1))
        return [m[:, None, None].float() for m in masks]

    def _attention(self, h: Tensor, steering: Steering, mask: Tensor) -> Tensor:
        b, width, bands, rows = h.shape
        tokens = (h + self.pitch[:bands].T[..., None]).permute(0, 2, 3, 1).flatten(1, 2)
        mods = self.mods(steering.vector).unflatten(-1, (6, -1))
        turn = turns(rows, width // self.heads, h.device).repeat(bands, 1)
        there = mask.bool().expand(b, 1, bands, rows).flatten(2)[:, :, None]
        for block in self.blocks:
            tokens = block(tokens, steering, mods, turn, there)
        return tokens.unflatten(1, (bands, rows)).permute(0, 3, 1, 2) * mask


class Level(nn.Module):
    """Residual blocks one after the other, at one resolution."""

    def __init__(self, width_in: int, width: int, steering: int, blocks: int) -> None:
        super().__init__()
        widths = [width_in] + [width] * blocks
        self.blocks = nn.ModuleList(Residual(a, b, steering) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor, vector: Tensor, mask: Tensor) -> Tensor:
        """(B, width_in, F, N) -> (B, width, F, N), zero where there is no sound."""
        for block in self.blocks:
            x = block(x, vector, mask)
        return x * mask


class Residual(nn.Module):
    """Two convolutions beside the identity, steered by scale, shift and gate."""

    def __init__(self, width_in: int, width: int, steering: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width_in, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.steer = nn.Sequential(nn.SiLU(), nn.Linear(steering, 2 * width))
        self.skip = nn.Conv2d(width_in, width, 1) if width_in != width else nn.Identity()
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor, vector: Tensor, mask: Tensor) -> Tensor:
        """(B, width_in, F, N) -> (B, width, F, N)."""
        h = self.first(F.silu(channel_norm(x)) * mask)
        scale, shift = self.steer(vector)[..., None, None].chunk(2, 1)
        h = self.second(F.silu(channel_norm(h) * (1 + scale) + shift) * mask)
        return self.skip(x) + h


def channel_norm(x: Tensor) -> Tensor:
    """Each place of (B, C, F, N) at unit root mean square over its channels."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6)
