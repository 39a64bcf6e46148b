"""Long work on records in parallel processes that can be interrupted and continued.

Records are cut into shards of `SHARD` in reading order. A worker cleans one shard and writes it, atomically, into the
folder OUTPUT.partial; a shard that is there is never made again. Joined in order they are the result, so it depends
neither on the number of workers nor on interruptions.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from multidiff.errors import InputError
from multidiff.files import atomic_path, writable_folder
from multidiff_molecules.cleaning import Cleaned, Rules, SkipRecord, clean
from multidiff_molecules.molecule import PackedMolecules
from multidiff_molecules.readers import Record

SHARD = 32  # records; one to three seconds of conformers, so little is lost at an interruption
FINGERPRINT, LOCK = "fingerprint.json", "lock"


@dataclass(frozen=True)
class Lost:
    """A record that was skipped: `file`, `number` in it, the `reason` that is counted and a `detail`."""

    file: str
    number: int
    reason: str
    detail: str


@dataclass(frozen=True, eq=False)
class Shard:
    """What came of some records: those kept, those lost, and for each thing done to molecules how often."""

    kept: PackedMolecules
    lost: list[Lost]
    notes: dict[str, int]


@contextlib.contextmanager
def partial_folder(folder: Path, fingerprint: dict[str, object]) -> Iterator[Path]:
    """The folder for unfinished work, locked; emptied first if it belongs to other input or options.

    The caller removes it with `discard` when the work is whole.

    Raises:
        InputError: the folder cannot be written, is something else, or another process works in it.
    """
    identity = json.dumps(fingerprint, sort_keys=True)
    if folder.is_dir() and any(folder.iterdir()) and not (folder / FINGERPRINT).exists():
        raise InputError(f"{folder} is in the way: not unfinished work of 'multidiff prepare'; move or remove it")
    writable_folder(folder)
    with _locked(folder):
        mark = folder / FINGERPRINT
        if mark.exists() and mark.read_text() != identity:
            print(f"multidiff: input or options have changed; starting anew (was: {folder})", file=sys.stderr)
            for old in folder.glob("*.npz"):
                old.unlink()
        with atomic_path(mark) as temporary:
            temporary.write_text(identity)
        yield folder


def discard(folder: Path) -> None:
    """Remove a folder of finished work."""
    shutil.rmtree(folder, ignore_errors=True)


def make_shards(
    records: Iterable[Record], rules: Rules, folder: Path, workers: int, done: Callable[[int], None]
) -> None:
    """Clean all `records` into shards in `folder`, in `workers` processes.

    Args:
        done: called with the number of records of each shard that is there, old or new.

    Raises:
        InputError: a worker died or could not write.
    """
    with _pool(workers) as pool:
        pending: set[Future[int]] = set()
        for path, batch in _missing(records, folder, done):
            pending.add(pool.submit(_make_shard, path, batch, rules))
            if len(pending) >= 2 * workers:
                pending = _collect(pending, done)
        while pending:
            pending = _collect(pending, done)


def _collect(pending: set[Future[int]], done: Callable[[int], None]) -> set[Future[int]]:
    finished, rest = wait(pending, return_when=FIRST_COMPLETED)
    for future in finished:
        done(future.result())
    return rest


def _missing(
    records: Iterable[Record], folder: Path, done: Callable[[int], None]
) -> Iterator[tuple[Path, list[Record]]]:
    stream = iter(records)
    for index in itertools.count():
        batch = list(itertools.islice(stream, SHARD))
        if not batch:
            return
        path = shard_path(folder, index)
        if path.exists():
            done(len(batch))
        else:
            yield path, batch


def shard_path(folder: Path, index: int) -> Path:
    """Where shard number `index` lies."""
    return folder / f"{index:07d}.npz"


def read_shard(path: Path) -> Shard:
    """One shard.

    Raises:
        InputError: it is damaged.
    """
    kept = PackedMolecules.load(path)
    with np.load(path, allow_pickle=False) as arrays:
        report = json.loads(arrays["report"].tobytes())
    return Shard(kept, [Lost(*row) for row in report["lost"]], report["notes"])


def clean_all(records: Iterable[Record], rules: Rules) -> Shard:
    """Clean records one after the other, here and now."""
    kept: list[Cleaned] = []
    lost: list[Lost] = []
    notes: dict[str, int] = {}
    for record in records:
        try:
            kept.append(clean(record, rules))
        except SkipRecord as skip:
            lost.append(Lost(record.file, record.number, skip.reason, skip.detail))
            continue
        for note in kept[-1].notes:
            notes[note] = notes.get(note, 0) + 1
    packed = PackedMolecules.pack([one.molecule for one in kept], [one.smiles for one in kept])
    return Shard(packed, lost, notes)


def _make_shard(path: Path, records: list[Record], rules: Rules) -> int:
    shard = clean_all(records, rules)
    rows = [[lost.file, lost.number, lost.reason, lost.detail] for lost in shard.lost]
    report = json.dumps({"lost": rows, "notes": shard.notes}).encode()
    shard.kept.save(path, report=np.frombuffer(report, np.uint8))
    return len(records)


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes that are ended at once, not waited for, when the work is interrupted or fails."""
    before = set(multiprocessing.active_children())
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_begin_worker)
    try:
        yield pool
    except BaseException as error:
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        pool.shutdown(wait=True, cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            message = (
                "a worker process died, perhaps for lack of memory; run the same command again with fewer --workers"
            )
            raise InputError(message) from error
        raise
    pool.shutdown()


def _begin_worker() -> None:
    """Leave Ctrl-C to the parent, end with it whatever ends it, and keep RDKit's messages off the screen."""
    import logging

    from rdkit import rdBase

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    rdBase.LogToPythonLogger()
    logger = logging.getLogger("rdkit")
    logger.handlers, logger.propagate = [logging.NullHandler()], False


def _end_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time; where the system has no `flock` (Windows), without that guard."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(folder / LOCK, "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(f"another 'multidiff prepare' is at work in {folder}; wait for it to end") from None
        yield
