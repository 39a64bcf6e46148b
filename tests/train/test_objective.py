"""The training loss: one weighting means the same for every prediction; cross-entropy; self-conditioning; averages."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from multidiff.denoiser import NetworkDenoiser
from multidiff.prediction import KINDS, Categorical, Prediction
from multidiff.process import Process
from multidiff.random import Rng
from multidiff.schedule import VE, Cosine, NoiseSchedule, RectifiedFlow
from multidiff.state import Parts, expand_to
from multidiff.train.ema import EMA
from multidiff.train.objective import Objective, part_error
from multidiff.train.uncertainty import Uncertainty
from multidiff.train.weighting import EDM, WEIGHTINGS, MinSNR, Sigmoid, Weighting, make

SCHEDULES = [Cosine(), VE(), RectifiedFlow()]
T = torch.linspace(0.05, 0.95, 16, dtype=torch.float64)


class Spoken(nn.Module):
    """Estimates x0 as a x + b, and says so in the terms of a prediction."""

    def __init__(self, kind: str, process: Process) -> None:
        super().__init__()
        self.prediction, self.process = Prediction(kind), process
        self.a = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
        self.b = nn.Parameter(torch.tensor(-0.2, dtype=torch.float64))

    def forward(self, x: Any, log_snr: Tensor, cond: Any, space: Any, previous: Any) -> Tensor:
        alpha, sigma = (expand_to(v, x) for v in (self.process.alpha(T), self.process.sigma(T)))
        x = x / expand_to(self.prediction.input_scale(self.process.alpha(T), self.process.sigma(T)), x)
        estimate = self.a * x + self.b
        p, q = self.prediction.coefficients(alpha, sigma)
        return (q * x - estimate * (alpha * q - sigma * p)) / sigma


def gradient(kind: str, schedule: NoiseSchedule, weighting: Weighting) -> Tensor:
    """(loss, dloss/da, dloss/db)."""
    process = Process(schedule)
    network = Spoken(kind, process)
    denoiser = NetworkDenoiser(network, process, network.prediction)
    x0 = torch.randn(16, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    losses, _ = Objective(weighting)(denoiser, x0, Rng.batch(1), t=T)
    losses.mean().backward()
    assert network.a.grad is not None
    assert network.b.grad is not None
    return torch.stack([losses.mean().detach(), network.a.grad, network.b.grad])


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("name", WEIGHTINGS)
def test_a_weighting_means_the_same_for_every_prediction(name: str, schedule: NoiseSchedule) -> None:
    weighting = make(name)
    reference = _by_hand(schedule, weighting)
    for kind in KINDS:
        assert torch.allclose(gradient(kind, schedule, weighting).double(), reference, rtol=1e-3), kind


def _by_hand(schedule: NoiseSchedule, weighting: Weighting) -> Tensor:
    """The weighted squared error of x0 itself, in float64."""
    process = Process(schedule)
    x0 = torch.randn(16, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x, _ = process.diffuse(x0, T, Rng.batch(1))
    a, b = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.7, -0.2))
    snr = schedule.alpha(T) / schedule.sigma(T)
    loss = (weighting(snr.log()) * (a * x + b - x0).square().mean(1)).mean()
    return torch.stack([loss.detach(), *torch.autograd.grad(loss, (a, b))])


@pytest.mark.parametrize(("kind", "divisor"), [("epsilon", lambda s: s), ("v", lambda s: s + 1), ("x0", lambda s: 1)])
def test_min_snr_as_its_paper_states_it(kind: str, divisor: Any) -> None:
    """Hang et al. 2023: min(SNR, 5) on x0 is min(SNR, 5) / SNR on epsilon and min(SNR, 5) / (SNR + 1) on v."""
    schedule = Cosine()
    alpha, sigma = schedule.alpha(T), schedule.sigma(T)
    snr = (alpha / sigma) ** 2
    output, x0, eps = torch.randn(3, 16, 4, dtype=torch.float64).unbind()
    target = Prediction(kind).target(x0, eps, alpha[:, None], sigma[:, None])
    expected = (snr.clamp(max=5) / divisor(snr))[:, None] * (output - target).square()
    error = part_error(Prediction(kind), output, x0, eps, alpha, sigma, MinSNR(5.0)(schedule.log_snr(T)))
    assert torch.allclose(error, expected, rtol=1e-6)


def test_edm_weighting_is_one_on_edms_own_target() -> None:
    for schedule in SCHEDULES:
        alpha, sigma = schedule.alpha(T), schedule.sigma(T)
        scale = Prediction("edm").error_scale(alpha, sigma).square() * EDM()(schedule.log_snr(T))
        assert torch.allclose(scale * (alpha**2 + sigma**2), torch.ones_like(scale) * alpha**2 + sigma**2, rtol=1e-6)


@pytest.mark.parametrize("alpha", [(0.0, 0.0), (0.3, 0.8)], ids=["no evidence", "noisy codes"])
def test_cross_entropy_of_categorical_parts(alpha: tuple[float, float]) -> None:
    """-log p(class | x_t) with the network's softmax as prior and the Gaussian likelihood of the noisy code."""
    codes = torch.eye(4) - 0.25
    classes = torch.tensor([[0, 3, 2], [1, 1, 0]])
    logits, eps, weight = torch.randn(2, 3, 4), torch.randn(2, 3, 4), torch.tensor([0.5, 2.0])
    a = torch.tensor(alpha)
    s = (1 - a.square()).sqrt()
    error = part_error(Categorical(codes), logits, codes[classes], eps, a, s, weight)
    a, s = a[:, None, None], s[:, None, None]
    x = a * codes[classes] + s * eps
    likelihood = torch.exp(-(x[..., None, :] - a[..., None] * codes).square().sum(-1) / (2 * s.square()))
    joint = logits.softmax(-1) * likelihood
    chosen = (joint / joint.sum(-1, keepdim=True)).gather(-1, classes[..., None])
    assert torch.allclose(error, -chosen.log() * weight[:, None, None], rtol=1e-4)


