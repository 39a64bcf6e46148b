"""From files to records: the text of one molecule each, with the file and number it came from."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import os
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from multidiff.errors import InputError

RECORD_LIMIT = 4_000_000  # characters; a molecule of 32,767 atoms, the most that a packed file holds, needs 3 million
NO_BONDS = "has no bonds; convert it to SDF, with bonds, first (Open Babel: obabel in.xyz -O out.sdf)"
NO_BOND_ORDERS = "has no bond orders; convert it to SDF first (Open Babel: obabel in.pdb -O out.sdf)"
REFUSED = {".xyz": NO_BONDS, ".pdb": NO_BOND_ORDERS, ".cif": NO_BOND_ORDERS, ".npz": "is not read inside a folder"}


@dataclass(frozen=True, slots=True)
class Record:
    """The text of one molecule.

    Attributes:
        file: name of its file, inside a folder relative to the folder.
        number: record in an SD or mol2 file, line in a SMILES list; both from 1.
        kind: "sd", "mol2" or "smiles".
        text: MDL block, mol2 block or SMILES.
        fault: why it is lost already ("truncated record"), else empty.
        detail: more about the fault.
    """

    file: str
    number: int
    kind: str
    text: str
    fault: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """A readable file: where it is, what reports call it, and its kind (a key of `READERS`)."""

    path: Path
    name: str
    kind: str


def find_sources(path: Path, exclude: Path) -> tuple[list[Source], dict[str, str]]:
    """The readable files of `path` (a file, or a folder searched through), and the ignored ones with the reason.

    Args:
        path: file or folder.
        exclude: a folder that is not looked into (the one with unfinished work).

    Raises:
        InputError: `path` is missing, or is one file of a format that cannot be used.
    """
    if not path.exists():
        raise InputError(f"no file or folder {path}")
    if not path.is_dir():
        return [Source(path, path.name, _kind_or_refuse(path))], {}
    sources, ignored = [], {}
    for file in _files_below(path, exclude):
        name, kind = file.relative_to(path).as_posix(), SUFFIXES.get(_suffix(file))
        if kind:
            sources.append(Source(file, name, kind))
        else:
            ignored[name] = REFUSED.get(_suffix(file), "not a molecule file")
    if not sources:
        raise InputError(f"no molecule file in folder {path} (looked for {_readable()}, each also as .gz)")
    return sources, ignored


def read_records(source: Source) -> Iterator[Record]:
    """The records of one file, in order; damage ends the file and is itself the last record, with a fault."""
    number = 0
    try:
        with _open_text(source.path) as stream:
            for record in READERS[source.kind](stream, source.name):
                number = record.number
                yield record
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        detail = f"nothing after record {number} could be read: {_one_line(error)}"
        yield Record(source.name, number + 1, source.kind, "", "damaged file", detail)
        return
    if not number:
        yield Record(source.name, 0, source.kind, "", "empty file")


def _read_sd(stream: TextIO, name: str) -> Iterator[Record]:
    """Records end with a line `$$$$`; what follows `M  END` (data fields) is not needed."""
    number, length, ended = 1, 0, False
    lines: list[str] = []
    for line in stream:
        if line.startswith("$$$$"):
            yield _sd_record(name, number, lines, length)
            number, lines, length, ended = number + 1, [], 0, False
        elif not ended and length <= RECORD_LIMIT:
            lines.append(line)
            length += len(line)
            ended = line.startswith("M  END")
    if any(line.strip() for line in lines):
        cut = "" if ended else "truncated record"
        yield _sd_record(name, number, lines, length, cut, "the file ends inside it" if cut else "")


def _sd_record(name: str, number: int, lines: list[str], length: int, fault: str = "", detail: str = "") -> Record:
    if length > RECORD_LIMIT:
        return Record(name, number, "sd", "", "unreadable record", f"more than {RECORD_LIMIT:,} characters")
    return Record(name, number, "sd", "".join(lines), fault, detail)


def _read_mol2(stream: TextIO, name: str) -> Iterator[Record]:
    number = 0
    lines: list[str] = []
    for line in stream:
        if line.startswith("@<TRIPOS>MOLECULE"):
            if number:
                yield Record(name, number, "mol2", "".join(lines))
            number, lines = number + 1, []
        lines.append(line)
    if number:
        yield Record(name, number, "mol2", "".join(lines))
    elif any(line.strip() for line in lines):
        yield Record(name, 1, "mol2", "", "unreadable record", "no line @<TRIPOS>MOLECULE")


def _read_smiles(stream: TextIO, name: str) -> Iterator[Record]:
    """One SMILES a line, first on the line; blank lines, lines that begin with # and a heading are no records."""
    first = True
    for number, line in enumerate(stream, 1):
        text = re.split(r"[\s,;]+", line.strip(), maxsplit=1)[0]
        if not text or text.startswith("#"):
            continue
        if not (first and _is_heading(text)):
            yield Record(name, number, "smiles", text)
        first = False


def _read_csv(stream: TextIO, name: str) -> Iterator[Record]:
    """A table with a heading that names a column of SMILES; separated by commas, semicolons or tabs."""
    heading = stream.readline()
    separator = max(",;\t", key=heading.count)
    names = next(csv.reader([heading], delimiter=separator), [])
    column = next((i for i, title in enumerate(names) if _is_heading(title)), None)
    if column is None:
        if heading.strip():
            detail = f"its columns are {', '.join(names[:8])}; name the one with SMILES 'smiles'"
            yield Record(name, 1, "smiles", "", "no column of SMILES", detail)
        return
    rows = csv.reader(stream, delimiter=separator)
    for row in rows:
        if any(row):
            text = row[column].strip() if column < len(row) else ""
            fault = "" if text else "unreadable record"
            yield Record(name, rows.line_num + 1, "smiles", text, fault, "" if text else "no SMILES in this row")


def _is_heading(text: str) -> bool:
    return text.strip().strip("\"'").lower() in {"smiles", "canonical_smiles", "smi", "structure"}


READERS: dict[str, Callable[[TextIO, str], Iterator[Record]]] = {
    "sd": _read_sd,
    "mol2": _read_mol2,
    "smiles": _read_smiles,
    "csv": _read_csv,
}
SUFFIXES = {
    **dict.fromkeys((".sdf", ".sd", ".mol"), "sd"),
    ".mol2": "mol2",
    **dict.fromkeys((".smi", ".smiles", ".txt"), "smiles"),
    **dict.fromkeys((".csv", ".tsv"), "csv"),
}


@contextlib.contextmanager
def _open_text(path: Path) -> Iterator[TextIO]:
    """Text with any line ends; gzip is known by its first bytes, whatever the file is called."""
    with open(path, "rb") as raw:
        packed = raw.peek(2)[:2] == b"\x1f\x8b"
        stream: Any = gzip.GzipFile(fileobj=raw) if packed else raw
        with io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline=None) as text:
            yield text


def _files_below(folder: Path, exclude: Path) -> Iterator[Path]:
    skipped = exclude.resolve()
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith(".") and (Path(root) / f).resolve() != skipped)
        yield from (Path(root) / f for f in sorted(files) if not f.startswith("."))


def _suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _kind_or_refuse(path: Path) -> str:
    suffix = _suffix(path)
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    reason = REFUSED.get(suffix, f"is not a file that can be read (allowed: {_readable()}, .npz)")
    raise InputError(f"{path} {reason}")


def _readable() -> str:
    return ", ".join(SUFFIXES)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
