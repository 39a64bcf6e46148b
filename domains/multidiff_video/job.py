"""A call's arguments, checked and resolved before any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from multidiff.errors import InputError
from multidiff.pipeline import Settings, check_count
from multidiff.prompted import Guidance, filled, warn_of_words
from multidiff_video.encoding import FileOptions, check_rate, enlargement
from multidiff_video.given import Given, gather
from multidiff_video.memory import refuse_too_much
from multidiff_video.request import Request

if TYPE_CHECKING:
    from multidiff_video.pipeline import VideoPipeline


@dataclass(frozen=True, eq=False)
class Job:
    """What a call makes.

    Attributes:
        request: prompts, negative prompts, frames.
        settings: of the solver.
        guidance: by the prompts.
        size: height and width in pixels.
        fps: frames a second of the files.
        given: frames that are known.
        context: frames that a window shares with the one before.
        plain: what of it the files tell, beside the solver's settings.
    """

    request: Request
    settings: Settings
    guidance: Guidance
    size: tuple[int, int]
    fps: float
    given: Given | None
    context: int
    plain: Mapping[str, Any]

    @property
    def estimates(self) -> int:
        """Of the network at a time, for each clip: 2 with guidance."""
        return 1 if self.guidance.scale == 1 else 2

    def recipe(self) -> dict[str, Any]:
        """Plain values, for the files."""
        told: dict[str, Any] = {**self.guidance.recipe(), "prompt": list(self.request.prompts)}
        if any(self.request.negatives):
            told["negative_prompt"] = list(self.request.negatives)
        if any(frames is not None for frames in self.request.frames):
            told["frames"] = list(self.request.frames)
        return told | dict(self.plain) | (dict(self.given.told) if self.given else {})


def make_job(pipe: VideoPipeline, call: Mapping[str, Any]) -> Job:
    """Check the arguments of a call; warn of what is unusual.

    Args:
        call: arguments of `VideoPipeline.__call__`, which explains them, by name; those in `prompted.APART` left out.

    Raises:
        InputError: one is not allowed, or there is no argument of that name.
    """
    asked = filled(pipe, call)
    request = Request.of(asked["prompt"], asked["negative_prompt"], asked["frames"])
    warn_of_words(pipe, pipe.vocabulary, (*request.prompts, *request.negatives))
    size = _size(pipe, asked["size"])
    context = _context(pipe, asked["context"])
    given = gather(asked["init"], asked["keyframes"], context, (*size, pipe.pixels.channels), pipe.fps)
    job = Job(
        request=request,
        settings=pipe.settings(
            asked["solver"], asked["grid"], asked["num_inference_steps"], asked["solver_options"] or {}
        ),
        guidance=Guidance.of(pipe, asked["guidance_scale"], request.negatives),
        size=size,
        fps=_rate(pipe, asked["fps"]),
        given=given,
        context=context,
        plain=_plain(pipe, asked, size, context),
    )
    _check_frames(pipe, job)
    return job


def frames_of(pipe: VideoPipeline, job: Job, number: int) -> int:
    """Frames of a sample."""
    asked = job.request.frames[job.request.place(number)]
    return pipe.window if asked is None else asked


def _check_frames(pipe: VideoPipeline, job: Job) -> None:
    """Refuse what could not be made, or not be written in the end."""
    options = FileOptions.read(job.plain)
    for number in range(len(job.request)):
        total = frames_of(pipe, job, number)
        check_rate(job.fps, options.of(total))
        enlargement(np.broadcast_to(np.uint8(0), (1, *job.size, pipe.pixels.channels)), options)
        if job.given is not None:
            known = job.given.places(total)
            if len(known) >= total:
                raise InputError(f"all {total} frames are given; ask for more of them, or give fewer")
        refuse_too_much(pipe, total, job.size, job.estimates)
    if job.given is not None:
        for warning in job.given.warnings:
            pipe.warn(warning)


def _size(pipe: VideoPipeline, asked: Any) -> tuple[int, int]:
    own = (pipe.pixels.height, pipe.pixels.width)
    if asked is None:
        return own
    pair = (asked, asked) if isinstance(asked, int | np.integer) and not isinstance(asked, bool) else asked
    multiple = pipe.multiple
    try:
        height, width = (check_count("size", n) for n in pair)
    except (TypeError, ValueError):
        raise InputError(f"size {asked!r} is not allowed: pixels, or (height, width)") from None
    if min(height, width) < multiple or height % multiple or width % multiple or max(height, width) > 4096:
        raise InputError(f"size {height} x {width} is not allowed: multiples of {multiple} pixels, at most 4096")
    if (height, width) != own:
        pipe.warn(f"{height} x {width} pixels: {pipe.name or 'this checkpoint'} was trained on {own[0]} x {own[1]}")
    return height, width


def _context(pipe: VideoPipeline, asked: int | None) -> int:
    if asked is None:
        return default_context(pipe.window)
    context = check_count("context", asked)
    if context >= max(2, pipe.window):
        raise InputError(f"context {context} is not allowed: fewer than the {pipe.window} frames of a window")
    return context


def default_context(window: int) -> int:
    """Frames that windows share where none are asked for."""
    return max(1, window // 2)


def _rate(pipe: VideoPipeline, asked: float | None) -> float:
    if asked is None:
        return pipe.fps
    if isinstance(asked, bool) or not isinstance(asked, int | float) or not 0.01 <= asked <= 1000:
        raise InputError(f"fps {asked!r} is not allowed: frames a second, from 0.01 to 1000")
    return float(asked)


def _plain(pipe: VideoPipeline, asked: Mapping[str, Any], size: tuple[int, int], context: int) -> dict[str, Any]:
    told: dict[str, Any] = {name: asked[name] for name in ("format", "scale") if asked[name] is not None}
    if asked["fps"] is not None:
        told["fps"] = float(asked["fps"])
    if size != (pipe.pixels.height, pipe.pixels.width):
        told["size"] = list(size)
    if asked["context"] is not None:
        told["context"] = context
    FileOptions.read(told)
    return told
