"""`python -m multidiff`, for where the script is not on the path."""

from __future__ import annotations

import sys

from multidiff.cli import main

if __name__ == "__main__":
    sys.exit(main())
