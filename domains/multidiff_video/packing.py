"""From videos to packed clips: every file is brought to one rate, size and number of channels."""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from multidiff import captions
from multidiff.account import Account, few
from multidiff.captions import Row
from multidiff.errors import InputError
from multidiff.files import refuse_others, writable_folder
from multidiff_video import framing, movie
from multidiff_video.ffmpeg import Header
from multidiff_video.framing import Size
from multidiff_video.packed import NAMES, PackedVideos, Writer, writing
from multidiff_video.sources import Found, Item, opened

LEFT_OVER = "frames left out at the end, too few for a window"
NAMED = 20
"""Skipped files that a report names of each reason."""
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Rules:
    """What is done to each file; see `prepare`.

    Attributes:
        fps: frames a second; None for the most frequent rate.
        size: of the frames.
        frames: of each clip; None keeps videos whole.
        gray: one channel, not three.
        crop: one of `framing.CROPS`.
        validation: share of the training files, where no split names validation.
    """

    fps: float | None = None
    size: Size = 64
    frames: int | None = None
    gray: bool = False
    crop: str = "center"
    validation: float = 0.05


def check(rules: Rules) -> None:
    """Refuse what is out of range, with the names of the options.

    Raises:
        InputError: something is.
    """
    if rules.fps is not None and not movie.RATES[0] <= rules.fps <= movie.RATES[1]:
        low, high = movie.RATES
        raise InputError(f"--fps {rules.fps:g} is out of range; give {low:g} to {high:g} frames a second")
    if rules.frames is not None and rules.frames < 1:
        raise InputError(f"--frames {rules.frames} is out of range; give 1 or more")
    if not 0 <= rules.validation < 1:
        raise InputError(f"--validation {rules.validation:g} is out of range; give a share from 0 to below 1")
    if rules.size is None:
        raise InputError("--size is needed: frames of one data set have one size")
    framing.fit(1, 1, rules.size, rules.crop)


def pack(found: Found, rules: Rules, target: Path, origin: str = "", bar: Any = None) -> Account:
    """Read everything that was found and write the packed folder `target`, atomically.

    Returns:
        What became of the files.

    Raises:
        InputError: no file could be used, `target` cannot be written, or the disk is full.
    """
    account = account_of(found)
    splits = captions.splits(found.names, found.rows, rules.validation)
    headers = {} if rules.fps else _looked_into(found, account)
    fps = rules.fps or commonest(account.rates)
    size = framing.checked_size(rules.size)
    assert size is not None
    with writing(target, (*size, 1 if rules.gray else 3), fps, origin) as writer:
        for item, paths in opened(found):
            said = found.rows.get(item.name, Row((), {})).captions
            _add(writer, item, paths, rules, said, splits[item.name], account, headers.get(item.name))
            if bar is not None:
                bar.update(1)
        if not len(writer):
            raise InputError(f"no video in {found.sources.path} could be used; {account.nothing()}")
    return account


def account_of(found: Found) -> Account:
    """One that knows of the files that cannot be read at all."""
    account = Account(files=len(found.items) + len(found.sources.refused))
    for name, why in found.sources.refused:
        account.skip("not readable", f"{name}: {why}")
    return account


def commonest(rates: Counter[float]) -> float:
    """The most frequent rate; the highest of several, and `movie.FOLDER_RATE` of none."""
    known = [(count, rate) for rate, count in rates.items() if rate]
    return max(known)[1] if known else movie.FOLDER_RATE


def kept(found: Found, rules: Rules, folder: Path) -> PackedVideos:
    """The packed `folder`, made if it is not from just these files and rules.

    Raises:
        InputError: see `pack`.
    """
    origin = _origin(found, rules)
    if folder.exists():
        refuse_others(folder, NAMES)
    try:
        there = PackedVideos.load(folder)
    except InputError:
        pass
    else:
        if there.origin == origin:
            return there
    videos, report = packed(found, rules, folder, origin)
    print(report, file=sys.stderr)
    return videos


def packed(found: Found, rules: Rules, target: Path, origin: str = "") -> tuple[PackedVideos, str]:
    """Pack, with a progress bar; the data set and the report.

    Raises:
        InputError: see `pack`.
    """
    from tqdm import tqdm

    refuse_others(target, NAMES)
    writable_folder(Path(target).absolute().parent)
    # disable=None: no bar where stderr is not a terminal
    with tqdm(total=len(found.items), unit=" files", desc="prepare", disable=None) as bar:
        account = pack(found, rules, target, origin, bar)
    videos = PackedVideos.load(target)
    path, ignored = found.sources.path, found.sources.ignored
    lines = [*account.lines(path, ignored, NAMED), *contents(videos, account, rules), *said_of(videos, found)]
    return videos, "\n".join(lines)


