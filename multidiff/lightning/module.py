"""The training loop of every domain: objective, optimiser, averaged weights, validation at fixed times and noise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_value_, clip_grads_with_norm_, get_total_norm

from multidiff.denoiser import NetworkDenoiser
from multidiff.lightning.exporting import CONFIG
from multidiff.random import Rng, fold
from multidiff.state import batch_size, tensors
from multidiff.train.ema import EMA
from multidiff.train.objective import Objective
from multidiff.train.uncertainty import Uncertainty

Batch = tuple[Any, Any, Any]
"""Clean states, their space, their condition."""

_SKIPPED = "multidiff_skipped"
_VALIDATION = 1 << 32


class DiffusionModule(lightning.LightningModule):
    """Trains a denoiser; a domain's own module builds the denoiser from plain numbers and strings.

    A step whose gradient is not finite changes nothing and is counted in `skipped`.

    Args:
        denoiser: network, process and prediction.
        objective: the loss.
        learning_rate: at its peak.
        warmup_steps: linear rise of the learning rate.
        decay_fraction: last share of the run, in which the learning rate falls to zero along a straight line.
        weight_decay: of AdamW.
        ema_decay: of the averaged weights, which validation and checkpoints for use have.
        seed: of times and noise in training, with the number of the batch and the rank folded in.
        uncertainty: learned weight of each part's loss at each noise level; trained with the network.
    """

    skipped: Tensor

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
        uncertainty: Uncertainty | None = None,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.objective = objective
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.warmup_steps, self.decay_fraction = warmup_steps, decay_fraction
        self.seed = seed
        self.uncertainty = uncertainty
        self.ema = EMA(denoiser.network, ema_decay)
        # Steps left out: in all, and without one that was taken between them.
        self.register_buffer("skipped", torch.zeros(2), persistent=False)

    # ------------------------------------------------------------------------------------------- what a domain adds

    def export_config(self) -> dict[str, Any]:
        """config.json of the checkpoint folder that can be made of this module; plain JSON, see `checkpoint.save`."""
        raise NotImplementedError

    def times(self, x0: Any, rng: Rng) -> Tensor | None:
        """The times of a batch in training; None for the objective's own draw."""
        return None

    def picture(self, count: int) -> bytes | None:
        """A PNG of `count` fresh samples of the averaged weights, always from the same noise; None if there is none."""
        return None

    # ---------------------------------------------------------------------------------------------------- the steps

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean loss of a batch; its random numbers follow from the seed, the batches before it and the rank."""
        x0, space, cond = batch
        rng = Rng.batch(fold(self.seed, self.trainer.fit_loop.total_batch_idx, self.global_rank), _device(x0))
        t = self.times(x0, rng)
        losses, parts = self.objective(self.denoiser, x0, rng, cond, space, t=t, uncertainty=self.uncertainty)
        loss = losses.mean()
        self.log("train/loss", loss, prog_bar=True)
        self.log_dict({f"train/{name}": value.mean() for name, value in parts.items()})
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The loss of the averaged weights at times and noise that are the same in every epoch."""
        self._evaluate(batch, batch_idx, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """As `validation_step`, on the test split."""
        self._evaluate(batch, batch_idx, "test")

    def _evaluate(self, batch: Batch, batch_idx: int, stage: str) -> None:
        x0, space, cond = batch
        rng = Rng.batch(fold(self.seed, batch_idx, _VALIDATION), _device(x0))
        n = batch_size(x0)
        t = (torch.arange(n, dtype=torch.float64, device=_device(x0)) + 0.5) / n
        losses, parts = self.objective(self.averaged(), x0, rng, cond, space, t=t)
        self.log(f"{stage}/loss", losses.mean(), prog_bar=True, batch_size=n, sync_dist=True)
        self.log_dict({f"{stage}/{k}": v.mean() for k, v in parts.items()}, batch_size=n, sync_dist=True)

    def averaged(self) -> NetworkDenoiser:
        """The denoiser with the averaged weights."""
        return NetworkDenoiser(self.ema.network, self.denoiser.process, self.denoiser.prediction)

    # ------------------------------------------------------------------------------------------------- optimisation

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """An optimiser step, and the average after it."""
        step = self.global_step
        super().optimizer_step(*args, **kwargs)
        self.ema.update(self.denoiser.network, step)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the gradient as the trainer says, and leave the step out if its norm is not finite."""
        norm = get_total_norm([p.grad for p in self.parameters_to_train() if p.grad is not None])
        missed = (~norm.isfinite()).float()
        # Fused AdamW reads this on the device, so nothing waits for it; a loss scaler leaves such steps out itself.
        if optimizer.defaults.get("fused"):
            optimizer.found_inf = missed  # type: ignore[attr-defined]
        elif not self.scales_loss and missed:
            optimizer.zero_grad()
        self.skipped = torch.stack([self.skipped[0] + missed, (self.skipped[1] + 1) * missed])
        self.log("train/grad_norm", norm)
        self.log("train/skipped_steps", self.skipped[0])
        if gradient_clip_val and gradient_clip_algorithm == "value":
            clip_grad_value_(self.parameters_to_train(), gradient_clip_val)
        elif gradient_clip_val:
            clip_grads_with_norm_(self.parameters_to_train(), gradient_clip_val, norm)

    def configure_optimizers(self) -> Any:
        """AdamW with a linear rise and a linear fall of the learning rate."""
        optimizer = torch.optim.AdamW(
            self.parameters_to_train(),
            lr=self.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=self.weight_decay,
            fused=not self.scales_loss,
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, self.rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @property
    def scales_loss(self) -> bool:
        """Whether the loss is scaled against underflow (float16); overflow is then looked for on purpose."""
        return getattr(self.trainer.precision_plugin, "scaler", None) is not None

    def parameters_to_train(self) -> list[torch.nn.Parameter]:
        """The network's own weights, not their averages."""
        return list(self._trained())

    def _trained(self) -> Iterator[torch.nn.Parameter]:
        yield from self.denoiser.network.parameters()
        if self.uncertainty is not None:
            yield from self.uncertainty.parameters()

    def rate(self, step: int) -> float:
        """Share of the peak learning rate at an optimiser step."""
        total = self.trainer.estimated_stepping_batches
        rise = min(1.0, (step + 1) / self.warmup_steps) if self.warmup_steps else 1.0
        if math.isinf(total) or not self.decay_fraction:
            return rise
        return rise * min(1.0, max(0.0, (total - step) / (self.decay_fraction * total)))

    # -------------------------------------------------------------------------------------------------- checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep with the weights what a folder made of them has to say."""
        checkpoint[CONFIG] = self.export_config()
        checkpoint[_SKIPPED] = self.skipped.tolist()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the count of steps left out."""
        self.skipped = torch.tensor(checkpoint.get(_SKIPPED, [0.0, 0.0]), device=self.skipped.device)


def _device(x0: Any) -> torch.device:
    return tensors(x0)[0].device
