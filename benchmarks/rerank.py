"""Claim: every rule fills 20 places from 250 candidates in less than half a millisecond, and the determinantal one at
least 20 times as fast as by determinants, with the very same slate.

The peer takes NumPy's determinant of the chosen items' matrix for every candidate that might come next.
"""

from __future__ import annotations

import random
import sys
from time import perf_counter
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

import penstock as ps
from benchmarks import Result, circumstances
from penstock.learn import Posterior, Summary
from penstock.retrieve import Query, Source
from penstock.serve.rerank import Facts, Rule, Slate, contextual
from penstock.types import Strings

CANDIDATES, PLACES, WIDTH = 250, 20, 64
REPEATS, PEER_REPEATS = 2_000, 5
COLUMNS = ("score", "wins", "tries", "price")
# What codes stand for does not matter here.
STRINGS = cast(Strings, SimpleNamespace(code=int))


def rules(slate: Slate) -> dict[str, Rule]:
    """One of each, and the dear ones over vectors, too."""
    budget = 0.7 * float(slate.column("price")[slate.order[:PLACES]].sum())
    return {
        "block": ps.block("3", "4"),
        "pin": ps.pin("9", place=2),
        "cap": ps.cap("category", 3, first=10),
        "at_least": ps.rerank.at_least("brand", "7", 2, first=10),
        "within": ps.rerank.within("price", most=budget),
        "diversify": ps.diversify("category"),
        "mmr": ps.rerank.mmr("category", "brand"),
        "mmr over vectors": ps.rerank.mmr("category", vectors="near"),
        "determinantal": ps.rerank.determinantal("category", "brand"),
        "determinantal over vectors": ps.rerank.determinantal("category", vectors="near"),
        "explore": ps.explore(0.02),
        "thompson": ps.rerank.thompson("wins", "tries"),
        "contextual": contextual(COLUMNS),
        "contextual over vectors": contextual(COLUMNS, "near"),
        "contextual ucb over vectors": contextual(COLUMNS, "near", how="ucb"),
    }


def request(draw: np.random.Generator) -> Slate:
    """Candidates with scores, two attributes, three columns and a source's vectors, and what a release has learned."""
    n = CANDIDATES
    table = draw.standard_normal((n, WIDTH)).astype(np.float32)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    source = SimpleNamespace(
        vectors=lambda index, items: table[items - 1],
        products=lambda query, index, items: (table[items - 1] * table[0]).astype(np.float64),
    )
    rows = np.c_[draw.poisson(3, n), draw.poisson(60, n) + 3, draw.gamma(2, 20, n)].astype(np.float64)
    learned = {}
    for model in (contextual(COLUMNS).learns(), contextual(COLUMNS, "near").learns()):
        width = 1 + len(COLUMNS) + (WIDTH if model.source else 0)
        seen = np.c_[np.ones(5_000), draw.standard_normal((5_000, width - 1))]
        learned[model.key] = Posterior(Summary.of(seen, (draw.random(5_000) < 0.1).astype(float)))
    places = {name: place for place, name in enumerate(COLUMNS[1:])}
    facts = Facts(rows, places, {"near": (cast(Source, source), {})}, Query({}, {}), learned)
    scores = draw.standard_normal(n)
    attributes = {
        "category": draw.integers(1, 12, n).astype(np.uint32), "brand": draw.integers(1, 40, n).astype(np.uint32)
    }  # fmt: skip
    items = np.arange(1, n + 1, dtype=np.uint32)
    return Slate(items, np.argsort(-scores, kind="stable"), attributes, np.ones(n), scores, facts)


def by_determinants(slate: Slate, relevance: float) -> list[int]:
    """The determinantal rule over two fields of equal weight, as it is defined."""
    category, brand = slate.groups("category"), slate.groups("brand")
    matrix = 0.95 * ((category[:, None] == category) + 1.0 * (brand[:, None] == brand)) / 2
    np.fill_diagonal(matrix, 1.0)
    good: NDArray[np.float64] = slate.relevance()
    chosen: list[int] = []
    left = slate.order.tolist()
    for _ in range(PLACES):
        sets = np.array([[*chosen, one] for one in left])
        volume = np.linalg.slogdet(matrix[sets[:, :, None], sets[:, None, :]])[1]
        worth = relevance * good[sets].sum(1) + (1 - relevance) * volume / 2
        chosen.append(left.pop(int(worth.argmax())))
    return chosen


def run() -> Result:
    """Medians of each rule, applied in turns; and the peer's."""
    slate = request(np.random.default_rng(7))
    every = rules(slate)
    seconds: dict[str, list[float]] = {name: [] for name in every}
    for turn in range(REPEATS):
        for name, rule in every.items():
            draw = random.Random(turn)
            began = perf_counter()
            rule.apply(slate, PLACES, STRINGS, draw)
            seconds[name].append(perf_counter() - began)
        if turn % 100 == 99:
            print(f"\r{turn + 1:,} of {REPEATS:,}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    rule = ps.rerank.determinantal("category", "brand")
    peer = []
    for _ in range(PEER_REPEATS):
        began = perf_counter()
        found = by_determinants(slate, rule.relevance)
        peer.append(perf_counter() - began)
    if found != rule.apply(slate, PLACES, STRINGS, random.Random(0)).order[:PLACES].tolist():
        raise SystemExit("the slates differ")
    p50 = {name: round(float(np.median(spent)) * 1e3, 4) for name, spent in seconds.items()}
    detail: dict[str, Any] = {
        **circumstances(),
        "candidates": CANDIDATES,
        "places": PLACES,
        "p50_ms": p50,
        "p99_ms": {name: round(float(np.quantile(spent, 0.99)) * 1e3, 4) for name, spent in seconds.items()},
        "slowest_p50_ms": max(p50.values()),
    }
    ours, theirs = p50["determinantal"], float(np.median(peer)) * 1e3
    return Result(
        name="rerank", ours=ours, peer=round(theirs, 2), ratio=round(theirs / ours, 1),
        unit="ms a slate, determinantal", detail=detail,
    )  # fmt: skip
