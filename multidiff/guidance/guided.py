"""A denoiser that asks twice: classifier-free guidance and its relatives."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from multidiff.denoiser import Ask, Denoiser, Turn, take_turn
from multidiff.errors import InputError, unknown
from multidiff.guidance.combine import Combine
from multidiff.guidance.moment import Estimates, Moment
from multidiff.process import Process
from multidiff.state import State, batch_size, lincomb, map_state, tensors


class Reference(Protocol):
    """Where the second estimate comes from."""

    @property
    def denoiser(self) -> Denoiser | None:
        """Who gives it; None for the network that gives the first."""
        ...

    def condition(self, cond: Any) -> Any:
        """What it is conditioned on, given the condition of the first."""
        ...


@dataclass(frozen=True)
class Negative:
    """The same network under a condition to move away from.

    Args:
        cond: in the domain's own terms; tensors have the batch in front, or 1 for all samples.
    """

    cond: Any
    denoiser = None

    def condition(self, cond: Any) -> Any:
        return self.cond


@dataclass(frozen=True)
class Null(Negative):
    """The same network under no condition: what it was trained on where the condition was dropped."""

    cond: Any = None


@dataclass(frozen=True)
class Weaker:
    """A worse denoiser under the same condition: smaller, earlier or perturbed (autoguidance, Karras et al. 2024).

    Args:
        denoiser: trained for the same states; for a copy with some modules replaced see `perturbed`.
    """

    denoiser: Denoiser

    def condition(self, cond: Any) -> Any:
        return cond


class Wrapper(Denoiser):
    """Base of the denoisers of denoisers: `turn` does the work, the process is that of the inner one.

    A wrapper keeps no state between calls and may be used by several threads at once.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.self_conditioning = bool(getattr(denoiser, "self_conditioning", False))

    @property
    def process(self) -> Process | None:
        """Schedule(s) and space of the inner denoiser, where it has them."""
        return getattr(self.denoiser, "process", None)

    @property
    def moves(self) -> bool:
        """Whether a turn may return another state than it was asked about."""
        return bool(getattr(self.denoiser, "moves", False))

    def forward(self, x: State, t: Tensor, cond: Any = None, space: Any = None, previous: State | None = None) -> State:
        return self.turn(Ask(x, t, cond, space, previous)).x0

    def turn(self, ask: Ask) -> Turn:
        """One call in a run."""
        raise NotImplementedError


class _Carry(NamedTuple):
    """What the two denoisers and the rules want to see again."""

    first: Any = None
    second: Any = None
    rules: tuple[Any, ...] = ()


class Guided(Wrapper):
    """Two estimates combined into one.

    Where both come from one network they are one call on a batch of twice the size, if conditions and space allow.
    With self-conditioning both see the guided estimate of the last step: it is the one that led to x_t, and the two
    then differ in their condition alone, not in their histories.

    Args:
        denoiser: gives the first estimate.
        reference: where the second comes from.
        combine: the rules; see `multidiff.guidance.combine`.

    Raises:
        InputError: no rule uses the reference's direction (a `Scale` or `CFGPlusPlus` is missing).
    """

    def __init__(self, denoiser: Denoiser, reference: Reference, combine: Sequence[Combine]) -> None:
        super().__init__(denoiser)
        if all(type(rule).apply is Combine.apply for rule in combine):
            raise InputError("guidance needs a scale: put Scale(w) or CFGPlusPlus(w) into combine")
        self.reference = reference
        self.combine = tuple(combine)
        self.other = reference.denoiser
        finishes = any(type(rule).finish is not Combine.finish for rule in combine)
        self.needs_reference = any(rule.needs_reference for rule in combine)
        self.idle = not finishes and not self.needs_reference
        self.self_conditioning |= bool(getattr(self.other, "self_conditioning", False))

    @property
    def moves(self) -> bool:
        return super().moves or any(rule.moves for rule in self.combine)

    def turn(self, ask: Ask) -> Turn:
        carry = ask.carry or _Carry(rules=(None,) * len(self.combine))
        here = Moment(ask, self.process)
        active = self._active(here)
        if active is False or self.idle:
            return self._unguided(ask, carry)
        first, second = self._estimates(ask, carry)
        moment = Estimates(ask, self.process, here.space.project(first.x0), here.space.project(second.x0))
        x0, rules = self._combined(moment, carry)
        x = first.x
        for rule in self.combine:
            x = rule.move(x, x0, moment)
        if isinstance(active, Tensor):
            x, x0 = _where(active, x, first.x), _where(active, x0, first.x0)
        return Turn(x, x0, _Carry(first.carry, second.carry, rules))

    def _active(self, moment: Moment) -> bool | Tensor:
        """Whether there is guidance; a mask where only for some samples."""
        active: bool | Tensor = True
        for rule in self.combine:
            active = active & rule.active(moment)
            if active is False:
                break
        return active

    def _unguided(self, ask: Ask, carry: _Carry) -> Turn:
        alone = take_turn(self.denoiser, ask._replace(carry=carry.first))
        return alone._replace(carry=carry._replace(first=alone.carry))

    def _combined(self, moment: Estimates, carry: _Carry) -> tuple[State, tuple[Any, ...]]:
        """The guided estimate and what the rules carry on."""
        direction = lincomb([(1.0, moment.first), (-1.0, moment.second)])
        rules = []
        for rule, old in zip(self.combine, carry.rules, strict=True):
            direction, kept = rule.direction(direction, moment, old)
            rules.append(kept)
        x0 = moment.first
        for rule in self.combine:
            x0 = rule.apply(x0, direction, moment)
        for rule in self.combine:
            x0 = rule.finish(x0, moment)
        return moment.space.project(x0), tuple(rules)

    def _estimates(self, ask: Ask, carry: _Carry) -> tuple[Turn, Turn]:
        if not self.needs_reference:
            first = take_turn(self.denoiser, ask._replace(carry=carry.first))
            return first, first._replace(carry=carry.second)
        cond = _to_device(self.reference.condition(ask.cond), tensors(ask.x)[0].device)
        asked = ask._replace(cond=cond, carry=carry.second)
        if self.other is None and getattr(self.denoiser, "turn", None) is None:
            both = _joined(ask if self.self_conditioning else ask._replace(previous=None), asked.cond)
            if both is not None:
                return _split(take_turn(self.denoiser, both).x0, ask.x)
        first = take_turn(self.denoiser, ask._replace(carry=carry.first))
        return first, take_turn(self.other or self.denoiser, asked)


