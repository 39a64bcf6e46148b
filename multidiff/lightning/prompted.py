"""Training where checkpoints are asked in words: the denoiser as config.json spells it, and what is predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from itertools import chain
from typing import Any, ClassVar

from multidiff import checkpoint
from multidiff.denoiser import NetworkDenoiser
from multidiff.domain import Domain, load
from multidiff.lightning.callbacks import run_folder
from multidiff.lightning.exporting import averaged
from multidiff.lightning.module import DiffusionModule
from multidiff.prediction import Prediction
from multidiff.process import Process
from multidiff.schedule import SCHEDULE_CLASSES

RECOMMENDED: Mapping[str, Any] = {
    "solver": "unipc2",
    "grid": "uniform",
    "num_inference_steps": 25,
    "steps_range": [5, 100],
    "guidance_scale": 3.0,
    "guidance_range": [1.0, 8.0],
}
"""To the users of a checkpoint, where its recipe says nothing else."""


class PromptedModule(DiffusionModule):
    """Base of the modules of such domains.

    Attributes:
        domain: whose components and pipeline are used.
        noun: what is made, in the plural.
        schedule_spec: the noise schedule, as config.json spells it.
    """

    domain: ClassVar[Domain]
    noun: ClassVar[str]
    schedule_spec: dict[str, Any]

    def network_config(self) -> dict[str, Any]:
        """The network as config.json spells it."""
        raise NotImplementedError

    def prompts(self, count: int) -> list[str]:
        """So many of the training data's."""
        raise NotImplementedError

    def built(self) -> NetworkDenoiser:
        """A new denoiser, predicting v, of the network and the schedule as they are spelled."""
        network = checkpoint.build(self.network_config(), self.domain.components, "model", "network")
        schedule = checkpoint.build(self.schedule_spec, SCHEDULE_CLASSES, "model", "shift")
        return NetworkDenoiser(network, Process(schedule), Prediction("v"))

    def pipeline(self) -> Any:
        """A pipeline of the averaged weights as they are now."""
        pipe = load(self.domain.pipeline)(self.export_config(), averaged(self.state_dict()))
        return pipe.to(self.device)

    def on_predict_start(self) -> None:
        """Nothing is made yet."""
        self.made: list[Any] = []

    def predict_step(self, batch: list[int], batch_idx: int) -> None:
        """The samples with the numbers in `batch`; written when all are made."""
        prompts = self.prompts(self.trainer.datamodule.num_samples)  # type: ignore[attr-defined]
        self.made.append(self.pipeline()(prompts, num_samples=len(batch), indices=batch, seed=self.seed))

    def on_predict_end(self) -> None:
        """Write them as `multidiff generate` would."""
        folder = run_folder(self.trainer) / "predictions"
        whole = joined(self.made)
        whole.save(folder)
        print(f"{len(whole)} {self.noun} are in {folder}")


def joined(outputs: Sequence[Any]) -> Any:
    """Outputs of the same call for different samples as one: lists end to end, the rest as in the first."""
    columns = {field.name: [getattr(output, field.name) for output in outputs] for field in fields(outputs[0])}
    lists = {name: list(chain(*parts)) for name, parts in columns.items() if isinstance(parts[0], list)}
    failed = {sample: step for part in columns["failed"] for sample, step in part.items()}
    return replace(outputs[0], **lists, failed=failed)
