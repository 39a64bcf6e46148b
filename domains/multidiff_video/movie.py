"""Videos and pictures of any kind as clips of uint8: what a file holds, and its frames at a rate and size.

A video, an animated picture (GIF, WebP, APNG), a single picture, a folder of numbered PNG or JPEG files: all of them
are read in the same way, one frame after another, and turned, sampled, cut and scaled on the way. What is transparent
is laid on white.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from multidiff.errors import InputError
from multidiff_video import ffmpeg, framing, stills
from multidiff_video.ffmpeg import Header
from multidiff_video.framing import Size

SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".asf"),
    *(".flv", ".3gp", ".ogv", ".mjpeg", ".mjpg", ".mxf", ".vob", ".y4m"),
)
"""Endings of the files that are taken for videos; see also `stills.SUFFIXES`."""
LONGEST_STILL = 600.0
"""Seconds that pictures may be the same one: more is a damaged time stamp, which would be filled with copies."""
FOLDER_RATE = 10.0
"""Frames a second of folders of frames and of single pictures, where none is asked for: files do not say."""
RATES = (0.01, 1000.0)
"""Frames a second that may be asked for."""
MOST = 1 << 32
"""Bytes of a clip that `load` holds in memory."""

GAPS = "numbers missing among the frames"

Source = str | Path | Sequence[Path]
"""A file, a folder of frames, or the frames themselves, in order."""


@dataclass(frozen=True)
class Info:
    """What a file says of itself.

    Attributes:
        width, height: in pixels, as it is shown: turned as its flags say, with square pixels.
        fps: frames a second, the average where they vary; 0 of a single picture.
        duration: in seconds; 0 of a single picture, None where it is not known.
        frames: how many; of a video to within one or two, if it was counted.
    """

    width: int
    height: int
    fps: float
    duration: float | None
    frames: int | None


@dataclass(frozen=True, eq=False)
class Reading:
    """A clip as read.

    Attributes:
        frames: (F, H, W, C) uint8.
        fps: frames a second.
        notes: what is odd about the file: "cut short", "damaged in places", "numbers missing among the frames".
    """

    frames: NDArray[np.uint8]
    fps: float
    notes: tuple[str, ...]


def probe(source: Source, name: str = "", counted: bool = False) -> Info:
    """What a file holds, without decoding a video; `name` is what messages call it.

    Args:
        source: of the pictures.
        name: the path by default.
        counted: count the coded pictures of a video, so that sound that goes on after them, or a file that is cut
            short, is no matter; that reads the file to its end.

    Raises:
        InputError: it is missing, empty, damaged, or holds no picture.
    """
    name, paths = _named(source, name)
    if len(paths) > 1:
        height, width, _, _ = _first_about(paths, name)
        return Info(width, height, FOLDER_RATE, len(paths) / FOLDER_RATE, len(paths))
    if stills.is_picture(paths[0]):
        height, width, count, lasts = stills.about(paths[0], name)
        return Info(width, height, count / lasts if lasts else 0.0, lasts, count)
    about = ffmpeg.header(paths[0], name)
    seconds = ffmpeg.seconds(paths[0], about) if counted else about.duration
    frames = None if seconds is None else max(1, round(seconds * about.fps))
    return Info(about.width, about.height, about.fps, seconds, frames)


def read(
    source: Source,
    fps: float | None = None,
    size: Size = None,
    crop: str = "center",
    start: float = 0.0,
    count: int | None = None,
) -> tuple[NDArray[np.uint8], float]:
    """The (F, H, W, 3) frames of a file, and how many a second they are; see `stream`.

    Raises:
        InputError: see `stream`; or the frames need more than `MOST` bytes.
    """
    reading = load(source, fps, size, crop, start, count)
    return reading.frames, reading.fps


def load(
    source: Source,
    fps: float | None = None,
    size: Size = None,
    crop: str = "center",
    start: float = 0.0,
    count: int | None = None,
    gray: bool = False,
    name: str = "",
) -> Reading:
    """As `read`, with what is odd about the file; of one channel where `gray`.

    Raises:
        InputError: see `read`.
    """
    opened = Stream(source, fps, size, crop, gray, name)
    held: list[NDArray[np.uint8]] = []
    for frame in opened.frames(start, count):
        held.append(frame)
        if len(held) * frame.size > MOST:
            raise InputError(
                f"{opened.name} at {frame.shape[1]}x{frame.shape[0]} needs more than {MOST >> 30} GiB; ask for fewer "
                f"frames (count, fps) or smaller ones (size)"
            )
    return Reading(np.stack(held), opened.fps, tuple(opened.notes))


class Stream:
    """A file that is read frame by frame, at a rate and size; none but the present frame is held.

    Args:
        source: a video, a picture, a folder of numbered frames, or the frames themselves.
        fps: frames a second; by default the file's own, `FOLDER_RATE` of what has none. Frame k is the picture whose
            time is nearest to k / fps; pictures are repeated or left out as that needs. Of a folder every frame is
            taken, at whatever rate.
        size: pixels of a square, or (height, width); the picture's own by default.
        crop: "center": the middle of the picture fills the frame; "pad": all of it, on black; "stretch".
        gray: one channel, not three.
        name: what messages call it; the path by default.
        header: of a video, where it is known; it is read otherwise.

    Attributes:
        fps: frames a second.
        notes: what is odd about the file, known once it has been read.
        still: it is a single picture.

    Raises:
        InputError: an option is out of range, or the file is missing, empty, damaged, or holds no picture.
    """

    def __init__(
        self,
        source: Source,
        fps: float | None = None,
        size: Size = None,
        crop: str = "center",
        gray: bool = False,
        name: str = "",
        header: Header | None = None,
    ) -> None:
        self.name, self.paths = _named(source, name)
        self.size, self.crop, self.gray = framing.checked_size(size), crop, gray
        self.notes: dict[str, None] = {}
        self.header, self.still, self._lasts = header, False, 0.0
        own = FOLDER_RATE
        if len(self.paths) == 1 and not stills.is_picture(self.paths[0]):
            self.header = header or ffmpeg.header(self.paths[0], self.name)
            own = self.header.fps
        elif len(self.paths) == 1:
            info = probe(self.paths[0], self.name)
            own, self.still, self._lasts = info.fps or FOLDER_RATE, info.frames == 1, info.duration or 0.0
        self.fps = own if fps is None else float(fps)
        if not RATES[0] <= self.fps <= RATES[1]:
            raise InputError(f"fps {self.fps:g} is out of range; give {RATES[0]:g} to {RATES[1]:g} frames a second")
        if stills.gaps([path.name for path in self.paths]):
            self.notes[GAPS] = None

    def frames(self, start: float = 0.0, count: int | None = None) -> Generator[NDArray[np.uint8], None, None]:
        """Frames of (H, W, C) from `start` seconds on, to the nearest frame; `count` of them, or to the end.

        Raises:
            InputError: there is none.
        """
        if not 0 <= start < math.inf or (count is not None and count < 1):
            raise InputError(f"start {start} s, count {count} are out of range; give 0 or more, and 1 or more")
        first = math.floor(start * self.fps + 0.5)
        last, same = None, 0
        for frame in self._filmed(first, count) if self.header else self._drawn(first, count):
            same = same + 1 if last is not None and np.array_equal(last, frame) else 0
            if same > LONGEST_STILL * self.fps:
                raise InputError(f"{self.name} stands still for over {LONGEST_STILL / 60:g} minutes; cut that out")
            last = frame
            yield to_gray(frame) if self.gray else frame
        if last is None:
            raise InputError(f"{self.name} has no frame at {start:g} s" if first else f"{self.name} holds no picture")

    def seconds(self) -> float:
        """How long the pictures last; 0 of a single one. A video is read to its end for it, but not decoded."""
        if self.header:
            return ffmpeg.seconds(self.paths[0], self.header)
        return len(self.paths) / self.fps if len(self.paths) > 1 else self._lasts

    def _filmed(self, first: int, count: int | None) -> Iterator[NDArray[np.uint8]]:
        assert self.header is not None
        fit = framing.fit(self.header.height, self.header.width, self.size, self.crop)
        try:
            yield from ffmpeg.frames(self.paths[0], self.header, fit, self.fps, first, count, self.notes)
        except InputError as error:
            raise InputError(f"{self.name} {error}") from None

    def _drawn(self, first: int, count: int | None) -> Iterator[NDArray[np.uint8]]:
        steps = stills.shown(self.paths[0], self.name, self.notes)
        if len(self.paths) > 1:
            steps = stills.sequence(self.paths, 1 / self.fps, self.notes)
        last = None
        frame: NDArray[np.uint8] = np.zeros((0, 0, 0), np.uint8)
        size = self.size
        for image in itertools.islice(stills.sampled(steps, self.fps), first, None if count is None else first + count):
            if image is not last:
                last, frame = image, stills.fitted(image, framing.fit(image.height, image.width, size, self.crop))
                size = size or (frame.shape[0], frame.shape[1])  # the first one says, of frames of several sizes
            yield frame


def resized(clip: NDArray[np.uint8], size: Size, crop: str = "center") -> NDArray[np.uint8]:
    """A clip of (F, H, W, C) brought to another size, as a file's frames are; C is 1 or 3."""
    from PIL import Image

    fit = framing.fit(clip.shape[1], clip.shape[2], size, crop)
    colour = clip if clip.shape[3] == 3 else np.repeat(clip, 3, 3)
    return np.stack([stills.fitted(Image.fromarray(frame), fit) for frame in colour])[..., : clip.shape[3]]


