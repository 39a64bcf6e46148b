"""Are long clips, made by sliding windows, as good at their end as at their beginning, and can one see the joints?

The first table sets the last window's length of frames beside the first, and both beside real clips of that length. A
prompt tells what a digit does in its first frames. A digit bounces off the walls for ever, so that in later windows one
that was to move left may well be on its way right: what is asked there is the axis and the kinematics. "axis" is right
where the middle of the ink moves along the asked axis and rests along the other; a digit that has stopped has none.
"same speed" is right where it is, besides, between half and twice as fast as it was in the beginning. "motion along it"
is what the judge says of the axis, and the only one of them that can tell two digits apart.

The second table compares steps over a joint, from the last frame of a window to the first that the next one adds, with
all other steps after the first window. A seam would make what cannot be had by moving blocks of the frame before (warp
error), or the change from frame to frame, larger at the joints; in real clips the same places are no joints.

    python benchmarks/video_sliding.py --reference mnist.npz --num-samples 80 --context 4 8 12
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from video_quality import combinations

import multidiff
from multidiff_video.digits import caption, drawn_glyphs
from multidiff_video.job import default_context
from multidiff_video.judge import Judge, ready
from multidiff_video.metrics import identity, track, warp_error
from multidiff_video.pipeline import windows
from multidiff_video.real import Asked, Real, RealDigits, load
from multidiff_video.verdicts import verdicts

Array = NDArray[np.float64]
Gray = NDArray[np.uint8]

TOLD = {
    "digit": "digits",
    "in a frame": "frames",
    "axis": "axis",
    "motion along it": "along",
    "axis, same speed": "speed",
}
GROUPS = {1: "one digit", 2: "two digits"}
WARPED = 40  # clips whose warp error is measured: a tenth of a second each


def main() -> None:
    """Generate, measure, print two tables."""
    args = arguments()
    torch.set_num_threads(args.threads)
    pipe: Any = multidiff.load(args.checkpoint).to(args.device, getattr(torch, args.dtype))
    judge, asked = Judge.load(args.judge), combinations(args.num_samples, args.two)
    window = pipe.window
    real = real_clips(args.reference, asked, args.frames, (pipe.pixels.height, pipe.pixels.width))
    found: list[dict[str, Any]] = []
    for context in args.context or [default_context(window)]:
        clips = long_clips(pipe, asked, context, args)
        starts = windows(args.frames, window, context)
        joints = [start + window for start in starts[:-1]]
        figures = {"context": context, "windows": len(starts), "failed": sum(not clip.any() for clip in clips)}
        figures["ends"] = {name: ends(c, asked, judge, window) for name, c in (("made", clips), ("real", real))}
        figures["seams"] = {name: seams(c, joints) for name, c in (("made", clips), ("real", real))}
        figures["identity"] = [whole(c, asked) for c in (clips, real)]
        found.append(figures)
        if args.json:
            args.json.write_text(json.dumps(found, indent=1))
    print_ends(found, window)
    print_seams(found)


def real_clips(reference: str, asked: Sequence[Asked], frames: int, size: tuple[int, int]) -> list[Gray]:
    """Digits of the test split that go on for as long."""
    real: Real = RealDigits(drawn_glyphs()) if reference == "drawn" else load(reference)
    return [ready(clip).numpy() for clip in real.draw(asked, [(frames, *size, 1)] * len(asked), 0, 0)]


def long_clips(pipe: Any, asked: Sequence[Asked], context: int, args: argparse.Namespace) -> list[Gray]:
    """One for each prompt; dark where it was not finite, and so wrong in all that is told."""
    started = time.perf_counter()
    out = pipe(
        [caption(pairs) for pairs in asked if pairs],
        frames=args.frames,
        context=context,
        num_inference_steps=args.steps,
        seed=args.seed,
        batch_size=args.batch_size,
    )
    seconds = time.perf_counter() - started
    print(f"context {context}: {len(out) / seconds * 60:.1f} clips of {args.frames} frames a minute", flush=True)
    return [ready(clip * (i not in out.failed)).numpy() for i, clip in zip(out.indices, out.frames, strict=True)]


# ------------------------------------------------------------------------------------------------------------- ends


def ends(clips: Sequence[Gray], asked: Sequence[Asked], judge: Judge, window: int) -> dict[str, dict[str, list[float]]]:
    """Group -> what is told -> its share in the first and in the last frames."""
    parts = [[clip[:window] for clip in clips], [clip[-window:] for clip in clips]]
    told = [verdicts(part, judge.look([clip[..., None] for clip in part]), asked) for part in parts]
    speeds = [np.array([speed(clip, pairs) for clip, pairs in zip(part, asked, strict=True)]) for part in parts]
    for part, fast in zip(told, speeds, strict=True):
        part["speed"] = part["axis"] * ((fast >= speeds[0] / 2) & (fast <= speeds[0] * 2))
    groups: dict[str, dict[str, list[float]]] = {}
    for count, group in GROUPS.items():
        rows = np.array([len(pairs or ()) == count for pairs in asked])
        shares = {name: [mean(part[key][rows]) for part in told] for name, key in TOLD.items()}
        groups[group] = {name: pair for name, pair in shares.items() if not math.isnan(pair[0])}
    return {group: shares for group, shares in groups.items() if shares}


def speed(clip: Gray, pairs: Asked) -> float:
    """Pixels a frame, along the axis that a prompt for one digit asks for; 0 where the ink cannot be followed."""
    along = 0 if pairs and pairs[0][1].startswith(("left", "right")) else 1
    steps = np.abs(np.diff(track(clip)[:, along]))
    return mean(steps) if np.isfinite(steps).any() else 0.0


def whole(clips: Sequence[Gray], asked: Sequence[Asked]) -> float:
    """Likeness of the digit in the last frame to that in the first, where there is one."""
    return mean([identity(clip) for clip, pairs in zip(clips, asked, strict=True) if len(pairs or ()) == 1])


# ------------------------------------------------------------------------------------------------------------ seams


def seams(clips: Sequence[Gray], joints: Sequence[int]) -> dict[str, list[float]]:
    """What is measured -> its mean at the joints, and at the other steps after the first of them."""
    frames = len(clips[0])
    elsewhere = [place for place in range(joints[0] + 1, frames) if place not in joints] if joints else []

    def both(of: Callable[[Gray, int], float], chosen: Sequence[Gray]) -> list[float]:
        return [mean([of(clip, place) for clip in chosen for place in places]) for places in (joints, elsewhere)]

    few = clips[:: -(-len(clips) // WARPED)]
    return {
        "warp error": both(lambda clip, place: warp_error(clip[place - 1 : place + 1]), few),
        "change of a frame": both(changed, clips),
    }


def changed(clip: Gray, place: int) -> float:
    """Mean change of a pixel from the frame before to that at `place`, as a share of the mean brightness."""
    light = clip.mean()
    step = np.abs(clip[place].astype(np.float64) - clip[place - 1]).mean()
    return float(step / light) if light else math.nan


def mean(values: Sequence[float] | Array) -> float:
    """Of what is known."""
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    return float(known.mean()) if len(known) else math.nan


# ----------------------------------------------------------------------------------------------------------- tables


def print_ends(found: Sequence[dict[str, Any]], window: int) -> None:
    """The first table."""
    print(f"\n| context | clips with | right | first {window} | last {window} | change, points | real: first | last |")
    print("|" + " --- |" * 8)
    for figures in found:
        made, real = figures["ends"]["made"], figures["ends"]["real"]
        for group, shares in made.items():
            for name, (first, last) in shares.items():
                other = " | ".join(f"{share:.1%}" for share in real[group][name])
                change = f"{100 * (last - first):+.1f}"
                print(f"| {figures['context']} | {group} | {name} | {first:.1%} | {last:.1%} | {change} | {other} |")
    for figures in found:
        made, real = figures["identity"]
        print(f"\ncontext {figures['context']}: likeness of the last to the first digit {made:.3f}, real {real:.3f}")


def print_seams(found: Sequence[dict[str, Any]]) -> None:
    """The second table."""
    print("\n| context | what | at joints | elsewhere | ratio | real: at joints | elsewhere | ratio |")
    print("|" + " --- |" * 8)
    for figures in found:
        for name, pair in figures["seams"]["made"].items():
            both = [*triple(pair), *triple(figures["seams"]["real"][name])]
            print(f"| {figures['context']} | {name} | " + " | ".join(both) + " |")


def triple(pair: Sequence[float]) -> list[str]:
    """Two numbers and their ratio."""
    return [f"{pair[0]:.4f}", f"{pair[1]:.4f}", f"{pair[0] / pair[1]:.2f}" if pair[1] else "-"]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--checkpoint", default="video", help="name or folder")
    add("--reference", required=True, help=".npz of digits with x_train, y_train, x_test, y_test; or the word 'drawn'")
    add("--judge", default="digits", help="name or folder")
    add("--num-samples", type=int, default=80, help="80 is every digit with every motion once, but for --two")
    add("--two", type=float, default=0.2, help="share of the prompts with two digits")
    add("--frames", type=int, default=64)
    add("--context", type=int, nargs="+", help="frames that windows share (default: half a window)")
    add("--steps", type=int, help="default: as recommended")
    add("--seed", type=int, default=0)
    add("--batch-size", type=int)
    add("--device", default="cpu")
    add("--dtype", choices=("float32", "bfloat16"), default="float32", help="that the network computes in")
    add("--threads", type=int, default=2)
    add("--json", type=Path, help="all figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
