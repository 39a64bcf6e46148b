"""How good are the molecules of a checkpoint, by solver and by network calls?

One row a setting: every share is of the molecules asked for. The model card's table is this script's output.

    python benchmarks/quality.py --reference qm9.npz --num-samples 2000 --calls 5 10 20 50 100
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch

import multidiff
from multidiff.grid import make as make_grid
from multidiff.solver import make as make_solver
from multidiff.solver import steps_for
from multidiff_molecules.evaluate import REFERENCE_LIMIT
from multidiff_molecules.metrics import score
from multidiff_molecules.molecule import PackedMolecules

COLUMNS = {
    "atom stable": "generated-bonds/atom_stability",
    "mol. stable": "generated-bonds/molecule_stability",
    "valid": "generated-bonds/validity",
    "valid, connected": "generated-bonds/valid_connected",
    "valid, unique": "generated-bonds/valid_unique",
    "v., u., novel": "generated-bonds/valid_unique_novel",
    "by distance: atom": "distance-bonds/atom_stability",
    "by distance: mol.": "distance-bonds/molecule_stability",
}
GEOMETRY = {
    "lengths W1, Å": "geometry/bond_length_w1",
    "angles W1, °": "geometry/bond_angle_w1",
    "strain, kcal/mol": "strain/median",
    "strain of data": "strain/median/reference",
}


def main() -> None:
    """Generate, score, print a Markdown table."""
    args = arguments()
    torch.set_num_threads(args.threads)
    pipe = multidiff.load(args.checkpoint).to(args.device)
    reference, known = read_reference(args.reference)
    advised = pipe.config["recommended"]
    solver, grid = args.solver or advised["solver"], args.grid or advised["grid"]
    rows = []
    for calls in args.calls or [None]:
        steps = None
        if calls is not None:
            steps = steps_for(calls, make_solver(solver), pipe.denoiser.process, make_grid(grid))
        wall, cpu = time.perf_counter(), time.process_time()
        out = pipe(args.num_samples, seed=args.seed, solver=solver, grid=grid, num_inference_steps=steps)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        figures = score(out.molecules, reference=reference, train_smiles=known, posebusters=args.posebusters)
        setting = {"calls": out.network_calls, "solver": solver, "grid": grid, "wall_s": wall, "cpu_s": cpu}
        rows.append({**setting, **figures})
        print(line(rows[-1], header=len(rows) == 1), flush=True)
        if args.json:
            args.json.write_text(json.dumps(rows, indent=1))


def line(row: dict[str, Any], header: bool) -> str:
    """A row of the table, below its header where it is the first."""
    cells = [str(row["calls"]), row["solver"]]
    cells += [_cell(100 * row.get(key, math.nan), ".1f") for key in COLUMNS.values()]
    cells += [_cell(row.get(key, math.nan), ".3g") for key in GEOMETRY.values()]
    cells += [f"{row['samples'] / row['wall_s']:.1f}"]
    text = "| " + " | ".join(cells) + " |"
    if not header:
        return text
    names = ["calls", "solver", *COLUMNS, *GEOMETRY, "mol./s"]
    return "\n".join(["| " + " | ".join(names) + " |", "|" + " --- |" * len(names), text])


def _cell(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)


def read_reference(path: Path | None) -> tuple[list[Any], list[str] | None]:
    """Test molecules at even spacing, and the SMILES of the training part."""
    if path is None:
        return [], None
    packed = PackedMolecules.load(path)
    test = (packed.split == 2).nonzero()[0]
    spaced = test[:: max(1, len(test) // REFERENCE_LIMIT)][:REFERENCE_LIMIT]
    return [packed[int(i)] for i in spaced], [s.decode() for s in packed.smiles[packed.split == 0]]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="molecules", help="name or folder")
    parser.add_argument("--num-samples", type=int, default=200)
    parser.add_argument("--calls", type=int, nargs="*", help="network calls a molecule (default: as recommended)")
    parser.add_argument("--solver", help="default: as recommended")
    parser.add_argument("--grid", help="default: as recommended")
    parser.add_argument("--reference", type=Path, help="packed molecules: novelty, geometry and strain need them")
    parser.add_argument("--posebusters", type=int, default=0, help="check the first N with PoseBusters")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="all figures, for the card")
    return parser.parse_args()


if __name__ == "__main__":
    main()
