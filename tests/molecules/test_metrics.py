"""Metrics: right on known molecules, indifferent to what must not matter, and sensitive to each kind of damage."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rdkit")

from multidiff_molecules import distance_bonds, geometry
from multidiff_molecules.chemistry import canonical_smiles, to_rdkit
from multidiff_molecules.metrics import assess, format_table, score, wilson
from multidiff_molecules.molecule import Molecule, PackedMolecules
from multidiff_molecules.plausibility import strain

Embed = Callable[[str], Molecule]


def moved(molecule: Molecule, seed: int) -> Molecule:
    """Rotated, shifted and with its atoms in another order."""
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    rotation *= np.sign(np.linalg.det(rotation))
    order = rng.permutation(len(molecule))
    positions = molecule.positions[order] @ rotation.T + rng.normal(0, 5, 3)
    return Molecule(
        molecule.atomic_numbers[order],
        positions.astype(np.float32),
        molecule.formal_charges[order],
        molecule.bonds[np.ix_(order, order)],
    )


def shuffled_bonds(molecule: Molecule, seed: int) -> Molecule:
    """The same bonds between other atoms."""
    order = np.random.default_rng(seed).permutation(len(molecule))
    return replace(molecule, bonds=molecule.bonds[np.ix_(order, order)])


def stretched(molecule: Molecule, factor: float = 1.08) -> Molecule:
    return replace(molecule, positions=molecule.positions * np.float32(factor))


@pytest.fixture(scope="module")
def train(molecules: list[Molecule]) -> list[str]:
    return [canonical_smiles(to_rdkit(m)) for m in molecules[:4]]


def test_known_molecules(molecules: list[Molecule], train: list[str]) -> None:
    scores = score(molecules, reference=molecules, train_smiles=train)
    for name in ("atom_stability", "molecule_stability", "validity", "valid_connected", "valid_unique", "uniqueness"):
        assert scores[f"generated-bonds/{name}"] == 1
    assert scores["file_valid"] == 1
    assert scores["generated-bonds/molecule_stability/n"] == 10
    assert scores["generated-bonds/atom_stability/n"] == sum(map(len, molecules))
    assert scores["generated-bonds/novelty"] == scores["generated-bonds/valid_unique_novel"] == 0.6
    for kind in geometry.KINDS:
        assert scores[f"geometry/{kind}_w1"] == 0
        assert scores[f"geometry/{kind}_w1/covered"] == 1
    assert scores["strain/median"] == scores["strain/median/reference"]


def test_pose_does_not_matter(molecules: list[Molecule]) -> None:
    one, other = (
        score(samples, reference=molecules[::-1])
        for samples in (molecules, [moved(m, i) for i, m in enumerate(molecules)])
    )
    assert one.keys() == other.keys()
    for name in one:
        assert other[name] == pytest.approx(one[name], abs=2e-3), name


def test_shuffled_bonds_destroy_stability(molecules: list[Molecule]) -> None:
    scores = score([shuffled_bonds(m, i) for i, m in enumerate(molecules)])
    assert scores["generated-bonds/molecule_stability"] == 0
    assert scores["generated-bonds/atom_stability"] < 0.7
    assert scores["file_valid"] == 0
    assert scores["distance-bonds/atom_stability"] == score(molecules)["distance-bonds/atom_stability"]


def test_stretching_shows_in_geometry_and_strain_alone(molecules: list[Molecule]) -> None:
    whole = score(molecules, reference=molecules)
    wide = score([stretched(m) for m in molecules], reference=molecules)
    assert wide["generated-bonds/molecule_stability"] == wide["generated-bonds/validity"] == 1
    assert 0.06 < wide["geometry/bond_length_w1"] < 0.15  # 8 % of 0.95 to 1.8 angstrom
    assert wide["geometry/bond_angle_w1"] == pytest.approx(0, abs=1e-3)
    assert wide["strain/median"] > whole["strain/median"] + 20
    assert wide["distance-bonds/atom_stability"] < whole["distance-bonds/atom_stability"]


def test_methyl_radical_is_unstable_however_it_is_counted(methyl: Molecule) -> None:
    scores = score([methyl])
    for protocol in ("generated-bonds", "distance-bonds"):
        assert scores[f"{protocol}/atom_stability"] == 0.75
        assert scores[f"{protocol}/molecule_stability"] == 0
    assert scores["file_valid"] == 0


def test_every_share_is_of_the_number_asked_for(molecules: list[Molecule]) -> None:
    lost = replace(molecules[0], positions=molecules[0].positions * np.nan)
    apart = replace(molecules[1], bonds=np.zeros_like(molecules[1].bonds))
    scores = score([*molecules, molecules[2], None, lost, apart], train_smiles=[])
    assert scores["samples"] == 14
    assert scores["generated-bonds/valid_unique"] == 11 / 14  # the ten, and the loose atoms
    assert scores["generated-bonds/valid_connected_unique_novel"] == 10 / 14
    assert scores["generated-bonds/molecule_stability"] == 11 / 14
    assert scores["generated-bonds/uniqueness"] == pytest.approx(11 / 12)
    assert scores["rejected/unreadable"] == scores["rejected/non-finite coordinates"] == 1
    atoms = sum(map(len, [*molecules, molecules[2], lost, apart]))
    stable = sum(map(len, [*molecules, molecules[2]]))
    assert scores["generated-bonds/atom_stability"] == pytest.approx(stable / atoms)


def test_nothing_and_nothing_valid(molecules: list[Molecule]) -> None:
    assert score([])["samples"] == 0
    scores = score([None, None], reference=molecules)
    assert scores["generated-bonds/validity"] == 0
    assert "samples 2" in format_table(scores)


def test_distance_bonds_by_hand(methyl: Molecule) -> None:
    """Carbon to carbon in pm: triple below 123, double below 139, single below 164 (length plus margin)."""
    expected = {1.22: 3, 1.24: 2, 1.38: 2, 1.40: 1, 1.63: 1, 1.65: 0}
    for apart, order in expected.items():
        pair = Molecule(
            np.array([6, 6], np.int8),
            np.array([[0, 0, 0], [apart, 0, 0]], np.float32),
            np.array([1, -1], np.int8),
            np.zeros((2, 2), np.int8),
        )
        found = distance_bonds.with_distance_bonds(pair)
        assert found.bonds.tolist() == [[0, order], [order, 0]]
        assert not found.formal_charges.any()


def test_distance_bonds_without_table_entry_or_position() -> None:
    odd = Molecule(
        np.array([6, 92, 0], np.int8),
        np.array([[0, 0, 0], [1, 0, 0], [np.nan, 0, 0]], np.float32),
        np.zeros(3, np.int8),
        np.zeros((3, 3), np.int8),
    )
    assert not distance_bonds.with_distance_bonds(odd).bonds.any()


@pytest.mark.parametrize("smiles", ["CCO", "C#N", "C[C@H](N)C(=O)O", "N=C1CCCO1"])
def test_distance_bonds_of_plain_molecules_are_their_bonds(embed: Embed, smiles: str) -> None:
    molecule = embed(smiles)
    np.testing.assert_array_equal(distance_bonds.with_distance_bonds(molecule).bonds, molecule.bonds)


def test_wasserstein_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for n, m in ((1, 1), (7, 3), (200, 331)):
        a, b = rng.normal(size=n), rng.normal(0.3, 2, size=m).round(1)
        assert geometry.wasserstein(a, b) == pytest.approx(stats.wasserstein_distance(a, b), rel=1e-12)
    assert geometry.wasserstein(a, a + 0.25) == pytest.approx(0.25)


@pytest.mark.parametrize("i", range(10))
def test_measurements_agree_with_rdkit(molecules: list[Molecule], i: int) -> None:
    """All lengths, angles and torsions, found again one by one through RDKit's substructure search."""
    from rdkit import Chem
    from rdkit.Chem import rdMolTransforms as by_rdkit

    molecule = molecules[i]
    mol = to_rdkit(molecule)
    found = geometry.measure([molecule], [geometry.bond_types(molecule, mol)])
    conformer = mol.GetConformer()
    bends = mol.GetSubstructMatches(Chem.MolFromSmarts("*~*~*"), maxMatches=10**6)
    angles = [by_rdkit.GetAngleDeg(conformer, *match) for match in bends]
    np.testing.assert_allclose(np.sort(found["bond_angle"].values), np.sort(angles), atol=1e-3)
    lengths = [by_rdkit.GetBondLength(conformer, b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()]
    np.testing.assert_allclose(np.sort(found["bond_length"].values), np.sort(lengths), atol=1e-6)
    chains = mol.GetSubstructMatches(Chem.MolFromSmarts("*~*~*~*"), uniquify=False, maxMatches=10**6)
    bent = [
        c
        for c in chains
        if c[0] < c[3] and max(by_rdkit.GetAngleDeg(conformer, *c[:3]), by_rdkit.GetAngleDeg(conformer, *c[1:])) < 174
    ]
    torsions = [abs(by_rdkit.GetDihedralDeg(conformer, *c)) for c in bent]
    np.testing.assert_allclose(np.sort(found["torsion"].values), np.sort(torsions), atol=0.02)


def test_types_tell_bonds_apart(embed: Embed) -> None:
    """Six equal aromatic bonds in benzene whichever Kekule form; ethane's, ethene's and ethyne's are three types."""
    benzene = embed("c1ccccc1")
    values = geometry.measure([benzene], [geometry.bond_types(benzene, to_rdkit(benzene))])["bond_length"]
    assert sorted(np.unique(values.types, return_counts=True)[1].tolist()) == [6, 6]
    chain = [embed(s) for s in ("CC", "C=C", "C#C")]
    measured = geometry.measure(chain, [m.bonds for m in chain])["bond_length"]
    assert len(np.unique(measured.types)) == 4


def test_distance_reports_types_that_one_side_lacks() -> None:
    a = geometry.Values(np.array([1, 1, 1, 2]), np.array([0.0, 0.0, 0.0, 9.0]))
    b = geometry.Values(np.array([1, 3]), np.array([0.5, 4.0]))
    found = geometry.distance(a, b)
    assert found == geometry.Distance(value=0.5, covered=0.5, foreign=0.25, n=4, n_reference=2)


def test_strain_of_a_relaxed_molecule_is_nothing(embed: Embed) -> None:
    relaxed = strain([to_rdkit(embed("CCO"))])
    assert relaxed.energies[0] == pytest.approx(0, abs=1e-3)
    boron = embed("OB(O)O")
    assert strain([to_rdkit(boron)]).untyped == 1


def test_posebusters_counts_failures(embed: Embed) -> None:
    pytest.importorskip("posebusters")
    squashed = replace(embed("CCO"), positions=embed("CCO").positions * np.float32(0.6))
    scores = score([embed("CCO"), squashed, None, embed("CCO")], posebusters=3)
    assert scores["posebusters/pass"] == pytest.approx(1 / 3)
    assert scores["posebusters/pass/n"] == 3
    assert scores["posebusters/bond_lengths"] == pytest.approx(1 / 3)
    assert scores["posebusters/sanitization"] == pytest.approx(2 / 3)


def test_wilson_at_its_edges() -> None:
    low, high = wilson(1.0, 2000)
    assert high == 1
    assert 0.998 < low < 0.9985
    assert wilson(0.0, 10)[0] == 0


def test_table_prints_every_n(molecules: list[Molecule]) -> None:
    scores = score(molecules, reference=molecules[:5])
    lines = format_table(scores).splitlines()
    for name in (key.removesuffix("/n") for key in scores if key.endswith("/n")):
        assert any(line.split()[0] == name and f"n={scores[f'{name}/n']}" in line for line in lines), name


@pytest.mark.data
@pytest.mark.skipif("MULTIDIFF_DATA" not in os.environ, reason="MULTIDIFF_DATA is not set")
def test_qm9_itself() -> None:
    """The data's own score is the yardstick: perfect with its bonds, near the EDM paper's row for data by distance."""
    packed = PackedMolecules.load(os.path.join(os.environ["MULTIDIFF_DATA"], "qm9_3d.npz"))
    test, validation = (np.flatnonzero(packed.split == part) for part in (2, 1))
    samples = [packed[i] for i in test[np.linspace(0, len(test) - 1, 2000).astype(int)]]
    reference = [packed[i] for i in validation[np.linspace(0, len(validation) - 1, 2000).astype(int)]]
    scores = score(samples, reference=reference, posebusters=100)
    print(format_table(scores))
    for name in ("atom_stability", "molecule_stability", "validity", "valid_connected"):
        assert scores[f"generated-bonds/{name}"] == 1
    assert scores["file_valid"] == 1
    assert scores["distance-bonds/atom_stability"] == pytest.approx(0.992, abs=0.006)
    assert scores["distance-bonds/molecule_stability"] == pytest.approx(0.957, abs=0.015)
    assert scores["distance-bonds/validity"] == pytest.approx(0.98, abs=0.012)
    assert scores["strain/median"] == pytest.approx(scores["strain/median/reference"], rel=0.15)
    assert scores["geometry/bond_length_w1"] < 0.002
    assert scores["posebusters/pass"] > 0.85
    train = {s.decode() for s in packed.smiles[packed.split == 0][:500]}
    seen = [assess(packed[i]) for i in np.flatnonzero(packed.split == 0)[:500]]
    assert score([a.molecule for a in seen], train_smiles=train)["generated-bonds/novelty"] == 0
