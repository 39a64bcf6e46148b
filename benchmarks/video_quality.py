"""How good are the clips of a checkpoint, by network calls and guidance?

One row a setting. Three quarters of the prompts name one digit, every pair of digit and motion in turn; "held out" are
the ten pairs that are never trained on. The others name two digits. "real" and "x real" are what real clips of the same
pairs score, drawn from digits of the test split. The model card's table is this script's output.

    python benchmarks/video_quality.py --reference mnist.npz --calls 10 20 50 --guidance 1 2 3
"""

from __future__ import annotations

import argparse
import itertools
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
from multidiff_video.digits import MOTIONS, caption
from multidiff_video.judge import Judge
from multidiff_video.measure import measure
from multidiff_video.real import Asked, load

COLUMNS = {
    "guidance": ("guidance_scale", "g"),
    "digit": ("one/digits", ".1%"),
    "in a frame": ("one/frames", ".1%"),
    "first direction": ("one/direction", ".1%"),
    "motion": ("one/motions", ".1%"),
    "held out: digit": ("held out/digits", ".1%"),
    "held out: direction": ("held out/direction", ".1%"),
    "held out: motion": ("held out/motions", ".1%"),
    "two: digits": ("two/digits", ".1%"),
    "two: digits, motions": ("two/both", ".1%"),
    "two, real": ("two/both/real", ".1%"),
    "flicker": ("flicker", ".4f"),
    "flicker, real": ("flicker/real", ".4f"),
    "warp error": ("warp", ".3f"),
    "warp, real": ("warp/real", ".3f"),
    "identity": ("identity", ".3f"),
    "identity, real": ("identity/real", ".3f"),
    "identity, another hand": ("identity/other", ".3f"),
    "FD": ("frechet", ".3g"),
    "FD real": ("frechet/real", ".3g"),
    "x real": ("frechet/of_real", ".2f"),
    "diversity, x real": ("diversity/of_real", ".2f"),
    "nearest, x real": ("nearest/of_real", ".2f"),
    "copies": ("copies", ".1%"),
    "copies among real": ("copies/real", ".1%"),
    "clips a minute": ("per_minute", ".1f"),
}
LONG = {
    f"{window} 16: {name}": (f"one/{window}/{key}", ".1%")
    for window in ("first", "last")
    for name, key in (("digit", "digits"), ("axis", "axis"), ("motion along it", "along"))
}


def main() -> None:
    """Generate, measure, print a Markdown table."""
    args = arguments()
    torch.set_num_threads(args.threads)
    pipe = multidiff.load(args.checkpoint).to(args.device, getattr(torch, args.dtype))
    real, judge = load(args.reference), Judge.load(args.judge)
    advised = pipe.config["recommended"]
    asked = combinations(args.num_samples, args.two)
    texts = [caption(pairs) for pairs in asked if pairs]
    rows: list[dict[str, Any]] = []
    for solver, calls, guidance in itertools.product(*(x or [None] for x in (args.solver, args.calls, args.guidance))):
        setting = {"solver": solver or advised["solver"], "grid": args.grid or advised["grid"]}
        setting["guidance_scale"] = advised["guidance_scale"] if guidance is None else guidance
        steps = None
        if calls is not None:
            steps = steps_for(calls, make_solver(setting["solver"]), pipe.denoiser.process, make_grid(setting["grid"]))
        length = {} if args.frames is None else {"frames": args.frames}
        started = time.perf_counter()
        made = pipe(
            texts,
            num_samples=len(texts),
            num_inference_steps=steps,
            seed=args.seed,
            batch_size=args.batch_size,
            **setting,
            **length,
        )
        wall = time.perf_counter() - started
        clips = [clip[:0] if i in made.failed else clip for i, clip in zip(made.indices, made.frames, strict=True)]
        figures = measure(clips, made.prompts, real, judge, asked=asked, progress=False)
        rows.append({"calls": made.network_calls, **setting, "wall_s": wall, **figures})
        rows[-1]["per_minute"] = 60 * len(clips) / wall
        print(line(rows[-1], header=len(rows) == 1, columns=COLUMNS | (LONG if args.frames else {})), flush=True)
        if args.json:
            args.json.write_text(json.dumps(rows, indent=1))


def combinations(count: int, two: float) -> list[Asked]:
    """All eighty pairs in turn, by themselves; then as many as make the share `two`, each with another pair."""
    pairs = [(digit, motion) for motion in MOTIONS for digit in range(10)]
    many = round(count * two)
    single: list[Asked] = [[pairs[i % 80]] for i in range(count - many)]
    return single + [[pairs[i * 7 % 80], ((i * 7 + 1 + i % 9) % 10, MOTIONS[i * 5 % 8])] for i in range(many)]


def line(row: dict[str, Any], header: bool, columns: dict[str, tuple[str, str]]) -> str:
    """A row of the table, below its header where it is the first."""
    cells = [str(row["calls"]), row["solver"], *(_cell(row.get(key), form) for key, form in columns.values())]
    text = "| " + " | ".join(cells) + " |"
    names = ["calls", "solver", *columns]
    return text if not header else "\n".join(["| " + " | ".join(names) + " |", "|" + " --- |" * len(names), text])


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None or math.isnan(value) else format(value, form)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="video-digits", help="name or folder")
    parser.add_argument(
        "--reference", type=Path, required=True, help="digits: .npz with x_train, y_train, x_test, y_test"
    )
    parser.add_argument("--judge", default="digits", help="name or folder")
    parser.add_argument("--num-samples", type=int, default=640)
    parser.add_argument("--two", type=float, default=0.25, help="share of the prompts with two digits")
    parser.add_argument("--frames", type=int, help="frames of each clip (default: as trained)")
    parser.add_argument("--calls", type=int, nargs="*", help="network calls a clip (default: as recommended)")
    parser.add_argument("--guidance", type=float, nargs="*", help="default: as recommended")
    parser.add_argument("--solver", nargs="*", help="default: as recommended")
    parser.add_argument("--grid", help="default: as recommended")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="that the network computes in"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="all figures, for the card")
    return parser.parse_args()


if __name__ == "__main__":
    main()
