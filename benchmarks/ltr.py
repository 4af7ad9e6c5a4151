"""Claim: from clicks that follow positions, a ranker that weighs them by inverse examination, itself estimated from the
same clicks, wins back at least 80 % of the NDCG that a naive one loses against one trained on the true relevance.

The simulated shop knows the truth. Three rankers, each wrong in a way that features show (popular first, cheap first,
half of the tastes), put the same ten products in different orders; shoppers look at position k with probability 1 / k
and click what is relevant. Trees of the same size are fitted to: clicks as they are; clicks over the true examination;
clicks over the examination that is harvested from the rankers' differences; the true relevance. NDCG@10 is against the
true relevance, on queries of other shoppers. The peer is LightGBM's own LambdaRank with its model of positions, in the
same run on the same clicks, at the best of a few settings of its regularisation.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from benchmarks import Result, circumstances
from penstock.evaluate import EvaluationError
from penstock.learn.losses.ranking import Lists, ListSoftmax, objective
from penstock.learn.position import Clicks, Examination, by_em, by_harvest, by_shuffles
from penstock.simulator import Impressions, World

SEEDS = 5
QUERIES, TEST, WIDTH = 1_500, 1_000, 10
SESSIONS = 100_000
SHUFFLED = 0.05
TREES = {"num_leaves": 15, "learning_rate": 0.1, "min_data_in_leaf": 100, "num_threads": 1, "verbose": -1, "seed": 1}
ROUNDS = 100
PEER_REGULARISATION = (0.0, 1.0)
TRUST = 0.3
Floats = NDArray[np.float64]


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes."""
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"worlds to try (default {SEEDS})")
    parser.add_argument("--sessions", type=int, default=SESSIONS, help=f"sessions of each (default {SESSIONS:,})")


@dataclass(frozen=True)
class Task:
    """Queries of one world: `rows` (queries · 10, features), their true relevance, and what was shown and clicked."""

    world: World
    rows: NDArray[np.float32]
    relevance: Floats
    shown: Impressions
    place: NDArray[np.int64]
    """(sessions, 10): each shown product's row."""
    test_rows: NDArray[np.float32]
    test_relevance: Floats

    @property
    def clicks(self) -> Clicks:
        return Clicks.of_slates(self.place, self.shown.clicked)


