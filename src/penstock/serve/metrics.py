"""What a server counts and times of itself, for Prometheus to read."""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.samples import Sample

from penstock.serve.batches import Batches

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names where prometheus_client keeps the metrics of several processes, for any to read as one."""
# The library decides so, too, when it is imported.
_SHARED = FOLDER in os.environ
CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()
_BYTES = (64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20)
_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class _Posted(NamedTuple):
    accepted: int
    duplicate: int
    rejected: int


class _Seen(NamedTuple):
    histogram: Histogram
    value: float


class _Answered(NamedTuple):
    path: str
    status: int
    received: int
    sent: int


class _Decided(NamedTuple):
    decision: str
    tier: str
    release: str
    cause: str | None
    cached: bool
    stages: Mapping[str, float]
    broken: tuple[str, ...]


_Note = _Posted | _Seen | _Answered | _Decided


class _Tally:
    """What many notes come to."""

    def __init__(self) -> None:
        self._counts: dict[Counter, float] = {}
        self._values: dict[Histogram, list[float]] = {}

    def count(self, counter: Counter, n: float) -> None:
        self._counts[counter] = self._counts.get(counter, 0.0) + n

    def see(self, histogram: Histogram, value: float) -> None:
        self._values.setdefault(histogram, []).append(value)

    def tell(self) -> None:
        """Adds all of it to the library's own."""
        for counter, n in self._counts.items():
            counter.inc(n)
        for histogram, values in self._values.items():
            # The library sees one value at a time: what `observe` does, for all that fell into a bucket at once.
            histogram._sum.inc(sum(values))
            places = [bisect_left(histogram._upper_bounds, value) for value in values]
            for place in set(places):
                histogram._buckets[place].inc(places.count(place))


