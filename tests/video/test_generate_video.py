"""`multidiff generate video` from the command to the files, and every wrong input on the way."""

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
from PIL import Image

from multidiff import generation
from multidiff.cli import main
from multidiff_video.encoding import read_recipe
from multidiff_video.movie import read

SIZE, WINDOW = 16, 8
LEFT, UP = "a 3 moving left", "a 7 moving up"

pytestmark = pytest.mark.filterwarnings("ignore::multidiff.pipeline.SettingWarning")  # clips of random weights


def generate(tiny: Path, out: Path, *more: str) -> list[str]:
    return ["generate", "video", "--checkpoint", str(tiny), "--device", "cpu", "--out", str(out), *more]


def run(tiny: Path, out: Path, *more: str) -> dict[str, Any]:
    """What run.json says of a job that went well."""
    assert main(generate(tiny, out, *more)) == 0
    said: dict[str, Any] = json.loads((out / "run.json").read_text(encoding="utf-8"))
    return said


def exact(tiny: Path, out: Path, *more: str) -> list[np.ndarray]:
    """(frames, H, W) of each clip, as it was made: PNG frames lose nothing."""
    run(tiny, out, *more, "--format", "png", "--scale", "1")
    clips = sorted(path for path in out.glob("video-[0-9]*"))
    frames = [sorted(path.iterdir()) if path.is_dir() else [path] for path in clips]
    return [np.stack([np.asarray(Image.open(file).convert("L")) for file in files]) for files in frames]


def hashes(out: Path) -> dict[str, str]:
    """Of each file but run.json, which holds the time it took."""
    files = [path for path in sorted(out.rglob("*")) if path.is_file() and path.name != "run.json"]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if not line.startswith("multidiff: warning: ")]
    assert len(lines) == 1
    assert lines[0].startswith("multidiff: error: ")
    return lines[0]


