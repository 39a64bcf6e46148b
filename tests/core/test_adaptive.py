"""Adaptive Runge-Kutta: its tolerance is kept, parts run on schedules of their own, ends are exact."""

from __future__ import annotations

import math

import pytest
import torch

from multidiff import adaptive, schedule
from multidiff.errors import InputError
from multidiff.process import Process
from multidiff.random import Rng
from multidiff.state import Parts
from multidiff.testing import mixture

COVARIANCE = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64)


def exact(x: torch.Tensor, process: Process, start: float, end: float, covariance: torch.Tensor) -> torch.Tensor:
    """The ODE of a Gaussian in closed form: each principal axis keeps its quantile."""
    variance, axes = torch.linalg.eigh(covariance)
    a, b = process.level(start), process.level(end)
    scale = ((b.alpha**2 * variance + b.sigma**2) / (a.alpha**2 * variance + a.sigma**2)).sqrt()
    return x @ axes * scale @ axes.T


@pytest.mark.parametrize("pair", adaptive.PAIRS)
@pytest.mark.parametrize("kind", ["cosine", "ve", "rectified-flow", "linear"])
def test_gaussian_in_closed_form(kind, pair):
    process = Process(schedule.make(kind))
    x = Rng.batch(0).normal((16, 2), torch.zeros(0, dtype=torch.float64)) * process.level(0.95).sigma
    tolerance = 1e-6 if pair == "bs32" else 1e-8
    denoiser = mixture.gaussian(process, COVARIANCE)
    result = adaptive.solve(denoiser, process, x, start=0.95, end=0.05, tolerance=tolerance, pair=pair)
    gap = (result.x - exact(x, process, 0.95, 0.05, COVARIANCE)).abs().max()
    assert gap < 300 * tolerance
    loose = adaptive.solve(denoiser, process, x, start=0.95, end=0.05, tolerance=1e-4, pair=pair)
    assert loose.calls < result.calls


@pytest.mark.parametrize("kind", ["cosine", "ve", "rectified-flow"])
def test_from_noise_to_the_clean_end(kind):
    process = Process(schedule.make(kind))
    level = process.level(1.0)
    x = Rng.batch(0).normal((16, 2), torch.zeros(0, dtype=torch.float64)) * level.sigma
    result = adaptive.solve(mixture.gaussian(process, COVARIANCE), process, x, tolerance=1e-5)
    torch.testing.assert_close(result.x, exact(x, process, 1.0, 0.0, COVARIANCE), rtol=0, atol=1e-3)


def test_orders_of_the_pairs():
    """The weights satisfy the order conditions that are linear in the nodes."""
    for pair in adaptive.PAIRS.values():
        weights = (*pair.stages[-1], 0.0)
        for power in range(pair.order):
            moment = math.fsum(w * c**power for w, c in zip(weights, pair.nodes, strict=True))
            assert moment == pytest.approx(1 / (power + 1), abs=1e-14)
        for node, row in zip(pair.nodes[1:], pair.stages, strict=True):
            assert math.fsum(row) == pytest.approx(node, abs=1e-14)
        assert math.fsum(pair.error) == pytest.approx(0, abs=1e-14)


def test_parts_with_schedules_of_their_own():
    process = Process({"a": schedule.Cosine(), "b": schedule.RectifiedFlow()})
    x = Parts(a=torch.ones(4, 2).double(), b=-torch.ones(4, 2).double())
    result = adaptive.solve(
        mixture.gaussian(process, COVARIANCE), process, x, start=0.9, end=0.1, tolerance=1e-7, pair="dp54"
    )
    for part, own in process.schedule.items():
        expected = exact(x[part], Process(own), 0.9, 0.1, COVARIANCE)
        torch.testing.assert_close(result.x[part], expected, rtol=0, atol=1e-6)


def test_bad_input():
    process = Process(schedule.Cosine())
    denoiser = mixture.gaussian(process, COVARIANCE)
    x = torch.ones(1, 2).double()
    for options in (
        {"pair": "rk4"},
        {"tolerance": 0.0},
        {"start": 0.1, "end": 0.5},
        {"tolerance": 1e-12, "max_calls": 9},
    ):
        with pytest.raises(InputError):
            adaptive.solve(denoiser, process, x, **options)
