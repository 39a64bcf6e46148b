"""`multidiff evaluate audio`: what is on disk is measured as the arrays are, and what cannot be read is named."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torchaudio")
pytest.importorskip("soundfile")

import soundfile

from multidiff import cli
from multidiff.errors import InputError
from multidiff.pipeline import SettingWarning
from multidiff_audio.clips import PackedClips
from multidiff_audio.evaluate import evaluate, format_table
from multidiff_audio.generated import AudioOutput
from multidiff_audio.judge import Judge
from multidiff_audio.measure import measure
from multidiff_audio.samples import read_samples

RATE = 8000
PROMPTS = ["seven, spoken by theo", "two by george", "7 by theo", "someone speaks"]


Speech = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def sounds(speech: Speech) -> list[np.ndarray]:
    return [speech(0.3 + 0.05 * i, seed=i) for i in range(4)]


@pytest.fixture
def generated(sounds: list[np.ndarray], tmp_path: Path) -> Path:
    """A folder as `generate` writes it, with a sample that was not finite."""
    folder = tmp_path / "out"
    records: list[dict[str, object]] = []
    audios = [*sounds, np.full((1, 900), np.nan, np.float32)]
    recipe = {"seed": 0, "bit_depth": "float", "format": "wav", "loudness": None}
    output = AudioOutput(audios, RATE, [*PROMPTS, "six by theo"], list(range(5)), {4: 2}, recipe)
    with pytest.warns(SettingWarning, match="not finite"):
        output.save(folder, records)
    (folder / "run.json").write_text(json.dumps({"samples": records}))
    return folder


@pytest.fixture(scope="module")
def reference(make_clips: Callable[..., PackedClips], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reference") / "real.npz"
    kinds = {"word": ["seven", "two"] * 10, "speaker": ["theo"] * 20}
    make_clips(kinds, test=6).save(path)
    return path


def test_a_generated_folder_is_measured_as_its_arrays(
    generated: Path, sounds: list[np.ndarray], reference: Path
) -> None:
    """Prompts are those of run.json; the sample that was not finite is wrong."""
    nothing = np.zeros((1, 0), np.float32)
    prompts = [*PROMPTS, "six by theo"]
    direct = measure(
        [*sounds, nothing], RATE, prompts, PackedClips.load(reference), Judge.load("digits"), progress=False
    )
    found = evaluate(generated, reference, judge="digits", progress=False)
    assert found["accuracy/word/n"] == 4
    assert found["accuracy/speaker/n"] == 4
    assert found["not finite"] == 1 / 5
    for name in ("accuracy/word", "inception/word", "diversity", "nearest", "copies", "silent"):
        assert found[name] == pytest.approx(direct[name], rel=1e-3), name
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_files_without_run_json_tell_their_prompt_or_are_named_for_it(
    generated: Path, tmp_path: Path, speech: Speech
) -> None:
    (generated / "run.json").unlink()
    assert read_samples(generated, progress=False).prompts == PROMPTS
    folder = tmp_path / "named"
    folder.mkdir()
    for name in ("7_theo_0", "2_george_1", "noise"):
        soundfile.write(folder / f"{name}.wav", speech(0.4, seed=0)[0], RATE)
    found = evaluate(folder, progress=False)
    assert found["accuracy/word/n"] == found["accuracy/speaker/n"] == 2


def test_a_table_of_captions_gives_the_prompts(tmp_path: Path, speech: Speech) -> None:
    soundfile.write(tmp_path / "a.wav", speech(0.4, seed=0)[0], RATE)
    (tmp_path / "captions.csv").write_text("file,caption\na.wav,theo says seven\n")
    assert read_samples(tmp_path, progress=False).prompts == ["theo says seven"]


def test_other_rates_and_channels_are_brought_together(tmp_path: Path, speech: Speech) -> None:
    soundfile.write(tmp_path / "a.wav", np.repeat(speech(0.4, seed=0), 2, 0).T, RATE)
    soundfile.write(tmp_path / "b.flac", speech(0.4, seed=1)[0], 16000)
    samples = read_samples(tmp_path, progress=False)
    assert samples.rate == RATE
    assert [s.shape for s in samples.sounds] == [(1, 3200), (1, 1600)]


def test_broken_files_are_skipped_and_named(generated: Path) -> None:
    (generated / "audio-00000.wav").write_bytes(b"not a sound")
    (generated / "audio-00001.wav").unlink()
    found = evaluate(generated, judge="digits", progress=False)
    assert found["samples"] == 3
    assert found["unreadable"] == 2
    assert "not a sound file" in found["unreadable/audio-00000.wav"]
    assert "not in the folder" in found["unreadable/audio-00001.wav"]
    assert "unreadable, skipped: 2" in format_table(found)


def test_copies_are_named_by_their_files(reference: Path, tmp_path: Path, speech: Speech) -> None:
    clips = PackedClips.load(reference)
    for i in range(4):
        soundfile.write(tmp_path / f"{i}.wav", (clips.sound(2) if i == 3 else speech(0.4, seed=i))[0], RATE)
    found = evaluate(tmp_path, reference, progress=False)
    assert ("3.wav", "2") in {(entry["sample"], entry["source"]) for entry in found["copies/named"]}
    assert "3.wav: 2" in format_table(found)


def test_packed_file_and_archive(reference: Path, generated: Path, tmp_path: Path) -> None:
    import tarfile

    assert evaluate(reference, reference, progress=False)["samples"] == 20
    (generated / "run.json").unlink()
    with tarfile.open(tmp_path / "all.tar", "w") as archive:
        archive.add(generated, "out")
    assert evaluate(tmp_path / "all.tar", judge="digits", progress=False)["samples"] == 4


@pytest.mark.parametrize(
    "damage",
    ["", "{", "[]", '{"samples": 3}', '{"samples": [{"sample": "x", "file": "a.wav"}]}', '{"samples": [{"file": 3}]}',
     '{"samples": [{"sample": 0, "file": "../a.wav", "prompt": ""}]}', '{"samples": [[]]}', "[" * 100_000],
)  # fmt: skip
def test_a_damaged_run_json_is_said(generated: Path, damage: str) -> None:
    (generated / "run.json").write_text(damage)
    with pytest.raises(InputError, match=r"run\.json is damaged.*move it away"):
        evaluate(generated, judge="digits", progress=False)


def test_nothing_to_measure_is_said(tmp_path: Path, speech: Speech) -> None:
    with pytest.raises(InputError, match="no sound file in"):
        evaluate(tmp_path, progress=False)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "a.wav").write_bytes(b"RIFF")
    (broken / "b.wav").write_bytes(b"")
    with pytest.raises(InputError, match=r"no sound in .* can be read: .*a\.wav"):
        evaluate(broken, progress=False)
    with pytest.raises(InputError, match="no file or folder"):
        evaluate(tmp_path / "nowhere", progress=False)
    soundfile.write(broken / "c.wav", speech(0.4, seed=0)[0], RATE)
    with pytest.raises(InputError, match="Give --judge with digits, sounds or a folder"):
        evaluate(broken, progress=False)


def test_from_the_command_line(generated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figures = tmp_path / "figures.json"
    assert cli.main(["evaluate", "audio", str(generated), "--judge", "digits", "--json", str(figures)]) == 0
    assert "accuracy/word" in capsys.readouterr().out
    assert json.loads(figures.read_text())["samples"] == 5


@pytest.mark.data
@pytest.mark.skipif("MULTIDIFF_DATA" not in os.environ, reason="MULTIDIFF_DATA is not set")
def test_messy_files_do_not_stop_it() -> None:
    found = evaluate(Path(os.environ["MULTIDIFF_DATA"]) / "messy" / "audio", judge="sounds", progress=False)
    assert found["samples"] + found["unreadable"] == 26
    assert found["samples"] >= 20
