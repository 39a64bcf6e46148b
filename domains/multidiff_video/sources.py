"""Where videos and pictures lie, and what is said of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from multidiff import captions, sources
from multidiff.captions import Row, Table
from multidiff.errors import InputError
from multidiff.sources import Sources, Wanted
from multidiff_video import movie, stills
from multidiff_video.packed import ABOUT, FRAMES

_UNREADABLE = (
    ".heic",
    ".heif",
    ".swf",
    ".rm",
    ".rmvb",
    ".braw",
    ".r3d",
    ".cr2",
    ".nef",
    ".arw",
    ".dng",
    ".psd",
    ".svg",
)
WANTED = Wanted("video", (*movie.SUFFIXES, *stills.SUFFIXES), _UNREADABLE, "convert them to MP4 or PNG", (".txt",))


@dataclass(frozen=True)
class Item:
    """A video or a picture; its files are several where they are the frames of a video.

    Attributes:
        name: of the file, or of the folder of the frames.
        files: as the sources name them, in order.
    """

    name: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class Found:
    """What there is to read.

    Attributes:
        sources: the files.
        items: videos and pictures.
        rows: name of an item -> what is said of it.
        missing: names that captions are for, and that fit no item.
        left_out: lines of tables that could not be used.
    """

    sources: Sources
    items: tuple[Item, ...]
    rows: dict[str, Row]
    missing: list[str]
    left_out: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """Of the items."""
        return [item.name for item in self.items]


def find(path: Path, named: str | Path | None = None) -> Found:
    """Videos, pictures and folders of numbered frames in a folder (searched through), an archive, or one file.

    Captions come from tables that lie with the files (`captions.NAMES`) and from texts that lie beside them (a.txt
    beside a.mp4, a caption a line), or, without any, from the names of folders. Numbered pictures in one folder are the
    frames of a video, unless captions are given for them one by one.

    Args:
        path: the input.
        named: a table of captions instead of those that lie with the files; "none" for the folders' names.

    Raises:
        InputError: there is nothing to read, a table cannot be read, or fits no file at all.
    """
    if is_packed(path):
        raise InputError(f"{path} is packed already; give a folder, an archive or a video")
    files = sources.find(path, WANTED)
    none = named is not None and str(named).lower() == "none"
    table = Table() if none else sources.table_of(files, None if named is None else Path(named))
    beside = {} if none or named is not None else _sidecars(files)
    items = tuple(_items(files, table, beside))
    told = table.joined(_read_sidecars(files, beside, items))
    unused = len(files.sidecars) - len(beside)
    files = replace(files, ignored=files.ignored + unused)
    names = [item.name for item in items]
    rows, missing = captions.matched(told if told.rows else captions.by_folder(names), names)
    if table.rows and not rows:
        raise InputError(
            f"none of the {len(missing):,} files that the captions name is in {path} (the first: {missing[0]}); names "
            f"are relative to the folder of the table; --captions none does without"
        )
    return Found(files, items, rows, missing, table.left_out)


def is_packed(path: Path) -> bool:
    """Whether `multidiff prepare video` wrote the folder."""
    return (path / ABOUT).is_file() and (path / FRAMES).is_file()


def opened(found: Found) -> Iterator[tuple[Item, list[Path] | InputError]]:
    """Each item and its files, or why they cannot be had; of an archive one item at a time is unpacked.

    Raises:
        InputError: the disk is full.
    """
    owners = {file: item for item in found.items for file in item.files}
    paths: dict[str, dict[str, Path]] = defaultdict(dict)
    seen: dict[str, int] = defaultdict(int)
    with TemporaryDirectory(prefix="multidiff-") as folder:
        for file, path in found.sources.unpacked([*owners], Path(folder)):
            item = owners[file]
            seen[item.name] += 1
            if isinstance(path, Path):
                paths[item.name][file] = path
            if seen[item.name] < len(item.files):
                continue
            had = paths.pop(item.name, {})
            if had:
                yield item, [had[name] for name in item.files if name in had]
            else:
                yield item, path if isinstance(path, InputError) else InputError(f"{item.name} cannot be read")
            if found.sources.archived:
                for unpacked in had.values():
                    unpacked.unlink()


def _items(files: Sources, table: Table, beside: dict[str, str]) -> Iterator[Item]:
    """Files and folders of frames, in order."""
    folders: dict[str, list[str]] = defaultdict(list)
    for file in files.files:
        folders[str(PurePosixPath(file).parent)].append(file)
    frames: dict[str, tuple[str, ...]] = {}
    for folder, inside in folders.items():
        plain = {PurePosixPath(file).name: file for file in inside}
        ordered = [plain[name] for name in stills.numbered(plain)]
        if ordered and not captions.matched(table, ordered)[0] and not {_stem(f) for f in ordered} & set(beside):
            frames[folder] = tuple(ordered)
    grouped = {file: folder for folder, inside in frames.items() for file in inside}
    for file in files.files:
        group = grouped.get(file)
        if group is None:
            yield Item(file, (file,))
        elif group in frames:
            name = group if group != "." else files.path.name
            yield Item(name, frames.pop(group))


def _sidecars(files: Sources) -> dict[str, str]:
    """Name without ending -> the text beside it, of what may be an item."""
    known = {_stem(file) for file in files.files}
    known |= {str(PurePosixPath(file).parent) for file in files.files}
    return {_stem(name): name for name in files.sidecars if _stem(name) in known}


def _read_sidecars(files: Sources, beside: dict[str, str], items: tuple[Item, ...]) -> Table:
    rows: dict[str, Row] = {}
    texts = dict(files.contents(list(beside.values())))
    for item in items:
        name = beside.get(item.name if len(item.files) > 1 else _stem(item.name))
        if name is None:
            continue
        lines = sources.read_bytes(texts[name], name).decode("utf-8-sig", errors="replace").splitlines()
        said = dict.fromkeys(text for line in lines if (text := " ".join(line.split())))
        rows[item.name] = Row(tuple(said), {})
    return Table(rows)


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))
