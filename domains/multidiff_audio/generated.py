"""What a call of the audio pipeline gives, and how a large job keeps it until the end."""

from __future__ import annotations

import base64
import html
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict, Unpack, overload

import numpy as np

from multidiff.errors import InputError
from multidiff.files import atomic_path
from multidiff_audio.encoding import FileOptions, encode
from multidiff_audio.level import Sound
from multidiff_audio.output import NOT_FINITE, PNG, caption, examine, write

FILES = (PNG,)
PLAYERS = 8


class FileChoices(TypedDict, total=False):
    """See `encoding.FileOptions`."""

    format: str
    bit_depth: str | int
    loudness: float | None


@dataclass(frozen=True, eq=False)
class AudioOutput:
    """Generated sounds.

    Attributes:
        audios: as generated, (channels, samples) float32 each, full scale is 1; `save` brings them to their loudness.
        sampling_rate: samples a second.
        prompts: of each.
        indices: the sample number of each.
        failed: sample number -> the step at which its numbers stopped being finite.
        recipe: checkpoint, settings and seed, enough to make the same sounds again.
        network_calls: of the denoiser, for each sound.
    """

    audios: Sequence[Sound]
    sampling_rate: int
    prompts: Sequence[str]
    indices: Sequence[int]
    failed: dict[int, int]
    recipe: dict[str, Any]
    network_calls: int = field(default=0)

    def __len__(self) -> int:
        return len(self.audios)

    def save(
        self, folder: str | Path, records: list[dict[str, Any]] | None = None, **choices: Unpack[FileChoices]
    ) -> dict[str, Any]:
        """Write audio-00000.wav (the sample number) and so on, and audio.png; returns the counts.

        Args:
            folder: made if need be; files of these names in it that were made otherwise are not replaced.
            records: is given a record of each sample; those that failed say at which step.
            choices: ``format``, ``bit_depth`` and ``loudness``, as in `encoding.FileOptions`, instead of the recipe's.

        Raises:
            InputError: see `output.write`.
        """
        made: list[dict[str, Any]] = []
        recipe = {**self.recipe, **choices}
        counts = write(
            self.audios, self.sampling_rate, self.prompts, self.indices, Path(folder), recipe, self.failed, made
        )
        for record in made:
            if record["sample"] in self.failed:
                record["not_finite_at_step"] = self.failed[record["sample"]]
        if records is not None:
            records.extend(made)
        return counts

    def _repr_html_(self) -> str:
        """A player and a picture of each of the first ones, for notebooks."""
        cards = [self._card(k) for k in range(min(len(self), PLAYERS))]
        more = f"<p>and {len(self) - PLAYERS} more</p>" if len(self) > PLAYERS else ""
        return f'<div style="display:flex;flex-wrap:wrap;gap:12px">{"".join(cards)}</div>{more}'

    def _card(self, k: int) -> str:
        from multidiff_audio.render import spectrograms_png

        index, rate = self.indices[k], self.sampling_rate
        loudness = FileOptions.read(self.recipe).loudness
        sample = examine(index, self.prompts[k], self.audios[k], rate, loudness, index in self.failed)
        lines = caption(sample, rate)
        picture = base64.b64encode(spectrograms_png([sample.sound], rate, [lines])).decode()
        wav = base64.b64encode(encode(sample.sound, rate, FileOptions(), {})).decode()
        player = f'<audio controls src="data:audio/wav;base64,{wav}"></audio>' if sample.warning != NOT_FINITE else ""
        told = html.escape(f"{lines[0][:200]} ({lines[1]})")
        return (
            f'<figure style="margin:0"><figcaption>{told}</figcaption>'
            f'<img alt="spectrogram" src="data:image/png;base64,{picture}"><br>'
            f"{player}</figure>"
        )


def store(outputs: Sequence[AudioOutput], path: Path) -> None:
    """Keep outputs in one file beside `path`, for `restore`."""
    about = {
        "rate": outputs[0].sampling_rate if outputs else 0,
        "prompts": [prompt for output in outputs for prompt in output.prompts],
        "samples": [int(i) for output in outputs for i in output.indices],
        "failed": [[int(i), int(step)] for output in outputs for i, step in output.failed.items()],
    }
    sounds = {f"sound-{k}": sound for k, sound in enumerate(s for output in outputs for s in output.audios)}
    text = np.frombuffer(json.dumps(about).encode(), np.uint8)
    with atomic_path(path.with_suffix(".npz")) as temporary, open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, about=text, **sounds)


def restore(paths: Sequence[Path], recipe: dict[str, Any], network_calls: int) -> AudioOutput:
    """All that was kept, in the order of the sample numbers; a sound is read when it is used.

    Raises:
        InputError: a file is damaged; says which.
    """
    files = [path.with_suffix(".npz") for path in paths]
    abouts = [_about(file) for file in files]
    samples = [i for about in abouts for i in about["samples"]]
    prompts = [prompt for about in abouts for prompt in about["prompts"]]
    places = [(file, k) for file, about in zip(files, abouts, strict=True) for k in range(len(about["samples"]))]
    order = sorted(range(len(samples)), key=samples.__getitem__)
    return AudioOutput(
        audios=_Stored([places[k] for k in order]),
        sampling_rate=abouts[0]["rate"] if abouts else 0,
        prompts=[prompts[k] for k in order],
        indices=[samples[k] for k in order],
        failed={i: step for about in abouts for i, step in about["failed"]},
        recipe=recipe,
        network_calls=network_calls,
    )


def _about(file: Path) -> dict[str, Any]:
    """What a file holds beside the sounds, after a look at the check sums of everything in it."""
    try:
        with zipfile.ZipFile(file) as packed:
            broken = packed.testzip()
            names = set(packed.namelist())
        if broken:
            raise ValueError(f"{broken} is not what was written")
        with np.load(file, allow_pickle=False) as arrays:
            about = json.loads(arrays["about"].tobytes())
        count = len(about["samples"])
        if len(about["prompts"]) != count or not {f"sound-{k}.npy" for k in range(count)} <= names:
            raise ValueError("sounds are missing")
        return {name: about[name] for name in ("rate", "prompts", "samples", "failed")}
    except Exception as error:  # zip, zlib, json and numpy each have their own
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> InputError:
    return InputError(f"{file} is damaged ({error}); delete it and run the same command again")


class _Stored(Sequence[Sound]):
    """Sounds in files, each read when asked for."""

    def __init__(self, places: Sequence[tuple[Path, int]]) -> None:
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, i: int) -> Sound: ...
    @overload
    def __getitem__(self, i: slice) -> list[Sound]: ...
    def __getitem__(self, i: int | slice) -> Sound | list[Sound]:
        if isinstance(i, slice):
            return [self._read(*place) for place in self.places[i]]
        return self._read(*self.places[i])

    @staticmethod
    def _read(file: Path, k: int) -> Sound:
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return np.asarray(arrays[f"sound-{k}"], np.float32)
        except Exception as error:  # as above
            raise _damaged(file, error) from error
