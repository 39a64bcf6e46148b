"""The command line: what it accepts, what it says otherwise, and with which exit code."""

from __future__ import annotations

import argparse
import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from multidiff import checkpoint, cli, domain
from multidiff.cli import COMMANDS, fit, listing, main, options
from multidiff.errors import InputError

PYTHON = [sys.executable, "-m", "multidiff"]


def _atoms(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--num-atoms", type=options.whole(1), metavar="N")


def _prompt(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", nargs="?")


def prepared(source: Path, output: Path, **extra: Any) -> str:
    output.write_text(f"{source.name} {extra}")
    return "1 packed, 0 skipped"


def evaluated(path: Path, reference: Path | None, **extra: Any) -> dict[str, Any]:
    return {"count": 3, "valid": {"generated": 0.75}, "reference": str(reference)}


class Pipe:
    def to(self, device: object) -> Pipe:
        return self


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A domain called toy with a checkpoint, a recipe and one option of its own; returns its folder."""
    import torch

    home = tmp_path / "home"
    checkpoint.save(
        home / "pretrained" / "toy-1",
        {"domain": "toy", "recommended": {"solver": "ddim"}},
        {"w": torch.zeros(3, 4)},
        "# Toy",
    )
    (home / "configs").mkdir()
    (home / "configs" / "toy-small.yaml").write_text("# A small one\nmodel: {}\n")
    here = __name__
    made = domain.Domain(
        "toy",
        "a toy",
        home,
        "toy-1",
        prepare=f"{here}:prepared",
        evaluate=f"{here}:evaluated",
        generate_arguments=f"{here}:_atoms",
    )
    monkeypatch.setattr(domain, "names", lambda: ["toy"])
    real = domain.find
    monkeypatch.setattr(domain, "find", lambda name: made if name == "toy" else real(name))
    monkeypatch.setattr(domain, "load", lambda reference: globals()[reference.partition(":")[2]])
    return home


@pytest.fixture
def jobs(toy: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `generate` hands over, without doing it."""
    import types

    import multidiff

    seen: list[dict[str, Any]] = []

    def run_job(pipe: object, out: Path, **settings: Any) -> None:
        seen.append({"out": out, **settings})

    fake = types.ModuleType("multidiff.generation")
    fake.run_job = run_job  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "multidiff.generation", fake)
    monkeypatch.setitem(vars(multidiff), "generation", fake)
    monkeypatch.setitem(vars(multidiff), "load", lambda folder: Pipe())
    return seen


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """The one line that a refused command prints."""
    assert main(args) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("multidiff: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_help_needs_no_torch_and_names_every_command() -> None:
    code = (
        "import sys; from multidiff.cli import main; code = main(['--help'])\n"
        "heavy = {'torch', 'numpy', 'lightning', 'rdkit', 'safetensors'} & set(sys.modules)\n"
        "sys.exit(code or (str(heavy) if heavy else 0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_help_teaches_by_example_without_torch(command: str) -> None:
    code = (
        f"import sys; from multidiff.cli import main\nsys.exit(main(['{command}', '--help']) or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"  multidiff {command} " in done.stdout or f"  multidiff {command}\n" in done.stdout


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("genrate", "generate"), ("fti", "fit"), ("lst", "list"), ("eval", "evaluate"), ("inf", "info")],
)
def test_misspelt_command(capsys: pytest.CaptureFixture[str], typed: str, meant: str) -> None:
    assert f"did you mean '{meant}'?" in refused(capsys, typed)


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        (["--num-sample", "3"], "did you mean '--num-samples'?"),
        (["--sede=3"], "did you mean '--seed'?"),
        (["--ouut", "x"], "did you mean '--out'?"),
        (["--num-atom", "3"], "did you mean '--num-atoms'?"),
        (["--zzzzzz"], "unknown option '--zzzzzz'"),
        (["--num-samples", "0"], "--num-samples: must be an integer, 1 or more, not 0"),
        (["--num-samples", "-3"], "not -3"),
        (["--num-samples", "1.5"], "not '1.5'"),
        (["--num-samples", ""], "not ''"),
        (["--num-atoms", "0"], "--num-atoms"),
        (["--steps", "0"], "--steps: must be an integer from 1 to"),
        (["--steps", "1000000"], "--steps: must be an integer from 1 to"),
        (["--batch-size", "0"], "--batch-size"),
        (["--seed", "-1"], "not -1"),
        (["--seed", str(2**63)], f"not {2**63}"),
        (["--seed", "1.0"], "--seed"),
        (["--seed"], "--seed"),
        (["--guidance-scale", "nan"], "finite"),
        (["--guidance-scale", "inf"], "finite"),
        (["--guidance-scale", "-1"], "not '-1'"),
        (["--guidance-scale", "much"], "not 'much'"),
        (["--device", "cdua"], "did you mean 'cuda'?"),
        (["a prompt"], "unexpected argument 'a prompt'"),
        (["--checkpoint", "toy-2"], "did you mean 'toy-1'?"),
        (["--checkpoint", "/not/there"], "/not/there"),
        ([], "--out"),
    ],
)
def test_bad_option(
    jobs: list, tmp_path: Path, capsys: pytest.CaptureFixture[str], typed: list[str], says: str
) -> None:
    out = ["--out", str(tmp_path / "o")] if typed else []
    assert says in refused(capsys, "generate", "toy", *out, *typed)
    assert jobs == []


