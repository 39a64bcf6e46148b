"""Between molecules and the state that is diffused: positions, atom types, formal charges and bonds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from multidiff.errors import InputError
from multidiff.prediction import Categorical, Prediction
from multidiff.space import Masked, Product, SymmetricPairs, ZeroCentroid
from multidiff.state import Parts
from multidiff_molecules.molecule import Molecule

BOND_ORDERS = 4
"""None, single, double, triple: bonds are kekulised."""


@dataclass(frozen=True)
class Vocabulary:
    """What a checkpoint can spell.

    Attributes:
        elements: atomic numbers, ascending.
        charges: formal charges, ascending, in elementary charges.
        position_scale: deviation of the coordinates, angstrom; positions are divided by it.
    """

    elements: tuple[int, ...] = (1, 6, 7, 8)
    charges: tuple[int, ...] = (-1, 0, 1)
    position_scale: float = 1.72

    def predictions(self) -> dict[str, Prediction | Categorical]:
        """What the network says about each part."""
        return {
            "positions": Prediction("edm"),
            "atoms": Categorical(codes(len(self.elements))),
            "charges": Categorical(codes(len(self.charges))),
            "bonds": Categorical(codes(BOND_ORDERS)),
        }

    def element_classes(self, atomic_numbers: np.ndarray) -> np.ndarray:
        """Class of each atom; InputError names the elements that are not in the vocabulary."""
        return _classes("element", atomic_numbers, self.elements)

    def charge_classes(self, formal_charges: np.ndarray) -> np.ndarray:
        """Class of each formal charge; InputError names those that are not in the vocabulary."""
        return _classes("formal charge", formal_charges, self.charges)


def codes(classes: int) -> Tensor:
    """(K, K) code of each class: one-hot rows about their common mean."""
    return torch.eye(classes) - 1 / classes


def space(sizes: Tensor, padded: int) -> Product:
    """The subspace of molecules with `sizes` (B,) atoms, padded to `padded`."""
    mask = torch.arange(padded, device=sizes.device) < sizes[:, None]
    rows = Masked(mask)
    return Product({"positions": ZeroCentroid(mask), "atoms": rows, "charges": rows, "bonds": SymmetricPairs(mask)})


def encode(
    vocabulary: Vocabulary, positions: Tensor, atoms: Tensor, charges: Tensor, bonds: Tensor, where: Product
) -> Parts:
    """Classes and angstroms to a clean state.

    Args:
        positions: (B, N, 3) angstrom.
        atoms, charges: (B, N) classes.
        bonds: (B, N, N) orders.
        where: the space of the batch.
    """
    state = Parts(
        positions=positions / vocabulary.position_scale,
        atoms=codes(len(vocabulary.elements)).to(positions)[atoms.long()],
        charges=codes(len(vocabulary.charges)).to(positions)[charges.long()],
        bonds=codes(BOND_ORDERS).to(positions)[bonds.long()],
    )
    projected = where.project(state)
    assert isinstance(projected, Parts)
    return projected


def decode(vocabulary: Vocabulary, state: Parts, sizes: Sequence[int]) -> list[Molecule]:
    """The molecules that a clean state spells: nearest class of every atom, charge and bond."""
    elements = np.array(vocabulary.elements, np.int8)[state["atoms"].argmax(-1).cpu().numpy()]
    charges = np.array(vocabulary.charges, np.int8)[state["charges"].argmax(-1).cpu().numpy()]
    bonds = state["bonds"].argmax(-1).to(torch.int8).cpu().numpy()
    positions = (state["positions"].float() * vocabulary.position_scale).cpu().numpy()
    return [_cut(elements[i], positions[i], charges[i], bonds[i], n) for i, n in enumerate(sizes)]


def _cut(elements: np.ndarray, positions: np.ndarray, charges: np.ndarray, bonds: np.ndarray, n: int) -> Molecule:
    orders = bonds[:n, :n].copy()
    np.fill_diagonal(orders, 0)
    return Molecule(elements[:n].copy(), positions[:n].copy(), charges[:n].copy(), orders)


def _classes(kind: str, values: np.ndarray, allowed: tuple[int, ...]) -> np.ndarray:
    order = np.array(allowed)
    found = np.searchsorted(order, values).clip(max=len(order) - 1)
    strange = np.unique(values[order[found] != values])
    if strange.size:
        known = f"is not in the vocabulary {list(allowed)}; add it to the model's {kind.split()[-1]}s"
        raise InputError(f"{kind} {', '.join(map(str, strange))} {known}")
    return found
