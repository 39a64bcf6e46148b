"""Large jobs that survive an interruption: any number of samples into a folder, the same whatever happens on the way.

What is made goes into batches that follow from the settings alone. Finished batches are kept in ``out/.job/`` every few
seconds; the same command continues with those that are missing. At the end the domain writes its files, then
`run.json` says how they were made, and ``.job`` goes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multidiff import __version__, files
from multidiff.errors import InputError

RUN, JOB = "run.json", ".job"
KEEP_EVERY = 5.0
"""Seconds of work that an interruption may cost, beside the batch that it hits."""


def run_job(
    pipe: Any,
    out: str | Path,
    *,
    num_samples: int,
    seed: int,
    batch_size: int | None = None,
    call: Mapping[str, Any] | None = None,
    load_seconds: float = 0.0,
) -> int:
    """Generate into a folder, or continue what was begun there.

    Args:
        pipe: see `multidiff.pipeline.Pipeline` for what it has to offer.
        out: the folder; made if need be.
        num_samples: with the numbers 0 to num_samples - 1.
        seed: in [0, 2**63).
        batch_size: samples at a time; the pipeline's choice by default.
        call: further arguments of the pipeline's call, the same for all samples; and ``preview_every``, steps between
            two pictures of what is being made, for pipelines with a `preview`.
        load_seconds: what it took to load the pipeline, for run.json.

    Returns:
        The exit code: 0, or 130 when interrupted; what was finished is then kept.

    Raises:
        InputError: an argument is not allowed; the folder cannot be written, holds something else, or is in use; the
            disk is full; memory does not suffice.
    """
    started = time.perf_counter() - load_seconds
    arguments = dict(call or {})
    every = arguments.pop("preview_every", None)
    job = _describe(pipe, num_samples, seed, arguments)
    calls = pipe.calls_of(job)
    folder = files.writable_folder(out)
    previews = None if every is None else _Previews(folder, every, calls)
    with _alone(folder):
        if _finished(folder, job):
            print(f"{folder} already holds the result of this very command; nothing to do")
            return 0
        kept = _open(pipe, folder, job)
        try:
            todo = _missing(pipe.batches(num_samples, seed, batch_size, **arguments), kept.numbers)
            with _Progress(num_samples, len(kept.numbers), calls, previews) as progress:
                first = _make(kept, todo, progress, {"seed": seed, **arguments})
            times = {"load": load_seconds, "first_sample": None if first is None else first - started}
            summary = _finish(kept, job, calls, times, started)
        except KeyboardInterrupt:
            done = len(kept.numbers)
            print(
                f"multidiff: interrupted; {done} of {num_samples} samples are kept; the same command continues",
                file=sys.stderr,
            )
            return 130
    print(summary)
    return 0


def _describe(pipe: Any, num_samples: int, seed: int, call: Mapping[str, Any]) -> dict[str, Any]:
    """All that the samples depend on; plain values."""
    config = json.dumps({k: v for k, v in pipe.config.items() if k != "recommended"}, sort_keys=True)
    recipe = pipe.recipe(seed=seed, **call)
    job = {**recipe, "config": hashlib.sha256(config.encode()).hexdigest()[:16], "num_samples": num_samples}
    return json.loads(json.dumps(job))


# -------------------------------------------------------------------------------------------- what is in the folder


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder; the system lets go of it whatever becomes of the process."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"another multidiff is writing into {folder}; wait until it is done, or give another --out"
            ) from None
        except OSError:  # some network file systems cannot
            pass
        yield
    finally:
        os.close(handle)


def _finished(folder: Path, job: Mapping[str, Any]) -> bool:
    """Whether this very job is done.

    Raises:
        InputError: the folder holds the result of another one.
    """
    path = folder / RUN
    if not path.exists():
        return False
    try:
        there = json.loads(path.read_bytes())["job"]
    except (OSError, ValueError, KeyError, TypeError):
        there = None
    if not isinstance(there, dict):
        raise InputError(f"{path} is damaged or was not written by multidiff generate; give another --out")
    _refuse_other(there, job, f"{folder} holds the result of another run")
    shutil.rmtree(folder / JOB, ignore_errors=True)  # if the end was interrupted after all was written
    return True


def _refuse_other(there: Mapping[str, Any], job: Mapping[str, Any], what: str) -> None:
    names = [name for name in {**there, **job} if name != "checkpoint" and there.get(name) != job.get(name)]
    if not names:
        return
    if {"sha256", "config"} & set(names):
        names = ["checkpoint", *(name for name in names if name not in ("sha256", "config"))]
    told = "; ".join(f"{name} {_text(there, name)} there, {_text(job, name)} asked for" for name in names)
    raise InputError(f"{what} ({told}); give another --out, or delete what is there")


def _text(job: Mapping[str, Any], name: str) -> str:
    if name == "checkpoint":
        return f"{job.get(name)} ({str(job.get('sha256'))[:8]})"
    return json.dumps(job[name]) if name in job else "not given"


@dataclass
class _Kept:
    """The unfinished job in a folder: finished samples, a few batches a file.

    Attributes:
        numbers: of the samples that are kept.
        chunks: where they are; the paths that the pipeline's `store` was given.
        seconds: that they took to make.
        resumed: how many of them are of an earlier run.
    """

    pipe: Any
    folder: Path
    numbers: set[int] = field(default_factory=set)
    chunks: list[Path] = field(default_factory=list)
    seconds: float = 0.0
    resumed: int = 0
    out: Path = Path()

    def add(self, outputs: list[Any], seconds: float) -> None:
        """Keep outputs; the marker is written last, and what has none does not count."""
        name = f"{self._next():06d}"
        self.pipe.store(outputs, self.folder / name)
        numbers = [int(i) for output in outputs for i in output.indices]
        _write_json(self.folder / f"{name}.json", {"samples": len(numbers), "seconds": seconds})
        self._count(self.folder / name, numbers, seconds)

    def read(self) -> None:
        """Find what an earlier run kept; a damaged file is made again."""
        for marker in sorted(self.folder.glob("[0-9]*.json")):
            path = marker.with_suffix("")
            try:
                there = json.loads(marker.read_bytes())
                restored = self.pipe.restore([path], {}, 0)
                numbers, seconds = list(restored.indices), float(there["seconds"])
            except (ValueError, KeyError, TypeError, OSError):
                marker.unlink()
                continue
            self._count(path, numbers, seconds)
        self.resumed = len(self.numbers)

    def _count(self, path: Path, numbers: list[int], seconds: float) -> None:
        self.chunks.append(path)
        self.numbers.update(numbers)
        self.seconds += seconds

    def _next(self) -> int:
        return 1 + max((int(path.name) for path in self.chunks), default=-1)


def _open(pipe: Any, out: Path, job: Mapping[str, Any]) -> _Kept:
    """The job's own folder, new or as an earlier run left it.

    Raises:
        InputError: there is another job, results of somebody else's, or not enough room.
    """
    kept = _Kept(pipe, out / JOB, out=out)
    described = kept.folder / "job.json"
    if described.exists():
        try:
            there = json.loads(described.read_bytes())
        except ValueError as error:
            raise InputError(f"{described} is damaged; delete {kept.folder}, or give another --out") from error
        _refuse_other(there, job, f"{out} holds an unfinished job of other settings")
        kept.read()
    else:
        foreign = [name for name in pipe.files if (out / name).exists()]
        foreign += [path.name for pattern in pipe.patterns for path in sorted(out.glob(pattern))[:1]]
        if foreign:
            raise InputError(f"{out} holds {foreign[0]}, which is not of this job; give another --out, or move it away")
    for name in (*pipe.files, RUN):  # half-written, of a process that was killed
        for leftover in out.glob(f".{name}.*.tmp"):
            leftover.unlink()
    _check_room(out, (job["num_samples"] - len(kept.numbers)) * pipe.bytes_per_sample)
    files.writable_folder(kept.folder)
    if not described.exists():
        _write_json(described, job)
    return kept


def _check_room(out: Path, needed: int) -> None:
    free = shutil.disk_usage(out).free
    if needed > free:
        raise InputError(f"{out} has room for {free / 1e6:.1f} MB, and the job needs about {needed / 1e6:.1f} MB")


def _missing(batches: list[list[int]], done: set[int]) -> list[list[int]]:
    left = ([i for i in batch if i not in done] for batch in batches) if done else batches
    return [batch for batch in left if batch]


# ------------------------------------------------------------------------------------------------------------ the work


def _make(kept: _Kept, todo: list[list[int]], progress: _Progress, arguments: Mapping[str, Any]) -> float | None:
    """Make the missing batches; gives the time at which the first one was done."""
    first: float | None = None
    made: list[Any] = []
    since = time.perf_counter()
    try:
        for batch in todo:
            made.append(
                kept.pipe(
                    num_samples=len(batch),
                    indices=batch,
                    batch_size=len(batch),
                    callback_on_step_end=progress.callback,
                    **arguments,
                )
            )
            now = time.perf_counter()
            first = first or now
            progress.finished(len(batch))
            if now - since > KEEP_EVERY:
                ready, made, took, since = made, [], now - since, now
                kept.add(ready, took)
    finally:
        if made:
            kept.add(made, time.perf_counter() - since)
    return first


@dataclass
class _Previews:
    """Shows the estimate of the clean samples every few steps.

    Attributes:
        folder: to show it in.
        every: steps.
        calls: of the denoiser a batch.
        taken: of them, by the batch that is being made.
    """

    folder: Path
    every: int
    calls: int
    taken: int = 0

    def step(self, pipe: Any, estimate: Any) -> None:
        """A step is done."""
        self.taken += 1
        if self.taken % self.every == 0:
            pipe.preview(self.folder, estimate, self.taken, self.calls)


class _Progress:
    """A bar on stderr that moves with each step, none where stderr is not a terminal; and the previews."""

    def __init__(self, total: int, done: int, calls: int, previews: _Previews | None = None) -> None:
        from tqdm import tqdm

        form = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total} [{elapsed}<{remaining}, {rate_fmt}]"
        self.bar = tqdm(
            total=total, initial=done, desc="generate", unit=" samples", disable=None, bar_format=form, smoothing=0.1
        )
        self.done, self.calls, self.previews = done, calls, previews
        self.callback = None if self.bar.disable and previews is None else self._step

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def _step(self, pipe: Any, step: int, t: float, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        from multidiff.state import batch_size

        self.bar.update(min(batch_size(kwargs["latents"]) / self.calls, self.bar.total - self.bar.n))
        if self.previews is not None:
            self.previews.step(pipe, kwargs["estimate"])
        return {}

    def finished(self, samples: int) -> None:
        """A batch is done: whatever the steps added up to, count its samples."""
        self.done += samples
        self.bar.update(self.done - self.bar.n)
        if self.previews is not None:
            self.previews.taken = 0


# ------------------------------------------------------------------------------------------------------------- the end


def _finish(kept: _Kept, job: dict[str, Any], calls: int, times: dict[str, Any], started: float) -> str:
    """Write the domain's files, then run.json, and clear away; gives what the user is told."""
    recipe = {name: value for name, value in job.items() if name not in ("config", "num_samples")}
    arguments = {name: value for name, value in recipe.items() if name not in ("checkpoint", "sha256", "seed")}
    pipe = kept.pipe
    output = pipe.restore(kept.chunks, recipe, calls)
    records: list[dict[str, Any]] = []
    counts = output.save(kept.out, records)
    times = {**times, "sampling": kept.seconds, "total": time.perf_counter() - started}
    about = {
        "job": job,
        "checkpoint": {"name": job.get("checkpoint"), "sha256": job.get("sha256"), "domain": pipe.config["domain"]},
        "settings": arguments,
        "seed": job["seed"],
        "versions": _versions(),
        "device": _device_name(pipe.device),
        "timings": {name: value if value is None else round(value, 3) for name, value in times.items()},
        "network_calls": calls,
        "counts": {**counts, "not_finite": len(output.failed)},
    }
    _write_run(kept.out / RUN, about, records)
    shutil.rmtree(kept.folder, ignore_errors=True)
    return _summary(kept, pipe.files, about)


