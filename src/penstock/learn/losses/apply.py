"""A loss with derivatives of its own as an operation of the graph."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from penstock.learn.autodiff import Tensor, operation
from penstock.learn.losses.ranking import Lists
from penstock.types import Array


class HasSlopes(Protocol):
    """Any loss: its value, and first and second derivatives in the scores."""

    def value(self, scores: Array, *what: Any, **more: Any) -> Array: ...

    def slopes(self, scores: Array, *what: Any, **more: Any) -> tuple[Array, Array]: ...


def loss_of(loss: HasSlopes, scores: Tensor, *what: Any, weight: Array | None = None, **more: Any) -> Tensor:
    """The mean of a loss over its rows, or over its lists, as one number that can be differentiated.

    Args:
        scores: what the loss looks at; `what` and `more` are its further arguments.
        weight: (n,) what each row counts, or each list of a ranking loss; alike, where absent.

    >>> from penstock.learn.autodiff import gradients
    >>> from penstock.learn.losses.choice import SampledSoftmax
    >>> scores = Tensor(np.zeros((2, 4)))
    >>> gradients(loss_of(SampledSoftmax(), scores, np.array([0, 1])), [scores])[0][0]
    array([-0.375,  0.125,  0.125,  0.125])
    """
    value, slope = mean_and_slope(loss, scores.value, *what, weight=weight, **more)
    return operation(value, (scores,), lambda g: (slope * g,))


def mean_and_slope(
    loss: HasSlopes, scores: Array, *what: Any, weight: Array | None = None, **more: Any
) -> tuple[Array, Array]:
    """What `loss_of` is, and its gradient in the scores, of their shape; both of their dtype."""
    value = np.asarray(loss.value(scores, *what, **more))
    share = np.full(len(value), 1 / max(len(value), 1)) if weight is None else weight / weight.sum()
    slope = loss.slopes(scores, *what, **more)[0]
    # A ranking loss has one value a list and one slope a row: a row counts as its list does.
    each = share[what[0].owner] if what and isinstance(what[0], Lists) else share
    slope = slope * each.reshape(-1, *[1] * (slope.ndim - 1))
    return np.asarray((value * share).sum(), scores.dtype), slope.astype(scores.dtype)
