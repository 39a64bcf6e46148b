"""`multidiff evaluate audio PATH`: every figure of sounds on disk, whoever made them."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from multidiff.errors import InputError
from multidiff_audio.asked import Asked, Reader
from multidiff_audio.clips import PackedClips
from multidiff_audio.judge import Judge, names
from multidiff_audio.measure import FAULTS, Figures, measure
from multidiff_audio.prepare import load_or_pack
from multidiff_audio.samples import Samples, read_samples

NAMED = 20  # unreadable files that are named one by one


def evaluate(
    path: str | Path,
    reference: str | Path | None = None,
    *,
    judge: str | Path | None = None,
    clap: str | Path | None = None,
    progress: bool = True,
) -> Figures:
    """All figures (`measure.measure`) of the sounds at `path`.

    A file that cannot be read is skipped, counted under ``unreadable`` and named. What is asked of a sound is read
    from its prompt (`samples.read_samples`), or else from its own name and its folder's: dog_bark/3.wav,
    7_theo_0.wav.

    Args:
        path: a folder that `generate` wrote, any folder of sounds, an archive, a sound file, or a packed `.npz`.
        reference: real clips, packed by `multidiff prepare audio`, or a folder. The test split is what the Inception
            score and the copies are compared with, the training split where copies are looked for.
        judge: the name of one that ships, or a folder; default: the one that knows the reference's classes, or those
            that the prompts name.
        clap: a CLAP network, for the likeness of sounds and prompts: a name at the Hugging Face hub or a folder.

    Returns:
        Flat and fit for JSON; what cannot be measured is None.

    Raises:
        InputError: a path is missing or of another kind, nothing can be read, or no judge is known to fit.
    """
    samples = read_samples(Path(path), progress)
    clips = None if reference is None else load_or_pack(reference)
    chosen = choose(samples, clips) if judge is None else Judge.load(judge)
    figures = measure(
        samples.sounds,
        samples.rate,
        samples.prompts,
        clips,
        chosen,
        asked=asked(samples, chosen, clips),
        progress=progress,
    )
    for entry in figures.get("copies/named", []):
        entry["sample"] = samples.names[entry["sample"]]
    figures |= {f"judge/{a}": share for a, share in chosen.config.get("accuracy", {}).items()}
    figures |= {"unreadable": len(samples.unreadable)}
    figures |= {f"unreadable/{name}": why for name, why in list(samples.unreadable.items())[:NAMED]}
    if clap is not None:
        from multidiff_audio.clap import Clap

        figures |= Clap.load(clap).figures(samples.sounds, samples.rate, samples.prompts, clips)
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in figures.items()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `multidiff evaluate audio`, named as the keywords of `evaluate`."""
    judge = f"who recognises the sounds: {', '.join(names())}, or a folder (default: as fits the classes or prompts)"
    clap = "also the likeness of sounds and prompts by a CLAP network: a name at the Hugging Face hub, or a folder"
    group = parser.add_argument_group("audio")
    group.add_argument("--judge", metavar="NAME", help=judge)
    group.add_argument("--clap", metavar="NAME", help=clap)


def asked(samples: Samples, judge: Judge, clips: PackedClips | None = None) -> list[Asked]:
    """What is asked of each sample: by its prompt, else by the names of its file and folder."""
    read = Reader(judge.classes, clips)
    return [
        read(prompt) if prompt else read.names(str(Path(name).with_suffix("")), first=True)
        for name, prompt in zip(samples.names, samples.prompts, strict=True)
    ]


def choose(samples: Samples, clips: PackedClips | None) -> Judge:
    """The judge that ships and knows the classes of the reference, or else most of what the samples ask for.

    Raises:
        InputError: none does.
    """
    judges = [Judge.load(name) for name in names()]
    if clips is not None:
        held = {name: attribute.classes for name, attribute in clips.attributes.items()}
        for judge in judges:
            if any(sorted(classes) == sorted(held.get(name, ())) for name, classes in judge.classes.items()):
                return judge
    known = [sum(map(bool, asked(samples, judge))) for judge in judges]
    if not any(known):
        raise InputError(f"which judge is to hear these sounds? Give --judge with {', '.join(names())} or a folder")
    return judges[int(np.argmax(known))]


# ----------------------------------------------------------------------------------------------------------- table

_SHARES = (*FAULTS, "copies", "precision", "recall", "coverage")


def format_table(figures: Figures) -> str:
    """The figures as text: a row each with n, that of real clips, and the quotient of the two."""
    rows: list[tuple[str, ...]] = [("", "value", "real clips", "of real", "n")]
    for name in figures:
        if f"{name}/n" in figures:
            rows.append(
                (name, *(_cell(figures, name, part) for part in ("", "real", "of_real")), str(figures[f"{name}/n"]))
            )
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = [f"samples {figures.get('samples', 0)}, real clips {figures.get('reference', 0)}"]
    lines += [
        f"the judge is right about {figures[k]:.1%} of real test clips ({k[6:]})" for k in _under(figures, "judge/")
    ]
    if figures.get("unreadable"):
        lines.append(f"unreadable, skipped: {figures['unreadable']}")
        lines += [f"  {figures[key]}" for key in _under(figures, "unreadable/")]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    if figures.get("copies/nearer_than") is not None:
        lines.append(f"copies are nearer to a training clip than {figures['copies/nearer_than']:.4f}:")
        lines += [f"  {c['sample']}: {c['source']} ({c['distance']})" for c in figures["copies/named"]]
    return "\n".join(lines)


def _under(figures: Figures, prefix: str) -> Sequence[str]:
    return [key for key in figures if key.startswith(prefix)]


def _cell(figures: Figures, name: str, part: str) -> str:
    value: Any = figures.get(f"{name}/{part}" if part else name)
    if value is None:
        return "-" if not part else ""
    share = part != "of_real" and (name in _SHARES or name.startswith("accuracy/"))
    return f"{value:.1%}" if share else f"{value:.3g}"
