"""The oracle: rescans events and applies each aggregate's plain definition. Slow, and obviously right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

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
        self._events: dict[bytes, dict[tuple[int, ...], list[tuple[int, int, int, dict[str, Any]]]]] = {}
        for view in views:
            by_key = self._events.setdefault(view.version, {})
            stream = rows.get(view.stream)
            if stream is None or not len(stream):
                continue
            inputs = Plan([view]).inputs(stream, strings)
            columns = {}
            for name in view.features:
                part = inputs[view.version, name]
                columns[name] = [
                    value if counts else None
                    for counts, value in zip(part.counts.tolist(), part.values.tolist(), strict=True)
                ]
            codes = [stream.fields[field].tolist() for field in view.by]
            keys: list[tuple[int, ...]] = list(zip(*codes, strict=True)) if codes else [()] * len(stream)
            fixed = zip(stream.offset.tolist(), stream.time.tolist(), stream.tie.tolist(), keys, strict=True)
            for i, (offset, time, tie, key) in enumerate(fixed):
                if 0 not in key:
                    by_key.setdefault(key, []).append(
                        (offset, time, tie, {name: column[i] for name, column in columns.items()})
                    )

    def value(self, view: View, key: tuple[int, ...], now: int, known: int | None) -> dict[str, Any]:
        """What the features of one entity are at `now`.

        Args:
            known: only events below this offset count (*as known*); None counts all (*as happened*).
        """
        events = self._events[view.version].get(key, [])
        values: dict[str, Any] = {}
        for name, aggregate in view.features.items():
            first = -(1 << 63)
            if aggregate.window is not None:
                window = duration(aggregate.window)
                hop = hop_of(window)
                first = (now - window) // hop * hop
            inside = [
                (columns[name], time, tie)
                for offset, time, tie, columns in events
                if first <= time <= now and (known is None or offset < known) and columns[name] is not None
            ]
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
