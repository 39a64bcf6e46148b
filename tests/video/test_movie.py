"""Videos and pictures of every kind are read at the asked rate and size; what cannot be read is said in one line."""

from __future__ import annotations

import os
import subprocess
import tracemalloc
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("imageio_ffmpeg")
pytest.importorskip("PIL")

import imageio_ffmpeg
from PIL import Image

from multidiff.errors import InputError
from multidiff_video import ffmpeg, framing, movie, stills
from multidiff_video.movie import load, probe, read

EXE = imageio_ffmpeg.get_ffmpeg_exe()
LOSSLESS = ("-c:v", "libx264rgb", "-qp", "0")
FORMATS = {1: "gray", 3: "rgb24", 4: "rgba"}


def run(*options: object, content: bytes = b"") -> None:
    subprocess.run([EXE, "-v", "error", "-y", *map(str, options)], input=content, check=True)


def encode(path: Path, frames: np.ndarray, fps: float = 10, options: Sequence[object] = LOSSLESS) -> Path:
    """A video of (F, H, W, C)."""
    _, height, width, channels = frames.shape
    raw = ("-f", "rawvideo", "-pix_fmt", FORMATS[channels], "-s", f"{width}x{height}", "-r", fps, "-i", "pipe:0")
    run(*raw, *options, path, content=np.ascontiguousarray(frames).tobytes())
    return path


def levels(values: Sequence[int], height: int = 16, width: int = 16) -> np.ndarray:
    """Frames that are each of one gray, so that a frame tells which it is."""
    return np.broadcast_to(np.array(values, np.uint8)[:, None, None, None], (len(values), height, width, 3))


def seen(clip: np.ndarray) -> list[int]:
    return [round(float(frame.mean())) for frame in clip]


def expected(times: Sequence[float], values: Sequence[int], fps: float, count: int) -> list[int]:
    """What a clip shows: the last picture that begins, to the nearest frame, no later."""
    ticks = [int(Fraction(time).limit_denominator(10_000) * Fraction(fps) + Fraction(1, 2)) for time in times]
    return [values[max(i for i, tick in enumerate(ticks) if tick <= k)] for k in range(count)]


def noise(frames: int = 3, height: int = 17, width: int = 31, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, height, width, channels), np.uint8)


def gradient(height: int, width: int) -> np.ndarray:
    """A smooth picture: red grows to the right, green to the bottom."""
    rows, columns = np.mgrid[:height, :width]
    planes = (columns * 255 / max(width - 1, 1), rows * 255 / max(height - 1, 1), np.full((height, width), 60.0))
    return np.round(np.stack(planes, -1)).astype(np.uint8)


def test_videos_of_odd_sizes_come_back_as_they_are(tmp_path: Path) -> None:
    frames = noise()
    path = encode(tmp_path / "a.mp4", frames, 12.5)
    clip, fps = read(path)
    assert np.array_equal(clip, frames)
    assert fps == 12.5
    info = probe(path)
    assert (info.width, info.height, info.fps, info.frames) == (31, 17, 12.5, 3)
    assert info.duration == pytest.approx(0.24, abs=0.01)


