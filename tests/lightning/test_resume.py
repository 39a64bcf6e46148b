"""An interrupted and resumed run equals one that was not interrupted, bit for bit on the CPU."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from multidiff.lightning.data import Loader

Fit = Callable[..., Any]
At = Callable[[int, Callable[[Any], None]], Callback]

# 48 molecules in batches of 8: 6 batches an epoch.
PLACES = {"middle of both epochs": (2, 8), "start, end and middle of an epoch": (0, 5, 8), "twice in one epoch": (1, 3)}
STEPS = {"max_epochs": -1, "max_steps": 14, "val_check_interval": 4, "check_val_every_n_epoch": None}


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


def terminate(_: Any) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def interrupted(fit: Fit, last: Callable[[str], Path], at: At, steps: tuple[int, ...], **options: Any) -> Path:
    """SIGTERM in each of `steps`, resumed after each; the last checkpoint."""
    path: Path | None = None
    for i, step in enumerate(steps):
        with pytest.raises(SystemExit) as stop:
            fit(f"part{i}", ckpt_path=path, callbacks=(at(step, terminate),), **options)
        assert stop.value.code == 143
        path = last(f"part{i}")
        assert torch.load(path, weights_only=True)["global_step"] == step + 1
    fit("end", ckpt_path=path, **options)
    return last("end")


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("steps", PLACES.values(), ids=PLACES.keys())
def test_resumed_equals_uninterrupted(fit: Fit, last: Any, at: At, precision: str, steps: tuple[int, ...]) -> None:
    fit("straight", precision=precision)
    end = interrupted(fit, last, at, steps, precision=precision)
    assert differences(state(last("straight")), state(end)) == []


@pytest.mark.parametrize("steps", [(3, 9), (5, 7), (5, 11), (11, 12)])
def test_resumed_in_a_run_counted_in_steps(fit: Fit, last: Any, at: At, steps: tuple[int, ...]) -> None:
    fit("straight", **STEPS)
    end = interrupted(fit, last, at, steps, **STEPS)
    assert differences(state(last("straight")), state(end)) == []


@pytest.mark.parametrize(("first", "then"), [({"max_epochs": 1}, {"max_epochs": 3}), (STEPS | {"max_steps": 8}, STEPS)])
def test_a_finished_run_can_be_extended(fit: Fit, last: Any, first: dict[str, Any], then: dict[str, Any]) -> None:
    model = {"decay_fraction": 0.0}  # so that the learning rate does not depend on the length of the run
    fit("straight", model=model, **then)
    fit("short", model=model, **first)
    fit("long", model=model, ckpt_path=last("short"), **then)
    assert differences(state(last("straight")), state(last("long"))) == []


@pytest.mark.parametrize(
    "options",
    [
        {"accumulate_grad_batches": 4},
        STEPS | {"limit_val_batches": 0},
        {"limit_train_batches": 4, "max_epochs": 3},
        {"model": {"learned_uncertainty": True}},
    ],
    ids=["accumulation", "no validation", "limited epochs", "uncertainty"],
)
def test_resumed_under_other_settings(fit: Fit, last: Any, at: At, options: dict[str, Any]) -> None:
    fit("straight", **options)
    end = interrupted(fit, last, at, (1, 2), **options)
    assert differences(state(last("straight")), state(end)) == []


def test_resumed_from_a_periodic_checkpoint_after_a_crash(fit: Fit, last: Any, at: At) -> None:
    """The run dies without a word in step 9; the checkpoint of step 6, an end of an epoch, is what is left."""

    def die(_: Any) -> None:
        raise RuntimeError("power cut")

    fit("straight")
    with pytest.raises(RuntimeError, match="power cut"):
        fit("crashed", every_n_steps=6, callbacks=(at(9, die),))
    assert torch.load(last("crashed"), weights_only=True)["global_step"] == 6
    fit("end", ckpt_path=last("crashed"))
    assert differences(state(last("straight")), state(last("end"))) == []


def test_the_comparison_can_fail(fit: Fit, last: Any) -> None:
    fit("one", max_epochs=1)
    fit("other", max_epochs=1, model={"seed": 1})
    assert differences(state(last("one")), state(last("other")))


def test_each_epoch_has_an_order_of_its_own_and_every_molecule(fit: Fit) -> None:
    seen: list[torch.Tensor] = []

    class Watch(Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            seen.append(batch[0]["positions"].flatten(1).double().sum(1))

    fit(callbacks=(Watch(),))
    first, second = torch.cat(seen[:6]), torch.cat(seen[6:])
    assert len(first) == len(second) == 48
    assert not torch.equal(first, second)


def test_processes_share_every_batch(fit: Fit) -> None:
    """Two processes see together what one sees, so a run may be resumed on another number of them."""
    loader = fit(max_epochs=1).datamodule.train_dataloader()

    def positions(rank: int, processes: int) -> list[torch.Tensor]:
        mine = Loader(loader.held, loader.order, lambda: 4, (rank, processes))
        return [batch[0]["positions"] for batch, _ in zip(mine, range(4), strict=False)]

    for whole, first, second in zip(positions(0, 1), positions(0, 2), positions(1, 2), strict=True):
        assert torch.equal(whole[0::2], first)
        assert torch.equal(whole[1::2], second)
