"""Where files lie: a folder, an archive that is read without unpacking it, or a single file."""

from __future__ import annotations

import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TypeVar

from multidiff import captions
from multidiff.captions import Table
from multidiff.errors import InputError
from multidiff.files import explain

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")

_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError)
_LARGEST = 1 << 31  # bytes of a file in an archive: it is held in memory


T = TypeVar("T")


@dataclass(frozen=True)
class Wanted:
    """Which files are looked for.

    Attributes:
        noun: what one is called in messages: "sound".
        suffixes: their endings, in lower case.
        unreadable: endings of those that cannot be read but are worth a word.
        mend: what to do about them.
        sidecars: endings of texts that lie beside them and bear their names.
    """

    noun: str
    suffixes: tuple[str, ...]
    unreadable: tuple[str, ...] = ()
    mend: str = ""
    sidecars: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sources:
    """The files of an input; names are relative to it, with slashes.

    Attributes:
        path: the input.
        kind: "folder", "tar", "zip" or "file".
        files: to read, in order.
        tables: of captions.
        refused: files that are wanted but cannot be read, with the reason.
        ignored: how many other files there are.
        sidecars: texts that may lie beside a file; they are not among the ignored.
    """

    path: Path
    kind: str
    files: tuple[str, ...]
    tables: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]
    ignored: int
    sidecars: tuple[str, ...] = ()

    @property
    def archived(self) -> bool:
        """Whether the files have no paths of their own."""
        return self.kind in ("tar", "zip")

    def contents(self, names: Collection[str]) -> Iterator[tuple[str, Path | bytes | InputError]]:
        """Each of the named files, as a path or as its content, or what is wrong with it."""
        if self.archived:
            yield from self._taken(names, _read)
        else:
            yield from self._paths(names)

    def unpacked(self, names: Collection[str], folder: Path) -> Iterator[tuple[str, Path | InputError]]:
        """Each of the named files as a path, or what is wrong with it; the path is in `folder` for one of an archive.

        None is held in memory. Whoever asks removes what is no longer needed.

        Raises:
            InputError: `folder` cannot be written, or the disk is full.
        """

        def write(name: str, stream: IO[bytes], size: int) -> Path:
            target = folder / f"{len(taken)}{PurePosixPath(name).suffix.lower()}"
            taken.append(name)
            _copy(stream, target)
            return target

        taken: list[str] = []
        if self.archived:
            yield from self._taken(names, write)
        else:
            yield from self._paths(names)

    def _paths(self, names: Collection[str]) -> Iterator[tuple[str, Path]]:
        for name in names:
            yield name, self.path if self.kind == "file" else self.path / name

    def _taken(
        self, names: Collection[str], take: Callable[[str, IO[bytes], int], T]
    ) -> Iterator[tuple[str, T | InputError]]:
        yield from (_from_tar if self.kind == "tar" else _from_zip)(self.path, names, take)


def find(path: Path, wanted: Wanted) -> Sources:
    """What there is in a folder (searched through), an archive, or one file.

    Hidden files and folders are left alone.

    Raises:
        InputError: there is no such path, the archive is damaged from its start, or no file is wanted.
    """
    if not path.exists():
        raise InputError(f"no file or folder {path}")
    if path.is_dir():
        return _sorted_out(path, "folder", _walk(path), [], wanted)
    kind = _archive_kind(path)
    if kind:
        names, broken = (_tar_names if kind == "tar" else _zip_names)(path)
        return _sorted_out(path, kind, names, [(path.name, broken)] if broken else [], wanted)
    return Sources(path, "file", (path.name,), (), (), 0)


def table_of(sources: Sources, named: Path | None) -> Table:
    """The rows of the table that the user names, or else of those that lie with the files.

    Raises:
        InputError: a table cannot be read.
    """
    if named is not None:
        return captions.parse(read_bytes(named, str(named)), named.name)
    found = dict(sources.contents(sources.tables))
    table = Table()
    for name in sources.tables:
        content = read_bytes(found[name], name)
        table = table.joined(captions.placed(captions.parse(content, name), name, sources.files))
    return table


def read_bytes(content: Path | bytes | InputError, name: str) -> bytes:
    """The content of a file of captions, which `name` is in messages.

    Raises:
        InputError: it cannot be read.
    """
    if isinstance(content, InputError):
        raise content
    if isinstance(content, bytes):
        return content
    try:
        return content.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read the captions {name}: {error.strerror or error}") from None


