"""multidiff list: the names there are, with a line each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path

from multidiff import domain as domains
from multidiff.cli import options
from multidiff.errors import InputError

# What is in the core: name -> `registry.Entry`, or a class or function.
REGISTRIES = {
    "solvers": "multidiff.solver:SOLVERS",
    "schedules": "multidiff.schedule:SCHEDULES",
    "grids": "multidiff.grid:GRIDS",
    "guidance": "multidiff.guidance:GUIDANCE",
}

EXAMPLES = """\
  multidiff list
  multidiff list checkpoints
  multidiff list solvers"""


def run(command: str, args: list[str]) -> int:
    """Print one section, or all of them."""
    parser = options.Parser(command, "What there is, by name.", EXAMPLES)
    kind = options.one_of("section", list(SECTIONS))
    parser.add_argument("what", nargs="?", type=kind, metavar="WHAT", help=", ".join(SECTIONS))
    what = parser.parse(args).what
    for section in [what] if what else list(SECTIONS):
        rows = SECTIONS[section]()
        if not what:
            print(f"{section}:")
        width = max(map(len, rows), default=0)
        for name, text in rows.items():
            print(f"{'' if what else '  '}{name:<{width}}  {text}".rstrip())
    return 0


def _domains() -> dict[str, str]:
    return {name: domain.summary if isinstance(domain, domains.Domain) else str(domain) for name, domain in _found()}


def _found() -> list[tuple[str, domains.Domain | InputError]]:
    """One that cannot be used says why, and hides no other."""
    found: list[tuple[str, domains.Domain | InputError]] = []
    for name in domains.names():
        try:
            found.append((name, domains.find(name)))
        except InputError as error:
            found.append((name, error))
    return found


def _usable() -> list[domains.Domain]:
    return [domain for _, domain in _found() if isinstance(domain, domains.Domain)]


def _checkpoints() -> dict[str, str]:
    return {
        name: f"for {domain.name}" + (", the default" if name == domain.default_checkpoint else "")
        for domain in _usable()
        for name in domain.checkpoints()
    }


def _recipes() -> dict[str, str]:
    return {name: _first_comment(path) for domain in _usable() for name, path in domain.recipes().items()}


def _first_comment(path: Path) -> str:
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ").strip() if first.startswith("#") else ""


def _registry(reference: str) -> Callable[[], dict[str, str]]:
    def rows() -> dict[str, str]:
        registry: Mapping[str, object] = domains.load(reference)
        return {name: _summary(registry[name]) for name in sorted(registry)}

    return rows


def _summary(thing: object) -> str:
    """What a registry says of it, or the first line of its docstring."""
    return str(getattr(thing, "summary", "")) or (inspect.getdoc(thing) or "").partition("\n")[0]


SECTIONS: Mapping[str, Callable[[], dict[str, str]]] = {
    "checkpoints": _checkpoints,
    "recipes": _recipes,
    "domains": _domains,
    **{name: _registry(reference) for name, reference in REGISTRIES.items()},
}
