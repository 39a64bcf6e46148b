"""Many clips in one folder, memory-mapped, with what is said of each."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from multidiff.errors import InputError
from multidiff.files import atomic_folder

FRAMES, ABOUT = "frames.npy", "about.json"
NAMES = (FRAMES, ABOUT)
"""What the folder holds, and nothing else."""

_FORMAT = 1
_HEADER = 128  # bytes before the first frame

Clip = NDArray[np.uint8]
"""(frames, height, width, channels)."""


@dataclass(frozen=True, eq=False)
class PackedVideos:
    """M clips end to end, all of one size and rate; on disk a folder with `frames.npy` and `about.json`.

    Attributes:
        frames: (F, H, W, C) uint8, memory-mapped where it is from disk; clip i is rows ``offsets[i]:offsets[i + 1]``.
        offsets: (M + 1,) int64.
        fps: frames a second.
        captions: the phrasings of each clip; empty where there is none.
        split: (M,) int8, 0 train, 1 validation, 2 test.
        sources: the file that each clip is from.
        origin: of a cache, what tells whether it is still up to date.
    """

    frames: Clip
    offsets: NDArray[np.int64]
    fps: float
    captions: Sequence[tuple[str, ...]]
    split: NDArray[np.int8]
    sources: Sequence[str]
    origin: str = ""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(M,) frames in each clip."""
        return np.diff(self.offsets)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of every frame."""
        height, width, channels = self.frames.shape[1:]
        return height, width, channels

    def clip(self, i: int, start: int = 0, count: int | None = None) -> Clip:
        """Frames ``start`` to ``start + count`` of clip i, or to its end; a copy in memory.

        Raises:
            IndexError: there are no such frames.
        """
        first, end = checked_window(i, int(self.lengths[i]), start, count)
        return np.array(self.frames[self.offsets[i] + first : self.offsets[i] + end])

    def rows(self, split: int) -> NDArray[np.int64]:
        """The numbers of the clips of a split."""
        return np.flatnonzero(self.split == split).astype(np.int64)

    def save(self, path: str | Path) -> None:
        """Write the folder, atomically.

        Raises:
            InputError: `path` holds anything else, cannot be written, or the disk is full.
        """
        with writing(path, self.shape, self.fps, self.origin) as writer:
            for i in range(len(self)):
                rows = self.frames[self.offsets[i] : self.offsets[i + 1]]
                writer.add(rows, self.captions[i], int(self.split[i]), self.sources[i])

    @classmethod
    def load(cls, path: str | Path) -> PackedVideos:
        """Open a folder that `multidiff prepare video` wrote; frames are read when they are asked for.

        Raises:
            InputError: the folder is missing, damaged, or not one of these.
        """
        folder = Path(path)
        if not (folder / ABOUT).is_file():
            wrong = f"no data set at {path}" if not folder.exists() else f"{path} is not a packed video folder"
            raise InputError(f"{wrong}; make one with 'multidiff prepare video MY_CLIPS {path}'")
        try:
            about = json.loads((folder / ABOUT).read_bytes())
            frames = np.load(folder / FRAMES, mmap_mode="r", allow_pickle=False)
            packed = cls(
                frames=frames,
                offsets=np.array(about["offsets"], np.int64),
                fps=float(about["fps"]),
                captions=[tuple(map(str, phrasings)) for phrasings in about["captions"]],
                split=np.array(about["split"], np.int8),
                sources=list(map(str, about["sources"])),
                origin=str(about.get("origin", "")),
            )
            packed._check()
        except Exception as error:  # json, numpy and the system each have their own
            told = " ".join(str(error).split())
            raise InputError(f"{path} is not a packed video folder or is damaged ({told})") from error
        return packed

    @classmethod
    def pack(
        cls,
        clips: Sequence[Clip],
        fps: float,
        captions: Sequence[tuple[str, ...]] | None = None,
        split: Sequence[int] | None = None,
        sources: Sequence[str] | None = None,
    ) -> PackedVideos:
        """Join clips of (frames, H, W, C) in memory.

        Args:
            clips: at least one, all of one size.
            fps: frames a second, of all of them.
            captions: the phrasings of each; none by default.
            split: all train by default.
            sources: numbered by default.
        """
        count = len(clips)
        return cls(
            frames=np.concatenate(clips),
            offsets=np.concatenate([[0], np.cumsum([len(clip) for clip in clips])]).astype(np.int64),
            fps=float(fps),
            captions=list(captions) if captions is not None else [()] * count,
            split=np.zeros(count, np.int8) if split is None else np.array(split, np.int8),
            sources=list(sources) if sources is not None else list(map(str, range(count))),
        )

    def _check(self) -> None:
        wrong = {
            "frames": self.frames.dtype != np.uint8 or self.frames.ndim != 4 or self.frames.shape[-1] not in (1, 3),
            "offsets": self.offsets.ndim != 1
            or not len(self.offsets)
            or self.offsets[0] != 0
            or bool((self.lengths < 1).any())
            or int(self.offsets[-1]) != len(self.frames),
            "fps": not 0 < self.fps < float("inf"),
            "captions": len(self.captions) != len(self),
            "split": len(self.split) != len(self) or not np.isin(self.split, (0, 1, 2)).all(),
            "sources": len(self.sources) != len(self),
        }
        if any(wrong.values()):
            raise ValueError(f"wrong: {', '.join(name for name, bad in wrong.items() if bad)}")


def checked_window(i: int, length: int, start: int, count: int | None) -> tuple[int, int]:
    """First frame and the one after the last.

    Raises:
        IndexError: there are no such frames.
    """
    end = length if count is None else start + count
    if not 0 <= start < end <= length:
        raise IndexError(f"clip {i} has {length} frames; {start} to {end} are not among them")
    return start, end


@dataclass(eq=False)
class Writer:
    """Writes clip by clip and never holds one in memory; see `writing`.

    Attributes:
        file: of the frames.
        shape: (H, W, C) of every frame.
        fps: frames a second.
        origin: see `PackedVideos`.
    """

    file: IO[bytes]
    shape: tuple[int, int, int]
    fps: float
    origin: str = ""
    offsets: list[int] = field(default_factory=lambda: [0])
    captions: list[tuple[str, ...]] = field(default_factory=list)
    split: list[int] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.sources)

    def add(self, frames: Iterable[NDArray[np.uint8]], captions: Sequence[str], split: int, source: str) -> int:
        """One clip, of (H, W, C) frames in turn; the number of them. A clip without frames is none."""
        count = 0
        for frame in frames:
            if frame.shape != self.shape or frame.dtype != np.uint8:
                raise ValueError(f"a frame is {frame.dtype} {frame.shape}, not uint8 {self.shape}")
            self.file.write(np.ascontiguousarray(frame).data)
            count += 1
        if count:
            self.offsets.append(self.offsets[-1] + count)
            self.captions.append(tuple(captions))
            self.split.append(split)
            self.sources.append(source)
        return count

    def drop(self, clips: int) -> None:
        """Forget all clips but the first `clips`, and frames of a clip that was not added whole."""
        del self.offsets[clips + 1 :], self.captions[clips:], self.split[clips:], self.sources[clips:]
        self.file.seek(_HEADER + self.offsets[-1] * math.prod(self.shape))
        self.file.truncate()

    def finish(self, about: Path) -> None:
        """Write what is known of the clips."""
        self.file.seek(0)
        self.file.write(_header(self.offsets[-1], self.shape))
        self.file.flush()
        os.fsync(self.file.fileno())
        known = ("fps", "origin", "offsets", "split", "sources", "captions")
        with open(about, "w", encoding="utf-8") as file:
            json.dump({"format": _FORMAT} | {name: getattr(self, name) for name in known}, file, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())


@contextlib.contextmanager
def writing(path: str | Path, shape: tuple[int, int, int], fps: float, origin: str = "") -> Iterator[Writer]:
    """A writer of the folder `path`, where nothing is changed until the block has ended without an error.

    Args:
        path: the folder to be; a packed one is replaced.
        shape: (H, W, C) of every frame.
        fps: frames a second.
        origin: see `PackedVideos`.

    Raises:
        InputError: `path` holds anything else, cannot be written, or the disk is full.
    """
    with atomic_folder(path, NAMES) as folder, open(folder / FRAMES, "w+b") as file:
        writer = Writer(file, shape, fps, origin)
        file.write(_header(0, shape))
        yield writer
        writer.finish(folder / ABOUT)


def _header(frames: int, shape: tuple[int, ...]) -> bytes:
    """Of the `.npy` file; equally long for any number of frames, so that it can be written last."""
    sizes = ", ".join(map(str, shape))
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({frames:>20}, {sizes}), }}"
    magic = np.lib.format.magic(1, 0)
    length = _HEADER - len(magic) - 2
    return magic + length.to_bytes(2, "little") + text.ljust(length - 1).encode() + b"\n"
