"""A softmax over a catalogue or a sample of it, block by block: never all logits are in memory at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penstock.learn.autodiff import Tensor, operation
from penstock.types import Array

_BLOCK = 512
"""Queries at a time, at most: their logits stay near the processor."""
_BYTES = 64 << 20
"""Of the logits of a block, but for those of a single query: with millions of items blocks are smaller."""


def softmax_over(
    query: Tensor, table: Tensor, target: NDArray[np.int64], *, scale: float = 1.0, smoothing: float = 0.0
) -> Tensor:
    """The mean over queries (n, d) of −log of their items' shares of exp(scale · query · item) over a table (m, d).

    Value and gradients are computed at once, in blocks of queries.

    Args:
        target: (n,) the row of each query's own item.
        scale: times each product; with unit vectors 1 / temperature.
        smoothing: the share of the target that is spread over all items (Szegedy et al., 2016).
    """
    q, items = query.value, table.value
    n, m = len(q), len(items)
    value = np.zeros(n, q.dtype)
    d_query = np.empty_like(q)

    total = np.zeros_like(items)
    for start, stop in _blocks(q, items):
        mine = np.arange(stop - start), target[start:stop]
        shares = q[start:stop] @ items.T
        shares *= shares.dtype.type(scale)
        right = shares[mine]
        top = shares.max(axis=1, keepdims=True)
        mean = shares.mean(axis=1) if smoothing else 0.0
        shares -= top
        np.exp(shares, out=shares)
        summed = shares.sum(axis=1, keepdims=True)
        value[start:stop] = np.log(summed[:, 0]) + top[:, 0] - (1 - smoothing) * right - smoothing * mean
        shares *= scale / (n * summed)
        if smoothing:
            shares -= shares.dtype.type(smoothing * scale / (n * m))
        shares[mine] -= shares.dtype.type((1 - smoothing) * scale / n)
        np.matmul(shares, items, out=d_query[start:stop])
        total += shares.T @ q[start:stop]
    return operation(
        np.asarray(value.mean(), q.dtype), (query, table), lambda g: (d_query * g, total * g)
    )  # fmt: skip


def softmax_over_sample(
    query: Tensor,
    own: Tensor,
    others: Tensor,
    same: tuple[Array, Array],
    log_q: Array,
    *,
    scale: float = 1.0,
    smoothing: float = 0.0,
) -> Tensor:
    """The mean of −log of each query's own item's share among it and one sample of others that all queries share.

    It is `SampledSoftmax` over products of vectors, in blocks and without a copy of the logits.

    Args:
        query, own: (n, d) each; others: (m, d), the sample.
        same: the codes (n,) of the own items and (m,) of the sample: an item is not pushed away from its own query.
        log_q: (m,), see `SampledSoftmax`; an own item always takes part, so that it has none.
        scale: times each product.
        smoothing: the share of the target that is spread over the sample, drawn evenly, in place of all items.
    """
    q, mine, items = query.value, own.value, others.value
    n = len(q)
    right = (q * mine).sum(axis=1) * q.dtype.type(scale)
    value, share = np.zeros(n, q.dtype), np.zeros(n, q.dtype)
    d_query, d_items = np.empty_like(q), np.zeros_like(items)
    target, drawn = same
    order = np.argsort(drawn, kind="stable")
    first, end = (np.searchsorted(drawn[order], target, side=side) for side in ("left", "right"))
    for start, stop in _blocks(q, items):
        part = slice(start, stop)
        shares = q[part] @ items.T
        shares *= shares.dtype.type(scale)
        shares -= log_q.astype(shares.dtype)
        for row in np.flatnonzero(end[part] > first[part]).tolist():
            shares[row, order[first[start + row] : end[start + row]]] = -np.inf
        top = np.maximum(shares.max(axis=1), right[part])
        shares -= top[:, None]
        np.exp(shares, out=shares)
        mass = np.exp(right[part] - top)
        summed = shares.sum(axis=1) + mass
        value[part] = np.log(summed) + top - right[part]
        share[part] = mass / summed
        shares *= (scale / (n * summed))[:, None].astype(shares.dtype)
        np.matmul(shares, items, out=d_query[part])
        d_items += shares.T @ q[part]
    pull = ((share - 1) * (scale / n)).astype(q.dtype)[:, None]
    d_query += pull * mine
    d_own = pull * q
    if smoothing and len(items):
        centre, part = items.mean(axis=0), q.dtype.type(smoothing * scale / n)
        value += q.dtype.type(smoothing) * (right - q @ centre * q.dtype.type(scale))
        d_query += part * (mine - centre)
        d_own += part * q
        d_items -= part / len(items) * q.sum(axis=0)
    return operation(
        np.asarray(value.mean(), q.dtype), (query, own, others), lambda g: (d_query * g, d_own * g, d_items * g)
    )  # fmt: skip


def _blocks(query: Array, items: Array) -> list[tuple[int, int]]:
    """From, up to: queries whose logits are in memory at once."""
    rows = max(1, min(_BLOCK, _BYTES // max(1, len(items) * query.dtype.itemsize)))
    return [(start, min(start + rows, len(query))) for start in range(0, len(query), rows)]
