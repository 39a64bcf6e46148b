"""Gradient guidance beside Bayes' rule."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from multidiff import InputError, Parts, Process, Rng, sample
from multidiff.denoiser import Denoiser
from multidiff.grid import LogSNR, Uniform
from multidiff.guidance import Classifier, Gradient, Guided, Interval, Moment, Negative, Scale
from multidiff.schedule import Cosine, RectifiedFlow
from multidiff.solver import DDIM, Heun
from multidiff.space import Masked, Product, ZeroCentroid

from .conftest import Gaussian, Mixture

A = torch.tensor([0.6, -1.1], dtype=torch.float64)
Y, SIGMA_Y = 1.3, 0.5


def posterior(gaussian: Gaussian) -> Gaussian:
    """The prior after y = A x0 + noise of deviation SIGMA_Y has been seen."""
    gain = gaussian.covariance @ A / (A @ gaussian.covariance @ A + SIGMA_Y**2)
    mean = gaussian.mean + gain * (Y - A @ gaussian.mean)
    return Gaussian(mean, gaussian.covariance - torch.outer(gain, A @ gaussian.covariance), gaussian.process)


def exact(gaussian: Gaussian) -> Any:
    def loss(x0: Any, moment: Moment) -> Tensor:
        alpha, sigma = (v if isinstance(v, float) else float(v[0]) for v in (moment.alpha, moment.sigma))  # type: ignore
        variance = SIGMA_Y**2 + A @ gaussian.spread(alpha, sigma) @ A
        return (Y - x0 @ A).square() / (2 * variance)

    return loss


@pytest.mark.parametrize("t", [0.05, 0.5, 0.95])
def test_a_linear_measurement_gives_the_posterior_mean(t: float, gaussian: Gaussian, noise: Tensor) -> None:
    times = torch.full((5,), t, dtype=torch.float64)
    guided = Gradient(gaussian, exact(gaussian))(noise, times)
    torch.testing.assert_close(guided, posterior(gaussian)(noise, times))
    half = Gradient(gaussian, exact(gaussian), scale=0.5)(noise, times)
    torch.testing.assert_close(half, 0.5 * (guided + gaussian(noise, times)))


def test_a_run_follows_the_posterior(gaussian: Gaussian, process: Process, noise: Tensor) -> None:
    plan = Heun().plan(LogSNR(sigma_min=0.01, sigma_max=80)(process, 12))
    guided = sample(Gradient(gaussian, exact(gaussian)), plan, noise)
    torch.testing.assert_close(guided, sample(posterior(gaussian), plan, noise))


def test_a_classifier_turns_any_class_into_one(mixture: Mixture, noise: Tensor, process: Process) -> None:
    """Bayes' rule: the gradient of log p(class | x_t) is all that the unconditional estimate lacks."""
    t = torch.full((5,), 0.6, dtype=torch.float64)

    def log_prob(x: Any, moment: Moment) -> Tensor:
        assert isinstance(moment.alpha, Tensor)
        assert isinstance(moment.sigma, Tensor)
        alpha, sigma = moment.alpha[:, None], moment.sigma[:, None]
        square = (x[:, None] - alpha[..., None] * mixture.means).square().sum(-1)
        return (-square / (2 * (alpha**2 * 0.16 + sigma**2))).log_softmax(-1)[:, 2]

    guided = Classifier(mixture, log_prob)(noise, t, torch.full((5,), -1))
    torch.testing.assert_close(guided, mixture(noise, t, torch.full((5,), 2)))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradients_are_found_where_they_are_switched_off(mode: Any, gaussian: Gaussian, noise: Tensor) -> None:
    expected = Gradient(gaussian, exact(gaussian))(noise, torch.full((5,), 0.4, dtype=torch.float64))
    with mode():
        x, t = noise.clone(), torch.full((5,), 0.4, dtype=torch.float64)
        guided = Gradient(gaussian, exact(gaussian))(x, t)
        assert not guided.requires_grad
        assert torch.equal(guided, expected)


