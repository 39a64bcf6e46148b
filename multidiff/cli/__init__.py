"""The command line. Only the sub-command asked for is imported; `--help` needs the standard library alone."""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import sys
from collections.abc import Sequence

from multidiff import __version__
from multidiff.errors import InputError

# sub-command -> (its module here, what it does); a module called `list` would hide the builtin in this file
COMMANDS = {
    "generate": ("generate", "make molecules, sounds or videos with a trained model"),
    "fit": ("fit", "train a model from a recipe or a YAML file"),
    "validate": ("fit", "validation loss of a training checkpoint"),
    "test": ("fit", "test loss of a training checkpoint"),
    "predict": ("fit", "predictions of a training checkpoint"),
    "prepare": ("prepare", "raw files -> a packed, checked data set"),
    "evaluate": ("evaluate", "quality of files on disk"),
    "list": ("listing", "what there is: checkpoints, recipes, domains, solvers, ..."),
    "info": ("info", "a checkpoint's card, sizes and recommended settings"),
}

HELP = """usage: multidiff COMMAND ...

Diffusion models for molecules, sound and video.

commands:
{commands}

examples:
  multidiff generate molecules --num-samples 16 --seed 0 --out out/
  multidiff generate audio "seven, spoken by theo" --num-samples 4 --out seven/
  multidiff prepare molecules my.sdf my.npz
  multidiff fit --config molecules-qm9 --data.path my.npz
  multidiff evaluate molecules out/molecules.sdf --reference my.sdf
  multidiff list

'multidiff COMMAND --help' explains each. Exit codes: 0 done, 2 bad input or option, 130 interrupted."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command; returns the exit code."""
    try:
        code = _dispatch(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # argparse's --help, Lightning's own command line
        if isinstance(stop.code, str):
            return _refuse(stop.code)
        return stop.code or 0
    except InputError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        print("multidiff: interrupted; what was finished is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `multidiff list | head -1`: nobody is reading any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in _NO_SPACE + _REFUSED:
            raise
        what = "disk full" if error.errno in _NO_SPACE else error.strerror
        return _refuse(f"{what}: {error.filename}" if error.filename else str(what))
    except ModuleNotFoundError as error:
        from multidiff.domain import missing

        known = missing(error)
        if known is None:
            raise
        return _refuse(str(known))


def _dispatch(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        rows = (f"  {name:<9} {summary}" for name, (_, summary) in COMMANDS.items())
        print(HELP.format(commands="\n".join(rows)))
        return 0
    if args[0] in ("-V", "--version"):
        print(f"multidiff {__version__}")
        return 0
    if args[0] not in COMMANDS:
        near = difflib.get_close_matches(args[0], COMMANDS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(COMMANDS)}"
        raise InputError(f"unknown command {args[0]!r}; {hint}")
    module = importlib.import_module(f"multidiff.cli.{COMMANDS[args[0]][0]}")
    return int(module.run(args[0], args[1:]) or 0)


def _refuse(message: str) -> int:
    print(f"multidiff: error: {' '.join(message.split())}", file=sys.stderr)
    return 2
