"""What a call gives: saving, what is told of bad clips, keeping a large job's results, notebooks."""

from __future__ import annotations

import base64
import errno
import html
import io
import json
import os
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from multidiff.errors import InputError
from multidiff.pipeline import SettingWarning
from multidiff_video.encoding import recipe_in
from multidiff_video.faults import fault
from multidiff_video.generated import VideoOutput, restore, store
from multidiff_video.output import write, write_preview

RECIPE = {"checkpoint": "some", "sha256": "00", "solver": "ddim", "num_inference_steps": 4, "seed": 3, "fps": 8.0}
SMALL = {"scale": 1}  # files of a few pixels, for speed


def moving(frames: int = 6, size: int = 16, channels: int = 1, at: int = 2) -> np.ndarray:
    """A bright square of 4 pixels that moves from left to right."""
    clip = np.zeros((frames, size, size, channels), np.uint8)
    for k in range(frames):
        clip[k, at : at + 4, k : k + 4] = 230
    return clip


def output(indices: list[int], channels: int = 1, failed: dict[int, int] | None = None, **recipe: Any) -> VideoOutput:
    """Clips that depend on the sample number alone, of different lengths."""
    clips = [moving(4 + i % 3, 16 + i % 5, channels, 2 + i % 8) for i in indices]
    return VideoOutput(clips, 8.0, [f"clip {i}" for i in indices], indices, failed or {}, RECIPE | SMALL | recipe, 4)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -------------------------------------------------------------------------------------------------------------- saving


@pytest.mark.parametrize("format", ["mp4", "gif", "webp", "png"])
def test_each_sample_has_its_file(tmp_path: Path, format: str) -> None:
    made = output([12, 3, 100_000], 3, format=format)
    records: list[dict[str, Any]] = []
    counts = made.save(tmp_path, records)
    end = "" if format == "png" else f".{format}"
    names = [f"video-00012{end}", f"video-00003{end}", f"video-100000{end}"]
    assert {path.name for path in tmp_path.iterdir()} == {*names, "video.png"}
    assert [(r["sample"], r["file"], r["prompt"], r["frames"], r["seconds"], r["warning"]) for r in records] == [
        (i, name, f"clip {i}", len(clip), len(clip) / 8, "")
        for i, name, clip in zip(made.indices, names, made.frames, strict=True)
    ]
    for i, name in zip(made.indices, names, strict=True):
        assert recipe_in(tmp_path / name) == {**made.recipe, "sample": i, "prompt": f"clip {i}"}
    assert recipe_in(tmp_path / "video.png") == made.recipe
    assert counts == {"samples": 3, "written": 3, "empty": 0, "still": 0, "noise": 0}
    json.dumps([records, counts], allow_nan=False)


def test_clips_of_one_frame_are_pictures(tmp_path: Path) -> None:
    clips = [moving(1), moving(3)]
    VideoOutput(clips, 8.0, ["a", "b"], [0, 1], {}, RECIPE | SMALL).save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"video-00000.png", "video-00001.mp4", "video.png"}
    assert np.array_equal(np.asarray(Image.open(tmp_path / "video-00000.png")), clips[0][0, ..., 0])


def test_choices_at_saving_take_the_place_of_the_recipes(tmp_path: Path) -> None:
    made = output([0], format="webp")
    made.save(tmp_path, format="gif", scale=3)
    held = recipe_in(tmp_path / "video-00000.gif")
    assert held is not None
    assert (held["format"], held["scale"]) == ("gif", 3)
    assert Image.open(tmp_path / "video-00000.gif").size == (48, 48)
    with pytest.raises(InputError, match="made otherwise"):
        made.save(tmp_path, format="gif", scale=2)
    with pytest.raises(InputError, match="unknown format"):
        made.save(tmp_path, format="avi")
    assert set(files(tmp_path)) == {"video-00000.gif", "video.png"}


@pytest.mark.parametrize("format", ["mp4", "gif", "webp", "png"])
def test_the_same_recipe_may_save_again_and_another_may_not(tmp_path: Path, format: str) -> None:
    output([0, 1], format=format).save(tmp_path)
    before = files(tmp_path)
    lost = min(tmp_path.glob("video-00001*"))
    (lost if lost.is_file() else lost / "frame-00000.png").unlink()  # as if it had been interrupted
    (tmp_path / "video.png").unlink()
    if lost.is_dir():
        for frame in lost.iterdir():
            frame.unlink()
        lost.rmdir()
    output([0, 1], format=format).save(tmp_path)
    assert files(tmp_path) == before
    for other in (output([0, 1], format=format, seed=4), output([0, 1], format=format, grid="else")):
        with pytest.raises(InputError, match="made otherwise"):
            other.save(tmp_path)
    assert files(tmp_path) == before


def test_without_a_seed_nothing_is_replaced(tmp_path: Path) -> None:
    made = output([0])
    made.recipe.pop("seed")
    made.save(tmp_path)
    with pytest.raises(InputError, match="made otherwise"):
        made.save(tmp_path)