def test_generate_hands_over_what_was_asked(jobs: list, tmp_path: Path) -> None:
    out = tmp_path / "o"
    assert main(["generate", "toy", "-n", "5", "--out", str(out), "--seed", str(2**63 - 1), "--device", "cpu"]) == 0
    assert jobs[0].pop("load_seconds") >= 0
    assert jobs == [{"out": out, "num_samples": 5, "seed": 2**63 - 1, "batch_size": None, "call": {}}]
    assert out.is_dir()
    given = ["--steps", "1", "--guidance-scale", "0", "--solver", "ddim", "--num-atoms", "9", "--batch-size", "2"]
    assert main(["generate", *given, "--out", str(out), "toy"]) == 0
    assert jobs[1]["call"] == {"num_inference_steps": 1, "guidance_scale": 0.0, "solver": "ddim", "num_atoms": 9}
    assert jobs[1]["batch_size"] == 2


@pytest.mark.parametrize("prompt", ["", "$(touch x)", "../../etc", "\N{SNOWMAN}\u202e", "a" * 100_000, "two words"])
def test_a_prompt_is_only_text(
    jobs: list, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prompt: str
) -> None:
    import dataclasses

    speaking = dataclasses.replace(domain.find("toy"), generate_arguments=f"{__name__}:_prompt")
    monkeypatch.setattr(domain, "find", lambda name: speaking)
    assert main(["generate", "toy", "--num-samples", "1", prompt, "--out", str(tmp_path / "o")]) == 0
    assert jobs[0]["call"] == {"prompt": prompt}
    assert os.listdir(tmp_path / "o") == []


def test_generate_refuses_before_it_works(jobs: list, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    (tmp_path / "file").write_text("x")
    assert "cannot write" in refused(capsys, "generate", "toy", "--out", str(tmp_path / "file" / "o"))
    assert "did you mean 'toy'?" in refused(capsys, "generate", "tooy", "--out", "o")
    other = checkpoint.save(tmp_path / "c", {"domain": "sound"}, {"w": torch.zeros(1)}, "")
    text = refused(capsys, "generate", "toy", "--out", str(tmp_path / "o"), "--checkpoint", str(other))
    assert "is a checkpoint for sound" in text
    assert jobs == []


def test_cuda_where_there_is_none(
    jobs: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    args = ["generate", "toy", "--out", str(tmp_path / "o"), "--device"]
    assert "no CUDA device" in refused(capsys, *args, "cuda")
    assert main([*args, "auto"]) == 0


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (InputError("a\nb"), 2, "multidiff: error: a b\n"),
        (KeyboardInterrupt(), 130, "multidiff: interrupted; what was finished is kept\n"),
        (OSError(errno.ENOSPC, "No space left on device", "x.sdf"), 2, "multidiff: error: disk full: x.sdf\n"),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 2, "multidiff: error: Permission denied: x\n"),
        (
            ModuleNotFoundError("No module named 'rdkit'", name="rdkit.Chem"),
            2,
            'multidiff: error: rdkit is not installed; it comes with: pip install "multidiff[molecules]"\n',
        ),
        (SystemExit(3), 3, ""),
        (SystemExit("no"), 2, "multidiff: error: no\n"),
        (SystemExit(None), 0, ""),
    ],
)
def test_exit_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, says: str
) -> None:
    def fail(args: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "_dispatch", fail)
    assert main([]) == code
    assert capsys.readouterr().err == says


