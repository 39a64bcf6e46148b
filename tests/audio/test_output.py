"""Sound files: what is in them, how loud they are, and that nothing of anybody's is lost."""

from __future__ import annotations

import errno
import json
import struct
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from scipy import signal

from multidiff.errors import InputError
from multidiff.pipeline import SettingWarning
from multidiff_audio.encoding import FileOptions, encode, read_comment, tags
from multidiff_audio.level import PEAK_LIMIT, fault, levelled, loudness, texture, true_peak
from multidiff_audio.output import write

RATE = 16000
RECIPE = {"checkpoint": "some", "sha256": "ab" * 32, "solver": "dpm++2m", "num_inference_steps": 20, "seed": 7}
KINDS = [("wav", "16", "PCM_16"), ("wav", "24", "PCM_24"), ("wav", "float", "FLOAT")]
KINDS += [("flac", "16", "PCM_16"), ("flac", "24", "PCM_24")]


def tone(seconds: float = 1.0, rate: int = RATE, hertz: float = 440.0, amplitude: float = 0.3) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return (amplitude * np.sin(2 * np.pi * hertz * time)).astype(np.float32)[None]


Speech = Callable[..., np.ndarray]


def noise(seconds: float = 1.0, channels: int = 1, amplitude: float = 0.1) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(channels, round(seconds * RATE))).astype(np.float32) * amplitude


