"""What a server counts and times of itself, for Prometheus to read."""

from __future__ import annotations

import os
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector

# The library decides so, too, when it is imported.
_SHARED = "PROMETHEUS_MULTIPROC_DIR" in os.environ
CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()
_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Metrics:
    """The metrics of one server, in a registry of their own.

    Several processes of one server keep theirs in files of one folder; each then gives those of all.
    """

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        if not _SHARED:
            ProcessCollector(registry=registry)
        events = Counter("penstock_events", "Events by what became of them", ["result"], registry=registry)
        self._events = {result: events.labels(result) for result in ("accepted", "duplicate", "rejected")}
        self._decisions = Counter(
            "penstock_decisions", "Decisions answered, by tier", ["decision", "tier"], registry=registry
        )
        self._decide = Histogram(
            "penstock_decide_seconds", "Time of decisions, by stage", ["stage"], registry=registry, buckets=_SECONDS
        )
        self.freshness = Histogram(
            "penstock_freshness_seconds", "From an event's acceptance until decisions see it", registry=registry,
            buckets=_SECONDS,
        )  # fmt: skip
        self._requests = Counter(
            "penstock_http_requests", "Requests answered, by path and status", ["path", "status"], registry=registry
        )
        self.in_flight = Gauge(
            "penstock_http_in_flight", "Requests being answered", registry=registry, multiprocess_mode="livesum"
        )

    def events(self, *, accepted: int, duplicates: int, rejected: int) -> None:
        """Counts the events of one request."""
        self._events["accepted"].inc(accepted)
        self._events["duplicate"].inc(duplicates)
        self._events["rejected"].inc(rejected)

    def decided(self, decision: str, tier: str) -> None:
        self._decisions.labels(decision, tier).inc()

    def stages(self, stages: Mapping[str, float]) -> None:
        """Takes down one decision's waterfall, in milliseconds."""
        for stage, ms in stages.items():
            self._decide.labels(stage).observe(ms / 1e3)

    def answered(self, path: str, status: int) -> None:
        """Counts one request; `path` is the route's template, never what a client made up."""
        self._requests.labels(path, str(status)).inc()

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        if not _SHARED:
            return generate_latest(self._registry)
        merged = CollectorRegistry()
        MultiProcessCollector(merged)  # type: ignore[no-untyped-call]
        return generate_latest(merged)
