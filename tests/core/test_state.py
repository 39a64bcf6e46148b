"""Linear combinations against plain arithmetic; parts as pytrees."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils import _pytree as pytree

from multidiff.state import Parts, batch_size, lincomb, map_state

coefs = st.lists(st.sampled_from([1.0, 0.0, -1.0, 0.5, 2.25, -3.125]), min_size=1, max_size=6)


@given(coefs)
def test_lincomb_is_the_sum(values):
    states = torch.arange(len(values) * 12, dtype=torch.float64).reshape(len(values), 3, 4)
    kept = states.clone()
    result = lincomb(list(zip(values, states, strict=True)))
    torch.testing.assert_close(result, torch.einsum("k,kij->ij", torch.tensor(values, dtype=torch.float64), states))
    assert torch.equal(states, kept)
    assert all(result.data_ptr() != state.data_ptr() for state in states)


@given(coefs, coefs)
def test_lincomb_of_parts_with_a_coefficient_a_part(a, b):
    count = min(len(a), len(b))
    states = [Parts(a=torch.full((2, 3), float(i)), b=torch.full((2,), i + 0.5)) for i in range(count)]
    result = lincomb([({"a": a[i], "b": b[i]}, states[i]) for i in range(count)])
    torch.testing.assert_close(result["a"], sum(a[i] * states[i]["a"] for i in range(count)))
    torch.testing.assert_close(result["b"], sum(b[i] * states[i]["b"] for i in range(count)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_dtype_is_kept(dtype):
    assert lincomb([(0.3, torch.ones(2, dtype=dtype)), (0.7, torch.ones(2, dtype=dtype))]).dtype == dtype


def test_parts_are_a_frozen_pytree():
    parts = Parts(a=torch.ones(2), b=torch.zeros(2, 3))
    assert list(parts) == ["a", "b"]
    assert batch_size(parts) == 2
    leaves, spec = pytree.tree_flatten(parts)
    back = pytree.tree_unflatten(leaves, spec)
    assert isinstance(back, Parts)
    assert all(back[name] is parts[name] for name in parts)
    with pytest.raises(TypeError):
        parts["a"] = torch.zeros(2)
    doubled = map_state(lambda x, factor: x * factor, parts, {"a": 2.0, "b": 3.0})
    assert float(doubled["a"].sum()) == 4.0
