"""The oracle: rescans events and applies each aggregate's plain definition. Slow, and obviously right."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from penstock.aggregates.base import Event
from penstock.clock import duration
from penstock.features.plan import Plan
from penstock.features.view import View, hop_of
from penstock.types import Rows, Strings


class NaiveEngine:
    """Values of views from all the events given, one entity at a time, sharing no kernel with the engines.

    Args:
        rows: the log's events by stream.
        views: what to compute.
        strings: the log's dictionary, for filters on text.
    """

    def __init__(self, rows: Mapping[str, Rows], views: Sequence[View], strings: Strings) -> None:
        self._past: dict[tuple[bytes, str], dict[tuple[int, ...], _Past]] = {}
        for view in views:
            stream = rows.get(view.stream)
            for name in view.features:
                self._past[view.version, name] = {}
            if stream is None or not len(stream):
                continue
            inputs = Plan([view]).inputs(stream, strings)
            codes = [stream.fields[field].tolist() for field in view.by]
            keys: list[tuple[int, ...]] = list(zip(*codes, strict=True)) if codes else [()] * len(stream)
            columns = [column.tolist() for column in (stream.offset, stream.arrived, stream.time, stream.tie)]
            for name in view.features:
                part = inputs[view.version, name]
                by_key = self._past[view.version, name]
                every = zip(keys, part.counts.tolist(), part.values.tolist(), *columns, strict=True)
                for key, counts, value, offset, arrived, time, tie in every:
                    if counts and 0 not in key:
                        by_key.setdefault(key, _Past()).add(offset, arrived, (value, time, tie))

    def value(self, view: View, key: tuple[int, ...], now: int, known: int | None) -> dict[str, Any]:
        """What the features of one entity are at `now`.

        Args:
            known: only events below this offset count (*as known*); None counts all (*as happened*).
        """
        values: dict[str, Any] = {}
        for name, aggregate in view.features.items():
            past = self._past[view.version, name].get(key)
            inside = past.inside(_first(aggregate.window, now), now, known) if past else []
            values[name] = aggregate.plain_served(inside, now)
        return values

    def table(self, view: View, keys: np.ndarray, now: int, known: int) -> dict[str, np.ndarray]:
        """`value` for many keys (n, len(by)) at one moment, in the form the other engines give."""
        rows = [self.value(view, tuple(key), now, known) for key in keys.tolist()]
        out: dict[str, np.ndarray] = {}
        for name, aggregate in view.features.items():
            column = [row[name] for row in rows]
            width = len(aggregate.plain([], now)) if aggregate.is_list else 0
            out[name] = (
                np.array(column, np.uint32).reshape(len(rows), width) if aggregate.is_list else np.array(column, float)
            )
        return out


def _first(window: str | None, now: int) -> int | None:
    """The earliest time that a window ending at `now` covers."""
    if window is None:
        return None
    width = duration(window)
    hop = hop_of(width)
    return (now - width) // hop * hop


class _Past:
    """The events of one entity that one aggregate counts, in offset order."""

    def __init__(self) -> None:
        self._offsets: list[int] = []
        self._arrived: list[int] = []
        self._latest: list[int] = []
        self._events: list[Event] = []

    def add(self, offset: int, arrived: int, event: Event) -> None:
        self._offsets.append(offset)
        self._arrived.append(max(arrived, self._arrived[-1] if self._arrived else arrived))
        self._latest.append(max(event[1], self._latest[-1] if self._latest else event[1]))
        self._events.append(event)

    def inside(self, first: int | None, now: int, known: int | None) -> list[Event]:
        """Those with first ≤ time ≤ now and offset < known."""
        stop = len(self._events) if known is None else bisect_left(self._offsets, known)
        # Nothing happens after it arrives: while all that arrived did so before the window, none lies in it.
        start = 0 if first is None else bisect_left(self._arrived, first)
        part = self._events[start:stop]
        if first is None and (not stop or self._latest[stop - 1] <= now):
            return part
        return [event for event in part if (first is None or first <= event[1]) and event[1] <= now]
