"""Pictures through Pillow: single ones, animated ones (GIF, WebP, APNG), and numbered ones that make up a video."""

from __future__ import annotations

import itertools
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from multidiff.errors import InputError
from multidiff_video.ffmpeg import CUT_SHORT, DAMAGED
from multidiff_video.framing import Fit

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".apng", ".bmp", ".tif", ".tiff", ".avif", ".ppm", ".pgm")
"""Endings of the files that are taken for pictures; of these `ANIMATED` may move."""
ANIMATED = (".gif", ".webp", ".apng", ".avif")
FRAMES = (".png", ".jpg", ".jpeg")
"""Endings of the numbered pictures that make up a video."""
PAUSE = 0.1
"""Seconds that a picture of an animation is shown if it says nothing, or 10 ms and less, as browsers do it."""

_MAGIC = (b"GIF8", b"\x89PNG", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*", b"P5", b"P6")


def is_picture(path: Path) -> bool:
    """By its first bytes, whatever its name."""
    with open(path, "rb") as file:
        start = file.read(16)
    return start.startswith(_MAGIC) or start[8:12] in (b"WEBP",) or start[4:12] in (b"ftypavif", b"ftypavis")


def number(name: str) -> tuple[str, int] | None:
    """What comes before the number at the end of a picture's name, and the number; None where there is none."""
    found = re.fullmatch(r"(.*?)(\d{1,18})", name.rpartition(".")[0])
    return (found[1], int(found[2])) if found else None


def numbered(names: Iterable[str]) -> list[str]:
    """The names of the frames of a video, in order; none where they are not numbered alike, or are fewer than two."""
    known = [(number(name), name) for name in names if name.lower().endswith(FRAMES)]
    starts = {found[0] if found else None for found, _ in known}
    if len(known) < 2 or len(starts) != 1 or None in starts:
        return []
    return [name for _, name in sorted((found[1], name) for found, name in known if found)]


def gaps(names: Sequence[str]) -> bool:
    """Whether numbers are missing among those of frames in order."""
    numbers = [found[1] for name in names if (found := number(name))]
    return any(b - a != 1 for a, b in itertools.pairwise(numbers))


def about(path: Path, name: str) -> tuple[int, int, int, float]:
    """Height and width as shown, number of pictures, and seconds that all of them last; 0 for a single one.

    Raises:
        InputError: it cannot be read.
    """
    first, count, seconds = (0, 0), 0, 0.0
    for image, pause in shown(path, name, {}):
        first, count, seconds = first if count else (image.height, image.width), count + 1, seconds + pause
    return *first, count, seconds


def shown(path: Path, name: str, notes: dict[str, None]) -> Iterator[tuple[Image, float]]:
    """Every picture of a file, as RGB, and the seconds that it is shown, 0 for a single one.

    What is transparent is white; a picture that its camera turned is turned back. Where an animation is damaged it
    ends, and that is added to `notes`.

    Raises:
        InputError: there is none that can be read.
    """
    with _opened(path, name) as image:
        moves = getattr(image, "n_frames", 1) > 1 and image.format in ("GIF", "WEBP", "PNG", "AVIF")
        for index in itertools.count():
            try:
                image.seek(index)
                image.load()
                picture = flattened(image)
            except EOFError:
                return
            except (OSError, SyntaxError, ValueError, IndexError, TypeError, MemoryError) as error:
                if not index:
                    raise InputError(f"{name} is a damaged picture ({_told(error)})") from None
                notes[CUT_SHORT] = None
                return
            pause = image.info.get("duration", 0) / 1000
            yield picture, (pause if pause > 0.01 else PAUSE) if moves else 0.0
            if not moves:
                return


def sequence(paths: Sequence[Path], pause: float, notes: dict[str, None]) -> Iterator[tuple[Image, float]]:
    """The frames of a video that are files of their own, each shown for `pause` seconds; damaged ones are left out."""
    for path in paths:
        try:
            yield next(shown(path, path.name, {}))[0], pause
        except InputError:
            notes[DAMAGED] = None


def flattened(image: Image) -> Image:
    """As RGB of 8 bits, on white, upright; a new picture."""
    from PIL import Image as pillow
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(image)
    assert upright is not None
    if upright.mode[0] in "IF":  # 16 or 32 bits, which a conversion would clip
        return pillow.fromarray(_eight_bits(np.asarray(upright))).convert("RGB")
    if not (upright.has_transparency_data or upright.mode in ("RGBA", "LA", "PA", "La", "RGBa")):
        return upright.convert("RGB") if upright.mode != "RGB" else upright.copy()
    clear = upright.convert("RGBA")
    white = pillow.new("RGBA", clear.size, "white")
    white.alpha_composite(clear)
    return white.convert("RGB")


def sampled(steps: Iterable[tuple[Image, float]], fps: float) -> Iterator[Image]:
    """Pictures at a rate: frame k is the last picture that begins, to the nearest frame, no later than it."""
    seconds, tick, held = 0.0, 0, None
    for image, pause in steps:
        while held is not None and tick < math.floor(seconds * fps + 0.5):
            yield held
            tick += 1
        held, seconds = image, seconds + pause
    while held is not None and tick < max(1, math.floor(seconds * fps + 0.5)):
        yield held
        tick += 1


def fitted(image: Image, fit: Fit) -> NDArray[np.uint8]:
    """The picture in its frame, (H, W, 3)."""
    from PIL import Image as pillow

    left, top, right, bottom = fit.place
    part = image
    if (right - left, bottom - top) != image.size or fit.box != (0.0, 0.0, *map(float, image.size)):
        part = image.resize((right - left, bottom - top), pillow.Resampling.BICUBIC, box=fit.box)
    if part.size == (fit.width, fit.height):
        return np.asarray(part)
    frame = np.zeros((fit.height, fit.width, 3), np.uint8)
    frame[top:bottom, left:right] = np.asarray(part)
    return frame


def _opened(path: Path, name: str) -> Any:
    from PIL import Image as pillow

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large pictures, and of odd metadata
            return pillow.open(path)
    except pillow.DecompressionBombError:
        raise InputError(f"{name} says it is larger than any picture (over 178 million pixels)") from None
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{name} is a damaged picture ({_told(error)})") from None


def _eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Of 16 or 32 bits, or of numbers from 0 to 1 or to 255."""
    scaled = np.nan_to_num(values.astype(np.float64))
    if values.dtype.kind == "f":
        scaled *= 255 if scaled.max(initial=0) <= 1 else 1
    elif values.dtype.itemsize == 2 or scaled.max(initial=0) > 255:
        scaled /= 257
    return np.clip(np.round(scaled), 0, 255).astype(np.uint8)


def _told(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r" '?/\S+'?", "", text)[:120]
