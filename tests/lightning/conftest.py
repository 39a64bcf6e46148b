"""Tiny molecules made in code, and a run of `fit` on them in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from multidiff.lightning.callbacks import Checkpoints, Pictures
from multidiff.lightning.checkpoint_io import AtomicCheckpointIO
from multidiff_molecules.molecule import Molecule, PackedMolecules
from multidiff_molecules.training import MoleculeData, MoleculeModule

TINY: dict[str, Any] = {"width": 16, "vectors": 4, "pair_width": 8, "layers": 1, "heads": 4, "warmup_steps": 3}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """72 chains of carbon with hydrogens at made-up places: 48 to train on, 12 each to validate and test."""
    rng = np.random.default_rng(0)
    molecules = [_chain(1 + i % 2, rng) for i in range(72)]
    split = [1 if i % 6 == 0 else 2 if i % 6 == 1 else 0 for i in range(72)]
    path = tmp_path_factory.mktemp("data") / "tiny.npz"
    PackedMolecules.pack(molecules, ["C"] * 72, split).save(path)
    return path


def _chain(carbons: int, rng: np.random.Generator) -> Molecule:
    """Methane or ethane."""
    atoms = [6] * carbons
    bonds = [(k, k + 1) for k in range(carbons - 1)]
    for carbon in range(carbons):
        for _ in range(4 - sum(carbon in bond for bond in bonds)):
            bonds.append((carbon, len(atoms)))
            atoms.append(1)
    orders = np.zeros((len(atoms), len(atoms)), np.int8)
    for i, j in bonds:
        orders[i, j] = orders[j, i] = 1
    places = rng.normal(size=(len(atoms), 3)).astype(np.float32)
    return Molecule(np.array(atoms, np.int8), places, np.zeros(len(atoms), np.int8), orders)


class At(Callback):
    """Calls a function before one optimiser step."""

    def __init__(self, step: int, action: Callable[[Any], None]) -> None:
        self.step, self.action, self.done = step, action, False

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step and not self.done:
            self.done = True
            self.action(pl_module)


@pytest.fixture
def at() -> type[At]:
    return At


Fit = Callable[..., lightning.Trainer]


@pytest.fixture
def fit(data_path: Path, tmp_path: Path) -> Fit:
    """Trains in the folder `name` and returns the trainer; SystemExit and errors of the run are the caller's."""

    def run(
        name: str = "run",
        ckpt_path: Path | None = None,
        callbacks: tuple[Callback, ...] = (),
        every_n_steps: int = 1000,
        model: dict[str, Any] | None = None,
        batch_size: int = 8,
        plugins: tuple[Any, ...] = (),
        **options: Any,
    ) -> lightning.Trainer:
        torch.manual_seed(0)
        module = MoleculeModule(**TINY | (model or {}))
        trainer = lightning.Trainer(
            default_root_dir=tmp_path / name,
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            plugins=[AtomicCheckpointIO(), *plugins],
            callbacks=[*callbacks, Checkpoints(every_n_steps), Pictures(0)],
            **{"max_epochs": 2, "limit_val_batches": 1, **options},
        )
        data = MoleculeData(str(data_path), batch_size=batch_size)
        trainer.fit(module, data, ckpt_path=ckpt_path)
        return trainer

    return run


@pytest.fixture
def last(tmp_path: Path) -> Callable[[str], Path]:
    """The checkpoint of the run in the folder `name`."""
    return lambda name="run": tmp_path / name / "checkpoints" / "last.ckpt"
