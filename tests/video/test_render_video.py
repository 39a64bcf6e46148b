"""The picture of several clips."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from multidiff_video.render import COLUMNS, GAP, HEAD, MARGIN, MOST, contact_sheet, described

GROUND = (10, 40, 90)


def page(*clips: np.ndarray, fps: float = 8, **given: object) -> np.ndarray:
    """(H, W, 3), with a title for each."""
    prompts = given.pop("prompts", ["title"] * len(clips))
    return np.asarray(Image.open(io.BytesIO(contact_sheet(clips, fps, prompts, **given))).convert("RGB"))  # type: ignore[arg-type]


def counted(frames: int, size: int = 64) -> np.ndarray:
    """Frame k is of one colour, which no other frame and nothing else on the page has."""
    clip = np.zeros((frames, size, size, 3), np.uint8)
    clip[:] = GROUND
    clip[..., 2] += np.arange(frames, dtype=np.uint8)[:, None, None]
    return clip


def where(picture: np.ndarray, frame: int) -> np.ndarray:
    """(n, 2) the pixels of a frame of `counted`."""
    colour = np.add(GROUND, (0, 0, frame))
    return np.argwhere((picture == colour).all(-1))


@pytest.mark.parametrize(("frames", "shown"), [(1, [0]), (3, [0, 1, 2]), (8, range(8)), (15, range(0, 15, 2))])
def test_frames_stand_from_left_to_right(frames: int, shown: list[int]) -> None:
    picture = page(counted(frames))
    found = {k: where(picture, k) for k in range(frames)}
    assert [k for k in found if len(found[k])] == list(shown)
    lefts = [found[k][:, 1].min() for k in shown]
    assert lefts == sorted(lefts)
    assert all(len(found[k]) == 128 * 128 for k in shown)  # twice as large, and whole
    assert len({found[k][:, 0].min() for k in shown}) == 1


@pytest.mark.parametrize("frames", [9, 16, 64, 150])
def test_the_first_and_the_last_frame_are_always_there(frames: int) -> None:
    picture = page(counted(frames, 16))
    blue = picture[(picture[..., :2] == GROUND[:2]).all(-1)][:, 2]
    shown = np.unique(blue).astype(int) - GROUND[2]
    assert (len(shown), shown[0], shown[-1]) == (COLUMNS, 0, frames - 1)
    assert np.ptp(np.diff(shown)) <= 1


def test_a_row_a_clip() -> None:
    clips = [counted(4) + np.array([k, 0, 0], np.uint8) for k in range(3)]
    picture = page(*clips)
    tops = []
    for k in range(3):
        colour = np.add(GROUND, (k, 0, 0))
        tops.append(np.argwhere((picture == colour).all(-1))[:, 0].min())
    assert tops == sorted(set(tops))
    assert np.ptp(np.diff(tops)) == 0


def test_small_frames_are_enlarged_without_smoothing_and_large_ones_keep_their_shape() -> None:
    checks = (np.indices((16, 16)).sum(0) % 2 * 255).astype(np.uint8)[None, ..., None]
    picture = page(checks)
    inside = picture[MARGIN + HEAD : MARGIN + HEAD + 128, 2 * MARGIN : 2 * MARGIN + 128]
    assert np.array_equal(inside, checks[0].repeat(8, 0).repeat(8, 1).repeat(3, 2))
    large = page(np.full((1, 400, 200, 3), 77, np.uint8))
    found = np.argwhere((large == 77).all(-1))
    assert (np.ptp(found, axis=0) + 1).tolist() == [128, 64]


def test_times_stand_under_frames_and_differ_with_the_rate() -> None:
    eight, four = page(counted(16), fps=8), page(counted(16), fps=4)
    below = slice(MARGIN + HEAD + 128 + 1, MARGIN + HEAD + 128 + 20)
    for k in range(COLUMNS):
        across = slice(2 * MARGIN + k * (128 + GAP), 2 * MARGIN + k * (128 + GAP) + 128)
        assert (eight[below, across] < 200).any()
        assert (eight[below, across] != four[below, across]).any() == (k > 0)  # the first is at 0 in both
    assert not (page(counted(1))[below] < 200).any()  # a picture has none


def test_no_more_rows_than_fit_and_the_rest_is_told() -> None:
    many = [counted(2, 16)] * (MOST + 4)
    full, more = page(*many[:MOST]), page(*many)
    assert more.shape[0] > full.shape[0]
    assert np.array_equal(full[: -2 * MARGIN], more[: full.shape[0] - 2 * MARGIN])
    assert np.array_equal(page(*many[:MOST], total=MOST + 4), more)
    assert not np.array_equal(page(*many[:MOST], total=MOST + 5), more)


def test_a_fault_is_red() -> None:
    def red(note: str) -> bool:
        picture = page(counted(2), notes=[note]).astype(int)
        return bool((picture[..., 0] - picture[..., 1] > 100).any())

    assert red("sample 3, still")
    assert red("sample 3, not finite")
    assert not red("sample 3, 16 frames")


def test_sizes_channels_and_lengths_may_differ_and_rows_be_empty() -> None:
    clips = [counted(3), np.zeros((0, 8, 8, 1), np.uint8), np.zeros((9, 30, 100, 1), np.uint8), counted(1, 300)]
    assert page(*clips).shape[1] > 8 * 128
    assert page().size
    assert page(np.zeros((5, 1, 1, 1), np.uint8)).size


@pytest.mark.parametrize("prompt", ["", "word " * 20_000, "🐶" * 1000, "\0\n\x1b[31m", "שלום \u202e", "a\udc80b", "i"])
def test_any_title_stays_in_its_row(prompt: str) -> None:
    plain, titled = page(counted(2), prompts=["-"]), page(counted(2), prompts=[prompt])
    assert plain.shape == titled.shape
    assert np.array_equal(plain[MARGIN + HEAD :], titled[MARGIN + HEAD :])
    assert np.array_equal(plain[:, -2 * MARGIN :], titled[:, -2 * MARGIN :])
    assert (plain != titled).any()


def test_what_is_kept_in_the_file() -> None:
    data = contact_sheet([counted(2)], 8, ["é"], None, {"recipe": {"prompt": "é 🐶\n"}, "note": "words"})
    info = Image.open(io.BytesIO(data)).info
    assert json.loads(info["recipe"]) == {"prompt": "é 🐶\n"}
    assert info["note"] == "words"


def test_clips_in_words() -> None:
    assert described(np.zeros((16, 48, 64, 1), np.uint8), 8) == "16 frames, 64x48, 2 s"
    assert described(np.zeros((1, 48, 64, 1), np.uint8), 8) == "a picture, 64x48"
