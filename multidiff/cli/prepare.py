"""multidiff prepare: raw files -> one packed, checked file."""

from __future__ import annotations

from pathlib import Path

from multidiff import domain as domains
from multidiff.cli import options
from multidiff.errors import InputError

DESCRIPTION = """Read raw files, check every record and pack the good ones into one file for training.

What is skipped is counted and named in the report, never silently lost."""

EXAMPLES = """\
  multidiff prepare molecules library.sdf.gz library.npz
  multidiff prepare molecules folder-of-sdf/ library.npz
  multidiff prepare molecules smiles.smi library.npz
  multidiff prepare audio my_sounds/ sounds.npz
  multidiff prepare video my_clips/ clips/ --size 64 --fps 10

'multidiff prepare DOMAIN --help' lists what the domain adds."""

OWN = ("domain", "input", "output")


def run(command: str, args: list[str]) -> int:
    """Hand over to the domain and print its report."""
    if not args or args[0] in ("-h", "--help"):
        _parser(None).print_help()
        return 0
    domain = domains.find(options.domain_of(args, _add_arguments, command))
    parsed = _parser(domain).parse(args)
    if not domain.prepare:
        raise InputError(f"{domain.name} has no data preparation")
    if not parsed.input.exists():
        raise InputError(f"no file or folder {parsed.input}")
    report = domains.load(domain.prepare)(parsed.input, parsed.output, **options.extras(parsed, OWN))
    if report:
        print(report)
    return 0


def _parser(domain: domains.Domain | None) -> options.Parser:
    return options.domain_parser("prepare", DESCRIPTION, EXAMPLES, _add_arguments, domain)


def _add_arguments(parser: options.Parser) -> None:
    many = None if parser.add_help else "?"
    parser.add_argument(
        "domain", nargs=many, metavar="DOMAIN", help="molecules, audio, video: 'multidiff list domains'"
    )
    parser.add_argument("input", nargs=many, type=Path, metavar="INPUT", help="a file or a folder")
    parser.add_argument("output", nargs=many, type=Path, metavar="OUTPUT", help="the packed file to write")
