"""Molecules from a checkpoint, in three lines of Python or one of the command line."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from multidiff import checkpoint
from multidiff.denoiser import NetworkDenoiser
from multidiff.draws import Draws, batches
from multidiff.errors import InputError, unknown
from multidiff.pipeline import Pipeline, Settings, StepCallback, check_count, check_indices, check_seed
from multidiff.process import Process
from multidiff.random import Rng
from multidiff.schedule import SCHEDULE_CLASSES
from multidiff.state import Parts
from multidiff_molecules.generated import FILES, MoleculeOutput, restore, store
from multidiff_molecules.molecule import Molecule
from multidiff_molecules.representation import BOND_ORDERS, Vocabulary, decode, space

if TYPE_CHECKING:
    from rdkit import Chem

BATCH_SIZE = {"cpu": 64, "cuda": 512}
OUTPUT_TYPES = ("molecules", "rdkit", "smiles")
_SIZE_STREAM = 0x517E
"""Folded into the seed for the draw of the number of atoms, which must not move the noise."""


class MoleculePipeline(Pipeline):
    """Generates molecules: ``multidiff.load("molecules")(num_samples=16, seed=0)``."""

    files = FILES
    bytes_per_sample = 8000
    store = staticmethod(store)
    restore = staticmethod(restore)

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
    def from_checkpoint(
        cls, config: Mapping[str, Any], weights: Mapping[str, Tensor], folder: Path = Path("checkpoint")
    ) -> MoleculePipeline:
        """Build it from what a checkpoint folder holds.

        Raises:
            InputError: a key is missing or wrong, or the weights do not fit.
        """
        from multidiff_molecules import domain

        path = folder / checkpoint.CONFIG
        vocabulary = _vocabulary(checkpoint.require(config, "vocabulary", dict, path), path)
        noise = checkpoint.build(checkpoint.require(config, "schedule", dict, path), SCHEDULE_CLASSES, path, "schedule")
        spec = checkpoint.require(config, "network", dict, path)
        given = (spec.get("num_elements"), spec.get("num_charges", 3))
        if given != (len(vocabulary.elements), len(vocabulary.charges)):
            raise InputError(f"{path}: 'network' has {given} elements and charges, unlike 'vocabulary'")
        sizes = _histogram(checkpoint.require(config, "sizes", dict, path), path)
        _check_recommended(config, path)
        network = checkpoint.build_module(spec, weights, domain.components, folder)
        return cls(NetworkDenoiser(network, Process(noise), vocabulary.predictions()), config, vocabulary, sizes)

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
            guidance_scale: 1; others change nothing, as there is no condition to be guided by, and warn.
            seed: in [0, 2**63); drawn afresh by default, and kept in the recipe.
            indices: sample numbers; sample i of a seed is always the same molecule. 0, 1, 2... by default.
            generator: torch generators instead of a seed: one for all, or a list with one a sample.
            batch_size: molecules at a time; changes the speed and nothing else; halved where memory does not suffice.
            callback_on_step_end: called as ``(pipe, step, t, kwargs)`` after each step, as in diffusers; kwargs holds
                "latents" (the state) and "estimate" (of the clean one), and what it returns under "latents" is used.
            output_type: "molecules" for a `MoleculeOutput`, "rdkit" or "smiles" for a list (None where not valid).

        Raises:
            InputError: an argument is not allowed; says which and why.
        """
        num_samples = check_count("num_samples", num_samples)
        if output_type not in OUTPUT_TYPES:
            raise unknown("output_type", output_type, OUTPUT_TYPES)
        if generator is not None and seed is not None:
            raise InputError("give seed or generator, not both")
        settings = self._settings(num_inference_steps, solver, grid, solver_options, guidance_scale)
        numbers = check_indices(indices, num_samples)
        draws = Draws(check_seed(seed) if generator is None else None, generator, num_samples)
        sizes = self._sizes(num_atoms, draws, numbers)
        made: dict[int, tuple[Molecule, int]] = {}

        def run(rows: list[int]) -> None:
            rng = draws.rng([numbers[i] for i in rows], rows)
            molecules = self._batch([sizes[i] for i in rows], rng, settings, callback_on_step_end)
            made.update(zip(rows, molecules, strict=True))

        self.interrupt = False
        self.in_batches(batches(sizes, self._batch_size(batch_size), draws.shared), run)
        rows = sorted(made)
        output = MoleculeOutput(
            molecules=[made[i][0] for i in rows],
            indices=[numbers[i] for i in rows],
            failed={numbers[i]: made[i][1] for i in rows if made[i][1] >= 0},
            recipe=self._recipe(settings, num_atoms, draws.seed),
            network_calls=self.network_calls(settings),
        )
        if output_type == "molecules":
            return output
        return output.mols if output_type == "rdkit" else output.smiles

    # ------------------------------------------------------------------ for large jobs

    def recipe(
        self,
        seed: int,
        *,
        num_atoms: int | None = None,
        num_inference_steps: int | None = None,
        solver: str | None = None,
        grid: str | None = None,
        guidance_scale: float = 1.0,
    ) -> dict[str, Any]:
        """What a call with these arguments is made with; raises what it would."""
        settings = self._settings(num_inference_steps, solver, grid, None, guidance_scale)
        if num_atoms is not None:
            self._check_sizes([num_atoms], 1)
        return self._recipe(settings, num_atoms, check_seed(seed))

    def batches(
        self, num_samples: int, seed: int, batch_size: int | None = None, *, num_atoms: int | None = None, **_: Any
    ) -> list[list[int]]:
        """The sample numbers of each batch of a call; one of them alone makes the same molecules."""
        sizes = self._sizes(num_atoms, Draws(seed, None, num_samples), range(num_samples))
        return batches(sizes, self._batch_size(batch_size), in_order=False)

    # ------------------------------------------------------------------ within

    def _settings(
        self,
        num_inference_steps: int | None,
        solver: str | None,
        grid: str | None,
        solver_options: Mapping[str, Any] | None,
        guidance_scale: float,
    ) -> Settings:
        if not (isinstance(guidance_scale, int | float) and math.isfinite(guidance_scale) and guidance_scale >= 0):
            raise InputError(f"guidance_scale {guidance_scale!r} is not allowed: a finite number, 0 or more")
        if guidance_scale != 1:
            self.warn(
                f"guidance scale {guidance_scale:g}: {self._this} has no condition to guide by; it changes nothing"
            )
        return self.settings(solver, grid, num_inference_steps, solver_options or {})

    def _batch(
        self, sizes: Sequence[int], rng: Rng, settings: Settings, callback: StepCallback | None
    ) -> list[tuple[Molecule, int]]:
        """Each molecule with the step at which it was not finite, or -1."""
        where = space(torch.tensor(sizes, device=self.device), max(sizes))
        state, failed = self.draw(
            self._blank(len(sizes), max(sizes)), rng, settings, space=where, callback_on_step_end=callback
        )
        assert isinstance(state, Parts)
        steps = failed.tolist()
        molecules = decode(self.vocabulary, state, sizes)
        return [(m if step < 0 else _lost(m), step) for m, step in zip(molecules, steps, strict=True)]

    def _batch_size(self, asked: int | None) -> int:
        return BATCH_SIZE.get(self.device.type, 64) if asked is None else check_count("batch_size", asked)

    def _blank(self, batch: int, atoms: int) -> Parts:
        """Zeros of the shape of a state."""
        v = self.vocabulary
        zeros = torch.zeros(batch, atoms, 3, device=self.device)
        return Parts(
            positions=zeros,
            atoms=zeros.new_zeros(batch, atoms, len(v.elements)),
            charges=zeros.new_zeros(batch, atoms, len(v.charges)),
            bonds=zeros.new_zeros(batch, atoms, atoms, BOND_ORDERS),
        )

    def _sizes(self, num_atoms: int | Sequence[int] | None, draws: Draws, numbers: Sequence[int]) -> list[int]:
        if num_atoms is not None:
            asked = [num_atoms] * len(numbers) if np.ndim(num_atoms) == 0 else list(num_atoms)  # type: ignore[arg-type]
            return self._check_sizes(asked, len(numbers))
        counts = np.array(list(self.sizes.values()), np.float64)
        edges = np.cumsum(counts) / counts.sum()
        drawn = np.searchsorted(edges, draws.uniform(numbers, _SIZE_STREAM), side="right").clip(max=len(edges) - 1)
        return np.array(list(self.sizes))[drawn].tolist()

    def _check_sizes(self, asked: Sequence[Any], samples: int) -> list[int]:
        if len(asked) != samples:
            raise InputError(f"num_atoms: {len(asked)} numbers for {samples} samples; give one, or one for each")
        sizes = [check_count("num_atoms", n) for n in asked]
        low, high = min(self.sizes), max(self.sizes)
        if max(sizes) > 2 * high:
            raise InputError(f"num_atoms {max(sizes)} is far beyond what {self._this} was trained on: {low} to {high}")
        for n in (min(sizes), max(sizes)):
            if not low <= n <= high:
                self.warn(f"{n} atoms: {self._this} was trained on {low} to {high}")
        return sizes

    def _recipe(self, settings: Settings, num_atoms: int | Sequence[int] | None, seed: int | None) -> dict[str, Any]:
        recipe = {"checkpoint": self.name, "sha256": self.config.get("sha256", "")} | settings.recipe()
        if num_atoms is not None:
            recipe["num_atoms"] = np.asarray(num_atoms).tolist()
        if self.autocast is not None:
            recipe["dtype"] = str(self.autocast).removeprefix("torch.")
        return recipe if seed is None else {**recipe, "seed": seed}


