"""Claim: on the payments of the Fraud Detection Handbook, by its own protocol, features that penstock's views compute
make a better detector than the best that was published, and the audit finds none that could not have been known.

Four weekly folds, each with a week to train on, a week until labels are known, and a week to judge; beside it the
Handbook's 15 features under models of scikit-learn and LightGBM, on the same splits in the same run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import Result, circumstances
from benchmarks._fraud import handbook
from benchmarks._fraud.protocol import Payments, Scores, Split, folds, judge, resampled
from penstock.apps.fraud.app import Chargeback, Payment, app
from penstock.audit import Proof
from penstock.audit.drawn import Texts
from penstock.audit.proof import ENGINES, Oracle, prove_on
from penstock.clock import DAY
from penstock.engines import BatchEngine, NaiveEngine
from penstock.events import Event, schema_of
from penstock.features import View
from penstock.learn.classify import Classifier
from penstock.stores import MemoryStore
from penstock.types import MISSING_INT, Array, Rows

DATA = Path("../shared/data/fraud/transactions.parquet")
DELAY = 7 * DAY
"""After how long a fraud is known, in the Handbook."""
PUBLISHED = {
    "one_split": {
        "logistic": [0.871, 0.606, 0.291], "random_forest": [0.867, 0.658, 0.287], "xgboost": [0.862, 0.639, 0.273]
    },
    "four_folds_tuned": {
        "random_forest": [0.870, 0.678, 0.299], "xgboost": [0.869, 0.687, 0.303], "lstm": [0.876, 0.665, 0.297],
        "balanced_bagging": [0.879, 0.680, 0.305],
    },
    "best": {"auc": 0.879, "ap": 0.687, "cp100": 0.305},
}  # fmt: skip
AUDITED = 100
"""Judged payments that are audited, with their customers and terminals."""
_LEVEL = (2.5, 97.5)


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes."""
    parser.add_argument("--data", type=Path, default=DATA, help=f"Parquet of the Handbook's table (default {DATA})")
    parser.add_argument(
        "--start", type=date.fromisoformat, default=date(2018, 7, 25),
        help="first day to train on in the latest fold (default 2018-07-25)",
    )  # fmt: skip


def run(chosen: argparse.Namespace) -> Result:
    """Features, folds, models, audit."""
    if not chosen.data.is_file():
        raise SystemExit(f"payments are read from a Parquet file; {chosen.data} is not there: give --data FILE")
    payments = Payments.read(chosen.data)
    splits = folds(payments, chosen.start)
    needed = np.unique(np.concatenate([part for split in splits for part in (split.train, split.test)]))
    _say(f"{len(payments):,} payments; features of {len(needed):,}")
    began = perf_counter()
    logs = streams(payments)
    matrix = features(payments, logs, needed)
    seconds = perf_counter() - began
    rows = {"penstock": matrix, **dict.fromkeys(handbook.MODELS, handbook.features(payments)[needed])}
    scores: dict[str, list[Array]] = {name: [] for name in rows}
    for number, split in enumerate(splits):
        _say(f"fold {number + 1} of {len(splits)}")
        train, test = np.searchsorted(needed, split.train), np.searchsorted(needed, split.test)
        fraud = payments.fraud[split.train]
        ours = Classifier().fit(matrix[train], fraud)
        scores["penstock"].append(ours.score(matrix[test]))
        for name in handbook.MODELS:
            scores[name].append(handbook.score(name, rows[name][train], fraud, rows[name][test]))
    judged = {
        name: [judge(payments, split.test, score) for split, score in zip(splits, found, strict=True)]
        for name, found in scores.items()
    }
    _say("the audit")
    asked = np.sort(np.random.default_rng(1).choice(splits[0].test, AUDITED, replace=False))
    proof = audit(payments, logs, asked)
    rows_audited = matrix[np.searchsorted(needed, asked)]
    wrong = unlike(payments, logs, asked, rows_audited)
    means = {name: _means(found) for name, found in judged.items()}
    tests, knowable = [split.test for split in splits], _knowable(payments, splits)
    best = max(means[name]["ap"] for name in handbook.MODELS)
    detail: dict[str, Any] = {
        **circumstances(),
        "payments": len(payments),
        "split_counts": [len(splits[0].train), int(payments.fraud[splits[0].train].sum()), len(splits[0].test),
                         int(payments.fraud[splits[0].test].sum())],
        **means["penstock"],
        "single_split": _figures(judged["penstock"][0]),
        "folds": [_figures(fold) for fold in judged["penstock"]],
        "intervals": _intervals(payments, splits, scores["penstock"], judged["penstock"]),
        "handbook_features": {name: means[name] for name in handbook.MODELS},
        "handbook_single_split": {name: _figures(judged[name][0]) for name in handbook.MODELS},
        "published": PUBLISHED,
        "cp100_of_all_that_was_known": _means(list(map(partial(judge, payments), tests, knowable)))["cp100"],
        "feature_seconds": round(seconds, 1),
        "values_audited": proof.values + rows_audited.size,
        "rows_audited": len(rows_audited),
        "mismatches": sum(proof.mismatches.values()) + wrong,
    }  # fmt: skip
    return Result(
        name="fraud", ours=means["penstock"]["ap"], peer=best,
        ratio=round(means["penstock"]["ap"] / best, 3), unit="average precision", detail=detail,
    )  # fmt: skip