def test_parts_with_schedules_and_weightings_of_their_own() -> None:
    process = Process({"a": Cosine(), "b": RectifiedFlow()})
    x0 = Parts(a=torch.randn(16, 3), b=torch.randn(16, 2))

    class Zero(nn.Module):
        def forward(self, x: Any, *_: Any) -> Any:
            return Parts({name: torch.zeros_like(part) for name, part in x.items()})

    denoiser = NetworkDenoiser(Zero(), process, Prediction("x0"))
    objective = Objective({"a": EDM(), "b": Sigmoid()}, parts={"b": 3.0})
    total, losses = objective(denoiser, x0, Rng.batch(0), t=T)
    snr = {name: (s.alpha(T) / s.sigma(T)).square().float() for name, s in process.schedule.items()}  # type: ignore[union-attr]
    a, b = x0["a"].square().mean(1) * (1 + snr["a"]), x0["b"].square().mean(1) * snr["b"] / (1 + snr["b"])
    assert torch.allclose(losses["a"].float(), a, rtol=1e-4)
    assert torch.allclose(losses["b"].float(), b, rtol=1e-4)
    assert torch.allclose(total, losses["a"] + 3 * losses["b"])


def rows_and_times() -> tuple[Tensor, Tensor]:
    """Four states of three rows, and a time for each row."""
    generator = torch.Generator().manual_seed(0)
    x0 = torch.randn(4, 3, 2, 5, dtype=torch.float64, generator=generator)
    return x0, torch.rand(4, 3, dtype=torch.float64, generator=generator) * 0.9 + 0.05


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_rows_with_times_of_their_own_are_diffused_each_by_its_time(schedule: NoiseSchedule) -> None:
    x0, t = rows_and_times()
    process = Process(schedule)
    noisy, eps = process.diffuse(x0, t, Rng.batch(1))
    for i in range(4):
        for n in range(3):
            expected = schedule.alpha(t[i, n]) * x0[i, n] + schedule.sigma(t[i, n]) * eps[i, n]
            assert torch.allclose(noisy[i, n], expected, rtol=1e-12)
    alike, same_eps = process.diffuse(x0, t[:, :1].expand(-1, 3), Rng.batch(1))
    assert torch.equal(eps, same_eps)
    assert torch.equal(alike, process.diffuse(x0, t[:, 0], Rng.batch(1))[0])


