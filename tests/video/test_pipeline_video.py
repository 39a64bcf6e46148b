"""The pipeline's contract: a clip depends on seed and number alone, is as long as asked, keeps what it is given."""

from __future__ import annotations

import itertools
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import multidiff
from multidiff.errors import InputError
from multidiff.pipeline import SettingWarning
from multidiff.testing.domain import check_domain
from multidiff_video import domain, memory
from multidiff_video.generated import VideoOutput
from multidiff_video.job import make_job
from multidiff_video.pipeline import windows

WINDOW, SIZE = 8, 16
LEFT, UP = "a 3 moving left", "a 7 moving up"


def clips(pipe: Any, *args: Any, **call: Any) -> dict[int, np.ndarray]:
    """Each sample as generated."""
    out = pipe(*args, **{"seed": 3, **call})
    return dict(zip(out.indices, out.frames, strict=True))


def same(a: np.ndarray, b: np.ndarray) -> bool:
    """Up to rounding, which may fall to either side."""
    return a.shape == b.shape and int(np.abs(a.astype(int) - b).max()) <= 1 and float((a != b).mean()) < 1e-2


def said(pipe: Any, **call: Any) -> list[str]:
    """What is warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_job(pipe, call)
    assert all(issubclass(warning.category, SettingWarning) for warning in caught)
    assert not any("\n" in str(warning.message) for warning in caught)
    return [str(warning.message) for warning in caught]


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch, pipe: Any) -> Any:
    """The pipeline with a network that must not be called."""

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was called before all arguments were checked")

    monkeypatch.setattr(pipe.denoiser.network, "forward", never)
    return pipe


# ------------------------------------------------------------------------------------------ seeds, batches, lengths


@pytest.mark.filterwarnings("ignore::multidiff.pipeline.SettingWarning")
def test_clips_keep_the_promises_of_a_domain(tiny: Path) -> None:
    """Those of the checkpoints that ship, too."""
    told = check_domain(domain, [tiny], {"prompt": LEFT, "frames": 3})
    assert "tiny: seeds and batches" in told
    assert "entry point" in told


def test_a_clip_is_the_same_in_any_batch_and_order(pipe: Any) -> None:
    whole = clips(pipe, [LEFT, UP], num_samples=5)
    single = clips(pipe, [LEFT, UP], num_samples=5, batch_size=1)
    some = clips(pipe, [LEFT, UP], num_samples=2, indices=[4, 1])
    assert all(same(single[i], whole[i]) for i in whole)
    assert all(same(some[i], whole[i]) for i in (4, 1))
    assert not same(whole[0], whole[2])


def test_stochastic_solvers_draw_a_stream_a_sample(pipe: Any) -> None:
    call = {"num_samples": 3, "solver": "ddpm", "num_inference_steps": 3, "frames": 11}
    whole, single = clips(pipe, LEFT, **call), clips(pipe, LEFT, **call, batch_size=1)
    assert all(same(single[i], whole[i]) for i in whole)


@pytest.mark.parametrize("frames", [1, 2, 7, 8, 9, 21])
def test_exactly_as_long_as_asked(pipe: Any, frames: int) -> None:
    out = pipe(LEFT, 2, seed=0, frames=frames, num_inference_steps=2)
    for clip in out.frames:
        assert clip.shape == (frames, SIZE, SIZE, 1)
        assert clip.dtype == np.uint8
    assert out.network_calls == 2 * len(windows(frames, WINDOW, 4))


@pytest.mark.filterwarnings("ignore::multidiff.pipeline.SettingWarning")  # it looks like noise
def test_a_picture(pipe: Any, tmp_path: Path) -> None:
    pipe(LEFT, seed=0, frames=1).save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["video-00000.png", "video.png"]


def test_prompts_frames_and_negatives_in_turn(pipe: Any) -> None:
    out = pipe([LEFT, UP, "a 1 going up"], num_samples=7, seed=3, frames=[4, None, 9], negative_prompt=[UP, None, None])
    assert list(out.prompts) == [LEFT, UP, "a 1 going up", LEFT, UP, "a 1 going up", LEFT]
    assert [len(clip) for clip in out.frames] == [4, 8, 9, 4, 8, 9, 4]
    assert out.indices == list(range(7))
    alone = clips(pipe, UP, num_samples=1, indices=[4])
    assert same(alone[4], out.frames[4])
    assert not same(clips(pipe, LEFT, num_samples=1, indices=[3], frames=4)[3], out.frames[3])  # which moves away
    assert len(pipe([LEFT, UP], seed=3, frames=1)) == 2
    assert len(pipe(seed=3, frames=1)) == 1


def test_batches_are_what_a_call_makes(pipe: Any) -> None:
    call: dict[str, Any] = {"prompt": [LEFT, UP], "frames": [3, 5]}
    batches = pipe.batches(10, 4, 4, **call)
    assert sorted(i for batch in batches for i in batch) == list(range(10))
    assert all(len({i % 2 for i in batch}) == 1 for batch in batches)  # of one length
    assert max(map(len, batches)) <= 4
    whole = clips(pipe, num_samples=10, seed=4, batch_size=4, **call)
    part = clips(pipe, num_samples=len(batches[1]), seed=4, indices=batches[1], batch_size=4, **call)
    assert all(np.array_equal(part[i], whole[i]) for i in batches[1])  # to the bit


def test_fewer_samples_than_prompts_are_said(pipe: Any) -> None:
    with pytest.warns(SettingWarning, match="2 samples for 3 prompts: the last prompts are not used"):
        pipe.batches(2, 0, prompt=[LEFT, UP, LEFT])


def test_generators(pipe: Any) -> None:
    def streams(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    call: dict[str, Any] = {"seed": None, "frames": 3}
    both = clips(pipe, LEFT, num_samples=2, generator=streams(1, 2), **call)
    assert same(clips(pipe, LEFT, num_samples=1, generator=streams(2), **call)[0], both[1])
    assert not same(both[0], both[1])
    drawn = [clips(pipe, LEFT, num_samples=3, generator=streams(1)[0], **call) for _ in range(2)]
    assert all(same(drawn[0][i], drawn[1][i]) for i in range(3))
    assert "seed" not in pipe(LEFT, generator=streams(1)[0], frames=1).recipe
    with pytest.raises(InputError, match="seed or generator"):
        pipe(LEFT, generator=streams(1), seed=0)
    with pytest.raises(InputError, match="a list of 2 for 1 samples"):
        pipe(LEFT, generator=streams(1, 2))


def test_hidden_random_state_is_neither_read_nor_moved(pipe: Any) -> None:
    torch.manual_seed(1)
    first = clips(pipe, LEFT, num_samples=2, frames=3)
    before = torch.get_rng_state()
    second = clips(pipe, LEFT, num_samples=2, frames=3)
    assert all(np.array_equal(first[i], second[i]) for i in first)
    assert torch.equal(before, torch.get_rng_state())


def test_without_a_seed_one_is_drawn_and_kept(pipe: Any) -> None:
    first, second = (pipe(LEFT, frames=3) for _ in range(2))
    assert first.recipe["seed"] != second.recipe["seed"]
    assert np.array_equal(pipe(LEFT, frames=3, seed=first.recipe["seed"]).frames[0], first.frames[0])


# --------------------------------------------------------------------------------------------------- what counts


def test_each_condition_counts(pipe: Any) -> None:
    plain = clips(pipe, "a 3 bouncing left and right")[0]
    for other in (
        clips(pipe, "a 3 bouncing right and left"),  # the order of words
        clips(pipe, "a 7 bouncing left and right"),
        clips(pipe),
        clips(pipe, "a 3 bouncing left and right", negative_prompt=UP),
        clips(pipe, "a 3 bouncing left and right", guidance_scale=3.0),
        clips(pipe, "a 3 bouncing left and right", guidance_scale=1.0),
        clips(pipe, "a 3 bouncing left and right", solver="ddim"),
        clips(pipe, "a 3 bouncing left and right", grid="karras"),
    ):
        assert not same(other[0], plain)
    for equal in (
        clips(pipe, "  A 3: bouncing LEFT, and right!"),
        clips(pipe, "a 3 bouncing left and right", negative_prompt=""),
        clips(pipe, "a 3 bouncing left and right", guidance_scale=2, solver="unipc2", num_inference_steps=3),
        clips(pipe, "a 3 bouncing left and right", frames=WINDOW, size=SIZE, context=2, fps=20, scale=2),
    ):
        assert same(equal[0], plain)


def test_nothing_and_an_empty_prompt_are_the_same(pipe: Any) -> None:
    made = [clips(pipe, prompt, frames=3, guidance_scale=4.0)[0] for prompt in (None, "", "  ")]
    assert same(made[1], made[0])
    assert same(made[2], made[0])
    # What is moved away from is the same as what is asked for: guidance changes nothing.
    assert same(clips(pipe, "", frames=3, guidance_scale=1.0)[0], made[0])


def test_guidance_acts_at_the_recommended_noise_levels_alone(make_tiny: Any) -> None:
    known = make_tiny().config["recommended"]

    def made(**more: Any) -> np.ndarray:
        pipe = make_tiny(recommended={**known, **more})
        return np.asarray(pipe([LEFT], seed=0, frames=3, output_type="np")[0])

    everywhere, nowhere = made(), made(guidance_scale=1.0)
    assert (everywhere != nowhere).any()
    assert (made(guidance_above=0.0) == everywhere).all()
    assert (made(guidance_above=1e9) == nowhere).all()
    between = made(guidance_above=10.0)
    assert (between != everywhere).any()
    assert (between != nowhere).any()


def test_without_guidance_the_network_is_asked_once(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[int] = []
    real = pipe.denoiser.network.forward

    def watch(x: Any, *rest: Any, **more: Any) -> Any:
        rows.append(len(x))
        return real(x, *rest, **more)

    monkeypatch.setattr(pipe.denoiser.network, "forward", watch)
    pipe(LEFT, 2, seed=0, guidance_scale=1.0, frames=3)
    assert rows == [2] * 3
    rows.clear()
    assert pipe(LEFT, 2, seed=0, frames=3).network_calls == 3
    assert rows == [4] * 3


# ------------------------------------------------------------------------------------------- frames that are given


def test_given_frames_come_out_to_the_bit(pipe: Any, clip: np.ndarray, picture: np.ndarray) -> None:
    out = pipe(LEFT, 2, seed=0, frames=11, init=clip, context=3, keyframes=[(picture, -1), (clip[0], 5)])
    for made in out.frames:
        assert np.array_equal(made[:3], clip[-3:])
        assert np.array_equal(made[10, ..., 0], picture)
        assert np.array_equal(made[5], clip[0])
    assert not same(out.frames[0][3:5], out.frames[1][3:5])
    assert out.recipe["context"] == 3


def test_files_come_out_to_the_bit(pipe: Any, clip: np.ndarray, picture_file: Path, frames_folder: Path) -> None:
    (made,) = clips(pipe, LEFT, init=frames_folder, keyframes=[(str(picture_file), 7)]).values()
    assert np.array_equal(made[:4], clip[-4:])  # half a window
    assert np.array_equal(made[7], clip[5])


def test_what_is_given_counts_for_what_is_made(pipe: Any, clip: np.ndarray) -> None:
    from_one, from_other, free = (clips(pipe, LEFT, **call)[0] for call in ({"init": clip[0]}, {"init": clip[9]}, {}))
    assert not same(from_one[1:], from_other[1:])
    assert not same(from_one[1:], free[1:])


def test_given_frames_alone_and_in_a_batch(pipe: Any, clip: np.ndarray) -> None:
    call: dict[str, Any] = {"init": clip, "keyframes": [(clip[2], 9)], "num_samples": 3, "frames": 12}
    whole, single = clips(pipe, [LEFT, UP], **call), clips(pipe, [LEFT, UP], **call, batch_size=1)
    assert all(same(single[i], whole[i]) for i in whole)


def test_in_colour(make_tiny: Any, clip: np.ndarray) -> None:
    pipe = make_tiny(pixels={"channels": 3})
    made = clips(pipe, LEFT, init=clip, context=2)[0]
    assert made.shape == (WINDOW, SIZE, SIZE, 3)
    assert np.array_equal(made[:2], clip[-2:].repeat(3, -1))
    assert not np.array_equal(made[2:, ..., 0], made[2:, ..., 1])


@pytest.mark.filterwarnings("ignore::multidiff.pipeline.SettingWarning")
def test_another_size(pipe: Any, clip: np.ndarray) -> None:
    assert clips(pipe, LEFT, size=24, frames=2)[0].shape == (2, 24, 24, 1)
    made = clips(pipe, LEFT, size=(8, 24), frames=3, init=clip, context=2)[0]
    assert made.shape == (3, 8, 24, 1)


# -------------------------------------------------------------------------------------------------- longer clips


@pytest.mark.parametrize("context", [1, 3, 4, 7])
def test_windows_cover_every_frame_and_begin_with_what_is_made(context: int) -> None:
    for total in range(1, 60):
        starts = windows(total, WINDOW, context)
        covered = [range(first, min(first + WINDOW, total)) for first in starts]
        assert set().union(*covered) == set(range(total))
        assert starts[0] == 0
        for before, after in itertools.pairwise(covered):
            assert after.stop > before.stop  # something is made
            assert before.stop - after.start >= context  # which goes on from so much
            assert len(after) == WINDOW
    assert windows(40, 16, 8) == [0, 8, 16, 24]


def test_a_window_begins_with_the_end_of_the_one_before(pipe: Any) -> None:
    """What each window gave stands in the clip, and what the next one was given is what it keeps."""
    seen: list[torch.Tensor] = []

    def look(p: Any, step: int, t: float, kwargs: dict[str, Any]) -> dict[str, Any]:
        if step == 2:
            seen.append(kwargs["latents"].clone())
        return {}

    out = pipe(LEFT, 2, seed=0, frames=20, context=3, callback_on_step_end=look)
    starts = windows(20, WINDOW, 3)
    assert len(seen) == len(starts)
    for sample in range(2):
        for first, made in zip(starts, seen, strict=True):
            assert np.array_equal(pipe.pixels.decode(made[sample]), out.frames[sample][first : first + WINDOW])


def test_the_first_window_of_a_longer_clip_is_the_clip(pipe: Any) -> None:
    short, long = clips(pipe, LEFT)[0], clips(pipe, LEFT, frames=14)[0]
    assert np.array_equal(long[:WINDOW], short)


def test_context_counts(pipe: Any) -> None:
    one, other = (clips(pipe, LEFT, frames=20, context=context)[0] for context in (2, 6))
    assert np.array_equal(one[:WINDOW], other[:WINDOW])
    assert not same(one[WINDOW:], other[WINDOW:])


# ----------------------------------------------------------------------------------------------------------- recipes


def again(pipe: Any, recipe: dict[str, Any], **more: Any) -> Any:
    """A call made of what a recipe says and nothing else."""
    call = {name: value for name, value in recipe.items() if name not in ("checkpoint", "sha256", "init_sha256")}
    if "keyframes" in call:
        call["keyframes"] = [(source, place) for source, place, _ in call["keyframes"]]
    return pipe(**call, **more)


RECIPES: list[dict[str, Any]] = [
    {},
    {"frames": 3, "negative_prompt": UP, "guidance_scale": 3.0},
    {"solver": "ddim", "solver_options": {"eta": 0.5}, "grid": "karras", "num_inference_steps": 4},
    {"frames": [12, None], "context": 2},
    {"size": (8, 16), "frames": np.int64(2)},
    {"init": "FOLDER", "context": 2},
    {"init": "PICTURE", "keyframes": [("PICTURE", np.int64(-1))]},
    {"format": "gif", "scale": 3, "fps": 20, "frames": 2},
]


@pytest.mark.filterwarnings("ignore::multidiff.pipeline.SettingWarning")
@pytest.mark.parametrize("call", RECIPES, ids=[", ".join(call) or "plain" for call in RECIPES])
def test_a_recipe_is_plain_and_enough_to_make_the_same_again(
    pipe: Any, picture_file: Path, frames_folder: Path, call: dict[str, Any]
) -> None:
    files = {"FOLDER": frames_folder, "PICTURE": picture_file}
    call = {name: files.get(value, value) if isinstance(value, str) else value for name, value in call.items()}
    if "keyframes" in call:
        call["keyframes"] = [(files[name], place) for name, place in call["keyframes"]]
    out = pipe([LEFT, UP], seed=5, **call)
    recipe = json.loads(json.dumps(out.recipe))
    assert recipe == out.recipe
    made = again(pipe, recipe)
    assert made.recipe == recipe
    assert made.fps == out.fps
    assert [a.tobytes() for a in made.frames] == [a.tobytes() for a in out.frames]
    assert recipe == {**pipe.recipe(5, prompt=[LEFT, UP], **call)}
    assert set(call) <= set(recipe)


# --------------------------------------------------------------------------------------------------- on the way


def test_callback_sees_each_step_of_each_window_and_may_change_the_state(pipe: Any) -> None:
    seen: list[tuple[int, float]] = []

    def look(p: Any, step: int, t: float, kwargs: dict[str, Any]) -> dict[str, Any]:
        assert p is pipe
        assert kwargs["estimate"].shape == kwargs["latents"].shape == (1, WINDOW, 1, SIZE, SIZE)
        seen.append((step, t))
        return {"latents": torch.full_like(kwargs["latents"], 100.0)} if step == 2 else {}

    out = pipe(LEFT, seed=0, frames=12, callback_on_step_end=look)
    assert [step for step, _ in seen] == [0, 1, 2, 0, 1, 2]
    assert seen[:3] == seen[3:]
    assert sorted((t for _, t in seen[:3]), reverse=True) == [t for _, t in seen[:3]]
    assert out.network_calls == 6
    assert (out.frames[0] == 255).all()


@pytest.mark.parametrize(("at", "frames"), [(1, 8), (5, 12)])
def test_interrupt_ends_with_what_there_is(pipe: Any, at: int, frames: int) -> None:
    calls = 0

    def stop(p: Any, step: int, t: float, kwargs: dict[str, Any]) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        p.interrupt = calls == at
        return {}

    out = pipe(LEFT, 4, seed=0, batch_size=2, frames=20, callback_on_step_end=stop)
    assert len(out) == len(out.prompts) == len(out.indices) == 2
    assert [len(clip) for clip in out.frames] == [frames] * 2
    assert len(pipe(LEFT, 4, seed=0, batch_size=2, frames=1)) == 4


@pytest.mark.parametrize(("at", "frames"), [(1, 3), (1, 20), (4, 20), (8, 20)])
def test_a_sample_that_is_not_finite_is_marked_and_the_others_stay(pipe: Any, at: int, frames: int) -> None:
    """In whichever window it happens."""
    calls = 0

    def poison(p: Any, step: int, t: float, kwargs: dict[str, Any]) -> dict[str, Any]:
        nonlocal calls
        calls += 1
        if calls != at + 1:
            return {}
        poisoned = kwargs["latents"].clone()
        poisoned[-1, -1, 0, 0, 0] = float("nan")
        return {"latents": poisoned}

    call: dict[str, Any] = {"num_samples": 3, "seed": 0, "frames": frames}
    out, clean = pipe(LEFT, **call, callback_on_step_end=poison), pipe(LEFT, **call)
    assert out.failed == {2: at % 3}
    assert out.frames[2].shape == clean.frames[2].shape
    assert all(np.array_equal(out.frames[i], clean.frames[i]) for i in (0, 1))


@pytest.mark.filterwarnings("ignore::multidiff.pipeline.SettingWarning")
def test_what_is_not_finite_is_no_file(pipe: Any, tmp_path: Path) -> None:
    def poison(p: Any, step: int, t: float, kwargs: dict[str, Any]) -> dict[str, Any]:
        return {"latents": kwargs["latents"] * float("nan")}

    records: list[dict[str, Any]] = []
    counts = pipe(LEFT, seed=0, frames=1, callback_on_step_end=poison).save(tmp_path, records)
    assert [path.name for path in tmp_path.iterdir()] == ["video.png"]
    assert counts["written"] == 0
    assert records[0]["not_finite_at_step"] == 0


def test_memory_that_runs_out_halves_the_batch(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = clips(pipe, LEFT, num_samples=8, frames=3)
    real, tried = pipe.denoiser.network.forward, []

    def scarce(x: Any, *rest: Any, **more: Any) -> Any:
        tried.append(len(x))
        if len(x) > 4:  # two samples, each with and without its prompt
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(x, *rest, **more)

    monkeypatch.setattr(pipe.denoiser.network, "forward", scarce)
    halved = clips(pipe, LEFT, num_samples=8, frames=3)
    assert list(dict.fromkeys(tried)) == [16, 8, 4]
    assert all(same(halved[i], whole[i]) for i in whole)


def test_a_batch_is_no_larger_than_memory_suffices_for(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that asks for more than there is of a CPU's memory is ended without a word."""
    whole = clips(pipe, LEFT, num_samples=7, frames=3)
    needed = memory.needed_bytes(pipe, 3, (SIZE, SIZE), 2)
    real, tried = pipe.denoiser.network.forward, []

    def watch(x: Any, *rest: Any, **more: Any) -> Any:
        tried.append(len(x))
        return real(x, *rest, **more)

    monkeypatch.setattr(pipe.denoiser.network, "forward", watch)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 4 * needed)
    parts = clips(pipe, LEFT, num_samples=7, frames=3)
    assert max(tried) == 6  # three samples with and without their prompt: four fifths of four
    assert all(same(parts[i], whole[i]) for i in whole)


