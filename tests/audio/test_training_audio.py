"""Training on sounds: what batches hold, exact resume, and a checkpoint at the end; tones made in code."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import soundfile
import torch
from lightning.pytorch.callbacks import Callback

import multidiff
from multidiff.cli import main
from multidiff.cli.fit import with_recipes
from multidiff.conditioning.text import NULL, Vocabulary
from multidiff.errors import InputError
from multidiff.lightning import cli
from multidiff.lightning.callbacks import Checkpoints, Pictures
from multidiff.lightning.checkpoint_io import AtomicCheckpointIO
from multidiff.lightning.exporting import averaged
from multidiff.random import Rng
from multidiff_audio import domain
from multidiff_audio.clips import PackedClips
from multidiff_audio.curves import by_row, curves
from multidiff_audio.loading import Chances, Cutter
from multidiff_audio.representation import ComplexSTFT
from multidiff_audio.training import AudioData, AudioModule

RATE = 8000
HOP = 32
SMALL: dict[str, Any] = {"class": "ComplexSTFT", "n_fft": 64, "hop": HOP}
NETWORK: dict[str, Any] = {
    "class": "SpectrogramUNet", "widths": [8], "width": 16, "layers": 1, "heads": 2, "text_width": 8, "text_layers": 1,
}  # fmt: skip
LOW, HIGH = 400.0, 1600.0


def tone(pitch: float, samples: int, seed: int) -> np.ndarray:
    """(1, samples) with a phase and a loudness of its own."""
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / RATE
    fade = np.minimum(1, np.minimum(t, t[-1] - t) / 0.01)
    return (0.1 * rng.uniform(0.7, 1) * fade * np.sin(2 * np.pi * (pitch * t + rng.uniform())))[None].astype(np.float32)


def tones(count: int = 64, **changed: Any) -> PackedClips:
    """Two in four high; one in eight each to validate and to test."""
    lengths = [400 + 37 * (i % 20) for i in range(count)]
    high = [i % 2 == 1 for i in range(count)]
    split = [1 if i % 8 == 6 else 2 if i % 8 == 7 else 0 for i in range(count)]
    arguments: dict[str, Any] = {
        "captions": [("a high tone", "high") if up else ("a low tone", "low") for up in high],
        "attributes": {"pitch": ["high" if up else "low" for up in high]},
        "split": split,
        **changed,
    }
    return PackedClips.pack(
        [tone(HIGH if up else LOW, n, n) for n, up in zip(lengths, high, strict=True)], RATE, **arguments
    )


@pytest.fixture(scope="session")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "tones.npz"
    tones().save(path)
    return path


class At(Callback):
    """Calls a function before one optimiser step."""

    def __init__(self, step: int, action: Callable[[Any], None]) -> None:
        self.step, self.action, self.done = step, action, False

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step and not self.done:
            self.done = True
            self.action(pl_module)


class Seen(Callback):
    """Keeps all batches of a run."""

    def __init__(self) -> None:
        self.batches: list[tuple[torch.Tensor, torch.Tensor]] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.batches.append((batch[0].clone(), batch[2]["tokens"].clone()))


Fit = Callable[..., lightning.Trainer]


@pytest.fixture
def fit(data_path: Path, tmp_path: Path) -> Fit:
    """Trains in the folder `name` and returns the trainer."""

    def run(
        name: str = "run",
        ckpt_path: Path | None = None,
        callbacks: tuple[Callback, ...] = (),
        model: dict[str, Any] | None = None,
        path: Path = data_path,
        data: dict[str, Any] | None = None,
        **options: Any,
    ) -> lightning.Trainer:
        torch.manual_seed(0)
        module = AudioModule(**{"network": NETWORK, "representation": SMALL, "warmup_steps": 3, **(model or {})})
        trainer = lightning.Trainer(
            default_root_dir=tmp_path / name,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            plugins=[AtomicCheckpointIO()],
            callbacks=[*callbacks, Checkpoints(1000), Pictures(0)],
            **{"max_epochs": 2, "limit_val_batches": 1, **options},
        )
        trainer.fit(module, AudioData(str(path), **{"batch_size": 8, **(data or {})}), ckpt_path=ckpt_path)
        return trainer

    return run


# ------------------------------------------------------------------------------------------------------ what is held


def cutter(clips: PackedClips, longest: int = 10**6, fold_time: int = 2, **chances: float) -> Cutter:
    representation = ComplexSTFT(RATE, clips.channels, 64, HOP, fold_time=fold_time)
    return Cutter(clips, representation, Vocabulary.of(clips.phrasings(), 4), longest, Chances(**chances))


def test_in_evaluation_a_sound_is_taken_as_it_is() -> None:
    clips = tones(8)
    cut = cutter(clips)
    state, space, cond = cut(np.arange(8), None)
    for i in range(8):
        sound = clips.sound(i)
        n = sound.shape[1]
        rows = cut.representation.rows(n)
        assert space.mask[i].tolist() == [True] * rows + [False] * (state.shape[1] - rows)
        assert not state[i, rows:].any()
        back = cut.representation.decode(state[i : i + 1, :rows], n)[0].numpy()
        assert np.linalg.norm(back - sound) < 0.01 * np.linalg.norm(sound)
    known = Vocabulary.of(clips.phrasings(), 4)
    assert torch.equal(cond["tokens"], known.batch([phrasings[0] for phrasings in clips.captions]))
    assert (cond["classes"] == -1).all()
    assert cond["curves"].isnan().all()
    assert torch.equal(cut(np.arange(8), None)[0], state)


def test_in_training_a_sound_is_moved_turned_and_scaled_and_no_more() -> None:
    clips = tones(8)
    cut = cutter(clips)
    signs, gains, moves = set(), [], set()
    for seed in range(12):
        state, space, _ = cut(np.arange(8), Rng.batch(seed))
        made = cut.representation.decode(state)[:, 0].numpy()
        for i, one in enumerate(made):
            sound = clips.sound(i)[0]
            one = np.pad(one, (0, HOP))
            assert int(space.mask[i].sum()) == cut.representation.rows(len(sound))  # stays in its bucket
            scores = np.array([one[k : k + len(sound)] @ sound for k in range(HOP + 1)]) / (sound @ sound)
            move = int(np.abs(scores).argmax())
            rest = one.copy()
            rest[move : move + len(sound)] -= scores[move] * sound
            assert np.linalg.norm(rest) < 0.02 * np.linalg.norm(one)
            signs.add(bool(scores[move] > 0))
            gains.append(20 * math.log10(abs(scores[move])))
            moves.add(move)
    assert signs == {True, False}
    assert -2.01 < min(gains) < -1.5
    assert 1.5 < max(gains) < 2.01
    assert len(moves) > 10


def test_the_same_random_numbers_make_the_same_batch() -> None:
    cut = cutter(tones(16), curves=0.5, classes=0.5)
    one, other, third = (cut(np.arange(16), Rng.batch(seed)) for seed in (1, 1, 2))
    assert torch.equal(one[0], other[0])
    assert all(torch.equal(one[2][k].nan_to_num(9), other[2][k].nan_to_num(9)) for k in one[2])
    assert not torch.equal(one[0][:, :5], third[0][:, :5])


def shares(clips: PackedClips, **chances: float) -> dict[str, float]:
    """How often each condition is told, over many samples."""
    cut = cutter(clips, **chances)
    told = [cut(np.arange(len(clips)), Rng.batch(seed))[2] for seed in range(10)]
    first = [t["curves"][:, 0].unflatten(-1, (3, 2))[..., 0] for t in told]
    known = {"text": torch.cat([t["tokens"][:, 0] != NULL for t in told])}
    known["classes"] = torch.cat([t["classes"][:, 0] >= 0 for t in told])
    known |= {f"curve {k}": ~column.isnan() for k, column in enumerate(torch.cat(first).T)}
    return {name: float(values.double().mean()) for name, values in known.items()}


def test_each_condition_is_told_as_often_as_asked() -> None:
    clips = tones(64)
    tolerance = 0.08  # four standard deviations of 640 draws
    asked = {"nothing": 0.2, "text": 0.75, "classes": 0.5, "curves": 0.25}
    told = shares(clips, **asked)
    for name, value in told.items():
        expected = 0.8 * asked["curves" if name.startswith("curve") else name]
        assert abs(value - expected) < tolerance, name
    assert set(shares(clips, nothing=0, text=1, classes=1, curves=1).values()) == {1.0}
    assert set(shares(clips, nothing=1, text=1, classes=1, curves=1).values()) == {0.0}


def test_what_is_told_is_true() -> None:
    clips = tones(16)
    cut = cutter(clips, nothing=0, text=1, classes=1, curves=1)
    state, space, cond = cut(np.arange(16), Rng.batch(3))
    known = Vocabulary.of(clips.phrasings(), 4)
    for i in range(16):
        assert cond["tokens"][i].tolist() in known.batch(list(clips.captions[i])).tolist()
        assert cond["classes"][i].tolist() == [int(clips.attributes["pitch"].values[i])]
    sounds = cut.representation.decode(state)[:, 0]
    frames = curves(sounds, RATE, HOP, 2 * state.shape[1])
    told = torch.where(space.mask[..., None], cond["curves"], 0.0)
    heard = torch.where(space.mask[..., None], by_row(frames, 2), 0.0)
    assert float((told[..., :2] - heard[..., :2]).abs().median()) < 1e-2  # loudness
    assert float((told - heard).abs().median()) < 1e-2


def test_every_phrasing_is_used() -> None:
    clips = tones(4)
    cut = cutter(clips, nothing=0, text=1)
    seen = {tuple(row) for seed in range(30) for row in cut(np.arange(4), Rng.batch(seed))[2]["tokens"].tolist()}
    assert len(seen) == 4


def test_a_sound_that_is_too_long_is_cut_anew_each_time() -> None:
    long = np.linspace(0.1, 0.9, 4000, dtype=np.float32)[None]  # where a part is from can be read off it
    clips = PackedClips.pack([long, long[:, :1000]], RATE)
    cut = cutter(clips, longest=1600)
    starts = set()
    for seed in range(20):
        state, space, _ = cut(np.arange(2), Rng.batch(seed))
        assert space.mask.sum(1).tolist() == [cut.representation.rows(1600), cut.representation.rows(1000)]
        made = cut.representation.decode(state)[0, 0].abs()
        ratio = float(made[1500] / made[100])  # (v + 0.28) / v
        starts.add(round(0.8 / 4000 * 1400 / (ratio - 1), 2))
    assert len(starts) > 12
    assert min(starts) < 0.25
    assert max(starts) > 0.45
    assert int(cut(np.arange(2), None)[1].mask[0].sum()) == cut.representation.rows(1600)


def test_parts_of_sounds() -> None:
    clips = tones(32)
    whole = [cutter(clips).representation.rows(int(n)) for n in clips.lengths]
    cut = cutter(clips, crop=0.5)
    shorter = 0
    for seed in range(10):
        rows = cut(np.arange(32), Rng.batch(seed))[1].mask.sum(1).tolist()
        assert all(
            cut.representation.rows(int(0.1 * n)) <= r <= w for r, w, n in zip(rows, whole, clips.lengths, strict=True)
        )
        shorter += sum(r < w for r, w in zip(rows, whole, strict=True))
    assert 0.35 < shorter / 320 < 0.55
    assert cut(np.arange(32), None)[1].mask.sum(1).tolist() == whole


def test_stereo() -> None:
    sounds = [np.concatenate([tone(LOW, 500, 0), tone(HIGH, 500, 1)]), np.zeros((2, 300), np.float32)]
    state, _, _ = (cut := cutter(PackedClips.pack(sounds, RATE)))(np.arange(2), None)
    back = cut.representation.decode(state, 500)[0].numpy()
    assert np.linalg.norm(back - sounds[0]) < 0.01 * np.linalg.norm(sounds[0])


@pytest.mark.parametrize("representation", [SMALL, {"class": "LogMel", "n_fft": 128, "hop": 64, "mels": 20}])
def test_states_have_unit_deviation(fit: Fit, representation: dict[str, Any]) -> None:
    trainer = fit(max_steps=1, model={"representation": representation, "network": NETWORK})
    module, loader = trainer.lightning_module, trainer.datamodule.train_dataloader()
    held = loader.held
    states = [held.cut(k, torch.arange(n), None)[:2] for k, n in enumerate(held.lengths)]
    numbers = torch.cat([x[space.mask].flatten() for x, space in states])
    assert float(numbers.square().mean().sqrt()) == pytest.approx(1.0, abs=0.1)
    assert module.representation.rate == RATE


# ------------------------------------------------------------------------------------------------------- the whole way


def test_a_run_ends_with_a_checkpoint_that_generates(fit: Fit, tmp_path: Path) -> None:
    trainer = fit()
    pipe = multidiff.load(tmp_path / "run" / "export")
    weights = averaged(trainer.lightning_module.state_dict())
    assert all(torch.equal(w, pipe.denoiser.network.state_dict()[name]) for name, w in weights.items())
    assert pipe.classes == {"pitch": ["high", "low"]}
    assert pipe.vocabulary.known == ("a", "high", "low", "tone")
    assert pipe.representation == trainer.lightning_module.representation
    assert (pipe.shortest, pipe.longest) == (0.1, 0.2)  # the longest clip has 0.14 s
    out = pipe(["a high tone", "low"], seed=0, num_inference_steps=5, classes={"pitch": "low"})
    assert all(np.isfinite(sound).all() for sound in out.audios)
    picture = trainer.lightning_module.picture(2)
    assert picture is not None
    assert picture.startswith(b"\x89PNG")


def test_without_captions_and_classes(fit: Fit, tmp_path: Path) -> None:
    path = tmp_path / "bare.npz"
    tones(captions=None, attributes=None).save(path)
    trainer = fit(path=path, max_epochs=1)
    pipe = multidiff.load(tmp_path / "run" / "export")
    assert pipe.vocabulary.known == ()
    assert pipe.classes == {}
    assert np.isfinite(pipe(seed=0, num_inference_steps=5).audios[0]).all()
    assert trainer.lightning_module.picture(1) is not None


def test_captions_of_some(fit: Fit, tmp_path: Path) -> None:
    path = tmp_path / "some.npz"
    captions = [("a tone",) if i % 3 == 0 else () for i in range(64)]
    names = ["a" if i % 5 == 0 else "" for i in range(64)]
    tones(captions=captions, attributes={"kind": names}).save(path)
    fit(path=path, max_epochs=1)
    assert multidiff.load(tmp_path / "run" / "export").classes == {"kind": ["a"]}


def test_without_validation(fit: Fit, tmp_path: Path) -> None:
    path = tmp_path / "train.npz"
    tones(split=[0] * 64).save(path)
    assert fit(path=path, max_epochs=1).global_step > 0


@pytest.mark.parametrize("captioned", [True, False])
def test_a_folder_of_files(fit: Fit, tmp_path: Path, captioned: bool, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "sounds"
    clips = tones()
    for i in range(64):
        name = ("high" if i % 2 else "low") + f"/{i}.wav"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, clips.sound(i).T, RATE)
    (folder / "low" / "bad.wav").write_text("no sound")
    if captioned:
        with open(folder / "captions.csv", "w", newline="") as file:
            rows = [
                (("high" if i % 2 else "low") + f"/{i}.wav", "a shrill tone" if i % 2 else "a deep tone")
                for i in range(64)
            ]
            csv.writer(file).writerows([("file", "caption"), *rows])
    fit(path=folder, max_epochs=1, data={"batch_size": 4})
    pipe = multidiff.load(tmp_path / "run" / "export")
    assert pipe.representation.rate == RATE
    assert set(pipe.vocabulary.known) == ({"a", "shrill", "deep", "tone"} if captioned else {"high", "low"})
    assert np.isfinite(pipe("high", seed=0, num_inference_steps=5).audios[0]).all()
    assert "bad.wav" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------------- resume


def state(path: Path) -> dict[str, Any]:
    """Everything a run consists of, but for paths and clocks."""
    saved = torch.load(path, weights_only=True)
    kept = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch", "multidiff_skipped")
    return {key: saved[key] for key in kept}


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        return [d for key in a for d in differences(a[key], b[key], f"{where}/{key}")]
    if isinstance(a, list | tuple):
        assert len(a) == len(b)
        return [d for i, (x, y) in enumerate(zip(a, b, strict=True)) for d in differences(x, y, f"{where}/{i}")]
    same = torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
    return [] if same else [where]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_resumed_equals_uninterrupted(fit: Fit, tmp_path: Path, precision: str) -> None:
    model = {"tell_curves": 0.5, "crop": 0.5}
    whole, first, second = Seen(), Seen(), Seen()
    fit("straight", callbacks=(whole,), model=model, precision=precision)
    with pytest.raises(SystemExit):
        fit(
            "part",
            callbacks=(At(3, lambda _: os.kill(os.getpid(), signal.SIGTERM)), first),
            model=model,
            precision=precision,
        )
    path = tmp_path / "part" / "checkpoints" / "last.ckpt"
    fit("end", ckpt_path=path, callbacks=(second,), model=model, precision=precision)
    ends = [state(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("straight", "end")]
    assert differences(*ends) == []
    seen = first.batches + second.batches
    assert len(seen) == len(whole.batches) > 6
    for (one, tokens), (other, others) in zip(seen, whole.batches, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(tokens, others)


def test_the_comparison_can_fail(fit: Fit, tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("other", 1)):
        fit(name, max_epochs=1, model={"seed": seed})
    ends = [state(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("one", "other")]
    assert differences(*ends)


# ------------------------------------------------------------------------------------------------- the command line


def options(data: Path, run: Path, *more: str) -> list[str]:
    """What makes a recipe tiny."""
    return [
        "--model.network", json.dumps(NETWORK), "--model.representation", json.dumps(SMALL),
        "--model.warmup_steps", "2", "--trainer.max_steps", "4", "--trainer.log_every_n_steps", "1",
        "--trainer.val_check_interval", "2", "--trainer.enable_progress_bar=false", "--trainer.precision", "32-true",
        "--trainer.default_root_dir", str(run), "--data.path", str(data), "--data.batch_size", "8", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def trained(data_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """Options of a tiny run without a logger, and its checkpoint."""
    run = tmp_path_factory.mktemp("trained")
    args = with_recipes(["--config", "audio-digits", *options(data_path, run, "--trainer.logger", "false")])
    assert cli.run("fit", args) == 0
    return args, run / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize("recipe", domain.recipes())
def test_recipe_trains_exports_and_reloads(recipe: str, data_path: Path, tmp_path: Path) -> None:
    args = with_recipes(["--config", recipe, *options(data_path, tmp_path, "--pictures.every_n_steps", "4")])
    assert cli.run("fit", args) == 0
    run = tmp_path / "lightning_logs" / "version_0"
    pipe = multidiff.load(run / "export")
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    for name, weight in averaged(saved["state_dict"]).items():
        assert torch.equal(weight, pipe.denoiser.network.state_dict()[name]), name
    assert np.isfinite(pipe("a high tone", seed=0, num_inference_steps=5).audios[0]).all()


@pytest.mark.parametrize("recipe", domain.recipes())
def test_recipes_are_of_networks_that_can_be_built_and_shipped(recipe: str) -> None:
    """Below 16 MB in half precision."""
    import yaml

    model = yaml.safe_load(domain.recipes()[recipe].read_text())["model"]["init_args"]
    module = AudioModule(**model)
    assert 2 * sum(weight.numel() for weight in module.denoiser.network.parameters()) < 16e6


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_other_commands(command: str, trained: Any, capsys: pytest.CaptureFixture[str]) -> None:
    args, checkpoint = trained
    assert cli.run(command, [*args, "--ckpt_path", str(checkpoint), "--data.num_samples", "3"]) == 0
    said = capsys.readouterr().out
    if command == "predict":
        assert "3 sounds are in" in said
        folder = checkpoint.parents[1] / "predictions"
        assert sorted(p.name for p in folder.glob("*.wav")) == [f"audio-{i:05d}.wav" for i in range(3)]
    else:
        assert f"{command[:3] if command == 'validate' else command}/loss" in said


WRONG = [
    (["--model.network", '{"class": "SpectrogramUNt"}'], "did you mean 'SpectrogramUNet'"),
    (["--model.network", '{"class": "SpectrogramUNet", "widht": 3}'], "widht"),
    (["--model.network", '{"width": 16}'], "'class' is missing"),
    (["--model.network", '{"class": "SpectrogramUNet", "width": 16, "heads": 3}'], "multiple of twice the heads 3"),
    (["--model.representation", '{"class": "ComplexSTFT", "hop": 0}'], "hop"),
    (["--model.representation", '{"class": "Mel"}'], "unknown class 'Mel'"),
    (["--model.times", "unifrm"], "did you mean 'uniform'?"),
    (["--model.text_longst", "3"], "did you mean 'model.text_longest'"),
    (["--data.path", "absent.npz"], "no data set at absent.npz"),
    (["--data.batch_size", "1000"], "batch size 1000 is larger than the 48"),
    (["--data.batch_size", "0"], "batch size 0 is not allowed"),
    (["--data.max_seconds", "0"], "data.max_seconds 0.0 is not allowed"),
    (["--ckpt_path", "absent.ckpt"], "--ckpt_path: no file absent.ckpt"),
]


@pytest.mark.parametrize(("wrong", "line"), WRONG, ids=[" ".join(w[0])[:60] for w in WRONG])
def test_wrong_options_are_one_line(
    wrong: list[str], line: str, data_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["--config", "audio-digits", *options(data_path, tmp_path, "--trainer.logger", "false")]
    assert main(["fit", *base, *wrong]) == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"split": [1] * 64}, "no sound in split 0"),
        ({"split": [0] * 7 + [1] * 57}, "batch size 8 is larger than the 7"),
    ],
)
def test_data_that_does_not_do(fit: Fit, tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    tones(**changed).save(tmp_path / "bad.npz")
    with pytest.raises(InputError, match=says):
        fit(path=tmp_path / "bad.npz")


def test_silent_data(fit: Fit, tmp_path: Path) -> None:
    PackedClips.pack([np.zeros((1, 400), np.float32)] * 16, RATE).save(tmp_path / "silent.npz")
    with pytest.raises(InputError, match="all silent"):
        fit(path=tmp_path / "silent.npz")


# ------------------------------------------------------------------------------------------------------ does it learn


def test_lengths_are_those_of_whole_sounds(fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a prompt says of its length is learned from whole sounds, also where parts of them are trained on."""
    sounds = [tone(LOW, 3200 if i % 2 else 1600, i) for i in range(32)]
    PackedClips.pack(sounds, RATE, [("long",) if i % 2 else ("short",) for i in range(32)]).save(tmp_path / "two.npz")
    targets: list[int] = []
    real = torch.nn.functional.cross_entropy

    def watch(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        targets.extend(target.tolist())
        return real(logits, target)

    monkeypatch.setattr("multidiff_audio.training.F.cross_entropy", watch)
    fit(path=tmp_path / "two.npz", max_steps=6, max_epochs=-1, model={"crop": 0.8})
    edges = 0.1 * 4.0 ** (np.arange(49) / 48)  # from the shortest, 0.1 s, to the longest, 0.4 s
    assert {round(float(edges[k]), 3) for k in set(targets)} <= {
        0.2,
        round(float(edges[23]), 3),
        round(float(edges[47]), 3),
    }
    assert len(set(targets)) == 2


@pytest.mark.slow
def test_two_tones_are_learned(fit: Fit, tmp_path: Path) -> None:
    """A minute: prompts that it was trained on give the pitch that they name, and lengths like those of the data."""
    network = {**NETWORK, "widths": [16], "width": 64, "layers": 2}
    fit(model={"network": network, "learning_rate": 3e-3}, max_epochs=-1, max_steps=1200, limit_val_batches=0)
    pipe = multidiff.load(tmp_path / "run" / "export")
    out = pipe(["a low tone", "a high tone"], num_samples=20, seed=0, num_inference_steps=20, duration=0.12)
    for prompt, sound in zip(out.prompts, out.audios, strict=True):
        spectrum = np.abs(np.fft.rfft(sound[0] * np.hanning(960)))
        found = float(spectrum.argmax() * RATE / 960)
        assert found == pytest.approx(HIGH if "high" in prompt else LOW, rel=0.05)
    lengths = [sound.shape[1] for sound in pipe("a low tone", num_samples=20, seed=1).audios]
    assert 600 < np.mean(lengths) < 900  # of the data: 400 to 1103 samples, evenly
