"""A checkpoint's configuration: whether its parts are there and fit each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multidiff import checkpoint
from multidiff.conditioning.text import Vocabulary
from multidiff.errors import InputError
from multidiff_audio.representation import Representation


def read_vocabulary(spelled: Mapping[str, Any], path: Path) -> Vocabulary:
    """The words that a checkpoint knows.

    Raises:
        InputError: `words` or `longest` is missing or wrong.
    """
    known = checkpoint.require(spelled, "words", list, path)
    longest = checkpoint.require(spelled, "longest", int, path)
    if not all(isinstance(word, str) for word in known) or not 1 <= longest <= 512:
        raise InputError(f"{path}: 'vocabulary' must hold a list of words, and 'longest' from 1 to 512")
    return Vocabulary(tuple(known), longest)


def check(config: Mapping[str, Any], representation: Representation, vocabulary: Vocabulary, path: Path) -> None:
    """Raise `InputError` where the parts of a configuration do not fit each other; `path` is its file."""
    _check_network(config, representation, vocabulary, path)
    _check_durations(config, path)
    _check_recommended(config, path)


def _check_network(
    config: Mapping[str, Any], representation: Representation, vocabulary: Vocabulary, path: Path
) -> None:
    classes = checkpoint.require(config, "classes", dict, path)
    for name in classes:
        names = checkpoint.require(classes, name, list, path)
        if not names or not all(isinstance(text, str) for text in names):
            raise InputError(f"{path}: the class {name!r} must be a list of names")
    spec = checkpoint.require(config, "network", dict, path)
    expected = {
        "channels": representation.shape[0],
        "bands": representation.shape[1],
        "text_size": len(vocabulary),
        "text_longest": vocabulary.longest,
        "classes": [len(names) for names in classes.values()],
        "fold_time": representation.fold_time,
    }
    for name, value in expected.items():
        if spec.get(name) != value:
            raise InputError(f"{path}: 'network' has {name} {spec.get(name)!r}, and the rest asks for {value!r}")


def _check_durations(config: Mapping[str, Any], path: Path) -> None:
    durations = checkpoint.require(config, "durations", dict, path)
    ends = [float(checkpoint.require(durations, name, (int, float), path)) for name in ("shortest", "longest")]
    if not 0 < ends[0] < ends[1] < 1e5:
        raise InputError(f"{path}: 'durations' must be 0 < shortest < longest, not {ends}")


def _check_recommended(config: Mapping[str, Any], path: Path) -> None:
    known = checkpoint.require(config, "recommended", dict, path)
    checkpoint.require(known, "solver", str, path)
    checkpoint.require(known, "num_inference_steps", int, path)
    for name in ("steps_range", "guidance_range"):
        pair = known.get(name, [1, 1])
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(n, int | float) for n in pair)):
            raise InputError(f"{path}: {name!r} must be a list of two numbers")
