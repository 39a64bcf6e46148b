"""Guidance by gradients: of a loss on the estimate, or of a classifier on the noisy state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from multidiff.denoiser import Ask, Denoiser, Turn, take_turn
from multidiff.errors import InputError
from multidiff.guidance.combine import check
from multidiff.guidance.guided import Wrapper
from multidiff.guidance.moment import Moment, factor
from multidiff.state import State, map_state, tensors

Loss = Callable[[State, Moment], Tensor]
"""(B,) or scalar; lower is better."""


class Gradient(Wrapper):
    """x0 <- x0 - scale (sigma^2 / alpha) grad_x loss(x0(x)): the loss pulls through the network.

    With loss = -log p(y | x0) and scale 1 this is Bayes' rule for the score, log p(x_t | y) = log p(x_t) + log p(y |
    x_t) + const, with p(y | x_t) taken at the estimate (diffusion posterior sampling, Chung et al. 2023, equation 15).
    It is exact where the loss allows for the spread of x0 about the estimate, as it may: it is told the noise level.
    On the subspace of the batch the gradient is projected. Where alpha = 0 nothing is known yet and nothing is moved.

    Args:
        denoiser: differentiable.
        loss: called with the estimate and the `Moment` (`ask.cond`, `alpha`, `sigma`); gives (B,) numbers or their
            sum. A sample's loss may depend on that sample alone.
        scale: finite, 0 or more.
    """

    def __init__(self, denoiser: Denoiser, loss: Loss, scale: float = 1.0) -> None:
        super().__init__(denoiser)
        check("gradient scale", scale)
        self.loss = loss
        self.scale = scale

    def turn(self, ask: Ask) -> Turn:
        if self.scale == 0:
            return take_turn(self.denoiser, ask)
        with torch.inference_mode(False), torch.enable_grad():
            ask = _tracked(ask)
            answer = take_turn(self.denoiser, ask)
            moment = Moment(ask, self.process)
            gradient = _gradient(self.loss(answer.x0, moment), ask.x)
        x, x0, carry = pytree.tree_map_only(Tensor, Tensor.detach, tuple(answer))
        return Turn(x, _descend(x0, gradient, moment, self.scale), carry)


class Classifier(Wrapper):
    """x0 <- x0 + scale (sigma^2 / alpha) grad_x log p(y | x_t): classifier guidance (Dhariwal and Nichol 2021, 4.2).

    Args:
        denoiser: need not be differentiable.
        log_prob: called with the noisy state and the `Moment`; gives (B,) log-probabilities or their sum, from a
            classifier of noisy states.
        scale: finite, 0 or more; 1 is Bayes' rule.
    """

    def __init__(self, denoiser: Denoiser, log_prob: Loss, scale: float = 1.0) -> None:
        super().__init__(denoiser)
        check("classifier scale", scale)
        self.log_prob = log_prob
        self.scale = scale

    def turn(self, ask: Ask) -> Turn:
        answer = take_turn(self.denoiser, ask)
        if self.scale == 0:
            return answer
        with torch.inference_mode(False), torch.enable_grad():
            tracked = _tracked(ask)
            moment = Moment(tracked, self.process)
            gradient = _gradient(-self.log_prob(tracked.x, moment), tracked.x)
        return answer._replace(x0=_descend(answer.x0, gradient, moment, self.scale))


def _tracked(ask: Ask) -> Ask:
    """The same question with gradients asked of x; copies, since tensors of inference mode cannot take part."""
    t, cond, previous, carry = pytree.tree_map_only(
        Tensor, lambda v: v.detach().clone(), (ask.t, ask.cond, ask.previous, ask.carry)
    )
    x = map_state(lambda v: v.detach().clone().requires_grad_(), ask.x)
    return ask._replace(x=x, t=t, cond=cond, previous=previous, carry=carry)


def _gradient(loss: Tensor, x: State) -> State:
    """Of the sum over samples; 0 for parts that the loss does not see.

    Raises:
        InputError: the loss does not depend on the state at all.
    """
    if not loss.requires_grad:
        raise InputError("the loss of gradient guidance does not depend on the state: compute it from its argument")
    leaves = torch.autograd.grad(loss.sum(), tensors(x), allow_unused=True, materialize_grads=True)
    return pytree.tree_unflatten(list(leaves), pytree.tree_structure(x))


def _descend(x0: State, gradient: State, moment: Moment, scale: float) -> State:
    pull = map_state(_pull, gradient, moment.alpha, moment.sigma)
    return map_state(lambda a, b: torch.sub(a, b, alpha=scale), x0, moment.space.project(pull))


def _pull(gradient: Tensor, alpha: Any, sigma: Any) -> Tensor:
    if isinstance(alpha, Tensor):
        return gradient * factor(torch.where(alpha > 0, sigma.square() / alpha, 0.0), gradient)
    return gradient * (sigma**2 / alpha if alpha > 0 else 0.0)
