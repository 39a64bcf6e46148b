"""How near a sound is to the one it was made from: PESQ and STOI, by their packages (extra `audio-quality`)."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass

import numpy as np

from multidiff import domain
from multidiff_audio.sound import Sound, mix, resample

_BANDS = {8_000: "nb", 16_000: "wb"}


@dataclass(frozen=True)
class Fidelity:
    """Of one sound to another.

    Attributes:
        pesq: mean opinion score, up to 4.55 (narrow band, ITU-T P.862) or 4.64 (wide band, P.862.2).
        stoi: share of intelligible speech, up to 1 (Taal et al. 2011); NaN for less than 0.4 s that is not silent.
        snr: dB of the sound above the difference; infinite where there is none.
    """

    pesq: float
    stoi: float
    snr: float


def fidelity(original: Sound, made: Sound, rate: int) -> Fidelity:
    """Compare two sounds of (channels, samples), as long as the shorter one, in mono.

    PESQ knows two rates: at 8 kHz it is narrow band; any other sound is brought to 16 kHz and is wide band. It is NaN
    for what it cannot judge: less than a quarter of a second, or no speech.

    Raises:
        InputError: a package is not installed; says which extra brings it.
    """
    pesq, stoi = domain.load("pesq:pesq"), domain.load("pystoi:stoi")
    errors = domain.load("pesq:PesqError")
    length = min(original.shape[1], made.shape[1])
    pair = [mix(sound[:, :length], 1)[0] for sound in (original, made)]
    to = rate if rate in _BANDS else 16_000
    heard = [resample(sound[None], rate, to)[0] for sound in pair]
    opinion = math.nan
    if all(wave.any() for wave in heard):
        with contextlib.suppress(errors, ValueError, ZeroDivisionError):
            opinion = float(pesq(to, *heard, _BANDS[to]))
    return Fidelity(opinion, _stoi(stoi, pair, rate), _snr(*pair))


def _stoi(stoi: object, pair: list[np.ndarray], rate: int) -> float:
    import warnings

    assert callable(stoi)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)  # it gives 1e-5 with a warning for too short a sound
        try:
            return float(stoi(*pair, rate, extended=False))
        except (RuntimeWarning, ValueError, IndexError):
            return math.nan


def _snr(original: np.ndarray, made: np.ndarray) -> float:
    signal, error = (float(np.square(x, dtype=np.float64).sum()) for x in (original, original - made))
    return math.inf if error == 0 else 10 * math.log10(signal / error) if signal else -math.inf
