"""The training loop of every domain: objective, optimiser, averaged weights, validation at fixed times and noise."""

from __future__ import annotations

import math
from typing import Any

import lightning
import torch
from torch import Tensor

from multidiff.denoiser import NetworkDenoiser
from multidiff.lightning.exporting import CONFIG
from multidiff.random import Rng, fold
from multidiff.state import batch_size, tensors
from multidiff.train.ema import EMA
from multidiff.train.objective import Objective

Batch = tuple[Any, Any, Any]
"""Clean states, their space, their condition."""


class DiffusionModule(lightning.LightningModule):
    """Trains a denoiser; a domain's own module builds the denoiser from plain numbers and strings.

    Args:
        denoiser: network, process and prediction.
        objective: the loss.
        learning_rate: at its peak.
        warmup_steps: linear rise of the learning rate.
        decay_fraction: last share of the run, in which the learning rate falls to zero along a straight line.
        weight_decay: of AdamW.
        ema_decay: of the averaged weights, which validation and checkpoints for use have.
        seed: of times and noise in training, with the step and the rank folded in.
    """

    def __init__(
        self,
        denoiser: NetworkDenoiser,
        objective: Objective,
        learning_rate: float = 1e-3,
        warmup_steps: int = 200,
        decay_fraction: float = 0.6,
        weight_decay: float = 1e-4,
        ema_decay: float = 0.999,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.objective = objective
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.warmup_steps, self.decay_fraction = warmup_steps, decay_fraction
        self.seed = seed
        self.ema = EMA(denoiser.network, ema_decay)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean loss of a batch."""
        x0, space, cond = batch
        rng = Rng.batch(fold(self.seed, self.global_step, self.global_rank), tensors(x0)[0].device)
        losses, parts = self.objective(self.denoiser, x0, rng, cond, space)
        loss = losses.mean()
        self.log("train/loss", loss, prog_bar=True)
        self.log_dict({f"train/{name}": value.mean() for name, value in parts.items()})
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The loss of the averaged weights at times and noise that are the same in every epoch."""
        x0, space, cond = batch
        rng = Rng.batch(fold(self.seed, batch_idx, 1 << 32), tensors(x0)[0].device)
        n = batch_size(x0)
        t = (torch.arange(n, dtype=torch.float64, device=tensors(x0)[0].device) + 0.5) / n
        losses, parts = self.objective(self.averaged(), x0, rng, cond, space, t=t)
        self.log("val/loss", losses.mean(), prog_bar=True, batch_size=n, sync_dist=True)
        self.log_dict({f"val/{k}": v.mean() for k, v in parts.items()}, batch_size=n, sync_dist=True)

    def export_config(self) -> dict[str, Any]:
        """config.json of the checkpoint folder that can be made of this module; plain JSON, see `checkpoint.save`."""
        raise NotImplementedError

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep with the weights what a folder made of them has to say."""
        checkpoint[CONFIG] = self.export_config()

    def averaged(self) -> NetworkDenoiser:
        """The denoiser with the averaged weights."""
        return NetworkDenoiser(self.ema.network, self.denoiser.process, self.denoiser.prediction)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """An optimiser step, and the average after it."""
        super().optimizer_step(*args, **kwargs)
        self.ema.update(self.denoiser.network, self.global_step - 1)

    def configure_optimizers(self) -> Any:
        """AdamW with a linear rise and a linear fall of the learning rate."""
        optimizer = torch.optim.AdamW(
            self.parameters_to_train(), lr=self.learning_rate, betas=(0.9, 0.99), weight_decay=self.weight_decay
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def parameters_to_train(self) -> list[torch.nn.Parameter]:
        """The network's own weights, not their averages."""
        return list(self.denoiser.network.parameters())

    def rate(self, step: int) -> float:
        """Share of the peak learning rate at an optimiser step."""
        total = self.trainer.estimated_stepping_batches
        rise = min(1.0, (step + 1) / self.warmup_steps)
        if math.isinf(total):
            return rise
        return rise * min(1.0, max(0.0, (total - step) / (self.decay_fraction * total)))
