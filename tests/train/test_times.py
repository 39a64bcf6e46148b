"""Densities of training times: one draw in each slice, and the quantiles they promise."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from multidiff.errors import InputError
from multidiff.process import Process
from multidiff.random import Rng
from multidiff.schedule import VE, Cosine
from multidiff.train.times import LogitNormal, LogNormal, Power, TimeDensity, Uniform, make

N = 4096


def normal_cdf(x: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def share_below(density: TimeDensity, t: Tensor, process: Process) -> Tensor:
    """The distribution function of each density, from its definition."""
    if isinstance(density, LogNormal):
        log_sigma = -process.log_snr(t)
        assert isinstance(log_sigma, Tensor)
        return normal_cdf((log_sigma - density.mean) / density.std)
    if isinstance(density, LogitNormal):
        return normal_cdf((torch.logit(t) - density.mean) / density.std)
    if isinstance(density, Power):
        return t ** (1 / density.exponent)
    return t


CASES = [
    (Uniform(), Process(Cosine())),
    (LogNormal(), Process(Cosine())),
    (LogNormal(-1.2, 1.2), Process(VE())),
    (LogitNormal(), Process(Cosine())),
    (LogitNormal(0.5, 0.8), Process(Cosine())),
    (Power(), Process(Cosine())),
    (Power(3.0), Process(VE())),
]


@pytest.mark.parametrize(("density", "process"), CASES, ids=lambda v: type(v).__name__)
def test_one_draw_in_each_slice_of_equal_probability(density: TimeDensity, process: Process) -> None:
    t = density.draw(N, process, Rng.batch(3))
    assert t.dtype == torch.float64
    assert ((t >= 0) & (t <= 1)).all()
    slices = (share_below(density, t, process) * N + 1e-6).floor().clamp(0, N - 1)
    occupied = len(slices.unique())
    assert occupied >= N - 8  # the very ends are clamped, and a bound may be met to the last digit


@pytest.mark.parametrize(("density", "process"), CASES, ids=lambda v: type(v).__name__)
def test_many_batches_have_the_histogram_of_the_density(density: TimeDensity, process: Process) -> None:
    t = torch.cat([density.draw(16, process, Rng.batch(seed)) for seed in range(500)])
    levels = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)
    found = torch.quantile(share_below(density, t, process), levels)
    assert (found - levels).abs().max() < 0.01


def test_times_of_a_batch_are_in_random_order_and_follow_from_the_stream() -> None:
    one, again, other = (Uniform().draw(64, Process(Cosine()), Rng.batch(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one.argsort(), other.argsort())
    assert not torch.equal(one, one.sort().values)


def test_unknown_density_is_an_input_error() -> None:
    with pytest.raises(InputError, match="did you mean 'log-normal'"):
        make("lognormal")