def _versions() -> dict[str, str]:
    import torch

    return {
        "multidiff": __version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def _device_name(device: Any) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _write_json(path: Path, value: object) -> None:
    with files.atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value))


def _write_run(path: Path, about: Mapping[str, Any], records: list[dict[str, Any]]) -> None:
    """JSON with a line a sample, so that it can be read and searched."""
    head = json.dumps(about, indent=2, ensure_ascii=False).removesuffix("\n}")
    with files.atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(f'{head},\n  "samples": [')
        for number, record in enumerate(records):
            file.write(f"{',' if number else ''}\n    {json.dumps(record, ensure_ascii=False)}")
        file.write("\n  ]\n}\n")


def _summary(kept: _Kept, names: tuple[str, ...], about: Mapping[str, Any]) -> str:
    counts, seconds = about["counts"], about["timings"]["sampling"]
    reasons = ", ".join(f"{reason}: {n}" for reason, n in list(counts.get("reasons", {}).items())[:3])
    told = ", ".join(f"{counts[name]} {name}" for name in ("valid", "rejected") if name in counts)
    lines = [f"{counts['samples']} samples" + (f": {told}" if told else "") + (f" ({reasons})" if reasons else "")]
    if counts["not_finite"]:
        lines.append(f"{counts['not_finite']} of them became non-finite; {RUN} says which, and at which step")
    if kept.resumed:
        lines.append(f"{kept.resumed} of them were kept from an interrupted run")
    rate = counts["samples"] / max(seconds, 1e-9)
    lines.append(
        f"{rate:.1f} samples/s, {about['network_calls']} network calls each, {about['timings']['total']:.1f} s in all"
    )
    each = [path.name for pattern in kept.pipe.patterns for path in sorted(kept.out.glob(pattern))]
    series = [each[0]] if len(each) == 1 else [f"{each[0]} to {each[-1]}"] if each else []
    lines.append(f"in {kept.out}: {', '.join((*series, *names, RUN))}")
    if names:
        lines.append(f"open {kept.out / names[0]}")
    return "\n".join(lines)
