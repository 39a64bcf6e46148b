"""Losses for training alone that tie words to what is seen: which digit is where, and how it moves.

Of two digits with two motions the error of the pixels hardly tells which has which: where there is so much noise that
it is not yet settled, neither digit can be seen, and where they can be seen the words are no longer needed. A network
trained on it alone draws both digits and both motions, paired by chance. Small heads on the tokens of the transformer,
in the manner of REPA (Yu et al. 2024), ask for the pairing itself; they are thrown away after training.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multidiff.conditioning.text import NULL
from multidiff.state import Parts
from multidiff.transformer import normed
from multidiff_video.digits import MOTIONS
from multidiff_video.network import VideoUNet

PIECES = 2
"""Squares along a side of a token that are asked about."""
DIGITS = 10
WEIGHTS = {"which": 0.2, "motion": 0.5, "where": 4.0}
"""Of the cross-entropies of the digit and of its motion, and of the binary cross-entropy of the map of each digit."""

_FULL = 0.15
"""Share of a square that is ink at which it counts as full: strokes are thin."""
_CLEAR, _OTHERS = 0.4, 0.1
"""A square is of a digit that covers it so much while the others cover it less."""


class Grounding(nn.Module):
    """Linear heads on the tokens after some of a network's blocks.

    What a digit is is asked of the first block; how it moves, which must be looked up among the words where it cannot
    be seen, of the middle; where each digit is, in every frame, of the last but one.

    Args:
        network: whose transformer is listened to.
    """

    def __init__(self, network: VideoUNet) -> None:
        super().__init__()
        layers = len(network.blocks)
        self.places = {"which": 0, "motion": layers // 2, "where": max(0, layers - 2)}
        width = network.place.out_features
        sizes = {"which": DIGITS, "motion": len(MOTIONS), "where": DIGITS}
        self.heads = nn.ModuleDict({name: nn.Linear(width, PIECES**2 * size) for name, size in sizes.items()})
        for head in self.heads.values():
            nn.init.zeros_(head.weight)  # type: ignore[arg-type]
        self._heard: dict[str, Tensor] = {}

    @contextmanager
    def listening(self, network: VideoUNet) -> Iterator[None]:
        """Within, a call of the network is one that `forward` can be asked about afterwards."""

        def keep(name: str) -> Any:
            return lambda block, given, tokens: self._heard.__setitem__(name, tokens)

        with ExitStack() as hooks:
            for name, place in self.places.items():
                hooks.callback(network.blocks[place].register_forward_hook(keep(name)).remove)
            yield
        self._heard.clear()

    def forward(self, cond: Parts) -> dict[str, Tensor]:
        """The mean loss of each head, before its weight, for the last call that was listened to.

        Args:
            cond: of that call, with ``ink`` (B, T, 10, h, w), ``motions`` (B, 10) and ``tokens``.
        """
        ink = (cond["ink"] / _FULL).clamp(max=1)
        cover, digit = ink.max(2)
        clear = ((cover > _CLEAR) & (ink.sum(2) - cover < _OTHERS)).float()
        motion = cond["motions"].gather(1, digit.flatten(1)).view_as(digit)
        told = (cond["tokens"][:, 0] != NULL).float().view(-1, 1, 1, 1)
        return {
            "which": _mean(self._entropy("which", digit), clear),
            "motion": _mean(self._entropy("motion", motion), clear * told),
            "where": F.binary_cross_entropy_with_logits(self._said("where", ink.shape), ink),
        }

    def _entropy(self, name: str, truth: Tensor) -> Tensor:
        """(B, T, h, w), of classes of that shape."""
        logits = self._said(name, (*truth.shape[:2], 0, *truth.shape[2:]))
        return F.cross_entropy(logits.movedim(2, 1), truth, reduction="none")

    def _said(self, name: str, shape: torch.Size | tuple[int, ...]) -> Tensor:
        """What a head says: (B, T, classes, h, w)."""
        frames, height, width = shape[1], shape[3] // PIECES, shape[4] // PIECES
        said = self.heads[name](normed(self._heard[name].float()))
        said = said.unflatten(2, (-1, PIECES, PIECES)).unflatten(1, (frames, height, width))
        return said.permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4)


def _mean(loss: Tensor, weight: Tensor) -> Tensor:
    return (loss * weight).sum() / weight.sum().clamp(min=1)
