"""What is known comes out as given, and the rest fits it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from multidiff import InputError, Parts, Process, Rng, sample
from multidiff.denoiser import Denoiser
from multidiff.grid import LogSNR, Uniform
from multidiff.guidance import (
    APG,
    CFGPlusPlus,
    CFGZeroStar,
    DynamicThreshold,
    Gradient,
    Guided,
    Inpaint,
    Interval,
    Match,
    Moment,
    Negative,
    Rescale,
    Scale,
)
from multidiff.schedule import Cosine, LinearVP
from multidiff.solver import DDIM, DDPM, DEIS, LMS, DPMSolverPP, Heun, Restart, Solver, UniPC
from multidiff.space import Masked, Product, SymmetricPairs, ZeroCentroid

from .conftest import Gaussian, Mixture

KNOWN = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
MASK = torch.tensor([[True, False]])
MEAN, DEVIATION = -0.5 + 0.8 * 1.5, 0.6  # of the second entry, given that the first is 2


def run(
    denoiser: Denoiser, solver: Solver, process: Process, batch: int, steps: int, sigma_min: float = 0.01
) -> Tensor:
    levels = LogSNR(sigma_min=sigma_min, sigma_max=80)(process, steps)
    rng = Rng.batch(1)
    x = process.prior(rng, torch.zeros(batch, 2, dtype=torch.float64), t=levels[0].t)
    result = sample(denoiser, solver.plan(levels), x, rng=rng)
    assert isinstance(result, Tensor)
    return result


@pytest.mark.parametrize("solver", [DDIM(), DDPM(), DPMSolverPP(2), Heun(), UniPC(2), Restart(repeats=1)])
def test_known_entries_are_exact(solver: Solver, gaussian: Gaussian, process: Process) -> None:
    result = run(Inpaint(gaussian, KNOWN, MASK), solver, process, 8, 10)
    assert (result[:, 0] == 2.0).all()
    assert result[:, 1].std() > 0.1


@pytest.mark.parametrize("solver", [DEIS(3), LMS(4)])
def test_known_entries_are_exact_to_rounding(solver: Solver, gaussian: Gaussian, process: Process) -> None:
    result = run(Inpaint(gaussian, KNOWN, MASK), solver, process, 8, 10)
    assert (result[:, 0] - 2.0).abs().max() < 1e-12


def test_known_entries_have_the_noise_of_their_level(gaussian: Gaussian, process: Process, noise: Tensor) -> None:
    """x_t = alpha known + sigma eps at every step, eps being what the run started from."""
    levels = Uniform()(process, 6)
    seen: list[Any] = []
    x = process.level(1.0).alpha * KNOWN + process.level(1.0).sigma * noise  # type: ignore[operator]
    sample(Inpaint(gaussian, KNOWN, MASK), DDIM().plan(levels), x, on_step=lambda n, level, x, x0: seen.append(x))
    for level, x in zip(levels[1:], seen, strict=True):
        expected = level.alpha * 2.0 + level.sigma * noise[:, 0]  # type: ignore[operator]
        torch.testing.assert_close(x[:, 0], expected)


def test_matching_the_known_entries_gives_the_conditional_mean(gaussian: Gaussian, process: Process) -> None:
    """With the true spread of the estimate it is Bayes' rule: the second entry is that of the conditional Gaussian."""

    def loss(x0: Any, moment: Moment) -> Tensor:
        assert isinstance(moment.alpha, float)
        assert isinstance(moment.sigma, float)
        return (2.0 - x0[:, 0]).square() / (2 * gaussian.spread(moment.alpha, moment.sigma)[0, 0])

    result = run(Inpaint(Gradient(gaussian, loss), KNOWN, MASK), DDPM(), process, 4000, 60)
    assert abs(result[:, 1].mean() - MEAN) < 0.03
    assert abs(result[:, 1].std() - DEVIATION) < 0.05
    rough = run(Inpaint(Gradient(gaussian, Match(KNOWN, MASK)), KNOWN, MASK), DDPM(), process, 4000, 60)
    assert abs(rough[:, 1].mean() - MEAN) < 0.1


