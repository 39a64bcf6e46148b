"""What `multidiff prepare molecules` says it did."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from multidiff.files import atomic_path
from multidiff_molecules.molecule import PackedMolecules

EXAMPLES = 1000  # skipped records named for each reason in the file; all are counted
SHOWN = 3  # of those, in the printed report
SPLITS = ("train", "validation", "test")

# What a user can do about a reason to skip.
REMEDIES = {
    "no 3-D coordinates": "--embed lets RDKit make them",
    "more than one fragment": "--largest-fragment keeps the largest",
    "element not allowed": "--elements names others",
    "too many atoms": "--max-atoms allows more",
    "time limit": "--time-limit allows more seconds",
}


@dataclass(frozen=True)
class Report:
    """What came of an input; `str()` of it is the text to print.

    Attributes:
        input, output: paths.
        records: how many were read; those kept and those skipped.
        kept: molecules in the output.
        skipped: reason -> how many.
        examples: reason -> "file:number detail" of the first thousand.
        notes: what was done to kept molecules ("hydrogens added"...) -> how many.
        duplicates: kept molecules whose SMILES another one before them has.
        ignored: file inside a folder -> why it was not read.
        split: part -> molecules.
        elements: symbol -> atoms.
        sizes: atoms, hydrogens included -> molecules.
        charges: formal charge -> atoms.
        total_charges: sum of the formal charges -> molecules.
    """

    input: str
    output: str
    records: int
    kept: int
    skipped: dict[str, int]
    examples: dict[str, list[str]]
    notes: dict[str, int]
    ignored: dict[str, str]
    duplicates: int = 0
    split: dict[str, int] = field(default_factory=dict)
    elements: dict[str, int] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    charges: dict[int, int] = field(default_factory=dict)
    total_charges: dict[int, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return "\n".join([*self._counts(), *self._contents(), f"written: {self.output}, {report_path(self.output)}"])

    def _counts(self) -> list[str]:
        lost = sum(self.skipped.values())
        lines = [f"{self.input}: {count(self.records, 'record')}, {self.kept:,} kept, {lost:,} skipped"]
        lines += skipped_lines(self)
        lines += [f"  {note}: {n:,}" for note, n in self.notes.items()]
        if self.duplicates:
            lines.append(f"  duplicates (kept): {self.duplicates:,}")
        if self.ignored:
            lines.append(f"  files not read: {len(self.ignored):,}: {_few([*self.ignored])}")
        return lines

    def _contents(self) -> list[str]:
        smallest, largest = min(self.sizes), max(self.sizes)
        mean = sum(size * n for size, n in self.sizes.items()) / self.kept
        return [
            f"split: {_counted(self.split)}",
            f"atoms of each element: {_counted(self.elements)}",
            f"atoms a molecule: {smallest} to {largest}, mean {mean:.1f}",
            f"formal charges of atoms: {_counted(_signed(self.charges))}",
            f"charges of molecules: {_counted(_signed(self.total_charges))}",
        ]


def skipped_lines(report: Report) -> list[str]:
    """A line for each reason to skip, the most frequent first, with examples and what to do about it."""
    lines = []
    for reason, n in report.skipped.items():
        remedy = f" ({REMEDIES[reason]})" if reason in REMEDIES else ""
        lines.append(f"  skipped, {reason}: {n:,}{remedy}: {_few(report.examples[reason], n)}")
    return lines


def count(n: int, what: str) -> str:
    """As in "1 record", "2,000 records"."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def report_path(output: str | Path) -> Path:
    """Where the report of the packed file `output` lies."""
    return Path(f"{output}.report.json")


def save_report(report: Report) -> None:
    """Write it beside the packed file, atomically."""
    with atomic_path(report_path(report.output)) as temporary:
        temporary.write_text(json.dumps(asdict(report), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def count_skipped(lost: Iterable[tuple[str, str]]) -> tuple[dict[str, int], dict[str, list[str]]]:
    """Counts and examples by reason, the most frequent first, from (reason, example) pairs."""
    counts: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    for reason, example in lost:
        counts[reason] += 1
        if counts[reason] <= EXAMPLES:
            examples.setdefault(reason, []).append(example)
    ordered = dict(counts.most_common())
    return ordered, {reason: examples[reason] for reason in ordered}


def histograms(pack: PackedMolecules) -> dict[str, dict[str, int] | dict[int, int] | int]:
    """The fields of a `Report` that describe the molecules kept."""
    from multidiff_molecules.chemistry import symbol

    owner = np.repeat(np.arange(len(pack)), pack.sizes)
    totals = np.bincount(owner, weights=pack.formal_charges, minlength=len(pack)).astype(int)
    parts = np.bincount(pack.split, minlength=len(SPLITS)).tolist()
    return {
        "split": dict(zip(SPLITS, parts, strict=True)),
        "elements": {symbol(z): n for z, n in _histogram(pack.atomic_numbers).items()},
        "sizes": _histogram(pack.sizes),
        "charges": _histogram(pack.formal_charges),
        "total_charges": _histogram(totals),
        "duplicates": len(pack) - len(np.unique(pack.smiles)),
    }


def _histogram(values: NDArray[np.integer]) -> dict[int, int]:
    found, counts = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def _signed(charges: dict[int, int]) -> dict[str, int]:
    return {f"{charge:+d}" if charge else "0": n for charge, n in charges.items()}


def _counted(histogram: dict[str, int]) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in histogram.items())


def _few(names: list[str], total: int | None = None) -> str:
    more = (total or len(names)) - SHOWN
    return "; ".join(names[:SHOWN]) + (f"; and {more:,} more" if more > 0 else "")
