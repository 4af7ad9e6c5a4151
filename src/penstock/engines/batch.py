"""The columnar engine: point-in-time values for many (entity, time, offset) rows at once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from penstock.aggregates import Aggregate
from penstock.aggregates.runs import run_starts
from penstock.engines.stream import entities, key_codes
from penstock.features.plan import Inputs, Plan
from penstock.features.view import Group, View
from penstock.types import Array, Rows, Strings

_PAIRS = 1_000_000


class BatchEngine:
    """Values of views as they were known when each row's decision was made.

    The events of each entity are cut into runs of one tile. A row's window is a range of runs; from each
    the row takes what was known at its offset: running states for narrow aggregates, the events
    themselves for wide ones. Both are then merged and valued by the same kernels as in the stream engine.
    """

    def __init__(self, rows: Mapping[str, Rows], strings: Strings) -> None:
        self._rows = rows
        self._strings = strings
        self._views: dict[bytes, _Prepared | None] = {}

    def values(
        self,
        view: View,
        keys: NDArray[np.uint32],
        now: NDArray[np.int64],
        known: NDArray[np.int64] | None,
    ) -> dict[str, Array]:
        """Feature values of n rows.

        Args:
            view: whose features.
            keys: (n, len(by)) codes.
            now: (n,) microseconds; as in serving, never before the newest event that the row knows.
            known: (n,) offsets: only earlier events count. None asks *as happened*: every event with
                time ≤ now counts, whenever it arrived.

        Returns:
            By feature: float64 (n,), or uint32 codes (n, k).
        """
        states = self.states(view, keys, now, known)
        return {name: aggregate.served(states[name], now) for name, aggregate in view.features.items()}

    def states(
        self,
        view: View,
        keys: NDArray[np.uint32],
        now: NDArray[np.int64],
        known: NDArray[np.int64] | None,
    ) -> dict[str, Array]:
        """What `values` makes its values from, (n,) by feature: the states of parts of a log can be merged."""
        prepared = self._prepare(view)
        if prepared is None or not len(keys):
            return {name: a.empty(len(keys)) for name, a in view.features.items()}
        return prepared.states(keys, now, known)

    def _prepare(self, view: View) -> _Prepared | None:
        if view.version not in self._views:
            rows = self._rows.get(view.stream)
            self._views[view.version] = _Prepared(view, rows, self._strings) if rows is not None and len(rows) else None
        return self._views[view.version]


class _Prepared:
    """One view's events, keyed once."""

    def __init__(self, view: View, rows: Rows, strings: Strings) -> None:
        self.view = view
        inputs = Plan([view]).inputs(rows, strings)
        self.inputs = {name: inputs[view.version, name] for name in view.features}
        codes = key_codes(view, rows)
        useful = np.logical_or.reduce([part.counts for part in self.inputs.values()]) & (codes != 0).all(axis=1)
        index = np.flatnonzero(useful)
        self.rows = rows.take(index)
        self.inputs = {name: Inputs(part.counts[index], part.values[index]) for name, part in self.inputs.items()}
        self.keys, self.owner = entities(codes[index]) if len(index) else (codes[:0], np.zeros(0, np.int64))
        self._runs: dict[tuple[int | None, bool], _Runs] = {}

    def states(
        self, keys: NDArray[np.uint32], now: NDArray[np.int64], known: NDArray[np.int64] | None
    ) -> dict[str, Array]:
        owner = _find(self.keys, keys)
        # Events that count have an offset below the limit, or a time: as places among all, which are small numbers.
        order_by = self.rows.offset if known is not None else self.rows.time
        levels = np.unique(order_by)
        order_by = np.searchsorted(levels, order_by)
        limit = np.searchsorted(levels, known if known is not None else now + 1)
        found: dict[str, Array] = {}
        for group in self.view.groups:
            runs = self._group(group, order_by, known is not None)
            states = {name: a.empty(len(keys)) for name, a in group.features.items()}
            for chunk in runs.chunks(owner, now):
                row, event, first = runs.pairs(chunk, owner, now, limit)
                for name, aggregate in group.features.items():
                    _merge_into(states[name], aggregate, runs, name, row, event, first, self)
            found.update(states)
        return found

    def _group(self, group: Group, order_by: NDArray[np.int64], known: bool) -> _Runs:
        at = (group.window, known)
        if at not in self._runs:
            self._runs[at] = _Runs(group, self, order_by)
        return self._runs[at]


