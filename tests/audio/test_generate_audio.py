"""`multidiff generate audio` from the command to the files, and every wrong input on the way."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from multidiff import generation
from multidiff.cli import main
from multidiff_audio.encoding import read_comment

RATE = 8000


def generate(tiny: Path, out: Path, *more: str) -> list[str]:
    return ["generate", "audio", "--checkpoint", str(tiny), "--device", "cpu", "--out", str(out), *more]


def run(tiny: Path, out: Path, *more: str) -> dict[str, Any]:
    """What run.json says of a job that went well."""
    assert main(generate(tiny, out, *more)) == 0
    said: dict[str, Any] = json.loads((out / "run.json").read_text(encoding="utf-8"))
    return said


def sounds(out: Path, ending: str = "wav") -> list[np.ndarray]:
    """(channels, samples) of each file, in order."""
    read = (soundfile.read(path, dtype="float32", always_2d=True) for path in sorted(out.glob(f"audio-*.{ending}")))
    made = []
    for sound, rate in read:
        assert rate == RATE
        made.append(sound.T)
    return made


def hashes(out: Path) -> dict[str, str]:
    """Of each file but run.json, which holds the time it took."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(out.iterdir()) if p.name != "run.json"}


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if not line.startswith("multidiff: warning: ")]
    assert len(lines) == 1
    assert lines[0].startswith("multidiff: error: ")
    return lines[0]


# --------------------------------------------------------------------------------------------------- what is written


