"""Guided estimates beside their closed forms, and what the wrapper promises."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from multidiff import InputError, Process, Rng, sample
from multidiff.adaptive import solve
from multidiff.denoiser import Denoiser
from multidiff.grid import LogSNR, Uniform
from multidiff.guidance import (
    APG,
    GUIDANCE,
    CFGPlusPlus,
    CFGZeroStar,
    DynamicThreshold,
    Guided,
    Interval,
    Negative,
    Null,
    Rescale,
    Scale,
    Weaker,
    make,
    perturbed,
)
from multidiff.schedule import Cosine, RectifiedFlow
from multidiff.solver import DDIM, DDPM, DPMSolverPP, Heun, UniPC

from .conftest import Mixture

NULL = Null(torch.tensor([-1]))


def at(t: float, batch: int = 5) -> Tensor:
    return torch.full((batch,), t, dtype=torch.float64)


def both(mixture: Mixture, x: Tensor, t: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    return mixture(x, t, labels), mixture(x, t, torch.full_like(labels, -1))


def test_scale_one_is_the_first_estimate_in_one_call(mixture: Mixture, noise: Tensor, labels: Tensor) -> None:
    guided = Guided(mixture, NULL, [Scale(1.0)])(noise, at(0.6), labels)
    assert mixture.batches == [5]
    assert torch.equal(guided, mixture(noise, at(0.6), labels))


def test_scale_zero_is_the_reference(mixture: Mixture, noise: Tensor, labels: Tensor) -> None:
    guided = Guided(mixture, NULL, [Scale(0.0)])(noise, at(0.6), labels)
    torch.testing.assert_close(guided, both(mixture, noise, at(0.6), labels)[1], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("w", [0.5, 2.0, 7.5])
def test_scale_extrapolates_from_the_reference(w: float, mixture: Mixture, noise: Tensor, labels: Tensor) -> None:
    guided = Guided(mixture, NULL, [Scale(w)])(noise, at(0.6), labels)
    first, second = both(mixture, noise, at(0.6), labels)
    torch.testing.assert_close(guided, second + w * (first - second))


def test_two_gaussians_of_one_width_are_guided_to_a_third(process: Process, noise: Tensor) -> None:
    """The guided flow is that of N(m_u + w (m_c - m_u), s^2), whose map from noise is known."""
    means = torch.tensor([[1.0, -0.5], [-0.2, 0.3]], dtype=torch.float64)
    denoiser = Mixture(means, 0.4, process)
    guided = Guided(denoiser, Negative(torch.tensor([1])), [Scale(3.0)])
    levels = LogSNR(sigma_min=1e-3, sigma_max=80)(process, 60)
    x = process.prior(Rng(0, range(5)), noise, t=levels[0].t)
    result = sample(guided, Heun().plan(levels), x, cond=torch.zeros(5, dtype=torch.long))
    mean = means[1] + 3.0 * (means[0] - means[1])
    alpha, sigma = levels[0].alpha, levels[0].sigma
    expected = mean + 0.4 * (x - alpha * mean) / (alpha**2 * 0.16 + sigma**2) ** 0.5  # type: ignore[operator]
    torch.testing.assert_close(result, expected, rtol=0, atol=5e-3)


def test_one_network_is_called_once_for_both(mixture: Mixture, noise: Tensor, labels: Tensor) -> None:
    Guided(mixture, NULL, [Scale(2.0)])(noise, at(0.6), labels)
    assert mixture.batches == [10]


def test_conditions_that_cannot_be_joined_are_two_calls(mixture: Mixture, noise: Tensor, labels: Tensor) -> None:
    apart = Guided(mixture, Null(), [Scale(2.0)])(noise, at(0.6), labels)
    assert mixture.batches == [5, 5]
    torch.testing.assert_close(apart, Guided(mixture, NULL, [Scale(2.0)])(noise, at(0.6), labels))


def test_a_weaker_network_sees_the_same_condition(mixture: Mixture, noise: Tensor, labels: Tensor) -> None:
    weak = Mixture(mixture.means, 1.5, mixture.process)
    guided = Guided(mixture, Weaker(weak), [Scale(2.0)])
    assert list(guided.children()) == [mixture, weak]
    strong, poor = mixture(noise, at(0.3), labels), weak(noise, at(0.3), labels)
    torch.testing.assert_close(guided(noise, at(0.3), labels), 2 * strong - poor)


@pytest.mark.parametrize("interval", [Interval(0.5, 2.0), Interval(-0.6931471805, 0.6931471806, axis="log_snr")])
def test_outside_of_the_interval_nothing_more_is_called(
    interval: Interval, mixture: Mixture, noise: Tensor, labels: Tensor, process: Process
) -> None:
    guided = Guided(mixture, NULL, [interval, Scale(2.0), Rescale(0.5)])
    levels = Uniform()(process, 12)
    sample(guided, DDIM().plan(levels), noise, cond=labels)
    inside = [0.5 < level.sigma / level.alpha <= 2.0 for level in levels[:-1]]  # type: ignore[operator]
    assert 2 < sum(inside) < 10
    assert mixture.batches == [10 if yes else 5 for yes in inside]


def test_the_interval_holds_for_each_sample(mixture: Mixture, noise: Tensor, labels: Tensor) -> None:
    t = torch.tensor([0.1, 0.4, 0.5, 0.6, 0.9], dtype=torch.float64)
    guided = Guided(mixture, NULL, [Interval(0.6, 1.5), Scale(2.0)])(noise, t, labels)
    first, second = both(mixture, noise, t, labels)
    inside = torch.tensor([False, True, True, True, False])[:, None]
    inside = inside & (torch.tan(t * torch.pi / 2)[:, None] > 0.6) & (torch.tan(t * torch.pi / 2)[:, None] <= 1.5)
    torch.testing.assert_close(guided, torch.where(inside, 2 * first - second, first))
    assert inside.any()
    assert not inside.all()


def test_rescale(mixture: Mixture, noise: Tensor, labels: Tensor) -> None:
    def result(*rules: Any) -> Tensor:
        return Guided(mixture, NULL, [Scale(4.0), *rules])(noise, at(0.6), labels)

    first = mixture(noise, at(0.6), labels)
    plain, whole, part = result(), result(Rescale(1.0)), result(Rescale(0.3))
    torch.testing.assert_close(result(Rescale(0.0)), plain)
    torch.testing.assert_close(whole.std(1), first.std(1))
    assert (plain.std(1) - first.std(1)).abs().min() > 0.01
    torch.testing.assert_close(part, 0.3 * whole + 0.7 * plain)


def test_apg_is_plain_guidance_where_nothing_is_taken_away(mixture: Mixture, noise: Tensor, labels: Tensor) -> None:
    plain = Guided(mixture, NULL, [Scale(4.0)])(noise, at(0.6), labels)
    torch.testing.assert_close(Guided(mixture, NULL, [Scale(4.0), APG(eta=1.0)])(noise, at(0.6), labels), plain)


def test_apg_leaves_the_orthogonal_part_and_bounds_it(mixture: Mixture, noise: Tensor, labels: Tensor) -> None:
    first, second = both(mixture, noise, at(0.6), labels)
    moved = Guided(mixture, NULL, [APG(eta=0.0), Scale(4.0)])(noise, at(0.6), labels) - first
    torch.testing.assert_close((moved * first).sum(1), torch.zeros(5, dtype=torch.float64), atol=1e-12, rtol=0)
    unit = first / first.norm(dim=1, keepdim=True)
    d = first - second
    torch.testing.assert_close(moved, 3 * (d - (d * unit).sum(1, keepdim=True) * unit))
    short = Guided(mixture, NULL, [APG(eta=1.0, threshold=0.1), Scale(4.0)])(noise, at(0.6), labels) - first
    torch.testing.assert_close(short.norm(dim=1), 3 * d.norm(dim=1).clamp(max=0.1))


def test_apg_momentum_sums_older_directions(mixture: Mixture, noise: Tensor, labels: Tensor, process: Process) -> None:
    levels = Uniform()(process, 6)
    x, running = noise, torch.zeros_like(noise)
    for s, t in pairwise(levels):
        first, second = both(mixture, x, at(s.t), labels)
        running = first - second - 0.5 * running
        x0 = first + 2.0 * running
        x = t.alpha * x0 + t.sigma * (x - s.alpha * x0) / s.sigma  # type: ignore[operator]
    guided = Guided(mixture, NULL, [Scale(3.0), APG(eta=1.0, momentum=-0.5)])
    plan = DDIM().plan(levels)
    torch.testing.assert_close(sample(guided, plan, noise, cond=labels), x)
    torch.testing.assert_close(sample(guided, plan, noise, cond=labels), x)  # a run leaves nothing behind


def test_cfg_zero_star_fits_the_reference(noise: Tensor, labels: Tensor) -> None:
    mixture = Mixture(torch.tensor([[2.0, 0.0], [-1.0, 1.5], [0.0, -2.0]]), 0.4, Process(RectifiedFlow()))
    t = 0.7
    first, second = ((noise - x0) / t for x0 in both(mixture, noise, at(t), labels))
    fits = [torch.linalg.lstsq(b[:, None], a[:, None]).solution for a, b in zip(first, second, strict=True)]
    scaled = torch.cat(fits) * second
    expected = noise - t * (scaled + 3.0 * (first - scaled))
    guided = Guided(mixture, NULL, [Scale(3.0), CFGZeroStar(zero_init=0.0)])(noise, at(t), labels)
    torch.testing.assert_close(guided, expected)


def test_cfg_zero_star_stands_still_at_first(noise: Tensor, labels: Tensor) -> None:
    process = Process(RectifiedFlow())
    mixture = Mixture(torch.tensor([[2.0, 0.0], [-1.0, 1.5], [0.0, -2.0]]), 0.4, process)
    guided = Guided(mixture, NULL, [CFGZeroStar(zero_init=0.25), Scale(3.0)])
    seen: list[Any] = []
    sample(
        guided,
        DDIM().plan(Uniform()(process, 10)),
        noise,
        cond=labels,
        on_step=lambda number, level, x, x0: seen.append(x),
    )
    torch.testing.assert_close(seen[2], noise)
    assert (seen[3] - noise).abs().min() > 1e-3


def test_dynamic_threshold(mixture: Mixture, noise: Tensor, labels: Tensor) -> None:
    plain = Guided(mixture, NULL, [Scale(6.0)])(noise, at(0.6), labels)
    bounded = Guided(mixture, NULL, [DynamicThreshold(1.0, 1.5), Scale(6.0)])(noise, at(0.6), labels)
    greatest = plain.abs().amax(1, keepdim=True)
    assert (greatest > 1.5).any()
    torch.testing.assert_close(bounded, plain * (1.5 / greatest).clamp(max=1))
    half = Guided(mixture, NULL, [DynamicThreshold(0.5, 0.1), Scale(6.0)])(noise, at(0.6), labels)
    assert half.abs().max() <= 0.1 + 1e-12
    s = plain.abs().quantile(0.5, dim=1, keepdim=True).clamp(min=0.1)
    torch.testing.assert_close(half, plain.clamp(-s, s) * 0.1 / s)


def cfgpp(mixture: Mixture, x: Tensor, labels: Tensor, levels: Any, w: float) -> Tensor:
    """Algorithm 2 of Chung et al. 2024, written down again."""
    for s, t in pairwise(levels):
        first, second = both(mixture, x, at(s.t), labels)
        noise = (x - s.alpha * second) / s.sigma
        x = t.alpha * (second + w * (first - second)) + t.sigma * noise
    return x


def test_cfgpp_puts_the_noise_of_the_reference_back(
    mixture: Mixture, noise: Tensor, labels: Tensor, process: Process
) -> None:
    levels = Uniform()(process, 10)
    guided = Guided(mixture, NULL, [CFGPlusPlus(0.6)])
    result = sample(guided, DDIM().plan(levels), noise, cond=labels)
    torch.testing.assert_close(result, cfgpp(mixture, noise, labels, levels, 0.6))


def test_cfgpp_at_zero_is_ddim_with_the_null(mixture: Mixture, noise: Tensor, labels: Tensor, process: Process) -> None:
    plan = DDIM().plan(Uniform()(process, 10))
    guided = sample(Guided(mixture, NULL, [CFGPlusPlus(0.0)]), plan, noise, cond=labels)
    torch.testing.assert_close(guided, sample(mixture, plan, noise, cond=torch.full_like(labels, -1)))


def test_cfgpp_needs_a_solver_that_reads_the_state(mixture: Mixture, noise: Tensor, labels: Tensor) -> None:
    guided = Guided(mixture, NULL, [CFGPlusPlus(0.6)])
    levels = Uniform()(mixture.process, 6)
    for solver in (UniPC(), DPMSolverPP(2, singlestep=True)):
        with pytest.raises(InputError, match="ddim"):
            sample(guided, solver.plan(levels), noise, cond=labels)
    for other in (DDPM(), DPMSolverPP(2), Heun()):
        result: Any = sample(guided, other.plan(levels), noise, cond=labels, rng=Rng(0, range(5)))
        assert result.isfinite().all()


def test_adaptive_solvers_take_guidance_but_not_cfgpp(mixture: Mixture, noise: Tensor, labels: Tensor) -> None:
    guided = Guided(mixture, NULL, [Scale(2.0)])
    x: Any = solve(guided, mixture.process, noise, cond=labels, tolerance=0.1).x
    assert x.isfinite().all()
    with pytest.raises(InputError, match="Scale"):
        solve(Guided(mixture, NULL, [CFGPlusPlus(0.6)]), mixture.process, noise, cond=labels)


class Remembering(Mixture):
    self_conditioning = True


@pytest.mark.parametrize("reference", [NULL, Null()])
def test_both_branches_see_the_last_guided_estimate(
    reference: Null, mixture: Mixture, noise: Tensor, labels: Tensor
) -> None:
    denoiser = Remembering(mixture.means, 0.4, mixture.process)
    guided = Guided(denoiser, reference, [Scale(3.0)])
    estimates: list[Any] = []
    plan = DDIM().plan(Uniform()(mixture.process, 4))
    sample(guided, plan, noise, cond=labels, on_step=lambda number, level, x, x0: estimates.append(x0))
    assert guided.self_conditioning
    calls = 1 if reference is NULL else 2
    assert denoiser.told[:calls] == [None] * calls
    for i, told in enumerate(denoiser.told[calls:]):
        assert isinstance(told, Tensor)
        before = estimates[i // calls]
        assert torch.equal(told, torch.cat([before, before]) if calls == 1 else before)


def test_guidance_of_guidance(mixture: Mixture, noise: Tensor, labels: Tensor) -> None:
    weak = Mixture(mixture.means, 1.5, mixture.process)
    inner = Guided(mixture, Weaker(weak), [Scale(2.0), APG(eta=1.0, momentum=0.3)])
    outer = Guided(inner, NULL, [Scale(3.0)])
    (first, second), (poor, worse) = (both(m, noise, at(0.4), labels) for m in (mixture, weak))
    a, b = 2 * first - poor, 2 * second - worse
    torch.testing.assert_close(outer(noise, at(0.4), labels), b + 3 * (a - b))
    plan = DDIM().plan(Uniform()(mixture.process, 5))
    result: Any = sample(outer, plan, noise, cond=labels)
    assert result.isfinite().all()


def test_threads_may_share_a_wrapper(mixture: Mixture, labels: Tensor, process: Process) -> None:
    rules = [Scale(3.0), APG(eta=0.5, threshold=2.0, momentum=-0.5), Rescale(0.4), Interval(0.1, 5.0)]
    guided = Guided(mixture, NULL, rules)
    plan = DDPM().plan(Uniform()(process, 8))

    def run(seed: int) -> Any:
        rng = Rng(seed, range(5))
        return sample(guided, plan, process.prior(rng, torch.zeros(5, 2).double()), cond=labels, rng=rng)

    alone = [run(seed) for seed in range(6)]
    with ThreadPoolExecutor(3) as pool:
        assert all(torch.equal(a, b) for a, b in zip(alone, pool.map(run, range(6)), strict=True))


class Small(Denoiser):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 2))
        self.process = Process(Cosine())

    def forward(self, x: Any, t: Tensor, cond: Any = None, space: Any = None, previous: Any = None) -> Any:
        return self.network(x)


def test_a_perturbed_copy_shares_its_weights() -> None:
    denoiser = Small()
    copy = perturbed(denoiser, {"network.1": nn.Identity()})
    x = torch.ones(3, 2)
    assert not torch.equal(copy(x, at(0.5, 3)), denoiser(x, at(0.5, 3)))
    assert isinstance(denoiser.network[1], nn.Tanh)
    with torch.no_grad():
        denoiser.network[2].weight.zero_()
    assert torch.equal(copy(x, at(0.5, 3)), denoiser(x, at(0.5, 3)))
    with pytest.raises(InputError, match=r"network\.9"):
        perturbed(denoiser, {"network.9": nn.Identity()})


@pytest.mark.parametrize(
    ("rule", "options", "named"),
    [
        (Scale, {"w": -1.0}, "-1.0"),
        (Scale, {"w": float("nan")}, "nan"),
        (Scale, {"w": float("inf")}, "inf"),
        (Scale, {"w": "3"}, "'3'"),
        (CFGPlusPlus, {"w": 7.5}, "7.5"),
        (Rescale, {"phi": 1.5}, "1.5"),
        (Interval, {"low": 2.0, "high": 1.0}, "2.0"),
        (Interval, {"low": float("nan"), "high": 1.0}, "nan"),
        (Interval, {"low": 0.0, "high": 1.0, "axis": "sigm"}, "did you mean 'sigma'"),
        (APG, {"eta": -0.5}, "-0.5"),
        (APG, {"threshold": 0.0}, "0.0"),
        (APG, {"momentum": 1.0}, "1.0"),
        (CFGZeroStar, {"zero_init": 2}, "2"),
        (DynamicThreshold, {"quantile": float("nan")}, "nan"),
        (DynamicThreshold, {"limit": -3.0}, "-3.0"),
    ],
)
def test_values_that_make_no_sense_are_named(rule: Any, options: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        rule(**options)


def test_what_is_missing_is_said(mixture: Mixture, noise: Tensor, labels: Tensor) -> None:
    with pytest.raises(InputError, match="scale"):
        Guided(mixture, NULL, [Rescale(0.7)])
    with pytest.raises(InputError, match="bonds"):
        Guided(mixture, NULL, [Scale(2.0, parts=["bonds"])])(noise, at(0.5), labels)
    del mixture.process
    with pytest.raises(InputError, match="process"):
        Guided(mixture, NULL, [Scale(2.0), Interval(0.1, 1.0)])(noise, at(0.5), labels)


def test_everything_has_a_name() -> None:
    assert make("scale", w=2.0) == Scale(2.0)
    with pytest.raises(InputError, match="did you mean 'rescale'"):
        make("rescal")
    assert all(entry.summary for entry in GUIDANCE.values())
