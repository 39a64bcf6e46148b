"""Curves against sounds whose loudness, pitch and brightness are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from multidiff_audio.curves import HIGHEST, LOWEST, by_row, curves, scaled
from multidiff_audio.layers import CURVES

HOP, FRAMES = 128, 50
INNER = slice(6, 44)  # frames whose windows lie inside the sound


def time(rate: int) -> Tensor:
    return torch.arange(FRAMES * HOP) / rate


def tone(pitch: float, rate: int, harmonics: int = 1, amplitude: float = 0.5) -> Tensor:
    parts = [torch.cos(2 * math.pi * k * pitch * time(rate) + k) / k for k in range(1, harmonics + 1)]
    return amplitude * torch.stack([p for k, p in enumerate(parts, 1) if k * pitch < 0.45 * rate]).sum(0)


def of(sound: Tensor, rate: int, curve: str) -> Tensor:
    """A curve in dB or Hz; 0 Hz where there is no pitch."""
    values = curves(sound[None], rate, HOP, FRAMES)[0, INNER, CURVES.index(curve)]
    if curve == "loudness":
        return 30 * values - 30
    if curve == "pitch":
        return torch.where(values == 0, 0.0, 150 * 2**values)
    return 1000 * 4**values


def test_shape_and_place() -> None:
    """Frame k is centred on sample k * hop, whatever comes after the end."""
    click = torch.zeros(2, FRAMES * HOP)
    click[0, 20 * HOP] = click[1, 31 * HOP] = 1.0
    values = curves(click, 8000, HOP, FRAMES + 5)
    assert values.shape == (2, FRAMES + 5, 3)
    assert values[..., 0].argmax(1).tolist() == [20, 31]
    assert values.isfinite().all()


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050])
@pytest.mark.parametrize("harmonics", [1, 8])
@pytest.mark.parametrize("pitch", [62, 75, 110, 149, 233, 300, 440, 480])
def test_pitch(pitch: float, harmonics: int, rate: int) -> None:
    found = of(tone(pitch, rate, harmonics), rate, "pitch")
    limit = 0.02 if pitch > 70 else 0.03  # few periods fit the window
    assert float((found / pitch - 1).abs().max()) < limit


@pytest.mark.parametrize("pitch", [20, 35, 45])
def test_a_hum_below_the_lowest_pitch_is_not_taken_for_the_highest(pitch: float) -> None:
    assert pitch < LOWEST
    found = of(tone(pitch, 8000), 8000, "pitch")
    assert float(found.max()) < HIGHEST / 2


def test_noise_and_silence_have_no_pitch() -> None:
    noise = 0.3 * torch.randn(FRAMES * HOP, generator=torch.Generator().manual_seed(0))
    assert float((of(noise, 8000, "pitch") > 0).float().mean()) < 0.05
    silent = curves(torch.zeros(1, FRAMES * HOP), 8000, HOP, FRAMES)[0]
    assert not silent[:, 1:].any()
    assert float(silent[:, 0].max()) < -2  # -90 dB
    faint = 1e-4 * tone(200, 8000)
    assert not of(faint, 8000, "pitch").any()


@pytest.mark.parametrize("amplitude", [1.0, 0.5, 0.1, 0.01])
def test_loudness(amplitude: float) -> None:
    """A sine's root mean square is 3.01 dB below its amplitude."""
    found = of(tone(250, 8000, amplitude=amplitude), 8000, "loudness")
    assert float((found - 20 * math.log10(amplitude) + 3.01).abs().max()) < 0.1


def test_loudness_follows_a_fade() -> None:
    fade = 10 ** (-time(8000) / time(8000)[-1])  # 20 dB
    found = of(tone(250, 8000) * fade, 8000, "loudness")
    assert float((found.diff() + 20 / FRAMES).abs().max()) < 0.1


@pytest.mark.parametrize("pitch", [200, 1000, 3000])
def test_brightness_of_a_tone(pitch: float) -> None:
    found = of(tone(pitch, 8000), 8000, "brightness")
    assert float((found / pitch - 1).abs().max()) < 0.03


def test_brightness_orders_sounds() -> None:
    noise = torch.randn(FRAMES * HOP, generator=torch.Generator().manual_seed(0))
    muffled = torch.nn.functional.avg_pool1d(noise[None], 9, 1, 4)[0]
    assert float(of(muffled, 8000, "brightness").median()) < 0.8 * float(of(noise, 8000, "brightness").median())


def test_a_louder_sound_differs_in_loudness_alone() -> None:
    sound = tone(200, 8000, 5)
    quiet, loud = (curves(gain * sound[None], 8000, HOP, FRAMES)[0, INNER] for gain in (0.1, 1.0))
    torch.testing.assert_close(loud[:, 1:], quiet[:, 1:], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(loud[:, 0] - quiet[:, 0], torch.full((38,), 20 / 30), rtol=1e-3, atol=1e-3)


def test_values_are_of_unit_size() -> None:
    values = curves(torch.stack([tone(p, 8000, 6) for p in (80, 150, 300)]), 8000, HOP, FRAMES)
    assert float(values.abs().max()) < 2.1


@pytest.mark.parametrize("name", CURVES)
def test_numbers_that_a_user_gives_are_scaled_alike(name: str) -> None:
    sound = tone(220, 8000, 4)
    measured = curves(sound[None], 8000, HOP, FRAMES)[0, INNER, CURVES.index(name)]
    in_units = of(sound, 8000, name).double().numpy()
    np.testing.assert_allclose(scaled(name, in_units), measured.numpy(), atol=1e-4)


def test_no_pitch_is_zero_hertz() -> None:
    assert scaled("pitch", np.array([0.0, 150.0, 300.0])).tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("fold", [1, 2, 3])
def test_by_row(fold: int) -> None:
    values = torch.arange(2 * 6 * 3.0).reshape(2, 6, 3)
    rows = by_row(values, fold)
    assert rows.shape == (2, 6 // fold, 3 * fold)
    again = rows.unflatten(-1, (3, fold)).transpose(2, 3).flatten(1, 2)  # curve by curve, as `Conditions` reads them
    assert torch.equal(again, values)
