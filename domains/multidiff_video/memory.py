"""How much memory a clip takes, said before the work and not found out by it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from multidiff.errors import InputError
from multidiff_video.network import peak_bytes

if TYPE_CHECKING:
    from multidiff_video.pipeline import VideoPipeline

_BYTES_A_PIXEL = 12
"""The state and its decoded copy in float32, two of uint8, and what lies between."""
_SHARE = 0.8
"""Of the free memory that a batch may take."""
_NO_LIMIT = 2**62
_GROUPS = Path("/sys/fs/cgroup")
_LIMITS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)
"""Where a container's limit stands, and what is taken of it, in the second and the first version of control groups."""


def refuse_too_much(pipe: VideoPipeline, frames: int, size: tuple[int, int], estimates: int) -> None:
    """Refuse a clip that memory does not suffice for.

    Args:
        frames: in all.
        size: height and width.
        estimates: of the network at a time: 2 with guidance.

    Raises:
        InputError: it would not fit; says how much it needs, and how much there is.
    """
    needed, free = needed_bytes(pipe, frames, size, estimates), free_bytes(pipe.device)
    if needed > free:
        raise InputError(
            f"a clip of {frames} frames of {size[0]} x {size[1]} pixels needs about {needed / 2**30:.1f} GiB, and "
            f"{free / 2**30:.1f} GiB are free on {pipe.device}; ask for fewer frames or a smaller size"
        )


def needed_bytes(pipe: VideoPipeline, frames: int, size: tuple[int, int], estimates: int) -> int:
    """About the peak of one clip: a window in the network, and all frames while they are made and written."""
    channels = pipe.pixels.channels
    shape = (min(frames, pipe.window), channels, *size)
    scores = pipe.autocast is not None and pipe.device.type == "cpu"
    waiting = frames * channels * size[0] * size[1]
    return peak_bytes(pipe.network, shape, estimates, scores) + _BYTES_A_PIXEL * waiting


def fitting(pipe: VideoPipeline, frames: int, size: tuple[int, int], estimates: int) -> int:
    """How many such clips memory suffices for at a time; at least 1."""
    return max(1, int(_SHARE * free_bytes(pipe.device) / needed_bytes(pipe, frames, size, estimates)))


def free_bytes(device: torch.device) -> int:
    """Memory that is free on a device; on a CPU no more than a container's limit leaves."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min(_machine_bytes(), _container_bytes())


def _machine_bytes() -> int:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # not Linux
        try:
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (AttributeError, OSError, ValueError):  # Windows
            return _NO_LIMIT


def _container_bytes() -> int:
    """What is left of the limit of a control group; pages of files that were read once are free for the asking."""
    for limit, used, cached in _LIMITS:
        try:
            stat = dict(line.split() for line in (_GROUPS / limit).with_name("memory.stat").read_text().splitlines())
            taken = int((_GROUPS / used).read_text()) - int(stat[cached])
            return max(0, int((_GROUPS / limit).read_text()) - taken)
        except (OSError, KeyError, ValueError):  # no such group, or "max": no limit
            continue
    return _NO_LIMIT
