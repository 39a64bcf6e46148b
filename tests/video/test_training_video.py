"""Training on clips: what batches hold, exact resume, and a checkpoint at the end; digits drawn in code."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

import multidiff
from multidiff.cli import main
from multidiff.cli.fit import with_recipes
from multidiff.conditioning.text import NULL, Vocabulary
from multidiff.denoiser import NetworkDenoiser
from multidiff.errors import InputError
from multidiff.lightning import cli
from multidiff.lightning.callbacks import Checkpoints, Pictures
from multidiff.lightning.checkpoint_io import AtomicCheckpointIO
from multidiff.lightning.exporting import averaged
from multidiff.prediction import Prediction
from multidiff.process import Process
from multidiff.random import Rng
from multidiff.schedule import Cosine
from multidiff.state import Parts
from multidiff.train.objective import Objective
from multidiff_video import domain
from multidiff_video.digits import MOTIONS, MovingDigits, caption, drawn_glyphs, parse, words
from multidiff_video.encoding import write
from multidiff_video.loading import Chances, Cutter, Procedural, Recorded, Window
from multidiff_video.network import VideoUNet
from multidiff_video.packed import PackedVideos
from multidiff_video.pixels import Pixels
from multidiff_video.training import VideoData, VideoModule, measured

SIZE, FRAMES, RATE = 16, 6, 10.0
NETWORK: dict[str, Any] = {
    "class": "VideoUNet", "patch": 2, "widths": [8], "width": 24, "layers": 1, "heads": 2, "text_width": 16,
    "text_layers": 1,
}  # fmt: skip


def films(count: int = 16, frames: int = 12, channels: int = 1, **changed: Any) -> PackedVideos:
    """Moving digits with captions; frame k of clip i has i in one corner and k in another."""
    scenes, rng = MovingDigits(drawn_glyphs(), SIZE), np.random.default_rng(0)
    made, said = [], []
    for i in range(count):
        scene = scenes.scene(rng)
        clip = scenes.render(scene, frames).repeat(channels, -1)
        clip[:, 0, 0], clip[:, -1, -1] = i, np.arange(frames)[:, None]
        made.append(clip)
        said.append((caption([(a.digit, a.motion) for a in scene]), f"clip {i}"))
    split = [1 if i % 8 == 6 else 2 if i % 8 == 7 else 0 for i in range(count)]
    return PackedVideos.pack(made, RATE, **{"captions": said, "split": split, **changed})


@pytest.fixture(scope="session")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "films"
    films().save(path)
    return path


# -------------------------------------------------------------------------------------------------------------- pixels


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("mean", "deviation"), [(0.5, 0.5), (0.037, 0.181), (0.9, 0.01), (0.0, 3.0)])
def test_every_brightness_comes_back(channels: int, mean: float, deviation: float) -> None:
    pixels = Pixels(channels, 16, 16, mean, deviation)
    clip = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(channels, -1)
    clip[..., 0] = clip[:, ::-1, :, 0]
    state = pixels.encode(clip)
    assert state.shape == (1, channels, 16, 16)
    assert np.array_equal(pixels.decode(state), clip)
    values = (clip.astype(np.float64) / 255 - mean) / deviation
    np.testing.assert_allclose(state.movedim(1, -1), values, rtol=1e-4, atol=1e-4)


def test_beyond_black_and_white_is_black_and_white() -> None:
    pixels = Pixels(1, 2, 1, 0.5, 0.25)
    state = torch.tensor([[-1e9, 1e9]]).view(1, 1, 2, 1)
    assert pixels.decode(state).flatten().tolist() == [0, 255]
    before = state.clone()
    pixels.decode(state)
    assert torch.equal(state, before)  # which is not changed by being looked at


@pytest.mark.parametrize(
    "wrong",
    [{"channels": 2}, {"height": 0}, {"deviation": 0.0}, {"deviation": float("nan")}, {"mean": float("inf")}],
    ids=str,
)
def test_pixels_that_are_none(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        Pixels(**{"channels": 1, "height": 8, "width": 8, **wrong})
    assert "\n" not in str(caught.value)


def test_mean_and_deviation_are_those_of_the_training_clips() -> None:
    packed = films(16)
    train = np.concatenate([packed.clip(i) for i in range(16) if packed.split[i] == 0]) / 255
    found = measured(Recorded(packed), 12)  # windows as long as the clips
    assert (found.mean, found.deviation) == pytest.approx((train.mean(), train.std()))
    assert (found.channels, found.height, found.width) == (1, SIZE, SIZE)
    with pytest.raises(InputError, match="one and the same brightness"):
        measured(Recorded(PackedVideos.pack([np.full((3, 8, 8, 1), 7, np.uint8)] * 2, RATE)), 3)


# ------------------------------------------------------------------------------------------------------ what is held


def cutter(videos: Any, frames: int = FRAMES, **chances: float) -> Cutter:
    height, width, channels = videos.shape
    return Cutter(
        videos, Pixels(channels, height, width), Vocabulary.of(videos.texts(), 20), frames, Chances(**chances)
    )


def many(cut: Cutter, rows: int = 8, batches: int = 60) -> list[Any]:
    return [cut(0, list(range(rows)), Rng.batch(seed)) for seed in range(batches)]


def test_in_evaluation_windows_are_the_same_and_the_prompt_alone_is_given() -> None:
    cut = cutter(Recorded(films()), text=0.5)
    state, space, cond = cut(0, list(range(8)), None)
    assert state.shape == (8, FRAMES, 1, SIZE, SIZE)
    assert space.mask.all()
    assert not cond["known"].any()
    assert (cond["tokens"][:, 0] != NULL).all()  # however rarely it is told in training
    again = cut(0, list(range(8)), None)
    assert torch.equal(again[0], state)
    assert torch.equal(again[2]["tokens"], cond["tokens"])
    assert torch.equal(cut(0, [3], None)[0][0], state[3])  # whatever is beside it


def test_the_same_random_numbers_make_the_same_batch() -> None:
    for videos in (Recorded(films()), Procedural([drawn_glyphs()] * 3, SIZE)):
        cut = cutter(videos, pictures=0.0)
        one, other, third = (cut(0, list(range(8)), Rng.batch(seed)) for seed in (1, 1, 2))
        assert torch.equal(one[0], other[0])
        assert all(torch.equal(one[2][name], other[2][name]) for name in one[2])
        assert not torch.equal(one[0], third[0])


def test_what_is_given_is_what_is_hidden_from_the_loss() -> None:
    for states, space, cond in many(cutter(Recorded(films())), batches=20):
        assert torch.equal(space.mask, ~cond["known"])
        assert torch.equal(cond["frames"], states)
        assert space.mask.any(1).all()


CASES = {"first": [0], "ends": [0, FRAMES - 1]}


def test_each_kind_of_given_frames_comes_as_often_as_asked() -> None:
    asked = {"first": 0.3, "some": 0.2, "ends": 0.25}
    made = torch.cat([cond["known"] for _, _, cond in many(cutter(Recorded(films()), pictures=0.0, **asked))])
    kinds = [tuple(row.nonzero().flatten().tolist()) for row in made]
    counts = {
        "nothing": kinds.count(()),
        "first": kinds.count((0,)),
        "some": sum(kinds.count(tuple(range(n))) for n in range(2, FRAMES // 2 + 1)),
    }
    counts["ends"] = len(kinds) - sum(counts.values())
    # Half of these are the first and the last, the others two or three anywhere.
    assert kinds.count((0, FRAMES - 1)) > counts["ends"] / 3
    assert len({kind for kind in kinds if len(kind) == 2 and kind != (0, FRAMES - 1)}) > 5
    for name, share in {**asked, "nothing": 0.25}.items():
        assert counts[name] / len(kinds) == pytest.approx(share, abs=0.09), name  # four deviations of 480 draws
    assert {len(kind) for kind in kinds} == {0, 1, *range(2, max(3, FRAMES // 2) + 1)}


@pytest.mark.parametrize("frames", [2, 3])
def test_of_a_short_window_one_frame_is_left_to_be_made(frames: int) -> None:
    made = many(cutter(Recorded(films()), frames, first=0.0, some=0.5, ends=0.5, pictures=0.0), batches=10)
    assert all(space.mask.any(1).all() for _, space, _ in made)


def test_prompts_are_told_as_often_as_asked_and_in_every_phrasing() -> None:
    packed = films()
    cut = cutter(Recorded(packed), text=0.7, pictures=0.0)
    tokens = torch.cat([cond["tokens"] for _, _, cond in many(cut)])
    assert float((tokens[:, 0] != NULL).double().mean()) == pytest.approx(0.7, abs=0.085)
    row = packed.rows(0)[2]
    seen = {tuple(row) for row in tokens[2::8].tolist()}
    assert seen == {tuple(t) for t in cut.vocabulary.batch([*packed.captions[row], ""]).tolist()}


def test_pictures() -> None:
    """As often as asked; eight for each clip, each a frame of it with what is said of it."""
    packed = films()
    cut = cutter(Recorded(packed), pictures=0.3, text=1.0)
    made = many(cut, batches=200)
    pictures = [batch for batch in made if batch[0].shape[1] == 1]
    assert len(pictures) / 200 == pytest.approx(0.3, abs=0.13)
    frames = set()
    for state, space, cond in pictures:
        assert state.shape[:2] == (64, 1)
        assert space.mask.all()
        corners = cut.pixels.decode(state)[:, 0]
        for k in range(64):
            i, frame = int(corners[k, 0, 0, 0]), int(corners[k, -1, -1, 0])
            assert i == packed.rows(0)[k % 8]
            assert cond["tokens"][k].tolist() in cut.vocabulary.batch(packed.captions[i]).tolist()
            frames.add(frame)
    assert frames == set(range(12))
    assert all(batch[0].shape[1] == 1 for batch in many(cutter(Recorded(packed), 1, pictures=0.0), batches=5))


def test_a_window_is_a_part_of_its_clip() -> None:
    cut = cutter(Recorded(films()), pictures=0.0)
    starts = set()
    for state, _, _ in many(cut, batches=20):
        clips = cut.pixels.decode(state)
        for k, clip in enumerate(clips):
            times = clip[:, -1, -1, 0].astype(int)
            assert np.array_equal(times, times[0] + np.arange(FRAMES))
            assert (clip[:, 0, 0, 0] == cut.videos.rows[0][k]).all()  # type: ignore[attr-defined]
            starts.add(int(times[0]))
    assert starts == set(range(12 - FRAMES + 1))


def test_a_clip_that_is_too_short_stands_still_at_its_end() -> None:
    packed = films(8, 3)
    state, _, _ = cutter(Recorded(packed))(0, [0, 1], None)
    clips = Pixels(1, SIZE, SIZE).decode(state)
    for i in range(2):
        assert np.array_equal(clips[i, :3], packed.clip(i))
        assert np.array_equal(clips[i, 3:], packed.clip(i)[-1:].repeat(FRAMES - 3, 0))


def test_clips_without_captions_have_none() -> None:
    cut = cutter(Recorded(films(captions=[()] * 16)), text=1.0)
    assert (cut(0, list(range(8)), None)[2]["tokens"][:, 0] == NULL).all()


class Asked:
    """Notes which windows are asked for from anywhere."""

    fps, shape = RATE, (SIZE, SIZE, 1)

    def __init__(self) -> None:
        self.seen: list[tuple[int, bool]] = []

    def count(self, split: int) -> int:
        return 8

    def texts(self) -> list[str]:
        return ["a"]

    def window(self, split: int, row: int, frames: int, rng: np.random.Generator, anywhere: bool) -> Any:
        self.seen.append((frames, anywhere))
        return Window(np.zeros((frames, SIZE, SIZE, 1), np.uint8), "a")


def test_windows_are_from_anywhere_where_several_frames_say_where() -> None:
    """A straight motion that is asked for by its first frame or by words alone begins as one that is asked for."""
    videos = Asked()
    cut = cutter(videos)
    for seed in range(60):
        videos.seen.clear()
        _, _, cond = cut(0, list(range(8)), Rng.batch(seed))
        if cond["known"].shape[1] == 1:
            assert videos.seen == [(1, True)] * 64
        else:
            assert videos.seen == [(FRAMES, bool(known[:2].all())) for known in cond["known"]]
    videos.seen.clear()
    cut(0, [0, 1], None)
    assert videos.seen == [(FRAMES, False)] * 2


def test_digits_are_made_as_they_are_told() -> None:
    videos = Procedural([drawn_glyphs()] * 3, 32)
    assert set(Vocabulary.of(videos.texts(), 20).known) >= set(Vocabulary.of(words(), 20).known)
    scenes = MovingDigits(drawn_glyphs(), 32)
    for seed in range(40):
        clip, said, truth = videos.window(0, 5, 6, np.random.default_rng(seed), False)
        scene = scenes.scene(np.random.default_rng(seed))
        assert np.array_equal(clip, scenes.render(scene, 6))
        assert parse(said) == [(actor.digit, actor.motion) for actor in scene]
        assert truth is None
    late = [videos.window(0, 5, 6, np.random.default_rng(seed), True).clip for seed in range(10)]
    early = [videos.window(0, 5, 6, np.random.default_rng(seed), False).clip for seed in range(10)]
    assert sum(np.array_equal(a, b) for a, b in zip(late, early, strict=True)) <= 2


def test_the_truth_of_moving_digits() -> None:
    """Where it is asked for, and in the same clips as where it is not."""
    plain, told = (Procedural([drawn_glyphs()] * 3, 32, 0.5, square) for square in (0, 8))
    scenes = MovingDigits(drawn_glyphs(), 32, 0.5)
    for seed in range(20):
        for anywhere in (False, True):
            one, other = (v.window(0, 0, 6, np.random.default_rng(seed), anywhere) for v in (plain, told))
            assert np.array_equal(one.clip, other.clip)
            assert one.said == other.said
            assert other.truth is not None
            asked = dict(parse(other.said) or [])
            seen = np.flatnonzero(other.truth.ink.any((0, 2, 3))).tolist()
            assert sorted(asked) == seen
            assert {digit: MOTIONS[other.truth.motions[digit]] for digit in seen} == asked
        scene = scenes.scene(np.random.default_rng(seed))
        assert np.array_equal(
            told.window(0, 0, 6, np.random.default_rng(seed), False).truth.ink, scenes.ink(scene, 6, 0, 8)
        )
    batches = [cond for _, _, cond in many(cutter(told, pictures=0.4), 3, 20)]
    for cond in batches:
        assert ("ink" in cond) == (cond["known"].shape[1] > 1)
        if "ink" in cond:
            assert cond["ink"].shape == (3, FRAMES, 10, 4, 4)
            assert cond["motions"].shape == (3, 10)
    assert {"ink" in cond for cond in batches} == {False, True}


# ------------------------------------------------------------------------------------------------------------ the loss


def objective_of(known: torch.Tensor, spoil: float = 0.0) -> tuple[torch.Tensor, VideoUNet]:
    """Losses of a batch in which frames are given, whose noisy states are wrong by `spoil`."""
    torch.manual_seed(0)
    network = VideoUNet(1, 9, **{k: v for k, v in NETWORK.items() if k != "class"})
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    from multidiff.space import Masked

    x0 = torch.randn(3, 4, 1, 8, 8)
    given = x0.clone()
    x0[known] += spoil
    denoiser = NetworkDenoiser(network, Process(Cosine()), Prediction("v"))
    times = torch.linspace(0.1, 0.9, 12, dtype=torch.float64).view(3, 4)
    cond = Parts(known=known, frames=given)
    losses, _ = Objective(self_conditioning=0.0)(denoiser, x0, Rng.batch(0), cond, Masked(~known), t=times)
    return losses, network


def test_given_frames_have_no_loss_and_no_gradient() -> None:
    """What they are in the loss's own terms is of no account; what the others see of them is `frames`."""
    known = torch.tensor([[1, 0, 0, 1], [1, 1, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    gradients = []
    for spoil in (0.0, 100.0):
        losses, network = objective_of(known, spoil)
        losses.mean().backward()
        gradients.append((losses.detach(), [w.grad for w in network.parameters()]))
    assert torch.equal(gradients[0][0], gradients[1][0])
    for one, other in zip(gradients[0][1], gradients[1][1], strict=True):
        assert (one is None and other is None) or torch.equal(one, other)  # type: ignore[arg-type]
    assert not torch.equal(objective_of(~known)[0], gradients[0][0])


def test_a_share_of_the_clips_has_a_time_for_each_frame() -> None:
    module = VideoModule(NETWORK, forcing=0.3)
    x0 = torch.zeros(2000, FRAMES, 1, 1, 1)
    times = module.times(x0, Rng.batch(0))
    assert times.shape == (2000, FRAMES)
    apart = (times != times[:, :1]).any(1)
    assert float(apart.double().mean()) == pytest.approx(0.3, abs=0.045)
    assert ((times[apart][:, 1:] - times[apart][:, :-1]).abs() > 0).double().mean() > 0.99
    for part in (times[apart][:, 3], times[~apart][:, 3]):  # both are spread as the objective spreads them
        assert float(part.mean()) == pytest.approx(0.5, abs=0.06)
        assert 0 <= float(part.min()) < 0.05 < 0.95 < float(part.max()) <= 1
    assert not (VideoModule(NETWORK, forcing=0.0).times(x0, Rng.batch(0)).diff(dim=1) != 0).any()


# ------------------------------------------------------------------------------------------------------- the whole way


class At(Callback):
    """Calls a function before one optimiser step."""

    def __init__(self, step: int, action: Callable[[Any], None]) -> None:
        self.step, self.action, self.done = step, action, False

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step and not self.done:
            self.done = True
            self.action(pl_module)


class Seen(Callback):
    """Keeps all batches and losses of a run."""

    def __init__(self) -> None:
        self.batches: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.losses: list[float] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.batches.append((batch[0].clone(), batch[2]["tokens"].clone()))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append(float(outputs["loss"]))


Fit = Callable[..., lightning.Trainer]


@pytest.fixture
def fit(tmp_path: Path) -> Fit:
    """Trains in the folder `name` and returns the trainer."""

    def run(
        path: Path | str = "drawn",
        name: str = "run",
        ckpt_path: Path | None = None,
        callbacks: tuple[Callback, ...] = (),
        model: dict[str, Any] | None = None,
        data: dict[str, Any] | None = None,
        **options: Any,
    ) -> lightning.Trainer:
        torch.manual_seed(0)
        module = VideoModule(**{"network": NETWORK, "warmup_steps": 3, **(model or {})})
        trainer = lightning.Trainer(
            default_root_dir=tmp_path / name,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            plugins=[AtomicCheckpointIO()],
            callbacks=[*callbacks, Checkpoints(1000), Pictures(0)],
            **{"max_steps": 4, "limit_val_batches": 1, **options},
        )
        loaded = VideoData(str(path), **{"batch_size": 4, "frames": FRAMES, "size": SIZE, **(data or {})})
        trainer.fit(module, loaded, ckpt_path=ckpt_path)
        return trainer

    return run


def test_a_resumed_run_keeps_the_units_of_brightness(fit: Fit, tmp_path: Path) -> None:
    first = fit(max_steps=2).lightning_module
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    seen = Seen()
    other = fit(ckpt_path=last, callbacks=(seen,), max_steps=4, data={"two_digits": 1.0}).lightning_module
    assert other.pixels == first.pixels
    assert measured(other.trainer.datamodule.videos, FRAMES) != first.pixels  # of these clips it would be another
    darkest = min(float(states.min()) for states, _ in seen.batches)
    assert darkest == pytest.approx(-first.pixels.mean / first.pixels.deviation)  # black, in the units of the first


@pytest.mark.parametrize("path", ["drawn", "films"])
def test_the_batches_are_the_same_with_any_number_of_processes(fit: Fit, tmp_path: Path, path: str) -> None:
    if path == "films":
        path = str(tmp_path / "films")
        films().save(path)
    plain, ahead, resumed = Seen(), Seen(), Seen()
    fit(path, "plain", callbacks=(plain,), max_steps=6)
    fit(path, "ahead", callbacks=(ahead,), max_steps=3, data={"num_workers": 2})
    last = tmp_path / "ahead" / "checkpoints" / "last.ckpt"
    fit(path, "ahead", last, (resumed,), max_steps=6, data={"num_workers": 1})
    made = ahead.batches + resumed.batches
    assert len(made) == len(plain.batches) == 6
    for one, other in zip(made, plain.batches, strict=True):
        assert all(map(torch.equal, one, other))


def test_a_run_ends_with_a_checkpoint_that_generates(fit: Fit, tmp_path: Path) -> None:
    trainer = fit()
    module = trainer.lightning_module
    pipe = multidiff.load(tmp_path / "run" / "export")
    weights = averaged(module.state_dict())
    assert all(torch.equal(w, pipe.denoiser.network.state_dict()[name]) for name, w in weights.items())
    assert (pipe.window, pipe.fps, pipe.pixels) == (FRAMES, 10.0, module.pixels)
    assert pipe.vocabulary.known == Vocabulary.of(words(), 20).known
    out = pipe("a 3 moving left", seed=0, num_inference_steps=5)
    assert out.frames[0].shape == (FRAMES, SIZE, SIZE, 1)
    picture = module.picture(2)
    assert picture is not None
    assert picture.startswith(b"\x89PNG")


def test_a_packed_folder(fit: Fit, tmp_path: Path, data_path: Path) -> None:
    trainer = fit(data_path)
    module = trainer.lightning_module
    pipe = multidiff.load(tmp_path / "run" / "export")
    trained = [text for i in films().rows(0) for text in films().captions[i]]
    assert pipe.vocabulary == Vocabulary.of(trained, 20)
    assert pipe.pixels == measured(trainer.datamodule.videos, FRAMES)
    assert module.picture(1) is not None


def test_without_captions_and_validation(fit: Fit, tmp_path: Path) -> None:
    films(captions=[()] * 16, split=[0] * 16).save(tmp_path / "bare")
    trainer = fit(tmp_path / "bare")
    pipe = multidiff.load(tmp_path / "run" / "export")
    assert pipe.vocabulary.known == ()
    assert len(pipe(seed=0, num_inference_steps=5).frames[0]) == FRAMES
    assert trainer.lightning_module.picture(1) is not None


def test_a_folder_of_films(fit: Fit, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "films"
    packed = films(6, split=[0] * 6)
    for i in range(6):
        way = "left" if i % 2 else "right"
        (folder / way).mkdir(parents=True, exist_ok=True)
        write(folder / way / f"{i}.mp4", packed.clip(i), RATE, {}, scale=2)
    (folder / "left" / "bad.mp4").write_text("no film")
    fit(folder, data={"batch_size": 2, "gray": False}, max_steps=2)
    pipe = multidiff.load(tmp_path / "run" / "export")
    assert pipe.fps == RATE
    assert pipe.pixels.channels == 3
    assert set(pipe.vocabulary.known) == {"left", "right"}
    assert pipe("left", seed=0, num_inference_steps=5).frames[0].shape == (FRAMES, SIZE, SIZE, 3)
    assert "bad.mp4" in capsys.readouterr().err


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


@pytest.mark.parametrize(("digits", "precision"), [(True, "32-true"), (False, "bf16-mixed")])
def test_resumed_equals_uninterrupted(fit: Fit, tmp_path: Path, data_path: Path, digits: bool, precision: str) -> None:
    """Over the end of an epoch, where there is one; with lessons in reading and heads of their own, where there are."""
    path = "drawn" if digits else data_path
    model = {"forcing": 0.5} | ({"reading": 3, "grounding": 1.0} if digits else {})
    options: dict[str, Any] = {"precision": precision, "max_steps": 6, "model": model}
    whole, first, second = Seen(), Seen(), Seen()
    fit(path, "straight", callbacks=(whole,), **options)
    stop = At(2, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit):
        fit(path, "part", callbacks=(stop, first), **options)
    kept = tmp_path / "part" / "checkpoints" / "last.ckpt"
    fit(path, "end", ckpt_path=kept, callbacks=(second,), **options)
    ends = [state(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("straight", "end")]
    assert differences(*ends) == []
    seen = first.batches + second.batches
    assert len(seen) == len(whole.batches) == 6
    for (one, tokens), (other, others) in zip(seen, whole.batches, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(tokens, others)


def test_the_comparison_can_fail(fit: Fit, tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("other", 1)):
        fit(name=name, max_steps=1, model={"seed": seed})
    ends = [state(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("one", "other")]
    assert differences(*ends)


def test_training_begins_from_the_weights_of_a_checkpoint(fit: Fit, tmp_path: Path) -> None:
    fit(max_steps=2)
    begun = multidiff.load(tmp_path / "run" / "export")
    held = {"weights": str(tmp_path / "run" / "export"), "learning_rate": 0.0}
    fit("drawn", "still", max_steps=1, model=held)
    other = multidiff.load(tmp_path / "still" / "export")
    assert differences(dict(other.network.state_dict()), dict(begun.network.state_dict())) == []
    assert other.config == begun.config
    fit("drawn", "on", max_steps=2, model={"weights": held["weights"]}, data={"two_digits": 1.0})
    moved = multidiff.load(tmp_path / "on" / "export")
    assert differences(dict(moved.network.state_dict()), dict(begun.network.state_dict()))
    assert moved.pixels == begun.pixels  # whatever the brightness of these clips is
    # A vocabulary of its own is what the weights know; other words are left out.
    films(captions=[("a 3 flying left",)] * 16).save(tmp_path / "flying")
    fit(tmp_path / "flying", "other", max_steps=1, model={"weights": held["weights"]})
    assert multidiff.load(tmp_path / "other" / "export").vocabulary == begun.vocabulary


@pytest.mark.parametrize(
    ("model", "data", "says"),
    [
        ({"network": {**NETWORK, "width": 36}}, "drawn", "its network has width 24, and the one to be trained 36"),
        ({}, "colour", "its network has channels 1, and the one to be trained 3"),
        ({"weights": "absent"}, "drawn", "no checkpoint named 'absent'|unknown checkpoint 'absent'"),
    ],
    ids=["width", "channels", "absent"],
)
def test_weights_that_do_not_fit(fit: Fit, tmp_path: Path, model: dict[str, Any], data: str, says: str) -> None:
    fit(max_steps=1)
    if data == "colour":
        films(channels=3).save(tmp_path / data)
        data = str(tmp_path / data)
    with pytest.raises(InputError, match=says) as caught:
        fit(data, "other", model={"weights": str(tmp_path / "run" / "export"), **model})
    assert "\n" not in str(caught.value)


def test_grounding_is_for_training_alone(fit: Fit, tmp_path: Path) -> None:
    """It changes what is learned, its heads are trained, and nothing of them is in the checkpoint for use."""
    plain = fit(name="plain", max_steps=3).lightning_module
    module = fit(max_steps=3, model={"grounding": 1.0}).lightning_module
    assert {"train/which", "train/motion", "train/where"} <= set(module.trainer.logged_metrics)
    assert all(bool(head.weight.any()) for head in module.grounding.heads.values())
    pipes = [multidiff.load(tmp_path / name / "export") for name in ("plain", "run")]
    one, other = (dict(pipe.network.state_dict()) for pipe in pipes)
    assert one.keys() == other.keys()
    assert differences(one, other)
    assert not plain.trainer.logged_metrics.keys() & {"train/which", "train/motion", "train/where"}


@pytest.mark.parametrize("model", [{"grounding": 1.0}, {"reading": 5}], ids=str)
def test_what_needs_the_truth_is_for_moving_digits(fit: Fit, data_path: Path, model: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="are for moving digits") as caught:
        fit(data_path, model=model)
    assert "\n" not in str(caught.value)


# ----------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"split": [1] * 16}, r"has no clip in split 0 \(train\)"),
        ({"split": [0] * 3 + [1] * 13}, "batch size 4 is larger"),
    ],
)
def test_data_that_does_not_do(fit: Fit, tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    films(**changed).save(tmp_path / "bad")
    with pytest.raises(InputError, match=says) as caught:
        fit(tmp_path / "bad")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("split", [1, 2])
def test_a_split_that_is_asked_for_must_be_there(tmp_path: Path, split: int) -> None:
    films(split=[0] * 16).save(tmp_path / "train")
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
    run = trainer.validate if split == 1 else trainer.test
    with pytest.raises(InputError, match=rf"has no clip in split {split} \(0 train, 1 validation, 2 test\)"):
        run(VideoModule(NETWORK), VideoData(str(tmp_path / "train"), batch_size=4, frames=FRAMES))


def test_frames_that_do_not_suit_the_network(fit: Fit, tmp_path: Path) -> None:
    says = "frames of 18 x 18 pixels do not suit this network: sides must be multiples of 4"
    with pytest.raises(InputError, match=says) as caught:
        fit(data={"size": 18})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "shares", [{"first": 0.5, "some": 0.4, "ends": 0.2}, {"pictures": 1.5}, {"ends": -0.1}], ids=str
)
def test_shares_that_are_none(shares: dict[str, float]) -> None:
    with pytest.raises(InputError, match="are shares"):
        VideoModule(NETWORK, **shares)


# --------------------------------------------------------------------------------------------------- the command line


def options(data: Path | str, run: Path, *more: str) -> list[str]:
    """What makes a recipe tiny."""
    return [
        "--model.network", json.dumps(NETWORK), "--model.warmup_steps", "2", "--trainer.max_steps", "2",
        "--trainer.log_every_n_steps", "1", "--trainer.val_check_interval", "2", "--trainer.limit_val_batches", "1",
        "--trainer.enable_progress_bar=false", "--trainer.precision", "32-true", "--data.size", str(SIZE),
        "--trainer.default_root_dir", str(run), "--data.path", str(data), "--data.batch_size", "4",
        "--data.frames", str(FRAMES), *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def trained(data_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """Options of a tiny run without a logger, and its checkpoint."""
    run = tmp_path_factory.mktemp("trained")
    args = with_recipes(["--config", "video-digits", *options(data_path, run, "--trainer.logger", "false")])
    assert cli.run("fit", args) == 0
    return args, run / "checkpoints" / "last.ckpt"


@pytest.mark.parametrize("recipe", domain.recipes())
def test_recipe_trains_exports_and_reloads(recipe: str, data_path: Path, tmp_path: Path) -> None:
    args = with_recipes(["--config", recipe, *options(data_path, tmp_path, "--pictures.every_n_steps", "2")])
    assert cli.run("fit", args) == 0
    run = tmp_path / "lightning_logs" / "version_0"
    pipe = multidiff.load(run / "export")
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    for name, weight in averaged(saved["state_dict"]).items():
        assert torch.equal(weight, pipe.denoiser.network.state_dict()[name]), name
    assert len(pipe("a 3 moving left", seed=0, num_inference_steps=5).frames[0]) == FRAMES


@pytest.mark.parametrize("recipe", domain.recipes())
def test_recipes_are_of_networks_that_can_be_built_and_shipped(recipe: str) -> None:
    """At most 16 MB in half precision."""
    import yaml

    model = yaml.safe_load(domain.recipes()[recipe].read_text())["model"]["init_args"]
    with torch.device("meta"):
        module = VideoModule(**model)
    assert 2 * sum(weight.numel() for weight in module.denoiser.network.parameters()) < 16e6


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_other_commands(command: str, trained: Any, capsys: pytest.CaptureFixture[str]) -> None:
    args, checkpoint = trained
    assert cli.run(command, [*args, "--ckpt_path", str(checkpoint), "--data.num_samples", "5"]) == 0
    said = capsys.readouterr().out
    if command == "predict":
        assert "5 clips are in" in said
        folder = checkpoint.parents[1] / "predictions"
        names = [f"video-{i:05d}.mp4" for i in range(5)]
        assert sorted(p.name for p in folder.iterdir()) == [*names, "video.png"]
    else:
        assert f"{command[:3] if command == 'validate' else command}/loss" in said


WRONG = [
    (["--model.network", '{"class": "VideoUNt"}'], "did you mean 'VideoUNet'"),
    (["--model.network", '{"class": "VideoUNet", "widht": 3}'], "widht"),
    (["--model.network", '{"patch": 4}'], "'class' is missing"),
    (["--model.network", '{"class": "VideoUNet", "heads": 7}'], "six times its heads 7"),
    (["--model.network", '{"class": "VideoUNet", "patch": 16}'], "sides must be multiples of 64"),
    (["--model.times", "unifrm"], "did you mean 'uniform'?"),
    (["--model.shift", "0"], "shift"),
    (["--model.pictures", "2"], "are shares"),
    (["--model.reading", "-1"], "model.reading -1"),
    (["--model.grounding", "-0.5"], "model.grounding -0.5"),
    (["--model.weights", "absent"], "absent"),
    (["--model.weights", "audio-sfx"], "audio"),
    (["--model.text_longst", "3"], "did you mean 'model.text_longest'"),
    (["--data.path", "absent"], "absent"),
    (["--data.path", "absent.npz"], "no file absent.npz"),
    (["--data.batch_size", "1000"], "batch size 1000 is larger"),
    (["--data.batch_size", "0"], "batch size 0 is not allowed"),
    (["--data.frames", "0"], "data.frames 0"),
    (["--data.size", "0"], "data.size 0"),
    (["--data.num_workers", "-1"], "data.num_workers -1"),
    (["--data.path", "drawn", "--data.size", "12"], "a field of 16 pixels or more, not 12"),
    (["--data.path", "drawn", "--data.size", "18"], "sides must be multiples of 4"),
    (["--ckpt_path", "absent.ckpt"], "--ckpt_path: no file absent.ckpt"),
]


@pytest.mark.parametrize(("wrong", "line"), WRONG, ids=[" ".join(w[0])[:60] for w in WRONG])
def test_wrong_options_are_one_line(
    wrong: list[str], line: str, data_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["--config", "video-digits", *options(data_path, tmp_path, "--trainer.logger", "false")]
    assert main(["fit", *base, *wrong]) == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1


# ------------------------------------------------------------------------------------------------------ does it learn


@pytest.mark.slow
def test_one_clip_is_learned_by_heart(fit: Fit, tmp_path: Path) -> None:
    """The loss falls, and what is made of its caption is the clip."""
    scenes = MovingDigits(drawn_glyphs(), SIZE)
    held = scenes.render(scenes.scene(np.random.default_rng(0), [(3, "left")]), FRAMES)
    PackedVideos.pack([held] * 8, RATE, [("a 3 moving left",)] * 8).save(tmp_path / "one")
    network = {**NETWORK, "widths": [16], "width": 48, "layers": 2}
    seen = Seen()
    fit(
        tmp_path / "one", callbacks=(seen,), max_steps=600, limit_val_batches=0, data={"batch_size": 8},
        model={"network": network, "learning_rate": 3e-3, "pictures": 0.0, "forcing": 0.0, "ema_decay": 0.98},
    )  # fmt: skip
    assert np.mean(seen.losses[-50:]) < 0.2 * np.mean(seen.losses[:20])
    made = multidiff.load(tmp_path / "run" / "export")("a 3 moving left", 2, seed=0, guidance_scale=1.0).frames
    spread = np.abs(held.astype(float) - held.mean()).mean()
    for clip in made:
        assert np.abs(clip.astype(float) - held).mean() < 0.2 * spread
