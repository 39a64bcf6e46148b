"""Pictures of sounds."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from multidiff_audio.render import (
    CARD,
    GAP,
    HEIGHT,
    LEFT,
    TOP,
    WAVE,
    WIDTH,
    _mel_power,
    colours,
    hertz_to_mel,
    mel_to_hertz,
    spectrograms_png,
    ticks,
)

RATE = 16000


def tone(hertz: float, seconds: float = 1.0, amplitude: float = 0.3) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    return (amplitude * np.sin(2 * np.pi * hertz * time)).astype(np.float32)[None]


def page(*sounds: np.ndarray, **text: object) -> Image.Image:
    return Image.open(io.BytesIO(spectrograms_png(sounds, RATE, ["title"] * len(sounds), text)))


def plot(picture: Image.Image, k: int = 0) -> np.ndarray:
    """(HEIGHT, WIDTH) brightness of the k-th spectrogram."""
    left, top = GAP + k % 4 * (CARD[0] + GAP) + LEFT, GAP + k // 4 * (CARD[1] + GAP) + TOP + WAVE + 6
    return np.asarray(picture.convert("L"), np.float64)[top : top + HEIGHT, left : left + WIDTH]


@pytest.mark.parametrize("hertz", [150.0, 440.0, 1000.0, 3000.0, 7000.0])
def test_a_tone_is_a_line_at_its_height(hertz: float) -> None:
    shown = plot(page(tone(hertz)))[:, 20:-20].mean(1)
    expected = (HEIGHT - 1) * (1 - hertz_to_mel(hertz) / hertz_to_mel(RATE / 2))
    rows = np.flatnonzero(shown >= shown.max() - 1)
    assert abs(rows.mean() - expected) <= 2


def test_colours_are_decibels() -> None:
    """Two tones, one 20 dB below the other: 20/75 of the colours apart, whatever the level."""
    for gain in (1.0, 0.01):
        sound = gain * (tone(500, 2.0) + np.where(np.arange(2 * RATE) < RATE, 0, 1) * -0.9 * tone(500, 2.0))
        power = _mel_power(sound, RATE)
        level = 10 * np.log10(power.max(0) / power.max())
        quarter = len(level) // 4
        assert level[quarter] == pytest.approx(0, abs=0.1)
        assert level[3 * quarter] == pytest.approx(-20, abs=0.1)
        shown = plot(page(sound)).max(0)
        light = np.asarray(Image.fromarray(colours()[None]).convert("L"))[0]
        assert shown[WIDTH // 4] == pytest.approx(light[255], abs=3)
        assert shown[3 * WIDTH // 4] == pytest.approx(light[round(255 * (1 - 20 / 75))], abs=4)


def test_bands_of_white_noise_are_all_alike() -> None:
    noise = np.random.default_rng(0).normal(size=(1, 20 * RATE)).astype(np.float32)
    mean = 10 * np.log10(_mel_power(noise, RATE).mean(1))
    assert np.ptp(mean[2:-2]) < 2


def test_colours_get_lighter_evenly() -> None:
    linear = (colours() / 255.0) ** 2.2 @ np.array([0.2126, 0.7152, 0.0722])
    lightness = 116 * np.cbrt(linear) - 16
    steps = np.diff(lightness)
    assert (steps > -0.05).all()
    slopes = np.array([part.sum() for part in np.array_split(steps, 8)])
    assert slopes.min() > 0.6 * slopes.mean()
    assert slopes.max() < 1.5 * slopes.mean()


def test_all_have_the_same_time_axis() -> None:
    picture = page(tone(440, 2.0), tone(440, 0.5))
    empty = plot(picture, 1)[:, -10:].mean()
    assert empty > 240
    filled = (np.abs(plot(picture, 1) - empty) > 1).any(0)
    assert filled.sum() == pytest.approx(WIDTH / 4, abs=1)
    assert (np.abs(plot(picture, 0) - empty) > 1).any(0).all()


def test_the_recipe_is_in_the_file() -> None:
    picture = page(tone(440), recipe={"seed": 3, "prompt": "é 🐶"}, note="words")
    assert json.loads(picture.info["recipe"]) == {"seed": 3, "prompt": "é 🐶"}
    assert picture.info["note"] == "words"


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 16, 20])
def test_grid(count: int) -> None:
    picture = page(*[tone(440, 0.05)] * count)
    columns, rows = min(4, max(1, count)), min(4, max(1, -(-count // 4)))
    assert picture.size == (columns * (CARD[0] + GAP) + GAP, rows * (CARD[1] + GAP) + GAP)


@pytest.mark.parametrize("samples", [0, 1, 10, 100])
@pytest.mark.parametrize("rate", [8000, 16000, 44100, 192000])
def test_short_silent_and_broken_sounds(samples: int, rate: int) -> None:
    sounds = [np.full((2, samples), value, np.float32) for value in (0.0, 0.5, np.nan, np.inf, 1e30)]
    assert Image.open(io.BytesIO(spectrograms_png(sounds, rate, [""] * 5))).size


@pytest.mark.parametrize(
    "title", ["", "word " * 20_000, "🐶" * 1000, "\0\n\x1b[31m", "שלום \u202e", "a\udc80b", ("one", "two\nthree")]
)
def test_any_title(title: str | tuple[str, str]) -> None:
    assert Image.open(io.BytesIO(spectrograms_png([tone(440, 0.1)], RATE, [title]))).size


@pytest.mark.parametrize("seconds", [0.001, 0.05, 0.6, 0.99, 1.0, 2.04, 5.0, 12.0, 95.0, 600.0])
def test_ticks_are_few_and_round(seconds: float) -> None:
    times = ticks(seconds)
    assert times[0] == 0
    assert 3 <= len(times) <= 9
    assert times[-1] <= seconds * 1.001
    assert times[-1] > 0.6 * seconds
    assert len(f"{times[1]:g}") <= 6


def test_mel_scale_and_its_inverse() -> None:
    assert hertz_to_mel(1000) == pytest.approx(1000, abs=0.1)  # which is how the scale is defined
    hertz = np.linspace(0, 8000, 50)
    assert np.allclose(mel_to_hertz(hertz_to_mel(hertz)), hertz)


def test_a_long_sound_takes_little_memory() -> None:
    import tracemalloc

    sound = np.zeros((1, 4_000_000), np.float32)
    tracemalloc.start()
    _mel_power(sound, 44100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6
