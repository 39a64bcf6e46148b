"""Runs that start from a given state or a given noise, and the share of the steps that they take."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from multidiff.denoiser import NetworkDenoiser
from multidiff.errors import InputError
from multidiff.pipeline import Pipeline, Settings
from multidiff.prediction import Prediction
from multidiff.process import Process
from multidiff.random import Rng
from multidiff.schedule import Cosine
from multidiff.space import Masked

SHAPE = (3, 4, 2)


class Ideal(nn.Module):
    """Says that every clean state is `answer`; keeps what it was asked about."""

    def __init__(self, answer: float = 0.5) -> None:
        super().__init__()
        self.answer = nn.Parameter(torch.tensor(answer))
        self.asked: list[Tensor] = []

    def forward(self, x: Tensor, log_snr: Tensor, cond: Any = None, space: Any = None, previous: Any = None) -> Tensor:
        self.asked.append(x)
        return torch.full_like(x, float(self.answer))


@pytest.fixture
def pipe() -> Pipeline:
    denoiser = NetworkDenoiser(Ideal(), Process(Cosine()), Prediction("x0"))
    return Pipeline(denoiser, {"recommended": {"num_inference_steps": 10, "solver": "ddim"}})


def settings(pipe: Pipeline, strength: float = 1.0, steps: int = 10) -> Settings:
    return pipe.settings(None, None, steps, {}, strength)


def first(pipe: Pipeline, strength: float, **given: Any) -> Tensor:
    """The first state that the network sees."""
    network: Any = pipe.denoiser.network
    network.asked.clear()
    pipe.draw(torch.zeros(SHAPE), Rng(0, range(3)), settings(pipe, strength), **given)
    asked: Tensor = network.asked[0]
    return asked


def normal(seed: int) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("strength", [0.1, 0.5, 0.9])
def test_noise_is_put_on_the_given_state(pipe: Pipeline, strength: float) -> None:
    level = pipe.levels(settings(pipe, strength))[0]
    init, noise = normal(1), normal(2)
    torch.testing.assert_close(first(pipe, strength, init=init, noise=noise), level.alpha * init + level.sigma * noise)
    fresh = Rng(0, range(3)).normal(SHAPE, init)
    torch.testing.assert_close(first(pipe, strength, init=init), level.alpha * init + level.sigma * fresh)


def test_at_full_strength_the_given_state_does_not_count(pipe: Pipeline) -> None:
    assert torch.equal(first(pipe, 1.0, init=normal(1)), first(pipe, 1.0))
    level = pipe.levels(settings(pipe))[0]
    torch.testing.assert_close(first(pipe, 1.0, noise=normal(2)), level.sigma * normal(2))


def test_given_states_are_not_changed(pipe: Pipeline) -> None:
    init, noise = normal(1), normal(2)
    first(pipe, 0.5, init=init, noise=noise)
    assert torch.equal(init, normal(1))
    assert torch.equal(noise, normal(2))


def test_fresh_noise_lies_in_the_space(pipe: Pipeline) -> None:
    space = Masked(torch.arange(4) < torch.tensor([[4], [2], [1]]))
    seen = first(pipe, 0.5, init=space.project(normal(1)), space=space)
    assert not seen[~space.mask].any()


@pytest.mark.parametrize(("strength", "steps"), [(1.0, 10), (0.5, 5), (0.34, 3), (0.01, 1)])
def test_strength_is_the_share_of_the_last_steps(pipe: Pipeline, strength: float, steps: int) -> None:
    levels = pipe.levels(settings(pipe, strength))
    assert levels == pipe.levels(settings(pipe))[-1 - steps :]
    assert pipe.network_calls(settings(pipe, strength)) == steps
    out, failed = pipe.draw(torch.zeros(SHAPE), Rng(0, range(3)), settings(pipe, strength), init=normal(1))
    torch.testing.assert_close(out, torch.full(SHAPE, 0.5))
    assert failed.tolist() == [-1, -1, -1]


@pytest.mark.parametrize("strength", [1.0, 0.25])
def test_settings_are_read_back_from_a_recipe(pipe: Pipeline, strength: float) -> None:
    made = pipe.settings("ddim", "karras", 7, {"eta": 0.5}, strength)
    assert Settings.read(made.recipe()) == made
    assert ("strength" in made.recipe()) == (strength < 1)


@pytest.mark.parametrize("strength", [0, -0.5, 1.01, float("nan"), float("inf"), "half", None])
def test_what_is_no_strength(pipe: Pipeline, strength: Any) -> None:
    with pytest.raises(InputError, match=r"strength .* is not allowed"):
        pipe.settings(None, None, None, {}, strength)
