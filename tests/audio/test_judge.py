"""The judge: its answer is of the sound alone, not of its level, offset, file, neighbours or padding."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("torchaudio")

from multidiff import checkpoint
from multidiff.errors import InputError
from multidiff_audio import judge_training
from multidiff_audio.clips import PackedClips
from multidiff_audio.judge import FRAMES_AT_ONCE, JUDGES, Judge, JudgeNetwork, names, pad
from multidiff_audio.sound import resample


def chirp(rate: int, seconds: float, seed: int = 0) -> np.ndarray:
    """A rising tone with a little noise."""
    t = np.arange(int(seconds * rate)) / rate
    noise = 0.01 * np.random.default_rng(seed).standard_normal(len(t))
    return (0.3 * np.sin(2 * np.pi * (300 + 200 * seed + 800 * t) * t) * np.hanning(len(t)) + noise).astype(np.float32)[
        None
    ]


@pytest.fixture(scope="module", params=["digits", "sounds"])
def judge(request: pytest.FixtureRequest) -> Judge:
    return Judge.load(request.param)


def test_the_judges_that_ship_are_small_and_say_how_good_they_are() -> None:
    assert names() == ["digits", "sounds"]
    for name in names():
        folder = JUDGES / name
        assert (folder / "model.safetensors").stat().st_size < 1.5e6
        card = (folder / "README.md").read_text()
        for share in checkpoint.read_config(folder)["accuracy"].values():
            assert f"{share:.1%}" in card
        assert "never been trained on" in card
    assert min(Judge.load("digits").config["accuracy"].values()) >= 0.99


def test_neither_batch_nor_padding_changes_the_answer(judge: Judge) -> None:
    sounds = [chirp(judge.rate, seconds, seed) for seed, seconds in enumerate((0.2, 1.7, 0.5, 0.21, 3.0))]
    together, apart = judge.features(sounds, judge.rate), [judge.features([s], judge.rate)[0] for s in sounds]
    scale = np.abs(together).max()
    np.testing.assert_allclose(together, apart, atol=2e-5 * scale)
    np.testing.assert_allclose(judge.features(sounds[::-1], judge.rate)[::-1], together, atol=2e-5 * scale)
    x, lengths = pad([judge.spectrogram(s, judge.rate) for s in sounds])
    spoiled = torch.where(torch.arange(x.shape[-1]) < lengths[:, None, None], x, 50.0)
    with torch.inference_mode():
        torch.testing.assert_close(judge.network(x, lengths)[0], judge.network(spoiled, lengths)[0], rtol=0, atol=0)


def test_level_offset_and_channels_do_not_change_the_answer(judge: Judge) -> None:
    sound = chirp(judge.rate, 0.6)
    want = judge.features([sound], judge.rate)
    for other in (0.01 * sound, sound + 0.3, np.repeat(sound, 2, 0), sound.astype(np.float64) * 3):
        np.testing.assert_allclose(judge.features([other], judge.rate), want, atol=2e-3 * np.abs(want).max())


def test_another_rate_is_heard_as_its_own(judge: Judge) -> None:
    sound = chirp(judge.rate, 0.6)
    want = judge.features([sound], judge.rate)[0]
    again = judge.features([resample(sound, judge.rate, 3 * judge.rate)], 3 * judge.rate)[0]
    other = judge.features([chirp(judge.rate, 0.6, 3)], judge.rate)[0]
    assert np.linalg.norm(again - want) < 0.2 * np.linalg.norm(other - want)


def test_probabilities_are_of_the_named_classes(judge: Judge) -> None:
    found = judge.probabilities([chirp(judge.rate, 0.4), chirp(judge.rate, 0.4, 1)], judge.rate)
    assert {name: p.shape for name, p in found.items()} == {name: (2, len(c)) for name, c in judge.classes.items()}
    for p in found.values():
        np.testing.assert_allclose(p.sum(1), 1)


@pytest.mark.parametrize(
    "sound", [np.zeros((1, 0)), np.zeros((1, 1)), np.full((1, 900), np.nan), np.full((2, 9), 1e30)]
)
def test_sounds_of_no_use_have_an_answer(judge: Judge, sound: np.ndarray) -> None:
    """So that one of them does not stop ten thousand."""
    assert np.isfinite(judge.features([sound.astype(np.float32), chirp(judge.rate, 0.3)], judge.rate)).all()
    assert judge.features([], judge.rate).shape[0] == 0


def test_a_long_sound_is_heard_alone(judge: Judge) -> None:
    """Batches hold a bounded number of frames, and a sound beyond the longest is cut."""
    long = np.tile(chirp(judge.rate, 5.0), (1, 10))
    cut = long[:, : 30 * judge.rate]
    both = judge.features([long, cut, chirp(judge.rate, 0.2)], judge.rate)
    assert judge.spectrogram(cut, judge.rate).shape[1] <= FRAMES_AT_ONCE
    np.testing.assert_allclose(both[0], both[1], atol=1e-4)


def test_a_name_that_is_not_there_or_no_judge(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'digits'"):
        Judge.load("digit")
    folder = tmp_path / "other"
    checkpoint.save(folder, {"domain": "audio"}, {}, "")
    with pytest.raises(InputError, match="is no judge"):
        Judge.load(folder)
    damaged = tmp_path / "damaged"
    shutil.copytree(JUDGES / "digits", damaged)
    data = bytearray((damaged / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (damaged / "model.safetensors").write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        Judge.load(damaged)
    config = json.loads((damaged / "config.json").read_text())
    del config["mel"]
    (damaged / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError):
        Judge.load(damaged)


# ----------------------------------------------------------------------------------------------------------- training


@pytest.fixture(scope="module")
def clips(make_clips: Callable[..., PackedClips]) -> PackedClips:
    return make_clips({"kind": [str(i % 3) for i in range(24)]}, test=6, rate=4000, seconds=0.2)


MEL = {"n_fft": 128, "hop_length": 64, "n_mels": 8}


def test_test_clips_are_not_learned_from(clips: PackedClips) -> None:
    """With other test clips, and other classes of them, the same weights come out; with another seed, others."""
    audio = clips.audio.copy()
    audio[clips.offsets[18] :] = 0
    first, second, third = (
        judge_training.train(data, MEL, judge_training.Recipe(4000, epochs=1, seed=seed, batch=6), progress=False)
        for data, seed in ((clips, 0), (replace(clips, audio=audio), 0), (clips, 1))
    )
    for name, weight in first.network.state_dict().items():
        torch.testing.assert_close(weight, second.network.state_dict()[name], rtol=0, atol=0)
    assert not torch.equal(first.network.embed.weight, third.network.embed.weight)


def test_training_from_the_command_line_gives_a_judge(
    clips: PackedClips, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips.save(tmp_path / "tones.npz")
    mel = [f"--{key.replace('_', '-')}={value}" for key, value in MEL.items()]
    arguments = ["train", str(tmp_path / "tones.npz"), str(tmp_path / "judge"), "--epochs=3", "--mixed=0.5", *mel]
    monkeypatch.setattr("sys.argv", [*arguments, "--licence=cc0-1.0"])
    judge_training.main()
    judge = Judge.load(tmp_path / "judge")
    assert judge.classes == {"kind": ("0", "1", "2")}
    assert judge.config["accuracy"] == judge_training.accuracy(judge, clips, 2)
    assert "cc0-1.0" in (tmp_path / "judge" / "README.md").read_text()


def test_clips_without_classes_are_refused(clips: PackedClips) -> None:
    recipe = judge_training.Recipe(4000)
    with pytest.raises(InputError, match="there are none"):
        judge_training.train(replace(clips, attributes={}), MEL, recipe)
    values = clips.attributes["kind"].values.copy()
    values[3] = -1
    half = {"kind": replace(clips.attributes["kind"], values=values)}
    with pytest.raises(InputError, match="1 training clips have no 'kind'"):
        judge_training.train(replace(clips, attributes=half), MEL, recipe)


def test_gradients_reach_every_weight() -> None:
    network = JudgeNetwork(9, [3, 2], [4, 6, 8], 5, dropout=0.0)
    logits = network(torch.randn(4, 9, 11), torch.tensor([11, 5, 8, 1]))[1]
    sum(y.logsumexp(-1).sum() for y in logits).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
