"""Past events of a verdict with what came of them, and the rows that a decision on each would have seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from penstock.engines import BatchEngine
from penstock.errors import ReleaseError
from penstock.events import ties
from penstock.features.columns import matches
from penstock.features.view import View
from penstock.learn.verdict import VerdictRecipe
from penstock.types import MISSING_INT, Array, Micros, Progress, Rows, Strings

_BLOCK = 50_000


@dataclass(frozen=True)
class Acted:
    """What was done with n events: (n,) their ties, whether each was turned away, and the chance of what was done."""

    tie: NDArray[np.uint64]
    declined: NDArray[np.bool_]
    propensity: NDArray[np.float64]

    @classmethod
    def nothing(cls) -> Acted:
        """No decision yet."""
        return cls(np.zeros(0, np.uint64), np.zeros(0, bool), np.zeros(0))


@dataclass(frozen=True)
class Cases:
    """n past events: their places `at` in the stream's rows, what came of them, and how much each counts, (n,)."""

    at: NDArray[np.int64]
    positive: NDArray[np.bool_]
    weight: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.at)

    def take(self, index: Array) -> Cases:
        return Cases(self.at[index], self.positive[index], self.weight[index])


class Trials:
    """The log, opened for learning a verdict.

    Args:
        recipe: what is to be learned.
        rows: the log's events by stream.
        strings: of the log.
        acted: what was done with events that were decided on.

    Raises:
        ReleaseError: there is no event to learn from.
    """

    def __init__(
        self, recipe: VerdictRecipe, rows: Mapping[str, Rows], strings: Strings, acted: Acted | None = None
    ) -> None:
        self.recipe = recipe
        self._strings = strings
        rows = by_arrival(rows)
        found = rows.get(recipe.schema.stream)
        if found is None or not len(found):
            raise ReleaseError(
                f"training {recipe.name} needs events of {recipe.schema.stream}", got="none",
                remedy="penstock ingest FILE first",
            )  # fmt: skip
        self.rows = found
        self.newest = max(int(part.time.max()) for part in rows.values() if len(part))
        self._batch = BatchEngine({name: part for name, part in rows.items() if name in recipe.streams}, strings)
        self._now = _newest_known(self.rows, rows)
        self._label(rows, acted or Acted.nothing())

    def _label(self, rows: Mapping[str, Rows], acted: Acted) -> None:
        """Says of each event whether its outcome is known, which it is, and how much it counts."""
        tie = self.rows.tie
        order = np.argsort(tie)
        positive, settled = np.zeros(len(tie), bool), np.zeros(len(tie), bool)
        for outcome in self.recipe.outcomes:
            part = rows.get(outcome.schema.stream)
            if part is None or not len(part):
                continue
            codes, which = np.unique(part.fields[outcome.of], return_inverse=True)
            about = ties(self.recipe.schema.stream, self._strings.texts(codes))[which]
            at, found = _find(tie, order, about)
            means = np.ones(len(part), bool)
            if outcome.where is not None:
                means = matches(outcome.where, part, outcome.schema, self._strings)
            positive[at[found & means]] = True
            settled[at[found & ~means]] = True
        mature = self.rows.time + self.recipe.within <= self.newest
        at, found = _find(tie, order, acted.tie)
        weight = np.ones(len(tie))
        weight[at[found]] = 1 / acted.propensity[found]
        turned = np.zeros(len(tie), bool)
        turned[at[found & acted.declined]] = True
        # Of what was turned away nothing can come: silence says nothing, and a share of it was let through to learn.
        self.known = positive | settled | (mature & ~turned)
        weight[turned] = 1.0
        self._positive, self._weight = positive, weight

    @property
    def first(self) -> Micros:
        """The time of the oldest event."""
        return int(self.rows.time.min())

    def between(self, start: Micros, stop: Micros) -> Cases:
        """The events with start ≤ time < stop whose outcome is known."""
        at = np.flatnonzero((self.rows.time >= start) & (self.rows.time < stop) & self.known)
        return Cases(at, self._positive[at], self._weight[at])

    def numbers(self, at: NDArray[np.int64]) -> NDArray[np.float64]:
        """The events' own numbers, (n, numbers), NaN where missing."""
        columns = [self.rows.fields[name][at].astype(np.float64) for name in self.recipe.numbers]
        out = np.stack(columns, axis=1) if columns else np.zeros((len(at), 0))
        out[out == MISSING_INT] = np.nan
        return out

    def matrix(self, at: NDArray[np.int64], progress: Progress | None = None) -> NDArray[np.float32]:
        """The rows, (n, features), of the events at `at` (n,), each as it was known just before it."""
        assembler = self.recipe.assembler
        parts = [np.zeros((0, len(assembler.names)), np.float32)]
        done = 0
        for block in np.array_split(at, max(1, len(at) // _BLOCK)):
            now, known = self._now[block], self.rows.offset[block]

            def read(
                view: View, keys: NDArray[np.uint32], owner: NDArray[np.int64], now: Array = now, known: Array = known
            ) -> Mapping[str, Array]:
                return self._batch.values(view, keys, now[owner], known[owner])

            keys = {name: self.rows.fields[name][block].astype(np.uint32) for name in self.recipe.keys}
            opened = assembler.open(read, keys, now)
            none = np.zeros(len(block), np.uint32)
            rows = assembler.matrix(read, opened, np.arange(len(block)), none, self.numbers(block)).rows
            parts.append(rows.astype(np.float32))
            done += len(block)
            if progress:
                progress(done, len(at))
        return np.concatenate(parts)


def by_arrival(rows: Mapping[str, Rows]) -> dict[str, Rows]:
    """The same events as if the log held them in the order in which they arrived.

    A log that was written live does. History from several files arrived when it happened, and not when the files were
    read one after the other.
    """
    held = {name: part for name, part in rows.items() if len(part)}
    if not held:
        return {}
    offset = np.concatenate([part.offset for part in held.values()])
    arrived = np.concatenate([part.arrived for part in held.values()])
    order = np.lexsort((offset, arrived))
    place = np.empty(len(order), np.int64)
    place[order] = offset[np.argsort(offset)]
    out, begin = {}, 0
    for name, part in held.items():
        mine = place[begin : begin + len(part)]
        begin += len(part)
        at = np.argsort(mine)
        out[name] = replace(part.take(at), offset=mine[at])
    return out


def _newest_known(rows: Rows, all_rows: Mapping[str, Rows]) -> NDArray[np.int64]:
    """The moment of a decision on each of `rows`, (n,): its own time, or that of the newest event known by then."""
    offset = np.concatenate([part.offset for part in all_rows.values()])
    time = np.concatenate([part.time for part in all_rows.values()])
    order = np.argsort(offset)
    newest = np.r_[0, np.maximum.accumulate(time[order])]
    return np.asarray(np.maximum(rows.time, newest[np.searchsorted(offset[order], rows.offset)]))


def _find(tie: Array, order: Array, wanted: Array) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The place of each wanted tie among all, and whether it is there."""
    at = np.minimum(np.searchsorted(tie, wanted, sorter=order), max(len(tie) - 1, 0))
    place = order[at]
    return place, tie[place] == wanted
