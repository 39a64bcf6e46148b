"""Does each figure of sounds see what it claims to?

A row a set of sounds whose fault is known; a column a figure. Accuracy and the Inception score do not see that one
speaker says everything, nor that every sound is a copy; the Fréchet distance and recall see the first, the nearest
training clip the second. "x real" is the multiple of what as many real clips score.

    python benchmarks/audio_controls.py --reference fsdd.npz
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

from multidiff.captions import TRAIN
from multidiff_audio.clips import PackedClips
from multidiff_audio.evaluate import choose
from multidiff_audio.judge import Judge
from multidiff_audio.measure import Figures, measure
from multidiff_audio.metrics import draw
from multidiff_audio.real import Real
from multidiff_audio.samples import Samples

Sound = NDArray[np.float32]


def main() -> None:
    """Spoil real clips, measure, print a Markdown table."""
    args = arguments()
    torch.set_num_threads(args.threads)
    clips = PackedClips.load(args.reference)
    judge = Judge.load(args.judge) if args.judge else choose(Samples(), clips)
    real = Real.of(clips, judge)
    rows = []
    for name, (sounds, kinds) in controls(real, args.num_samples).items():
        asked = [{a: str(values[kind]) for a, values in real.labels.items()} for kind in kinds]
        figures = measure(sounds, clips.rate, [""] * len(sounds), real, judge, asked=asked)
        rows.append({"control": name, **figures})
        print(line(rows[-1], list(judge.classes), header=len(rows) == 1), flush=True)
        if args.json:
            args.json.write_text(json.dumps(rows, indent=1))


def controls(real: Real, count: int) -> dict[str, tuple[list[Sound], NDArray[np.int64]]]:
    """Name -> sounds, and for each the row of a clip that is what is asked for."""
    rng = np.random.default_rng(0)
    clips, rate = real.clips, real.clips.rate
    train = np.flatnonzero(clips.split[real.rows] == TRAIN)
    test = np.flatnonzero(real.test)
    rows = train[draw(real.groups[train], count, rng)]
    known = [clips.sound(int(real.rows[i])) for i in rows]

    def each(change: Callable[[Sound], Sound]) -> tuple[list[Sound], NDArray[np.int64]]:
        return [change(sound) for sound in known], rows

    found = {
        "real test clips": ([clips.sound(int(real.rows[i])) for i in test], test),
        "copies of training clips": (known, rows),
        "copies, other level, later, noise at -30 dB": each(lambda s: recorded_again(s, rate, rng)),
    }
    collapsed = one_of_last_attribute(real, train, rows)
    if collapsed is not None:
        name = str(real.labels[list(real.labels)[-1]][collapsed[0]])
        found[f"{name} only"] = ([clips.sound(int(real.rows[i])) for i in collapsed], rows)
    return found | {
        "low-passed at an eighth of the rate": each(lambda s: low_passed(s, rate / 8, rate)),
        "phases lost": each(lambda s: without_phases(s, rng)),
        "prompts shuffled": (known, rng.permutation(rows)),
        "white noise": each(lambda s: rng.normal(0, 0.1, s.shape).astype(np.float32)),
        "silence": each(np.zeros_like),
    }


def one_of_last_attribute(real: Real, train: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """For each row a training clip that is the same but in the last attribute (the speaker), where all are one."""
    names = list(real.labels)
    if len(names) < 2:
        return None
    rng = np.random.default_rng(1)
    last = real.labels[names[-1]]
    pool = train[last[train] == np.unique(last[train])[0]]
    same = [pool[np.all([real.labels[a][pool] == real.labels[a][row] for a in names[:-1]], axis=0)] for row in rows]
    return np.array([rng.choice(fits) for fits in same])


def recorded_again(sound: Sound, rate: int, rng: np.random.Generator) -> Sound:
    """What a generator that knows a clip by heart would make of it."""
    later = np.pad(sound, ((0, 0), (int(rng.uniform(0, 0.05) * rate), 0)))
    noise = rng.standard_normal(later.shape).astype(np.float32) * later.std() * np.float32(10**-1.5)
    return (later + noise) * np.float32(rng.uniform(0.2, 0.8))


def low_passed(sound: Sound, cutoff: float, rate: int) -> Sound:
    """Without what is above `cutoff` Hz."""
    spectrum = np.fft.rfft(sound)
    spectrum[:, np.fft.rfftfreq(sound.shape[1], 1 / rate) > cutoff] = 0
    return np.fft.irfft(spectrum, sound.shape[1]).astype(np.float32)


def without_phases(sound: Sound, rng: np.random.Generator) -> Sound:
    """The magnitudes of its short-time spectrum with random phases, as a bad vocoder has it."""
    window = torch.hann_window(256)
    spectrum = torch.stft(torch.from_numpy(sound), 256, 64, window=window, return_complex=True, pad_mode="constant")
    turned = torch.from_numpy(rng.uniform(0, 2 * math.pi, tuple(spectrum.shape)))
    made = torch.istft(torch.polar(spectrum.abs(), turned.float()), 256, 64, window=window, length=sound.shape[1])
    return made.numpy()


def line(row: Figures, attributes: list[str], header: bool) -> str:
    """A row of the table, below its header where it is the first."""
    columns = {a: (f"accuracy/{a}", ".1%") for a in attributes}
    columns |= {f"IS {a}, of real": (f"inception/{a}/of_real", ".1%") for a in attributes}
    columns |= {
        "FD": ("frechet", ".3g"),
        "x real": ("frechet/of_real", ".2f"),
        "FD test, x real": ("frechet_test/of_real", ".2f"),
        "precision": ("precision", ".1%"),
        "recall": ("recall", ".1%"),
        "density": ("density", ".2f"),
        "coverage": ("coverage", ".1%"),
        "diversity, of real": ("diversity/of_real", ".2f"),
        "nearest": ("nearest", ".3f"),
        "copies": ("copies", ".1%"),
        "silent": ("silent", ".1%"),
        "noise": ("noise", ".1%"),
    }
    cells = [row["control"], str(row["samples"]), *(_cell(row.get(key), form) for key, form in columns.values())]
    text = "| " + " | ".join(cells) + " |"
    names = ["sounds", "n", *columns]
    return text if not header else "\n".join(["| " + " | ".join(names) + " |", "|" + " --- |" * len(names), text])


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None or math.isnan(value) else format(value, form)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, required=True, help="packed real clips with attributes and splits")
    parser.add_argument("--judge", help="name or folder (default: the one that knows the classes)")
    parser.add_argument("--num-samples", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="all figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
