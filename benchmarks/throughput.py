"""How many molecules a second, from the seed to checked molecules, by solver and number of steps?

    python benchmarks/throughput.py --checkpoint molecules --num-samples 64 --steps 10 20 50 --solvers dpm++2m

Times are of the process, divided over the threads, so that other work on the machine counts little; where the machine
is idle that is the wall clock. The last column shows the wall clock.
"""

from __future__ import annotations

import argparse
import time
import warnings
from typing import NamedTuple

import torch

import multidiff

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Spent(NamedTuple):
    """Seconds of the process and of the wall clock."""

    cpu: float
    wall: float


def main() -> None:
    """Generate, check, print a Markdown table."""
    args = arguments()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    print(f"{args.num_samples} molecules, {args.threads} threads, {args.device}")
    heads = ["solver", "steps", "calls", "precision", "generated a second", "valid a second", "valid", "wall, s"]
    print("| " + " | ".join(heads) + " |\n|" + " --- |" * len(heads))
    for precision in args.precision:
        pipe = multidiff.load(args.checkpoint).to(args.device, DTYPES[precision])
        known = pipe.config["recommended"]
        pipe(4, seed=1, num_inference_steps=2)
        for solver in args.solvers or [known["solver"]]:
            for steps in args.steps or [10, 20, known["num_inference_steps"]]:
                print(row(pipe, solver, steps, precision, args), flush=True)


def row(pipe: multidiff.Pipeline, solver: str, steps: int, precision: str, args: argparse.Namespace) -> str:
    """One setting; checking the molecules is part of what the valid ones cost."""
    start = now()
    out = pipe(args.num_samples, seed=0, solver=solver, num_inference_steps=steps, batch_size=args.batch_size)
    made = since(start)
    valid = sum(mol is not None for mol in out.mols)
    checked = since(start)
    made_s, checked_s = (max(spent.cpu / args.threads, 0.0) for spent in (made, checked))
    if args.device != "cpu":
        made_s, checked_s = made.wall, checked.wall
    rates = [f"{args.num_samples / made_s:.1f}", f"{valid / checked_s:.1f}", f"{valid / args.num_samples:.1%}"]
    cells = [solver, str(steps), str(out.network_calls), precision, *rates, f"{checked.wall:.1f}"]
    return "| " + " | ".join(cells) + " |"


def now() -> Spent:
    """Both clocks."""
    return Spent(time.process_time(), time.perf_counter())


def since(start: Spent) -> Spent:
    """What was spent since then."""
    return Spent(time.process_time() - start.cpu, time.perf_counter() - start.wall)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="molecules", help="name or folder (default: molecules)")
    parser.add_argument("--num-samples", type=int, default=64, help="molecules a row (default: 64)")
    parser.add_argument("--batch-size", type=int, default=64, help="molecules at a time (default: 64)")
    parser.add_argument("--steps", type=int, nargs="+", help="default: 10, 20 and the checkpoint's recommendation")
    parser.add_argument("--solvers", nargs="+", help="default: the checkpoint's recommendation")
    parser.add_argument("--precision", nargs="+", default=["fp32", "bf16"], choices=list(DTYPES))
    parser.add_argument("--threads", type=int, default=2, help="of the CPU (default: 2)")
    parser.add_argument("--device", default="cpu")
    return parser.parse_args()


if __name__ == "__main__":
    main()
