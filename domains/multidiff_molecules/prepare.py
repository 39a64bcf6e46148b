"""`multidiff prepare molecules INPUT OUTPUT`: raw files to one packed, checked data set, with a report."""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from multidiff.errors import InputError
from multidiff.files import writable_folder
from multidiff_molecules.molecule import PackedMolecules
from multidiff_molecules.report import SPLITS, Report, count, count_skipped, histograms, save_report, skipped_lines

if TYPE_CHECKING:
    from multidiff_molecules.cleaning import Rules
    from multidiff_molecules.readers import Record, Source
    from multidiff_molecules.shards import Shard

DEFAULT_SPLIT = (0.9, 0.05, 0.05)
MOST_ATOMS = 32_767  # the file numbers a molecule's atoms in int16
WARN_ABOVE = 0.01  # share of the records skipped


def prepare(
    input: str | Path,
    output: str | Path,
    *,
    elements: str | Sequence[str] | None = None,
    max_atoms: int = 128,
    largest_fragment: bool = False,
    embed: bool = False,
    split: str | Sequence[float] | None = None,
    seed: int = 0,
    time_limit: float = 10.0,
    workers: int | None = None,
) -> Report:
    """Pack the molecules of `input` into the file `output`, and the report into `output` + ".report.json".

    SD, mol and mol2 files give the coordinates as they are; for SMILES RDKit makes a conformer (ETKDGv3, then MMFF94).
    Unfinished work is kept in `output` + ".partial": after an interruption the same call goes on from there and ends
    with the same file, unless a conformer came close to the time limit. An old `output` is replaced at the end only.

    Args:
        input: file, folder of files, or a packed `.npz` (its arrays are checked; it keeps its split).
        output: the `.npz` to write.
        elements: allowed symbols, "C,N,O" or a sequence; hydrogen always is. Default: `cleaning.COMMON_ELEMENTS`.
        max_atoms: most atoms of a molecule, hydrogens included; 1 to 32,767.
        largest_fragment: keep the largest fragment of a salt or mixture instead of skipping it.
        embed: make conformers for SD records that have no 3-D coordinates.
        split: shares of train, validation and test, "0.9,0.05,0.05" or a sequence (the default). A molecule's part
            follows from its SMILES without stereo and the seed alone.
        seed: of conformers and split.
        time_limit: seconds for one conformer.
        workers: processes; default: one a core. The result does not depend on it.

    Raises:
        InputError: an option is wrong, nothing in `input` could be used, or `output` cannot be written.
    """
    rules = _rules(elements, max_atoms, largest_fragment, embed, seed, time_limit)
    shares = None if split is None else _shares(split)
    if workers is not None and workers < 1:
        raise InputError(f"--workers {workers} is out of range; give 1 or more")
    source, target = Path(input), Path(output)
    _check_paths(source, target)
    if source.suffix.lower() == ".npz" and source.is_file():
        return _repack(source, target, rules, shares)
    return _pack(source, target, rules, shares, workers or _cores())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `multidiff prepare molecules`, named as the keywords of `prepare`."""
    add = parser.add_argument_group("molecules").add_argument
    elements = "allowed elements, as in C,N,O,F; hydrogen always is (default: H,B,C,N,O,F,Si,P,S,Cl,Br,I)"
    largest = "of a salt or mixture keep the largest fragment (default: skip it)"
    embed = "make conformers for SD records without 3-D coordinates (default: skip them; SMILES always get one)"
    split = "shares of train, validation and test; 1,0,0 for train alone (default: 0.9,0.05,0.05); equals stay together"
    add("--elements", metavar="LIST", help=elements)
    add("--max-atoms", type=int, metavar="N", help="skip molecules of more atoms, hydrogens included (default: 128)")
    add("--largest-fragment", action="store_true", default=None, help=largest)
    add("--embed", action="store_true", default=None, help=embed)
    add("--split", metavar="A,B,C", help=split)
    add("--seed", type=int, metavar="N", help="of conformers and split; the same seed, the same file (default: 0)")
    add("--time-limit", type=float, metavar="S", help="skip a molecule whose conformer takes longer (default: 10 s)")
    add("--workers", type=int, metavar="N", help="processes; the file does not depend on it (default: one a core)")


def _rules(
    elements: str | Sequence[str] | None, max_atoms: int, largest_fragment: bool, embed: bool, seed: int, limit: float
) -> Rules:
    from multidiff_molecules.chemistry import symbol
    from multidiff_molecules.cleaning import COMMON_ELEMENTS, Rules

    names = COMMON_ELEMENTS if elements is None else _listed(elements)
    known = {symbol(z) for z in range(1, 119)}
    for name in names:
        if name not in known:
            raise InputError(f"--elements: {name!r} is no element; give symbols such as C,N,O,Cl")
    if not names:
        raise InputError("--elements names none; give symbols such as C,N,O,Cl")
    if not 1 <= max_atoms <= MOST_ATOMS:
        raise InputError(f"--max-atoms {max_atoms} is out of range; give 1 to {MOST_ATOMS}")
    if not 0 <= seed < 2**63:
        raise InputError(f"--seed {seed} is out of range; give 0 to 2**63 - 1")
    if not (limit > 0 and math.isfinite(limit)):
        raise InputError(f"--time-limit {limit} is out of range; give seconds, more than 0")
    return Rules(tuple(sorted(set(names))), max_atoms, bool(largest_fragment), bool(embed), seed, float(limit))


def _listed(value: str | Sequence[object]) -> list[str]:
    parts = value.replace(";", ",").replace(" ", ",").split(",") if isinstance(value, str) else map(str, value)
    return [part for part in parts if part]


def _shares(split: str | Sequence[float]) -> tuple[float, ...]:
    try:
        shares = tuple(float(part) for part in _listed(split))
    except ValueError:
        shares = ()
    if len(shares) != 3 or min(shares) < 0 or not abs(sum(shares) - 1) < 1e-6 or shares[0] == 0:
        raise InputError(
            f"--split {split}: give three shares (train, validation, test) that add up to 1, as in 0.8,0.1,0.1"
        )
    return shares


def _check_paths(source: Path, target: Path) -> None:
    if not source.exists():
        raise InputError(f"no file or folder {source}")
    if target.is_dir():
        raise InputError(f"{target} is a folder; name the file to write, as in {target / 'molecules.npz'}")
    if target.suffix.lower() != ".npz":
        raise InputError(f"OUTPUT {target} must end in .npz, as in {target.name}.npz")
    writable_folder(target.parent)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _pack(source: Path, target: Path, rules: Rules, shares: tuple[float, ...] | None, workers: int) -> Report:
    from multidiff_molecules import readers, shards

    folder = target.with_name(target.name + ".partial")
    sources, ignored = readers.find_sources(source, exclude=folder)
    total, digest = _survey(sources)
    with shards.partial_folder(folder, _fingerprint(rules, digest)):
        _make(sources, rules, folder, workers, total)
        made = [shards.read_shard(shards.shard_path(folder, i)) for i in range(-(-total // shards.SHARD))]
        report = replace(_report(source, target, made, total), ignored=ignored)
        if not report.kept:
            shards.discard(folder)
        result = _write(
            _join(made), report, target, shares or DEFAULT_SPLIT, strict=shares is not None, seed=rules.seed
        )
    shards.discard(folder)
    return result


def _survey(sources: list[Source]) -> tuple[int, str]:
    """How many records there are, and a digest of all of them."""
    total, digest = 0, hashlib.sha256()
    for record in _records(sources):
        total += 1
        digest.update(repr((record.file, record.number, record.kind, record.text, record.fault)).encode())
    return total, digest.hexdigest()


def _records(sources: list[Source]) -> Iterator[Record]:
    from multidiff_molecules.readers import read_records

    for source in sources:
        yield from read_records(source)


def _fingerprint(rules: Rules, digest: str) -> dict[str, object]:
    """What unfinished work must have been made from to be continued."""
    import rdkit

    from multidiff_molecules.shards import SHARD

    return {"rules": asdict(rules), "records": digest, "rdkit": rdkit.__version__, "shard": SHARD, "format": 1}


def _make(sources: list[Source], rules: Rules, folder: Path, workers: int, total: int) -> None:
    from tqdm import tqdm

    from multidiff_molecules import shards

    processes = max(1, min(workers, -(-total // shards.SHARD)))
    # disable=None: no bar where stderr is not a terminal
    with tqdm(total=total, unit=" molecules", desc="prepare", disable=None) as bar:
        try:
            shards.make_shards(_records(sources), rules, folder, processes, bar.update)
        except KeyboardInterrupt:
            done = min(total, shards.SHARD * len(list(folder.glob("*.npz"))))
            print(f"\ninterrupted; {done:,} of {total:,} records are done; the same command continues", file=sys.stderr)
            raise


def _join(made: list[Shard]) -> PackedMolecules:
    from multidiff_molecules.packs import join

    return join([shard.kept for shard in made])


def _report(source: Path, target: Path, made: list[Shard], total: int) -> Report:
    lost = [one for shard in made for one in shard.lost]
    skipped, examples = count_skipped((x.reason, f"{x.file}:{x.number} {x.detail}".rstrip()) for x in lost)
    notes: Counter[str] = Counter()
    for shard in made:
        notes.update(shard.notes)
    return Report(str(source), str(target), total, total - len(lost), skipped, examples, dict(notes), {})


def _repack(source: Path, target: Path, rules: Rules, shares: tuple[float, ...] | None) -> Report:
    """Check the arrays of a packed file and keep the molecules that pass; chemistry is not perceived again."""
    from multidiff_molecules import packs

    pack, extra = packs.load(source)
    faults = packs.faults(pack, rules)
    keep = ~np.any([rows for _, rows in faults], axis=0)
    lost = ((reason, f"{source.name}:{i + 1}") for reason, rows in faults for i in np.flatnonzero(rows))
    skipped, examples = count_skipped(lost)
    report = Report(str(source), str(target), len(pack), int(keep.sum()), skipped, examples, {}, {})
    extra = {name: rows[keep] if rows.shape[:1] == keep.shape else rows for name, rows in extra.items()}
    return _write(packs.choose(pack, keep), report, target, shares, True, rules.seed, extra)


def _write(
    pack: PackedMolecules,
    report: Report,
    target: Path,
    shares: tuple[float, ...] | None,
    strict: bool,
    seed: int,
    extra: dict[str, NDArray] | None = None,
) -> Report:
    """Split (where there are shares), write both files, warn."""
    if not len(pack):
        raise InputError(_nothing_kept(report))
    if shares:
        pack = replace(pack, split=_split(pack, shares, strict, seed))
    report = replace(report, **histograms(pack))  # type: ignore[arg-type]
    pack.save(target, **(extra or {}))
    save_report(report)
    lost = report.records - report.kept
    if lost > WARN_ABOVE * report.records:
        share = f"{lost:,} of {report.records:,} records ({lost / report.records:.1%})"
        print(f"warning: {share} were skipped; the report says which and why", file=sys.stderr)
    return report


def _split(pack: PackedMolecules, shares: tuple[float, ...], strict: bool, seed: int) -> NDArray[np.int8]:
    """The part of each molecule; with the default shares (not `strict`) a small set may lack parts, but not train."""
    from multidiff_molecules.packs import split_of

    split = split_of(pack, shares, seed)
    counts = np.bincount(split, minlength=len(shares))
    empty = [name for name, share, n in zip(SPLITS, shares, counts, strict=True) if share and not n]
    if not empty:
        return split
    few = count(len(pack), "molecule")
    message = f"the split leaves nothing for {' and '.join(empty)}: {few} cannot fill {_text(shares)}"
    if strict:
        raise InputError(f"{message}; give larger shares, another --seed, or --split 1,0,0")
    print(f"warning: {message}{'; all are train' if counts[0] == 0 else ''}", file=sys.stderr)
    return split if counts[0] else np.zeros_like(split)


def _text(shares: tuple[float, ...]) -> str:
    return ",".join(f"{share:g}" for share in shares)


def _nothing_kept(report: Report) -> str:
    reasons = "; ".join(line.strip().removeprefix("skipped, ") for line in skipped_lines(report))
    return f"nothing in {report.input} could be used: {reasons or 'it holds no records'}"
