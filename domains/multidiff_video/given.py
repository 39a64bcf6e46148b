"""Frames that a clip is made around: its first picture, the end of another clip, pictures at chosen places."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from multidiff.errors import InputError

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
        keyframes: pictures and their places.
        context: see above.
        shape: height, width and channels of the frames that are made.
        fps: frames a second, to which a clip is brought.

    Raises:
        InputError: a file cannot be read, an array has another form, or two frames are at one place.
    """
    if init is None and not keyframes:
        return None
    frames: dict[int, np.ndarray] = {}
    told: dict[str, Any] = {}
    warnings: list[str] = []
    if init is not None:
        clip = _read("init", init, shape, fps, warnings)[-context:]
        frames = dict(enumerate(clip))
        told |= {"init": _name(init), "init_sha256": _digest(clip)}
    continued = len(frames)
    listed = []
    for source, place in keyframes:
        if isinstance(place, bool) or not isinstance(place, int | np.integer):
            raise InputError(f"keyframes: the place {place!r} is no whole number")
        if int(place) in frames:
            raise InputError(f"keyframes: frame {place} is given twice; give it once")
        frames[int(place)] = _read("keyframes", source, shape, fps, warnings)[0]
        listed.append([_name(source), int(place), _digest(frames[int(place)])])
    if listed:
        told["keyframes"] = listed
    return Given(frames, continued, told, list(dict.fromkeys(warnings)))


def _read(name: str, source: Source, shape: tuple[int, int, int], fps: float, warnings: list[str]) -> np.ndarray:
    """(frames, H, W, C) uint8 of the shape that is wanted; what was changed is added to the warnings."""
    from multidiff_video import movie

    if isinstance(source, np.ndarray):
        clip = _array(name, source)
    else:
        clip, _ = movie.read(source, fps=fps)
        name = Path(source).name
    if clip.shape[1:3] != shape[:2]:
        warnings.append(
            f"{name} has {clip.shape[1]} x {clip.shape[2]} pixels; it was brought to {shape[0]} x {shape[1]}"
        )
        clip = movie.resized(clip, shape[:2])
    if clip.shape[3] == shape[2]:
        return clip
    if shape[2] == 3:
        return np.repeat(clip, 3, 3)
    if (clip != clip[..., :1]).any():
        warnings.append(f"{name} is in colour; it was made gray")
    luma = clip.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    gray: np.ndarray = luma.round().astype(np.uint8)[..., None]
    return gray


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
