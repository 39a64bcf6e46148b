"""Does each figure of clips see what it claims to?

A row a set of clips whose fault is known; a column a figure. Accuracy of digits does not see that the frames are out of
order, motion does not see that the digit is a copy, flicker not that it stands still. Three quarters of the clips have
one digit. "x real" is the multiple of what as many real clips score.

    python benchmarks/video_controls.py --reference mnist.npz
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from multidiff_video.digits import MOTIONS, Glyphs, MovingDigits
from multidiff_video.judge import Judge
from multidiff_video.measure import Figures, measure
from multidiff_video.real import Asked, RealDigits

Clip = NDArray[np.uint8]
COLUMNS = {
    "digit": ("one/digits", ".1%"),
    "in a frame": ("one/frames", ".1%"),
    "axis": ("one/axis", ".1%"),
    "first direction": ("one/direction", ".1%"),
    "motion": ("one/motions", ".1%"),
    "two digits, motions": ("two/both", ".1%"),
    "flicker": ("flicker", ".4f"),
    "warp error": ("warp", ".3f"),
    "identity": ("identity", ".3f"),
    "diversity, x real": ("diversity/of_real", ".2f"),
    "FD": ("frechet", ".3g"),
    "x real": ("frechet/of_real", ".2f"),
    "nearest digit": ("nearest", ".3f"),
    "copies": ("copies", ".1%"),
}


def main() -> None:
    """Spoil real clips, measure, print a Markdown table."""
    args = arguments()
    torch.set_num_threads(args.threads)
    real = RealDigits.load(args.reference)
    judge = Judge.load(args.judge)
    asked = combinations(args.num_samples)
    rows: list[Figures] = []
    for name, clips in controls(real, asked).items():
        figures = measure(clips, [""] * len(clips), real, judge, asked=asked, progress=False)
        rows.append({"control": name, **figures})
        print(line(rows[-1], header=len(rows) == 1), flush=True)
        if args.json:
            args.json.write_text(json.dumps(rows, indent=1))


def combinations(count: int) -> list[Asked]:
    """Every digit with every motion in turn, three times of four alone."""
    pairs = [(digit, motion) for motion in MOTIONS for digit in range(10)]
    return [
        [pairs[i % 80], ((i + 1 + i // 80) % 10, MOTIONS[i * 5 % 8])] if i % 4 == 3 else [pairs[i % 80]]
        for i in range(count)
    ]


def controls(real: RealDigits, asked: list[Asked]) -> dict[str, list[Clip]]:
    """Name -> clips, each of which has something of what is asked for."""
    rng = np.random.default_rng(0)
    shapes = [(16, 64, 64, 1)] * len(asked)
    clips = real.draw(asked, shapes, 0, 1000)
    assert real.known is not None
    firsts = np.array([np.flatnonzero(real.test.labels == digit)[0] for digit in range(10)])

    def each(change: Callable[[Clip], Clip]) -> list[Clip]:
        return [change(clip) for clip in clips]

    def drawn(glyphs: Glyphs) -> list[Clip]:
        field = MovingDigits(glyphs)
        return [field.render(field.scene(rng, pairs)) for pairs in asked]

    copied = drawn(Glyphs(real.known.images[::30], real.known.labels[::30]))
    return {
        "real clips": clips,
        "copies of training digits": copied,
        "copies, darker, with noise": [noisy((clip * 0.7).astype(np.uint8), 8, rng) for clip in copied],
        "one hand writes all": drawn(Glyphs(real.test.images[firsts], real.test.labels[firsts])),
        "wrong text": clips[44:] + clips[:44],  # other digits with other motions, one or two as asked
        "frames shuffled": each(lambda c: c[rng.permutation(len(c))]),
        "played backwards": each(lambda c: c[::-1]),
        "first frame only": each(lambda c: np.repeat(c[:1], len(c), 0)),
        "every third frame dark": each(lambda c: blinking(c, 0.0)),
        "every third frame at 70 %": each(lambda c: blinking(c, 0.7)),
        "noise of 15 of 255": each(lambda c: noisy(c, 15, rng)),
        "noise of 40 of 255": each(lambda c: noisy(c, 40, rng)),
        "blurred": each(blurred),
        "another hand from the middle on": another_hand(real, asked),
    }


def blinking(clip: Clip, light: float) -> Clip:
    """Every third frame at a share of its light."""
    out = clip.copy()
    out[2::3] = (out[2::3] * light).astype(np.uint8)
    return out


def noisy(clip: Clip, deviation: float, rng: np.random.Generator) -> Clip:
    """With Gaussian noise on every pixel, cut off at black and white."""
    return np.clip(clip + rng.normal(0, deviation, clip.shape), 0, 255).astype(np.uint8)


def blurred(clip: Clip) -> Clip:
    """The mean of three by three pixels."""
    padded = np.pad(clip.astype(np.float32), ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = clip.shape[1:3]
    moved = [padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return np.mean(moved, 0).round().astype(np.uint8)


def another_hand(real: RealDigits, asked: list[Asked]) -> list[Clip]:
    """Halfway the digit becomes another of its kind, in the same place."""
    rng = np.random.default_rng(1)
    field = MovingDigits(real.test)
    clips = []
    for pairs in asked:
        scene, other = field.scene(rng, pairs), field.scene(rng, pairs)
        changed = tuple(
            type(actor)(actor.digit, new.glyph, actor.motion, actor.start, actor.speed)
            for actor, new in zip(scene, other, strict=True)
        )
        clips.append(np.concatenate([field.render(scene, 8), field.render(changed, 8, 8)]))
    return clips


def line(row: Figures, header: bool) -> str:
    """A row of the table, below its header where it is the first."""
    cells = [row["control"], str(row["samples"]), *(_cell(row.get(key), form) for key, form in COLUMNS.values())]
    text = "| " + " | ".join(cells) + " |"
    names = ["clips", "n", *COLUMNS]
    return text if not header else "\n".join(["| " + " | ".join(names) + " |", "|" + " --- |" * len(names), text])


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None or math.isnan(value) else format(value, form)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--reference", type=Path, required=True, help="digits: .npz with x_train, y_train, x_test, y_test"
    )
    parser.add_argument("--judge", default="digits", help="name or folder")
    parser.add_argument("--num-samples", type=int, default=640)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="all figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
