"""One clip as a file, with what made it inside: MP4, GIF, WebP or PNG frames."""

from __future__ import annotations

import io
import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from multidiff import provenance
from multidiff.errors import InputError, unknown
from multidiff.files import atomic_folder, atomic_path
from multidiff_video import mp4

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("mp4", "gif", "webp", "png")
VIEWED = 256
"""Pixels that the shorter side of a file to look at has at least; smaller ones are blurred by players."""
LARGEST = 16_383
"""Pixels a side: the most that WebP holds."""
GIF_FASTEST = 50.0
"""Frames a second; browsers take the shorter delays that GIF can hold for a tenth of a second."""

_LONGEST = 16_000  # characters of a comment, which travels on a command line
_USER_COMMENT, _EXIF, _TITLE, _SOFTWARE = 0x9286, 0x8769, 0x010E, 0x0131  # of EXIF 2.3
_ASCII = b"ASCII\0\0\0"


@dataclass(frozen=True)
class FileOptions:
    """How clips are written.

    Attributes:
        format: one of `FORMATS`; None is MP4, and PNG for a clip of one frame.
        scale: times that files are larger than the clip, without smoothing; None is as many as it takes for a shorter
            side of `VIEWED` pixels, and 1 for PNG.
    """

    format: str | None = None
    scale: int | None = None

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in FORMATS:
            raise unknown("format", self.format, FORMATS)
        whole = isinstance(self.scale, int | np.integer) and not isinstance(self.scale, bool)
        if self.scale is not None and not (whole and 1 <= self.scale <= 256):
            raise InputError(f"scale {self.scale!r} is not allowed: a whole number from 1 to 256")

    @classmethod
    def read(cls, recipe: Mapping[str, Any]) -> Self:
        """The options in a recipe; those that are not there have their defaults.

        Raises:
            InputError: one is not allowed.
        """
        return cls(**{name: recipe[name] for name in cls.__dataclass_fields__ if name in recipe})

    def of(self, frames: int) -> str:
        """The format of a clip of so many frames."""
        return self.format or ("png" if frames == 1 else "mp4")


def tags(recipe: Mapping[str, Any], prompt: str, sample: int) -> dict[str, str]:
    """What is kept in a sample's file; see `multidiff.provenance.tags`."""
    return provenance.tags(recipe, prompt, sample, _LONGEST)


def write(
    path: str | Path,
    clip: np.ndarray,
    fps: float,
    recipe: Mapping[str, Any],
    format: str | None = None,
    scale: int | None = None,
    *,
    replace: bool = False,
) -> None:
    """Write a clip; the file (a folder for PNG of several frames) appears whole or not at all.

    Args:
        path: where; MP4 where it has no suffix that says otherwise.
        clip: (frames, height, width, channels) uint8, of 1 channel (gray) or 3 (RGB).
        fps: frames a second.
        recipe: what made it, plain values; "prompt" becomes the title.
        format: "mp4", "gif", "webp" or "png"; by default as the path's suffix says.
        scale: see `FileOptions`.
        replace: whether a file that is there may be replaced.

    Raises:
        InputError: an argument is not allowed, the file is there, or it cannot be written.
        ValueError: `clip` is not of that shape or type.
    """
    path, suffix = Path(path), Path(path).suffix[1:].lower()
    options = FileOptions(format or (suffix if suffix in FORMATS else "mp4"), scale)
    if not replace and os.path.lexists(path):
        raise InputError(f"{path} is there; give another name, or move it away")
    about = tags(recipe, str(recipe.get("prompt", "")), recipe.get("sample", 0))
    write_tagged(path, clip, fps, about, options)


def write_tagged(path: Path, clip: np.ndarray, fps: float, about: Mapping[str, str], options: FileOptions) -> None:
    """As `write`, of what `tags` gives, over what is there."""
    check_clip(clip)
    kind, larger = options.of(len(clip)), enlargement(clip, options)
    check_rate(fps, kind)
    if kind == "png" and len(clip) > 1:
        names = [f"frame-{k:05d}.png" for k in range(len(clip))]
        with atomic_folder(path, names) as folder:
            for name, frame in zip(names, clip, strict=True):
                (folder / name).write_bytes(_png(frame, larger, about))
        return
    with atomic_path(path) as temporary:
        if kind == "mp4":
            mp4.write_mp4(temporary, even(enlarged(clip, larger)), fps, about)
        else:
            temporary.write_bytes(_png(clip[0], larger, about) if kind == "png" else
                                  {"gif": _gif, "webp": _webp}[kind](clip, larger, fps, about))  # fmt: skip


def encode(clip: np.ndarray, fps: float, format: str | None = None, scale: int | None = None) -> bytes:
    """A clip as the bytes of a file; of PNG the first frame alone."""
    clip = clip[:1] if format == "png" else clip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip"
        write_tagged(path, clip, fps, tags({}, "", 0), FileOptions(format, scale))
        return path.read_bytes()


def check_clip(clip: np.ndarray) -> None:
    """Raise ValueError for what is not (frames, height, width, 1 or 3) uint8."""
    if clip.dtype != np.uint8 or clip.ndim != 4 or clip.shape[-1] not in (1, 3) or 0 in clip.shape:
        raise ValueError(f"a clip is (frames, height, width, 1 or 3) uint8, not {clip.shape} {clip.dtype}")


