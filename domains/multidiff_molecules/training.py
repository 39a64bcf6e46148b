"""What `multidiff fit` needs to train on molecules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from multidiff.denoiser import NetworkDenoiser
from multidiff.errors import InputError
from multidiff.lightning.callbacks import run_folder
from multidiff.lightning.exporting import averaged
from multidiff.lightning.module import DiffusionModule
from multidiff.process import Process
from multidiff.schedule import Cosine
from multidiff.train import times, weighting
from multidiff.train.objective import Objective
from multidiff.train.uncertainty import Uncertainty
from multidiff_molecules.loading import MoleculeData, size_histogram
from multidiff_molecules.network import MoleculeNetwork
from multidiff_molecules.pipeline import MoleculeOutput, MoleculePipeline
from multidiff_molecules.representation import Vocabulary

__all__ = ["MoleculeData", "MoleculeModule", "export_config", "size_histogram"]

RECOMMENDED = {
    "solver": "restart-sde",
    "solver_options": {"sigma_min": 0.2, "sigma_max": 0.45, "repeats": 5},  # where elements and bonds are decided
    "grid": "uniform",
    "num_inference_steps": 30,
    "steps_range": [20, 200],
}
_NETWORK = ("width", "vectors", "pair_width", "layers", "heads")


class MoleculeModule(DiffusionModule):
    """The molecule network, its cosine process and its loss.

    Args:
        elements: atomic numbers that can be generated.
        charges: formal charges that can be generated.
        position_scale: deviation of the coordinates, angstrom.
        width, vectors, pair_width, layers, heads, degree: of `MoleculeNetwork`.
        positions_weight, atoms_weight, charges_weight, bonds_weight: factors of the losses of the parts.
        times: how noise levels are drawn: uniform, power, log-normal or logit-normal.
        weighting: of the error of the positions: edm, min-snr, sigmoid or uniform.
        learned_uncertainty: learn a weight of each part's loss at each noise level.
        self_conditioning: share of the steps in which the network sees its own first estimate.
        compile: fuse the layers with torch.compile.
        learning_rate, warmup_steps, decay_fraction, weight_decay, ema_decay, seed: see `DiffusionModule`.
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
        degree: int = 1,
        positions_weight: float = 1.0,
        atoms_weight: float = 0.4,
        charges_weight: float = 0.4,
        bonds_weight: float = 6.0,
        times: str = "uniform",
        weighting: str = "edm",
        learned_uncertainty: bool = False,
        self_conditioning: float = 0.5,
        compile: bool = False,
        learning_rate: float = 1e-3,
        warmup_steps: int = 200,
        decay_fraction: float = 0.6,
        weight_decay: float = 1e-4,
        ema_decay: float = 0.999,
        seed: int = 0,
    ) -> None:
        if width % heads or vectors % heads:
            raise InputError(f"width {width} and vectors {vectors} must be multiples of heads {heads}")
        vocabulary = Vocabulary(tuple(elements), tuple(charges), position_scale)
        network = MoleculeNetwork(
            len(elements),
            len(charges),
            width=width,
            vectors=vectors,
            pair_width=pair_width,
            layers=layers,
            heads=heads,
            degree=degree,
        )
        factors = {
            "positions": positions_weight,
            "atoms": atoms_weight,
            "charges": charges_weight,
            "bonds": bonds_weight,
        }
        super().__init__(
            NetworkDenoiser(network, Process(Cosine()), vocabulary.predictions()),
            _objective(factors, times, weighting, self_conditioning),
            learning_rate,
            warmup_steps,
            decay_fraction,
            weight_decay,
            ema_decay,
            seed,
            Uncertainty(list(factors)) if learned_uncertainty else None,
        )
        self.vocabulary = vocabulary
        self.sizes: dict[str, int] = {}
        self.made: list[MoleculeOutput] = []
        self.save_hyperparameters()
        if compile:
            _compile(network)

    def export_config(self) -> dict[str, Any]:
        """What config.json of a checkpoint folder says; the histogram of sizes comes from the data set."""
        return export_config(self.hparams, self.sizes)

    def pipeline(self) -> MoleculePipeline:
        """A pipeline of the averaged weights as they are now."""
        pipe = MoleculePipeline.from_checkpoint(self.export_config(), averaged(self.state_dict()))
        return pipe.to(self.device)

    def picture(self, count: int) -> bytes | None:
        """A grid of those among `count` samples that are valid."""
        made = self.pipeline()(count, seed=self.seed)
        assert isinstance(made, MoleculeOutput)
        return made._repr_png_()

    def predict_step(self, batch: list[int], batch_idx: int) -> None:
        """Molecules with the sample numbers in `batch`; written when all are made."""
        made = self.pipeline()(len(batch), indices=batch, seed=self.seed)
        assert isinstance(made, MoleculeOutput)
        self.made.append(made)

    def on_predict_end(self) -> None:
        """Write them as `multidiff generate molecules` would."""
        joined = MoleculeOutput(
            molecules=[molecule for made in self.made for molecule in made.molecules],
            indices=[index for made in self.made for index in made.indices],
            failed={},
            recipe=self.made[0].recipe,
        )
        folder = run_folder(self.trainer) / "predictions"
        counts = joined.save(folder)
        print(f"{counts['valid']} of {counts['samples']} molecules are valid; they are in {folder}")


def _objective(factors: Mapping[str, float], density: str, kind: str, self_conditioning: float) -> Objective:
    bounded = weighting.Sigmoid()  # cross-entropy must not be weighed by a factor that grows without end
    return Objective(
        weighting={"positions": weighting.make(kind), "atoms": bounded, "charges": bounded, "bonds": bounded},
        parts=factors,
        times=times.make(density),
        self_conditioning=self_conditioning,
    )


def _compile(network: MoleculeNetwork) -> None:
    """Compile each layer; every bucket of sizes, with and without gradient, is a program of its own."""
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    for layer in network.layers:
        layer.compile(dynamic=False)


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
        "network": network | {name: settings[name] for name in _NETWORK} | {"degree": settings.get("degree", 1)},
        "schedule": {"class": "Cosine"},
        "vocabulary": {"elements": elements, "charges": charges, "position_scale": settings["position_scale"]},
        "sizes": dict(sizes),
        "recommended": dict(RECOMMENDED),
    }
