"""Claim: with four workers, a click posted to one is in the answers of every other within 5 ms at the median and 20 ms
at the 99th percentile; and a rolling restart under load fails no request.

Freshness goes from sending the post to one worker until the shopper's features have come from another one, which is
asked as soon as the post is answered; the answer must show the click. All ordered pairs of workers take turns.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks import Result
from benchmarks._serving import systems
from benchmarks._serving.asking import Line, lines
from benchmarks._serving.figures import told
from benchmarks._serving.load import Address
from benchmarks._serving.world import Feed, built

WORKERS = 4
P50_MS, P99_MS = 5.0, 20.0
_CLIENTS = 4
_PATIENCE = 60.0


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes."""
    parser.add_argument("--quick", action="store_true", help="a tenth of the clicks: a look, not a measurement")


def run(chosen: argparse.Namespace) -> Result:
    """Clicks across all pairs of workers, then a rolling restart under load."""
    rounds = 20 if chosen.quick else 200
    load_before = os.getloadavg()[0]
    shop = built()
    feed = Feed(shop, 100.0)
    events = (feed.event() for _ in itertools.count())
    with systems.penstock(shop, WORKERS) as address:
        workers = lines(address, WORKERS)
        pairs = list(itertools.permutations(workers, 2))
        _clicks(pairs, events, 5)  # warm
        print(f"{len(pairs)} pairs of workers, {rounds} clicks each", file=sys.stderr, flush=True)
        posted, fresh, stale = _clicks(pairs, events, rounds)
        print("a rolling restart under load", file=sys.stderr, flush=True)
        restarted = _restart(address, workers, feed)
    p99 = told(fresh, 0.99)
    detail = {
        "p50_ms": told(fresh, 0.5),
        "p99_ms": p99,
        "p999_ms": told(fresh, 0.999),
        "post_p50_ms": told(posted, 0.5),
        "post_p99_ms": told(posted, 0.99),
        "stale": stale,
        "clicks": len(fresh),
        "pairs": len(pairs),
        "goal_p50_ms": P50_MS,
        "goal_p99_ms": P99_MS,
        "load_before": round(load_before, 2),
        **restarted,
    }
    return Result(name="freshness", ours=p99 or 0.0, peer=None, ratio=None, unit="ms", detail=detail)


def _clicks(
    pairs: list[tuple[Line, Line]], events: Iterator[dict[str, Any]], rounds: int
) -> tuple[list[float], list[float], int]:
    """Milliseconds of each post, and until it was seen elsewhere; and how often it was not seen at once."""
    posted, fresh, stale = [], [], 0
    known: dict[str, float] = {}
    for _ in range(rounds):
        for writes, reads in pairs:
            event = next(events)
            path = f"/v1/features/Shopper/{event['user']}"
            if event["user"] not in known:
                known[event["user"]] = _count(reads, path)
            began = perf_counter()
            status, _ = writes.ask("POST", "/v1/events", event)
            answered = perf_counter()
            seen = _count(reads, path)
            ended = perf_counter()
            known[event["user"]] += status == 202
            stale += seen != known[event["user"]]
            posted.append((answered - began) * 1e3)
            fresh.append((ended - began) * 1e3)
    return posted, fresh, stale


def _count(line: Line, path: str) -> float:
    return float(line.ask("GET", path)[1]["features"]["actions"])


def _restart(address: Address, workers: list[Line], feed: Feed) -> dict[str, Any]:
    """Replaces all workers while clients post and decide without a pause; counts requests, and those that failed."""
    before = {line.pid for line in workers}
    supervisor = _parent(workers[0].pid)
    for line in workers:
        line.close()
    stop, answered, failed = threading.Event(), [0] * _CLIENTS, [0] * _CLIENTS
    drawn = threading.Lock()

    def client(number: int) -> None:
        line = Line(address)
        while not stop.is_set():
            with drawn:
                event = feed.event()
            for path, body in (("/v1/events", event), ("/v1/decide/home", {"user": event["user"]})):
                try:
                    good = line.ask("POST", path, body)[0] in (200, 202)
                except (OSError, http.client.HTTPException):
                    good = False
                    line.close()
                answered[number] += good
                failed[number] += not good
        line.close()

    clients = [threading.Thread(target=client, args=(i,)) for i in range(_CLIENTS)]
    began = perf_counter()
    for one in clients:
        one.start()
    os.kill(supervisor, signal.SIGHUP)
    while any(Path(f"/proc/{pid}").exists() for pid in before) and perf_counter() - began < _PATIENCE:
        time.sleep(0.05)
    seconds = perf_counter() - began
    left = sum(Path(f"/proc/{pid}").exists() for pid in before)
    stop.set()
    for one in clients:
        one.join()
    return {
        "restart_requests": sum(answered) + sum(failed),
        "restart_failed": sum(failed),
        "restart_seconds": round(seconds, 1),
        "restart_not_replaced": left,
    }


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
