"""Molecules made in code, with coordinates from RDKit."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from multidiff_molecules.molecule import Molecule

SMILES = (
    "Cn1c(=O)c2c(ncn2C)n(C)c1=O",  # caffeine: fused aromatic rings
    "c1ccccc1",
    "[NH3+]CC(=O)[O-]",  # zwitterion
    "O=[N+]([O-])c1ccccc1",
    "CS(=O)(=O)C",
    "C[C@H](N)C(=O)O",
    "F/C=C/Cl",
    "C#N",
    "CCO",
    "N=C1CCCO1",
)


@pytest.fixture(scope="session")
def embed() -> Callable[[str], Molecule]:
    """SMILES -> Molecule, relaxed in MMFF94; the same one every time."""

    @cache
    def make(smiles: str) -> Molecule:
        from rdkit import Chem
        from rdkit.Chem import AllChem

        from multidiff_molecules.chemistry import from_rdkit

        mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
        assert AllChem.EmbedMolecule(mol, randomSeed=7) == 0
        AllChem.MMFFOptimizeMolecule(mol, maxIters=5000)
        return from_rdkit(mol)

    return make


@pytest.fixture(scope="session")
def molecules(embed: Callable[[str], Molecule]) -> list[Molecule]:
    """The molecules of SMILES."""
    return [embed(smiles) for smiles in SMILES]


@pytest.fixture(scope="session")
def methyl() -> Molecule:
    """The methyl radical: three-valent carbon, which lenient tables pass."""
    angles = np.radians([0, 120, 240])
    ring = 1.09 * np.stack([np.cos(angles), np.sin(angles), 0 * angles], 1)
    bonds = np.zeros((4, 4), np.int8)
    bonds[0, 1:] = bonds[1:, 0] = 1
    positions = np.concatenate([np.zeros((1, 3)), ring]).astype(np.float32)
    return Molecule(np.array([6, 1, 1, 1], np.int8), positions, np.zeros(4, np.int8), bonds)
