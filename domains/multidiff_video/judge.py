"""A small classifier of moving digits that judges generated clips: digits, motions, and an embedding for distances.

It looks at each frame by itself and finds each digit's place in it (space), then at the track of each digit (time):
convolutions in 2 + 1 dimensions. It is trained on digits that are drawn over the field with known places
(`judge_training`), and has never seen a generated clip.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from multidiff import checkpoint
from multidiff.errors import InputError, unknown
from multidiff_video.digits import FRAMES, MOTIONS

JUDGES = Path(__file__).parent / "judges"
COMPONENTS = {"JudgeNetwork": "multidiff_video.judge:JudgeNetwork"}
SIZE = 64  # pixels of the square in which every frame is looked at
FRAMES_AT_ONCE = 64  # what fits in a processor's cache; 512 at a time take twice as long

Array = NDArray[np.float64]
Clips = Sequence[NDArray[np.uint8]]


class Tracks(NamedTuple):
    """Where each digit seems to be in each frame.

    Attributes:
        presence: (..., digits) logit of being there at all.
        places: (..., digits, 2) x and y of its middle, -1 and 1 at the edges; of no meaning where it is not there.
    """

    presence: Tensor
    places: Tensor


class JudgeNetwork(nn.Module):
    """Features and a map of every digit in each frame; then, along the track of each digit, its motion.

    Args:
        widths: channels; each width halves the field.
        digits: how many are told apart.
        motions: how many are told apart, with "none of them" as the last.
        track: channels along a track.
    """

    centre: Tensor
    scale: Tensor
    grid: Tensor

    def __init__(self, widths: list[int], digits: int, motions: int, track: int) -> None:
        super().__init__()
        down = [_convolution(a, b, 2) for a, b in itertools.pairwise([1, *widths])]
        same = [_convolution(b, b, 1) for b in widths[1:]]
        self.down, self.same = nn.ModuleList(down), nn.ModuleList(same)
        self.last = _convolution(widths[-1], widths[-1], 1)
        self.maps = nn.Conv2d(widths[-1], digits, 1)
        self.along = nn.ModuleList(
            nn.Conv1d(4 if i == 0 else track, track, 5, padding=2 * 2**i, dilation=2**i) for i in range(3)
        )
        self.hidden = nn.Linear(2 * track, track)
        self.motion = nn.Linear(track, motions)
        self.register_buffer("centre", torch.zeros(widths[-1] + track))
        self.register_buffer("scale", torch.ones(widths[-1] + track))
        side = SIZE >> len(widths)
        middles = (torch.arange(side) + 0.5) * 2 / side - 1
        self.register_buffer("grid", torch.cartesian_prod(middles, middles).flip(1), persistent=False)

    def maps_of(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """(n, channels, s, s) features and (n, digits, s, s) logits of being there, of (n, SIZE, SIZE) from 0 to 1."""
        x = self.down[0](frames[:, None])
        for down, same in zip(self.down[1:], self.same, strict=True):
            x = down(x)
            x = x + same(x)
        x = x + self.last(x)
        return x, self.maps(x)

    def tracks(self, maps: Tensor) -> Tracks:
        """Of (..., digits, s, s) logits."""
        flat = maps.flatten(-2)
        return Tracks(flat.logsumexp(-1) - 4.0, flat.softmax(-1) @ self.grid)

    def motions_of(self, tracks: Tracks) -> tuple[Tensor, Tensor]:
        """(n, digits, track) embedding and (n, digits, motions) logits, of tracks of (n, frames, digits).

        Places count as much as the digit is seen, and from the middle of the track: where it is tells nothing.
        """
        seen = tracks.presence.sigmoid()[..., None]
        middle = (seen * tracks.places).sum(1, keepdim=True) / (seen.sum(1, keepdim=True) + 1e-3)
        n, frames, digits = tracks.presence.shape
        time = torch.linspace(-1, 1, frames, device=seen.device).view(1, frames, 1, 1).expand_as(seen)
        x = torch.cat([seen * (tracks.places - middle) * 4, seen, time], -1).permute(0, 2, 3, 1).flatten(0, 1)
        for i, layer in enumerate(self.along):
            y = F.relu(layer(x))
            x = y if i == 0 else x + y
        hidden = F.relu(self.hidden(torch.cat([x.mean(-1), x.amax(-1)], -1))).unflatten(0, (n, digits))
        return hidden, self.motion(hidden)


def _convolution(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    kernel = 5 if inputs == 1 else 3
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


@dataclass(frozen=True, eq=False)
class Seen:
    """What a judge makes of clips.

    Attributes:
        frames: of each clip (frames, 10), how likely it is that each digit is there.
        motions: (n, 10, 9) probabilities of each of `MOTIONS`, and of none of them, if the digit is there.
        features: (n, d) embedding.
    """

    frames: list[Array]
    motions: Array
    features: Array

    @property
    def digits(self) -> Array:
        """(n, 10): share of the frames in which each digit is seen."""
        return np.stack([p.mean(0) for p in self.frames]) if self.frames else np.zeros((0, 10))

    def named(self, i: int, count: int) -> list[tuple[int, str]]:
        """The `count` digits that are seen most in clip i, with their motions ("" for none of `MOTIONS`)."""
        found = np.sort(np.argsort(-self.digits[i])[:count])
        return [(int(d), (*MOTIONS, "")[int(self.motions[i, d].argmax())]) for d in found]


@dataclass(frozen=True, eq=False)
class Judge:
    """A trained network.

    Attributes:
        network: in evaluation mode.
        config: all of its config.json, with the accuracy on digits of the test split.
    """

    network: JudgeNetwork
    config: Mapping[str, Any]

    @classmethod
    def load(cls, name: str | Path = "digits") -> Judge:
        """One that ships (see `names`), or a folder that `judge_training` wrote.

        Raises:
            InputError: there is none of that name, or it is damaged.
        """
        folder = JUDGES / name if name in names() else Path(name)
        if not folder.exists():
            raise unknown("judge", str(name), [*names(), "a folder"])
        config, tensors = checkpoint.read(folder)
        if config.get("kind") != "judge" or config.get("domain") != "video":
            raise InputError(f"{folder} is no judge of videos; judges that ship: {', '.join(names())}")
        whole = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
        network: Any = checkpoint.build_module(config.get("network"), whole, COMPONENTS, folder)
        return cls(network.eval(), config)

    def look(self, clips: Clips) -> Seen:
        """Digits, motions and embedding of clips of (frames, height, width, channels).

        The digits are those of all frames, motion and embedding those of the first FRAMES frames: a longer clip is
        judged a window at a time by whoever cuts it.
        """
        pictures = [ready(clip) for clip in clips]
        lengths = [len(p) for p in pictures]
        pooled, tracks = self.frames(torch.cat([torch.zeros(0, SIZE, SIZE, dtype=torch.uint8), *pictures]))
        features, motions = self._clips(pooled, tracks, lengths)
        presence = tracks.presence.sigmoid().double().split(lengths)
        return Seen([p.numpy() for p in presence], motions, features)

    @torch.inference_mode()
    def frames(self, pictures: Tensor) -> tuple[Tensor, Tracks]:
        """(n, channels) mean features of frames (n, SIZE, SIZE) uint8, and the tracks' points."""
        found = []
        for part in pictures.split(FRAMES_AT_ONCE):
            x, maps = self.network.maps_of(part.float() / 255)
            found.append((x.mean((-2, -1)), *self.network.tracks(maps)))
        pooled, presence, places = (torch.cat(parts) for parts in zip(*found, strict=True))
        return pooled, Tracks(presence, places)

    @torch.inference_mode()
    def _clips(self, pooled: Tensor, tracks: Tracks, lengths: Sequence[int]) -> tuple[Array, Array]:
        """Embedding and motions; clips of one length together."""
        net = self.network
        features = np.zeros((len(lengths), len(net.centre)))
        motions = np.zeros((len(lengths), tracks.presence.shape[-1], net.motion.out_features))
        starts = np.cumsum([0, *lengths])
        shown = [min(length, FRAMES) for length in lengths]
        for length in sorted(set(shown)):
            clips = [i for i, s in enumerate(shown) if s == length]
            rows = torch.tensor([[int(starts[i]) + t for t in range(length)] for i in clips])
            part = Tracks(tracks.presence[rows], tracks.places[rows])
            hidden, logits = net.motions_of(part)
            there = part.presence.sigmoid().mean(1)[..., None]
            whole = torch.cat([pooled[rows].mean(1), (there * hidden).sum(1)], 1)
            features[clips] = ((whole - net.centre) / net.scale).double().numpy()
            motions[clips] = logits.softmax(-1).double().numpy()
        return features, motions


def names() -> list[str]:
    """The judges that ship."""
    return sorted(path.parent.name for path in JUDGES.glob(f"*/{checkpoint.CONFIG}"))


def ready(clip: NDArray[np.uint8]) -> Tensor:
    """(frames, SIZE, SIZE) uint8: gray, resized where it has another size.

    Args:
        clip: (frames, height, width, channels), at least one frame.
    """
    gray = torch.from_numpy(np.ascontiguousarray(clip)).float().mean(-1)
    if gray.shape[1:] != (SIZE, SIZE):
        gray = F.interpolate(gray[:, None], (SIZE, SIZE), mode="bilinear", antialias=True, align_corners=False)[:, 0]
    return gray.round().clamp(0, 255).byte()
