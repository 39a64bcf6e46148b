"""How two estimates become one.

All rules share one form, in the clean state (Ho and Salimans 2022, equation 6; Sadat et al. 2024, equation 6):

    x0 = first + (w - 1) d,    d = first - second

with `first` the estimate asked for and `second` the reference. A rule may change the direction d (`APG`,
`CFGZeroStar`), set w (`Scale`), correct the result (`Rescale`, `DynamicThreshold`), say when there is guidance at all
(`Interval`) or move the state that the step starts from (`CFGPlusPlus`). They run in this order whatever their order
in the list; within one kind the list's order holds. Since x0 and the noise are bound by x_t = alpha x0 + sigma eps and
the weights of the estimates add up to one, w means the same for every prediction.

Norms, deviations and quantiles are a sample's own, part by part, over the entries that its space says are its own:
padding changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from multidiff.errors import InputError, unknown
from multidiff.guidance.moment import Estimates, Moment, factor
from multidiff.state import Parts, State, expand_to, map_state, pick


class Combine:
    """Base of all rules: each changes nothing."""

    moves = False

    @property
    def needs_reference(self) -> bool:
        """Whether the result depends on the second estimate."""
        return False

    def active(self, moment: Moment) -> bool | Tensor:
        """Whether there is guidance: for all samples, or (B,) where their times differ."""
        return True

    def direction(self, direction: State, moment: Estimates, carry: Any) -> tuple[State, Any]:
        """Another d, and what this rule wants to see again as `carry` in the next call of the run."""
        return direction, None

    def apply(self, estimate: State, direction: State, moment: Estimates) -> State:
        """The estimate moved along d."""
        return estimate

    def finish(self, estimate: State, moment: Estimates) -> State:
        """The guided estimate corrected."""
        return estimate

    def move(self, x: State, estimate: State, moment: Estimates) -> State:
        """The state that the step starts from."""
        return x


@dataclass(frozen=True)
class Scale(Combine):
    """x0 = first + (w - 1)(first - second): classifier-free guidance (Ho and Salimans 2022).

    1 is the first estimate (the second is not asked for), 0 the second one. In their notation w is 1 + w.

    Args:
        w: finite, 0 or more.
        parts: which parts of the state it acts on; all by default. The others keep the first estimate.
    """

    w: float
    parts: Sequence[str] | None = None

    def __post_init__(self) -> None:
        check("guidance scale", self.w)

    @property
    def needs_reference(self) -> bool:
        return self.w != 1

    def apply(self, estimate: State, direction: State, moment: Estimates) -> State:
        return on_parts(self.parts, lambda x, d: torch.add(x, d, alpha=self.w - 1), estimate, direction)


@dataclass(frozen=True)
class Interval(Combine):
    """Guidance only at noise levels in (low, high] (Kynkaanniemi et al. 2024); outside the network is called once.

    Args:
        low, high: bounds in the unit of `axis`.
        axis: "sigma" for sigma / alpha, "log_snr" for log(alpha / sigma), both of the first part where the parts have
            schedules of their own.
    """

    low: float
    high: float
    axis: str = "sigma"

    def __post_init__(self) -> None:
        if self.axis not in ("sigma", "log_snr"):
            raise unknown("axis", self.axis, ("sigma", "log_snr"))
        if not self.low < self.high:
            raise InputError(f"a guidance interval needs low < high, not {self.low!r} and {self.high!r}")

    def active(self, moment: Moment) -> bool | Tensor:
        if moment.ask.level is not None:
            log_snr = moment.level_log_snr
            return self._inside(math.exp(-log_snr) if self.axis == "sigma" else log_snr)
        value = moment.log_snr
        inside = self._inside(torch.exp(-value) if self.axis == "sigma" else value)
        return bool(inside[0]) if (inside == inside[0]).all() else inside

    def _inside(self, value: Any) -> Any:
        return (self.low < value) & (value <= self.high)


@dataclass(frozen=True)
class Rescale(Combine):
    """x0 <- phi x0 std(first) / std(x0) + (1 - phi) x0 (Lin et al. 2023, equations 14 to 16), on the clean state.

    Args:
        phi: 0 (nothing) to 1 (the deviation of the first estimate).
        parts: which parts of the state it acts on; all by default.
    """

    phi: float = 0.7
    parts: Sequence[str] | None = None

    def __post_init__(self) -> None:
        check("rescale phi", self.phi, 1)

    def finish(self, estimate: State, moment: Estimates) -> State:
        return on_parts(self.parts, self._finish, estimate, moment.first, moment.spaces)

    def _finish(self, x: Tensor, first: Tensor, space: Any) -> Tensor:
        ratio = deviation(first, space) / deviation(x, space).clamp(min=_TINY)
        return x * expand_to(1 - self.phi + self.phi * ratio, x)


@dataclass(frozen=True)
class APG(Combine):
    """Adaptive projected guidance (Sadat et al. 2024, algorithm 1): less of what oversaturates.

    With m the sum over the run of the directions, each older one times `momentum` once more, cut to the norm
    `threshold`, and p its component along the first estimate: d <- m - p + eta p.

    Args:
        eta: how much of the parallel component stays; 1 all, 0 none.
        threshold: greatest norm of m in a sample; infinite by default.
        momentum: below 0 pushes away from older directions; in (-1, 1), 0 is none. It is held by the sampling loop.
        parts: which parts of the state it acts on; all by default.
    """

    eta: float = 0.0
    threshold: float = math.inf
    momentum: float = 0.0
    parts: Sequence[str] | None = None

    def __post_init__(self) -> None:
        check("APG eta", self.eta)
        if not self.threshold > 0:
            raise InputError(f"the APG threshold must be above 0, not {self.threshold!r}")
        if not -1 < self.momentum < 1:
            raise InputError(f"the APG momentum must lie between -1 and 1, not {self.momentum!r}")

    def direction(self, direction: State, moment: Estimates, carry: Any) -> tuple[State, Any]:
        if self.momentum and carry is not None:
            direction = on_parts(self.parts, lambda d, old: torch.add(d, old, alpha=self.momentum), direction, carry)
        changed = on_parts(self.parts, self._project, direction, moment.first)
        return changed, direction if self.momentum else None

    def _project(self, d: Tensor, first: Tensor) -> Tensor:
        if self.threshold < math.inf:
            d = d * expand_to((self.threshold / dot(d, d).sqrt()).clamp(max=1), d)
        along = dot(d, first) / dot(first, first).clamp(min=_TINY)
        return d - expand_to((1 - self.eta) * along, d) * first


@dataclass(frozen=True)
class CFGZeroStar(Combine):
    """CFG-zero* (Fan et al. 2025, algorithm 1): the reference scaled to fit, and no motion in the first steps.

    With the velocities v = eps - x0 of both estimates, d belongs to v_first - s* v_second, where
    s* = <v_first, v_second> / |v_second|^2 is the least-squares fit. At times above 1 - `zero_init` the velocity is
    zero: the estimate is x_t / (alpha + sigma). Any schedule is rectified flow in x / (alpha + sigma).

    Args:
        zero_init: share of the time axis without motion, 0 (none) to 1.
        parts: which parts of the state it acts on; all by default.
    """

    zero_init: float = 0.04
    parts: Sequence[str] | None = None

    def __post_init__(self) -> None:
        check("CFG-zero* zero_init", self.zero_init, 1)

    def direction(self, direction: State, moment: Estimates, carry: Any) -> tuple[State, Any]:
        changed = on_parts(
            self.parts, _fitted, direction, moment.ask.x, moment.first, moment.second, moment.alpha, moment.sigma
        )
        return changed, None

    def finish(self, estimate: State, moment: Estimates) -> State:
        if not self.zero_init:
            return estimate
        still = moment.ask.t > 1 - self.zero_init
        return on_parts(self.parts, _stand_still, estimate, moment.ask.x, moment.alpha, moment.sigma, still)


@dataclass(frozen=True)
class DynamicThreshold(Combine):
    """x0 <- clip(x0, -s, s) limit / s, s = max(limit, quantile of |x0|) (Saharia et al. 2022, section 2.3).

    Args:
        quantile: in (0, 1]; 1 is the greatest absolute value.
        limit: the range of the data, in units of the state.
        parts: which parts of the state it acts on; all by default.
    """

    quantile: float = 0.995
    limit: float = 1.0
    parts: Sequence[str] | None = None

    def __post_init__(self) -> None:
        check("quantile of a dynamic threshold", self.quantile, 1)
        if not 0 < self.limit < math.inf:
            raise InputError(f"the limit of a dynamic threshold must be above 0 and finite, not {self.limit!r}")

    def finish(self, estimate: State, moment: Estimates) -> State:
        return on_parts(self.parts, self._finish, estimate, moment.spaces)

    def _finish(self, x: Tensor, space: Any) -> Tensor:
        s = expand_to(own_quantile(x.abs(), self.quantile, space).clamp(min=self.limit), x)
        return x.clamp(-s, s) * (self.limit / s)


def check(what: str, value: float, high: float = math.inf) -> None:
    """Raise where `value` is not a finite number from 0 to `high`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not (0 <= value <= high and value < math.inf):
        bound = "0 or more" if high == math.inf else f"from 0 to {high:g}"
        raise InputError(f"{what} must be a finite number, {bound}, not {value!r}")


