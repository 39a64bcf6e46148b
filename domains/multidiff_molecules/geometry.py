"""Bond lengths, angles and torsions, and how far they are from those of a reference set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem

from multidiff_molecules.molecule import Molecule

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

KINDS = {"bond_length": "angstrom", "bond_angle": "degree", "torsion": "degree"}
AROMATIC = 4
_STRAIGHT = 0.1  # radian; a torsion about atoms this close to a line is noise


@dataclass(frozen=True)
class Values:
    """Many measurements of one kind, each with the code of its type; equal codes are equal types."""

    types: Ints
    values: Floats


@dataclass(frozen=True)
class _Graph:
    """All molecules as one graph: bonds in both directions, sorted by their source atom."""

    z: Ints
    positions: Floats
    source: Ints
    target: Ints
    order: Ints

    def extend(self, last: Ints) -> tuple[Ints, Ints]:
        """For each path ending with directed bond `last`, every next bond that does not turn back."""
        start = np.searchsorted(self.source, self.target[last])
        count = np.searchsorted(self.source, self.target[last], side="right") - start
        path = np.repeat(np.arange(len(last)), count)
        within = np.arange(len(path)) - np.repeat(np.cumsum(count) - count, count)
        following = start[path] + within
        onward = self.target[following] != self.source[last[path]]
        return path[onward], following[onward]


def bond_types(molecule: Molecule, mol: Chem.Mol | None) -> NDArray[np.int8]:
    """(n, n) bond orders, AROMATIC where the sanitised molecule `mol` says so: a ring's Kekule form is arbitrary."""
    orders = molecule.bonds.copy()
    for bond in mol.GetBonds() if mol is not None else ():
        if bond.GetIsAromatic():
            i, j = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
            orders[i, j] = orders[j, i] = AROMATIC
    return orders


def measure(molecules: Sequence[Molecule], orders: Sequence[NDArray[np.int8]]) -> dict[str, Values]:
    """Every bond length, bond angle and torsion of the molecules, by the names in KINDS.

    A type is, for a length, the two elements and the bond's order (`bond_types`); for an angle, the three elements and
    both orders; for a torsion, the four elements and the order of the middle bond. Torsions are unsigned, 0 to 180, so
    that mirror images count as equal. Molecules must have finite positions.
    """
    graph = _join(molecules, orders)
    angle_first, angle_second = graph.extend(np.arange(len(graph.source)))
    path, third = graph.extend(angle_second)
    torsion = np.stack([angle_first[path], angle_second[path], third])
    closed = graph.source[torsion[0]] == graph.target[torsion[2]]
    return {
        "bond_length": _lengths(graph),
        "bond_angle": _angles(graph, angle_first, angle_second),
        "torsion": _torsions(graph, torsion[:, ~closed]),
    }


def _join(molecules: Sequence[Molecule], orders: Sequence[NDArray[np.int8]]) -> _Graph:
    offsets = np.cumsum([0, *(len(m) for m in molecules)])
    edges = [np.argwhere(order) + offset for order, offset in zip(orders, offsets[:-1], strict=True)]
    edge = np.concatenate([np.zeros((0, 2), np.int64), *edges])
    return _Graph(
        z=np.concatenate([np.zeros(0, np.int64), *(m.atomic_numbers for m in molecules)]).astype(np.int64),
        positions=np.concatenate([np.zeros((0, 3)), *(m.positions for m in molecules)]).astype(np.float64),
        source=edge[:, 0],
        target=edge[:, 1],
        order=np.concatenate([np.zeros(0, np.int64), *(o[o > 0] for o in orders)]).astype(np.int64),
    )


def _lengths(g: _Graph) -> Values:
    once = g.source < g.target
    a, b = g.source[once], g.target[once]
    low, high = np.minimum(g.z[a], g.z[b]), np.maximum(g.z[a], g.z[b])
    return Values((low * 128 + high) * 8 + g.order[once], np.linalg.norm(g.positions[a] - g.positions[b], axis=1))


def _angles(g: _Graph, first: Ints, second: Ints) -> Values:
    once = g.source[first] < g.target[second]
    first, second = first[once], second[once]
    a, centre, b = g.source[first], g.target[first], g.target[second]
    end = np.sort([g.z[a] * 8 + g.order[first], g.z[b] * 8 + g.order[second]], axis=0)
    angle = _angle(g.positions[a] - g.positions[centre], g.positions[b] - g.positions[centre])
    return Values((end[0] * 1024 + end[1]) * 128 + g.z[centre], np.degrees(angle))


def _torsions(g: _Graph, path: Ints) -> Values:
    path = path[:, g.source[path[0]] < g.target[path[2]]]
    a, b, c, d = g.source[path[0]], g.source[path[1]], g.target[path[1]], g.target[path[2]]
    end = np.sort([g.z[a] * 128 + g.z[b], g.z[d] * 128 + g.z[c]], axis=0)
    types = (end[0] * 16384 + end[1]) * 8 + g.order[path[1]]
    back, middle, forth = (g.positions[j] - g.positions[i] for i, j in ((b, a), (b, c), (c, d)))
    bends = np.stack([_angle(back, middle), _angle(-middle, forth)])
    bent = ((bends > _STRAIGHT) & (bends < np.pi - _STRAIGHT)).all(axis=0)
    return Values(types[bent], np.degrees(_angle(np.cross(back, middle), np.cross(forth, middle)))[bent])


def _angle(u: Floats, v: Floats) -> Floats:
    """Angle between vectors, 0 to pi, exact at both ends."""
    return np.asarray(np.arctan2(np.linalg.norm(np.cross(u, v), axis=1), (u * v).sum(1)), np.float64)


def wasserstein(a: Floats, b: Floats) -> float:
    """1-Wasserstein distance of two samples: the area between their distribution functions; same unit as the values."""
    points = np.sort(np.concatenate([a, b]))
    below_a = np.searchsorted(np.sort(a), points[:-1], side="right") / len(a)
    below_b = np.searchsorted(np.sort(b), points[:-1], side="right") / len(b)
    return float((abs(below_a - below_b) * np.diff(points)).sum())


@dataclass(frozen=True)
class Distance:
    """`value`: mean over types of the 1-Wasserstein distance, weighted by how often the reference has the type.

    covered: share of the reference's measurements whose type the sample has at all (the mean is over those);
    foreign: share of the sample's measurements whose type the reference lacks. n, n_reference: measurements.
    """

    value: float
    covered: float
    foreign: float
    n: int
    n_reference: int


def distance(sample: Values, reference: Values) -> Distance:
    """How far a sample's values are from a reference's, type by type."""
    by_type, by_type_reference = _split(sample), _split(reference)
    shared = sorted(by_type.keys() & by_type_reference.keys())
    weights = np.array([len(by_type_reference[t]) for t in shared], float)
    distances = np.array([wasserstein(by_type[t], by_type_reference[t]) for t in shared])
    known = sum(len(by_type[t]) for t in shared)
    n, n_reference = len(sample.values), len(reference.values)
    return Distance(
        value=float(weights @ distances / weights.sum()) if shared else float("nan"),
        covered=float(weights.sum() / n_reference) if n_reference else float("nan"),
        foreign=1 - known / n if n else float("nan"),
        n=n,
        n_reference=n_reference,
    )


def _split(measured: Values) -> dict[int, Floats]:
    order = np.argsort(measured.types, kind="stable")
    types, starts = np.unique(measured.types[order], return_index=True)
    return dict(zip(types.tolist(), np.split(measured.values[order], starts)[1:], strict=True))
