"""Sound files and what is done to a sound before anything else: reading, resampling, mixing, levels.

A sound is float32 of shape (channels, samples), nominally within [-1, 1], and has a sample rate in Hz.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multidiff.errors import InputError

Sound = NDArray[np.float32]

SUFFIXES = (
    ".wav",
    ".wave",
    ".flac",
    ".ogg",
    ".oga",
    ".opus",
    ".mp3",
    ".aif",
    ".aiff",
    ".aifc",
    ".au",
    ".snd",
    ".caf",
    ".w64",
    ".rf64",
)
"""Endings of the files that are taken for sound."""
UNREADABLE = (".m4a", ".mp4", ".aac", ".wma", ".webm", ".mka", ".amr", ".ra", ".ape", ".wv", ".mid", ".midi")
"""Endings of sound, or of what may hold some, that libsndfile does not read."""
RATES = (1_000, 768_000)
"""Hz; what lies outside is taken for a damaged header."""

_BLOCK, _SMALL = 1 << 20, 1 << 10  # samples read at a time: a header that promises too much costs nothing
_MOST = 1 << 31  # samples of a sound, all channels
_HUGE = 1e12  # what is not below it is no sample: not a number, infinite, or would be once it is filtered
_OFFSET = 0.02  # of full scale; a mean above it is worth a note
_FINEST = 1_000  # largest number in a ratio of rates; the filters of torchaudio grow with both numbers
_KNOWN = (b"RIF", b"RF64", b"fLaC", b"OggS", b"ID3", b"FORM", b".snd", b"caff", b"riff")
_CODECS = {"PCM_S8": "8-bit", "PCM_U8": "8-bit", "ULAW": "u-law", "ALAW": "A-law"}


@dataclass(frozen=True, eq=False)
class Reading:
    """A sound as its file holds it, samples that are not finite set to 0.

    Attributes:
        sound: (channels, samples).
        rate: Hz.
        notes: what is odd about it: "not finite", "clipped", "beyond full scale", "cut short", "offset", "8-bit",
            "u-law", "A-law".
    """

    sound: Sound
    rate: int
    notes: tuple[str, ...]


def read(path: str | Path) -> tuple[Sound, int]:
    """The (channels, samples) of a file, and its rate in Hz; samples that are not finite are 0.

    Raises:
        InputError: it is missing, empty, not sound, or holds no samples.
    """
    reading = load(path)
    return reading.sound, reading.rate


def load(file: str | Path | bytes, name: str = "") -> Reading:
    """Read a file, or the content of one; `name` is what messages call it.

    What can be read of a damaged file is kept, with the note "cut short".

    Raises:
        InputError: see `read`.
    """
    import soundfile

    name = name or ("the sound" if isinstance(file, bytes) else str(file))
    _refuse_missing(file, name)
    try:
        with soundfile.SoundFile(_source(file)) as opened:
            rate, codec = opened.samplerate, opened.subtype
            _refuse_header(name, rate, opened.channels, opened.frames)
            blocks, broken = _blocks(opened, _BLOCK)
            short = broken or _promised(opened.extra_info) > 0
        if broken:  # a block is lost as a whole: near the damage small ones save more
            with soundfile.SoundFile(_source(file)) as opened:
                blocks, _ = _blocks(opened, _SMALL)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise InputError(_why_not(file, name, error)) from None
    if not sum(len(block) for block in blocks):
        raise InputError(f"{name} holds no samples")
    return _reading(np.concatenate(blocks), rate, codec, short)


def header(file: str | Path | bytes) -> tuple[int, float]:
    """The rate in Hz and the seconds that a file claims, 0 where it cannot be opened."""
    import soundfile

    try:
        about = soundfile.info(_source(file))
    except (soundfile.LibsndfileError, RuntimeError, OSError):
        return 0, 0.0
    return int(about.samplerate), about.frames / max(about.samplerate, 1)


def resample(sound: Sound, rate: int, to: int) -> Sound:
    """A sound of (channels, samples) at another rate, ceil(samples * to / rate) long.

    Kaiser-windowed sinc over 64 zero crossings: flat up to 0.94 of the lower Nyquist frequency. A ratio of large
    numbers (44,101 to 16,000) is replaced by the nearest one of numbers up to a thousand, a few parts in a million off.
    """
    if rate == to:
        return sound
    import torch
    from torchaudio import functional

    length = -(-sound.shape[1] * to // rate)
    ratio = Fraction(rate, to)
    if max(ratio.numerator, ratio.denominator) > _FINEST:
        small = Fraction(min(rate, to), max(rate, to)).limit_denominator(_FINEST) or Fraction(1, _FINEST)
        ratio = small if rate < to else 1 / small
    made = functional.resample(
        torch.from_numpy(np.ascontiguousarray(sound, np.float32)),
        ratio.numerator,
        ratio.denominator,
        lowpass_filter_width=64,
        rolloff=0.9476,
        resampling_method="sinc_interp_kaiser",
        beta=14.77,
    ).numpy()
    return np.pad(made[:, :length], ((0, 0), (0, max(0, length - made.shape[1]))))


def mix(sound: Sound, channels: int) -> Sound:
    """A sound of (any, samples) as one of (channels, samples), 1 or 2.

    Mono is the mean, or the first channel where the channels cancel each other. In stereo the first two keep their
    sides and what else there is goes to both.
    """
    have = sound.shape[0]
    if have == channels:
        return sound
    if have == 1:
        return np.repeat(sound, channels, 0)
    if channels == 2:
        return (sound[:2] + sound[2:].mean(0, keepdims=True)) / np.float32(2)
    mean = sound.mean(0, keepdims=True)
    cancelled = level(mean) < level(sound) - 40
    return sound[:1] if cancelled else mean


def remove_dc(sound: Sound) -> Sound:
    """The sound, each channel with mean 0."""
    return (sound - sound.mean(1, keepdims=True, dtype=np.float64)).astype(np.float32)


def level(sound: Sound) -> float:
    """Root mean square of all samples in dB of full scale; minus infinity for digital silence."""
    power = float(np.mean(np.square(sound, dtype=np.float64))) if sound.size else 0.0
    return 10 * math.log10(power) if power > 0 else -math.inf


def peak(sound: Sound) -> float:
    """The largest amplitude."""
    return float(np.abs(sound).max(initial=0.0))


def _source(file: str | Path | bytes) -> Any:
    return io.BytesIO(file) if isinstance(file, bytes) else str(file)


def _refuse_missing(file: str | Path | bytes, name: str) -> None:
    if isinstance(file, bytes):
        if not file:
            raise InputError(f"{name} is empty (0 bytes)")
        return
    try:
        with open(file, "rb") as stream:
            if not stream.read(1):
                raise InputError(f"{name} is empty (0 bytes)")
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror or error}") from None


def _refuse_header(name: str, rate: int, channels: int, frames: int) -> None:
    if not RATES[0] <= rate <= RATES[1]:
        raise InputError(f"{name} claims a rate of {rate:,} Hz; from {RATES[0]:,} to {RATES[1]:,} is read")
    if frames == 0:
        raise InputError(f"{name} holds no samples")


def _blocks(opened: Any, size: int) -> tuple[list[Sound], bool]:
    """What can be decoded, and whether decoding broke off."""
    import soundfile

    blocks: list[Sound] = []
    try:
        for block in _each_block(opened, size):
            blocks.append(block)
    except (soundfile.LibsndfileError, RuntimeError):
        return blocks, True
    return blocks, False


def _each_block(opened: Any, size: int) -> Iterator[Sound]:
    read = 0
    while read * opened.channels < _MOST:
        block = opened.read(size, dtype="float32", always_2d=True)
        if not len(block):
            return
        read += len(block)
        yield block


def _promised(extra_info: str) -> int:
    """How many bytes of samples a WAV header promises that are not there; libsndfile says so in its log."""
    found = re.search(r"^data : (\d+) \(should be (\d+)\)", extra_info, re.MULTILINE)
    if not found or int(found[1]) >= 0x7FFFF000:  # what a program writes that cannot know the length yet
        return 0
    return int(found[1]) - int(found[2])


def _why_not(file: str | Path | bytes, name: str, error: Exception) -> str:
    if isinstance(file, bytes):
        start = file[:12]
    else:
        with open(file, "rb") as stream:
            start = stream.read(12)
    if start[4:8] == b"ftyp":
        return f"{name} is an MP4 or AAC file, which is not read; convert it to WAV or FLAC"
    mpeg = start[:1] == b"\xff" and start[1:2] >= b"\xe0" and start[1:2] != b"\xfe"  # \xff\xfe is text in UTF-16
    if mpeg or start.startswith(_KNOWN):
        detail = str(getattr(error, "error_string", error)).rstrip(".")
        # libsndfile takes an MP3 without a whole frame for a pipe
        return f"{name} is damaged" + (f": {detail}" if "pipe" not in detail else "")
    return f"{name} is not a sound file"


def _reading(frames: Sound, rate: int, codec: str, short: bool) -> Reading:
    sound = np.ascontiguousarray(frames.T)
    notes = [_CODECS[codec]] if codec in _CODECS else []
    notes += ["cut short"] if short else []
    finite = np.abs(sound) < _HUGE
    if not finite.all():
        notes.append("not finite")
        sound = np.where(finite, sound, np.float32(0))
    notes += ["offset"] if np.abs(sound.mean(1)).max() > _OFFSET else []
    if peak(sound) > 1.0001:
        notes.append("beyond full scale")
    elif _flat(sound):
        notes.append("clipped")
    return Reading(sound, rate, tuple(notes))


def _flat(sound: Sound) -> bool:
    """Whether one sample in a thousand is in the midst of three at full scale."""
    at_top = np.abs(sound) >= 0.996  # 8-bit sound ends at 127 / 128
    middle = at_top[:, 2:] & at_top[:, 1:-1] & at_top[:, :-2]
    return bool(middle.sum() > 1e-3 * sound.size)