RATES = (5, 10, 3, 12.5, 2.5)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 seconds at 5 frames a second, coded out of order; the gray is 20 i modulo 11."""
    values = [20 * (i % 11) + 20 for i in range(200)]
    options = ("-c:v", "libx264rgb", "-qp", "0", "-bf", "3", "-g", "48")
    return encode(tmp_path_factory.mktemp("long") / "long.mp4", levels(values, 8, 8), 5, options)


@pytest.mark.parametrize("fps", RATES)
def test_frames_are_those_nearest_in_time_at_any_rate(long: Path, fps: float) -> None:
    values = [20 * (i % 11) + 20 for i in range(200)]
    clip, got = read(long, fps)
    assert (got, len(clip)) == (fps, round(40 * fps))
    assert seen(clip) == expected([i / 5 for i in range(200)], values, fps, len(clip))


@pytest.mark.parametrize("fps", [5, 29.97])
def test_windows_are_parts_of_the_whole_wherever_they_begin(long: Path, fps: float) -> None:
    whole, _ = read(long, fps)
    for first in (0, 1, 53, 119, len(whole) - 3):
        window, _ = read(long, fps, start=first / fps, count=3)
        assert np.array_equal(window, whole[first : first + 3]), first
    rest, _ = read(long, fps, start=(len(whole) - 2) / fps, count=5)
    assert len(rest) == 2
    with pytest.raises(InputError, match=r"long\.mp4 has no frame at 41 s"):
        read(long, start=41.0)


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_frames_that_last_unequally_are_sampled_in_time(tmp_path: Path, ending: str) -> None:
    values, tenths = [30, 60, 90, 120, 150, 180], [0, 1, 2, 5, 9, 15]
    times = "+".join(f"{tenth}*eq(N\\,{i})" for i, tenth in enumerate(tenths))
    options = (*LOSSLESS, "-bf", "2", "-vf", f"setpts=({times})/10/TB", "-fps_mode", "vfr")
    path = encode(tmp_path / f"a.{ending}", levels(values), 10, options)
    for fps in (10, 4, 20):
        clip, _ = read(path, fps)
        assert seen(clip) == expected([tenth / 10 for tenth in tenths], values, fps, len(clip))
        assert len(clip) >= 1.5 * fps


def test_animations_are_sampled_as_videos_are(tmp_path: Path) -> None:
    values, pauses = [10, 60, 110, 160, 210], [100, 300, 50, 400, 150]
    pictures = [Image.fromarray(frame) for frame in levels(values)]
    times = np.concatenate([[0], np.cumsum(pauses)]) / 1000
    for ending, options in {"gif": {}, "webp": {"lossless": True}, "png": {}}.items():
        path = tmp_path / f"a.{ending}"
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=pauses, **options)
        for fps in (10, 4, 20):
            clip, _ = read(path, fps)
            assert len(clip) == round(float(times[-1]) * fps)
            assert seen(clip) == expected(times[:-1].tolist(), values, fps, len(clip))
        assert probe(path).duration == pytest.approx(1.0)
        assert len(read(path, start=0.5, count=2)[0]) == 2


@pytest.mark.parametrize("fps", [None, 1, 10])
def test_one_frame_is_one_frame_at_any_rate(tmp_path: Path, fps: float | None) -> None:
    path = encode(tmp_path / "one.mp4", noise(1))
    assert np.array_equal(read(path, fps)[0], noise(1))
    Image.fromarray(noise(1)[0]).save(tmp_path / "one.gif")
    assert len(read(tmp_path / "one.gif", fps)[0]) == 1


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_turned_videos_are_turned_back(tmp_path: Path, degrees: int) -> None:
    frames = noise(2, 16, 32)
    plain = encode(tmp_path / "plain.mp4", frames)
    run("-display_rotation", degrees, "-i", plain, "-c", "copy", tmp_path / "turned.mp4")
    clip, _ = read(tmp_path / "turned.mp4")
    assert np.array_equal(clip, np.rot90(frames, degrees // 90, (1, 2)))
    info = probe(tmp_path / "turned.mp4")
    assert (info.height, info.width) == clip.shape[1:3]


def test_pixels_that_are_not_square_are_made_so(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", gradient(32, 32)[None], 10, (*LOSSLESS, "-vf", "setsar=2"))
    assert probe(path).width == 64
    clip, _ = read(path, size=32)  # the middle half
    assert abs(int(clip[0, 16, 0, 0]) - 64) < 8
    assert abs(int(clip[0, 16, -1, 0]) - 191) < 8
    assert clip[0, 0, 16, 1] < 8


@pytest.mark.parametrize("kind", ["video", "picture"])
@pytest.mark.parametrize(("height", "width"), [(60, 100), (100, 60), (15, 45), (1, 7)])
def test_cut_padded_and_stretched_alike_whatever_the_kind(tmp_path: Path, kind: str, height: int, width: int) -> None:
    picture = gradient(height, width)
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    if kind == "video":
        path = encode(tmp_path / "a.mp4", picture[None])
    side, least = 24, min(height, width)
    cut, padded, stretched = (read(path, size=side, crop=crop)[0][0].astype(int) for crop in framing.CROPS)
    assert cut.shape == padded.shape == stretched.shape == (side, side, 3)
    left = (width - least) / 2 * 255 / max(width - 1, 1)
    slack = 255 / least + 12
    assert abs(cut[side // 2, 0, 0] - left) < slack
    assert abs(stretched[side // 2, 0, 0]) < slack
    assert abs(stretched[side // 2, -1, 0] - 255) < slack
    rows = max(1, round(side * min(1, height / width)))
    black = (side - rows) // 2
    assert not padded[:black].any()
    assert (padded[black : black + rows, side // 2, 2] > 40).all()


def test_the_middle_is_exactly_the_middle(tmp_path: Path) -> None:
    frames = noise(2, 8, 20)
    path = encode(tmp_path / "a.mp4", frames)
    assert np.array_equal(read(path, size=8)[0], frames[:, :, 6:14])
    assert read(path, size=(4, 10))[0].shape == (2, 4, 10, 3)
    Image.fromarray(frames[0]).save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png", size=8)[0], frames[:1, :, 6:14])


def _half_clear(frames: int = 3) -> np.ndarray:
    """Red on the left, and black that nobody may see on the right."""
    clip = np.zeros((frames, 8, 8, 4), np.uint8)
    clip[:, :, :4] = 255, 0, 0, 255
    return clip


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "mov"])
def test_what_is_transparent_is_white(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    if ending == "mov":
        encode(path, _half_clear(), 10, ("-c:v", "png", "-pix_fmt", "rgba"))
    else:
        pictures = [Image.fromarray(np.roll(frame, i, 1)) for i, frame in enumerate(_half_clear())]
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100, disposal=2, lossless=True)
    clip, _ = read(path)
    assert len(clip) == 3
    for i, frame in enumerate(clip):
        shift = 0 if ending == "mov" else i
        assert (np.roll(frame, -shift, 1)[:, :4] == (255, 0, 0)).all()
        assert (np.roll(frame, -shift, 1)[:, 4:] == 255).all()


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_transparent_webm_is_laid_on_white(tmp_path: Path, codec: str) -> None:
    frames = np.repeat(np.repeat(_half_clear(2), 4, 1), 4, 2)
    options = ("-c:v", codec, "-pix_fmt", "yuva420p", "-auto-alt-ref", 0, "-b:v", "1M")
    clip, _ = read(encode(tmp_path / "a.webm", frames, 10, options))
    assert len(clip) == 2
    assert (clip[:, :, 24:] > 240).all()
    assert (np.abs(clip[:, :, :8].astype(int) - (255, 0, 0)) < 20).all()


def test_pictures_of_every_mode_are_clips_of_one_frame(tmp_path: Path) -> None:
    picture = gradient(20, 30)
    base = Image.fromarray(picture)
    gray = np.asarray(base.convert("L")).astype(int)
    for mode, ending in [
        *((m, "png") for m in ("1", "L", "LA", "P", "RGB", "RGBA")),
        ("CMYK", "jpg"),
        ("YCbCr", "tif"),
    ]:
        base.convert(mode).save(tmp_path / f"{mode}.{ending}")
        clip, fps = read(tmp_path / f"{mode}.{ending}")
        assert clip.shape == (1, 20, 30, 3)
        assert fps == movie.FOLDER_RATE
        if mode != "1":
            assert np.abs(clip[0].mean(-1) - (gray if mode[0] == "L" else picture.mean(-1))).mean() < 10, mode
    Image.fromarray((gray * 257).astype(np.uint16)).save(tmp_path / "sixteen.png")
    Image.fromarray((gray / 255).astype(np.float32)).save(tmp_path / "float.tif")
    for name in ("sixteen.png", "float.tif"):
        assert np.abs(read(tmp_path / name)[0][0, ..., 1].astype(int) - gray).max() <= 1, name
    clear = Image.fromarray(gray.astype(np.uint8)).convert("P")
    clear.save(tmp_path / "key.png", transparency=0)
    assert (read(tmp_path / "key.png")[0][0][np.asarray(clear) == 0] == 255).all()
    assert probe(tmp_path / "key.png").fps == 0


def test_pictures_are_turned_as_the_camera_was(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise()[0]).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read(tmp_path / "a.png")[0][0], np.rot90(noise()[0], -1))
    assert (probe(tmp_path / "a.png").width, probe(tmp_path / "a.png").height) == (17, 31)


def _frame_folder(folder: Path, numbers: Sequence[int], ending: str = "png") -> Path:
    folder.mkdir()
    for n in numbers:
        Image.fromarray(levels([20 * n])[0]).save(folder / f"frame_{n}.{ending}")
    return folder


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_numbered_frames_are_a_video_in_the_order_of_their_numbers(tmp_path: Path, ending: str) -> None:
    folder = _frame_folder(tmp_path / "a", [8, 9, 10, 11], ending)
    (folder / "notes.txt").write_text("not a frame")
    clip, fps = read(folder)
    assert (seen(clip), fps) == ([160, 180, 200, 220], movie.FOLDER_RATE)
    assert seen(read(folder, 3)[0]) == seen(clip)
    assert read(folder, 3)[1] == 3
    assert seen(read(folder, 5, start=0.4)[0]) == [200, 220]
    assert (probe(folder).frames, probe(folder).width) == (4, 16)
    assert load(folder).notes == ()


def test_frames_that_are_missing_damaged_or_of_another_size_are_told(tmp_path: Path) -> None:
    folder = _frame_folder(tmp_path / "a", [1, 2, 4, 5])
    (folder / "frame_1.png").write_bytes(b"no picture")
    Image.fromarray(levels([100], 30, 40)[0]).save(folder / "frame_5.png")
    reading = load(folder)
    assert seen(reading.frames) == [40, 80, 100]
    assert set(reading.notes) == {movie.GAPS, ffmpeg.DAMAGED}
    for n in (2, 4, 5):
        (folder / f"frame_{n}.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"holds no picture|can be read"):
        read(folder)


def test_gray_is_the_luma(tmp_path: Path) -> None:
    path = encode(tmp_path / "a.mp4", noise())
    clip = load(path, gray=True).frames
    assert clip.shape == (3, 17, 31, 1)
    assert np.abs(clip[..., 0] - noise() @ np.array([0.299, 0.587, 0.114])).max() <= 0.5001


def _bad_files(folder: Path) -> dict[str, str]:
    """Files that cannot be read, and the words for each."""
    good = encode(folder / "good.mp4", noise(20, 64, 64)).read_bytes()
    (folder / "good.mp4").unlink()
    (folder / "zero.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("a text, named .mp4")
    (folder / "text.png").write_text("a text, named .png")
    (folder / "head.mp4").write_bytes(good[: len(good) // 2])
    (folder / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0")
    (folder / "huge.gif").write_bytes(b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\x02\x02D\x01\0;")
    (folder / "secret.txt").write_text("secret")
    (folder / "list.mp4").write_text("ffconcat version 1.0\nfile good.mp4\n")
    (folder / "list.mov").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    (folder / "stills").mkdir()
    Image.fromarray(noise()[0]).save(folder / "stills" / "holiday.jpg")
    run("-f", "lavfi", "-i", "sine=duration=0.2", "-c:a", "aac", folder / "sound.mp4")
    words = dict.fromkeys(("text.mp4", "text.png", "list.mp4", "list.mov"), "neither a video nor a picture")
    words |= {"zero.mp4": "is empty", "gone.mp4": "no file", "sound.mp4": "sound but no pictures"}
    words |= {"head.mp4": "index", "cut.png": "damaged", "huge.gif": "larger than any picture"}
    return words | {"stills": "no numbered frames"}


def test_what_cannot_be_read_is_said_in_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name, words in _bad_files(tmp_path).items():
        for reading in (read, probe):
            with pytest.raises(InputError, match=words) as refused:
                reading(tmp_path / name)
            assert name in str(refused.value)
            assert "\n" not in str(refused.value)
    assert capfd.readouterr() == ("", "")


def test_videos_that_are_cut_short_give_what_decodes(tmp_path: Path) -> None:
    options = (*LOSSLESS, "-movflags", "+faststart", "-g", "5")
    whole = encode(tmp_path / "whole.mp4", noise(40, 32, 32), 10, options)
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    reading = load(cut)
    assert reading.notes == (ffmpeg.CUT_SHORT,)
    assert load(whole).notes == ()
    assert 10 < len(reading.frames) < 30
    assert np.array_equal(reading.frames[:-2], noise(40, 32, 32)[: len(reading.frames) - 2])


def test_damaged_animations_end_where_the_damage_is(tmp_path: Path) -> None:
    pictures = [Image.fromarray(frame) for frame in noise(6, 40, 40)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=100)
    content = (tmp_path / "a.gif").read_bytes()
    (tmp_path / "cut.gif").write_bytes(content[: len(content) * 3 // 5])
    reading = load(tmp_path / "cut.gif")
    assert reading.notes == (ffmpeg.CUT_SHORT,)
    assert np.array_equal(reading.frames, read(tmp_path / "a.gif")[0][: len(reading.frames)])
    assert 2 <= len(reading.frames) <= 4


def test_damage_in_the_middle_is_told(tmp_path: Path) -> None:
    content = bytearray(encode(tmp_path / "a.mkv", noise(30, 64, 64), 10, (*LOSSLESS, "-g", "5")).read_bytes())
    for place in range(len(content) // 2, len(content) // 2 + 3000):
        content[place] ^= 0x5A
    (tmp_path / "a.mkv").write_bytes(content)
    assert load(tmp_path / "a.mkv", size=16).notes


def test_large_videos_are_never_held(tmp_path: Path) -> None:
    run(
        "-f",
        "lavfi",
        "-i",
        "testsrc=s=1280x720:r=10:d=3",
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        tmp_path / "a.mp4",
    )
    tracemalloc.start()
    try:
        clip, _ = read(tmp_path / "a.mp4", size=32)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert clip.shape == (30, 32, 32, 3)
    assert peak < 1280 * 720 * 3 / 2  # not even one picture


def test_clips_that_would_fill_the_memory_are_refused(long: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(movie, "MOST", 100 * 8 * 8 * 3)
    assert len(read(long, count=100)[0]) == 100
    with pytest.raises(InputError, match=r"needs more than .* ask for fewer frames"):
        read(long)


def test_time_stamps_that_leap_are_not_filled_with_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "a.mkv", levels([10, 90]), 10, (*LOSSLESS, "-vf", "setpts=N*20/TB", "-fps_mode", "vfr"))
    assert len(read(path, 2)[0]) >= 40
    monkeypatch.setattr(movie, "LONGEST_STILL", 15.0)
    with pytest.raises(InputError, match=r"a\.mkv stands still"):
        read(path, 2)


def test_clips_in_memory_are_brought_to_a_size_as_files_are(tmp_path: Path) -> None:
    clip = noise(2, 12, 30)
    Image.fromarray(clip[1]).save(tmp_path / "a.png")
    for size, crop in ((6, "center"), ((5, 9), "pad"), (40, "stretch")):
        assert np.array_equal(movie.resized(clip, size, crop)[1], read(tmp_path / "a.png", size=size, crop=crop)[0][0])
    assert np.array_equal(movie.resized(clip[..., :1], 6), movie.resized(np.repeat(clip[..., :1], 3, 3), 6)[..., :1])


def test_a_reader_that_is_left_leaves_no_process(long: Path) -> None:
    frames = movie.Stream(long).frames()
    next(frames)
    frames.close()
    with pytest.raises(ChildProcessError):  # there is none to wait for
        os.waitpid(-1, os.WNOHANG)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"fps": 0}, "fps 0 is out of range"),
        ({"fps": float("nan")}, "fps nan is out of range"),
        ({"size": 0}, "size 0 is not allowed"),
        ({"size": (8, 8, 3)}, "is not allowed"),
        ({"size": 10**6}, "size 1000000 is not allowed"),
        ({"crop": "centre"}, "did you mean 'center'"),
        ({"start": -1.0}, "out of range"),
        ({"count": 0}, "out of range"),
    ],
)
def test_wrong_options_are_refused(long: Path, options: dict[str, Any], why: str) -> None:
    with pytest.raises(InputError, match=why):
        read(long, **options)


def test_names_are_names_whatever_they_look_like(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    encode(tmp_path / "a.mp4", noise())
    for name in ("-y", "frame_%03d.mp4", "http:x.mp4", "ü 'quoted'.mp4", "a|b.mp4"):
        (tmp_path / name).write_bytes((tmp_path / "a.mp4").read_bytes())
        assert len(read(name)[0]) == 3


def test_kinds_are_told_by_content_not_by_name(tmp_path: Path) -> None:
    Image.fromarray(noise()[0]).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.mp4")
    assert np.array_equal(read(tmp_path / "a.mp4")[0], noise()[:1])
    encode(tmp_path / "b.mp4", noise())
    (tmp_path / "b.mp4").rename(tmp_path / "b.png")
    assert np.array_equal(read(tmp_path / "b.png")[0], noise())


def test_numbered_names() -> None:
    assert stills.numbered(["f10.png", "f9.png", "x.txt"]) == ["f9.png", "f10.png"]
    for names in (["f1.png"], ["f1.png", "g2.png"], ["f1.png", "f.png"], ["1.txt", "2.txt"], []):
        assert stills.numbered(names) == []


# ------------------------------------------------------------------------------------------------- real files


def _data(*parts: str) -> Path:
    folder = os.environ.get("MULTIDIFF_DATA")
    if not folder:
        pytest.skip("MULTIDIFF_DATA is not set")
    return Path(folder, *parts)


@pytest.mark.data
def test_every_messy_file_is_read_or_refused_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    refused = {}
    counts = {}
    for path in sorted(_data("messy", "video").iterdir()):
        try:
            reading = load(path, size=(24, 32))
        except InputError as error:
            refused[path.name] = str(error)
        else:
            assert reading.frames.shape[1:] == (24, 32, 3)
            counts[path.name] = len(reading.frames), reading.notes
            window = load(path, fps=10, size=16, count=2).frames
            assert 1 <= len(window) <= 2
    assert not any("\n" in told for told in refused.values())
    assert set(refused) == {
        "derived_flower_audio_only.mp4",
        "derived_zero_bytes.mp4",
        "small.avi",
        "small_1x1.gif",
        "small_no_streams.mp4",
    }
    assert "sound but no pictures" in refused["derived_flower_audio_only.mp4"]
    # as the manifest of the pack has them, from another decoder run
    known = {"decord_rotated_90.mov": 3, "decord_unordered.mov": 4, "derived_flower_single_frame_odd_size.mp4": 1}
    known |= {"intel_asl_milk_yuvj420p.mkv": 51, "intel_people-detection.gif": 23, "mdn_stream-of-water.mp4": 90}
    known |= {"mdn_stream-of-water.webm": 118, "small.webm": 1, "torchcodec_av1_video.mkv": 125}
    known |= {"torchcodec_h264_10bits.mp4": 30, "torchcodec_h265_10bits.mp4": 30}
    assert {name: counts[name] for name in known} == {name: (n, ()) for name, n in known.items()}
    assert counts["derived_friday_truncated.mp4"] == (79, (ffmpeg.CUT_SHORT,))
    assert counts["decord_corrupted.mp4"][1] == (ffmpeg.DAMAGED,)
    assert capfd.readouterr() == ("", "")


@pytest.mark.data
def test_a_turned_file_stands_upright() -> None:
    info = probe(_data("messy", "video", "decord_rotated_90.mov"))
    assert (info.width, info.height) == (320, 568)
