"""A transformer over the rows of a spectrogram: every row, all its bands at once, is one token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multidiff.space import Masked
from multidiff.state import Parts
from multidiff_audio.layers import Block, Conditions, normed, turns


class AudioTransformer(nn.Module):
    """Reads noisy rows and says what the denoiser's prediction asks for.

    A row has more numbers than `width`, and the target holds the noise of each of them. So the output is the
    transformer's plus each number of the input times a factor that depends on the noise level: the noise takes the
    second way, and the transformer is left with the sound (compare Li and He 2025, "Back to Basics", which predicts
    the clean image for the same reason).

    Args:
        channels, bands: C and F of the representation's rows.
        width, layers, heads: of the transformer.
        text_size, text_width, text_layers, text_longest, classes, fold_time: see `Conditions`.
    """

    def __init__(
        self,
        channels: int,
        bands: int,
        text_size: int,
        width: int = 256,
        layers: int = 6,
        heads: int = 4,
        text_width: int = 128,
        text_layers: int = 2,
        text_longest: int = 24,
        classes: Sequence[int] = (),
        fold_time: int = 2,
    ) -> None:
        super().__init__()
        numbers = channels * bands
        self.conditions = Conditions(width, text_size, text_width, text_layers, text_longest, classes, fold_time)
        self.enter = nn.Linear(numbers, width)
        self.mods = nn.Sequential(nn.SiLU(), nn.Linear(width, 8 * width))
        self.blocks = nn.ModuleList(Block(width, heads, text_width) for _ in range(layers))
        self.leave = nn.Linear(width, numbers)
        self.gate = nn.Linear(width, numbers)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.gate.weight)
        self.heads = heads

    def forward(
        self, x: Tensor, log_snr: Tensor, cond: Parts | None = None, space: Masked | None = None, previous: None = None
    ) -> Tensor:
        """(B, N, C, F) noisy rows -> the same shape."""
        there = x.new_ones(x.shape[:2], dtype=torch.bool) if space is None else space.mask
        steering = self.conditions(log_snr, cond, there)
        mods = self.mods(steering.vector).unflatten(-1, (8, -1))
        h = self.enter(x.flatten(2)) + steering.rows
        turn = turns(h.shape[1], h.shape[2] // self.heads, h.device)
        for block in self.blocks:
            h = block(h, steering, mods[:, :6], turn, there[:, None, None])
        shift, scale = mods[:, 6:].unsqueeze(2).unbind(1)
        out = self.leave(normed(h) * (1 + scale) + shift).unflatten(-1, x.shape[2:])
        gate = self.gate(F.silu(steering.vector)).reshape(len(x), 1, *x.shape[2:])
        return (out.float() + gate.float() * x) * there[..., None, None]
