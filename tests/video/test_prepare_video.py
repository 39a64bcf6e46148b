"""`prepare` keeps every good clip, names every bad file and unpacks nothing; folders can be trained on as they are."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("imageio_ffmpeg")
pytest.importorskip("PIL")

import imageio_ffmpeg
from PIL import Image

from multidiff.captions import TEST, TRAIN, VALIDATION, chance
from multidiff.cli import main
from multidiff.errors import InputError
from multidiff_video import packing
from multidiff_video.lazy import LazyVideos
from multidiff_video.opening import open_videos
from multidiff_video.packed import ABOUT, FRAMES, PackedVideos
from multidiff_video.packing import kept
from multidiff_video.prepare import prepare

SIDE = 16


def frames(values: list[int]) -> np.ndarray:
    """Each of one gray: a frame tells which it is."""
    return np.broadcast_to(np.array(values, np.uint8)[:, None, None, None], (len(values), SIDE, SIDE, 3))


def video(path: Path, values: list[int] | None = None, fps: float = 10) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    clip = frames([40, 80, 120, 160] if values is None else values)
    raw = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{SIDE}x{SIDE}", "-r", str(fps), "-i", "pipe:0")
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *raw, "-c:v", "libx264rgb", "-qp", "0", str(path)]
    subprocess.run(command, input=clip.tobytes(), check=True)
    return path


def picture(path: Path, value: int = 200) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(frames([value])[0]).save(path)
    return path


def run(source: Path, **options: Any) -> tuple[str, PackedVideos]:
    target = source.parent / "packed"
    report = prepare(source, target, **{"size": SIDE, **options})
    return report, PackedVideos.load(target)


def seen(clip: np.ndarray) -> list[int]:
    return [round(float(frame.mean())) for frame in clip]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "clips"
    made.mkdir()
    return made


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An animation of four frames at 10 a second, for copies: no process is started for it."""
    path = tmp_path_factory.mktemp("sample") / "a.gif"
    pages = [Image.fromarray(frame) for frame in frames([40, 80, 120, 160])]
    pages[0].save(path, save_all=True, append_images=pages[1:], duration=100)
    return path.read_bytes()


