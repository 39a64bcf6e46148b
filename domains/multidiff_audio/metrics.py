"""Distances and scores of sets of features, probabilities and spectrograms; `measure` says what they are of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

Array = NDArray[np.float64]

NEIGHBOURS = 5  # k of precision, recall, density and coverage (Naeem et al. 2020)
DEPTH = 3.0  # decades of power: 30 dB
SILENCE = -2.0  # log10 of a power: a sound of deviation 1 has some hundreds in its bands, silence 1e-3
_PRODUCTS = 1 << 25  # numbers held at a time when spectrograms are compared


def frechet_distance(a: Array, b: Array) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) of two sets of features (n, d): Heusel et al. 2017, eq. 6.

    The squared distance between the normal distributions of their means and covariances. It is biased upwards, the
    more the fewer the samples, and means nothing without that of real against real at the same number.
    """
    from torchaudio.functional import frechet_distance as distance

    if min(len(a), len(b)) < 2:
        return math.nan
    moments = [(torch.from_numpy(x.mean(0)), torch.from_numpy(np.atleast_2d(np.cov(x, rowvar=False)))) for x in (a, b)]
    return max(0.0, float(distance(*moments[0], *moments[1])))


def inception_score(p: Array) -> float:
    """exp of the mean Kullback-Leibler divergence of each row of `p` (n, classes) from their mean (Salimans 2016).

    From 1 (every sound alike, or none recognised) to the number of classes (each recognised, all equally often).
    """
    if not len(p):
        return math.nan
    q = p.mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * (np.log(p) - np.log(q)), 0.0)
    return math.exp(float(terms.sum(1).mean()))


class Neighbourhoods(NamedTuple):
    """Shares, density excepted: how far each of two sets lies in the k-nearest-neighbour balls of the other.

    precision: generated ones in a ball of a real one; recall: real ones in a ball of a generated one (Kynkäänniemi et
    al. 2019); density: balls of real ones that a generated one lies in, of k (1 on average for equal distributions);
    coverage: real ones in whose ball a generated one lies (Naeem et al. 2020).
    """

    precision: float
    recall: float
    density: float
    coverage: float


def neighbourhoods(real: Array, generated: Array, k: int = NEIGHBOURS) -> Neighbourhoods:
    """Precision, recall, density and coverage of (n, d) features; NaN where a set has not more than k."""
    if min(len(real), len(generated)) <= k:
        return Neighbourhoods(*[math.nan] * 4)
    between = distances(real, generated)
    real_radius, generated_radius = _radius(real, k)[:, None], _radius(generated, k)[None]
    inside = between < real_radius
    return Neighbourhoods(
        precision=float(inside.any(0).mean()),
        recall=float((between < generated_radius).any(1).mean()),
        density=float(inside.sum(0).mean() / k),
        coverage=float((between.min(1) < real_radius[:, 0]).mean()),
    )


def distances(a: Array, b: Array) -> Array:
    """(n, m) Euclidean, between rows; by differences, so that a row is at exactly 0 from itself."""
    found = torch.cdist(torch.from_numpy(a), torch.from_numpy(b), compute_mode="donot_use_mm_for_euclid_dist")
    return np.asarray(found.numpy())


def _radius(x: Array, k: int) -> Array:
    """Distance of each row to its k-th nearest other row."""
    return np.sort(distances(x, x), 1)[:, k]


def draw(groups: NDArray[np.int64], n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """n rows, or all there are if that is less, with as nearly as can be the same number of every group.

    Args:
        groups: (rows,) the kind of each; equal numbers are one kind.
    """
    return _in_turn(_by_group(groups, rng), groups, rng)[:n]


def disjoint_draws(
    groups: NDArray[np.int64], n: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Two draws of n rows (at most half as many as there are) that have no row in common.

    As the prompts of an evaluation are taken in turn, so are the groups; two draws then differ in their sounds, not in
    how often each kind of sound is in them.
    """
    ordered = _by_group(groups, rng)
    first, second = (_in_turn(ordered[side::2], groups, rng)[:n] for side in (0, 1))
    return first, second


def _by_group(groups: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    order = rng.permutation(len(groups))
    return order[np.argsort(groups[order], kind="stable")]


def _in_turn(rows: NDArray[np.int64], groups: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows that are ordered by group, with one of every group, in any order, before the second of any."""
    kinds = groups[rows]
    turn = np.arange(len(rows)) - np.searchsorted(kinds, kinds)
    return rows[np.lexsort((rng.random(len(rows)), turn))]


def mean_pair_distance(x: Array) -> float:
    """Mean distance between two different rows; NaN for fewer than two."""
    n = len(x)
    return float(distances(x, x).sum() / (n * (n - 1))) if n > 1 else math.nan


# -------------------------------------------------------------------------------------------------------- copies


def shapes(mels: Sequence[Tensor], frames: int) -> Tensor:
    """(n, frames, bands) log-mel spectrograms as far as they are above their floor, less each band's mean, of norm 1.

    The floor is DEPTH below the loudest moment and band: what a recording, a decoder or added noise has beneath it
    changes nothing, nor do silent frames at either end. The mean is that of the frames that are not silent; without
    it any noise would be a copy of steady rain. Longer sounds are cut, shorter ones end in 0, silence is 0.
    """
    rows = []
    for mel in mels:
        kept = mel[:, :frames]
        above = (kept - max(float(kept.max()) - DEPTH, SILENCE)).clamp(min=0)
        heard = above.amax(0) > 0
        if heard.any():
            above = torch.where(heard, above - above[:, heard].mean(1, keepdim=True), 0.0)
        rows.append(F.pad(above, (0, frames - kept.shape[1])).T)
    stacked = torch.stack(rows) if rows else torch.zeros(0, frames, 1)
    return F.normalize(stacked.flatten(1), dim=1).view_as(stacked)


def nearest(
    query: Tensor, known: Tensor, *, same: bool = False, progress: bool = False
) -> tuple[Array, NDArray[np.int64]]:
    """Distance of each of `query` (n, frames, bands) to the nearest of `known` (m, ...), and which that is.

    One minus the cosine of the angle between two spectrograms, at the best of all shifts: 0 for a copy at whatever
    level and moment, about 1 for sounds that have nothing in common, and for silence.

    Args:
        query: as `shapes` makes them.
        known: of the same number of frames and bands, at least one.
        same: they are the same sounds; the nearest other one is looked for.
    """
    best: Array = np.zeros(len(query))
    which: NDArray[np.int64] = np.zeros(len(query), np.int64)
    size = 2 * known.shape[1]  # room for a shift by all frames without coming round
    spectra = torch.fft.rfft(known, size, dim=1).permute(1, 2, 0).contiguous()
    rows_at_once = max(1, _PRODUCTS // (size * len(known)))
    for start in tqdm(range(0, len(query), rows_at_once), "copies", disable=None if progress else True, delay=2):
        part = torch.fft.rfft(query[start : start + rows_at_once], size, dim=1).permute(1, 0, 2).conj()
        cosine = torch.fft.irfft(torch.bmm(part, spectra), size, dim=0).amax(0)  # of every shift
        if same:
            rows = torch.arange(len(cosine))
            cosine[rows, rows + start] = -1.0
        value, index = cosine.max(1)
        best[start : start + rows_at_once] = (1 - value).clamp(min=0).double().numpy()
        which[start : start + rows_at_once] = index.numpy()
    return best, which
