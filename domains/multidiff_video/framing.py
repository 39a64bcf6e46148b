"""How a picture of one size fills a frame of another."""

from __future__ import annotations

from dataclasses import dataclass

from multidiff.errors import InputError, unknown

CROPS = ("center", "pad", "stretch")
"""The middle of the picture fills the frame; the whole picture on black; the whole picture, whatever its aspect."""
LARGEST = 8192
"""Pixels of a side that a frame may be asked to have."""

Size = int | tuple[int, int] | None
"""Of a frame: a square's side, or (height, width), in pixels; None for the picture's own."""


@dataclass(frozen=True)
class Fit:
    """A part of a picture, and where in the frame it goes; all in pixels.

    Attributes:
        height, width: of the frame.
        box: (left, top, right, bottom) of the part of the picture.
        place: (left, top, right, bottom) in the frame; what is around it is black.
    """

    height: int
    width: int
    box: tuple[float, float, float, float]
    place: tuple[int, int, int, int]


def checked_size(size: Size) -> tuple[int, int] | None:
    """(height, width).

    Raises:
        InputError: it is out of range.
    """
    if size is None:
        return None
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or not all(isinstance(side, int) and 1 <= side <= LARGEST for side in sides):
        raise InputError(f"size {size} is not allowed; give 1 to {LARGEST} pixels, or (height, width)")
    return sides[0], sides[1]


def fit(height: int, width: int, size: Size, crop: str = "center") -> Fit:
    """How a picture of (height, width) square pixels fills a frame.

    Args:
        height, width: of the picture.
        size: of the frame.
        crop: one of `CROPS`.

    Raises:
        InputError: `size` is out of range or `crop` is unknown.
    """
    if crop not in CROPS:
        raise unknown("crop", crop, CROPS)
    rows, columns = checked_size(size) or (height, width)
    box, place = (0.0, 0.0, float(width), float(height)), (0, 0, columns, rows)
    if crop == "center":
        wide, high = min(width, height * columns / rows), min(height, width * rows / columns)
        left, top = (width - wide) / 2, (height - high) / 2
        box = (left, top, left + wide, top + high)
    elif crop == "pad":
        scale = min(rows / height, columns / width)
        high, wide = (min(max(round(s * scale), 1), most) for s, most in ((height, rows), (width, columns)))
        left, top = (columns - wide) // 2, (rows - high) // 2
        place = (left, top, left + wide, top + high)
    return Fit(rows, columns, box, place)
