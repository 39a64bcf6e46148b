"""Domains: what the core asks of molecules, sound, video and whatever others add.

A domain is a package of its own that names a `Domain` object in the entry-point group ``multidiff.domains``. It is
imported when somebody asks for it by name, never before. Everything heavy is named as ``"module:attribute"`` and
imported when used, so that `multidiff --help` and `multidiff list` cost nothing.
"""

from __future__ import annotations

import importlib
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from multidiff.errors import InputError, unknown

GROUP = "multidiff.domains"


@dataclass(frozen=True)
class Domain:
    """What a domain says about itself.

    Options that an `*_arguments` hook adds to the command line reach the function behind it as keyword arguments of
    the same name; those the user left out are not passed.

    Attributes:
        name: as in `multidiff generate NAME`; also the extra that installs what it needs.
        summary: one line for `multidiff list domains`.
        folder: of the package; holds `pretrained/<checkpoint>/` and `configs/<recipe>.yaml`.
        default_checkpoint: what the bare name of the domain stands for.
        components: class names a checkpoint's config.json may hold -> ``"module:attribute"``; no other is imported.
        pipeline: ``"module:attribute"``; the attribute is called as ``(config, tensors, folder)`` by
            `multidiff.load`, with the folder for error messages; see `multidiff.pipeline.Pipeline`.
        prepare: ``"module:function"``, called as ``(input: Path, output: Path, **options)``; returns the report, text.
        evaluate: ``"module:function"``, called as ``(path: Path, reference: Path | None, **options)``;
            returns a mapping of figures that JSON can hold.
        table: ``"module:function"``, called with that mapping; the text to print. Default: a line a figure.
        generate_arguments, prepare_arguments, evaluate_arguments: ``"module:function"``, called with the parser, to add
            the domain's own options to it.
    """

    name: str
    summary: str
    folder: Path
    default_checkpoint: str
    components: Mapping[str, str] = field(default_factory=dict)
    pipeline: str = ""
    prepare: str = ""
    evaluate: str = ""
    table: str = ""
    generate_arguments: str = ""
    prepare_arguments: str = ""
    evaluate_arguments: str = ""

    def checkpoints(self) -> dict[str, Path]:
        """Name -> folder of every checkpoint that ships with the domain."""
        return {path.parent.name: path.parent for path in sorted(self.folder.glob("pretrained/*/config.json"))}

    def recipes(self) -> dict[str, Path]:
        """Name -> YAML file of every training recipe that ships with the domain."""
        return {path.stem: path for path in sorted(self.folder.glob("configs/*.yaml"))}


def names() -> list[str]:
    """The names of all installed domains; imports none of them."""
    return sorted({entry.name for entry in metadata.entry_points(group=GROUP)})


def find(name: str) -> Domain:
    """The domain called `name`, imported now.

    Raises:
        InputError: there is none of that name, or something it needs is not installed.
    """
    entries = metadata.entry_points(group=GROUP, name=name)
    if not entries:
        raise unknown("domain", name, names())
    try:
        domain = next(iter(entries)).load()
    except ModuleNotFoundError as error:
        raise missing(error) or _broken(name, error) from error
    except (ImportError, AttributeError) as error:
        raise _broken(name, error) from error
    if not isinstance(domain, Domain):
        raise InputError(f"the entry point {GROUP}:{name} is no multidiff.domain.Domain; mend the package it is from")
    return domain


def _broken(name: str, error: Exception) -> InputError:
    return InputError(f"the domain {name!r} cannot be imported ({error}); mend or reinstall the package it is from")


def load(reference: str) -> Any:
    """The object that ``"module:attribute"`` names.

    Raises:
        InputError: a package that an extra of multidiff installs is missing.
    """
    module, _, attribute = reference.partition(":")
    try:
        return operator.attrgetter(attribute)(importlib.import_module(module))
    except ModuleNotFoundError as error:
        raise missing(error) or error from error


def missing(error: ModuleNotFoundError) -> InputError | None:
    """The one line that mends a missing package, if one of multidiff's extras installs it."""
    module = (error.name or "").partition(".")[0].lower()
    extras = []
    for requirement in metadata.requires("multidiff") or []:
        package = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        if extra and package.lower().replace("-", "_") == module:
            extras.append(extra[1])
    if not extras:
        return None
    extras.sort(key=("all", "dev").__contains__)  # the smallest install that mends it
    return InputError(f'{module} is not installed; it comes with: pip install "multidiff[{extras[0]}]"')
