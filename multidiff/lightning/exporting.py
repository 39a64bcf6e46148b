"""From a training checkpoint to the folder that `multidiff.load` reads."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from multidiff import checkpoint
from multidiff.errors import InputError

CONFIG = "multidiff_export"
"""Where a training checkpoint keeps the configuration of the folder that can be made of it."""

AVERAGED = "ema.network."
"""What the names of the averaged weights begin with."""


def export(ckpt_path: str | Path, folder: str | Path, config: Mapping[str, Any] | None = None) -> Path:
    """Write the averaged weights of a training checkpoint as a checkpoint folder.

    Args:
        ckpt_path: what `multidiff fit` saved, of a finished or an interrupted run.
        folder: see `multidiff.checkpoint.save`.
        config: see `multidiff.checkpoint`; by default the one that the module put into the training checkpoint.

    Raises:
        InputError: the file is missing or damaged, or it is not a training checkpoint of multidiff's.
    """
    saved = read(ckpt_path)
    config = config if config is not None else saved.get(CONFIG)
    weights = averaged(saved.get("state_dict", {}))
    if config is None or not weights:
        raise InputError(f"{ckpt_path} has no averaged weights or no configuration; give one that multidiff fit saved")
    return write(folder, config, weights, int(saved.get("global_step", 0)))


def write(folder: str | Path, config: Mapping[str, Any], weights: Mapping[str, Tensor], steps: int) -> Path:
    """A checkpoint folder with a card that says what is known of the run."""
    return checkpoint.save(folder, config, weights, card(config, weights, steps))


def averaged(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The averaged weights in a module's state, under the network's own names."""
    return {name.removeprefix(AVERAGED): value for name, value in state.items() if name.startswith(AVERAGED)}


def read(ckpt_path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """A training checkpoint; nothing in it runs.

    Raises:
        InputError: it is missing, damaged, or holds more than plain values and tensors.
    """
    try:
        saved = torch.load(ckpt_path, map_location=map_location, weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"no training checkpoint at {ckpt_path}") from error
    except OSError as error:
        raise InputError(f"cannot read {ckpt_path}: {error.strerror or error}") from error
    except pickle.UnpicklingError as error:
        raise InputError(f"{ckpt_path} is no training checkpoint, or holds more than plain values") from error
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{ckpt_path} is damaged or no training checkpoint: {reason}") from error
    if not isinstance(saved, dict) or "state_dict" not in saved:
        raise InputError(f"{ckpt_path} is no training checkpoint: it holds no 'state_dict'")
    return saved


def card(config: Mapping[str, Any], weights: Mapping[str, Tensor], steps: int) -> str:
    """A short model card."""
    network = config.get("network", {}).get("class", "network")
    count = sum(weight.numel() for weight in weights.values())
    return f"""---
library_name: multidiff
tags: [diffusion, {config["domain"]}]
---

# A {network} for {config["domain"]}

Averaged weights after {steps:,} optimiser steps of `multidiff fit`; {count:,} numbers.

    multidiff generate {config["domain"]} --checkpoint FOLDER --num-samples 16 --out out/
"""
