"""What chemists ask first of a molecule."""

from __future__ import annotations

import math

from rdkit import Chem
from rdkit.Chem import QED, Crippen, Descriptors, Lipinski, rdMolDescriptors

from multidiff_molecules.chemistry import without_hydrogens

Properties = dict[str, float | int | str]

NAMES = ("formula", "molecular_weight", "logp", "qed", "sa_score", "tpsa", "rings", "lipinski_violations")


def properties(mol: Chem.Mol) -> Properties:
    """The properties in NAMES of a sanitised molecule.

    Returns:
        formula (Hill); molecular_weight, g/mol; logp (Crippen); qed, 0 to 1 (Bickerton et al. 2012); sa_score,
        1 easy to 10 hard to make (Ertl and Schuffenhauer 2009; NaN for a molecule too small for it);
        tpsa, angstrom^2; rings; lipinski_violations, 0 to 4 of the rule of five.
    """
    heavy = without_hydrogens(mol)
    weight, logp = Descriptors.MolWt(heavy), Crippen.MolLogP(heavy)
    return {
        "formula": rdMolDescriptors.CalcMolFormula(mol),
        "molecular_weight": round(weight, 3),
        "logp": round(logp, 4),
        "qed": round(QED.qed(heavy), 4),
        "sa_score": round(_sa_score(heavy), 4),
        "tpsa": round(rdMolDescriptors.CalcTPSA(heavy), 2),
        "rings": rdMolDescriptors.CalcNumRings(heavy),
        "lipinski_violations": _lipinski_violations(heavy, weight, logp),
    }


def _lipinski_violations(heavy: Chem.Mol, weight: float, logp: float) -> int:
    donors, acceptors = Lipinski.NumHDonors(heavy), Lipinski.NumHAcceptors(heavy)
    return sum((weight > 500, logp > 5, donors > 5, acceptors > 10))


def _sa_score(heavy: Chem.Mol) -> float:
    from rdkit.Contrib.SA_Score import sascorer  # 0.4 s to read its fragment table

    try:
        return float(sascorer.calculateScore(heavy))
    except (ArithmeticError, ValueError):
        return math.nan
