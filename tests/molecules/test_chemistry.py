"""Molecule <-> RDKit keeps everything; what is not a valid molecule is told why."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rdkit")

from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem import AllChem

from multidiff.errors import InputError
from multidiff_molecules.chemistry import canonical_smiles, check, flat_smiles, from_rdkit, stable_atoms, to_rdkit
from multidiff_molecules.molecule import Molecule
from multidiff_molecules.properties import NAMES, properties

Embed = Callable[[str], Molecule]
SAMPLES = range(10)


@pytest.mark.parametrize("sanitise", [True, False])
@pytest.mark.parametrize("i", SAMPLES)
def test_round_trip(molecules: list[Molecule], i: int, sanitise: bool) -> None:
    there = to_rdkit(molecules[i], sanitise)
    back = from_rdkit(there)
    for name in ("atomic_numbers", "positions", "formal_charges"):
        np.testing.assert_array_equal(getattr(back, name), getattr(molecules[i], name))
    if sanitise:  # a ring may come back in its other Kekule form, but as the same molecule
        assert canonical_smiles(to_rdkit(back)) == canonical_smiles(there)
        assert stable_atoms(back).all()
    else:
        np.testing.assert_array_equal(back.bonds, molecules[i].bonds)


@pytest.mark.parametrize("i", SAMPLES)
def test_valid_and_no_hydrogen_invented(molecules: list[Molecule], i: int) -> None:
    mol, reason = check(molecules[i])
    assert reason == ""
    assert mol.GetNumAtoms() == len(molecules[i])
    assert all(atom.GetNoImplicit() and atom.GetTotalNumHs() == 0 for atom in mol.GetAtoms())
    assert stable_atoms(molecules[i]).all()


def test_stereo_comes_from_the_coordinates(embed: Embed) -> None:
    left = embed("C[C@H](N)C(=O)O")
    right = replace(left, positions=left.positions * np.array([1, 1, -1], np.float32))
    smiles = [canonical_smiles(to_rdkit(m)) for m in (left, right)]
    assert smiles[0] == Chem.CanonSmiles("C[C@H](N)C(=O)O")
    assert smiles[1] == Chem.CanonSmiles("C[C@@H](N)C(=O)O")
    assert canonical_smiles(to_rdkit(embed("F/C=C/Cl"))) == Chem.CanonSmiles("F/C=C/Cl")
    assert canonical_smiles(to_rdkit(embed("F/C=C\\Cl"))) == Chem.CanonSmiles("F/C=C\\Cl")


def test_flat_smiles_is_that_of_the_molecule_without_stereo(molecules: list[Molecule]) -> None:
    for molecule in molecules:
        mol = to_rdkit(molecule)
        assert flat_smiles(canonical_smiles(mol)) == canonical_smiles(mol, stereo=False)
    assert flat_smiles("C[C@H") is None


def test_methyl_radical_is_not_valid(methyl: Molecule) -> None:
    mol, reason = check(methyl)
    assert mol is not None  # RDKit alone lets it pass
    assert reason == "radical electrons"
    assert stable_atoms(methyl).tolist() == [False, True, True, True]


def test_charge_does_not_excuse_three_bonds(methyl: Molecule) -> None:
    cation = replace(methyl, formal_charges=np.array([1, 0, 0, 0], np.int8))
    assert check(cation)[1] == "valency: C(+1) has 3"
    anion = replace(methyl, formal_charges=np.array([-1, 0, 0, 0], np.int8))
    assert check(anion)[1] == ""


def test_pentavalent_carbon(embed: Embed) -> None:
    ethanol = embed("CCO")
    bonds = ethanol.bonds.copy()
    bonds[0, 1] = bonds[1, 0] = 2
    assert check(replace(ethanol, bonds=bonds)) == (None, "valency: C has 5")


def test_uncharged_nitro_is_refused_although_rdkit_mends_it(embed: Embed) -> None:
    nitro = embed("O=[N+]([O-])c1ccccc1")
    bonds = nitro.bonds.copy()
    bonds[1, 2] = bonds[2, 1] = 2
    mol, reason = check(replace(nitro, bonds=bonds, formal_charges=np.zeros_like(nitro.formal_charges)))
    assert mol is not None
    assert reason == "valency: N has 5"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"positions": np.full((9, 3), np.nan, np.float32)}, "non-finite coordinates"),
        ({"positions": np.full((9, 3), 1e30, np.float32)}, "coordinates out of range"),
        ({"positions": np.zeros((9, 3), np.float32)}, "overlapping atoms"),
        ({"bonds": np.triu(np.ones((9, 9), np.int8))}, "malformed bonds"),
        ({"bonds": np.full((9, 9), 7, np.int8)}, "malformed bonds"),
        ({"bonds": np.zeros((9, 9), np.int8)}, "not connected"),
        ({"atomic_numbers": np.zeros(9, np.int8)}, "unknown element"),
    ],
)
def test_reasons(embed: Embed, change: dict[str, np.ndarray], reason: str) -> None:
    assert check(replace(embed("CCO"), **change))[1] == reason


def test_no_atoms() -> None:
    empty = Molecule(
        np.zeros(0, np.int8), np.zeros((0, 3), np.float32), np.zeros(0, np.int8), np.zeros((0, 0), np.int8)
    )
    assert check(empty) == (None, "no atoms")


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 12))
def test_check_survives_noise(seed: int, n: int) -> None:
    """Whatever a network emits gets a verdict, and a valid one agrees with the strict table."""
    rng = np.random.default_rng(seed)
    bonds = np.triu(rng.choice([0, 0, 0, 1, 2, 3], (n, n)), 1).astype(np.int8)
    molecule = Molecule(
        rng.integers(-1, 120, n).astype(np.int8) if seed % 2 else rng.choice([1, 6, 7, 8], n).astype(np.int8),
        rng.normal(0, 2, (n, 3)).astype(np.float32),
        rng.integers(-9, 9, n).astype(np.int8) if seed % 3 else np.zeros(n, np.int8),
        bonds + bonds.T,
    )
    mol, reason = check(molecule)
    assert reason or (mol is not None and stable_atoms(molecule).all())


def test_rdkit_stays_quiet(embed: Embed, capfd: pytest.CaptureFixture[str]) -> None:
    ethanol = embed("CCO")
    check(replace(ethanol, bonds=(ethanol.bonds * 3)))
    check(replace(ethanol, bonds=np.zeros_like(ethanol.bonds)))
    flat_smiles("C[C@H")
    assert capfd.readouterr() == ("", "")


def test_from_rdkit_refuses_what_arrays_cannot_hold() -> None:
    ethanol = Chem.AddHs(Chem.MolFromSmiles("CCO"))
    with pytest.raises(InputError, match="3-D"):
        from_rdkit(ethanol)
    AllChem.Compute2DCoords(ethanol)
    with pytest.raises(InputError, match="3-D"):
        from_rdkit(ethanol)
    bare = Chem.MolFromSmiles("CCO")
    AllChem.EmbedMolecule(bare, randomSeed=1)
    with pytest.raises(InputError, match="implicit hydrogens"):
        from_rdkit(bare)
    with pytest.raises(InputError, match="no atoms"):
        from_rdkit(Chem.Mol())


def test_properties_of_caffeine(embed: Embed) -> None:
    """Against the published values: PubChem CID 2519; QED of Bickerton et al. 2012."""
    found = properties(to_rdkit(embed("Cn1c(=O)c2c(ncn2C)n(C)c1=O")))
    assert tuple(found) == NAMES
    assert found["formula"] == "C8H10N4O2"
    assert found["molecular_weight"] == pytest.approx(194.19, abs=0.01)
    assert found["qed"] == pytest.approx(0.54, abs=0.01)
    assert found["rings"] == 2
    assert found["lipinski_violations"] == 0
    assert 1 <= found["sa_score"] <= 10


def test_properties_at_the_edges(embed: Embed) -> None:
    assert properties(to_rdkit(embed("C" * 40)))["lipinski_violations"] == 2  # heavy and greasy
    smallest = properties(to_rdkit(embed("[H][H]")))
    assert smallest["formula"] == "H2"
    assert math.isnan(float(smallest["sa_score"])) or smallest["sa_score"] >= 0
