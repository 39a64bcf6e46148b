"""The loop: no hidden randomness, no shared state, samples that do not depend on their batch."""

from __future__ import annotations

import pytest
import torch

from multidiff import grid, schedule, solver
from multidiff.denoiser import Denoiser
from multidiff.process import Process
from multidiff.random import Rng, fold
from multidiff.sample import sample
from multidiff.space import Masked, Product, SymmetricPairs, ZeroCentroid
from multidiff.state import Parts, map_state, tensors
from multidiff.testing import invariance, mixture

PROCESS = Process(schedule.Cosine())
DENOISER = mixture.seven(PROCESS)
LEVELS = grid.Karras()(PROCESS, 8)
DETERMINISTIC = [n for n in solver.SOLVERS if not solver.make(n).plan(LEVELS).stochastic]
STOCHASTIC = [n for n in solver.SOLVERS if n not in DETERMINISTIC]


def start(batch: int = 6) -> torch.Tensor:
    return PROCESS.prior(Rng(0, range(batch)), torch.zeros(batch, 2, dtype=torch.float64), t=LEVELS[0].t)


def test_which_solvers_draw_noise():
    assert set(STOCHASTIC) == {"ddpm", "euler-a", "dpm++2m-sde", "dpm++2s-sde", "dpm++3m-sde", "restart", "restart-sde"}


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_deterministic_solvers_draw_nothing(name, monkeypatch):
    def forbidden(*_, **__):
        raise AssertionError("a random number was drawn")

    x = start()
    for function in ("randn", "rand", "randn_like", "rand_like", "normal", "randint", "randperm"):
        monkeypatch.setattr(torch, function, forbidden)
    sample(DENOISER, solver.make(name).plan(LEVELS), x)


@pytest.mark.parametrize("name", STOCHASTIC)
def test_noise_comes_from_the_given_streams_alone(name):
    plan, x = solver.make(name).plan(LEVELS), start()
    before = torch.get_rng_state()
    first = sample(DENOISER, plan, x, rng=Rng(1, range(6)))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert torch.equal(sample(DENOISER, plan, x, rng=Rng(1, range(6))), first)
    assert not torch.equal(sample(DENOISER, plan, x, rng=Rng(2, range(6))), first)
    with pytest.raises(ValueError, match="rng"):
        sample(DENOISER, plan, x)


@pytest.mark.parametrize("name", solver.SOLVERS)
def test_a_sample_is_the_same_alone_and_in_any_batch(name):
    plan, x = solver.make(name).plan(LEVELS), start()

    def run(indices):
        return sample(DENOISER, plan, x[indices], rng=Rng(1, indices))

    assert invariance.batch_error(run, 6) < 1e-12
    assert torch.equal(run([4, 1, 3])[1], run([1])[0])


@pytest.mark.parametrize("name", ["dpm++2m", "unipc3", "lms4", "dpm++2s-sde"])
def test_two_interleaved_runs_of_one_plan(name):
    plan, a, b = solver.make(name).plan(LEVELS), start(), start() * 0.5
    alone = [sample(DENOISER, plan, x, rng=Rng(1, range(6))) for x in (a, b)]
    inner = []

    class Nested(Denoiser):
        """Runs the other state through the same plan in the middle of the first one."""

        def forward(self, x, t, cond=None, space=None, previous=None):
            if len(inner) == 0 and float(t[0]) < 0.3:
                inner.append(sample(DENOISER, plan, b, rng=Rng(1, range(6))))
            return DENOISER(x, t)

    outer = sample(Nested(), plan, a, rng=Rng(1, range(6)))
    assert torch.equal(outer, alone[0])
    assert torch.equal(inner[0], alone[1])


@pytest.mark.parametrize("name", solver.SOLVERS)
def test_the_start_is_left_as_it_was(name):
    x = start()
    kept = x.clone()
    sample(DENOISER, solver.make(name).plan(LEVELS), x, rng=Rng(1, range(6)))
    assert torch.equal(x, kept)


@pytest.mark.parametrize("name", solver.SOLVERS)
def test_a_trajectory_stays_in_its_subspace(name):
    mask = torch.arange(5) < torch.tensor([[5], [3], [2]])
    space = Product({"r": ZeroCentroid(mask), "h": Masked(mask), "b": SymmetricPairs(mask)})
    process = Process({"r": schedule.Cosine(), "h": schedule.RectifiedFlow(), "b": schedule.VE()}, space)
    like = Parts(r=torch.zeros(3, 5, 3), h=torch.zeros(3, 5, 2), b=torch.zeros(3, 5, 5, 2))
    like = map_state(lambda x: x.double(), like)

    def denoiser(x, t, cond=None, space=None):
        return space.project(map_state(lambda part: torch.tanh(part), x))

    x = process.prior(Rng(0, range(3)), like)
    result = sample(denoiser, solver.make(name).plan(grid.Uniform()(process, 6)), x, space=space, rng=Rng(1, range(3)))
    for part, projected in zip(tensors(result), tensors(space.project(result)), strict=True):
        torch.testing.assert_close(part, projected, rtol=0, atol=1e-12)


def test_rotation_of_the_start_rotates_the_result():
    turn = invariance.rotation(3)

    def run(x):
        return sample(lambda x, t, **_: x / (1 + x.square().sum(-1, keepdim=True)), plan, x)

    plan = solver.make("unipc2").plan(LEVELS)
    x = Rng.batch(0).normal((4, 7, 3), torch.zeros(0, dtype=torch.float64))
    assert invariance.equivariance_error(run, lambda x: x @ turn.T, x) < 1e-12
    assert invariance.equivariance_error(run, lambda x: x + 1.0, x) > 1e-3


def test_self_conditioning_is_handed_the_last_estimate():
    seen = []

    class Remembers(Denoiser):
        self_conditioning = True

        def forward(self, x, t, cond=None, space=None, previous=None):
            seen.append(previous)
            return DENOISER(x, t) + (0 if previous is None else 0.1 * previous)

    estimates = []
    sample(Remembers(), solver.make("ddim").plan(LEVELS), start(), on_step=lambda i, level, x, x0: estimates.append(x0))
    assert seen[0] is None
    assert all(a is b for a, b in zip(seen[1:], estimates, strict=False))


def test_on_step_can_change_the_state():
    seen = []

    def halve_once(number, level, x, x0):
        seen.append((number, level.t))
        return torch.zeros_like(x) if number == 7 else None

    result = sample(DENOISER, solver.make("ddim").plan(LEVELS), start(), on_step=halve_once)
    assert result.abs().max() == 0
    assert seen == [(i, level.t) for i, level in enumerate(LEVELS[:-1])]


def test_streams():
    assert fold(1, 2) != fold(2, 1)
    assert fold(0, 1, 2) != fold(0, 2, 1)
    like = torch.zeros(0)
    both = Rng(7, [3, 5]).normal((2, 10_000), like)
    assert torch.equal(Rng(7, [5]).normal((1, 10_000), like)[0], both[1])
    assert abs(float(torch.corrcoef(both)[0, 1])) < 0.05
    assert float(both.mean()) == pytest.approx(0, abs=0.03)
    assert float(both.std()) == pytest.approx(1, abs=0.02)
    assert torch.equal(Rng(7, [3]).normal((1, 9), like.bfloat16()), Rng(7, [3]).normal((1, 9), like).bfloat16())
    with pytest.raises(ValueError, match="one a sample"):
        Rng(7, [3, 5]).normal((3, 2), like)