def check_rate(fps: float, kind: str) -> None:
    """Raise InputError for frames a second that a format cannot have."""
    if not (math.isfinite(fps) and 0.01 <= fps <= 1000):
        raise InputError(f"fps {fps!r} is not allowed: frames a second, from 0.01 to 1000")
    if kind == "gif" and fps > GIF_FASTEST:
        raise InputError(f"fps {fps:g} is more than the {GIF_FASTEST:g} a GIF can show; ask for less, or for mp4")


def enlargement(clip: np.ndarray, options: FileOptions) -> int:
    """Times that a file of a clip is larger than it.

    Raises:
        InputError: the file would be too large.
    """
    height, width = clip.shape[1:3]
    fitting = 1 if options.of(len(clip)) == "png" else max(1, -(-VIEWED // min(height, width)))
    scale = int(options.scale or min(fitting, max(1, LARGEST // max(height, width))))
    if scale * max(height, width) > LARGEST:
        raise InputError(f"{width}x{height} pixels {scale} times larger are more than {LARGEST} a side; ask for less")
    return scale


def enlarged(clip: np.ndarray, scale: int) -> np.ndarray:
    """(..., H, W, C) with each pixel a square of so many a side."""
    return clip.repeat(scale, -3).repeat(scale, -2) if scale > 1 else clip


def even(clip: np.ndarray) -> np.ndarray:
    """With the last row and column twice where it takes that to make the sides even, as yuv420p needs."""
    odd = [(0, 0), (0, clip.shape[1] % 2), (0, clip.shape[2] % 2), (0, 0)]
    return np.pad(clip, odd, "edge") if clip.shape[1] % 2 or clip.shape[2] % 2 else clip


# --------------------------------------------------------------------------------------------- GIF, WebP and PNG


def _image(frame: np.ndarray) -> Image:
    from PIL import Image

    return Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame)


def _durations(frames: int, fps: float, unit: float) -> list[int]:
    """Milliseconds that each frame is shown, whole units of so many, so that none ends far from when it should."""
    ends = np.rint(np.arange(frames + 1) * 1000 / fps / unit) * unit
    return np.maximum(np.diff(ends), unit).astype(int).tolist()


def _gif(clip: np.ndarray, scale: int, fps: float, about: Mapping[str, str]) -> bytes:
    from multidiff_video.palette import indexed

    frames = indexed(clip, scale)
    packed = io.BytesIO()
    frames[0].save(
        packed, "GIF", save_all=True, append_images=frames[1:], duration=_durations(len(clip), fps, 10), loop=0,
        optimize=False, comment=about["comment"].encode(),
    )  # fmt: skip
    return packed.getvalue()


def _webp(clip: np.ndarray, scale: int, fps: float, about: Mapping[str, str]) -> bytes:
    """Lossless. (Smaller files take MP4; of 16 frames at 128x128 those of a lossy WebP were a third, at 90 %.)"""
    from PIL import Image

    frames = [_image(enlarged(frame, scale)) for frame in clip]
    exif = Image.Exif()
    exif[_TITLE], exif[_SOFTWARE] = about["title"].encode(), about["software"]
    exif.get_ifd(_EXIF)[_USER_COMMENT] = _ASCII + about["comment"].encode()
    packed = io.BytesIO()
    frames[0].save(
        packed, "WEBP", save_all=True, append_images=frames[1:], duration=_durations(len(clip), fps, 1), loop=0,
        lossless=True, method=1, exif=exif,
    )  # fmt: skip
    return packed.getvalue()


def _png(frame: np.ndarray, scale: int, about: Mapping[str, str]) -> bytes:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for name, text in about.items():
        info.add_itxt(name.capitalize(), text)  # Title, Comment and Software are keywords of the specification
    packed = io.BytesIO()
    _image(enlarged(frame, scale)).save(packed, "PNG", pnginfo=info, compress_level=6)
    return packed.getvalue()


# ----------------------------------------------------------------------------------------------- what is in a file


def read_recipe(path: str | Path) -> dict[str, Any]:
    """What made a file that `write` wrote: MP4, GIF, WebP, PNG, or a folder of PNG frames.

    Raises:
        InputError: the file is not there, is damaged, or does not say.
    """
    recipe = recipe_in(Path(path))
    if recipe is None:
        raise InputError(f"{path} does not say how it was made; give a file that 'multidiff generate video' wrote")
    return recipe


def recipe_in(path: Path) -> dict[str, Any] | None:
    """As `read_recipe`; None for any other file."""
    if path.is_dir():
        path = min(path.glob("*.png"), default=path)
    try:
        with open(path, "rb") as file:
            start = file.read(12)
        text = mp4.read_comment(path) if start[4:8] == b"ftyp" else _picture_comment(path)
        held = json.loads(text) if text else None
    except (OSError, ValueError, KeyError, TypeError, SyntaxError):
        return None
    return held if isinstance(held, dict) else None


def _picture_comment(path: Path) -> str | None:
    from PIL import Image

    with Image.open(path) as picture:
        if picture.format == "GIF":
            comment = picture.info["comment"]
            return str(comment.decode())
        if picture.format == "WEBP":
            held = picture.getexif().get_ifd(_EXIF)[_USER_COMMENT]
            return str(held.removeprefix(_ASCII).decode())
        return str(picture.info.get("Comment") or picture.info["recipe"])
