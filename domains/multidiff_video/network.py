"""A UNet over clips whose lowest level is a transformer over space and time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multidiff.conditioning.text import NULL, PAD, TextEncoder
from multidiff.errors import InputError
from multidiff.state import Parts
from multidiff.transformer import Block, normed, turns, waves

CLEAN = 10.0
"""log(alpha / sigma) that the network is told of a frame that is given."""


class VideoUNet(nn.Module):
    """Reads noisy clips and says what the denoiser's prediction asks for.

    Squares of `patch` by `patch` pixels become channels (space to depth), which makes every later grid small. Narrow
    convolutions see them at that resolution and at halves of it; at half of the last, every square of every frame is a
    token of a transformer, which attends over space, time and the prompt, and holds nearly all weights: they cost least
    where the grid is smallest. On the way up the same resolutions are added to what came down.

    The time axis is never halved and every frame has a noise level of its own. Given frames are shown as they are, at
    no noise. Positions in time are relative, so that clips may be of any length; one frame is a picture.

    Args:
        channels: of a frame: 1 or 3.
        text_size: of the vocabulary.
        patch: pixels on a side of a square.
        widths: channels of the convolutions at each resolution.
        depths: blocks of two convolutions at each resolution, on the way down and again on the way up; one each by
            default.
        width, layers, heads: of the transformer.
        text_width, text_layers, text_longest: of the text encoder.

    Raises:
        InputError: sizes that do not go together.
    """

    def __init__(
        self,
        channels: int,
        text_size: int,
        patch: int = 4,
        widths: Sequence[int] = (32, 64),
        depths: Sequence[int] | None = None,
        width: int = 192,
        layers: int = 4,
        heads: int = 4,
        text_width: int = 128,
        text_layers: int = 2,
        text_longest: int = 20,
    ) -> None:
        super().__init__()
        if not widths or patch < 1 or heads < 1 or width % (6 * heads):
            raise InputError(
                f"a video network needs a patch of 1 or more, not {patch}, one width or more, not {list(widths)}, and "
                f"a width {width} that is a multiple of six times its heads {heads}"
            )
        depths = [1] * len(widths) if depths is None else depths
        if len(depths) != len(widths) or min(depths) < 1:
            raise InputError(f"a video network needs a depth of 1 or more for each width, not {list(depths)}")
        self.patch, self.heads = patch, heads
        self.multiple = patch * 2 ** len(widths)
        numbers = channels * patch**2
        self.text = TextEncoder(text_size, text_width, text_layers, text_longest)
        self.prompt = nn.Linear(text_width, width)
        self.level = nn.Sequential(nn.Linear(64, width), nn.SiLU(), nn.Linear(width, width))
        self.given = nn.Parameter(torch.zeros(width))
        self.place = nn.Linear(32, width)
        self.stem = _spatial(numbers, widths[0], 3)
        sizes = list(zip(widths, depths, strict=True))
        self.down = nn.ModuleList(nn.ModuleList(Residual(n, width) for _ in range(depth)) for n, depth in sizes)
        self.up = nn.ModuleList(nn.ModuleList(Residual(n, width) for _ in range(depth)) for n, depth in sizes)
        below = [*widths[1:], width]
        self.shrink = nn.ModuleList(_spatial(a, b, 2, stride=2) for a, b in zip(widths, below, strict=True))
        self.grow = nn.ModuleList(nn.Linear(b, 4 * a) for a, b in zip(widths, below, strict=True))
        self.mods = nn.Sequential(nn.SiLU(), nn.Linear(width, 8 * width))
        self.blocks = nn.ModuleList(Block(width, heads, text_width) for _ in range(layers))
        self.leave = _spatial(widths[0], numbers, 3)
        self.gate = nn.Linear(width, channels)
        for last in (self.leave, self.gate):
            nn.init.zeros_(last.weight)
            assert last.bias is not None
            nn.init.zeros_(last.bias)

    def forward(
        self, x: Tensor, log_snr: Tensor, cond: Parts | None = None, space: Any = None, previous: None = None
    ) -> Tensor:
        """Predict.

        Args:
            x: (B, T, C, H, W) noisy frames, H and W multiples of `multiple`.
            log_snr: (B,) log(alpha / sigma), or (B, T) with a level a frame.
            cond: some or all of ``tokens`` (B, L) int64 (`Vocabulary.batch`), ``known`` (B, T) bool: frames that are
                given, and ``frames``, of the shape of x: what they are.

        Returns:
            Of the shape of x; what it is for given frames means nothing.
        """
        given: Parts = cond if cond is not None else Parts()
        log_snr = log_snr.view(len(x), -1).expand(-1, x.shape[1])
        known = given.get("known")
        if known is not None:
            x = torch.where(known[..., None, None, None], given["frames"].to(x.dtype), x)
            log_snr = log_snr.masked_fill(known, CLEAN)
        words, is_word, steering = self._steering(log_snr, known, given.get("tokens"))
        h = self.stem(self._squares(x))
        kept = []
        for level, shrink in zip(self.down, self.shrink, strict=True):
            for block in level:  # type: ignore[attr-defined]
                h = block(h, steering)
            kept.append(h)
            h = shrink(h)
        h = self._tokens(h, steering, words, is_word)
        for level, grow, beside in zip(self.up[::-1], self.grow[::-1], kept[::-1], strict=True):
            h = beside + _shuffled(grow(h.movedim(1, -1)).movedim(-1, 1), 2)
            for block in level:  # type: ignore[attr-defined]
                h = block(h, steering)
        out = _shuffled(self.leave(F.silu(channel_norm(h))).float(), self.patch).transpose(1, 2)
        # The target holds noise, which is passed by the network, level by level.
        gate = self.gate(F.silu(steering)).float()[..., None, None]
        return out + gate * x

    def _steering(self, log_snr: Tensor, known: Tensor | None, tokens: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The words (B, L, text_width), where there is one (B, 1, 1, L), and what steers each frame (B, T, width)."""
        if tokens is None:
            tokens = torch.full((len(log_snr), 1), NULL, device=log_snr.device)
        if not tokens.is_cuda:  # a GPU would have to be waited for
            tokens = tokens[:, : int((tokens != PAD).any(0).nonzero()[-1]) + 1]
        words, is_word, prompt = self.text(tokens)
        steering = self.level(waves(log_snr / 8, 64, 32.0)) + self.prompt(prompt)[:, None]
        if known is not None:
            steering = steering + known[..., None] * self.given
        return words, is_word[:, None, None], steering

    def _squares(self, x: Tensor) -> Tensor:
        """(B, T, C, H, W) -> (B, C * patch^2, T, H / patch, W / patch)."""
        b, t, c, height, width = x.shape
        p = self.patch
        squares = x.reshape(b, t, c, height // p, p, width // p, p).permute(0, 2, 4, 6, 1, 3, 5)
        return squares.reshape(b, c * p * p, t, height // p, width // p)

    def _tokens(self, h: Tensor, steering: Tensor, words: Tensor, is_word: Tensor) -> Tensor:
        """The transformer: (B, width, T, h, w) -> the same shape."""
        grid = h.shape[2:]
        mods = self.mods(steering).unflatten(-1, (8, -1)).transpose(1, 2)
        places = [waves(torch.linspace(-1, 1, n, device=h.device), 16, 8.0) for n in grid[1:]]
        place = torch.cat([places[0][:, None].expand(*grid[1:], -1), places[1].expand(*grid[1:], -1)], -1)
        tokens = h.flatten(2).transpose(1, 2).contiguous() + self.place(place).flatten(0, 1).repeat(grid[0], 1)
        turn = turns(grid, tokens.shape[2] // self.heads, h.device)
        for block in self.blocks:
            tokens = block(tokens, words, is_word, mods[:, :6], turn)
        shift, scale = mods[:, 6:].unsqueeze(3).unbind(1)
        out = (normed(tokens).unflatten(1, (grid[0], -1)) * (1 + scale) + shift).flatten(1, 2)
        return out.transpose(1, 2).unflatten(2, grid)


class Residual(nn.Module):
    """Two convolutions over space and time beside the identity, steered by scale and shift.

    Neither is split into one over space and one over time: what moves is seen by looking at both at once, and a small
    network learns to follow it in half the clips.
    """

    def __init__(self, width: int, steering: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(width, width, 3, padding=1)
        self.second = nn.Conv3d(width, width, 3, padding=1)
        self.steer = nn.Linear(steering, 2 * width)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor, steering: Tensor) -> Tensor:
        """(B, width, T, h, w) and (B, T, steering) -> the shape of the first."""
        scale, shift = self.steer(F.silu(steering)).transpose(1, 2)[..., None, None].chunk(2, 1)
        h = self.first(F.silu(channel_norm(x)))
        h = self.second(F.silu(channel_norm(h) * (1 + scale) + shift))
        return x + h.to(x.dtype)


def channel_norm(x: Tensor) -> Tensor:
    """Each place of (B, C, T, h, w) at unit root mean square over its channels: no place sees another."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-6)


def _spatial(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv3d:
    """A convolution of each frame; bfloat16 on a CPU is several times slower as Conv2d."""
    padding = (0, kernel // 2, kernel // 2) if stride == 1 else 0
    return nn.Conv3d(inputs, outputs, (1, kernel, kernel), (1, stride, stride), padding)


def _shuffled(x: Tensor, factor: int) -> Tensor:
    """(B, C * factor^2, T, h, w) -> (B, C, T, h * factor, w * factor)."""
    b, c, t, height, width = x.shape
    x = x.reshape(b, c // factor**2, factor, factor, t, height, width).permute(0, 1, 4, 5, 2, 6, 3)
    return x.reshape(b, c // factor**2, t, height * factor, width * factor)


def peak_bytes(network: VideoUNet, shape: Sequence[int], samples: int, scores: bool = False) -> int:
    """About how much memory a forward call takes beside the weights, in float32; within a factor of two.

    Args:
        shape: (T, C, H, W) of a clip.
        samples: clips.
        scores: whether attention holds its scores, as it does on a CPU in bfloat16 (see `transformer.attend`).
    """
    frames, channels, height, width = shape
    rows = frames * math.prod((height // network.multiple, width // network.multiple))
    numbers = frames * height * width * (9 * network.stem.out_channels / network.patch**2 + 3 * channels)
    numbers += 12 * rows * network.place.out_features
    return round(samples * (4 * numbers + (8 * network.heads * rows**2 if scores else 0)))
