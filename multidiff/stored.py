"""What a large job has made so far, a few samples a file, each sample an array; read again when it is used."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from multidiff.errors import InputError
from multidiff.files import atomic_path


class Output(Protocol):
    """What a call of a pipeline gives, of prompts."""

    @property
    def prompts(self) -> Sequence[str]: ...
    @property
    def indices(self) -> Sequence[int]: ...
    @property
    def failed(self) -> dict[int, int]: ...


@dataclass(frozen=True, eq=False)
class Stored:
    """Samples in the order of their numbers.

    Attributes:
        arrays: one of each, in files; an `InputError` is raised where its file is gone or damaged.
        prompts, indices: of each; the index is the sample number.
        failed: sample number -> step at which it was not finite.
        about: what else was kept.
    """

    arrays: Sequence[NDArray[Any]]
    prompts: list[str]
    indices: list[int]
    failed: dict[int, int]
    about: dict[str, Any]


def store(path: Path, outputs: Sequence[Output], arrays: Iterable[NDArray[Any]], **about: Any) -> None:
    """Keep outputs in one file beside `path`, for `restore`.

    Args:
        path: without a suffix.
        outputs: of which the prompts, sample numbers and failures are kept.
        arrays: of all their samples, in order.
        about: what else is kept, plain values.

    Raises:
        InputError: the disk is full.
    """
    samples = {
        "prompts": [prompt for output in outputs for prompt in output.prompts],
        "samples": [int(i) for output in outputs for i in output.indices],
        "failed": [[int(i), int(step)] for output in outputs for i, step in output.failed.items()],
    }
    text = np.frombuffer(json.dumps({**samples, "more": about}).encode(), np.uint8)
    named = {_name(k): array for k, array in enumerate(arrays)}
    with atomic_path(path.with_suffix(".npz")) as temporary, open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, about=text, **named)


def restore(paths: Sequence[Path]) -> Stored:
    """All that was kept, in the order of the sample numbers.

    Raises:
        InputError: a file is damaged; says which.
    """
    files = [path.with_suffix(".npz") for path in paths]
    abouts = [_about(file) for file in files]
    samples = [i for about in abouts for i in about["samples"]]
    prompts = [prompt for about in abouts for prompt in about["prompts"]]
    places = [(file, k) for file, about in zip(files, abouts, strict=True) for k in range(len(about["samples"]))]
    order = sorted(range(len(samples)), key=samples.__getitem__)
    return Stored(
        arrays=_Arrays([places[k] for k in order]),
        prompts=[prompts[k] for k in order],
        indices=[samples[k] for k in order],
        failed={i: step for about in abouts for i, step in about["failed"]},
        about=abouts[0]["more"] if abouts else {},
    )


def _name(k: int) -> str:
    return f"sample-{k}"


def _about(file: Path) -> dict[str, Any]:
    """What a file holds beside the arrays, after a look at the check sums of everything in it."""
    try:
        with zipfile.ZipFile(file) as packed:
            broken = packed.testzip()
            names = set(packed.namelist())
        if broken:
            raise ValueError(f"{broken} is not what was written")
        with np.load(file, allow_pickle=False) as arrays:
            about = json.loads(arrays["about"].tobytes())
        count = len(about["samples"])
        if len(about["prompts"]) != count or not {f"{_name(k)}.npy" for k in range(count)} <= names:
            raise ValueError("samples are missing")
        return {name: about[name] for name in ("prompts", "samples", "failed", "more")}
    except Exception as error:  # zip, zlib, json and numpy each have their own
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> InputError:
    return InputError(f"{file} is damaged ({error}); delete it and run the same command again")


class _Arrays(Sequence[NDArray[Any]]):
    """Arrays in files, each read when asked for."""

    def __init__(self, places: Sequence[tuple[Path, int]]) -> None:
        self.places = places

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, i: int) -> NDArray[Any]: ...
    @overload
    def __getitem__(self, i: slice) -> list[NDArray[Any]]: ...
    def __getitem__(self, i: int | slice) -> NDArray[Any] | list[NDArray[Any]]:
        if isinstance(i, slice):
            return [self._read(*place) for place in self.places[i]]
        return self._read(*self.places[i])

    @staticmethod
    def _read(file: Path, k: int) -> NDArray[Any]:
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return arrays[_name(k)]
        except Exception as error:  # as above
            raise _damaged(file, error) from error
