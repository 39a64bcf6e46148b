"""Subspaces: projections, covariance of the noise, draws that do not see the padding."""

from __future__ import annotations

import pytest
import torch

from multidiff.random import Rng
from multidiff.space import Euclidean, Masked, Product, Space, SymmetricPairs, ZeroCentroid
from multidiff.state import Parts

LENGTHS = (4, 2, 1)


def mask(width: int, lengths=LENGTHS) -> torch.Tensor:
    return torch.arange(width) < torch.tensor(lengths)[:, None]


SPACES = {"masked": (Masked, (3,)), "centroid": (ZeroCentroid, (3,)), "pairs": (SymmetricPairs, ())}


def like(name: str, batch: int, width: int, dtype=torch.float64) -> torch.Tensor:
    shape = (batch, width, width, 2) if name == "pairs" else (batch, width, 3)
    return torch.zeros(shape, dtype=dtype)


@pytest.mark.parametrize("name", SPACES)
def test_projection_is_idempotent_symmetric_and_keeps_noise(name):
    space = SPACES[name][0](mask(5))
    assert isinstance(space, Space)
    rng = Rng.batch(0)
    x, y = (rng.normal(like(name, 3, 5).shape, like(name, 3, 5)) for _ in range(2))
    torch.testing.assert_close(space.project(space.project(x)), space.project(x))
    torch.testing.assert_close((space.project(x) * y).sum(), (x * space.project(y)).sum())
    for stream in (Rng.batch(1), Rng(1, range(3))):
        noise = space.noise(stream, x)
        torch.testing.assert_close(space.project(noise), noise)


@pytest.mark.parametrize("per_sample", [True, False])
@pytest.mark.parametrize("name", SPACES)
def test_covariance_of_the_noise(name, per_sample):
    """That of the projector; for pairs, unit variance of every free pair, which appears twice."""
    n = 6000
    space = SPACES[name][0](mask(3, [3]).expand(n, 3))
    rng = Rng(0, range(n)) if per_sample else Rng.batch(0)
    draws = space.noise(rng, like(name, n, 3))[..., 0].reshape(n, -1)
    eye = torch.eye(draws.shape[1], dtype=torch.float64)
    if name == "pairs":
        place = torch.arange(9).reshape(3, 3)
        expected = torch.zeros(9, 9, dtype=torch.float64)
        for i, j in ((0, 1), (0, 2), (1, 2)):
            pair = torch.stack([place[i, j], place[j, i]])
            expected[pair[:, None], pair[None]] = 1.0
    else:
        expected = eye - 1 / 3 if name == "centroid" else eye
    torch.testing.assert_close(draws.T @ draws / n, expected, rtol=0, atol=0.06)


@pytest.mark.parametrize("name", SPACES)
def test_draws_do_not_depend_on_padding_or_batch(name):
    wide = SPACES[name][0](mask(9)).noise(Rng(3, range(3)), like(name, 3, 9))
    tight = SPACES[name][0](mask(4)).noise(Rng(3, range(3)), like(name, 3, 4))
    alone = SPACES[name][0](mask(2, [2])).noise(Rng(3, [1]), like(name, 1, 2))
    cut = (slice(None), slice(4), slice(4)) if name == "pairs" else (slice(None), slice(4))
    assert torch.equal(wide[cut], tight)
    small = (slice(1, 2), slice(2), slice(2)) if name == "pairs" else (slice(1, 2), slice(2))
    assert torch.equal(tight[small], alone)


def test_parts():
    space = Product({"a": Euclidean(), "b": ZeroCentroid(mask(4))})
    state = Parts(a=torch.ones(3, 2), b=torch.ones(3, 4, 3))
    assert torch.equal(space.project(state)["a"], state["a"])
    assert space.project(state)["b"].abs().max() < 1e-6
    noise = space.noise(Rng(0, range(3)), state)
    assert noise["b"].sum(1).abs().max() < 1e-5
    plain = Euclidean().noise(Rng(0, range(3)), state)
    assert torch.equal(plain["a"], noise["a"])