def copies(folder: Path, sample: bytes, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(sample)


def test_videos_pictures_animations_and_frames_are_clips(folder: Path) -> None:
    video(folder / "b.mp4", [10, 20, 30])
    video(folder / "deep" / "a.mkv", [60, 70])
    picture(folder / "photo.jpg", 128)
    for i in (9, 10, 11):
        picture(folder / "walk" / f"frame{i}.png", 10 * i)
    pages = [Image.fromarray(frame) for frame in frames([5, 250])]
    pages[0].save(folder / "z.gif", save_all=True, append_images=pages[1:], duration=100)
    report, packed = run(folder)
    assert {name: seen(packed.clip(i)) for i, name in enumerate(packed.sources)} == {
        "b.mp4": [10, 20, 30],
        "photo.jpg": [128],
        "z.gif": [5, 250],
        "deep/a.mkv": [60, 70],
        "walk": [90, 100, 110],
    }
    assert (packed.fps, packed.shape) == (10, (SIDE, SIDE, 3))
    assert "5 files, 5 kept, 0 skipped" in report
    assert sorted(os.listdir(folder.parent / "packed")) == [ABOUT, FRAMES]
    assert sorted(os.listdir(folder.parent)) == ["clips", "packed"]


def test_rates_sizes_and_channels_by_default_and_by_choice(folder: Path) -> None:
    for i, fps in enumerate([20, 20, 5]):
        video(folder / f"{i}.mp4", [40, 80, 120, 160], fps)
    report, packed = run(folder)
    assert packed.fps == 20
    assert packed.lengths.tolist() == [4, 4, 16]
    assert "20 frames a second, the most frequent rate" in report
    _, packed = run(folder, fps=10, size="8x12", gray=True)
    assert packed.lengths.tolist() == [2, 2, 8]
    assert packed.shape == (12, 8, 1)
    assert seen(packed.clip(2)) == [40, 40, 80, 80, 120, 120, 160, 160]


def test_windows_follow_one_another_and_pictures_are_kept(folder: Path) -> None:
    video(folder / "long.mp4", [10 * i for i in range(11)])
    video(folder / "short.mp4", [10, 20, 30])
    picture(folder / "photo.png", 77)
    report, packed = run(folder, frames=4)
    clips = [seen(packed.clip(i)) for i in range(len(packed))]
    assert clips == [[0, 10, 20, 30], [40, 50, 60, 70], [77]]
    assert packed.sources == ["long.mp4", "long.mp4", "photo.png"]
    assert "skipped, shorter than 4 frames: 1: short.mp4: 3" in report
    assert f"{packing.LEFT_OVER}: 1" in report


TABLE = """file,caption,split
a.gif,"a ball, falling",train
a.gif,falling,
b.gif,,test
gone.gif,Nobody.,train
walk,someone walks,validation
"""


def test_tables_are_found_and_what_fits_nothing_is_named(folder: Path, sample: bytes) -> None:
    copies(folder, sample, "a.gif", "b.gif", "c.gif")
    for i in range(3):
        picture(folder / "walk" / f"{i}.png")
    (folder / "captions.csv").write_text(TABLE)
    report, packed = run(folder)
    assert dict(zip(packed.sources, packed.captions, strict=True)) == {
        "a.gif": ("a ball, falling", "falling"),
        "b.gif": (),
        "c.gif": (),
        "walk": ("someone walks",),
    }
    assert dict(zip(packed.sources, packed.split.tolist(), strict=True)) == {
        "a.gif": TRAIN,
        "b.gif": TEST,
        "c.gif": TRAIN,
        "walk": VALIDATION,
    }
    assert "captions for files that are not there: 1: gone.gif" in report
    assert "files without caption: 2: b.gif; c.gif" in report


def test_tables_elsewhere_json_lines_and_none(folder: Path, sample: bytes) -> None:
    copies(folder, sample, "balls/a.gif", "balls/b.gif")
    (folder / "balls" / "metadata.csv").write_text("file_name,text\na.gif,one\n")
    assert run(folder)[1].captions == [("one",), ()]
    other = folder.parent / "other.jsonl"
    other.write_text(json.dumps({"path": "balls/b.gif", "captions": ["x", "y"]}))
    assert run(folder, captions=other)[1].captions == [(), ("x", "y")]
    assert run(folder, captions="none")[1].captions == [("balls",), ("balls",)]
    (folder / "balls" / "metadata.csv").write_text("file,caption\nx.gif,one\n")
    with pytest.raises(InputError, match=r"none of the 1 files that the captions name .*x\.gif"):
        run(folder)


def test_texts_beside_the_files_are_captions(folder: Path, sample: bytes) -> None:
    copies(folder, sample, "a.gif", "b.gif")
    (folder / "a.txt").write_text("\ufeffa ball\n\n  bouncing  \n")
    (folder / "README.txt").write_text("about this folder")
    for i in range(2):
        picture(folder / "walk" / f"{i}.png")
    (folder / "walk.txt").write_text("a walk")
    report, packed = run(folder)
    assert dict(zip(packed.sources, packed.captions, strict=True)) == {
        "a.gif": ("a ball", "bouncing"),
        "b.gif": (),
        "walk": ("a walk",),
    }
    assert "other files, not read: 1" in report


def test_folders_are_captions_and_parts(folder: Path, sample: bytes) -> None:
    copies(folder, sample, "train/red_ball/1.gif", "test/red_ball/1.gif", "val/2.gif")
    _, packed = run(folder)
    assert [*zip(packed.sources, packed.captions, packed.split.tolist(), strict=True)] == [
        ("test/red_ball/1.gif", ("red ball",), TEST),
        ("train/red_ball/1.gif", ("red ball",), TRAIN),
        ("val/2.gif", (), VALIDATION),
    ]


def test_numbered_pictures_with_captions_of_their_own_are_pictures(folder: Path) -> None:
    for i in range(3):
        picture(folder / "dogs" / f"{i}.png", 50 * i)
    assert len(run(folder)[1]) == 1
    (folder / "captions.csv").write_text("file,caption\n" + "".join(f"dogs/{i}.png,dog {i}\n" for i in range(3)))
    _, packed = run(folder)
    assert packed.captions == [("dog 0",), ("dog 1",), ("dog 2",)]
    assert packed.lengths.tolist() == [1, 1, 1]


def test_validation_falls_by_the_name_alone(folder: Path, sample: bytes) -> None:
    names = [f"{i}.gif" for i in range(12)]
    copies(folder, sample, *names)
    _, packed = run(folder, validation=0.4)
    falls = [chance(name) < 0.4 for name in packed.sources]
    assert (packed.split == VALIDATION).tolist() == falls
    assert any(falls)
    assert not all(falls)


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "zip"])
def test_archives_hold_what_the_folder_does(folder: Path, kind: str) -> None:
    video(folder / "b.mp4", [10, 20, 30])
    picture(folder / "photo.jpg", 128)
    for i in (10, 9, 11):
        picture(folder / "walk" / f"frame{i}.png", 10 * i)
    (folder / "metadata.csv").write_text("file,caption\nb.mp4,b\nwalk,w\n")
    (folder / "photo.txt").write_text("p")
    archive = folder.parent / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as file:
            for path in sorted(folder.rglob("*.*")):
                file.write(path, path.relative_to(folder).as_posix())
    else:
        with tarfile.open(archive, "w:gz" if kind.endswith("gz") else "w") as file:
            file.add(folder, ".")
    _, expected = run(folder)
    _, packed = run(archive)
    for i, name in enumerate(expected.sources):
        row = packed.sources.index(name)
        assert np.array_equal(packed.clip(row), expected.clip(i))
        assert packed.captions[row] == expected.captions[i] == (name[0],)
    assert len(packed) == len(expected) == 3


