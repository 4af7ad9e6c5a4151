"""What rules read of the views, in this process's memory: for answers that cannot wait for the store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from penstock.engines import StreamEngine
from penstock.events import SqliteLog
from penstock.features.records import decode, fold
from penstock.features.view import View
from penstock.learn import VerdictRecipe
from penstock.serve.verdicts.rules import ActionRule
from penstock.types import Micros, Rows

BATCH = 50_000
"""Events of the log that one look takes in."""


class Watched:
    """The features that some rules read, kept up to date from the log, one look after the other.

    They are exact and as old as the last look; before the log has been read for the first time they lack what is yet to
    come. Of a window only the entities are kept that had an event in it, or in the one before.

    Args:
        recipe: the verdict's, whose views the rules read.
        rules: whose features are kept.
        log: open for reading.
    """

    def __init__(self, recipe: VerdictRecipe, rules: Sequence[ActionRule], log: SqliteLog) -> None:
        named = {name for rule in rules for name in rule.when.meta.root_names()}
        self._log = log
        self._views: dict[str, View] = {}
        for view in recipe.views:
            read = {
                name: aggregate
                for name, aggregate in view.features.items()
                if f"{view.name}.{name}" in named and not aggregate.is_list
            }
            if read:
                self._views[view.name] = replace(view, features=read)
        self._full = {view.name: view.version for view in recipe.views}
        self._records = _Records({view.version: _span(view) for view in self._views.values()})
        self._engine = StreamEngine(log, self._records, list(self._views.values()))
        self._done = 0
        self._nothing: dict[str, dict[str, float]] = {}

    @property
    def views(self) -> frozenset[str]:
        """The names of the views that are read."""
        return frozenset(self._views)

    def lacking(self, views: Iterable[View]) -> frozenset[str]:
        """The names of those views that the given ones do not hold as the app has them now."""
        held = {view.version for view in views}
        return frozenset(name for name in self._views if self._full[name] not in held)

    def follow(self) -> None:
        """Takes in what is new in the log, so many events at most."""
        first, end = self._done, min(self._done + BATCH, self._log.end)
        if not self._views or first >= end:
            return
        rows = {
            stream: self._useful(part) for stream, part in self._log.read(first, end).items() if self._reads(stream)
        }
        self._engine.apply(rows, first, end)
        self._done = end
        for view in self._views.values():
            for name in view.by if view.stream in rows else ():
                # Whoever asks has texts, and must not wait for a dictionary.
                self._log.strings.texts(np.unique(rows[view.stream].fields[name]))

    def _reads(self, stream: str) -> bool:
        return any(view.stream == stream for view in self._views.values())

    def _useful(self, rows: Rows) -> Rows:
        """Without what every window has left behind."""
        spans = [_span(view) for view in self._views.values() if view.stream == rows.stream]
        if None in spans:
            return rows
        live = rows.time >= self._log.newest - max(span or 0 for span in spans)
        return rows if live.all() else rows.take(live)

    def values(self, event: Mapping[str, Any], now: Micros, views: Iterable[str] | None = None) -> dict[str, float]:
        """Features by "View.feature", NaN where there is none, of the entities that an event names.

        Args:
            event: its fields.
            now: the moment.
            views: names of those to read; all, where absent.
        """
        out: dict[str, float] = {}
        code = self._log.strings.cached.code
        for name in self._views if views is None else views:
            view = self._views[name]
            key = b"".join(code(event[part] or "").to_bytes(4, "big") for part in view.by)
            record = self._records.find(view.version, key)
            known = self._nothing.get(name) if record is None else None
            if known is None:
                columns = fold(view, decode(view, [record]), np.array([now]))
                known = {f"{name}.{feature}": float(column[0]) for feature, column in columns.items()}
                if record is None and all(aggregate.timeless for aggregate in view.features.values()):
                    self._nothing[name] = known
            out |= known
        return out


def _span(view: View) -> Micros | None:
    """How far back a view's windows look; None where one has no end."""
    spans = [group.window + (group.hop or 0) for group in view.groups if group.window is not None]
    return max(spans) if len(spans) == len(view.groups) else None


class _Records:
    """A store in memory that lets go of what was not written for long; it is read while it is written."""

    commit = 0

    def __init__(self, spans: Mapping[bytes, Micros | None]) -> None:
        self._spans = spans
        # What was written lately, and what was written before that and not since.
        self._held: dict[bytes, tuple[dict[bytes, bytes], dict[bytes, bytes]]] = {}
        self._turned: dict[bytes, Micros] = {}
        self._applied: dict[bytes, int] = {}
        self.offset = 0
        self.newest = 0

    def find(self, view: bytes, key: bytes) -> bytes | None:
        new, old = self._held.get(view, ({}, {}))
        found = new.get(key)
        return old.get(key) if found is None else found

    @contextmanager
    def snapshot(self) -> Iterator[_Records]:
        yield self

    def get(self, view: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.find(view, key) for key in keys]

    def applied(self, view: bytes) -> int:
        return self._applied.get(view, 0)

    def changed(self, since: int) -> None:
        """Nobody asks: nothing is kept of what was read."""

    def write(
        self, records: Iterable[tuple[bytes, bytes, bytes]], applied: Mapping[bytes, int], offset: int, newest: Micros
    ) -> None:
        for view, key, record in records:
            self._held.setdefault(view, ({}, {}))[0][key] = record
        self._applied.update(applied)
        self.offset, self.newest = offset, newest
        for view, (new, _) in list(self._held.items()):
            span = self._spans.get(view)
            if span is not None and newest - self._turned.setdefault(view, newest) >= span:
                self._held[view], self._turned[view] = ({}, new), newest

    def scan(self, view: bytes) -> Iterator[tuple[bytes, bytes]]:
        new, old = self._held.get(view, ({}, {}))
        yield from sorted({**old, **new}.items())

    def views(self) -> dict[bytes, int]:
        return dict(self._applied)

    def sizes(self) -> dict[bytes, tuple[int, int]]:
        return {}

    def drop(self, view: bytes) -> None:
        self._held.pop(view, None)
        self._applied.pop(view, None)

    def close(self) -> None:
        """Nothing to release."""
