"""Claim: 100 million generated payments, one in a thousand a fraud, train a model within 2 GB through a stratified
sample with re-weighting; and where all rows fit, its metrics are those of a model that saw all, within noise.

Rows are generated in pieces and never all in memory. The peak is that of a process which does nothing else.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import Result, circumstances
from penstock.evaluate import average_precision, roc_auc
from penstock.learn.classify import Classifier, FittedClassifier
from penstock.learn.losses import chance
from penstock.learn.sampling import StratifiedSample
from penstock.types import Array

PAYMENTS, KEPT = 100_000_000, 1_000_000
FITTING, SAMPLED, JUDGED, SEEDS = 2_000_000, 200_000, 2_000_000, 3
"""Rows that all fit, of which so many are sampled; rows to judge by; repeats."""
GOAL_GB = 2.0
_PIECE = 500_000
_COLUMNS = 12
_RARE = -9.38  # one in a thousand
_HELD = 1 << 40  # far beyond every row to learn from
_MODEL = Classifier(bags=1, trees=200)


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes."""
    parser.add_argument("--payments", type=int, default=PAYMENTS, help=f"rows to stream (default {PAYMENTS:,})")


def run(chosen: argparse.Namespace) -> Result:
    """The stream in a process of its own, then the comparison where all fits."""
    before = circumstances()
    _say(f"{chosen.payments:,} payments through a sample of {KEPT:,}")
    with multiprocessing.get_context("spawn").Pool(1) as alone:
        streamed = alone.apply(_stream, (chosen.payments,))
    found: dict[str, list[dict[str, float]]] = {"all": [], "sample": []}
    for seed in range(SEEDS):
        _say(f"all against a sample, {seed + 1} of {SEEDS}")
        first = (seed + 1) * 1_000_000_000
        rows, positive, ids = _joined(first, FITTING)
        sample = StratifiedSample(SAMPLED)
        sample.add(rows, positive, ids)
        found["all"].append(_judged(_MODEL.fit(rows, positive)))
        found["sample"].append(_judged(_MODEL.fit(sample.rows, sample.positive, weight=sample.weight)))
    means = {
        kind: {name: round(float(np.mean([one[name] for one in each])), 5) for name in each[0]}
        for kind, each in found.items()
    }
    noise = {name: round(float(np.std([one[name] for one in found["all"]], ddof=1)), 5) for name in found["all"][0]}
    detail: dict[str, Any] = {
        **before, "payments": chosen.payments, **streamed, "goal_gb": GOAL_GB, "rows_where_all_fit": FITTING,
        "sampled_of_these": SAMPLED, "all": means["all"], "sample": means["sample"], "noise": noise,
        "best_possible": _best(),
    }  # fmt: skip
    ratio = round(means["sample"]["ap"] / means["all"]["ap"], 4)
    return Result("fraud_sample", means["sample"]["ap"], means["all"]["ap"], ratio, "average precision", detail)


def _stream(payments: int) -> dict[str, Any]:
    """Streams the payments, fits to the sample, and says what the process took at most."""
    began = perf_counter()
    sample = StratifiedSample(KEPT)
    for first in range(0, payments, _PIECE):
        rows, positive, ids, _ = _piece(first, min(_PIECE, payments - first))
        sample.add(rows, positive, ids)
        if first // _PIECE % 20 == 0:
            _say(f"{first:,}")
    sampled = perf_counter() - began
    model = _MODEL.fit(sample.rows, sample.positive, weight=sample.weight)
    fitted = perf_counter() - began - sampled
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    return {
        "fraud_share": round(float(sample.seen[1] / sample.seen.sum()), 6), "sample_rows": len(sample.rows),
        "sample_frauds": int(sample.positive.sum()), "peak_gb": round(peak, 3), "stream_seconds": round(sampled, 1),
        "fit_seconds": round(fitted, 1), **_judged(model),
    }  # fmt: skip


def _piece(first: int, n: int) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.uint64], Array]:
    """Rows [first, first + n): columns, outcomes, hashes, and the chance that each had."""
    random = np.random.default_rng([7, first])
    rows = random.standard_normal((n, _COLUMNS), np.float32)
    x = rows.T
    # Some columns count by themselves, some only together, some only when large, half of them not at all.
    score = _RARE + 1.2 * x[0] + 1.5 * x[1] * (x[2] > 0) + 0.8 * np.abs(x[3]) + 2.5 * (x[4] > 2) + 0.5 * x[5]
    p = chance(score.astype(np.float64))
    return rows, random.random(n) < p, _hash(np.arange(first, first + n, dtype=np.uint64)), p


def _hash(number: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Numbers spread evenly over 64 bits (splitmix64)."""
    z = number + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _joined(first: int, n: int) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.uint64]]:
    parts = [_piece(at, min(_PIECE, first + n - at)) for at in range(first, first + n, _PIECE)]
    rows, positive, ids, _ = (np.concatenate(column) for column in zip(*parts, strict=True))
    return rows, positive, ids


def _judged(model: FittedClassifier) -> dict[str, float]:
    """AUC, average precision, log loss, and expected over actual frauds, on rows that no model saw."""
    scores, came = [], []
    for at in range(_HELD, _HELD + JUDGED, _PIECE):
        rows, positive, _, _ = _piece(at, _PIECE)
        scores.append(model.score(rows))
        came.append(positive)
    return _figures(np.concatenate(scores), np.concatenate(came))


def _best() -> dict[str, float]:
    """The same for the chances by which the rows were made."""
    parts = [_piece(at, _PIECE) for at in range(_HELD, _HELD + JUDGED, _PIECE)]
    return _figures(np.concatenate([part[3] for part in parts]), np.concatenate([part[1] for part in parts]))


def _figures(score: Array, came: NDArray[np.bool_]) -> dict[str, float]:
    given = np.where(came, score, 1 - score)
    return {
        "auc": round(roc_auc(came, score), 5), "ap": round(average_precision(came, score), 5),
        "log_loss": round(float(-np.log(np.maximum(given, 1e-15)).mean()), 6),
        "expected_over_came": round(float(score.sum() / came.sum()), 4),
    }  # fmt: skip


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
