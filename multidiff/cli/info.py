"""multidiff info: what a checkpoint is."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from multidiff import checkpoint
from multidiff.cli import options
from multidiff.errors import InputError

DESCRIPTION = "A checkpoint's recommended settings, sizes and model card."

EXAMPLES = """\
  multidiff info molecules-qm9
  multidiff info runs/mine/export"""


def run(command: str, args: list[str]) -> int:
    """Print it; no weight is loaded and torch is not imported."""
    parser = options.Parser(command, DESCRIPTION, EXAMPLES)
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="a shipped name, a folder or a hub id")
    folder = checkpoint.resolve(parser.parse(args).checkpoint)
    config = checkpoint.read_config(folder)
    print(f"folder       {folder}")
    print(f"domain       {config['domain']}")
    for name in ("network", "prediction", "process"):
        if name in config:
            print(f"{name:<12} {_line(config[name])}")
    weights = folder / checkpoint.WEIGHTS
    if weights.is_file():
        print(f"weights      {_count(weights):,} in {weights.stat().st_size / 1e6:.1f} MB")
    recommended = config.get("recommended")
    if isinstance(recommended, dict):
        print("recommended  " + ", ".join(f"{name} {_line(value)}" for name, value in recommended.items()))
    card = folder / checkpoint.CARD
    if card.is_file():
        print("\n" + card.read_text(encoding="utf-8", errors="replace").rstrip())
    return 0


def _line(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _count(path: Path) -> int:
    """How many numbers a safetensors file holds, from its header alone."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
