"""What is said of files: tables of captions and other columns, as CSV or JSON lines, and the names of folders.

A table has a column ``file`` (or path, filename, file_name) and, besides any others, ``caption`` (or text, prompt, and
any of them with a number: caption_1, caption_2) and ``split``. A file may have several rows, each with another caption.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from multidiff.errors import InputError

TRAIN, VALIDATION, TEST = 0, 1, 2
"""The parts of a data set, as their numbers."""
NAMES = ("captions.csv", "metadata.csv", "captions.jsonl", "metadata.jsonl")
"""Tables that are found by themselves."""
FILE_COLUMNS = ("file", "path", "filename", "file_name")
SPLITS = {
    **dict.fromkeys(("train", "training"), TRAIN),
    **dict.fromkeys(("validation", "valid", "val", "dev"), VALIDATION),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), TEST),
}
"""How a table or a folder names the parts of a data set."""
LABEL = "label"
"""The column that holds the name of a file's folder."""

_CAPTION = re.compile(r"(captions?|text|prompt)[ _-]?\d*")


@dataclass(frozen=True)
class Row:
    """What is known of a file.

    Attributes:
        captions: as they are written.
        fields: column, in lower case -> text; no entry is empty.
    """

    captions: tuple[str, ...]
    fields: Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """The rows of one or more tables.

    Attributes:
        rows: file, as the table calls it, with slashes -> what is known of it.
        columns: all of them but the file's, in order.
        left_out: lines that could not be used, with the reason.
    """

    rows: dict[str, Row] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def checked(self, column: str, why: str) -> str:
        """The column's name.

        Raises:
            InputError: there is none of this name; `why` begins the message.
        """
        if column not in self.columns:
            raise InputError(f"{why}: no column {column!r}; there are {', '.join(self.columns) or 'none'}")
        return column

    def joined(self, other: Table) -> Table:
        """Both; a file in both has the captions of both, and of a field that both have the value here."""
        rows = dict(self.rows)
        for name, row in other.rows.items():
            rows[name] = _both(rows[name], row) if name in rows else row
        columns = tuple(dict.fromkeys(self.columns + other.columns))
        return Table(rows, columns, self.left_out + other.left_out)


def parse(content: bytes, name: str) -> Table:
    """Read a table; JSON lines where `name` ends in .jsonl, else CSV with comma, semicolon or tab.

    Args:
        content: of the file.
        name: for messages, and its ending.

    Raises:
        InputError: it is not UTF-8, has no column for the file, or no line that could be used.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8 text (byte {error.start:,}); save it as UTF-8") from None
    records = _json_lines(text) if name.lower().endswith((".jsonl", ".json")) else _csv_lines(text, name)
    rows: dict[str, Row] = {}
    columns: dict[str, None] = {}
    left_out: list[str] = []
    for line, record in records:
        if isinstance(record, str):
            left_out.append(f"{name}:{line} {record}")
            continue
        columns.update(dict.fromkeys(record))
        column = next((known for known in FILE_COLUMNS if record.get(known)), "")
        if not column:
            left_out.append(f"{name}:{line} names no file")
            continue
        file, row = _row(record, column)
        rows[file] = _both(rows[file], row) if file in rows else row
    if not set(columns) & set(FILE_COLUMNS) and columns:
        raise InputError(
            f"{name} has no column 'file' (or {', '.join(FILE_COLUMNS[1:])}); its columns are {', '.join(columns)}"
        )
    if not rows:
        raise InputError(f"{name} has no row that could be used" + (f": {left_out[0]}" if left_out else ""))
    kept = tuple(c for c in columns if c not in FILE_COLUMNS)
    return Table(rows, kept, tuple(left_out))


def matched(table: Table, sources: Sequence[str]) -> tuple[dict[str, Row], list[str]]:
    """Source -> its row, and the names in the table that fit no source.

    A name in the table is the source's own, or either one is the end of the other; endings such as .wav may be missing
    in the table. A name that fits several sources fits none, and of several names for one source the exact one counts,
    or none.
    """
    found = {source: table.rows[source] for source in sources if source in table.rows}
    alike: dict[str, dict[str, None]] = {}
    for source in sources:
        for key in (PurePosixPath(source).stem, PurePosixPath(source).name):
            alike.setdefault(key.lower(), {})[source] = None
    wanted: dict[str, list[str]] = {}
    for name in table.rows:
        fits = [s for s in alike.get(PurePosixPath(name).name.lower(), ()) if _same_end(s, name)]
        if name not in found and len(fits) == 1 and fits[0] not in found:
            wanted.setdefault(fits[0], []).append(name)
    near = {source: names[0] for source, names in wanted.items() if len(names) == 1}
    used = {*found, *near.values()}
    found.update((source, table.rows[name]) for source, name in near.items())
    return found, [name for name in table.rows if name not in used]


def split_of(value: str, name: str) -> int:
    """The number of a part of the data set.

    Raises:
        InputError: no such part is known.
    """
    try:
        return SPLITS[value.strip().lower()]
    except KeyError:
        raise InputError(
            f"split {value!r} of {name} is unknown; allowed: train, validation, test (rename the column if it is "
            f"something else)"
        ) from None


def by_folder(names: Sequence[str]) -> Table:
    """The table that folders stand for: of dogs/x.wav the caption is "dogs", and so is the label.

    Folders named as parts of a data set are left out.
    """
    rows = {}
    for name in names:
        label = PurePosixPath(name).parent.name
        if label and label.lower() not in SPLITS:
            rows[name] = Row((" ".join(label.replace("_", " ").split()),), {LABEL: label})
    return Table(rows, (LABEL,) if rows else ())


def splits(names: Sequence[str], rows: Mapping[str, Row], share: float) -> dict[str, int]:
    """File -> its part of the data set: of its row, or else of a folder of that name, or else training.

    Where none is for validation, that `share` of those for training is, as `chance` falls.

    Raises:
        InputError: a row names a part that is unknown.
    """
    parts = {}
    for name in names:
        said = rows[name].fields.get("split", "") if name in rows else ""
        folders = [p.lower() for p in PurePosixPath(name).parent.parts if p.lower() in SPLITS]
        parts[name] = split_of(said or (folders[0] if folders else "train"), name)
    if VALIDATION not in parts.values():
        for name, part in parts.items():
            if part == TRAIN and chance(name) < share:
                parts[name] = VALIDATION
    return parts


def chance(name: str) -> float:
    """A number in [0, 1) that follows from a file's name alone."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64