def test_resampling_brings_the_conditional_mean_near(gaussian: Gaussian, process: Process) -> None:
    denoiser = Inpaint(gaussian, KNOWN, MASK)
    once = run(denoiser, DDPM(), process, 2000, 24, 0.02)[:, 1].mean()
    often = run(denoiser, Restart(DDPM(), 0.02, 0.15, 100), process, 2000, 24, 0.02)[:, 1].mean()
    assert abs(once - MEAN) > 0.3
    assert abs(often - MEAN) < 0.06


class Molecule(Denoiser):
    """A smooth function of the state and a condition (B,), in the subspace of the batch."""

    self_conditioning = True

    def __init__(self) -> None:
        super().__init__()
        self.process = Process({"positions": Cosine(), "atoms": LinearVP(), "bonds": Cosine()})

    def forward(self, x: Any, t: Tensor, cond: Any = None, space: Any = None, previous: Any = None) -> Any:
        strength = 1.0 if cond is None else cond[:, None, None]
        old = 0.0 if previous is None else previous["positions"]
        return space.project(
            Parts(
                positions=torch.tanh(strength * x["positions"]) + 0.1 * old,
                atoms=torch.sin(strength * x["atoms"]),
                bonds=torch.sin(x["bonds"]) * (strength if cond is None else strength[..., None]),
            )
        )


def molecules(sizes: list[int], padded: int) -> tuple[Product, Parts]:
    mask = torch.arange(padded) < torch.tensor(sizes)[:, None]
    space = Product({"positions": ZeroCentroid(mask), "atoms": Masked(mask), "bonds": SymmetricPairs(mask)})
    batch = len(sizes)
    shapes = {"positions": (padded, 3), "atoms": (padded, 4), "bonds": (padded, padded, 2)}
    return space, Parts({name: torch.zeros(batch, *shape, dtype=torch.float64) for name, shape in shapes.items()})


EVERYTHING = [
    Scale(3.0, parts=["positions"]),
    Scale(1.5, parts=["atoms", "bonds"]),
    Interval(0.05, 8.0),
    Rescale(0.5),
    APG(eta=0.3, threshold=4.0, momentum=-0.4, parts=["positions", "atoms"]),
    CFGZeroStar(zero_init=0.2, parts=["atoms"]),
    DynamicThreshold(0.9, 0.7, parts=["positions", "bonds"]),
]


def generate(denoiser: Denoiser, sizes: list[int], padded: int, solver: Solver | None = None) -> tuple[Product, Any]:
    space, like = molecules(sizes, padded)
    process: Any = denoiser.process
    rng = Rng(4, range(len(sizes)))
    x = process.prior(rng, like, space)
    cond = torch.linspace(1.0, 2.0, len(sizes), dtype=torch.float64)
    cond[:] = 1.5
    plan = (solver or DDPM()).plan(Uniform()(process, 8))
    return space, sample(denoiser, plan, x, space=space, cond=cond, rng=rng)


def everything(sizes: list[int], padded: int) -> Denoiser:
    space, like = molecules(sizes, padded)
    known: Any = space.project(Parts({n: torch.ones_like(p) * 0.3 for n, p in like.items()}))
    positions = torch.arange(padded)[None, :, None].expand(1, padded, 3).to(torch.float64)
    where = (torch.arange(padded) < 2)[None, :, None]
    guided = Guided(Molecule(), Negative(torch.tensor([0.4], dtype=torch.float64)), EVERYTHING)
    return Inpaint(guided, {"positions": positions, "atoms": known["atoms"]}, {"positions": where, "atoms": where})


