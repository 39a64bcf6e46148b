"""Whether something is wrong with a clip that was meant to be good."""

from __future__ import annotations

import numpy as np

FAULTS = ("empty", "still", "noise")
NOT_FINITE = "not finite"
VISIBLE = 25
"""Of 255: differences below it are not counted."""
FEW = 1e-3
"""Share of the pixels: fewer that change, or that differ from the background, are taken for specks. A digit of the
moving ones covers a hundredth."""
UNRELATED = (0.75, 1.25)
"""A clip is noise if neighbours, beside, below and in the next frame, differ as much as pixels that have nothing to do
with each other: between these times as much, by their mean square."""


def fault(clip: np.ndarray) -> str:
    """What a clip (frames, height, width, channels) uint8 is instead: one of `FAULTS`, or ""."""
    if is_empty(clip):
        return "empty"
    if is_still(clip):
        return "still"
    return "noise" if is_noise(clip) else ""


def is_empty(clip: np.ndarray) -> bool:
    """Nothing but background: hardly a pixel differs from the most usual colour."""
    usual = np.median(clip.reshape(-1, clip.shape[-1])[:: 1 + clip.size // 300_000], 0)
    others = sum(int((np.abs(frame - usual).max(-1) > VISIBLE).sum()) for frame in clip)
    return others < FEW * clip[..., 0].size


def is_still(clip: np.ndarray) -> bool:
    """Nothing moves: hardly a pixel changes through the whole clip; a picture never is."""
    changes = np.ptp(clip, axis=0).max(-1)  # unsigned: the largest minus the smallest
    return len(clip) > 1 and float((changes > VISIBLE).mean()) < FEW


def is_noise(clip: np.ndarray) -> bool:
    """No pixel has to do with its neighbours."""
    values = clip[:16].astype(np.float32)
    variance = float(values.var(axis=(0, 1, 2)).mean())
    steps = [np.diff(values, axis=axis) for axis in (0, 1, 2) if clip.shape[axis] > 1]
    ratios = [float((step**2).mean()) / max(2 * variance, 1e-6) for step in steps]
    return len(ratios) > 1 and all(UNRELATED[0] < ratio < UNRELATED[1] for ratio in ratios)
