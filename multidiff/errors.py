"""What a user is told when something they gave cannot be used."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """A file, option or value from the user is wrong; the message is one line and says how to mend it.

    The command line prints the message and exits with code 2; from Python it is an ordinary `ValueError`.
    """


def unknown(kind: str, value: object, allowed: Iterable[str]) -> InputError:
    """The error for a name that is not in a registry; suggests the nearest name.

    Example: ``unknown("solver", "dmp++2m", SOLVERS)`` reads
    ``unknown solver 'dmp++2m'; did you mean 'dpm++2m'? (allowed: ddim, ...)``.
    """
    names = sorted(allowed)
    near = difflib.get_close_matches(str(value).lower(), [n.lower() for n in names], n=1, cutoff=0.5)
    by_lower = {n.lower(): n for n in names}
    hint = f"; did you mean {by_lower[near[0]]!r}?" if near else ""
    return InputError(f"unknown {kind} {value!r}{hint} (allowed: {', '.join(names)})")
