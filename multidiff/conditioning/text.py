"""Prompts in plain words: a vocabulary of whole words and a small encoder that is trained with the model.

Words are lower-cased and freed of punctuation. A word that the vocabulary does not hold is left out of the prompt, and
whoever encodes it is told, so that a user can be.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

from multidiff.errors import InputError

PAD, NULL = 0, 1
"""Token numbers: nothing there; no prompt at all, which is what guidance moves away from."""

_FIRST_WORD = 2
LONGEST_PROMPT = 10_000
"""Characters; a longer one is taken for a slip of the hand."""


def words(text: str) -> list[str]:
    """The words of a text as a vocabulary knows them: lower case, without accents and punctuation.

    Example: ``words("Seven, spoken by Théo!")`` is ``["seven", "spoken", "by", "theo"]``.
    """
    plain = unicodedata.normalize("NFKD", text).lower()
    return re.findall(r"[^\W_]+", "".join(c for c in plain if not unicodedata.combining(c)))


class Encoded(NamedTuple):
    """A prompt as token numbers, and the words that are not among them."""

    tokens: list[int]
    unknown: list[str]
    cut: list[str]


@dataclass(frozen=True)
class Vocabulary:
    """The words that a text encoder was trained on.

    Attributes:
        known: the words; their order gives their numbers.
        longest: words that the encoder reads of a prompt; those after them are cut.
    """

    known: tuple[str, ...]
    longest: int = 24

    def __len__(self) -> int:
        """Token numbers, the two special ones included."""
        return len(self.known) + _FIRST_WORD

    @classmethod
    def of(cls, texts: Iterable[str], longest: int = 24, most: int = 20_000) -> Vocabulary:
        """The words of some texts, the `most` frequent of them, in alphabetical order."""
        counts = Counter(word for text in texts for word in words(text))
        return cls(tuple(sorted(word for word, _ in counts.most_common(most))), longest)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: i + _FIRST_WORD for i, word in enumerate(self.known)}

    def encode(self, text: str) -> Encoded:
        """The token numbers of a prompt; ``[NULL]`` where no word of it is known.

        Raises:
            InputError: it has more than `LONGEST_PROMPT` characters.
        """
        if len(text) > LONGEST_PROMPT:
            raise InputError(f"a prompt of {len(text)} characters is too long: at most {LONGEST_PROMPT}")
        said = words(text)
        known = [word for word in said if word in self._numbers]
        unknown = list(dict.fromkeys(word for word in said if word not in self._numbers))
        kept, cut = known[: self.longest], known[self.longest :]
        return Encoded([self._numbers[word] for word in kept] or [NULL], unknown, cut)

    def batch(self, texts: Sequence[str]) -> Tensor:
        """(B, longest) int64 token numbers, padded: one shape for every batch, so that two of them can be joined."""
        tokens = torch.full((len(texts), self.longest), PAD, dtype=torch.int64)
        for row, text in enumerate(texts):
            numbers = self.encode(text).tokens
            tokens[row, : len(numbers)] = torch.tensor(numbers)
        return tokens


class TextEncoder(nn.Module):
    """A small transformer over words.

    Args:
        size: token numbers, ``len(vocabulary)``.
        width: of the outputs.
        layers: of the transformer; order of words is told by positions, so "left then right" is not "right then left".
        longest: words that a prompt can have.
        heads: of the attention.
    """

    def __init__(self, size: int, width: int = 128, layers: int = 2, longest: int = 24, heads: int = 4) -> None:
        super().__init__()
        self.words = nn.Embedding(size, width, padding_idx=PAD)
        self.positions = nn.Parameter(nn.init.normal_(torch.empty(longest, width), std=0.02))
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        nn.init.normal_(self.words.weight, std=0.5)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode prompts.

        Args:
            tokens: (B, L) int64, at least one of each row not PAD.

        Returns:
            (B, L, width) words in their context, (B, L) bool true where there is one, (B, width) their mean.
        """
        there = tokens != PAD
        # In float32: a few short sequences cost nothing, and the backward pass of fused bfloat16 attention does.
        with torch.autocast(tokens.device.type, enabled=False):
            out = self.layers(self.words(tokens) + self.positions[: tokens.shape[1]], src_key_padding_mask=~there)
        out = out * there[..., None]
        return out, there, out.sum(1) / there.sum(1, keepdim=True)
