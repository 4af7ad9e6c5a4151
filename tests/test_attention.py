"""Attention is what its definition says, forward and backward, long and short, at once and one position at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import DefinitionError
from penstock.learn import attention as at
from penstock.learn.autodiff import Tensor, gradcheck
from penstock.types import Array


def plain(query: Array, key: Array, value: Array, bias: Array | None = None) -> Array:
    """The definition, in float64, one position after the other."""
    out = np.zeros((*query.shape[:3], value.shape[3]))
    for b, h, i in np.ndindex(query.shape[:3]):
        logits = [
            float(query[b, h, i].astype(np.float64) @ key[b, h, j]) / np.sqrt(query.shape[3])
            + (0.0 if bias is None else float(bias[h, min(i - j, bias.shape[1] - 1)]))
            for j in range(i + 1)
        ]
        weights = np.exp(np.array(logits) - max(logits))
        out[b, h, i] = (weights / weights.sum()) @ value[b, h, : i + 1]
    return out


def drawn(seed: int, shape: tuple[int, ...], distances: int = 3) -> tuple[Array, Array, Array, Array]:
    random = np.random.default_rng(seed)
    query, key, value = (random.normal(size=shape) for _ in range(3))
    return query, key, value, random.normal(size=(shape[1], distances))


@given(st.integers(0, 99), st.integers(1, 9), st.integers(1, 4), st.booleans())
def test_attention_is_its_definition(seed: int, length: int, distances: int, biased: bool) -> None:
    """Blocks of three positions give what the definition gives, with and without a bias."""
    query, key, value, bias = drawn(seed, (2, 2, length, 3), distances)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(at, "_BLOCK", 3)
        found = at.attend(query, key, value, bias if biased else None)
    np.testing.assert_allclose(found.values, plain(query, key, value, bias if biased else None), atol=1e-12)


@pytest.mark.parametrize("length", [1, 3, 7])
def test_gradients_are_those_of_differences(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of queries, keys, values and biases, over several blocks, to 1e-7."""
    monkeypatch.setattr(at, "_BLOCK", 3)
    assert gradcheck(at.attention, *drawn(1, (2, 2, length, 3)), tolerance=1e-7) < 1e-7
    assert gradcheck(at.attention, *drawn(1, (2, 2, length, 3))[:3], tolerance=1e-7) < 1e-7


def test_what_comes_later_is_not_seen() -> None:
    """A change of the last position changes nothing before it."""
    query, key, value, bias = drawn(2, (1, 2, 6, 3))
    before = at.attend(query, key, value, bias).values
    for part in (query, key, value):
        part[:, :, -1] += 9.0
    np.testing.assert_array_equal(at.attend(query, key, value, bias).values[:, :, :-1], before[:, :, :-1])


def test_long_sequences_are_stable_in_float32() -> None:
    """At length 4,096, with logits of hundreds, float32 is finite and within 1e-3 of float64, gradients too."""
    random = np.random.default_rng(4)
    query, key, value = (random.normal(size=(1, 1, 4_096, 8)) for _ in range(3))
    query *= 120.0
    wide = at.attend(query, key, value)
    narrow = [part.astype(np.float32) for part in (query, key, value)]
    found = at.attend(*narrow)
    assert found.values.dtype == np.float32
    assert np.abs((query @ key.swapaxes(-1, -2)).max()) / np.sqrt(8) > 400
    np.testing.assert_allclose(found.values, wide.values, atol=1e-3)
    gradient = random.normal(size=value.shape)
    exact = at.attend_backward(gradient, query, key, value, wide)
    rough = at.attend_backward(gradient.astype(np.float32), *narrow, found)
    for one, other in zip(exact[:3], rough[:3], strict=True):
        scale = np.abs(np.asarray(one)).max()
        np.testing.assert_allclose(np.asarray(other) / scale, np.asarray(one) / scale, atol=1e-3)


@given(st.integers(0, 99), st.integers(1, 12))
def test_one_position_at_a_time_gives_the_same(seed: int, length: int) -> None:
    """Kept keys and values give, position after position, what the whole sequence gives, to 1e-12."""
    query, key, value, bias = drawn(seed, (1, 2, length, 3))
    kept = at.Kept(2, 3, length, np.float64)
    for i in range(length):
        seen = kept.step(query[0, :, i], key[0, :, i], value[0, :, i], bias)
        np.testing.assert_allclose(seen, plain(query, key, value, bias)[0, :, i], atol=1e-12)
    with pytest.raises(DefinitionError, match="encode the newest"):
        kept.step(query[0, :, 0], key[0, :, 0], value[0, :, 0])


def test_a_copy_grows_by_itself() -> None:
    """What is added to a copy leaves the first as it was."""
    query, key, value, _ = drawn(5, (1, 2, 3, 3))
    kept = at.Kept(2, 3, 4, np.float64)
    kept.step(query[0, :, 0], key[0, :, 0], value[0, :, 0])
    other = kept.copy()
    other.step(query[0, :, 1], key[0, :, 1], value[0, :, 1])
    seen = kept.step(query[0, :, 2], key[0, :, 2], value[0, :, 2])
    wanted = plain(query[:, :, [0, 2]], key[:, :, [0, 2]], value[:, :, [0, 2]])
    np.testing.assert_allclose(seen, wanted[0, :, 1], atol=1e-12)


def test_heads_are_cut_and_joined() -> None:
    """`joined` is the inverse of `heads_of`."""
    x = np.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(at.joined(at.heads_of(Tensor(x), 2)).value, x)


def test_shapes_that_do_not_fit_are_refused() -> None:
    """With what came, and how to cut heads."""
    query, key, value, bias = drawn(1, (1, 2, 3, 3))
    with pytest.raises(DefinitionError, match="heads_of"):
        at.attend(query[0], key, value)
    with pytest.raises(DefinitionError, match="heads_of"):
        at.attend(query, key, value, bias[:1])


def test_attention_is_pytorchs() -> None:
    """Values and gradients agree with scaled_dot_product_attention to 1e-10."""
    torch = pytest.importorskip("torch", reason="torch is missing: .venv/bin/pip install torch==2.13.0")
    inputs = drawn(6, (2, 2, 5, 3))[:3]
    found = at.attend(*inputs)
    theirs = [torch.tensor(part, requires_grad=True) for part in inputs]
    other = torch.nn.functional.scaled_dot_product_attention(*theirs, is_causal=True)
    np.testing.assert_allclose(found.values, other.detach().numpy(), atol=1e-10)
    gradient = np.random.default_rng(7).normal(size=found.values.shape)
    other.backward(torch.tensor(gradient))
    for mine, their in zip(at.attend_backward(gradient, *inputs, found)[:3], theirs, strict=True):
        np.testing.assert_allclose(np.asarray(mine), their.grad.numpy(), atol=1e-10)
