"""Labels of a span of time with their candidates' rows, and what making them took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from penstock.clock import SECOND
from penstock.learn import Dataset, Labels, Replay
from penstock.retrieve import Index
from penstock.types import Progress

_TIMED = 200
"""Requests of which the time to find candidates is taken."""
_QUICK = 5.0


@dataclass
class Spent:
    """Seconds by source: to learn its index, and to find the candidates of one request; and the indexes."""

    fit: dict[str, float] = field(default_factory=dict)
    find: dict[str, float] = field(default_factory=dict)
    indexes: Mapping[str, Index] = field(default_factory=dict)

    @property
    def slow(self) -> dict[str, Index]:
        """The indexes that took more than five seconds: too long to be made again only to look for leaks."""
        return {label: self.indexes[label] for label, seconds in self.fit.items() if seconds > _QUICK}


def label_part(
    replay: Replay,
    span: tuple[int, int],
    *,
    negatives: int | None,
    progress: Progress | None = None,
    spent: Spent | None = None,
) -> tuple[Labels, Dataset]:
    """Labels of a span, drawn at random up to the ranker's most, and their candidates' rows.

    Args:
        negatives: see `Replay.build`.
        spent: is told what fitting and finding took.
    """
    rank = replay.recipe.rank
    labels = replay.labels(*span)
    before = int(labels.asks.known[0])
    seed = rank.seed + span[0] // SECOND
    drawn = np.sort(np.random.default_rng(seed).permutation(len(labels))[: rank.most_labels])
    labels = labels.take(drawn)
    indexes = replay.fit(before, None if spent is None else spent.fit)
    if spent is not None:
        spent.indexes, spent.find = indexes, find_seconds(replay, labels, indexes)
    return labels, replay.build(labels, indexes, negatives=negatives, seed=seed, progress=progress)


def find_seconds(replay: Replay, labels: Labels, indexes: Mapping[str, Index]) -> dict[str, float]:
    """The time to find candidates by source, of some of the labels; see `Replay.find_seconds`."""
    some = np.unique(np.linspace(0, len(labels) - 1, _TIMED).astype(np.int64))
    return replay.find_seconds(labels.take(some), indexes)
