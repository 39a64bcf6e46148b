"""Many sounds packed into one file, with what is known of each."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multidiff.errors import InputError
from multidiff.files import atomic_path

_ARRAYS = ("audio", "offsets", "split")


@dataclass(frozen=True, eq=False)
class Attribute:
    """What every clip is one of: a digit, a speaker, a kind of sound.

    Attributes:
        classes: the names.
        values: (M,) int16, the class of each clip; -1 where it is not known.
    """

    classes: tuple[str, ...]
    values: NDArray[np.int16]


@dataclass(frozen=True, eq=False)
class PackedClips:
    """M sounds end to end; on disk one `.npz` file.

    Attributes:
        audio: (S, channels) int16, all samples; clip i is rows ``offsets[i]:offsets[i + 1]``.
        offsets: (M + 1,) int64.
        rate: samples a second.
        captions: the phrasings of each clip; empty where there is none.
        attributes: name -> classes and values.
        split: (M,) int8, 0 train, 1 validation, 2 test.
        sources: the file that each clip is from.
    """

    audio: NDArray[np.int16]
    offsets: NDArray[np.int64]
    rate: int
    captions: Sequence[tuple[str, ...]]
    attributes: Mapping[str, Attribute]
    split: NDArray[np.int8]
    sources: Sequence[str]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(M,) samples in each clip."""
        return np.diff(self.offsets)

    @property
    def channels(self) -> int:
        """1 for mono, 2 for stereo."""
        return int(self.audio.shape[1])

    def sound(self, i: int) -> NDArray[np.float32]:
        """Clip i, (channels, samples) float32 in [-1, 1)."""
        return (self.audio[self.offsets[i] : self.offsets[i + 1]].T / np.float32(32768)).astype(np.float32)

    def rows(self, split: int) -> NDArray[np.int64]:
        """The numbers of the clips of a split."""
        return np.flatnonzero(self.split == split).astype(np.int64)

    def save(self, path: str | Path) -> None:
        """Write one compressed file, atomically."""
        about = {
            "rate": self.rate,
            "captions": [list(phrasings) for phrasings in self.captions],
            "attributes": {n: [list(a.classes), a.values.tolist()] for n, a in self.attributes.items()},
            "sources": list(self.sources),
        }
        text = np.frombuffer(json.dumps(about, ensure_ascii=False).encode(), np.uint8)
        arrays: dict[str, Any] = {name: getattr(self, name) for name in _ARRAYS}
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, allow_pickle=False, about=text, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> PackedClips:
        """Read a file that `multidiff prepare audio` wrote.

        Raises:
            InputError: the file is missing, damaged, or not one of these.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                about = json.loads(arrays["about"].tobytes())
                held = {name: arrays[name] for name in _ARRAYS}
            attributes = {n: Attribute(tuple(c), np.array(v, np.int16)) for n, (c, v) in about["attributes"].items()}
            captions = [tuple(phrasings) for phrasings in about["captions"]]
            return cls(**held, rate=about["rate"], captions=captions, attributes=attributes, sources=about["sources"])
        except FileNotFoundError:
            raise InputError(f"no data set at {path}; make one with 'multidiff prepare audio FOLDER {path}'") from None
        except Exception as error:  # zip, zlib, json and numpy each have their own
            raise InputError(f"{path} is not a packed audio file or is damaged ({error})") from error

    @classmethod
    def pack(
        cls,
        sounds: Sequence[NDArray[np.floating[Any]]],
        rate: int,
        captions: Sequence[tuple[str, ...]] | None = None,
        attributes: Mapping[str, Sequence[str]] | None = None,
        split: Sequence[int] | None = None,
        sources: Sequence[str] | None = None,
    ) -> PackedClips:
        """Join sounds of (channels, samples) end to end.

        Args:
            sounds: with values in [-1, 1]; louder ones are clipped.
            rate: samples a second, of all of them.
            captions: the phrasings of each; none by default.
            attributes: name -> the class of each sound by its name, "" where it is not known.
            split: all train by default.
            sources: numbered by default.
        """
        count = len(sounds)
        channels = sounds[0].shape[0] if count else 1
        whole = [np.clip(np.round(s.T * 32768.0), -32768, 32767).astype(np.int16) for s in sounds]
        lengths = np.array([len(s) for s in whole], np.int64)
        return cls(
            audio=np.concatenate([np.zeros((0, channels), np.int16), *whole]),
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            rate=rate,
            captions=list(captions) if captions is not None else [()] * count,
            attributes={name: _attribute(values) for name, values in (attributes or {}).items()},
            split=np.zeros(count, np.int8) if split is None else np.array(split, np.int8),
            sources=list(sources) if sources is not None else list(map(str, range(count))),
        )

    def phrasings(self) -> list[str]:
        """Every distinct caption, sorted."""
        return sorted(set(itertools.chain.from_iterable(self.captions)))


def _attribute(values: Sequence[str]) -> Attribute:
    classes = tuple(sorted({value for value in values if value}))
    number = {name: i for i, name in enumerate(classes)}
    return Attribute(classes, np.array([number.get(value, -1) for value in values], np.int16))
