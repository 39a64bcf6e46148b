"""Denoisers whose answers are known in closed form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from multidiff.denoiser import Denoiser
from multidiff.process import Process
from multidiff.schedule import Cosine
from multidiff.space import Space
from multidiff.state import State, expand_to


class Mixture(Denoiser):
    """Classes of isotropic Gaussians; the condition is a class (B,), -1 (or None) for any of them."""

    def __init__(self, means: Tensor, deviation: float, process: Process) -> None:
        super().__init__()
        self.means, self.deviation, self.process = means, deviation, process
        self.batches: list[int] = []
        self.told: list[State | None] = []

    def forward(
        self, x: State, t: Tensor, cond: Any = None, space: Space | None = None, previous: State | None = None
    ) -> State:
        assert isinstance(x, Tensor)
        self.batches.append(len(x))
        self.told.append(previous)
        means = self.means.to(x)
        alpha, sigma = (expand_to(f(t), x)[:, None] for f in (self.process.alpha, self.process.sigma))  # type: ignore
        gain = alpha * self.deviation**2 / (alpha**2 * self.deviation**2 + sigma**2)
        each = means + gain * (x[:, None] - alpha * means)  # (B, K, D)
        spread = alpha**2 * self.deviation**2 + sigma**2
        weight = (-(x[:, None] - alpha * means).square().sum(-1) / (2 * spread[..., 0])).softmax(-1)
        any_class = (weight[..., None] * each).sum(1)
        if cond is None:
            return any_class
        own = each[torch.arange(len(x)), cond.clamp(min=0)]
        return torch.where((cond < 0)[:, None], any_class, own)


class Gaussian(Denoiser):
    """A Gaussian of any covariance."""

    def __init__(self, mean: Tensor, covariance: Tensor, process: Process) -> None:
        super().__init__()
        self.mean, self.covariance, self.process = mean, covariance, process

    def spread(self, alpha: float, sigma: float) -> Tensor:
        """Covariance of x0 given x_t."""
        noisy = alpha**2 * self.covariance + sigma**2 * torch.eye(len(self.mean)).to(self.covariance)
        return self.covariance - alpha**2 * self.covariance @ torch.linalg.solve(noisy, self.covariance)

    def forward(
        self, x: State, t: Tensor, cond: Any = None, space: Space | None = None, previous: State | None = None
    ) -> State:
        assert isinstance(x, Tensor)
        (alpha,), (sigma,) = self.process.alpha(t[:1]).to(x), self.process.sigma(t[:1]).to(x)  # type: ignore[union-attr]
        noisy = alpha**2 * self.covariance + sigma**2 * torch.eye(len(self.mean)).to(x)
        gain = alpha * torch.linalg.solve(noisy, self.covariance)
        return self.mean + (x - alpha * self.mean) @ gain


@pytest.fixture
def process() -> Process:
    return Process(Cosine())


@pytest.fixture
def mixture(process: Process) -> Mixture:
    return Mixture(torch.tensor([[2.0, 0.0], [-1.0, 1.5], [0.0, -2.0]], dtype=torch.float64), 0.4, process)


@pytest.fixture
def noise() -> Tensor:
    return torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def labels() -> Tensor:
    return torch.tensor([0, 1, 2, 0, 1])


@pytest.fixture
def gaussian(process: Process) -> Gaussian:
    covariance = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
    return Gaussian(torch.tensor([0.5, -0.5], dtype=torch.float64), covariance, process)
