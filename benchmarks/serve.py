"""Claim: against FastAPI over Redis and over Feast, the same decision has half of the p99 and twice the capacity,
and a tenth of Feast's p99; penstock's own p99 is at most 10 ms.

The decision: 200 candidates, 40 features, 300 trees of 63 leaves, 500 events a second meanwhile. Each server is
measured at half of its own capacity, in turns, and the peers also at penstock's rate.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from benchmarks import Result, circumstances
from benchmarks._peers import SETUP
from benchmarks._serving import systems
from benchmarks._serving.figures import told
from benchmarks._serving.rig import EVENTS_A_POST, EVENTS_A_SECOND, Pooled, Rig
from benchmarks._serving.world import Shop, built

OURS, REDIS, FEAST = "penstock", "redis", "feast"
Start = Callable[[Shop, int], AbstractContextManager[Any]]
STARTS: Mapping[str, Start] = {OURS: systems.penstock, REDIS: systems.redis, FEAST: systems.feast}


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes."""
    parser.add_argument("--quick", action="store_true", help="short runs: a look, not a measurement")
    parser.add_argument("--only", choices=STARTS, action="append", help="measure these; all by default")
    parser.add_argument("--workers", type=int, help="of every server; by default 1 or 2, whichever takes more")


def run(chosen: argparse.Namespace) -> Result:
    """Finds each server's capacity, then takes turns at half of it."""
    seconds, steps, rounds = (2.5, 3, 1) if chosen.quick else (5.0, 5, 3)
    workers = (chosen.workers,) if chosen.workers else (2,) if chosen.quick else (1, 2)
    names = [name for name in STARTS if not chosen.only or name in chosen.only]
    absent = [name for name in names if name != OURS and not systems.present(name)]
    before = circumstances()
    _say("build the shop")
    shop = built()
    detail: dict[str, Any] = {
        "absent": dict.fromkeys(absent, SETUP),
        **before,
        "events_per_s": EVENTS_A_SECOND,
        "events_per_post": EVENTS_A_POST,
    }
    with ExitStack() as opened:
        rigs: dict[str, Rig] = {}
        half: dict[str, float] = {}
        for name in names:
            if name not in absent:
                rigs[name], count = _ready(opened, shop, name, workers, seconds)
                _say(f"{name} with {count} workers: capacity")
                bound = rigs[name].throughput(seconds)
                capacity = rigs[name].capacity(bound, seconds, steps)
                # One that never keeps the limit is measured at half of what it gets through.
                half[name] = (capacity or bound) / 2
                for figure, value in (("throughput_per_s", bound), ("capacity_per_s", capacity), ("workers", count)):
                    detail[_key(name, figure)] = round(value, 1)
        found = {name: Pooled() for name in rigs}
        for turn in range(rounds):
            for name, rig in rigs.items():
                _say(f"round {turn + 1} of {rounds}: {name} at {half[name]:.0f} a second")
                rig.at(half[name], 2 * seconds, found[name])
        ours = half.get(OURS, 0.0)
        for name in rigs:
            if name != OURS and 0 < ours < 2 * half[name]:
                _say(f"{name} at {ours:.0f} a second, penstock's rate")
                detail[_key(name, "p99_ms_at_our_rate")] = told(rigs[name].at(ours, 2 * seconds).ms, 0.99)
    for name, pooled in found.items():
        detail.update({_key(name, key): value for key, value in _figures(pooled, half[name]).items()})
    if OURS in found:
        errors = found[OURS].errors
        detail["tiers"] = {"personal": len(found[OURS].ms), "other": errors["unwanted"]}
    mine, theirs = detail.get("p99_ms"), detail.get("redis_p99_ms")
    detail |= {key: detail.get(key) for key in ("redis_p99_ms", "redis_capacity_per_s", "feast_p99_ms")}
    return Result(
        name="serve",
        ours=mine or 0.0,
        peer=theirs,
        ratio=round(theirs / mine, 2) if mine and theirs else None,
        unit="ms",
        detail=detail,
    )


def _ready(opened: ExitStack, shop: Shop, name: str, workers: tuple[int, ...], seconds: float) -> tuple[Rig, int]:
    """A server with the number of workers that gets most through, left running until `opened` closes."""
    best, count = 0.0, workers[0]
    for tried in workers if len(workers) > 1 else ():
        _say(f"{name} with {tried} workers")
        with STARTS[name](shop, tried) as addresses:
            rate = _rig(shop, addresses).throughput(seconds)
        best, count = max((best, count), (rate, tried))
    rig = _rig(shop, opened.enter_context(STARTS[name](shop, count)))
    rig.throughput(1.0)  # warm
    return rig, count


def _rig(shop: Shop, addresses: Any) -> Rig:
    return Rig(shop, *addresses) if isinstance(addresses[0], tuple) else Rig(shop, addresses, addresses)


def _figures(pooled: Pooled, rate: float) -> dict[str, Any]:
    return {
        "rate_per_s": round(rate, 1),
        "p50_ms": told(pooled.ms, 0.5),
        "p99_ms": told(pooled.ms, 0.99),
        "p999_ms": told(pooled.ms, 0.999),
        "post_p99_ms": told(pooled.post_ms, 0.99),
        "generator_lag_p99_ms": told(pooled.lag_ms, 0.99),
        "decisions": len(pooled.ms),
        "errors": sum(pooled.errors.values()),
    }


def _key(name: str, figure: str) -> str:
    return figure if name == OURS else f"{name}_{figure}"


_BEGAN = time.monotonic()


def _say(text: str) -> None:
    print(f"{time.monotonic() - _BEGAN:6.1f} s  {text}", file=sys.stderr, flush=True)