def test_everything_at_once_stays_in_the_subspace() -> None:
    sizes = [3, 6, 4]
    space, result = generate(everything(sizes, 6), sizes, 6)
    projected: Any = space.project(result)
    for name in result:
        assert result[name].isfinite().all()
        torch.testing.assert_close(result[name], projected[name], atol=1e-12, rtol=0)
    assert (result["atoms"][:, :2] == 0.3).all()
    difference = result["positions"][:, 1] - result["positions"][:, 0]
    torch.testing.assert_close(difference, torch.ones_like(difference))
    assert (result["positions"][:, 2:3] - result["positions"][:, :1]).std() > 0.1


def test_padding_and_neighbours_change_nothing() -> None:
    _, together = generate(everything([3, 6, 4], 9), [3, 6, 4], 9)
    _, alone = generate(everything([3], 3), [3], 3)
    torch.testing.assert_close(together["positions"][:1, :3], alone["positions"])
    torch.testing.assert_close(together["atoms"][:1, :3], alone["atoms"])
    torch.testing.assert_close(together["bonds"][:1, :3, :3], alone["bonds"])


def test_parts_that_a_rule_does_not_name_are_left_alone() -> None:
    null = Negative(torch.tensor([0.4], dtype=torch.float64))
    some = Guided(Molecule(), null, [Scale(3.0, parts=["atoms"])])
    space, like = molecules([4], 4)
    x: Any = some.process.prior(Rng(0, [0]), like, space)  # type: ignore[union-attr]
    t, cond = torch.tensor([0.5], dtype=torch.float64), torch.tensor([1.5], dtype=torch.float64)
    guided: Any = some(x, t, cond, space)
    plain: Any = Molecule()(x, t, cond, space)
    other: Any = Molecule()(x, t, null.cond, space)
    assert torch.equal(guided["bonds"], plain["bonds"])
    torch.testing.assert_close(guided["atoms"], other["atoms"] + 3 * (plain["atoms"] - other["atoms"]))


def test_cfgpp_moves_what_is_unknown_alone() -> None:
    guided = Guided(Molecule(), Negative(torch.tensor([0.4], dtype=torch.float64)), [CFGPlusPlus(0.6)])
    where = (torch.arange(4) < 2)[None, :, None]
    known = torch.full((1, 4, 4), 0.2, dtype=torch.float64)
    space, result = generate(Inpaint(guided, {"atoms": known}, {"atoms": where}), [4, 4], 4, DPMSolverPP(2))
    projected: Any = space.project(result)
    assert (result["atoms"][:, :2] == 0.2).all()
    assert all(torch.allclose(result[name], projected[name]) for name in result)


def test_there_is_no_other_source_of_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deterministic runs draw nothing, with torch's own generators patched to raise."""
    denoiser = everything([3, 6], 6)
    space, like = molecules([3, 6], 6)
    process: Any = denoiser.process
    x = process.prior(Rng(4, range(2)), like, space)

    def refuse(*args: Any, **options: Any) -> Any:
        raise AssertionError("hidden randomness")

    for name in (
        "randn",
        "rand",
        "randn_like",
        "rand_like",
        "normal",
        "bernoulli",
        "randint",
        "randperm",
        "multinomial",
    ):
        monkeypatch.setattr(torch, name, refuse)
    plan = DPMSolverPP(2).plan(Uniform()(process, 6))
    cond = torch.full((2,), 1.5, dtype=torch.float64)
    runs = [sample(denoiser, plan, x, space=space, cond=cond) for _ in range(2)]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in like)  # type: ignore[index]


def test_what_makes_no_sense_is_named(mixture: Mixture, noise: Tensor) -> None:
    with pytest.raises(InputError, match="atoms"):
        Inpaint(mixture, {"atoms": KNOWN}, {"bonds": MASK})
    with pytest.raises(InputError, match="finite"):
        Inpaint(mixture, KNOWN / 0.0, MASK)
    with pytest.raises(InputError, match="atoms"):
        Inpaint(mixture, {"atoms": KNOWN}, {"atoms": MASK})(noise, torch.full((5,), 0.5, dtype=torch.float64))
    with pytest.raises(InputError, match="-1"):
        Match(KNOWN, MASK, deviation=-1)
