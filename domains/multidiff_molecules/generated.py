"""What a call of the molecules' pipeline gives, and how a large job keeps it until the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from multidiff.errors import InputError
from multidiff_molecules.molecule import Molecule, PackedMolecules

if TYPE_CHECKING:
    from rdkit import Chem

FILES = ("molecules.sdf", "molecules.csv", "rejected.xyz", "molecules.png")


@dataclass(frozen=True, eq=False)
class MoleculeOutput:
    """Generated molecules.

    Attributes:
        molecules: as generated: atoms, charges, bonds, positions.
        indices: the sample number of each.
        failed: sample number -> the step at which its numbers stopped being finite.
        recipe: checkpoint, settings and seed, enough to make the same molecules again.
        network_calls: of the denoiser, for each molecule.
    """

    molecules: Sequence[Molecule]
    indices: Sequence[int]
    failed: dict[int, int]
    recipe: dict[str, Any]
    network_calls: int = field(default=0)

    def __len__(self) -> int:
        return len(self.molecules)

    @cached_property
    def mols(self) -> list[Chem.Mol | None]:
        """RDKit molecules with a conformer; None where `chemistry.check` finds one invalid."""
        from multidiff_molecules.chemistry import check

        return [mol if not reason else None for mol, reason in map(check, self.molecules)]

    @property
    def smiles(self) -> list[str | None]:
        """Canonical SMILES without explicit hydrogens; None where the molecule is not valid."""
        from multidiff_molecules.chemistry import canonical_smiles

        return [None if mol is None else canonical_smiles(mol) for mol in self.mols]

    def save(self, folder: str | Path, records: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        """Write molecules.sdf, rejected.xyz, molecules.csv and molecules.png; returns the counts.

        Args:
            folder: made if need be; files of these names in it are replaced.
            records: is given a record of each sample; those that failed say at which step.
        """
        from multidiff_molecules.output import write

        seen: list[dict[str, Any]] = [] if records is None else records
        counts = write(self.molecules, self.indices, Path(folder), self.recipe, records)
        for record in seen:
            if record["sample"] in self.failed:
                record["not_finite_at_step"] = self.failed[record["sample"]]
        return counts

    def _repr_png_(self) -> bytes:
        """A grid of the valid ones, for notebooks."""
        from multidiff_molecules.render import grid_png

        cards = [(mol, smiles or "", "") for mol, smiles in zip(self.mols, self.smiles, strict=True) if mol is not None]
        return grid_png(cards[:16])


def store(outputs: Sequence[MoleculeOutput], path: Path) -> None:
    """Keep outputs in one file beside `path`, for `restore`."""
    molecules = [molecule for output in outputs for molecule in output.molecules]
    indices = [i for output in outputs for i in output.indices]
    failed = [output.failed.get(i, -1) for output in outputs for i in output.indices]
    packed = PackedMolecules.pack(molecules, [""] * len(molecules))
    packed.save(path.with_suffix(".npz"), sample=np.array(indices, np.int64), failed_at=np.array(failed, np.int64))


def restore(paths: Sequence[Path], recipe: dict[str, Any], network_calls: int) -> MoleculeOutput:
    """All that was kept, in the order of the sample numbers; about 350 bytes of memory a molecule.

    Raises:
        InputError: a file is damaged; says which.
    """
    files = [path.with_suffix(".npz") for path in paths]
    packed = _joined([PackedMolecules.load(file) for file in files])
    sample, failed_at = (np.concatenate([_extra(file, name) for file in files]) for name in ("sample", "failed_at"))
    order = np.argsort(sample)
    failed = np.flatnonzero(failed_at >= 0)
    return MoleculeOutput(
        molecules=_Ordered(packed, order),
        indices=sample[order].tolist(),
        failed=dict(zip(sample[failed].tolist(), failed_at[failed].tolist(), strict=True)),
        recipe=recipe,
        network_calls=network_calls,
    )


def _extra(file: Path, name: str) -> NDArray[np.int64]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return np.asarray(arrays[name], np.int64)
    except Exception as error:  # zip, zlib and numpy each have their own
        raise InputError(f"{file} is damaged ({error}); delete it and run the same command again") from error


def _joined(parts: Sequence[PackedMolecules]) -> PackedMolecules:
    """Several packs end to end."""
    arrays = {n: np.concatenate([getattr(p, n) for p in parts]) for n in PackedMolecules.__dataclass_fields__}
    for name in ("atom_offsets", "bond_offsets"):
        lengths = np.concatenate([np.diff(getattr(p, name)) for p in parts])
        arrays[name] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return PackedMolecules(**arrays)


class _Ordered(Sequence[Molecule]):
    """Packed molecules in another order, unpacked when asked for."""

    def __init__(self, packed: PackedMolecules, order: NDArray[np.intp]) -> None:
        self.packed, self.order = packed, order

    def __len__(self) -> int:
        return len(self.order)

    @overload
    def __getitem__(self, i: int) -> Molecule: ...
    @overload
    def __getitem__(self, i: slice) -> list[Molecule]: ...
    def __getitem__(self, i: int | slice) -> Molecule | list[Molecule]:
        if isinstance(i, slice):
            return [self.packed[int(k)] for k in self.order[i]]
        return self.packed[int(self.order[i])]
