"""What became of the files of an input, and the lines of a report that say so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

SHOWN = 3
"""Examples named in a line."""
WARN_ABOVE = 0.01
"""Share of the files skipped."""


@dataclass
class Account:
    """What became of the files.

    Attributes:
        files: how many there are.
        skipped: reason -> messages.
        notes: what was done to those that are kept, or is odd about them -> how many files.
        rates: a second -> files.
    """

    files: int = 0
    skipped: dict[str, list[str]] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)
    rates: Counter[float] = field(default_factory=Counter)

    def skip(self, reason: str, message: str) -> None:
        """Count a file that is not kept."""
        self.skipped.setdefault(reason, []).append(message)

    @property
    def lost(self) -> int:
        """Files that gave nothing."""
        return sum(map(len, self.skipped.values()))

    def lines(self, path: Path, ignored: int, shown: int = SHOWN) -> list[str]:
        """Of a report on `path`, a warning first where much was skipped."""
        lines = []
        if self.lost > WARN_ABOVE * self.files:
            share = f"{self.lost:,} of {self.files:,} files ({self.lost / self.files:.1%})"
            lines.append(f"warning: {share} were skipped; the lines below say which and why")
        lines.append(f"{path}: {self.files:,} files, {self.files - self.lost:,} kept, {self.lost:,} skipped")
        lines += [f"  skipped, {why}: {few(files, shown)}" for why, files in sorted(self.skipped.items())]
        lines += [f"  {note}: {n:,}" for note, n in self.notes.most_common()]
        return [*lines, f"  other files, not read: {ignored:,}"] if ignored else lines

    def nothing(self) -> str:
        """Why nothing could be used, in one line."""
        return "; ".join(f"{reason}: {len(files):,} ({files[0]})" for reason, files in self.skipped.items())


def few(names: Sequence[str], shown: int = SHOWN) -> str:
    """How many there are, and the first of them."""
    more = len(names) - shown
    return f"{len(names):,}: {'; '.join(names[:shown])}" + (f"; and {more:,} more" if more > 0 else "")