def _archive_kind(path: Path) -> str:
    name = path.name.lower()
    if not name.endswith(ARCHIVES):
        return ""
    return "zip" if name.endswith(".zip") else "tar"


def _sorted_out(path: Path, kind: str, names: list[str], refused: list[tuple[str, str]], wanted: Wanted) -> Sources:
    files, tables, sidecars, ignored = [], [], [], 0
    for name in names:
        file = PurePosixPath(name)
        if any(part.startswith(".") or part == "__MACOSX" for part in file.parts):
            continue
        suffix = file.suffix.lower()
        if suffix in wanted.suffixes:
            files.append(name)
        elif file.name.lower() in captions.NAMES:
            tables.append(name)
        elif suffix in wanted.sidecars:
            sidecars.append(name)
        elif suffix in wanted.unreadable:
            refused.append((name, f"{suffix} files are not read; {wanted.mend}"))
        else:
            ignored += 1
    if not files:
        why = f": {refused[0][0]}: {refused[0][1]}" if refused else ""
        raise InputError(f"no {wanted.noun} file in {path} (looked for {', '.join(wanted.suffixes)}){why}")
    return Sources(path, kind, tuple(files), tuple(tables), tuple(refused), ignored, tuple(sidecars))


def _walk(folder: Path) -> list[str]:
    names = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = Path(place).relative_to(folder)
        names += [(here / name).as_posix() for name in sorted(files) if not _special(Path(place) / name)]
    return names


def _special(path: Path) -> bool:
    """Whether it is a pipe, socket or device, which would be waited for; a dangling link is not."""
    return path.exists() and not path.is_file()


def _tar_names(path: Path) -> tuple[list[str], str]:
    names: list[str] = []
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                if member.isfile():
                    names.append(_plain(member.name))
    except _DAMAGE as error:
        return _kept(path, names, error)
    return names, ""


def _zip_names(path: Path) -> tuple[list[str], str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return [_plain(info.filename) for info in archive.infolist() if not info.is_dir()], ""
    except _DAMAGE as error:
        return _kept(path, [], error)


def _kept(path: Path, names: list[str], error: Exception) -> tuple[list[str], str]:
    """What came before the damage."""
    if not names:
        raise InputError(f"cannot read the archive {path}: {_one_line(error)}") from None
    return names, f"the archive is damaged after {names[-1]}: {_one_line(error)}"


def _read(name: str, stream: IO[bytes], size: int) -> bytes:
    if size > _LARGEST:
        raise RuntimeError("it is too large for an archive")
    return stream.read()


def _copy(stream: IO[bytes], target: Path) -> None:
    try:
        file = open(target, "wb")  # noqa: SIM115
    except OSError as error:
        raise explain(error, target) from None
    with file:
        while block := stream.read(1 << 20):
            try:
                file.write(block)
            except OSError as error:  # which is no damage of the archive
                raise explain(error, target) from None


def _from_tar(
    path: Path, names: Collection[str], take: Callable[[str, IO[bytes], int], T]
) -> Iterator[tuple[str, T | InputError]]:
    left = set(names)
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                name = _plain(member.name)
                stream = archive.extractfile(member) if member.isfile() and name in left else None
                if stream is None:
                    continue
                try:
                    taken: T | InputError = take(name, stream, member.size)
                except RuntimeError as error:
                    taken = _not_taken(path, name, error)
                left.discard(name)  # once it is read: damage leaves it among those that cannot be
                yield name, taken
    except _DAMAGE as error:
        for name in sorted(left):
            yield name, _not_taken(path, name, error)


def _from_zip(
    path: Path, names: Collection[str], take: Callable[[str, IO[bytes], int], T]
) -> Iterator[tuple[str, T | InputError]]:
    with zipfile.ZipFile(path) as archive:
        infos = {_plain(info.filename): info for info in archive.infolist()}
        for name in names:
            try:
                with archive.open(infos[name]) as stream:
                    taken: T | InputError = take(name, stream, infos[name].file_size)
            except _DAMAGE as error:
                taken = _not_taken(path, name, error)
            yield name, taken


def _not_taken(path: Path, name: str, error: Exception) -> InputError:
    return InputError(f"{name} cannot be taken from {path.name}: {_one_line(error)}")


def _plain(name: str) -> str:
    return str(PurePosixPath(name.replace("\\", "/")))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
