"""What molecules add to `multidiff generate`; imported before torch is, so that `--help` and errors come at once."""

from __future__ import annotations

import argparse

from multidiff.cli.options import whole


def generate_arguments(parser: argparse.ArgumentParser) -> None:
    """`--num-atoms` and `--grid`."""
    parser.add_argument(
        "--num-atoms", type=whole(1), metavar="N", help="of each molecule, hydrogens included (default: as trained)"
    )
    parser.add_argument("--grid", metavar="NAME", help="see 'multidiff list grids' (default: the checkpoint's)")
