"""`multidiff evaluate video PATH`: every figure of clips on disk, whoever made them."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from multidiff.errors import InputError

Figures = dict[str, Any]

NAMED = 20  # unreadable files that are named one by one


def evaluate(
    path: str | Path,
    reference: str | Path | None = None,
    *,
    judge: str | Path = "digits",
    i3d: str | Path | None = None,
    progress: bool = True,
) -> Figures:
    """All figures (`measure.measure`) of the clips at `path`.

    A file that cannot be read is skipped, counted under ``unreadable`` and named. What is asked of a clip is read from
    its prompt (`samples.read_samples`, `digits.parse`). Clips are measured as they were before they were enlarged to be
    looked at.

    Args:
        path: a folder that `generate` wrote, any folder of clips, a file, or a packed data set.
        reference: real clips: an .npz of digits, whose test split is drawn to do the same and whose training split is
            where copies are looked for; or a data set that `multidiff prepare video` packed.
        judge: the name of one that ships, or a folder.
        i3d: an I3D network as TorchScript, for the Fréchet video distance (`fvd`).

    Returns:
        Flat and fit for JSON; what cannot be measured is None.

    Raises:
        InputError: a path is missing or of another kind, or nothing can be read.
    """
    from multidiff_video import real
    from multidiff_video.digits import parse
    from multidiff_video.judge import Judge
    from multidiff_video.measure import measure
    from multidiff_video.samples import read_samples

    if i3d is not None and reference is None:
        raise InputError("--i3d needs --reference: real clips to be compared with")
    chosen = Judge.load(judge)
    clips = None if reference is None else real.load(reference)
    samples = read_samples(Path(path), progress)
    figures = measure(samples.clips, samples.prompts, clips, chosen, progress=progress)
    for entry in figures.get("copies/named", []):
        entry["sample"] = samples.names[entry["sample"]]
    figures |= {f"judge/{name}": share for name, share in chosen.config.get("accuracy", {}).items()}
    figures |= {"unreadable": len(samples.unreadable)}
    figures |= {f"unreadable/{name}": why for name, why in list(samples.unreadable.items())[:NAMED]}
    if i3d is not None and clips is not None:
        from multidiff_video import fvd

        kept = [(clip, parse(prompt)) for clip, prompt in zip(samples.clips, samples.prompts, strict=True) if len(clip)]
        shown, asked = [clip for clip, _ in kept], [pairs for _, pairs in kept]
        figures |= fvd.measure(fvd.load(i3d), shown, asked, clips, progress=progress)
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in figures.items()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `multidiff evaluate video`, named as the keywords of `evaluate`."""
    group = parser.add_argument_group("video")
    group.add_argument("--judge", metavar="NAME", help="who looks at the clips: digits (default), or a folder")
    group.add_argument("--i3d", metavar="FILE", help="also the Fréchet video distance by an I3D network (TorchScript)")


# ----------------------------------------------------------------------------------------------------------- table

_PLAIN = ("flicker", "warp", "identity", "diversity", "frechet", "nearest")


def format_table(figures: Figures) -> str:
    """The figures as text: a row each with n, that of real clips, and the quotient; FVD in a table of its own."""
    lines = [f"samples {figures.get('samples', 0)}, real clips {figures.get('reference', 0)}"]
    if figures.get("missing"):
        lines.append(f"not finite, wrong in all that was asked: {figures['missing']}")
    if figures.get("unreadable"):
        lines.append(f"unreadable, skipped: {figures['unreadable']}")
        lines += [f"  {figures[key]}" for key in figures if key.startswith("unreadable/")]
    told = [f"{figures[k]:.1%} ({k[6:]})" for k in figures if k.startswith("judge/")]
    lines += [f"the judge is right about real test clips: {', '.join(told)}"] if told else []
    names = [name for name in figures if f"{name}/n" in figures]
    lines += _rows(figures, [name for name in names if name != "fvd"])
    if figures.get("identity/other") is not None:
        lines.append(f"identity of two ways to write a digit: {figures['identity/other']:.3f}")
    if figures.get("copies/nearer_than") is not None:
        lines.append(f"copies are nearer to a training digit than {figures['copies/nearer_than']:.4f}:")
        lines += [f"  {c['sample']}: number {c['digit']} ({c['distance']})" for c in figures["copies/named"]]
    if "fvd" in names:
        lines += ["", "by the I3D network given, not to be compared with the distance above:"]
        lines += _rows(figures, ["fvd"])
    return "\n".join(lines)


def _rows(figures: Figures, names: Sequence[str]) -> list[str]:
    parts = ("", "real", "of_real")
    rows: list[tuple[str, ...]] = [("", "value", "real clips", "of real", "n")]
    rows += [(name, *(_cell(figures, name, part) for part in parts), str(figures[f"{name}/n"])) for name in names]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))]
        ).rstrip()
        for row in rows
    ]


def _cell(figures: Figures, name: str, part: str) -> str:
    value: Any = figures.get(f"{name}/{part}" if part else name)
    if value is None:
        return "-" if not part else ""
    share = part != "of_real" and name not in (*_PLAIN, "fvd")
    return f"{value:.1%}" if share else f"{value:.3g}"