def _joined(ask: Ask, other_cond: Any) -> Ask | None:
    """The question under both conditions as one of twice the size; None where they cannot be put together."""
    repeat = getattr(ask.space, "repeat", None)
    batch = batch_size(ask.x)
    cond = _joined_conditions(ask.cond, other_cond, batch)
    if cond is None or (ask.space is not None and repeat is None):
        return None
    return Ask(
        map_state(_twice, ask.x),
        _twice(ask.t),
        cond[0],
        repeat(2) if repeat else None,
        None if ask.previous is None else map_state(_twice, ask.previous),
        ask.level,
    )


def _joined_conditions(first: Any, second: Any, batch: int) -> tuple[Any] | None:
    leaves, tree = pytree.tree_flatten(first)
    others, other_tree = pytree.tree_flatten(second)
    if tree != other_tree:
        return None
    joined = [_joined_leaf(a, b, batch) for a, b in zip(leaves, others, strict=True)]
    if any(leaf is NotImplemented for leaf in joined):
        return None
    return (pytree.tree_unflatten(joined, tree),)


def _joined_leaf(a: Any, b: Any, batch: int) -> Any:
    if a is None and b is None:
        return None
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)) or a.dtype != b.dtype or a.shape[1:] != b.shape[1:]:
        return NotImplemented
    if a.dim() == 0 or not {len(a), len(b)} <= {1, batch}:
        return NotImplemented
    return torch.cat([leaf.expand(batch, *leaf.shape[1:]) for leaf in (a, b)])


def _split(x0: State, x: State) -> tuple[Turn, Turn]:
    batch = batch_size(x)
    return Turn(x, map_state(lambda e: e[:batch], x0)), Turn(x, map_state(lambda e: e[batch:], x0))


def _twice(x: Tensor) -> Tensor:
    return torch.cat([x, x])


def _to_device(cond: Any, device: torch.device) -> Any:
    return pytree.tree_map_only(Tensor, lambda leaf: leaf.to(device), cond)


def _where(mask: Tensor, yes: State, no: State) -> State:
    return map_state(lambda a, b: torch.where(mask.reshape(-1, *(1,) * (a.dim() - 1)), a, b), yes, no)


def perturbed(denoiser: Denoiser, replace: Mapping[str, nn.Module]) -> Denoiser:
    """The same denoiser, its weights shared, with some modules replaced: a reference that costs no training.

    Skipping layers or replacing attention maps makes the structure of samples worse and leaves their condition alone
    (perturbed-attention guidance, Ahn et al. 2024): ``Weaker(perturbed(denoiser, {"network.attention": Identity()}))``.

    Args:
        denoiser: stays as it is.
        replace: name of a module, as in `named_modules`, -> what stands in for it.

    Raises:
        InputError: there is no module of that name.
    """
    shared = {id(tensor): tensor for tensor in (*denoiser.parameters(), *denoiser.buffers())}
    copied: Denoiser = copy.deepcopy(denoiser, shared)
    names = [name for name, _ in denoiser.named_modules() if name]
    for name, module in replace.items():
        if name not in names:
            raise unknown("module", name, names)
        copied.set_submodule(name, module)
    return copied
