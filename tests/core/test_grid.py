"""Grids: steps + 1 distinct levels, the clean end included, on every schedule and on parts."""

from __future__ import annotations

import itertools

import pytest
import torch

from multidiff import grid, schedule
from multidiff.errors import InputError
from multidiff.process import Process

SCHEDULES = ["cosine", "linear", "scaled-linear", "sigmoid", "polynomial", "laplace", "ve", "rectified-flow"]
GRIDS = [name for name in grid.GRIDS if name != "custom"]
PARTS = Process({"a": schedule.Cosine(), "b": schedule.VE(), "c": schedule.RectifiedFlow()})


def ratios(levels, part=None):
    pick = (lambda v: v[part]) if part else (lambda v: v)
    return [pick(level.sigma) / pick(level.alpha) for level in levels if pick(level.alpha)]


@pytest.mark.parametrize("steps", [1, 2, 7, 50, 1000])
@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("kind", SCHEDULES)
def test_n_steps_are_n_distinct_levels_and_the_clean_end(kind, name, steps):
    levels = grid.make(name)(Process(schedule.make(kind)), steps)
    assert len(levels) == steps + 1
    assert all(a.t > b.t for a, b in itertools.pairwise(levels))
    assert all(a > b for a, b in itertools.pairwise(ratios(levels)))
    assert (levels[-1].t, levels[-1].alpha, levels[-1].sigma) == (0.0, 1.0, 0.0)
    assert all(isinstance(level.sigma, float) and level.sigma > 0 for level in levels[:-1])


@pytest.mark.parametrize("name", GRIDS)
def test_parts_share_the_time_axis(name):
    levels = grid.make(name)(PARTS, 9)
    alone = {part: Process(s) for part, s in PARTS.schedule.items()}
    for level in levels:
        for part, process in alone.items():
            own = process.level(level.t)
            assert (level.alpha[part], level.sigma[part]) == (own.alpha, own.sigma)


def test_a_named_part_lays_the_grid():
    levels = grid.Karras(part="b")(PARTS, 12)
    alone = grid.Karras()(Process(schedule.VE()), 12)
    assert ratios(levels, "b") == pytest.approx(ratios(alone), rel=1e-9)
    with pytest.raises(InputError, match="unknown part"):
        grid.Karras(part="d")(PARTS, 12)


@pytest.mark.parametrize("kind", ["cosine", "ve", "rectified-flow", "linear"])
def test_karras_and_log_snr_formulas(kind):
    process = Process(schedule.make(kind))
    root = torch.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), 10, dtype=torch.float64)
    assert ratios(grid.Karras()(process, 10))[:-1] == pytest.approx((root**7).tolist(), rel=1e-7)
    even = torch.logspace(1, -2, 10, dtype=torch.float64)
    found = ratios(grid.LogSNR(sigma_min=0.01, sigma_max=10.0)(process, 10))[:-1]
    assert found == pytest.approx(even.tolist(), rel=1e-8)


def test_beta_is_scipys():
    scipy_stats = pytest.importorskip("scipy.stats")
    levels = grid.Beta(0.6, 0.8)(Process(schedule.Cosine()), 20)
    exact = scipy_stats.beta.ppf([i / 20 for i in range(20, -1, -1)], 0.6, 0.8)
    assert [level.t for level in levels] == pytest.approx(exact.tolist(), abs=1e-5)


def test_trailing_hits_integer_steps():
    levels = grid.Trailing()(Process(schedule.Cosine()), 30)
    places = [level.t * 1000 for level in levels]
    assert places == pytest.approx([round(p) for p in places], abs=1e-9)
    assert places[0] == 1000


def test_custom():
    process = Process(schedule.Cosine())
    assert [level.t for level in grid.Custom([0.9, 0.3])(process, 2)] == [0.9, 0.3, 0.0]
    assert [level.t for level in grid.Custom([0.9, 0.3, 0.0])(process, 2)] == [0.9, 0.3, 0.0]
    for times, steps in (([0.9, 0.3], 3), ([0.3, 0.9], 2), ([1.2, 0.9], 2), ([], 1)):
        with pytest.raises(InputError):
            grid.Custom(times)(process, steps)


@pytest.mark.parametrize("steps", [0, -1, 10**6, 2.5, "20", True])
def test_impossible_steps(steps):
    with pytest.raises(InputError, match="steps must be"):
        grid.Uniform()(Process(schedule.Cosine()), steps)


def test_too_many_trailing_steps():
    with pytest.raises(InputError, match="distinct"):
        grid.Trailing(train_steps=10)(Process(schedule.Cosine()), 20)


def test_unknown_grid():
    with pytest.raises(InputError, match="did you mean 'karras'"):
        grid.make("karas")
