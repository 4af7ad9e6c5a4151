"""Columns of the training rows that look as if they knew the future, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from penstock.evaluate.layout import Leak
from penstock.evaluate.leakage import auc_within_lists
from penstock.learn import Dataset, Labels, Replay
from penstock.retrieve import Index

ALONE = 0.98
"""A column that alone has a higher AUC within lists is told."""
_FEWEST = 30
_REQUESTS = 40


def leaks(replay: Replay, labels: Labels, held: Dataset, kept: Mapping[str, Index] | None = None) -> list[Leak]:
    """What should be looked at before any figure is believed.

    Two checks. A column that by itself ranks the item that came next above nearly all others knows it, as one does that
    an import filled in afterwards, or a source that reads a table made of later days. And rows are made again of a log
    that ends at the moment of decision: where a value differs, something later reached it.

    Args:
        replay: the log.
        labels: the held-out decisions.
        held: all their candidates.
        kept: by label, indexes of sources that take too long to be fitted again; how they learn is not looked at.
    """
    return [*alone(held, replay.recipe.assembler.names), *changing(replay, labels, kept)]


def alone(held: Dataset, names: tuple[str, ...], threshold: float = ALONE) -> list[Leak]:
    """Columns of a dataset whose AUC within lists is above the threshold, in either direction; none in few lists."""
    if not len(held.rows):
        return []
    auc, lists = auc_within_lists(held.rows, held.positive, held.owner)
    strength = np.maximum(auc, 1 - auc)
    if lists < _FEWEST:
        return []
    return [Leak(names[at], "alone", float(strength[at])) for at in np.flatnonzero(strength > threshold).tolist()]


def changing(
    replay: Replay, labels: Labels, kept: Mapping[str, Index] | None = None, requests: int = _REQUESTS
) -> list[Leak]:
    """Columns and sources that give another answer of one moment when the log has no later event.

    Some of the labels' shoppers are asked for at the moment of the label in the middle, once over the whole log and
    once over what it held then.
    """
    if not len(labels):
        return []
    middle = len(labels) // 2
    known, now = int(labels.asks.known[middle]), int(labels.asks.now[middle])
    drawn = labels.take(np.unique(np.linspace(0, len(labels) - 1, requests).astype(np.int64)))
    asks = replace(drawn.asks, now=np.full(len(drawn), now), known=np.full(len(drawn), known))
    moment = replace(drawn, asks=asks)
    whole, then = (one.build(moment, one.fit(known, kept=kept)) for one in (replay, replay.until(known)))
    sources, pairs = _aligned(whole, then)
    names = [source.label for source in replay.recipe.sources]
    found = [Leak(names[at], "changes", share) for at, share in sources]
    a, b = whole.rows[pairs[:, 0]], then.rows[pairs[:, 1]]
    differ = (a != b) & ~(np.isnan(a) & np.isnan(b))
    share = differ.mean(axis=0) if len(differ) else np.zeros(a.shape[1])
    told = {leak.name for leak in found}
    columns = replay.recipe.assembler.names
    return found + [
        Leak(columns[at], "changes", float(share[at]))
        for at in np.flatnonzero(share).tolist()
        if columns[at] not in told
    ]


def _aligned(whole: Dataset, then: Dataset) -> tuple[list[tuple[int, float]], NDArray[np.int64]]:
    """Sources whose candidates differ, with the share of requests in which they do; and equal candidates' rows."""
    pairs = []
    differ = np.zeros(whole.candidates[0].place.shape[1])
    edges = [np.r_[0, np.cumsum(part.groups)] for part in (whole, then)]
    for i, (a, b) in enumerate(zip(whole.candidates, then.candidates, strict=True)):
        _, at_a, at_b = np.intersect1d(a.items, b.items, return_indices=True)
        pairs.append(np.stack([edges[0][i] + at_a, edges[1][i] + at_b], axis=1))
        for source in range(len(differ)):
            mine, other = (_list(part.items, part.place[:, source]) for part in (a, b))
            differ[source] += mine != other
    shares = differ / max(len(whole.candidates), 1)
    return [(int(at), float(shares[at])) for at in np.flatnonzero(shares)], np.concatenate(pairs)


def _list(items: NDArray[np.uint32], place: NDArray[np.float64]) -> list[int]:
    """What one source found, in its order."""
    order = np.argsort(place, kind="stable")
    found: list[int] = items[order][: int((~np.isnan(place)).sum())].tolist()
    return found
