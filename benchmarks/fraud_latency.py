"""Claim: with every view read, a payment is decided, logged durably and answered within 20 ms at the 99th percentile,
200 a second at random moments, while 800 more a second are only taken in; and the second of two payments of one
customer that are 50 ms apart always sees the first.

The server is `penstock serve` with the fraud app as it comes; the load is sent from this process, on the same cores.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import urlopen

import numpy as np
from numpy.typing import NDArray

import penstock as ps
from benchmarks import Result, circumstances
from benchmarks._fraud.bank import APP, Feed, built
from benchmarks._serving import load, systems
from benchmarks._serving.figures import told
from benchmarks._serving.load import Address, Stream
from penstock.commands import served_audit
from penstock.events import ties
from penstock.serve.decisions import DECISIONS, Decided, logged

DECIDED, TAKEN, A_POST, PAIRS = 200, 800, 10, 10
"""Payments a second decided, of which two in each of `PAIRS` pairs, and only taken in, so many in one request."""
APART = 0.05
GOAL_MS = 20.0
_DECIDE, _EVENTS = "/v1/decide/payment", "/v1/events"
_WARM = 3.0


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes."""
    parser.add_argument("--seconds", type=float, default=60.0, help="how long it is measured (default 60)")
    parser.add_argument("--workers", type=int, default=2, help="processes that answer (default 2)")


def run(chosen: argparse.Namespace) -> Result:
    """Warms the server up, drives it, and looks up in its logs what each payment of a pair had seen."""
    before = circumstances()
    print("build the bank", file=sys.stderr, flush=True)
    bank = built()
    feed = Feed(bank, DECIDED + TAKEN)
    with TemporaryDirectory() as folder:
        home = Path(folder)
        shutil.copytree(bank.home, home, dirs_exist_ok=True)
        # What the copy left to be written would be, half a minute later, in the way of what is measured.
        os.sync()
        with systems.serving(APP, home, chosen.workers) as address:
            print(f"{chosen.seconds:g} seconds of payments", file=sys.stderr, flush=True)
            load.drive(_streams(address, feed, _WARM)[0])
            streams, pairs = _streams(address, feed, chosen.seconds)
            alone, paired, posts = load.drive(streams)
            spent = _spent(address)
        decided = {one.verdict["event"]: one for one in logged(home / DECISIONS, audited=False) if one.verdict}
        seen = _seen(home, decided, pairs)
        audit = _audited(home)
    ms = alone.ms + paired.ms
    errors = sum((alone.errors + paired.errors + posts.errors).values())
    tiers = [one.tier for one in decided.values()]
    detail: dict[str, Any] = {
        **before,
        "p50_ms": told(ms, 0.5), "p99_ms": told(ms, 0.99), "p999_ms": told(ms, 0.999), "max_ms": told(ms, 1.0),
        "errors": errors, "errors_by_kind": dict(alone.errors + paired.errors + posts.errors),
        "payments_per_s": round(len(ms) / alone.seconds + A_POST * len(posts.ms) / posts.seconds, 1),
        "decided_per_s": round(len(ms) / alone.seconds, 1), "decisions": len(ms),
        "taken_p99_ms": told(posts.ms, 0.99), "sent_late_p99_ms": told(alone.lag_ms + paired.lag_ms, 0.99),
        "rules_share": round(tiers.count("rules") / len(tiers), 5), "views": len(ps.load(APP).views),
        "features": len(ps.load(APP).verdicts["payment"].recipe.assembler.names),
        "pairs": len(pairs), "pairs_seen": seen,
        "pairs_by_rules": sum(decided[second].tier == "rules" for _, second in pairs if second in decided),
         "workers": chosen.workers, "stages_mean_ms": spent, **audit,
        "goal_ms": GOAL_MS,
    }  # fmt: skip
    p99 = detail["p99_ms"] or float("inf")
    return Result("fraud_latency", p99, GOAL_MS, round(GOAL_MS / p99, 2), "ms", detail)


def _streams(address: Address, feed: Feed, seconds: float) -> tuple[list[Stream], list[tuple[str, str]]]:
    """Payments to decide, pairs of one customer among them, and posts of payments; and the ids of the pairs."""
    alone = load.poisson(DECIDED - 2 * PAIRS, seconds, seed=1)
    starts = load.poisson(PAIRS, seconds - 1, seed=2)
    posts = load.evenly(TAKEN / A_POST, seconds)
    # Made in the order in which they are sent, so that each is later than those before it.
    moments = np.concatenate([alone, starts, starts + APART, posts])
    kinds = np.repeat([0, 1, 2, 3], [len(alone), len(starts), len(starts), len(posts)])
    order = np.argsort(moments, kind="stable")
    bodies: list[list[tuple[float, bytes]]] = [[], [], []]
    first: dict[int, str] = {}
    pairs = []
    counts = np.zeros(4, int)
    for place in order.tolist():
        kind, moment = int(kinds[place]), float(moments[place])
        number, counts[kind] = int(counts[kind]), counts[kind] + 1
        if kind == 3:
            body = json.dumps([feed.payment() for _ in range(A_POST)]).encode()
            bodies[2].append((moment, load.post(_EVENTS, body)))
            continue
        event = feed.payment(customer=f"pair{number % 500}" if kind else None)
        if kind == 1:
            first[number] = event["id"]
        elif kind == 2:
            pairs.append((first[number], event["id"]))
        bodies[min(kind, 1)].append((moment, load.post(_DECIDE, json.dumps({"event": event}).encode())))
    return [
        Stream(address, [body for _, body in part], _moments(part), status=202 if place == 2 else 200, connections=16,
               wanted=b"" if place == 2 else b'"decision_id"')
        for place, part in enumerate(bodies)
    ], pairs  # fmt: skip


def _moments(part: list[tuple[float, bytes]]) -> NDArray[np.float64]:
    return np.array([moment for moment, _ in part])


def _seen(home: Path, decided: dict[str, Decided], pairs: list[tuple[str, str]]) -> int:
    """Of how many pairs the second decision knew the event of the first: its place in the log is below the offset."""
    app = ps.load(APP)
    app.home = home
    log = app.log(read_only=True)
    rows = log.read(0, log.end)["payment"]
    order = np.argsort(rows.tie)
    wanted = ties("payment", [one for one, _ in pairs])
    offset = rows.offset[order[np.searchsorted(rows.tie, wanted, sorter=order)]]
    log.close()
    # Rules know no offset: a payment that they decided has seen nothing.
    known = [decided[second].offset if second in decided else 0 for _, second in pairs]
    return int((np.array(known) > offset).sum())


def _spent(address: Address) -> dict[str, float]:
    """Mean milliseconds of each stage, from the server's own metrics."""
    with urlopen(f"http://{address[0]}:{address[1]}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    found: dict[str, dict[str, float]] = {"sum": {}, "count": {}}
    for line in lines:
        for what, values in found.items():
            if line.startswith(f'penstock_decide_seconds_{what}{{stage="'):
                values[line.split('"')[1]] = float(line.rsplit(" ", 1)[1])
    return {stage: round(1e3 * found["sum"][stage] / n, 3) for stage, n in found["count"].items() if n}


def _audited(home: Path) -> dict[str, int]:
    """Some of the decisions, recomputed from the log."""
    app = ps.load(APP)
    app.home = home
    log = app.log(read_only=True)
    found = served_audit(app, log, 100, 1, None)
    log.close()
    return {"audited_values": found.values, "mismatches": sum(found.mismatches.values())}
