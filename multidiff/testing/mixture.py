"""A diffusion problem with a known answer: the exact denoiser of a Gaussian mixture."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from multidiff.denoiser import Denoiser
from multidiff.process import Process
from multidiff.space import Space
from multidiff.state import State, expand_to, map_state


class GaussianMixture(Denoiser):
    """E[x0 | x_t] where x0 is drawn from a mixture of K Gaussians in D dimensions; in any process.

    A state is (B, ..., D), every vector of it a draw of its own; of a state of several parts, each part likewise.

    Args:
        process: schedule, or schedules by part.
        means: (K, D).
        covariances: (K, D, D).
        weights: (K,), equal if not given.
    """

    def __init__(self, process: Process, means: Tensor, covariances: Tensor, weights: Tensor | None = None) -> None:
        super().__init__()
        self.process = process
        self.means, self.covariances = means.double(), covariances.double()
        self.weights = (torch.ones(len(means)) if weights is None else weights).double() / len(means)
        self.weights = self.weights / self.weights.sum()
        self.variances, self.axes = torch.linalg.eigh(self.covariances)

    def forward(
        self, x: State, t: Tensor, cond: Any = None, space: Space | None = None, previous: State | None = None
    ) -> State:
        return map_state(self._estimate, x, self.process.alpha(t), self.process.sigma(t))

    def _estimate(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        alpha, sigma = (expand_to(c, x)[..., None].double() for c in (alpha, sigma))
        centred = x.double()[..., None, :] - alpha * self.means
        along = torch.einsum("...kd,kde->...ke", centred, self.axes)
        variance = alpha.square() * self.variances + sigma.square()
        log_density = -0.5 * (along.square() / variance + variance.log()).sum(-1) + self.weights.log()
        estimate = self.means + torch.einsum("...ke,kde->...kd", alpha * self.variances / variance * along, self.axes)
        return (log_density.softmax(-1)[..., None] * estimate).sum(-2).to(x.dtype)

    def mean(self) -> Tensor:
        """(D,) mean of the data."""
        return self.weights @ self.means

    def covariance(self) -> Tensor:
        """(D, D) covariance of the data."""
        spread = self.means - self.mean()
        return torch.einsum("k,kij->ij", self.weights, self.covariances + spread[:, :, None] * spread[:, None, :])


def gaussian(process: Process, covariance: Tensor, mean: Tensor | None = None) -> GaussianMixture:
    """A single Gaussian: every solver is linear on it, so that its result is known in closed form."""
    mean = torch.zeros(len(covariance)) if mean is None else mean
    return GaussianMixture(process, mean[None], covariance[None])


def seven(process: Process) -> GaussianMixture:
    """Seven anisotropic Gaussians in the plane, about unit deviation in all: the yardstick for solvers."""
    k = torch.arange(7, dtype=torch.float64)
    angle, radius = 2 * math.pi * k / 7, 1.0 + 0.35 * torch.cos(3 * k)
    means = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1)
    turn = 1.3 * k
    axes = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], dim=-1).reshape(7, 2, 2)
    deviations = torch.stack([0.10 + 0.03 * k, 0.35 - 0.04 * k], dim=-1)
    covariances = axes @ torch.diag_embed(deviations.square()) @ axes.mT
    return GaussianMixture(process, means, covariances, 1.0 + 0.5 * torch.sin(k))
