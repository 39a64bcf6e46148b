"""Symmetries of the molecule network and of whole trajectories sampled with it, judged by e3nn's rotations."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable

import pytest
import torch
from e3nn import o3
from e3nn.util.test import equivariance_error as judge
from torch import Tensor, nn

import multidiff_molecules.network as network_module
from multidiff import grid, solver
from multidiff.denoiser import NetworkDenoiser
from multidiff.process import Process
from multidiff.random import Rng
from multidiff.sample import sample
from multidiff.schedule import Cosine
from multidiff.space import Product
from multidiff.state import Parts, State
from multidiff.testing.invariance import relative_error
from multidiff_molecules.molecule import Molecule
from multidiff_molecules.network import MoleculeNetwork
from multidiff_molecules.representation import Vocabulary, encode, space

SIZES = (9, 12, 5, 12)
VOCABULARY = Vocabulary()
GOAL = 1e-5
SOLVERS = ("dpm++2m", "heun", "deis3", "unipc3", "ddpm", "dpm++2m-sde")
Turn = Callable[[State], Parts]


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Every weight random, the zero ones too: a network that says nothing would pass every test of symmetry."""
    generator = torch.Generator().manual_seed(seed)
    for weight in module.parameters():
        fan_in = weight.shape[-1] if weight.dim() > 1 else 16
        nn.init.normal_(weight, std=0.5 * fan_in**-0.5, generator=generator)
    return module.eval()


@pytest.fixture(scope="module", params=[1, 2], ids=["degree1", "degree2"])
def network(request: pytest.FixtureRequest) -> MoleculeNetwork:
    made = MoleculeNetwork(4, width=32, vectors=8, pair_width=16, layers=3, heads=4, degree=request.param)
    return randomised(made)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def denoiser(network: MoleculeNetwork) -> NetworkDenoiser:
    return NetworkDenoiser(network, Process(Cosine()), VOCABULARY.predictions())


@pytest.fixture(autouse=True)
def _same_rotations() -> None:
    """e3nn draws from torch's global generator."""
    torch.manual_seed(11)


def noisy(seed: int = 0, sizes: tuple[int, ...] = SIZES, padded: int = 12) -> tuple[Parts, Product]:
    """A state in its space; the same molecules whatever they are padded to."""
    where = space(torch.tensor(sizes), padded)
    n = len(sizes)
    like = Parts(
        positions=torch.zeros(n, padded, 3),
        atoms=torch.zeros(n, padded, 4),
        charges=torch.zeros(n, padded, 3),
        bonds=torch.zeros(n, padded, padded, 4),
    )
    return where.noise(Rng(seed, range(n)), like), where  # type: ignore[return-value]


def call(network: nn.Module, x: State, where: Product, log_snr: float = 0.5, seen: bool = True) -> Parts:
    """The network with an estimate of its own to look back on, so that this path is tested too."""
    level = torch.full((x["positions"].shape[0],), log_snr)
    with torch.no_grad():
        previous = network(x, level - 0.5, space=where) if seen else None
        return network(x, level, space=where, previous=previous)


def real(state: State, where: Product) -> Parts:
    """What lies in the molecules, padding set to zero."""
    return where.project(state)  # type: ignore[return-value]


def rotate(matrix: Tensor) -> Turn:
    def turn(x: State) -> Parts:
        return Parts({**x, "positions": (x["positions"].double() @ matrix.T.double()).to(x["positions"])})

    return turn


def shuffle(sizes: tuple[int, ...] = SIZES, padded: int = 12) -> Turn:
    """Other order of the atoms of each molecule; padding stays behind them."""
    generator = torch.Generator().manual_seed(5)
    orders = [torch.cat([torch.randperm(n, generator=generator), torch.arange(n, padded)]) for n in sizes]

    def turn(x: State) -> Parts:
        def one(name: str, part: Tensor) -> Tensor:
            rows = [p[o][:, o] if name == "bonds" else p[o] for p, o in zip(part, orders, strict=True)]
            return torch.stack(rows)

        return Parts({name: one(name, part) for name, part in x.items()})

    return turn


class Turned(Product):
    """A space whose noise is turned with the molecules."""

    def __init__(self, inner: Product, turn: Turn) -> None:
        super().__init__(inner.spaces)
        self.turn = turn

    def noise(self, rng: Rng, like: State) -> State:
        return self.turn(super().noise(rng, like))


# ---------------------------------------------------------------------------------------------- the network


@pytest.mark.parametrize("log_snr", [-4.0, 0.0, 4.0])
def test_rotated_molecule_gives_rotated_output(network: MoleculeNetwork, log_snr: float) -> None:
    x, where = noisy()
    turn = rotate(o3.rand_matrix(dtype=torch.float64))
    assert relative_error(call(network, turn(x), where, log_snr), turn(call(network, x, where, log_snr))) < GOAL


