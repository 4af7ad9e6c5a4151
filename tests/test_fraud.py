"""The protocol of the Fraud Detection Handbook is followed to the letter, on features that know nothing too early."""

from __future__ import annotations

import argparse
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from benchmarks import fraud
from benchmarks._fraud.protocol import Payments, card_precision, folds, judge, resampled

from penstock.app import App
from penstock.clock import DAY
from penstock.errors import NotFoundError

START = date(2018, 7, 25)


def payments(n: int = 6_000, customers: int = 60, seed: int = 1) -> Payments:
    """Payments of eight weeks, of which the large ones and those at some terminals are frauds."""
    random = np.random.default_rng(seed)
    begin = int(np.datetime64("2018-07-01", "us").astype(np.int64))
    time = np.sort(begin + random.integers(0, 56 * DAY, n))
    amount = np.rint(random.gamma(4, 1_000, n)).astype(np.int64) + 1
    customer, terminal = random.integers(1, customers + 1, n), random.integers(1, 101, n)
    return Payments(time, customer, terminal, amount, (amount > 11_000) | ((terminal <= 2) & (random.random(n) < 0.7)))


@pytest.fixture(scope="module")
def made() -> Payments:
    return payments()


def test_splits_are_the_handbooks(shared_data: Path) -> None:
    """On its own file the counts of the book: 67,240 with 598 frauds to train on, 58,264 with 385 to judge."""
    real = Payments.read(shared_data / "fraud" / "transactions.parquet")
    first, *earlier = folds(real, START)
    assert (len(first.train), int(real.fraud[first.train].sum())) == (67_240, 598)
    assert (len(first.test), int(real.fraud[first.test].sum())) == (58_264, 385)
    assert [str(np.datetime64(int(real.day[split.test[0]]), "D")) for split in earlier] == [
        "2018-08-01", "2018-07-25", "2018-07-18",
    ]  # fmt: skip


def test_no_card_is_judged_that_was_known_to_be_compromised(made: Payments) -> None:
    """Not one payment of the test week is of a customer with a fraud in the training week or a week before."""
    for split in folds(made, date(2018, 7, 29)):
        first = made.day[split.train].min()
        for at in split.test.tolist():
            before = (made.day >= first) & (made.day < first + 7)
            before |= (made.day >= first + 6) & (made.day < made.day[at] - 7)
            assert not made.fraud[before & (made.customer == made.customer[at])].any()


def test_days_that_the_file_has_not_are_refused(made: Payments) -> None:
    """The error names the days that are missing."""
    with pytest.raises(SystemExit, match="2018-07-04 to 2018-08-14"):
        folds(replace(made, time=made.time + 30 * DAY), START)


def test_card_precision_counts_cards_and_finds_each_once() -> None:
    """Against a count by hand: two payments of one card are one card; a card found on a day is gone on the next."""
    day, card = np.array([0, 0, 0, 0, 1, 1, 1]), np.array([1, 1, 2, 3, 1, 2, 3])
    fraudulent = np.array([0, 1, 0, 1, 1, 0, 1])
    score = np.array([0.9, 0.1, 0.8, 0.2, 0.9, 0.8, 0.7])
    assert card_precision(day, card, fraudulent, score, k=2).tolist() == [0.5, 0.5]


def test_features_are_the_audited_ones_and_know_nothing_too_early(made: Payments) -> None:
    """The audit finds no difference; and frauds that become known later leave every feature before as it was."""
    logs = fraud.streams(made)
    at = np.arange(len(made) - 1_500, len(made) - 800)
    found = fraud.features(made, logs, at)
    later = replace(made, fraud=made.fraud & (made.time + fraud.DELAY < made.time[at[0]]))
    same = fraud.features(later, fraud.streams(later), at[:1])
    np.testing.assert_array_equal(found[:1], same)
    assert np.isfinite(found).any(axis=0).sum() > 40
    proof = fraud.audit(made, logs, at[::7])
    assert proof.values > 5_000
    assert not proof.mismatches
    assert fraud.unlike(made, logs, at[::7], found[::7]) == 0


def test_the_audit_looks_at_the_rows_that_are_scored(made: Payments, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that know a fraud a day too early, or are of a minute later, are not what the naive engine finds; nor is a
    single wrong value."""
    logs = fraud.streams(made)
    at = np.arange(len(made) - 1_500, len(made) - 1_400)
    right = fraud.features(made, logs, at)
    with monkeypatch.context() as patch:
        patch.setattr(fraud, "DELAY", 6 * DAY)
        early = fraud.streams(made)
    asked = replace(made, time=made.time + 60_000_000)
    assert fraud.unlike(made, logs, at, right) == 0
    assert fraud.unlike(made, logs, at, fraud.features(made, early, at)) > 0
    assert fraud.unlike(made, logs, at, fraud.features(asked, logs, at)) > 0
    right[3, 5] += 1
    assert fraud.unlike(made, logs, at, right) == 1


def test_intervals_hold_the_figure_that_they_are_of(made: Payments) -> None:
    """Customers drawn anew scatter around the figure of all."""
    split = folds(made, date(2018, 7, 29))[0]
    score = made.amount[split.test] + np.random.default_rng(4).normal(0, 3_000, len(split.test))
    figures = judge(made, split.test, score)
    low, high = np.percentile(resampled(made, split.test, [score], repeats=60)[:, 0], (1, 99), axis=0)
    assert low[0] < figures.auc < high[0]
    assert low[1] < figures.ap < high[1]


def test_a_file_that_is_not_there_is_named() -> None:
    """Before anything is computed."""
    with pytest.raises(SystemExit, match=r"nowhere\.parquet is not there: give --data"):
        fraud.run(argparse.Namespace(data=Path("nowhere.parquet"), start=START))


def test_an_app_without_decisions_says_so(tmp_path: Path) -> None:
    """Asked for a decision, it names the remedy instead of an empty list."""
    system = App("none", home=tmp_path)
    with pytest.raises(NotFoundError, match="the app has none: add one"):
        system.train("payment")
