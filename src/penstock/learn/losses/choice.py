"""Losses of one right item among many: what a retrieval model minimises, with gradients and diagonal curvatures.

Scores are (n, m): n queries by m candidates, in any float dtype. `target` (n,) is the column of each query's own item.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.errors import DefinitionError
from penstock.registry import registered
from penstock.types import Array


class ChoiceLoss(ABC):
    """A loss of each query, (n,); implementations are frozen dataclasses, registered as "choice_loss"."""

    @abstractmethod
    def value(
        self, scores: Array, target: Array, *, log_q: Array | None = None, hidden: NDArray[np.bool_] | None = None
    ) -> Array:
        """The loss (n,) of each query.

        Args:
            scores: (n, m), how well each candidate fits.
            target: (n,) the right one's column.
            log_q: (m,) or (n, m), how often a candidate is expected among the m, as a logarithm; what is drawn more
                often than others would else be pushed away more often than others.
            hidden: (n, m), candidates that are none for a query: known to be right themselves. A target never is.
        """

    @abstractmethod
    def slopes(
        self, scores: Array, target: Array, *, log_q: Array | None = None, hidden: NDArray[np.bool_] | None = None
    ) -> tuple[Array, Array]:
        """The first and the second derivative of each query's loss in each of its scores, (n, m) each."""


@registered("choice_loss")
@dataclass(frozen=True)
class SampledSoftmax(ChoiceLoss):
    """−log of the right item's share of exp(score / temperature − log_q) over the candidates.

    With all items as candidates it is the full softmax. With a sample, `log_q` corrects for how it was drawn (Bengio
    and Senécal, 2008; Yi et al., "Sampling-bias-corrected neural modeling for large corpus item recommendations",
    RecSys 2019). With the batch's own items as candidates, `hidden` spares items that are right for a query as well.

    Args:
        temperature: below 1 looks more at the hardest candidates; scores that are cosines need 0.05 to 0.1.

    >>> SampledSoftmax().value(np.zeros((1, 4)), np.array([2])).round(4)
    array([1.3863])
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise DefinitionError(
                "a temperature is above 0", got=str(self.temperature), remedy="1.0 leaves scores alone"
            )

    def value(
        self, scores: Array, target: Array, *, log_q: Array | None = None, hidden: NDArray[np.bool_] | None = None
    ) -> Array:
        logits = self._logits(scores, target, log_q, hidden)
        top = logits.max(axis=1, keepdims=True)
        total = np.log(np.exp(logits - top).sum(axis=1)) + top[:, 0]
        return np.asarray(total - logits[np.arange(len(target)), target])

    def slopes(
        self, scores: Array, target: Array, *, log_q: Array | None = None, hidden: NDArray[np.bool_] | None = None
    ) -> tuple[Array, Array]:
        share = self._logits(scores, target, log_q, hidden)
        share -= share.max(axis=1, keepdims=True)
        np.exp(share, out=share)
        share /= share.sum(axis=1, keepdims=True)
        second = share * (1 - share) / self.temperature**2
        share[np.arange(len(target)), target] -= 1
        share /= self.temperature
        return share, second

    def _logits(self, scores: Array, target: Array, log_q: Array | None, hidden: NDArray[np.bool_] | None) -> Array:
        logits = np.asarray(scores / self.temperature)
        if log_q is not None:
            logits -= log_q
        if hidden is not None:
            own = logits[np.arange(len(target)), target]
            logits[hidden] = -np.inf
            logits[np.arange(len(target)), target] = own
        return logits


@registered("choice_loss")
@dataclass(frozen=True)
class ContrastiveMargin(ChoiceLoss):
    """1 − the right item's score, plus `weight` times the mean of what the others' scores are above `margin`.

    A candidate that is already far is pushed no further, so that items that are much alike may stay so (the cosine
    contrastive loss of Mao et al., "SimpleX", CIKM 2021). Scores are cosines.

    >>> ContrastiveMargin(margin=0.5).value(np.array([[0.8, 0.7, 0.1]]), np.array([0])).round(4)
    array([0.3])
    """

    margin: float = 0.4
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not (-1 <= self.margin < 1 and self.weight > 0):
            raise DefinitionError(
                "a margin is a cosine below 1, and the others' weight above 0",
                got=f"margin={self.margin!r}, weight={self.weight!r}", remedy="margin=0.4, weight=1.0",
            )  # fmt: skip

    def value(
        self, scores: Array, target: Array, *, log_q: Array | None = None, hidden: NDArray[np.bool_] | None = None
    ) -> Array:
        mine = np.arange(len(target)), target
        share = self._shares(scores, target, log_q, hidden)
        return np.asarray(1 - scores[mine] + (share * np.maximum(scores - self.margin, 0)).sum(axis=1))

    def slopes(
        self, scores: Array, target: Array, *, log_q: Array | None = None, hidden: NDArray[np.bool_] | None = None
    ) -> tuple[Array, Array]:
        slope = self._shares(scores, target, log_q, hidden) * (scores > self.margin)
        slope[np.arange(len(target)), target] = -1
        return slope, np.zeros_like(slope)

    def _shares(self, scores: Array, target: Array, log_q: Array | None, hidden: NDArray[np.bool_] | None) -> Array:
        """What each candidate counts, (n, m): `weight` over all that count, the rarer drawn the more."""
        counts = np.ones_like(scores) if log_q is None else np.exp(-np.broadcast_to(log_q, scores.shape))
        counts = counts.astype(scores.dtype)
        if hidden is not None:
            counts[hidden] = 0
        counts[np.arange(len(target)), target] = 0
        return np.asarray(self.weight * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1e-12))


def false_negatives(item: Array, group: Array | None = None, also: Array | None = None) -> NDArray[np.bool_]:
    """Which of a batch's items (n,) are none to push away for each of its queries, (n, n); the diagonal is not.

    Args:
        item: (n,) the item of each query. The same item, asked for by another query, is right for both.
        group: (n,) such as the shopper; another item of the same group is right as well. None: no groups.
        also: (n, w) further items known to be right for each query, 0 pads.

    >>> false_negatives(np.array([7, 8, 7]), also=np.array([[0], [7], [0]])).astype(int)
    array([[0, 0, 1],
           [1, 0, 1],
           [1, 0, 0]])
    """
    hidden = item[:, None] == item
    if group is not None:
        hidden |= group[:, None] == group
    if also is not None:
        for column in also.T:
            hidden |= (column[:, None] == item) & (column[:, None] != 0)
    np.fill_diagonal(hidden, False)
    return np.asarray(hidden)


def log_expected(share: Array, drawn: int) -> Array:
    """How often a candidate of each `share` (m,) of all draws is expected among so many, as a logarithm: `log_q`.

    >>> log_expected(np.array([0.5, 0.001]), 100).round(3)
    array([ 3.912, -2.303])
    """
    return np.asarray(np.log(np.maximum(share, 1e-12)) + np.log(drawn))
