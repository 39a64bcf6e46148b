"""The data module of clips: windows of recorded ones, or moving digits made as they are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from multidiff.conditioning.text import Vocabulary
from multidiff.errors import InputError
from multidiff.lightning.data import SPLITS, TRAIN, VALIDATION, BucketedData, Held
from multidiff.lightning.module import Batch
from multidiff.random import Rng, fold
from multidiff.space import Masked
from multidiff.state import Parts
from multidiff_video import digits
from multidiff_video.pixels import Pixels


class Truth(NamedTuple):
    """What is seen in a clip, where that is known exactly.

    Attributes:
        ink: (frames, 10, h, w) float32, how much of each digit is in each square; see `digits.MovingDigits.ink`.
        motions: (10,) int64, of each digit, among `digits.MOTIONS`; 0 where it is not there.
    """

    ink: np.ndarray
    motions: np.ndarray


class Window(NamedTuple):
    """A part of a clip.

    Attributes:
        clip: (frames, H, W, C) uint8.
        said: what is said of it.
        truth: what is seen in it; None where that is not known, or not asked for.
    """

    clip: np.ndarray
    said: str
    truth: Truth | None = None


class Videos(Protocol):
    """Where windows come from."""

    fps: float
    shape: tuple[int, int, int]
    """Height, width and channels of every frame."""

    def count(self, split: int) -> int:
        """Clips of a split; 0 where it has none."""
        ...

    def texts(self) -> list[str]:
        """What a vocabulary is made of."""
        ...

    def window(self, split: int, row: int, frames: int, rng: np.random.Generator, anywhere: bool) -> Window:
        """Frames of a clip, not from its beginning where `anywhere`."""
        ...


class Procedural:
    """Moving digits: every window is a new scene.

    Args:
        glyphs: of each split.
        size: pixels.
        two: share of the scenes with two digits.
        square: pixels on a side of the squares that the truth of a window is told of; 0 for none.
    """

    fps = 10.0
    counts = (50_000, 64, 512)
    """Scenes that stand for an epoch of each split."""

    def __init__(self, glyphs: Sequence[digits.Glyphs], size: int, two: float = 0.25, square: int = 0) -> None:
        self.splits = [digits.MovingDigits(own, size, two) for own in glyphs]
        self.shape = (size, size, 1)
        self.square = square

    def count(self, split: int) -> int:
        return self.counts[split]

    def texts(self) -> list[str]:
        return digits.words()

    def window(self, split: int, row: int, frames: int, rng: np.random.Generator, anywhere: bool) -> Window:
        scenes = self.splits[split]
        scene = scenes.scene(rng)
        first = int(rng.integers(64)) if anywhere else 0
        told = digits.caption([(actor.digit, actor.motion) for actor in scene], rng)
        truth = None
        if self.square:
            motions = np.zeros(10, np.int64)
            motions[[actor.digit for actor in scene]] = [digits.MOTIONS.index(actor.motion) for actor in scene]
            truth = Truth(scenes.ink(scene, frames, first, self.square), motions)
        return Window(scenes.render(scene, frames, first), told, truth)


class Recorded:
    """Windows of clips that were filmed.

    Args:
        videos: `PackedVideos` or what has its interface.
    """

    def __init__(self, videos: Any) -> None:
        self.videos, self.fps = videos, float(videos.fps)
        self.rows = [videos.rows(split) for split in range(3)]
        self.shape = videos.shape

    def count(self, split: int) -> int:
        return len(self.rows[split])

    def texts(self) -> list[str]:
        return [text for row in self.rows[TRAIN] for text in self.videos.captions[row]]

    def window(self, split: int, row: int, frames: int, rng: np.random.Generator, anywhere: bool) -> Window:
        number = int(self.rows[split][row])
        excess = int(self.videos.lengths[number]) - frames
        clip = self.videos.clip(number, int(rng.integers(max(0, excess) + 1)), min(frames, frames + excess))
        if excess < 0:  # a clip that is too short stands still at its end
            clip = np.concatenate([clip, np.repeat(clip[-1:], -excess, 0)])
        said = self.videos.captions[number]
        return Window(clip, said[int(rng.integers(len(said)))] if said else "")


@dataclass(frozen=True)
class Chances:
    """How often, in training, a sample is given each of its conditions.

    Attributes:
        text: the prompt.
        first, some, ends: the first frame; the first few, up to half; the first and the last, or two or three anywhere.
        pictures: share of the batches that are single frames.
    """

    text: float = 0.88
    first: float = 0.2
    some: float = 0.15
    ends: float = 0.15
    pictures: float = 0.25


class VideoData(BucketedData):
    """Clips with captions: a packed folder, a folder of videos, or moving digits.

    Args:
        path: what `multidiff prepare video` wrote; a folder of videos or of folders of frames; an .npz of handwritten
            digits (x_train, y_train, x_test, y_test); or the word "drawn" for digits drawn in code.
        batch_size: clips a step, all devices together.
        frames: of a window.
        size: pixels of the moving digits' field, and of the frames of a folder of videos.
        fps: frames a second that a folder of videos is brought to; by default as they are.
        gray: whether the frames of a folder of videos are made gray.
        two_digits: share of the scenes of moving digits that have two.
        cache: a folder that the decoded frames of a folder of videos are kept in; by default they are decoded anew.
        num_workers: processes that make batches ahead of their use, for a GPU that would else wait; the batches are
            the same with any number of them.
        seed: of the order of the batches, the windows and the phrasings.
        num_samples: clips that `predict` makes.
    """

    def __init__(
        self,
        path: str,
        batch_size: int = 16,
        frames: int = 16,
        size: int = 64,
        fps: float | None = None,
        gray: bool = False,
        two_digits: float = 0.25,
        cache: str | None = None,
        num_workers: int = 0,
        seed: int = 0,
        num_samples: int = 8,
    ) -> None:
        super().__init__(path, batch_size, seed, num_samples)
        if frames < 1 or size < 1:
            raise InputError(f"data.frames {frames} and data.size {size} are not allowed: 1 or more")
        if not 0 <= two_digits <= 1:
            raise InputError(f"data.two_digits {two_digits} is not allowed: a share, from 0 to 1")
        if num_workers < 0:
            raise InputError(f"data.num_workers {num_workers} is not allowed: 0 or more")
        self.frames, self.size, self.fps, self.gray, self.cache = frames, size, fps, gray, cache
        self.two_digits, self.num_workers = two_digits, num_workers
        self.videos: Videos | None = None
        self.present: list[int] = []

    def setup(self, stage: str) -> None:
        """Open the data once, and tell the module what is in it."""
        if self.videos is None:
            self.videos = self._open()
        if not self.videos.count(TRAIN):
            raise InputError(f"{self.path} has no clip in split 0 (train)")
        self.module().learn_about(self.videos, self.frames)
        for split in SPLITS[stage]:
            if self.videos.count(split):
                self.present.append(split)
            elif (stage, split) != ("fit", VALIDATION):
                raise InputError(f"{self.path} has no clip in split {split} (0 train, 1 validation, 2 test)")

    def splits(self) -> Sequence[int]:
        return tuple(self.present)

    def held(self, split: int) -> Held:
        assert self.videos is not None
        module = self.module()
        cutter = Cutter(self.videos, module.pixels, module.vocabulary, self.frames, module.chances, module.device)
        count = self.videos.count(split)
        return Held([count], partial(_cut, cutter, split), cutter.ready, self.num_workers)

    def _open(self) -> Videos:
        square: int = self.module().square
        if str(self.path) == "drawn":
            return Procedural([digits.drawn_glyphs()] * 3, self.size, self.two_digits, square)
        if self.path.suffix == ".npz":
            glyphs = [digits.mnist_glyphs(self.path, split) for split in ("train", "validation", "test")]
            return Procedural(glyphs, self.size, self.two_digits, square)
        if square or self.module().reading:
            raise InputError(
                f"model.grounding and model.reading are for moving digits, whose truth is known; for {self.path} "
                "leave them at 0"
            )
        from multidiff_video.opening import open_videos

        return Recorded(open_videos(self.path, fps=self.fps, size=self.size, gray=self.gray, cache=self.cache))


class Drawn(NamedTuple):
    """A batch before it is on the device.

    Attributes:
        clips: (B, T, H, W, C) uint8.
        tokens: (B, L) int64.
        known: (B, T) bool, true for frames that are given.
        truth: ``ink`` (B, T, 10, h, w) and ``motions`` (B, 10), where they are known; pictures have none.
    """

    clips: Tensor
    tokens: Tensor
    known: Tensor
    truth: dict[str, Tensor]


def _cut(cutter: Cutter, split: int, bucket: int, rows: Tensor, rng: Rng | None) -> Drawn:
    return cutter.draw(split, rows.tolist(), rng)


class Cutter:
    """Makes batches of clean states and their conditions.

    In training the window, the phrasing, and which frames are given are drawn; some batches are pictures, several for
    each clip that they stand for. In evaluation windows are the same each time, and the prompt alone is given.
    """

    PICTURES = 8
    """For each clip of a batch."""

    def __init__(
        self,
        videos: Videos,
        pixels: Pixels,
        vocabulary: Vocabulary,
        frames: int,
        chances: Chances,
        device: torch.device | str = "cpu",
    ) -> None:
        self.videos, self.pixels, self.vocabulary = videos, pixels, vocabulary
        self.frames, self.chances, self.device = frames, chances, device

    def __call__(self, split: int, rows: list[int], rng: Rng | None) -> Batch:
        """A batch: (states, the space of what is not given, conditions)."""
        return self.ready(self.draw(split, rows, rng))

    def draw(self, split: int, rows: list[int], rng: Rng | None) -> Drawn:
        """What can be made without the device."""
        if rng is None:
            draws = [np.random.default_rng(fold(row)) for row in rows]
            made = [
                self.videos.window(split, row, self.frames, own, False) for row, own in zip(rows, draws, strict=True)
            ]
            return self._gathered(made, np.zeros((len(rows), self.frames), bool))
        seeds = (rng.uniform(len(rows) + 1).numpy() * 2**53).astype(np.int64)
        draws = [np.random.default_rng(seed) for seed in seeds[1:]]
        if np.random.default_rng(seeds[0]).random() < self.chances.pictures or self.frames == 1:
            pairs = zip(rows * self.PICTURES, draws * self.PICTURES, strict=True)
            made = [self._window(split, row, 1, own, True) for row, own in pairs]
            return self._gathered(made, np.zeros((len(made), 1), bool))
        known = np.stack([self._given(own) for own in draws])
        # Where several frames are given they say where the clip is; a longer one is made of such windows.
        made = [
            self._window(split, row, self.frames, own, given[:2].all())
            for row, own, given in zip(rows, draws, known, strict=True)
        ]
        return self._gathered(made, known)

    def _given(self, rng: np.random.Generator) -> np.ndarray:
        """(frames,) bool, true for frames that are given."""
        known = np.zeros(self.frames, bool)
        u = rng.random()
        chances = self.chances
        if u < chances.first + chances.some + chances.ends:
            known[0] = True
        if chances.first <= u < chances.first + chances.some:
            known[: rng.integers(2, max(3, self.frames // 2 + 1))] = True
        elif chances.first + chances.some <= u < chances.first + chances.some + chances.ends:
            known[-1] = True
            if rng.random() < 0.5:
                known[:] = False
                known[rng.choice(self.frames, min(self.frames - 1, int(rng.integers(2, 4))), replace=False)] = True
        known[-1] &= not known.all()  # of a window of two or three, one is left to be made
        return known

    def _window(self, split: int, row: int, frames: int, rng: np.random.Generator, anywhere: bool) -> Window:
        window = self.videos.window(split, row, frames, rng, bool(anywhere))
        return window if rng.random() < self.chances.text else window._replace(said="")

    def _gathered(self, made: Sequence[Window], known: np.ndarray) -> Drawn:
        clips = torch.from_numpy(np.stack([window.clip for window in made]))
        truths = [window.truth for window in made if window.truth is not None and known.shape[1] > 1]
        truth = {
            name: torch.from_numpy(np.stack([getattr(own, name) for own in truths])) for name in Truth._fields if truths
        }
        return Drawn(clips, self.vocabulary.batch([window.said for window in made]), torch.from_numpy(known), truth)

    def ready(self, drawn: Drawn) -> Batch:
        """The batch, on the device."""
        clips, tokens, known = (part.to(self.device, non_blocking=True) for part in drawn[:3])
        truth = {name: part.to(self.device, non_blocking=True) for name, part in drawn.truth.items()}
        states = self.pixels.encode(clips)
        return states, Masked(~known), Parts({"tokens": tokens, "known": known, "frames": states, **truth})
