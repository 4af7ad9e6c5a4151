"""A running system: log, writer, store, releases and deciders of one app in one home folder."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from penstock.clock import Clock
from penstock.engines import StreamEngine
from penstock.errors import NotFoundError, PenstockError, ReleaseError, RequestError
from penstock.events import Intake, Parsed, SqliteLog
from penstock.features import View
from penstock.releases import Registry, Release, read
from penstock.retrieve import Popularity
from penstock.serve.decide import Decider, Decision, live_sources, reader
from penstock.serve.decisions import DecisionLog
from penstock.serve.lock import HomeLock
from penstock.serve.requests import Answer, DecideRequest
from penstock.serve.writer import BACKFILL, MOST, Writer
from penstock.types import Accepted, Progress, Rows, Schema, Store

_LOOK = 0.1
"""Seconds between looks at the champion's pointer; a look costs a tenth of a millisecond on a slow disk."""
_log = logging.getLogger("penstock.serve")


class Runtime:
    """Everything of one app that runs, over one home folder. Close it, or use it in a with block.

    Args:
        home: the folder that holds everything durable.
        lock: held on the home folder.
        log: the open event log.
        store: the open feature store.
        intake: checks events from outside.
        views: the app's views; those of releases in charge are kept up to date beside them.
        decisions: the app's decisions.
        clock: says now.
        progress: told while the store catches up with the log.
    """

    def __init__(
        self,
        home: Path,
        *,
        lock: HomeLock,
        log: SqliteLog,
        store: Store,
        intake: Intake,
        views: Sequence[View],
        decisions: Sequence[Decision],
        clock: Clock,
        progress: Progress | None = None,
    ) -> None:
        self.home = home
        self._lock = lock
        self.log = log
        self.store = store
        self.intake = intake
        self.registry = Registry(home / "releases")
        self.decisions = DecisionLog(home / "decisions.sqlite")
        self._views = {view.name: view for view in views}
        self._stamp = (-1, -1)
        self._looked = 0.0
        self._loading: set[str] = set()
        clock.saw(log.newest)
        self._clock = clock
        self._popularity: dict[str, Popularity] = {}
        self._deciders = {
            d.name: Decider(d, store, log.strings, clock, self._popularity, self.decisions.add) for d in decisions
        }
        releases = self._read_champions()
        self._engine = StreamEngine(log, store, [*views, *(v for r in releases.values() for v in r.recipe.views)])
        self._forget_views()
        self._engine.catch_up(progress)
        self._count_popular(list(releases.values()))
        for release in releases.values():
            self._take_charge(release)
        self._writer = Writer(log, self._engine, clock, self._saw)

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Commits what was taken, then closes everything."""
        self._writer.close()
        self.decisions.close()
        self.store.close()
        self.log.close()
        self._lock.close()

    # Events

    def parse(self, body: bytes) -> Parsed:
        """Checks a body of events: an object, an array or NDJSON."""
        return self.intake.parse(body)

    def submit(self, parsed: Parsed, source: str) -> Future[list[bool]]:
        """Appends what was accepted and keeps what was rejected as dead letters."""
        if parsed.rejected:
            rejected = list(parsed.rejected)
            self._writer.call(lambda: self.log.reject(rejected, source))
        return self._writer.submit(parsed.accepted)

    def append(self, events: Sequence[Accepted]) -> list[bool]:
        """Appends checked events and waits until they are durable and visible."""
        return self._writer.submit(events).result()

    def _saw(self, rows: Mapping[str, Rows]) -> None:
        for counts in list(self._popularity.values()):
            if counts.stream in rows:
                counts.add(rows[counts.stream], self.log.strings)

    # Decisions and features

    def decide(self, name: str, request: DecideRequest, spent_ms: float = 0.0) -> Answer:
        """Answers one request of a decision, `spent_ms` of whose budget are gone already."""
        if time.monotonic() - self._looked > _LOOK:
            self.refresh()
        return self._decider(name).decide(request, spent_ms)

    def features(self, view: str, key: str) -> dict[str, Any]:
        """The present values of one entity: `key` is its id, or several joined by commas, URL-encoded."""
        if view not in self._views:
            raise NotFoundError("a view is named", got=repr(view), remedy="use one of " + ", ".join(self._views))
        found = self._views[view]
        parts = [unquote(part) for part in key.split(",")] if found.by else []
        if len(parts) != len(found.by):
            raise RequestError(
                f"view {view} is keyed by {', '.join(found.by)}", got=repr(key), remedy="join the ids by commas"
            )
        codes = [self.log.strings.code(part) for part in parts]
        with self.store.snapshot() as snapshot:
            now = max(self._clock.now(), snapshot.newest)
            columns = reader(snapshot, now)(
                found, np.array([codes], np.uint32).reshape(1, len(codes)), np.zeros(1, int)
            )
            offset = snapshot.offset
        values: dict[str, Any] = {}
        for name, column in columns.items():
            if column.ndim == 2:
                values[name] = self.log.strings.texts(column[0][column[0] != 0])
            else:
                values[name] = None if np.isnan(column[0]) else float(column[0])
        return {"view": view, "version": found.version.hex(), "key": key, "offset": offset, "features": values}

    # Releases

    def releases(self) -> list[dict[str, Any]]:
        """Every release with its decision and whether it is in charge."""
        champions = set(self.registry.champions().values())
        out = []
        for name in self.registry.ids():
            manifest = self.registry.manifest(name)
            out.append(
                {
                    "id": name,
                    "decision": manifest["decision"],
                    "model": manifest["model"]["model"],
                    "champion": name in champions,
                    "until": manifest["data"]["until"],
                }
            )
        return out

    def promote(self, release: str) -> dict[str, Any]:
        """Moves the pointer; the release takes traffic once its views have caught up."""
        moved = self.registry.promote(release)
        self.refresh()
        return moved

    def rollback(self, release: str) -> dict[str, Any]:
        """Takes `release` out of charge, back to the champion before it."""
        if release not in self.registry.ids():
            raise NotFoundError("a release is named by its id", got=repr(release), remedy="GET /v1/releases lists them")
        decision = self.registry.decision(release)
        if self.registry.champion(decision) != release:
            raise ReleaseError(
                "a release that is champion is rolled back", got=release, remedy="ask again with the champion's id"
            )
        moved = self.registry.rollback(decision)
        self.refresh()
        return moved

    def dial(self, release: str, share: float) -> dict[str, Any]:
        """Shares of traffic need a rollout, which this version does not have."""
        raise RequestError(
            "a release serves all of the traffic or none", got=f"a share of {share}", remedy="promote it, or leave it"
        )

    def refresh(self, *, wait: bool = False) -> None:
        """Notices that the pointer moved, here or in another process; the writer's thread then loads and swaps.

        Args:
            wait: return only when every new champion has taken charge.
        """
        self._looked = time.monotonic()
        if self.registry.stamp() != self._stamp:
            self._writer.call(self._load_new)
        if wait:
            idle = threading.Event()
            self._writer.call(lambda: self._when_loaded(idle.set))
            idle.wait()

    def _load_new(self) -> None:
        for release in self._read_champions().values():
            self._prepare(release)

    def _when_loaded(self, done: Callable[[], None]) -> None:
        if self._loading:
            self._writer.call(lambda: self._when_loaded(done))
        else:
            done()

    def _read_champions(self) -> dict[str, Release]:
        self._stamp = self.registry.stamp()
        out: dict[str, Release] = {}
        for decision, name in self.registry.champions().items():
            held = self._deciders.get(decision)
            if held is None or (held.release is not None and held.release.id == name) or name in self._loading:
                continue
            try:
                release = read(self.registry.folder, name)
            except PenstockError as error:
                # The release before stays in charge; a damaged one must not stop the server.
                _log.error("release %s is not taken: %s", name, error)
                continue
            if release.manifest["data"]["log"] != self.log.id:
                _log.error("release %s was trained on another log and is not taken", name)
                continue
            out[decision] = release
        return out

    def _prepare(self, release: Release) -> None:
        """Back-fills what the release needs beside what serves now, and swaps when it has caught up."""
        self._loading.add(release.id)
        try:
            self._engine.add(release.recipe.views)
            self._count_popular([release])
        except BaseException:
            self._loading.discard(release.id)
            raise
        self._swap(release)

    def _swap(self, release: Release) -> None:
        try:
            # The pointer may have moved on while it was loading.
            wanted = self.registry.champion(release.decision) == release.id
            if wanted and self._engine.behind(release.recipe.views):
                self._engine.step(BACKFILL)
                self._writer.call(lambda: self._swap(release))
                return
            if wanted:
                self._take_charge(release)
        except BaseException:
            self._loading.discard(release.id)
            raise
        self._loading.discard(release.id)

    def _take_charge(self, release: Release) -> None:
        self._deciders[release.decision].take(release)

    def _count_popular(self, releases: Sequence[Release]) -> None:
        wanted = live_sources([d.decision for d in self._deciders.values()], releases)
        fresh = {
            key: Popularity(source, recipe.views[0].schema, recipe.item)
            for key, (source, recipe) in wanted.items()
            if key not in self._popularity
        }
        for start in range(0, self.log.end, 200_000) if fresh else ():
            for stream, rows in self.log.read(start, min(start + 200_000, self.log.end)).items():
                for counts in fresh.values():
                    if counts.stream == stream:
                        counts.add(rows, self.log.strings)
        # A new dictionary's items are read by requests meanwhile: this one only grows.
        for key, counts in fresh.items():
            self._popularity[key] = counts

    def _forget_views(self) -> None:
        keep = self.registry.kept_views() | {view.version for view in self._views.values()}
        self._engine.keep_only(keep)

    # What the server asks

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether decisions come from releases that have caught up; and what is waited for."""
        behind = self._engine.behind()
        waiting = [name for name, d in self._deciders.items() if d.release is None]
        # A batch is between log and store at any moment under load; a backlog is more than one.
        ok = not self._loading and behind <= MOST
        return ok, {"behind": behind, "loading": sorted(self._loading), "without_release": waiting}

    def describe(self) -> dict[str, Any]:
        """Streams, decisions and views, for the OpenAPI document."""
        return {
            "streams": {schema.stream: _fields(schema) for schema in self.intake.schemas.values()},
            "decisions": {name: {"by": d.decision.recipe.by} for name, d in self._deciders.items()},
            "views": {
                name: {"by": list(view.by), "features": list(view.features)} for name, view in self._views.items()
            },
        }

    def _decider(self, name: str) -> Decider:
        if name not in self._deciders:
            raise NotFoundError(
                "a decision is named", got=repr(name), remedy="use one of " + ", ".join(self._deciders) or "define one"
            )
        return self._deciders[name]


def _fields(schema: Schema) -> list[dict[str, Any]]:
    return [{"name": f.name, "kind": f.kind, "optional": f.optional} for f in schema.fields]