class _Runs:
    """Events sorted by (entity, tile, order), and where each (entity, tile) begins and ends."""

    def __init__(self, group: Group, prepared: _Prepared, order_by: NDArray[np.int64]) -> None:
        self.group = group
        tile = group.tile(prepared.rows.time)
        self._base = int(tile.min(initial=0)) - 1
        self._span = int(tile.max(initial=0)) - self._base + 2
        self.order = np.lexsort((order_by, tile, prepared.owner))
        owner, number = prepared.owner[self.order], tile[self.order]
        place = owner * self._span + (number - self._base)
        self.first = run_starts(place)
        self.end = np.append(self.first[1:], len(place))
        self._place = place[self.first]
        run = np.repeat(np.arange(len(self.first)), self.end - self.first)
        self._width = int(order_by.max(initial=0)) + 2
        self._rank = run * self._width + order_by[self.order]
        self._scans: dict[str, Array] = {}

    def span(self, owner: NDArray[np.int64], now: NDArray[np.int64]) -> tuple[Array, Array]:
        """The runs [from, to) that each row's window covers; unknown entities have none."""
        oldest = np.clip(self.group.oldest(now) - self._base, 0, self._span - 1)
        start = np.searchsorted(self._place, owner * self._span + oldest)
        stop = np.searchsorted(
            self._place, owner * self._span + np.clip(self.group.tile(now) - self._base + 1, 0, self._span)
        )
        return np.where(owner < 0, 0, start), np.where(owner < 0, 0, np.maximum(start, stop))

    def chunks(self, owner: NDArray[np.int64], now: NDArray[np.int64]) -> Iterator[slice]:
        """Slices of the rows that keep the work in hand bounded."""
        start, stop = self.span(owner, now)
        length = np.append(self.end, 0)[np.maximum(stop - 1, 0)] - np.append(self.first, 0)[start]
        wide = any(not a.scans for a in self.group.features.values())
        work = np.cumsum(np.where(stop > start, length if wide else stop - start, 0) + 1)
        at = 0
        while at < len(owner):
            done = work[at - 1] if at else 0
            to = max(at + 1, int(np.searchsorted(work, done + _PAIRS, side="right")))
            yield slice(at, to)
            at = to

    def pairs(
        self, chunk: slice, owner: NDArray[np.int64], now: NDArray[np.int64], limit: NDArray[np.int64]
    ) -> tuple[Array, Array, Array]:
        """(row, last known event of the run, first event of the run), runs with nothing known left out."""
        start, stop = self.span(owner[chunk], now[chunk])
        count = stop - start
        row = np.repeat(np.arange(chunk.start, chunk.stop), count)
        run = np.arange(len(row)) - np.repeat(np.cumsum(count) - count - start, count)
        rank = run * self._width + limit[row]
        event = np.searchsorted(self._rank, rank) - 1
        known = event >= self.first[run]
        return row[known], event[known], self.first[run][known]

    def scan(self, name: str, aggregate: Aggregate, inputs: Inputs, rows: Rows) -> Array:
        """Running states of every event, in this order."""
        if name not in self._scans:
            counts = inputs.counts[self.order]
            at = self.order[counts]
            states = aggregate.empty(len(self.order))
            states[counts] = aggregate.lift(inputs.values[at], rows.time[at], rows.tie[at])
            self._scans[name] = aggregate.scan(states, self.first)
        return self._scans[name]


def _merge_into(
    states: Array,
    aggregate: Aggregate,
    runs: _Runs,
    name: str,
    row: Array,
    event: Array,
    first: Array,
    prepared: _Prepared,
) -> None:
    inputs = prepared.inputs[name]
    if aggregate.scans:
        if len(row):
            starts = run_starts(row)
            states[row[starts]] = aggregate.reduce(runs.scan(name, aggregate, inputs, prepared.rows)[event], starts)
        return
    length = event + 1 - first
    position = np.arange(int(length.sum())) - np.repeat(np.cumsum(length) - length - first, length)
    at, owner = runs.order[position], np.repeat(row, length)
    counts = inputs.counts[at]
    at, owner = at[counts], owner[counts]
    if len(at):
        starts = run_starts(owner)
        states[owner[starts]] = aggregate.collect(
            inputs.values[at], prepared.rows.time[at], prepared.rows.tie[at], starts
        )


def _find(known: NDArray[np.uint32], keys: NDArray[np.uint32]) -> NDArray[np.int64]:
    """For each key its position among the sorted known ones, or -1."""
    both, position = entities(np.concatenate([known, keys.astype(np.uint32)]))
    where = np.full(len(both), -1, np.int64)
    where[position[: len(known)]] = np.arange(len(known))
    return where[position[len(known) :]]