def contents(videos: PackedVideos, account: Account, rules: Rules) -> list[str]:
    """Lines of a report on what is in a data set."""
    lengths = videos.lengths
    seconds = lengths.sum() / videos.fps
    time = f"{seconds / 3600:.2f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"
    height, width, channels = videos.shape
    why = "" if rules.fps else ", the most frequent rate"
    parts = ", ".join(f"{name} {len(videos.rows(i)):,}" for i, name in enumerate(SPLITS))
    span = f"{lengths.min():,}" if lengths.min() == lengths.max() else f"{lengths.min():,} to {lengths.max():,}"
    lines = [
        f"clips: {len(videos):,} of {span} frames, {lengths.sum():,} frames, {time}, {width}x{height} "
        f"{'gray' if channels == 1 else 'RGB'}, {videos.fps:.4g} frames a second{why}",
    ]
    rates = ", ".join(f"{rate:.4g} {n:,}" for rate, n in account.rates.most_common(8) if rate)
    lines += [f"rates of the files: {rates}"] if rates else []
    return [*lines, f"split: {parts}"]


def said_of(videos: Any, found: Found) -> list[str]:
    """Lines of a report on the captions of a data set."""
    without = [*dict.fromkeys(name for name, said in zip(videos.sources, videos.captions, strict=True) if not said)]
    distinct = set(itertools.chain.from_iterable(videos.captions))
    lines = [f"captions: {len(distinct):,} distinct"]
    lines += [f"  files without caption: {few(without)}"] if without else []
    lines += [f"  captions for files that are not there: {few(found.missing)}"] if found.missing else []
    return lines + ([f"  lines left out: {few(found.left_out)}"] if found.left_out else [])


def _add(
    writer: Writer,
    item: Item,
    paths: list[Path] | InputError,
    rules: Rules,
    said: Sequence[str],
    split: int,
    account: Account,
    header: Header | None,
) -> None:
    """The clips of one item."""
    before = len(writer)
    try:
        if isinstance(paths, InputError):
            raise paths
        source = paths if len(item.files) > 1 else paths[0]
        stream = movie.Stream(source, writer.fps, rules.size, rules.crop, rules.gray, item.name, header)
        left = _windows(writer, stream, rules.frames, said, split)
    except InputError as error:
        writer.drop(before)
        account.skip("not readable", str(error))
        return
    if len(writer) == before:
        account.skip(f"shorter than {rules.frames} frames", f"{item.name}: {left}")
        return
    account.notes.update(list(stream.notes))
    account.notes.update([LEFT_OVER] if left else [])


def _windows(writer: Writer, stream: movie.Stream, size: int | None, said: Sequence[str], split: int) -> int:
    """Add a clip, or windows of `size` frames; the number of frames left over. A single picture is never too short."""
    frames = stream.frames()
    while count := writer.add(itertools.islice(frames, size), said, split, stream.name):
        if size is not None and count < size and not (stream.still and count == 1):
            writer.drop(len(writer) - 1)
            return count
        if size is None:
            break
    return 0


def _looked_into(found: Found, account: Account) -> dict[str, Header | None]:
    """The header of every video, and its rate in the account."""
    headers: dict[str, Header | None] = {}
    for item, paths in opened(found):
        if isinstance(paths, list) and len(item.files) == 1:
            try:
                stream = movie.Stream(paths[0], name=item.name)
            except InputError:
                continue
            headers[item.name] = stream.header
            account.rates[0.0 if stream.still else round(stream.fps, 3)] += 1
    return headers


def _origin(found: Found, rules: Rules) -> str:
    """What a data set follows from: names, sizes and times of the files, what is said of them, and the rules."""
    path = found.sources.path
    about = []
    for item in found.items:
        for name in item.files:
            file = path if found.sources.kind != "folder" else path / name
            stat = file.stat() if file.exists() else None
            about.append([name, stat.st_size if stat else 0, stat.st_mtime_ns if stat else 0])
    said = {name: [row.captions, row.fields.get("split", "")] for name, row in found.rows.items()}
    text = json.dumps([about, said, asdict(rules)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