def placed(table: Table, name: str, sources: Sequence[str]) -> Table:
    """Names relative to the folder of the table `name`, unless they are the sources' own already."""
    folder, known = PurePosixPath(name).parent, set(sources)
    rows = {}
    for file, row in table.rows.items():
        below = str(folder / file)
        rows[file if file in known and below not in known else below] = row
    return Table(rows, table.columns, table.left_out)


def _csv_lines(text: str, name: str) -> Iterable[tuple[int, dict[str, Any] | str]]:
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        header = [column.strip().lower() for column in next(reader, [])]
        for cells in reader:
            if len(cells) > len(header) and any(cells[len(header) :]):
                yield reader.line_num, "has more cells than columns (a comma outside quotation marks?)"
            elif any(cells):
                yield reader.line_num, dict(zip(header, cells, strict=False))
    except csv.Error as error:
        raise InputError(f"{name}:{reader.line_num} is not CSV: {error}") from None


def _json_lines(text: str) -> Iterable[tuple[int, dict[str, Any] | str]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, f"is not JSON: {error}"
            continue
        if isinstance(record, dict):
            yield number, {str(key).strip().lower(): value for key, value in record.items()}
        else:
            yield number, "is not a JSON object"


def _row(record: Mapping[str, Any], column: str) -> tuple[str, Row]:
    file = str(PurePosixPath(str(record[column]).strip().replace("\\", "/")))
    fields = {key: _text(value) for key, value in record.items() if key not in FILE_COLUMNS}
    captions = [text for key, value in record.items() if _CAPTION.fullmatch(key) for text in _texts(value)]
    return file, Row(tuple(dict.fromkeys(captions)), {key: text for key, text in fields.items() if text})


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for text in map(_text, values) if text]


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_text, value))
    if value is None or isinstance(value, dict):
        return ""
    return " ".join(str(value).split())


def _both(first: Row, second: Row) -> Row:
    captions = tuple(dict.fromkeys(first.captions + second.captions))
    return Row(captions, {**second.fields, **first.fields})


def _same_end(source: str, name: str) -> bool:
    have, want = PurePosixPath(source), PurePosixPath(name)
    if want.name.lower() != have.name.lower():
        have = have.with_suffix("")
    a, b = [p.lower() for p in have.parts], [p.lower() for p in want.parts]
    shortest = min(len(a), len(b))
    return a[-shortest:] == b[-shortest:]
