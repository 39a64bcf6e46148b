"""Schedules: falling log-SNR, its inverse, finite ends, and closed forms from the papers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multidiff import schedule
from multidiff.errors import InputError
from multidiff.process import Process

TABLE = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
EXAMPLES = {
    **{name: schedule.make(name) for name in schedule.SCHEDULES if name not in ("discrete", "shifted")},
    "discrete": schedule.Discrete.from_betas(TABLE),
    "shifted-cosine": schedule.Shifted(schedule.Cosine(), 3.0),
    "shifted-flow": schedule.Shifted(schedule.RectifiedFlow(), 0.3),
}
names = pytest.mark.parametrize("name", EXAMPLES)
times = st.floats(0, 1, width=64)


def at(t: float) -> torch.Tensor:
    return torch.tensor(t, dtype=torch.float64)


@names
@given(a=times, b=times)
def test_log_snr_falls_strictly(name, a, b):
    a, b = sorted((a, b))
    if b - a > 1e-6:  # Polynomial is flat at both ends by its own formula
        assert EXAMPLES[name].log_snr(at(a)) > EXAMPLES[name].log_snr(at(b))


@names
@given(t=times)
def test_time_is_the_inverse(name, t):
    s = EXAMPLES[name]
    assert float(s.time(s.log_snr(at(t)))) == pytest.approx(t, abs=1e-8)


@names
@given(t=st.floats(1e-4, 1 - 1e-4))
def test_log_snr_is_that_of_alpha_and_sigma(name, t):
    s = EXAMPLES[name]
    alpha, sigma = s.alpha(at(t)), s.sigma(at(t))
    assert alpha.dtype == sigma.dtype == torch.float64
    assert float((alpha / sigma).log()) == pytest.approx(float(s.log_snr(at(t))), abs=1e-9)
    assert float(s.norm(alpha, sigma)) == pytest.approx(1, abs=1e-12)


@names
def test_ends_are_finite_even_in_bf16(name):
    s = EXAMPLES[name]
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    for value in (s.alpha(ends), s.sigma(ends), s.log_snr(ends)):
        assert value.bfloat16().isfinite().all()
    assert s.alpha(ends)[0] > 0.99
    assert float(s.log_snr(ends)[1]) < -1


@names
def test_level_zero_is_exactly_clean(name):
    level = Process(EXAMPLES[name]).level(0)
    assert (level.alpha, level.sigma) == (1.0, 0.0)


def test_closed_forms():
    t = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    close = {"rtol": 1e-12, "atol": 1e-13}
    torch.testing.assert_close(schedule.Cosine().alpha(t), torch.cos(t * math.pi / 2), **close)
    decay = 0.1 * t + 0.5 * 19.9 * t * t
    torch.testing.assert_close(schedule.LinearVP().alpha(t), torch.exp(-0.5 * decay), **close)
    fall = torch.sigmoid(-(6 * t - 3))
    high, low = torch.sigmoid(at(3)), torch.sigmoid(at(-3))
    torch.testing.assert_close(schedule.Sigmoid().alpha(t).square(), (fall - low) / (high - low), **close)
    exact = (1 - 2e-5) * (1 - t * t) ** 2 + 1e-5
    torch.testing.assert_close(schedule.Polynomial().alpha(t).square(), exact, **close)
    torch.testing.assert_close(schedule.VE().sigma(t), 0.002 * 40_000**t, **close)
    shifted = schedule.Shifted(schedule.RectifiedFlow(), 3.0)
    torch.testing.assert_close(shifted.sigma(t), 3 * t / (1 + 2 * t), **close)


def test_scaled_linear_integrates_its_beta():
    t = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    beta = (0.85**0.5 + (12.0**0.5 - 0.85**0.5) * t).square()
    decay = torch.cumulative_trapezoid(beta, t)
    torch.testing.assert_close(schedule.ScaledLinearVP().alpha(t[1:]), torch.exp(-0.5 * decay), rtol=1e-9, atol=0)


def test_laplace_is_laplace():
    u = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    values = 2 * schedule.Laplace(mean=1.0, scale=0.7).log_snr(u)
    assert float(values.mean()) == pytest.approx(1.0, abs=1e-3)
    assert float((values - 1).abs().mean()) == pytest.approx(0.7, rel=1e-3)
    assert float(values.var()) == pytest.approx(2 * 0.7**2, rel=1e-2)


def test_discrete_is_exact_at_its_steps():
    alphas = (1 - TABLE).cumprod(0)
    s = schedule.Discrete(alphas)
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    torch.testing.assert_close(s.alpha(t).square(), alphas, rtol=1e-10, atol=0)


def test_bad_input():
    with pytest.raises(InputError, match="did you mean 'cosine'"):
        schedule.make("cosin")
    with pytest.raises(InputError, match="sigma_min"):
        schedule.make("ve", sigma_mni=1.0)
    with pytest.raises(InputError, match="needs the option"):
        schedule.make("shifted", shift=2.0)
    with pytest.raises(InputError, match="from_betas"):
        schedule.Discrete(TABLE)
    with pytest.raises(InputError, match="above 0"):
        schedule.Shifted(schedule.Cosine(), 0.0)