def _bad_files(folder: Path) -> dict[str, str]:
    """Files that cannot be used, and the words that the report has for each."""
    (folder / "text.mp4").write_text("a text, named .mp4")
    (folder / "zero.mp4").write_bytes(b"")
    whole = video(folder / "cut.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (folder / "damaged.gif").write_bytes(b"GIF89a")
    sine = ("-f", "lavfi", "-i", "sine=duration=0.2", "-c:a", "aac")
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *sine, str(folder / "sound.mp4")], check=True)
    words = {"text.mp4": "neither a video", "zero.mp4": "is empty", "cut.mp4": "index"}
    return words | {"photo.heic": "convert", "damaged.gif": "damaged picture", "sound.mp4": "sound but no pictures"}


def test_bad_files_are_skipped_counted_and_named(
    folder: Path, sample: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = _bad_files(folder)
    copies(folder, sample, "good.gif")
    report, packed = run(folder)
    assert packed.sources == ["good.gif"]
    assert seen(packed.clip(0)) == [40, 80, 120, 160]
    assert report.startswith(f"warning: {len(bad)} of {len(bad) + 1} files")
    for name, words in bad.items():
        assert name in report
        assert words in report
    assert capfd.readouterr() == ("", "")


def test_folders_with_nothing_readable_are_refused_and_write_nothing(folder: Path) -> None:
    with pytest.raises(InputError, match=r"no video file in .*looked for \.mp4"):
        run(folder)
    bad = _bad_files(folder)
    with pytest.raises(InputError, match=rf"no video in .* could be used; not readable: {len(bad)}") as refused:
        run(folder)
    assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match="can be read; not readable"):
        open_videos(folder)
    assert os.listdir(folder.parent) == ["clips"]


