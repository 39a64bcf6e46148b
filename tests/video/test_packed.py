"""Clips come back from disk as they went, one window at a time; a folder is the old one or the whole new one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from multidiff.errors import InputError
from multidiff_video.packed import ABOUT, FRAMES, PackedVideos, writing

LENGTHS = (5, 1, 7)


def _clips(channels: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (n, 6, 8, channels), np.uint8) for n in LENGTHS]


def _packed(channels: int = 3) -> PackedVideos:
    captions = [("a dog", 'its "tail", ü 🐕'), (), ("",)]
    return PackedVideos.pack(_clips(channels), 12.5, captions, [0, 2, 1], ["a.mp4", "b/c.gif", "d"])


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_saved_is_what_is_loaded(tmp_path: Path, channels: int) -> None:
    packed = _packed(channels)
    packed.save(tmp_path / "deep" / "clips")
    loaded = PackedVideos.load(tmp_path / "deep" / "clips")
    for i, clip in enumerate(_clips(channels)):
        assert np.array_equal(loaded.clip(i), clip)
        assert np.array_equal(packed.clip(i), clip)
    assert (loaded.fps, loaded.captions, loaded.sources) == (packed.fps, packed.captions, packed.sources)
    assert loaded.split.tolist() == [0, 2, 1]
    assert loaded.lengths.tolist() == list(LENGTHS)
    assert loaded.shape == (6, 8, channels)
    assert [loaded.rows(split).tolist() for split in range(3)] == [[0], [2], [1]]
    assert sorted(os.listdir(tmp_path / "deep" / "clips")) == [ABOUT, FRAMES]
    assert np.array_equal(np.load(tmp_path / "deep" / "clips" / FRAMES), packed.frames)


def test_frames_stay_on_disk_and_windows_are_copies(tmp_path: Path) -> None:
    _packed().save(tmp_path / "clips")
    loaded = PackedVideos.load(tmp_path / "clips")
    assert isinstance(loaded.frames, np.memmap)
    window = loaded.clip(2, 3, 2)
    assert np.array_equal(window, _clips()[2][3:5])
    window[:] = 0
    assert np.array_equal(loaded.clip(2, 3, 2), _clips()[2][3:5])


@pytest.mark.parametrize(("start", "count"), [(5, None), (0, 6), (-1, 2), (3, 3), (0, 0)])
def test_windows_never_reach_into_another_clip(start: int, count: int | None) -> None:
    with pytest.raises(IndexError, match="clip 0 has 5 frames"):
        _packed().clip(0, start, count)


def test_clips_of_any_number_are_written_one_frame_at_a_time(tmp_path: Path) -> None:
    held: list[int] = []

    def frames(clip: np.ndarray) -> Iterator[np.ndarray]:
        for i, frame in enumerate(clip):
            held.append(i)
            yield frame

    with writing(tmp_path / "clips", (6, 8, 3), 10) as writer:
        for i in (0, 0, 1, 2):
            writer.add(frames(_clips()[i]), ["x"], 0, str(i))
        assert writer.add(iter(()), ["x"], 0, "nothing") == 0
        writer.drop(1)
        for i in (1, 2):
            writer.add(frames(_clips()[i]), ["x"], 0, str(i))
    loaded = PackedVideos.load(tmp_path / "clips")
    assert loaded.sources == ["0", "1", "2"]
    assert all(np.array_equal(loaded.clip(i), clip) for i, clip in enumerate(_clips()))


def test_an_error_leaves_the_old_folder_and_no_other(tmp_path: Path) -> None:
    _packed().save(tmp_path / "clips")

    def fails() -> Iterator[np.ndarray]:
        yield _clips()[0][0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), writing(tmp_path / "clips", (6, 8, 3), 10) as writer:
        writer.add(fails(), (), 0, "x")
    assert len(PackedVideos.load(tmp_path / "clips")) == len(LENGTHS)
    assert os.listdir(tmp_path) == ["clips"]
    PackedVideos.pack(_clips()[:1], 5).save(tmp_path / "clips")
    assert len(PackedVideos.load(tmp_path / "clips")) == 1


def test_folders_of_something_else_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "holiday.mp4").write_bytes(b"mine")
    with pytest.raises(InputError, match=r"holds other files \(holiday\.mp4\)"):
        _packed().save(tmp_path)
    assert os.listdir(tmp_path) == ["holiday.mp4"]


def test_folders_that_are_not_packed_or_damaged_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no data set at .*multidiff prepare video"):
        PackedVideos.load(tmp_path / "gone")
    with pytest.raises(InputError, match="not a packed video folder; make one"):
        PackedVideos.load(tmp_path)
    folder = tmp_path / "clips"
    _packed().save(folder)
    about, frames = (folder / ABOUT).read_text(), (folder / FRAMES).read_bytes()
    for key, value in {"offsets": [0, 5, 4, 13], "split": [0, 0, 9], "captions": [], "fps": 0, "sources": None}.items():
        (folder / ABOUT).write_text(json.dumps({**json.loads(about), key: value}))
        with pytest.raises(InputError, match="is damaged") as refused:
            PackedVideos.load(folder)
        assert "\n" not in str(refused.value)
    (folder / ABOUT).write_text(about)
    for content in (b"", frames[:100], frames[:-1], frames.replace(b"|u1", b"<f4"), b"\x80\x04pickle"):
        (folder / FRAMES).write_bytes(content)
        with pytest.raises(InputError, match="is damaged"):
            PackedVideos.load(folder)
