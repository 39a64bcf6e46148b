"""Frames that a clip is made around: its first picture, the end of another clip, pictures at chosen places."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from multidiff.errors import InputError
from multidiff_video import framing, movie, stills

Source = str | Path | np.ndarray
"""A file, or an array (H, W), (H, W, C) or (frames, H, W, C) uint8."""


@dataclass(frozen=True, eq=False)
class Given:
    """What is known of a clip before it is made.

    Attributes:
        frames: place -> (H, W, C) uint8; places below 0 count from the end.
        continued: how many of them are the end of a clip that goes on.
        told: plain values, for the files.
        warnings: what was done to make the frames fit.
    """

    frames: Mapping[int, np.ndarray]
    continued: int
    told: Mapping[str, Any]
    warnings: Sequence[str]

    def places(self, total: int) -> dict[int, np.ndarray]:
        """The frames of a clip of `total` frames by their place in it.

        Raises:
            InputError: a place lies outside of it, or two frames are at the same.
        """
        found: dict[int, np.ndarray] = {}
        for place, frame in self.frames.items():
            if not -total <= place < total:
                raise InputError(
                    f"a frame is given at {place}, and the clip has {total}: 0 to {total - 1}; give more frames"
                )
            if place % total in found:
                raise InputError(f"two frames are given at {place % total}; give one")
            found[place % total] = frame
        return found


class _Wanted(NamedTuple):
    """Height, width and channels of the frames that are made, and how many a second."""

    shape: tuple[int, int, int]
    fps: float


def gather(
    init: Source | None,
    keyframes: Sequence[tuple[Source, int]],
    context: int,
    shape: tuple[int, int, int],
    fps: float,
) -> Given | None:
    """Read what is given; None where nothing is.

    Args:
        init: a picture, the first frame; or a clip, of which the last `context` frames are gone on from.
        keyframes: pictures and their places, negative ones from the end.
        context: see above.
        shape: height, width and channels of the frames that are made.
        fps: frames a second, to which a clip is brought.

    Raises:
        InputError: a file cannot be read, an array has another form, a keyframe is no picture with a place, or two
            frames are at one place.
    """
    if init is None and not keyframes:
        return None
    wanted = _Wanted(shape, fps)
    frames: dict[int, np.ndarray] = {}
    told: dict[str, Any] = {}
    warnings: list[str] = []
    if init is not None:
        clip = _read("init", init, wanted, context, warnings)
        frames = dict(enumerate(clip))
        told |= {"init": _name(init), "init_sha256": _digest(clip)}
    continued = len(frames)
    listed = []
    for source, place in map(_pair, keyframes):
        if place in frames:
            raise InputError(f"keyframes: frame {place} is given twice; give it once")
        picture = _read("keyframes", source, wanted, 2, warnings)
        if len(picture) > 1:
            raise InputError(f"keyframes: frame {place} is to be a picture, and what is given has several; give one")
        frames[place] = picture[0]
        listed.append([_name(source), place, _digest(picture)])
    if listed:
        told["keyframes"] = listed
    return Given(frames, continued, told, list(dict.fromkeys(warnings)))


def _pair(keyframe: Any) -> tuple[Source, int]:
    try:
        source, place = keyframe
    except (TypeError, ValueError):
        raise InputError(f"keyframes: give pairs of a picture and its place, not {str(keyframe)[:40]!r}") from None
    if isinstance(place, bool) or not isinstance(place, int | np.integer):
        raise InputError(f"keyframes: the place {place!r} is no whole number")
    return source, int(place)


def _read(name: str, source: Source, wanted: _Wanted, count: int, warnings: list[str]) -> np.ndarray:
    """The last `count` frames (frames, H, W, C) uint8, or fewer; what was changed is added to the warnings."""
    shape = wanted.shape
    if isinstance(source, np.ndarray):
        clip = _array(name, source)[-count:]
        own: tuple[int, ...] = clip.shape[1:3]
        clip = clip if own == shape[:2] else _fitted(clip, shape[:2])
    else:
        name = Path(source).name
        clip, own = _read_file(source, wanted, count, warnings)
    if own != shape[:2]:
        warnings.append(f"{name} has {own[0]} x {own[1]} pixels; its middle was brought to {shape[0]} x {shape[1]}")
    if clip.shape[3] == shape[2]:
        return np.array(clip)
    if shape[2] == 3:
        return np.repeat(clip, 3, 3)
    if (clip != clip[..., :1]).any():
        warnings.append(f"{name} is in colour; it was made gray")
        return movie.to_gray(clip)
    return np.array(clip[..., :1])


def _read_file(
    source: str | Path, wanted: _Wanted, count: int, warnings: list[str]
) -> tuple[np.ndarray, tuple[int, int]]:
    """The last frames at the size and rate that are wanted, one after another, and the size that the file has."""
    stream = movie.Stream(source, fps=wanted.fps, size=wanted.shape[:2])
    clip = np.stack(deque(stream.frames(), maxlen=count))
    about = stream.header or movie.probe(source)
    name = Path(source).name
    if about.fps and abs(about.fps / wanted.fps - 1) > 0.01 and not Path(source).is_dir():
        warnings.append(f"{name} has {about.fps:.4g} frames a second; it was brought to {wanted.fps:.4g}")
    warnings += [f"{name}: {note}" for note in stream.notes]
    return clip, (about.height, about.width)


def _fitted(clip: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The middle of each frame, smoothly, at another size."""
    from PIL import Image

    fit = framing.fit(clip.shape[1], clip.shape[2], size)
    colours = np.repeat(clip, 3 // clip.shape[3], 3)
    return np.stack([stills.fitted(Image.fromarray(frame), fit) for frame in colours])[..., : clip.shape[3]]


def _array(name: str, source: np.ndarray) -> np.ndarray:
    """(frames, H, W, C) with 1 or 3 channels."""
    clip = source[..., None] if source.ndim == 2 else source
    clip = clip[None] if clip.ndim == 3 else clip
    if clip.ndim != 4 or clip.shape[-1] not in (1, 3) or 0 in clip.shape or clip.dtype != np.uint8:
        raise InputError(
            f"{name}: give uint8 pixels (H, W), (H, W, C) or (frames, H, W, C) with 1 or 3 channels, not "
            f"{source.dtype} {source.shape}"
        )
    return clip


def _name(source: Source) -> str:
    return "array" if isinstance(source, np.ndarray) else str(source)


def _digest(clip: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(clip).tobytes()).hexdigest()[:16]
