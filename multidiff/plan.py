"""A sampler as data: the linear combinations that a solver worked out before the first network call.

A plan works on named registers. ``x`` is the state that the next call sees and, at the end, the result; ``x0`` is the
estimate of the last call; other names hold what later combinations need (an older estimate, the start of a step).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from multidiff.process import Level
from multidiff.state import Coef


@dataclass(frozen=True)
class Update:
    """``registers[target] = sum of coefficient * registers[name] + noise * fresh standard noise``.

    A single term with coefficient 1 and no noise only gives a tensor another name.
    """

    target: str
    terms: tuple[tuple[str, Coef], ...]
    noise: Coef = 0.0

    @cached_property
    def renames(self) -> bool:
        """Whether nothing has to be computed."""
        return len(self.terms) == 1 and self.terms[0][1] == 1.0 and not self.draws

    @cached_property
    def draws(self) -> bool:
        """Whether fresh noise is needed."""
        return any(self.noise.values()) if isinstance(self.noise, Mapping) else self.noise != 0.0


@dataclass(frozen=True)
class Call:
    """One network call on register ``x`` at `level`, then `updates` in order."""

    level: Level
    updates: tuple[Update, ...]


@dataclass(frozen=True)
class Plan:
    """All calls of a run, and what happens before the first one (`start`: usually nothing)."""

    calls: tuple[Call, ...]
    start: tuple[Update, ...] = ()

    @cached_property
    def stochastic(self) -> bool:
        """Whether any noise is drawn after the prior."""
        return any(u.draws for u in self.start) or any(u.draws for c in self.calls for u in c.updates)

    @property
    def reads_state(self) -> bool:
        """Whether every step but the last, which may end in the estimate, starts from ``x`` as the call left it."""
        return all(_reads(call.updates) for call in self.calls[:-1])


def _reads(updates: tuple[Update, ...]) -> bool:
    """Whether ``x`` is used before it is replaced."""
    for update in updates:
        if any(name == "x" for name, _ in update.terms):
            return True
        if update.target == "x":
            return False
    return False
