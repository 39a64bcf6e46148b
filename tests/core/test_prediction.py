"""Predictions: round the circle for every kind, the same clean state from each, one gradient for one weighting."""

from __future__ import annotations

import pytest
import torch

from multidiff import schedule
from multidiff.denoiser import NetworkDenoiser
from multidiff.errors import InputError
from multidiff.prediction import KINDS, Categorical, Prediction
from multidiff.process import Process
from multidiff.random import Rng
from multidiff.state import Parts

SCHEDULES = ["cosine", "rectified-flow", "ve", "polynomial"]


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("kind", KINDS)
def test_round_the_circle(kind, name):
    process, prediction = Process(schedule.make(name)), Prediction(kind)
    x0 = Rng.batch(0).normal((6, 3), torch.zeros(0, dtype=torch.float64))
    t = torch.linspace(0.05, 0.95, 6, dtype=torch.float64)
    x, eps = process.diffuse(x0, t, Rng.batch(1))
    alpha, sigma = process.alpha(t)[:, None], process.sigma(t)[:, None]
    torch.testing.assert_close(x, alpha * x0 + sigma * eps)
    target = prediction.target(x0, eps, alpha, sigma)
    torch.testing.assert_close(prediction.x0(target, x, alpha, sigma), x0, rtol=1e-9, atol=1e-9)
    gap = prediction.x0(target + 1e-3, x, alpha, sigma) - x0
    torch.testing.assert_close(
        gap.abs(), 1e-3 * prediction.error_scale(alpha, sigma).expand_as(gap), rtol=1e-6, atol=1e-9
    )


def test_edm_is_its_papers_preconditioning():
    """c_skip, c_out, c_in of Karras et al. 2022, table 1, for data of unit deviation."""
    sigma = torch.logspace(-2, 1.5, 7, dtype=torch.float64)[:, None]
    x, output = Rng.batch(0).normal((2, 7, 3), torch.zeros(0, dtype=torch.float64))
    edm, one = Prediction("edm"), torch.ones_like(sigma)
    c_skip, c_out = 1 / (sigma**2 + 1), sigma / (sigma**2 + 1).sqrt()
    # Our F has the opposite sign of theirs, so that EDM is v-prediction where the schedule preserves the variance.
    torch.testing.assert_close(edm.x0(output, x, one, sigma), c_skip * x - c_out * output)
    torch.testing.assert_close(edm.input_scale(one, sigma), 1 / (sigma**2 + 1).sqrt())


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_denoiser_returns_the_clean_state(kind):
    process = Process(schedule.Cosine())
    x0 = Rng.batch(0).normal((5, 3), torch.zeros(0, dtype=torch.float64))
    t = torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
    x, eps = process.diffuse(x0, t, Rng.batch(1))
    seen = {}

    class Oracle(torch.nn.Module):
        def forward(self, x, log_snr, cond, space, previous):
            seen["log_snr"] = log_snr
            return Prediction(kind).target(x0, eps, process.alpha(t)[:, None], process.sigma(t)[:, None])

    torch.testing.assert_close(NetworkDenoiser(Oracle(), process, Prediction(kind))(x, t), x0)
    assert seen["log_snr"].dtype == torch.float32
    torch.testing.assert_close(seen["log_snr"], process.log_snr(t).float())


def test_one_schedule_a_part_is_told_to_the_network():
    process = Process({"a": schedule.Cosine(), "b": schedule.VE()})
    told = {}

    class Network(torch.nn.Module):
        def forward(self, x, log_snr, cond, space, previous):
            told["log_snr"] = log_snr
            return x

    x = Parts(a=torch.ones(2, 3), b=torch.ones(2, 4, 5))
    t = torch.tensor([0.2, 0.8], dtype=torch.float64)
    prediction = {"a": Prediction("x0"), "b": Categorical(torch.eye(5))}
    result = NetworkDenoiser(Network(), process, prediction)(x, t)
    assert told["log_snr"].shape == (2, 2)
    assert torch.equal(result["a"], x["a"])
    torch.testing.assert_close(result["b"], torch.full((2, 4, 5), 0.2))


def test_a_categorical_part_without_prior_is_bayes_rule():
    """With F = log prior the estimate is the exact posterior mean of a code in Gaussian noise."""
    codes, prior = torch.eye(3, dtype=torch.float64) - 1 / 3, torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    x = torch.randn(50, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    alpha, sigma = torch.tensor(0.8, dtype=torch.float64), torch.tensor(0.6, dtype=torch.float64)
    likelihood = torch.stack([torch.exp(-(x - alpha * c).square().sum(-1) / (2 * sigma**2)) for c in codes], -1)
    posterior = likelihood * prior / (likelihood * prior).sum(-1, keepdim=True)
    found = Categorical(codes).x0(prior.log().expand(50, 3), x, alpha, sigma)
    torch.testing.assert_close(found, posterior @ codes, atol=1e-6, rtol=1e-6)


def test_a_categorical_part_is_certain_at_the_clean_end():
    codes = torch.eye(4) - 1 / 4
    noise = 1e-3 * torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    alpha, sigma = torch.tensor(1.0), torch.tensor(1e-3)
    wrong = -5 * torch.eye(4)
    torch.testing.assert_close(Categorical(codes).x0(wrong, codes + noise, alpha, sigma), codes)


def test_unknown_kind():
    with pytest.raises(InputError, match="did you mean 'epsilon'"):
        Prediction("epsilom")
