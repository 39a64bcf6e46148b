"""Each figure of clips sees what it claims, and nothing else, on clips that are spoiled in one known way."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("scipy")

from multidiff_video import metrics
from multidiff_video.digits import MOTIONS, Glyphs, MovingDigits, caption, drawn_glyphs, held_out, mnist_glyphs
from multidiff_video.judge import Judge
from multidiff_video.measure import measure
from multidiff_video.packed import PackedVideos
from multidiff_video.real import RealClips, RealDigits

torch.set_num_threads(1)
RNG = np.random.default_rng(0)
DIGITS = (0, 1, 2, 3, 4, 5, 7, 8, 9)
"""Those that the judge, which knows handwriting, reads of strokes too, if they lean back."""
PAIRS = [(digit, motion) for motion in MOTIONS for digit in DIGITS]


def strokes() -> Glyphs:
    """Every digit thin, thick, thick, thin: both halves of them have both."""
    glyphs = drawn_glyphs()
    rows = [6 * digit + variant for digit in range(10) for variant in (0, 3, 3, 0)]
    return Glyphs(glyphs.images[rows], glyphs.labels[rows])


@pytest.fixture(scope="module")
def field() -> MovingDigits:
    return MovingDigits(strokes())


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.load()


def moving(field: MovingDigits, pairs: list[tuple[int, str]], seed: int = 0, frames: int = 16) -> np.ndarray:
    return field.render(field.scene(np.random.default_rng(seed), pairs), frames)


def gray(field: MovingDigits, digit: int, motion: str, seed: int = 0) -> np.ndarray:
    return moving(field, [(digit, motion)], seed)[..., 0]


# ------------------------------------------------------------------------------------------------------ single clips


@pytest.mark.parametrize("motion", MOTIONS)
def test_the_track_of_a_digit_is_that_of_its_middle(field: MovingDigits, motion: str) -> None:
    scene = field.scene(np.random.default_rng(5), [(3, motion)])
    path = metrics.track(field.render(scene)[..., 0])
    corners = np.array([[round(share * 36) for share in scene[0].place(t)] for t in range(16)])
    np.testing.assert_allclose(path - path[0], corners - corners[0], atol=1e-9)
    assert metrics.axis(path) == ("x" if motion.startswith(("left", "right")) else "y")
    assert metrics.first_direction(path) == motion.split()[0]


def test_mirrored_and_reversed_clips_go_the_other_way(field: MovingDigits) -> None:
    clip = gray(field, 7, "left")
    for other, wanted in ((clip[..., ::-1], "right"), (clip[::-1], "right"), (clip.transpose(0, 2, 1), "up")):
        assert metrics.first_direction(metrics.track(other)) == wanted


def test_nothing_is_made_of_what_does_not_move_or_is_not_there(field: MovingDigits) -> None:
    clip = gray(field, 7, "left")
    still, dark = np.repeat(clip[:1], 16, 0), np.zeros_like(clip)
    for path in (metrics.track(still), metrics.track(dark), metrics.track(clip[:1])):
        assert (metrics.axis(path), metrics.first_direction(path)) == ("", "")
    oblique = np.stack([np.roll(clip[0], (t, t), (0, 1)) for t in range(10)])
    assert (metrics.axis(metrics.track(oblique)), metrics.first_direction(metrics.track(oblique))) == ("", "")
    assert math.isnan(metrics.flicker(dark))
    assert math.isnan(metrics.warp_error(dark))
    assert metrics.identity(dark) == 0


def test_a_moving_digit_neither_flickers_nor_changes(field: MovingDigits) -> None:
    for digit, motion in PAIRS[::7]:
        clip = gray(field, digit, motion)
        assert metrics.flicker(clip) == 0
        assert metrics.warp_error(clip) == pytest.approx(0, abs=1e-3)
        assert metrics.identity(clip) == pytest.approx(1, abs=1e-6)


def test_flicker_is_the_change_of_brightness(field: MovingDigits) -> None:
    """Every other frame at half the light: changes by a half of a mean of three quarters; the warp error is blind."""
    clip = (gray(field, 8, "up") // 2) * 2
    blinking = clip.copy()
    blinking[1::2] //= 2
    assert metrics.flicker(blinking) == pytest.approx(0.5 / 0.75, rel=1e-6)
    assert metrics.warp_error(blinking) == pytest.approx(0, abs=1e-3)


def test_warp_error_is_the_share_that_did_not_come_from_the_frame_before(field: MovingDigits) -> None:
    """Noise of a known size: two frames' noise, less what the best of all shifts hides of it."""
    clip = np.full((8, 64, 64), 100, np.uint8)
    noisy = (clip + RNG.normal(0, 10, clip.shape)).round().astype(np.uint8)
    assert metrics.warp_error(clip) == 0
    assert metrics.warp_error(noisy) == pytest.approx(math.sqrt(2) * 0.1, rel=0.15)
    shown = gray(field, 4, "left then right")
    shuffled = shown[[0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15]]
    assert metrics.warp_error(shuffled) > 0.3
    replaced = np.concatenate([shown[:8], gray(field, 5, "left then right", 1)[8:]])
    assert metrics.warp_error(replaced) > 0.1


