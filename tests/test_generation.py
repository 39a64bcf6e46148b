"""Large jobs: an interruption loses little and changes nothing; nobody's results are overwritten."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("rdkit")

from multidiff import files, generation
from multidiff.errors import InputError
from multidiff_molecules import generated

JOB: dict[str, Any] = {"num_samples": 10, "seed": 1, "batch_size": 2}


@pytest.fixture(autouse=True)
def _keep_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "KEEP_EVERY", -1.0)


@pytest.fixture(scope="session")
def whole(make_tiny: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of JOB, made in one go."""
    out = tmp_path_factory.mktemp("whole") / "out"
    assert generation.run_job(make_tiny(), out, **JOB) == 0
    return hashes(out)


def hashes(out: Path) -> dict[str, str]:
    """Of each file but run.json, which holds the time it took."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(out.iterdir()) if p.name != "run.json"}


def interrupt_at(pipe: Any, monkeypatch: pytest.MonkeyPatch, call: int, error: BaseException) -> None:
    """The network raises at this call, once."""
    count = 0
    real = pipe.denoiser.network.forward

    def forward(*args: Any, **more: Any) -> Any:
        nonlocal count
        count += 1
        if count == call:
            raise error
        return real(*args, **more)

    monkeypatch.setattr(pipe.denoiser.network, "forward", forward)


def count_samples(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sample numbers that are made from now on."""
    made: list[int] = []
    real = type(pipe).__call__

    def call(self: Any, *args: Any, **more: Any) -> Any:
        made.extend(more["indices"])
        return real(self, *args, **more)

    monkeypatch.setattr(type(pipe), "__call__", call)
    return made


