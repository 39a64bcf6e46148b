"""Linear subspaces in which a state lives: padding, zero centre of mass, symmetric pairs.

A space holds the masks of one batch. It projects a state into the subspace and draws noise that lies in it, with unit
deviation in every free coordinate; with per-sample streams the draw does not depend on how far the batch is padded.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from multidiff.random import Rng
from multidiff.state import Parts, State


@runtime_checkable
class Space(Protocol):
    """What every space offers."""

    def project(self, x: State) -> State:
        """The nearest point of the subspace."""
        ...

    def noise(self, rng: Rng, like: State) -> State:
        """A standard Gaussian draw in the subspace, of the shape, dtype and device of `like`."""
        ...

    def mean(self, error: Tensor) -> Tensor:
        """(B,) mean over a sample's own entries, padding left out."""
        ...

    def repeat(self, times: int) -> Space:
        """The space of the same batch put `times` times end to end."""
        ...


class Euclidean:
    """No constraint."""

    def repeat(self, times: int) -> Euclidean:
        return self

    def mean(self, error: Tensor) -> Tensor:
        return error.flatten(1).mean(1)

    def project(self, x: State) -> State:
        return x

    def noise(self, rng: Rng, like: State) -> State:
        if isinstance(like, Parts):
            return Parts({name: rng.normal(x.shape, x) for name, x in like.items()})
        return rng.normal(like.shape, like)


class Masked:
    """Rows beyond a sample's own length are zero.

    Args:
        mask: (B, N) bool, true for real rows, which come first. States are (B, N, ...).
    """

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def repeat(self, times: int) -> Self:
        return type(self)(self.mask.repeat(times, 1))

    @cached_property
    def lengths(self) -> list[int]:
        """Real rows of each sample."""
        return self.mask.sum(1).tolist()

    def project(self, x: State) -> State:
        assert isinstance(x, Tensor)
        return x * _like(self.mask, x)

    def mean(self, error: Tensor) -> Tensor:
        """(B,) mean over the real rows of (B, N, ...)."""
        return _masked_mean(error, self.mask)

    def noise(self, rng: Rng, like: State) -> State:
        assert isinstance(like, Tensor)
        if not rng.per_sample:
            return self.project(rng.normal(like.shape, like))
        width = like[0, 0].numel()
        draws = rng.normal_ragged([n * width for n in self.lengths], like)
        out = torch.zeros_like(like)
        out[self.mask] = draws.reshape(-1, *like.shape[2:])
        return out


class ZeroCentroid(Masked):
    """Real rows sum to zero: positions up to translation. States are (B, N, 3)."""

    def project(self, x: State) -> State:
        assert isinstance(x, Tensor)
        mask = _like(self.mask, x)
        mean = (x * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)
        return (x - mean) * mask

    def noise(self, rng: Rng, like: State) -> State:
        return self.project(super().noise(rng, like))


class SymmetricPairs:
    """x[i, j] = x[j, i], zero on the diagonal and in the padding. States are (B, N, N, C).

    Args:
        mask: (B, N) bool, true for real rows, which come first.
    """

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def repeat(self, times: int) -> Self:
        return type(self)(self.mask.repeat(times, 1))

    @cached_property
    def pair_mask(self) -> Tensor:
        """(B, N, N) bool: both ends real, not the diagonal."""
        off_diagonal = ~torch.eye(self.mask.shape[1], dtype=torch.bool, device=self.mask.device)
        return self.mask[:, :, None] & self.mask[:, None, :] & off_diagonal

    @cached_property
    def _upper(self) -> tuple[Tensor, Tensor, Tensor]:
        """Sample, row and column of every free pair, sample by sample; the order within one ignores the padding."""
        sample, row, column = torch.triu(self.pair_mask, 1).nonzero(as_tuple=True)
        return sample, row, column

    @cached_property
    def _pairs(self) -> list[int]:
        return torch.triu(self.pair_mask, 1).sum((1, 2)).tolist()

    def project(self, x: State) -> State:
        assert isinstance(x, Tensor)
        return 0.5 * (x + x.transpose(1, 2)) * _like(self.pair_mask, x)

    def mean(self, error: Tensor) -> Tensor:
        """(B,) mean over the real pairs of (B, N, N, C)."""
        return _masked_mean(error, self.pair_mask)

    def noise(self, rng: Rng, like: State) -> State:
        assert isinstance(like, Tensor)
        if not rng.per_sample:
            upper = rng.normal(like.shape, like) * _like(torch.triu(self.pair_mask, 1), like)
            return upper + upper.transpose(1, 2)
        width = like.shape[-1]
        draws = rng.normal_ragged([n * width for n in self._pairs], like).reshape(-1, width)
        sample, row, column = self._upper
        out = torch.zeros_like(like)
        out[sample, row, column] = draws
        out[sample, column, row] = draws
        return out


class Product:
    """A space for each part of a state."""

    def __init__(self, spaces: Mapping[str, Space]) -> None:
        self.spaces = dict(spaces)

    def repeat(self, times: int) -> Product:
        return Product({name: space.repeat(times) for name, space in self.spaces.items()})

    def project(self, x: State) -> State:
        assert isinstance(x, Parts)
        return Parts({name: self.spaces[name].project(part) for name, part in x.items()})  # type: ignore[misc]

    def mean(self, error: Tensor) -> Tensor:
        raise TypeError("a product has a mean a part: use spaces[name].mean")

    def noise(self, rng: Rng, like: State) -> State:
        assert isinstance(like, Parts)
        return Parts({name: self.spaces[name].noise(rng, part) for name, part in like.items()})  # type: ignore[misc]


def _masked_mean(error: Tensor, mask: Tensor) -> Tensor:
    mask = _like(mask, error)
    width = error[0].numel() / mask[0].numel()
    return (error * mask).flatten(1).sum(1) / (mask.flatten(1).sum(1) * width).clamp(min=1)


def _like(mask: Tensor, x: Tensor) -> Tensor:
    """The mask with the trailing axes and the dtype of `x`."""
    return mask.reshape(*mask.shape, *(1,) * (x.dim() - mask.dim())).to(x.dtype)
