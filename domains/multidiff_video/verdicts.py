"""Whether clips show the digits and motions that were asked for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from multidiff_video.digits import MOTIONS
from multidiff_video.judge import Seen
from multidiff_video.metrics import Array, Gray, axis, first_direction, track
from multidiff_video.real import Asked

FEWEST = 4  # frames that it takes to tell a motion
NAMES = ("digits", "frames", "motions", "both", "along", "axis", "direction")


def verdicts(clips: Sequence[Gray], seen: Seen, asked: Sequence[Asked]) -> dict[str, Array]:
    """Name -> (n,): 1 for right, 0 for wrong, NaN where nothing was asked or it cannot be told.

    ``digits``: the judge sees the digits asked for more than any other. ``frames``: share of the frames in which it
    sees these and no other. ``motions``: each of them moves as asked; ``both``: that, and the digits are right.
    ``along``: each moves along its axis, one way or several, as in a later window of a long clip where it has met
    walls that the prompt does not know of. ``axis``, ``direction``: of one digit alone, by the middle of the ink and
    not by the judge: the axis of its motion, and which way it goes first.
    """
    found = {name: np.full(len(clips), np.nan) for name in NAMES}
    for i, (clip, pairs) in enumerate(zip(clips, asked, strict=True)):
        for name, value in (_of(clip, seen, i, dict(pairs)) if pairs else {}).items():
            found[name][i] = value
    return found


def _of(clip: Gray, seen: Seen, i: int, asked: dict[int, str]) -> dict[str, float]:
    if not len(clip):
        return dict.fromkeys(NAMES if len(asked) == 1 else NAMES[:5], 0.0)
    digits, count = sorted(asked), len(asked)
    named = dict(seen.named(i, count))
    top = np.sort(np.argsort(-seen.frames[i])[:, :count])
    surely = (seen.frames[i][:, digits] > 0.5).all(1)
    right = {"digits": float(sorted(named) == digits), "frames": float(((top == digits).all(1) & surely).mean())}
    if len(clip) < FEWEST:
        return right
    moves = {d: (*MOTIONS, "")[int(seen.motions[i, d].argmax())] for d in digits}
    right["motions"] = float(moves == asked)
    right["both"] = right["digits"] * right["motions"]
    right["along"] = float(all(_axis(moves[d]) == _axis(motion) for d, motion in asked.items()))
    if count == 1:
        path, motion = track(clip), asked[digits[0]]
        right["axis"] = float(axis(path) == _axis(motion))
        right["direction"] = float(first_direction(path) == motion.split()[0])
    return right


def _axis(motion: str) -> str:
    return "" if not motion else "x" if motion.split()[0] in ("left", "right") else "y"
