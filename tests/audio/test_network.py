"""The network: padding and neighbours change nothing, every condition changes something, no weight is idle."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from multidiff.conditioning.text import NULL, PAD
from multidiff.space import Masked
from multidiff.state import Parts
from multidiff.testing.invariance import relative_error
from multidiff.transformer import rotated, turns
from multidiff_audio.layers import CURVES, DURATIONS, Conditions
from multidiff_audio.network import SpectrogramUNet

C, F, FOLD = 8, 12, 2
SHARED: dict[str, Any] = {"text_size": 9, "text_width": 16, "text_layers": 1, "text_longest": 6, "classes": (3, 2)}
LENGTHS = (5, 9, 2, 8)


def randomised(module: nn.Module) -> nn.Module:
    """Every weight random, the zero ones too: a network that says nothing would pass every test."""
    generator = torch.Generator().manual_seed(3)
    for weight in module.parameters():
        fan_in = weight[0].numel() if weight.dim() > 1 else 16
        nn.init.normal_(weight, std=0.7 * fan_in**-0.5, generator=generator)
    return module.eval()


def built(bands: int, widths: tuple[int, ...]) -> nn.Module:
    sizes: dict[str, Any] = {"width": 32, "layers": 2, "heads": 2, "fold_time": FOLD}
    return randomised(SpectrogramUNet(C, bands, widths=widths, **sizes, **SHARED))


@pytest.fixture(scope="module", params=[(), (16,), (16, 24), (8, 16, 24)])
def network(request: pytest.FixtureRequest) -> nn.Module:
    return built(F, request.param)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def batch(lengths: tuple[int, ...] = LENGTHS, padded: int = 0) -> tuple[Tensor, Tensor, Parts, Masked]:
    """Noisy rows, levels, conditions and the space of sounds; each is the same whatever is beside it."""
    rows = max(padded, *lengths)
    x, curves = torch.zeros(len(lengths), rows, C, F), torch.full((len(lengths), rows, FOLD * len(CURVES)), math.nan)
    tokens = torch.full((len(lengths), 6), PAD)
    for i, n in enumerate(lengths):
        x[i, :n], curves[i, :n] = noise(n, C, F, seed=n), noise(n, FOLD * len(CURVES), seed=n)
        tokens[i, : 1 + n % 4] = torch.arange(2, 3 + n % 4)
    classes = torch.tensor([[n % 4 - 1, n % 3 - 1] for n in lengths])
    space = Masked(torch.arange(rows) < torch.tensor(lengths)[:, None])
    return x, torch.tensor([0.3 * n - 1 for n in lengths]), Parts(tokens=tokens, classes=classes, curves=curves), space


def run(network: nn.Module, *given: Any) -> Tensor:
    with torch.no_grad():
        out: Tensor = network(*given)
    return out


def changed(given: tuple[Any, ...], **parts: Tensor) -> tuple[Any, ...]:
    x, level, cond, space = given
    return x, level, Parts({**cond, **parts}), space


@pytest.mark.parametrize("padded", [10, 13, 24])
def test_padding_changes_nothing(network: nn.Module, padded: int) -> None:
    plain, wide = run(network, *batch()), run(network, *batch(padded=padded))
    for i, n in enumerate(LENGTHS):
        assert relative_error(wide[i, :n], plain[i, :n]) < 1e-5
        assert not wide[i, n:].any()


def test_what_stands_in_the_padding_changes_nothing(network: nn.Module) -> None:
    x, level, cond, space = batch(padded=11)
    dirty = torch.where(space.mask[..., None, None], x, noise(*x.shape))
    parts = {"curves": torch.where(space.mask[..., None], cond["curves"], 5.0)}
    out = run(network, *changed((dirty, level, cond, space), **parts))
    assert relative_error(out, run(network, x, level, cond, space)) < 1e-5


def test_alone_and_in_a_batch(network: nn.Module) -> None:
    together = run(network, *batch())
    for i, n in enumerate(LENGTHS):
        assert relative_error(run(network, *batch((n,)))[0], together[i, :n]) < 1e-5


def test_no_space_is_no_padding(network: nn.Module) -> None:
    x, level, cond, space = batch((6, 6))
    assert torch.equal(run(network, x, level, cond), run(network, x, level, cond, space))


def test_each_condition_counts(network: nn.Module) -> None:
    given = batch((8, 8))
    _, _, cond, _ = given
    plain = run(network, *given)
    swapped = cond["tokens"].clone()
    swapped[:, :2] = torch.tensor([4, 2])
    given = changed(given, tokens=swapped)
    ordered = run(network, *given)
    swapped = swapped.clone()
    swapped[:, :2] = torch.tensor([2, 4])
    assert relative_error(run(network, *changed(given, tokens=swapped)), ordered) > 1e-3  # the order of words
    swapped[:, 0] = 5
    assert relative_error(run(network, *changed(given, tokens=swapped)), ordered) > 1e-3
    for attribute in range(2):
        other = cond["classes"].clone()
        other[:, attribute] = (other[:, attribute] + 1) % 2
        assert relative_error(run(network, *changed(batch((8, 8)), classes=other)), plain) > 1e-3
    for k, name in enumerate(CURVES):
        other = cond["curves"].clone()
        other[:, 3, k * FOLD] += 0.5
        assert relative_error(run(network, *changed(batch((8, 8)), curves=other)), plain) > 1e-3, name
        other[:, :, k * FOLD : (k + 1) * FOLD] = 0.0
        zero = run(network, *changed(batch((8, 8)), curves=other))
        other = other.clone()
        other[:, :, k * FOLD : (k + 1) * FOLD] = math.nan
        assert relative_error(run(network, *changed(batch((8, 8)), curves=other)), zero) > 1e-3, name  # told or not


def test_the_noise_level_counts(network: nn.Module) -> None:
    x, level, cond, space = batch()
    assert relative_error(run(network, x, level + 1, cond, space), run(network, x, level, cond, space)) > 1e-2


def test_the_length_counts(network: nn.Module) -> None:
    """The same first rows in a sound that goes on in silence."""
    x, level, cond, space = batch((8,), padded=12)
    longer = Masked(torch.ones_like(space.mask))
    assert (
        relative_error(run(network, x, level, cond, longer)[:, :8], run(network, x, level, cond, space)[:, :8]) > 0.01
    )


def test_the_condition_of_nothing_is_none(network: nn.Module) -> None:
    x, level, cond, space = batch()
    tokens = torch.full_like(cond["tokens"], PAD)
    tokens[:, 0] = NULL
    nothing = Parts(
        tokens=tokens,
        classes=torch.full_like(cond["classes"], -1),
        curves=torch.full_like(cond["curves"], math.nan),
    )
    none = run(network, x, level, None, space)
    assert relative_error(run(network, x, level, nothing, space), none) < 1e-5
    assert relative_error(run(network, x, level, Parts(tokens=tokens), space), none) < 1e-5
    assert relative_error(run(network, x, level, cond, space), none) > 0.01


def test_every_weight_is_trained(network: nn.Module) -> None:
    network.zero_grad()
    x, level, cond, space = batch()
    conditions: Conditions = network.conditions  # type: ignore[assignment]
    every = Parts({**cond, "classes": torch.tensor([[0, 0], [1, 1], [2, 0], [0, 1]])})
    loss = network(x, level, every, space).square().sum() + conditions.durations(cond["tokens"]).square().sum()
    loss.backward()
    idle = [name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert idle == []
    network.zero_grad()


def test_no_gradient_is_not_finite_where_nothing_is_told(network: nn.Module) -> None:
    x, level, cond, space = batch()
    network.zero_grad()
    network(x, level, changed((x, level, cond, space), curves=torch.full_like(cond["curves"], math.nan))[2],
            space).square().sum().backward()  # fmt: skip
    assert all(w.grad is None or w.grad.isfinite().all() for w in network.parameters())
    network.zero_grad()


@pytest.mark.parametrize("rows", [1, 2, 3, 200, 301])
def test_any_number_of_rows(network: nn.Module, rows: int) -> None:
    out = run(network, *batch((rows,)))
    assert out.shape == (1, rows, C, F)
    assert out.isfinite().all()


def test_bfloat16_is_finite_and_near(network: nn.Module) -> None:
    given = batch()
    full = run(network, *given)
    with torch.autocast("cpu", torch.bfloat16):
        half = run(network, *given)
    assert half.dtype == torch.float32
    assert half.isfinite().all()
    assert float((half - full).norm() / full.norm()) < 0.1
    x, _, cond, space = given
    for extreme in (-12.0, 12.0):  # both ends of the noise
        with torch.autocast("cpu", torch.bfloat16):
            assert run(network, x, torch.full((len(x),), extreme), cond, space).isfinite().all()


@pytest.mark.parametrize("bands", [7, 12, 13, 16])
def test_bands_that_do_not_halve(bands: int) -> None:
    network = built(bands, (16, 16, 32))
    x = noise(2, 5, C, bands)
    assert run(network, x, torch.zeros(2)).shape == x.shape


def test_attention_sees_how_far_apart_rows_are() -> None:
    """Rotary positions: a product of two depends on their distance alone."""
    turn = turns((40,), 16, torch.device("cpu"))
    q, k = noise(16, seed=1).expand(40, 16), noise(16, seed=2).expand(40, 16)
    products = rotated(q, turn) @ rotated(k, turn).T
    for away in (0, 1, 7, -5):
        diagonal = products.diagonal(away)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-4, atol=1e-4)
    assert float(products.diagonal(1)[0] - products.diagonal(7)[0]) != 0


def test_lengths_that_a_prompt_stands_for_depend_on_it_alone(network: nn.Module) -> None:
    conditions: Conditions = network.conditions  # type: ignore[assignment]
    tokens = torch.tensor([[2, 3, 4, PAD, PAD], [5, 6, PAD, PAD, PAD], [NULL, PAD, PAD, PAD, PAD]])
    with torch.no_grad():
        out = conditions.durations(tokens)
        assert out.shape == (3, DURATIONS)
        torch.testing.assert_close(conditions.durations(tokens[1:2, :2]), out[1:2], rtol=1e-4, atol=1e-5)
    assert relative_error(out[0], out[1]) > 1e-3
