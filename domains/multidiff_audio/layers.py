"""The embedding of conditions, which steers the blocks of a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from multidiff.conditioning.text import NULL, PAD, TextEncoder
from multidiff.state import Parts
from multidiff.transformer import waves

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
