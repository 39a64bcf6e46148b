"""multidiff evaluate: quality of files on disk."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from multidiff import domain as domains
from multidiff import files
from multidiff.cli import options
from multidiff.errors import InputError

DESCRIPTION = """Measure files that 'multidiff generate' or anything else wrote.

With --reference also how far their distribution is from that of other files."""

EXAMPLES = """\
  multidiff evaluate molecules out/molecules.sdf
  multidiff evaluate molecules out/ --reference train.npz --json figures.json
  multidiff evaluate audio out/ --reference sounds.npz
  multidiff evaluate video out/ --reference mnist.npz

'multidiff evaluate DOMAIN --help' lists what the domain adds."""

OWN = ("domain", "path", "reference", "json")


def run(command: str, args: list[str]) -> int:
    """Hand over to the domain, print the figures and write them where asked."""
    if not args or args[0] in ("-h", "--help"):
        _parser(None).print_help()
        return 0
    domain = domains.find(options.domain_of(args, _add_arguments, command))
    parsed = _parser(domain).parse(args)
    if not domain.evaluate:
        raise InputError(f"{domain.name} has no evaluation")
    for path in filter(None, (parsed.path, parsed.reference)):
        if not path.exists():
            raise InputError(f"no file or folder {path}")
    if parsed.json:
        files.writable_folder(parsed.json.absolute().parent)
    figures = domains.load(domain.evaluate)(parsed.path, parsed.reference, **options.extras(parsed, OWN))
    if parsed.json:
        with files.atomic_path(parsed.json) as temporary:
            temporary.write_text(json.dumps(figures, indent=2) + "\n")
    print(domains.load(domain.table)(figures) if domain.table else _table(figures))
    return 0


def _table(figures: Mapping[str, Any]) -> str:
    rows = list(_rows(figures))
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _rows(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _rows(value, f"{prefix}{name}.")
        else:
            yield prefix + name, f"{value:.6g}" if isinstance(value, float) else str(value)


def _parser(domain: domains.Domain | None) -> options.Parser:
    return options.domain_parser("evaluate", DESCRIPTION, EXAMPLES, _add_arguments, domain)


def _add_arguments(parser: options.Parser) -> None:
    many = None if parser.add_help else "?"
    parser.add_argument(
        "domain", nargs=many, metavar="DOMAIN", help="molecules, audio, video: 'multidiff list domains'"
    )
    parser.add_argument("path", nargs=many, type=Path, metavar="PATH", help="a file, or a folder of files")
    parser.add_argument("--reference", type=Path, metavar="PATH", help="what to compare with, such as the training set")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
