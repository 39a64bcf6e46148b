"""What a call asks for, sample by sample: prompt, negative prompt, frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from multidiff import prompts
from multidiff.errors import InputError
from multidiff.prompts import Column


def _whole(value: Any) -> int:
    """Of a cell of a table or a number of JSON."""
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(value)
    return int(value)


COLUMNS = {"frames": Column(_whole, "a whole number of frames")}
"""Of a file of prompts, beside the texts."""


@dataclass(frozen=True)
class Request:
    """Prompts taken in turn: sample i is made from entry i modulo their number.

    Attributes:
        prompts: at least one; the empty one stands for anything.
        negatives: as many; None where there is nothing to move away from.
        frames: as many; None where it is the checkpoint's.
    """

    prompts: tuple[str, ...]
    negatives: tuple[str | None, ...]
    frames: tuple[int | None, ...]

    def __len__(self) -> int:
        return len(self.prompts)

    def place(self, number: int) -> int:
        """Which entry sample `number` is made from."""
        return number % len(self.prompts)

    @classmethod
    def of(
        cls,
        prompt: str | Sequence[str] | None,
        negative_prompt: str | Sequence[str] | None,
        frames: int | Sequence[int | None] | None,
    ) -> Request:
        """From the arguments of a call, each one for all or as many as there are prompts.

        Raises:
            InputError: their numbers do not fit, or one of them is not text or not a number of frames.
        """
        counts = [None if n is None else int(n) for n in prompts.several("frames", frames, Integral)]
        for count in counts:
            if count is not None and count < 1:
                raise InputError(f"frames {count} is not allowed: a whole number, at least 1")
        lists = {
            "prompt": prompts.several("prompt", "" if prompt is None else prompt, str),
            "negative_prompt": prompts.several("negative_prompt", negative_prompt, str),
            "frames": counts,
        }
        return cls(*prompts.spread(lists))
