"""Solvers: order of convergence, exactness, invariance under the schedule, stochastic ones in closed form."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch

from multidiff import adaptive, grid, schedule, solver
from multidiff.errors import InputError
from multidiff.plan import Plan
from multidiff.process import Process
from multidiff.random import Rng
from multidiff.sample import sample
from multidiff.space import Euclidean
from multidiff.state import Parts
from multidiff.testing import convergence, mixture

ORDERS = {
    "ddim": 1,
    "euler": 1,
    "heun": 2,
    "dpm++1": 1,
    "dpm++2m": 2,
    "dpm++2s": 2,
    "dpm++3m": 3,
    "dpm++3s": 3,
    "unipc2": 3,  # UniC raises the order of its predictor by one (Zhao et al. 2023, theorem 3.1)
    "unipc3": 4,
    "deis3": 3,
    "lms4": 4,
    "angular3": 3,
}
STOCHASTIC = [
    "ddpm",
    "euler-a",
    "dpm++2m-sde",
    "dpm++2s-sde",
    "dpm++3m-sde",
    "restart",
    "restart-sde",
    "ddim-eta",
    "heun-churn",
]
ALL = [*ORDERS, *STOCHASTIC]


def made(name: str) -> solver.Solver:
    special = {"ddim-eta": ("ddim", {"eta": 0.5}), "heun-churn": ("heun", {"churn": 20.0})}
    name, options = special.get(name, (name, {}))
    return solver.make(name, **options)


def zeros(batch: int = 48) -> torch.Tensor:
    return torch.zeros(batch, 2, dtype=torch.float64)


@pytest.fixture(scope="module")
def exact():
    """The mixture in VE, a start, and where the ODE leads at the last noisy level."""
    process = Process(schedule.VE())
    denoiser = mixture.seven(process)
    x = process.prior(Rng.batch(0), zeros())
    end = grid.EARLIEST
    return process, denoiser, x, adaptive.solve(denoiser, process, x, end=end, tolerance=1e-10, pair="dp54").x


def test_every_name_is_tested():
    assert set(solver.SOLVERS) == {name for name in ALL if name not in ("ddim-eta", "heun-churn")}


@pytest.mark.parametrize("name", ORDERS)
def test_order_of_convergence(exact, name):
    process, denoiser, x, reference = exact
    steps = [240, 480] if ORDERS[name] < 4 else [200, 400]
    error = convergence.errors(made(name), denoiser, process, x, reference, steps)
    assert convergence.order(steps, error) == pytest.approx(ORDERS[name], abs=0.2)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", ["cosine", "rectified-flow", "polynomial"])
def test_same_answer_under_another_schedule_at_the_same_log_snr(name, kind):
    def run(kind):
        process = Process(schedule.make(kind))
        ve = Process(schedule.VE())
        ratios = [level.sigma for level in grid.Karras(sigma_max=20.0, sigma_min=0.02)(ve, 9)[:-1]]
        levels = grid.Custom(process.schedule.time(-torch.tensor(ratios, dtype=torch.float64).log()).tolist())(
            process, 9
        )
        x = process.prior(Rng.batch(1), zeros(), t=levels[0].t) / levels[0].sigma * ratios[0] * levels[0].alpha
        return sample(mixture.seven(process), made(name).plan(levels), x, rng=Rng.batch(2))

    torch.testing.assert_close(run(kind), run("ve"), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["cosine", "rectified-flow", "ve", "laplace"])
@pytest.mark.parametrize("name", ALL)
def test_a_constant_estimate_is_reached_exactly(name, kind):
    """A point distribution: whatever the steps, noise included, the end is that point."""
    process = Process(schedule.make(kind))
    for grid_name in ("uniform", "karras"):
        for steps in (2, 3, 7):
            levels = grid.make(grid_name)(process, steps)
            x = process.prior(Rng.batch(0), zeros(4), t=levels[0].t)
            result = sample(lambda x, t, **_: torch.full_like(x, 0.7), made(name).plan(levels), x, rng=Rng.batch(1))
            torch.testing.assert_close(result, torch.full_like(x, 0.7), rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ALL)
def test_one_step_lands_on_the_estimate(name):
    process = Process(schedule.RectifiedFlow())
    levels = grid.Uniform()(process, 1)
    if name.startswith("restart"):
        with pytest.raises(InputError, match="more steps"):
            made(name).plan(levels)
        return
    x = process.prior(Rng.batch(0), zeros(4))
    result = sample(mixture.seven(process), made(name).plan(levels), x, rng=Rng.batch(1))
    torch.testing.assert_close(result, mixture.seven(process)(x, torch.ones(4).double()))


class Units(Euclidean):
    """Noise in a new direction at every draw: a linear run then shows its exact variance."""

    def __init__(self) -> None:
        self.drawn = 0

    def noise(self, rng, like):
        self.drawn += 1
        out = torch.zeros_like(like)
        out[:, self.drawn] = 1.0
        return out


def exact_variance(plan: Plan, process: Process, variance: float) -> float:
    """Of the samples, where the data are a Gaussian of that variance; no sampling involved."""
    like = torch.zeros(1, 3 + 3 * len(plan.calls), dtype=torch.float64)

    def denoiser(x, t, **_):
        alpha, sigma = process.alpha(t)[:, None], process.sigma(t)[:, None]
        return alpha * variance / (alpha**2 * variance + sigma**2) * x

    start = plan.calls[0].level
    like[:, 0] = math.sqrt(start.alpha**2 * variance + start.sigma**2)
    return float(sample(denoiser, plan, like, space=Units(), rng=Rng.batch(0)).square().sum())


@pytest.mark.parametrize("kind", ["cosine", "ve", "rectified-flow"])
@pytest.mark.parametrize("name", STOCHASTIC)
def test_variance_converges_to_that_of_the_data(name, kind):
    process = Process(schedule.make(kind))
    errors = []
    for steps in (100, 400):
        plan = made(name).plan(grid.LogSNR(sigma_min=0.002, sigma_max=80.0)(process, steps))
        errors.append(abs(exact_variance(plan, process, 0.49) - 0.49))
    assert errors[1] < 0.015
    assert errors[1] < 0.35 * errors[0] or errors[1] < 1e-4


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_variance_of_ddim_is_the_papers(eta):
    """The recursion from equations 12 and 16 of Song et al. 2021, written down again."""
    process, s2 = Process(schedule.Cosine()), 0.36
    levels = grid.Uniform()(process, 12)
    bar = [level.alpha**2 for level in levels]
    v = bar[0] * s2 + 1 - bar[0]
    for now, after in itertools.pairwise(bar):
        fresh = eta**2 * (1 - after) / (1 - now) * (1 - now / after)
        x0_per_x = now**0.5 * s2 / (now * s2 + 1 - now)
        eps_per_x = (1 - now**0.5 * x0_per_x) / (1 - now) ** 0.5
        v = (after**0.5 * x0_per_x + (1 - after - fresh) ** 0.5 * eps_per_x) ** 2 * v + fresh
    assert exact_variance(solver.DDIM(eta).plan(levels), process, s2) == pytest.approx(v, rel=1e-9)


def test_mean_and_covariance_of_drawn_samples():
    process = Process(schedule.Cosine())
    covariance = torch.tensor([[0.5, 0.2], [0.2, 0.3]], dtype=torch.float64)
    denoiser = mixture.gaussian(process, covariance, torch.tensor([0.5, -1.0]))
    for name, steps in (("ddpm", 400), ("dpm++2m-sde", 80), ("heun-churn", 60)):
        levels = grid.Karras()(process, steps)
        x = process.prior(Rng.batch(0), zeros(10_000), t=levels[0].t)
        result = sample(denoiser, made(name).plan(levels), x, rng=Rng.batch(3))
        torch.testing.assert_close(result.mean(0), denoiser.mean(), rtol=0, atol=0.03)
        torch.testing.assert_close(result.T.cov(), covariance, rtol=0, atol=0.05)


@pytest.mark.parametrize("name", ALL)
def test_three_schedules_in_one_state_equal_each_alone(name):
    """Bit for bit; noise is drawn part by part, so that stochastic plans are compared through a fixed noise."""

    class Fixed(Euclidean):
        def noise(self, rng, like):
            draw = torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(4, 2)
            return Parts(dict.fromkeys(like, draw)) if isinstance(like, Parts) else draw

    schedules = {"a": schedule.Cosine(), "b": schedule.VE(), "c": schedule.RectifiedFlow()}
    together = Process(schedules)
    levels = grid.Uniform()(together, 8)
    x = together.prior(Rng.batch(0), Parts({part: zeros(4) for part in schedules}))
    result = sample(mixture.seven(together), made(name).plan(levels), x, rng=Rng.batch(0), space=Fixed())
    if name == "heun-churn":
        return  # churn is laid out on the first part's scale; alone each would have its own
    for part, own in schedules.items():
        alone = Process(own)
        plan = solver_with_levels_of(name, together, alone)
        assert torch.equal(result[part], sample(mixture.seven(alone), plan, x[part], rng=Rng.batch(0), space=Fixed()))


def solver_with_levels_of(name: str, together: Process, alone: Process) -> Plan:
    times = [level.t for level in grid.Uniform()(together, 8)]
    own = grid.Custom(times)(alone, 8)
    if not name.startswith("restart"):
        return made(name).plan(own)
    # The interval is found on the first part's scale: give the other parts the same places.
    restart = made(name)
    high, low = restart._interval(grid.Uniform()(together, 8))
    ends = {end: own[k].sigma / own[k].alpha for end, k in (("sigma_min", low), ("sigma_max", high))}
    return dataclasses.replace(restart, **ends).plan(own)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_ends_are_finite_in_low_precision(name, dtype):
    for kind in ("cosine", "rectified-flow", "ve"):
        process = Process(schedule.make(kind))
        levels = grid.Karras()(process, 6)
        x = process.prior(Rng.batch(0), zeros(8).to(dtype), t=levels[0].t)
        result = sample(mixture.seven(process), made(name).plan(levels), x, rng=Rng.batch(1))
        assert result.dtype == dtype
        assert result.isfinite().all()


def test_angular_integrals_are_exact():
    """Its weights against plain numerical integration of x0 = phi^k along one long step."""
    process = Process(schedule.RectifiedFlow())
    levels = grid.Custom([1.0, 0.7, 0.4, 0.1])(process, 4)
    update = solver.Angular(3).plan(levels).calls[2].updates[0]
    coef = dict(update.terms)
    angles = [math.atan2(level.sigma, level.alpha) for level in levels]
    phi = torch.linspace(angles[3], angles[2], 400_001, dtype=torch.float64)
    for k in range(3):
        integral = levels[3].sigma * torch.trapezoid(phi**k / phi.sin() ** 2, phi)
        weighted = sum(coef[name] * angles[j] ** k for name, j in (("x0", 2), ("m1", 1), ("m0", 0)))
        assert weighted == pytest.approx(float(integral), rel=1e-8)


def test_calls_and_budgets():
    process, karras = Process(schedule.Cosine()), grid.Karras()
    assert len(solver.Heun().plan(karras(process, 10)).calls) == 19
    assert len(solver.UniPC().plan(karras(process, 10)).calls) == 10
    assert solver.steps_for(20, solver.Heun(), process, karras) == 10
    assert solver.steps_for(20, solver.DDIM(), process, karras) == 20
    assert (
        len(solver.Restart().plan(karras(process, solver.steps_for(50, solver.Restart(), process, karras))).calls) <= 50
    )
    with pytest.raises(InputError, match="too few"):
        solver.steps_for(0, solver.DDIM(), process, karras)


def test_bad_input():
    with pytest.raises(InputError, match=r"did you mean 'dpm\+\+2m'"):
        solver.make("dmp++2m")
    with pytest.raises(InputError, match="option"):
        solver.make("ddim", eat=1.0)
    with pytest.raises(InputError, match="order"):
        solver.DPMSolverPP(order=4)
    with pytest.raises(InputError, match="eta"):
        solver.DDIM(eta=float("nan"))
    with pytest.raises(InputError, match="churn"):
        solver.Heun(churn=-1)
    levels = grid.Karras()(Process(schedule.Cosine()), 4)
    with pytest.raises(InputError, match="fall"):
        solver.DDIM().plan(levels[::-1])
    with pytest.raises(InputError, match="2 levels"):
        solver.DDIM().plan(levels[:1])