def test_what_a_finished_job_leaves(make_tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = make_tiny()
    call = {"num_atoms": 5, "num_inference_steps": 4, "solver": "ddim"}
    assert generation.run_job(pipe, tmp_path / "new" / "out", **JOB, call=call, load_seconds=2.0) == 0
    out = tmp_path / "new" / "out"
    assert sorted(p.name for p in out.iterdir()) == sorted([*pipe.files, "run.json"])
    run = json.loads((out / "run.json").read_text())
    assert [record["sample"] for record in run["samples"]] == list(range(10))
    assert all(record["atoms"] == 5 for record in run["samples"])
    assert run["counts"]["valid"] + run["counts"]["rejected"] == 10
    assert run["settings"] == {"solver": "ddim", "grid": "uniform", "num_inference_steps": 4, "num_atoms": 5}
    assert (run["seed"], run["network_calls"], run["checkpoint"]["domain"]) == (1, 4, "molecules")
    times = run["timings"]
    assert 2.0 == times["load"] < times["first_sample"] < times["total"]
    assert set(run["versions"]) == {"multidiff", "torch", "python", "platform"}
    said = capsys.readouterr().out
    assert f"open {out / 'molecules.sdf'}" in said
    assert "samples/s" in said


def test_as_from_python(make_tiny: Any, whole: dict[str, str], tmp_path: Path) -> None:
    make_tiny()(num_samples=10, seed=1, batch_size=2).save(tmp_path / "out")
    assert hashes(tmp_path / "out") == whole


@pytest.mark.parametrize("call", [1, 2, 8, 15])
def test_interrupted_and_continued(
    make_tiny: Any, whole: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], call: int,
) -> None:  # fmt: skip
    with monkeypatch.context() as patch:
        pipe = make_tiny()
        interrupt_at(pipe, patch, call, KeyboardInterrupt())
        assert generation.run_job(pipe, tmp_path, **JOB) == 130
    finished = 2 * ((call - 1) // 3)  # three network calls a batch of two
    said = capsys.readouterr().err
    assert f"{finished} of 10 samples are kept; the same command continues" in said
    assert said.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == [".job"]
    pipe = make_tiny()
    made = count_samples(pipe, monkeypatch)
    assert generation.run_job(pipe, tmp_path, **JOB) == 0
    assert len(made) == len(set(made)) == 10 - finished
    assert hashes(tmp_path) == whole


def test_interrupted_twice_and_while_writing(
    make_tiny: Any, whole: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for call in (5, 5):
        with monkeypatch.context() as patch:
            pipe = make_tiny()
            interrupt_at(pipe, patch, call, KeyboardInterrupt())
            assert generation.run_job(pipe, tmp_path, **JOB) == 130
    with monkeypatch.context() as patch:
        patch.setattr(generation, "_write_run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        assert generation.run_job(make_tiny(), tmp_path, **JOB) == 130
    assert generation.run_job(make_tiny(), tmp_path, **JOB) == 0
    assert hashes(tmp_path) == whole


def test_another_batch_size_continues_too(make_tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        pipe = make_tiny()
        interrupt_at(pipe, patch, 8, KeyboardInterrupt())
        generation.run_job(pipe, tmp_path, **JOB)
    assert generation.run_job(make_tiny(), tmp_path, **{**JOB, "batch_size": 3}) == 0
    run = json.loads((tmp_path / "run.json").read_text())
    assert [record["sample"] for record in run["samples"]] == list(range(10))


@pytest.mark.parametrize("damage", ["truncated", "gone", "marker"])
def test_a_damaged_chunk_is_made_again(
    make_tiny: Any, whole: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    with monkeypatch.context() as patch:
        pipe = make_tiny()
        interrupt_at(pipe, patch, 8, KeyboardInterrupt())
        generation.run_job(pipe, tmp_path, **JOB)
    chunk = tmp_path / ".job" / "000000.npz"
    if damage == "gone":
        chunk.unlink()
    else:
        chunk = chunk if damage == "truncated" else chunk.with_suffix(".json")
        chunk.write_bytes(chunk.read_bytes()[:-9])
    for killed in (tmp_path / ".molecules.sdf.a1.tmp", tmp_path / ".job" / ".000009.npz.a1.tmp"):
        killed.write_text("half")
    assert generation.run_job(make_tiny(), tmp_path, **JOB) == 0
    assert hashes(tmp_path) == whole


def test_the_same_command_again_does_nothing(
    make_tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generation.run_job(make_tiny(), tmp_path, **JOB)
    before = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}
    pipe = make_tiny()
    made = count_samples(pipe, monkeypatch)
    assert generation.run_job(pipe, tmp_path, **JOB) == 0
    assert made == []
    assert "already holds the result" in capsys.readouterr().out
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()} == before


OTHER = [
    ({"seed": 2}, "seed 1 there, 2 asked for"),
    ({"num_samples": 11}, "num_samples 10 there, 11 asked for"),
    ({"call": {"solver": "ddim"}}, 'solver "dpm\\+\\+2m" there, "ddim" asked for'),
    ({"call": {"num_atoms": 5}}, "num_atoms not given there, 5 asked for"),
]


@pytest.mark.parametrize(("changed", "says"), OTHER)
@pytest.mark.parametrize("finished", [True, False])
def test_other_settings_are_refused(
    make_tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], says: str, finished: bool
) -> None:
    with monkeypatch.context() as patch:
        pipe = make_tiny()
        if not finished:
            interrupt_at(pipe, patch, 4, KeyboardInterrupt())
        generation.run_job(pipe, tmp_path, **JOB)
    before = sorted(p.name for p in tmp_path.rglob("*"))
    made = count_samples(pipe, monkeypatch)
    with pytest.raises(InputError, match=says) as caught:
        generation.run_job(make_tiny(), tmp_path, **{**JOB, **changed})
    assert "\n" not in str(caught.value)
    assert made == []
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


def test_another_checkpoint_is_refused_by_its_name(make_tiny: Any, tmp_path: Path) -> None:
    generation.run_job(make_tiny(), tmp_path, **JOB)
    other = make_tiny(sizes={"4": 1})
    other.name = "other"
    with pytest.raises(InputError, match=r"checkpoint .* there, other .* asked for"):
        generation.run_job(other, tmp_path, **JOB)


def test_files_of_somebody_else_are_kept(make_tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "molecules.sdf").write_text("mine")
    with pytest.raises(InputError, match=r"holds molecules\.sdf, which is not of this job"):
        generation.run_job(make_tiny(), tmp_path, **JOB)
    assert (tmp_path / "molecules.sdf").read_text() == "mine"
    (tmp_path / "molecules.sdf").unlink()
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match="damaged or was not written by"):
        generation.run_job(make_tiny(), tmp_path, **JOB)


def _hold(folder: str, ready: Any, done: Any) -> None:
    with generation._alone(Path(folder)):
        ready.set()
        done.wait(60)


def test_two_processes_with_one_folder(make_tiny: Any, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(str(tmp_path), ready, done))
    other.start()
    try:
        assert ready.wait(60)
        with pytest.raises(InputError, match="another multidiff is writing into"):
            generation.run_job(make_tiny(), tmp_path, **JOB)
    finally:
        done.set()
        other.join()
    assert generation.run_job(make_tiny(), tmp_path, **JOB) == 0


def test_a_disk_that_is_too_small_is_known_beforehand(
    make_tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = make_tiny()
    made = count_samples(pipe, monkeypatch)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3_000_000))
    with pytest.raises(InputError, match=r"room for 3.0 MB, and the job needs about 8.0 MB"):
        generation.run_job(pipe, tmp_path, **{**JOB, "num_samples": 1000})
    assert made == []


def test_a_disk_that_fills_on_the_way(
    make_tiny: Any, whole: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, count = np.savez_compressed, 0

    def full(file: Any, **arrays: Any) -> None:
        nonlocal count
        count += 1
        if count == 3:
            file.write(b"half of it")
        if count >= 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file, **arrays)

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", full)
        with pytest.raises(InputError, match=r"disk full while writing .*; free some space and run the same command"):
            generation.run_job(make_tiny(), tmp_path, **JOB)
    assert sorted(p.name for p in (tmp_path / ".job").iterdir()) == [
        "000000.json", "000000.npz", "000001.json", "000001.npz", "job.json",
    ]  # fmt: skip
    made = count_samples(make_tiny(), monkeypatch)
    assert generation.run_job(make_tiny(), tmp_path, **JOB) == 0
    assert len(made) == 6
    assert hashes(tmp_path) == whole


def test_a_disk_that_fills_at_the_end(
    make_tiny: Any, whole: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("multidiff_molecules.output.grid_png", full)
        with pytest.raises(InputError, match=r"disk full while writing .*molecules\.png"):
            generation.run_job(make_tiny(), tmp_path, **JOB)
    made = count_samples(make_tiny(), monkeypatch)
    assert generation.run_job(make_tiny(), tmp_path, **JOB) == 0
    assert made == []
    assert hashes(tmp_path) == whole


def test_a_folder_that_cannot_be_written(make_tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = make_tiny()
    made = count_samples(pipe, monkeypatch)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        generation.run_job(pipe, tmp_path / "file" / "out", **JOB)
    with pytest.raises(InputError, match="cannot write"):
        generation.run_job(pipe, "/proc/out", **JOB)
    monkeypatch.setattr(files, "writable_folder", lambda f: Path(f))  # it vanishes after the look
    with pytest.raises((InputError, OSError)):
        generation.run_job(pipe, tmp_path / "gone", **JOB)
    assert made == []


def test_memory_that_runs_out_on_the_way(make_tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generation.run_job(make_tiny(), tmp_path / "a", num_samples=8, seed=1, batch_size=8)
    pipe = make_tiny()
    interrupt_at(pipe, monkeypatch, 2, torch.OutOfMemoryError("CUDA out of memory"))
    generation.run_job(pipe, tmp_path / "b", num_samples=8, seed=1, batch_size=8)
    told = [json.loads((tmp_path / name / "run.json").read_text())["samples"] for name in "ab"]
    assert told[0] == told[1]


def test_a_sample_that_is_not_finite_is_named(make_tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = make_tiny()
    real = pipe.denoiser.network.forward
    calls = 0

    def poisoned(*args: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        out = real(*args, **more)
        if calls == 2:
            out["positions"][1] = float("nan")
        return out

    monkeypatch.setattr(pipe.denoiser.network, "forward", poisoned)
    lost = pipe.batches(10, 1, 2)[0][1]
    assert generation.run_job(pipe, tmp_path, **JOB) == 0
    run = json.loads((tmp_path / "run.json").read_text())
    steps = {r["sample"]: r["not_finite_at_step"] for r in run["samples"] if "not_finite_at_step" in r}
    assert steps == {lost: 1}
    assert run["samples"][lost]["reason"] == "non-finite coordinates"
    assert run["counts"]["not_finite"] == 1
    assert len(run["samples"]) == 10


def test_bad_settings_leave_the_folder_alone(make_tiny: Any, tmp_path: Path) -> None:
    for call in ({"solver": "dmp++2m"}, {"grid": "karas"}, {"num_atoms": 99}, {"num_inference_steps": 10**6}):
        with pytest.raises(InputError):
            generation.run_job(make_tiny(), tmp_path / "out", **JOB, call=call)
    assert not (tmp_path / "out").exists()


def test_a_hundred_thousand_molecules_fit_in_memory(make_tiny: Any, tmp_path: Path) -> None:
    """Restoring costs the packed arrays and no object a molecule."""
    import tracemalloc

    made = make_tiny()(num_samples=50, seed=0, num_atoms=6)
    generated.store([made], tmp_path / "000000")
    paths = [tmp_path / "000000"] * 100
    tracemalloc.start()
    restored = generated.restore(paths, {}, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(restored.molecules) == 5_000
    assert peak < 5_000 * 1500
    assert np.array_equal(restored.molecules[99].positions, made.molecules[0].positions)
