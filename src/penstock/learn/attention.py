"""Scaled dot-product attention, forward and backward, and the incremental form: keys and values kept, one more at a
time.

A position looks at itself and at what came before it: softmax(q·k / √width + bias[distance]) of the earlier positions
weighs their values (Vaswani et al., "Attention is all you need", 2017; the bias as in Raffel et al., JMLR 2020, a
learned number for each distance and head). Since nothing depends on absolute places, what was kept of earlier positions
stays right when a sequence grows.

Shapes: (batch, heads, length, width). A batch holds sequences of different lengths, aligned at their beginnings: what
comes after a sequence's end cannot be seen from inside it, so that no mask is needed for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from penstock.errors import DefinitionError
from penstock.learn.autodiff import Tensor, operation
from penstock.types import Array

_BLOCK = 128
"""Positions whose weights are in memory at once: memory grows with the length, not with its square."""


@dataclass(frozen=True)
class Attended:
    """What attention gives: `values` (b, h, n, w), and `log_total` (b, h, n), the logarithm of each softmax's
    divisor."""

    values: Array
    log_total: Array


def attend(query: Array, key: Array, value: Array, bias: Array | None = None) -> Attended:
    """Causal attention. Weights are shifted by each row's largest before `exp`, so that float32 does not overflow.

    Args:
        query, key: (b, h, n, w) floats; value: (b, h, n, v).
        bias: (h, d) added by distance; distances from d - 1 on share the last one. None adds nothing.

    >>> x = np.ones((1, 1, 3, 2), np.float32); attend(x, x, np.arange(6.0).reshape(1, 1, 3, 2)).values[0, 0]
    array([[0., 1.],
           [1., 2.],
           [2., 3.]])
    """
    _check(query, key, value, bias)
    out = np.empty((*query.shape[:-1], value.shape[-1]), np.result_type(query, value))
    log_total = np.empty(query.shape[:-1], query.dtype)
    for start, stop in _blocks(query.shape[-2]):
        scores = _scores(query, key, bias, start, stop)
        top = scores.max(axis=-1, keepdims=True)
        scores -= top
        np.exp(scores, out=scores)
        total = scores.sum(axis=-1, keepdims=True)
        np.matmul(scores, value[..., :stop, :], out=out[..., start:stop, :])
        out[..., start:stop, :] /= total
        log_total[..., start:stop] = (top + np.log(total))[..., 0]
    return Attended(out, log_total)


def attend_backward(
    gradient: Array, query: Array, key: Array, value: Array, found: Attended, bias: Array | None = None
) -> tuple[Array, Array, Array, Array | None]:
    """The gradients of query, key, value and bias, from that of the values (b, h, n, v).

    Weights are computed again, block by block, from what `attend` kept (Dao et al., "FlashAttention", 2022).
    """
    width = 1 / np.sqrt(query.shape[-1])
    d_query, d_key, d_value = np.empty_like(query), np.zeros_like(key), np.zeros_like(value)
    d_bias = None if bias is None else np.zeros_like(bias)
    inner = (gradient * found.values).sum(axis=-1, keepdims=True)
    for start, stop in _blocks(query.shape[-2]):
        weights = _scores(query, key, bias, start, stop)
        weights -= found.log_total[..., start:stop, None]
        np.exp(weights, out=weights)
        part = gradient[..., start:stop, :]
        d_value[..., :stop, :] += weights.swapaxes(-1, -2) @ part
        d_scores = part @ value[..., :stop, :].swapaxes(-1, -2)
        d_scores -= inner[..., start:stop, :]
        d_scores *= weights
        if d_bias is not None:
            _add_by_distance(d_bias, d_scores.sum(axis=0), start)
        d_scores *= d_scores.dtype.type(width)
        np.matmul(d_scores, key[..., :stop, :], out=d_query[..., start:stop, :])
        d_key[..., :stop, :] += d_scores.swapaxes(-1, -2) @ query[..., start:stop, :]
    return d_query, d_key, d_value, d_bias


def attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """`attend` as one operation of the graph."""
    bias_value = None if bias is None else bias.value
    found = attend(query.value, key.value, value.value, bias_value)
    inputs = (query, key, value) if bias is None else (query, key, value, bias)

    def push(g: Array) -> tuple[Array | None, ...]:
        return attend_backward(g, query.value, key.value, value.value, found, bias_value)[: len(inputs)]

    return operation(found.values, inputs, push)


def heads_of(x: Tensor, heads: int) -> Tensor:
    """(batch, length, heads · width) → (batch, heads, length, width)."""
    batch, length, width = x.shape
    return x.reshape(batch, length, heads, width // heads).swapaxes(1, 2)


def joined(x: Tensor) -> Tensor:
    """The inverse of `heads_of`."""
    batch, heads, length, width = x.shape
    return x.swapaxes(1, 2).reshape(batch, length, heads * width)


class Kept:
    """The keys and values of one sequence as it grows: one position more costs its length, not its square.

    Args:
        heads, width: of the layer.
        most: positions kept at most; the caller begins anew before there are more.

    >>> kept, one = Kept(heads=1, width=2, most=8), np.ones((1, 2), np.float32)
    >>> for step in range(3):
    ...     seen = kept.step(one, one, one * step)
    >>> seen
    array([[1., 1.]], dtype=float32)
    """

    def __init__(self, heads: int, width: int, most: int, dtype: type[np.floating] = np.float32) -> None:
        self.length = 0
        self._keys = np.empty((heads, most, width), dtype)
        self._values = np.empty((heads, most, width), dtype)

    def step(self, query: Array, key: Array, value: Array, bias: Array | None = None) -> Array:
        """Adds one position and says what it sees: (heads, width) each → (heads, width).

        Args:
            bias: (heads, d) by distance, see `attend`.
        """
        at, stop = self.length, self.length + 1
        if at == self._keys.shape[1]:
            raise DefinitionError(
                f"{at} positions are kept at most", got="one more", remedy="encode the newest of them anew"
            )
        self._keys[:, at], self._values[:, at] = key, value
        self.length = stop
        scores = (self._keys[:, :stop] @ query[:, :, None])[:, :, 0]
        scores *= scores.dtype.type(1 / np.sqrt(query.shape[-1]))
        if bias is not None:
            scores += bias[:, np.minimum(np.arange(at, -1, -1), bias.shape[1] - 1)]
        scores -= scores.max(axis=1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=1, keepdims=True)
        return np.asarray((scores[:, None, :] @ self._values[:, :stop])[:, 0])

    def copy(self) -> Kept:
        """The same, to grow by itself."""
        other = Kept.__new__(Kept)
        other.length, other._keys, other._values = self.length, self._keys.copy(), self._values.copy()
        return other


def _check(query: Array, key: Array, value: Array, bias: Array | None) -> None:
    fits = query.ndim == 4 and query.shape == key.shape and key.shape[:3] == value.shape[:3]
    if not fits or (bias is not None and (bias.ndim != 2 or bias.shape[0] != query.shape[1])):
        raise DefinitionError(
            "queries, keys and values are (batch, heads, length, width), and a bias is (heads, distances)",
            got=f"{query.shape}, {key.shape}, {value.shape}, {None if bias is None else bias.shape}",
            remedy="reshape them: (batch, length, heads · width) is cut by heads_of",
        )


def _blocks(length: int) -> list[tuple[int, int]]:
    return [(start, min(start + _BLOCK, length)) for start in range(0, length, _BLOCK)]


def _scores(query: Array, key: Array, bias: Array | None, start: int, stop: int) -> Array:
    """The logits of the positions from `start` to `stop`, (b, h, stop - start, stop); -inf for what comes later."""
    scale = query.dtype.type(1 / np.sqrt(query.shape[-1]))
    scores: Array = (query[..., start:stop, :] * scale) @ key[..., :stop, :].swapaxes(-1, -2)
    scores += _by_distance(bias, start, stop, scores.dtype)
    return scores


def _by_distance(bias: Array | None, start: int, stop: int, dtype: np.dtype[Any]) -> Array:
    """What is added to the logits of positions `start` to `stop`, (h or 1, stop - start, stop).

    Every diagonal is one number, so that the matrix is a view of a line: row i begins where distance i stands.
    """
    heads = 1 if bias is None else len(bias)
    line = np.zeros((heads, 2 * stop - start - 1), dtype)
    line[:, stop:] = -np.inf
    if bias is not None:
        line[:, :stop] = bias[:, np.minimum(np.arange(stop - 1, -1, -1), bias.shape[1] - 1)]
    rows: Array = sliding_window_view(line, stop, axis=-1)[:, ::-1]
    return rows


def _add_by_distance(d_bias: Array, d_scores: Array, start: int) -> None:
    """Adds the gradients of logits (h, rows, n) to those of their distances' biases (h, d)."""
    heads, length, n = d_scores.shape
    distance: NDArray[np.int64] = np.arange(start, start + length)[:, None] - np.arange(n)
    seen = distance >= 0
    at = np.minimum(distance[seen], d_bias.shape[1] - 1)
    for head in range(heads):
        d_bias[head] += np.bincount(at, d_scores[head][seen], minlength=d_bias.shape[1]).astype(d_bias.dtype)
