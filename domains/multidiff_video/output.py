"""The files of `generate video`: a clip a sample, and a picture of the first ones."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from multidiff.errors import InputError
from multidiff.files import atomic_path, writable_folder
from multidiff.provenance import plain, refuse_other, warn_of_faults
from multidiff_video.encoding import (
    FileOptions,
    check_clip,
    check_rate,
    enlargement,
    recipe_in,
    tags,
    write_tagged,
)
from multidiff_video.faults import FAULTS, NOT_FINITE, fault
from multidiff_video.render import MOST, contact_sheet, described

PNG, PREVIEW = "video.png", "preview.png"
PATTERNS = ("video-[0-9]*",)


@dataclass(frozen=True)
class Sample:
    """A generated clip with what is known of it.

    Attributes:
        clip: (frames, height, width, channels) uint8; without frames where it was not finite.
        warning: one of `FAULTS`, `NOT_FINITE`, or "".
    """

    index: int
    prompt: str
    clip: np.ndarray
    warning: str


def file_name(sample: int, frames: int, options: FileOptions) -> str:
    """Of a sample: `video-00012.mp4`; of a clip as PNG frames a folder `video-00012`."""
    kind = options.of(frames)
    return f"video-{sample:05d}" + ("" if kind == "png" and frames > 1 else f".{kind}")


def write(
    clips: Sequence[np.ndarray],
    fps: float,
    prompts: Sequence[str],
    indices: Sequence[int],
    folder: Path,
    recipe: Mapping[str, Any],
    failed: Mapping[int, int] | None = None,
    records: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Write a file a sample and video.png; each appears whole or not at all, and none of another recipe is replaced.

    Warns, once, of all that are empty, still or noise (`faults.fault`). Clips are looked at one after the other.

    Args:
        clips: (frames, height, width, 1 or 3) uint8 each.
        fps: frames a second.
        prompts, indices: of each; the index is the sample number.
        recipe: checkpoint, settings, seed... plain values; "format" and "scale" are obeyed.
        failed: sample number -> step at which it was not finite; such a clip is not written.
        records: is given one of each sample; those that failed say at which step.

    Returns:
        counts: ``samples``, ``written``, and of those ``empty``, ``still`` and ``noise``.

    Raises:
        InputError: an option is not allowed, the folder cannot be written or holds other files of these names (then
            nothing is written), or the disk is full.
        ValueError: not as many prompts or indices as clips, or one is not of that shape or type.
    """
    options, failed = FileOptions.read(recipe), failed or {}
    rows = list(zip(indices, prompts, strict=True))
    if len(rows) != len(clips):
        raise ValueError(f"{len(rows)} sample numbers for {len(clips)} clips")
    lengths = [_checked(clip, fps, options) for clip in clips]
    folder = writable_folder(folder)
    _refuse_others(folder, rows, lengths, recipe, options, failed)
    seen: Counter[str] = Counter()
    faulty: list[str] = []
    pictured: list[Sample] = []
    for (index, prompt), clip in tqdm(zip(rows, clips, strict=True), "write", len(rows), delay=2, disable=None):
        sample = examine(index, prompt, clip, index in failed)
        name = file_name(index, len(clip), options) if sample.warning != NOT_FINITE else None
        if name:
            write_tagged(folder / name, clip, fps, tags(recipe, prompt, index), options)
        if sample.warning:
            faulty.append(f"{index} {sample.warning}")
        seen[sample.warning] += 1
        pictured += [sample] if len(pictured) < MOST else []
        if records is not None:
            records.append(_record(sample, fps, name))
            if index in failed:
                records[-1]["not_finite_at_step"] = failed[index]
    _write_png(folder / PNG, pictured, len(rows), fps, recipe)
    warn_of_faults(faulty, len(rows), "clips")
    return {"samples": len(rows), "written": len(rows) - seen[NOT_FINITE], **{name: seen[name] for name in FAULTS}}


def examine(index: int, prompt: str, clip: np.ndarray, failed: bool = False) -> Sample:
    """Look for faults."""
    if failed:
        return Sample(index, prompt, clip[:0], NOT_FINITE)
    return Sample(index, prompt, clip, fault(clip))


def caption(s: Sample, fps: float) -> str:
    """A line about a clip, beside its prompt."""
    return ", ".join(part for part in (f"sample {s.index}", described(s.clip, fps), s.warning) if part)


def write_preview(
    folder: Path, clips: Sequence[np.ndarray], fps: float, prompts: Sequence[str], step: int, steps: int
) -> None:
    """Write, or replace, the picture of what clips look like on the way, preview.png.

    Args:
        clips: the estimates of the clean ones, uint8.
        step, steps: done, and in all.

    Raises:
        InputError: there is a preview.png that is none of ours, or the file cannot be written.
    """
    path = folder / PREVIEW
    if os.path.lexists(path) and "preview" not in (recipe_in(path) or {}):
        raise InputError(f"{path} is there and is no preview of ours; give another folder, or move it away")
    notes = [f"after step {step} of {steps}"] * len(clips)
    data = contact_sheet(clips, fps, prompts, notes, {"recipe": {"preview": step}})
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def _checked(clip: np.ndarray, fps: float, options: FileOptions) -> int:
    """The frames of a clip that can be written."""
    check_clip(clip)
    check_rate(fps, options.of(len(clip)))
    enlargement(clip, options)
    return len(clip)


def _refuse_others(
    folder: Path,
    rows: Sequence[tuple[int, str]],
    lengths: Sequence[int],
    recipe: Mapping[str, Any],
    options: FileOptions,
    failed: Mapping[int, int],
) -> None:
    for (index, prompt), frames in zip(rows, lengths, strict=True):
        path = folder / file_name(index, frames, options)
        if os.path.lexists(path) and index not in failed:
            refuse_other(path, recipe, recipe_in(path), json.loads(tags(recipe, prompt, index)["comment"]))
    picture = folder / PNG
    if os.path.lexists(picture):
        refuse_other(picture, recipe, recipe_in(picture), plain(recipe))


def _record(s: Sample, fps: float, name: str | None) -> dict[str, Any]:
    return {
        "sample": s.index,
        "file": name,
        "prompt": s.prompt.encode("utf-8", "replace").decode(),
        "frames": len(s.clip) if name else None,
        "seconds": round(len(s.clip) / fps, 4) if name else None,
        "warning": s.warning,
    }


def _write_png(path: Path, pictured: Sequence[Sample], total: int, fps: float, recipe: Mapping[str, Any]) -> None:
    text = {"recipe": dict(recipe), "samples": [s.index for s in pictured]}
    notes = [caption(s, fps) for s in pictured]
    data = contact_sheet([s.clip for s in pictured], fps, [s.prompt for s in pictured], notes, text, total)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
