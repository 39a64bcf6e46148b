"""Where a call's numbers come from, and which samples are made together."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from multidiff.draws import Draws, batches
from multidiff.errors import InputError


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_a_number_a_sample_whatever_else_is_asked_for() -> None:
    draws = Draws(3, None, 4)
    whole = draws.uniform(range(1000), 7)
    assert np.array_equal(draws.uniform([17, 5], 7), whole[[17, 5]])
    assert ((whole >= 0) & (whole < 1)).all()
    assert abs(whole.mean() - 0.5) < 0.04  # 4.4 standard deviations
    assert len(set(whole)) == 1000
    assert not np.intersect1d(whole, draws.uniform(range(1000), 8)).size  # another stream
    assert not np.intersect1d(whole, Draws(4, None, 4).uniform(range(1000), 7)).size


def test_sizes_do_not_move_the_noise() -> None:
    like = torch.zeros(2, 3)
    plain = Draws(3, None, 2).rng([0, 1], [0, 1]).normal((2, 3), like)
    draws = Draws(3, None, 2)
    draws.uniform([0, 1], 7)
    assert torch.equal(draws.rng([0, 1], [0, 1]).normal((2, 3), like), plain)


def test_the_same_rows_again_start_as_they_did() -> None:
    like = torch.zeros(2, 3)
    for given in (generators(1, 2, 3), generators(1)[0]):
        draws = Draws(None, given, 3)
        first = draws.rng([0, 1], [0, 1]).normal((2, 3), like)
        assert torch.equal(draws.rng([0, 1], [0, 1]).normal((2, 3), like), first)  # as when memory did not suffice


def test_each_sample_has_its_generator() -> None:
    like = torch.zeros(1, 5)
    draws = Draws(None, generators(1, 2, 3), 3)
    last = draws.rng([9], [2]).normal((1, 5), like)
    assert torch.equal(last[0], torch.randn(5, generator=generators(3)[0]))


@pytest.mark.parametrize("given", [3, "generator", [1, 2], [torch.Generator(), None]])
def test_what_is_no_generator(given: object) -> None:
    with pytest.raises(InputError, match=r"generator: give a torch\.Generator"):
        Draws(None, given, 2)


def test_as_many_as_samples() -> None:
    with pytest.raises(InputError, match="a list of 1 for 2 samples"):
        Draws(None, generators(1), 2)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 16, 100])
def test_batches(batch_size: int) -> None:
    sizes = [5, 9, 1, 9, 3, 3, 7, 2, 8, 4, 6, 5, 5]
    made = batches(sizes, batch_size, in_order=False)
    assert Counter(i for batch in made for i in batch) == Counter(range(13))
    assert max(map(len, made)) <= batch_size
    assert len(made) == -(-13 // batch_size)
    assert max(map(len, made)) - min(map(len, made)) <= 1  # none nearly empty
    in_turn = [sizes[i] for batch in made for i in batch]
    assert in_turn == sorted(sizes, reverse=True)
    assert batches(sizes, batch_size, in_order=False) == made
    ordered = batches(sizes, batch_size, in_order=True)
    assert [i for batch in ordered for i in batch] == list(range(13))


def test_equal_sizes_stay_in_order() -> None:
    assert batches([4, 4, 4, 4], 2, in_order=False) == [[0, 1], [2, 3]]
