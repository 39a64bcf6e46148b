"""The block of higher degree: e3nn judges it, and it sees what a block of lower degree cannot."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from e3nn.util.test import equivariance_error as judge
from torch import Tensor, nn

from multidiff.errors import InputError
from multidiff_molecules.harmonics import Moments
from multidiff_molecules.network import MoleculeNetwork
from multidiff_molecules.training import export_config

ATOMS = 7


@pytest.fixture(autouse=True)
def _same_rotations() -> None:
    """e3nn draws from torch's global generator."""
    torch.manual_seed(11)


def block(degree: int) -> Moments:
    made = Moments(width=6, vectors=4, pair_width=5, degree=degree, channels=3)
    generator = torch.Generator().manual_seed(1)
    for weight in made.parameters():
        nn.init.normal_(weight, generator=generator)
    return made


@pytest.mark.parametrize("degree", [2, 3, 4])
def test_e3nn_agrees_that_it_turns(degree: int) -> None:
    moments = block(degree)
    generator = torch.Generator().manual_seed(2)
    direction = torch.randn(ATOMS, ATOMS, 3, generator=generator) / 3
    pair = torch.randn(1, ATOMS, ATOMS, 5, generator=generator)
    scalars, vectors = torch.zeros(1, ATOMS, 6), torch.randn(ATOMS, 4, 3, generator=generator)

    def outputs(direction: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
        change, turned = moments(scalars, vectors.transpose(1, 2)[None], pair, direction.transpose(1, 2)[None])
        return change, turned.transpose(2, 3)

    errors = judge(outputs, [direction, vectors], ["1x1e", "1x1e"], ["6x0e", "1x1e"], ntrials=2, do_parity=False)
    for found, out in zip(errors[0, False], outputs(direction, vectors), strict=True):
        assert out.std() > 0.1
        assert found < 1e-5 * out.square().mean().sqrt()


@pytest.mark.parametrize("degree", [2, 3, 4])
def test_moments_carry_the_irreps_they_say(degree: int) -> None:
    moments = block(degree)
    generator = torch.Generator().manual_seed(3)
    direction = torch.randn(ATOMS, ATOMS, 3, generator=generator) / 3
    weights = torch.randn(1, ATOMS, ATOMS, degree, 3, generator=generator)

    def outputs(direction: Tensor) -> Tensor:
        return moments.moments(weights, direction.transpose(1, 2)[None])

    assert moments.irreps.lmax == degree
    errors = judge(outputs, [direction], ["1x1e"], [moments.irreps], ntrials=2, do_parity=False)
    assert errors[0, False].max() < 1e-5


def test_a_copy_and_a_sketch_hold_the_same_names() -> None:
    """The averaged network is a copy; a checkpoint's shapes are compared with a network built without memory."""
    network = MoleculeNetwork(4, width=16, vectors=4, pair_width=8, layers=2, heads=2, degree=2)
    names = {name: weight.shape for name, weight in network.state_dict().items()}
    assert {name: weight.shape for name, weight in copy.deepcopy(network).state_dict().items()} == names
    assert len(list(copy.deepcopy(network).buffers())) == len(list(network.buffers()))
    assert all(isinstance(network.get_parameter(name), nn.Parameter) for name in names)


def ring(tilt: float) -> Tensor:
    """Four equal directions, a cross at tilt 0 and a tetrahedron at 1; their sum is zero in both."""
    height = tilt / math.sqrt(3)
    flat = math.sqrt(1 - height**2)
    return torch.tensor([[flat, 0, height], [-flat, 0, height], [0, flat, -height], [0, -flat, -height]])


@pytest.mark.parametrize("degree", [1, 2])
def test_degree_two_tells_a_cross_from_a_tetrahedron(degree: int) -> None:
    """Equal weights on four equal neighbours: their first moment is zero either way, the second is not."""
    moments = block(degree)
    answers = []
    for tilt in (0.0, 1.0):
        direction = torch.zeros(1, 1, 3, 4)
        direction[0, 0] = ring(tilt).T
        answers.append(moments(torch.zeros(1, 1, 6), torch.zeros(1, 1, 3, 4), torch.ones(1, 1, 4, 5), direction)[0])
    apart = float((answers[0] - answers[1]).abs().max().detach())
    assert apart > 0.1 if degree == 2 else apart < 1e-5


def test_zero_before_training() -> None:
    moments = Moments(width=6, vectors=4, pair_width=5, degree=2)
    scalars, vectors = torch.randn(1, ATOMS, 6), torch.randn(1, ATOMS, 3, 4)
    out = moments(scalars, vectors, torch.randn(1, ATOMS, ATOMS, 5), torch.randn(1, ATOMS, 3, ATOMS))
    assert torch.equal(out[0], scalars)
    assert torch.equal(out[1], vectors)


@pytest.mark.parametrize("degree", [0, 5])
def test_degree_that_is_not_allowed(degree: int) -> None:
    with pytest.raises(InputError, match=f"degree {degree} is not allowed: from 1 to 4"):
        MoleculeNetwork(4, degree=degree)


def test_degree_one_has_no_weights_of_harmonics() -> None:
    assert not [name for name in MoleculeNetwork(4, layers=2).state_dict() if "moments" in name]


def test_degree_is_part_of_the_exported_configuration() -> None:
    settings = {"width": 16, "vectors": 4, "pair_width": 8, "layers": 2, "heads": 2, "elements": [1, 6]}
    settings |= {"charges": [0], "position_scale": 1.7}
    assert export_config(settings, {})["network"]["degree"] == 1
    assert export_config({**settings, "degree": 2}, {})["network"]["degree"] == 2
