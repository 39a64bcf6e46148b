"""A checkpoint's configuration: whether its parts are there and fit each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from multidiff import checkpoint
from multidiff.conditioning.text import Vocabulary
from multidiff.errors import InputError
from multidiff.prompted import check_network, check_recommended
from multidiff_audio.representation import Representation


def check(config: Mapping[str, Any], representation: Representation, vocabulary: Vocabulary, path: Path) -> None:
    """Raise `InputError` where the parts of a configuration do not fit each other; `path` is its file."""
    _check_network(config, representation, vocabulary, path)
    _check_durations(config, path)
    check_recommended(config, path)


def _check_network(
    config: Mapping[str, Any], representation: Representation, vocabulary: Vocabulary, path: Path
) -> None:
    classes = checkpoint.require(config, "classes", dict, path)
    for name in classes:
        names = checkpoint.require(classes, name, list, path)
        if not names or not all(isinstance(text, str) for text in names):
            raise InputError(f"{path}: the class {name!r} must be a list of names")
    expected = {
        "channels": representation.shape[0],
        "bands": representation.shape[1],
        "text_size": len(vocabulary),
        "text_longest": vocabulary.longest,
        "classes": [len(names) for names in classes.values()],
        "fold_time": representation.fold_time,
    }
    check_network(config, expected, path)


def _check_durations(config: Mapping[str, Any], path: Path) -> None:
    durations = checkpoint.require(config, "durations", dict, path)
    ends = [float(checkpoint.require(durations, name, (int, float), path)) for name in ("shortest", "longest")]
    if not 0 < ends[0] < ends[1] < 1e5:
        raise InputError(f"{path}: 'durations' must be 0 < shortest < longest, not {ends}")