class Metrics:
    """The metrics of one server, in a registry of their own.

    Several processes of one server keep theirs in files of one folder; each then gives those of all, the others' as
    they were a tenth of a second ago.

    Attributes:
        in_flight: requests being answered now.
        queue: requests that wait for the deciding thread.
        busy: seconds that the deciding thread has been at work.
        behind: events that the log holds and decisions do not see yet.
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        if not _SHARED:
            ProcessCollector(registry=registry)
        events = Counter("penstock_events", "Events by what became of them", ["result"], registry=registry)
        self._events = {result: events.labels(result) for result in ("accepted", "duplicate", "rejected")}
        self._invocations = Counter(
            "penstock_invocations", "Decisions answered, by tier and release", ["decision", "tier", "release"],
            registry=registry,
        )  # fmt: skip
        self._model = Histogram(
            "penstock_model_latency_seconds", "Time that decisions spent in the model", registry=registry,
            buckets=_SECONDS,
        )  # fmt: skip
        self._overhead = Histogram(
            "penstock_overhead_latency_seconds", "Time of decisions outside the model", registry=registry,
            buckets=_SECONDS,
        )  # fmt: skip
        self._busy = Counter(
            "penstock_worker_busy_seconds", "Time that the deciding thread was at work",
            registry=registry,
        )  # fmt: skip
        payload = Histogram(
            "penstock_payload_bytes", "Sizes of bodies", ["direction"], registry=registry, buckets=_BYTES
        )
        self._received, self._sent = payload.labels("request"), payload.labels("response")
        self._decide = Histogram(
            "penstock_decide_seconds", "Time of decisions, by stage", ["stage"], registry=registry, buckets=_SECONDS
        )
        self._freshness = Histogram(
            "penstock_freshness_seconds", "From an event's acceptance until decisions see it", registry=registry,
            buckets=_SECONDS,
        )  # fmt: skip
        self._requests = Counter(
            "penstock_http_requests", "Requests answered, by path and status", ["path", "status"], registry=registry
        )
        self._in_flight = Gauge(
            "penstock_http_in_flight", "Requests being answered", registry=registry, multiprocess_mode="livesum"
        )

        self._fallbacks = Counter(
            "penstock_fallbacks", "Decisions that a fallback answered, by cause", ["decision", "cause"],
            registry=registry,
        )  # fmt: skip
        self._cached = Counter("penstock_cached", "Decisions that were given before", ["decision"], registry=registry)
        self._broken = Counter(
            "penstock_rules_broken", "Answers that do not keep what a rule promises", ["decision", "rule"],
            registry=registry,
        )  # fmt: skip
        self._queue = Gauge(
            "penstock_decide_queue", "Requests that wait for the deciding thread", registry=registry,
            multiprocess_mode="livesum",
        )  # fmt: skip
        self._behind = Gauge(
            "penstock_store_behind_events", "Events that the log holds and decisions do not see yet",
            registry=registry, multiprocess_mode="livemostrecent",
        )  # fmt: skip
        workers = Gauge("penstock_workers", "Processes that answer", registry=registry, multiprocess_mode="livesum")
        workers.set(1)
        self.in_flight = 0
        self.queue = 0
        self.busy = 0.0
        self.behind = 0
        self._told_busy = 0.0
        self._lock = threading.Lock()
        self._notes: Batches[_Note] = Batches("metrics", self._take)

    def events(self, *, accepted: int, duplicates: int, rejected: int) -> None:
        """Counts the events of one request."""
        self._notes.put(_Posted(accepted, duplicates, rejected))

    def fresh(self, seconds: float) -> None:
        """Takes down how long it took until decisions saw what was posted."""
        self._notes.put(_Seen(self._freshness, seconds))

    def decided(
        self,
        decision: str,
        tier: str,
        release: str,
        stages: Mapping[str, float],
        cause: str | None = None,
        cached: bool = False,
        broken: tuple[str, ...] = (),
    ) -> None:
        """Takes down one decision.

        Args:
            release: "none" before the first one.
            stages: its waterfall, in milliseconds.
            cause: why a fallback answered.
            cached: whether it was given before.
            broken: the rules whose promise it does not keep.
        """
        self._notes.put(_Decided(decision, tier, release, cause, cached, stages, broken))

    def answered(self, path: str, status: int, received: int, sent: int) -> None:
        """Counts one request and the bytes of its bodies; `path` is the route's template, never a client's text."""
        self._notes.put(_Answered(path, status, received, sent))

    def close(self) -> None:
        """Takes down what is still on its way."""
        self._notes.close()

    def _take(self, notes: list[_Note]) -> None:
        """Adds up many notes before they are told to the library, which takes some microseconds for each."""
        tally = _Tally()
        for note in notes:
            match note:
                case _Posted():
                    for result, n in note._asdict().items():
                        tally.count(self._events[result], n)
                case _Seen(histogram, value):
                    tally.see(histogram, value)
                case _Answered(path, status, received, sent):
                    tally.count(self._requests.labels(path, str(status)), 1)
                    tally.see(self._received, received)
                    tally.see(self._sent, sent)
                case _Decided():
                    self._add_decision(tally, note)
        tally.tell()
        self._gauge()

    def _add_decision(self, tally: _Tally, note: _Decided) -> None:
        tally.count(self._invocations.labels(note.decision, note.tier, note.release), 1)
        if note.cause is not None:
            tally.count(self._fallbacks.labels(note.decision, note.cause), 1)
        if note.cached:
            tally.count(self._cached.labels(note.decision), 1)
        for rule in note.broken:
            tally.count(self._broken.labels(note.decision, rule), 1)
        stages = note.stages
        for stage, ms in stages.items():
            tally.see(self._decide.labels(stage), ms / 1e3)
        model, total = stages.get("score", 0.0), stages["total"]
        tally.see(self._model, model / 1e3)
        tally.see(self._overhead, (total - model) / 1e3)

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        self._settle()
        return generate_latest(self._whole())

    def samples(self) -> Sequence[Sample]:
        """The same as names, labels and values."""
        self._settle()
        return [sample for family in self._whole().collect() for sample in family.samples]

    def _settle(self) -> None:
        self._notes.flush()
        self._gauge()

    def _gauge(self) -> None:
        """Tells how things stand now."""
        self._in_flight.set(self.in_flight)
        self._queue.set(self.queue)
        self._behind.set(self.behind)
        with self._lock:
            more, self._told_busy = self.busy - self._told_busy, self.busy
        self._busy.inc(more)

    def _whole(self) -> CollectorRegistry:
        if not _SHARED:
            return self._registry
        merged = CollectorRegistry()
        MultiProcessCollector(merged)  # type: ignore[no-untyped-call]
        return merged
