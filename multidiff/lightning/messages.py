"""One line for each thing that can be wrong on the command line of `fit` and in its YAML."""

from __future__ import annotations

import re
from typing import Any, NoReturn

from lightning.pytorch.cli import LightningArgumentParser

from multidiff.errors import InputError


class Parser(LightningArgumentParser):
    """Raises `InputError` with one line where argparse would print its usage and leave."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise InputError(message)


def refused(error: Exception) -> InputError:
    """The first line of what a constructor said."""
    return InputError(str(error).strip().partition("\n")[0] or type(error).__name__)


def misfit(error: RuntimeError) -> InputError | None:
    """The line for weights that are not those of the model of the YAML; None for any other error."""
    text = str(error)
    if "loading state_dict" not in text:
        return None
    faults = [" ".join(line.split()) for line in text.splitlines()[1:] if line.strip()]
    return InputError(f"--ckpt_path does not fit the model of the YAML: {faults[0] if faults else text}")


_ = (re, Any)
