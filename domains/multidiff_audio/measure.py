"""How good sounds are, by what a judge of real sounds makes of them: every share is of the number asked for."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from multidiff_audio import metrics
from multidiff_audio.asked import Asked, Reader
from multidiff_audio.clips import PackedClips
from multidiff_audio.judge import Judge, Sounds
from multidiff_audio.level import fault, loudness
from multidiff_audio.metrics import Array
from multidiff_audio.real import Pair, Real

Figures = dict[str, Any]  # float, int, str, list; NaN for what cannot be measured

Kind = tuple[Any, ...]
"""What a sound asks for, (attribute, class) pairs; (prompt,) where that is nothing known."""

FAULTS = ("silent", "clipped", "noise", "not finite")
NAMED = 10  # copies that are named one by one


def measure(
    sounds: Sounds,
    rate: int,
    prompts: Sequence[str],
    reference: Real | PackedClips | None,
    judge: Judge,
    *,
    asked: Sequence[Asked] | None = None,
    copies: bool = True,
    seed: int = 0,
    progress: bool = True,
) -> Figures:
    """All figures of sounds of (channels, samples), one for each that was asked for.

    NAME/n is the number of sounds behind NAME; NAME/real is the same of real clips, measured in the same way, and
    NAME/of_real the quotient. A sound that is empty or not finite is wrong in accuracy and left out elsewhere.

    ``silent``, ``clipped``, ``noise``, ``not finite``: shares (`level.fault`). ``accuracy/ATTRIBUTE``: the judge
    names the class that the prompt asks for, of the sounds whose prompt asks for one; ``accuracy/all``: every class
    asked for, where a prompt asks for several. ``inception/ATTRIBUTE``: `metrics.inception_score`, real: of the test
    clips. ``frechet``, ``precision``, ``recall``, ``density``, ``coverage``: `Real.compare`; ``frechet_test``:
    `Real.frechet_test`. ``diversity``: mean distance of two sounds that ask for the same, real: of two test clips
    that are it. ``nearest``: median distance to the nearest training clip (`metrics.nearest`), real: of the test
    clips; ``copies``: share nearer than `Real.too_near`, real: of the test clips.

    Args:
        rate: samples a second of all of them.
        prompts: of each; "" where there is none.
        reference: real clips; a `Real` has heard them already, which saves time where there are many calls.
        asked: what each asks for, where it is known; by default read from the prompts.
        copies: look for copies of training clips; some seconds a thousand sounds.
    """
    real = Real.of(reference, judge, seed) if isinstance(reference, PackedClips) else reference
    if asked is None:
        read = Reader(judge.classes, None if real is None else real.clips)
        asked = [read(prompt) for prompt in prompts]
    whole = np.array([bool(s.size) and bool(np.isfinite(s).all()) for s in sounds], bool)
    heard = [s for s, ok in zip(sounds, whole, strict=True) if ok]
    features, probabilities = judge.hear(heard, rate)
    figures: Figures = {"samples": len(sounds), "reference": 0 if real is None else len(real.rows)}
    figures |= _faults(heard, rate, len(sounds), progress)
    figures |= _accuracy(probabilities, judge, asked, whole, real)
    figures |= _inception(probabilities, real)
    kinds = [tuple(sorted(a.items())) or (p,) for a, p, ok in zip(asked, prompts, whole, strict=True) if ok]
    figures |= _diversity(features, kinds, real)
    if real is not None and len(heard) > 1:
        numbers = np.unique([repr(kind) for kind in kinds], return_inverse=True)[1].astype(np.int64)
        pairs = real.compare(features, numbers)
        for name, pair in {**pairs, "frechet_test": real.frechet_test(features, numbers)}.items():
            figures |= _beside(name, pair)
    if real is not None and copies and heard:
        figures |= _copies(heard, rate, np.flatnonzero(whole), real, progress)
    return figures


def _beside(name: str, pair: Pair) -> Figures:
    quotient = pair.value / pair.real if pair.real else math.nan
    return {name: pair.value, f"{name}/n": pair.n, f"{name}/real": pair.real, f"{name}/of_real": quotient}


def _faults(heard: Sounds, rate: int, count: int, progress: bool) -> Figures:
    bar = tqdm(heard, "levels", unit="sound", delay=2, disable=None if progress else True)
    seen = Counter(fault(np.asarray(s, np.float32), loudness(np.asarray(s, np.float32), rate)) for s in bar)
    seen["not finite"] = count - len(heard)
    shares: Figures = {}
    for name in FAULTS:
        shares |= {name: seen[name] / count if count else math.nan, f"{name}/n": count}
    return shares


def _accuracy(
    probabilities: Mapping[str, Array],
    judge: Judge,
    asked: Sequence[Asked],
    whole: NDArray[np.bool_],
    real: Real | None,
) -> Figures:
    """Of each attribute, and of all that a prompt asks for."""
    figures: Figures = {}
    place = np.cumsum(whole) - 1
    right: dict[int, list[bool]] = defaultdict(list)
    for attribute, p in probabilities.items():
        names = judge.classes[attribute]
        rows = [i for i, wanted in enumerate(asked) if attribute in wanted]
        hits = [bool(whole[i]) and names[int(p[place[i]].argmax())] == asked[i][attribute] for i in rows]
        for i, hit in zip(rows, hits, strict=True):
            right[i].append(hit)
        if rows:
            figures |= {f"accuracy/{attribute}": float(np.mean(hits)), f"accuracy/{attribute}/n": len(rows)}
            figures |= {f"accuracy/{attribute}/real": math.nan if real is None else real.accuracy(attribute)[0]}
    several = [all(hits) for hits in right.values() if len(hits) > 1]
    if several:
        figures |= {"accuracy/all": float(np.mean(several)), "accuracy/all/n": len(several)}
    return figures


def _inception(probabilities: Mapping[str, Array], real: Real | None) -> Figures:
    figures: Figures = {}
    for attribute, p in probabilities.items():
        own = math.nan if real is None else metrics.inception_score(real.probabilities[attribute][real.test])
        figures |= _beside(f"inception/{attribute}", Pair(metrics.inception_score(p), own, len(p)))
    return figures


def _diversity(features: Array, kinds: Sequence[Kind], real: Real | None) -> Figures:
    """Mean over what is asked for of the mean distance of two sounds."""
    groups: dict[Kind, list[int]] = defaultdict(list)
    for i, kind in enumerate(kinds):
        groups[kind].append(i)
    mine, theirs = [], []
    for key, rows in groups.items():
        if len(rows) > 1:
            mine.append(metrics.mean_pair_distance(features[rows]))
            theirs.append(math.nan if real is None else _real_diversity(key, real))
    if not mine:
        return {}
    known = ~np.isnan(theirs)
    figures = {"diversity": float(np.mean(mine)), "diversity/n": len(mine)}
    if known.any():  # both over the same groups
        figures = _beside(
            "diversity", Pair(float(np.mean(np.array(mine)[known])), float(np.nanmean(theirs)), len(mine))
        )
    return figures


def _real_diversity(key: Kind, real: Real) -> float:
    if not all(isinstance(entry, tuple) and entry[0] in real.labels for entry in key):
        return math.nan
    same = real.test.copy()
    for attribute, name in key:
        same &= real.labels[attribute] == name
    return metrics.mean_pair_distance(real.features[same])


def _copies(heard: Sounds, rate: int, numbers: NDArray[np.int64], real: Real, progress: bool) -> Figures:
    found, which = real.nearest(heard, rate, progress)
    own = real.nearest_real
    figures = _beside("nearest", Pair(float(np.median(found)), float(np.median(own)), len(found)))
    close, closer = (float((d < real.too_near).mean()) for d in (found, own))
    figures |= {"copies": close, "copies/n": len(found), "copies/real": closer, "copies/nearer_than": real.too_near}
    figures |= {"nearest/least": float(found.min()), "nearest/least/real": float(own.min())}
    near = [i for i in np.argsort(found) if found[i] < real.too_near][:NAMED]
    figures["copies/named"] = [
        {"sample": int(numbers[i]), "source": real.source(int(which[i])), "distance": round(float(found[i]), 4)}
        for i in near
    ]
    return figures
