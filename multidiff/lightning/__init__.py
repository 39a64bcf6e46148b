"""Training through Lightning; imported only by training and the command line."""

from __future__ import annotations

from multidiff.lightning.exporting import export

__all__ = ["export"]