def task(seed: int, sessions: int, trust: float = 0.0) -> Task:
    """Draws a world, the queries of half of its shoppers to learn from, and others to judge by."""
    world = World(seed=seed, shoppers=2_000, items=1_000, trust=trust)
    rng = np.random.default_rng([seed, 99])
    users = rng.integers(0, 1_000, QUERIES)
    candidates = _draw(rng, world, QUERIES)
    rows = features(world, users, candidates)
    taste, dear, popular = rows[..., : world.tastes], rows[..., world.tastes], rows[..., world.tastes + 1]
    scores = np.stack([popular, -dear, _unit(taste[..., : world.tastes // 2].sum(axis=-1))])
    scores = np.stack([_unit(score) for score in scores]) + 0.5 * rng.normal(size=scores.shape)
    shown = world.impressions(users, candidates, scores, rng, sessions=sessions, positions=WIDTH, shuffled=SHUFFLED)
    where = np.argsort(candidates, axis=1)
    place = np.empty_like(shown.slate)
    for column in range(WIDTH):
        at = (np.take_along_axis(candidates, where, 1)[shown.query] < shown.slate[:, [column]]).sum(axis=1)
        place[:, column] = shown.query * WIDTH + where[shown.query, at]
    others, unseen = rng.integers(1_000, 2_000, TEST), _draw(rng, world, TEST)
    return Task(
        world, rows.reshape(-1, rows.shape[-1]), world.relevance(users[:, None], candidates).ravel(), shown, place,
        features(world, others, unseen).reshape(-1, rows.shape[-1]), world.relevance(others[:, None], unseen),
    )  # fmt: skip


def _draw(rng: np.random.Generator, world: World, queries: int) -> NDArray[np.int64]:
    return np.array([rng.choice(world.items, WIDTH, replace=False) for _ in range(queries)])


def _unit(values: NDArray[Any]) -> Floats:
    return np.asarray((values - values.mean()) / values.std(), np.float64)


def features(world: World, users: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float32]:
    """What a shop could know of (queries, 10) pairs: taste by dimension, price, popularity, leaning to the category.

    The quality of a product, which adds to its relevance, is not among them.
    """
    catalogue, crowd = world.catalogue, world.crowd
    taste = crowd.vector[users][:, None] * catalogue.vector[items]
    dear = catalogue.list_dearness[items]
    popular = np.log(catalogue.popularity.mean(axis=0)[items])
    leaning = np.log(crowd.interest[users[:, None], catalogue.category[items]])
    columns = [dear, popular, leaning, dear * crowd.thrift[users][:, None]]
    return np.concatenate([taste, np.stack(columns, axis=-1)], axis=-1).astype(np.float32)


def fit(task: Task, gain: Floats) -> lightgbm.Booster:
    """Trees under the listwise softmax loss, one list a query: showings were added up, which that loss allows."""
    lists = Lists(gain, np.full(len(gain) // WIDTH, WIDTH))
    data = lightgbm.Dataset(task.rows, gain)
    return lightgbm.train({**TREES, "objective": objective(ListSoftmax(), lists)}, data, ROUNDS)


def added(task: Task, gain: Floats) -> Floats:
    """The gains (sessions · 10,) of each row's showings, summed and per session of its query."""
    total = np.bincount(task.place.ravel(), gain, len(task.rows))
    sessions = np.bincount(task.shown.query, minlength=QUERIES)
    return np.asarray(total / np.maximum(np.repeat(sessions, WIDTH), 1), np.float64)


def peer(task: Task, regularisation: float) -> lightgbm.Booster:
    """LightGBM's LambdaRank with a bias for each position, one list a session."""
    place = task.place.ravel()
    data = lightgbm.Dataset(
        task.rows[place], task.shown.clicked.ravel().astype(np.int8), group=np.full(len(task.shown), WIDTH),
        position=np.tile(np.arange(WIDTH), len(task.shown)),
    )  # fmt: skip
    settings = {"objective": "lambdarank", "lambdarank_position_bias_regularization": regularisation}
    return lightgbm.train({**TREES, **settings}, data, ROUNDS)


def ndcg(task: Task, booster: lightgbm.Booster) -> float:
    """NDCG@10 on the test queries, gains being the true relevance."""
    score = np.asarray(booster.predict(task.test_rows)).reshape(-1, WIDTH)
    rate = 1 / np.log2(np.arange(WIDTH) + 2)
    order = np.argsort(-score, axis=1, kind="stable")
    got = (np.take_along_axis(task.test_relevance, order, 1) * rate).sum(axis=1)
    best = (-np.sort(-task.test_relevance, axis=1) * rate).sum(axis=1)
    return float((got / best).mean())


def estimates(task: Task) -> dict[str, Examination]:
    """Examination by each way that these clicks allow."""
    clicks, shuffled = task.clicks, np.repeat(task.shown.shuffled, WIDTH)
    return {
        "harvest": by_harvest(clicks),
        "all_pairs": by_harvest(clicks, "all_pairs"),
        "em": by_em(clicks).examination,
        "shuffles": by_shuffles(clicks.take(shuffled)),
    }


def run(chosen: argparse.Namespace) -> Result:
    """Worlds, fits, and what each wins back."""
    if chosen.seeds < 1:
        raise EvaluationError("there is a world to try", got=f"--seeds {chosen.seeds}", remedy="give --seeds 2 or more")
    scores: dict[str, list[float]] = {}
    errors: dict[str, list[Floats]] = {}
    found: dict[str, Examination] = {}
    seconds = {"harvest": 0.0, "fit": 0.0, "peer": 0.0}
    peers: dict[float, list[float]] = {regularisation: [] for regularisation in PEER_REGULARISATION}
    for seed in range(1, chosen.seeds + 1):
        _say(f"world {seed} of {chosen.seeds}")
        one = task(seed, chosen.sessions)
        position, hits, truth = one.clicks.position, one.clicks.clicked, one.world.examination(WIDTH)
        began = perf_counter()
        by_harvest(one.clicks)
        seconds["harvest"] += perf_counter() - began
        found = estimates(one)
        for name, examination in found.items():
            errors.setdefault(name, []).append(np.abs(examination.probability / truth - 1))
        gains = {
            "naive": added(one, hits.astype(np.float64)),
            "ips_true": added(one, hits / truth[position]),
            "ips_estimated": added(one, found["harvest"].gains(position, hits)),
            "ips_em": added(one, found["em"].gains(position, hits)),
            "skyline": one.relevance,
        }
        for name, gain in gains.items():
            began = perf_counter()
            scores.setdefault(name, []).append(ndcg(one, fit(one, gain)))
            seconds["fit"] += (perf_counter() - began) / len(gains)
        _say("the peer")
        began = perf_counter()
        for regularisation, values in peers.items():
            values.append(ndcg(one, peer(one, regularisation)))
        seconds["peer"] += (perf_counter() - began) / len(peers)
    best = max(peers, key=lambda regularisation: float(np.mean(peers[regularisation])))
    scores["lightgbm"] = peers[best]
    gap = {name: recovered(values, scores) for name, values in scores.items()}
    detail: dict[str, Any] = {
        **circumstances(),
        "gap_recovered": gap["ips_estimated"]["mean"],
        "gap_recovered_by": gap,
        "ndcg": {name: interval(values) for name, values in scores.items()},
        "examination_worst_error": {name: round(float(np.max(worst)), 4) for name, worst in errors.items()},
        "examination_mean_error": {name: round(float(np.mean(worst)), 4) for name, worst in errors.items()},
        "examination_of_last_world": {
            "truth": _rounded(truth),
            **{n: {"probability": _rounded(e.probability), "error": _rounded(e.error)} for n, e in found.items()},
        },
        "trust": trusting(chosen),
        "intervals": "95 % over worlds" if chosen.seeds > 1 else "none of a single world; give --seeds 2 or more",
        "seeds": chosen.seeds, "sessions": chosen.sessions, "queries": QUERIES,
        "clicks_a_session": round(float(hits.mean() * WIDTH), 2),
        "peer_regularisation": best,
        "peer_ndcg_by_regularisation": {str(r): round(float(np.mean(v)), 4) for r, v in peers.items()},
        "seconds": {name: round(value / chosen.seeds, 2) for name, value in seconds.items()},
    }  # fmt: skip
    ours, theirs = float(np.mean(scores["ips_estimated"])), float(np.mean(scores["lightgbm"]))
    return Result(
        name="ltr", ours=round(ours, 4), peer=round(theirs, 4), ratio=round(ours / theirs, 4), unit="NDCG@10",
        detail=detail,
    )  # fmt: skip


def trusting(chosen: argparse.Namespace) -> dict[str, Any]:
    """The same where shoppers click high positions for their own sake: click model with trust, affine gains."""
    scores: dict[str, list[float]] = {}
    errors = []
    for seed in range(1, chosen.seeds + 1):
        _say(f"trust: world {seed} of {chosen.seeds}")
        one = task(seed, chosen.sessions, TRUST)
        position, hits = one.clicks.position, one.clicks.clicked
        believed = by_em(one.clicks, trust=True).examination
        errors.append(np.abs(believed.probability / one.world.examination(WIDTH) - 1))
        gains = {
            "naive": added(one, hits.astype(np.float64)),
            "ips_true": added(one, hits / one.world.examination(WIDTH)[position]),
            "affine_estimated": added(one, believed.gains(position, hits)),
            "skyline": one.relevance,
        }
        for name, gain in gains.items():
            scores.setdefault(name, []).append(ndcg(one, fit(one, gain)))
    return {
        "noise_at_the_first_position": TRUST,
        "gap_recovered_by": {name: recovered(values, scores) for name, values in scores.items()},
        "ndcg": {name: interval(values) for name, values in scores.items()},
        "examination_worst_error": round(float(np.max(errors)), 4),
        "examination_mean_error": round(float(np.mean(errors)), 4),
    }


def recovered(values: Sequence[float], scores: dict[str, list[float]]) -> dict[str, float | None]:
    """The share of the way from naive to skyline, world by world."""
    low, high = np.array(scores["naive"]), np.array(scores["skyline"])
    return interval(list((np.array(values) - low) / (high - low)))


def interval(values: Sequence[float]) -> dict[str, float | None]:
    """The mean over worlds with its 95 % interval (Student's t); one world has none.

    >>> interval([0.5]), interval([0.5, 0.7])["low"]
    ({'mean': 0.5, 'low': None, 'high': None}, -0.671)
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return {"mean": round(mean, 4), "low": None, "high": None}
    reach = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}.get(len(values), 1.96)
    error = float(np.std(values, ddof=1) / len(values) ** 0.5)
    return {"mean": round(mean, 4), "low": round(mean - reach * error, 4), "high": round(mean + reach * error, 4)}


def _rounded(values: Floats) -> list[float]:
    return [round(float(value), 4) for value in values]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