def test_identity_is_of_the_digit_not_of_its_place_or_light(field: MovingDigits) -> None:
    clip = gray(field, 2, "down")
    assert metrics.identity(np.concatenate([clip[:-1], clip[-1:] // 3])) > 0.99
    other = np.concatenate([clip[:-1], gray(field, 9, "down")[-1:]])
    assert metrics.identity(other) < 0.9
    gone = clip.copy()
    gone[-1] = 0
    assert metrics.identity(gone) == 0


def test_the_nearest_digit_is_the_one_that_was_copied() -> None:
    known = drawn_glyphs().images
    moved = np.roll(known[[7, 23, 41]], (1, -1), (1, 2)) // 2
    distance, which = metrics.nearest_glyphs(moved, known)
    assert which.tolist() == [7, 23, 41]
    assert distance.max() < 1e-3
    assert metrics.nearest_glyphs(np.zeros((1, 28, 28)), known)[0][0] == 1
    # the same as by going through all of them
    query = RNG.integers(0, 255, (2, 28, 28))
    best = [
        min(
            1 - float((shifted * k).sum() / np.linalg.norm(shifted) / np.linalg.norm(k.astype(float)))
            for k in known
            for y in range(3)
            for x in range(3)
            for shifted in (np.pad(q, 1)[y : y + 28, x : x + 28].astype(float),)
        )
        for q in query
    ]
    np.testing.assert_allclose(metrics.nearest_glyphs(query, known)[0], best, atol=1e-5)


# -------------------------------------------------------------------------------------------------------------- sets


def test_frechet_distance_is_that_of_two_normal_distributions() -> None:
    """Sets whose mean and covariance are exactly what is wanted; and another way to the root, for any two."""
    from scipy.linalg import sqrtm

    white = np.linalg.qr(np.random.default_rng(1).standard_normal((200, 5)) - 0)[0]
    white -= white.mean(0)
    values, vectors = np.linalg.eigh(white.T @ white)
    white = white @ vectors / np.sqrt(values) * math.sqrt(199)  # mean 0, covariance 1
    a, b = np.array([1.0, 2, 3, 4, 5]), np.array([2.0, 2, 1, 4, 0])
    shift = np.array([3.0, 0, 0, 0, 4])
    assert metrics.frechet_distance(white * a, white * b + shift) == pytest.approx(25 + ((a - b) ** 2).sum())
    assert metrics.frechet_distance(white, white) == pytest.approx(0, abs=1e-9)
    x, y = (
        np.random.default_rng(i).standard_normal((60, 5)) @ np.random.default_rng(i + 9).random((5, 5)) for i in (0, 1)
    )
    s, t = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    wanted = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(s + t - 2 * sqrtm(s @ t).real)
    assert metrics.frechet_distance(x, y) == pytest.approx(wanted)
    assert math.isnan(metrics.frechet_distance(x[:1], y))


def test_two_real_draws_have_no_digit_in_common_and_the_same_pairs() -> None:
    glyphs = drawn_glyphs()
    marked = Glyphs(glyphs.images.copy(), glyphs.labels)
    marked.images[::2, :, :] = np.minimum(marked.images[::2], 200)  # the even ones are darker
    asked: list[Any] = [[pair] for pair in PAIRS]
    first, second = (RealDigits(marked).draw(asked, [(16, 64, 64, 1)] * 72, half, 0) for half in (0, 1))
    assert {int(clip.max()) for clip in first} == {200}
    assert {int(clip.max()) for clip in second} == {255}
    for clips in (first, second):
        assert [metrics.first_direction(metrics.track(c[..., 0])) for c in clips] == [m.split()[0] for _, m in PAIRS]


def test_two_draws_of_a_data_set_have_no_clip_in_common() -> None:
    clips = [np.full((4 + i % 3, 8, 8, 1), i, np.uint8) for i in range(30)]
    real = RealClips(PackedVideos.pack(clips, 8.0))
    first, second = (
        {int(c[0, 0, 0, 0]) for c in real.draw([None] * 12, [(5, 8, 8, 1)] * 12, half, 3)} for half in (0, 1)
    )
    assert len(first) == len(second) == 12
    assert not first & second
    assert {len(c) for c in real.draw([None] * 12, [(5, 8, 8, 1)] * 12, 0, 3)} == {4, 5}


# ---------------------------------------------------------------------------------------------------------- controls


@pytest.fixture(scope="module")
def controls(field: MovingDigits, judge: Judge) -> dict[str, dict[str, Any]]:
    """Figures of sets of 40 clips with one digit and 12 with two, each spoiled in one way."""
    asked: list[Any] = [[PAIRS[i * 5 % 72]] for i in range(40)]
    asked += [[PAIRS[i], PAIRS[(i + 13) % 72]] for i in range(12)]
    rng = np.random.default_rng(3)
    clips = [moving(field, pairs, i) for i, pairs in enumerate(asked)]
    blinking = [clip.copy() for clip in clips]
    for clip in blinking:
        clip[rng.permutation(16)[:5]] //= 8
    sets = {
        "real": clips,
        "shuffled": [clip[rng.permutation(16)] for clip in clips],
        "frozen": [np.repeat(clip[:1], 16, 0) for clip in clips],
        "blinking": blinking,
        "noise": [np.clip(clip + rng.normal(0, 30, clip.shape), 0, 255).astype(np.uint8) for clip in clips],
        "wrong text": clips[7:] + clips[:7],
    }
    prompts = [caption(pairs, rng) for pairs in asked]
    return {
        name: measure(
            shown, prompts, RealDigits(strokes()) if name in ("real", "noise") else None, judge, progress=False
        )
        for name, shown in sets.items()
    }


def test_real_clips_are_right(controls: dict[str, dict[str, Any]]) -> None:
    real = controls["real"]
    assert (real["one/digits/n"], real["two/digits/n"]) == (40, 12)
    assert real["held out/digits/n"] == sum(held_out(*PAIRS[i * 5 % 72]) for i in range(40)) > 0
    assert real["one/direction"] == real["one/axis"] == real["one/direction/real"] == 1
    assert min(real["one/digits"], real["one/motions"], real["one/frames"], real["one/digits/real"]) > 0.85
    assert min(real["two/digits"], real["two/motions"]) > 0.5
    assert real["identity"] == pytest.approx(1)
    assert real["identity"] - real["identity/other"] > 0.03
    assert real["warp/of_real"] == pytest.approx(1, abs=0.5)
    assert real["frechet/of_real"] == pytest.approx(1, abs=0.5)


def test_order_is_seen_by_motion_and_not_by_digits(controls: dict[str, dict[str, Any]]) -> None:
    real = controls["real"]
    for name in ("shuffled", "frozen"):
        spoiled = controls[name]
        assert spoiled["one/digits"] > real["one/digits"] - 0.2
        assert spoiled["one/motions"] < 0.3
        assert spoiled["one/direction"] < 0.4
        assert spoiled["two/motions"] < 0.3
    assert controls["shuffled"]["warp"] > 2 * real["warp"]


def test_blinking_is_seen_by_flicker_and_frames(controls: dict[str, dict[str, Any]]) -> None:
    real, spoiled = controls["real"], controls["blinking"]
    assert spoiled["one/frames"] < real["one/frames"] - 0.15
    assert spoiled["flicker"] > 10 * real["flicker"]
    assert spoiled["one/direction"] > 0.85


def test_wrong_text_is_seen_by_what_is_asked_alone(controls: dict[str, dict[str, Any]]) -> None:
    real, spoiled = controls["real"], controls["wrong text"]
    assert spoiled["one/digits"] < 0.25
    assert spoiled["two/both"] < 0.25
    assert spoiled["flicker"] == pytest.approx(real["flicker"])


def test_noise_is_seen_by_warp_error_and_frechet_distance(controls: dict[str, dict[str, Any]]) -> None:
    real, spoiled = controls["real"], controls["noise"]
    assert spoiled["warp"] > 2 * real["warp"]
    assert spoiled["frechet"] > 2 * real["frechet"]


def test_one_clip_for_all_is_seen_by_diversity_and_frechet_distance(judge: Judge, field: MovingDigits) -> None:
    asked: list[Any] = [[(4, "left")]] * 50
    real = RealDigits(strokes())
    one = moving(field, asked[0], 1)
    varied = [moving(field, pairs, i) for i, pairs in enumerate(asked[:20])]
    collapsed = measure([one] * 50, [""] * 50, real, judge, asked=asked, progress=False)
    spread = measure(varied, [""] * 20, real, judge, asked=asked[:20], progress=False)
    assert collapsed["diversity"] == pytest.approx(0, abs=0.01)
    assert spread["diversity/of_real"] == pytest.approx(1, abs=0.4)
    assert collapsed["frechet/of_real"] > 2


def test_copies_of_training_digits_are_found_and_named(judge: Judge) -> None:
    """A little noise and another light do not hide them."""
    glyphs = drawn_glyphs()
    known, test = (Glyphs(glyphs.images[i::6], glyphs.labels[i::6]) for i in (1, 4))
    test = Glyphs(test.images.repeat(2, 0), test.labels.repeat(2))
    asked: list[Any] = [[(i, "up")] for i in range(10)]
    rng = np.random.default_rng(0)
    drawn = [field.render(field.scene(rng, p)) for field in (MovingDigits(known), MovingDigits(test)) for p in asked]
    noisy = [np.clip(0.7 * clip + rng.normal(0, 4, clip.shape), 0, 255).astype(np.uint8) for clip in drawn]
    copied, own = (
        measure(part, [""] * 10, RealDigits(test, known), judge, asked=asked, progress=False)
        for part in (noisy[:10], noisy[10:])
    )
    assert copied["copies"] == 1
    assert own["copies"] <= 0.2
    named = copied["copies/named"]
    assert len(named) == 10
    assert all(known.labels[entry["digit"]] == entry["sample"] for entry in named)


def test_a_clip_that_could_not_be_made_is_wrong(judge: Judge, field: MovingDigits) -> None:
    nothing = np.zeros((0, 64, 64, 1), np.uint8)
    asked: list[Any] = [[(1, "left")], [(1, "left")], [(2, "up"), (7, "down")]]
    clip = moving(field, asked[0])
    figures = measure([clip, nothing, nothing], [""] * 3, None, judge, asked=asked, progress=False)
    alone = measure([clip], [""], None, judge, asked=asked[:1], progress=False)
    assert figures["missing"] == 2
    for name in ("digits", "motions", "direction", "axis"):
        assert figures[f"one/{name}"] == alone[f"one/{name}"] / 2
    assert (figures["two/both"], figures["two/both/n"]) == (0, 1)
    assert figures["flicker/n"] == 1
    assert measure([nothing], [""], None, judge, progress=False)["missing"] == 1


def test_prompts_that_name_no_digits_leave_the_rest(judge: Judge, field: MovingDigits) -> None:
    clips = [moving(field, [(i % 10, "left")], i) for i in range(6)]
    figures = measure(clips, ["a cat"] * 6, None, judge, progress=False)
    assert not any(name.startswith(("one/", "two/")) for name in figures)
    assert figures["flicker"] == 0
    assert figures["diversity"] > 0


def test_long_clips_are_judged_at_both_ends(judge: Judge, field: MovingDigits) -> None:
    asked: list[Any] = [[pair] for pair in PAIRS[::6]]
    clips = [moving(field, pairs, i, 40) for i, pairs in enumerate(asked)]
    stopped = [np.concatenate([c[:24], np.repeat(c[24:25], 16, 0)]) for c in clips]
    whole = measure(clips, [""] * 12, RealDigits(strokes()), judge, asked=asked, copies=False, progress=False)
    frozen = measure(stopped, [""] * 12, None, judge, asked=asked, progress=False)
    assert whole["one/last/axis"] == whole["one/last/axis/real"] == 1
    assert whole["one/first/along"] > 0.8
    assert whole["one/last/along/real"] > 0.5
    assert frozen["one/last/axis"] == 0
    assert frozen["one/first/axis"] == whole["one/first/axis"]


@pytest.mark.data
@pytest.mark.skipif("MULTIDIFF_DATA" not in os.environ, reason="MULTIDIFF_DATA")
def test_handwritten_test_digits_are_right_and_no_copies(judge: Judge) -> None:
    path = Path(os.environ["MULTIDIFF_DATA"]) / "mnist.npz"
    real = RealDigits.load(path)
    asked: list[Any] = [[(digit, motion)] for motion in MOTIONS for digit in range(10)]
    clips = real.draw(asked, [(16, 64, 64, 1)] * 80, 1, 99)
    figures = measure(clips, [""] * 80, real, judge, asked=asked, progress=False)
    assert figures["one/digits"] > 0.95
    assert figures["one/direction"] == 1
    assert figures["frechet/of_real"] == pytest.approx(1, abs=0.3)
    assert figures["copies"] < 0.08
    train = mnist_glyphs(path, "train")
    field = MovingDigits(Glyphs(train.images[::50], train.labels[::50]))
    copied = [field.render(field.scene(np.random.default_rng(i), pairs)) for i, pairs in enumerate(asked)]
    assert measure(copied, [""] * 80, real, judge, asked=asked, progress=False)["copies"] > 0.95
