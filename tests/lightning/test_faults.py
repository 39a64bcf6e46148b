"""What happens when a disk is full, a process is killed, a signal comes or a loss is not finite."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.precision import MixedPrecision

from multidiff.errors import InputError
from multidiff.lightning.checkpoint_io import AtomicCheckpointIO, plain
from multidiff_molecules.training import MoleculeModule

Fit = Callable[..., Any]


# ------------------------------------------------------------------------------------------------------ the file


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {}, "x": 1}, path)

    def full(self: Path, data: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(InputError, match=r"disk full .*needs 0\.\d MB; the checkpoint that was there is intact"):
        AtomicCheckpointIO().save_checkpoint({"state_dict": {}, "x": 2}, path)
    assert torch.load(path, weights_only=True)["x"] == 1
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_killed_at_any_moment_the_last_complete_checkpoint_loads(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    script = (
        "import torch, sys, itertools\n"
        "from multidiff.lightning.checkpoint_io import AtomicCheckpointIO\n"
        "for i in itertools.count():\n"
        "    weights = {'w': torch.full((300_000,), float(i))}\n"
        f"    AtomicCheckpointIO().save_checkpoint({{'state_dict': weights}}, {str(path)!r})\n"
        "    print(i, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=_environment())
    assert process.stdout is not None
    process.stdout.readline()
    for delay in np.random.default_rng(0).uniform(0.0, 0.05, 12):  # the moments: freeze, look, go on
        time.sleep(delay)
        process.send_signal(signal.SIGSTOP)
        assert len(torch.load(path, weights_only=True)["state_dict"]["w"].unique()) == 1
        process.send_signal(signal.SIGCONT)
    process.kill()
    process.wait()
    assert len(torch.load(path, weights_only=True)["state_dict"]["w"].unique()) == 1


def test_only_plain_values_are_written(tmp_path: Path) -> None:
    strange = {"path": Path("a"), "number": np.float32(2.0), "array": np.arange(3), "edges": {1: (1, 2)}}
    AtomicCheckpointIO().save_checkpoint({"state_dict": {}, "hyper_parameters": strange}, tmp_path / "x.ckpt")
    saved = torch.load(tmp_path / "x.ckpt", weights_only=True)["hyper_parameters"]
    assert saved["path"] == "a"
    assert saved["number"] == 2.0
    assert saved["array"].tolist() == [0, 1, 2]
    assert saved["edges"] == {1: (1, 2)}
    with pytest.raises(TypeError, match=r"checkpoint\['model'\] is a Linear"):
        plain({"model": torch.nn.Linear(1, 1)})


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_damaged_checkpoint_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad.ckpt"
    torch.save({"state_dict": {"w": torch.zeros(1000)}}, path)
    path.write_bytes(path.read_bytes()[:2000] if content is None else content)
    with pytest.raises(InputError, match=r"bad\.ckpt is"):
        AtomicCheckpointIO().load_checkpoint(path)


def test_a_pickle_with_code_does_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "canary"),))

    torch.save({"state_dict": {}, "x": Trap()}, tmp_path / "trap.ckpt")
    with pytest.raises(InputError, match="holds more than plain values"):
        AtomicCheckpointIO().load_checkpoint(tmp_path / "trap.ckpt")
    assert not (tmp_path / "canary").exists()


# ------------------------------------------------------------------------------------------------------- the run


def test_a_folder_that_cannot_be_written_is_found_before_training(fit: Fit, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(InputError, match="cannot write"):
        fit("run")


def test_ctrl_c_saves_and_exits_with_130(fit: Fit, last: Any, at: Any, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as stop:
        fit(callbacks=(at(3, lambda _: os.kill(os.getpid(), signal.SIGINT)),))
    assert stop.value.code == 130
    assert torch.load(last(), weights_only=True)["global_step"] == 4
    assert f"--ckpt_path {last()}" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before


class Poison(Callback):
    """Makes the batches of some steps not finite."""

    def __init__(self, steps: set[int]) -> None:
        self.steps = steps
        self.before: dict[str, torch.Tensor] = {}
        self.changed: list[str] = []

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step in self.steps:
            batch[0]["positions"].fill_(float("nan"))
            self.before = {k: v.clone() for k, v in pl_module.denoiser.state_dict().items()}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step - 1 in self.steps:
            now = pl_module.denoiser.state_dict()
            self.changed += [name for name in now if not torch.equal(now[name], self.before[name])]


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_step_that_is_not_finite_changes_nothing(fit: Fit, last: Any, precision: str) -> None:
    poison = Poison({2, 5, 6})
    module = fit(callbacks=(poison,), precision=precision, gradient_clip_val=1.0).lightning_module
    assert module.skipped.tolist() == [3.0, 0.0]
    assert poison.changed == []
    assert all(weight.isfinite().all() for weight in module.state_dict().values())
    moments = torch.load(last(), weights_only=True)["optimizer_states"][0]["state"][0]
    assert moments["step"] == 12 - 3


def test_half_precision_with_a_scaled_loss(fit: Fit, last: Any) -> None:
    """Overflow is looked for on purpose there: such steps are left out, and do not end the run."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**26)
    precision = MixedPrecision("16-mixed", "cpu", scaler)
    module = fit(plugins=(precision,), gradient_clip_val=1.0, max_epochs=6).lightning_module
    assert 5 < int(module.skipped[0]) < 36
    assert all(weight.isfinite().all() for weight in module.state_dict().values())
    moments = torch.load(last(), weights_only=True)["optimizer_states"][0]["state"][0]
    assert moments["step"] == 36 - module.skipped[0]


def test_an_optimiser_of_another_make_leaves_the_step_out_too(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MoleculeModule, "configure_optimizers", lambda self: torch.optim.SGD(self.parameters(), 1e-3))
    poison = Poison({2, 5})
    fit(callbacks=(poison,))
    assert poison.changed == []


def test_five_steps_in_a_row_stop_the_run(fit: Fit, last: Any) -> None:
    with pytest.raises(InputError, match=r"step 9: .*5 times in a row.*last good checkpoint is .*last\.ckpt") as stop:
        fit(callbacks=(Poison({4, 5, 6, 7, 8}),), every_n_steps=3, max_epochs=3)
    assert "\n" not in str(stop.value)
    saved = torch.load(last(), weights_only=True)
    assert all(weight.isfinite().all() for weight in saved["state_dict"].values())


def test_gradient_clipping_bounds_the_norm(fit: Fit) -> None:
    norms = []

    class Norm(Callback):
        def on_before_zero_grad(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            grads = [p.grad for p in pl_module.parameters_to_train() if p.grad is not None]
            if grads:
                norms.append(float(torch.nn.utils.get_total_norm(grads)))

    fit(callbacks=(Norm(),), gradient_clip_val=1e-3, max_epochs=1)
    assert len(norms) == 5
    assert np.allclose(norms, 1e-3, rtol=1e-3)


def _environment() -> dict[str, str]:
    root = Path(__file__).parents[2]
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'domains'}", "OMP_NUM_THREADS": "1"}
