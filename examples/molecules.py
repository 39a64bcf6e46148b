"""Generate molecules, look at them in RDKit, keep the drug-like ones.

python examples/molecules.py
"""

from rdkit.Chem import QED

import multidiff


def main() -> None:
    """Sixteen molecules, the three best by QED."""
    pipe = multidiff.load("molecules")
    out = pipe(num_samples=16, seed=0)
    valid = [mol for mol in out.mols if mol is not None]
    print(f"{len(valid)} of {len(out.molecules)} are valid")
    for mol in sorted(valid, key=QED.qed, reverse=True)[:3]:
        print(
            f"QED {QED.qed(mol):.2f}  {mol.GetNumAtoms()} atoms  x of the first: {mol.GetConformer().GetPositions()[0]}"
        )
    print(out.save("out/example"))


if __name__ == "__main__":
    main()
