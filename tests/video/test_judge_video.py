"""The judge: its answer is of the clip alone, not of its neighbours, size, colour or format."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from multidiff import checkpoint
from multidiff.errors import InputError
from multidiff_video import judge_training
from multidiff_video.digits import MOTIONS, Glyphs, MovingDigits, drawn_glyphs, mnist_glyphs
from multidiff_video.judge import FRAMES_AT_ONCE, JUDGES, SIZE, Judge, JudgeNetwork, Tracks, names

torch.set_num_threads(1)
DATA = pytest.mark.skipif("MULTIDIFF_DATA" not in os.environ, reason="MULTIDIFF_DATA")


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.load()


@pytest.fixture(scope="module")
def field() -> MovingDigits:
    return MovingDigits(drawn_glyphs())


@pytest.fixture(scope="module")
def clips(field: MovingDigits) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [field.render(field.scene(rng), frames) for frames in (16, 5, 16, 1, 24, 9)]


def test_the_judge_that_ships_is_small_and_says_how_good_it_is() -> None:
    assert names() == ["digits"]
    folder = JUDGES / "digits"
    assert (folder / "model.safetensors").stat().st_size < 1e6
    card, scores = (folder / "README.md").read_text(), checkpoint.read_config(folder)["accuracy"]
    assert all(f"{share:.1%}" in card for share in scores.values())
    assert "never been trained on" in card
    assert scores["one/digits"] >= 0.985
    assert scores["two/digits and motions"] >= 0.9


def test_neighbours_do_not_change_the_answer(judge: Judge, clips: list[np.ndarray]) -> None:
    together, apart = judge.look(clips), [judge.look([clip]) for clip in clips]
    np.testing.assert_allclose(together.features, [seen.features[0] for seen in apart], atol=2e-3)
    np.testing.assert_allclose(together.motions, [seen.motions[0] for seen in apart], atol=1e-4)
    for mine, alone, clip in zip(together.frames, apart, clips, strict=True):
        assert mine.shape == (len(clip), 10)
        np.testing.assert_allclose(mine, alone.frames[0], atol=1e-4)


def test_motion_and_embedding_are_of_the_first_window(judge: Judge, field: MovingDigits) -> None:
    long = field.render(field.scene(np.random.default_rng(4)), 40)
    both = judge.look([long, long[:16]])
    np.testing.assert_allclose(both.features[0], both.features[1], atol=1e-3)
    np.testing.assert_allclose(both.motions[0], both.motions[1], atol=1e-4)
    assert len(both.frames[0]) == 40


def test_colour_and_size_hardly_change_the_answer(judge: Judge, clips: list[np.ndarray]) -> None:
    want = judge.look(clips)
    coloured = judge.look([np.repeat(clip, 3, -1) for clip in clips])
    np.testing.assert_allclose(coloured.features, want.features, atol=1e-6)
    larger = judge.look([clip.repeat(3, 1).repeat(3, 2) for clip in clips])
    for mine, other in zip(want.frames, larger.frames, strict=True):
        assert np.abs(mine - other).max() < 0.25
        assert np.abs(mine - other).mean() < 0.02


def test_motions_follow_the_mirror(judge: Judge, field: MovingDigits) -> None:
    """Of a zero and an eight, which are their own mirror images."""
    for digit, motion in ((0, "left"), (8, "up"), (0, "right then left"), (8, "down then up")):
        clip = field.render(field.scene(np.random.default_rng(1), [(digit, motion)]))
        other = {"left": "right", "right": "left", "up": "down", "down": "up"}
        seen = judge.look([clip, clip[:, ::-1, ::-1]])
        found = [MOTIONS[int(seen.motions[i, digit, :8].argmax())] for i in (0, 1)]
        assert found == [motion, " ".join(other.get(word, word) for word in motion.split())]


def test_clips_of_no_use_have_an_answer(judge: Judge) -> None:
    dark, noise = (
        np.zeros((16, 64, 64, 1), np.uint8),
        np.random.default_rng(0).integers(0, 256, (3, 9, 30, 3), np.uint8),
    )
    seen = judge.look([dark, noise])
    assert np.isfinite(seen.features).all()
    assert seen.digits[0].max() < 0.5
    assert judge.look([]).features.shape == (0, len(judge.network.centre))
    assert judge.look([]).digits.shape == (0, 10)


def test_a_long_clip_is_looked_at_in_parts(judge: Judge, field: MovingDigits) -> None:
    long = field.render(field.scene(np.random.default_rng(2)), FRAMES_AT_ONCE + 3)
    np.testing.assert_allclose(judge.look([long]).frames[0][-3:], judge.look([long[-3:]]).frames[0], atol=1e-4)


def test_a_name_that_is_not_there_or_no_judge(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'digits'"):
        Judge.load("digit")
    checkpoint.save(tmp_path / "other", {"domain": "video"}, {}, "")
    with pytest.raises(InputError, match="is no judge of videos"):
        Judge.load(tmp_path / "other")
    damaged = tmp_path / "damaged"
    shutil.copytree(JUDGES / "digits", damaged)
    data = bytearray((damaged / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (damaged / "model.safetensors").write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        Judge.load(damaged)


# ----------------------------------------------------------------------------------------------------------- training


def test_training_finds_digits_and_places(field: MovingDigits) -> None:
    """The loss of a map that is right is below that of one that is a cell off, of another digit, or of nothing."""
    network = JudgeNetwork(**judge_training.NETWORK)
    there, places = torch.zeros(1, 10), torch.zeros(1, 10, 2)
    there[0, 3], places[0, 3] = 1, network.grid[27]

    def loss(digit: int, cell: int, logit: float) -> float:
        maps = torch.full((1, 10, 8, 8), -9.0)
        maps.flatten(2)[0, digit, cell] = logit
        return float(judge_training.frame_loss(network, maps, there, places))

    right = loss(3, 27, 12)
    assert right < 0.1
    assert min(loss(3, 28, 12), loss(4, 27, 12), loss(3, 27, -9)) > 10 * right
    tracks = network.tracks(
        torch.full((1, 10, 8, 8), -9.0).index_put((*map(torch.tensor, (0, 3, 3, 3)),), torch.tensor(12.0))
    )
    torch.testing.assert_close(tracks.places[0, 3], network.grid[27], atol=1e-4, rtol=0)


def test_varied_tracks_are_named_by_where_they_go() -> None:
    """Straight and bouncing tracks, mirrored and turned: the new name fits the new track."""
    t = torch.linspace(-0.5, 0.5, 16)
    ways = {"left": (-1.0, 0), "right": (1.0, 0), "up": (-1.0, 1), "down": (1.0, 1)}
    places, labels = torch.zeros(800, 16, 10, 2), np.full((800, 10), -1)
    for i in range(800):
        first = MOTIONS[i % 8].split()[0]
        sign, axis = ways[first]
        places[i, :, i % 10, axis] = sign * (t if i % 8 < 4 else 0.5 - t.abs())
        labels[i, i % 10] = i % 8
    changed, wanted = judge_training.vary_tracks(
        Tracks(torch.zeros(800, 16, 10), places), labels, np.random.default_rng(0)
    )
    assert ((wanted >= 0) == (labels >= 0)).all()
    kept = [i for i in range(800) if wanted[i, i % 10] < 8]
    assert 400 < len(kept) < 700
    for i in kept:
        path, name = changed.places[i, :, i % 10], MOTIONS[wanted[i, i % 10]]
        sign, axis = ways[name.split()[0]]
        assert sign * float(path[4, axis] - path[0, axis]) > 0.05
        assert ("then" in name) == (abs(float(path[-1, axis] - path[0, axis])) < 0.05)
        assert float(path[:, 1 - axis].abs().max()) == 0


def test_what_no_real_clip_wakes_counts_as_much_as_the_rest(judge: Judge) -> None:
    """A generated clip with two zeros, where one was asked for, was once 600 deviations from all others."""
    for part in judge.network.scale.split([64, 32]):
        assert float(part.max() / part.min()) < 10
    torch.manual_seed(0)
    network = JudgeNetwork([4, 8], 10, 9, 6).eval()
    with torch.no_grad():
        network.hidden.bias[2] = -100.0
    tracks = Tracks(torch.randn(50, 16, 10), torch.randn(50, 16, 10, 2))
    judge_training._standardise(network, tracks, torch.randn(50, 8))
    silent, others = network.scale[8 + 2], network.scale[[8, 9, 11, 12, 13]]
    assert float(others.min()) <= float(silent) <= float(others.max())


def test_the_same_seed_gives_the_same_judge(field: MovingDigits) -> None:
    first, second, third = (
        judge_training.train(
            field, judge_training.Recipe(steps=3, batch=4, clips=6, epochs=1, seed=seed), progress=False
        )
        for seed in (0, 0, 1)
    )
    for name, weight in first.network.state_dict().items():
        torch.testing.assert_close(weight, second.network.state_dict()[name], rtol=0, atol=0)
    assert not torch.equal(first.network.maps.weight, third.network.maps.weight)


def test_training_from_the_command_line_gives_a_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    glyphs = drawn_glyphs()
    arrays = {f"x_{part}": glyphs.images for part in ("train", "test")} | {
        f"y_{part}": glyphs.labels for part in ("train", "test")
    }
    np.savez(tmp_path / "strokes.npz", **arrays)
    options = ["--steps=3", "--clips=4", "--epochs=1", "--count=20", "--licence=cc0-1.0"]
    monkeypatch.setattr("sys.argv", ["train", str(tmp_path / "strokes.npz"), str(tmp_path / "judge"), *options])
    judge_training.main()
    judge = Judge.load(tmp_path / "judge")
    field = MovingDigits(mnist_glyphs(tmp_path / "strokes.npz", "test"), SIZE)
    assert judge.config["accuracy"] == pytest.approx(judge_training.accuracy(judge, field, 20), abs=0.051)
    assert "cc0-1.0" in (tmp_path / "judge" / "README.md").read_text()


@pytest.mark.data
@DATA
def test_test_digits_are_read(judge: Judge) -> None:
    """As good as the card says, within what chance allows of so few; and noise, dimming and blur change little."""
    glyphs = mnist_glyphs(Path(os.environ["MULTIDIFF_DATA"]) / "mnist.npz", "test")
    field = MovingDigits(Glyphs(glyphs.images[::7], glyphs.labels[::7]))
    scores = judge_training.accuracy(judge, field, 160)
    assert scores["one/digits"] > 0.96
    assert scores["one/digits and motions"] > 0.96
    assert scores["two/digits and motions"] > 0.85
    rng = np.random.default_rng(0)
    clips = [field.render(field.scene(rng, [(i % 10, MOTIONS[i % 8])])) for i in range(80)]
    for spoiled in (
        [np.clip(c * 0.6 + rng.normal(0, 12, c.shape), 0, 255).astype(np.uint8) for c in clips],
        [(c // 2 + np.roll(c // 2, 1, 2)) for c in clips],
    ):
        seen = judge.look(spoiled)
        assert np.mean([seen.named(i, 1) == [(i % 10, MOTIONS[i % 8])] for i in range(80)]) > 0.93
