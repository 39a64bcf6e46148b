"""The arithmetic of the metrics against closed forms, and what each figure sees on sounds whose fault is known."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("torchaudio")

from multidiff_audio import metrics
from multidiff_audio.asked import Reader
from multidiff_audio.clips import PackedClips
from multidiff_audio.judge import Judge, JudgeNetwork
from multidiff_audio.measure import Figures, measure
from multidiff_audio.real import Real

RATE = 4000
PITCHES = {"low": 300.0, "middle": 700.0, "high": 1500.0}
VOICES = {"pure": 0.0, "rich": 0.7}


# ------------------------------------------------------------------------------------------------------- arithmetic


def test_frechet_distance_of_normal_distributions() -> None:
    """Diagonal covariances have a closed form: |m|^2 + sum (s_a - s_b)^2; samples have these moments exactly."""
    rng = np.random.default_rng(0)
    white = rng.standard_normal((200, 4))
    white -= white.mean(0)
    white @= np.linalg.inv(np.linalg.cholesky(np.cov(white, rowvar=False))).T
    s_a, s_b, shift = np.array([1.0, 2, 3, 0.5]), np.array([2.0, 1, 3, 0.1]), np.array([1.0, 0, -2, 0])
    expected = (shift**2).sum() + ((s_a - s_b) ** 2).sum()
    assert metrics.frechet_distance(white * s_a, white * s_b + shift) == pytest.approx(expected)
    turn = np.linalg.qr(rng.standard_normal((4, 4)))[0]
    assert metrics.frechet_distance(white * s_a @ turn, (white * s_b + shift) @ turn) == pytest.approx(expected)


def test_frechet_distance_of_a_set_to_itself_is_nothing() -> None:
    x = np.random.default_rng(0).standard_normal((50, 8)) @ np.diag([1, 1, 1, 1, 1, 1, 0, 0])  # singular
    assert metrics.frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    assert math.isnan(metrics.frechet_distance(x[:1], x))


def test_inception_score_of_known_probabilities() -> None:
    """Sure and even: the number of classes; all alike, or never sure: 1; sure of two at 3 : 1: by their entropy."""
    assert metrics.inception_score(np.tile(np.eye(5), (4, 1))) == pytest.approx(5)
    assert metrics.inception_score(np.tile(np.eye(5)[:1], (9, 1))) == pytest.approx(1)
    assert metrics.inception_score(np.full((7, 5), 0.2)) == pytest.approx(1)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert metrics.inception_score(np.eye(2)[[0, 0, 0, 1]]) == pytest.approx(math.exp(entropy))


def test_neighbourhoods_of_constructed_sets() -> None:
    """A sample in one of two far clusters is precise but recalls and covers half; one elsewhere has nothing."""
    rng = np.random.default_rng(0)
    cluster = rng.standard_normal((200, 3))
    far = cluster + 100
    real = np.concatenate([cluster[::2], far[::2]])
    half, nowhere = cluster[1::2], cluster + 1000
    found = metrics.neighbourhoods(real, half)
    assert found.precision > 0.8
    assert found.recall < 0.51
    assert 0.4 < found.coverage <= 0.5
    assert found.density == pytest.approx(1, abs=0.2)
    assert metrics.neighbourhoods(real, nowhere) == (0, 0, 0, 0)
    same = metrics.neighbourhoods(real, real)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)


def test_one_outlier_does_not_make_precision() -> None:
    """What density is for: beside a real outlier with its large ball, bad samples are precise yet not dense."""
    rng = np.random.default_rng(0)
    real = np.concatenate([0.1 * rng.standard_normal((100, 2)), [[30.0, 0]]])
    found = metrics.neighbourhoods(real, np.array([[25.0, 0]]) + rng.standard_normal((50, 2)))
    assert found.precision == 1
    assert found.density == pytest.approx(1 / metrics.NEIGHBOURS)
    assert found.coverage == pytest.approx(1 / 101)


@pytest.mark.parametrize(("sizes", "n"), [([10, 10, 10], 15), ([7, 3, 1, 9], 8), ([5, 5], 5)])
def test_draws_are_disjoint_and_even(sizes: list[int], n: int) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    for seed in range(5):
        first, second = metrics.disjoint_draws(groups, n, np.random.default_rng(seed))
        assert len({*first, *second}) == 2 * n
        for rows in (first, second):
            counts = np.bincount(groups[rows], minlength=len(sizes))
            spare = counts < np.array(sizes) // 2  # a group that could have given more
            assert not spare.any() or counts[spare].min() >= counts.max() - 1


def test_mean_pair_distance() -> None:
    assert metrics.mean_pair_distance(np.array([[0.0], [1.0], [3.0]])) == pytest.approx(2)
    assert math.isnan(metrics.mean_pair_distance(np.zeros((1, 2))))


def test_nearest_is_the_best_cosine_of_all_shifts() -> None:
    """Against a loop over every shift."""
    generator = torch.Generator().manual_seed(0)
    query, known = (torch.rand(n, 7, 3, generator=generator) for n in (4, 5))
    query, known = (x / x.flatten(1).norm(dim=1)[:, None, None] for x in (query, known))

    def cosine(a: Tensor, b: Tensor) -> float:
        best = 0.0
        for shift in range(-6, 7):
            pairs = [(t, t + shift) for t in range(7) if 0 <= t + shift < 7]
            best = max(best, float(sum((a[i] * b[j]).sum() for i, j in pairs)))
        return best

    table = np.array([[1 - cosine(a, b) for b in known] for a in query])
    found, which = metrics.nearest(query, known)
    np.testing.assert_allclose(found, table.min(1), atol=1e-5)
    np.testing.assert_array_equal(which, table.argmin(1))
    others = metrics.nearest(known, known, same=True)
    assert (others[1] != np.arange(5)).all()
    assert metrics.nearest(known, known)[0] == pytest.approx(0, abs=1e-6)


def test_a_copy_is_near_at_any_level_moment_and_length() -> None:
    """The same patch of a spectrogram with silence before or behind it, louder, over another faint noise."""
    patch = torch.rand(6, 10, generator=torch.Generator().manual_seed(0)) * 2 + 1
    silence = torch.full((6, 5), -3.0)
    forms = [patch, torch.cat([silence, patch], 1), torch.cat([patch, silence], 1) + 1.7]
    shapes = metrics.shapes([*forms, torch.cat([patch, silence + 2 * torch.rand(6, 5)], 1)], 20)
    assert metrics.nearest(shapes[1:], shapes[:1])[0] == pytest.approx(0, abs=1e-6)
    assert metrics.nearest(metrics.shapes([patch.flip(0)], 20), shapes[:1])[0] > 0.5


def test_steady_noises_and_silence_are_no_copies_of_each_other() -> None:
    noises = [2 + 0.3 * torch.randn(20, 60, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]
    shapes = metrics.shapes([*noises, torch.full((20, 60), -3.0)], 60)
    assert metrics.nearest(shapes[:1], shapes[1:])[0] > 0.8
    assert metrics.nearest(shapes[2:], shapes)[0] == pytest.approx(1)


# ----------------------------------------------------------------------------------------------------- what is asked


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        ("seven, spoken by theo", {"word": "seven", "speaker": "theo"}),
        ("7 by Theo", {"word": "seven", "speaker": "theo"}),
        ("SEVENS!", {"word": "seven"}),
        ("seven or eight", {}),
        ("seventeen", {}),
        ("", {}),
        ("a Greek says it", {"speaker": "george"}),
    ],
)
def test_prompts_are_read(prompt: str, asked: dict[str, str]) -> None:
    clips = PackedClips.pack(
        [np.zeros((1, 9))] * 2, RATE, [("A Greek says it.",)] * 2, {"word": ["one", "two"], "speaker": ["george"] * 2}
    )
    classes = {"word": ["one", "two", "seven", "eight"], "speaker": ["george", "theo"]}
    assert Reader(classes, clips)(prompt) == asked


def test_verbs_and_file_names_are_read() -> None:
    read = Reader({"class": ["dog bark", "rain", "sea waves", "baby cry"]})
    for text, name in {"a dog barks": "dog bark", "It is raining": "rain", "crying babies": "baby cry"}.items():
        assert read(text) == {"class": name}
    assert read("a train") == {}
    assert Reader({"word": ["zero", "one"]}).names("fsdd/0_george_1", first=True) == {"word": "zero"}


# ----------------------------------------------------------------------- what each figure sees, on tones for classes


def tone(pitch: str, voice: str, rng: np.random.Generator) -> np.ndarray:
    """A note of its own length, decay and detuning; a rich one has an overtone."""
    t = np.arange(int(rng.uniform(0.15, 0.3) * RATE)) / RATE
    phase = 2 * np.pi * PITCHES[pitch] * rng.uniform(0.93, 1.07) * t + rng.uniform(0, 6)
    sound = np.sin(phase) + VOICES[voice] * rng.uniform(0.7, 1.3) * np.sin(1.25 * phase)
    sound = sound * np.exp(-t / rng.uniform(0.05, 0.3)) + 0.003 * rng.standard_normal(len(t))
    return (0.3 * sound / np.abs(sound).max()).astype(np.float32)[None]


KINDS = [(pitch, voice) for pitch in PITCHES for voice in VOICES]


@pytest.fixture(scope="module")
def clips() -> PackedClips:
    rng = np.random.default_rng(0)
    kinds = [KINDS[i % 6] for i in range(300)]
    return PackedClips.pack(
        [tone(*kind, rng) for kind in kinds],
        RATE,
        [(f"a {pitch} {voice} tone",) for pitch, voice in kinds],
        {"pitch": [pitch for pitch, _ in kinds], "voice": [voice for _, voice in kinds]},
        [2 if i % 5 == 0 else 0 for i in range(300)],
    )


@pytest.fixture(scope="module")
def judge(clips: PackedClips) -> Judge:
    from multidiff_audio.judge_training import Recipe, train

    return train(clips, {"n_fft": 128, "hop_length": 64, "n_mels": 12}, Recipe(RATE, epochs=6, lr=1e-2), progress=False)


@pytest.fixture(scope="module")
def real(clips: PackedClips, judge: Judge) -> Real:
    return Real.of(clips, judge)


Measure = Callable[..., Figures]


@pytest.fixture(scope="module")
def measured(real: Real, judge: Judge) -> Measure:
    def run(sounds: list[np.ndarray], kinds: list[tuple[str, str]] | None = None) -> Figures:
        wanted = kinds or [KINDS[i % 6] for i in range(len(sounds))]
        return measure(sounds, RATE, [f"{p} and {v}" for p, v in wanted], real, judge, progress=False)

    return run


@pytest.fixture(scope="module")
def fresh(measured: Measure) -> Figures:
    """Figures of new sounds of the same kinds: a perfect generator."""
    rng = np.random.default_rng(1)
    return measured([tone(*KINDS[i % 6], rng) for i in range(120)])


def test_new_sounds_of_the_same_kinds_score_as_real_ones(fresh: Figures) -> None:
    assert fresh["accuracy/pitch"] > 0.95
    assert fresh["accuracy/voice"] > 0.9
    assert fresh["inception/pitch/of_real"] == pytest.approx(1, abs=0.1)
    assert fresh["frechet/of_real"] < 2
    assert fresh["frechet/n"] == 120
    assert fresh["coverage"] > 0.8
    assert fresh["copies"] < 0.1
    assert fresh["copies/real"] < 0.05
    assert fresh["diversity/of_real"] == pytest.approx(1, abs=0.35)


def test_copies_are_seen_by_the_nearest_clip_alone(measured: Measure, clips: PackedClips, fresh: Figures) -> None:
    train = [i for i in range(300) if i % 5][:120]
    found = measured([clips.sound(i) * np.float32(0.3) for i in train], [KINDS[i % 6] for i in train])
    assert found["copies"] == 1
    assert found["nearest"] < 1e-3 < fresh["nearest"]
    assert found["accuracy/all"] >= fresh["accuracy/all"] - 0.05
    assert found["frechet/of_real"] < 2
    assert {entry["source"] for entry in found["copies/named"]} <= {str(i) for i in train}


def test_a_few_copies_are_named(measured: Measure, clips: PackedClips) -> None:
    rng = np.random.default_rng(2)
    sounds = [tone(*KINDS[i % 6], rng) for i in range(60)]
    sounds[7] = np.pad(clips.sound(1), ((0, 0), (128, 0)))
    named = {entry["sample"]: entry["source"] for entry in measured(sounds)["copies/named"]}
    assert named.get(7) == "1"


def test_one_voice_is_seen_by_the_distance_and_recall_not_by_accuracy(measured: Measure, fresh: Figures) -> None:
    rng = np.random.default_rng(3)
    found = measured([tone(KINDS[i % 6][0], "pure", rng) for i in range(120)])
    assert found["accuracy/pitch"] > 0.95
    assert found["inception/pitch/of_real"] == pytest.approx(1, abs=0.1)
    assert found["accuracy/voice"] == pytest.approx(0.5, abs=0.1)
    assert found["frechet/of_real"] > 5 * fresh["frechet/of_real"]
    assert found["recall"] < 0.75 * fresh["recall"]


def test_one_sound_for_each_prompt_is_seen_by_diversity(measured: Measure, fresh: Figures) -> None:
    rng = np.random.default_rng(4)
    six = [tone(*kind, rng) for kind in KINDS]
    found = measured([six[i % 6] for i in range(120)])
    assert found["diversity"] == pytest.approx(0, abs=1e-4)
    assert found["accuracy/pitch"] == 1
    assert found["coverage"] < 0.5 * fresh["coverage"]


def test_shuffled_prompts_are_seen_by_accuracy_alone(measured: Measure, fresh: Figures) -> None:
    rng = np.random.default_rng(1)
    sounds = [tone(*KINDS[i % 6], rng) for i in range(120)]
    found = measured(sounds, [KINDS[(i + 2) % 6] for i in range(120)])
    assert found["accuracy/pitch"] < 0.1
    assert found["frechet/of_real"] == pytest.approx(fresh["frechet/of_real"], rel=0.5)


def test_noise_and_silence(measured: Measure, fresh: Figures) -> None:
    rng = np.random.default_rng(5)
    noise = measured([rng.normal(0, 0.1, (1, 1000)).astype(np.float32) for _ in range(60)])
    silence = measured([np.zeros((1, 1000), np.float32)] * 60)
    assert noise["noise"] == silence["silent"] == 1
    for found in (noise, silence):
        assert found["frechet/of_real"] > 5 * fresh["frechet/of_real"]
        assert found["coverage"] < 0.2
        assert found["inception/pitch"] < 1.7


def test_what_is_not_finite_is_wrong_and_left_out(measured: Measure, fresh: Figures) -> None:
    rng = np.random.default_rng(1)
    sounds = [tone(*KINDS[i % 6], rng) for i in range(120)]
    sounds += [np.full((1, 500), np.nan, np.float32), np.zeros((1, 0), np.float32)] * 3
    found = measured(sounds)
    assert found["not finite"] == pytest.approx(6 / 126)
    assert found["accuracy/pitch"] == pytest.approx(fresh["accuracy/pitch"] * 120 / 126)
    assert found["frechet/n"] == 120


def test_a_handful_has_no_distance(measured: Measure) -> None:
    """A Fréchet distance of fewer sounds than features means nothing, and is not printed."""
    rng = np.random.default_rng(1)
    found = measured([tone(*KINDS[i], rng) for i in range(6)])
    assert math.isnan(found["frechet"])
    assert found["accuracy/pitch/n"] == 6


def test_an_untrained_judge_is_no_better_than_chance(clips: PackedClips, judge: Judge) -> None:
    """That accuracy is earned, not leaked."""
    from dataclasses import replace

    torch.manual_seed(0)
    blank = replace(judge, network=JudgeNetwork(12, [3, 2], [4, 8], 8).eval())
    p = blank.probabilities([clips.sound(i) for i in range(60)], RATE)["pitch"]
    assert np.log(p).std() < 1


# ------------------------------------------------------------------------------------------------- on real recordings


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Real:
    if "MULTIDIFF_DATA" not in os.environ:
        pytest.skip("MULTIDIFF_DATA is not set")
    from multidiff_audio.prepare import prepare

    path = tmp_path_factory.mktemp("digits") / "fsdd.npz"
    prepare(Path(os.environ["MULTIDIFF_DATA"]) / "fsdd.tar", path, attributes="word,speaker")
    return Real.of(PackedClips.load(path), Judge.load("digits"))


@pytest.mark.data
def test_the_judge_that_ships_hears_real_digits(digits: Real) -> None:
    assert digits.accuracy("word")[0] >= 0.99
    assert digits.accuracy("speaker")[0] >= 0.99
    assert digits.accuracy("word")[1] == 300


@pytest.mark.data
def test_controls_on_real_digits(digits: Real) -> None:
    """One speaker and copies pass accuracy and the Inception score; the distance sees the one, copies the other."""
    clips, rng = digits.clips, np.random.default_rng(0)
    train = np.flatnonzero(digits.train)
    theo = train[digits.labels["speaker"][train] == "theo"]
    even = train[metrics.draw(digits.groups[train], 300, rng)]

    def run(rows: np.ndarray) -> Figures:
        asked = [{"word": str(digits.labels["word"][row])} for row in rows]
        sounds = [clips.sound(int(digits.rows[row])) for row in rows]
        return measure(sounds, clips.rate, [""] * len(rows), digits, digits.judge, asked=asked, progress=False)

    one, copies = run(theo[metrics.draw(digits.groups[theo], 250, rng)]), run(even)
    for found in (one, copies):
        assert found["accuracy/word"] > 0.99
        assert found["inception/word/of_real"] > 0.98
    assert one["frechet/of_real"] > 10 > 2 > copies["frechet/of_real"]
    assert copies["copies"] == 1
    assert copies["copies/real"] <= 0.011
