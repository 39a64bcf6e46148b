"""A small classifier of real sounds that judges generated ones: classes, and an embedding for distances.

It hears log-mel spectrograms of sounds brought to one rate, to mono and to one level, so that neither the format of a
file nor its loudness changes the answer. It is trained on the training split of real clips alone (`judge_training`).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from multidiff import checkpoint
from multidiff.errors import InputError, unknown
from multidiff_audio.sound import resample

if TYPE_CHECKING:
    from torchaudio.transforms import MelSpectrogram

JUDGES = Path(__file__).parent / "judges"
COMPONENTS = {"JudgeNetwork": "multidiff_audio.judge:JudgeNetwork"}
LONGEST = 30.0  # seconds of a sound that are heard
FLOOR = 1e-3  # added to the power in each band, where a sound of deviation 1 has some hundreds
FRAMES_AT_ONCE = 4000  # frames in a batch; the memory it takes is about 20 kB a frame
BIG_JOB = 1000  # sounds; from here on a bar shows the progress

Sounds = Sequence[NDArray[np.floating[Any]]]


class JudgeNetwork(nn.Module):
    """Convolutions over (bands, frames), pooled over the frames that a sound has, then one head for each attribute.

    Args:
        bands: of the spectrogram.
        classes: how many, for each attribute.
        widths: channels; each width after the first halves the bands and, but for the last, the frames.
        embedding: size of what the heads read.
        dropout: of the embedding, in training.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, bands: int, classes: list[int], widths: list[int], embedding: int, dropout: float = 0.2) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(bands, 1))
        self.register_buffer("scale", torch.ones(bands, 1))
        pairs = list(itertools.pairwise(widths))
        self.stem = _Convolution(1, widths[0], (1, 1))
        self.down = nn.ModuleList(
            _Convolution(a, b, (2, 1 if i == len(pairs) - 1 else 2)) for i, (a, b) in enumerate(pairs)
        )
        self.same = nn.ModuleList(_Convolution(b, b, (1, 1)) for _, b in pairs)
        for _ in pairs:
            bands = (bands + 1) // 2
        self.embed = nn.Linear(2 * bands * widths[-1], embedding)
        self.dropout = nn.Dropout(dropout)
        self.heads = nn.ModuleList(nn.Linear(embedding, n) for n in classes)

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Embedding (n, embedding) and logits (n, classes) of each attribute; what lies beyond `lengths` is not seen.

        Args:
            x: (n, bands, frames) log-mel.
            lengths: (n,) frames that each sound has, at least 1.
        """
        x = ((x - self.centre) / self.scale)[:, None]
        x, lengths = self.stem(x, lengths)
        for down, same in zip(self.down, self.same, strict=True):
            x, lengths = down(x, lengths)
            x = x + same(x, lengths)[0]
        x = x.flatten(1, 2)  # (n, channels x bands, frames), 0 beyond the lengths and at least 0 before
        pooled = torch.cat([x.sum(-1) / lengths[:, None], x.amax(-1)], 1)
        embedding = self.embed(pooled)
        return embedding, [head(self.dropout(embedding)) for head in self.heads]


class _Convolution(nn.Module):
    """Convolution, normalisation and ReLU that give 0 for frames a sound does not have, and do not read them."""

    def __init__(self, inputs: int, outputs: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.stride = stride[1]

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        y = F.relu(self.norm(self.convolution(x * _mask(x, lengths))))
        lengths = (lengths + self.stride - 1) // self.stride
        return y * _mask(y, lengths), lengths


def _mask(x: Tensor, lengths: Tensor) -> Tensor:
    return (torch.arange(x.shape[-1], device=x.device) < lengths[:, None])[:, None, None]


@dataclass(frozen=True, eq=False)
class Judge:
    """A trained network and how sounds are made ready for it.

    Attributes:
        network: in evaluation mode.
        classes: attribute -> names of its classes, in the order of the columns of `probabilities`.
        rate: samples a second that it hears.
        mel: n_fft, hop_length and n_mels of its spectrogram.
        config: all of its config.json, with the accuracy on real test clips.
    """

    network: JudgeNetwork
    classes: Mapping[str, tuple[str, ...]]
    rate: int
    mel: Mapping[str, int]
    config: Mapping[str, Any]

    @classmethod
    def load(cls, name: str | Path) -> Judge:
        """One that ships (see `names`), or a folder that `judge_training` wrote.

        Raises:
            InputError: there is none of that name, or it is damaged.
        """
        folder = JUDGES / name if name in names() else Path(name)
        if not folder.exists():
            raise unknown("judge", str(name), [*names(), "a folder"])
        config, tensors = checkpoint.read(folder)
        path = folder / checkpoint.CONFIG
        if config.get("kind") != "judge":
            raise InputError(f"{path} is no judge but a checkpoint of {config['domain']}; judges that ship: {names()}")
        classes = {a: tuple(c) for a, c in checkpoint.require(config, "classes", dict, path).items()}
        network: Any = checkpoint.build_module(config.get("network"), tensors, COMPONENTS, folder)
        rate, mel = (checkpoint.require(config, key, kind, path) for key, kind in (("rate", int), ("mel", dict)))
        return cls(network.eval(), classes, rate, mel, config)

    def features(self, sounds: Sounds, rate: int) -> NDArray[np.float64]:
        """(n, d): the embedding of each of n sounds of (channels, samples)."""
        return self._run(sounds, rate)[0]

    def probabilities(self, sounds: Sounds, rate: int) -> dict[str, NDArray[np.float64]]:
        """Attribute -> (n, classes), each row with the sum 1."""
        return self._run(sounds, rate)[1]

    def hear(self, sounds: Sounds, rate: int) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
        """`features` and `probabilities` in one go."""
        return self._run(sounds, rate)

    def _run(self, sounds: Sounds, rate: int) -> tuple[NDArray[np.float64], dict[str, NDArray[np.float64]]]:
        mels: list[Tensor] = [self.spectrogram(sound, rate) for sound in _bar(sounds, "spectrograms")]
        order = sorted(range(len(mels)), key=lambda i: mels[i].shape[-1])
        features = np.zeros((len(mels), self.network.embed.out_features))
        found = {name: np.zeros((len(mels), len(c))) for name, c in self.classes.items()}
        for rows in _batches(order, [m.shape[-1] for m in mels]):
            with torch.inference_mode():
                embedding, logits = self.network(*pad([mels[i] for i in rows]))
            features[rows] = embedding.double().numpy()
            for name, values in zip(found, logits, strict=True):
                found[name][rows] = values.double().softmax(-1).numpy()
        return features, found

    def spectrogram(self, sound: NDArray[np.floating[Any]], rate: int) -> Tensor:
        """(bands, frames) log10 of the power in each mel band, of the sound at deviation 1."""
        return spectrogram(ready(sound, rate, self.rate), self.rate, self.mel)


def names() -> list[str]:
    """The judges that ship."""
    return sorted(path.parent.name for path in JUDGES.glob(f"*/{checkpoint.CONFIG}"))


def ready(sound: NDArray[np.floating[Any]], rate: int, to: int) -> NDArray[np.float32]:
    """(samples,) at rate `to`: mono, at most LONGEST seconds, without its mean, of deviation 1 unless it is silent."""
    with np.errstate(over="ignore", invalid="ignore"):
        whole = np.nan_to_num(sound[:, : int(LONGEST * rate)].astype(np.float64), posinf=0.0, neginf=0.0)
    mono = np.clip(whole, -1e6, 1e6).mean(0) if whole.size else np.zeros(1)
    mono = resample(mono[None].astype(np.float32), rate, to)[0]
    mono = mono - mono.mean()
    return (mono / max(float(mono.std()), 1e-5)).astype(np.float32)


def spectrogram(wave: NDArray[np.float32], rate: int, mel: Mapping[str, int]) -> Tensor:
    """(bands, frames) of one (samples,) sound; frames are ``samples // hop_length + 1``."""
    transform = _transform(rate, mel["n_fft"], mel["hop_length"], mel["n_mels"])
    return (transform(torch.from_numpy(wave)) + FLOOR).log10()


@functools.cache
def _transform(rate: int, n_fft: int, hop_length: int, n_mels: int) -> MelSpectrogram:
    from torchaudio.transforms import MelSpectrogram

    return MelSpectrogram(
        rate, n_fft, hop_length=hop_length, n_mels=n_mels, f_min=20.0, center=True, pad_mode="constant"
    )


def pad(mels: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """(n, bands, longest or a little more) with 0 behind the shorter ones, and (n,) their frames.

    Whole multiples of eight frames: a CPU's convolutions are prepared, and kept, for each size that occurs.
    """
    lengths = torch.tensor([m.shape[-1] for m in mels])
    longest = -(-int(lengths.max()) // 8) * 8
    return torch.stack([F.pad(m, (0, longest - m.shape[-1])) for m in mels]), lengths


def _batches(order: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """Rows in the order of their lengths, as many as fit; one that is longer than all that fits goes alone."""
    batches: list[list[int]] = []
    for row in order:
        if batches and (len(batches[-1]) + 1) * lengths[row] <= FRAMES_AT_ONCE:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def _bar(sounds: Sounds, name: str) -> Any:
    return tqdm(sounds, name, unit="sound", disable=None if len(sounds) >= BIG_JOB else True)
