"""Keeps what answers requests abreast of the log and of the pointer to the champions."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress

from penstock.clock import Clock
from penstock.errors import PenstockError, StoreError
from penstock.events import SqliteLog
from penstock.features import View
from penstock.releases import Bundle, Registry, Release, read
from penstock.retrieve import Popularity
from penstock.serve.decide import Decider
from penstock.serve.definition import live_sources
from penstock.serve.faults import FAULTS
from penstock.serve.verdicts import Judge
from penstock.types import Store

LOOK = 0.1
"""Seconds between looks."""
_CHUNK = 200_000
_log = logging.getLogger("penstock.serve")


class Follower:
    """Counts popular items as the log grows, and swaps releases once their views have caught up.

    All of it runs on a thread of its own, so that no request waits for it; `follow` does one round at once.

    Args:
        log: open for reading.
        store: says how far each view has come.
        registry: where the pointers are.
        deciders: by decision; releases are put into their charge.
        popularity: the counts that deciders read, by `popularity_key`; only ever grows.
        clock: hears of the newest event.
    """

    def __init__(
        self,
        log: SqliteLog,
        store: Store,
        registry: Registry,
        deciders: Mapping[str, Decider | Judge],
        popularity: dict[str, Popularity],
        clock: Clock,
    ) -> None:
        self._log = log
        self._store = store
        self._registry = registry
        self._deciders = deciders
        self._popularity = popularity
        self._clock = clock
        self._counted: dict[str, int] = {}
        self._stamp = (-1, -1)
        self._loading: dict[str, Bundle] = {}
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._ending = False
        self._seen = 0
        self.behind = 0
        self.follow()
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        self._thread.start()

    @property
    def loading(self) -> list[str]:
        """Releases that wait for their views, by decision's pointer."""
        waiting = list(self._loading.items())
        return sorted(release.id for name, release in waiting if self._deciders[name].release is not release)

    def follow(self) -> None:
        """Counts what is new in the log, and takes releases as the pointers say."""
        with self._lock:
            self._log.refresh()
            self._clock.saw(self._log.newest)
            # Of a store that is away, what it was last seen to hold.
            with suppress(StoreError), self._store.snapshot() as snapshot:
                self._seen = snapshot.offset
            self.behind = max(0, self._log.end - self._seen)
            if self._registry.stamp() != self._stamp:
                self._read_pointers()
            self._count()
            for name, decider in self._deciders.items():
                try:
                    decider.warm()
                except FAULTS:
                    # Whatever one decision cannot hear, releases are swapped all the same.
                    _log.exception("%s could not be told what is new", name)
            for release in list(self._loading.values()):
                if self._caught_up(release.recipe.views):
                    self._deciders[release.decision].take(release)
                    del self._loading[release.decision]

    def wake(self) -> None:
        """Looks soon, rather than at the next turn."""
        self._wake.set()

    def close(self) -> None:
        self._ending = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ending:
            self._wake.wait(LOOK)
            self._wake.clear()
            try:
                self.follow()
            except FAULTS:
                # Requests go on with what was there; the next look tries again.
                _log.exception("the log or the releases could not be followed")

    def _read_pointers(self) -> None:
        stamp = self._registry.stamp()
        wanted = self._registry.champions()
        # The pointer may have moved on while a release was waiting.
        self._loading = {d: release for d, release in self._loading.items() if wanted.get(d) == release.id}
        for decision, name in wanted.items():
            decider = self._deciders.get(decision)
            if decider is None or decision in self._loading:
                continue
            if decider.release is None or decider.release.id != name:
                release = self._load(name, decider)
                if release is not None:
                    self._loading[decision] = release
        self._stamp = stamp

    def _load(self, name: str, decider: Decider | Judge) -> Bundle | None:
        try:
            release = read(self._registry.folder, name)
        except (PenstockError, OSError, ValueError) as error:
            # The release before stays in charge; a damaged one must not stop the server, nor keep it from starting.
            _log.error("release %s is not taken: %s", name, error)
            return None
        if release.manifest["data"]["log"] != self._log.id:
            _log.error("release %s was trained on another log and is not taken", name)
            return None
        if type(release.recipe) is not type(decider.decision.recipe):
            _log.error("release %s was trained for another kind of decision and is not taken", name)
            return None
        return release

    def _count(self) -> None:
        lists = [d.decision for d in self._deciders.values() if isinstance(d, Decider)]
        wanted = live_sources(lists, [r for r in self._loading.values() if isinstance(r, Release)])
        fresh = {
            key: Popularity(source, recipe.views[0].schema, recipe.item)
            for key, (source, recipe) in wanted.items()
            if key not in self._popularity
        }
        for key, counts in fresh.items():
            self._counted[key] = 0
            self._popularity[key] = counts
        end = self._log.end
        while (start := min(self._counted.values(), default=end)) < end:
            # Those that are level with the slowest, up to where the next one stands.
            stop = min([start + _CHUNK, end, *(done for done in self._counted.values() if done > start)])
            rows = self._log.read(start, stop)
            for key in [key for key, done in self._counted.items() if done == start]:
                # Said first: what fails halfway may be missed, but never counts twice.
                self._counted[key] = stop
                counts = self._popularity[key]
                if counts.stream in rows:
                    counts.add(rows[counts.stream], self._log.strings)

    def _caught_up(self, views: Sequence[View]) -> bool:
        try:
            with self._store.snapshot() as snapshot:
                return all(snapshot.applied(view.version) >= snapshot.offset for view in views)
        except StoreError:
            return False
