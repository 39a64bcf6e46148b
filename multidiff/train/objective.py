"""The training loss: diffuse, ask the network, weigh the error of x0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from multidiff.denoiser import NetworkDenoiser
from multidiff.prediction import Categorical, Prediction
from multidiff.random import Rng
from multidiff.space import Product, Space
from multidiff.state import Parts, State, batch_size, expand_to, pick, tensors
from multidiff.train.times import TimeDensity, Uniform
from multidiff.train.uncertainty import Uncertainty
from multidiff.train.weighting import EDM, Weighting


@dataclass(frozen=True)
class Objective:
    """Denoising loss of a network, for any state, prediction and schedule.

    Attributes:
        weighting: on the error of x0; one for the state, or one a part.
        parts: factor of each part's loss; 1 where a part is not named.
        times: how noise levels are drawn.
        self_conditioning: share of the steps in which the network sees its own first estimate (Chen et al. 2022).
    """

    weighting: Weighting | Mapping[str, Weighting] = field(default_factory=EDM)
    parts: Mapping[str, float] = field(default_factory=dict)
    times: TimeDensity = field(default_factory=Uniform)
    self_conditioning: float = 0.5

    def __call__(
        self,
        denoiser: NetworkDenoiser,
        x0: State,
        rng: Rng,
        cond: Any = None,
        space: Space | None = None,
        t: Tensor | None = None,
        uncertainty: Uncertainty | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(B,) losses, and the loss (B,) of each part before its factor.

        Args:
            denoiser: the network to train.
            x0: clean states.
            rng: of times and noise.
            cond, space: handed to the denoiser.
            t: (B,) times, or (B, N) for networks that take a time for each row; drawn from `times` by default.
            uncertainty: weighs the loss of each part by what it has learned of it; the losses of the parts that are
                returned are those before it.
        """
        space = space or denoiser.process.space
        if t is None:
            t = self.times.draw(batch_size(x0), denoiser.process, rng, tensors(x0)[0].device)
        x, eps = denoiser.process.diffuse(x0, t, rng, space)
        previous = self._previous(denoiser, x, t, rng, cond, space)
        output = denoiser.output(x, t, cond, space, previous)
        losses = self._losses(denoiser, output, x0, eps, t, space)
        weighed = losses
        if uncertainty is not None:
            log_snr = denoiser.process.log_snr(t)
            weighed = {name: uncertainty.weigh(loss, pick(log_snr, name), name) for name, loss in losses.items()}
        total = torch.stack([self.parts.get(name, 1.0) * loss for name, loss in weighed.items()]).sum(0)
        return total, losses

    def _previous(
        self, denoiser: NetworkDenoiser, x: State, t: Tensor, rng: Rng, cond: Any, space: Space
    ) -> State | None:
        if not denoiser.self_conditioning or rng.coin() >= self.self_conditioning:
            return None
        with torch.no_grad():
            return denoiser(x, t, cond, space)

    def _losses(
        self, denoiser: NetworkDenoiser, output: State, x0: State, eps: State, t: Tensor, space: Space
    ) -> dict[str, Tensor]:
        process = denoiser.process
        alpha, sigma, log_snr = process.alpha(t), process.sigma(t), process.log_snr(t)
        if not isinstance(output, Parts):
            output, x0, eps = Parts(state=output), Parts(state=x0), Parts(state=eps)  # type: ignore[arg-type]
        assert isinstance(x0, Parts)
        assert isinstance(eps, Parts)
        losses = {}
        for name, out in output.items():
            prediction = pick(denoiser.prediction, name)
            a, s = pick(alpha, name), pick(sigma, name)
            weight = pick(self.weighting, name)(pick(log_snr, name))
            error = part_error(prediction, out.float(), x0[name].float(), eps[name].float(), a, s, weight)
            own = space.spaces[name] if isinstance(space, Product) else space
            losses[name] = own.mean(error)
        return losses


def part_error(
    prediction: Prediction | Categorical,
    output: Tensor,
    x0: Tensor,
    eps: Tensor,
    alpha: Tensor,
    sigma: Tensor,
    weight: Tensor,
) -> Tensor:
    """Weighted error of each entry: squared error of x0, or cross-entropy a row for categorical parts.

    The squared error of x0 is computed from the network's own target, which is exact at low noise:
    |x0_hat - x0| = error_scale |F_hat - F|.
    """
    if isinstance(prediction, Categorical):
        classes = prediction.classes(x0)
        alpha, sigma = expand_to(alpha.float(), x0), expand_to(sigma.float(), x0)
        logits = prediction.logits(output, alpha * x0 + sigma * eps, alpha, sigma)
        entropy = F.cross_entropy(logits.flatten(0, -2), classes.flatten(), reduction="none").view(classes.shape)
        return entropy[..., None] * expand_to(weight, x0)
    scale = prediction.error_scale(alpha, sigma).square() * weight
    target = prediction.target(x0, eps, expand_to(alpha, x0), expand_to(sigma, x0))
    return (output - target).square() * expand_to(scale, x0)
