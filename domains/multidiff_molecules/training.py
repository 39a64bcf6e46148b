"""What `multidiff fit` needs to train on molecules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np

from multidiff.denoiser import NetworkDenoiser
from multidiff.lightning.module import Batch, DiffusionModule
from multidiff.process import Process
from multidiff.schedule import Cosine
from multidiff.train.objective import Objective
from multidiff.train.weighting import EDM, Sigmoid
from multidiff_molecules.data import BatchOrder, Bucket, buckets
from multidiff_molecules.molecule import PackedMolecules
from multidiff_molecules.network import MoleculeNetwork
from multidiff_molecules.representation import Vocabulary


class MoleculeModule(DiffusionModule):
    """The molecule network, its cosine process and its loss.

    Args:
        elements: atomic numbers that can be generated.
        charges: formal charges that can be generated.
        position_scale: deviation of the coordinates, angstrom.
        width, vectors, pair_width, layers, heads: sizes of `MoleculeNetwork`.
        positions_weight, atoms_weight, charges_weight, bonds_weight: factors of the losses of the parts.
        compile: fuse the layers with torch.compile.
        training: see `DiffusionModule`.
    """

    def __init__(
        self,
        elements: Sequence[int] = (1, 6, 7, 8),
        charges: Sequence[int] = (-1, 0, 1),
        position_scale: float = 1.72,
        width: int = 128,
        vectors: int = 32,
        pair_width: int = 48,
        layers: int = 6,
        heads: int = 8,
        positions_weight: float = 1.0,
        atoms_weight: float = 0.4,
        charges_weight: float = 0.4,
        bonds_weight: float = 6.0,
        compile: bool = False,
        learning_rate: float = 1e-3,
        warmup_steps: int = 200,
        decay_fraction: float = 0.6,
        weight_decay: float = 1e-4,
        ema_decay: float = 0.999,
        seed: int = 0,
    ) -> None:
        vocabulary = Vocabulary(tuple(elements), tuple(charges), position_scale)
        network = MoleculeNetwork(
            len(elements), len(charges), width=width, vectors=vectors, pair_width=pair_width, layers=layers, heads=heads
        )
        objective = Objective(
            weighting={"positions": EDM(), "atoms": Sigmoid(), "charges": Sigmoid(), "bonds": Sigmoid()},
            parts={
                "positions": positions_weight,
                "atoms": atoms_weight,
                "charges": charges_weight,
                "bonds": bonds_weight,
            },
        )
        denoiser = NetworkDenoiser(network, Process(Cosine()), vocabulary.predictions())
        super().__init__(
            denoiser, objective, learning_rate, warmup_steps, decay_fraction, weight_decay, ema_decay, seed
        )
        self.vocabulary = vocabulary
        self.save_hyperparameters()
        self.sizes: dict[str, int] = {}
        if compile:
            for layer in network.layers:
                layer.compile(dynamic=False)

    def export_config(self) -> dict[str, Any]:
        """What config.json of a checkpoint folder says; the histogram of sizes comes from the data set."""
        return export_config(self.hparams, self.sizes)


RECOMMENDED = {"solver": "dpm++2m", "num_inference_steps": 50}
_NETWORK = ("width", "vectors", "pair_width", "layers", "heads")


def export_config(settings: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, Any]:
    """config.json for a network trained with these arguments of `MoleculeModule`.

    Args:
        settings: the module's arguments.
        sizes: number of atoms -> molecules of that size among those it was trained on.
    """
    elements, charges = [int(z) for z in settings["elements"]], [int(q) for q in settings["charges"]]
    network = {"class": "MoleculeNetwork", "num_elements": len(elements), "num_charges": len(charges)}
    return {
        "domain": "molecules",
        "network": network | {name: settings[name] for name in _NETWORK},
        "schedule": {"class": "Cosine"},
        "vocabulary": {"elements": elements, "charges": charges, "position_scale": settings["position_scale"]},
        "sizes": dict(sizes),
        "recommended": dict(RECOMMENDED),
    }


def size_histogram(molecules: PackedMolecules, split: int = 0) -> dict[str, int]:
    """Number of atoms, as text, -> molecules of that size in a split."""
    sizes, counts = np.unique(molecules.sizes[molecules.split == split], return_counts=True)
    return {str(size): int(count) for size, count in zip(sizes, counts, strict=True)}


class MoleculeData(lightning.LightningDataModule):
    """A packed file of molecules, held on the device as tensors.

    Args:
        path: what `multidiff prepare molecules` wrote.
        batch_size: molecules a step.
        edges: bucket sizes in atoms, ascending.
        seed: of the order of the batches.
    """

    def __init__(
        self, path: str, batch_size: int = 64, edges: Sequence[int] = (16, 18, 20, 24, 29), seed: int = 0
    ) -> None:
        super().__init__()
        self.path, self.batch_size, self.edges, self.seed = Path(path), batch_size, tuple(edges), seed
        self.buckets: dict[int, list[Bucket]] = {}

    def setup(self, stage: str) -> None:
        """Read the file once."""
        assert self.trainer is not None
        vocabulary = self.trainer.lightning_module.vocabulary
        molecules = PackedMolecules.load(self.path)
        self.buckets = {split: buckets(molecules, vocabulary, split, self.edges) for split in (0, 1)}
        self.trainer.lightning_module.sizes = size_histogram(molecules)

    def train_dataloader(self) -> Loader:
        return self._loader(0, shuffle=True)

    def val_dataloader(self) -> Loader:
        return self._loader(1, shuffle=False)

    def _loader(self, split: int, shuffle: bool) -> Loader:
        assert self.trainer is not None
        module = self.trainer.lightning_module
        order = BatchOrder([len(b) for b in self.buckets[split]], self.batch_size, self.seed, shuffle)
        return Loader([b.to(module.device) for b in self.buckets[split]], order, module.vocabulary)


class Loader:
    """Iterates the batches of one epoch after another."""

    def __init__(self, held: Sequence[Bucket], order: BatchOrder, vocabulary: Vocabulary) -> None:
        self.held, self.order, self.vocabulary = held, order, vocabulary
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Batch]:
        for k, rows in self.order.epoch(self.epoch):
            yield *self.held[k].batch(rows.to(self.held[k].sizes.device), self.vocabulary), None
        self.epoch += 1
