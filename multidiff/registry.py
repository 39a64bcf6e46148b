"""Names for things that a command line or a configuration asks for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from multidiff.errors import InputError, unknown


@dataclass(frozen=True)
class Entry:
    """What a name stands for: a factory, the options that the name fixes, and one line for `multidiff list`."""

    factory: Callable[..., Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    summary: str = ""


def build(kind: str, registry: Mapping[str, Entry], name: str, options: Mapping[str, Any]) -> Any:
    """Make what `name` stands for.

    Raises:
        InputError: the name or an option is unknown (the nearest one is suggested), or an option is missing.
    """
    if name not in registry:
        raise unknown(kind, name, registry)
    entry = registry[name]
    signature = inspect.signature(entry.factory)
    free = [option for option in signature.parameters if option not in entry.options]
    for option in options:
        if option not in free:
            raise unknown(f"option of {kind} {name}", option, free)
    for option in free:
        if option not in options and signature.parameters[option].default is inspect.Parameter.empty:
            raise InputError(f"{kind} {name} needs the option {option!r}")
    return entry.factory(**entry.options, **options)
