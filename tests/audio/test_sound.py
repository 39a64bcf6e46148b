"""Sound files are read or refused in one line; resampling, mixing and levels are what they are by definition."""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("soundfile")
pytest.importorskip("torchaudio")

import soundfile

from multidiff.errors import InputError
from multidiff_audio.sound import SUFFIXES, header, level, load, mix, peak, read, remove_dc, resample

RATE = 8000


def sine(rate: int = RATE, seconds: float = 0.5, frequency: float = 440.0, channels: int = 1) -> np.ndarray:
    """(channels, samples); channel c has amplitude 0.5 / (c + 1)."""
    wave = np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)
    return np.stack([wave * 0.5 / (c + 1) for c in range(channels)]).astype(np.float32)


def wav(path: Path, sound: np.ndarray, rate: int = RATE, **kind: str) -> Path:
    soundfile.write(path, sound.T, rate, **kind)
    return path


@pytest.mark.parametrize(
    ("name", "subtype", "bits"),
    [
        ("a.wav", "PCM_16", 15),
        ("a.wav", "PCM_24", 23),
        ("a.wav", "FLOAT", 23),
        ("a.flac", "PCM_16", 15),
        ("a.aiff", "PCM_16", 15),
        ("a.au", "PCM_16", 15),
        ("a.caf", "PCM_24", 23),
        ("a.w64", "PCM_16", 15),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_lossless_files_come_back_to_the_last_bit(
    tmp_path: Path, name: str, subtype: str, bits: int, channels: int
) -> None:
    sound = sine(channels=channels)
    back, rate = read(wav(tmp_path / name, sound, 11025, subtype=subtype))
    assert rate == 11025
    assert back.dtype == np.float32
    assert back.shape == sound.shape
    assert np.abs(back - sound).max() <= 2.0**-bits
    assert Path(name).suffix in SUFFIXES


@pytest.mark.parametrize("name", ["a.ogg", "a.mp3"])
def test_lossy_files_come_back_nearly(tmp_path: Path, name: str) -> None:
    sound = sine(44100, channels=2)
    back, rate = read(wav(tmp_path / name, sound, 44100))
    assert rate == 44100
    # the encoder may delay the sound and add to its end: the best alignment counts
    correlation = np.correlate(back[0], sound[0, :8192], "valid")[: 44100 // 10].max()
    assert correlation > 0.98 * np.square(sound[0, :8192]).sum()
    assert sound.shape[1] <= back.shape[1] <= sound.shape[1] + 4608


def test_content_in_memory_is_read_as_the_file_is(tmp_path: Path) -> None:
    for name in ("a.wav", "a.flac", "a.ogg"):
        path = wav(tmp_path / name, sine())
        assert np.array_equal(load(path.read_bytes(), name).sound, load(path).sound)
        assert header(path.read_bytes()) == header(path) == (RATE, 0.5)


@pytest.mark.parametrize(("subtype", "note", "error"), [("PCM_U8", "8-bit", 2**-7), ("ULAW", "u-law", 0.02)])
def test_coarse_codecs_are_read_and_named(tmp_path: Path, subtype: str, note: str, error: float) -> None:
    reading = load(wav(tmp_path / "a.wav", sine(), subtype=subtype))
    assert reading.notes == (note,)
    assert np.abs(reading.sound - sine()).max() <= error


def test_big_endian_rifx(tmp_path: Path) -> None:
    samples = np.round(sine()[0] * 32767).astype(">i2").tobytes()
    form = struct.pack(">4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    data = struct.pack(">4sI", b"data", len(samples)) + samples
    body = b"WAVE" + form + data
    (tmp_path / "a.wav").write_bytes(struct.pack(">4sI", b"RIFX", len(body)) + body)
    sound, rate = read(tmp_path / "a.wav")
    assert rate == RATE
    assert np.abs(sound - sine()).max() < 1e-4


def test_six_channels_are_read_as_six(tmp_path: Path) -> None:
    sound = sine(48000, channels=6)
    back, _ = read(wav(tmp_path / "a.wav", sound, 48000, subtype="FLOAT"))
    assert np.array_equal(back, sound)


def test_samples_that_are_not_finite_become_zero_and_the_others_stay(tmp_path: Path) -> None:
    sound = sine()
    sound[0, [3, 100, 200]] = np.nan, np.inf, -np.inf
    reading = load(wav(tmp_path / "a.wav", sound, subtype="FLOAT"))
    assert reading.notes == ("not finite",)
    assert np.array_equal(reading.sound, np.where(np.isfinite(sound), sound, 0))


def test_clipping_offset_and_samples_beyond_full_scale_are_named(tmp_path: Path) -> None:
    assert load(wav(tmp_path / "a.wav", np.clip(4 * sine(), -1, 1))).notes == ("clipped",)
    assert load(wav(tmp_path / "a.wav", 4 * sine(), subtype="FLOAT")).notes == ("beyond full scale",)
    assert load(wav(tmp_path / "a.wav", sine() + 0.25)).notes == ("offset",)
    assert load(wav(tmp_path / "a.wav", sine())).notes == ()


def test_what_is_left_of_a_truncated_file_is_kept(tmp_path: Path) -> None:
    whole = wav(tmp_path / "whole.wav", sine()).read_bytes()
    (tmp_path / "a.wav").write_bytes(whole[:4043])  # 1999 samples and half of one
    reading = load(tmp_path / "a.wav")
    assert reading.notes == ("cut short",)
    assert np.array_equal(reading.sound, load(tmp_path / "whole.wav").sound[:, :1999])


def test_lengths_that_a_stream_could_not_know_are_no_damage(tmp_path: Path) -> None:
    samples = np.round(sine()[0] * 32767).astype("<i2").tobytes()
    (tmp_path / "a.wav").write_bytes(_header_alone(0xFFFFFFFF) + samples)
    reading = load(tmp_path / "a.wav")
    assert reading.notes == ()
    assert np.abs(reading.sound - sine()).max() < 1e-4


def test_flac_that_breaks_off_gives_its_beginning(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.uniform(-0.5, 0.5, (1, 60_000)).astype(np.float32)
    whole = wav(tmp_path / "whole.flac", noise).read_bytes()
    (tmp_path / "a.flac").write_bytes(whole[: len(whole) // 2])
    reading = load(tmp_path / "a.flac")
    assert "cut short" in reading.notes
    length = reading.sound.shape[1]
    assert 10_000 < length < 31_000
    assert np.array_equal(reading.sound, load(tmp_path / "whole.flac").sound[:, :length])


def _header_alone(data: int) -> bytes:
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", 36, b"WAVE") + form + struct.pack("<4sI", b"data", data)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"RIFF\x24\x00\x00\x00WAVEf", "is damaged"),
        (_header_alone(0), "holds no samples"),
        (_header_alone(8000), "holds no samples"),
        (b"this is a text, named as if it were sound\n" * 9, "is not a sound file"),
        ("a text in UTF-16\n".encode("utf-16"), "is not a sound file"),
        (b"\x00\x00\x00\x20ftypM4A \x00\x00\x02\x00" + bytes(100), "MP4 or AAC"),
        (b"fLaC" + bytes(60), "is damaged"),
        (b"\xff\xfb\x90\x00", "is damaged"),
    ],
)
def test_what_is_no_sound_is_refused_in_one_line(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "odd name.wav"
    path.write_bytes(content)
    with pytest.raises(InputError, match=why) as refused:
        read(path)
    assert "odd name.wav" in str(refused.value)
    assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match=why):
        load(content, "in memory")


def test_paths_that_are_no_file_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.wav"):
        with pytest.raises(InputError, match="cannot read"):
            read(path)


def test_rates_that_no_sound_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="claims a rate of 7 Hz"):
        read(wav(tmp_path / "a.wav", sine(), 7))


@pytest.mark.parametrize(("rate", "to"), [(44100, 16000), (8000, 44100), (22050, 8000), (16000, 16000), (48000, 8000)])
def test_resampling_keeps_frequency_amplitude_and_length(rate: int, to: int) -> None:
    sound = sine(rate, 0.4, 1000.0, channels=2)
    made = resample(sound, rate, to)
    assert made.shape == (2, math.ceil(sound.shape[1] * to / rate))
    inner = slice(made.shape[1] // 8, -made.shape[1] // 8)
    assert np.abs(made - sine(to, 0.4, 1000.0, channels=2)[:, : made.shape[1]])[:, inner].max() < 1e-3


def test_resampling_removes_what_the_lower_rate_cannot_hold() -> None:
    high = sine(44100, 0.4, 6000.0)
    inner = slice(200, -200)
    assert level(resample(high, 44100, 8000)[:, inner]) < level(high) - 80


def test_ratios_of_large_numbers_cost_little_and_are_nearly_exact() -> None:
    made = resample(sine(44101, 0.4, 1000.0), 44101, 16000)
    assert made.shape == (1, math.ceil(math.ceil(44101 * 0.4 - 0.5) * 16000 / 44101))
    spectrum = np.abs(np.fft.rfft(made[0] * np.hanning(made.shape[1]), 1 << 20))
    assert spectrum.argmax() * 16000 / (1 << 20) == pytest.approx(1000.0, abs=0.05)


def test_mono_is_the_mean_and_stereo_keeps_its_sides() -> None:
    rng = np.random.default_rng(0)
    six = rng.normal(0, 0.1, (6, 100)).astype(np.float32)
    assert np.allclose(mix(six, 1), six.mean(0, keepdims=True))
    assert np.allclose(np.diff(mix(six, 2), axis=0), np.diff(six[:2] / 2, axis=0), atol=1e-6)
    assert np.array_equal(mix(mix(six[:1], 2), 1), six[:1])
    assert mix(six[:2], 2) is not None
    assert np.array_equal(mix(six[:2], 2), six[:2])


def test_channels_that_cancel_each_other_are_still_heard_in_mono() -> None:
    sound = np.concatenate([sine(), -sine()])
    assert np.array_equal(mix(sound, 1), sine())


def test_levels_of_known_signals() -> None:
    assert level(sine()) == pytest.approx(20 * math.log10(0.5 / math.sqrt(2)), abs=1e-3)
    assert level(np.zeros((1, 10), np.float32)) == -math.inf
    assert level(np.full((2, 10), 0.1, np.float32)) == pytest.approx(-20, abs=1e-4)
    assert peak(-sine()) == pytest.approx(0.5, abs=1e-3)


def test_removing_the_mean_leaves_the_rest() -> None:
    assert np.abs(remove_dc(sine() + np.float32(0.3)) - sine()).max() < 1e-6


@pytest.mark.data
@pytest.mark.skipif("MULTIDIFF_DATA" not in os.environ, reason="MULTIDIFF_DATA is not set")
def test_every_messy_file_is_read_or_refused_in_one_line() -> None:
    folder = Path(os.environ["MULTIDIFF_DATA"]) / "messy" / "audio"
    refused, messages = set(), []
    for path in sorted(folder.iterdir()):
        try:
            sound, rate = read(path)
        except InputError as error:
            refused.add(path.stem)
            messages.append(str(error))
        else:
            assert np.isfinite(sound).all()
            assert sound.shape[1] > 0
            assert rate > 0
    assert not any("\n" in message for message in messages)
    nothing_in_it = {"scipy_incomplete_chunk", "scipy_truncated_no_data", "small", "small_empty"}
    assert refused == nothing_in_it | {"derived_text_named"}
