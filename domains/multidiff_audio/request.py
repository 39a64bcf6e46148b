"""What a call asks for, sample by sample: prompt, negative prompt, seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from multidiff import prompts
from multidiff.errors import InputError
from multidiff.prompts import Column

COLUMNS = {"duration": Column(float, "a number of seconds")}
"""Of a file of prompts, beside the texts."""

BEYOND = 10.0
"""Times the longest sound of the training data: more is taken for a slip of the hand."""


@dataclass(frozen=True)
class Request:
    """Prompts taken in turn: sample i is made from entry i modulo their number.

    Attributes:
        prompts: at least one; the empty one stands for anything.
        negatives: as many; None where there is nothing to move away from.
        seconds: as many; None where the length is to be drawn as fits the prompt.
    """

    prompts: tuple[str, ...]
    negatives: tuple[str | None, ...]
    seconds: tuple[float | None, ...]

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
        duration: float | Sequence[float] | None,
    ) -> Request:
        """From the arguments of a call, each one for all or as many as there are prompts.

        Raises:
            InputError: their numbers do not fit, or one of them is not text or not a length.
        """
        lists = {
            "prompt": prompts.several("prompt", "" if prompt is None else prompt, str),
            "negative_prompt": prompts.several("negative_prompt", negative_prompt, str),
            "duration": [None if s is None else float(s) for s in prompts.several("duration", duration, Real)],
        }
        return cls(*prompts.spread(lists))

    def check(self, longest: float) -> None:
        """Refuse lengths that no sound can have.

        Args:
            longest: seconds, of the training data.

        Raises:
            InputError: a length is not above 0 and finite, or absurdly long.
        """
        for seconds in self.seconds:
            if seconds is None:
                continue
            if not (math.isfinite(seconds) and seconds >= 0.01):
                raise InputError(f"duration {seconds!r} is not allowed: seconds, at least 0.01")
            refuse_absurd("duration", seconds, longest)


def refuse_absurd(name: str, seconds: float, longest: float) -> None:
    """Raise `InputError` for a length that no sound of a checkpoint can have.

    Args:
        longest: seconds, of its training data.
    """
    if not seconds <= BEYOND * longest:
        raise InputError(
            f"{name} {seconds:g} s is far beyond the {longest:.3g} s that this checkpoint was trained on: "
            f"at most {BEYOND * longest:.3g} s"
        )


def read_prompts(path: Path) -> dict[str, list[Any]]:
    """Prompts from a file: a line each, or CSV or JSONL with prompt, negative_prompt, duration.

    Returns:
        Arguments of a call.

    Raises:
        InputError: see `multidiff.prompts.read`.
    """
    return prompts.read(path, COLUMNS)
