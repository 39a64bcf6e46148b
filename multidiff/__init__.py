"""Diffusion models for molecules, sound and video.

    pipe = multidiff.load("molecules")
    out = pipe(num_samples=16, seed=0)

Names are imported when first used, so that the command line's `--help` does not wait for torch.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multidiff.denoiser import Denoiser
    from multidiff.errors import InputError
    from multidiff.pipeline import load
    from multidiff.process import Level, Process
    from multidiff.random import Rng
    from multidiff.sample import sample
    from multidiff.state import Parts

__version__ = "0.1.0"
__all__ = ["Denoiser", "InputError", "Level", "Parts", "Process", "Rng", "__version__", "load", "sample"]

_HOME = {
    "Denoiser": "multidiff.denoiser",
    "InputError": "multidiff.errors",
    "Level": "multidiff.process",
    "Parts": "multidiff.state",
    "Process": "multidiff.process",
    "Rng": "multidiff.random",
    "load": "multidiff.pipeline",
    "sample": "multidiff.sample",
}


_MODULES = ("denoiser", "grid", "guidance", "prediction", "process", "schedule", "solver", "space", "state", "testing")
"""What is reached as `multidiff.solver` without an import of its own."""


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"multidiff.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'multidiff' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])


class _Package(types.ModuleType):
    """Importing the module `multidiff.sample` would otherwise hide the function of that name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "sample" and isinstance(value, types.ModuleType):
            value = value.sample
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
