"""What is diffused: a tensor, or several named tensors that travel together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


class Parts(Mapping[str, Tensor]):
    """A frozen mapping from name to tensor, registered as a pytree; each tensor has the batch in front.

    Example: ``Parts(positions=x, bonds=b)["bonds"]``.
    """

    __slots__ = ("_tensors",)

    def __init__(self, tensors: Mapping[str, Tensor] | None = None, **named: Tensor) -> None:
        self._tensors: dict[str, Tensor] = {**(tensors or {}), **named}

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return f"Parts({', '.join(f'{name}: {tuple(t.shape)}' for name, t in self.items())})"


pytree.register_pytree_node(
    Parts,
    lambda parts: (list(parts.values()), tuple(parts)),
    lambda tensors, names: Parts(dict(zip(names, tensors, strict=True))),
    serialized_type_name="multidiff.Parts",
)

State = Tensor | Parts
Coef = float | Mapping[str, float]
"""One number, or one for each part."""


def map_state(function: Callable[..., Tensor], first: State, *others: Any) -> State:
    """Apply `function` to the tensor, or to each part; what is not `Parts` among `others` is handed to each."""
    if not isinstance(first, Parts):
        return function(first, *others)
    return Parts({name: function(x, *(pick(o, name) for o in others)) for name, x in first.items()})


def pick(value: Any, name: str) -> Any:
    """The entry of one part, or the value itself where it is the same for all parts."""
    return value[name] if isinstance(value, Mapping) else value


def tensors(state: State) -> list[Tensor]:
    """All tensors of the state, in order."""
    return list(state.values()) if isinstance(state, Parts) else [state]


def batch_size(state: State) -> int:
    """The length of the first axis."""
    return tensors(state)[0].shape[0]


def expand_to(coef: Tensor, x: Tensor) -> Tensor:
    """(B,) -> (B, 1, ..., 1) in the dtype of `x`, so that it multiplies a batch of states; (B, N) -> (B, N, 1, ...)."""
    return coef.to(x.dtype).reshape(*coef.shape, *(1,) * (x.dim() - coef.dim()))


def lincomb(terms: Sequence[tuple[Coef, State]]) -> State:
    """The sum of coefficient times state over `terms`; one fresh tensor a part, no other temporary."""
    first = terms[0][1]
    if not isinstance(first, Parts):
        return _lincomb(terms)
    return Parts({name: _lincomb([(pick(c, name), s[name]) for c, s in terms]) for name in first})  # type: ignore[index]


def _lincomb(terms: Sequence[tuple[Any, Any]]) -> Tensor:
    coef, x = terms[0]
    if len(terms) > 1 and coef == 1.0:
        coef, y = terms[1]
        out, rest = torch.add(x, y, alpha=coef), terms[2:]
    else:
        out, rest = torch.mul(x, coef), terms[1:]
    for coef, y in rest:
        out.add_(y, alpha=coef)
    return out
