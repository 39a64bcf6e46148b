"""How good are the sounds of a checkpoint, by network calls and guidance?

One row a setting. Prompts are every combination of what the judge tells apart (each digit by each speaker) in turn,
lengths are as the checkpoint draws them. "FD real" is what as many real clips score. The model card's table is this
script's output.

    python benchmarks/audio_quality.py --reference fsdd.npz --calls 5 10 20 50 --guidance 1 2 3
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
from multidiff_audio.asked import Asked
from multidiff_audio.clips import PackedClips
from multidiff_audio.evaluate import choose
from multidiff_audio.judge import Judge
from multidiff_audio.measure import measure
from multidiff_audio.real import Real
from multidiff_audio.samples import Samples

PHRASES = {("word", "speaker"): "{word}, spoken by {speaker}"}


def main() -> None:
    """Generate, measure, print a Markdown table."""
    args = arguments()
    torch.set_num_threads(args.threads)
    pipe = multidiff.load(args.checkpoint).to(args.device)
    clips = PackedClips.load(args.reference)
    judge = Judge.load(args.judge) if args.judge else choose(Samples(), clips)
    real = Real.of(clips, judge)
    advised = pipe.config["recommended"]
    grid = args.grid or advised["grid"]
    prompts = args.prompts.read_text(encoding="utf-8").split("\n") if args.prompts else phrases(judge)
    kinds = combinations(judge)
    asked = None if args.prompts else [kinds[i % len(kinds)] for i in range(args.num_samples)]
    rows: list[dict[str, Any]] = []
    for solver, calls, guidance in itertools.product(*(x or [None] for x in (args.solver, args.calls, args.guidance))):
        setting = {"solver": solver or advised["solver"], "grid": grid, "guidance_scale": guidance}
        if guidance is None:
            setting["guidance_scale"] = advised["guidance_scale"]
        steps = None
        if calls is not None:
            steps = steps_for(calls, make_solver(setting["solver"]), pipe.denoiser.process, make_grid(grid))
        started = time.perf_counter()
        made = pipe(
            [text for text in prompts if text],
            num_samples=args.num_samples,
            num_inference_steps=steps,
            seed=args.seed,
            batch_size=args.batch_size,
            **setting,
        )
        wall = time.perf_counter() - started
        figures = measure(made.audios, made.sampling_rate, made.prompts, real, judge, asked=asked, progress=False)
        seconds = sum(sound.shape[1] for sound in made.audios) / made.sampling_rate
        rows.append({"calls": made.network_calls, **setting, "wall_s": wall, "seconds": seconds, **figures})
        print(line(rows[-1], list(judge.classes), header=len(rows) == 1), flush=True)
        if args.json:
            args.json.write_text(json.dumps(rows, indent=1))


def combinations(judge: Judge) -> list[Asked]:
    """Everything the judge tells apart."""
    return [dict(zip(judge.classes, values, strict=True)) for values in itertools.product(*judge.classes.values())]


def phrases(judge: Judge) -> list[str]:
    """A prompt for each of `combinations`."""
    form = PHRASES.get(tuple(judge.classes), ", ".join(f"{{{name}}}" for name in judge.classes))
    return [form.format(**asked) for asked in combinations(judge)]


def line(row: dict[str, Any], attributes: list[str], header: bool) -> str:
    """A row of the table, below its header where it is the first."""
    row = row | {"per_second": row["samples"] / row["wall_s"], "cost": row["wall_s"] / max(row["seconds"], 1e-9)}
    columns = {"guidance": ("guidance_scale", "g")}
    columns |= {a: (f"accuracy/{a}", ".1%") for a in attributes}
    columns |= {f"IS {a}, of real": (f"inception/{a}/of_real", ".1%") for a in attributes}
    columns |= {
        "FD": ("frechet", ".3g"),
        "FD real": ("frechet/real", ".3g"),
        "x real": ("frechet/of_real", ".2f"),
        "FD test, x real": ("frechet_test/of_real", ".2f"),
        "precision": ("precision", ".1%"),
        "recall": ("recall", ".1%"),
        "coverage": ("coverage", ".1%"),
        "diversity, of real": ("diversity/of_real", ".2f"),
        "copies": ("copies", ".1%"),
        "copies among real": ("copies/real", ".1%"),
        "silent": ("silent", ".1%"),
        "noise": ("noise", ".1%"),
        "sounds/s": ("per_second", ".2f"),
        "s for a second": ("cost", ".3f"),
    }
    cells = [str(row["calls"]), row["solver"], *(_cell(row.get(key), form) for key, form in columns.values())]
    text = "| " + " | ".join(cells) + " |"
    names = ["calls", "solver", *columns]
    return text if not header else "\n".join(["| " + " | ".join(names) + " |", "|" + " --- |" * len(names), text])


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None or math.isnan(value) else format(value, form)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="audio-digits", help="name or folder")
    parser.add_argument("--reference", type=Path, required=True, help="packed real clips with attributes and splits")
    parser.add_argument("--judge", help="name or folder (default: the one that knows the classes)")
    parser.add_argument("--num-samples", type=int, default=500)
    parser.add_argument("--prompts", type=Path, help="a prompt a line (default: everything the judge tells apart)")
    parser.add_argument("--calls", type=int, nargs="*", help="network calls a sound (default: as recommended)")
    parser.add_argument("--guidance", type=float, nargs="*", help="default: as recommended")
    parser.add_argument("--solver", nargs="*", help="default: as recommended")
    parser.add_argument("--grid", help="default: as recommended")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="all figures, for the card")
    return parser.parse_args()


if __name__ == "__main__":
    main()
