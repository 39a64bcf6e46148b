"""Is the geometry one that a molecule could have: strain in a force field, and PoseBusters' checks."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import rdForceFieldHelpers
from tqdm import tqdm

MAX_ITERATIONS = 2000
_CHUNK = 10  # molecules between two updates of the progress bar


@dataclass(frozen=True)
class Strain:
    """Energies in kcal/mol, one for each molecule that MMFF94 could type; counts of the others."""

    energies: list[float]
    untyped: int
    unconverged: int

    @property
    def median(self) -> float:
        return float(np.median(self.energies)) if self.energies else math.nan


def strain(mols: Sequence[Chem.Mol], progress: bool = False) -> Strain:
    """MMFF94 energy each molecule loses when it relaxes, in vacuo, into the nearest minimum.

    `mols`: sanitised, hydrogens explicit, one conformer. One that has not converged after MAX_ITERATIONS counts with
    what it has lost so far. Run one after another: 1 ms for 18 atoms, less than starting other processes costs.
    """
    energies: list[float] = []
    untyped = unconverged = 0
    for mol in tqdm(mols, "strain", unit="mol", disable=not progress):
        lost, converged = _relax(mol)
        if math.isfinite(lost):
            energies.append(lost)
            unconverged += not converged
        else:
            untyped += 1
    return Strain(energies, untyped, unconverged)


def _relax(mol: Chem.Mol) -> tuple[float, bool]:
    """Energy lost in kcal/mol (NaN where MMFF has no parameters) and whether the minimum was reached."""
    with rdBase.BlockLogs():
        parameters = rdForceFieldHelpers.MMFFGetMoleculeProperties(mol)
        if parameters is None:
            return math.nan, False
        relaxed = Chem.Mol(mol)  # the field writes into it and does not keep it alive
        field = rdForceFieldHelpers.MMFFGetMoleculeForceField(relaxed, parameters)
        if field is None:
            return math.nan, False
        before = field.CalcEnergy()
        more_needed = field.Minimize(maxIts=MAX_ITERATIONS)
        return before - field.CalcEnergy(), not more_needed


def posebusters(mols: Sequence[Chem.Mol | None], progress: bool = False) -> dict[str, int]:
    """How many molecules pass each check of PoseBusters (Buttenschoen et al. 2024, configuration "mol"); `pass`: all.

    None, and a check that could not be made (as when RDKit finds no conformers to compare the energy with), is not
    passed; `not_made` counts molecules with such a check. A molecule takes 0.2 s, a cage that RDKit cannot embed ten;
    the conformers of one molecule are made on all cores.

    Raises:
        ImportError: the package `posebusters` is not installed.
    """
    from posebusters import PoseBusters

    buster = PoseBusters(config="mol")
    # The configuration lists the costly energy check twice, once without a result to report.
    buster.config["modules"] = [m for m in buster.config["modules"] if m.get("chosen_binary_test_output")]
    logging.getLogger("posebusters").setLevel(logging.CRITICAL)
    passed: dict[str, int] = {"pass": 0, "not_made": 0}
    present = [mol for mol in mols if mol is not None]
    with tqdm(total=len(present), desc="PoseBusters", unit="mol", disable=not progress) as bar, rdBase.BlockLogs():
        for start in range(0, len(present), _CHUNK):
            table = buster.bust(present[start : start + _CHUNK])
            made = table.notna()
            good = (table == True) & made  # noqa: E712  (a column with gaps is of type object)
            passed["pass"] += int(good.all(axis=1).sum())
            passed["not_made"] += int((~made).any(axis=1).sum())
            for check, count in good.sum().items():
                passed[str(check)] = passed.get(str(check), 0) + int(count)
            bar.update(len(table))
    return passed
