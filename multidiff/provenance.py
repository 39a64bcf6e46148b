"""What a generated file says of how it was made, and whose files may be replaced."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from multidiff import __version__
from multidiff.errors import InputError


def tags(recipe: Mapping[str, Any], prompt: str, sample: int, longest: int) -> dict[str, str]:
    """What is kept in a sample's file: the prompt as its title, all that made it as JSON in its comment.

    Where a comment would be too long for the format, its longest values are cut, and "recipe_sha256" tells recipes
    apart.

    Args:
        longest: characters of a comment; all are ASCII.

    Returns:
        "title", "comment" and "software".
    """
    whole = {**recipe, "prompt": prompt, "sample": sample}
    whole.pop("prompts", None)
    return {
        "title": one_line(prompt)[:200] or f"sample {sample}",
        "comment": _shortened(plain(whole), longest),
        "software": f"multidiff {__version__}",
    }


def plain(recipe: Mapping[str, Any]) -> Any:
    """As it comes back from JSON."""
    return json.loads(json.dumps(dict(recipe), default=str))


def one_line(text: str) -> str:
    """Without control characters, and such as UTF-8 can hold."""
    seen = "".join(c if c.isprintable() else " " for c in text[:2000])
    return " ".join(seen.encode("utf-8", "replace").decode().split())


def refuse_other(path: Path, recipe: Mapping[str, Any], held: Any, expected: Any) -> None:
    """Only a file that the same recipe made may be replaced; without a seed none is known to be the same.

    Args:
        path: a file that is there.
        recipe: of what is to be written.
        held: what the file says that it was made with; None for what says nothing.
        expected: what it is to say.

    Raises:
        InputError: it was made otherwise.
    """
    if "seed" not in recipe or held is None or held != expected:
        raise InputError(f"{path} is there and was made otherwise; give another folder, or move it away")


def warn_of_faults(faulty: Sequence[str], count: int, kind: str) -> None:
    """Warn, once, of samples that are not what they were meant to be; for the function that an output's `save` calls.

    Args:
        faulty: "12 silent", a line a sample.
        count: of all samples.
        kind: what they are, in the plural.
    """
    from multidiff.pipeline import SettingWarning

    if faulty:
        more = f" and {len(faulty) - 8} more" if len(faulty) > 8 else ""
        told = f"{len(faulty)} of {count} {kind} may be of no use: sample {', '.join(faulty[:8])}{more}"
        warnings.warn(told, SettingWarning, stacklevel=4)


def _shortened(values: dict[str, Any], longest: int) -> str:
    text = json.dumps(values)
    if len(text) <= longest:
        return text
    values = {**values, "recipe_sha256": hashlib.sha256(text.encode()).hexdigest()}
    room = longest
    while len(text) > longest and room > 8:
        room //= 2
        text = json.dumps({name: _cut(value, room) for name, value in values.items()})
    return text[:longest]


def _cut(value: Any, longest: int) -> Any:
    """A value of at most about so many characters of JSON; a SHA-256 is never cut."""
    spelled = value if isinstance(value, str) else json.dumps(value)
    if len(json.dumps(spelled)) <= max(longest, 70):
        return value
    return spelled[: math.ceil(longest / 6)] + "..."  # a character may take six
