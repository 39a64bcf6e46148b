"""Clips as one picture: a row each, its frames from left to right."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from multidiff_video.faults import FAULTS, NOT_FINITE

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

COLUMNS, MOST = 8, 16
TALL, WIDE = 128, 228  # pixels that a frame has at most; the second for films of 16:9
MARGIN, GAP, HEAD, TIMES, FOOT = 16, 8, 42, 18, 30
NARROWEST = 480
PAGE, CARD, BORDER, INK, FAINT, WARNING = "#eef0f3", "white", "#d5d9df", "#1f2430", "#6b7280", "#b4331f"


def contact_sheet(
    clips: Sequence[np.ndarray],
    fps: float,
    prompts: Sequence[str],
    notes: Sequence[str] | None = None,
    text: Mapping[str, object] | None = None,
    total: int | None = None,
) -> bytes:
    """A PNG of the first clips, a row each: the prompt, then up to eight of its frames, evenly spaced, and their times.

    Frames of few pixels are enlarged by a whole number, without smoothing; large ones are made smaller.

    Args:
        clips: (frames, height, width, 1 or 3) uint8 each, of any sizes; one without frames has an empty row. At most
            `MOST` are shown; a line at the foot says how many there are beside.
        fps: frames a second.
        prompts: a title for each; one too long for the row is cut in the middle.
        notes: a smaller line for each; by default its frames, pixels and seconds. One that ends with a fault is red.
        text: kept in the file as PNG text, one entry a key; what is not a string as JSON.
        total: clips in all, where not all of them are given.
    """
    from PIL import Image, ImageDraw

    shown = [np.asarray(clip) for clip in clips[:MOST]]
    chosen = [_chosen(len(clip)) for clip in shown]
    rows = [[_thumbnail(clip[k]) for k in picked] for clip, picked in zip(shown, chosen, strict=True)]
    cell = [max([picture.size[side] for row in rows for picture in row] + [32]) for side in (0, 1)]
    columns = max([len(row) for row in rows] + [1])
    width = max(NARROWEST, columns * (cell[0] + GAP) - GAP + 2 * MARGIN) + 2 * MARGIN
    step = HEAD + cell[1] + TIMES + 2 * GAP
    left_out = (len(clips) if total is None else total) - len(shown)
    page = Image.new("RGB", (width, max(1, len(rows)) * (step + GAP) + 2 * MARGIN - GAP + FOOT * (left_out > 0)), PAGE)
    pen = ImageDraw.Draw(page)
    for k, (clip, row, picked, prompt) in enumerate(zip(shown, rows, chosen, prompts, strict=False)):
        top = MARGIN + k * (step + GAP)
        pen.rounded_rectangle((MARGIN, top, width - MARGIN, top + step), 10, fill=CARD, outline=BORDER)
        _draw_titles(pen, top, width, prompt, described(clip, fps) if notes is None else notes[k])
        _draw_frames(page, pen, top + HEAD, row, picked, cell, fps)
    if not shown:
        pen.text((width // 2, page.height // 2), "no clip", fill=FAINT, font=_font(18), anchor="mm")
    if left_out > 0:
        pen.text((width // 2, page.height - FOOT // 2 - GAP // 2), f"the first {len(shown)} clips; there are "
                 f"{left_out} more", fill=FAINT, font=_font(14), anchor="mm")  # fmt: skip
    return _packed(page, text or {})


def described(clip: np.ndarray, fps: float) -> str:
    """ "16 frames, 64x64, 2 s" (width and height), as far as there is something to tell."""
    if not len(clip):
        return ""
    size = f"{clip.shape[2]}x{clip.shape[1]}"
    return f"a picture, {size}" if len(clip) == 1 else f"{len(clip)} frames, {size}, {len(clip) / fps:.3g} s"


def _chosen(frames: int) -> list[int]:
    """At most `COLUMNS` numbers of frames, the first and the last among them."""
    return np.unique(np.linspace(0, frames - 1, min(COLUMNS, frames)).round().astype(int)).tolist() if frames else []


def _thumbnail(frame: np.ndarray) -> Image:
    from PIL import Image

    picture = Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame).convert("RGB")
    share = min(TALL / picture.height, WIDE / picture.width)
    if share >= 1:
        return picture.resize((picture.width * int(share), picture.height * int(share)), Image.Resampling.NEAREST)
    size = (max(1, round(picture.width * share)), max(1, round(picture.height * share)))
    return picture.resize(size, Image.Resampling.BOX)


def _draw_titles(pen: ImageDraw, top: int, width: int, prompt: str, note: str) -> None:
    room = width - 4 * MARGIN
    shown = _fitting(pen, note, 13, room // 2)
    used = pen.textlength(shown, _font(13)) + MARGIN
    pen.text((2 * MARGIN, top + HEAD // 2 + 1), _fitting(pen, prompt or "(no prompt)", 16, room - used), fill=INK,
             font=_font(16), anchor="lm")  # fmt: skip
    colour = WARNING if note.rpartition(", ")[2] in (*FAULTS, NOT_FINITE) else FAINT
    pen.text((width - 2 * MARGIN, top + HEAD // 2 + 2), shown, fill=colour, font=_font(13), anchor="rm")


def _draw_frames(
    page: Image, pen: ImageDraw, top: int, row: Sequence[Image], picked: Sequence[int], cell: Sequence[int], fps: float
) -> None:
    for k, (picture, frame) in enumerate(zip(row, picked, strict=True)):
        left = 2 * MARGIN + k * (cell[0] + GAP)
        page.paste(picture, (left + (cell[0] - picture.width) // 2, top + (cell[1] - picture.height) // 2))
        if len(row) > 1:
            label = f"{frame / fps:.2f}" + (" s" if k == 0 else "")
            pen.text((left + cell[0] // 2, top + cell[1] + GAP // 2), label, fill=FAINT, font=_font(12), anchor="mt")


def _fitting(pen: ImageDraw, line: str, size: int, room: float) -> str:
    """The text on one line, cut in the middle where it is too long."""
    shown = "".join(c if c.isprintable() else " " for c in line[:400])
    line, kept = shown, len(shown)
    while kept and pen.textlength(shown, _font(size)) > room:
        kept -= 1
        shown = f"{line[: kept - kept // 2]}...{line[len(line) - kept // 2 :]}"
    return shown


def _packed(page: Image, text: Mapping[str, object]) -> bytes:
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    for key, value in text.items():
        info.add_itxt(key, value if isinstance(value, str) else json.dumps(value, default=str))
    packed = io.BytesIO()
    page.save(packed, "PNG", pnginfo=info, compress_level=4)
    return packed.getvalue()


@cache
def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)
