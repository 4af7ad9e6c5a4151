"""The columnar engine: point-in-time values for many (entity, time, offset) rows at once."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from penstock.aggregates import Aggregate
from penstock.aggregates.runs import run_starts
from penstock.engines.stream import entities, key_codes
from penstock.engines.windows import Runs, Windows, sorted_by
from penstock.features.plan import Inputs, Plan
from penstock.features.view import Group, View
from penstock.types import Array, Rows, Strings

_KEPT = 2_000_000  # events for which windows' runs, some 50 bytes an event each, are kept from one call to the next


class BatchEngine:
    """Values of views as they were known when each row's decision was made.

    The events of each entity are cut into runs of one tile. A row's window is a range of whole runs and what it
    knows of those that were not over at its offset; both are merged and valued by the same kernels as in the
    stream engine.
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
        prepared = self._prepare(view)
        if prepared is None or not len(keys):
            return {name: a.served(a.empty(len(keys)), now) for name, a in view.features.items()}
        one = {name: a.served(a.empty(1), now[:1]) for name, a in view.features.items()}
        found = {name: np.empty((len(keys), *value.shape[1:]), value.dtype) for name, value in one.items()}
        # Values are narrower than the states of all rows.
        for name, at, states in prepared.states(keys, now, known):
            found[name][at] = view.features[name].served(states, now[at])
        return found

    def states(
        self,
        view: View,
        keys: NDArray[np.uint32],
        now: NDArray[np.int64],
        known: NDArray[np.int64] | None,
    ) -> dict[str, Array]:
        """What `values` makes its values from, (n,) by feature: the states of parts of a log can be merged."""
        prepared = self._prepare(view)
        found = {name: a.empty(len(keys)) for name, a in view.features.items()}
        if prepared is not None and len(keys):
            for name, at, states in prepared.states(keys, now, known):
                found[name][at] = states
        return found

    def _prepare(self, view: View) -> _Prepared | None:
        if view.version not in self._views:
            rows = self._rows.get(view.stream)
            prepared = _Prepared(view, rows, self._strings) if rows is not None and len(rows) else None
            self._views[view.version] = prepared if prepared is not None and len(prepared.time) else None
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
        self.keys, owner = entities(codes[index]) if len(index) else (codes[:0], np.zeros(0, np.int64))
        # The events of one entity one after the other, in the order in which they came.
        order = sorted_by(owner)
        index = index[order]
        self.owner, self._came, self._index = owner[order], order, index
        self.time, self.tie = rows.time[index], rows.tie[index]
        self._offsets = rows.offset[useful]
        self._place = (index + 1).astype(np.uint32)
        self._runs: dict[tuple[int | None, bool], Runs] = {}
        self._taken: dict[int, Array] = {}

    def states(
        self, keys: NDArray[np.uint32], now: NDArray[np.int64], known: NDArray[np.int64] | None
    ) -> Iterator[tuple[str, NDArray[np.int64], Array]]:
        """States (m,) of a feature for the rows (m,), some at a time."""
        owner = _find(self.keys, keys)
        # Events that count have an offset below the limit, or a time: as places among all, which are small numbers.
        limit = _places(self._offsets, known) if known is not None else _places(self._times, now + 1)
        # Neighbouring rows of one entity have most of their windows in common.
        rows = np.lexsort((limit, now, owner))
        for group in self.view.groups:
            runs = self._cut(group, known is not None)
            for windows in runs.windows(owner[rows], now[rows], limit[rows]):
                chosen: dict[Hashable, Array] = {}
                for name, aggregate in group.features.items():
                    yield name, rows[windows.rows], self._states(windows, name, aggregate, chosen)

    def _states(self, windows: Windows, name: str, aggregate: Aggregate, chosen: dict[Hashable, Array]) -> Array:
        read = self.inputs[name]
        if aggregate.choice is None:
            return windows.states(aggregate, Inputs(self._sorted(read.counts), self._sorted(read.values)))
        # Which events are kept is found once for all features, and values are read of these alone.
        key = aggregate.choice, id(read.counts)
        if key not in chosen:
            chosen[key] = windows.states(aggregate, Inputs(self._sorted(read.counts), self._place))
        return aggregate.filled(chosen[key], read.values)

    def _sorted(self, column: Array) -> Array:
        """The column in the events' order here; features share columns and filters."""
        if id(column) not in self._taken:
            self._taken[id(column)] = column[self._index]
        return self._taken[id(column)]

    @cached_property
    def _times(self) -> NDArray[np.int64]:
        ordered = np.sort(self.time)
        return ordered[run_starts(ordered)]

    def _cut(self, group: Group, known: bool) -> Runs:
        if (runs := self._runs.get((group.window, known))) is None:
            place = self._came if known else np.searchsorted(self._times, self.time)
            runs = Runs(group, self.time, self.tie, self.owner, place)
            if len(self.time) <= _KEPT:
                self._runs[group.window, known] = runs
        return runs


def _places(levels: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many of the ascending, different levels are below each value."""
    if len(levels) and levels[-1] - levels[0] == len(levels) - 1:  # without gaps, as offsets mostly are
        return np.asarray(np.clip(values - levels[0], 0, len(levels)))
    return np.searchsorted(levels, values)


def _find(known: NDArray[np.uint32], keys: NDArray[np.uint32]) -> NDArray[np.int64]:
    """For each key its position among the sorted known ones, or -1."""
    both, position = entities(np.concatenate([known, keys.astype(np.uint32)]))
    where = np.full(len(both), -1, np.int64)
    where[position[: len(known)]] = np.arange(len(known))
    return where[position[len(known) :]]