@pytest.mark.parametrize("mirror_blind", [False, True])
def test_irreps_of_the_output(network: MoleculeNetwork, mirror_blind: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """e3nn's verdict: positions in are points, out a vector; scalars out; parity only without the cross products."""
    if mirror_blind:
        if network.moments:
            pytest.skip("products of moments see handedness too")
        monkeypatch.setattr(network_module, "_cross", lambda a, b: torch.zeros_like(a))
    x, where = noisy()
    centre = where.spaces["positions"]

    def outputs(positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        placed = centre.project(positions.reshape(len(SIZES), -1, 3))
        out = real(call(network, Parts({**x, "positions": placed}), where), where)
        return out["positions"].flatten(0, 1), out["atoms"], out["bonds"]

    points = x["positions"].flatten(0, 1)
    errors = judge(outputs, [points], ["cartesian_points"], ["1x1o", "4x0e", "4x0e"], ntrials=2)
    size = outputs(points)[0].square().mean().sqrt()
    for (mirrored, _moved), error in errors.items():
        if mirrored and not mirror_blind:
            assert error.max() > 1e-2  # handedness is seen
        else:  # e3nn moves the points by 10 deviations, which costs a digit in fp32
            assert error.max() < (1e-4 if _moved else 1e-5) * size


def test_mirror_images_are_told_apart_and_by_the_cross_products_alone(
    network: MoleculeNetwork, embed: Callable[[str], Molecule], monkeypatch: pytest.MonkeyPatch
) -> None:
    mol = embed("C[C@H](N)C(=O)O")
    where = space(torch.tensor([len(mol)]), len(mol))
    atoms = torch.from_numpy(VOCABULARY.element_classes(mol.atomic_numbers))[None]
    charges = torch.from_numpy(VOCABULARY.charge_classes(mol.formal_charges))[None]
    positions, bonds = torch.from_numpy(mol.positions)[None], torch.from_numpy(mol.bonds)[None]
    x = encode(VOCABULARY, positions, atoms, charges, bonds, where)
    mirror = rotate(-o3.rand_matrix(dtype=torch.float64))

    def scalars(state: State) -> Parts:
        out = real(call(network, state, where, 3.0), where)
        return Parts(atoms=out["atoms"], charges=out["charges"], bonds=out["bonds"])

    assert relative_error(scalars(mirror(x)), scalars(x)) > 1e-2
    if network.moments:
        return  # their products see handedness too
    monkeypatch.setattr(network_module, "_cross", lambda a, b: torch.zeros_like(a))
    assert relative_error(scalars(mirror(x)), scalars(x)) < GOAL


def test_order_of_the_atoms(network: MoleculeNetwork) -> None:
    x, where = noisy()
    turn = shuffle()
    there, back = call(network, turn(x), where), turn(call(network, x, where))
    assert relative_error(real(there, where), real(back, where)) < GOAL


def test_padding_does_not_matter(network: MoleculeNetwork) -> None:
    """Neither its length nor what stands in it."""
    (x, where), (wide, wider) = noisy(), noisy(padded=17)
    out = real(call(network, x, where), where)
    padded = real(call(network, wide, wider), wider)
    cut = Parts({name: p[:, :12, :12] if name == "bonds" else p[:, :12] for name, p in padded.items()})
    assert relative_error(cut, out) < GOAL

    mask = where.spaces["atoms"].mask
    pairs = mask[:, :, None] & mask[:, None]
    rubbish = {
        name: torch.where((pairs if name == "bonds" else mask)[..., None], part, 3 * torch.ones_like(part))
        for name, part in x.items()
        if name != "positions"  # the solvers keep them in the space
    }
    assert relative_error(real(call(network, Parts({**x, **rubbish}), where), where), out) < GOAL


def test_a_molecule_does_not_depend_on_its_batch(network: MoleculeNetwork) -> None:
    x, where = noisy()
    together = real(call(network, x, where), where)
    for i, n in enumerate(SIZES):
        alone = space(torch.tensor([n]), 12)
        out = real(call(network, Parts({name: part[i : i + 1] for name, part in x.items()}), alone), alone)
        assert relative_error(out, Parts({name: part[i : i + 1] for name, part in together.items()})) < GOAL


@pytest.mark.parametrize("seen", [False, True])
def test_output_lies_in_the_space(network: MoleculeNetwork, seen: bool) -> None:
    x, where = noisy()
    out = call(network, x, where, seen=seen)
    assert out["bonds"].abs().max() > 0.1
    torch.testing.assert_close(out["bonds"], out["bonds"].transpose(1, 2))
    assert out["positions"].sum(1).abs().max() < 1e-5
    assert not out["positions"][~where.spaces["atoms"].mask].any()


def test_each_input_counts(network: MoleculeNetwork) -> None:
    """Every part, the noise level, and the last estimate."""
    x, where = noisy()
    out = call(network, x, where)
    for name in x:
        changed = where.project(Parts({**x, name: x[name] * 0.5}))
        assert relative_error(call(network, changed, where), out) > 1e-3, name
    assert relative_error(call(network, x, where, log_snr=0.7), out) > 1e-3
    assert relative_error(call(network, x, where, seen=False), out) > 1e-3


def test_bf16_is_finite_and_near(network: MoleculeNetwork) -> None:
    x, where = noisy()
    for log_snr in (-8.0, 0.0, 8.0):
        exact = real(call(network, x, where, log_snr), where)
        with torch.autocast("cpu", torch.bfloat16):
            rough = real(call(network, x, where, log_snr), where)
        assert rough["positions"].dtype == torch.float32
        assert all(part.isfinite().all() for part in rough.values())
        assert relative_error(Parts({n: p.float() for n, p in rough.items()}), exact) < 0.5


def test_gradients_are_finite_and_reach_every_weight(network: MoleculeNetwork) -> None:
    """Atoms on top of one another, a single atom, and the cleanest level included."""
    x, where = noisy(sizes=(12, 1), padded=12)
    x["positions"][0, 1] = x["positions"][0, 0]
    for log_snr in (-9.0, 9.0):
        network.zero_grad()
        out = network(x, torch.full((2,), log_snr), space=where, previous=x)
        sum(part.square().mean() for part in real(out, where).values()).backward()  # type: ignore[union-attr]
        for name, weight in network.named_parameters():
            assert weight.grad is not None, name
            assert weight.grad.isfinite().all(), name
            assert weight.grad.any(), name
    network.zero_grad()


def test_a_new_network_moves_nothing() -> None:
    """Before training the estimate of the positions is alpha x, the best guess that needs no knowledge."""
    x, where = noisy()
    fresh = MoleculeNetwork(4, width=16, vectors=4, pair_width=8, layers=2, heads=2)
    denoiser = NetworkDenoiser(fresh, Process(Cosine()), VOCABULARY.predictions())
    t = torch.tensor([0.1, 0.4, 0.7, 0.9], dtype=torch.float64)
    with torch.no_grad():
        estimate = denoiser(x, t, space=where)
    alpha = denoiser.process.alpha(t).float()
    torch.testing.assert_close(estimate["positions"], alpha[:, None, None] * x["positions"])


# ---------------------------------------------------------------------------------------------- trajectories


def trajectory(denoiser: NetworkDenoiser, name: str, where: Product, turn: Turn | None = None) -> Parts:
    """Six steps from noise, with the start and every fresh noise turned."""
    x, _ = noisy()
    levels = grid.make("log-snr", sigma_max=20.0, sigma_min=0.02)(denoiser.process, 6)
    plan = solver.make(name).plan(levels)
    start, place = (x, where) if turn is None else (turn(x), Turned(where, turn))
    with torch.no_grad():
        return sample(denoiser, plan, start, space=place, rng=Rng(3, range(len(SIZES))))  # type: ignore[return-value]


@pytest.mark.parametrize("name", SOLVERS)
def test_whole_trajectory_turns_with_its_noise(denoiser: NetworkDenoiser, name: str) -> None:
    _, where = noisy()
    straight = real(trajectory(denoiser, name, where), where)
    turn = rotate(o3.rand_matrix(dtype=torch.float64))
    assert relative_error(real(trajectory(denoiser, name, where, turn), where), turn(straight)) < GOAL
    order = shuffle()
    assert relative_error(real(trajectory(denoiser, name, where, order), where), real(order(straight), where)) < GOAL


@pytest.mark.parametrize("name", SOLVERS)
def test_trajectory_stays_in_the_space(denoiser: NetworkDenoiser, name: str) -> None:
    _, where = noisy()
    end = trajectory(denoiser, name, where)
    assert end["positions"].sum(1).abs().max() < 1e-4
    assert not end["positions"][~where.spaces["atoms"].mask].any()
    torch.testing.assert_close(end["bonds"], end["bonds"].transpose(1, 2))


# ---------------------------------------------------------------------------------------------- compilation


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_layer_is_one_graph(network: MoleculeNetwork, backend: str) -> None:
    if backend == "inductor" and shutil.which("g++") is None:
        pytest.skip("needs a C++ compiler")
    x, where = noisy()
    expected = call(network, x, where, seen=False)
    first, *rest = network.layers
    compiled = torch.compile(first, fullgraph=True, dynamic=False, backend=backend)
    other = copy.copy(network)
    other._modules = {**network._modules, "layers": nn.ModuleList([compiled, *rest])}  # type: ignore[arg-type, list-item]
    out = call(other, x, where, seen=False)
    assert relative_error(out, expected) < GOAL
