"""Molecules to states and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from multidiff.errors import InputError
from multidiff.random import Rng
from multidiff.space import Product
from multidiff.state import Parts
from multidiff_molecules.molecule import Molecule
from multidiff_molecules.representation import BOND_ORDERS, Vocabulary, codes, decode, encode, space

VOCABULARY = Vocabulary(elements=(1, 6, 7, 8, 9, 16, 17))


def batch(molecules: list[Molecule], extra: int = 0) -> tuple[Parts, Product]:
    """Padded and encoded; rubbish in the padding must not come through."""
    padded = max(map(len, molecules)) + extra
    where = space(torch.tensor([len(m) for m in molecules]), padded)
    positions = torch.full((len(molecules), padded, 3), 9.0)
    atoms, charges = torch.ones(2, len(molecules), padded, dtype=torch.int8)
    bonds = torch.full((len(molecules), padded, padded), 3, dtype=torch.int8)
    for i, mol in enumerate(molecules):
        n = len(mol)
        positions[i, :n] = torch.from_numpy(mol.positions)
        atoms[i, :n] = torch.from_numpy(VOCABULARY.element_classes(mol.atomic_numbers))
        charges[i, :n] = torch.from_numpy(VOCABULARY.charge_classes(mol.formal_charges))
        bonds[i, :n, :n] = torch.from_numpy(mol.bonds)
    return encode(VOCABULARY, positions, atoms, charges, bonds, where), where


def distances(mol: Molecule) -> np.ndarray:
    return np.linalg.norm(mol.positions[:, None] - mol.positions[None], axis=-1)


@pytest.mark.parametrize("extra", [0, 4])
def test_round_trip(molecules: list[Molecule], extra: int) -> None:
    state, _ = batch(molecules, extra)
    back = decode(VOCABULARY, state, [len(m) for m in molecules])
    for mol, again in zip(molecules, back, strict=True):
        np.testing.assert_array_equal(again.atomic_numbers, mol.atomic_numbers)
        np.testing.assert_array_equal(again.formal_charges, mol.formal_charges)
        np.testing.assert_array_equal(again.bonds, mol.bonds)
        np.testing.assert_allclose(distances(again), distances(mol), atol=1e-4)
        np.testing.assert_allclose(again.positions.mean(0), 0, atol=1e-5)


def test_round_trip_survives_noise_below_the_distance_of_the_codes(molecules: list[Molecule]) -> None:
    state, where = batch(molecules)
    noise = where.noise(Rng(0, range(len(molecules))), state)
    noisy = Parts({name: part + 0.1 * noise[name] for name, part in state.items()})  # type: ignore[call-overload]
    for mol, again in zip(molecules, decode(VOCABULARY, noisy, [len(m) for m in molecules]), strict=True):
        np.testing.assert_array_equal(again.atomic_numbers, mol.atomic_numbers)
        np.testing.assert_array_equal(again.bonds, mol.bonds)


def test_encoded_state_lies_in_its_space(molecules: list[Molecule]) -> None:
    state, where = batch(molecules, extra=3)
    for name, part in where.project(state).items():  # type: ignore[union-attr]
        torch.testing.assert_close(state[name], part)
    assert state["positions"].sum(1).abs().max() < 1e-4
    n = len(molecules[0])
    assert not state["atoms"][0, n:].any()
    assert not state["bonds"][0, :, n:].any()


def test_scale_makes_coordinates_of_about_unit_deviation(molecules: list[Molecule]) -> None:
    state, where = batch(molecules)
    inside: Tensor = state["positions"][where.spaces["positions"].mask]  # type: ignore[attr-defined]
    assert 0.6 < float(inside.std()) < 1.5


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_codes_are_centred_and_equally_far_apart(classes: int) -> None:
    table = codes(classes)
    torch.testing.assert_close(table.sum(0), torch.zeros(classes))
    apart = torch.cdist(table, table)[~torch.eye(classes, dtype=torch.bool)]
    torch.testing.assert_close(apart, torch.full_like(apart, 2**0.5))
    assert table.argmax(-1).tolist() == list(range(classes))


def test_predictions_cover_every_part() -> None:
    predictions = VOCABULARY.predictions()
    assert set(predictions) == {"positions", "atoms", "charges", "bonds"}
    assert predictions["bonds"].codes.shape == (BOND_ORDERS, BOND_ORDERS)  # type: ignore[union-attr]


@pytest.mark.parametrize("value", [5, 92, -1])
def test_unknown_element_is_named(value: int) -> None:
    with pytest.raises(InputError, match=rf"element {value} is not in the vocabulary \[1, 6, 7, 8, 9, 16, 17\]"):
        VOCABULARY.element_classes(np.array([6, 1, value, 8], np.int8))


def test_unknown_charges_are_all_named() -> None:
    with pytest.raises(InputError, match="charge -2, 3 is not in the vocabulary"):
        VOCABULARY.charge_classes(np.array([0, 3, -2, 1, 3], np.int8))


def test_classes_are_places_in_the_vocabulary() -> None:
    assert VOCABULARY.element_classes(np.array([17, 1, 7], np.int8)).tolist() == [6, 0, 2]
    assert VOCABULARY.charge_classes(np.array([1, -1, 0], np.int8)).tolist() == [2, 0, 1]
