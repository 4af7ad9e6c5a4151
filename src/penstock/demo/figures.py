"""The figures of a replay: how high the next item stood in the list, and how long answers took."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def rank_of(item: object, items: Sequence[object]) -> int:
    """The place of `item` in `items` from 1, or 0 where it is absent.

    >>> rank_of("b", ["a", "b"]), rank_of("c", ["a", "b"])
    (2, 0)
    """
    return items.index(item) + 1 if item in items else 0


def hit_rate(ranks: NDArray[np.int64], k: int = 20) -> float | None:
    """The share of `ranks` `(asks,)` in 1 … k; None without any.

    >>> hit_rate(np.array([1, 0, 21, 4]), 20)
    0.5
    """
    return float(np.mean((ranks >= 1) & (ranks <= k))) if len(ranks) else None


def mrr(ranks: NDArray[np.int64], k: int = 20) -> float | None:
    """The mean of 1 / rank over `ranks` `(asks,)`, a rank outside 1 … k counting 0; None without any.

    >>> mrr(np.array([1, 0, 21, 4]), 20)
    0.3125
    """
    if not len(ranks):
        return None
    inside = (ranks >= 1) & (ranks <= k)
    return float(np.mean(np.where(inside, 1.0 / np.maximum(ranks, 1), 0.0)))


def waterfall(timings: Sequence[str]) -> dict[str, float]:
    """The mean milliseconds of each stage over Server-Timing headers; a stage that one lacks took it no time.

    >>> waterfall(["queue;dur=1, score;dur=4.5", "queue;dur=2;desc=x"])
    {'queue': 1.5, 'score': 2.25}
    """
    total: dict[str, float] = {}
    for timing in timings:
        for stage in timing.split(","):
            name, *parameters = (part.strip() for part in stage.split(";"))
            for parameter in parameters:
                if parameter.startswith("dur="):
                    total[name] = total.get(name, 0.0) + float(parameter[4:])
    return {name: sum_ / len(timings) for name, sum_ in total.items()}


def percentiles(name: str, ms: NDArray[np.float64]) -> dict[str, float | None]:
    """The median and the 99th percentile of `ms` `(n,)` under their names in a summary; None without any.

    >>> percentiles("post", np.array([1.0, 2.0, 3.0]))
    {'post_p50_ms': 2.0, 'post_p99_ms': 2.98}
    """
    p50, p99 = np.percentile(ms, [50, 99]).tolist() if len(ms) else (None, None)
    return {f"{name}_p50_ms": p50, f"{name}_p99_ms": p99}
