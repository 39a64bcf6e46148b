"""Where sound files lie: a folder, an archive that is read without unpacking it, or a single file."""

from __future__ import annotations

import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from multidiff.errors import InputError
from multidiff_audio import captions
from multidiff_audio.sound import SUFFIXES, UNREADABLE

ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")

_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError)
_LARGEST = 1 << 31  # bytes of a file in an archive: it is held in memory


@dataclass(frozen=True)
class Sources:
    """The files of an input; names are relative to it, with slashes.

    Attributes:
        path: the input.
        kind: "folder", "tar", "zip" or "file".
        sounds: files to read, in order.
        tables: of captions.
        refused: sound that cannot be read, with the reason.
        ignored: how many other files there are.
    """

    path: Path
    kind: str
    sounds: tuple[str, ...]
    tables: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]
    ignored: int

    def contents(self, names: Collection[str]) -> Iterator[tuple[str, Path | bytes | InputError]]:
        """Each of the named files, as a path or as its content, or what is wrong with it."""
        if self.kind == "tar":
            yield from _tar_contents(self.path, set(names))
        elif self.kind == "zip":
            yield from _zip_contents(self.path, names)
        elif self.kind == "folder":
            yield from ((name, self.path / name) for name in names)
        else:
            yield from ((name, self.path) for name in names)


def find(path: Path) -> Sources:
    """What there is in a folder (searched through), an archive, or one file.

    Hidden files and folders are left alone.

    Raises:
        InputError: there is no such path, the archive is damaged from its start, or there is no sound file.
    """
    if not path.exists():
        raise InputError(f"no file or folder {path}")
    if path.is_dir():
        return _sorted_out(path, "folder", _walk(path), [])
    kind = _archive_kind(path)
    if kind:
        names, broken = (_tar_names if kind == "tar" else _zip_names)(path)
        return _sorted_out(path, kind, names, [(path.name, broken)] if broken else [])
    if path.suffix.lower() == ".npz":
        raise InputError(f"{path} is packed already; give a folder, an archive or a sound file")
    return Sources(path, "file", (path.name,), (), (), 0)


def _archive_kind(path: Path) -> str:
    name = path.name.lower()
    if not name.endswith(ARCHIVES):
        return ""
    return "zip" if name.endswith(".zip") else "tar"


def _sorted_out(path: Path, kind: str, names: list[str], refused: list[tuple[str, str]]) -> Sources:
    sounds, tables, ignored = [], [], 0
    for name in names:
        file = PurePosixPath(name)
        if any(part.startswith(".") or part == "__MACOSX" for part in file.parts):
            continue
        suffix = file.suffix.lower()
        if suffix in SUFFIXES:
            sounds.append(name)
        elif file.name.lower() in captions.NAMES:
            tables.append(name)
        elif suffix in UNREADABLE:
            refused.append((name, f"{suffix} files are not read; convert them to WAV or FLAC"))
        else:
            ignored += 1
    if not sounds:
        why = f": {refused[0][0]}: {refused[0][1]}" if refused else ""
        raise InputError(f"no sound file in {path} (looked for {', '.join(SUFFIXES)}){why}")
    return Sources(path, kind, tuple(sounds), tuple(tables), tuple(refused), ignored)


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


def _tar_contents(path: Path, names: set[str]) -> Iterator[tuple[str, bytes | InputError]]:
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                name = _plain(member.name)
                if not member.isfile() or name not in names:
                    continue
                stream = archive.extractfile(member) if member.size <= _LARGEST else None
                content = stream.read() if stream else InputError(f"{name} is too large for an archive")
                names.discard(name)  # once it is read: damage leaves it among those that cannot be
                yield name, content
    except _DAMAGE as error:
        for name in sorted(names):
            yield name, InputError(f"{name} cannot be taken from {path.name}: {_one_line(error)}")


def _zip_contents(path: Path, names: Collection[str]) -> Iterator[tuple[str, bytes | InputError]]:
    with zipfile.ZipFile(path) as archive:
        infos = {_plain(info.filename): info for info in archive.infolist()}
        for name in names:
            try:
                if infos[name].file_size > _LARGEST:
                    raise RuntimeError("it is too large for an archive")
                yield name, archive.read(infos[name])
            except _DAMAGE as error:
                yield name, InputError(f"{name} cannot be taken from {path.name}: {_one_line(error)}")


def _plain(name: str) -> str:
    return str(PurePosixPath(name.replace("\\", "/")))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
