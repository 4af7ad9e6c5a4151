"""Examination where shoppers read a list from the top and stop somewhere: a cascade, by expectation-maximisation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.learn.position.clicks import Clicks, Examination, Floats, PositionError

_PARTS = 20


@dataclass(frozen=True, eq=False)
class Cascade:
    """A cascade that was fitted.

    `examination` of the positions, over all sessions; `onward` and `after_click`, how likely a shopper goes on to the
    next position after one without and with a click; `relevance` (P,) of the pairs in ascending order of their codes.
    """

    examination: Examination
    onward: float
    after_click: float
    relevance: Floats


def by_cascade(clicks: Clicks, *, steps: int = 500, close: float = 1e-6) -> Cascade:
    """Shoppers look at the first position, click it if it is relevant, and go on with a chance that depends on whether
    they clicked (Craswell, Zoeter, Taylor and Ramsey, "An experimental comparison of click position-bias models",
    WSDM 2008; the simplified form of Chapelle and Zhang's, WWW 2009, with abandonment).

    What lies below a click then depends on it, unlike in `by_em`: choose by which predicts clicks better. Standard
    errors by a jackknife over twenty parts of the sessions.

    Args:
        clicks: whole sessions, each with positions from 0 on and none left out.
        steps: at most so many.
        close: ended when no step moves a chance by more.

    Raises:
        PositionError: a session with a gap.

    >>> slates = np.array([[1, 2], [2, 1]] * 40)
    >>> clicked = np.array([[1, 0], [1, 1], [0, 1], [0, 0]] * 20, bool)
    >>> by_cascade(Clicks.of_slates(slates, clicked)).examination.probability.round(2).tolist()
    [1.0, 1.0]
    """
    place, pair, clicked, there = _sessions(clicks)
    onward, after, liked = _fit(pair, clicked, there, place, (0.8, 0.5), steps, close)
    look = _looked(pair, there, onward, after, liked)
    part = np.arange(len(pair)) % _PARTS
    others = []
    for p in range(min(_PARTS, len(pair))):
        rest = part != p
        if rest.any():
            again = _fit(pair[rest], clicked[rest], there[rest], place, (onward, after), steps, max(close, 1e-5))
            others.append(_looked(pair[rest], there[rest], *again))
    logs = np.log(np.maximum(np.array(others), 1e-300))
    spread = (len(logs) - 1) / max(len(logs), 1) * ((logs - logs.mean(axis=0)) ** 2).sum(axis=0)
    return Cascade(Examination(look, look * np.sqrt(spread)), onward, after, liked)


def _sessions(clicks: Clicks) -> tuple[int, NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    """How many pairs; each session's pairs and clicks (S, K), and where it has a position at all."""
    place, pairs = clicks.place
    _, session = np.unique(clicks.session, return_inverse=True)
    shape = (int(session.max()) + 1, clicks.positions)
    pair, clicked, there = np.zeros(shape, np.int64), np.zeros(shape, bool), np.zeros(shape, bool)
    pair[session, clicks.position] = place
    clicked[session, clicks.position] = clicks.clicked
    there[session, clicks.position] = True
    gaps = int((there[:, 1:] & ~there[:, :-1]).any(axis=1).sum())
    if gaps or there.sum() != len(clicks.position):
        raise PositionError(
            "sessions have every position from the first to their last, once",
            got=f"{gaps} that lack one above another",
            remedy="pass whole sessions, items of unknown outcome as not clicked",
        )
    return pairs, pair, clicked, there


def _fit(
    pair: NDArray[np.int64],
    clicked: NDArray[np.bool_],
    there: NDArray[np.bool_],
    pairs: int,
    start: tuple[float, float],
    steps: int,
    close: float,
) -> tuple[float, float, Floats]:
    onward, after = start
    hits = np.bincount(pair[clicked], minlength=pairs)
    liked = (hits + 0.1) / (np.bincount(pair[there], minlength=pairs) + 0.2)
    follows = np.zeros_like(there)
    follows[:, :-1] = there[:, 1:]
    for _ in range(steps):
        seen, goes = _posterior(liked[pair], clicked, there, follows, onward, after)
        looked = np.bincount(pair[there], seen[there], pairs)
        new = np.divide(hits, looked, out=liked.copy(), where=looked > 0)
        passed = follows & ~clicked
        met = follows & clicked
        on = float(goes[passed].sum() / max(seen[passed].sum(), 1e-300))
        further = float(goes[met].sum() / max(met.sum(), 1))
        moved = max(abs(on - onward), abs(further - after))
        onward, after, liked = on, further, np.clip(new, 1e-6, 1 - 1e-6)
        if moved < close:
            break
    return onward, after, liked


def _posterior(
    liked: Floats,
    clicked: NDArray[np.bool_],
    there: NDArray[np.bool_],
    follows: NDArray[np.bool_],
    onward: float,
    after: float,
) -> tuple[Floats, Floats]:
    """How likely each position was looked at, and the one after it too, given the clicks: (S, K) each."""
    width = clicked.shape[1]
    go = np.where(clicked, after, onward)
    # Of what comes below: the chance of its clicks, where the position is looked at.
    below = np.ones((len(clicked), width + 1))
    none_below = np.ones((len(clicked), width + 1), bool)
    for k in range(width - 1, -1, -1):
        here = np.where(clicked[:, k], liked[:, k], 1 - liked[:, k])
        rest = np.where(follows[:, k], go[:, k] * below[:, k + 1] + (1 - go[:, k]) * none_below[:, k + 1], 1.0)
        below[:, k] = np.where(there[:, k], here * rest, 1.0)
        none_below[:, k] = none_below[:, k + 1] & ~clicked[:, k]
    seen, goes = np.zeros(clicked.shape), np.zeros(clicked.shape)
    seen[:, 0] = there[:, 0]
    for k in range(width - 1):
        moved = go[:, k] * below[:, k + 1]
        share = moved / np.maximum(moved + (1 - go[:, k]) * none_below[:, k + 1], 1e-300)
        goes[:, k] = np.where(follows[:, k], seen[:, k] * share, 0.0)
        seen[:, k + 1] = goes[:, k]
    return seen, goes


def _looked(pair: NDArray[np.int64], there: NDArray[np.bool_], onward: float, after: float, liked: Floats) -> Floats:
    """How likely each position is looked at before anything is clicked, averaged over the sessions that have it."""
    good = liked[pair]
    go = good * after + (1 - good) * onward
    look = np.ones(pair.shape)
    look[:, 1:] = np.cumprod(go[:, :-1], axis=1)
    return np.asarray((look * there).sum(axis=0) / np.maximum(there.sum(axis=0), 1))
