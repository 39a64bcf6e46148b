"""One line for each thing that can be wrong on the command line of `fit` and in its YAML."""

from __future__ import annotations

import argparse
import difflib
import inspect
import re
from collections.abc import Iterable, Iterator
from typing import NoReturn

import lightning
from lightning.pytorch.cli import LightningArgumentParser

from multidiff.errors import InputError
from multidiff.lightning.module import DiffusionModule

_BASES = {"model": DiffusionModule, "data": lightning.LightningDataModule}
_KINDS = {"int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "NoneType": "null"}
_LONGEST = 300


class Parser(LightningArgumentParser):
    """Raises `InputError` with the whole message where argparse would print its usage and leave; see `shorten`."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise InputError(message) from ex


def shorten(message: str, known: Iterable[str] = ()) -> str:
    """What jsonargparse says of a wrong key, class or value, in one line; with the nearest of the `known` keys."""
    section = (re.findall(r'Parser key "([\w.]+)"', message) or [""])[0]
    if found := re.search(r"does not accept option '([^']+)'", message):
        return _unknown(found[1], known)
    if found := re.search(r"[Uu]nrecognized arguments: (?:--)?([^\s=]+)", message):
        return _unknown(found[1], known)
    if found := re.search(r"Option '([^']+)' is not accepted", message):
        return _unknown(f"{section}.{found[1]}", [f"{section}.{name}" for name in _arguments(section)])
    if found := re.search(r"Problem with given class_path '([^']+)':\s*(.*)", message):
        return f"{section}.class_path: cannot use {found[1]}: {found[2].strip()}"
    if found := re.search(r'Parser key "([\w.]+)":\s*Expected a (.+?)\. Got value: (.*)', message):
        key = found[1] if found[1] == section else f"{section}.{found[1]}"
        return f"{key}: {found[3].strip()!r} is not allowed; it must be {_kinds([found[2]])}"
    expected = re.findall(r"- Expected a (.+?)(?=\s*\n|\s*- Expected|\s*Given value|$)", message)
    if expected and (given := re.search(r"Given value: (.*)", message)):
        return f"{section}: {given[1].strip()!r} is not allowed; it must be {_kinds(expected)}"
    line = " ".join(message.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."


def _unknown(key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.6)
    return f"unknown option {key!r}; " + (f"did you mean {near[0]!r}?" if near else "see 'multidiff fit --help'")


def _kinds(names: Iterable[str]) -> str:
    """Names of types as a user would say them."""
    said = []
    for name in names:
        bare = re.sub(r"<class '(?:[\w]+\.)*(\w+)'>", r"\1", name)
        literal = re.search(r"Literal\[(.*)\]", bare)
        said.append(literal[1].replace("'", "") if literal else _KINDS.get(bare, bare))
    return " or ".join(dict.fromkeys(said))


def _arguments(section: str) -> list[str]:
    """Arguments of the classes that have been imported for a section."""
    base = _BASES.get(section)
    return sorted({name for kind in _subclasses(base) for name in inspect.signature(kind).parameters}) if base else []


def _subclasses(base: type) -> Iterator[type]:
    kinds: list[type] = base.__subclasses__()
    for kind in kinds:
        yield kind
        yield from _subclasses(kind)


def keys(parser: argparse.ArgumentParser) -> list[str]:
    """Every key that a parser and its sub-commands know."""
    found: list[str] = []
    for action in parser._actions:
        inner = action.choices if isinstance(action.choices, dict) else {}
        nested = [parser for parser in inner.values() if isinstance(parser, argparse.ArgumentParser)]
        found += [key for parser in nested for key in keys(parser)]
        found.append(action.dest)
    return found


def refused(error: Exception) -> InputError:
    """The line of the `InputError` that a constructor raised, or the first line of what it said."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, InputError):
        cause = cause.__cause__ or cause.__context__
    if isinstance(cause, InputError):
        return cause
    return InputError(str(error).strip().partition("\n")[0] or type(error).__name__)


def misfit(error: RuntimeError) -> InputError | None:
    """The line for weights that are not those of the model of the YAML; None for any other error."""
    text = str(error)
    if "loading state_dict" not in text:
        return None
    faults = [" ".join(line.split()) for line in text.splitlines()[1:] if line.strip()]
    return InputError(f"--ckpt_path does not fit the model of the YAML: {faults[0] if faults else text}")