def test_end_to_end(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    said = run(tiny, out, "seven, spoken by theo", "a wolf", "-n", "4", "--seed", "7", "--duration", "0.2",
               "--steps", "4", "--solver", "ddim", "--grid", "karras", "--guidance-scale", "2")  # fmt: skip
    names = [f"audio-{i:05d}.wav" for i in range(4)]
    assert sorted(p.name for p in out.iterdir()) == [*names, "audio.png", "run.json"]
    assert [record["file"] for record in said["samples"]] == names
    assert [record["sample"] for record in said["samples"]] == [0, 1, 2, 3]
    assert [record["prompt"] for record in said["samples"]] == ["seven, spoken by theo", "a wolf"] * 2
    assert [record["seconds"] for record in said["samples"]] == [0.2] * 4
    settings = said["settings"]
    assert (settings["solver"], settings["grid"], settings["num_inference_steps"]) == ("ddim", "karras", 4)
    assert (settings["guidance_scale"], settings["duration"]) == (2.0, [0.2, 0.2])
    assert (said["seed"], said["network_calls"], said["counts"]["written"]) == (7, 4, 4)
    assert [sound.shape for sound in sounds(out)] == [(1, 1600)] * 4
    captured = capsys.readouterr()
    assert "multidiff: warning: the checkpoint never saw 'wolf', which is left out of the prompt" in captured.err
    assert captured.out.endswith(f"open {out / 'audio.png'}\n")
    held = read_comment(out / names[1])
    assert held is not None
    assert (held["prompt"], held["sample"], held["seed"]) == ("a wolf", 1, 7)


def test_as_from_python(tiny: Path, tmp_path: Path) -> None:
    import multidiff

    run(tiny, tmp_path / "out", "seven", "-n", "5", "--seed", "3", "--batch-size", "2")
    out = multidiff.load(tiny)("seven", num_samples=5, seed=3)
    out.save(tmp_path / "python")
    assert hashes(tmp_path / "python").keys() == hashes(tmp_path / "out").keys()
    for one, other in zip(sounds(tmp_path / "out"), sounds(tmp_path / "python"), strict=True):
        np.testing.assert_allclose(one, other, atol=2**-14)


def test_without_a_prompt(tiny: Path, tmp_path: Path) -> None:
    said = run(tiny, tmp_path, "-n", "1")
    assert said["samples"][0]["prompt"] == ""


def test_a_file_of_prompts(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text('prompt,duration,negative_prompt\nseven,0.1,rain\n"a dog, two",0.2,\n')
    said = run(tiny, tmp_path / "out", "--prompts", str(tmp_path / "p.csv"), "-n", "3")
    assert [record["prompt"] for record in said["samples"]] == ["seven", "a dog, two", "seven"]
    assert [record["seconds"] for record in said["samples"]] == [0.1, 0.2, 0.1]
    assert said["settings"]["negative_prompt"] == ["rain", None]
    (tmp_path / "p.txt").write_text("seven\ntwo\n")
    said = run(tiny, tmp_path / "text", "--prompts", str(tmp_path / "p.txt"), "-n", "2", "--duration", "0.1")
    assert [record["prompt"] for record in said["samples"]] == ["seven", "two"]


@pytest.mark.parametrize("order", [["seven", "-n", "1"], ["-n", "1", "seven"]])
def test_prompts_stand_anywhere(tiny: Path, tmp_path: Path, order: list[str]) -> None:
    assert run(tiny, tmp_path, *order)["samples"][0]["prompt"] == "seven"


STRANGE = ["$(touch x)", "../x", "/etc/passwd", "`id`; rm -rf .", "\U0001f436 שבע", "a\tb\nc", "%s {0}", "", "'\"\\"]


def test_prompts_are_never_names_or_commands(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = run(tiny, tmp_path / "out", *STRANGE, "-n", str(len(STRANGE)), "--duration", "0.05")
    assert [record["prompt"] for record in said["samples"]] == STRANGE
    assert os.listdir(tmp_path) == ["out"]
    assert len(sounds(tmp_path / "out")) == len(STRANGE)
    held = [read_comment(path) for path in sorted((tmp_path / "out").glob("*.wav"))]
    assert [comment and comment["prompt"] for comment in held] == STRANGE


@pytest.mark.parametrize("depth", ["16", "24", "float"])
def test_how_files_are_written(tiny: Path, tmp_path: Path, depth: str) -> None:
    run(tiny, tmp_path / "wav", "seven", "-n", "1", "--bit-depth", depth, "--loudness", "-30")
    info = soundfile.info(tmp_path / "wav" / "audio-00000.wav")
    assert info.subtype == {"16": "PCM_16", "24": "PCM_24", "float": "FLOAT"}[depth]
    if depth != "float":
        said = run(tiny, tmp_path / "flac", "seven", "-n", "1", "--bit-depth", depth, "--format", "flac")
        assert said["samples"][0]["file"] == "audio-00000.flac"
        assert soundfile.info(tmp_path / "flac" / "audio-00000.flac").subtype == f"PCM_{depth}"


def test_loudness(tiny: Path, tmp_path: Path) -> None:
    call = ["seven", "-n", "1", "--duration", "0.5", "--bit-depth", "float"]
    quiet, louder, kept = (
        sounds_of[0]
        for sounds_of in (
            (run(tiny, tmp_path / name, *call, "--loudness", name), sounds(tmp_path / name))[1]
            for name in ("-40", "-30", "keep")
        )
    )
    ratio = float(np.square(louder).sum() / np.square(quiet).sum())
    assert 10 * np.log10(ratio) == pytest.approx(10, abs=0.1)
    import multidiff

    (plain,) = multidiff.load(tiny)("seven", num_samples=1, duration=0.5, seed=0).audios
    np.testing.assert_allclose(kept, plain, atol=1e-5)


# ------------------------------------------------------------------------------------------- starting from a sound


def test_sound_to_sound(tiny: Path, tmp_path: Path, sound_file: Path) -> None:
    said = run(tiny, tmp_path, "seven", "--init", str(sound_file), "--strength", "0.4", "-n", "2")
    assert said["settings"]["strength"] == 0.4
    assert said["settings"]["init"] == str(sound_file)
    assert [sound.shape for sound in sounds(tmp_path)] == [(1, 3001)] * 2


def test_inpainting_writes_the_rest_as_it_was(tiny: Path, tmp_path: Path, sound_file: Path) -> None:
    said = run(tiny, tmp_path, "seven", "--init", str(sound_file), "--inpaint", "0.1:0.15", "--inpaint", "0.3:",
               "-n", "2")  # fmt: skip
    assert said["settings"]["inpaint"] == [[0.1, 0.15], [0.3, 3001 / RATE]]
    held = soundfile.read(sound_file, dtype="int16")[0]
    for path in sorted(tmp_path.glob("*.wav")):
        made = soundfile.read(path, dtype="int16")[0]
        assert np.array_equal(made[:760], held[:760])
        assert np.array_equal(made[1240:2360], held[1240:2360])
        assert not np.array_equal(made[800:1200], held[800:1200])


def test_going_on(tiny: Path, tmp_path: Path, sound_file: Path) -> None:
    run(tiny, tmp_path, "seven", "--init", str(sound_file), "--extend", "0.1", "-n", "1")
    held, made = (
        soundfile.read(sound_file, dtype="int16")[0],
        soundfile.read(next(tmp_path.glob("*.wav")), dtype="int16")[0],
    )
    assert len(made) == len(held) + 800
    assert np.array_equal(made[: len(held) - 32], held[:-32])


def test_loops_stereo_variations_classes_and_curves(tiny: Path, tmp_path: Path, sound_file: Path) -> None:
    run(tiny, tmp_path / "loop", "seven", "--loop", "--duration", "0.2", "-n", "1")
    assert sounds(tmp_path / "loop")[0].shape == (1, 1600)
    run(tiny, tmp_path / "stereo", "seven", "--stereo", "--duration", "0.2", "-n", "1")
    left, right = sounds(tmp_path / "stereo")[0]
    assert not np.array_equal(left, right)
    run(tiny, tmp_path / "base", "seven", "-n", "4")
    run(tiny, tmp_path / "like", "seven", "-n", "2", "--variations-of", "3", "--variation-strength", "0.1")
    base = sounds(tmp_path / "base")[3]
    assert all(one.shape == base.shape for one in sounds(tmp_path / "like"))
    said = run(tiny, tmp_path / "class", "--class", "speaker=theo", "--class", "word=two", "-n", "1")
    assert said["settings"]["classes"] == {"speaker": "theo", "word": "two"}
    said = run(
        tiny, tmp_path / "curves", "seven", "--follow", str(sound_file), "--curves", "pitch, loudness", "-n", "1"
    )
    assert said["settings"]["follow_curves"] == ["pitch", "loudness"]
    assert sounds(tmp_path / "curves")[0].shape == (1, 3001)


def test_a_file_of_another_kind_is_converted_and_said(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = 0.1 * np.random.default_rng(0).normal(size=(8000, 2))
    soundfile.write(tmp_path / "in.flac", noise, 22_050)
    run(tiny, tmp_path / "out", "seven", "--init", str(tmp_path / "in.flac"), "-n", "1")
    assert "was converted: 22050 Hz to 8000 Hz, 2 channels to 1" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------ wrong input


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--solver", "dmp++2m"], "did you mean 'dpm++2m'?"),
        (["--grid", "karas"], "did you mean 'karras'?"),
        (["--duration", "0"], "--duration: must be seconds, above 0"),
        (["--duration", "nan"], "--duration: must be seconds, above 0"),
        (["--duration", "1e9"], "far beyond the 0.5 s"),
        (["--duration", "0.001"], "at least 0.01"),
        (["--format", "mp3"], "unknown format 'mp3'"),
        (["--format", "flc"], "did you mean 'flac'?"),
        (["--bit-depth", "8"], "unknown bit depth '8'"),
        (["--format", "flac", "--bit-depth", "float"], "FLAC holds 16 or 24 bits"),
        (["--loudness", "5"], "must be LUFS from -50 to 0, or keep"),
        (["--loudness", "loud"], "must be LUFS from -50 to 0, or keep"),
        (["--init", "/no/such.wav"], "no file /no/such.wav"),
        (["--follow", "/no/such.wav"], "no file /no/such.wav"),
        (["--prompts", "/no/such.txt"], "cannot read the prompts in /no/such.txt"),
        (["--inpaint", "0.1:0.2"], "give init"),
        (["--strength", "0.5"], "give init"),
        (["--strength", "0"], "above 0 and at most 1"),
        (["--extend", "0.5"], "give init"),
        (["--inpaint", "0.5"], "must be START:END in seconds"),
        (["--inpaint", "a:b"], "must be START:END in seconds"),
        (["--init", "FILE", "--inpaint", "0.2:0.1"], "the end must come after the start"),
        (["--init", "FILE", "--inpaint", "0.2:7"], "lies outside the sound, which is 0.375 s long"),
        (["--init", "FILE", "--inpaint", "0.1:0.3", "--inpaint", "0.2:"], "overlaps"),
        (["--init", "FILE", "--inpaint", "nan:0.3"], "must come after"),
        (["--init", "FILE", "--inpaint", "0.1:0.2", "--duration", "0.3"], "duration follows from init"),
        (["--init", "FILE", "--extend", "1e12"], "far beyond"),
        (["--init", "FILE", "--loop"], "cannot be combined with init"),
        (["--init", "TEXT"], "is not a sound file"),
        (["--init", "EMPTY"], "is empty (0 bytes)"),
        (["--init", "SILENT"], "is silent"),
        (["--init", "FOLDER"], "no file"),
        (["--follow", "FILE", "--curves", "pich"], "did you mean 'pitch'?"),
        (["--class", "speaker"], "must be NAME=VALUE"),
        (["--class", "speaker=teo"], "did you mean 'theo'?"),
        (["--class", "speakr=theo"], "did you mean 'speaker'?"),
        (["--variations-of", "-1"], "--variations-of"),
        (["--variation-strength", "2"], "above 0 and at most 1"),
        (["--guidance-scale", "nan"], "finite"),
        (["--negative", "x"], "unknown option '--negative'"),
        (["--num-samples", "0"], "--num-samples"),
        (["--num-samples", "1" + "0" * 12], "MB"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_options(
    tiny: Path, tmp_path: Path, sound_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    options: list[str], says: str,
) -> None:  # fmt: skip
    never_called(monkeypatch)
    (tmp_path / "text.wav").write_text("this is no sound")
    (tmp_path / "empty.wav").write_bytes(b"")
    soundfile.write(tmp_path / "silent.wav", np.zeros(4000), RATE)
    files = {"FILE": sound_file, "FOLDER": tmp_path}
    files |= {name.upper(): tmp_path / f"{name}.wav" for name in ("text", "empty", "silent")}
    line = refused(capsys, generate(tiny, tmp_path / "out", "seven", *(str(files.get(o, o)) for o in options)))
    assert says in line
    assert len(line) < 400
    assert not list((tmp_path / "out").glob("*"))


def never_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network is called from now on."""

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("work was begun")

    monkeypatch.setattr("multidiff_audio.network.SpectrogramUNet.forward", never)


def test_prompts_of_a_hundred_thousand_characters(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    never_called(monkeypatch)
    for prompt in ("x" * 100_000, "seven " * 20_000):
        assert "characters is too long: at most 10000" in refused(capsys, generate(tiny, tmp_path / "out", prompt))
    (tmp_path / "p.txt").write_text("seven\n" + "x" * 100_000)
    assert "is too long" in refused(capsys, generate(tiny, tmp_path / "out", "--prompts", str(tmp_path / "p.txt")))


def test_prompts_in_two_places(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.txt").write_text("seven\n")
    for order in (["two", "--prompts", str(tmp_path / "p.txt")], ["--prompts", str(tmp_path / "p.txt"), "two"]):
        assert "not both" in refused(capsys, generate(tiny, tmp_path / "out", *order))


@pytest.mark.parametrize(("column", "value"), [("duration", "0.1"), ("negative_prompt", "rain")])
def test_what_a_file_says_is_not_said_again(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], column: str, value: str
) -> None:
    """In either order; the last one would win and nobody know."""
    (tmp_path / "p.csv").write_text(f"prompt,{column}\nseven,{value}\ntwo,\n")
    option, file = ["--" + column.replace("_", "-"), value], ["--prompts", str(tmp_path / "p.csv")]
    for order in ([*option, *file], [*file, *option]):
        told = refused(capsys, generate(tiny, tmp_path / "out", *order))
        assert f"give {column} in the file of --prompts or as {option[0]}, not both" in told


@pytest.mark.parametrize("name", ["audio-00000.wav", "audio-00007.wav", "audio-00000.flac", "audio.png"])
def test_files_of_somebody_else_are_kept(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    never_called(monkeypatch)
    (tmp_path / name).write_text("mine")
    assert f"holds {name}, which is not of this job" in refused(capsys, generate(tiny, tmp_path, "seven"))
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {name: "mine"}


def test_a_second_run_of_other_settings_is_refused(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["seven", "-n", "2", "--duration", "0.05"]
    run(tiny, tmp_path, *call)
    before = hashes(tmp_path)
    assert main(generate(tiny, tmp_path, *call, "--batch-size", "1")) == 0
    assert "nothing to do" in capsys.readouterr().out
    said = refused(capsys, generate(tiny, tmp_path, "two", "-n", "2", "--duration", "0.05"))
    assert 'prompt ["seven"] there, ["two"] asked for' in said
    for more in (["--loudness", "-30"], ["--format", "flac"], ["--seed", "1"], ["--stereo"]):
        assert "asked for" in refused(capsys, generate(tiny, tmp_path, *call, *more))
    assert hashes(tmp_path) == before


def test_another_file_of_the_same_name_is_another_job(
    tiny: Path, tmp_path: Path, sound: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "in.wav"
    soundfile.write(path, sound.T, RATE)
    call = ["seven", "-n", "1", "--init", str(path)]
    run(tiny, tmp_path / "out", *call)
    soundfile.write(path, 0.5 * sound.T, RATE)
    capsys.readouterr()
    assert "init_sha256" in refused(capsys, generate(tiny, tmp_path / "out", *call))


# ------------------------------------------------------------------------------------------------------ interruption


CALLS = [["seven", "two", "--stereo"], ["seven", "--init", "FILE", "--inpaint", "0.1:0.2", "--format", "flac"]]


@pytest.mark.parametrize("call", CALLS, ids=["stereo", "inpainting"])
@pytest.mark.parametrize("at", [1, 5, 8])
def test_interrupted_and_continued(
    tiny: Path, tmp_path: Path, sound_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    call: list[str], at: int,
) -> None:  # fmt: skip
    from multidiff_audio.network import SpectrogramUNet

    monkeypatch.setattr(generation, "KEEP_EVERY", -1.0)
    call = [str(sound_file) if token == "FILE" else token for token in call] + ["-n", "6", "--batch-size", "2"]
    assert main(generate(tiny, tmp_path / "whole", *call)) == 0
    calls, real = 0, SpectrogramUNet.forward

    def forward(self: Any, *args: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise KeyboardInterrupt
        return real(self, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(SpectrogramUNet, "forward", forward)
        assert main(generate(tiny, tmp_path / "part", *call)) == 130
    kept = 2 * ((at - 1) // 3)  # three calls a batch of two
    assert f"{kept} of 6 samples are kept; the same command continues" in capsys.readouterr().err
    assert os.listdir(tmp_path / "part") == [".job"]
    assert main(generate(tiny, tmp_path / "part", *call)) == 0
    assert hashes(tmp_path / "part") == hashes(tmp_path / "whole")
    whole, part = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("whole", "part"))
    assert part["samples"] == whole["samples"]
    assert part["settings"] == whole["settings"]


# ------------------------------------------------------------------------------------------------------ what it costs


def test_help_names_the_options_of_sound(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "audio", "--help"]) == 0
    said = capsys.readouterr().out
    for option in ("--prompts", "--init", "--strength", "--inpaint", "--extend", "--loop", "--stereo", "--loudness"):
        assert option in said
    assert "spoken by theo" in said


def test_nothing_is_imported_in_vain(tiny: Path, tmp_path: Path) -> None:
    """Help and a wrong option cost no torch; a sound costs nothing that is for training."""
    code = (
        "import sys\nfrom multidiff.cli import main\n"
        "assert main(['generate', 'audio', '--help']) == 0\n"
        "assert main(['generate', 'audio', 'seven', '--out', sys.argv[-1], '--duration', '-1']) == 2\n"
        "assert not {'torch', 'torchaudio', 'soundfile', 'scipy'} & set(sys.modules), sorted(sys.modules)\n"
        "code = main(sys.argv[1:])\n"
        "vain = {'lightning', 'matplotlib', 'pandas', 'diffusers', 'e3nn', 'rdkit', 'torch._dynamo'}\n"
        "sys.exit(code or str(vain & set(sys.modules)) if code or vain & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *generate(tiny, tmp_path / "out", "seven", "-n", "1")],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
