"""Claim: a request's rows are scored at least twice as fast as by LightGBM on one thread, with the very same scores.

The floor is 2 where half of the columns belong to the shopper and are the same in all rows, as in a decision, and 1.4
where every column differs from row to row. Beside it: items that come again, of whose columns what they leave of each
tree is kept; and four such requests in one call, which is what batching model calls would be.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from benchmarks import Result
from penstock.learn.scorer import Scorer

TREES, LEAVES = 300, 63
ROWS, COLUMNS = 200, 40
REQUESTS = 100
ITEMS, LASTING = 2_000, 17
TOGETHER = 4
FLOOR, FLOOR_ALL_VARY = 2.0, 1.4


def features(rows: int, draw: np.random.Generator) -> NDArray[np.float32]:
    """Numbers and counts, some of them missing: (rows, columns) float32."""
    found = draw.normal(size=(rows, COLUMNS)).astype(np.float32)
    found[:, ::5] = draw.poisson(3, size=found[:, ::5].shape)
    missing = draw.random(found[:, 3::7].shape) < 0.3
    found[:, 3::7][missing] = np.nan
    return found


def booster(trees: int, leaves: int, draw: np.random.Generator) -> lightgbm.Booster:
    """A ranker on 100,000 rows in which the second half of the columns is a shopper's."""
    rows = features(100_000, draw)
    rows[:, COLUMNS // 2 :] = np.repeat(rows[::20, COLUMNS // 2 :], 20, axis=0)
    item, shopper = np.hsplit(np.nan_to_num(rows), 2)
    liking = (item * np.sin(np.arange(COLUMNS // 2)) + item * shopper / 2).sum(1) + 2 * draw.normal(size=len(rows))
    data = lightgbm.Dataset(rows, liking > np.quantile(liking, 0.9), group=np.full(len(rows) // 20, 20))
    parameters = {"objective": "lambdarank", "num_leaves": leaves, "min_data_in_leaf": 100}
    return lightgbm.train({**parameters, "num_threads": 1, "force_row_wise": True, "verbose": -1}, data, trees)


def shop(draw: np.random.Generator) -> tuple[list[NDArray[np.float32]], list[NDArray[np.int64]]]:
    """Requests on items that come again, and which: the first columns are an item's, the second half a shopper's."""
    pool = features(ITEMS, draw)
    requests, editions = [], []
    for _ in range(REQUESTS):
        drawn, rows = draw.choice(ITEMS, ROWS, replace=False), features(ROWS, draw)
        rows[:, :LASTING], rows[:, COLUMNS // 2 :] = pool[drawn, :LASTING], rows[:1, COLUMNS // 2 :]
        requests.append(rows)
        editions.append(drawn[:, None])
    return requests, editions


def raced(
    model: lightgbm.Booster,
    requests: Sequence[NDArray[np.float32]],
    editions: Sequence[NDArray[np.int64] | None] | None = None,
) -> NDArray[np.float64]:
    """Seconds of each request, (requests, 2): by the scorer and by LightGBM, in turns."""
    scorer = Scorer.of(model, range(LASTING) if editions else ())
    assert scorer is not None
    seconds = []
    for rows, edition in zip(requests, editions or [None] * len(requests), strict=True):
        began = time.perf_counter()
        ours = scorer.score(rows, edition)
        between = time.perf_counter()
        theirs = np.asarray(model.predict(rows, num_threads=1))
        seconds.append((between - began, time.perf_counter() - between))
        if ours.tobytes() != theirs.tobytes():
            raise SystemExit("the scores differ from LightGBM's")
    return np.array(seconds)


def joined(parts: Sequence[NDArray[Any]]) -> list[NDArray[Any]]:
    """Several requests as one, so many at a time."""
    return [np.concatenate(parts[i : i + TOGETHER]) for i in range(0, len(parts), TOGETHER)]


def run() -> Result:
    """Medians of requests taken in turns: the large model, and beside it the hard case and the default model."""
    draw = np.random.default_rng(7)
    hard = [features(ROWS, draw) for _ in range(REQUESTS)]
    real = [np.c_[rows[:, : COLUMNS // 2], np.tile(rows[:1, COLUMNS // 2 :], (ROWS, 1))] for rows in hard]
    large, default = booster(TREES, LEAVES, draw), booster(100, 15, draw)
    again, editions = shop(draw)
    # Those seen before count: at first every item is new.
    kept = raced(large, again * 2, editions * 2)[REQUESTS:]
    together = raced(large, joined(again * 2), joined(editions * 2))[REQUESTS // TOGETHER :] / TOGETHER
    seconds = {
        "half of the columns constant": raced(large, real),
        "all columns vary": raced(large, hard),
        "half constant, items that come again": kept,
        f"the same, {TOGETHER} requests in one call": together,
        "100 trees of 15 leaves, half constant": raced(default, real),
        "100 trees of 15 leaves, all vary": raced(default, hard),
    }
    told = []
    for name, found in seconds.items():
        (ours, theirs), tail = np.median(found, axis=0) * 1e6, np.quantile(found, 0.99, axis=0) * 1e6
        told.append(
            f"{name}: {ours:.0f} (p99 {tail[0]:.0f}) against {theirs:.0f} ({tail[1]:.0f}), {theirs / ours:.1f} times"
        )
    mine, peer = np.median(seconds["half of the columns constant"], axis=0) * 1e6
    return Result(
        name="trees",
        ours=round(float(mine)),
        peer=round(float(peer)),
        ratio=round(float(peer / mine), 2),
        unit="µs a request",
        detail=f"floor {FLOOR}, {FLOOR_ALL_VARY} where all columns vary; {TREES} trees of {LEAVES} leaves, {ROWS} rows "
        f"of {COLUMNS} features, peer: LightGBM on one thread; " + "; ".join(told),
    )