def test_few_skipped_files_are_no_warning(folder: Path) -> None:
    for i in range(100):
        picture(folder / f"a{i}x.png")
    (folder / "bad.mp4").write_text("text")
    report, packed = run(folder, size=2)
    assert len(packed) == 100
    assert not report.startswith("warning")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"fps": 0.0}, "--fps 0 is out of range"),
        ({"fps": float("nan")}, "--fps nan is out of range"),
        ({"size": "big"}, "--size big is not allowed"),
        ({"size": 0}, "size 0 is not allowed"),
        ({"frames": 0}, "--frames 0 is out of range"),
        ({"crop": "middle"}, "unknown crop 'middle'"),
        ({"validation": 1.0}, "--validation 1 is out of range"),
        ({"captions": "none.csv"}, "cannot read the captions none.csv"),
    ],
)
def test_wrong_options_are_refused_and_write_nothing(folder: Path, options: dict[str, Any], why: str) -> None:
    picture(folder / "a.png")
    with pytest.raises(InputError, match=why):
        run(folder, **options)
    assert os.listdir(folder.parent) == ["clips"]


def test_outputs_that_hold_something_else_are_refused_before_the_work(folder: Path, sample: bytes) -> None:
    copies(folder, sample, "a.gif")
    for target in (folder, folder / "a.gif"):
        with pytest.raises(InputError, match=r"holds other files|is a file"):
            prepare(folder, target)
    run(folder)
    with pytest.raises(InputError, match="is packed already"):
        prepare(folder.parent / "packed", folder.parent / "again")
    assert len(run(folder)[1]) == 1  # a packed one is replaced


