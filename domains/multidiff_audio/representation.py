"""Sounds as what is diffused: rows of a spectrogram, one after the other in time, and back.

A state is (B, rows, C, F): each row holds `fold_time` neighbouring frames and F groups of `fold_frequency`
neighbouring bands, whose members are channels. Folding moves numbers and loses nothing; it makes the grid that a
network works on smaller.

`ComplexSTFT` keeps phase and so needs no vocoder; its compression of amplitudes makes quiet bands count.
`LogMel` keeps the loudness of mel bands alone; Griffin-Lim finds a phase for them, with hints where something is known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from multidiff.errors import InputError
from multidiff_audio.inversion import NONE, Hints, griffin_lim, nonnegative_solution

if TYPE_CHECKING:
    from torch import nn

_CEILING = 20.0  # of the logarithm of an amplitude: far above full scale, and finite


@dataclass(frozen=True)
class _Frames:
    """Frames every `hop` samples, each `n_fft` long, the first centred on the first sample.

    Attributes:
        rate: samples a second.
        channels: 1 mono, 2 stereo.
        n_fft: samples in a frame.
        hop: samples from one frame to the next.
        fold_time: neighbouring frames in a row.
        fold_frequency: neighbouring bands in a group.
        scale: what the state is divided by, so that its deviation over the training data is 1.
    """

    rate: int
    channels: int = 1
    n_fft: int = 256
    hop: int = 128
    fold_time: int = 2
    fold_frequency: int = 2
    scale: float = 1.0

    def __post_init__(self) -> None:
        whole = (self.rate, self.channels, self.n_fft, self.hop, self.fold_time, self.fold_frequency, self.bands)
        if min(whole) < 1 or not (math.isfinite(self.scale) and self.scale > 0):
            raise InputError(f"sizes of a spectrogram must be positive, not {self}")
        if self.n_fft % 2 or self.hop > self.n_fft // 2 or self.bands % self.fold_frequency:
            raise InputError(
                f"a spectrogram needs an even n_fft {self.n_fft}, a hop {self.hop} of at most half of it, and a "
                f"fold_frequency {self.fold_frequency} that divides its {self.bands} bands"
            )

    @property
    def bands(self) -> int:
        """Frequency bands of a frame, before folding."""
        raise NotImplementedError

    @property
    def parts(self) -> int:
        """Numbers for each channel, frame and band: 2 where the spectrogram is complex."""
        return 1

    @property
    def shape(self) -> tuple[int, int]:
        """C and F of a state's rows."""
        channels = self.parts * self.channels * self.fold_time * self.fold_frequency
        return channels, self.bands // self.fold_frequency

    def rows(self, samples: int) -> int:
        """Rows of a sound of so many samples."""
        return math.ceil((math.ceil(samples / self.hop) + 1) / self.fold_time)

    def samples(self, rows: int) -> int:
        """The longest sound that has so many rows."""
        return (rows * self.fold_time - 1) * self.hop

    def _padded(self, sounds: Tensor) -> Tensor:
        missing = self.samples(self.rows(sounds.shape[-1])) - sounds.shape[-1]
        return torch.nn.functional.pad(sounds, (0, missing))

    @cached_property
    def _analysis(self) -> nn.Module:
        from torchaudio.transforms import Spectrogram

        return Spectrogram(self.n_fft, hop_length=self.hop, power=None, pad_mode="constant")

    @cached_property
    def _synthesis(self) -> nn.Module:
        from torchaudio.transforms import InverseSpectrogram

        return InverseSpectrogram(self.n_fft, hop_length=self.hop)

    def _fold(self, x: Tensor) -> Tensor:
        """(B, P, bands, frames) -> (B, rows, C, F)."""
        b, p, bands, frames = x.shape
        f, t = self.fold_frequency, self.fold_time
        x = x.reshape(b, p, bands // f, f, frames // t, t).permute(0, 4, 1, 3, 5, 2)
        return x.reshape(b, frames // t, p * f * t, bands // f)

    def _unfold(self, state: Tensor) -> Tensor:
        """The inverse of `_fold`."""
        b, rows, channels, groups = state.shape
        f, t = self.fold_frequency, self.fold_time
        x = state.reshape(b, rows, channels // (f * t), f, t, groups).permute(0, 2, 5, 3, 1, 4)
        return x.reshape(b, channels // (f * t), groups * f, rows * t)


@dataclass(frozen=True)
class ComplexSTFT(_Frames):
    """Real and imaginary part of |X|^exponent exp(i arg X) (EDMSound, Zhu et al. 2023, section 3.1).

    The band at half the sample rate is left out.

    Attributes:
        exponent: of the amplitude, in (0, 1].
    """

    exponent: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.exponent <= 1:
            raise InputError(f"the exponent of the amplitude must lie in (0, 1], not {self.exponent}")

    @property
    def bands(self) -> int:
        return self.n_fft // 2

    @property
    def parts(self) -> int:
        return 2

    def encode(self, sounds: Tensor) -> Tensor:
        """(B, channels, samples) -> (B, rows, C, F); what the last row has beyond the sound is silence."""
        spectrum = self._analysis.to(sounds.device)(self._padded(sounds))[..., :-1, :]
        compressed = spectrum * spectrum.abs().clamp(min=1e-9) ** (self.exponent - 1)
        return self._fold(torch.view_as_real(compressed).movedim(-1, 2).flatten(1, 2)) / self.scale

    def decode(self, state: Tensor, samples: int | None = None, hints: Hints = NONE) -> Tensor:
        """(B, rows, C, F) -> (B, channels, samples); by default all that the rows hold. It needs no hints."""
        whole = self.samples(state.shape[1])
        parts = self._unfold(state.float() * self.scale).unflatten(1, (self.channels, 2)).movedim(2, -1)
        compressed = torch.view_as_complex(parts.contiguous())
        spectrum = compressed * compressed.abs() ** (1 / self.exponent - 1)
        spectrum = torch.nn.functional.pad(spectrum, (0, 0, 0, 1))
        return self._synthesis.to(state.device)(spectrum, whole)[..., : whole if samples is None else samples]


@dataclass(frozen=True)
class LogMel(_Frames):
    """Logarithm of the amplitude in mel bands, its mean taken away.

    Attributes:
        mels: bands.
        offset: the mean of the logarithm over the training data.
        floor: amplitudes below it count as it.
        iterations: of `griffin_lim`.
    """

    mels: int = 80
    offset: float = 0.0
    floor: float = 1e-4
    iterations: int = 60

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.floor > 0 and self.iterations >= 1 and math.isfinite(self.floor + self.offset)):
            raise InputError(f"log-mel needs a floor above 0, a finite offset and an iteration or more, not {self}")

    @property
    def bands(self) -> int:
        return self.mels

    def encode(self, sounds: Tensor) -> Tensor:
        """(B, channels, samples) -> (B, rows, C, F)."""
        amplitude = self._mel.to(sounds.device)(self._padded(sounds))
        return self._fold(amplitude.clamp(min=self.floor).log() - self.offset) / self.scale

    def decode(self, state: Tensor, samples: int | None = None, hints: Hints = NONE) -> Tensor:
        """(B, rows, C, F) -> (B, channels, samples); by default all that the rows hold.

        Args:
            hints: of sounds of all that the rows hold.
        """
        whole = self.samples(state.shape[1])
        amplitude = (self._unfold(state.float() * self.scale) + self.offset).clamp(max=_CEILING).exp()
        amplitude = torch.where(amplitude > 1.01 * self.floor, amplitude, 0.0)
        bank: Tensor = self._mel.to(state.device).mel_scale.fb
        linear = nonnegative_solution(bank.T, amplitude)
        analysis, synthesis = self._analysis.to(state.device), self._synthesis.to(state.device)
        sounds = griffin_lim(linear, analysis, synthesis, whole, self.iterations, hints=hints)
        return sounds[..., : whole if samples is None else samples]

    @cached_property
    def _mel(self) -> Any:
        from torchaudio.transforms import MelSpectrogram

        sizes: dict[str, Any] = {"n_fft": self.n_fft, "hop_length": self.hop, "n_mels": self.mels}
        return MelSpectrogram(self.rate, **sizes, power=1.0, pad_mode="constant", mel_scale="slaney", norm="slaney")


Representation = ComplexSTFT | LogMel
REPRESENTATIONS: dict[str, Any] = {"ComplexSTFT": ComplexSTFT, "LogMel": LogMel}
"""What a checkpoint's configuration may name."""