def to_gray(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The luma of (..., 3), by ITU-R BT.601: (..., 1)."""
    luma = frame.astype(np.uint32) @ np.array([299, 587, 114], np.uint32)
    return ((luma + 500) // 1000).astype(np.uint8)[..., None]


def folder_frames(folder: Path) -> list[Path]:
    """The numbered frames in a folder, in order; none where it holds none."""
    names = [path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    return [folder / name for name in stills.numbered(names)]


def _named(source: Source, name: str) -> tuple[str, list[Path]]:
    """What messages call it, and its files."""
    if not isinstance(source, str | Path):
        paths = list(source)
        if not paths:
            raise InputError(f"{name or 'the sequence'} has no frames")
        return name or str(paths[0].parent), paths
    path = Path(source)
    name = name or str(source)
    if path.is_dir():
        frames = folder_frames(path)
        if not frames:
            raise InputError(f"the folder {name} holds no numbered frames ({', '.join(stills.FRAMES)})")
        return name, frames
    if not path.is_file():
        raise InputError(f"{name} is no file" if path.exists() else f"no file {name}")
    try:
        with open(path, "rb") as file:
            if not file.read(1):
                raise InputError(f"{name} is empty")
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror or error}") from None
    return name, [path]


def _first_about(paths: Sequence[Path], name: str) -> tuple[int, int, int, float]:
    for path in paths:
        try:
            return stills.about(path, path.name)
        except InputError:
            continue
    raise InputError(f"{name}: none of its {len(paths):,} frames can be read")