def test_pure_noise_and_scale_zero_move_nothing(gaussian: Gaussian, noise: Tensor, process: Process) -> None:
    flow = Gaussian(gaussian.mean, gaussian.covariance, Process(RectifiedFlow()))
    one = torch.ones(5, dtype=torch.float64)
    torch.testing.assert_close(Gradient(flow, exact(flow))(noise, one), flow(noise, one))
    result = sample(Gradient(flow, exact(flow)), DDIM().plan(Uniform()(flow.process, 4)), noise)
    assert result.isfinite().all()
    half = torch.full((5,), 0.5, dtype=torch.float64)
    assert torch.equal(Gradient(gaussian, exact(gaussian), scale=0.0)(noise, half), gaussian(noise, half))


def test_it_wraps_guidance_and_is_wrapped(mixture: Mixture, noise: Tensor) -> None:
    """Between two classes of one width the estimate is linear in x: the pull is the spread of x0 either way."""
    reference, rules = Negative(torch.tensor([1])), [Scale(2.0), Interval(0.1, 4.0)]
    t, cond = torch.full((5,), 0.6, dtype=torch.float64), torch.zeros(5, dtype=torch.long)

    def up(x0: Any, moment: Moment) -> Tensor:
        return -x0[:, 1]

    plain = Guided(mixture, reference, rules)(noise, t, cond)
    alpha, sigma = (float(f(t)[0]) for f in (mixture.process.alpha, mixture.process.sigma))  # type: ignore[index]
    pull = torch.tensor([0.0, 0.16 * sigma**2 / (0.16 * alpha**2 + sigma**2)])
    outside, inside = Gradient(Guided(mixture, reference, rules), up), Guided(Gradient(mixture, up), reference, rules)
    for guided in (outside, inside):
        torch.testing.assert_close(guided(noise, t, cond), plain + pull)
        result: Any = sample(guided, DDIM().plan(Uniform()(mixture.process, 8)), noise, cond=cond)
        assert result.isfinite().all()


class Shrink(Denoiser):
    """Half of the state, in the subspace of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.process = Process({"positions": Cosine(), "atoms": RectifiedFlow()})

    def forward(self, x: Any, t: Tensor, cond: Any = None, space: Any = None, previous: Any = None) -> Any:
        return space.project(Parts({name: 0.5 * part for name, part in x.items()}))


def test_parts_keep_their_subspace() -> None:
    mask = torch.arange(5) < torch.tensor([3, 5])[:, None]
    space = Product({"positions": ZeroCentroid(mask), "atoms": Masked(mask)})
    process = Shrink().process
    like = Parts(positions=torch.zeros(2, 5, 3), atoms=torch.zeros(2, 5, 2))
    x = process.prior(Rng(0, range(2)), like, space)

    def loss(x0: Any, moment: Moment) -> Tensor:
        return (x0["positions"] - 3).square().sum((1, 2))

    guided: Any = Gradient(Shrink(), loss)
    t = torch.full((2,), 0.5, dtype=torch.float64)
    estimate = guided(x, t, space=space)
    projected: Any = space.project(estimate)
    assert all(torch.allclose(estimate[n], projected[n], atol=1e-5) for n in estimate)
    plain = Shrink()(x, t, space=space)
    assert torch.equal(estimate["atoms"], plain["atoms"])
    assert not torch.allclose(estimate["positions"], plain["positions"])


def test_what_makes_no_sense_is_named(gaussian: Gaussian, noise: Tensor) -> None:
    for scale in (-1.0, float("nan")):
        with pytest.raises(InputError, match=str(scale)):
            Gradient(gaussian, exact(gaussian), scale)
        with pytest.raises(InputError, match=str(scale)):
            Classifier(gaussian, exact(gaussian), scale)
    with pytest.raises(InputError, match="does not depend"):
        Gradient(gaussian, lambda x0, moment: torch.ones(5))(noise, torch.full((5,), 0.5, dtype=torch.float64))
