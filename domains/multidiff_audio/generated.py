"""What a call of the audio pipeline gives, and how a large job keeps it until the end."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np

from multidiff import stored
from multidiff.notebook import gallery
from multidiff_audio.encoding import FileOptions, encode
from multidiff_audio.level import Sound
from multidiff_audio.output import NOT_FINITE, PNG, caption, examine, write

FILES = (PNG,)


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
        recipe = {**self.recipe, **choices}
        return write(
            self.audios, self.sampling_rate, self.prompts, self.indices, Path(folder), recipe, self.failed, records
        )

    def _repr_html_(self) -> str:
        """A player and a picture of each of the first ones, for notebooks."""
        return gallery(len(self), self._card)

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
    sounds = (np.asarray(sound, np.float32) for output in outputs for sound in output.audios)
    stored.store(path, outputs, sounds, rate=outputs[0].sampling_rate if outputs else 0)


def restore(paths: Sequence[Path], recipe: dict[str, Any], network_calls: int) -> AudioOutput:
    """All that was kept, in the order of the sample numbers; a sound is read when it is used.

    Raises:
        InputError: a file is damaged; says which.
    """
    kept = stored.restore(paths)
    return AudioOutput(
        audios=kept.arrays,
        sampling_rate=kept.about.get("rate", 0),
        prompts=kept.prompts,
        indices=kept.indices,
        failed=kept.failed,
        recipe=recipe,
        network_calls=network_calls,
    )
