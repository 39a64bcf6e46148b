"""Clips on disk, with what was asked of each: what `multidiff generate video` wrote, or anybody's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from multidiff.errors import InputError
from multidiff.generation import RUN
from multidiff_video import movie, stills
from multidiff_video.encoding import recipe_in
from multidiff_video.output import PNG, PREVIEW
from multidiff_video.packed import ABOUT, PackedVideos

Clip = NDArray[np.uint8]
SMALLEST = 8  # pixels of a side; less is no clip that was enlarged
SHARP = 0.1  # of the contrast at the seams between enlarged pixels: what coding may leave within them
_BESIDE = (PNG, PREVIEW)  # pictures, in a folder of generated clips


@dataclass(eq=False)
class Samples:
    """Clips as read, without what was enlarged.

    Attributes:
        clips: (frames, height, width, channels) each; without frames where one that was asked for could not be made.
        names: of the files.
        prompts: of each; "" where none is known.
        unreadable: file -> why; these are in none of the others.
    """

    clips: list[Clip] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)

    def add(self, clip: Clip, name: str, prompt: str) -> None:
        """One more."""
        self.clips.append(clip)
        self.names.append(name)
        self.prompts.append(prompt)


def read_samples(path: Path, progress: bool = True) -> Samples:
    """Every clip at `path`; files that cannot be read are skipped, and named in the result.

    Prompts are those of run.json in a folder that `generate` wrote, or what a file says of itself, or the first
    caption of a packed data set.

    Args:
        path: such a folder, any folder of videos or of folders with PNG frames, a video file, or a packed data set.

    Raises:
        InputError: there is no clip that can be read, or run.json is damaged.
    """
    samples = Samples()
    if (path / ABOUT).is_file():
        packed = PackedVideos.load(path)
        for i, captions in enumerate(packed.captions):
            samples.add(packed.clip(i), packed.sources[i], captions[0] if captions else "")
    elif (path / RUN).is_file():
        _read_run(path, _records(path / RUN), samples, progress)
    else:
        _read(path, dict.fromkeys(_files(path)), samples, progress)
    if not any(len(clip) for clip in samples.clips):
        why = "; ".join([*samples.unreadable.values()][:3]) or "it holds none"
        raise InputError(f"no clip in {path} can be read: {why}")
    return samples


def _files(path: Path) -> list[str]:
    """Clips are files, or folders of numbered frames; a folder of numbered frames is one itself."""
    if not path.is_dir():
        return [path.name]
    frames = movie.folder_frames(path)
    if frames and not frames[0].name.startswith("video-"):  # those are clips of one frame each
        return ["."]
    known = (*movie.SUFFIXES, *stills.SUFFIXES)
    found = [p for p in sorted(path.iterdir()) if not p.name.startswith(".") and p.name not in _BESIDE]
    return [p.name for p in found if (movie.folder_frames(p) if p.is_dir() else p.suffix.lower() in known)]


def _read_run(folder: Path, records: list[dict[str, Any]], samples: Samples, progress: bool) -> None:
    """The files that run.json names, and a clip without frames for each sample that it says was not finite."""
    prompts = {record["file"]: record["prompt"] for record in records if record["file"]}
    there = {name: prompt for name, prompt in prompts.items() if (folder / name).exists()}
    samples.unreadable.update(
        {name: f"{name} is in {RUN} but not in the folder" for name in prompts if name not in there}
    )
    _read(folder, there, samples, progress)
    for record in records:
        if not record["file"]:
            samples.add(np.zeros((0, 8, 8, 1), np.uint8), f"sample {record['sample']}", record["prompt"])


def _read(folder: Path, prompts: Mapping[str, str | None], samples: Samples, progress: bool) -> None:
    off = None if progress else True
    for name, prompt in tqdm(prompts.items(), "read", unit="clip", delay=2, disable=off):
        path = folder / name if folder.is_dir() else folder
        held = recipe_in(path) or {}
        fps = held.get("fps")
        try:
            clip = movie.load(path, fps if isinstance(fps, int | float) else None, name=name).frames
        except InputError as error:
            samples.unreadable[name] = str(error)
            continue
        samples.add(unscaled(clip), name, str(held.get("prompt", "")) if prompt is None else prompt)


def _records(path: Path) -> list[dict[str, Any]]:
    """Sample number, file (None where it was not written) and prompt of all that run.json names."""
    try:
        records = json.loads(path.read_bytes())["samples"]
        found = [{"sample": int(r["sample"]), "file": r["file"], "prompt": r.get("prompt") or ""} for r in records]
        plain = all(isinstance(r["file"], str | None) and isinstance(r["prompt"], str) for r in found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        plain = False
    if not plain or any(r["file"] and Path(r["file"]).name != r["file"] for r in found):
        raise InputError(
            f"{path} is damaged, or not from 'multidiff generate video'; move it away to measure the clips beside it "
            "without their prompts"
        )
    return found


# ------------------------------------------------------------------------------------------------------ enlargement


def unscaled(clip: Clip) -> Clip:
    """The clip before each of its pixels was made a square of several, if it was.

    The largest squares that fit: at all places within them neighbours differ by little, as far as coding leaves it so,
    and by much at the seams between them.
    """
    height, width = clip.shape[1:3]
    steps = [_contrast(clip, axis) for axis in (1, 2)]
    for scale in range(min(height, width) // SMALLEST, 1, -1):
        if max(height % scale, width % scale) <= 1 and all(_seams(s, scale) for s in steps):
            rows, columns = height // scale, width // scale
            squares = clip[:, : rows * scale, : columns * scale].reshape(len(clip), rows, scale, columns, scale, -1)
            return np.asarray(squares.mean((2, 4)).round(), np.uint8)
    return clip


def _contrast(clip: Clip, axis: int) -> NDArray[np.float64]:
    """(side - 1,) mean square difference between neighbouring rows (axis 1) or columns (2)."""
    gray = clip.mean(-1)
    return np.asarray((np.diff(gray, axis=axis) ** 2).mean((0, 3 - axis)))


def _seams(contrast: NDArray[np.float64], scale: int) -> bool:
    """Whether all the contrast is between squares of so many pixels."""
    places = [contrast[place::scale].mean() for place in range(scale)]
    return bool(places[-1] > 0 and max(places[:-1]) < SHARP * places[-1])
