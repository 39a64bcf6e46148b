"""The files of `generate audio`: a sound file a sample, and a picture of the first ones."""

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

from multidiff.files import atomic_path, writable_folder
from multidiff.provenance import plain, refuse_other, warn_of_faults
from multidiff_audio.encoding import FileOptions, encode, read_comment, tags
from multidiff_audio.level import Sound, decibels, fault, levelled, rounded

PNG = "audio.png"
PICTURED = 16
NOT_FINITE = "not finite"
FAULTS = ("silent", "clipped", "noise")


@dataclass(frozen=True)
class Sample:
    """A generated sound with what is known of it.

    Attributes:
        sound: as it is written, (channels, samples); empty where it is not finite.
        warning: one of `FAULTS`, `NOT_FINITE`, or "".
    """

    index: int
    prompt: str
    sound: Sound
    loudness: float
    warning: str


def file_name(sample: int, options: FileOptions) -> str:
    """Of a sample: `audio-00012.wav`."""
    return f"audio-{sample:05d}.{options.format}"


def write(
    sounds: Sequence[Sound],
    rate: int,
    prompts: Sequence[str],
    indices: Sequence[int],
    folder: Path,
    recipe: Mapping[str, Any],
    failed: Mapping[int, int] | None = None,
    records: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Write a file a sample and audio.png; each appears whole or not at all, and none of another recipe is replaced.

    Warns, once, of all that are silent, clipped or noise (`level.fault`). Sounds are looked at one after the other.

    Args:
        sounds: (channels, samples) each, as generated.
        prompts, indices: of each; the index is the sample number.
        recipe: checkpoint, settings, seed... plain values; "format", "bit_depth" and "loudness" are obeyed.
        failed: sample number -> step at which it was not finite; such a sound is not written, nor is one that holds a
            NaN or an infinity.
        records: is given one of each sample; those that failed say at which step.

    Returns:
        counts: ``samples``, ``written``, and of those ``silent``, ``clipped`` and ``noise``.

    Raises:
        InputError: an option is not allowed, the folder cannot be written or holds other files of these names (then
            nothing is written), or the disk is full.
        ValueError: not as many prompts or indices as sounds.
    """
    options, failed = FileOptions.read(recipe), failed or {}
    rows = list(zip(indices, prompts, strict=True))
    if len(rows) != len(sounds):
        raise ValueError(f"{len(rows)} sample numbers for {len(sounds)} sounds")
    folder = writable_folder(folder)
    _refuse_others(folder, rows, recipe, options)
    seen: Counter[str] = Counter()
    faulty: list[str] = []
    pictured: list[Sample] = []
    for (index, prompt), sound in tqdm(zip(rows, sounds, strict=True), "write", len(rows), delay=2, disable=None):
        sample = examine(index, prompt, sound, rate, options.loudness, index in failed)
        if sample.warning != NOT_FINITE:
            _write(folder / file_name(index, options), sample, rate, recipe, options)
        if sample.warning:
            faulty.append(f"{index} {sample.warning}")
        seen[sample.warning] += 1
        pictured += [sample] if len(pictured) < PICTURED else []
        if records is not None:
            records.append(_record(sample, rate, options))
            if index in failed:
                records[-1]["not_finite_at_step"] = failed[index]
    _write_png(folder / PNG, pictured, rate, recipe)
    warn_of_faults(faulty, len(rows), "sounds")
    return {"samples": len(rows), "written": len(rows) - seen[NOT_FINITE], **{name: seen[name] for name in FAULTS}}


def examine(index: int, prompt: str, sound: Sound, rate: int, loudness: float | None, failed: bool = False) -> Sample:
    """Bring a sound to its level and look for faults."""
    sound = np.asarray(sound, np.float32)
    if failed or not np.isfinite(sound).all():
        return Sample(index, prompt, sound[:, :0], -np.inf, NOT_FINITE)
    level, lufs = levelled(sound, rate, loudness)
    return Sample(index, prompt, level, lufs, fault(level, lufs))


def _refuse_others(
    folder: Path, rows: Sequence[tuple[int, str]], recipe: Mapping[str, Any], options: FileOptions
) -> None:
    for index, prompt in rows:
        path = folder / file_name(index, options)
        if os.path.lexists(path):
            made = json.loads(tags(recipe, prompt, index, options)["comment"])
            refuse_other(path, recipe, read_comment(path), made)
    picture = folder / PNG
    if os.path.lexists(picture):
        refuse_other(picture, recipe, _picture_recipe(picture), plain(recipe))


def _picture_recipe(path: Path) -> Any:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            return json.loads(picture.info["recipe"])
    except (OSError, ValueError, KeyError, TypeError, SyntaxError):
        return None


def _write(path: Path, sample: Sample, rate: int, recipe: Mapping[str, Any], options: FileOptions) -> None:
    data = encode(sample.sound, rate, options, tags(recipe, sample.prompt, sample.index, options))
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def _record(s: Sample, rate: int, options: FileOptions) -> dict[str, Any]:
    written = s.warning != NOT_FINITE
    return {
        "sample": s.index,
        "file": file_name(s.index, options) if written else None,
        "prompt": s.prompt.encode("utf-8", "replace").decode(),
        "seconds": round(s.sound.shape[1] / rate, 4) if written else None,
        "loudness_lufs": rounded(s.loudness),
        "peak_dbfs": rounded(decibels(float(np.abs(s.sound).max(initial=0.0)))),
        "warning": s.warning,
    }


def caption(s: Sample, rate: int) -> tuple[str, str]:
    """Two lines about a sound."""
    told = [f"sample {s.index}"]
    told += [f"{s.sound.shape[1] / rate:.2f} s"] if s.warning != NOT_FINITE else []
    told += [f"{s.loudness:.0f} LUFS"] if np.isfinite(s.loudness) else []
    return s.prompt or "(no prompt)", ", ".join([*told, *([s.warning] if s.warning else [])])


def _write_png(path: Path, pictured: Sequence[Sample], rate: int, recipe: Mapping[str, Any]) -> None:
    from multidiff_audio.render import spectrograms_png

    text = {"recipe": dict(recipe), "samples": [s.index for s in pictured]}
    data = spectrograms_png([s.sound for s in pictured], rate, [caption(s, rate) for s in pictured], text)
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