def streams(payments: Payments) -> Mapping[str, Rows]:
    """The log's two streams: payments, and a chargeback for every fraud once it is known."""
    frauds = np.flatnonzero(payments.fraud)
    n = len(payments)
    time = np.concatenate([payments.time, payments.time[frauds] + DELAY])
    order = np.argsort(time, kind="stable")
    offset = np.empty(len(time), np.int64)
    offset[order] = np.arange(len(time))
    made = _rows(Payment, payments, np.arange(n), payments.time, offset[:n])
    known = _rows(Chargeback, payments, frauds, payments.time[frauds] + DELAY, offset[n:])
    # What each customer usually paid when the fraud was made, as the verdict on it would have seen it.
    customer = app.views["Customer"]
    keys, first = made.fields["customer"][frauds, None].astype(np.uint32), offset[:n][frauds]
    usual = BatchEngine({"payment": made}, Texts(())).values(customer, keys, payments.time[frauds], first)["mean_90d"]
    known.fields["usual"] = np.where(np.isnan(usual), MISSING_INT, np.rint(np.nan_to_num(usual)))
    return {"payment": made, "chargeback": known}


def _rows(
    event: type[Event], payments: Payments, at: NDArray[np.int64], time: NDArray[np.int64], offset: NDArray[np.int64]
) -> Rows:
    schema = schema_of(event)
    fields = np.zeros(len(at), schema.dtype)
    for name in ("customer", "terminal", "amount"):
        fields[name] = getattr(payments, name)[at]
    return Rows(schema.stream, offset, time, time, time, offset.astype(np.uint64), fields)


def features(payments: Payments, logs: Mapping[str, Rows], at: NDArray[np.int64]) -> NDArray[np.float32]:
    """The rows, (n, features), of the payments at `at` (n,), each as the app's verdict would have seen it."""
    recipe = app.verdicts["payment"].recipe
    engine = BatchEngine(logs, Texts(()))
    now, known = payments.time[at], logs["payment"].offset[at]

    def read(view: View, keys: NDArray[np.uint32], owner: NDArray[np.int64]) -> Mapping[str, Array]:
        _say(f"features of {view.name}")
        return engine.values(view, keys, now[owner], known[owner])

    keys = {name: logs["payment"].fields[name][at].astype(np.uint32) for name in recipe.keys}
    opened = recipe.assembler.open(read, keys, now)
    amounts = payments.amount[at].astype(np.float64)[:, None]
    nobody = np.zeros(len(at), np.uint32)
    return recipe.assembler.matrix(read, opened, np.arange(len(at)), nobody, amounts).rows.astype(np.float32)


