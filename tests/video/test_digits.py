"""Moving digits: what a caption says is what is seen, and what is held out is never shown."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from multidiff.conditioning.text import Vocabulary
from multidiff.errors import InputError
from multidiff_video.digits import (
    FRAMES,
    MOTIONS,
    NAMES,
    Actor,
    Glyphs,
    MovingDigits,
    caption,
    drawn_glyphs,
    held_out,
    mnist_glyphs,
    parse,
    words,
)

SIGNS = {"left": (0, -1), "right": (0, 1), "up": (1, -1), "down": (1, 1)}
"""Of each direction the axis, x or y, and the sign in a picture, whose rows are counted downwards."""
PAIRS = list(itertools.product(range(10), MOTIONS))


@pytest.fixture(scope="module")
def scenes() -> MovingDigits:
    return MovingDigits(drawn_glyphs(), 64)


def centroids(clip: np.ndarray) -> np.ndarray:
    """(frames, 2) x and y of the ink."""
    ink = clip[..., 0].astype(np.float64)
    grid = np.arange(ink.shape[1])
    total = ink.sum((1, 2))
    return np.stack([(ink.sum(1) * grid).sum(1) / total, (ink.sum(2) * grid).sum(1) / total], 1)


def moves(clip: np.ndarray) -> tuple[list[int], list[int]]:
    """Signs of what x and y change by, from frame to frame, those in a row once."""
    steps = np.sign(np.diff(centroids(clip), axis=0).round(3)).astype(int).T.tolist()
    return tuple([sign for sign, _ in itertools.groupby(s for s in row if s)] for row in steps)  # type: ignore[return-value]


@pytest.mark.parametrize("motion", MOTIONS)
def test_what_is_seen_is_the_motion_that_is_asked_for(scenes: MovingDigits, motion: str) -> None:
    rng = np.random.default_rng(0)
    ways = motion.split(" then ")
    axis, sign = SIGNS[ways[0]]
    for digit in [*range(10)] * 6:
        clip = scenes.render(scenes.scene(rng, [(digit, motion)]))
        signs = moves(clip)
        assert signs[1 - axis] == []
        if len(ways) == 1:
            assert signs[axis] == [sign]
        else:  # a fast one that turns early meets the other wall too
            assert signs[axis] in ([sign, -sign], [sign, -sign, sign])


def test_a_straight_motion_can_be_seen_and_meets_no_wall(scenes: MovingDigits) -> None:
    rng = np.random.default_rng(1)
    for motion in MOTIONS[:4] * 50:
        (actor,) = scenes.scene(rng, [(7, motion)])
        places = np.array([actor.place(k) for k in range(FRAMES)])
        axis, sign = SIGNS[motion]
        np.testing.assert_allclose(np.diff(places[:, axis]), sign * actor.speed, atol=1e-9)
        assert actor.speed * (scenes.size * 9 / 16) * (FRAMES - 1) > 10  # pixels
        assert places.min() >= 0
        assert places.max() <= 1


def test_a_place_is_that_of_light_between_two_mirrors() -> None:
    actor = Actor(1, 0, "right then left", (0.25, 0.5), 0.1)
    x = [actor.place(k)[0] for k in range(60)]
    by_hand, at, step = [], 0.25, 0.1
    for _ in range(60):
        by_hand.append(at)
        at += step
        if not 0 <= at <= 1:
            at, step = (2 - at if at > 1 else -at), -step
    np.testing.assert_allclose(x, by_hand, atol=1e-9)
    assert {actor.place(k)[1] for k in range(60)} == {0.5}


def test_the_later_part_of_a_clip(scenes: MovingDigits) -> None:
    rng = np.random.default_rng(2)
    for _ in range(10):
        scene = scenes.scene(rng)
        long = scenes.render(scene, 80)
        for first, frames in ((0, 16), (5, 16), (63, 17), (79, 1)):
            assert np.array_equal(scenes.render(scene, frames, first), long[first : first + frames])


@pytest.mark.parametrize("size", [16, 32, 64, 100])
def test_a_field_of_any_size(size: int) -> None:
    scenes = MovingDigits(drawn_glyphs(), size)
    clip = scenes.render(scenes.scene(np.random.default_rng(0)), 20)
    assert clip.shape == (20, size, size, 1)
    assert clip.dtype == np.uint8
    assert (clip.max((1, 2, 3)) > 128).all()  # no frame without ink


def test_where_digits_overlap_both_are_seen(scenes: MovingDigits) -> None:
    actors = [Actor(1, 6, "left", (0.5, 0.5), 0.03), Actor(8, 48, "right", (0.5, 0.5), 0.03)]
    both = scenes.render(tuple(actors), 4)
    alone = [scenes.render((actor,), 4) for actor in actors]
    assert np.array_equal(both, np.maximum(*alone))


# ------------------------------------------------------------------------------------------------------------ captions


def test_the_ink_of_each_digit_is_where_it_is(scenes: MovingDigits) -> None:
    rng = np.random.default_rng(0)
    for first in (0, 7):
        scene = scenes.scene(rng, [(3, "left"), (8, "up then down")])
        ink = scenes.ink(scene, 5, first, 8)
        side = scenes.size // 8
        assert ink.shape == (5, 10, side, side)
        for actor in scene:
            alone = scenes.render((actor,), 5, first)[..., 0] / 255
            squares = [
                [alone[:, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8].mean((1, 2)) for x in range(side)] for y in range(side)
            ]
            np.testing.assert_allclose(ink[:, actor.digit], np.moveaxis(np.array(squares), -1, 0), atol=1e-6)
        assert not np.delete(ink, [3, 8], 1).any()


@pytest.mark.parametrize("count", [1, 2])
def test_every_caption_says_what_happens(count: int) -> None:
    rng = np.random.default_rng(count)
    seen = set()
    for first in PAIRS * 5:
        asked = [first, *(PAIRS[int(rng.integers(80))] for _ in range(count - 1))]
        told = caption(asked, rng)
        assert parse(told) == asked, told
        seen.add(told)
    assert len(seen) > 300  # many phrasings
    assert all(parse(caption([pair])) == [pair] for pair in PAIRS)


def test_the_canonical_caption() -> None:
    said = caption([(3, "left"), (7, "up then down")])
    assert said == "a 3 moving left and a 7 bouncing up and down"


@pytest.mark.parametrize(
    "text",
    ["", "a digit", "a 3", "moving left", "a 3 moving left and right and up", "a 3 and a 7 moving left", "\u0663"],
)
def test_what_does_not_say_both_of_each_digit(text: str) -> None:
    assert parse(text) is None


def test_every_word_of_every_phrasing_is_in_the_vocabulary() -> None:
    vocabulary = Vocabulary.of(words(), 20)
    rng = np.random.default_rng(0)
    for k in range(3000):
        told = caption([PAIRS[k % 80], PAIRS[(7 * k + 3) % 80]], rng)
        encoded = vocabulary.encode(told)
        assert encoded.unknown == encoded.cut == [], told
    assert set(NAMES) <= set(vocabulary.known)


# ------------------------------------------------------------------------------------------------------- what is shown


def test_each_digit_has_one_motion_that_it_never_makes() -> None:
    out = [[motion for motion in MOTIONS if held_out(digit, motion)] for digit in range(10)]
    assert [len(motions) for motions in out] == [1] * 10
    assert len({motions[0] for motions in out}) == len(MOTIONS)  # no motion is spared, none is left out altogether


def test_scenes_show_all_that_is_not_held_out_and_nothing_else(scenes: MovingDigits) -> None:
    rng = np.random.default_rng(3)
    made = [scenes.scene(rng) for _ in range(3000)]
    shown = {(actor.digit, actor.motion) for scene in made for actor in scene}
    assert shown == {pair for pair in PAIRS if not held_out(*pair)}
    two = [scene for scene in made if len(scene) == 2]
    assert len(two) / len(made) == pytest.approx(scenes.two, abs=0.04)  # four deviations
    assert all(a.digit != b.digit for a, b in two)
    assert all(scenes.glyphs.labels[actor.glyph] == actor.digit for scene in made for actor in scene)


def test_what_is_held_out_can_be_asked_for(scenes: MovingDigits) -> None:
    asked = [pair for pair in PAIRS if held_out(*pair)]
    scene = scenes.scene(np.random.default_rng(0), asked)
    assert [(actor.digit, actor.motion) for actor in scene] == asked


def test_the_same_numbers_make_the_same_scene(scenes: MovingDigits) -> None:
    one, other, third = (scenes.scene(np.random.default_rng(seed)) for seed in (5, 5, 6))
    assert one == other != third


# -------------------------------------------------------------------------------------------------------------- glyphs


LIT = ("abcdef", "bc", "abdeg", "abcdg", "bcfg", "acdfg", "acdefg", "abc", "abcdefg", "abcdfg")
"""The segments of each digit, from the top clockwise, g in the middle."""
MIDDLES = {
    "a": (0.5, 0.2),
    "b": (0.68, 0.35),
    "c": (0.68, 0.65),
    "d": (0.5, 0.8),
    "e": (0.32, 0.65),
    "f": (0.32, 0.35),
    "g": (0.5, 0.5),
}


def test_drawn_digits_are_the_ten_of_a_pocket_calculator() -> None:
    size = 56
    glyphs = drawn_glyphs(size)
    assert np.bincount(glyphs.labels).tolist() == [6] * 10
    assert len(np.unique(glyphs.images.reshape(60, -1), axis=0)) == 60  # no two alike
    for k in (1, 4):  # of each digit, those that stand upright
        for picture, digit in zip(glyphs.images[k::6], glyphs.labels[k::6], strict=True):
            at = {name: (round(y * size), round(x * size)) for name, (x, y) in MIDDLES.items()}
            lit = {name for name, (y, x) in at.items() if picture[y - 2 : y + 3, x - 2 : x + 3].max() > 200}
            assert lit == set(LIT[digit])


def test_a_glyph_of_another_size_is_the_same_picture() -> None:
    glyphs = drawn_glyphs(56)
    small = glyphs.resized(28)
    assert small.images.shape == (60, 28, 28)
    by_hand = glyphs.images.reshape(60, 28, 2, 28, 2).mean((2, 4))
    assert np.abs(small.images - by_hand).mean() < 4  # antialiasing reaches a little further than squares
    assert small.resized(28) is small


def mnist(path: Path, **changed: np.ndarray) -> Path:
    """A file of 55,003 training pictures, which say their number."""
    count = 55_003
    arrays = {
        "x_train": np.arange(count, dtype=np.int64).astype(np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8),
        "y_train": np.arange(count) % 10,
        "x_test": np.full((4, 2, 2), 7, np.uint8),
        "y_test": np.arange(4),
    }
    np.savez(path, **{**arrays, **changed})
    return path


def test_splits_of_handwritten_digits_share_no_picture(tmp_path: Path) -> None:
    path = mnist(tmp_path / "m.npz")
    train, validation, test = (mnist_glyphs(path, split) for split in ("train", "validation", "test"))
    assert [len(g.labels) for g in (train, validation, test)] == [55_000, 3, 4]
    assert np.array_equal(validation.labels, [0, 1, 2])
    assert np.array_equal(validation.images[:, 0, 0], (np.arange(55_000, 55_003) % 256).astype(np.uint8))
    assert (test.images == 7).all()


@pytest.mark.parametrize(
    "changed",
    [
        {"x_test": np.zeros((4, 2, 3), np.uint8)},
        {"x_test": np.zeros((4, 2, 2))},
        {"y_test": np.arange(5)},
        {"y_test": np.array([0, 1, 2, 10])},
    ],
    ids=["not square", "not bytes", "labels", "ten"],
)
def test_files_of_digits_that_are_wrong(tmp_path: Path, changed: dict[str, np.ndarray]) -> None:
    with pytest.raises(InputError, match="must hold") as caught:
        mnist_glyphs(mnist(tmp_path / "m.npz", **changed), "test")
    assert "\n" not in str(caught.value)


def test_files_that_are_none_of_digits(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no arrays")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    for name, says in (("absent.npz", "no file"), ("text.npz", "is no .npz with"), ("other.npz", "is no .npz with")):
        with pytest.raises(InputError, match=says) as caught:
            mnist_glyphs(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_what_scenes_cannot_be_made_of() -> None:
    with pytest.raises(InputError, match="a field of 16 pixels or more"):
        MovingDigits(drawn_glyphs(), 15)
    with pytest.raises(InputError, match="some glyphs"):
        MovingDigits(Glyphs(np.zeros((0, 28, 28), np.uint8), np.zeros(0, np.int64)))


def test_digits_that_there_are_no_glyphs_of() -> None:
    """Training on fewer than ten is no error; asking for one that is missing is."""
    all_ten = drawn_glyphs()
    few = np.isin(all_ten.labels, (2, 5))
    scenes = MovingDigits(Glyphs(all_ten.images[few], all_ten.labels[few]), 32, two=1.0)
    rng = np.random.default_rng(0)
    assert {actor.digit for _ in range(50) for actor in scenes.scene(rng)} == {2, 5}
    with pytest.raises(InputError, match="no glyph of the digit 7"):
        scenes.scene(rng, [(7, "left")])
