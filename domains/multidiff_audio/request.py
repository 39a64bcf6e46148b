"""What a call asks for, sample by sample: prompt, negative prompt, seconds."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any

from multidiff.errors import InputError, unknown

_COLUMNS = ("prompt", "negative_prompt", "duration")
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
        prompts = _several("prompt", "" if prompt is None else prompt, str)
        negatives = _several("negative_prompt", negative_prompt, str)
        lengths = [None if s is None else float(s) for s in _several("duration", duration, Real)]
        count = max(len(prompts), len(negatives), len(lengths))
        spread = [_spread(n, v, count) for n, v in zip(_COLUMNS, (prompts, negatives, lengths), strict=True)]
        return cls(*(tuple(values) for values in spread))

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


def _several(name: str, value: Any, kind: Any) -> list[Any]:
    values = [value] if value is None or isinstance(value, kind) else value
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise InputError(f"{name} {value!r} is not allowed: give one, or a list with one for each prompt")
    for item in values:
        if item is not None and (not isinstance(item, kind) or isinstance(item, bool)):
            raise InputError(f"{name}: {item!r} is not {'text' if kind is str else 'a number'}")
        if isinstance(item, str) and any("\ud800" <= c <= "\udfff" for c in item):
            raise InputError(f"{name}: {item!r} is not valid Unicode; give it in UTF-8")
    return list(values)


def _spread(name: str, values: list[Any], count: int) -> list[Any]:
    if len(values) not in (1, count):
        raise InputError(f"{name}: {len(values)} of them for {count} prompts; give one, or one for each")
    return values * count if len(values) == 1 else values


def read_prompts(path: Path) -> dict[str, list[Any]]:
    """Prompts from a file: a line each, or CSV or JSONL with prompt, negative_prompt, duration.

    Returns:
        Arguments of a call.

    Raises:
        InputError: the file cannot be read, has no prompt, or has a column that is not known.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the prompts in {path}: {error}") from error
    rows = _rows(path, text)
    if not rows:
        raise InputError(f"{path} holds no prompt")
    for name in {name for row in rows for name in row}:
        if name is None:
            raise InputError(
                f"{path} has a line with more cells than its first one has names; quote what holds a comma"
            )
        if name not in _COLUMNS:
            raise unknown(f"column of {path}", name, _COLUMNS)
    call: dict[str, list[Any]] = {"prompt": [str(row.get("prompt") or "") for row in rows]}
    if any(row.get("negative_prompt") for row in rows):
        call["negative_prompt"] = [row.get("negative_prompt") or None for row in rows]
    if any(row.get("duration") not in (None, "") for row in rows):
        call["duration"] = [_seconds(row.get("duration"), path) for row in rows]
    return call


def _rows(path: Path, text: str) -> list[Mapping[str, Any]]:
    if path.suffix.lower() == ".csv":
        try:
            return list(csv.DictReader(io.StringIO(text, newline="")))
        except csv.Error as error:
            raise InputError(f"{path} is not CSV: {error}") from error
    lines = [line for line in text.split("\n") if line.strip()]
    if path.suffix.lower() not in (".jsonl", ".ndjson"):
        return [{"prompt": line.strip()} for line in lines]
    try:
        rows = [json.loads(line) for line in lines]
    except ValueError as error:
        raise InputError(f"{path} is not JSON, a line each: {error}") from error
    if not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: each line must be a JSON object with the key 'prompt'")
    return rows


def _seconds(value: Any, path: Path) -> float | None:
    try:
        return float(value) if value not in (None, "") else None
    except (TypeError, ValueError):
        raise InputError(f"{path}: duration {value!r} is not a number of seconds") from None