@pytest.mark.parametrize("error", [ZeroDivisionError(), OSError(errno.EIO, "x"), ModuleNotFoundError(name="own_typo")])
def test_what_is_our_fault_is_not_hidden(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(args: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "_dispatch", fail)
    with pytest.raises(type(error)):
        main([])


def test_a_closed_pipe_is_quiet() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*PYTHON, "--help"], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_prepare(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.sdf").write_text("")
    assert main(["prepare", "toy", str(tmp_path / "in.sdf"), str(tmp_path / "out.npz")]) == 0
    assert capsys.readouterr().out == "1 packed, 0 skipped\n"
    assert (tmp_path / "out.npz").read_text() == "in.sdf {}"
    assert "no file or folder" in refused(capsys, "prepare", "toy", str(tmp_path / "gone"), "x")
    assert "OUTPUT" in refused(capsys, "prepare", "toy", "x")


def test_evaluate(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    figures = tmp_path / "f.json"
    assert main(["evaluate", "toy", str(tmp_path), "--json", str(figures)]) == 0
    assert "valid.generated  0.75\n" in capsys.readouterr().out
    assert json.loads(figures.read_text()) == evaluated(tmp_path, None)
    assert "no file or folder" in refused(
        capsys, "evaluate", "toy", str(tmp_path), "--reference", str(tmp_path / "gone")
    )


def test_list_and_info(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "checkpoints"]) == 0
    assert capsys.readouterr().out == "toy-1  for toy, the default\n"
    assert main(["list", "recipes"]) == 0
    assert capsys.readouterr().out == "toy-small  A small one\n"
    assert main(["list", "domains"]) == 0
    assert capsys.readouterr().out == "toy  a toy\n"
    assert "did you mean 'solvers'?" in refused(capsys, "list", "solver")
    for name in ("toy", "toy-1", str(toy / "pretrained" / "toy-1")):
        assert main(["info", name]) == 0
        out = capsys.readouterr().out
        assert "weights      12 in" in out
        assert "recommended  solver ddim" in out
        assert out.endswith("# Toy\n")


def test_info_of_a_damaged_checkpoint(toy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = toy / "pretrained" / "toy-1" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:20])
    assert main(["info", "toy-1"]) == 2
    assert str(path) in capsys.readouterr().err


def test_recipes_are_found_by_name(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = str(toy / "configs" / "toy-small.yaml")
    own = tmp_path / "own.yaml"
    own.write_text("")
    assert fit.with_recipes(["--config", "toy-small", "--a.b", "toy-small"]) == [
        "--config",
        recipe,
        "--a.b",
        "toy-small",
    ]
    assert fit.with_recipes([f"--config={own}"]) == [f"--config={own}"]
    assert "did you mean 'toy-small'?" in refused(capsys, "fit", "--config", "toy-smal")
    assert "no file gone.yaml" in refused(capsys, "fit", "--config", "gone.yaml")
    assert "needs a YAML" in refused(capsys, "fit", "--config")


@pytest.mark.parametrize("section", listing.REGISTRIES)
def test_every_name_of_the_core_is_listed_with_a_line(section: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", section]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert sorted(row.split()[0] for row in rows) == sorted(domain.load(listing.REGISTRIES[section]))
    assert all(len(row.split()) > 1 for row in rows)


def test_a_reference_may_name_an_attribute_of_an_attribute() -> None:
    assert domain.load("pathlib:Path.cwd")() == Path.cwd()
