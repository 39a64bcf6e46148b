"""How good clips are: what a judge and a ruler make of them, each figure beside that of real clips."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from multidiff_video import metrics
from multidiff_video.digits import FRAMES, Glyphs, held_out, parse
from multidiff_video.judge import Clips, Judge, Seen, ready
from multidiff_video.metrics import Array, Gray
from multidiff_video.real import Asked, Real
from multidiff_video.verdicts import verdicts

Figures = dict[str, Any]  # float, int, str, list; NaN for what cannot be measured

DRAWS = 2  # of two real sets each, behind every Fréchet distance
FEWEST = 50  # clips for a Fréchet distance: with fewer a covariance says nothing
CLOSE = 1.0  # percent of real test digits that are as near to a training digit as what counts as a copy
NAMED = 10  # copies that are named one by one
WARPED = 256  # clips that the warp error is taken of, evenly spaced: 30 ms each
_COUNTS = {1: "one", 2: "two"}
_TOLD = ("digits", "frames", "motions", "both", "axis", "direction")
_WINDOWED = ("digits", "frames", "along", "axis")


def measure(
    clips: Clips,
    prompts: Sequence[str],
    reference: Real | None,
    judge: Judge,
    *,
    asked: Sequence[Asked] | None = None,
    copies: bool = True,
    seed: int = 0,
    progress: bool = True,
) -> Figures:
    """All figures of clips of (frames, height, width, channels), one for each that was asked for.

    NAME/n is the number of clips behind NAME; NAME/real is the same of real clips, measured in the same way, and
    NAME/of_real the quotient. A clip without frames could not be made: wrong in accuracy and left out elsewhere.

    ``one/...``, ``two/...``: `verdicts.verdicts` of clips that ask for so many digits; ``held out/...``: those that
    ask for one in a pair that is never trained on. Of clips of two windows or more ``one/first/...`` and
    ``one/last/...`` are of the first and the last FRAMES frames. ``flicker``, ``warp``: `metrics.flicker` and
    `metrics.warp_error`, means. ``identity``: `metrics.identity` of clips that ask for one digit; ``identity/other``:
    that of real clips whose last frame is of another clip with the same digit. ``diversity``: mean distance of two
    clips that ask for the same. ``frechet``: `metrics.frechet_distance` to real clips, real: of as many others.
    ``nearest``: median distance of the digit in a clip that asks for one to the nearest training digit; ``copies``:
    share nearer than all but CLOSE percent of real test digits are.

    Args:
        prompts: of each; "" where there is none.
        reference: real clips.
        asked: of each, where it is known; by default read from the prompts.
        copies: look for copies of training digits; seconds for a thousand clips.
        seed: of the draws of real clips.
    """
    wanted = [_once(pairs) for pairs in ([parse(p) for p in prompts] if asked is None else asked)]
    there = np.array([len(clip) > 0 for clip in clips], bool)
    mine = _Look.at([c for c in clips if len(c)], judge, progress)
    kept = [pairs for pairs, ok in zip(wanted, there, strict=True) if ok]
    shapes = [clip.shape for clip in clips if len(clip)]
    theirs = []
    if reference is not None and mine.clips:
        for draw in range(seed, seed + DRAWS):
            theirs.append([_Look.at(reference.draw(kept, shapes, i, draw), judge, progress) for i in (0, 1)])
    real = theirs[0][0] if theirs else None
    matched = real if real is not None and len(real.clips) == len(kept) else None
    kinds = [repr(pairs) if pairs else prompt for pairs, prompt, ok in zip(wanted, prompts, there, strict=True) if ok]
    figures: Figures = {"samples": len(clips), "missing": int((~there).sum()), "reference": len(kept) if theirs else 0}
    figures |= _accuracy(mine, there, wanted, matched, kept)
    figures |= _steadiness(mine, kept, real, matched)
    figures |= _diversity(mine.seen.features, kinds, matched)
    figures |= _frechet(mine, theirs)
    known = None if reference is None else reference.known
    if known is not None and copies:
        figures |= _copies(mine, np.flatnonzero(there), kept, [look for pair in theirs for look in pair[:1]], known)
    return figures


class _Look:
    """Clips, gray, and what a judge sees in them."""

    def __init__(self, clips: list[Gray], seen: Seen, judge: Judge) -> None:
        self.clips, self.seen, self.judge = clips, seen, judge

    @classmethod
    def at(cls, clips: Clips, judge: Judge, progress: bool) -> _Look:
        gray = [ready(clip).numpy() for clip in tqdm(clips, "look", delay=2, disable=None if progress else True)]
        return cls(gray, judge.look([clip[..., None] for clip in gray]), judge)

    def window(self, start: int | None, end: int | None) -> _Look:
        clips = [clip[start:end] for clip in self.clips]
        return _Look(clips, self.judge.look([clip[..., None] for clip in clips]), self.judge)


def _once(pairs: Asked) -> Asked:
    """What can be judged: nothing of a prompt that names a digit twice."""
    return pairs if pairs and len(dict(pairs)) == len(pairs) else None


def _beside(name: str, value: float, real: float, n: int) -> Figures:
    quotient = value / real if real and not math.isnan(real) else math.nan
    return {name: value, f"{name}/n": n, f"{name}/real": real, f"{name}/of_real": quotient}


def _accuracy(
    mine: _Look, there: NDArray[np.bool_], wanted: Sequence[Asked], real: _Look | None, kept: Sequence[Asked]
) -> Figures:
    figures: Figures = {}
    windows: dict[str, tuple[int | None, int | None]] = {"": (None, None)}
    if min((len(clip) for clip in mine.clips), default=0) >= 2 * FRAMES:
        windows |= {"first/": (None, FRAMES), "last/": (-FRAMES, None)}
    for window, (start, end) in windows.items():
        own, other = mine, real
        if window:
            own, other = mine.window(start, end), None if real is None else real.window(start, end)
        found = _spread(verdicts(own.clips, own.seen, kept), there, wanted)
        beside = None if other is None else verdicts(other.clips, other.seen, kept)
        for group in (*_COUNTS.values(), "held out"):
            rows, real_rows = (np.array([group in _groups(pairs) for pairs in many], bool) for many in (wanted, kept))
            for name in _WINDOWED if window else _TOLD:
                values = found[name][rows]
                known = ~np.isnan(values)
                if known.any():
                    same = math.nan if beside is None else _mean(beside[name][real_rows].tolist())
                    figures |= _beside(f"{group}/{window}{name}", float(values[known].mean()), same, int(known.sum()))
    return figures


def _groups(pairs: Asked) -> tuple[str, ...]:
    """Which figures of accuracy a clip that asks for `pairs` belongs to."""
    if not pairs:
        return ()
    alone = len(pairs) == 1 and held_out(*pairs[0])
    return (_COUNTS.get(len(pairs), ""), "held out" if alone else "")


def _spread(found: dict[str, Array], there: NDArray[np.bool_], wanted: Sequence[Asked]) -> dict[str, Array]:
    """Verdicts of the clips that are there among those of all: the others are wrong in all that is told of the rest."""
    whole = {}
    for name, values in found.items():
        whole[name] = np.full(len(there), np.nan)
        whole[name][there] = values
        one = name in ("axis", "direction")
        for i in np.flatnonzero(~there).tolist():
            if len(wanted[i] or ()) == 1 or (wanted[i] and not one):
                whole[name][i] = 0.0
    return whole


def _steadiness(mine: _Look, kept: Sequence[Asked], real: _Look | None, matched: _Look | None) -> Figures:
    """Flicker, warp error and identity."""
    figures: Figures = {}
    for name, of, most in (("flicker", metrics.flicker, len(mine.clips)), ("warp", metrics.warp_error, WARPED)):
        values, others = (
            [of(clip) for clip in look.clips[:: -(-len(look.clips) // most)]] if look and look.clips else []
            for look in (mine, real)
        )
        known = [v for v in values if not math.isnan(v)]
        if known:
            same = _mean(others)
            figures |= _beside(name, float(np.mean(known)), same, len(known))
    single = [i for i, pairs in enumerate(kept) if pairs and len(pairs) == 1 and len(mine.clips[i]) > 1]
    if single:
        value, same = (
            math.nan if look is None else _mean([metrics.identity(look.clips[i]) for i in single])
            for look in (mine, matched)
        )
        figures |= _beside("identity", value, same, len(single))
        if matched is not None:
            figures["identity/other"] = _other_hands(matched, kept, single)
    return figures


def _other_hands(real: _Look, kept: Sequence[Asked], single: Sequence[int]) -> float:
    """`metrics.identity` if the last frame were of the next clip with the same digit."""
    by_digit: dict[int, list[int]] = defaultdict(list)
    for i in single:
        by_digit[(kept[i] or [(0, "")])[0][0]].append(i)
    pairs = [(a, b) for rows in by_digit.values() for a, b in itertools.pairwise(rows)]
    return _mean([metrics.identity(np.stack([real.clips[a][0], real.clips[b][-1]])) for a, b in pairs])


def _mean(values: Sequence[float]) -> float:
    known = [v for v in values if not math.isnan(v)]
    return float(np.mean(known)) if known else math.nan


def _diversity(features: Array, kinds: Sequence[str], real: _Look | None) -> Figures:
    """Mean over what is asked for of the mean distance of two clips."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i, kind in enumerate(kinds):
        groups[kind].append(i)
    several = [rows for rows in groups.values() if len(rows) > 1]
    if not several:
        return {}
    value, same = (
        math.nan if x is None else float(np.mean([metrics.mean_pair_distance(x[rows]) for rows in several]))
        for x in (features, None if real is None else real.seen.features)
    )
    return _beside("diversity", value, same, len(several))


