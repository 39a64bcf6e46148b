"""CFG++: the noise that is put back is the reference's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from multidiff.guidance.combine import Scale, check, on_parts
from multidiff.guidance.moment import Estimates, factor
from multidiff.state import State


@dataclass(frozen=True)
class CFGPlusPlus(Scale):
    """x0 = second + w (first - second), and the step starts from alpha x0 + sigma eps_second.

    The published step (Chung et al. 2024, algorithm 2) is x_t = alpha_t x0 + sigma_t eps_second. Any step that starts
    from the state moved to alpha_s x0 + sigma_s eps_second = x_s + alpha_s (x0 - second), with the estimate x0, does
    just that, whatever the solver: DDIM becomes theirs, and multistep solvers keep histories that fit together.
    A solver has to read the state after each call for this: UniPC and single-step DPM-Solver++ do not.

    Args:
        w: 0 (the reference) to 1; what 2.5 to 15 do for `Scale`, 0.2 to 1 do here.
        parts: which parts of the state it acts on; all by default. The others keep the first estimate.
    """

    moves = True

    def __post_init__(self) -> None:
        check("CFG++ scale", self.w, 1)

    @property
    def needs_reference(self) -> bool:
        return True

    def move(self, x: State, estimate: State, moment: Estimates) -> State:
        return on_parts(self.parts, _move, x, estimate, moment.second, moment.alpha)


def _move(x: Tensor, estimate: Tensor, second: Tensor, alpha: Any) -> Tensor:
    return (
        torch.addcmul(x, estimate - second, factor(alpha, x))
        if isinstance(alpha, Tensor)
        else torch.add(x, estimate - second, alpha=alpha)
    )
