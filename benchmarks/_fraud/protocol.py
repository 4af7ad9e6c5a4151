"""The protocol of the Fraud Detection Handbook (Le Borgne et al., 2022): its splits, and its card precision.

A week to train on, a week until its labels are known, a week of payments to judge. Cards that were known to be
compromised when a payment was made are not judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

import penstock as ps
from penstock.clock import DAY
from penstock.types import Array

WEEK = 7
FOLDS = 4
_EPOCH = date(1970, 1, 1)


@dataclass(frozen=True)
class Payments:
    """Payments in the order in which they were made: columns of n values.

    `time` in microseconds, `amount` in cents; `customer` and `terminal` are codes from 1 on; `day` counts from 1970.
    """

    time: NDArray[np.int64]
    customer: NDArray[np.int64]
    terminal: NDArray[np.int64]
    amount: NDArray[np.int64]
    fraud: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.time)

    @property
    def day(self) -> NDArray[np.int64]:
        return self.time // DAY

    @cached_property
    def usual(self) -> NDArray[np.int64]:
        """What each customer paid on average in the 90 days before each payment, in cents; 0 before the first."""
        frame = pl.DataFrame({"customer": self.customer, "time": self.time, "amount": self.amount})
        frame = frame.with_row_index("at").with_columns(pl.col("time").cast(pl.Datetime("us"))).sort("customer", "time")
        mean = pl.col("amount").rolling_mean_by("time", "90d", closed="left").over("customer")
        found = frame.with_columns(mean.alias("usual")).sort("at")["usual"].fill_null(0.0)
        return np.asarray(np.rint(found.to_numpy()), np.int64)

    @classmethod
    def read(cls, file: Path) -> Payments:
        """The Handbook's table of transactions, from Parquet."""
        frame = pl.read_parquet(file).sort("TX_DATETIME", "TRANSACTION_ID")
        time = frame["TX_DATETIME"].cast(pl.Datetime("us")).to_physical().to_numpy()
        customer, terminal = (frame[f"{name}_ID"].cast(pl.Int64).to_numpy() + 1 for name in ("CUSTOMER", "TERMINAL"))
        amount = np.rint(frame["TX_AMOUNT"].to_numpy() * 100).astype(np.int64)
        return cls(time, customer, terminal, amount, frame["TX_FRAUD"].to_numpy() > 0)


@dataclass(frozen=True)
class Split:
    """Positions of payments to train on and to judge."""

    train: NDArray[np.int64]
    test: NDArray[np.int64]


def folds(payments: Payments, start: date) -> list[Split]:
    """Four splits, training from `start` and from one, two and three weeks before it.

    Raises:
        SystemExit: the payments do not reach from the first to the last of these days.
    """
    day = payments.day
    first, last = start - timedelta(WEEK * (FOLDS - 1)), start + timedelta(3 * WEEK - 1)
    if not len(payments) or _number(first) < day[0] or _number(last) > day[-1]:
        raise SystemExit(
            f"four folds that train from {start} take payments of {first} to {last}; the file has others: "
            "give another --start"
        )
    return [_split(payments, day, _number(start) - WEEK * fold) for fold in range(FOLDS)]


def _number(day: date) -> int:
    return (day - _EPOCH).days


def _split(payments: Payments, day: NDArray[np.int64], start: int) -> Split:
    train = (day >= start) & (day < start + WEEK)
    known = set(payments.customer[train & payments.fraud].tolist())
    tests = []
    for ahead in range(WEEK):
        # What becomes known on the morning of the test's day.
        known |= set(payments.customer[(day == start + WEEK + ahead - 1) & payments.fraud].tolist())
        today = np.flatnonzero(day == start + 2 * WEEK + ahead)
        tests.append(today[~np.isin(payments.customer[today], list(known))])
    return Split(np.flatnonzero(train), np.concatenate(tests))


@dataclass(frozen=True)
class Scores:
    """How good a ranking of judged payments is; `daily` is the card precision of each day, (7,)."""

    auc: float
    ap: float
    daily: NDArray[np.float64]

    @property
    def cp100(self) -> float:
        return float(self.daily.mean())


def judge(payments: Payments, test: NDArray[np.int64], score: Array) -> Scores:
    """The three figures of the Handbook for scores (n,) of the payments at `test` (n,)."""
    fraud = payments.fraud[test]
    return Scores(
        ps.roc_auc(fraud, score), float(average_precision_score(fraud, score)),
        card_precision(payments.day[test], payments.customer[test], fraud, score),
    )  # fmt: skip


def card_precision(day: Array, card: Array, fraud: Array, score: Array, k: int = 100) -> NDArray[np.float64]:
    """Of the k cards with the highest score of a day the share that is compromised, a day at a time.

    A card that was found is looked at no more on later days.

    >>> card_precision(np.array([0, 0, 1]), np.array([5, 6, 5]), np.array([1, 0, 1]), np.array([.9, .8, .9]), k=2)
    array([0.5, 0. ])
    """
    found: set[int] = set()
    out = []
    for today in np.unique(day):
        at = np.flatnonzero((day == today) & ~np.isin(card, list(found)))
        cards, which = np.unique(card[at], return_inverse=True)
        highest, compromised = np.full(len(cards), -np.inf), np.zeros(len(cards), bool)
        np.maximum.at(highest, which, score[at])
        np.logical_or.at(compromised, which, fraud[at] > 0)
        best = np.argsort(-highest, kind="stable")[:k]
        out.append(compromised[best].sum() / k)
        found |= set(cards[best][compromised[best]].tolist())
    return np.array(out)


def resampled(
    payments: Payments, test: NDArray[np.int64], scores: Sequence[Array], *, repeats: int = 200, seed: int = 0
) -> NDArray[np.float64]:
    """AUC and average precision of several rankings on customers drawn anew: (repeats, rankings, 2)."""
    random = np.random.default_rng(seed)
    customers, which = np.unique(payments.customer[test], return_inverse=True)
    out = np.empty((repeats, len(scores), 2))
    for turn in range(repeats):
        times = np.bincount(random.integers(0, len(customers), len(customers)), minlength=len(customers))[which]
        at = np.repeat(np.arange(len(test)), times)
        fraud = payments.fraud[test][at]
        for place, score in enumerate(scores):
            out[turn, place] = ps.roc_auc(fraud, score[at]), average_precision_score(fraud, score[at])
    return out
