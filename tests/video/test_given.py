"""Frames that are given: read from anything, brought to the form that is made, each at its place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multidiff.errors import InputError
from multidiff_video.encoding import write
from multidiff_video.given import Given, gather

SHAPE, RATE = (16, 16, 1), 10.0


def given(init: Any = None, keyframes: Any = (), context: int = 4, shape: tuple[int, int, int] = SHAPE) -> Given:
    found = gather(init, keyframes, context, shape, RATE)
    assert found is not None
    return found


def test_nothing() -> None:
    assert gather(None, [], 4, SHAPE, RATE) is None


# --------------------------------------------------------------------------------------------------------- as it is


def test_a_picture_is_the_first_frame(picture: np.ndarray, picture_file: Path) -> None:
    for source in (picture, picture[..., None], picture[None, ..., None], picture_file, str(picture_file)):
        made = given(source)
        assert list(made.frames) == [0]
        assert np.array_equal(made.frames[0], picture[..., None])
        assert made.continued == 1
        assert made.warnings == []


def test_a_clip_is_gone_on_from_its_last_frames(clip: np.ndarray, frames_folder: Path) -> None:
    for source in (clip, frames_folder):
        for context in (1, 4, 10, 100):
            made = given(source, context=context)
            kept = clip[-context:]
            assert made.continued == len(made.frames) == len(kept)
            assert all(np.array_equal(made.frames[k], frame) for k, frame in enumerate(kept))
            assert made.warnings == []


def test_keyframes_stand_at_their_places(picture: np.ndarray, picture_file: Path, clip: np.ndarray) -> None:
    made = given(None, [(picture_file, 3), (clip[0], -1), (clip[1, ..., 0], np.int64(5))])
    assert list(made.frames) == [3, -1, 5]
    assert list(made.places(8)) == [3, 7, 5]
    assert made.continued == 0
    for place, frame in ((3, picture[..., None]), (7, clip[0]), (5, clip[1])):
        assert np.array_equal(made.places(8)[place], frame)
    assert [pair[:2] for pair in made.told["keyframes"]] == [[str(picture_file), 3], ["array", -1], ["array", 5]]


def test_both(clip: np.ndarray, picture: np.ndarray) -> None:
    made = given(clip, [(picture, -1)], context=2)
    assert list(made.places(8)) == [0, 1, 7]
    assert made.continued == 2


def test_arrays_of_any_memory_layout(clip: np.ndarray) -> None:
    """Mirrored, read-only, a view of something larger."""
    fixed = clip.copy()
    fixed.setflags(write=False)
    assert np.array_equal(given(fixed).frames[3], clip[-1])
    mirrored = given(clip[:, ::-1, ::-1])
    assert np.array_equal(mirrored.frames[3], clip[-1, ::-1, ::-1])
    sparse = np.zeros((10, 32, 16, 1), np.uint8)
    sparse[:, ::2] = clip
    made = given(sparse[:, ::2])
    assert np.array_equal(made.frames[3], clip[-1])
    sparse[:] = 0  # what was given is kept, whatever becomes of the array
    assert np.array_equal(made.frames[3], clip[-1])
    assert all(frame.flags.writeable and min(frame.strides) > 0 for frame in mirrored.frames.values())


def test_the_same_frames_have_the_same_name_and_others_another(clip: np.ndarray, frames_folder: Path) -> None:
    one, other = given(clip).told["init_sha256"], given(frames_folder).told["init_sha256"]
    changed = clip.copy()
    changed[-1, 0, 0] += 1
    assert one == other != given(changed).told["init_sha256"]
    changed = clip.copy()
    changed[0] += 1  # which is not gone on from
    assert given(changed).told["init_sha256"] == one


# ------------------------------------------------------------------------------------------------------- brought to it


def test_another_size_is_brought_to_it_and_said(clip: np.ndarray, tmp_path: Path) -> None:
    large = clip[-1:].repeat(4, 1).repeat(4, 2)
    write(tmp_path / "large.png", large, RATE, {}, scale=1)
    for source, name in ((large, "init"), (tmp_path / "large.png", "large.png")):
        made = given(source)
        assert made.warnings == [f"{name} has 64 x 64 pixels; its middle was brought to 16 x 16"]
        assert np.abs(made.frames[0].astype(int) - clip[-1]).mean() < 4


def test_of_another_aspect_the_middle_is_taken(clip: np.ndarray) -> None:
    wide = np.full((1, 16, 40, 1), 200, np.uint8)
    wide[:, :, 12:28] = clip[-1]
    made = given(wide)
    assert "16 x 40 pixels; its middle was brought to 16 x 16" in made.warnings[0]
    assert np.array_equal(made.frames[0], clip[-1])


def test_gray_becomes_three_alike(clip: np.ndarray) -> None:
    made = given(clip, shape=(16, 16, 3))
    assert np.array_equal(made.frames[3], clip[-1].repeat(3, -1))
    assert made.warnings == []


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA", "LA", "I;16", "CMYK", "1"])
def test_pictures_of_every_mode(tmp_path: Path, mode: str) -> None:
    from PIL import Image

    black_and_white = (np.indices((16, 16)).sum(0) % 2 * 255).astype(np.uint8)
    image = Image.fromarray(black_and_white)
    if mode == "I;16":
        image = Image.fromarray(black_and_white.astype(np.uint16) * 257)
    else:
        image = image.convert("RGB").convert(mode) if mode == "P" else image.convert(mode)
    path = tmp_path / ("p.tif" if mode == "CMYK" else "p.png")
    image.save(path)
    made = given(path)
    assert np.array_equal(made.frames[0][..., 0], black_and_white)
    assert made.warnings == []


def test_colour_is_made_gray_and_said() -> None:
    """By how bright it looks (ITU-R BT.601)."""
    colours = np.zeros((16, 16, 3), np.uint8)
    colours[:, :5, 0], colours[:, 5:10, 1], colours[:, 10:, 2] = 255, 255, 255
    made = given(colours)
    assert made.warnings == ["init is in colour; it was made gray"]
    assert made.frames[0][0, [0, 5, 10], 0].tolist() == [76, 150, 29]


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGBA", (16, 16), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (given(tmp_path / "clear.png").frames[0] == 255).all()


def test_another_rate_is_brought_to_it_and_said(clip: np.ndarray, tmp_path: Path) -> None:
    write(tmp_path / "fast.webp", clip, 20.0, {}, scale=1)
    made = given(tmp_path / "fast.webp", context=100)
    assert made.warnings == ["fast.webp has 20 frames a second; it was brought to 10"]
    assert len(made.frames) == 5  # as long as before
    steady = given(clip, context=100)
    assert len(steady.frames) == 10  # of an array nothing is known


def test_a_film_is_gone_on_from(clip: np.ndarray, tmp_path: Path) -> None:
    write(tmp_path / "clip.mp4", clip, RATE, {})
    made = given(tmp_path / "clip.mp4", context=3)
    assert made.warnings == ["clip.mp4 has 256 x 256 pixels; its middle was brought to 16 x 16"]
    assert made.continued == 3
    for k in range(3):  # of the three frames each is nearest to the one that it was
        errors = [np.abs(made.frames[k].astype(int) - frame).mean() for frame in clip]
        assert int(np.argmin(errors)) == 7 + k


# ------------------------------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("keyframes", "total", "says"),
    [
        ([(0, 8)], 8, "a frame is given at 8, and the clip has 8: 0 to 7"),
        ([(0, -9)], 8, "a frame is given at -9"),
        ([(0, 3), (0, -5)], 8, "two frames are given at 3"),
    ],
)
def test_places_that_are_none(picture: np.ndarray, keyframes: list[tuple[int, int]], total: int, says: str) -> None:
    made = given(None, [(picture, place) for _, place in keyframes])
    with pytest.raises(InputError, match=says):
        made.places(total)


@pytest.mark.parametrize(
    ("keyframes", "says"),
    [
        ([("PICTURE", 3), ("PICTURE", 3)], "frame 3 is given twice"),
        ([("PICTURE", 1.0)], r"the place 1.0 is no whole number"),
        ([("PICTURE", True)], "the place True is no whole number"),
        ([("PICTURE", "1")], "the place '1' is no whole number"),
        (["PICTURE"], "give pairs of a picture and its place"),
        ([("PICTURE",)], "give pairs of a picture and its place"),
        ([3], "give pairs of a picture and its place"),
        ([("CLIP", 3)], "frame 3 is to be a picture"),
        ([("FOLDER", 3)], "frame 3 is to be a picture"),
        ([("/no/such.png", 3)], "no file /no/such.png"),
    ],
)
def test_keyframes_that_are_wrong(
    picture: np.ndarray, clip: np.ndarray, frames_folder: Path, keyframes: list[Any], says: str
) -> None:
    held = {"PICTURE": picture, "CLIP": clip, "FOLDER": frames_folder}

    def put(value: Any) -> Any:
        return tuple(held.get(v, v) if isinstance(v, str) else v for v in value) if isinstance(value, tuple) else value

    with pytest.raises(InputError, match=says) as caught:
        given(None, [put(value) for value in keyframes])
    assert "\n" not in str(caught.value)


def test_init_and_a_keyframe_at_one_place(clip: np.ndarray, picture: np.ndarray) -> None:
    with pytest.raises(InputError, match="frame 2 is given twice"):
        given(clip, [(picture, 2)])


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((16, 16)),
        np.zeros((16, 16), np.int64),
        np.zeros((16, 16, 2), np.uint8),
        np.zeros((16, 16, 4), np.uint8),
        np.zeros((0, 16, 16, 1), np.uint8),
        np.zeros((1, 1, 16, 16, 1), np.uint8),
        np.zeros(16, np.uint8),
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)
def test_arrays_of_another_form(array: np.ndarray) -> None:
    with pytest.raises(InputError, match="init: give uint8 pixels") as caught:
        given(array)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no picture at all", b"\x89PNG\r\n\x1a\n cut"], ids=["empty", "text", "cut"])
def test_files_that_cannot_be_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.png") as caught:
        given(tmp_path / "bad.png")
    assert "\n" not in str(caught.value)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no numbered frames"):
        given(tmp_path / "none")


@pytest.mark.data
@pytest.mark.skipif("MULTIDIFF_DATA" not in os.environ, reason="MULTIDIFF_DATA is not set")
def test_each_messy_file_is_gone_on_from_or_an_error_of_one_line() -> None:
    refused: list[str] = []
    for path in sorted((Path(os.environ["MULTIDIFF_DATA"]) / "messy" / "video").iterdir()):
        try:
            made = given(path)
        except InputError as error:
            refused.append(str(error))
            continue
        assert all(frame.shape == SHAPE for frame in made.frames.values())
        assert not any("\n" in line for line in made.warnings)
    assert refused
    assert not any("\n" in line for line in refused)
