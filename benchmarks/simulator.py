"""Claim: the simulator makes at least 100,000 events a second, columns of readable text included."""

from __future__ import annotations

import random
import time
from itertools import accumulate

import polars as pl

from benchmarks import Result
from penstock.clock import DAY
from penstock.simulator import KINDS, World

EVENTS = 150_000
ROUNDS = 3


def ours() -> float:
    """Events a second of a fresh world: catalogue, crowd, events and their frame."""
    began = time.perf_counter()
    frame = World.of_size(EVENTS).events().frame()
    return len(frame) / (time.perf_counter() - began)


def peer() -> float:
    """Events a second of a loop in plain Python without any behaviour: one popularity, no tastes, no memory."""
    began = time.perf_counter()
    source = random.Random(7)
    ladder = list(accumulate((1 + rank) ** -0.8 for rank in range(1_500)))
    items, kinds = [f"p-{i:05d}" for i in range(1_500)], source.choices(KINDS, (90, 7, 2, 1), k=EVENTS)
    rows = []
    for kind in kinds:
        (item,) = source.choices(items, cum_weights=ladder)
        rows.append((source.randrange(14 * DAY), f"u-{source.randrange(2_000):05d}", item, kind))
    rows.sort()
    frame = pl.DataFrame(rows, schema=["time", "user", "item", "kind"], orient="row")
    return len(frame) / (time.perf_counter() - began)


def run() -> Result:
    """The best of a few rounds of each, taken in turns."""
    rounds = [(ours(), peer()) for _ in range(ROUNDS)]
    mine, theirs = (max(speeds) for speeds in zip(*rounds, strict=True))
    return Result(
        name="simulator",
        ours=round(mine),
        peer=round(theirs),
        ratio=round(mine / theirs, 2),
        unit="events/s",
        detail="peer: a plain Python loop that draws each event by itself, without tastes, sessions or memory",
    )
