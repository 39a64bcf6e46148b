"""What a call of the video pipeline gives, and how a large job keeps it until the end."""

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
from multidiff_video.encoding import encode
from multidiff_video.faults import NOT_FINITE
from multidiff_video.output import PNG, caption, examine, write

FILES = (PNG,)


class FileChoices(TypedDict, total=False):
    """See `encoding.FileOptions`."""

    format: str | None
    scale: int | None


@dataclass(frozen=True, eq=False)
class VideoOutput:
    """Generated clips.

    Attributes:
        frames: a clip each, (frames, height, width, channels) uint8, 1 channel for gray or 3 for RGB.
        fps: frames a second.
        prompts: of each.
        indices: the sample number of each.
        failed: sample number -> the step at which its numbers stopped being finite.
        recipe: checkpoint, settings and seed, enough to make the same clips again.
        network_calls: of the denoiser, for each clip.
    """

    frames: Sequence[np.ndarray]
    fps: float
    prompts: Sequence[str]
    indices: Sequence[int]
    failed: dict[int, int]
    recipe: dict[str, Any]
    network_calls: int = field(default=0)

    def __len__(self) -> int:
        return len(self.frames)

    def save(
        self, folder: str | Path, records: list[dict[str, Any]] | None = None, **choices: Unpack[FileChoices]
    ) -> dict[str, Any]:
        """Write video-00000.mp4 (the sample number) and so on, and video.png; returns the counts.

        Args:
            folder: made if need be; files of these names in it that were made otherwise are not replaced.
            records: is given a record of each sample; those that failed say at which step.
            choices: ``format`` and ``scale``, as in `encoding.FileOptions`, instead of the recipe's.

        Raises:
            InputError: see `output.write`.
        """
        recipe = {**self.recipe, **choices}
        return write(self.frames, self.fps, self.prompts, self.indices, Path(folder), recipe, self.failed, records)

    def _repr_html_(self) -> str:
        """The first ones, playing, for notebooks."""
        return gallery(len(self), self._card)

    def _card(self, k: int) -> str:
        index, clip = self.indices[k], self.frames[k]
        sample = examine(index, self.prompts[k], clip, index in self.failed)
        told = html.escape(f"{sample.prompt[:200] or '(no prompt)'} ({caption(sample, self.fps)})")
        return (
            f'<figure style="margin:0;max-width:256px"><figcaption>{told}</figcaption>'
            f"{_player(clip, self.fps) if sample.warning != NOT_FINITE else ''}</figure>"
        )


def _player(clip: np.ndarray, fps: float) -> str:
    if len(clip) == 1:
        data = base64.b64encode(encode(clip, fps, "png")).decode()
        return f'<img style="width:100%;image-rendering:pixelated" src="data:image/png;base64,{data}">'
    data = base64.b64encode(encode(clip, fps, "mp4")).decode()
    return (
        '<video style="width:100%" controls autoplay loop muted playsinline '
        f'src="data:video/mp4;base64,{data}"></video>'
    )


def store(outputs: Sequence[VideoOutput], path: Path) -> None:
    """Keep outputs in one file beside `path`, for `restore`."""
    clips = (np.asarray(clip, np.uint8) for output in outputs for clip in output.frames)
    stored.store(path, outputs, clips, fps=outputs[0].fps if outputs else 1.0)


def restore(paths: Sequence[Path], recipe: dict[str, Any], network_calls: int) -> VideoOutput:
    """All that was kept, in the order of the sample numbers; a clip is read when it is used.

    Raises:
        InputError: a file is damaged; says which.
    """
    kept = stored.restore(paths)
    return VideoOutput(
        frames=kept.arrays,
        fps=kept.about.get("fps", 1.0),
        prompts=kept.prompts,
        indices=kept.indices,
        failed=kept.failed,
        recipe=recipe,
        network_calls=network_calls,
    )
