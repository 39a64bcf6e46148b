"""What every pipeline that is asked in words checks alike, before any work."""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from multidiff import checkpoint
from multidiff.conditioning.text import Vocabulary, words
from multidiff.errors import InputError, unknown
from multidiff.guidance import Interval, Scale
from multidiff.guidance.combine import Combine
from multidiff.pipeline import Pipeline

APART = frozenset(
    ("self", "num_samples", "seed", "indices", "generator", "batch_size", "callback_on_step_end", "output_type")
)
"""Arguments of a call that say which samples are made and how they are handed back; the others say what is made."""


def filled(pipe: Pipeline, call: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call that say what is made, with the defaults that the pipeline's call has.

    Raises:
        InputError: there is no argument of a name in `call`.
    """
    parameters = inspect.signature(type(pipe).__call__).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items() if name not in APART}
    for name in call:
        if name not in defaults:
            raise unknown("argument", name, defaults)
    return {**defaults, **call}


def warn_of_words(pipe: Pipeline, vocabulary: Vocabulary, texts: Iterable[str | None]) -> None:
    """Warn once of each text that holds no word, one that the checkpoint never saw, or more than are read."""
    for text in dict.fromkeys(text for text in texts if text):
        encoded = vocabulary.encode(text)
        if text.strip() and not words(text):
            pipe.warn(f"the prompt {text[:40]!r} holds no word; it says as much as an empty one")
        if encoded.unknown:
            names = ", ".join(map(repr, encoded.unknown[:8])) + (", ..." if len(encoded.unknown) > 8 else "")
            left = "is left out" if len(encoded.unknown) == 1 else "are left out"
            pipe.warn(f"the checkpoint never saw {names}, which {left} of the prompt")
        if encoded.cut:
            left = " ".join(encoded.cut[:8])
            pipe.warn(f"a prompt has more than the {vocabulary.longest} words that are read; left out: {left}")


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance of a call.

    Attributes:
        scale: 1 is none.
        above: sigma / alpha above which there is guidance; None for everywhere. What a sample is of is settled while
            there is much noise; below, the second estimate costs much and changes little (Kynkaanniemi et al. 2024).
    """

    scale: float
    above: float | None = None

    @classmethod
    def of(cls, pipe: Pipeline, asked: float | None, negatives: Collection[str | None]) -> Self:
        """At the scale asked for or recommended; warns where it lies outside of what is recommended, or has no effect.

        Raises:
            InputError: it is no finite number of 0 or more.
        """
        known = pipe.config["recommended"]
        scale = known.get("guidance_scale", 1.0) if asked is None else asked
        if isinstance(scale, bool) or not (isinstance(scale, int | float) and math.isfinite(scale) and scale >= 0):
            raise InputError(f"guidance_scale {scale!r} is not allowed: a finite number, 0 or more")
        low, high = known.get("guidance_range", (0.0, math.inf))
        if not low <= scale <= high:
            name = pipe.name or "this checkpoint"
            pipe.warn(f"guidance scale {scale:g}: {name} is recommended with {low:g} to {high:g}")
        if scale == 1 and any(negatives):
            pipe.warn("a negative prompt has no effect at guidance scale 1; give a larger one")
        return cls(float(scale), known.get("guidance_above"))

    def recipe(self) -> dict[str, float]:
        """Plain values, for the files."""
        above = {} if self.above is None or self.scale == 1 else {"guidance_above": self.above}
        return {"guidance_scale": self.scale, **above}

    def rules(self) -> list[Combine]:
        """For `Guided`."""
        return [Scale(self.scale)] + ([] if self.above is None else [Interval(self.above, math.inf)])


def read_vocabulary(config: Mapping[str, Any], path: Path) -> Vocabulary:
    """The words that a checkpoint knows, from its configuration in the file `path`.

    Raises:
        InputError: `words` or `longest` is missing or wrong.
    """
    spelled = checkpoint.require(config, "vocabulary", dict, path)
    known = checkpoint.require(spelled, "words", list, path)
    longest = checkpoint.require(spelled, "longest", int, path)
    if not all(isinstance(word, str) for word in known) or not 1 <= longest <= 512:
        raise InputError(f"{path}: 'vocabulary' must hold a list of words, and 'longest' from 1 to 512")
    return Vocabulary(tuple(known), longest)


def check_network(config: Mapping[str, Any], expected: Mapping[str, Any], path: Path) -> None:
    """Raise `InputError` where the network is spelled otherwise than the rest of the configuration asks for."""
    spec = checkpoint.require(config, "network", dict, path)
    for name, value in expected.items():
        if spec.get(name) != value:
            raise InputError(f"{path}: 'network' has {name} {spec.get(name)!r}, and the rest asks for {value!r}")


def check_recommended(config: Mapping[str, Any], path: Path) -> None:
    """Raise `InputError` where what a checkpoint recommends lacks something or is of another kind."""
    known = checkpoint.require(config, "recommended", dict, path)
    checkpoint.require(known, "solver", str, path)
    checkpoint.require(known, "num_inference_steps", int, path)
    for name in ("steps_range", "guidance_range"):
        pair = known.get(name, [1, 1])
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(n, int | float) for n in pair)):
            raise InputError(f"{path}: {name!r} must be a list of two numbers")
    above = known.get("guidance_above", 0.0)
    if isinstance(above, bool) or not (isinstance(above, int | float) and 0 <= above < math.inf):
        raise InputError(f"{path}: 'guidance_above' must be a finite number, 0 or more, not {above!r}")
