"""Claim: two towers trained on clicks find at least a fifth more of what rare queries want once they are compared with
the right negatives, and no less of what frequent ones want.

Standard in-batch training is the peer: epoch by epoch frequent queries improve while rare ones get worse. Then come,
one upon the other: the correction for popular items (log q), known right items hidden, negatives drawn evenly from the
catalogue, mined hard ones, near-duplicates down-weighted, a higher temperature, and item ids left out at times. A
margin in place of the softmax stands beside them. All are judged against what is truly relevant, which the generator
knows, by deciles of queries from the rarest to the most frequent, after the same number of epochs on five worlds.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import Result, circumstances
from benchmarks._tail.world import World, world
from penstock.evaluate.embeddings import embedding_health
from penstock.learn.losses import ContrastiveMargin, SampledSoftmax
from penstock.learn.two_tower import Bags, Course, Epoch, Form, encode, train
from penstock.learn.two_tower.negatives import best
from penstock.types import Array

SEEDS = 5
WIDTH = 32
K, TOP = 50, 10
TAIL = 3
"""So many of the lowest deciles are the tail; the highest is the head."""
STANDARD = Course(epochs=8, rate=1.5e-3, loss=SampledSoftmax(0.05), log_q=False, masked=False, patience=8)
CHANGES: Mapping[str, Mapping[str, Any]] = {
    "log_q": {"log_q": True},
    "known_right_hidden": {"masked": True},
    "uniform": {"uniform": 512},
    "mined": {"mined": 1, "depth": 100},
    "near_duplicates": {"alike": 0.1},
    "temperature": {"loss": SampledSoftmax(0.1)},
    "ids_left_out": {"cold": 0.3},
}
"""In turn, each upon those before it."""
_T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Student's t at 97.5 %, by the number of seeds."""


@dataclass(frozen=True, eq=False)
class Judged:
    """Recall and NDCG by decile, rarest first, (epochs, 10) each; recall of held-out clicks (epochs,); the vectors."""

    recall: NDArray[np.float64]
    ndcg: NDArray[np.float64]
    clicks: NDArray[np.float64]
    health: Mapping[str, float]
    seconds: float


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes."""
    parser.add_argument("--seeds", type=int, default=SEEDS, choices=range(2, 11), help=f"worlds (default {SEEDS})")


def courses() -> dict[str, Course]:
    """Standard training, then each change upon those before it, and a margin in place of the last one's softmax."""
    found = {"standard": STANDARD}
    course = STANDARD
    for name, what in CHANGES.items():
        course = found[name] = replace(course, **what)
    return found | {"margin": replace(course, loss=ContrastiveMargin(0.4, 10.0))}


def run(chosen: argparse.Namespace) -> Result:
    """Every course on every world, two at a time."""
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # each process has a core
    began = perf_counter()
    names = list(courses())
    found: dict[tuple[str, int], Judged] = {}
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        asked = {pool.submit(judge, name, seed): (name, seed) for seed in range(1, chosen.seeds + 1) for name in names}
        for done, future in enumerate(as_completed(asked), 1):
            found[asked[future]] = future.result()
            name, seed = asked[future]
            tail, head = _ends(found[name, seed].recall[-1])
            print(f"{done} of {len(asked)}: world {seed}, {name}: tail {tail:.3f}, head {head:.3f}", file=sys.stderr)
    rows = {name: [found[name, seed] for seed in range(1, chosen.seeds + 1)] for name in names}
    return result(rows, perf_counter() - began)


def judge(name: str, seed: int) -> Judged:
    """One course on one world."""
    began = perf_counter()
    shop = _world(seed)
    form = Form(*shop.codes, width=WIDTH)
    course = replace(courses()[name], seed=seed)
    recall: list[Array] = []
    ndcg: list[Array] = []
    clicks: list[float] = []
    health: dict[str, float] = {}

    def each(epoch: Epoch) -> bool:
        query, item = (encode(form, epoch.weights, side, bags) for side, bags in _sides(shop))
        deep, top = by_decile(shop, best(query, item, K))
        recall.append(deep)
        ndcg.append(top)
        clicks.append(epoch.recall)
        if epoch.number == course.epochs - 1:
            health.update(embedding_health(item))
        return False

    train(form, course, shop.queries, shop.items, shop.clicks, held=shop.held, each=each)
    return Judged(np.array(recall), np.array(ndcg), np.array(clicks), health, perf_counter() - began)


@lru_cache(1)
def _world(seed: int) -> World:
    return world(seed)


def _sides(shop: World) -> tuple[tuple[Any, Bags], tuple[Any, Bags]]:
    return ("query", shop.queries), ("item", shop.items)


