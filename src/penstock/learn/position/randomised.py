"""Examination from slates that chance put in order: no model of clicks is needed beyond that of positions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penstock.learn.position.clicks import Clicks, Examination, Floats, PositionError, check_first, summed


def by_shuffles(clicks: Clicks) -> Examination:
    """From sessions in which the items were put in a random order, each as likely as any other.

    What stands at a position is then as relevant as what stands at any other, so that click rates are in proportion
    to examination. Standard errors take a session's clicks to depend on each other (delta method). Costs what showing
    random orders costs; a small share of the traffic will do.

    Args:
        clicks: those of the shuffled sessions alone; sessions may differ in length.

    >>> slates = np.array([[1, 2], [2, 1], [1, 2], [2, 1]])
    >>> clicked = np.array([[1, 0], [1, 1], [0, 0], [0, 0]], bool)
    >>> by_shuffles(Clicks.of_slates(slates, clicked)).probability.tolist()
    [1.0, 0.5]
    """
    width = clicks.positions
    shown = np.bincount(clicks.position, minlength=width)
    hits = summed(clicks.position, clicks.clicked, width)
    check_first(hits)
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = hits / shown
        pull = (clicks.clicked - rate[clicks.position]) / hits[clicks.position]
    _, session = np.unique(clicks.session, return_inverse=True)
    first = np.zeros(int(session.max()) + 1)
    top = clicks.position == 0
    first[session[top]] = pull[top]
    variance = summed(clicks.position, pull**2 - 2 * pull * first[session], width) + float(first @ first)
    return _found(rate / rate[0], variance)


def by_swaps(clicks: Clicks, swapped: NDArray[np.int64]) -> Examination:
    """From sessions in which a fair coin said whether the first item and that of one other position change places
    (Joachims, Swaminathan and Schnabel, WSDM 2017). It costs less than random orders, and needs more sessions.

    Args:
        clicks: those of the sessions in which a coin was thrown, whichever way it fell.
        swapped: (n,) the other position, from 1, the same for all rows of a session.

    Raises:
        PositionError: a session whose other position is the first.

    >>> slates, clicked = np.array([[1, 2], [2, 1]]), np.array([[1, 0], [1, 1]], bool)
    >>> by_swaps(Clicks.of_slates(slates, clicked), np.array([1, 1, 1, 1])).probability.tolist()
    [1.0, 0.5]
    """
    if len(swapped) != len(clicks.position) or swapped.min() < 1:
        raise PositionError(
            "every row says which position its session's first item may have changed places with, from 1",
            got=f"{len(swapped)} entries for {len(clicks.position)} rows, the lowest {swapped.min(initial=1)}",
            remedy="leave out sessions in which no coin was thrown",
        )
    width = max(clicks.positions, int(swapped.max()) + 1)
    probability, variance = np.full(width, np.nan), np.full(width, np.nan)
    probability[0] = variance[0] = 0
    for other in range(1, width):
        mine = (swapped == other) & ((clicks.position == 0) | (clicks.position == other))
        if mine.any():
            part = clicks.take(mine)
            pair = Clicks(part.session, part.pair, np.minimum(part.position, 1), part.clicked)
            found = by_shuffles(pair)
            if len(found) > 1:
                probability[other], variance[other] = found.probability[1], (found.error / found.probability)[1] ** 2
    probability[0] = 1
    return _found(probability, variance)


def _found(probability: Floats, variance: Floats) -> Examination:
    """Of positions that were never clicked, nothing is known."""
    probability = np.where(probability > 0, probability, np.nan)
    error = probability * np.sqrt(np.maximum(variance, 0.0))
    error[0] = 0.0
    return Examination(probability, error)
