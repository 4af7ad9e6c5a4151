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
from penstock.learn.sampling import stratified
from penstock.learn.verdict import VerdictRecipe
from penstock.types import MISSING_INT, Array, Micros, Progress, Rows, Strings

_BLOCK = 50_000
_ASKED = 0.9
"""Where at least this share of events since the first decision were decided on, the others were, too."""


@dataclass(frozen=True)
class Acted:
    """What was done with n events, and from what: columns (n,).

    Args:
        tie: of the events.
        declined: whether each was turned away.
        propensity: the chance of what was done.
        time: the moment of the decision, microseconds.
        offset: only events below it were known to the decision; -1 where it read none.
    """

    tie: NDArray[np.uint64]
    declined: NDArray[np.bool_]
    propensity: NDArray[np.float64]
    time: NDArray[np.int64]
    offset: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.tie)

    @classmethod
    def nothing(cls) -> Acted:
        """No decision yet."""
        none = np.zeros(0, np.int64)
        return cls(np.zeros(0, np.uint64), np.zeros(0, bool), np.zeros(0), none, none)

    def take(self, index: Array) -> Acted:
        return Acted(
            self.tie[index], self.declined[index], self.propensity[index], self.time[index], self.offset[index]
        )

    def once(self) -> Acted:
        """The first decision on each event, by tie: whoever asks again has had the answer that counts."""
        order = np.argsort(self.time, kind="stable")
        return self.take(order[np.unique(self.tie[order], return_index=True)[1]])


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

    def sampled(self, ids: NDArray[np.uint64], most: int) -> Cases:
        """At most so many of them, by hashes (n,): each then counts for others of its kind."""
        if len(self) <= most:
            return self
        places, times = stratified(self.positive, ids, most)
        return Cases(self.at[places], self.positive[places], self.weight[places] * times)


