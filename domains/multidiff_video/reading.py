"""Lessons for the text encoder on captions alone: which digit has which motion.

A network that is trained on pixels finds out late, or never, that in "a 3 moving left and a 7 moving up" it is the 3
that moves left; captions say so at once, and cost nothing.
"""

from __future__ import annotations

import copy
import itertools

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from multidiff.conditioning.text import TextEncoder, Vocabulary
from multidiff.random import fold
from multidiff_video.digits import MOTIONS, NAMES, caption, trained_motion

_CAPTIONS = 128
"""A step."""
_TWO = 0.8
"""Share of them with two digits."""
_STAY = 3.0
"""Weight of how far the outputs may move from what the rest of the network may already know them as."""


def teach(encoder: TextEncoder, vocabulary: Vocabulary, steps: int, seed: int = 0) -> float:
    """Train an encoder so that the motion can be read from a digit's word, and the digit from a motion's word.

    Args:
        encoder: changed in place.
        vocabulary: that holds the words of `digits.words`.
        steps: of Adam, on 128 captions each; 300 suffice.

    Returns:
        Share of the digits' words of the last step from which their motion is read right.
    """
    device, width = encoder.positions.device, encoder.positions.shape[1]
    before = copy.deepcopy(encoder).requires_grad_(False)
    numbers = {word: vocabulary.encode(word).tokens[0] for word in (*NAMES, *map(str, range(10)), *MOTIONS[:4])}
    is_digit = torch.zeros(len(vocabulary), dtype=torch.bool, device=device)
    is_motion = is_digit.clone()
    is_digit[[numbers[word] for word in (*NAMES, *map(str, range(10)))]] = True
    is_motion[[numbers[word] for word in MOTIONS[:4]]] = True
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(fold(seed))
        motion_of, digit_of = (nn.Linear(width, size).to(device) for size in (len(MOTIONS), len(NAMES)))
    optimizer = torch.optim.Adam([*encoder.parameters(), *motion_of.parameters(), *digit_of.parameters()])
    rng = np.random.default_rng(fold(seed))
    right = 0.0
    for step in range(steps):
        rate = 1e-3 * min(1.0, (step + 1) / 50, 2 * (steps - step) / steps)
        optimizer.param_groups[0]["lr"] = rate
        texts, digits, motions = _captions(rng)
        tokens = vocabulary.batch(texts).to(device)
        here = is_digit[tokens]
        of = digits.to(device)[(here.flatten().cumsum(0) - 1).view_as(tokens)]  # the last digit named before each word
        said = motion_of((out := encoder(tokens))[0][here])
        loss = F.cross_entropy(said, motions.to(device))
        moving = is_motion[tokens]
        loss = loss + F.cross_entropy(digit_of(out[0][moving]), of[moving]) + _STAY * _moved(out, before(tokens))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        right = float((said.argmax(1).cpu() == motions).double().mean())
    return right


def _captions(rng: np.random.Generator) -> tuple[list[str], Tensor, Tensor]:
    """Captions, and the digits and motions that they tell, in the order of the words; of pairs that are trained on."""
    told = []
    for _ in range(_CAPTIONS):
        digits = rng.permutation(10)[: 1 + int(rng.random() < _TWO)].tolist()
        told.append([(digit, trained_motion(digit, rng)) for digit in digits])
    digits, motions = zip(*itertools.chain(*told), strict=True)
    numbers = torch.tensor([MOTIONS.index(motion) for motion in motions])
    return [caption(pairs, rng) for pairs in told], torch.tensor(digits), numbers


def _moved(now: tuple[Tensor, Tensor, Tensor], before: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """How far words and their mean have moved, as a share of their variance."""
    there = now[1]
    words, old = now[0][there], before[0][there]
    apart = (words - old).square().sum(1).mean() / old.var(0).sum()
    return apart + (now[2] - before[2]).square().sum(1).mean() / before[2].var(0).sum()
