"""What a server counts and times of itself, for Prometheus to read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.samples import Sample

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names where prometheus_client keeps the metrics of several processes, for any to read as one."""
# The library decides so, too, when it is imported.
_SHARED = FOLDER in os.environ
CONTENT_TYPE = CONTENT_TYPE_LATEST.encode()
_BYTES = (64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20)
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
            "penstock_worker_busy_seconds", "Time spent on decisions, but for waiting",
            registry=registry,
        )  # fmt: skip
        payload = Histogram(
            "penstock_payload_bytes", "Sizes of bodies", ["direction"], registry=registry, buckets=_BYTES
        )
        self._received, self._sent = payload.labels("request"), payload.labels("response")
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

        self._fallbacks = Counter(
            "penstock_fallbacks", "Decisions that a fallback answered, by cause", ["decision", "cause"],
            registry=registry,
        )  # fmt: skip
        self.queue = Gauge(
            "penstock_decide_queue", "Requests that wait for the deciding thread", registry=registry,
            multiprocess_mode="livesum",
        )  # fmt: skip
        workers = Gauge("penstock_workers", "Processes that answer", registry=registry, multiprocess_mode="livesum")
        workers.set(1)

    def events(self, *, accepted: int, duplicates: int, rejected: int) -> None:
        """Counts the events of one request."""
        self._events["accepted"].inc(accepted)
        self._events["duplicate"].inc(duplicates)
        self._events["rejected"].inc(rejected)

    def decided(self, decision: str, tier: str, release: str, cause: str | None = None) -> None:
        """Counts one decision; `release` is "none" before the first one, `cause` why a fallback answered."""
        self._invocations.labels(decision, tier, release).inc()
        if cause is not None:
            self._fallbacks.labels(decision, cause).inc()

    def stages(self, stages: Mapping[str, float]) -> None:
        """Takes down one decision's waterfall, in milliseconds."""
        for stage, ms in stages.items():
            self._decide.labels(stage).observe(ms / 1e3)
        model, total = stages.get("score", 0.0), stages["total"]
        self._model.observe(model / 1e3)
        self._overhead.observe((total - model) / 1e3)
        self._busy.inc(max(0.0, total - stages.get("queue", 0.0) - stages.get("log", 0.0)) / 1e3)

    def answered(self, path: str, status: int, received: int, sent: int) -> None:
        """Counts one request and the bytes of its bodies; `path` is the route's template, never a client's text."""
        self._requests.labels(path, str(status)).inc()
        self._received.observe(received)
        self._sent.observe(sent)

    def text(self) -> bytes:
        """All of it in Prometheus's text format."""
        return generate_latest(self._whole())

    def samples(self) -> Sequence[Sample]:
        """The same as names, labels and values."""
        return [sample for family in self._whole().collect() for sample in family.samples]

    def _whole(self) -> CollectorRegistry:
        if not _SHARED:
            return self._registry
        merged = CollectorRegistry()
        MultiProcessCollector(merged)  # type: ignore[no-untyped-call]
        return merged
