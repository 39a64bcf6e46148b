"""What the command line makes of its words, and what it says of those that are wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multidiff.cli.options import Parser, extras
from multidiff.errors import InputError
from multidiff_video import encoding, options
from multidiff_video.request import Request


def parsed(*words: str) -> dict[str, Any]:
    parser = Parser("generate video", "")
    options.generate_arguments(parser)
    return extras(parser.parse(words), ())


def test_nothing_asked_for_is_nothing_given() -> None:
    assert parsed() == {}


def test_all_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("in.mp4", "a@home.png", "b.png"):
        (tmp_path / name).write_bytes(b"")
    given = parsed(
        "a 3 moving left", "a 7", "--negative-prompt", "blur", "--frames", "32", "--fps", "12.5", "--size", "48x64",
        "--init", "in.mp4", "--keyframe", "a@home.png@0", "--keyframe", "b.png@-1", "--context", "4",
        "--grid", "karras", "--format", "gif", "--scale", "3", "--preview-every", "5",
    )  # fmt: skip
    assert given == {
        "prompt": ["a 3 moving left", "a 7"],
        "negative_prompt": "blur",
        "frames": 32,
        "fps": 12.5,
        "size": (48, 64),
        "init": "in.mp4",
        "keyframes": [("a@home.png", 0), ("b.png", -1)],
        "context": 4,
        "grid": "karras",
        "format": "gif",
        "scale": 3,
        "preview_every": 5,
    }


@pytest.mark.parametrize(
    ("text", "pixels"), [("64", (64, 64)), ("48x64", (48, 64)), ("48X64", (48, 64)), ("1", (1, 1))]
)
def test_sizes(text: str, pixels: tuple[int, int]) -> None:
    assert parsed("--size", text)["size"] == pixels


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--size", "0"], "pixels a side"),
        (["--size", "64x"], "height x width"),
        (["--size", "1x2x3"], "pixels a side"),
        (["--size", "6\u0664"], "pixels a side"),
        (["--size", "-64"], "size"),
        (["--frames", "0"], "an integer, 1 or more"),
        (["--fps", "0"], "from 0.01 to 1000"),
        (["--fps", "nan"], "frames a second"),
        (["--scale", "0"], "from 1 to 256"),
        (["--format", "mpeg"], "unknown format 'mpeg'"),
        (["--format", "mp3"], "did you mean 'mp4'"),
        (["--init", "absent.png"], "no file absent.png"),
        (["--keyframe", "absent.png@3"], "no file absent.png"),
        (["--keyframe", "a.png"], "FILE@INDEX"),
        (["--keyframe", "a.png@first"], "FILE@INDEX"),
        (["--keyframe", "@3"], "FILE@INDEX"),
        (["--keyframes", "a.png@3"], "did you mean '--keyframe'"),
        (["--context", "0"], "an integer, 1 or more"),
        (["--preview-every", "0"], "an integer, 1 or more"),
    ],
)
def test_slips_of_the_hand(words: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says) as error:
        parsed(*words)
    assert "\n" not in str(error.value)


def test_formats_are_those_that_can_be_written() -> None:
    assert options.FORMATS == encoding.FORMATS


def test_help_and_errors_do_not_wait_for_torch() -> None:
    script = (
        "import sys, argparse; from multidiff_video import options;"
        "options.generate_arguments(argparse.ArgumentParser());"
        "print([m for m in ('torch', 'numpy', 'PIL', 'imageio_ffmpeg') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip() == "[]"


# --------------------------------------------------------------------------------------------------- files of prompts


def test_a_file_of_prompts(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("prompt,negative_prompt,frames\na 3 moving left,blur,32\na 7,,\n")
    assert parsed("--prompts", str(path)) == {
        "prompt": ["a 3 moving left", "a 7"],
        "negative_prompt": ["blur", None],
        "frames": [32, None],
    }
    with pytest.raises(InputError, match="not both"):
        parsed("a 3", "--prompts", str(path))


@pytest.mark.parametrize("value", [1.5, "many", True, [1]])
def test_frames_that_are_no_number(tmp_path: Path, value: Any) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": "a 3", "frames": value}))
    with pytest.raises(InputError, match="is not a whole number of frames"):
        parsed("--prompts", str(tmp_path / "p.jsonl"))


def test_prompts_are_taken_in_turn() -> None:
    request = Request.of(["a", "b", "c"], "blur", [16, None, np.int64(1)])  # type: ignore[list-item]
    assert (request.prompts, request.negatives, request.frames) == (("a", "b", "c"), ("blur",) * 3, (16, None, 1))
    assert [request.place(i) for i in (0, 2, 3, 2**60)] == [0, 2, 0, 2**60 % 3]
    assert Request.of(None, None, None) == Request(("",), (None,), (None,))
    json.dumps(request.frames)


@pytest.mark.parametrize("frames", [0, -1, [16, 0], 1.5, "16", True, [], [1, 2, 3]])
def test_frames_that_are_not_allowed(frames: Any) -> None:
    with pytest.raises(InputError, match=r"frames|for 3 prompts"):
        Request.of(["a", "b"], None, frames)