def never_called(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network is called from now on."""

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("work was begun")

    monkeypatch.setattr("multidiff_video.network.VideoUNet.forward", never)


# --------------------------------------------------------------------------------------------------- what is written


def test_end_to_end(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    said = run(tiny, out, LEFT, "a wolf", "-n", "4", "--seed", "7", "--frames", "10", "--steps", "2",
               "--solver", "ddim", "--grid", "karras", "--guidance-scale", "3", "--context", "3")  # fmt: skip
    names = [f"video-{i:05d}.mp4" for i in range(4)]
    assert sorted(p.name for p in out.iterdir()) == ["run.json", *names, "video.png"]
    assert [record["file"] for record in said["samples"]] == names
    assert [record["sample"] for record in said["samples"]] == [0, 1, 2, 3]
    assert [record["prompt"] for record in said["samples"]] == [LEFT, "a wolf"] * 2
    assert [(record["frames"], record["seconds"]) for record in said["samples"]] == [(10, 1.0)] * 4
    settings = said["settings"]
    assert (settings["solver"], settings["grid"], settings["num_inference_steps"]) == ("ddim", "karras", 2)
    assert (settings["guidance_scale"], settings["frames"], settings["context"]) == (3.0, [10, 10], 3)
    assert (said["seed"], said["network_calls"], said["counts"]["written"]) == (7, 4, 4)  # of two windows
    frames, fps = read(out / names[0])
    assert frames.shape == (10, 256, 256, 3)
    assert fps == 10
    captured = capsys.readouterr()
    assert "multidiff: warning: the checkpoint never saw 'wolf', which is left out of the prompt" in captured.err
    assert captured.out.endswith(f"open {out / 'video.png'}\n")
    held = read_recipe(out / names[1])
    assert held is not None
    assert (held["prompt"], held["sample"], held["seed"]) == ("a wolf", 1, 7)


def test_as_from_python(tiny: Path, tmp_path: Path) -> None:
    import multidiff

    made = exact(tiny, tmp_path / "out", LEFT, UP, "-n", "5", "--seed", "3", "--batch-size", "2")
    out = multidiff.load(tiny)([LEFT, UP], num_samples=5, seed=3)
    for one, other in zip(made, out.frames, strict=True):
        assert np.abs(one.astype(int) - other[..., 0]).max() <= 1


def test_without_a_prompt(tiny: Path, tmp_path: Path) -> None:
    assert run(tiny, tmp_path, "-n", "1", "--frames", "2")["samples"][0]["prompt"] == ""


def test_a_file_of_prompts(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text(f'prompt,frames,negative_prompt\n{LEFT},1,{UP}\n"a 1, going up",3,\n{UP},,\n')
    said = run(tiny, tmp_path / "out", "--prompts", str(tmp_path / "p.csv"), "-n", "4")
    assert [record["prompt"] for record in said["samples"]] == [LEFT, "a 1, going up", UP, LEFT]
    assert [record["frames"] for record in said["samples"]] == [1, 3, WINDOW, 1]
    assert [record["file"][-3:] for record in said["samples"]] == ["png", "mp4", "mp4", "png"]
    assert said["settings"]["negative_prompt"] == [UP, None, None]
    (tmp_path / "p.txt").write_text(f"{LEFT}\n{UP}\n")
    said = run(tiny, tmp_path / "text", "--prompts", str(tmp_path / "p.txt"), "-n", "2", "--frames", "1")
    assert [record["prompt"] for record in said["samples"]] == [LEFT, UP]


STRANGE = ["$(touch x)", "../x", "/etc/passwd", "`id`; rm -rf .", "\U0001f436 שבע", "a\tb\nc", "%s {0}", "", "'\"\\"]


def test_prompts_are_never_names_or_commands(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = run(tiny, tmp_path / "out", *STRANGE, "-n", str(len(STRANGE)), "--frames", "1")
    assert [record["prompt"] for record in said["samples"]] == STRANGE
    assert os.listdir(tmp_path) == ["out"]
    held = [read_recipe(path) for path in sorted((tmp_path / "out").glob("video-*.png"))]
    assert [recipe and recipe["prompt"] for recipe in held] == STRANGE


@pytest.mark.parametrize("format", ["mp4", "gif", "webp", "png"])
def test_how_files_are_written(tiny: Path, tmp_path: Path, format: str) -> None:
    said = run(tiny, tmp_path, LEFT, "-n", "1", "--format", format, "--scale", "3", "--fps", "5", "--frames", "4",
               "--size", "16x24")  # fmt: skip
    name = "video-00000" + ("" if format == "png" else f".{format}")
    assert said["samples"][0]["file"] == name
    assert said["samples"][0]["seconds"] == 0.8
    frames, _ = read(tmp_path / name, fps=5)
    assert frames.shape == (4, 48, 72, 3)


# -------------------------------------------------------------------------------------------- frames that are given


def test_from_a_picture(tiny: Path, tmp_path: Path, picture: np.ndarray, picture_file: Path) -> None:
    for made in exact(tiny, tmp_path, LEFT, "--init", str(picture_file), "-n", "2"):
        assert made.shape == (WINDOW, SIZE, SIZE)
        assert np.array_equal(made[0], picture)
    said = json.loads((tmp_path / "run.json").read_text())
    assert said["settings"]["init"] == str(picture_file)


def test_going_on(tiny: Path, tmp_path: Path, clip: np.ndarray, frames_folder: Path) -> None:
    (made,) = exact(tiny, tmp_path / "a", "--init", str(frames_folder), "--context", "3", "--frames", "14", "-n", "1")
    assert made.shape == (14, SIZE, SIZE)
    assert np.array_equal(made[:3], clip[-3:, ..., 0])


def test_between_two_pictures(tiny: Path, tmp_path: Path, clip: np.ndarray) -> None:
    for k in (0, 9):
        Image.fromarray(clip[k, ..., 0]).save(tmp_path / f"at@{k}.png")
    (made,) = exact(
        tiny, tmp_path / "out", LEFT, "-n", "1", "--keyframe", f"{tmp_path / 'at@0.png'}@0",
        "--keyframe", f"{tmp_path / 'at@9.png'}@-1",
    )  # fmt: skip
    assert np.array_equal(made[0], clip[0, ..., 0])
    assert np.array_equal(made[-1], clip[9, ..., 0])


def test_what_was_generated_is_gone_on_from(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tiny, tmp_path / "one", LEFT, "-n", "1")
    made = exact(tiny, tmp_path / "two", LEFT, "-n", "1", "--init", str(tmp_path / "one" / "video-00000.mp4"))
    assert made[0].shape == (WINDOW, SIZE, SIZE)
    said = capsys.readouterr().err
    assert "video-00000.mp4 has 256 x 256 pixels; its middle was brought to 16 x 16" in said


def test_a_picture_of_another_kind_is_converted_and_said(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGBA", (40, 30), (200, 30, 30, 128)).save(tmp_path / "in.png")
    run(tiny, tmp_path / "out", LEFT, "--init", str(tmp_path / "in.png"), "-n", "1", "--frames", "2")
    said = capsys.readouterr().err
    assert "in.png has 30 x 40 pixels; its middle was brought to 16 x 16" in said
    assert "in.png is in colour; it was made gray" in said


def test_previews(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from multidiff_video import output

    seen: list[tuple[int, int]] = []
    real = output.write_preview

    def watch(folder: Path, clips: Any, fps: float, prompts: Any, step: int, steps: int) -> None:
        seen.append((step, steps))
        real(folder, clips, fps, prompts, step, steps)
        assert (folder / "preview.png").read_bytes().startswith(b"\x89PNG")

    monkeypatch.setattr(output, "write_preview", watch)
    call = [LEFT, "-n", "3", "--frames", "2", "--steps", "5"]
    run(tiny, tmp_path / "with", *call, "--preview-every", "2", "--batch-size", "2")
    assert seen == [(2, 5), (4, 5)] * 2
    assert {p.name for p in (tmp_path / "with").iterdir()} >= {"preview.png", "video.png", "run.json"}
    plain = run(tiny, tmp_path / "without", *call, "--batch-size", "2")
    with_previews = hashes(tmp_path / "with")
    del with_previews["preview.png"]
    assert with_previews == hashes(tmp_path / "without")  # looking changes nothing
    assert "preview_every" not in plain["settings"]


# ------------------------------------------------------------------------------------------------------ wrong input


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--solver", "dmp++2m"], "did you mean 'dpm++2m'?"),
        (["--grid", "karas"], "did you mean 'karras'?"),
        (["--frames", "0"], "--frames"),
        (["--frames", "2.5"], "--frames"),
        (["--frames", "1" + "0" * 9], "frames of 16 x 16 pixels needs about"),
        (["--size", "12"], "multiples of 8"),
        (["--size", "33"], "multiples of 8"),
        (["--size", "16x"], "--size: must be pixels a side"),
        (["--size", "-16"], "--size"),
        (["--fps", "0"], "--fps: must be frames a second"),
        (["--fps", "fast"], "--fps: must be frames a second"),
        (["--fps", "100", "--format", "gif"], "GIF"),
        (["--format", "mov"], "unknown format 'mov'"),
        (["--format", "mp3"], "did you mean 'mp4'?"),
        (["--scale", "0"], "--scale"),
        (["--scale", "257"], "--scale"),
        (["--context", "0"], "--context"),
        (["--context", "8"], "context 8 is not allowed"),
        (["--init", "/no/such.png"], "no file /no/such.png"),
        (["--init", "TEXT"], "text.png"),
        (["--init", "EMPTY"], "empty.png"),
        (["--init", "NONE"], "holds no numbered frames"),
        (["--init", "FOLDER", "--frames", "4"], "all 4 frames are given"),
        (["--init", "FOLDER", "--frames", "2"], "give more frames"),
        (["--keyframe", "PICTURE"], "must be FILE@INDEX"),
        (["--keyframe", "PICTURE@"], "must be FILE@INDEX"),
        (["--keyframe", "PICTURE@x"], "must be FILE@INDEX"),
        (["--keyframe", "@3"], "must be FILE@INDEX"),
        (["--keyframe", "/no/such.png@3"], "no file /no/such.png"),
        (["--keyframe", "PICTURE@8"], "a frame is given at 8, and the clip has 8"),
        (["--keyframe", "PICTURE@3", "--keyframe", "PICTURE@3"], "frame 3 is given twice"),
        (["--keyframe", "PICTURE@3", "--keyframe", "PICTURE@-5"], "two frames are given at 3"),
        (["--keyframe", "FOLDER@3"], "is to be a picture"),
        (["--prompts", "/no/such.txt"], "cannot read the prompts in /no/such.txt"),
        (["--prompts", "EMPTY"], "empty.png"),
        (["--prompts", "PICTURE"], "three.png"),
        (["--preview-every", "0"], "--preview-every"),
        (["--guidance-scale", "nan"], "finite"),
        (["--negative", "x"], "unknown option '--negative'"),
        (["--num-samples", "0"], "--num-samples"),
        (["--num-samples", "1" + "0" * 12], "MB"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_options(
    tiny: Path, tmp_path: Path, picture_file: Path, frames_folder: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, options: list[str], says: str,
) -> None:  # fmt: skip
    never_called(monkeypatch)
    (tmp_path / "text.png").write_text("this is no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "none").mkdir()
    files = {"PICTURE": picture_file, "FOLDER": frames_folder, "NONE": tmp_path / "none"}
    files |= {name.upper(): tmp_path / f"{name}.png" for name in ("text", "empty")}
    for name, path in files.items():
        options = [option.replace(name, str(path)) for option in options]
    asked = [] if "--prompts" in options else [LEFT]
    line = refused(capsys, generate(tiny, tmp_path / "out", *asked, *options))
    assert says in line
    assert len(line) < 500
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("prompt,frames\na 3,0\n", "frames 0"),
        ("prompt,frames\na 3,2.5\n", "2.5"),
        ("prompt,frames\na 3,many\n", "many"),
        ("prompt,frames\na 3,1000000000\n", "needs about"),
        ("prompt,seconds\na 3,1\n", "seconds"),
        ("prompt\n", "p.csv"),
    ],
)
def test_tables_of_prompts_that_are_wrong(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, table: str,
    says: str,
) -> None:  # fmt: skip
    never_called(monkeypatch)
    (tmp_path / "p.csv").write_text(table)
    assert says in refused(capsys, generate(tiny, tmp_path / "out", "--prompts", str(tmp_path / "p.csv")))


def test_what_a_file_says_is_not_said_again(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.csv").write_text(f"prompt,frames\n{LEFT},3\n")
    file = ["--prompts", str(tmp_path / "p.csv")]
    for order in (["--frames", "2", *file], [*file, "--frames", "2"]):
        told = refused(capsys, generate(tiny, tmp_path / "out", *order))
        assert "give frames in the file of --prompts or as --frames, not both" in told


@pytest.mark.parametrize("name", ["video-00000.mp4", "video-00007", "video-00000.gif", "video.png"])
def test_files_of_somebody_else_are_kept(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    never_called(monkeypatch)
    (tmp_path / name).write_text("mine")
    assert f"holds {name}, which is not of this job" in refused(capsys, generate(tiny, tmp_path, LEFT))
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {name: "mine"}


def test_a_preview_of_somebody_else_is_kept(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "preview.png").write_text("mine")
    call = [LEFT, "-n", "1", "--frames", "1", "--preview-every", "1"]
    assert "preview.png is there" in refused(capsys, generate(tiny, tmp_path, *call))
    assert (tmp_path / "preview.png").read_text() == "mine"


def test_a_second_run_of_other_settings_is_refused(
    tiny: Path, tmp_path: Path, picture_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = [LEFT, "-n", "2", "--frames", "2"]
    run(tiny, tmp_path, *call)
    before = hashes(tmp_path)
    assert main(generate(tiny, tmp_path, *call, "--batch-size", "1")) == 0
    assert "nothing to do" in capsys.readouterr().out
    said = refused(capsys, generate(tiny, tmp_path, UP, "-n", "2", "--frames", "2"))
    assert f'prompt ["{LEFT}"] there, ["{UP}"] asked for' in said
    for more in (["--fps", "5"], ["--format", "gif"], ["--seed", "1"], ["--init", str(picture_file)], ["--size", "24"]):
        assert "asked for" in refused(capsys, generate(tiny, tmp_path, *call, *more))
    assert hashes(tmp_path) == before


def test_another_file_of_the_same_name_is_another_job(
    tiny: Path, tmp_path: Path, clip: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "in.png"
    Image.fromarray(clip[0, ..., 0]).save(path)
    for option in (["--init", str(path)], ["--keyframe", f"{path}@1"]):
        Image.fromarray(clip[0, ..., 0]).save(path)
        call = [LEFT, "-n", "1", "--frames", "3", *option]
        run(tiny, tmp_path / option[0], *call)
        Image.fromarray(clip[5, ..., 0]).save(path)
        capsys.readouterr()
        assert "asked for" in refused(capsys, generate(tiny, tmp_path / option[0], *call))


# ------------------------------------------------------------------------------------------------------ interruption


TEXT, FROM_PICTURE = [LEFT, UP], [LEFT, "--init", "PICTURE"]


@pytest.mark.parametrize(("call", "at"), [(TEXT, 1), (TEXT, 7), (TEXT, 17), (FROM_PICTURE, 9)])
def test_interrupted_and_continued(
    tiny: Path, tmp_path: Path, picture_file: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], call: list[str], at: int,
) -> None:  # fmt: skip
    from multidiff_video.network import VideoUNet

    monkeypatch.setattr(generation, "KEEP_EVERY", -1.0)
    call = [str(picture_file) if token == "PICTURE" else token for token in call]
    call += ["-n", "6", "--batch-size", "2", "--frames", "11", "--format", "gif", "--scale", "1"]
    assert main(generate(tiny, tmp_path / "whole", *call)) == 0
    calls, real = 0, VideoUNet.forward

    def forward(self: Any, *args: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise KeyboardInterrupt
        return real(self, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(VideoUNet, "forward", forward)
        assert main(generate(tiny, tmp_path / "part", *call)) == 130
    kept = 2 * ((at - 1) // 6)  # three calls in each of the two windows of a batch of two
    assert f"{kept} of 6 samples are kept; the same command continues" in capsys.readouterr().err
    assert os.listdir(tmp_path / "part") == [".job"]
    assert main(generate(tiny, tmp_path / "part", *call)) == 0
    assert hashes(tmp_path / "part") == hashes(tmp_path / "whole")
    whole, part = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("whole", "part"))
    assert part["samples"] == whole["samples"]
    assert part["settings"] == whole["settings"]


# ------------------------------------------------------------------------------------------------------ what it costs


def test_help_names_the_options_of_video(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "video", "--help"]) == 0
    said = capsys.readouterr().out
    for option in ("--prompts", "--frames", "--init", "--keyframe", "--context", "--fps", "--size", "--preview-every"):
        assert option in said
    assert "a 3 moving left" in said


def test_nothing_is_imported_in_vain(tiny: Path, tmp_path: Path) -> None:
    """Help and a wrong option cost no torch; a clip costs nothing that is for training."""
    code = (
        "import sys\nfrom multidiff.cli import main\n"
        "assert main(['generate', 'video', '--help']) == 0\n"
        "assert main(['generate', 'video', 'a 3', '--out', sys.argv[-1], '--frames', '-1']) == 2\n"
        "assert not {'torch', 'imageio', 'imageio_ffmpeg', 'PIL', 'scipy'} & set(sys.modules), sorted(sys.modules)\n"
        "code = main(sys.argv[1:])\n"
        "vain = {'lightning', 'matplotlib', 'pandas', 'diffusers', 'e3nn', 'rdkit', 'scipy', 'torch._dynamo'}\n"
        "sys.exit(code or str(vain & set(sys.modules)) if code or vain & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *generate(tiny, tmp_path / "out", LEFT, "-n", "1", "--frames", "2")],
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
