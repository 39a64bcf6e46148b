"""Molecules in three dimensions: atoms, charges, bonds and positions generated together."""

from __future__ import annotations

from pathlib import Path

from multidiff.domain import Domain

domain = Domain(
    name="molecules",
    summary="3-D molecules with explicit hydrogens and bonds, as SDF",
    folder=Path(__file__).parent,
    default_checkpoint="molecules-qm9",
    components={"MoleculeNetwork": "multidiff_molecules.network:MoleculeNetwork"},
    pipeline="multidiff_molecules.pipeline:MoleculePipeline.from_checkpoint",
    prepare="multidiff_molecules.prepare:prepare",
    evaluate="multidiff_molecules.evaluate:evaluate",
    table="multidiff_molecules.metrics:format_table",
    generate_arguments="multidiff_molecules.options:generate_arguments",
    prepare_arguments="multidiff_molecules.prepare:add_arguments",
    evaluate_arguments="multidiff_molecules.evaluate:add_arguments",
)