@pytest.mark.parametrize("name", ["video-00001.mp4", "video.png"])
def test_files_of_others_are_not_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(InputError, match=f"{name} is there"):
        output([0, 1]).save(tmp_path)
    assert files(tmp_path) == {name: b"mine"}


def test_full_disk_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if "00001" not in path.name:
            return whole(path, data)
        whole(path, data[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    made = output([0, 1, 2], format="gif")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match="disk full"):
        made.save(tmp_path)
    with pytest.raises(InputError, match="disk full"):
        made.save(tmp_path, format="png")
    assert [path.name for path in tmp_path.iterdir()] == ["video-00000.gif"]
    monkeypatch.setattr(Path, "write_bytes", whole)
    assert made.save(tmp_path)["written"] == 3


@pytest.mark.parametrize("prompt", ["", "$(touch x); `touch x`", "../../../../tmp/x", "a\nb\0c\x1b[31m", "a\udc80b",
                                    "🐶 שלום \u202e", "word " * 20_000])  # fmt: skip
def test_any_prompt(tmp_path: Path, prompt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "deep/out"
    records: list[dict[str, Any]] = []
    for _ in range(2):  # the second time over the first
        write([moving()], 8, [prompt], [0], out, RECIPE | SMALL, {}, records)
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"video-00000.mp4", "video.png"}
    held = recipe_in(out / "video-00000.mp4")
    assert held is not None
    assert held["prompt"] == prompt or prompt.startswith(held["prompt"].removesuffix("..."))
    json.dumps(records, ensure_ascii=False).encode()
    with pytest.raises(InputError):
        write([moving()], 8, [prompt + "x"], [0], out, RECIPE | SMALL)


# -------------------------------------------------------------------------------------------------------------- faults


def test_what_is_wrong_with_a_clip_is_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    specks = np.full((6, 64, 64, 1), 30, np.uint8)
    specks[rng.integers(6, size=10), rng.integers(64, size=10), rng.integers(64, size=10)] = 255
    noise = rng.integers(0, 256, (6, 16, 16, 1), dtype=np.uint8)
    clips = [moving(), specks, moving()[:1].repeat(6, 0), noise, moving()]
    records: list[dict[str, Any]] = []
    with pytest.warns(SettingWarning, match="4 of 5 clips .*: sample 1 empty, 2 still, 3 noise, 4 not finite") as told:
        counts = write(clips, 8, [""] * 5, range(5), tmp_path, RECIPE | SMALL, {4: 9}, records)
    assert len(told) == 1
    assert counts == {"samples": 5, "written": 4, "empty": 1, "still": 1, "noise": 1}
    assert [r["warning"] for r in records] == ["", "empty", "still", "noise", "not finite"]
    assert (records[4]["file"], records[4]["frames"], records[4]["seconds"]) == (None, None, None)
    assert set(files(tmp_path)) == {"video.png", *(f"video-{k:05d}.mp4" for k in range(4))}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("amplitude", [60, 255])
def test_noise_is_told_apart(channels: int, amplitude: int) -> None:
    rng = np.random.default_rng(0)
    for shape in ((16, 64, 64, channels), (2, 64, 64, channels), (1, 64, 64, channels)):
        plain = rng.integers(0, amplitude + 1, shape, dtype=np.uint8)
        normal = np.clip(128 + amplitude / 4 * rng.normal(size=shape), 0, 255).astype(np.uint8)
        assert fault(plain) == "noise"
        assert fault(normal) == "noise"


def test_clips_that_are_good() -> None:
    y, x = np.indices((64, 64))
    checks = ((x + y) % 2 * 255).astype(np.uint8)
    waves = [np.rint(127 + 100 * np.sin(x / 3 + y / 5 + t)).astype(np.uint8) for t in range(8)]
    turning = np.stack([checks, checks[::-1]])[..., None]
    grain = np.random.default_rng(0).normal(size=(8, 64, 64, 1)) * 6 + moving(8, 64)
    slow = np.zeros((16, 64, 64, 1), np.uint8)
    for k in range(16):
        slow[k, 10:20, 10 + k // 8 : 20 + k // 8] = 255  # one pixel in all
    for clip in (moving(), moving(channels=3), np.stack(waves)[..., None], turning, moving(1), checks[None, ..., None],
                 grain.clip(0, 255).astype(np.uint8), 255 - moving(16, 64), slow):  # fmt: skip
        assert fault(clip) == ""


@pytest.mark.data
def test_real_clips_are_hardly_ever_called_faulty(tmp_path: Path) -> None:
    import tarfile

    import imageio_ffmpeg

    if "MULTIDIFF_DATA" not in os.environ:
        pytest.skip("MULTIDIFF_DATA is not set")
    told = []
    with tarfile.open(Path(os.environ["MULTIDIFF_DATA"]) / "video_clips.tar") as packed:
        for member in [member for member in packed.getmembers() if member.name.endswith(".mp4")][::4]:
            (tmp_path / "a.mp4").write_bytes(packed.extractfile(member).read())  # type: ignore[union-attr]
            frames = imageio_ffmpeg.read_frames(str(tmp_path / "a.mp4"))
            width, height = next(frames)["size"]
            told.append(fault(np.stack([np.frombuffer(f, np.uint8).reshape(height, width, 3) for f in frames])))
    assert set(told) <= {"", "still"}  # there are those in which nobody comes by
    assert told.count("still") <= len(told) // 10


def test_good_clips_do_not_warn(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        output([0, 1]).save(tmp_path)


# ------------------------------------------------------------------------------------------------- store and restore


@pytest.mark.parametrize("channels", [1, 3])
def test_what_was_stored_is_what_comes_back(tmp_path: Path, channels: int) -> None:
    whole = output([0, 1, 2, 3, 4], channels, format="gif")
    store([output([3], channels), output([0, 4], channels)], tmp_path / "000000")
    store([output([2, 1], channels)], tmp_path / "000001")
    back = restore([tmp_path / "000000", tmp_path / "000001"], whole.recipe, 4)
    assert (back.indices, back.prompts, back.fps, len(back)) == (whole.indices, whole.prompts, 8.0, 5)
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(back.frames, whole.frames, strict=True))
    assert np.array_equal(back.frames[-2:][1], whole.frames[4])
    records: dict[str, list[dict[str, Any]]] = {"made": [], "restored": []}
    counts = [made.save(tmp_path / name, records[name]) for name, made in (("made", whole), ("restored", back))]
    assert counts[0] == counts[1]
    assert records["made"] == records["restored"]
    assert [record["sample"] for record in records["made"]] == [0, 1, 2, 3, 4]
    assert files(tmp_path / "made") == files(tmp_path / "restored")


def test_what_failed_is_known_again_and_said(tmp_path: Path) -> None:
    store([output([4, 2], failed={2: 17})], tmp_path / "chunk")
    back = restore([tmp_path / "chunk"], RECIPE | SMALL, 4)
    assert back.failed == {2: 17}
    records: list[dict[str, Any]] = []
    with pytest.warns(SettingWarning, match="2 not finite"):
        counts = back.save(tmp_path / "out", records)
    assert (counts["samples"], counts["written"]) == (2, 1)
    assert [record.get("not_finite_at_step") for record in records] == [17, None]
    assert set(files(tmp_path / "out")) == {"video-00004.mp4", "video.png"}


def test_all_failed_and_none_at_all(tmp_path: Path) -> None:
    with pytest.warns(SettingWarning, match="not finite"):
        output([0, 1], failed={0: 0, 1: 2}).save(tmp_path / "failed")
    assert set(files(tmp_path / "failed")) == {"video.png"}
    assert output([]).save(tmp_path / "none")["samples"] == 0
    assert len(restore([], RECIPE, 4)) == 0


def test_clips_are_read_when_used(tmp_path: Path) -> None:
    store([output([0, 1])], tmp_path / "chunk")
    back = restore([tmp_path / "chunk"], RECIPE, 4)
    (tmp_path / "chunk.npz").unlink()
    with pytest.raises(InputError, match=r"chunk\.npz is damaged"):
        back.frames[0]


@pytest.mark.parametrize("cut", [0, 10, 0.5, -1])
def test_cut_file(tmp_path: Path, cut: float) -> None:
    store([output([0, 1])], tmp_path / "chunk")
    whole = (tmp_path / "chunk.npz").read_bytes()
    (tmp_path / "chunk.npz").write_bytes(whole[: round(cut * len(whole)) if isinstance(cut, float) else cut])
    with pytest.raises(InputError, match=r"chunk\.npz is damaged"):
        restore([tmp_path / "chunk"], RECIPE, 4)


# ------------------------------------------------------------------------------------------------ notebooks, previews


def test_notebooks_play_each() -> None:
    made = output(list(range(10)))
    made.prompts[1] = "<script>alert(1)</script>\"'"  # type: ignore[index]
    made.frames[3] = moving(1)  # type: ignore[index]
    made.failed[2] = 5
    shown = made._repr_html_()
    assert "<script" not in shown
    assert html.escape(made.prompts[1]) in shown
    assert "and 2 more" in shown
    assert shown.count("not finite") == 1
    clips = [base64.b64decode(found) for found in re.findall(r'src="data:video/mp4;base64,([^"]+)"', shown)]
    pictures = [base64.b64decode(found) for found in re.findall(r'src="data:image/png;base64,([^"]+)"', shown)]
    assert (len(clips), len(pictures)) == (6, 1)
    assert all(clip[4:8] == b"ftyp" for clip in clips)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(pictures[0]))), made.frames[3][0, ..., 0])


def test_a_preview_replaces_its_own_and_nobody_elses(tmp_path: Path) -> None:
    for step in (5, 10):
        write_preview(tmp_path, [moving()], 8, ["a square"], step, 20)
        assert recipe_in(tmp_path / "preview.png") == {"preview": step}
    assert os.listdir(tmp_path) == ["preview.png"]
    Image.new("L", (4, 4)).save(tmp_path / "preview.png")
    with pytest.raises(InputError, match="no preview of ours"):
        write_preview(tmp_path, [moving()], 8, ["a square"], 5, 20)
    assert Image.open(tmp_path / "preview.png").size == (4, 4)
