"""multidiff fit, validate, test, predict: Lightning's own command line, with the recipes that ship."""

from __future__ import annotations

from pathlib import Path

from multidiff import domain as domains
from multidiff.errors import InputError, unknown

HELP = """usage: multidiff {command} --config FILE.yaml|RECIPE [--any.option VALUE ...]

Lightning's own command line: the YAML holds model, data and trainer, and any option in it can be given after it.
RECIPE is the name of a YAML that ships; 'multidiff list recipes' shows them.
A YAML names classes that are imported and run: use only files that you trust as you would a program.

examples:
  multidiff {command} --config molecules-qm9 --data.path qm9.npz
  multidiff {command} --config mine.yaml --trainer.max_epochs 10
  multidiff {command} --config mine.yaml --ckpt_path runs/mine/last.ckpt
  multidiff {command} --config molecules-qm9 --print_config > mine.yaml

'multidiff {command} --config RECIPE --help' lists every option."""


def run(command: str, args: list[str]) -> int:
    """Put the path of a recipe for its name, and hand everything over."""
    if not args or args in (["-h"], ["--help"]):
        print(HELP.format(command=command))
        return 0
    resolved = with_recipes(args)
    from multidiff.lightning.cli import run as hand_over

    return hand_over(command, resolved)


def with_recipes(args: list[str]) -> list[str]:
    """`args` with each ``--config RECIPE`` turned into the path of that recipe.

    Raises:
        InputError: a `--config` is neither a file nor a recipe.
    """
    resolved = list(args)
    for i, token in enumerate(args):
        if token in ("--config", "-c"):
            if i + 1 == len(args):
                raise InputError(f"{token} needs a YAML file or the name of a recipe")
            resolved[i + 1] = _config(args[i + 1])
        elif token.startswith("--config="):
            resolved[i] = f"--config={_config(token.partition('=')[2])}"
    return resolved


def _config(name: str) -> str:
    if Path(name).is_file():
        return name
    recipes: dict[str, Path] = {}
    for domain in domains.names():
        recipes |= domains.find(domain).recipes()
    if name in recipes:
        return str(recipes[name])
    if Path(name).suffix in (".yaml", ".yml") or len(Path(name).parts) > 1:
        raise InputError(f"--config: no file {name}")
    raise unknown("recipe", name, recipes)
