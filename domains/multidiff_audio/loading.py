"""The data module of sounds: spectrograms are made on the device, batch by batch, from the packed samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multidiff.conditioning.text import NULL, PAD, Vocabulary
from multidiff.errors import InputError
from multidiff.lightning.data import SPLITS, TRAIN, VALIDATION, BucketedData, Held, merged_edges, quantile_edges
from multidiff.lightning.module import Batch
from multidiff.random import Rng
from multidiff.space import Masked
from multidiff.state import Parts
from multidiff_audio.clips import PackedClips
from multidiff_audio.curves import by_row, curves
from multidiff_audio.representation import Representation


@dataclass(frozen=True)
class Chances:
    """How often, in training, a sample is given each of its conditions.

    Attributes:
        nothing: no condition at all, for guidance.
        text: the prompt, where there is something.
        classes: each of its classes.
        curves: each of its curves.
        crop: a random part of it, of at least a tenth, in the place of the whole.
    """

    nothing: float = 0.1
    text: float = 0.9
    classes: float = 0.2
    curves: float = 0.1
    crop: float = 0.0


class AudioData(BucketedData):
    """Sounds with captions: a packed file, or a folder of sounds that is packed in memory.

    Args:
        path: what `multidiff prepare audio` wrote, or a folder of WAV, FLAC, OGG or MP3 files; captions are looked for
            in it as `prepare` does.
        batch_size: sounds a step, all devices together.
        max_seconds: what is longer is cut anew, at a random place, each time that it is used.
        seed: of the order of the batches, the phrasings and the places.
        num_samples: sounds that `predict` makes.
    """

    def __init__(
        self,
        path: str,
        batch_size: int = 32,
        max_seconds: float = 10.0,
        seed: int = 0,
        num_samples: int = 16,
    ) -> None:
        super().__init__(path, batch_size, seed, num_samples)
        if not max_seconds > 0:
            raise InputError(f"data.max_seconds {max_seconds} is not allowed: above 0")
        self.max_seconds = max_seconds
        self.clips: PackedClips | None = None
        self.rows: dict[int, np.ndarray] = {}

    def setup(self, stage: str) -> None:
        """Read the file once, and tell the module what is in it."""
        self.clips = clips = _load(self.path, self.module().hparams)
        if not len(clips.rows(TRAIN)):
            raise InputError(f"{self.path} has no sound in split 0 (train), whose words and loudness the model is for")
        self.module().learn_about(clips, self.max_seconds)
        for split in SPLITS[stage]:
            rows = clips.rows(split)
            if len(rows):
                self.rows[split] = rows
            elif (stage, split) != ("fit", VALIDATION):
                raise InputError(f"{self.path} has no sound in split {split} (0 train, 1 validation, 2 test)")

    def splits(self) -> Sequence[int]:
        return tuple(self.rows)

    def held(self, split: int) -> Held:
        assert self.clips is not None
        module = self.module()
        longest = int(self.max_seconds * self.clips.rate)
        lengths = self.clips.lengths[self.rows[split]].clip(max=longest)
        sizes = np.array([module.representation.rows(int(n)) for n in lengths])
        edges = merged_edges(sizes, quantile_edges(sizes), self.batch_size if split == TRAIN else 1)
        home = np.searchsorted(np.array(edges), sizes)
        groups = [self.rows[split][home == k] for k in range(len(edges))]
        cutter = Cutter(self.clips, module.representation, module.vocabulary, longest, module.chances, module.device)
        return Held([len(g) for g in groups], lambda bucket, rows, rng: cutter(groups[bucket][rows.numpy()], rng))


def _load(path: Path, settings: Mapping[str, Any]) -> PackedClips:
    if path.suffix == ".npz" or not path.exists():
        return PackedClips.load(path)
    from multidiff_audio.prepare import load_or_pack

    return load_or_pack(path, rate=settings["rate"], channels=settings["channels"])


class Cutter:
    """Makes batches of clean states and their conditions out of packed sounds.

    In training a sound is moved by less than a hop, made a little louder or quieter and turned upside down at random,
    none of which is heard; its phrasing and which of its conditions it is given are drawn too. In evaluation it is
    taken as it is, with its first caption.
    """

    def __init__(
        self,
        clips: PackedClips,
        representation: Representation,
        vocabulary: Vocabulary,
        longest: int,
        chances: Chances,
        device: torch.device | str = "cpu",
    ) -> None:
        self.clips, self.representation, self.longest = clips, representation, longest
        self.chances, self.device = chances, device
        self.audio = torch.from_numpy(clips.audio).to(device)
        self.tokens = [vocabulary.batch(list(c)) if c else torch.empty(0, vocabulary.longest) for c in clips.captions]
        self.nothing = torch.full((vocabulary.longest,), PAD, dtype=torch.int64)
        self.nothing[0] = NULL
        values = [attribute.values for attribute in clips.attributes.values()]
        self.classes = torch.from_numpy(np.array(values, np.int64).reshape(-1, len(clips)).T)

    def __call__(self, rows: np.ndarray, rng: Rng | None) -> Batch:
        """A batch: (states, their space, their conditions).

        Beside what `Conditions` reads, the latter hold the "seconds" (B,) of the whole sounds, of which states may be
        parts.
        """
        draws = rng.uniform(len(rows) * (12 + self.classes.shape[1])).view(-1, len(rows)) if rng is not None else None
        sounds, lengths = self._sounds(rows, draws)
        state = self.representation.encode(sounds)
        own = torch.tensor([self.representation.rows(n) for n in lengths], device=self.device)
        space = Masked(torch.arange(state.shape[1], device=self.device) < own[:, None])
        return space.project(state), space, self._conditions(rows, sounds, state.shape[1], draws)

    def _sounds(self, rows: np.ndarray, draws: Tensor | None) -> tuple[Tensor, list[int]]:
        """(B, channels, samples), and how many samples of each are its own."""
        starts, lengths = self.clips.offsets[rows].copy(), self.clips.lengths[rows].copy()
        excess = (lengths - self.longest).clip(min=0)
        if draws is not None:
            cropped, share = draws[10:12].numpy()
            kept = ((lengths - excess) * (0.1 + 0.9 * share)).astype(np.int64).clip(min=1)
            excess = np.where(cropped < self.chances.crop, lengths - kept, excess)
        lengths -= excess
        shift = np.zeros(len(rows), np.int64)
        gain = np.ones(len(rows), np.float32)
        if draws is not None:
            place, move, louder, side = draws[:4].numpy()
            starts += (place * (excess + 1)).astype(np.int64)
            room = np.array([self.representation.samples(self.representation.rows(int(n))) - n for n in lengths])
            shift = (move * (np.minimum(room, self.representation.hop) + 1)).astype(np.int64)
            gain = (10 ** ((louder * 4 - 2) / 20) * np.where(side < 0.5, -1, 1)).astype(np.float32)
        out = torch.zeros(len(rows), self.clips.channels, int((lengths + shift).max()), device=self.device)
        for i, (start, length, move) in enumerate(zip(starts, lengths, shift, strict=True)):
            out[i, :, move : move + length] = self.audio[start : start + length].T.float() / 32768
        out *= torch.from_numpy(gain).to(self.device)[:, None, None]
        return out, (lengths + shift).tolist()

    def _conditions(self, rows: np.ndarray, sounds: Tensor, count: int, draws: Tensor | None) -> Parts:
        fold, hop, rate = self.representation.fold_time, self.representation.hop, self.representation.rate
        frames = curves(sounds.mean(1), rate, hop, count * fold)
        which = [0.0] * len(rows) if draws is None else draws[4].tolist()
        tokens = torch.stack([self._phrasing(int(row), u) for row, u in zip(rows, which, strict=True)])
        text, classes, followed = self._told(len(rows), draws)
        conditions = {
            "tokens": torch.where(text[:, None], tokens, self.nothing),
            "classes": torch.where(classes, self.classes[rows], -1),
            "curves": by_row(torch.where(followed[:, None].to(frames.device), frames, math.nan), fold),
            "seconds": torch.from_numpy(self.clips.lengths[rows].clip(max=self.longest) / rate).float(),
        }
        return Parts({name: value.to(self.device) for name, value in conditions.items()})

    def _told(self, count: int, draws: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Which conditions each sample is given: (B,) text, (B, A) classes, (B, 3) curves."""
        attributes = self.classes.shape[1]
        if draws is None:
            no = torch.zeros(count, attributes + 3, dtype=torch.bool)
            return torch.ones(count, dtype=torch.bool), no[:, :attributes], no[:, attributes:]
        anything = (draws[5] >= self.chances.nothing)[:, None]
        text = anything[:, 0] & (draws[6] < self.chances.text)
        followed = anything & (self.chances.curves > draws[7:10].T)
        return text, anything & (self.chances.classes > draws[12:].T), followed

    def _phrasing(self, row: int, u: float) -> Tensor:
        known = self.tokens[row]
        return known[int(u * len(known))] if len(known) else self.nothing
