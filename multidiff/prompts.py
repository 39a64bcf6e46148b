"""Prompts, of a call or from a file, with what belongs to each."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multidiff.errors import InputError, unknown

TEXTS = ("prompt", "negative_prompt")
"""Columns of every file of prompts."""


@dataclass(frozen=True)
class Column:
    """What a domain's file of prompts may say of each prompt.

    Attributes:
        parse: makes its value of what a file holds; raises TypeError or ValueError for what it cannot be.
        kind: what it is to be, "a number of seconds".
    """

    parse: Callable[[Any], Any]
    kind: str


def several(name: str, value: Any, kind: Any) -> list[Any]:
    """An argument that is one for all prompts, or one for each, as a list.

    Args:
        name: the argument's, for errors.
        kind: str, or a class of numbers.

    Raises:
        InputError: it is empty, of another kind, or text that is not Unicode.
    """
    values = [value] if value is None or isinstance(value, kind) else value
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise InputError(f"{name} {value!r} is not allowed: give one, or a list with one for each prompt")
    for item in values:
        if item is not None and (not isinstance(item, kind) or isinstance(item, bool)):
            raise InputError(f"{name}: {item!r} is not {'text' if kind is str else 'a number'}")
        if isinstance(item, str) and any("\ud800" <= c <= "\udfff" for c in item):
            raise InputError(f"{name}: {item!r} is not valid Unicode; give it in UTF-8")
    return list(values)


def spread(lists: Mapping[str, list[Any]]) -> list[tuple[Any, ...]]:
    """Lists of one or of as many values as the longest has, all of that length.

    Raises:
        InputError: the length of one is neither.
    """
    count = max(map(len, lists.values()))
    for name, values in lists.items():
        if len(values) not in (1, count):
            raise InputError(f"{name}: {len(values)} of them for {count} prompts; give one, or one for each")
    return [tuple(values) * (count if len(values) == 1 else 1) for values in lists.values()]


def read(path: Path, columns: Mapping[str, Column]) -> dict[str, list[Any]]:
    """Prompts from a file: a line each, or CSV or JSONL with `TEXTS` and `columns`.

    Returns:
        Arguments of a call, a list each; those that no line says anything of are not among them.

    Raises:
        InputError: the file cannot be read, has no prompt, or has a column that is not known or a value that is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the prompts in {path}: {error}") from error
    rows = _rows(path, text)
    if not rows:
        raise InputError(f"{path} holds no prompt")
    _check_names(path, {name for row in rows for name in row}, (*TEXTS, *columns))
    call: dict[str, list[Any]] = {"prompt": [str(row.get("prompt") or "") for row in rows]}
    if any(row.get("negative_prompt") for row in rows):
        call["negative_prompt"] = [row.get("negative_prompt") or None for row in rows]
    for name, column in columns.items():
        if any(row.get(name) not in (None, "") for row in rows):
            call[name] = [_value(path, name, row.get(name), column) for row in rows]
    return call


def _check_names(path: Path, names: set[str | None], allowed: Sequence[str]) -> None:
    for name in names:
        if name is None:
            raise InputError(
                f"{path} has a line with more cells than its first one has names; quote what holds a comma"
            )
        if name not in allowed:
            raise unknown(f"column of {path}", name, allowed)


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


def _value(path: Path, name: str, value: Any, column: Column) -> Any:
    try:
        return column.parse(value) if value not in (None, "") else None
    except (TypeError, ValueError):
        raise InputError(f"{path}: {name} {value!r} is not {column.kind}") from None
