"""Real clips to compare generated ones with: digits of the test split that do what was asked, or a data set's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from multidiff.errors import InputError
from multidiff_video.digits import Glyphs, MovingDigits, mnist_glyphs
from multidiff_video.packed import ABOUT, PackedVideos

Clip = NDArray[np.uint8]
Asked = list[tuple[int, str]] | None
"""The digits and motions that a prompt asks for; None where it names none."""


class Real(Protocol):
    """Real clips in two halves that have nothing in common."""

    def draw(self, asked: Sequence[Asked], shapes: Sequence[tuple[int, ...]], half: int, seed: int) -> list[Clip]:
        """Clips of one half, as many as there are of `asked` or as the half holds if that is less.

        Args:
            asked: of each clip.
            shapes: (frames, height, width, channels) of each.
            half: 0 or 1.
            seed: of the draw.
        """
        ...

    @property
    def known(self) -> Glyphs | None:
        """The digits that a generator may have learned by heart, if they are known."""
        ...


@dataclass(frozen=True, eq=False)
class RealDigits:
    """Moving digits that are drawn from the test split, each with what was asked for.

    Two draws differ in whose hand wrote the digits and where they start, not in which digits move how: as the prompts
    of an evaluation are balanced, so is what they are compared with.

    Attributes:
        test: one half of the clips is of the even ones, one of the odd.
        known: the training split.
    """

    test: Glyphs
    known: Glyphs | None = None

    @classmethod
    def load(cls, path: str | Path) -> RealDigits:
        """Of an .npz, see `digits.mnist_glyphs`."""
        return cls(mnist_glyphs(path, "test"), mnist_glyphs(path, "train"))

    def draw(self, asked: Sequence[Asked], shapes: Sequence[tuple[int, ...]], half: int, seed: int) -> list[Clip]:
        """See `Real.draw`; square, of the height that is asked for."""
        rng = np.random.default_rng([seed, half])
        part = Glyphs(self.test.images[half::2], self.test.labels[half::2])
        fields = {size: MovingDigits(part, size) for size in {max(16, shape[1]) for shape in shapes}}
        return [
            field.render(field.scene(rng, pairs or None), shape[0])
            for pairs, shape in zip(asked, shapes, strict=True)
            for field in (fields[max(16, shape[1])],)
        ]


@dataclass(frozen=True, eq=False)
class RealClips:
    """Clips of a packed data set: of its test split, or all where that has fewer than FEWEST.

    Attributes:
        packed: the data set.
    """

    packed: PackedVideos
    known: Glyphs | None = None

    FEWEST = 20

    def draw(self, asked: Sequence[Asked], shapes: Sequence[tuple[int, ...]], half: int, seed: int) -> list[Clip]:
        """See `Real.draw`; of the frames asked for, or all if a clip has fewer, whatever was asked."""
        rows = self.packed.rows(2)
        rows = rows if len(rows) >= self.FEWEST else np.arange(len(self.packed))
        rows = np.random.default_rng(seed).permutation(rows)[half::2][: len(asked)]
        rng = np.random.default_rng([seed, half])
        return [self._window(int(i), shape[0], rng) for i, shape in zip(rows, shapes, strict=False)]

    def _window(self, i: int, frames: int, rng: np.random.Generator) -> Clip:
        length = int(self.packed.lengths[i])
        count = min(frames, length)
        return self.packed.clip(i, int(rng.integers(0, length - count + 1)), count)


def load(path: str | Path) -> Real:
    """An .npz of digits, or a folder that `multidiff prepare video` wrote.

    Raises:
        InputError: it is neither, or damaged.
    """
    if Path(path).is_dir():
        if not (Path(path) / ABOUT).is_file():
            raise InputError(f"{path} is no packed data set; 'multidiff prepare video {path} packed/' makes one of it")
        return RealClips(PackedVideos.load(path))
    return RealDigits.load(path)
