"""A loss with derivatives of its own as an operation of the graph."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from penstock.learn.autodiff import Tensor, operation
from penstock.types import Array


class HasSlopes(Protocol):
    """Any loss: its value, and first and second derivatives in the scores."""

    def value(self, scores: Array, *what: Any, **more: Any) -> Array: ...

    def slopes(self, scores: Array, *what: Any, **more: Any) -> tuple[Array, Array]: ...


def loss_of(loss: HasSlopes, scores: Tensor, *what: Any, weight: Array | None = None, **more: Any) -> Tensor:
    """The mean of a loss over its rows, as one number that can be differentiated.

    Args:
        scores: what the loss looks at; `what` and `more` are its further arguments.
        weight: (n,) what each row counts; alike, where absent.

    >>> from penstock.learn.autodiff import gradients
    >>> from penstock.learn.losses.choice import SampledSoftmax
    >>> scores = Tensor(np.zeros((2, 4)))
    >>> gradients(loss_of(SampledSoftmax(), scores, np.array([0, 1])), [scores])[0][0]
    array([-0.375,  0.125,  0.125,  0.125])
    """
    value = np.asarray(loss.value(scores.value, *what, **more))
    share = np.full(len(value), 1 / max(len(value), 1)) if weight is None else weight / weight.sum()

    def push(g: Array) -> tuple[Array]:
        slope = loss.slopes(scores.value, *what, **more)[0]
        each = share.reshape(-1, *[1] * (slope.ndim - 1)).astype(scores.value.dtype)
        return (slope * each * g,)

    return operation(np.asarray((value * share).sum(), scores.value.dtype), (scores,), push)
