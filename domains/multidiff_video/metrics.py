"""What can be said of clips without a network, and distances of sets of features; `measure` says what they are of.

Clips are (frames, SIZE, SIZE) uint8 here, gray, as `judge.ready` makes them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

Array = NDArray[np.float64]
Gray = NDArray[np.uint8]

BOX = 28  # pixels of the square that holds a digit in a field of 64
INK = 0.25  # of the brightest; what is darker is not ink but noise
FIRST = 3  # frames that every motion goes on for before it may turn
SEARCH = 5  # pixels that a block may have moved between two frames; digits move 4.2 at most
BLOCK = 16  # pixels
_PRODUCTS = 1 << 24  # numbers held at a time when glyphs are compared


# ------------------------------------------------------------------------------------------------------- brightness


def flicker(clip: Gray) -> float:
    """Mean change of the whole brightness from frame to frame, as a share of its mean; NaN for one frame or none lit.

    A digit that moves keeps its ink: 0. Of two digits only what one hides of the other changes it.
    """
    light = clip.mean((1, 2))
    return float(np.abs(np.diff(light)).mean() / light.mean()) if len(clip) > 1 and light.any() else math.nan


# ----------------------------------------------------------------------------------------------------------- motion


def track(clip: Gray) -> Array:
    """(frames, 2): x and y of the middle of the ink, in pixels; NaN for a frame without ink."""
    ink = _ink(clip)
    total = ink.sum((1, 2))
    x, y = ink.sum(1) @ np.arange(clip.shape[2]), ink.sum(2) @ np.arange(clip.shape[1])
    with np.errstate(invalid="ignore"):
        return np.stack([x / total, y / total], 1)


def _ink(clip: Gray) -> Array:
    return np.where(clip > INK * max(int(clip.max(initial=0)), 1), clip, 0).astype(np.float64)


def axis(path: Array) -> str:
    """ "x" or "y", along which a track moves; "" for one that rests, or moves along both."""
    steps = np.abs(np.diff(path[~np.isnan(path[:, 0])], axis=0)).sum(0)
    return "" if steps.max(initial=0) < 1 or 2 * steps.min() > steps.max() else "xy"[int(steps.argmax())]


def first_direction(path: Array) -> str:
    """ "left", "right", "up" or "down", of the first FIRST steps of a track; "" where it goes back, or neither way."""
    seen = path[: FIRST + 1]
    seen = seen[~np.isnan(seen[:, 0])]
    if len(seen) < 2:
        return ""
    moved = seen[-1] - seen[0]
    along = int(np.abs(moved).argmax())
    far = moved[along]
    if abs(far) < 0.5 or 2 * abs(moved[1 - along]) > abs(far) or (np.diff(seen[:, along]) * np.sign(far) < -0.5).any():
        return ""
    return (("left", "right"), ("up", "down"))[along][int(far > 0)]


def warp_error(clip: Gray) -> float:
    """What of each frame cannot be had by moving blocks of the one before: root of its share of the square brightness.

    Every block of BLOCK pixels is looked for within SEARCH pixels of its place. Frames are brought to one brightness
    first, so that blinking is left to `flicker`; pairs with a frame that is all but dark are left out. 0 for a digit
    that moves by whole pixels; NaN where there is no pair.
    """
    light = clip.mean((1, 2))
    lit = light > 0.05 * max(float(np.median(light)), 1e-9)
    pairs = np.flatnonzero(lit[1:] & lit[:-1])
    if not len(pairs):
        return math.nan
    # Sums of products of whole numbers, below 2^24 in a block: exact in float32.
    before = F.pad(torch.from_numpy(clip[pairs].astype(np.float32))[:, None], (SEARCH,) * 4)
    after = torch.from_numpy(clip[pairs + 1].astype(np.float32))[:, None]
    window, places = BLOCK + 2 * SEARCH, (2 * SEARCH + 1) ** 2
    areas = before.unfold(2, window, BLOCK).unfold(3, window, BLOCK).reshape(1, -1, window, window)
    blocks = after.unfold(2, BLOCK, BLOCK).unfold(3, BLOCK, BLOCK).reshape(-1, 1, BLOCK, BLOCK)
    both = F.conv2d(areas, blocks, groups=len(blocks)).double().reshape(len(pairs), -1, places)
    own = F.conv2d((areas**2).transpose(0, 1), torch.ones(1, 1, BLOCK, BLOCK)).double().reshape(len(pairs), -1, places)
    wanted = blocks.double().square().sum((1, 2, 3)).reshape(len(pairs), -1, 1)
    a, b = (torch.from_numpy(1 / light[rows])[:, None, None] for rows in (pairs, pairs + 1))
    left = (a * a * own - 2 * a * b * both + b * b * wanted).amin(-1).clamp(min=0).sum()
    return float((left / (b * b * wanted).sum()).sqrt())


# ----------------------------------------------------------------------------------------------------------- glyphs


def crops(clip: Gray) -> Gray:
    """(frames, BOX, BOX): what is around the middle of the ink; dark for a frame without ink."""
    padded = np.pad(clip, ((0, 0), (BOX, BOX), (BOX, BOX)))
    out = np.zeros((len(clip), BOX, BOX), np.uint8)
    for t, (x, y) in enumerate(track(clip)):
        if not math.isnan(x):
            left, top = round(x) + BOX - BOX // 2, round(y) + BOX - BOX // 2
            out[t] = padded[t, top : top + BOX, left : left + BOX]
    return out


def identity(clip: Gray) -> float:
    """Likeness of the digit in the last frame to that in the first, from 0 to 1; NaN for one frame.

    The cosine of the angle between the two pictures, at the best of the shifts by up to two pixels. Two ways of
    writing a digit are at about 0.6.
    """
    if len(clip) < 2:
        return math.nan
    first, last = (torch.from_numpy(part.astype(np.float32)) for part in crops(clip[[0, -1]]))
    return float(1 - nearest_glyphs(first[None].numpy(), last[None].numpy(), 2)[0][0])


def glyph(clip: Gray) -> Array:
    """(BOX, BOX): the digit, as it is on average over the frames."""
    return np.asarray(crops(clip).astype(np.float64).mean(0))


def nearest_glyphs(query: NDArray[Any], known: NDArray[Any], shift: int = 1) -> tuple[Array, NDArray[np.int64]]:
    """Distance of each of `query` (n, s, s) to the nearest of `known` (m, s, s), and which that is.

    One minus the cosine of the angle between the two pictures, at the best of the shifts by up to `shift` pixels:
    0 for a copy, however bright, and 1 for pictures that have nothing in common.
    """
    side = query.shape[-1]
    unit = F.normalize(torch.from_numpy(known.astype(np.float32)).flatten(1), dim=1)
    best, which = np.full(len(query), 1.0), np.zeros(len(query), np.int64)
    at_once = max(1, _PRODUCTS // (len(known) * (2 * shift + 1) ** 2))
    for start in range(0, len(query), at_once):
        wide = F.pad(torch.from_numpy(query[start : start + at_once].astype(np.float32)), (shift,) * 4)
        moved = wide.unfold(1, side, 1).unfold(2, side, 1).flatten(1, 2).flatten(2)  # (n, shifts, s x s)
        cosine, index = (F.normalize(moved, dim=2) @ unit.T).amax(1).max(1)
        best[start : start + at_once] = (1 - cosine).clamp(min=0).double().numpy()
        which[start : start + at_once] = index.numpy()
    return best, which


# --------------------------------------------------------------------------------------------------------- features


def frechet_distance(a: Array, b: Array) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) of two sets of features (n, d): Heusel et al. 2017, eq. 6.

    The squared distance between the normal distributions of their means and covariances. It is biased upwards, the
    more the fewer the samples, and means nothing without that of real against real at the same number.
    """
    if min(len(a), len(b)) < 2:
        return math.nan
    mean = a.mean(0) - b.mean(0)
    s_a, s_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    values, vectors = np.linalg.eigh(s_a)
    root = vectors * np.sqrt(values.clip(min=0)) @ vectors.T
    # The root of S_a S_b has the trace of the root of S_a^(1/2) S_b S_a^(1/2), which is symmetric.
    both = np.sqrt(np.linalg.eigvalsh(root @ s_b @ root).clip(min=0)).sum()
    return max(0.0, float(mean @ mean + np.trace(s_a) + np.trace(s_b) - 2 * both))


def mean_pair_distance(x: Array) -> float:
    """Mean Euclidean distance between two different rows of (n, d); NaN for fewer than two."""
    n = len(x)
    found = torch.cdist(torch.from_numpy(x), torch.from_numpy(x), compute_mode="donot_use_mm_for_euclid_dist")
    return float(found.sum() / (n * (n - 1))) if n > 1 else math.nan
