"""Part of the sample is given: the rest is generated around it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from multidiff.denoiser import Ask, Denoiser, Turn, take_turn
from multidiff.errors import InputError, unknown
from multidiff.guidance.guided import Wrapper
from multidiff.guidance.moment import Moment
from multidiff.space import ZeroCentroid
from multidiff.state import Parts, State, pick

Known = Tensor | Mapping[str, Tensor]


class Inpaint(Wrapper):
    """x0 <- known where the mask is true, the estimate elsewhere.

    The known entries of x_t are then alpha_t known + sigma_t eps at every step of every solver, eps being the noise
    that the run itself started from and drew: the replacement of Song et al. (2021, section 5) and Lugmayr et al.
    (2022) with no further source of noise. They come out exactly. What is generated sees them through their noise and
    so fits them only approximately; the `Restart` solver goes back and forth in the middle of the run, as Lugmayr et
    al. do, and lessens that; ``Gradient(denoiser, Match(known, mask))`` as the inner denoiser nearly removes it.

    Positions with a zero centroid are known up to a common translation: the known rows move as one to where the
    estimate has them.

    Args:
        denoiser: of whole states.
        known: clean values, (B, ...) or (1, ...); a tensor, or a mapping with some or all parts of the state.
        mask: true where they hold, of a shape that broadcasts to the state's; likewise a mapping. Symmetric where the
            state is.

    Raises:
        InputError: `known` and `mask` name different parts, or a known value is not finite.
    """

    def __init__(self, denoiser: Denoiser, known: Known, mask: Known) -> None:
        super().__init__(denoiser)
        self.known = _checked(known, mask)

    def turn(self, ask: Ask) -> Turn:
        answer = take_turn(self.denoiser, ask)
        moment = Moment(ask, self.process)
        x0 = moment.space.project(self._each(_replaced, answer.x0, moment.spaces))
        x = answer.x if answer.x is ask.x else self._each(_kept, answer.x, ask.x)
        return Turn(x, x0, answer.carry)

    def _each(self, function: Callable[..., Tensor], state: State, other: Any) -> State:
        """Apply `function` to the parts of which something is known."""
        parts = _as_parts(state, self.known)
        changed = {name: function(parts[name], pick(other, name), *entry) for name, entry in self.known.items()}
        return Parts({**parts, **changed}) if isinstance(state, Parts) else changed[""]


class Match:
    """A loss for `Gradient`: the sum of mask (known - x0)^2 / (2 r^2), r^2 = d^2 sigma^2 / (alpha^2 d^2 + sigma^2).

    What is generated is pulled to where the network, looking at it, would expect the known entries (reconstruction
    guidance, Ho et al. 2022, equation 7). r is the spread that x0 has about its estimate where its entries are
    independent Gaussians of deviation d (Song et al. 2023, equation 8): with them, scale 1 is Bayes' rule.

    Args:
        known, mask: as for `Inpaint`.
        deviation: d, above 0; of the data in units of the state.

    Raises:
        InputError: as for `Inpaint`, or d is not above 0.
    """

    def __init__(self, known: Known, mask: Known, deviation: float = 1.0) -> None:
        if not 0 < deviation < math.inf:
            raise InputError(f"the deviation of the data must be above 0 and finite, not {deviation!r}")
        self.known = _checked(known, mask)
        self.deviation = deviation

    def __call__(self, x0: State, moment: Moment) -> Tensor:
        """(B,) losses."""
        parts = _as_parts(x0, self.known)
        losses = [
            self._loss(
                parts[name], pick(moment.spaces, name), pick(moment.alpha, name), pick(moment.sigma, name), *entry
            )
            for name, entry in self.known.items()
        ]
        return torch.stack(losses).sum(0)

    def _loss(self, x0: Tensor, space: Any, alpha: Any, sigma: Any, known: Tensor, mask: Tensor) -> Tensor:
        error = (_replaced(x0, space, known, mask) - x0).square().flatten(1).sum(1)
        noise = (sigma / self.deviation) ** 2
        return error * (alpha**2 + noise) / (2 * sigma**2)


def _checked(known: Known, mask: Known) -> dict[str, tuple[Tensor, Tensor]]:
    """Values (0 where not known) and masks by part; the name of a state that has none is empty."""
    if _names(known) != _names(mask):
        raise InputError(f"inpainting got known values for {_names(known)} and a mask for {_names(mask)}")
    checked = {}
    for name in _names(known):
        where = _entry(mask, name).bool()
        value = torch.where(where, _entry(known, name), 0.0)
        if not value.isfinite().all():
            raise InputError(f"known values must be finite where the mask is true: mend those of the {name or 'state'}")
        checked[name] = value, where
    return checked


def _as_parts(state: State, known: Mapping[str, Any]) -> Parts:
    """The state as parts, each known one among them."""
    parts = state if isinstance(state, Parts) else Parts({"": state})
    for name in known:
        if name not in parts:
            raise unknown("part of an inpainted state", name, parts)
    return parts


def _replaced(x0: Tensor, space: Any, known: Tensor, mask: Tensor) -> Tensor:
    known, mask = known.to(x0), mask.to(x0.device)
    if isinstance(space, ZeroCentroid):
        known = known + _shift(x0, known, mask)
    return torch.where(mask, known, x0)


def _shift(x0: Tensor, known: Tensor, mask: Tensor) -> Tensor:
    """(B, 1, 3) from the known rows to where the estimate has them."""
    return ((x0 - known) * mask).sum(1, keepdim=True) / mask.expand_as(x0).sum(1, keepdim=True).clamp(min=1)


def _kept(moved: Tensor, x: Tensor, known: Tensor, mask: Tensor) -> Tensor:
    """What is known follows its own noise, wherever guidance moves the rest."""
    return torch.where(mask.to(x.device), x, moved)


def _names(known: Known) -> list[str]:
    return sorted(known) if isinstance(known, Mapping) else [""]


def _entry(known: Known, name: str) -> Tensor:
    return known[name] if isinstance(known, Mapping) else known
