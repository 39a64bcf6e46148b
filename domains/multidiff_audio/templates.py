"""Many phrasings from few columns: a text file of templates.

    # a line that begins with # says nothing
    {word}, spoken by {speaker}
    {who} says {word}
    accent: GRC/Greek = Greek
    who from gender: male = a man | he

A line with fields in braces is a phrasing, filled from the columns of a clip's row; it is left out for a clip that
lacks a field. ``COLUMN: VALUE = TEXT`` says how a value is spelled, and ``NAME from COLUMN: VALUE = TEXT`` makes a
field of its own, missing where no value fits. Texts that are separated by ``|`` are all used, each in a phrasing. Any
field is missing where its text is empty.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from multidiff.captions import Table
from multidiff.errors import InputError

SHIPPED = Path(__file__).parent / "configs"
"""Where `digits.captions.txt` and `sounds.captions.txt` are."""

_FIELD = re.compile(r"\{([^{}]*)\}")
_MAPPING = re.compile(r"(?:(?P<name>[\w ]+?) from )?(?P<column>[\w ]+?):\s+(?P<value>.+?)\s+=(?:\s+(?P<texts>.*))?")


@dataclass(frozen=True)
class Mapped:
    """A field that is made from a column.

    Attributes:
        column: whose values are looked up.
        texts: value -> how it may be spelled.
        other: whether a value without an entry stands for itself.
    """

    column: str
    texts: Mapping[str, tuple[str, ...]]
    other: bool


@dataclass(frozen=True)
class Templates:
    """Phrasings and the fields that they are filled with.

    Attributes:
        lines: the phrasings.
        mapped: field -> what it is made from.
        name: of the file, for messages.
    """

    lines: tuple[str, ...]
    mapped: Mapping[str, Mapped]
    name: str

    def check(self, table: Table) -> None:
        """Refuse what the table does not know.

        Raises:
            InputError: a field is neither a column nor made from one.
        """
        for mapped in self.mapped.values():
            table.checked(mapped.column, self.name)
        for line in self.lines:
            for name in fields_of(line):
                if name not in self.mapped:
                    table.checked(name, f"{self.name}, in {line!r}")

    def fill(self, fields: Mapping[str, str]) -> tuple[str, ...]:
        """The phrasings for a clip, in the order of the lines, each once."""
        made: dict[str, None] = {}
        for line in self.lines:
            names = list(dict.fromkeys(fields_of(line)))
            for texts in itertools.product(*(self._texts(name, fields) for name in names)):
                values = dict(zip(names, texts, strict=True))
                made[_FIELD.sub(lambda found, v=values: v[_name(found[1])], line)] = None  # type: ignore[misc]
        return tuple(made)

    def _texts(self, name: str, fields: Mapping[str, str]) -> tuple[str, ...]:
        mapped = self.mapped.get(name)
        value = fields.get(mapped.column if mapped else name, "")
        if mapped is None or (mapped.other and value not in mapped.texts):
            return (value,) if value else ()
        return mapped.texts.get(value, ())


def read(path: str | Path) -> Templates:
    """Read a file of templates, or one that ships, by its name.

    Raises:
        InputError: it is missing, is not UTF-8, or a line is neither phrasing nor mapping.
    """
    path = Path(path)
    if not path.exists() and path.name == str(path) and (SHIPPED / path).exists():
        path = SHIPPED / path
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the templates {path}: {getattr(error, 'strerror', '') or error}") from None
    return parse(text, path.name)


def parse(text: str, name: str = "templates") -> Templates:
    """Templates from their text; `name` is for messages.

    Raises:
        InputError: see `read`.
    """
    lines: list[str] = []
    texts: dict[str, dict[str, tuple[str, ...]]] = {}
    columns: dict[str, tuple[str, bool]] = {}
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if not line or line.startswith("#"):
            continue
        if (found := _MAPPING.fullmatch(line)) and "{" not in line:
            column = _name(found["column"])
            field = _name(found["name"] or column)
            made = (column, found["name"] is None)
            if columns.setdefault(field, made) != made:
                raise InputError(f"{name}:{number}: field {field!r} is already made from {columns[field][0]!r}")
            spelled = tuple(t.strip() for t in (found["texts"] or "").split("|") if t.strip())
            texts.setdefault(field, {})[found["value"]] = spelled
        else:
            _refuse_line(line, f"{name}:{number}")
            lines.append(line)
    if not lines:
        raise InputError(f"{name} has no phrasing; write lines such as {{caption}}")
    mapped = {field: Mapped(column, texts[field], other) for field, (column, other) in columns.items()}
    return Templates(tuple(lines), mapped, name)


def fields_of(line: str) -> list[str]:
    """The fields of a phrasing, in order."""
    return [_name(text) for text in _FIELD.findall(line)]


def _name(text: str) -> str:
    return text.strip().lower()


def _refuse_line(line: str, where: str) -> None:
    if re.search(r"[{}]", _FIELD.sub("", line)) or "" in fields_of(line):
        raise InputError(f"{where}: {line!r} has a brace without its partner, or nothing in it; write {{column}}")
    if not fields_of(line):
        raise InputError(f"{where}: {line!r} has no field; a phrasing that is the same for every clip says nothing")
