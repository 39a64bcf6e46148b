"""A call's arguments, checked and resolved before any work."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from multidiff.errors import InputError, unknown
from multidiff.pipeline import Settings
from multidiff.prompted import Guidance, filled, warn_of_words
from multidiff_audio.curves import curves, scaled
from multidiff_audio.editing import Given, given
from multidiff_audio.encoding import FileOptions
from multidiff_audio.layers import CURVES
from multidiff_audio.request import Request

if TYPE_CHECKING:
    from multidiff_audio.pipeline import AudioPipeline

LEVEL = -23.0
"""dB re full scale, root mean square: what `multidiff prepare audio` brings sounds to."""

STRENGTH = 0.6
"""Of sound to sound, where none is asked for."""


@dataclass(frozen=True, eq=False)
class Job:
    """What a call makes.

    Attributes:
        request: prompts, negative prompts, lengths.
        settings: of the solver.
        guidance: by the prompts.
        classes: (1, A) int64, -1 where not asked for.
        given: the sound to start from.
        follow: (frames, 3) curves to follow, NaN where not.
        loop: whether the end meets the start.
        two_takes: whether each sound is two of a mono checkpoint, left and right.
        variations: the sample whose variations are made and their share of fresh noise; None for none.
        plain: what of it the files tell, beside the solver's settings.
    """

    request: Request
    settings: Settings
    guidance: Guidance
    classes: Tensor
    given: Given | None
    follow: np.ndarray | None
    loop: bool
    two_takes: bool
    variations: tuple[int, float] | None
    plain: Mapping[str, Any]

    def recipe(self, rate: int) -> dict[str, Any]:
        """Plain values, for the files."""
        told: dict[str, Any] = {**self.guidance.recipe(), "prompt": list(self.request.prompts)}
        if any(self.request.negatives):
            told["negative_prompt"] = list(self.request.negatives)
        if any(seconds is not None for seconds in self.request.seconds):
            told["duration"] = list(self.request.seconds)
        if self.given is not None:
            told["strength"] = self.settings.strength  # its default depends on what else is asked for
        return told | dict(self.plain) | (self.given.recipe(rate) if self.given else {})


def make_job(pipe: AudioPipeline, call: Mapping[str, Any]) -> Job:
    """Check the arguments of a call; warn of what is unusual.

    Args:
        call: arguments of `AudioPipeline.__call__`, which explains them, by name; those in `prompted.APART` left out.

    Raises:
        InputError: one is not allowed, or there is no argument of that name.
    """
    asked = filled(pipe, call)
    request = Request.of(asked["prompt"], asked["negative_prompt"], asked["duration"])
    request.check(pipe.longest)
    warn_of_words(pipe, pipe.vocabulary, (*request.prompts, *request.negatives))
    for duration in request.seconds:
        if duration is not None:
            _warn_of_length(pipe, duration)
    start = _start(pipe, asked, request)
    variations = _variations(asked["variations_of"], asked["variation_strength"])
    followed, seconds, told = _followed(pipe, asked["follow"], asked["follow_curves"], request, start)
    return Job(
        request=_with_length(request, seconds) if start is None else request,
        settings=_settings(pipe, asked),
        guidance=Guidance.of(pipe, asked["guidance_scale"], request.negatives),
        classes=_classes(pipe, asked["classes"] or {}),
        given=start,
        follow=followed,
        loop=asked["loop"],
        two_takes=asked["stereo"] and pipe.representation.channels == 1,
        variations=variations,
        plain=_plain(asked, variations) | told,
    )


def _start(pipe: AudioPipeline, asked: Mapping[str, Any], request: Request) -> Given | None:
    """The sound to start from."""
    init, inpaint, extend = asked["init"], asked["inpaint"], asked["extend"]
    if init is None:
        if inpaint or extend or asked["strength"] is not None:
            raise InputError("strength, inpaint and extend need a sound to start from: give init")
        return None
    start = given(init, asked["init_rate"], pipe.representation, LEVEL, pipe.longest, inpaint, extend)
    _check_start(pipe, start, request, asked["loop"])
    return start


def _settings(pipe: AudioPipeline, asked: Mapping[str, Any]) -> Settings:
    strength = asked["strength"]
    if strength is None:
        whole = asked["init"] is None or asked["inpaint"] or asked["extend"]
        strength = 1.0 if whole else STRENGTH
    options = asked["solver_options"] or {}
    return pipe.settings(asked["solver"], asked["grid"], asked["num_inference_steps"], options, strength)


def _plain(asked: Mapping[str, Any], variations: tuple[int, float] | None) -> dict[str, Any]:
    """What the files tell of classes, variations, and of how they are written themselves."""
    told: dict[str, Any] = {"classes": dict(asked["classes"])} if asked["classes"] else {}
    told |= {name: True for name in ("loop", "stereo") if asked[name]}
    if variations is not None:
        told |= dict(zip(("variations_of", "variation_strength"), variations, strict=True))
    told |= {name: asked[name] for name in ("format", "bit_depth") if asked[name] is not None}
    if asked["loudness"] is not None or asked["init"] is not None:
        told["loudness"] = None if asked["loudness"] in (None, "keep") else asked["loudness"]
    FileOptions.read(told)
    return told


def _warn_of_length(pipe: AudioPipeline, seconds: float) -> None:
    if seconds > 1.05 * pipe.longest:
        pipe.warn(f"{seconds:g} s: {pipe.name or 'this checkpoint'} was trained on up to {pipe.longest:.3g} s")


def _check_start(pipe: AudioPipeline, start: Given, request: Request, loop: bool) -> None:
    """Refuse what does not go with a sound to start from; say what was done to it."""
    if loop:
        raise InputError("loop makes a new sound; it cannot be combined with init")
    if start.regions and any(seconds is not None for seconds in request.seconds):
        raise InputError("duration follows from init where it is inpainted or extended; leave it out")
    if start.told:
        pipe.warn(f"{start.name or 'init'} was converted: {start.told}")
    if start.damage:
        pipe.warn(f"{start.name} {start.damage}")
    if all(seconds is None for seconds in request.seconds):
        _warn_of_length(pipe, start.samples / pipe.representation.rate)


def _classes(pipe: AudioPipeline, asked: Mapping[str, str]) -> Tensor:
    for name in asked:
        if name not in pipe.classes:
            if not pipe.classes:
                raise InputError(f"class {name!r} asked for, and {pipe.name or 'this checkpoint'} knows no classes")
            raise unknown("attribute", name, pipe.classes)
        if asked[name] not in pipe.classes[name]:
            raise unknown(name, asked[name], pipe.classes[name])
    numbers = [names.index(asked[name]) if name in asked else -1 for name, names in pipe.classes.items()]
    return torch.tensor([numbers], dtype=torch.int64).reshape(1, -1)


def _variations(of: int | None, strength: float) -> tuple[int, float] | None:
    if of is None:
        return None
    if isinstance(of, bool) or not isinstance(of, int | np.integer) or not 0 <= of < 2**62:
        raise InputError(f"variations_of {of!r} is not allowed: the number of a sample, 0 or more")
    if not (isinstance(strength, int | float) and 0 <= strength <= 1):
        raise InputError(f"variation_strength {strength!r} is not allowed: from 0 (the same) to 1 (another sample)")
    return int(of), float(strength)


def _followed(
    pipe: AudioPipeline,
    follow: str | Path | Mapping[str, Sequence[float]] | None,
    names: Sequence[str],
    request: Request,
    start: Given | None,
) -> tuple[np.ndarray | None, float | None, dict[str, Any]]:
    """Curves (frames, 3), NaN where one is not followed; the seconds of a file; what the files tell of them."""
    if follow is None:
        return None, None, {}
    if not isinstance(follow, str | Path | Mapping):
        raise InputError("follow: give a sound file, or a mapping from a curve's name to its numbers")
    for name in names if isinstance(follow, str | Path) else follow:
        if name not in CURVES:
            raise unknown("curve", name, CURVES)
    hop, rate = pipe.representation.hop, pipe.representation.rate
    if isinstance(follow, str | Path):
        found = given(follow, None, pipe.representation, LEVEL, pipe.longest)
        frames = math.ceil(found.samples / hop) + 1
        values = curves(torch.from_numpy(found.levelled.mean(0))[None], rate, hop, frames)[0].numpy()
        values[:, [name not in names for name in CURVES]] = np.nan
        told: dict[str, Any] = {"follow": str(follow), "follow_curves": list(names)}
        told["follow_sha256"] = found.recipe(rate)["init_sha256"]
        return values, found.samples / rate, told
    lengths = {start.samples / rate} if start is not None and set(request.seconds) == {None} else set(request.seconds)
    (seconds,) = lengths if len(lengths) == 1 else (None,)
    if seconds is None:
        raise InputError("follow: curves given as numbers need one duration for all, which they are spread over")
    frames = math.ceil(seconds * rate / hop) + 1
    values = np.full((frames, len(CURVES)), np.nan, np.float32)
    for name, given_points in follow.items():
        points = _numbers(given_points)
        if points is None:
            raise InputError(f"follow: {name} must be a list of finite numbers")
        spread = np.interp(np.linspace(0, 1, frames), np.linspace(0, 1, len(points)), points)
        values[:, CURVES.index(name)] = scaled(name, spread)
    return values, None, {"follow": {name: np.asarray(v, np.float64).tolist() for name, v in follow.items()}}


def _numbers(values: object) -> np.ndarray | None:
    """(n,) float64; None for what is no list of finite numbers."""
    try:
        points = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        return None
    return points if points.ndim == 1 and len(points) and np.isfinite(points).all() else None


def _with_length(request: Request, followed: float | None) -> Request:
    """A sound that follows another, of so many seconds, is as long, unless a length is asked for."""
    if followed is None or any(seconds is not None for seconds in request.seconds):
        return request
    return Request(request.prompts, request.negatives, (followed,) * len(request))
