"""The one loop that runs every plan on every state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from multidiff.denoiser import Ask, take_turn
from multidiff.errors import InputError
from multidiff.plan import Plan, Update
from multidiff.process import Level
from multidiff.random import Rng
from multidiff.space import Euclidean, Space
from multidiff.state import State, batch_size, lincomb, tensors

OnStep = Callable[[int, Level, State, State], State | None]
"""Called after each network call with its number, level, the new state and the estimate; may return another state."""


def sample(
    denoiser: Callable[..., State],
    plan: Plan,
    x: State,
    *,
    space: Space | None = None,
    cond: Any = None,
    rng: Rng | None = None,
    on_step: OnStep | None = None,
) -> State:
    """Run `plan` from the noisy state `x`.

    Nothing here waits for the device: coefficients are Python floats. `x` itself is never changed.

    Args:
        denoiser: called as ``denoiser(x, t, cond=cond, space=space)``, t (B,) float64; one whose attribute
            `self_conditioning` is true is also handed the last estimate as `previous`. One that has a method `turn`
            (guidance) is given an `Ask` and may move the state; what it carries on is kept here, for this run.
        plan: from `Solver.plan`.
        x: the state at the first level of the plan, batch first.
        space: the subspace of this batch; noise is drawn in it.
        cond: handed to the denoiser.
        rng: where noise comes from; needed by stochastic plans alone.
        on_step: a look at, and a say in, each step.

    Raises:
        ValueError: the plan draws noise and no `rng` was given.
        InputError: the denoiser moves the state and the plan would lose that.
    """
    if plan.stochastic and rng is None:
        raise ValueError("this plan draws noise: give sample(..., rng=Rng(seed, indices))")
    space = space or getattr(getattr(denoiser, "process", None), "space", None) or Euclidean()
    registers = {"x": x}
    _run(plan.start, registers, space, rng)
    if getattr(denoiser, "moves", False) and not plan.reads_state:
        raise InputError("CFG++ moves the state, and this solver would lose that; use ddim, dpm++2m, deis3 or heun")
    carry = None
    for number, (call, t) in enumerate(zip(plan.calls, _times(plan, x), strict=True)):
        ask = Ask(registers["x"], t, cond, space, registers.get("x0"), call.level, carry)
        registers["x"], registers["x0"], carry = take_turn(denoiser, ask)
        _run(call.updates, registers, space, rng)
        if on_step is not None:
            changed = on_step(number, call.level, registers["x"], registers["x0"])
            registers["x"] = registers["x"] if changed is None else changed
    return registers["x"]


def _times(plan: Plan, x: State) -> tuple[Tensor, ...]:
    """(B,) times for each call, put on the device in one go."""
    times = torch.tensor([call.level.t for call in plan.calls], dtype=torch.float64, device=tensors(x)[0].device)
    return times[:, None].repeat(1, batch_size(x)).unbind()


def _run(updates: tuple[Update, ...], registers: dict[str, State], space: Space, rng: Rng | None) -> None:
    for update in updates:
        if update.renames:
            registers[update.target] = registers[update.terms[0][0]]
            continue
        terms = [(coef, registers[name]) for name, coef in update.terms]
        if update.draws:
            assert rng is not None
            terms.append((update.noise, space.noise(rng, registers["x"])))
        registers[update.target] = lincomb(terms)
