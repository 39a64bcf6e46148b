"""Buckets hold every molecule once, and the order of the batches is a pure function of seed and epoch."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multidiff.errors import InputError
from multidiff.lightning.data import BatchOrder, Loader, merged_edges, quantile_edges
from multidiff_molecules.data import Bucket, buckets
from multidiff_molecules.loading import MoleculeData, hold, size_histogram
from multidiff_molecules.molecule import Molecule, PackedMolecules
from multidiff_molecules.representation import Vocabulary, decode

VOCABULARY = Vocabulary(elements=(1, 6, 7, 8, 9, 16, 17))


def packed(molecules: list[Molecule], split: list[int] | None = None) -> PackedMolecules:
    return PackedMolecules.pack(molecules, [str(i) for i in range(len(molecules))], split)


def spelled(mol: Molecule) -> tuple:
    """What makes a molecule itself, wherever it lies."""
    apart = np.linalg.norm(mol.positions[:, None] - mol.positions[None], axis=-1)
    words = (mol.atomic_numbers, mol.formal_charges, mol.bonds)
    return (*(tuple(a.ravel().tolist()) for a in words), tuple(apart.round(3).ravel().tolist()))


def everything(held: list[Bucket]) -> list[tuple]:
    made = []
    for bucket in held:
        state, _ = bucket.batch(torch.arange(len(bucket)), VOCABULARY)
        made += decode(VOCABULARY, state, bucket.sizes.tolist())
    return sorted(map(spelled, made))


@pytest.mark.parametrize("edges", [(30,), (5, 10, 13, 24), (3, 9, 10, 12, 13, 24, 40)])
def test_buckets_keep_every_molecule(molecules: list[Molecule], edges: tuple[int, ...]) -> None:
    held = buckets(packed(molecules), VOCABULARY, 0, edges)
    assert sum(map(len, held)) == len(molecules)
    assert all(0 < bucket.sizes.max() <= bucket.padded for bucket in held)
    assert everything(held) == sorted(map(spelled, molecules))


def test_buckets_are_the_tightest_that_hold(molecules: list[Molecule]) -> None:
    edges = (5, 10, 13, 24)
    for bucket in buckets(packed(molecules), VOCABULARY, 0, edges):
        smaller = [edge for edge in edges if edge < bucket.padded]
        assert bucket.sizes.min() > max(smaller, default=0)


def test_splits_are_kept_apart(molecules: list[Molecule]) -> None:
    split = [i % 3 for i in range(len(molecules))]
    data = packed(molecules, split)
    for number in (0, 1, 2):
        mine = [mol for mol, s in zip(molecules, split, strict=True) if s == number]
        assert everything(buckets(data, VOCABULARY, number)) == sorted(map(spelled, mine))


def test_too_large_a_molecule_is_an_error_and_never_dropped(molecules: list[Molecule]) -> None:
    largest = max(map(len, molecules))
    with pytest.raises(InputError, match=f"{largest} atoms, the largest bucket holds {largest - 1}"):
        buckets(packed(molecules), VOCABULARY, 0, (largest - 1,))


def test_empty_split_is_named(molecules: list[Molecule]) -> None:
    with pytest.raises(InputError, match="no molecule in split 2"):
        buckets(packed(molecules), VOCABULARY, 2)


def test_unknown_element_in_the_data_is_named(molecules: list[Molecule]) -> None:
    with pytest.raises(InputError, match="element 9, 16, 17 is not in the vocabulary"):
        buckets(packed(molecules), Vocabulary(), 0)


def test_histogram_counts_one_split(molecules: list[Molecule]) -> None:
    split = [0] * (len(molecules) - 2) + [1, 2]
    counted = size_histogram(packed(molecules, split))
    assert sum(counted.values()) == len(molecules) - 2
    assert counted[str(len(molecules[0]))] >= 1


def plain(order: BatchOrder, epoch: int) -> list[tuple[int, list[int]]]:
    return [(bucket, rows.tolist()) for bucket, rows in order.epoch(epoch)]


LENGTHS = [37, 4, 64, 11]


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_order_is_a_pure_function_of_seed_and_epoch(epoch: int) -> None:
    first, second = BatchOrder(LENGTHS, 4, seed=3), BatchOrder(LENGTHS, 4, seed=3)
    expected = plain(first, epoch)
    torch.manual_seed(99)
    plain(second, epoch + 5)
    assert plain(second, epoch) == expected
    assert plain(first, epoch + 1) != expected
    assert plain(BatchOrder(LENGTHS, 4, seed=4), epoch) != expected


def test_order_leaves_the_global_random_state_alone() -> None:
    state = torch.get_rng_state()
    plain(BatchOrder(LENGTHS, 4), 0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("batch", [1, 4, 9, 100])
def test_an_epoch_covers_every_row_once(batch: int, shuffle: bool) -> None:
    order = BatchOrder(LENGTHS, batch, shuffle=shuffle, drop_last=False)
    batches = plain(order, 2)
    assert len(batches) == len(order)
    assert max(len(rows) for _, rows in batches) <= batch
    assert sorted((b, r) for b, rows in batches for r in rows) == [
        (b, r) for b, n in enumerate(LENGTHS) for r in range(n)
    ]


def test_drop_last_leaves_out_only_what_does_not_fill_a_batch() -> None:
    order = BatchOrder(LENGTHS, 10)
    batches = plain(order, 0)
    assert len(batches) == len(order) == 3 + 0 + 6 + 1
    assert all(len(set(rows)) == 10 for _, rows in batches)
    seen = {(b, r) for epoch in range(20) for b, rows in plain(order, epoch) for r in rows}
    assert {r for b, r in seen if b == 0} == set(range(37))  # not the same ones every time


def test_shuffled_batches_mix_the_buckets() -> None:
    homes = [bucket for bucket, _ in plain(BatchOrder(LENGTHS, 4), 0)]
    assert homes != sorted(homes)


@pytest.mark.parametrize("batch", [0, -3])
def test_batch_of_nothing(batch: int) -> None:
    with pytest.raises(InputError, match=f"batch size {batch} is not allowed"):
        BatchOrder(LENGTHS, batch)


def test_batch_larger_than_every_bucket() -> None:
    with pytest.raises(InputError, match=r"batch size 65 is larger than every bucket \[37, 4, 64, 11\]"):
        BatchOrder(LENGTHS, 65)
    assert len(BatchOrder(LENGTHS, 64)) == 1


def stream(molecules: list[Molecule], taken: int, count: int, part: tuple[int, int] = (0, 1)) -> list[torch.Tensor]:
    """The next `count` training batches of a run that has taken `taken` so far."""
    held = buckets(packed(molecules * 3), VOCABULARY, 0, (10, 24))
    order = BatchOrder([len(b) for b in held], 4, seed=1)
    loader = Loader(hold(held, VOCABULARY), order, consumed=lambda: taken, part=part)
    return [state["positions"] for state, *_ in islice(loader, count)]


@pytest.mark.parametrize("taken", [1, 5, 6, 17])
def test_training_goes_on_where_it_was(molecules: list[Molecule], taken: int) -> None:
    whole, rest = stream(molecules, 0, 20), stream(molecules, taken, 20 - taken)
    assert len(rest) == 20 - taken
    assert all(torch.equal(a, b) for a, b in zip(whole[taken:], rest, strict=True))
    epoch = len(BatchOrder([len(b) for b in buckets(packed(molecules * 3), VOCABULARY, 0, (10, 24))], 4))
    assert any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(whole, whole[epoch:], strict=False))


def test_processes_share_a_batch(molecules: list[Molecule]) -> None:
    whole, shares = stream(molecules, 0, 6), [stream(molecules, 0, 6, (rank, 2)) for rank in (0, 1)]
    for batch, even, odd in zip(whole, *shares, strict=True):
        assert torch.equal(batch[0::2], even)
        assert torch.equal(batch[1::2], odd)


def test_evaluation_goes_through_the_data_once(molecules: list[Molecule]) -> None:
    held = buckets(packed(molecules), VOCABULARY, 0, (10, 24))
    order = BatchOrder([len(b) for b in held], 4, shuffle=False, drop_last=False)
    loader = Loader(hold(held, VOCABULARY), order)
    for _ in range(2):
        assert sum(len(state["positions"]) for state, *_ in loader) == len(molecules)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=80), st.integers(1, 20))
def test_merged_buckets_leave_no_molecule_out(sizes: list[int], batch: int) -> None:
    """Every bucket fills a batch, whatever the sizes, and the last one holds the largest molecule."""
    array = np.array(sizes)
    if batch > len(sizes):
        with pytest.raises(InputError, match=f"batch size {batch} is larger than the {len(sizes)} samples"):
            merged_edges(array, quantile_edges(array), batch)
        return
    edges = merged_edges(array, quantile_edges(array), batch)
    assert list(edges) == sorted(set(edges))
    assert edges[-1] >= max(sizes)
    home = np.searchsorted(edges, array)
    assert np.bincount(home, minlength=len(edges)).min() >= batch


def test_molecules_beyond_the_edges_of_a_recipe_get_buckets_of_their_own() -> None:
    sizes = np.array([9] * 50 + [18] * 50 + [40] * 30 + [44] * 30)
    assert MoleculeData("unused.npz", edges=(12, 18))._edges(sizes) == (12, 18, 40, 44)
    assert MoleculeData("unused.npz", edges=(12, 44))._edges(sizes) == (12, 44)
    assert MoleculeData("unused.npz")._edges(sizes) == quantile_edges(sizes)
