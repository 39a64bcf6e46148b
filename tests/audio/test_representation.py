"""A sound survives its representation, at every length, and does not depend on what it is padded with."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from multidiff.errors import InputError
from multidiff_audio.representation import ComplexSTFT, LogMel

FOLDS = [(1, 1), (2, 2), (4, 1), (1, 4), (3, 2)]
LENGTHS = [1, 2, 127, 128, 129, 255, 383, 1000, 8001, 24_000]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sounds(samples: int, channels: int = 1, rate: int = 8000) -> dict[str, Tensor]:
    """(1, channels, samples) each: loud noise, a tone, and pulses through a resonance with pauses, as in speech."""
    t = torch.arange(samples) / rate
    pulses = torch.zeros(samples)
    pulses[:: rate // 120] = 1.0
    kernel = (0.98 ** torch.arange(400.0)) * torch.sin(2 * torch.pi * 700 / rate * torch.arange(400.0))
    speech = torch.nn.functional.conv1d(pulses[None, None], kernel.flip(0)[None, None], padding=399)[0, 0, :samples]
    speech = speech * (torch.sin(2 * torch.pi * 3 * t) > -0.3)
    alone = {"noise": 0.9 * noise(samples).clamp(-1, 1), "tone": 0.8 * torch.cos(2 * torch.pi * 440 * t)}
    alone["speech"] = speech if speech.any() else alone["tone"]
    return {name: torch.stack([s * 0.7**k for k in range(channels)])[None] for name, s in alone.items()}


def error(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def without_nyquist(sound: Tensor, n_fft: int, hop: int) -> Tensor:
    """What torch's own transforms leave of a sound whose highest band is set to zero."""
    window = torch.hann_window(n_fft)
    frames = -(-sound.shape[-1] // hop) + 3  # one more than touch it, on either side
    padded = torch.nn.functional.pad(sound[0], (0, frames * hop - sound.shape[-1]))
    spectrum = torch.stft(padded, n_fft, hop, window=window, pad_mode="constant", return_complex=True)
    spectrum[:, -1] = 0
    return torch.istft(spectrum, n_fft, hop, window=window, length=frames * hop)[None, :, : sound.shape[-1]]


@pytest.mark.parametrize("fold", FOLDS)
@pytest.mark.parametrize("channels", [1, 2])
def test_complex_round_trip(fold: tuple[int, int], channels: int) -> None:
    """All of a sound comes back but for the band at half the rate."""
    r = ComplexSTFT(8000, channels, fold_time=fold[0], fold_frequency=fold[1], scale=0.37)
    for samples in LENGTHS:
        for name, sound in sounds(samples, channels).items():
            state = r.encode(sound)
            assert state.shape == (1, r.rows(samples), *r.shape)
            back = r.decode(state, samples)
            assert back.shape == sound.shape
            assert error(back, without_nyquist(sound, 256, 128)) < 1e-4, (name, samples)
            assert error(back, sound) < (0.1 if name == "noise" else 0.01), (name, samples)


@pytest.mark.parametrize(("n_fft", "hop"), [(256, 128), (256, 64), (254, 100), (512, 256), (64, 32)])
def test_a_sound_without_the_highest_band_comes_back_whole(n_fft: int, hop: int) -> None:
    r = ComplexSTFT(8000, n_fft=n_fft, hop=hop, fold_frequency=1, exponent=0.5)
    for samples in (1001, 5000, 24_000):
        fade = torch.hann_window(samples)
        for pitch in (60, 440, 3000):
            tone = 0.9 * fade * torch.cos(2 * torch.pi * pitch / 8000 * torch.arange(samples))
            assert error(r.decode(r.encode(tone[None, None]), samples), tone) < 1e-4


@pytest.mark.parametrize("make", [ComplexSTFT, LogMel])
def test_as_long_as_asked(make: Any) -> None:
    r = make(8000)
    state = noise(2, 7, *r.shape)
    whole = r.decode(state)
    assert whole.shape == (2, 1, r.samples(7))
    for samples in (1, 500, r.samples(7) - 1, r.samples(7)):
        assert r.rows(samples) <= 7
        assert torch.equal(r.decode(state, samples), whole[..., :samples])


@pytest.mark.parametrize("fold_time", [1, 2, 3])
def test_rows_and_samples(fold_time: int) -> None:
    """The longest sound of so many rows has that many, and one sample more needs another."""
    r = ComplexSTFT(8000, fold_time=fold_time)
    for rows in range(2, 9):
        assert r.rows(r.samples(rows)) == rows
        assert r.rows(r.samples(rows) + 1) == rows + 1
    assert r.rows(1) >= 1


@pytest.mark.parametrize("fold", FOLDS)
def test_padding_is_exactly_zero_and_changes_nothing(fold: tuple[int, int]) -> None:
    r = ComplexSTFT(8000, fold_time=fold[0], fold_frequency=fold[1])
    for samples in (1, 127, 128, 129, 1000):
        sound = sounds(samples)["noise"]
        alone = r.encode(sound)
        padded = r.encode(torch.nn.functional.pad(sound, (0, 3000)))
        torch.testing.assert_close(padded[:, : r.rows(samples)], alone, rtol=1e-5, atol=1e-6)
        assert not padded[:, r.rows(samples) :].any()


@pytest.mark.parametrize("r", [ComplexSTFT(8000), LogMel(8000), ComplexSTFT(8000, hop=64)])
def test_alone_and_in_a_padded_batch(r: Any) -> None:
    lengths = (300, 1000, 5000)
    batch = torch.zeros(3, 1, max(lengths))
    for row, n in zip(batch, lengths, strict=True):
        row[:, :n] = sounds(n)["speech"][0] + 0.01 * noise(1, n)
    together = r.encode(batch)
    for row, state, n in zip(batch, together, lengths, strict=True):
        alone = r.encode(row[None, :, :n])[0]
        torch.testing.assert_close(state[: len(alone)], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fold", FOLDS)
@pytest.mark.parametrize("make", [ComplexSTFT, LogMel])
def test_folding_moves_numbers_and_loses_none(fold: tuple[int, int], make: Any) -> None:
    r = make(8000, 2, fold_time=fold[0], fold_frequency=fold[1])
    parts, frames = r.parts * r.channels, 3 * r.fold_time
    x = torch.arange(parts * r.bands * frames, dtype=torch.float64).reshape(1, parts, r.bands, frames)
    folded = r._fold(x)
    assert folded.shape == (1, 3, *r.shape)
    assert torch.equal(folded.flatten().sort().values, x.flatten())
    assert torch.equal(r._unfold(folded), x)
    of_row = folded[0, 1].flatten().sort().values  # a row is its frames, whole
    assert torch.equal(of_row, x[..., fold[0] : 2 * fold[0]].flatten().sort().values)


def test_a_louder_sound_is_a_scaled_state() -> None:
    r = ComplexSTFT(8000, exponent=0.3)
    sound = sounds(2000)["speech"]
    torch.testing.assert_close(r.encode(2 * sound), 2**0.3 * r.encode(sound), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 2])
def test_log_mel_comes_back_alike_in_magnitude(channels: int) -> None:
    r = LogMel(8000, channels, n_fft=512, hop=128, offset=-2.0, scale=1.5)

    def amplitude(sound: Tensor) -> Tensor:
        return (r._unfold(r.encode(sound) * r.scale) + r.offset).exp()

    for name, sound in sounds(8000, channels).items():
        again = r.decode(r.encode(sound), 8000)
        limit = 0.3 if name == "noise" else 0.1  # phases that fit noise are hard to find
        assert error(amplitude(again), amplitude(sound)) < limit, name


def test_log_mel_decodes_the_same_each_time() -> None:
    r = LogMel(8000)
    state = noise(1, 5, *r.shape)
    torch.manual_seed(1)
    first = r.decode(state)
    assert torch.equal(first, r.decode(state))
    assert first.isfinite().all()


def test_log_mel_of_an_absurd_state_is_finite() -> None:
    r = LogMel(8000)
    assert r.decode(torch.full((1, 5, *r.shape), 1e4)).isfinite().all()


def test_pauses_are_silent() -> None:
    for r in (ComplexSTFT(8000), LogMel(8000)):
        sound = sounds(8000)["speech"]
        sound[..., 3000:5000] = 0
        back = r.decode(r.encode(sound), 8000)
        assert float(back[..., 3000 + r.n_fft : 5000 - r.n_fft].abs().max()) < 1e-6


def test_silence_is_silent() -> None:
    for r in (ComplexSTFT(8000), LogMel(8000)):
        back = r.decode(r.encode(torch.zeros(1, 1, 2000)), 2000)
        assert float(back.abs().max()) < 1e-6


@pytest.mark.parametrize(
    ("make", "sizes"),
    [
        (ComplexSTFT, {"rate": 0}),
        (ComplexSTFT, {"channels": 0}),
        (ComplexSTFT, {"n_fft": 255}),
        (ComplexSTFT, {"hop": 129}),
        (ComplexSTFT, {"hop": 0}),
        (ComplexSTFT, {"fold_time": 0}),
        (ComplexSTFT, {"fold_frequency": 3}),
        (ComplexSTFT, {"scale": 0.0}),
        (ComplexSTFT, {"scale": float("nan")}),
        (ComplexSTFT, {"exponent": 0.0}),
        (ComplexSTFT, {"exponent": 1.5}),
        (LogMel, {"mels": 0}),
        (LogMel, {"mels": 81}),
        (LogMel, {"floor": 0.0}),
        (LogMel, {"iterations": 0}),
        (LogMel, {"offset": float("inf")}),
        (LogMel, {"scale": -1.0}),
    ],
)
def test_bad_sizes(make: Any, sizes: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        make(**{"rate": 8000, **sizes})
    assert "\n" not in str(caught.value)


def test_the_state_is_float32_whatever_comes() -> None:
    r = ComplexSTFT(8000)
    assert r.decode(noise(1, 4, *r.shape).bfloat16()).dtype == torch.float32
    made = r.decode(torch.zeros(1, 4, *r.shape))
    assert np.isfinite(made.numpy()).all()
