"""Molecules from a checkpoint, in three lines of Python or one of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from multidiff import checkpoint
from multidiff.denoiser import NetworkDenoiser
from multidiff.errors import InputError
from multidiff.pipeline import Pipeline, Settings, StepCallback, check_seed
from multidiff.process import Process
from multidiff.random import Rng, fold
from multidiff.schedule import SCHEDULES
from multidiff.state import Parts
from multidiff_molecules.molecule import Molecule
from multidiff_molecules.representation import Vocabulary, decode, space

if TYPE_CHECKING:
    from rdkit import Chem

BATCH_SIZE = 64
_SIZE_STREAM = 0x517E
"""Folded into the seed for the draw of the number of atoms, which must not move the noise."""


@dataclass(frozen=True, eq=False)
class MoleculeOutput:
    """What a call gives.

    Attributes:
        molecules: as generated: atoms, charges, bonds, positions.
        indices: the sample number of each.
        failed: sample number -> the step at which its numbers stopped being finite.
        recipe: checkpoint, settings and seed, enough to make the same molecules again.
        network_calls: of the denoiser, for each molecule.
    """

    molecules: list[Molecule]
    indices: list[int]
    failed: dict[int, int]
    recipe: dict[str, Any]
    network_calls: int = field(default=0)

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

    def save(self, folder: str | Path) -> dict[str, Any]:
        """Write molecules.sdf, rejected.xyz, molecules.csv and molecules.png; returns the counts."""
        from multidiff_molecules.output import write

        return write(self.molecules, self.indices, Path(folder), self.recipe)

    def _repr_png_(self) -> bytes:
        """A grid of the valid ones, for notebooks."""
        from multidiff_molecules.render import grid_png

        cards = [(mol, smiles or "", "") for mol, smiles in zip(self.mols, self.smiles, strict=True) if mol is not None]
        return grid_png(cards[:16])


class MoleculePipeline(Pipeline):
    """Generates molecules: ``multidiff.load("molecules")(num_samples=16, seed=0)``."""

    def __init__(
        self,
        denoiser: NetworkDenoiser,
        config: Mapping[str, Any],
        vocabulary: Vocabulary,
        sizes: Mapping[int, int],
    ) -> None:
        super().__init__(denoiser, config)
        self.vocabulary = vocabulary
        self.sizes = dict(sorted(sizes.items()))

    @classmethod
    def from_checkpoint(cls, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> MoleculePipeline:
        """Build it from what a checkpoint folder holds.

        Raises:
            InputError: a key is missing or wrong, or the weights do not fit.
        """
        where = Path("checkpoint")
        path = where / checkpoint.CONFIG
        spelled = checkpoint.require(config, "vocabulary", dict, path)
        vocabulary = Vocabulary(
            elements=tuple(checkpoint.require(spelled, "elements", list, path)),
            charges=tuple(checkpoint.require(spelled, "charges", list, path)),
            position_scale=float(checkpoint.require(spelled, "position_scale", (int, float), path)),
        )
        schedules = {entry.factory.__name__: entry.factory for entry in SCHEDULES.values()}
        noise = checkpoint.build(checkpoint.require(config, "schedule", dict, path), schedules, path, "schedule")
        from multidiff_molecules import domain

        network = checkpoint.build_module(
            checkpoint.require(config, "network", dict, path), weights, domain.components, where
        )
        denoiser = NetworkDenoiser(network, Process(noise), vocabulary.predictions())
        histogram = checkpoint.require(config, "sizes", dict, path)
        return cls(denoiser, config, vocabulary, {int(n): int(count) for n, count in histogram.items()})

    def __call__(
        self,
        num_samples: int = 1,
        *,
        num_atoms: int | Sequence[int] | None = None,
        num_inference_steps: int | None = None,
        solver: str | None = None,
        grid: str | None = None,
        solver_options: Mapping[str, Any] | None = None,
        guidance_scale: float = 1.0,
        seed: int | None = None,
        indices: Sequence[int] | None = None,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        batch_size: int | None = None,
        callback_on_step_end: StepCallback | None = None,
        output_type: str = "molecules",
    ) -> MoleculeOutput | list[Chem.Mol | None] | list[str | None]:
        """Generate molecules.

        Args:
            num_samples: how many.
            num_atoms: hydrogens included; one number, or one a sample; drawn as in the training data by default.
            num_inference_steps: of the solver; the checkpoint's recommendation by default.
            solver, grid: names as in `multidiff list solvers` and `grids`; the checkpoint's by default.
            solver_options: of the solver, such as ``{"eta": 0.5}`` of "ddim".
            guidance_scale: 1; this checkpoint has no condition to be guided by.
            seed: in [0, 2**63); drawn afresh by default, and kept in the recipe.
            indices: sample numbers; sample i of a seed is always the same molecule. 0, 1, 2... by default.
            generator: torch generators instead of a seed: one for all, or a list with one a sample.
            batch_size: molecules at a time; changes the speed and nothing else.
            callback_on_step_end: called as ``(pipe, step, t, kwargs)`` after each step, as in diffusers; kwargs holds
                "latents" (the state) and "estimate" (of the clean one), and what it returns under "latents" is used.
            output_type: "molecules" for a `MoleculeOutput`, "rdkit" or "smiles" for a list (None where not valid).

        Raises:
            InputError: an argument is not allowed; says which and why.
        """
        check_count("num_samples", num_samples)
        if output_type not in ("molecules", "rdkit", "smiles"):
            raise InputError(f"output_type {output_type!r} is not allowed: 'molecules', 'rdkit' or 'smiles'")
        if guidance_scale != 1.0:
            raise InputError(f"guidance_scale {guidance_scale}: this checkpoint has no condition to guide by; use 1")
        settings = self.settings(solver, grid, num_inference_steps, solver_options or {})
        numbers = list(range(num_samples)) if indices is None else list(indices)
        if len(numbers) != num_samples:
            raise InputError(f"{len(numbers)} indices for {num_samples} samples; give one for each")
        if generator is not None and seed is not None:
            raise InputError("give seed or generator, not both")
        base = _Draws(check_seed(seed) if generator is None else None, generator, num_samples)
        sizes = self._sizes(num_atoms, base, numbers)
        self.interrupt = False
        made: dict[int, Molecule] = {}
        failed: dict[int, int] = {}
        for rows in _batches(sizes, batch_size or BATCH_SIZE, base.shared):
            rng = base.rng([numbers[i] for i in rows], rows, self.device)
            molecules, steps = self._batch([sizes[i] for i in rows], rng, settings, callback_on_step_end)
            made.update(zip(rows, molecules, strict=True))
            failed.update({numbers[i]: step for i, step in zip(rows, steps, strict=True) if step >= 0})
            if self.interrupt:
                break
        kept = sorted(made)
        output = MoleculeOutput(
            molecules=[made[i] for i in kept],
            indices=[numbers[i] for i in kept],
            failed=failed,
            recipe=self._recipe(settings, base.seed),
            network_calls=self.network_calls(settings),
        )
        if output_type == "molecules":
            return output
        return output.mols if output_type == "rdkit" else output.smiles

    def _batch(
        self, sizes: Sequence[int], rng: Rng, settings: Settings, callback: StepCallback | None
    ) -> tuple[list[Molecule], list[int]]:
        where = space(torch.tensor(sizes, device=self.device), max(sizes))
        state, failed = self.draw(
            self._blank(len(sizes), max(sizes)), rng, settings, space=where, callback_on_step_end=callback
        )
        assert isinstance(state, Parts)
        return decode(self.vocabulary, state, sizes), failed.tolist()

    def _blank(self, batch: int, atoms: int) -> Parts:
        """Zeros of the shape of a state."""
        v = self.vocabulary
        zeros = torch.zeros(batch, atoms, 3, device=self.device)
        return Parts(
            positions=zeros,
            atoms=zeros.new_zeros(batch, atoms, len(v.elements)),
            charges=zeros.new_zeros(batch, atoms, len(v.charges)),
            bonds=zeros.new_zeros(batch, atoms, atoms, 4),
        )

    def _sizes(self, num_atoms: int | Sequence[int] | None, base: _Draws, numbers: Sequence[int]) -> list[int]:
        if num_atoms is not None:
            asked = [num_atoms] * len(numbers) if isinstance(num_atoms, int) else list(num_atoms)
            return self._check_sizes(asked, len(numbers))
        counts = np.array(list(self.sizes.values()), np.float64)
        edges = np.cumsum(counts) / counts.sum()
        drawn = np.searchsorted(edges, base.uniform(numbers).numpy(), side="right").clip(max=len(edges) - 1)
        return np.array(list(self.sizes))[drawn].tolist()

    def _check_sizes(self, asked: list[int], samples: int) -> list[int]:
        if len(asked) != samples:
            raise InputError(f"num_atoms: {len(asked)} numbers for {samples} samples; give one, or one for each")
        low, high = min(self.sizes), max(self.sizes)
        for n in asked:
            check_count("num_atoms", n)
            if n > 2 * high:
                raise InputError(f"num_atoms {n} is far beyond the {high} that {self.name} was trained on")
            if not low <= n <= high:
                self.warn(f"{n} atoms: {self.name or 'this checkpoint'} was trained on {low} to {high}")
        return asked

    def _recipe(self, settings: Settings, seed: int | None) -> dict[str, Any]:
        recipe: dict[str, Any] = {
            "checkpoint": self.name,
            "sha256": self.config.get("sha256", ""),
            "solver": settings.solver,
            "grid": settings.grid,
            "num_inference_steps": settings.num_inference_steps,
            **({"solver_options": dict(settings.options)} if settings.options else {}),
        }
        return recipe if seed is None else {**recipe, "seed": seed}


class _Draws:
    """Where a call's random numbers come from: a seed with sample numbers, or the caller's generators."""

    def __init__(self, seed: int | None, generator: Any, samples: int) -> None:
        self.seed, self.generator = seed, generator
        self.shared = isinstance(generator, torch.Generator)
        if generator is not None and not self.shared and len(generator) != samples:
            raise InputError(f"generator: a list of {len(generator)} for {samples} samples; give one for each")

    def rng(self, numbers: Sequence[int], rows: Sequence[int], device: torch.device) -> Rng:
        """The streams of one batch."""
        if self.seed is not None:
            return Rng(self.seed, numbers, device)
        return Rng.of(self.generator if self.shared else [self.generator[i] for i in rows])

    def uniform(self, numbers: Sequence[int]) -> Tensor:
        """One number in [0, 1) a sample, for its size."""
        if self.seed is not None:
            return Rng(fold(self.seed, _SIZE_STREAM), numbers).uniform(len(numbers))
        return Rng.of(self.generator).uniform(len(numbers))


def _batches(sizes: Sequence[int], batch_size: int, in_order: bool) -> list[list[int]]:
    """Rows of each batch: molecules of like size together, so that little is padding."""
    check_count("batch_size", batch_size)
    rows = list(range(len(sizes))) if in_order else sorted(range(len(sizes)), key=lambda i: (sizes[i], i))
    return [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]


def check_count(name: str, value: object) -> None:
    """Raise InputError unless `value` is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{name} {value!r} is not allowed: a whole number, at least 1")


def generate_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that molecules add to `multidiff generate`."""
    parser.add_argument(
        "--num-atoms", type=_whole, metavar="N", help="atoms of each molecule, hydrogens included (default: as trained)"
    )
    parser.add_argument("--grid", metavar="NAME", help="see 'multidiff list grids' (default: the checkpoint's)")


def _whole(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return value