def unlike(payments: Payments, logs: Mapping[str, Rows], asked: NDArray[np.int64], rows: NDArray[np.float32]) -> int:
    """How many values of the rows (n, features) of the payments at `asked` are not what the naive engine finds among
    the events before each in the log, at its time."""
    recipe = app.verdicts["payment"].recipe
    naive = NaiveEngine(_around(payments, logs, asked), recipe.views, Texts(()))
    wrong = 0
    for place, row in zip(asked.tolist(), rows, strict=True):
        now, known = int(payments.time[place]), int(logs["payment"].offset[place])

        def read(
            view: View, keys: NDArray[np.uint32], owner: NDArray[np.int64], now: int = now, known: int = known
        ) -> Mapping[str, Array]:
            return naive.table(view, keys, now, known)

        one = np.zeros(1, np.uint32)
        keys = {name: logs["payment"].fields[name][[place]].astype(np.uint32) for name in recipe.keys}
        opened = recipe.assembler.open(read, keys, payments.time[[place]])
        amount = payments.amount[[place]].astype(np.float64)[:, None]
        found = recipe.assembler.matrix(read, opened, np.zeros(1, np.int64), one, amount).rows[0].astype(np.float32)
        wrong += int((~((found == row) | (np.isnan(found) & np.isnan(row)))).sum())
    return wrong


def _around(payments: Payments, logs: Mapping[str, Rows], asked: NDArray[np.int64]) -> dict[str, Rows]:
    """All events of the customers and terminals of some payments."""
    out = {}
    for stream, rows in logs.items():
        mine = np.isin(rows.fields["customer"], payments.customer[asked])
        mine |= np.isin(rows.fields["terminal"], payments.terminal[asked])
        out[stream] = rows.take(mine)
    return out


def audit(payments: Payments, logs: Mapping[str, Rows], asked: NDArray[np.int64]) -> Proof:
    """The naive, stream and batch engines on all events of the customers and terminals of the payments at `asked`."""
    proof = Proof()
    for stream, part in _around(payments, logs, asked).items():
        part = replace(part, offset=np.arange(len(part)))
        views = [view for view in app.views.values() if view.stream == stream and "device" not in view.by]
        naive = NaiveEngine({stream: part}, views, Texts(()))

        def keys(view: View) -> NDArray[np.uint32]:
            return np.unique(np.stack([getattr(payments, name)[asked] for name in view.by], axis=1), axis=0).astype(
                np.uint32
            )

        prove_on(
            proof, views, part, Texts(()), [Oracle(keys, naive.table)], np.random.default_rng(2),
            stores={"memory": lambda path: MemoryStore()}, engines=ENGINES, most=5_000,
        )  # fmt: skip
    return proof


def _knowable(payments: Payments, splits: Sequence[Split]) -> list[Array]:
    """What a ranking would say that knew every fraud, but for those at terminals of which no fraud was known yet.

    Of a terminal whose payments have become fraudulent without their amounts being unusual, nothing tells before
    the first of them is known.
    """
    frauds = np.flatnonzero(payments.fraud)
    out = []
    for split in splits:
        score = np.zeros(len(split.test))
        for place in np.flatnonzero(payments.fraud[split.test]).tolist():
            now = payments.time[split.test[place]]
            here = frauds[payments.terminal[frauds] == payments.terminal[split.test[place]]]
            known = payments.time[here] + DELAY
            usual = payments.amount[(payments.customer == payments.customer[split.test[place]]) & (payments.time < now)]
            large = payments.amount[split.test[place]] > 1.5 * usual.mean() if len(usual) else True
            score[place] = bool(large or ((known < now) & (known >= now - 28 * DAY)).any())
        out.append(score)
    return out


def _figures(scores: Scores) -> dict[str, float]:
    return {"auc": round(scores.auc, 4), "ap": round(scores.ap, 4), "cp100": round(scores.cp100, 4)}


def _means(scores: Sequence[Scores]) -> dict[str, float]:
    return {name: round(float(np.mean([getattr(s, name) for s in scores])), 4) for name in ("auc", "ap", "cp100")}


def _intervals(
    payments: Payments, splits: Sequence[Split], scores: Sequence[Array], judged: Sequence[Scores]
) -> dict[str, list[float]]:
    """95 % intervals of the means over folds: customers drawn anew within each, days for the card precision."""
    drawn = [
        resampled(payments, split.test, [score], seed=number)[:, 0]
        for number, (split, score) in enumerate(zip(splits, scores, strict=True))
    ]
    auc, ap = np.mean(drawn, axis=0).T
    random = np.random.default_rng(0)
    days = np.concatenate([fold.daily for fold in judged])
    cp100 = days[random.integers(0, len(days), (2_000, len(days)))].mean(axis=1)
    found = {"auc": auc, "ap": ap, "cp100": cp100}
    return {name: [round(float(end), 4) for end in np.percentile(values, _LEVEL)] for name, values in found.items()}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
