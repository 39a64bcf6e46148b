"""Sounds on disk, with what was asked of each: what `multidiff generate audio` wrote, or anybody's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from multidiff.captions import matched
from multidiff.errors import InputError
from multidiff.generation import RUN
from multidiff.sources import Sources, table_of
from multidiff_audio.clips import PackedClips
from multidiff_audio.encoding import read_comment
from multidiff_audio.sound import Sound, load, mix, resample
from multidiff_audio.sources import find


@dataclass(eq=False)
class Samples:
    """Sounds as read, in mono.

    Attributes:
        rate: samples a second, that of the first; the others are resampled.
        sounds: (1, samples) each; without samples where one that was asked for could not be made.
        names: of the files.
        prompts: of each; "" where none is known.
        unreadable: file -> why; these are in none of the others.
    """

    rate: int = 0
    sounds: list[Sound] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)

    def add(self, sound: Sound, rate: int, name: str, prompt: str) -> None:
        """One more."""
        self.rate = self.rate or rate
        self.sounds.append(resample(mix(sound, 1), rate, self.rate) if sound.size else sound[:1])
        self.names.append(name)
        self.prompts.append(prompt)


def read_samples(path: Path, progress: bool = True) -> Samples:
    """Every sound at `path`; files that cannot be read are skipped, and named in the result.

    Prompts are those of run.json in a folder that `generate` wrote, or of a table of captions beside the files, or
    what a file says of itself.

    Args:
        path: such a folder, any folder, an archive, a sound file, or a packed `.npz`.

    Raises:
        InputError: there is no sound that can be read, or run.json or a table is damaged.
    """
    samples = Samples()
    if path.suffix.lower() == ".npz" and not path.is_dir():
        clips = PackedClips.load(path)
        for i, captions in enumerate(clips.captions):
            samples.add(clips.sound(i), clips.rate, clips.sources[i], captions[0] if captions else "")
    elif (path / RUN).exists():
        _read_run(path, _records(path / RUN), samples, progress)
    else:
        sources = find(path)
        samples.unreadable.update(sources.refused)
        _read(sources, _captions(sources), samples, progress)
    if not any(sound.size for sound in samples.sounds):
        why = "; ".join([*samples.unreadable.values()][:3]) or "it holds none"
        raise InputError(f"no sound in {path} can be read: {why}")
    return samples


def _read_run(folder: Path, records: list[dict[str, Any]], samples: Samples, progress: bool) -> None:
    """The files that run.json names, and an empty sound for each sample that it says was not finite."""
    prompts = {record["file"]: record["prompt"] for record in records if record["file"]}
    there = {name: prompt for name, prompt in prompts.items() if (folder / name).is_file()}
    samples.unreadable.update(
        {name: f"{name} is in {RUN} but not in the folder" for name in prompts if name not in there}
    )
    _read(Sources(folder, "folder", tuple(there), (), (), 0), there, samples, progress)
    for record in records:
        if not record["file"]:
            samples.add(np.zeros((1, 0), np.float32), samples.rate, f"sample {record['sample']}", record["prompt"])


def _read(sources: Sources, prompts: Mapping[str, str], samples: Samples, progress: bool) -> None:
    contents = sources.contents(sources.files)
    off = None if progress else True
    for name, content in tqdm(contents, "read", len(sources.files), unit="sound", delay=2, disable=off):
        try:
            if isinstance(content, InputError):
                raise content
            reading = load(content, name)
        except InputError as error:
            samples.unreadable[name] = str(error)
            continue
        own = read_comment(content) if isinstance(content, Path) and name not in prompts else None
        samples.add(reading.sound, reading.rate, name, prompts.get(name) or str((own or {}).get("prompt", "")))


def _captions(sources: Sources) -> dict[str, str]:
    """File -> the first caption that a table has for it."""
    rows = matched(table_of(sources, None), sources.files)[0]
    return {name: row.captions[0] for name, row in rows.items() if row.captions}


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
            f"{path} is damaged, or not from 'multidiff generate audio'; move it away to measure the sounds beside it "
            "without their prompts"
        )
    return found
