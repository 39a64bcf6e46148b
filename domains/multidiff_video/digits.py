"""Moving digits, made in code: clips with captions, whose truth is known exactly.

In the manner of Sync-DRAW (Mittal et al. 2017): one or two handwritten digits on a black field, each with a motion of
its own, told in words. The motion of a digit is straight or it bounces between two walls. Every digit bounces off a
wall that it meets; one that moves straight is slow enough to meet none within sixteen frames.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from multidiff.errors import InputError

MOTIONS = ("left", "right", "up", "down", "left then right", "right then left", "up then down", "down then up")
"""The first four are straight, the last four bounce."""

FRAMES = 16
"""Frames in which a straight motion meets no wall."""

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_SPLITS = {
    "train": ("train", slice(0, 55_000)),
    "validation": ("train", slice(55_000, None)),
    "test": ("test", slice(None)),
}
_SUBJECTS = ("a {}", "a {}", "the digit {}", "digit {}", "the number {}")
_STRAIGHT = ("moving {0}", "going {0}", "sliding {0}", "drifting {0}", "is moving {0}", "moves {0}")
_BOUNCING = (
    "bouncing {0} and {1}",
    "moving {0} then {1}",
    "moving {0} and {1}",
    "going {0} and then {1}",
    "bounces {0} and {1}",
    "is moving {0} and {1}",
    "sliding {0} then {1}",
)
_JOINS = (" and ", ", ", " while ", " with ")


@dataclass(frozen=True)
class Glyphs:
    """Pictures of digits.

    Attributes:
        images: (N, s, s) uint8, 0 is background and 255 is ink.
        labels: (N,) int64, 0 to 9.
    """

    images: np.ndarray
    labels: np.ndarray

    def resized(self, size: int) -> Glyphs:
        """The same at `size` pixels, smoothly."""
        if size == self.images.shape[-1]:
            return self
        import torch
        from torch.nn.functional import interpolate

        images = torch.from_numpy(self.images)[:, None].float()
        small = interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)
        return Glyphs(small[:, 0].round().clamp(0, 255).byte().numpy(), self.labels)


def mnist_glyphs(path: str | Path, split: str = "train") -> Glyphs:
    """Handwritten digits of an .npz with x_train, y_train, x_test and y_test.

    Args:
        split: train and validation (the last 5,000) are both of the first pair, test is the other.

    Raises:
        InputError: there is no such file, or it does not hold them.
    """
    name, rows = _SPLITS[split]
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images, labels = arrays[f"x_{name}"], arrays[f"y_{name}"]
    except FileNotFoundError as error:
        raise InputError(f"no file {path}") from error
    except Exception as error:  # zip, numpy and a missing array each have their own
        raise InputError(f"{path} is no .npz with x_train, y_train, x_test and y_test: {error}") from error
    square = images.ndim == 3 and images.shape[1] == images.shape[2] and images.dtype == np.uint8
    if not square or len(images) != len(labels) or not np.isin(labels, range(10)).all():
        raise InputError(f"{path} must hold (N, s, s) uint8 pictures and as many labels from 0 to 9")
    return Glyphs(images[rows], labels[rows].astype(np.int64))


@dataclass(frozen=True)
class Actor:
    """A digit and what it does.

    Attributes:
        digit: 0 to 9.
        glyph: number of its picture among the glyphs.
        motion: one of `MOTIONS`.
        start: (x, y) of the upper left corner in the first frame, as shares of the room that there is.
        speed: of it, in rooms a frame.
    """

    digit: int
    glyph: int
    motion: str
    start: tuple[float, float]
    speed: float

    def place(self, frame: int) -> tuple[float, float]:
        """(x, y) in a frame, shares of the room."""
        along = 0 if self.motion.startswith(("left", "right")) else 1
        sign = -1 if self.motion.startswith(("left", "up")) else 1
        moved = (self.start[along] + sign * self.speed * frame) % 2.0
        place = list(self.start)
        place[along] = 2.0 - moved if moved > 1 else moved  # off a wall like light off a mirror
        return place[0], place[1]


Scene = tuple[Actor, ...]
"""One or two digits."""


@dataclass(frozen=True)
class MovingDigits:
    """Scenes of moving digits.

    Attributes:
        glyphs: pictures, at any size.
        size: pixels of the square field; a digit takes 7/16 of it.
        two: share of the scenes with two digits.
    """

    glyphs: Glyphs
    size: int = 64
    two: float = 0.25

    def __post_init__(self) -> None:
        if self.size < 16 or not len(self.glyphs.labels):
            raise InputError(
                f"moving digits need a field of 16 pixels or more, not {self.size}, and some glyphs, not "
                f"{len(self.glyphs.labels)}"
            )
        object.__setattr__(self, "glyphs", self.glyphs.resized(self.size * 7 // 16))
        object.__setattr__(self, "_of", [np.flatnonzero(self.glyphs.labels == digit) for digit in range(10)])
        object.__setattr__(self, "_digits", np.unique(self.glyphs.labels))

    def scene(self, rng: np.random.Generator, pairs: Sequence[tuple[int, str]] | None = None) -> Scene:
        """A scene, of given digits and motions or of any that are trained on (`held_out` ones are not)."""
        if pairs is None:
            count = 2 if rng.random() < self.two else 1
            digits = rng.permutation(self._digits)[:count].tolist()  # type: ignore[attr-defined]
            pairs = [(digit, trained_motion(digit, rng)) for digit in digits]
        return tuple(self._actor(digit, motion, rng) for digit, motion in pairs)

    def _actor(self, digit: int, motion: str, rng: np.random.Generator) -> Actor:
        own = self._of[digit]  # type: ignore[attr-defined]
        if not len(own):
            raise InputError(f"there is no glyph of the digit {digit}")
        glyph = int(rng.choice(own))
        speed = rng.uniform(0.072, 0.117) if "then" in motion else rng.uniform(0.025, 0.053)
        travel = speed * rng.uniform(3, min(11, 1 / speed)) if "then" in motion else speed * (FRAMES - 1)
        # What is left of the way to the wall where it turns, or more than what it moves in all.
        away = travel if "then" in motion else rng.uniform(travel, 1.0)
        along = away if motion.startswith(("left", "up")) else 1 - away
        across = rng.uniform()
        start = (along, across) if motion.startswith(("left", "right")) else (across, along)
        return Actor(digit, glyph, motion, start, speed)

    def render(self, scene: Scene, frames: int = FRAMES, first: int = 0) -> np.ndarray:
        """(frames, size, size, 1) uint8, from the frame `first` on; where digits overlap the brighter is seen."""
        out = np.zeros((frames, self.size, self.size, 1), np.uint8)
        box = self.glyphs.images.shape[-1]
        for actor, (t, frame) in itertools.product(scene, enumerate(out)):
            x, y = (round(share * (self.size - box)) for share in actor.place(first + t))
            seen = frame[y : y + box, x : x + box, 0]
            np.maximum(seen, self.glyphs.images[actor.glyph], out=seen)
        return out

    def ink(self, scene: Scene, frames: int, first: int, square: int) -> np.ndarray:
        """How much of each digit is in each square of `square` pixels: (frames, 10, h, w) float32, 0 to 1."""
        side = self.size // square
        out = np.zeros((frames, 10, side, side), np.float32)
        for actor in scene:
            alone = self.render((actor,), frames, first)[:, : side * square, : side * square, 0]
            out[:, actor.digit] = alone.reshape(frames, side, square, side, square).mean((2, 4)) / 255
        return out


def held_out(digit: int, motion: str) -> bool:
    """Whether a digit never moves so in training: one motion of each digit, ten of the eighty pairs."""
    return MOTIONS.index(motion) == (3 * digit + 1) % len(MOTIONS)


def trained_motion(digit: int, rng: np.random.Generator) -> str:
    """Any motion that a digit makes in training."""
    return str(rng.choice([motion for motion in MOTIONS if not held_out(digit, motion)]))


def caption(scene: Sequence[tuple[int, str]], rng: np.random.Generator | None = None) -> str:
    """What happens, in words: without `rng` always "a 3 moving left and a 7 bouncing up and down"."""

    def chosen(options: Sequence[str]) -> str:
        return options[0 if rng is None else int(rng.integers(len(options)))]

    told = []
    for digit, motion in scene:
        name = NAMES[digit] if rng is not None and rng.random() < 0.4 else str(digit)
        ways = motion.split(" then ")
        does = chosen(_BOUNCING if len(ways) == 2 else _STRAIGHT).format(*ways)
        told.append(f"{chosen(_SUBJECTS).format(name)} {does}")
    return chosen(_JOINS).join(told)


def parse(text: str) -> list[tuple[int, str]] | None:
    """The digits and motions that a caption asks for; None where it does not say both of each digit."""
    found: list[tuple[int, list[str]]] = []
    said = re.findall(r"[a-z]+|\d", text.lower())
    for word in said:
        if word in NAMES or word.isdigit():
            found.append((NAMES.index(word) if word in NAMES else int(word), []))
        elif word in MOTIONS[:4] and found:
            found[-1][1].append(word)
    pairs = [(digit, " then ".join(ways)) for digit, ways in found]
    return pairs if pairs and all(motion in MOTIONS for _, motion in pairs) else None


def words() -> list[str]:
    """Texts that between them hold every word of every phrasing, for a vocabulary."""
    digits = [*NAMES, *map(str, range(10))]
    options = " ".join((*_SUBJECTS, *_STRAIGHT, *_BOUNCING, *_JOINS))
    return [*digits, *MOTIONS, options.replace("{}", "").replace("{0}", "").replace("{1}", "")]


def drawn_glyphs(size: int = 28, variants: int = 6) -> Glyphs:
    """Digits drawn with straight strokes, as on a pocket calculator, in several thicknesses and slants."""
    # Segments: top, upper left, upper right, middle, lower left, lower right, bottom.
    lit = ("1110111", "0010010", "1011101", "1011011", "0111010", "1101011", "1101111", "1010010", "1111111", "1111011")
    starts = ((0, 0), (0, 0), (1, 0), (0, 1), (0, 1), (1, 1), (0, 2))
    ends = ((1, 0), (0, 1), (1, 1), (1, 1), (0, 2), (1, 2), (1, 2))
    y, x = (np.mgrid[0:size, 0:size] + 0.5) / size
    images, labels = [], []
    for digit, variant in itertools.product(range(10), range(variants)):
        slant, thick = 0.12 * (variant % 3 - 1), 0.045 + 0.02 * (variant // 3)
        nearest = np.full((size, size), np.inf)
        for on, a, b in zip(lit[digit], starts, ends, strict=True):
            if on == "1":
                nearest = np.minimum(nearest, _distance(x, y, _corner(a, slant), _corner(b, slant)))
        images.append((255 * np.clip((thick - nearest) * size + 0.5, 0, 1)).astype(np.uint8))
        labels.append(digit)
    return Glyphs(np.array(images), np.array(labels, np.int64))


def _corner(at: tuple[int, int], slant: float) -> tuple[float, float]:
    return 0.32 + 0.36 * at[0] + slant * (1 - at[1]), 0.2 + 0.3 * at[1]


def _distance(x: np.ndarray, y: np.ndarray, a: tuple[float, float], b: tuple[float, float]) -> np.ndarray:
    """Of each point to the stroke from a to b."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    share = np.clip(((x - a[0]) * dx + (y - a[1]) * dy) / (dx * dx + dy * dy), 0, 1)
    return np.asarray(np.hypot(x - a[0] - share * dx, y - a[1] - share * dy))
