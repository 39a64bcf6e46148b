"""Part of the sample is given: the rest is generated around it."""

from __future__ import annotations

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
    al. do, and mends that, as does `Gradient` around the inner denoiser with a loss on the known entries.

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
        names = _names(known)
        if names != _names(mask):
            raise InputError(f"inpainting got known values for {names} and a mask for {_names(mask)}")
        self.known: dict[str, tuple[Tensor, Tensor]] = {}
        for name in names:
            value, where = _entry(known, name), _entry(mask, name).bool()
            value = torch.where(where, value, 0.0)
            if not value.isfinite().all():
                raise InputError(
                    f"known values must be finite where the mask is true: mend those of the {name or 'state'}"
                )
            self.known[name] = value, where

    def turn(self, ask: Ask) -> Turn:
        answer = take_turn(self.denoiser, ask)
        moment = Moment(ask, self.process)
        x0 = moment.space.project(self._each(_replaced, answer.x0, moment.spaces))
        x = answer.x if answer.x is ask.x else self._each(_kept, answer.x, ask.x)
        return Turn(x, x0, answer.carry)

    def _each(self, function: Callable[..., Tensor], state: State, other: Any) -> State:
        """Apply `function` to the parts of which something is known."""
        if not isinstance(state, Parts):
            return self._each_part(function, Parts({"": state}), {"": other})[""]
        return self._each_part(function, state, other)

    def _each_part(self, function: Callable[..., Tensor], state: Parts, other: Any) -> Parts:
        for name in self.known:
            if name not in state:
                raise unknown("part of an inpainted state", name, state)
        return Parts(
            {n: function(x, pick(other, n), *self.known[n]) if n in self.known else x for n, x in state.items()}
        )


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