def save(
    folder: Path, *sounds: np.ndarray, prompt: str = "seven", recipe: Mapping[str, Any] = RECIPE, **options: Any
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    records: list[dict[str, Any]] = []
    recipe = {**recipe, **options}
    count = len(sounds)
    return write(sounds, RATE, [prompt] * count, range(count), folder, recipe, {}, records), records


def read(path: Path) -> np.ndarray:
    return soundfile.read(path, dtype="float64", always_2d=True)[0].T


# --------------------------------------------------------------------------------------------------- what is in a file


@pytest.mark.parametrize(("format", "bits", "subtype"), KINDS)
@pytest.mark.parametrize("channels", [1, 2])
def test_files_hold_the_sound_and_what_made_it(
    tmp_path: Path, format: str, bits: str, subtype: str, channels: int, speech: Speech
) -> None:
    sound = np.repeat(speech(rate=RATE), channels, 0) * np.linspace(1, 0.5, channels, dtype=np.float32)[:, None]
    save(tmp_path, sound, prompt="seven, spoken by Zoë", format=format, bit_depth=bits, loudness=None)
    path = tmp_path / f"audio-00000.{format}"
    with soundfile.SoundFile(path) as file:
        assert (file.subtype, file.format) == (subtype, format.upper())
        assert (file.samplerate, file.channels, file.frames) == (RATE, channels, RATE)
        assert file.title == "seven, spoken by Zoë"
        assert file.software.startswith("multidiff")
        made_by = json.loads(file.comment)
    assert made_by == {**RECIPE, "format": format, "bit_depth": bits, "loudness": None, "sample": 0} | {
        "prompt": "seven, spoken by Zoë"
    }
    step = {"16": 2.0**-15, "24": 2.0**-23, "float": 0}[bits]
    difference = np.abs(read(path) - sound)
    assert difference.max() <= step / 2
    if step:  # and no finer than was asked for, nor coarser
        assert np.array_equal(read(path) / step, np.rint(read(path) / step))
        assert difference.max() > step / 4


def test_wav_has_the_fields_that_other_readers_know() -> None:
    data = encode(tone(), RATE, FileOptions(), tags(RECIPE, "a dog barks", 3, FileOptions()))
    chunks = riff_chunks(data)
    fields = riff_chunks(b"RIFF" + struct.pack("<I", len(chunks[b"LIST"])) + chunks[b"LIST"])
    assert struct.unpack("<HHIIHH", chunks[b"fmt "]) == (1, 1, RATE, 2 * RATE, 2, 16)
    assert fields[b"INAM"].rstrip(b"\0").decode() == "a dog barks"
    assert json.loads(fields[b"ICMT"].rstrip(b"\0"))["sample"] == 3
    assert len(chunks[b"data"]) == 2 * RATE


def riff_chunks(data: bytes) -> dict[bytes, bytes]:
    """By the specification, not by the library that wrote it."""
    assert struct.unpack_from("<4sI", data) == (b"RIFF", len(data) - 8)
    at, found = 12, {}
    while at < len(data):
        name, length = struct.unpack_from("<4sI", data, at)
        found[name] = data[at + 8 : at + 8 + length]
        at += 8 + length + length % 2
    return found


@pytest.mark.parametrize(("format", "bits", "subtype"), KINDS)
def test_the_same_sound_is_the_same_file(format: str, bits: str, subtype: str) -> None:
    options = FileOptions(format, bits)
    first = encode(tone(), RATE, options, tags(RECIPE, "PEAK", 0, options))
    held = read_peak_time(first)
    assert held in (None, 0)  # a float WAV of libsndfile's own says in which second it was written
    assert encode(tone(), RATE, options, tags(RECIPE, "PEAK", 0, options)) == first


def read_peak_time(data: bytes) -> int | None:
    chunks = riff_chunks(data) if data.startswith(b"RIFF") else {}
    return struct.unpack_from("<4xI", chunks[b"PEAK"])[0] if b"PEAK" in chunks else None


def test_float_keeps_what_is_beyond_full_scale_and_whole_numbers_stop_there(tmp_path: Path) -> None:
    with pytest.warns(SettingWarning, match="0 clipped"):
        save(tmp_path / "float", tone(amplitude=2.0), bit_depth="float", loudness=None)
    with pytest.warns(SettingWarning, match="0 clipped"):
        save(tmp_path / "whole", tone(amplitude=2.0), loudness=None)
    assert read(tmp_path / "float/audio-00000.wav").max() > 1.99
    whole = read(tmp_path / "whole/audio-00000.wav")
    assert whole.max() == 1 - 2.0**-15  # no value has turned over to the other sign
    assert whole.min() == -1
    assert (np.sign(whole) == np.sign(tone(amplitude=2.0)))[np.abs(tone(amplitude=2.0)) > 0.01].all()


@pytest.mark.parametrize(
    "wrong",
    [
        {"format": "mp3"},
        {"bit_depth": "8"},
        {"format": "flac", "bit_depth": "float"},
        {"loudness": 3.0},
        {"loudness": float("nan")},
        {"loudness": "loud"},
        {"loudness": True},
    ],
)
def test_options_that_are_not_allowed(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError) as error:
        save(tmp_path, tone(), **wrong)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------------------ loudness


def measured(sound: np.ndarray) -> float:
    """BS.1770-4 at 48 kHz with the coefficients of its tables 1 and 2."""
    shelf = ([1.53512485958697, -2.69169618940638, 1.19839281085285], [1, -1.69065929318241, 0.73248077421585])
    high = ([1.0, -2.0, 1.0], [1, -1.99004745483398, 0.99007225036621])
    weighted = signal.lfilter(*high, signal.lfilter(*shelf, sound))
    blocks = np.lib.stride_tricks.sliding_window_view(weighted, 19200, axis=1)[:, ::4800]
    power = (blocks**2).mean(2).sum(0)
    power = power[-0.691 + 10 * np.log10(power + 1e-20) > -70]
    power = power[power > power.mean() / 10]
    return float(-0.691 + 10 * np.log10(power.mean()))


@pytest.mark.parametrize("channels", [1, 2])
def test_loudness_agrees_with_the_published_filters(channels: int, speech: Speech) -> None:
    sound = speech(2.0, 48000).repeat(channels, 0) * np.array([[0.9], [0.2]], np.float32)[:channels]
    for gain in (0.001, 1.0, 30.0):  # also where torchaudio's filters would clip
        assert loudness(gain * sound, 48000) == pytest.approx(measured(sound) + 20 * np.log10(gain), abs=0.1)


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_loudness_of_a_tone_is_the_standards(rate: int) -> None:
    """A full-scale sine of 997 Hz reads -3.01 LUFS in one channel (BS.1770-4, annex 1)."""
    full = tone(2.0, rate, 997.0, 1.0)
    assert loudness(full, rate) == pytest.approx(-3.01, abs=0.2)
    assert loudness(np.repeat(full, 2, 0), rate) == pytest.approx(0.0, abs=0.2)


@pytest.mark.parametrize("rate", [8000, 16000])
def test_loudness_agrees_with_another_package(rate: int, speech: Speech) -> None:
    meter = pytest.importorskip("pyloudnorm").Meter(rate)
    for sound in (speech(1.3, rate), speech(0.5, rate), tone(1.0, rate, 150.0)):
        assert loudness(sound, rate) == pytest.approx(meter.integrated_loudness(sound.T.astype(np.float64)), abs=0.5)


@pytest.mark.parametrize("target", [-30.0, -23.0, -20.0])
@pytest.mark.parametrize("gain", [0.02, 1.0, 20.0])
def test_files_have_the_loudness_that_was_asked_for(tmp_path: Path, target: float, gain: float, speech: Speech) -> None:
    for k, channels in enumerate((1, 2)):
        sound = gain * speech(1.5, RATE).repeat(channels, 0)
        _, (record,) = save(tmp_path / str(k), sound, loudness=target)
        written = read(tmp_path / str(k) / "audio-00000.wav")
        finer = signal.resample_poly(written, 3, 1, axis=1)
        assert measured(finer) == pytest.approx(target, abs=0.5)
        assert record["loudness_lufs"] == target
        assert record["peak_dbfs"] == pytest.approx(20 * np.log10(np.abs(written).max()), abs=0.01)


def test_peaks_keep_below_the_limit_also_between_samples(tmp_path: Path) -> None:
    click = np.zeros((1, RATE), np.float32)
    click[0, ::4000] = 0.5
    between = np.zeros((1, RATE), np.float32)
    between[0] = 0.9 * np.sin(np.pi / 2 * np.arange(RATE) + np.pi / 4)  # samples 3 dB below the peaks of the wave
    _, records = save(tmp_path, click, between, loudness=0.0)
    limit = 10 ** (PEAK_LIMIT / 20)
    for k in range(2):
        written = read(tmp_path / f"audio-{k:05d}.wav")
        finer = signal.resample_poly(written[:, 1000:-1000], 16, 1, axis=1)[:, 2000:-2000]
        assert np.abs(written).max() <= limit + 2**-15
        assert np.abs(finer).max() <= limit * 1.02
        assert np.abs(finer).max() >= limit * 0.95  # and no lower than need be
    assert all(record["loudness_lufs"] < 0 for record in records)


def test_true_peak_of_a_wave_sampled_beside_its_peaks() -> None:
    wave = np.sin(np.pi / 2 * np.arange(4000) + np.pi / 4).astype(np.float32)[None]
    assert np.abs(wave).max() == pytest.approx(0.7071, abs=1e-3)
    assert true_peak(wave) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("samples", [1, 7, 400, 800, 6399, 6400])
def test_short_sounds_have_a_loudness_too(samples: int) -> None:
    """A steady tone is as loud for 50 ms as for a second."""
    sound = tone(1.0, hertz=1000)[:, 4 : 4 + samples]
    level, lufs = levelled(sound, RATE, -20.0)
    assert np.isfinite(level).all()
    assert level.shape == sound.shape
    if samples >= 400:
        assert lufs == pytest.approx(-20.0, abs=0.01)
        assert np.abs(level).max() == pytest.approx(np.abs(levelled(tone(hertz=1000), RATE, -20.0)[0]).max(), rel=0.05)


def test_levels_are_kept_when_asked(tmp_path: Path) -> None:
    save(tmp_path, tone(amplitude=0.01), bit_depth="float", loudness=None)
    assert np.array_equal(read(tmp_path / "audio-00000.wav"), tone(amplitude=0.01))


def test_empty_sound(tmp_path: Path) -> None:
    with pytest.warns(SettingWarning, match="0 silent"):
        counts, _ = save(tmp_path, np.zeros((1, 0), np.float32))
    assert counts["silent"] == 1
    assert soundfile.info(tmp_path / "audio-00000.wav").frames == 0


# ------------------------------------------------------------------------------------------------------------ warnings


def test_silence_stays_silence_and_is_told(tmp_path: Path, speech: Speech) -> None:
    faint = tone(amplitude=5e-4)
    with pytest.warns(SettingWarning, match="2 of 3 sounds .* sample 0 silent, 2 silent") as told:
        counts, records = save(tmp_path, np.zeros((2, RATE), np.float32), speech(rate=RATE), faint)
    assert len(told) == 1
    assert not read(tmp_path / "audio-00000.wav").any()
    assert np.abs(read(tmp_path / "audio-00002.wav")).max() < 6e-4
    assert (counts["samples"], counts["written"], counts["silent"]) == (3, 3, 2)
    assert [record["warning"] for record in records] == ["silent", "", "silent"]
    assert records[0]["loudness_lufs"] is None
    json.dumps(records, allow_nan=False)


@pytest.mark.parametrize("seconds", [0.05, 0.3, 1.0, 5.0])
@pytest.mark.parametrize("channels", [1, 2])
def test_noise_is_told_apart(seconds: float, channels: int) -> None:
    silence = np.zeros((channels, RATE if seconds > 0.1 else 100), np.float32)
    for sound in (noise(seconds, channels), np.concatenate([silence, noise(seconds, channels), silence], 1)):
        assert fault(levelled(sound, RATE, -20.0)[0], -20.0) == "noise"


def test_sounds_that_are_no_noise(speech: Speech) -> None:
    click = np.zeros((1, RATE), np.float32)
    click[0, 5000] = 0.8
    burst = noise() * np.exp(-np.arange(RATE) / 1000, dtype=np.float32)  # a clap
    brown = np.cumsum(noise(), 1) / 50
    for sound in (tone(), tone(0.05), tone(hertz=3000), speech(rate=RATE), click, burst, brown):
        assert fault(sound, -20.0) == "", texture(sound)


def test_clipping_is_told_apart() -> None:
    assert fault(tone(amplitude=1.5).clip(-1, 1) * 0.3, -20.0) == "clipped"
    assert fault(tone(amplitude=1.01), -20.0) == "clipped"
    for hertz in (20.0, 440.0, 3999.0, 4000.0):  # low tones, and samples that fall beside every peak
        assert fault(tone(hertz=hertz, amplitude=0.99), -20.0) == ""


@pytest.mark.data
def test_real_sounds_are_hardly_ever_called_faulty(audio_clips: list[tuple[np.ndarray, int]]) -> None:
    told = [fault(sound, loudness(sound, rate)) for sound, rate in audio_clips]
    assert told.count("noise") <= len(told) // 50
    assert told.count("silent") <= len(told) // 50


@pytest.fixture(scope="module")
def audio_clips() -> list[tuple[np.ndarray, int]]:
    import io
    import os
    import tarfile

    if "MULTIDIFF_DATA" not in os.environ:
        pytest.skip("MULTIDIFF_DATA is not set")
    clips = []
    for name, every in (("fsdd.tar", 30), ("esc10_16k.tar", 8)):
        with tarfile.open(Path(os.environ["MULTIDIFF_DATA"]) / name) as packed:
            members = [member for member in packed.getmembers() if member.name.endswith(".flac")][::every]
            for member in members:
                sound, rate = soundfile.read(io.BytesIO(packed.extractfile(member).read()), dtype="float32")  # type: ignore[union-attr]
                clips.append((sound[None], rate))
    return clips


def test_what_is_not_finite_is_not_written(tmp_path: Path) -> None:
    broken = tone()
    broken[0, 7] = np.nan
    records: list[dict[str, Any]] = []
    with pytest.warns(SettingWarning, match="1 not finite, 2 not finite"):
        counts = write([tone(), broken, tone()], RATE, ["a", "b", "c"], [0, 1, 2], tmp_path, RECIPE, {2: 5}, records)
    assert (counts["samples"], counts["written"]) == (3, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["audio-00000.wav", "audio.png"]
    assert [record["file"] for record in records] == ["audio-00000.wav", None, None]
    assert [record["sample"] for record in records] == [0, 1, 2]
    json.dumps(records, allow_nan=False)


def test_good_sounds_do_not_warn(tmp_path: Path, speech: Speech) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save(tmp_path, tone(), speech(rate=RATE))


# ----------------------------------------------------------------------------------------------------- nothing is lost


def test_files_of_others_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "audio-00001.wav").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"audio-00001\.wav is there"):
        save(tmp_path, tone(), tone())
    assert [path.name for path in tmp_path.iterdir()] == ["audio-00001.wav"]
    assert (tmp_path / "audio-00001.wav").read_bytes() == b"mine"
    save(tmp_path / "other", tone())
    (tmp_path / "picture").mkdir()
    (tmp_path / "picture/audio.png").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"audio\.png is there"):
        save(tmp_path / "picture", tone())
    assert (tmp_path / "picture/audio.png").read_bytes() == b"mine"