def test_an_interruption_leaves_nothing(folder: Path, sample: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    copies(folder, sample, "a.gif", "b.gif")

    def stops(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(packing, "_windows", stops)
    with pytest.raises(KeyboardInterrupt):
        run(folder)
    assert os.listdir(folder.parent) == ["clips"]


def test_the_command(folder: Path, sample: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    copies(folder, sample, "ball/a.gif")
    target = folder.parent / "out"
    options = ["--fps", "5", "--size", "8", "--frames", "2", "--gray", "--validation", "0"]
    assert main(["prepare", "video", str(folder), str(target), *options]) == 0
    packed = PackedVideos.load(target)
    assert (packed.fps, packed.shape, packed.lengths.tolist()) == (5, (8, 8, 1), [2])
    assert "clips: 1 of 2 frames" in capsys.readouterr().out
    assert main(["prepare", "video", str(folder), str(target), "--size", "x"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


# ------------------------------------------------------------------------------------------------- as it is


@pytest.fixture
def mixed(folder: Path) -> Path:
    video(folder / "b.mp4", [10 * i for i in range(10)])
    picture(folder / "photo.jpg", 128)
    for i in range(3):
        picture(folder / "walk" / f"{i}.png", 50 * i)
    pages = [Image.fromarray(frame) for frame in frames([5, 100, 250])]
    pages[0].save(folder / "z.gif", save_all=True, append_images=pages[1:], duration=200)
    (folder / "bad.mp4").write_text("text")
    (folder / "captions.csv").write_text("file,caption,split\nb.mp4,b,test\nwalk,w,\n")
    return folder


@pytest.mark.parametrize("fps", [None, 5])
def test_a_folder_as_it_is_and_packed_are_the_same_data(mixed: Path, fps: float | None) -> None:
    _, packed = run(mixed, fps=fps, gray=True)
    lazy = open_videos(mixed, fps=fps, size=SIDE, gray=True)
    assert isinstance(lazy, LazyVideos)
    assert len(lazy) == len(packed) == 4
    assert (lazy.fps, lazy.sources, lazy.captions, lazy.shape) == (
        packed.fps,
        packed.sources,
        packed.captions,
        packed.shape,
    )
    assert lazy.lengths.tolist() == packed.lengths.tolist()
    assert lazy.split.tolist() == packed.split.tolist()
    for i, length in enumerate(packed.lengths.tolist()):
        assert np.array_equal(lazy.clip(i), packed.clip(i))
        assert np.array_equal(lazy.clip(i, length // 2, 1), packed.clip(i, length // 2, 1))
        with pytest.raises(IndexError):
            lazy.clip(i, 0, length + 1)


def test_what_is_skipped_is_said(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    open_videos(mixed)
    assert "skipped, not readable: 1: bad.mp4 is neither a video" in capsys.readouterr().err


def test_a_file_that_promises_too_much_stands_still_at_its_end(
    folder: Path, sample: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies(folder, sample, "a.gif")
    monkeypatch.setattr("multidiff_video.movie.Stream.seconds", lambda stream: 0.7)
    assert open_videos(folder, fps=5, size=SIDE).lengths.tolist() == [3]
    lazy = open_videos(folder, size=SIDE)
    assert lazy.lengths.tolist() == [7]
    assert seen(lazy.clip(0)) == [40, 80, 120, 160, 160, 160, 160]
    assert seen(lazy.clip(0, 5, 2)) == [160, 160]


def test_caches_are_made_once_and_again_when_the_files_change(mixed: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = open_videos(mixed, size=SIDE, cache=cache)
    assert isinstance(first, PackedVideos)
    assert isinstance(first.frames, np.memmap)
    made = (cache / FRAMES).stat().st_mtime_ns
    lazy = open_videos(mixed, size=SIDE)
    assert isinstance(lazy, LazyVideos)
    again = kept(lazy.found, lazy.rules, cache)
    assert (cache / FRAMES).stat().st_mtime_ns == made
    assert all(np.array_equal(again.clip(i), lazy.clip(i)) for i in range(len(lazy)))
    assert open_videos(mixed, size=8, cache=cache).clip(0).shape[1:] == (8, 8, 3)
    picture(mixed / "new.png")
    assert len(open_videos(mixed, size=8, cache=cache)) == len(lazy) + 1
    assert len(open_videos(cache)) == len(lazy) + 1
    with pytest.raises(InputError, match="holds other files"):
        open_videos(mixed, cache=mixed)


def test_archives_are_trained_on_through_a_cache(folder: Path, sample: bytes) -> None:
    copies(folder, sample, "a.gif")
    archive = folder.parent / "a.tar"
    with tarfile.open(archive, "w") as file:
        file.add(folder, ".")
    with pytest.raises(InputError, match="unpack it, or make a data set"):
        open_videos(archive)
    assert len(open_videos(archive, cache=folder.parent / "cache")) == 1


# ------------------------------------------------------------------------------------------------- real files


def _data(*parts: str) -> Path:
    folder = os.environ.get("MULTIDIFF_DATA")
    if not folder:
        pytest.skip("MULTIDIFF_DATA is not set")
    return Path(folder, *parts)


@pytest.mark.data
def test_real_clips_with_their_captions_and_split(tmp_path: Path) -> None:
    import csv
    import io

    import imageio.v3 as iio

    path = _data("video_clips.tar")
    report = prepare(path, tmp_path / "clips", size=128, validation=0)
    packed = PackedVideos.load(tmp_path / "clips")
    assert "145 files, 145 kept, 0 skipped" in report
    assert (len(packed), packed.fps, packed.lengths.tolist()) == (145, 10, [16] * 145)
    with tarfile.open(path) as archive:
        content = archive.extractfile("video_clips/metadata.csv")
        assert content is not None
        rows = {row["file"]: row for row in csv.DictReader(io.TextIOWrapper(content, "utf-8"))}
        for i, source in enumerate(packed.sources):
            row = rows[source]
            assert packed.captions[i] == (row["caption"],)
            assert packed.split[i] == {"train": TRAIN, "test": TEST}[row["split"]]
        content = archive.extractfile(packed.sources[3])
        assert content is not None
        reference = iio.imread(content.read(), extension=".mp4", plugin="FFMPEG")
    difference = np.abs(packed.clip(3).astype(int) - reference)
    assert difference.mean() < 2  # chroma is interpolated with more care here
    for i in (0, 15):
        errors = [np.abs(packed.clip(3, i, 1)[0].astype(int) - frame).mean() for frame in reference]
        assert int(np.argmin(errors)) == i


@pytest.mark.data
def test_messy_folders_keep_what_can_be_read(tmp_path: Path) -> None:
    report = prepare(_data("messy", "video"), tmp_path / "clips", size=32, fps=8)
    assert report.startswith("warning: 5 of 19 files")
    assert len(PackedVideos.load(tmp_path / "clips")) == 14