class Trials:
    """The log, opened for learning a verdict.

    Args:
        recipe: what is to be learned.
        rows: the log's events by stream.
        strings: of the log.
        acted: what was done with events that were decided on, and what those decisions knew.

    Raises:
        ReleaseError: there is no event to learn from.
    """

    def __init__(
        self, recipe: VerdictRecipe, rows: Mapping[str, Rows], strings: Strings, acted: Acted | None = None
    ) -> None:
        self.recipe = recipe
        self._strings = strings
        held = by_arrival(rows)
        found = held.get(recipe.schema.stream)
        if found is None or not len(found):
            raise ReleaseError(
                f"training {recipe.name} needs events of {recipe.schema.stream}", got="none",
                remedy="penstock ingest FILE first",
            )  # fmt: skip
        self.rows = found
        self.newest = max(int(part.time.max()) for part in held.values())
        self._batch = self._engine(held)
        self._now, self._known = _newest_known(self.rows, held), self.rows.offset.copy()
        order = np.argsort(found.tie)
        done = (acted or Acted.nothing()).once()
        at, there = _find(found.tie, order, done.tie)
        done, at = done.take(there), at[there]
        self._place(rows, done, at)
        self._label(held, order, done, at)

    def _engine(self, rows: Mapping[str, Rows]) -> BatchEngine:
        return BatchEngine({name: part for name, part in rows.items() if name in self.recipe.streams}, self._strings)

    def _place(self, rows: Mapping[str, Rows], done: Acted, at: NDArray[np.int64]) -> None:
        """Gives the events at `at` (n,), which were decided on, the moments and the knowledge of their decisions.

        Args:
            rows: as the log was written: what a decision knew need not be what had arrived first.
        """
        self._now[at] = np.maximum(self._now[at], done.time)
        knew = done.offset >= 0
        at, done = at[knew], done.take(knew)
        self._now[at], self._known[at] = done.time, done.offset
        self._as_logged = np.zeros(len(self.rows), bool)
        self._as_logged[at] = ~_same_below(rows, done.offset)
        self._served = self._engine(rows) if self._as_logged.any() else self._batch

    def _label(self, rows: Mapping[str, Rows], order: Array, done: Acted, at: NDArray[np.int64]) -> None:
        """Says of each event whether its outcome is known, which it is, and how much it counts.

        Args:
            rows: by stream.
            order: sorts the events by tie.
            done: what was done with the events at `at`, (n,).
        """
        tie = self.rows.tie
        positive, settled = np.zeros(len(tie), bool), np.zeros(len(tie), bool)
        for outcome in self.recipe.outcomes:
            part = rows.get(outcome.schema.stream)
            if part is None or not len(part):
                continue
            codes, which = np.unique(part.fields[outcome.of], return_inverse=True)
            about = ties(self.recipe.schema.stream, self._strings.texts(codes))[which]
            named, found = _find(tie, order, about)
            means = np.ones(len(part), bool)
            if outcome.where is not None:
                means = matches(outcome.where, part, outcome.schema, self._strings)
            positive[named[found & means]] = True
            settled[named[found & ~means]] = True
        mature = self.rows.time + self.recipe.within <= self.newest
        weight = np.ones(len(tie))
        weight[at] = 1 / done.propensity
        turned = np.zeros(len(tie), bool)
        turned[at[done.declined]] = True
        # Of what was turned away nothing can come: silence says nothing, and a share of it was let through to learn.
        self.known = (positive | settled | (mature & ~turned)) & ~self._unrecorded(at)
        weight[turned] = 1.0
        self._positive, self._weight = positive, weight

    def _unrecorded(self, decided: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Of which events nobody knows what was done: a crash lost the record of their decisions.

        An event without one may also never have been asked about, such as one that was sent along to be counted only.
        It is taken for lost where nearly all events since the first decision have theirs. Then it teaches nothing:
        were it good where no outcome names it, what was turned away would be; and bad ones alone would be too many.
        """
        lost = np.zeros(len(self.rows), bool)
        if len(decided):
            lost = self.rows.offset >= self.rows.offset[decided].min()
            asked = len(decided) >= _ASKED * lost.sum()
            lost[decided] = False
            lost &= asked
        return lost

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
        """The rows, (n, features), of the events at `at` (n,).

        One that was decided on has what its decision saw: what is below its offset, at its moment. Any other has what
        was known just before it arrived.
        """
        out = np.empty((len(at), len(self.recipe.assembler.names)), np.float32)
        done = 0
        for own in (False, True):
            places = np.flatnonzero(self._as_logged[at] == own)
            for block in np.array_split(places, max(1, len(places) // _BLOCK)):
                if len(block):
                    out[block] = self._block(self._served if own else self._batch, at[block])
                done += len(block)
                if progress:
                    progress(done, len(at))
        return out

    def _block(self, engine: BatchEngine, at: NDArray[np.int64]) -> NDArray[np.float64]:
        assembler, now, known = self.recipe.assembler, self._now[at], self._known[at]

        def read(view: View, keys: NDArray[np.uint32], owner: NDArray[np.int64]) -> Mapping[str, Array]:
            return engine.values(view, keys, now[owner], known[owner])

        keys = {name: self.rows.fields[name][at].astype(np.uint32) for name in self.recipe.keys}
        opened = assembler.open(read, keys, now)
        none = np.zeros(len(at), np.uint32)
        return assembler.matrix(read, opened, np.arange(len(at)), none, self.numbers(at)).rows


def by_arrival(rows: Mapping[str, Rows]) -> dict[str, Rows]:
    """The same events as if the log held them in the order in which they arrived.

    A log that was written live does. History from several files arrived when it happened, and not when the files were
    read one after the other.
    """
    held = {name: part for name, part in rows.items() if len(part)}
    if not held:
        return {}
    offset, arrived = _all(held, "offset"), _all(held, "arrived")
    order = np.argsort(offset)
    if (np.diff(arrived[order]) >= 0).all():
        return held
    place = np.empty(len(order), np.int64)
    place[np.lexsort((offset, arrived))] = offset[order]
    out, begin = {}, 0
    for name, part in held.items():
        mine = place[begin : begin + len(part)]
        begin += len(part)
        at = np.argsort(mine)
        out[name] = replace(part.take(at), offset=mine[at])
    return out


def _same_below(rows: Mapping[str, Rows], below: NDArray[np.int64]) -> NDArray[np.bool_]:
    """For offsets (n,) of the log, whether the events below each are those that arrived before all others."""
    offset = _all(rows, "offset")
    order = np.argsort(offset)
    arrived = _all(rows, "arrived")[order]
    latest = np.r_[np.iinfo(np.int64).min, np.maximum.accumulate(arrived)]
    earliest = np.r_[np.minimum.accumulate(arrived[::-1])[::-1], np.iinfo(np.int64).max]
    place = np.searchsorted(offset[order], below)
    return np.asarray(latest[place] <= earliest[place])


def _all(rows: Mapping[str, Rows], column: str) -> NDArray[np.int64]:
    """A column of all streams, one after the other."""
    return np.concatenate([np.zeros(0, np.int64), *(getattr(part, column) for part in rows.values())])


def _newest_known(rows: Rows, all_rows: Mapping[str, Rows]) -> NDArray[np.int64]:
    """The moment of a decision on each of `rows`, (n,): its own time, or that of the newest event known by then."""
    offset, time = _all(all_rows, "offset"), _all(all_rows, "time")
    order = np.argsort(offset)
    newest = np.r_[0, np.maximum.accumulate(time[order])]
    return np.asarray(np.maximum(rows.time, newest[np.searchsorted(offset[order], rows.offset)]))


def _find(tie: Array, order: Array, wanted: Array) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The place of each wanted tie among all, and whether it is there."""
    at = np.minimum(np.searchsorted(tie, wanted, sorter=order), max(len(tie) - 1, 0))
    place = order[at]
    return place, tie[place] == wanted
