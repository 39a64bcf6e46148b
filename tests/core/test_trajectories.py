"""Whole trajectories beside diffusers' schedulers: same start, same levels, same exact denoiser, float64.

Left out, because theirs differs for a reason: DPM-Solver++ 3M (its quadratic term is halved, second order only; ours is
third order), single-step DPM-Solver++ 3 (third order only for stages at 1/3 and 2/3 of a step, which no grid gives).
DEIS is compared without the step to the clean end, which is 0 log 0 there.
"""

from __future__ import annotations

import pytest
import torch

from multidiff import grid, schedule, solver
from multidiff.process import Process
from multidiff.random import Rng
from multidiff.sample import sample
from multidiff.testing import mixture, peer

diffusers = pytest.importorskip("diffusers")

PEERS = {
    "euler": ("EulerDiscreteScheduler", {}, 1e-6),
    "heun": ("HeunDiscreteScheduler", {}, 1e-10),
    "dpm++1": ("DPMSolverMultistepScheduler", {"solver_order": 1, "final_sigmas_type": "zero"}, 1e-6),
    "dpm++2m": ("DPMSolverMultistepScheduler", {"solver_order": 2, "final_sigmas_type": "zero"}, 1e-6),
    "dpm++2s": ("DPMSolverSinglestepScheduler", {"final_sigmas_type": "zero", "lower_order_final": True}, 1e-10),
    "unipc2": ("UniPCMultistepScheduler", {"solver_order": 2, "final_sigmas_type": "zero"}, 1e-10),
    "unipc3": ("UniPCMultistepScheduler", {"solver_order": 3, "final_sigmas_type": "zero"}, 1e-10),
    "deis3": ("DEISMultistepScheduler", {"solver_order": 3, "lower_order_final": False}, 1e-10),
    "lms4": ("LMSDiscreteScheduler", {}, 1e-8),
}
"""Name -> their class, options and the tolerance; 1e-6 where theirs rounds the state to float32 at every step."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("steps", [5, 10, 20])
@pytest.mark.parametrize("kind", ["cosine", "ve", "rectified-flow"])
@pytest.mark.parametrize("name", PEERS)
def test_as_diffusers(name, kind, steps):
    process = Process(schedule.make(kind))
    denoiser = mixture.seven(process)
    levels = grid.Karras()(process, steps)
    levels = levels[:-1] if name == "deis3" else levels
    x = process.prior(Rng.batch(0), torch.zeros(64, 2, dtype=torch.float64), t=levels[0].t)
    class_name, options, tolerance = PEERS[name]
    scheduler = getattr(diffusers, class_name)(prediction_type="sample", **options)
    theirs = peer.run(scheduler, denoiser, levels, x)
    ours = sample(denoiser, solver.make(name).plan(levels), x)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * 10 if kind == "ve" else tolerance)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "class_name", "options"),
    [
        ("euler-a", "EulerAncestralDiscreteScheduler", {"prediction_type": "epsilon"}),
        (
            "dpm++2m-sde",
            "DPMSolverMultistepScheduler",
            {"prediction_type": "sample", "algorithm_type": "sde-dpmsolver++", "final_sigmas_type": "zero"},
        ),
    ],
)
def test_stochastic_ones_with_the_same_noise(name, class_name, options):
    """float32, in which both draw the same numbers from a generator of the same seed."""
    process = Process(schedule.Cosine())
    levels = grid.Karras(sigma_max=10.0)(process, 12)
    x = process.prior(Rng.batch(0), torch.zeros(64, 2), t=levels[0].t)
    denoiser = mixture.seven(process)
    scheduler = getattr(diffusers, class_name)(**options)
    theirs = peer.run(scheduler, denoiser, levels, x, generator=torch.Generator().manual_seed(5))
    ours = sample(denoiser, solver.make(name).plan(levels), x, rng=Rng.batch(5))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("eta", "steps"), [(0.0, 20), (0.0, 50), (0.7, 20), (1.0, 20)])
def test_ddim_on_its_own_table_of_levels(eta, steps):
    """Not through `peer`: their levels, taken from their table, against our Discrete schedule and Trailing grid."""
    scheduler = diffusers.DDIMScheduler(prediction_type="sample", clip_sample=False, timestep_spacing="trailing")
    scheduler.alphas_cumprod = (1 - scheduler.betas.double()).cumprod(0)
    scheduler.final_alpha_cumprod = torch.ones((), dtype=torch.float64)
    scheduler.set_timesteps(steps)
    process = Process(schedule.Discrete(scheduler.alphas_cumprod))
    denoiser = mixture.seven(process)
    x = start = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(5)
    for i in scheduler.timesteps:
        estimate = denoiser(x, torch.full((64,), (int(i) + 1) / 1000, dtype=torch.float64))
        x = scheduler.step(estimate, i, x, eta=eta, generator=generator, return_dict=False)[0]
    ours = sample(denoiser, solver.DDIM(eta).plan(grid.Trailing()(process, steps)), start, rng=Rng.batch(5))
    torch.testing.assert_close(ours, x, rtol=0, atol=1e-5)
