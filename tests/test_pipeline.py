"""The pipeline's contract: what it accepts, that a sample depends on its seed and number alone, what it says."""

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

pytest.importorskip("rdkit")

import multidiff
from multidiff.errors import InputError
from multidiff.pipeline import SettingWarning
from multidiff.testing.domain import check_domain, check_pipeline
from multidiff_molecules import domain


def states(pipe: Any, indices: list[int], **call: Any) -> dict[int, torch.Tensor]:
    """Positions of each sample, angstrom, as generated."""
    out = pipe(num_samples=len(indices), indices=indices, **{"seed": 3, **call})
    return {i: torch.tensor(m.positions) for i, m in zip(out.indices, out.molecules, strict=True)}


def spelled(out: Any) -> list[tuple[bytes, bytes, bytes]]:
    """Atoms, charges and bonds: what must not depend on rounding."""
    return [(m.atomic_numbers.tobytes(), m.formal_charges.tobytes(), m.bonds.tobytes()) for m in out.molecules]


def test_molecules_keep_the_promises_of_a_domain(tiny: Path) -> None:
    told = check_domain(domain, [tiny], {"num_atoms": 5})
    assert "tiny: seeds and batches" in told
    assert "entry point" in told


def test_a_sample_that_depends_on_its_batch_is_found(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from multidiff.draws import Draws

    real = Draws.rng
    monkeypatch.setattr(Draws, "rng", lambda self, numbers, rows: real(self, rows, rows))
    with pytest.raises(AssertionError, match="sample 2 alone differs"):
        check_pipeline(pipe, num_atoms=5)


def test_alone_and_in_a_batch_of_64(pipe: Any) -> None:
    together = states(pipe, list(range(64)), num_inference_steps=10)
    for i in (0, 17, 63):  # alone, nothing is padded
        alone = states(pipe, [i], num_inference_steps=10)[i]
        assert (alone - together[i]).abs().max() <= 1e-4 * together[i].square().mean().sqrt()


def test_batch_size_and_order_change_nothing(pipe: Any) -> None:
    whole = pipe(num_samples=8, seed=5, batch_size=8)
    for batch_size in (1, 3):
        other = pipe(num_samples=8, seed=5, batch_size=batch_size)
        assert spelled(other) == spelled(whole)
        for a, b in zip(other.molecules, whole.molecules, strict=True):
            np.testing.assert_allclose(a.positions, b.positions, atol=1e-3)
    turned = pipe(num_samples=8, seed=5, indices=list(range(8))[::-1])
    assert turned.indices == list(range(8))[::-1]
    assert spelled(turned)[::-1] == spelled(whole)


def test_stochastic_solvers_draw_a_stream_a_sample(pipe: Any) -> None:
    whole = pipe(num_samples=4, seed=5, solver="ddpm", num_inference_steps=5)
    assert spelled(pipe(num_samples=4, seed=5, solver="ddpm", num_inference_steps=5, batch_size=1)) == spelled(whole)


def test_generators(pipe: Any) -> None:
    def streams(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    both = pipe(num_samples=2, generator=streams(1, 2), num_atoms=5)
    assert spelled(pipe(num_samples=1, generator=streams(2), num_atoms=5)) == spelled(both)[1:]
    assert spelled(pipe(num_samples=2, generator=streams(1)[0])) == spelled(
        pipe(num_samples=2, generator=streams(1)[0])
    )
    with pytest.raises(InputError, match="generator: a list of 2 for 3 samples"):
        pipe(num_samples=3, generator=streams(1, 2))
    with pytest.raises(InputError, match=r"generator: give a torch.Generator"):
        pipe(num_samples=2, generator=[1, 2])
    with pytest.raises(InputError, match="seed or generator"):
        pipe(num_samples=1, generator=streams(1), seed=0)
    assert "seed" not in both.recipe


def test_hidden_random_state_is_neither_read_nor_moved(pipe: Any) -> None:
    torch.manual_seed(1)
    first = pipe(num_samples=2, seed=0)
    before = torch.get_rng_state()
    second = pipe(num_samples=2, seed=0)
    assert spelled(first) == spelled(second)
    assert torch.equal(before, torch.get_rng_state())


def test_callback_sees_each_step_and_may_change_the_state(pipe: Any) -> None:
    seen: list[tuple[int, float]] = []

    def look(p: Any, step: int, t: float, kwargs: dict[str, Any]) -> dict[str, Any]:
        assert p is pipe
        assert set(kwargs) == {"latents", "estimate"}
        seen.append((step, t))
        if step < 3:
            return {}
        return {"latents": multidiff.Parts({**kwargs["latents"], "positions": kwargs["latents"]["positions"] * 2})}

    out = pipe(num_samples=1, seed=0, num_inference_steps=4, callback_on_step_end=look)
    plain = pipe(num_samples=1, seed=0, num_inference_steps=4)
    assert [step for step, _ in seen] == [0, 1, 2, 3]
    assert [t for _, t in seen] == sorted((t for _, t in seen), reverse=True)
    np.testing.assert_allclose(out.molecules[0].positions, 2 * plain.molecules[0].positions, rtol=1e-6)
    assert out.network_calls == 4


def test_interrupt_ends_with_what_there_is(pipe: Any) -> None:
    calls: list[int] = []

    def stop(p: Any, step: int, t: float, kwargs: dict[str, Any]) -> dict[str, Any]:
        calls.append(step)
        p.interrupt = True
        return kwargs

    out = pipe(num_samples=4, seed=0, batch_size=2, callback_on_step_end=stop)
    assert calls == [0]
    assert len(out.molecules) == 2
    assert len(pipe(num_samples=4, seed=0, batch_size=2).molecules) == 4


@pytest.mark.parametrize("part", ["positions", "bonds"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_sample_that_is_not_finite_is_marked_and_the_others_stay(pipe: Any, part: str, value: float) -> None:
    def poison(p: Any, step: int, t: float, kwargs: dict[str, Any]) -> dict[str, Any]:
        if step != 1:
            return {}
        poisoned = kwargs["latents"][part].clone()
        poisoned[2, 0] = value
        return {"latents": multidiff.Parts({**kwargs["latents"], part: poisoned})}

    call = {"num_samples": 4, "seed": 0, "num_atoms": 5, "num_inference_steps": 4}
    out, clean = pipe(**call, callback_on_step_end=poison), pipe(**call)
    assert out.failed == {2: 1}
    assert clean.failed == {}
    assert not np.isfinite(out.molecules[2].positions).any()
    assert out.mols[2] is None
    for i in (0, 1, 3):
        assert np.array_equal(out.molecules[i].positions, clean.molecules[i].positions)


def test_one_step(pipe: Any) -> None:
    with pytest.warns(SettingWarning, match="1 steps: tiny is recommended with 2 to 50"):
        out = pipe(num_samples=1, seed=0, num_inference_steps=1)
    assert out.network_calls == 1
    assert np.isfinite(out.molecules[0].positions).all()


def test_warnings_come_once(pipe: Any) -> None:
    with pytest.warns(SettingWarning) as caught:
        pipe(num_samples=1, seed=0, num_inference_steps=1, guidance_scale=3.0, num_atoms=7)
    assert len(caught) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipe(num_samples=1, seed=0, num_inference_steps=1, guidance_scale=3.0, num_atoms=7)


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ({"num_samples": 0}, "num_samples 0"),
        ({"num_samples": -2}, "num_samples -2"),
        ({"num_samples": 1.0}, "num_samples 1.0"),
        ({"num_samples": True}, "num_samples True"),
        ({"num_inference_steps": 0}, "steps must be"),
        ({"num_inference_steps": -1}, "steps must be"),
        ({"num_inference_steps": 10**6}, "steps must be"),
        ({"num_inference_steps": 2.5}, "steps must be"),
        ({"solver": "dmp++2m"}, r"did you mean 'dpm\+\+2m'"),
        ({"solver": ""}, "unknown solver ''"),
        ({"grid": "karas"}, "did you mean 'karras'"),
        ({"solver": "ddim", "solver_options": {"etta": 1.0}}, "did you mean 'eta'"),
        ({"seed": -1}, "seed -1"),
        ({"seed": 2**63}, "seed 9223372036854775808"),
        ({"seed": 1.0}, "seed 1.0"),
        ({"seed": "1"}, "seed '1'"),
        ({"batch_size": 0}, "batch_size 0"),
        ({"num_atoms": 0}, "num_atoms 0"),
        ({"num_atoms": 2.0}, "num_atoms"),
        ({"num_atoms": [5, 5]}, "num_atoms: 2 numbers for 1 samples"),
        ({"num_atoms": 13}, "far beyond"),
        ({"indices": [1, 2]}, "indices: 2 of them for 1 samples"),
        ({"indices": [-1]}, "indices must be"),
        ({"guidance_scale": float("nan")}, "guidance_scale nan"),
        ({"guidance_scale": -1.0}, "guidance_scale -1.0"),
        ({"output_type": "smile"}, "did you mean 'smiles'"),
    ],
)
def test_bad_arguments(pipe: Any, argument: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        pipe(**{"num_samples": 1, "seed": 0, **argument})
    assert "\n" not in str(caught.value)


def test_numpy_integers_are_integers(pipe: Any) -> None:
    out = pipe(num_samples=np.int64(2), seed=np.int32(4), num_atoms=np.int64(5), indices=np.array([3, 4]))
    assert spelled(out) == spelled(pipe(num_samples=2, seed=4, num_atoms=5, indices=[3, 4]))
    json.dumps(out.recipe)


def test_sizes_follow_the_histogram(pipe: Any) -> None:
    sizes = [n for batch in pipe.batches(6000, 1) for n in pipe._sizes(None, _draws(1), batch)]
    shares = [sizes.count(n) / 6000 for n in (3, 5, 6)]
    assert sizes == sorted(sizes, reverse=True)
    np.testing.assert_allclose(shares, [1 / 6, 1 / 2, 1 / 3], atol=0.03)  # 4.6 standard deviations
    asked = pipe(num_samples=3, seed=0, num_atoms=[3, 6, 5])
    assert [len(m) for m in asked.molecules] == [3, 6, 5]


def _draws(seed: int) -> Any:
    from multidiff.draws import Draws

    return Draws(seed, None, 1)


def test_batches_are_what_a_call_makes(pipe: Any) -> None:
    batches = pipe.batches(10, 4, 4)
    assert sorted(i for batch in batches for i in batch) == list(range(10))
    assert [len(batch) for batch in batches] == [3, 3, 4]  # none nearly empty
    whole = pipe(num_samples=10, seed=4, batch_size=4)
    for batch in batches:
        part = pipe(num_samples=len(batch), seed=4, indices=batch, batch_size=len(batch))
        for i, molecule in zip(part.indices, part.molecules, strict=True):
            assert np.array_equal(molecule.positions, whole.molecules[i].positions)  # to the bit


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory")])
def test_memory_that_runs_out_halves_the_batch(pipe: Any, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    whole = pipe(num_samples=8, seed=2)
    tried: list[int] = []
    real = pipe.denoiser.network.forward

    def scarce(x: Any, *rest: Any, **more: Any) -> Any:
        size = len(x["positions"])
        if not tried or tried[-1] != size:
            tried.append(size)
        if size > 2:
            raise error
        return real(x, *rest, **more)

    monkeypatch.setattr(pipe.denoiser.network, "forward", scarce)
    assert spelled(pipe(num_samples=8, seed=2)) == spelled(whole)
    assert tried == [8, 4, 2]
    generators = [torch.Generator().manual_seed(i) for i in range(8)]
    pipe._fits = None
    halved = pipe(num_samples=8, generator=generators, num_atoms=5)
    monkeypatch.undo()
    generators = [torch.Generator().manual_seed(i) for i in range(8)]
    assert spelled(halved) == spelled(pipe(num_samples=8, generator=generators, num_atoms=5))


def test_memory_for_not_even_one(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any, **__: Any) -> Any:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: you tried to ...")

    monkeypatch.setattr(pipe.denoiser.network, "forward", none)
    with pytest.raises(InputError, match="not enough memory on cpu for a single sample"):
        pipe(num_samples=4, seed=0)


def test_other_errors_are_not_taken_for_memory(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(pipe.denoiser.network, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        pipe(num_samples=4, seed=0)


def test_to_and_components(pipe: Any) -> None:
    assert pipe.to("cpu") is pipe
    assert pipe.components["network"] is pipe.denoiser.network
    full = pipe(num_samples=2, seed=0)
    half = pipe.to(dtype=torch.bfloat16)(num_samples=2, seed=0)
    assert half.recipe["dtype"] == "bfloat16"
    assert half.molecules[0].positions.dtype == np.float32
    assert spelled(pipe.to(torch.device("cpu"), torch.float32)(num_samples=2, seed=0)) == spelled(full)
    with pytest.raises(InputError, match="float64"):
        pipe.to(dtype=torch.float64)
    with pytest.raises(InputError, match="device 'gpu'"):
        pipe.to("gpu")
    with pytest.raises(InputError, match="cuda:99"):
        pipe.to("cuda:99")


def test_output(pipe: Any, tmp_path: Path) -> None:
    out = pipe(num_samples=3, seed=0)
    assert len(out.mols) == len(out.smiles) == len(out) == 3
    assert pipe(num_samples=3, seed=0, output_type="smiles") == out.smiles
    counts = out.save(tmp_path / "out")
    assert counts["samples"] == 3
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(pipe.files)


def broken(tiny: Path, folder: Path, **changed: Any) -> Path:
    """A copy of the checkpoint with other keys in its configuration; None takes one out."""
    shutil.copytree(tiny, folder)
    config = {**json.loads((folder / "config.json").read_text()), **changed}
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return folder


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"vocabulary": None}, "the key 'vocabulary' is missing"),
        ({"sizes": None}, "the key 'sizes' is missing"),
        ({"sizes": {}}, "'sizes' must"),
        ({"sizes": {"five": 1}}, "'sizes' must"),
        ({"sizes": {"5": 0}}, "'sizes' must"),
        ({"recommended": None}, "the key 'recommended' is missing"),
        ({"recommended": {"solver": 3, "num_inference_steps": 3}}, "'solver' must be a string"),
        ({"recommended": {"solver": "ddim", "num_inference_steps": 3, "steps_range": 4}}, "'steps_range' must"),
        ({"schedule": {"class": "Cosin"}}, "did you mean 'Cosine'"),
        ({"schedule": {"class": "os.system"}}, "unknown class"),
        ({"vocabulary": {"elements": [1, 6], "charges": [-1, 0, 1], "position_scale": 1.7}}, "unlike 'vocabulary'"),
        ({"vocabulary": {"elements": "HC", "charges": [0], "position_scale": 1.7}}, "'elements' must be a list"),
        ({"vocabulary": {"elements": [1, 6, 7, 8], "charges": [-1, 0, 1], "position_scale": 0}}, "above 0"),
        ({"domain": "molecule"}, "did you mean 'molecules'"),
    ],
)
def test_a_configuration_that_is_wrong(tiny: Path, tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        multidiff.load(broken(tiny, tmp_path / "wrong", **changed))
    assert "wrong" in str(caught.value) or "domain" in changed
    assert "\n" not in str(caught.value)


def test_safetensors_that_begin_like_a_pickle(make_tiny: Callable[..., Any], tmp_path: Path) -> None:
    """Its header's length is the first byte, and 0x80 is how a pickle begins."""
    from safetensors.torch import load, save

    from multidiff import checkpoint

    weights = {"w" * n: torch.zeros(1) for n in range(1, 2)}
    while save(weights)[0] != 0x80:
        weights[f"x{len(weights)}"] = torch.zeros(1)
    assert set(load(save(weights))) == set(weights)
    checkpoint.save(tmp_path / "c", {"domain": "molecules"}, weights, "")
    assert set(checkpoint.read(tmp_path / "c")[1]) == set(weights)