def on_parts(parts: Sequence[str] | None, function: Callable[..., Tensor], first: State, *others: Any) -> State:
    """Apply `function` to the named parts of the state (all where none is named); the rest of `first` stays.

    Raises:
        InputError: a part is named that the state has not.
    """
    if parts is None:
        return map_state(function, first, *others)
    names = tuple(first) if isinstance(first, Parts) else ()
    for name in parts:
        if name not in names:
            raise unknown("part", name, names)
    assert isinstance(first, Parts)
    return Parts({n: function(x, *(pick(o, n) for o in others)) if n in parts else x for n, x in first.items()})


_TINY = 1e-30


def dot(a: Tensor, b: Tensor) -> Tensor:
    """(B,) inner products, in float32 at least."""
    return (_wide(a) * _wide(b)).flatten(1).sum(1)


def deviation(x: Tensor, space: Any) -> Tensor:
    """(B,) standard deviation of a sample's own entries."""
    x = _wide(x)
    return space.mean((x - expand_to(space.mean(x), x)).square()).sqrt()


def own_quantile(x: Tensor, quantile: float, space: Any) -> Tensor:
    """(B,) quantile, linearly interpolated, of a sample's own entries; `x` is 0 or more and 0 in the padding.

    How many entries are a sample's own is their sum over their mean.
    """
    x = _wide(x)
    ordered = x.flatten(1).sort(1).values
    size = ordered.shape[1]
    own = (ordered.sum(1) / space.mean(x).clamp(min=_TINY)).round().clamp(1, size)
    place = (size - own + (own - 1) * quantile).clamp(0, size - 1)
    low = place.long()
    below, above = (ordered.gather(1, i[:, None])[:, 0] for i in (low, (low + 1).clamp(max=size - 1)))
    return torch.lerp(below, above, place - low)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _fitted(
    direction: Tensor, x: Tensor, first: Tensor, second: Tensor, alpha: float | Tensor, sigma: float | Tensor
) -> Tensor:
    """d for v_first - s* v_second; v = (x - (alpha + sigma) x0) / sigma, and its factor sigma cancels in d."""
    scale = factor(alpha, x) + factor(sigma, x)
    v_first, v_second = x - scale * first, x - scale * second
    s = dot(v_first, v_second) / dot(v_second, v_second).clamp(min=_TINY)
    return (expand_to(s, x) * v_second - v_first) / scale


def _stand_still(estimate: Tensor, x: Tensor, alpha: float | Tensor, sigma: float | Tensor, still: Tensor) -> Tensor:
    mask = still.reshape(-1, *(1,) * (x.dim() - 1))
    return torch.where(mask, x / (factor(alpha, x) + factor(sigma, x)), estimate)