def _vocabulary(spelled: Mapping[str, Any], path: Path) -> Vocabulary:
    elements, charges = (_integers(spelled, key, path) for key in ("elements", "charges"))
    scale = float(checkpoint.require(spelled, "position_scale", (int, float), path))
    if not (math.isfinite(scale) and scale > 0):
        raise InputError(f"{path}: 'position_scale' must be above 0, not {scale}")
    return Vocabulary(elements, charges, scale)


def _integers(spelled: Mapping[str, Any], key: str, path: Path) -> tuple[int, ...]:
    values = checkpoint.require(spelled, key, list, path)
    if not values or not all(type(value) is int and abs(value) < 119 for value in values):
        raise InputError(f"{path}: {key!r} must be a list of small integers")
    return tuple(values)


def _histogram(sizes: Mapping[str, Any], path: Path) -> dict[int, int]:
    """Number of atoms -> how many molecules of that size it was trained on."""
    numbers = all(re.fullmatch(r"[1-9]\d{0,3}", n) for n in sizes)
    if not sizes or not numbers or not all(type(count) is int and count > 0 for count in sizes.values()):
        raise InputError(f"{path}: 'sizes' must map numbers of atoms to numbers of molecules")
    return {int(n): count for n, count in sizes.items()}


def _check_recommended(config: Mapping[str, Any], path: Path) -> None:
    known = checkpoint.require(config, "recommended", dict, path)
    checkpoint.require(known, "solver", str, path)
    checkpoint.require(known, "num_inference_steps", int, path)
    steps = known.get("steps_range", [1, 1])
    if not (isinstance(steps, list) and len(steps) == 2 and all(type(n) is int for n in steps)):
        raise InputError(f"{path}: 'steps_range' must be a list of two integers")


def _lost(molecule: Molecule) -> Molecule:
    """Numbers that were not finite on the way have no end that could be trusted."""
    return replace(molecule, positions=np.full_like(molecule.positions, np.nan))
