"""What a sound does over time: loudness, pitch, brightness, a number a frame each, to steer another sound by.

A known fault: the pitch curve is 0 both at 150 Hz and where there is no pitch (silence, noise, a consonant), and the
network cannot tell the two apart. Checkpoints are trained on these curves, so that another value for no pitch asks for
training them again.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from multidiff_audio.layers import CURVES

SILENCE = -60.0
"""dB below which a frame has neither pitch nor brightness."""

LOWEST, HIGHEST = 60.0, 500.0
"""Hz, of the pitches looked for."""


def curves(sounds: Tensor, rate: int, hop: int, frames: int) -> Tensor:
    """Loudness, pitch and brightness of each frame of mono sounds.

    Args:
        sounds: (B, samples).
        rate: samples a second.
        hop: samples from one frame to the next; frame k is centred on sample k * hop.
        frames: how many.

    Returns:
        (B, frames, 3), each scaled to about [-1, 1]: loudness (dB re full scale + 30) / 30; pitch log2(f0 / 150 Hz),
        and brightness log2(centroid / 1000 Hz) / 2. The latter two are 0 where a frame is silent, pitch also where it
        has none.
    """
    size = 2 ** math.ceil(math.log2(3 * rate / LOWEST))
    padded = torch.nn.functional.pad(sounds.float(), (size // 2, size // 2 + frames * hop))
    windows = padded.unfold(-1, size, hop)[:, :frames] * torch.hann_window(size, device=sounds.device)
    power = windows.square().sum(-1) / (3 / 8 * size)
    loudness = 10 * power.clamp(min=1e-10).log10()
    spectrum = torch.fft.rfft(windows, 2 * size)
    heard = loudness > SILENCE
    pitch = torch.where(heard, _pitch(spectrum, rate), 0.0)
    return torch.stack([(loudness + 30) / 30, pitch, torch.where(heard, _brightness(spectrum, rate), 0.0)], -1)


def scaled(name: str, values: np.ndarray) -> np.ndarray:
    """A curve in dB (loudness) or Hz (pitch, brightness) as `curves` scales it; 0 Hz is no pitch."""
    if name == "loudness":
        return (values + 30) / 30
    if name == "pitch":
        return np.where(values > 0, np.log2(np.maximum(values, 1.0) / 150), 0.0)
    return np.log2(np.maximum(values, 50.0) / 1000) / 2


def by_row(values: Tensor, fold_time: int) -> Tensor:
    """(B, frames, 3) -> (B, rows, 3 * fold_time), as `Conditions` reads them."""
    b, frames, count = values.shape
    assert count == len(CURVES)
    return values.reshape(b, frames // fold_time, fold_time, count).transpose(2, 3).flatten(2)


def _pitch(spectrum: Tensor, rate: int) -> Tensor:
    """The strongest peak of the autocorrelation between the lowest and the highest pitch; 0 where it is weak.

    The largest value alone would be the first one, the highest pitch, of all that rumbles below the lowest.
    """
    correlation = torch.fft.irfft(spectrum.abs().square())
    first, last = int(rate / HIGHEST), math.ceil(rate / LOWEST)
    before, here, after = (correlation[..., first + k : last + 1 + k] for k in (-1, 0, 1))
    strength, lag = torch.where((here >= before) & (here >= after), here, -math.inf).max(-1)
    voiced = strength > 0.4 * correlation[..., 0]
    return torch.where(voiced, (rate / (lag + first) / 150).log2(), 0.0)


def _brightness(spectrum: Tensor, rate: int) -> Tensor:
    """The centroid of the amplitude spectrum."""
    amplitude = spectrum.abs()
    frequencies = torch.linspace(0, rate / 2, spectrum.shape[-1], device=spectrum.device)
    centroid = (amplitude @ frequencies) / amplitude.sum(-1).clamp(min=1e-9)
    return (centroid.clamp(min=50) / 1000).log2() / 2
