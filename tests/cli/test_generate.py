"""`multidiff generate molecules` from the command to the files, and every wrong input on the way."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("rdkit")

from multidiff.cli import main

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def generate(tiny: Path, out: Path, *more: str) -> list[str]:
    return ["generate", "molecules", "--checkpoint", str(tiny), "--device", "cpu", "--out", str(out), *more]


def refused(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("multidiff: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_end_to_end(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    options = ["-n", "5", "--seed", "7", "--steps", "1", "--solver", "ddim", "--grid", "karras", "--num-atoms", "5"]
    assert main(generate(tiny, out, *options, "--batch-size", "2", "--guidance-scale", "2")) == 0
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        "multidiff: warning: guidance scale 2: tiny has no condition to guide by; it changes nothing",
        "multidiff: warning: 1 steps: tiny is recommended with 2 to 50",
    ]
    assert captured.out.endswith(f"open {out / 'molecules.sdf'}\n")
    run = json.loads((out / "run.json").read_text())
    assert run["settings"] == {"solver": "ddim", "grid": "karras", "num_inference_steps": 1, "num_atoms": 5}
    assert run["seed"] == 7
    with open(out / "molecules.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["sample"] for row in rows] == list("01234")
    assert [bool(int(row["valid"])) for row in rows] == [record["valid"] for record in run["samples"]]
    records = (out / "molecules.sdf").read_text().count("$$$$")
    frames = sum(line.startswith("sample=") for line in (out / "rejected.xyz").read_text().splitlines())
    assert (records, frames) == (run["counts"]["valid"], run["counts"]["rejected"])
    assert records + frames == 5


def test_help_names_the_options_of_molecules(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "molecules", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(option in said for option in ("--num-atoms", "--grid", "--num-samples", "--batch-size"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--solver", "dmp++2m"], "did you mean 'dpm++2m'?"),
        (["--grid", "karas"], "did you mean 'karras'?"),
        (["--num-atoms", "99"], "num_atoms 99 is far beyond"),
        (["--num-atoms", "0"], "--num-atoms: must be an integer, 1 or more"),
        (["--num-samples", "0"], "--num-samples"),
        (["--num-samples", "-5"], "--num-samples"),
        (["--num-samples", "1" + "0" * 15], "MB"),
        (["--steps", "0"], "--steps"),
        (["--steps", "-1"], "--steps"),
        (["--seed", "-1"], "2**63 - 1"),
        (["--seed", str(2**63)], "2**63 - 1"),
        (["--seed", "0.5"], "2**63 - 1"),
        (["--guidance-scale", "nan"], "finite"),
    ],
)
def test_bad_options(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], says: str
) -> None:
    assert says in refused(capsys, generate(tiny, tmp_path / "out", *options))


def test_no_gpu(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no CUDA device" in refused(capsys, generate(tiny, tmp_path / "out", "--device", "cuda"))


@pytest.mark.parametrize("cut", [0, 7, 8, 100, 2000, -1])
def test_truncated_checkpoint(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], cut: int) -> None:
    bad = shutil.copytree(tiny, tmp_path / "bad")
    weights = bad / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:cut])
    assert "model.safetensors is damaged or was changed" in refused(capsys, generate(bad, tmp_path / "out"))


def test_other_bad_checkpoints(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert "/no/such/folder" in refused(capsys, generate(Path("/no/such/folder"), out))
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "is not a checkpoint" in refused(capsys, generate(empty, out))
    bad = shutil.copytree(tiny, tmp_path / "bad")
    weights = bytearray((bad / "model.safetensors").read_bytes())
    weights[-5] ^= 1
    (bad / "model.safetensors").write_bytes(weights)
    assert "its sha256 is not the one" in refused(capsys, generate(bad, out))
    (bad / "config.json").write_text("{")
    assert "not valid JSON" in refused(capsys, generate(bad, out))
    torch.save({"w": torch.zeros(1)}, tmp_path / "weights.pt")
    assert "is a pickle" in refused(capsys, generate(tmp_path / "weights.pt", out))
    assert "unknown checkpoint" in refused(capsys, generate(Path("molecules-qm8"), out))


def test_a_folder_that_cannot_be_written(tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot write" in refused(capsys, generate(tiny, tmp_path / "file"))
    assert "cannot write" in refused(capsys, generate(tiny, Path("/proc/out")))


def test_a_second_run_of_other_settings_is_refused(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(generate(tiny, tmp_path, "-n", "2")) == 0
    assert main(generate(tiny, tmp_path, "-n", "2", "--batch-size", "1")) == 0
    assert "nothing to do" in capsys.readouterr().out
    said = refused(capsys, generate(tiny, tmp_path, "-n", "2", "--seed", "1"))
    assert "seed 0 there, 1 asked for" in said


def test_ctrl_c_and_the_same_command_again(tiny: Path, tmp_path: Path) -> None:
    """A real signal to a real process, in the middle of its work."""
    job = ["-n", "24", "--steps", "40", "--batch-size", "1"]
    slow = (
        "import time, sys\nfrom multidiff import generation\ngeneration.KEEP_EVERY = -1\n"
        "from multidiff_molecules.network import MoleculeNetwork as M\nreal = M.forward\n"
        "def forward(*a, **k):\n    time.sleep(0.01)\n    return real(*a, **k)\n"
        "M.forward = forward\nfrom multidiff.cli import main\nsys.exit(main(sys.argv[1:]))"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", slow, *generate(tiny, tmp_path / "a", *job)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ONE_THREAD,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (tmp_path / "a" / ".job" / "000001.json").exists():
        assert time.monotonic() < deadline
        assert first.poll() is None, first.stderr.read() if first.stderr else ""
        time.sleep(0.02)
    first.send_signal(signal.SIGINT)
    said = first.communicate(timeout=60)
    assert first.returncode == 130, said
    assert said[1].startswith("multidiff: interrupted; ")
    assert said[1].count("\n") == 1
    assert os.listdir(tmp_path / "a") == [".job"]
    assert main(generate(tiny, tmp_path / "a", *job)) == 0
    assert main(generate(tiny, tmp_path / "b", *job)) == 0
    for name in ("molecules.sdf", "molecules.csv", "rejected.xyz", "molecules.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_nothing_is_imported_in_vain(tiny: Path, tmp_path: Path) -> None:
    """A cold start pays for torch and RDKit, and for none of these."""
    code = (
        "import sys\nfrom multidiff.cli import main\ncode = main(sys.argv[1:])\n"
        "vain = {'lightning', 'scipy', 'sympy', 'diffusers', 'e3nn', 'matplotlib', 'pandas', 'torch._dynamo'}\n"
        "sys.exit(code or str(vain & set(sys.modules)) if code or vain & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *generate(tiny, tmp_path / "out", "-n", "1")],
        capture_output=True, text=True, env=ONE_THREAD,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
