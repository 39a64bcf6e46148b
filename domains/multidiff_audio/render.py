"""Pictures of sounds."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from multidiff_audio.level import Sound

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

COLUMNS, MOST = 4, 16
WIDTH, WAVE, HEIGHT = 320, 44, 168  # pixels of one plot, its waveform and its spectrogram
LEFT, RIGHT, TOP, AXIS, TEXT = 38, 14, 12, 24, 52
CARD = (LEFT + WIDTH + RIGHT, TOP + WAVE + 6 + HEIGHT + AXIS + TEXT)
GAP = 14
RANGE = 75.0  # dB from the brightest to the darkest colour
PAGE, BORDER, INK, FAINT, WAVEFORM, PLOT = "#eef0f3", "#d5d9df", "#1f2430", "#6b7280", "#5b3fa0", "#0d0b1e"

# From dark to light in nearly even steps of lightness (L* of about 4, 17, 30, 43, 57, 72, 86, 97), so that a step in
# level looks the same everywhere.
_ANCHORS = ("#0d0b1e", "#2b1a55", "#5b1f7c", "#93297a", "#cf4063", "#f37651", "#fbb75c", "#fdf5c4")


def spectrograms_png(
    sounds: Sequence[Sound],
    rate: int,
    titles: Sequence[str | tuple[str, str]],
    text: Mapping[str, object] | None = None,
) -> bytes:
    """A PNG of the first sounds, four in a row: waveform, mel spectrogram, caption.

    All have the same time axis, so that a shorter one's plot ends early, and the same scale of amplitude: the largest
    fills the height. The colours span 75 dB below the loudest band of all.

    Args:
        sounds: (channels, samples) each; at most `MOST` are shown, the channels' powers added.
        rate: samples a second.
        titles: a caption for each, or two lines; one too long for its plot is cut in the middle.
        text: kept in the file as PNG text, one entry a key; what is not a string as JSON.
    """
    from PIL import Image, ImageDraw
    from PIL.PngImagePlugin import PngInfo

    shown = [_finite(sound) for sound in sounds[:MOST]]
    powers = [_mel_power(sound, rate) for sound in shown]
    seconds = max([sound.shape[1] / rate for sound in shown] + [1e-3])
    peak = max([float(np.abs(sound).max(initial=0.0)) for sound in shown] + [1e-3])
    top = max([float(power.max(initial=0.0)) for power in powers] + [1e-8])
    columns, rows = min(COLUMNS, max(1, len(shown))), max(1, -(-len(shown) // COLUMNS))
    page = Image.new("RGB", (columns * (CARD[0] + GAP) + GAP, rows * (CARD[1] + GAP) + GAP), PAGE)
    pen = ImageDraw.Draw(page)
    for k, (sound, power, title) in enumerate(zip(shown, powers, titles, strict=False)):
        corner = (GAP + k % columns * (CARD[0] + GAP), GAP + k // columns * (CARD[1] + GAP))
        _draw_card(page, pen, corner, sound / peak, _coloured(power, top), rate, seconds)
        _draw_text(pen, corner, (title, "") if isinstance(title, str) else title)
    if not shown:
        pen.text((page.width // 2, page.height // 2), "no sound", fill=FAINT, font=_font(18), anchor="mm")
    info = PngInfo()
    for key, value in (text or {}).items():
        info.add_itxt(key, value if isinstance(value, str) else json.dumps(value, default=str))
    packed = io.BytesIO()
    page.save(packed, "PNG", pnginfo=info, compress_level=1)  # a fifth larger, in a third of the time
    return packed.getvalue()


# ------------------------------------------------------------------------------------------------- the spectrogram


def _finite(sound: Sound) -> Sound:
    return sound if np.isfinite(sound).all() else sound[:, :0]


def _mel_power(sound: Sound, rate: int) -> NDArray[np.float64]:
    """(HEIGHT, frames) the power in bands of equal width in mel; a frame of about 32 ms starts every 4 ms."""
    size = 2 ** round(math.log2(max(64, 0.032 * rate)))
    hop = max(1, size // 8)
    padded = np.pad(sound, ((0, 0), (size // 2, size // 2)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size, axis=1)[:, ::hop]
    bands, window = _mel_bands(rate, size) / size**2, np.hanning(size)
    parts = []
    for k in range(0, frames.shape[1], 1000):  # a long sound's frames would not fit into memory
        spectrum = np.fft.rfft(frames[:, k : k + 1000] * window)
        parts.append(bands @ (np.abs(spectrum) ** 2).sum(0).T)
    return np.concatenate(parts, 1)


def _mel_bands(rate: int, size: int) -> NDArray[np.float64]:
    """(HEIGHT, size / 2 + 1) triangles that sum to 1 each; one narrower than a bin takes from the two bins it is at."""
    edges = mel_to_hertz(np.linspace(0, hertz_to_mel(rate / 2), HEIGHT + 2))
    bins = np.arange(size // 2 + 1) * rate / size
    half = np.maximum(np.diff(edges), rate / size)
    centre = edges[1:-1, None]
    bands = np.minimum((bins - centre) / half[:-1, None], (centre - bins) / half[1:, None]) + 1
    bands = np.maximum(bands, 0)
    return bands / bands.sum(1, keepdims=True)


def hertz_to_mel(frequency: Any) -> Any:
    """O'Shaughnessy's scale, as in HTK."""
    return 2595 * np.log10(1 + np.asarray(frequency) / 700)


def mel_to_hertz(mel: Any) -> Any:
    """The inverse."""
    return 700 * (10 ** (np.asarray(mel) / 2595) - 1)


def _coloured(power: NDArray[np.float64], top: float) -> NDArray[np.uint8]:
    """(bands, frames) -> (bands, frames, 3), the highest band first."""
    level = 1 + 10 * np.log10(np.maximum(power / top, 1e-12)) / RANGE
    return colours()[np.rint(255 * level.clip(0, 1)).astype(np.int64)][::-1]


def colours() -> NDArray[np.uint8]:
    """(256, 3) RGB from dark to light."""
    anchors = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in _ANCHORS], np.float64)
    at = np.linspace(0, len(anchors) - 1, 256)
    return np.stack([np.interp(at, np.arange(len(anchors)), a) for a in anchors.T], 1).round().astype(np.uint8)


# ------------------------------------------------------------------------------------------------------ the drawing


def _draw_card(
    page: Image,
    pen: ImageDraw,
    corner: tuple[int, int],
    sound: Sound,
    picture: NDArray[np.uint8],
    rate: int,
    seconds: float,
) -> None:
    from PIL import Image

    x, y = corner
    pen.rounded_rectangle((x, y, x + CARD[0], y + CARD[1]), 10, fill="white", outline=BORDER)
    left, wave, top = x + LEFT, y + TOP, y + TOP + WAVE + 6
    width = round(WIDTH * sound.shape[1] / rate / seconds)
    pen.rectangle((left, top, left + WIDTH - 1, top + HEIGHT - 1), fill="#f4f5f7")
    if width:
        shown = Image.fromarray(picture).resize((width, HEIGHT), Image.Resampling.BICUBIC)
        page.paste(shown, (left, top))
        _draw_wave(pen, sound, left, wave, width)
    _draw_axes(pen, left, top, rate, seconds)


def _draw_wave(pen: ImageDraw, sound: Sound, left: int, top: int, width: int) -> None:
    """From the lowest to the highest value that falls on each pixel, over all channels; the height is 1."""
    middle = top + WAVE / 2
    edges = np.linspace(0, sound.shape[1], width + 1).astype(int)
    lows = middle - np.maximum.reduceat(sound.max(0), edges[:-1]).clip(-1, 1) * WAVE / 2
    highs = middle - np.minimum.reduceat(sound.min(0), edges[:-1]).clip(-1, 1) * WAVE / 2
    for k, (low, high) in enumerate(zip(lows.tolist(), highs.tolist(), strict=True)):
        pen.line((left + k, low, left + k, max(high, low + 1)), fill=WAVEFORM)


def _draw_axes(pen: ImageDraw, left: int, top: int, rate: int, seconds: float) -> None:
    bottom = top + HEIGHT
    times = ticks(seconds)
    for time in times:
        x = left + min(WIDTH - 1, round(WIDTH * time / seconds))
        pen.line((x, bottom, x, bottom + 3), fill=FAINT)
        pen.text(
            (x, bottom + 6),
            f"{time:g} s" if time == times[-1] else f"{time:g}",
            fill=FAINT,
            font=_font(11),
            anchor="mt",
        )
    for hertz in (0, 500, 1000, 2000, 4000, 8000, 16000):
        share = float(hertz_to_mel(hertz) / hertz_to_mel(rate / 2))
        if share <= 1:
            y = bottom - 1 - round(share * (HEIGHT - 1))
            pen.line((left - 3, y, left, y), fill=FAINT)
            name = f"{hertz // 1000}k" if hertz >= 1000 else f"{hertz}"
            pen.text((left - 6, y), name, fill=FAINT, font=_font(11), anchor="rm")


def ticks(seconds: float) -> list[float]:
    """Times from 0, round and at most eight."""
    rough = seconds / 5
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough * 0.75)
    return [round(k * step, 9) for k in range(int(seconds / step + 1e-6) + 1)]


def _draw_text(pen: ImageDraw, corner: tuple[int, int], lines: tuple[str, str]) -> None:
    centre, below = corner[0] + CARD[0] // 2, corner[1] + CARD[1] - TEXT + 17
    for line, size, colour, y in ((lines[0], 15, INK, below), (lines[1], 13, FAINT, below + 20)):
        pen.text((centre, y), fitting(pen, line, size), fill=colour, font=_font(size), anchor="mm")


def fitting(pen: ImageDraw, line: str, size: int) -> str:
    """The line, on one line, cut in the middle where it is too long for a card."""
    shown = "".join(c if c.isprintable() else " " for c in line[:400])
    line, kept = shown, len(shown)
    while pen.textlength(shown, _font(size)) > CARD[0] - 20:
        kept -= 1
        shown = f"{line[: kept - kept // 2]}...{line[len(line) - kept // 2 :]}"
    return shown


@cache
def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)
