"""Clips as files: what other programs see in them, and that they say how they were made."""

from __future__ import annotations

import errno
import json
import os
import re
import struct
import subprocess
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image, ImageSequence

from multidiff.errors import InputError
from multidiff_video import mp4
from multidiff_video.encoding import (
    FORMATS,
    GIF_FASTEST,
    VIEWED,
    FileOptions,
    encode,
    enlarged,
    enlargement,
    read_recipe,
    recipe_in,
    write,
)

RECIPE = {"checkpoint": "some", "sha256": "ab" * 32, "seed": 7, "sample": 12, "prompt": "a 3 moving left", "fps": 8.0}
SIZES = [(64, 64), (48, 64), (33, 47), (301, 300), (1, 3)]


def smooth(frames: int = 6, height: int = 64, width: int = 64, channels: int = 1) -> np.ndarray:
    """Waves that travel, of other phases in each channel."""
    t, y, x, c = np.ogrid[:frames, :height, :width, :channels]
    wave = np.sin(x / 9 + t / 2 + 2 * c) * np.cos(y / 7 - t / 3 + c)
    return np.rint(127.5 + 120 * wave).astype(np.uint8)


def patches() -> np.ndarray:
    """(4, 64, 64, 3) sixteen strong colours in squares, each frame in another order."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (4, 4, 4, 3)).astype(np.uint8)
    return colours.repeat(16, 1).repeat(16, 2)


def ffmpeg(*arguments: object) -> subprocess.CompletedProcess[bytes]:
    exe = imageio_ffmpeg.get_ffmpeg_exe()
    return subprocess.run([exe, "-hide_banner", *map(str, arguments)], capture_output=True, check=False)


def decoded(path: Path | str, clip: np.ndarray, scale: int, more: int = 0) -> np.ndarray:
    """What ffmpeg shows of a file, its size as that of the enlarged clip with so many rows and columns more."""
    answer = ffmpeg("-loglevel", "error", "-i", path, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt",
                    "rgb24", "-")  # fmt: skip
    assert not answer.stderr
    height, width = clip.shape[1] * scale, clip.shape[2] * scale
    shape = (-1, height + more * (height % 2), width + more * (width % 2), 3)
    return np.frombuffer(answer.stdout, np.uint8).reshape(shape)[:, :height, :width]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a / 255.0 - b / 255.0) ** 2) + 1e-12))


# ----------------------------------------------------------------------------------------------------------------- MP4


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_mp4_plays_back_as_it_was(tmp_path: Path, height: int, width: int, channels: int) -> None:
    clip = smooth(5, height, width, channels)
    write(tmp_path / "a.mp4", clip, 8, RECIPE)
    scale = max(1, -(-VIEWED // min(height, width)))
    back = decoded(tmp_path / "a.mp4", clip, scale, more=1)
    assert back.shape == (5, height * scale, width * scale, 3)
    assert min(back.shape[1:3]) >= VIEWED
    expected = np.broadcast_to(enlarged(clip, scale), back.shape)
    assert psnr(back, expected) > (36 if scale > 1 or channels == 1 else 31)  # yuv420p halves the colours' resolution
    if channels == 1:  # no colour has crept in
        assert np.ptp(back.astype(int), axis=-1).max() <= 2


def test_mp4_has_the_colours_that_it_says(tmp_path: Path) -> None:
    clip = patches()
    write(tmp_path / "a.mp4", clip, 8, RECIPE)
    back = decoded(tmp_path / "a.mp4", clip, 4)
    inside = back.reshape(4, 4, 64, 4, 64, 3)[:, :, 16:48, :, 16:48].mean((2, 4))
    assert np.abs(inside - clip[:, ::16, ::16]).max() < 6


def test_mp4_is_of_the_kind_that_every_player_takes(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", smooth(), 12.5, RECIPE)
    said = ffmpeg("-i", tmp_path / "a.mp4").stderr.decode()
    assert re.search(r"Video: h264 \(High\) \(avc1.*yuv420p\(tv, bt709", said)
    assert "256x256" in said
    assert "12.50 fps" in said
    data = (tmp_path / "a.mp4").read_bytes()
    names = [name for name, _ in boxes(data)]
    assert names[0] == b"ftyp"
    assert names.index(b"moov") < names.index(b"mdat")  # fast start: the index comes first


def boxes(data: bytes) -> list[tuple[bytes, bytes]]:
    at, found = 0, []
    while at < len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        found.append((name, data[at + 8 : at + length]))
        at += length
    return found


@pytest.mark.parametrize("fps", [0.5, 8, 23.976, 30000 / 1001, 60])
def test_mp4_lasts_as_long_as_it_should(tmp_path: Path, fps: float) -> None:
    write(tmp_path / "a.mp4", smooth(7, 16, 16), fps, RECIPE, scale=1)
    moov = dict(boxes(dict(boxes((tmp_path / "a.mp4").read_bytes()))[b"moov"]))
    unit, length = struct.unpack_from(">II", moov[b"mvhd"], 12)
    assert length / unit == pytest.approx(7 / fps, abs=2e-3)


def test_the_same_clip_is_the_same_file(tmp_path: Path) -> None:
    for kind in FORMATS:
        assert encode(smooth(), 8, kind) == encode(smooth(), 8, kind)


# ------------------------------------------------------------------------------------------------------ other formats


@pytest.mark.parametrize("channels", [1, 3])
def test_gif_has_the_very_pixels_where_256_colours_suffice(tmp_path: Path, channels: int) -> None:
    clip = patches() if channels == 3 else smooth(4)
    write(tmp_path / "a.gif", clip, 8, RECIPE, scale=2)
    back = decoded(tmp_path / "a.gif", clip, 2)
    assert np.array_equal(back, np.broadcast_to(enlarged(clip, 2), back.shape))


def test_gif_has_nearly_the_pixels_otherwise_and_what_is_still_does_not_flicker(tmp_path: Path) -> None:
    clip = smooth(6, 64, 64, 3)
    clip[:, :, 32:] = clip[:1, :, 32:]
    write(tmp_path / "a.gif", clip, 8, RECIPE, scale=1)
    back = decoded(tmp_path / "a.gif", clip, 1)
    assert psnr(back, clip) > 32
    assert not np.ptp(back[:, :, 32:], axis=0).any()


@pytest.mark.parametrize("channels", [1, 3])
def test_webp_has_the_very_pixels(tmp_path: Path, channels: int) -> None:
    clip = smooth(4, 33, 47, channels)
    write(tmp_path / "a.webp", clip, 8, RECIPE, scale=2)
    with Image.open(tmp_path / "a.webp") as picture:
        assert picture.info["loop"] == 0  # for ever
        frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(picture)]
    assert np.array_equal(frames, np.broadcast_to(enlarged(clip, 2), (4, 66, 94, 3)))


@pytest.mark.parametrize("kind", ["gif", "webp"])
@pytest.mark.parametrize("fps", [7.0, 8, 24, 30, 50])
def test_frames_are_shown_when_they_should_be(tmp_path: Path, kind: str, fps: float) -> None:
    write(tmp_path / "a", smooth(12, 16, 16), fps, RECIPE, kind, 1)
    unit = {"gif": 0.01, "webp": 0.001}[kind]
    with Image.open(tmp_path / "a") as picture:
        shown = [frame.copy().info["duration"] / 1000 for frame in ImageSequence.Iterator(picture)]
    ends = np.cumsum([0.0, *shown]).tolist()
    assert ends == pytest.approx([k / fps for k in range(13)], abs=unit / 2 + 1e-9)


@pytest.mark.parametrize("channels", [1, 3])
def test_png_frames_have_the_very_pixels(tmp_path: Path, channels: int) -> None:
    clip = smooth(3, 33, 47, channels)
    write(tmp_path / "a", clip, 8, RECIPE, "png")
    assert [path.name for path in sorted((tmp_path / "a").iterdir())] == [f"frame-{k:05d}.png" for k in range(3)]
    back = decoded(tmp_path / "a/frame-%05d.png", clip, 1)
    assert np.array_equal(back, np.broadcast_to(clip, back.shape))
    with Image.open(tmp_path / "a/frame-00001.png") as picture:
        assert picture.mode == ("L" if channels == 1 else "RGB")
        assert picture.info["Title"] == RECIPE["prompt"]


@pytest.mark.parametrize("kind", FORMATS)
def test_clips_of_one_frame(tmp_path: Path, kind: str) -> None:
    clip = smooth(1, 48, 64, 3)
    write(tmp_path / "a", clip, 8, RECIPE, kind)
    assert (tmp_path / "a").is_file()
    with Image.open(tmp_path / "a") if kind != "mp4" else Image.fromarray(decoded(tmp_path / "a", clip, 6)[0]) as shown:
        back = np.asarray(shown.convert("RGB"))
    assert psnr(back, enlarged(clip[0], len(back) // 48)) > 32
    assert read_recipe(tmp_path / "a") == RECIPE
    assert FileOptions().of(1) == "png"
    assert FileOptions().of(2) == "mp4"


# ------------------------------------------------------------------------------------------------- what made a file

PROMPTS = {
    "quotes": "\"'<script>\\u0000\\",
    "unicode": "é 🐶 שלום \u202e",
    "lines": "one\ntwo\r\n\tthree\x1b[31m\0",
    "shell": "$(touch x); `touch x` | touch x & %TEMP%",
    "equals": "comment=title=;#[x]",
    "empty": "",
}


@pytest.mark.parametrize("kind", FORMATS)
def test_recipes_come_back(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for k, prompt in enumerate(PROMPTS.values()):
        recipe = {**RECIPE, "prompt": prompt, "more": [1, 2.5, None, {"a": prompt}]}
        write(f"{k}.{kind}", smooth(2, 16, 16), 8, recipe, kind, 1)
        assert read_recipe(f"{k}.{kind}") == recipe
    assert {path.name for path in tmp_path.iterdir()} == {f"{k}.{kind}" for k in range(len(PROMPTS))}  # and no x


@pytest.mark.parametrize("kind", FORMATS)
def test_a_very_long_recipe_is_cut_and_still_tells_itself_apart(tmp_path: Path, kind: str) -> None:
    held = []
    for k, end in enumerate(("", "x")):
        write(tmp_path / f"{k}", smooth(2, 16, 16), 8, {**RECIPE, "prompt": "🐶" * 50_000 + end}, kind, 1)
        held.append(read_recipe(tmp_path / f"{k}"))
    assert held[0]["seed"] == 7
    assert held[0]["prompt"].startswith("🐶🐶")
    assert held[0] != held[1]


def test_ffmpeg_reads_title_and_comment(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", smooth(2, 16, 16), 8, {**RECIPE, "prompt": "Zoë;=#\n3"}, scale=1)
    said = ffmpeg("-loglevel", "error", "-i", tmp_path / "a.mp4", "-f", "ffmetadata", "-").stdout.decode()
    values = dict(re.findall(r"(?m)^(title|comment)=(.*)$", said.replace("\\\n", " ")))
    plain = {name: re.sub(r"\\([=;#\\])", r"\1", value) for name, value in values.items()}
    assert plain["title"] == "Zoë;=# 3"
    assert json.loads(plain["comment"]) == {**RECIPE, "prompt": "Zoë;=#\n3"}


def test_files_that_say_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", smooth(2, 16, 16), 8, RECIPE, scale=1)
    whole = (tmp_path / "a.mp4").read_bytes()
    Image.new("L", (4, 4)).save(tmp_path / "plain.png")
    Image.new("L", (4, 4)).save(tmp_path / "plain.gif")
    Image.new("L", (4, 4)).save(tmp_path / "plain.webp")
    (tmp_path / "text").write_text("no picture")
    (tmp_path / "nothing").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "cut.mp4").write_bytes(whole[:60])
    endless = struct.pack(">I4sI4s", 0, b"moov", 4, b"udta")  # one reaches to the end, the other not past its own head
    (tmp_path / "endless.mp4").write_bytes(whole[:8] + endless)
    for path in (*tmp_path.iterdir(), tmp_path / "absent"):
        if path.name != "a.mp4":
            assert recipe_in(path) is None, path
            with pytest.raises(InputError, match="does not say how it was made"):
                read_recipe(path)


def test_any_cut_or_changed_mp4_is_read_or_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", smooth(2, 16, 16), 8, RECIPE, scale=1)
    whole = (tmp_path / "a.mp4").read_bytes()
    rng = np.random.default_rng(0)
    for at in rng.integers(len(whole), size=100):
        changed = bytearray(whole)
        changed[at] ^= 1 << rng.integers(8)
        (tmp_path / "b.mp4").write_bytes(changed)
        recipe_in(tmp_path / "b.mp4")
        (tmp_path / "b.mp4").write_bytes(whole[:at])
        assert recipe_in(tmp_path / "b.mp4") in (None, RECIPE)


# ------------------------------------------------------------------------------------------------ nothing by halves


@pytest.mark.parametrize("kind", FORMATS)
def test_nothing_is_overwritten_unless_asked(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    write(path, smooth(2, 16, 16), 8, RECIPE, kind, 1)
    with pytest.raises(InputError, match="is there; give another name"):
        write(path, smooth(2, 16, 16), 8, {}, kind, 1)
    assert read_recipe(path) == RECIPE
    write(path, smooth(2, 16, 16), 8, {**RECIPE, "seed": 8}, kind, 1, replace=True)
    assert read_recipe(path)["seed"] == 8
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_with_more_than_frames_is_not_replaced(tmp_path: Path) -> None:
    write(tmp_path / "a", smooth(2, 16, 16), 8, RECIPE, "png")
    (tmp_path / "a/mine.txt").write_text("mine")
    with pytest.raises(InputError, match="other files"):
        write(tmp_path / "a", smooth(2, 16, 16), 8, RECIPE, "png", replace=True)
    assert (tmp_path / "a/mine.txt").read_text() == "mine"


def test_an_encoder_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "tool"
    monkeypatch.setattr(mp4, "_ffmpeg", lambda: str(tool))
    for says, expected in ((os.strerror(errno.ENOSPC), "disk full"), ("Unknown encoder", "ffmpeg cannot write")):
        script = f"for last; do :; done; echo half > \"${{last#file:}}\"; echo '{says}' >&2; exit 1"
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
        (tmp_path / "out").mkdir(exist_ok=True)
        with pytest.raises(InputError, match=expected):
            write(tmp_path / "out/a.mp4", smooth(200, 64, 64, 3), 8, RECIPE)
        assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"format": "avi"}, "unknown format 'avi'"),
        ({"scale": 0}, "scale 0"),
        ({"scale": 2.0}, "scale 2.0"),
        ({"scale": True}, "scale True"),
        ({"fps": 0}, "fps 0"),
        ({"fps": float("nan")}, "fps nan"),
        ({"fps": GIF_FASTEST + 1, "format": "gif"}, "a GIF can show"),
        ({"scale": 256, "clip": smooth(2, 64, 64)}, "16383 a side"),
    ],
)
def test_what_is_not_allowed(tmp_path: Path, wrong: dict[str, Any], says: str) -> None:
    call = {"clip": smooth(2, 16, 16), "fps": 8.0, "recipe": RECIPE, **wrong}
    with pytest.raises(InputError, match=says):
        write(tmp_path / "a", **call)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shape", [(2, 4, 4), (2, 4, 4, 2), (0, 4, 4, 1), (2, 0, 4, 3)])
def test_what_is_no_clip(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a clip is"):
        write(tmp_path / "a", np.zeros(shape, np.uint8), 8, {})
    with pytest.raises(ValueError, match="a clip is"):
        write(tmp_path / "a", np.zeros((2, 4, 4, 1), np.float32), 8, {})


@pytest.mark.parametrize(("side", "scale"), [(1, 256), (28, 10), (64, 4), (100, 3), (255, 2), (256, 1), (4000, 1)])
def test_files_are_enlarged_to_be_seen(side: int, scale: int) -> None:
    clip = np.zeros((2, side, side + 2, 1), np.uint8)
    assert enlargement(clip, FileOptions()) == scale
    assert enlargement(clip, FileOptions("png")) == 1
    assert enlargement(clip, FileOptions(scale=3)) == 3
    assert enlargement(np.zeros((2, 1, 5000, 1), np.uint8), FileOptions()) == 3  # as far as it goes
