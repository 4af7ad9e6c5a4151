"""Examination from items that several rankers, or exploration, put at several positions."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from penstock.learn.position.clicks import Clicks, Examination, Floats, PositionError

_STEPS, _CLOSE = 200, 1e-10
_PARTS = 20


def by_harvest(clicks: Clicks, how: Literal["conditional", "all_pairs"] = "conditional") -> Examination:
    """From pairs that were shown at more than one position: nothing is changed to learn, only harvested (Agarwal,
    Zaitsev, Wang, Li, Najork and Joachims, "Estimating position bias without intrusive interventions", WSDM 2019).

    It holds where it is not the pair's relevance that moved it: rankers that differ, exploration, new releases.
    Positions that no chain of clicked pairs links to the first, both ways, are NaN.

    Args:
        how: what is maximised.

            - ``"conditional"``: given a pair's clicks, the chance that they fell where they fell: in proportion to
              showings times examination. A pair's relevance cancels out, however seldom it was shown (the
              fixed-effects Poisson likelihood; Hausman, Hall and Griliches, Econometrica 1984). Standard errors are
              robust, by pair.
            - ``"all_pairs"``: the published AllPairs likelihood, in which each two positions have a relevance that the
              pairs shown at both share. Standard errors by a jackknife over twenty parts of the pairs.

    Raises:
        PositionError: no pair was shown at two positions and clicked.

    >>> slates = np.array([[1, 2], [2, 1]] * 40)
    >>> clicked = np.array([[1, 0], [1, 1]] * 40, bool)
    >>> by_harvest(Clicks.of_slates(slates, clicked)).probability.round(6).tolist()
    [1.0, 0.5]
    """
    shown, hits = clicks.table
    useful = ((shown > 0).sum(axis=1) > 1) & (hits.sum(axis=1) > 0)
    shown, hits = shown[useful], hits[useful]
    linked = _linked(shown, hits)
    if linked.sum() < 2:
        raise PositionError(
            "some pair is shown at the first position and at another, and clicked at both",
            got=f"{int(useful.sum())} pairs that were shown at several positions and clicked",
            remedy="let rankers differ or explore (ps.explore), or gather more clicks",
        )
    width = len(linked)
    probability, error = np.full(width, np.nan), np.full(width, np.nan)
    fit = _conditional if how == "conditional" else _all_pairs
    probability[linked], error[linked] = fit(shown[:, linked], hits[:, linked])
    return Examination(probability, error)


def _linked(shown: Floats, hits: Floats) -> NDArray[np.bool_]:
    """The positions that clicks compare with the first, directly or through others, in both directions (K,)."""
    # Without a click on either side, a ratio is 0 or infinite.
    reach = ((hits > 0).T.astype(np.float64) @ (shown > 0)) > 0
    for _ in range(max(int(np.ceil(np.log2(max(len(reach), 2)))), 1)):
        reach = reach | ((reach.astype(np.float64) @ reach) > 0)
    linked = reach[0] & reach[:, 0]
    linked[0] = True
    return np.asarray(linked)


def _conditional(shown: Floats, hits: Floats) -> tuple[Floats, Floats]:
    """Examination (K,) and its standard errors, by Newton steps on its logarithms, the first fixed at 0."""
    level = np.zeros(shown.shape[1])
    total = hits.sum(axis=1)
    best, step = -np.inf, np.zeros_like(level)
    for _ in range(_STEPS):
        mass = shown * np.exp(level + step)
        whole = mass.sum(axis=1)
        value = float((hits @ (level + step)).sum() - total @ np.log(np.maximum(whole, 1e-300)))
        if value < best - 1e-9 * abs(best):
            step = step / 2
            continue
        level, best = level + step, value
        share = mass / np.maximum(whole, 1e-300)[:, None]
        slope = hits - total[:, None] * share
        bend = np.diag((total[:, None] * share).sum(axis=0)) - (share * total[:, None]).T @ share
        step = np.r_[0.0, np.linalg.solve(bend[1:, 1:], slope.sum(axis=0)[1:])]
        if np.abs(step).max() < _CLOSE:
            break
    inverse = np.linalg.inv(bend[1:, 1:])
    spread = inverse @ (slope[:, 1:].T @ slope[:, 1:]) @ inverse
    probability = np.exp(level)
    return probability, probability * np.r_[0.0, np.sqrt(np.diag(spread))]


def _all_pairs(shown: Floats, hits: Floats) -> tuple[Floats, Floats]:
    """The same by AllPairs."""
    held, rate = shown > 0, np.divide(hits, shown, out=np.zeros_like(hits), where=shown > 0)
    part = np.arange(len(shown)) % _PARTS
    width = shown.shape[1]
    many, clicked = np.zeros((_PARTS, width, width)), np.zeros((_PARTS, width, width))
    for p in range(_PARTS):
        mine = part == p
        many[p] = held[mine].T.astype(np.float64) @ held[mine]
        clicked[p] = rate[mine].T @ held[mine]
    whole = _likeliest(many.sum(axis=0), clicked.sum(axis=0))
    others = np.stack([_likeliest(many.sum(axis=0) - many[p], clicked.sum(axis=0) - clicked[p]) for p in range(_PARTS)])
    logs = np.log(others)
    spread = (_PARTS - 1) / _PARTS * ((logs - logs.mean(axis=0)) ** 2).sum(axis=0)
    return whole, whole * np.sqrt(spread)


def _likeliest(many: Floats, clicked: Floats) -> Floats:
    """Maximises Σ over k ≠ j of clicked[k, j] log(p_k r_kj) + (many[k, j] − clicked[k, j]) log(1 − p_k r_kj), with r
    symmetric, by expectation steps that take turns; gives p (K,) over its first.

    `many` counts the pairs shown at k and at j; `clicked` sums their click rates at k.
    """
    np.fill_diagonal(many, 0.0)
    np.fill_diagonal(clicked, 0.0)
    none = many - clicked
    p, r = np.full(len(many), 0.5), np.full(many.shape, 0.5)
    both = many + many.T
    for _ in range(20_000):
        chance = 1 - p[:, None] * r
        looked = clicked + none * p[:, None] * (1 - r) / chance
        liked = clicked + none * (1 - p[:, None]) * r / chance
        new = looked.sum(axis=1) / np.maximum(many.sum(axis=1), 1e-300)
        r = np.divide(liked + liked.T, both, out=np.full_like(r, 0.5), where=both > 0)
        # The scale belongs to either: without it, steps would crawl along the ridge.
        scale = new.max()
        new, r = new / scale, np.minimum(r * scale, 1 - 1e-9)
        moved = np.abs(new - p).max()
        p = np.minimum(new, 1 - 1e-9)
        if moved < 1e-9:
            break
    return np.asarray(p / p[0])