@pytest.mark.parametrize("format", ["wav", "flac"])
def test_the_same_recipe_may_save_again_and_another_may_not(tmp_path: Path, format: str) -> None:
    save(tmp_path, tone(), tone(), format=format)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    (tmp_path / f"audio-00001.{format}").unlink()  # as if it had been interrupted
    save(tmp_path, tone(), tone(), format=format)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    for other in ({"seed": 8}, {"loudness": -23.0}):
        with pytest.raises(InputError, match="made otherwise"):
            save(tmp_path, tone(), format=format, **other)
    with pytest.raises(InputError, match="made otherwise"):
        save(tmp_path, tone(), format=format, prompt="eight")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_without_a_seed_nothing_is_replaced(tmp_path: Path, speech: Speech) -> None:
    recipe = {name: value for name, value in RECIPE.items() if name != "seed"}
    save(tmp_path, tone(), recipe=recipe)
    with pytest.raises(InputError, match="made otherwise"):
        save(tmp_path, speech(rate=RATE), recipe=recipe)


def test_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if "00001" not in path.name:
            return whole(path, data)
        whole(path, data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match="disk full"):
        save(tmp_path, tone(), tone(), tone())
    assert [path.name for path in tmp_path.iterdir()] == ["audio-00000.wav"]
    monkeypatch.setattr(Path, "write_bytes", whole)
    assert save(tmp_path, tone(), tone(), tone())[0]["written"] == 3