def _frechet(mine: _Look, theirs: Sequence[Sequence[_Look]]) -> Figures:
    """Mean distance to the real sets, and of the two of a draw from each other, all of one size."""
    if not theirs:
        return {}
    n = min(len(mine.clips), *(len(look.clips) for pair in theirs for look in pair))
    x = mine.seen.features[np.random.default_rng(0).permutation(len(mine.clips))[:n]]
    sets = [[look.seen.features[:n] for look in pair] for pair in theirs]
    if n < FEWEST:
        return _beside("frechet", math.nan, math.nan, n)
    value = np.mean([metrics.frechet_distance(x, other) for pair in sets for other in pair])
    return _beside("frechet", float(value), float(np.mean([metrics.frechet_distance(*pair) for pair in sets])), n)


def _copies(
    mine: _Look, numbers: NDArray[np.int64], kept: Sequence[Asked], real: Sequence[_Look], known: Glyphs
) -> Figures:
    """Of the digits in clips that ask for one: are they training digits?"""
    rows = [i for i, pairs in enumerate(kept) if pairs and len(pairs) == 1]
    if not rows or not real:
        return {}
    digits = np.array([kept[i][0][0] for i in rows])  # type: ignore[index]
    known = Glyphs(metrics.crops(known.resized(metrics.BOX).images), known.labels)  # about their middle, as the others
    found, which = _nearest([mine.clips[i] for i in rows], digits, known)
    own = np.concatenate([_nearest([look.clips[i] for i in rows], digits, known)[0] for look in real])
    too_near = float(np.quantile(own, CLOSE / 100))
    figures = _beside("nearest", float(np.median(found)), float(np.median(own)), len(found))
    figures |= {"copies": float((found < too_near).mean()), "copies/n": len(found)}
    figures |= {"copies/real": float((own < too_near).mean()), "copies/nearer_than": too_near}
    near = [i for i in np.argsort(found) if found[i] < too_near][:NAMED]
    figures["copies/named"] = [
        {"sample": int(numbers[rows[i]]), "digit": int(which[i]), "distance": round(float(found[i]), 4)} for i in near
    ]
    return figures


def _nearest(clips: Sequence[Gray], digits: NDArray[np.int64], known: Glyphs) -> tuple[Array, NDArray[np.int64]]:
    """To the training digits of the same kind; which is its number among them all."""
    distance, which = np.ones(len(clips)), np.zeros(len(clips), np.int64)
    glyphs = np.stack([metrics.glyph(clip) for clip in clips])
    for digit in np.unique(digits):
        rows, same = np.flatnonzero(digits == digit), np.flatnonzero(known.labels == digit)
        if len(same):
            distance[rows], nearest = metrics.nearest_glyphs(glyphs[rows], known.images[same])
            which[rows] = same[nearest]
    return distance, which
