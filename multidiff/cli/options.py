"""The parser all sub-commands share, and the types of their values."""

from __future__ import annotations

import argparse
import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from multidiff.errors import InputError, unknown

if TYPE_CHECKING:
    from multidiff.domain import Domain
    from multidiff.prompts import Column

LARGEST_SEED = 2**63 - 1
MOST_STEPS = 10_000


class Parser(argparse.ArgumentParser):
    """An argparse parser whose errors are one `InputError` each, with a hint for what is misspelt."""

    def __init__(self, command: str, description: str, examples: str = "", add_help: bool = True) -> None:
        super().__init__(
            prog=f"multidiff {command}",
            description=description,
            epilog=f"examples:\n{examples}" if examples else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            add_help=add_help,
        )

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see '{self.prog} --help')")

    def parse(self, args: Sequence[str]) -> argparse.Namespace:
        """Positionals and options in any order.

        Raises:
            InputError: something is unknown, missing or of the wrong kind.
        """
        self._check_options(args)
        parsed, rest = self.parse_known_intermixed_args(list(args))
        if rest:
            self.error(f"unexpected argument {rest[0]!r}")
        return parsed

    def _check_options(self, args: Sequence[str]) -> None:
        # Before argparse looks: it would complain of the required option that the misspelt one was meant to be.
        known = self._option_string_actions
        for token in args:
            option = token.partition("=")[0]
            if token == "--":
                return
            if option.startswith("--") and option not in known:
                near = difflib.get_close_matches(option, [k for k in known if k.startswith("--")], n=1, cutoff=0.6)
                self.error(f"unknown option {option!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


def extras(parsed: argparse.Namespace, own: Sequence[str]) -> dict[str, Any]:
    """What the user gave for the options that are not among a sub-command's `own`: those of the domain."""
    return {name: value for name, value in vars(parsed).items() if name not in own and value is not None}


def whole(least: int = 1, most: int | None = None) -> Callable[[str], int]:
    """A type for argparse: an integer from `least` to `most`."""
    allowed = f"an integer from {least} to {most}" if most is not None else f"an integer, {least} or more"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be {allowed}, not {text[:40]!r}") from None
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"must be {allowed}, not {text[:40]}")
        return value

    return parse


def seed(text: str) -> int:
    """A type for argparse: 0 <= seed < 2**63."""
    try:
        value = int(text)
    except ValueError:
        value = -1
    if not 0 <= value <= LARGEST_SEED:
        raise argparse.ArgumentTypeError(f"the seed must be an integer from 0 to 2**63 - 1, not {text[:40]}")
    return value


def scale(text: str) -> float:
    """A type for argparse: a finite number, not negative."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0):
        raise argparse.ArgumentTypeError(f"must be a finite number, 0 or more, not {text[:40]!r}")
    return value


def one_of(kind: str, allowed: Sequence[str]) -> Callable[[str], str]:
    """A type for argparse: one of some names; suggests the nearest."""

    def parse(text: str) -> str:
        if text not in allowed:
            raise argparse.ArgumentTypeError(str(unknown(kind, text, allowed)))
        return text

    return parse


def existing_file(text: str) -> str:
    """A type for argparse: the path of a file that is there."""
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"no file {text}")
    return text


def add_prompts(parser: argparse.ArgumentParser, columns: Mapping[str, Column]) -> None:
    """The options of a domain that is asked in words: PROMPT..., --prompts, --negative-prompt.

    Args:
        columns: that a file of prompts may have beside the texts; their names are those of the call's arguments. An
            option of such a name has the action `NotInFile`.
    """

    class File(argparse.Action):
        """Prompts of a file, with what else its columns say."""

        def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
            from multidiff import prompts

            if getattr(namespace, "prompt", None):
                raise InputError("give prompts on the command line or in a file, not both")
            for name, value in prompts.read(values, columns).items():
                if name != "prompt" and getattr(namespace, name, None) is not None:
                    raise _twice(name)
                setattr(namespace, name, value)  # each is an option's or an argument's name

    add = parser.add_argument
    named = ", ".join(("prompt", "negative_prompt", *columns))
    add("prompt", nargs="*", metavar="PROMPT", action=_Prompts, help="in plain words; several are taken in turn")
    add("--prompts", dest="prompt", type=Path, action=File, metavar="FILE",
        help=f"a text file, a prompt a line; or CSV or JSONL with {named}")  # fmt: skip
    add("--negative-prompt", action=NotInFile, metavar="TEXT", help="what to move away from")


class NotInFile(argparse.Action):
    """Stores an option that a file of prompts may give too, and has not."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        if isinstance(getattr(namespace, self.dest, None), list):
            raise _twice(self.dest)
        setattr(namespace, self.dest, values)


def _twice(name: str) -> InputError:
    option = "--" + name.replace("_", "-")
    return InputError(f"give {name} in the file of --prompts or as {option}, not both: leave one of them out")


class _Prompts(argparse.Action):
    """Words after the domain; none of them is not an empty prompt."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        if values:
            if getattr(namespace, "prompt", None):
                raise InputError("give prompts on the command line or in a file, not both")
            namespace.prompt = list(values)


def domain_of(args: Sequence[str], add_arguments: Callable[[Parser], None], command: str) -> str:
    """The positional DOMAIN among `args`, wherever it stands; the domain decides what else is an option.

    Raises:
        InputError: none is given.
    """
    from multidiff import domain

    parser = Parser(command, "", add_help=False)
    add_arguments(parser)
    for action in parser._actions:
        action.required = False
        action.type = None
    known, rest = parser.parse_known_args(list(args))
    names = domain.names()
    if known.domain is None:
        raise InputError(f"multidiff {command} needs a domain: one of {', '.join(names)}")
    # What stands first may be the value of an option that only the domain knows.
    return next((token for token in [known.domain, *rest] if token in names), str(known.domain))


def domain_parser(
    command: str, description: str, examples: str, add_arguments: Callable[[Parser], None], domain: Domain | None
) -> Parser:
    """The parser of a sub-command that works on a domain: its own options, then those that the domain adds."""
    from multidiff import domain as domains

    parser = Parser(f"{command} {domain.name}" if domain else command, description, examples)
    add_arguments(parser)
    hook = getattr(domain, f"{command}_arguments", "")
    if hook:
        domains.load(hook)(parser)
    return parser
