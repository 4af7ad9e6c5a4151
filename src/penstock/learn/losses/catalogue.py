"""A softmax over a whole catalogue, block by block: the logits of all queries and items are never in memory at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penstock.learn.autodiff import Tensor, operation

_BLOCK = 512
"""Queries at a time: their logits stay near the processor."""


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
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
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
