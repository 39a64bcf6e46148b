"""A folder of videos as a data set that is decoded as it is needed."""

from __future__ import annotations

import contextlib
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from multidiff import captions
from multidiff.captions import Row
from multidiff.errors import InputError
from multidiff_video import framing, packing
from multidiff_video.movie import Stream
from multidiff_video.packed import Clip, checked_window
from multidiff_video.packing import Rules
from multidiff_video.sources import Found, opened


class LazyVideos:
    """The interface of `PackedVideos` for files as they are.

    Of every file the first frame is decoded once, and the file left out where that fails. A clip may be
    a frame shorter than it would be packed, or longer, where a file promises too much: its last frame is then repeated.

    Args:
        found: the files, none of an archive.
        rules: rate, size and channels; their `frames` is of no account.

    Attributes:
        fps: frames a second.
        lengths: (M,) int64, frames in each clip.
        captions: the phrasings of each clip.
        split: (M,) int8, 0 train, 1 validation, 2 test.
        sources: the file that each clip is from.
        account: what became of the files.

    Raises:
        InputError: it is an archive, or there is no file that can be read.
    """

    def __init__(self, found: Found, rules: Rules) -> None:
        if found.sources.archived:
            raise InputError(
                f"videos in the archive {found.sources.path} cannot be read one by one; unpack it, or make a data set "
                f"of it with 'multidiff prepare video {found.sources.path} CLIPS'"
            )
        self.found, self.rules = found, rules
        self.account = packing.account_of(found)
        kept = self._looked_into()
        if not kept:
            raise InputError(f"no video in {found.sources.path} can be read; {self.account.nothing()}")
        self.fps = float(rules.fps or packing.commonest(self.account.rates))
        splits = captions.splits(found.names, found.rows, rules.validation)
        self.sources = [stream.name for stream, _ in kept]
        self.captions = [found.rows.get(name, Row((), {})).captions for name in self.sources]
        self.split = np.array([splits[name] for name in self.sources], np.int8)
        self._streams = [self._stream(stream) for stream, _ in kept]
        lengths = [_length(stream, seconds) for stream, (_, seconds) in zip(self._streams, kept, strict=True)]
        self.lengths = np.array(lengths, np.int64)

    def __len__(self) -> int:
        return len(self.sources)

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every frame."""
        size = framing.checked_size(self.rules.size)
        assert size is not None
        return *size, 1 if self.rules.gray else 3

    def clip(self, i: int, start: int = 0, count: int | None = None) -> Clip:
        """Frames ``start`` to ``start + count`` of clip i, or to its end.

        Raises:
            IndexError: there are no such frames.
            InputError: the file can no longer be read.
        """
        first, end = checked_window(i, int(self.lengths[i]), start, count)
        stream = self._streams[i]
        frames = _present(stream, first, end - first) or _present(stream, 0, None)[-1:]
        return np.stack(frames + frames[-1:] * (end - first - len(frames)))

    def rows(self, split: int) -> NDArray[np.int64]:
        """The numbers of the clips of a split."""
        return np.flatnonzero(self.split == split).astype(np.int64)

    def report(self) -> list[str]:
        """What was found and what was skipped, in lines."""
        path, ignored = self.found.sources.path, self.found.sources.ignored
        return [*self.account.lines(path, ignored, packing.NAMED), *packing.said_of(self, self.found)]

    def _looked_into(self) -> list[tuple[Stream, float]]:
        """What can be read, at its own rate, and how many seconds it lasts."""
        from tqdm import tqdm

        kept = []
        for item, paths in tqdm(opened(self.found), "look into", len(self.found.items), unit=" files", disable=None):
            try:
                if isinstance(paths, InputError):
                    raise paths
                stream = Stream(paths if len(item.files) > 1 else paths[0], name=item.name)
                with contextlib.closing(stream.frames(count=1)) as frames:
                    next(frames)
                kept.append((stream, stream.seconds()))
            except InputError as error:
                self.account.skip("not readable", str(error))
            else:
                self.account.rates[0.0 if stream.still or len(paths) > 1 else round(stream.fps, 3)] += 1
        return kept

    def _stream(self, own: Stream) -> Stream:
        """At the data set's rate and size."""
        source, rules = own.paths if len(own.paths) > 1 else own.paths[0], self.rules
        return Stream(source, self.fps, rules.size, rules.crop, rules.gray, own.name, own.header)


def _length(stream: Stream, seconds: float) -> int:
    return len(stream.paths) if len(stream.paths) > 1 else max(1, int(seconds * stream.fps + 0.01))


def _present(stream: Stream, first: int, count: int | None) -> list[NDArray[np.uint8]]:
    """The frames that there are, none where the file ends before; without a count only the last one."""
    held: list[NDArray[np.uint8]] = []
    try:
        for frame in stream.frames(first / stream.fps, count):
            held = [frame] if count is None else [*held, frame]
    except InputError:
        if not first:
            raise
    return held