def by_decile(shop: World, found: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean recall@50 and NDCG@10 of the lists (queries, 50), by decile of frequency, the rarest first, (10,) each.

    Recall is the share of a query's relevant items that are in its list, of at most 50.
    """
    asked = np.flatnonzero(shop.frequency > 0)
    right = np.take_along_axis(shop.relevant, found, axis=1)
    many = shop.relevant.sum(axis=1)
    recall = right.sum(axis=1) / np.maximum(np.minimum(many, K), 1)
    discount = 1 / np.log2(np.arange(TOP) + 2.0)
    ideal = np.cumsum(discount)[np.clip(many, 1, TOP) - 1]
    ndcg = (right[:, :TOP] * discount).sum(axis=1) / ideal
    deciles = np.array_split(asked[np.argsort(shop.frequency[asked], kind="stable")], 10)
    return (np.array([part[decile].mean() for decile in deciles]) for part in (recall, ndcg))  # type: ignore[return-value]


def result(rows: Mapping[str, Sequence[Judged]], seconds: float) -> Result:
    """The table, and what it comes to."""
    last = {name: np.array([_ends(one.recall[-1]) for one in found]) for name, found in rows.items()}
    before, after = last["standard"], last[list(CHANGES)[-1]]
    changes = {}
    above = "standard"
    for name, found in rows.items():
        reference = list(CHANGES)[-1] if name == "margin" else above
        changes[name] = {
            "tail_recall": _interval(last[name][:, 0]),
            "head_recall": _interval(last[name][:, 1]),
            "tail_change": _interval(last[name][:, 0] / last[reference][:, 0] - 1),
            "head_change": _interval(last[name][:, 1] / last[reference][:, 1] - 1),
            "against": reference,
            "recall50_by_decile": _mean([one.recall[-1] for one in found]),
            "ndcg10_by_decile": _mean([one.ndcg[-1] for one in found]),
            "tail_ndcg": _interval(np.array([one.ndcg[-1][:TAIL].mean() for one in found])),
            "clicks_recall": _interval(np.array([one.clicks[-1] for one in found])),
            "anisotropy": _mean([one.health["anisotropy"] for one in found]),
            "collision": _mean([one.health["collision"] for one in found]),
            "seconds": round(float(np.mean([one.seconds for one in found])), 1),
        }
        above = name
    stopped = {
        name: np.array([_ends(one.recall[int(one.clicks.argmax())]) for one in rows[name]])
        for name in ("standard", list(CHANGES)[-1])
    }
    detail: dict[str, Any] = {
        **circumstances(),
        "tail_recall_before": _mean(before[:, 0]),
        "tail_recall_after": _mean(after[:, 0]),
        "tail_change": _interval(after[:, 0] / before[:, 0] - 1),
        "head_change": _mean(after[:, 1] / before[:, 1] - 1),
        "head_change_interval": _interval(after[:, 1] / before[:, 1] - 1),
        "epoch_by_epoch": {
            name: {
                "tail_recall": _mean([one.recall[:, :TAIL].mean(axis=1) for one in rows[name]]),
                "head_recall": _mean([one.recall[:, -1] for one in rows[name]]),
                "clicks_recall": _mean([one.clicks for one in rows[name]]),
            }
            for name in stopped
        },
        "stopped_where_held_out_clicks_are_found_best": {
            name: {"tail_recall": _interval(ends[:, 0]), "head_recall": _interval(ends[:, 1])}
            for name, ends in stopped.items()
        },
        "changes": changes,
        "world": _figures(world(1)),
        "seeds": len(before),
        "seconds": round(seconds, 1),
    }  # fmt: skip
    ours, peer = float(after[:, 0].mean()), float(before[:, 0].mean())
    return Result(
        name="tail", ours=round(ours, 4), peer=round(peer, 4), ratio=round(ours / peer, 3),
        unit="recall@50 of the rarest three deciles of queries", detail=detail,
    )  # fmt: skip


def _figures(shop: World) -> dict[str, Any]:
    """What a world is like."""
    asked = shop.frequency > 0
    clicks = np.sort(np.bincount(shop.clicks.item, minlength=len(shop.items)))[::-1]
    by_query = np.bincount(shop.clicks.query, minlength=len(shop.queries))[asked]
    rarest = np.sort(by_query)[: len(by_query) * TAIL // 10]
    return {
        "items": len(shop.items),
        "queries": int(asked.sum()),
        "clicks": len(shop.clicks),
        "relevant_a_query": round(float(shop.relevant[asked].sum(axis=1).mean()), 1),
        "clicks_a_tail_query": round(float(rarest.mean()), 1),
        "items_never_clicked": round(float((clicks == 0).mean()), 3),
        "clicks_on_the_first_hundredth_of_items": round(float(clicks[: len(clicks) // 100].sum() / clicks.sum()), 3),
    }


def _ends(recall: Array) -> tuple[float, float]:
    """The tail's recall and the head's."""
    return float(recall[:TAIL].mean()), float(recall[-1])


def _mean(values: Any) -> Any:
    return np.round(np.mean(values, axis=0), 4).tolist()


def _interval(values: Array) -> list[float]:
    """Mean, and the 95 % interval of it over worlds."""
    wide = _T[len(values)] * values.std(ddof=1) / np.sqrt(len(values))
    return [round(float(end), 4) for end in (values.mean(), values.mean() - wide, values.mean() + wide)]
