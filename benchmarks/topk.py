"""Claim: what is frequent in a stream that is split over many machines is found in one pass and a fixed memory, and no
count lies outside its bounds.

A Zipf stream in shards, each counted by itself, chunk by chunk; the states are merged, and held to exact counts.
"""

from __future__ import annotations

import argparse
import sys
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

import penstock.aggregates as ps
from benchmarks import Result, circumstances
from penstock.types import Array

DIFFERENT = 1_000_000
CHUNK = 1_000_000
SHARDS = 8


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes."""
    parser.add_argument("--items", type=int, default=100_000_000, help="length of the stream (default 100,000,000)")
    parser.add_argument("--k", type=int, default=20, help="how many are asked for (default 20)")
    parser.add_argument("--capacity", type=int, default=2_048, help="of the sketch (default 2,048)")
    parser.add_argument("--exponent", type=float, default=1.1, help="of the Zipf law (default 1.1)")


def run(chosen: argparse.Namespace) -> Result:
    """Counts, merges, compares; beside it an exact count over codes that are known beforehand."""
    frequent = ps.frequent("item", k=chosen.k, capacity=chosen.capacity)
    weights = np.arange(1, DIFFERENT + 1) ** -chosen.exponent
    edges = np.cumsum(weights / weights.sum())
    # Codes in no order of frequency.
    names = np.random.default_rng(0).permutation(DIFFERENT).astype(np.uint32) + 1
    exact = np.zeros(DIFFERENT + 1, np.int64)
    shards: list[Array] = []
    ours = theirs = 0.0
    done = 0
    for shard in range(SHARDS):
        draw = np.random.default_rng([1, shard])
        state = frequent.empty(1)
        for size in _sizes(chosen.items // SHARDS):
            codes = names[np.minimum(np.searchsorted(edges, draw.random(size)), DIFFERENT - 1)]
            began = perf_counter()
            state = frequent.merge(state, _collected(frequent, codes))
            ours += perf_counter() - began
            began = perf_counter()
            exact += np.bincount(codes, minlength=len(exact))
            theirs += perf_counter() - began
            done += size
            print(f"\r{done:,} of {chosen.items:,} items", end="", file=sys.stderr, flush=True)
        shards.append(state)
    print(file=sys.stderr)
    merged = shards[0]
    for state in shards[1:]:
        merged = frequent.merge(merged, state)
    backwards = shards[-1]
    for state in reversed(shards[:-1]):
        backwards = frequent.merge(state, backwards)
    found = frequent.bounds(merged)
    codes, lower, upper = found.codes[0], found.lower[0], found.upper[0]
    known = codes > 0
    truth = exact[codes[known]]
    best = set(np.argsort(-exact, kind="stable")[: chosen.k].tolist())
    detail: dict[str, Any] = {
        **circumstances(),
        "items": done,
        "different": int((exact > 0).sum()),
        "shards": SHARDS,
        "recall": round(len(best & set(codes[known].tolist())) / chosen.k, 4),
        "bound_violations": int(((truth < lower[known]) | (truth > upper[known])).sum()),
        "widest_bound_percent": round(float(((upper - lower)[known] / truth).max(initial=0) * 100), 3),
        "state_bytes": frequent.dtype.itemsize,
        "exact_bytes": exact.nbytes,
        "same_bytes_in_any_order": merged.tobytes() == backwards.tobytes(),
        "items_per_s": round(done / ours),
        "exact_items_per_s": round(done / theirs),
    }
    return Result(
        name="topk", ours=detail["items_per_s"], peer=None,
        ratio=None, unit="items/s", detail=detail,
    )  # fmt: skip


def _collected(frequent: ps.Frequent, codes: NDArray[np.uint32]) -> Array:
    n = len(codes)
    return frequent.collect(codes, np.zeros(n, np.int64), np.zeros(n, np.uint64), np.zeros(1, np.int64))


def _sizes(items: int) -> list[int]:
    return [min(CHUNK, items - at) for at in range(0, items, CHUNK)]
