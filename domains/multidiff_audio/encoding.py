"""One sound as the bytes of a WAV or FLAC file, with what made it inside."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from multidiff import provenance
from multidiff.errors import InputError, unknown
from multidiff_audio.level import Sound

FORMATS = ("wav", "flac")
BIT_DEPTHS = ("16", "24", "float")
LOUDNESS = -20.0
"""LUFS. 96 % of the digits of FSDD reach it below a peak of -1 dB, of the sounds of ESC-10 72 %; -23 LUFS, the
broadcasters' level (EBU R 128), is faint on a laptop."""

_LONGEST = {"wav": 2000, "flac": 1_000_000}  # bytes of a comment; libsndfile does not read longer ones from WAV


@dataclass(frozen=True)
class FileOptions:
    """How sounds are written.

    Attributes:
        format: "wav" or "flac".
        bit_depth: "16", "24" or, in WAV only, "float" (32 bits, values beyond full scale kept). Values are rounded to
            the nearest, without dither: silence stays silence and a file is the same each time.
        loudness: LUFS, from -50 to 0; None keeps the levels.
    """

    format: str = "wav"
    bit_depth: str = "16"
    loudness: float | None = LOUDNESS

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise unknown("format", self.format, FORMATS)
        if self.bit_depth not in BIT_DEPTHS:
            raise InputError(f"bit_depth {self.bit_depth!r} is not allowed: one of {', '.join(BIT_DEPTHS)}")
        if self.format == "flac" and self.bit_depth == "float":
            raise InputError("FLAC holds 16 or 24 bits, not float; ask for another bit_depth, or for wav")
        number = isinstance(self.loudness, int | float) and not isinstance(self.loudness, bool)
        if self.loudness is not None and not (number and -50 <= self.loudness <= 0):
            raise InputError(f"loudness {self.loudness!r} is not allowed: from -50 to 0 LUFS, or None to keep levels")

    @classmethod
    def read(cls, recipe: Mapping[str, Any]) -> Self:
        """The options in a recipe; those that are not there have their defaults.

        Raises:
            InputError: one is not allowed.
        """
        known = {name: recipe[name] for name in cls.__dataclass_fields__ if name in recipe}
        if "bit_depth" in known:
            known["bit_depth"] = str(known["bit_depth"])
        return cls(**known)


def encode(sound: Sound, rate: int, options: FileOptions, tags: Mapping[str, str]) -> bytes:
    """(channels, samples) as a file.

    Args:
        tags: "title", "comment" and "software", as soundfile names them.
    """
    import soundfile

    exact = options.bit_depth == "float"
    subtype = "FLOAT" if exact else f"PCM_{options.bit_depth}"
    packed = io.BytesIO()
    with soundfile.SoundFile(packed, "w", rate, len(sound), subtype, format=options.format.upper()) as file:
        for name, text in tags.items():
            setattr(file, name, text)
        file.write(np.float32(sound.T) if exact else _whole(sound, int(options.bit_depth)))
    return _without_time(packed.getvalue()) if exact else packed.getvalue()


def _whole(sound: Sound, bits: int) -> NDArray[np.int32]:
    """(samples, channels) int32 with the value, rounded to so many bits, in the upper ones, as soundfile has it."""
    top = 2 ** (bits - 1)
    values = np.clip(np.rint(sound.T.astype(np.float64) * top), -top, top - 1)
    return values.astype(np.int32) << (32 - bits)


def _without_time(wav: bytes) -> bytes:
    """A float WAV's PEAK chunk says when it was written; here the same sound is to be the same file."""
    at = 12
    while at + 8 <= len(wav):
        name, length = struct.unpack_from("<4sI", wav, at)
        if name == b"PEAK":
            return wav[: at + 12] + bytes(4) + wav[at + 16 :]
        at += 8 + length + length % 2
    return wav


def tags(recipe: Mapping[str, Any], prompt: str, sample: int, options: FileOptions) -> dict[str, str]:
    """What is kept in a sample's file; see `multidiff.provenance.tags`."""
    return provenance.tags(recipe, prompt, sample, _LONGEST[options.format])


def read_comment(path: Path) -> dict[str, Any] | None:
    """The recipe in a file that `encode` wrote; None for any other file."""
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            held = json.loads(file.comment)
    except (OSError, RuntimeError, ValueError):
        return None
    return held if isinstance(held, dict) else None