class EachRow(nn.Module):
    """Looks at one row at a time, and at its noise level; keeps the levels that it is told."""

    def forward(self, x: Tensor, log_snr: Tensor, cond: Any, space: Any, previous: Any) -> Tensor:
        self.told = log_snr
        level = log_snr.double().reshape(*log_snr.shape, *(1,) * (x.dim() - log_snr.dim()))
        return torch.tanh(x + level)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_rows_with_times_of_their_own_are_weighed_each_by_its_time(kind: str, weighting: str) -> None:
    """The loss is the mean of what the rows would have as states of their own."""
    x0, t = rows_and_times()
    network = EachRow()
    denoiser = NetworkDenoiser(network, Process(Cosine()), Prediction(kind))
    objective = Objective(make(weighting), self_conditioning=0.0)
    losses, _ = objective(denoiser, x0, Rng.batch(2), t=t)
    assert torch.allclose(network.told.double(), Cosine().log_snr(t), rtol=1e-6)
    apart, _ = objective(denoiser, x0.flatten(0, 1), Rng.batch(2), t=t.flatten())  # draws the same noise
    assert losses.shape == (4,)
    assert torch.allclose(losses, apart.view(4, 3).mean(1), rtol=1e-5)
    noisy, _ = denoiser.process.diffuse(x0, t, Rng.batch(2))
    estimate = denoiser(noisy.flatten(0, 1), t.flatten()).view_as(x0)
    assert torch.allclose(denoiser(noisy, t), estimate, rtol=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_share_of_steps_with_self_conditioning(share: float) -> None:
    seen = []

    class Asks(nn.Module):
        self_conditioning = True

        def forward(self, x: Tensor, log_snr: Tensor, cond: Any, space: Any, previous: Any) -> Tensor:
            if torch.is_grad_enabled():
                seen.append(previous is not None)
            return x

    denoiser = NetworkDenoiser(Asks(), Process(Cosine()), Prediction("x0"))
    for step in range(1000):
        Objective(self_conditioning=share)(denoiser, torch.zeros(1, 1), Rng.batch(step))
    assert abs(sum(seen) / 1000 - share) <= 0.05  # three deviations of a fair draw


def test_uncertainty_learns_the_mean_loss_of_each_level_and_part() -> None:
    torch.manual_seed(0)
    uncertainty = Uncertainty(["a", "b"])
    optimizer = torch.optim.Adam(uncertainty.parameters(), lr=0.03)
    expected = {"a": lambda s: 3 - 0.3 * s, "b": lambda s: torch.sin(0.4 * s)}
    for _ in range(1500):
        s = torch.rand(256) * 10 - 5
        noisy = {name: level(s).exp() * 2 * torch.rand(256) for name, level in expected.items()}
        total = torch.stack([uncertainty.weigh(noisy[name], s, name) for name in noisy]).mean()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    s = torch.linspace(-4.5, 4.5, 20)
    for name, level in expected.items():
        assert (uncertainty(s, name) - level(s)).abs().max() < 0.3, name


def test_uncertainty_changes_the_total_and_not_the_reported_parts() -> None:
    process = Process(Cosine())
    denoiser = NetworkDenoiser(Spoken("x0", process), process, Prediction("x0"))
    x0, uncertainty = torch.randn(16, 5, dtype=torch.float64), Uncertainty()
    with torch.no_grad():
        uncertainty.linear.bias.fill_(0.5)
    plain_total, plain = Objective()(denoiser, x0, Rng.batch(0), t=T)
    total, parts = Objective()(denoiser, x0, Rng.batch(0), t=T, uncertainty=uncertainty)
    assert torch.equal(parts["state"], plain["state"])
    assert torch.allclose(total, plain_total * torch.exp(torch.tensor(-0.5)) + 0.5)


def test_average_of_weights_is_the_recursion_by_hand() -> None:
    network = nn.Linear(3, 2)
    ema = EMA(network, decay=0.7)
    by_hand = copy.deepcopy(network.weight.detach())
    for step in range(12):
        with torch.no_grad():
            network.weight.add_(torch.randn(2, 3))
        ema.update(network, step)
        decay = min(0.7, (1 + step) / (10 + step))
        by_hand = decay * by_hand + (1 - decay) * network.weight.detach()
    assert torch.allclose(ema.network.weight, by_hand, atol=1e-6)  # type: ignore[arg-type]
    assert not ema.train().network.training
    assert not any(weight.requires_grad for weight in ema.parameters())