# ------------------------------------------------------------------------------------------------------ what is said


def test_nothing_has_to_be_said(pipe: Any, picture_file: Path) -> None:
    assert said(pipe, prompt=LEFT, frames=64, init=picture_file) == []


def test_words_that_are_not_known_are_named(pipe: Any) -> None:
    assert said(pipe, prompt="a wolf") == ["the checkpoint never saw 'wolf', which is left out of the prompt"]
    assert "'howls'" in said(pipe, prompt=LEFT, negative_prompt="howls")[0]
    assert said(pipe, prompt="a 3 moving left and " * 5)[0].startswith("a prompt has more than the 20 words")


def test_what_the_checkpoint_was_not_made_for_is_said(pipe: Any, clip: np.ndarray) -> None:
    assert said(pipe, size=(16, 24)) == ["16 x 24 pixels: tiny was trained on 16 x 16"]
    assert said(pipe, guidance_scale=9) == ["guidance scale 9: tiny is recommended with 1 to 8"]
    assert said(pipe, num_inference_steps=1) == ["1 steps: tiny is recommended with 2 to 50"]
    assert said(pipe, guidance_scale=1, negative_prompt=UP)[0].startswith("a negative prompt has no effect")


def test_how_what_is_given_was_changed_is_said(pipe: Any, clip: np.ndarray) -> None:
    colour = np.zeros((16, 16, 3), np.uint8)
    colour[..., 0] = 200
    assert said(pipe, init=colour) == ["init is in colour; it was made gray"]
    assert said(pipe, init=clip[:, :8]) == ["init has 8 x 16 pixels; its middle was brought to 16 x 16"]


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.filterwarnings("ignore::multidiff.pipeline.SettingWarning")
@pytest.mark.parametrize(
    ("call", "says"),
    [
        ({"num_samples": 0}, "num_samples 0"),
        ({"num_samples": True}, "num_samples True"),
        ({"num_inference_steps": 0}, "steps must be"),
        ({"solver": "dmp++2m"}, r"did you mean 'dpm\+\+2m'"),
        ({"grid": "karas"}, "did you mean 'karras'"),
        ({"solver_options": {"etta": 1}}, "etta|option"),
        ({"seed": -1}, "seed -1"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"indices": [1, 2]}, "indices: 2 of them for 1 samples"),
        ({"guidance_scale": float("nan")}, "guidance_scale nan"),
        ({"guidance_scale": -1.0}, "guidance_scale -1.0"),
        ({"output_type": "vidéo"}, "did you mean 'video'"),
        ({"format": "mov"}, "format"),
        ({"scale": 0}, "scale 0"),
        ({"scale": 1.5}, "scale 1.5"),
        ({"fps": 0}, "fps 0 is not allowed"),
        ({"fps": "10"}, "fps '10' is not allowed"),
        ({"fps": float("nan")}, "fps nan is not allowed"),
        ({"fps": 100, "format": "gif"}, "GIF|gif"),
        ({"frames": 0}, "frames 0 is not allowed"),
        ({"frames": 2.5}, "frames"),
        ({"frames": [3, 4, 5], "prompt": [LEFT, UP]}, "2 of them for 3 prompts"),
        ({"frames": 10**9}, "a clip of 1000000000 frames of 16 x 16 pixels needs about"),
        ({"size": 12}, "size 12 x 12 is not allowed: multiples of 8"),
        ({"size": 0}, "size 0"),
        ({"size": (16, 20)}, "size 16 x 20"),
        ({"size": 4104}, "at most 4096"),
        ({"size": (16, 16, 16)}, "size"),
        ({"size": 16.5}, "size 16.5"),
        ({"size": (16.5, 16)}, "size"),
        ({"size": "16"}, "size '16'"),
        ({"size": True}, "size True"),
        ({"context": 0}, "context 0"),
        ({"context": 8}, "context 8 is not allowed: fewer than the 8 frames of a window"),
        ({"context": 2.0}, "context 2.0"),
        ({"init": "CLIP", "frames": 4}, "all 4 frames are given"),
        ({"init": "CLIP", "frames": 3}, "a frame is given at 3, and the clip has 3"),
        ({"init": "PICTURE", "frames": 1}, "all 1 frames are given"),
        ({"keyframes": [("PICTURE", 8)]}, "a frame is given at 8, and the clip has 8"),
        ({"keyframes": [("PICTURE", 1), ("PICTURE", -7)]}, "two frames are given at 1"),
        ({"keyframes": [("PICTURE", 0)], "init": "PICTURE"}, "frame 0 is given twice"),
        ({"keyframes": [("PICTURE", 9)], "prompt": [LEFT, UP], "frames": [12, 8]}, "at 9, and the clip has 8"),
        ({"init": "/no/such.png"}, "no file /no/such.png"),
        ({"promt": LEFT}, "promt"),
        ({"prompt": "x" * 10_001}, "a prompt of 10001 characters is too long"),
        ({"prompt": 3}, "prompt"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_bad_arguments(idle: Any, clip: np.ndarray, picture: np.ndarray, call: dict[str, Any], says: str) -> None:
    def put(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(map(put, value))
        return {"CLIP": clip, "PICTURE": picture}.get(value, value) if isinstance(value, str) else value

    call = {name: put(value) for name, value in call.items()}
    if "promt" in call:
        with pytest.raises(InputError, match="unknown argument 'promt'; did you mean 'prompt'"):
            make_job(idle, call)
        return
    with pytest.raises(InputError, match=says) as caught:
        idle(**{"prompt": LEFT, "seed": 0, **({} if "indices" not in call else {"num_samples": 1}), **call})
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.filterwarnings("ignore::multidiff.pipeline.SettingWarning")
def test_more_than_memory_holds_is_refused_before_the_work(idle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    held = memory.needed_bytes(idle, 100, (SIZE, SIZE), 2)
    monkeypatch.setattr(memory, "free_bytes", lambda device: held)
    make_job(idle, {"frames": 100})
    for more in ({"frames": 101}, {"frames": 100, "size": (16, 24)}, {"prompt": [LEFT, UP], "frames": [1, 101]}):
        with pytest.raises(InputError, match=r"needs about 0\.0 GiB, and 0\.0 GiB are free on cpu; ask for fewer"):
            make_job(idle, more)
    make_job(idle, {"frames": 101, "guidance_scale": 1.0})  # which takes half as much


def test_free_memory_is_a_number_of_bytes() -> None:
    assert 2**20 < memory.free_bytes(torch.device("cpu")) < 2**62


GROUPS = {
    "memory": ("max", "current", "inactive_file"),
    "memory/memory": ("limit_in_bytes", "usage_in_bytes", "total_inactive_file"),
}


@pytest.mark.parametrize("version", GROUPS)
def test_of_a_container_what_its_limit_leaves_is_free(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_GROUPS", tmp_path)
    cpu = torch.device("cpu")
    machine = memory.free_bytes(cpu)
    (tmp_path / "memory").mkdir()
    limit, used, cached = GROUPS[version]

    def write(name: str, text: str) -> None:
        (tmp_path / f"{version}.{name}").write_text(text)

    write(limit, f"{2**30}\n")
    write(used, f"{3 * 2**28}\n")
    write("stat", f"anon 7\n{cached} {2**28}\n")
    assert memory.free_bytes(cpu) == 2**29
    write(used, f"{2**31}\n")
    assert memory.free_bytes(cpu) == 0  # over it, as may be for a moment
    write(limit, "max\n" if version == "memory" else f"{2**63 - 4096}\n")
    assert memory.free_bytes(cpu) == pytest.approx(machine, rel=0.2)


# --------------------------------------------------------------------------------------------------- loads and saves


def test_output_types_and_precision(pipe: Any) -> None:
    out = pipe(LEFT, 2, seed=0, frames=3)
    assert isinstance(out, VideoOutput)
    assert out.fps == 10.0
    assert pipe(LEFT, seed=0, frames=1, fps=25).fps == 25.0
    arrays = pipe(LEFT, 2, seed=0, frames=3, output_type="np")
    assert all(np.array_equal(a, b) for a, b in zip(arrays, out.frames, strict=True))
    half = pipe.to(dtype=torch.bfloat16)(LEFT, 2, seed=0, frames=3)
    assert half.recipe["dtype"] == "bfloat16"
    assert np.abs(half.frames[0].astype(int) - out.frames[0]).mean() < 10


def test_saves_and_loads(pipe: Any, tmp_path: Path) -> None:
    loaded = multidiff.load(pipe.save_pretrained(tmp_path / "again"))
    assert np.array_equal(clips(loaded, LEFT)[0], clips(pipe, LEFT)[0])
    assert loaded.card.startswith("# Tiny")


def broken(tiny: Path, folder: Path, changed: dict[str, Any]) -> Path:
    """A copy of the checkpoint with other keys in its configuration; None takes one out."""
    shutil.copytree(tiny, folder)
    held = json.loads((folder / "config.json").read_text())
    for name, value in changed.items():
        held[name] = {**held[name], **value} if isinstance(value, dict) else value
    (folder / "config.json").write_text(json.dumps({k: v for k, v in held.items() if v is not None}))
    return folder


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"pixels": None}, "the key 'pixels' is missing"),
        ({"pixels": {"channels": 2}}, "1 or 3 channels"),
        ({"pixels": {"channels": 3}}, "'network' has channels 1, and the rest asks for 3"),
        ({"pixels": {"height": "16"}}, "height|pixels"),
        ({"pixels": {"height": 20}}, "multiples of 8"),
        ({"pixels": {"height": 0}}, "pixel"),
        ({"pixels": {"deviation": 0.0}}, "deviation above 0"),
        ({"pixels": {"depth": 8}}, "depth"),
        ({"prediction": None}, "the key 'prediction' is missing"),
        ({"prediction": "w"}, "'w'"),
        ({"schedule": None}, "the key 'schedule' is missing"),
        ({"schedule": {"class": "Shift"}}, "did you mean 'Shifted'"),
        ({"schedule": {"shift": 0}}, "shift"),
        ({"frames": None}, "the key 'frames' is missing"),
        ({"frames": 0}, "'frames' must be from 1 to 4096"),
        ({"frames": "8"}, "'frames' must be"),
        ({"fps": None}, "the key 'fps' is missing"),
        ({"fps": 0}, "'fps' must be from 0.01 to 1000"),
        ({"fps": "ten"}, "'fps' must be"),
        ({"vocabulary": None}, "the key 'vocabulary' is missing"),
        ({"vocabulary": {"words": ["seven"]}}, "and the rest asks for 3"),
        ({"vocabulary": {"longest": 9}}, "text_longest 20, and the rest asks for 9"),
        ({"recommended": None}, "the key 'recommended' is missing"),
        ({"recommended": {"solver": 3}}, "'solver' must be a string"),
        ({"recommended": {"guidance_range": 4}}, "'guidance_range' must"),
        ({"recommended": {"guidance_above": [4]}}, "'guidance_above' must"),
        ({"recommended": {"guidance_above": -1}}, "'guidance_above' must"),
        ({"network": {"class": "VideoNetwork"}}, "unknown class"),
        ({"network": {"width": 24}}, "width|size|fit"),
        ({"network": {"heads": 0}}, "heads 0"),
        ({"network": {"heads": 5}}, "six times its heads 5"),
        ({"network": {"patch": 0}}, "a patch of 1 or more"),
        ({"network": {"widths": 8}}, "widths|network"),
        ({"network": {"widths": []}}, "one width or more"),
    ],
    ids=str,
)
def test_a_configuration_that_is_wrong(tiny: Path, tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        multidiff.load(broken(tiny, tmp_path / "wrong", changed))
    assert "\n" not in str(caught.value)
