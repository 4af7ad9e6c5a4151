"""What the console's charts are drawn from: the server's counters as they stand. Rates are the browser's work."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from prometheus_client.samples import Sample


def figures(samples: Iterable[Sample]) -> dict[str, Any]:
    """Everything counted since the server started, over all of its processes.

    Returns:
        decisions, their number by tier and by release; events by what became of them; requests, and of these
        refused (4xx) and failed (5xx); in_flight; stages and freshness as histograms: `sum` in seconds, `counts`
        of what took at most as long as each of `bounds`, and at last of all.
    """
    tiers: dict[str, float] = defaultdict(float)
    releases: dict[str, float] = defaultdict(float)
    events: dict[str, float] = defaultdict(float)
    codes = {"requests": 0.0, "refused": 0.0, "failed": 0.0}
    stages: dict[str, dict[str, Any]] = {}
    freshness = _empty()
    in_flight = 0.0
    for sample in samples:
        name, labels, value = sample.name, sample.labels, sample.value
        if name == "penstock_invocations_total":
            tiers[labels["tier"]] += value
            releases[labels["release"]] += value
        elif name == "penstock_events_total":
            events[labels["result"]] += value
        elif name == "penstock_http_requests_total" and not _own(labels["path"]):
            codes["requests"] += value
            kind = {"4": "refused", "5": "failed"}.get(labels["status"][0])
            if kind is not None:
                codes[kind] += value
        elif name.startswith("penstock_decide_seconds"):
            _add(stages.setdefault(labels["stage"], _empty()), sample)
        elif name.startswith("penstock_freshness_seconds"):
            _add(freshness, sample)
        elif name == "penstock_http_in_flight":
            in_flight = value
    bounds = freshness["bounds"]
    for histogram in (*stages.values(), freshness):
        _finish(histogram)
    return {
        "decisions": sum(tiers.values()), "tiers": tiers, "releases": releases, "events": events, **codes,
        "in_flight": in_flight, "bounds": [float(bound) for bound in sorted(bounds, key=float)[:-1]],
        "stages": stages, "freshness": freshness,
    }  # fmt: skip


def _own(path: str) -> bool:
    """Whether this is an address of the console itself."""
    return path == "/" or path.startswith("/console/")


def _empty() -> dict[str, Any]:
    return {"sum": 0.0, "bounds": {}}


def _add(histogram: dict[str, Any], sample: Sample) -> None:
    if sample.name.endswith("_sum"):
        histogram["sum"] = sample.value
    elif sample.name.endswith("_bucket"):
        histogram["bounds"][sample.labels["le"]] = sample.value


def _finish(histogram: dict[str, Any]) -> None:
    bounds = histogram.pop("bounds")
    histogram["counts"] = [bounds[bound] for bound in sorted(bounds, key=float)]