def test_numbers_beyond_five_digits(tmp_path: Path) -> None:
    write([tone()], RATE, [""], [1234567], tmp_path, RECIPE)
    assert read_comment(tmp_path / "audio-1234567.wav") == {**RECIPE, "sample": 1234567, "prompt": ""}


# ----------------------------------------------------------------------------------------------------- hostile prompts

PROMPTS = {
    "empty": "",
    "nul": "a\0b\0",
    "emoji": "a 🐶 barks 👩‍👩‍👧",
    "right to left": "\u202eשלום عالم",
    "shell": "$(touch x); `touch x` | touch x",
    "path": "../../../../tmp/x",
    "lines": "one\ntwo\r\n\tthree\x1b[31m",
    "quotes": "\"'<script>\\u0000",
    "lone surrogate": "a\udc80b",
    "long": "word " * 20_000,
    "long and wide": "🐶" * 30_000,
}


@pytest.mark.parametrize("format", ["wav", "flac"])
@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS.keys())
def test_any_prompt(tmp_path: Path, format: str, prompt: str) -> None:
    out = tmp_path / "deep/out"
    _, (record,) = save(out, tone(0.1), prompt=prompt, format=format)
    assert {path.name for path in out.iterdir()} == {f"audio-00000.{format}", "audio.png"}
    assert [path.name for path in tmp_path.rglob("*") if path.is_file() and path.parent != out] == []
    held = read_comment(out / f"audio-00000.{format}")
    assert held is not None
    assert (held["seed"], held["sha256"], held["sample"]) == (7, RECIPE["sha256"], 0)
    assert held["prompt"] == prompt or (len(prompt) > 1000 and prompt.startswith(held["prompt"].removesuffix("...")))
    with soundfile.SoundFile(out / f"audio-00000.{format}") as file:
        assert file.frames == 1600
        assert "\n" not in file.title
        assert "\0" not in file.title
    json.dumps(record, ensure_ascii=False).encode()
    save(out, tone(0.1), prompt=prompt, format=format)  # the same again
    with pytest.raises(InputError):
        save(out, tone(0.1), prompt=prompt + "x", format=format)


def test_a_recipe_of_many_long_values_still_fits(tmp_path: Path) -> None:
    recipe = {**RECIPE, **{f"key{k}": ["long" * 100] * 10 for k in range(30)}}
    save(tmp_path, tone(0.1), recipe=recipe)
    held = read_comment(tmp_path / "audio-00000.wav")
    assert held is not None
    assert held["seed"] == 7
    with pytest.raises(InputError, match="made otherwise"):
        save(tmp_path, tone(0.1), recipe={**recipe, "key5": "else"})
