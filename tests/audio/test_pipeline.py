"""The pipeline's contract: a sound depends on seed and number alone, is as long as asked, keeps what it is to keep."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import multidiff
from multidiff.errors import InputError
from multidiff.pipeline import SettingWarning
from multidiff.testing.domain import check_domain, check_pipeline
from multidiff_audio import domain
from multidiff_audio.generated import AudioOutput
from multidiff_audio.representation import ComplexSTFT

RATE = 8000


def sounds(pipe: Any, *args: Any, **call: Any) -> dict[int, np.ndarray]:
    """Each sample as generated."""
    out = pipe(*args, **{"seed": 3, **call})
    return dict(zip(out.indices, out.audios, strict=True))


def same(a: np.ndarray, b: np.ndarray, tolerance: float = 1e-4) -> bool:
    """Relative, as `multidiff.testing.domain` has it."""
    return a.shape == b.shape and float(np.abs(a - b).max()) <= tolerance * float(np.sqrt(np.square(b).mean()))


def alike(pipe: Any, a: np.ndarray, b: np.ndarray) -> bool:
    """The same, or, of log-mel, whose phases amplify rounding, the same to the ear: within 1 % of its deviation."""
    if isinstance(pipe.representation, ComplexSTFT):
        return same(a, b)
    states = [pipe.representation.encode(torch.from_numpy(sound)[None]) for sound in (a, b)]
    return a.shape == b.shape and float((states[0] - states[1]).abs().mean()) < 0.01 * float(states[1].std())


# ------------------------------------------------------------------------------------------ seeds, batches, lengths


@pytest.mark.filterwarnings("ignore::multidiff.pipeline.SettingWarning")  # a checkpoint of rain knows no seven
def test_sounds_keep_the_promises_of_a_domain(tiny: Path) -> None:
    """Those of the checkpoints that ship, too."""
    told = check_domain(domain, [tiny], {"prompt": "seven", "duration": 0.3})
    assert "tiny: seeds and batches" in told
    assert "entry point" in told


@pytest.mark.parametrize(("channels", "kind"), [(2, "complex"), (1, "mel"), (2, "mel")])
def test_so_do_other_checkpoints(make_tiny: Any, channels: int, kind: str) -> None:
    pipe = make_tiny(channels=channels, kind=kind)
    assert check_pipeline(pipe, prompt="seven", duration=0.3)[0] == "seeds and batches"


def test_alone_in_a_batch_and_in_another_order(either: Any) -> None:
    """Lengths are drawn, so that batches are padded."""
    pipe = either
    whole = sounds(pipe, "seven", num_samples=8)
    assert len({sound.shape for sound in whole.values()}) > 4
    for call in ({"batch_size": 1}, {"batch_size": 3}, {"indices": [5, 0, 7, 2, 1, 6, 4, 3]}):
        other = sounds(pipe, "seven", num_samples=8, **call)
        assert list(other) == call.get("indices", list(range(8)))
        assert all(alike(pipe, other[i], whole[i]) for i in whole)
    alone = sounds(pipe, "seven", num_samples=1, indices=[6])
    assert alike(pipe, alone[6], whole[6])


def test_stochastic_solvers_draw_a_stream_a_sample(pipe: Any) -> None:
    call = {"num_samples": 3, "solver": "ddpm", "num_inference_steps": 4}
    whole, single = sounds(pipe, "two", **call), sounds(pipe, "two", **call, batch_size=1)
    assert all(same(single[i], whole[i]) for i in whole)


@pytest.mark.parametrize("samples", [80, 81, 95, 96, 97, 1000, 2401])
def test_exactly_as_long_as_asked(either: Any, samples: int) -> None:
    for sound in sounds(either, duration=samples / RATE, num_samples=2).values():
        assert sound.shape == (1, samples)
        assert sound.dtype == np.float32
        assert np.isfinite(sound).all()


def test_the_drawn_length_depends_on_seed_number_and_prompt_alone(pipe: Any) -> None:
    def lengths(*args: Any, **call: Any) -> list[int]:
        return [sound.shape[1] for sound in sounds(pipe, *args, **call).values()]

    whole = lengths("seven", num_samples=6)
    assert len(set(whole)) > 3
    assert all(0.05 * RATE <= n <= 0.5 * RATE + 1 for n in whole)
    assert lengths("seven", num_samples=2, indices=[4, 5], num_inference_steps=2, guidance_scale=1.0) == whole[4:]
    assert lengths("seven", num_samples=6, batch_size=2, solver="ddim") == whole
    assert lengths("seven", num_samples=6, seed=4) != whole


def test_lengths_follow_what_the_network_has_learned(make_tiny: Any) -> None:
    pipe = make_tiny()
    with torch.no_grad():
        pipe.denoiser.network.conditions.seconds.weight.zero_()
        pipe.denoiser.network.conditions.seconds.bias.fill_(-50.0)
        pipe.denoiser.network.conditions.seconds.bias[24] = 0.0
    middle = [0.05 * 10 ** (k / 48) for k in (24, 25)]  # of 0.05 to 0.5 s
    for sound in sounds(pipe, "seven", num_samples=6, num_inference_steps=2).values():
        assert middle[0] - 1 / RATE <= sound.shape[1] / RATE <= middle[1] + 1 / RATE


def test_prompts_are_taken_in_turn(pipe: Any) -> None:
    out = pipe(["seven", "a dog"], num_samples=5, seed=3, duration=0.1)
    assert out.prompts == ["seven", "a dog", "seven", "a dog", "seven"]
    assert len(pipe(["seven", "a dog", "two"], seed=3, duration=0.1)) == 3
    assert len(pipe("seven", seed=3, duration=0.1)) == 1
    dog = sounds(pipe, "a dog", num_samples=2, duration=0.1)
    assert same(out.audios[1], dog[1])
    assert not same(out.audios[0], dog[0], 0.01)


def test_durations_and_negatives_in_turn(pipe: Any) -> None:
    made = sounds(pipe, ["seven", "two"], num_samples=4, duration=[0.1, 0.2], negative_prompt=["rain", None])
    assert [sound.shape[1] for sound in made.values()] == [800, 1600, 800, 1600]
    plain = sounds(pipe, "two", num_samples=4, duration=0.2)
    assert same(made[1], plain[1])
    plain = sounds(pipe, "seven", num_samples=4, duration=0.1)
    assert not same(made[0], plain[0], 0.01)


def test_batches_are_what_a_call_makes(pipe: Any) -> None:
    batches = pipe.batches(10, 4, 4, prompt="seven", format="flac")
    assert sorted(i for batch in batches for i in batch) == list(range(10))
    whole = sounds(pipe, "seven", num_samples=10, seed=4, batch_size=4)
    sizes = [whole[i].shape[1] for batch in batches for i in batch]
    assert sizes == sorted(sizes, reverse=True)
    part = sounds(pipe, "seven", num_samples=len(batches[1]), seed=4, indices=batches[1], batch_size=4)
    assert all(np.array_equal(part[i], whole[i]) for i in batches[1])  # to the bit


def test_fewer_samples_than_prompts_are_said(pipe: Any) -> None:
    with pytest.warns(SettingWarning, match="2 samples for 3 prompts: the last prompts are not used"):
        pipe.batches(2, 0, prompt=["seven", "two", "rain"])


def test_generators(pipe: Any) -> None:
    def streams(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    call: dict[str, Any] = {"seed": None, "duration": 0.1}
    both = sounds(pipe, "seven", num_samples=2, generator=streams(1, 2), **call)
    assert same(sounds(pipe, "seven", num_samples=1, generator=streams(2), **call)[0], both[1])
    assert not same(both[0], both[1], 0.01)
    drawn = [sounds(pipe, "seven", num_samples=3, generator=streams(1)[0], seed=None) for _ in range(2)]
    assert all(same(drawn[0][i], drawn[1][i]) for i in range(3))
    assert "seed" not in pipe("seven", generator=streams(1)[0]).recipe
    with pytest.raises(InputError, match="seed or generator"):
        pipe("seven", generator=streams(1), seed=0)
    with pytest.raises(InputError, match="a list of 2 for 1 samples"):
        pipe("seven", generator=streams(1, 2))
    for more in ({"variations_of": 1}, {"stereo": True}):
        with pytest.raises(InputError, match="give seed instead"):
            pipe("seven", generator=streams(1), **more)


def test_hidden_random_state_is_neither_read_nor_moved(pipe: Any) -> None:
    torch.manual_seed(1)
    first = sounds(pipe, "seven", num_samples=2)
    before = torch.get_rng_state()
    second = sounds(pipe, "seven", num_samples=2)
    assert all(np.array_equal(first[i], second[i]) for i in first)
    assert torch.equal(before, torch.get_rng_state())


def test_without_a_seed_one_is_drawn_and_kept(pipe: Any) -> None:
    first, second = (pipe("seven", duration=0.1) for _ in range(2))
    assert first.recipe["seed"] != second.recipe["seed"]
    assert np.array_equal(pipe("seven", duration=0.1, seed=first.recipe["seed"]).audios[0], first.audios[0])


# --------------------------------------------------------------------------------------------------- what counts


def test_each_condition_counts(pipe: Any) -> None:
    call: dict[str, Any] = {"duration": 0.2, "num_samples": 1}
    plain = sounds(pipe, "seven", **call)[0]
    for other in (
        sounds(pipe, "two", **call),
        sounds(pipe, **call),
        sounds(pipe, "seven", **call, classes={"speaker": "theo"}),
        sounds(pipe, "seven", **call, negative_prompt="two"),
        sounds(pipe, "seven", **call, guidance_scale=3.0),
        sounds(pipe, "seven", **call, guidance_scale=1.0),
        sounds(pipe, "seven", **call, follow={"pitch": [100, 300]}),
        sounds(pipe, "seven", **call, follow={"loudness": [-60, -10, -60]}),
        sounds(pipe, "seven", **call, solver="ddim"),
        sounds(pipe, "seven", **call, grid="karras"),
    ):
        assert not same(other[0], plain, 1e-3)
    for equal in (
        sounds(pipe, "  SEVEN!! ", **call),
        sounds(pipe, "seven", **call, negative_prompt=""),
        sounds(pipe, "seven", **call, guidance_scale=1.5, solver="dpm++2m", grid="log-snr", num_inference_steps=3),
    ):
        assert same(equal[0], plain)


def test_nothing_and_an_empty_prompt_are_the_same(pipe: Any) -> None:
    made = [sounds(pipe, prompt, duration=0.1, guidance_scale=3.0)[0] for prompt in (None, "", "  ")]
    assert same(made[1], made[0])
    assert same(made[2], made[0])
    # What is moved away from is the same as what is asked for: guidance changes nothing.
    assert same(sounds(pipe, "", duration=0.1, guidance_scale=1.0)[0], made[0], 1e-3)


def test_following_a_file(pipe: Any, sound_file: Path, sound: np.ndarray) -> None:
    follow = sounds(pipe, "seven", follow=sound_file)[0]
    assert follow.shape == sound.shape  # as long, to the sample
    pitch = sounds(pipe, "seven", follow=str(sound_file), follow_curves=["pitch"])[0]
    plain = sounds(pipe, "seven", duration=sound.shape[1] / RATE)[0]
    assert not same(follow, pitch, 1e-3)
    assert not same(follow, plain, 1e-3)
    assert sounds(pipe, "seven", follow=sound_file, duration=0.1)[0].shape[1] == 800
    batch = sounds(pipe, ["seven", "two"], follow=sound_file, duration=[0.1, 0.5], num_samples=2)
    assert same(sounds(pipe, "seven", follow=sound_file, duration=0.1)[0], batch[0])


# ------------------------------------------------------------------------------------------ starting from a sound


def test_little_strength_stays_near(either: Any, sound: np.ndarray) -> None:
    """With the phases of the sound, too, where the state holds none."""
    made = sounds(either, "seven", init=sound, strength=0.02, num_inference_steps=50, num_samples=2)
    assert made[0].shape == sound.shape
    nearest = 0.98 if isinstance(either.representation, ComplexSTFT) else 0.9
    for one in made.values():
        assert float(np.corrcoef(one[0], sound[0])[0, 1]) > nearest
    far = sounds(either, "seven", init=sound, strength=0.9, num_inference_steps=50)[0]
    assert float(np.corrcoef(far[0], sound[0])[0, 1]) < 0.9
    assert not np.array_equal(made[0], made[1])


def test_full_strength_ignores_the_sound_but_for_its_length_and_level(either: Any, sound: np.ndarray) -> None:
    pipe = either
    made = sounds(pipe, "seven", init=sound, strength=1.0)[0]
    plain = sounds(pipe, "seven", duration=sound.shape[1] / RATE)[0]
    scale = float((made * plain).sum() / np.square(plain).sum())
    assert same(made, np.float32(scale) * plain)
    assert scale == pytest.approx(float(np.sqrt(np.square(sound).mean())) / 10 ** (-23 / 20), rel=1e-4)


def test_the_level_of_the_sound_comes_back(pipe: Any, sound: np.ndarray) -> None:
    quiet = sounds(pipe, "seven", init=0.01 * sound, strength=0.3)[0]
    loud = sounds(pipe, "seven", init=sound, strength=0.3)[0]
    assert same(100 * quiet, loud, 1e-3)


def test_sounds_to_sound_in_a_padded_batch(pipe: Any, sound: np.ndarray) -> None:
    """Shorter and longer than what they start from."""
    call: dict[str, Any] = {"init": sound, "strength": 0.5, "duration": [0.1, 0.2, 0.45], "num_samples": 3}
    whole = sounds(pipe, ["seven", "two", "rain"], **call)
    single = sounds(pipe, ["seven", "two", "rain"], **call, batch_size=1)
    assert [one.shape[1] for one in whole.values()] == [800, 1600, 3600]
    assert all(same(single[i], whole[i]) for i in whole)


@pytest.mark.parametrize("kind", ["complex", "mel"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    "regions", [[(0.1, 0.15)], [(0.0, 0.05), (0.2, None)], [(0.1, 0.15), (0.15, 0.16), (0.3, 0.31)]]
)
def test_inpainting_keeps_the_rest_to_the_bit(
    make_tiny: Any, sound: np.ndarray, kind: str, channels: int, regions: Any
) -> None:
    pipe = make_tiny(channels=channels, kind=kind)
    init = np.concatenate([sound, -0.5 * sound])[:channels]
    made = sounds(pipe, "seven", init=init, inpaint=regions, num_samples=2)
    near = np.zeros(sound.shape[1], bool)
    for start, end in regions:
        a, b = round(start * RATE), round((end or sound.shape[1] / RATE) * RATE)
        near[max(0, a - 32) : b + 32] = True
        inside = slice(a, b)
        assert not np.allclose(made[0][:, inside], init[:, inside], atol=1e-3)
        assert not np.allclose(made[0][:, inside], made[1][:, inside], atol=1e-3)
    for one in made.values():
        assert one.shape == init.shape
        assert np.array_equal(one[:, ~near], init[:, ~near])


def test_a_file_is_kept_to_the_bit(pipe: Any, sound_file: Path) -> None:
    import soundfile

    held, _ = soundfile.read(sound_file, dtype="float32", always_2d=True)
    made = sounds(pipe, "seven", init=sound_file, inpaint=[(0.2, 0.25)])[0]
    assert np.array_equal(made[:, :1500], held.T[:, :1500])


def test_the_seam_is_no_jump(either: Any, sound: np.ndarray) -> None:
    """What is made is faded into what is kept."""
    made = sounds(either, "seven", init=sound, inpaint=[(0.1, 0.2)])[0][0]
    steps = np.abs(np.diff(made))
    at_edges = max(steps[800 - 33 : 800 - 30].max(), steps[1600 + 30 : 1600 + 33].max())
    assert at_edges <= 1.5 * np.abs(np.diff(sound[0])).max() + steps[800:1600].max() / 16


def test_extension(either: Any, sound: np.ndarray) -> None:
    made = sounds(either, "seven", init=sound, extend=0.1, num_samples=2)
    for one in made.values():
        assert one.shape == (1, sound.shape[1] + 800)
        assert np.array_equal(one[:, : sound.shape[1] - 32], sound[:, :-32])
        assert float(np.abs(one[:, sound.shape[1] :]).max()) > 1e-3
    both = sounds(either, "seven", init=sound, extend=0.1, inpaint=[(0.0, 0.05)])[0]
    assert np.array_equal(both[:, 500:2900], sound[:, 500:2900])
    assert not np.allclose(both[:, :300], sound[:, :300], atol=1e-3)


def test_inpainting_alone_and_in_a_batch(either: Any, sound: np.ndarray) -> None:
    call: dict[str, Any] = {"init": sound, "inpaint": [(0.1, 0.2)], "extend": 0.05, "num_samples": 3}
    whole, single = sounds(either, "seven", **call), sounds(either, "seven", **call, batch_size=1)
    assert all(alike(either, single[i], whole[i]) for i in whole)


def test_with_less_strength_what_is_inpainted_is_near_what_was_there(pipe: Any, sound: np.ndarray) -> None:
    call: dict[str, Any] = {"init": sound, "inpaint": [(0.1, 0.2)], "num_inference_steps": 50}
    near, far = (sounds(pipe, "seven", **call, strength=s)[0][0, 800:1600] for s in (0.02, 1.0))
    was = sound[0, 800:1600]
    assert np.corrcoef(near, was)[0, 1] > 0.95 > np.corrcoef(far, was)[0, 1]


# ------------------------------------------------------------------------------- loops, stereo, variations


def test_a_loop_is_of_whole_rows_and_depends_on_its_number_alone(either: Any) -> None:
    step = either.representation.fold_time * either.representation.hop
    whole = sounds(either, ["seven", "rain"], loop=True, num_samples=4, duration=[0.13, 0.31])
    assert [one.shape[1] for one in whole.values()] == [round(n / step) * step for n in (1040, 2480, 1040, 2480)]
    single = sounds(either, ["seven", "rain"], loop=True, num_samples=4, duration=[0.13, 0.31], batch_size=1)
    assert all(alike(either, single[i], whole[i]) for i in whole)
    assert sounds(either, "seven", loop=True, duration=0.01)[0].shape[1] == 2 * step


def test_the_end_of_a_loop_meets_its_start(either: Any) -> None:
    for one in sounds(either, "seven", loop=True, num_samples=4, duration=0.2).values():
        steps = np.abs(np.diff(one[0], append=one[0, :1]))
        assert steps[-1] <= steps[:-1].max()


def test_stereo_from_mono_is_two_takes_of_one_sound(either: Any) -> None:
    made = sounds(either, "seven", stereo=True, num_samples=4, duration=0.2)
    mono = sounds(either, "seven", num_samples=4, duration=0.2)
    for i, one in made.items():
        assert one.shape == (2, 1600)
        assert alike(either, one[:1], mono[i])
        assert 0.3 < float(np.corrcoef(one)[0, 1]) < 0.999
    single = sounds(either, "seven", stereo=True, num_samples=4, duration=0.2, batch_size=1)
    assert all(alike(either, single[i], made[i]) for i in made)


def test_stereo_of_a_stereo_checkpoint_is_its_own(make_tiny: Any) -> None:
    pipe = make_tiny(channels=2)
    made = sounds(pipe, "seven", num_samples=2, duration=0.2)
    assert made[0].shape == (2, 1600)
    assert not same(made[0][:1], made[0][1:], 0.01)
    assert same(sounds(pipe, "seven", num_samples=2, duration=0.2, stereo=True)[0], made[0])


@pytest.mark.parametrize("stereo", [False, True])
def test_variations(pipe: Any, stereo: bool) -> None:
    call: dict[str, Any] = {"num_samples": 5, "stereo": stereo}
    base = sounds(pipe, "seven", **call)[4]
    none = sounds(pipe, "seven", **call, variations_of=4, variation_strength=0)
    some = sounds(pipe, "seven", **call, variations_of=4, variation_strength=0.2)
    other = sounds(pipe, "seven", **call, variations_of=4, variation_strength=1.0)
    assert all(same(one, base) for one in none.values())  # as long too, though the length was drawn
    away = [[float(np.linalg.norm(made[i] - base)) for i in range(4)] for made in (some, other)]
    assert max(away[0]) < min(away[1])
    assert min(away[0]) > 0
    assert not same(some[0], some[1], 1e-3)


# ------------------------------------------------------------------------------------------------ the rest


def again(pipe: Any, recipe: dict[str, Any], **more: Any) -> Any:
    """A call made of what a recipe says and nothing else."""
    left_out = ("checkpoint", "sha256", "init_sha256", "follow_sha256")
    return pipe(**{name: value for name, value in recipe.items() if name not in left_out}, **more)


RECIPES: list[dict[str, Any]] = [
    {},
    {"duration": 0.1, "negative_prompt": "rain", "guidance_scale": 2.0},
    {"solver": "ddim", "solver_options": {"eta": 0.5}, "grid": "karras", "num_inference_steps": 4},
    {"classes": {"speaker": "theo"}, "stereo": True},
    {"loop": True},
    {"variations_of": np.int64(2), "variation_strength": 0.5, "duration": np.float32(0.25)},
    {"init": "FILE"},
    {"init": "FILE", "strength": 1.0},
    {"init": "FILE", "inpaint": [(0.1, 0.2), (0.3, None)], "loudness": "keep"},
    {"init": "FILE", "extend": 0.1, "strength": 0.7},
    {"init": "FILE", "extend": 0.1, "inpaint": [(0.1, 0.2)]},
    {"follow": "FILE", "follow_curves": ["loudness", "pitch"]},
    {"follow": {"pitch": np.array([100.0, 200.0]), "loudness": [-20]}, "duration": 0.2},
    {"format": "flac", "bit_depth": 24, "loudness": -30},
]


@pytest.mark.parametrize("call", RECIPES, ids=[", ".join(call) or "plain" for call in RECIPES])
def test_a_recipe_is_plain_and_enough_to_make_the_same_again(pipe: Any, sound_file: Path, call: dict[str, Any]) -> None:
    call = {name: sound_file if isinstance(value, str) and value == "FILE" else value for name, value in call.items()}
    out = pipe(["seven", "a dog"], seed=5, **call)
    recipe = json.loads(json.dumps(out.recipe))
    assert recipe == out.recipe
    made = again(pipe, recipe)
    assert made.recipe == recipe
    assert [a.tobytes() for a in made.audios] == [a.tobytes() for a in out.audios]
    told = {name: value for name, value in call.items() if name not in ("duration", "init", "follow")}
    assert recipe == {**pipe.recipe(5, prompt=["seven", "a dog"], **call)}
    assert set(told) - {"inpaint"} <= set(recipe)


def test_callback_sees_each_step_and_may_change_the_state(pipe: Any) -> None:
    seen: list[int] = []

    def look(p: Any, step: int, t: float, kwargs: dict[str, Any]) -> dict[str, Any]:
        assert p is pipe
        seen.append(step)
        return {"latents": torch.zeros_like(kwargs["latents"])} if step == 2 else {}

    out = pipe("seven", seed=0, duration=0.1, callback_on_step_end=look)
    assert seen == [0, 1, 2]
    assert out.network_calls == 3
    assert not out.audios[0].any()


def test_interrupt_ends_with_what_there_is(pipe: Any) -> None:
    def stop(p: Any, step: int, t: float, kwargs: dict[str, Any]) -> dict[str, Any]:
        p.interrupt = True
        return {}

    out = pipe("seven", 4, seed=0, batch_size=2, callback_on_step_end=stop)
    assert len(out) == len(out.prompts) == len(out.indices) == 2
    assert len(pipe("seven", 4, seed=0, batch_size=2)) == 4


@pytest.mark.parametrize("stereo", [False, True])
def test_a_sample_that_is_not_finite_is_marked_and_the_others_stay(either: Any, stereo: bool) -> None:
    def poison(p: Any, step: int, t: float, kwargs: dict[str, Any]) -> dict[str, Any]:
        poisoned = kwargs["latents"].clone()
        poisoned[-1, 0] = float("nan")  # of two takes the right one
        return {"latents": poisoned} if step == 1 else {}

    call: dict[str, Any] = {"num_samples": 3, "seed": 0, "duration": 0.1, "stereo": stereo}
    out, clean = either("seven", **call, callback_on_step_end=poison), either("seven", **call)
    assert out.failed == {2: 1}
    assert np.isnan(out.audios[2]).all()
    assert out.audios[2].shape == clean.audios[2].shape
    assert all(np.array_equal(out.audios[i], clean.audios[i]) for i in (0, 1))


def test_memory_that_runs_out_halves_the_batch(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sounds(pipe, "seven", num_samples=8)
    real, tried = pipe.denoiser.network.forward, []

    def scarce(x: Any, *rest: Any, **more: Any) -> Any:
        tried.append(len(x))
        if len(x) > 4:  # two samples, each with and without its condition
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(x, *rest, **more)

    monkeypatch.setattr(pipe.denoiser.network, "forward", scarce)
    halved = sounds(pipe, "seven", num_samples=8)
    assert list(dict.fromkeys(tried)) == [16, 8, 4]
    assert all(same(halved[i], whole[i]) for i in whole)


def test_output_types_and_precision(pipe: Any) -> None:
    out = pipe("seven", 2, seed=0, duration=0.1)
    assert isinstance(out, AudioOutput)
    assert out.sampling_rate == RATE
    arrays = pipe("seven", 2, seed=0, duration=0.1, output_type="np")
    assert all(np.array_equal(a, b) for a, b in zip(arrays, out.audios, strict=True))
    half = pipe.to(dtype=torch.bfloat16)("seven", 2, seed=0, duration=0.1)
    assert half.recipe["dtype"] == "bfloat16"
    assert half.audios[0].dtype == np.float32
    assert np.isfinite(half.audios[0]).all()


def test_saves_and_loads(pipe: Any, tmp_path: Path) -> None:
    loaded = multidiff.load(pipe.save_pretrained(tmp_path / "again"))
    assert same(sounds(loaded, "seven")[0], sounds(pipe, "seven")[0])
    assert loaded.card.startswith("# Tiny")


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ({"num_samples": 0}, "num_samples 0"),
        ({"num_samples": True}, "num_samples True"),
        ({"num_inference_steps": 0}, "steps must be"),
        ({"solver": "dmp++2m"}, r"did you mean 'dpm\+\+2m'"),
        ({"grid": "karas"}, "did you mean 'karras'"),
        ({"seed": -1}, "seed -1"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"indices": [1, 2]}, "indices: 2 of them for 1 samples"),
        ({"guidance_scale": float("nan")}, "guidance_scale nan"),
        ({"guidance_scale": -1.0}, "guidance_scale -1.0"),
        ({"output_type": "audios"}, "did you mean 'audio'"),
        ({"format": "mp3"}, "format"),
        ({"bit_depth": 8}, "bit_depth '8'"),
        ({"format": "flac", "bit_depth": "float"}, "FLAC"),
        ({"loudness": 3.0}, "loudness 3.0"),
        ({"loudness": "loud"}, "loudness 'loud'"),
    ],
)
def test_bad_arguments(pipe: Any, argument: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        pipe(**{"prompt": "seven", "num_samples": 1, "seed": 0, **argument})
    assert "\n" not in str(caught.value)


def test_warnings_come_once(pipe: Any) -> None:
    call: dict[str, Any] = {"seed": 0, "num_inference_steps": 1, "guidance_scale": 9.0, "duration": 0.6}
    with pytest.warns(SettingWarning) as caught:
        pipe("wolf", **call)
    assert len(caught) == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe("wolf", **call)


def broken(tiny: Path, folder: Path, changed: dict[str, Any]) -> Path:
    """A copy of the checkpoint with other keys in its configuration; None takes one out."""
    shutil.copytree(tiny, folder)
    held = json.loads((folder / "config.json").read_text())
    for name, value in changed.items():
        held[name] = {**held[name], **value} if isinstance(value, dict) and name != "classes" else value
    (folder / "config.json").write_text(json.dumps({k: v for k, v in held.items() if v is not None}))
    return folder


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"representation": None}, "the key 'representation' is missing"),
        ({"representation": {"class": "ComplexSTF"}}, "did you mean 'ComplexSTFT'"),
        ({"representation": {"class": "os.system"}}, "unknown class"),
        ({"representation": {"hop": 33}}, "a hop 33"),
        ({"representation": {"rate": "8000"}}, "rate|sizes"),
        ({"representation": {"n_fft": 64.0}}, "n_fft|sizes"),
        ({"representation": {"hops": 32}}, "hops"),
        ({"representation": {"n_fft": 128}}, "'network' has bands 16, and the rest asks for 32"),
        ({"prediction": None}, "the key 'prediction' is missing"),
        ({"prediction": "w"}, "'w'"),
        ({"schedule": {"class": "Cosin"}}, "did you mean 'Cosine'"),
        ({"vocabulary": None}, "the key 'vocabulary' is missing"),
        ({"vocabulary": {"words": "seven"}}, "'words' must be a list"),
        ({"vocabulary": {"words": [1, 2]}}, "'vocabulary' must hold"),
        ({"vocabulary": {"words": ["seven"]}}, "text_size 10, and the rest asks for 3"),
        ({"vocabulary": {"longest": 0}}, "'vocabulary' must hold"),
        ({"vocabulary": {"longest": 9}}, "text_longest 6, and the rest asks for 9"),
        ({"classes": None}, "the key 'classes' is missing"),
        ({"classes": {"speaker": "theo"}}, "'speaker' must be a list"),
        ({"classes": {"speaker": []}}, "'speaker' must be a list of names"),
        ({"classes": {"speaker": ["theo"]}}, "'network' has classes"),
        ({"durations": None}, "the key 'durations' is missing"),
        ({"durations": {"shortest": 1.0}}, "'durations' must be"),
        ({"durations": {"longest": "1"}}, "'longest' must be"),
        ({"durations": {"longest": 1e6}}, "'durations' must be"),
        ({"recommended": None}, "the key 'recommended' is missing"),
        ({"recommended": {"solver": 3}}, "'solver' must be a string"),
        ({"recommended": {"guidance_range": 4}}, "'guidance_range' must"),
        ({"recommended": {"steps_range": [1]}}, "'steps_range' must"),
        ({"network": {"class": "AudioNetwork"}}, "unknown class"),
        ({"network": {"width": 32}}, "width|size|fit"),
        ({"network": {"heads": 3}}, "width 16 must be a multiple of twice the heads 3"),
        ({"network": {"widths": 8}}, "widths|network"),
    ],
    ids=str,
)
def test_a_configuration_that_is_wrong(tiny: Path, tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        multidiff.load(broken(tiny, tmp_path / "wrong", changed))
    assert "\n" not in str(caught.value)


def test_a_checkpoint_without_classes(make_tiny: Callable[..., Any]) -> None:
    pipe = make_tiny(classes={}, network={"classes": []})
    assert sounds(pipe, "seven", duration=0.1)[0].shape == (1, 800)
    with pytest.raises(InputError, match="class 'speaker' asked for, and tiny knows no classes"):
        pipe("seven", classes={"speaker": "theo"})
