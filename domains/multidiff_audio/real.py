"""Real clips as a judge hears them: what generated sounds are compared with, and what real ones score."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from multidiff.captions import TEST, TRAIN
from multidiff_audio import metrics
from multidiff_audio.clips import PackedClips
from multidiff_audio.judge import Judge, Sounds
from multidiff_audio.metrics import Array

MOST = 10_000  # real clips that are heard; beyond it they are taken at even spacing
DRAWS = 10  # of clips behind each real-to-real figure
FEWEST = 50  # sounds for a Fréchet distance: with fewer than its numbers a covariance says nothing
LONGEST = 256  # frames of a sound that are compared with those of the training clips
CLOSE = 1.0  # percent of the real test clips that are as near to a training clip as what counts as a copy


@dataclass(frozen=True, eq=False)
class Pair:
    """A figure of the sample and the same of real clips, both averaged over the same draws."""

    value: float
    real: float
    n: int


@dataclass(frozen=True, eq=False)
class Real:
    """Clips of a reference that a judge has heard.

    Attributes:
        clips: the reference.
        judge: who heard.
        rows: (n,) the clips, of every split.
        features: (n, d).
        probabilities: attribute -> (n, classes).
        seed: of the draws.
    """

    clips: PackedClips
    judge: Judge
    rows: NDArray[np.int64]
    features: Array
    probabilities: dict[str, Array]
    seed: int = 0

    @classmethod
    def of(cls, clips: PackedClips, judge: Judge, seed: int = 0) -> Real:
        """Hear them."""
        rows = np.arange(0, len(clips), max(1, math.ceil(len(clips) / MOST)))
        return cls(clips, judge, rows, *judge.hear(_Some(clips, rows), clips.rate), seed)

    @property
    def test(self) -> NDArray[np.bool_]:
        """(n,) which are of the test split; all, where the reference has none."""
        return self._split(TEST)

    @property
    def train(self) -> NDArray[np.bool_]:
        """(n,) which are of the training split; all, where the reference has none."""
        return self._split(TRAIN)

    def _split(self, split: int) -> NDArray[np.bool_]:
        chosen = self.clips.split[self.rows] == split
        return chosen if chosen.any() else np.ones(len(self.rows), bool)

    @functools.cached_property
    def labels(self) -> dict[str, NDArray[np.str_]]:
        """Attribute of the judge -> (n,) the class of each clip by name, "" where it is not known."""
        found = {}
        for name in self.judge.classes.keys() & self.clips.attributes.keys():
            attribute = self.clips.attributes[name]
            found[name] = np.array([*attribute.classes, ""])[attribute.values[self.rows]]
        return {name: found[name] for name in self.judge.classes if name in found}

    @functools.cached_property
    def groups(self) -> NDArray[np.int64]:
        """(n,) equal for clips that are the same in every attribute."""
        kinds = ["\t".join(values) for values in zip(*self.labels.values(), strict=True)] or [""] * len(self.rows)
        return np.unique(kinds, return_inverse=True)[1].astype(np.int64)

    def accuracy(self, attribute: str) -> tuple[float, int]:
        """How often the judge is right about the test clips, and of how many."""
        known = self.test & (self.labels[attribute] != "") if attribute in self.labels else np.zeros(0, bool)
        if not known.any():
            return math.nan, 0
        names = np.array(self.judge.classes[attribute])
        right = names[self.probabilities[attribute][known].argmax(1)] == self.labels[attribute][known]
        return float(right.mean()), int(known.sum())

    def compare(self, sample: Array, kinds: NDArray[np.int64]) -> dict[str, Pair]:
        """Figures of two sets: n sounds and n real clips, and n other real clips and the same for ``real``.

        n is the size of the sample, or half of the reference if that is less. The two real sets have no clip in
        common; all three have every kind of sound equally often, as nearly as can be. Means over DRAWS triples.

        On 3,000 spoken digits real to real is 6.2 at n = 500, and 34 where the draws are not balanced: a quotient to
        that would flatter any generator that is asked for every kind in turn. That the judge knows the training clips
        matters little: clips of the same takes that it was not trained on are at 10.8 where those it knows are at 10.1
        (n = 300); the test clips, which are the first takes of each speaker, are at 26.

        Args:
            sample: (m, d) features.
            kinds: (m,) equal numbers for sounds that ask for the same.

        Returns:
            "frechet", and the `metrics.Neighbourhoods`.
        """
        rng = np.random.default_rng(self.seed)
        n = min(len(sample), len(self.rows) // 2)
        found = []
        for _ in range(DRAWS):
            first, second = (self.features[rows] for rows in metrics.disjoint_draws(self.groups, n, rng))
            mine = sample[metrics.draw(kinds, n, rng)]
            found.append(
                [(metrics.frechet_distance(x, first), *metrics.neighbourhoods(first, x)) for x in (mine, second)]
            )
        value, real = np.mean(found, 0)
        if n < FEWEST:
            value[0] = real[0] = math.nan
        names = ("frechet", *metrics.Neighbourhoods._fields)
        return {name: Pair(float(value[i]), float(real[i]), n) for i, name in enumerate(names)}

    def frechet_test(self, sample: Array, kinds: NDArray[np.int64]) -> Pair:
        """Fréchet distance of n sounds to the test clips; ``real`` is that of n training clips to the same.

        Unlike that of `compare` it is to clips that neither generator nor judge has met. Test clips may differ from
        the training clips in other ways than by chance (other takes, other days); then both distances say so.
        """
        rng = np.random.default_rng(self.seed)
        train, unseen = np.flatnonzero(self.train), self.features[self.test]
        n = min(len(sample), len(unseen), len(train))
        found = []
        for _ in range(DRAWS):
            known = self.features[train[metrics.draw(self.groups[train], n, rng)]]
            mine = sample[metrics.draw(kinds, n, rng)]
            found.append([metrics.frechet_distance(x, unseen) for x in (mine, known)])
        value, real = np.mean(found, 0)
        return Pair(float(value), float(real), n) if n >= FEWEST else Pair(math.nan, math.nan, n)

    # ---------------------------------------------------------------------------------------------------- copies

    @functools.cached_property
    def frames(self) -> int:
        """Of the spectrograms that are compared: what 99 of 100 training clips fit in, at most LONGEST."""
        longest = np.quantile(self.clips.lengths[self.rows[self.train]], 0.99) / self.clips.rate
        return min(LONGEST, int(longest * self.judge.rate / self.judge.mel["hop_length"]) + 1)

    def nearest(self, sounds: Sounds, rate: int, progress: bool = False) -> tuple[Array, NDArray[np.int64]]:
        """Distance of each sound to the nearest training clip, and its number in `known` (`metrics.nearest`).

        Each is also heard half a frame later, so that it is never far from the moments at which a clip was.
        """
        half = np.zeros((1, max(1, round(self.judge.mel["hop_length"] / 2 * rate / self.judge.rate))), np.float32)
        found = []
        for later in (half[:, :0], half):
            mels = [self.judge.spectrogram(np.concatenate([later, s.mean(0, keepdims=True)], 1), rate) for s in sounds]
            found.append(metrics.nearest(metrics.shapes(mels, self.frames), self.known, progress=progress))
        (first, second), (which, other) = zip(*found, strict=True)
        return np.minimum(first, second), np.where(first <= second, which, other)

    @functools.cached_property
    def known(self) -> Tensor:
        """The spectrograms of the training clips, as `metrics.shapes` makes them."""
        sounds = _Some(self.clips, self.rows[self.train])
        bar = tqdm(sounds, "training clips", unit="sound", disable=None, delay=2)
        return metrics.shapes([self.judge.spectrogram(sound, self.clips.rate) for sound in bar], self.frames)

    @functools.cached_property
    def nearest_real(self) -> Array:
        """Distance of each test clip to the nearest training clip; without splits, of each to the nearest other."""
        if bool((self.test & self.train).any()):
            return metrics.nearest(self.known, self.known, same=True)[0]
        return self.nearest(_Some(self.clips, self.rows[self.test]), self.clips.rate)[0]

    @functools.cached_property
    def too_near(self) -> float:
        """What counts as a copy: nearer to a training clip than all but CLOSE percent of the real test clips."""
        return float(np.quantile(self.nearest_real, CLOSE / 100)) if len(self.nearest_real) > 1 else math.nan

    def source(self, i: int) -> str:
        """The file of the i-th of the training clips in `known`."""
        return str(self.clips.sources[int(self.rows[self.train][i])])


class _Some(Sequence[NDArray[np.floating[Any]]]):
    """Clips by their numbers, each decoded when it is used."""

    def __init__(self, clips: PackedClips, rows: NDArray[np.int64]) -> None:
        self.clips, self.rows = clips, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [self.clips.sound(int(row)) for row in self.rows[i]]
        return self.clips.sound(int(self.rows[i]))
