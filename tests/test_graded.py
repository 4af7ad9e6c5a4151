"""Metrics of many relevant items are expectations over the orders of tied ones; clicks weighed back are unbiased."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import dcg_score, ndcg_score

from penstock.evaluate import EvaluationError, Ranked
from penstock.evaluate.graded import (
    average_precision_at,
    dcg_at,
    ips_ndcg,
    ndcg_at,
    precision_at,
    recall_at,
    reciprocal_rank_at,
    sampled_rank_of_positive,
)

ROW = st.tuples(st.sampled_from([-math.inf, 0.0, 0.5, 1.0]), st.integers(0, 3))
LISTS = st.lists(st.lists(ROW, min_size=1, max_size=6), min_size=1, max_size=4)


def ranked(lists: Sequence[Sequence[tuple[float, int]]], ties: str = "expected", seed: int = 0) -> Ranked:
    """The lists as rows, shuffled."""
    rows = [(score, grade, i) for i, one in enumerate(lists) for score, grade in one]
    order = np.random.default_rng(seed).permutation(len(rows))
    score, grade, owner = (np.array(column)[order] for column in zip(*rows, strict=True))
    return Ranked.of(score, grade, owner, ties=ties)  # type: ignore[arg-type]


def orders(one: Sequence[tuple[float, int]]) -> list[tuple[list[int], list[int]]]:
    """All orders of a list that its scores allow: grades by place, and those of items that are not in it."""
    inside = [row for row in one if row[0] > -math.inf]
    out = [grade for score, grade in one if score == -math.inf]
    allowed = [p for p in itertools.permutations(inside) if list(p) == sorted(p, key=lambda row: -row[0])]
    return [([grade for _, grade in p], out) for p in allowed]


def plain_dcg(grades: Sequence[int], k: int) -> float:
    return sum(grade / math.log2(place + 2) for place, grade in enumerate(grades[:k]))


def plain_ndcg(grades: list[int], out: list[int], k: int) -> float:
    return plain_dcg(grades, k) / plain_dcg(sorted(grades + out, reverse=True), k)


def plain_precision(grades: list[int], out: list[int], k: int) -> float:
    return sum(grade > 0 for grade in grades[:k]) / k


def plain_recall(grades: list[int], out: list[int], k: int) -> float:
    return sum(grade > 0 for grade in grades[:k]) / sum(grade > 0 for grade in grades + out)


def plain_reciprocal(grades: list[int], out: list[int], k: int) -> float:
    return next((1 / (place + 1) for place, grade in enumerate(grades[:k]) if grade > 0), 0.0)


def plain_average_precision(grades: list[int], out: list[int], k: int) -> float:
    found = [plain_precision(grades, out, place + 1) for place, grade in enumerate(grades[:k]) if grade > 0]
    return sum(found) / min(k, sum(grade > 0 for grade in grades + out))


PLAIN: dict[str, tuple[Callable[..., np.ndarray], Callable[[list[int], list[int], int], float]]] = {
    "ndcg": (ndcg_at, plain_ndcg),
    "precision": (precision_at, plain_precision),
    "recall": (recall_at, plain_recall),
    "reciprocal rank": (reciprocal_rank_at, plain_reciprocal),
    "average precision": (average_precision_at, plain_average_precision),
}


@pytest.mark.parametrize("name", PLAIN)
@settings(max_examples=150, deadline=None)
@given(lists=LISTS, k=st.integers(1, 7), seed=st.integers(0, 9))
def test_each_metric_is_the_mean_of_its_definition_over_all_orders_of_tied_items(name, lists, k, seed):
    """Every permutation that the scores allow is measured by the textbook's definition, one list at a time."""
    fast, plain = PLAIN[name]
    values = fast(ranked(lists, seed=seed), k).tolist()
    for value, one in zip(values, lists, strict=True):
        if any(grade for _, grade in one):
            assert value == pytest.approx(np.mean([plain(*order, k) for order in orders(one)]))
        else:
            assert math.isnan(value) or name == "precision"


@pytest.mark.parametrize("name", PLAIN)
@settings(max_examples=60, deadline=None)
@given(lists=LISTS, k=st.integers(1, 7))
def test_pessimistic_and_optimistic_ties_are_the_worst_and_the_best_order(name, lists, k):
    """Of all orders that the scores allow, none is below the pessimistic figure or above the optimistic one."""
    fast, plain = PLAIN[name]
    low, high = (fast(ranked(lists, ties), k).tolist() for ties in ("pessimistic", "optimistic"))
    for worst, best, one in zip(low, high, lists, strict=True):
        if any(grade for _, grade in one):
            found = [plain(*order, k) for order in orders(one)]
            assert (worst, best) == (pytest.approx(min(found)), pytest.approx(max(found)))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.booleans())
def test_ndcg_and_dcg_equal_those_of_scikit_learn(seed, k, exponential):
    """On many lists of equal length with ties and grades, at any cut, linear and exponential gains."""
    rng = np.random.default_rng(seed)
    grades, scores = rng.integers(0, 4, (20, 9)), rng.integers(0, 5, (20, 9)) / 4
    grades[:, 0] = 1  # scikit-learn gives 0 where nothing is relevant
    mine = Ranked.of(scores.ravel(), grades.ravel(), np.repeat(np.arange(20), 9))
    gain = "exponential" if exponential else "linear"
    theirs = 2.0**grades - 1 if exponential else grades
    assert ndcg_at(mine, k, gain=gain).mean() == pytest.approx(ndcg_score(theirs, scores, k=k))
    assert dcg_at(mine, k, gain=gain).mean() == pytest.approx(dcg_score(theirs, scores, k=k))


def test_metrics_equal_those_of_trec_eval():
    """NDCG, average precision, reciprocal rank, recall and precision at 5 of 200 lists without ties."""
    trec = pytest.importorskip("pytrec_eval")
    rng = np.random.default_rng(4)
    grades, scores = rng.integers(0, 3, (200, 15)), rng.random((200, 15))
    grades[:, 0] = 1
    truth = {str(i): {str(j): int(g) for j, g in enumerate(row)} for i, row in enumerate(grades)}
    run = {str(i): {str(j): float(s) for j, s in enumerate(row)} for i, row in enumerate(scores)}
    names = {"ndcg_cut_5", "map_cut_5", "recip_rank", "recall_5", "P_5"}
    found = trec.RelevanceEvaluator(truth, names).evaluate(run)
    mine = Ranked.of(scores.ravel(), grades.ravel(), np.repeat(np.arange(200), 15))
    values = {
        "ndcg_cut_5": ndcg_at(mine, 5), "map_cut_5": average_precision_at(mine, 5, over="all"),
        "recip_rank": reciprocal_rank_at(mine), "recall_5": recall_at(mine, 5), "P_5": precision_at(mine, 5),
    }  # fmt: skip
    for name, column in values.items():
        # It sorts by scores in single precision.
        np.testing.assert_allclose(column, [found[str(i)][name] for i in range(200)], atol=1e-6, err_msg=name)


def test_a_perfect_list_has_one_however_many_relevant_items_there_are():
    """Both the ideal gain and what average precision is divided by are cut with the list."""
    perfect = Ranked.of(-np.arange(30.0), np.ones(30), np.zeros(30))
    assert ndcg_at(perfect, 5).tolist() == average_precision_at(perfect, 5).tolist() == [1.0]
    assert average_precision_at(perfect, 5, over="all").tolist() == [5 / 30]


# Clicks


def shown(rng: np.random.Generator, lists: int, width: int = 6) -> tuple[np.ndarray, ...]:
    """Lists served in an order of which each place is looked at half as often as the one above it.

    Gives (lists, width) relevance, of one item a list, clicks, the chance that each was looked at, and scores of
    another ranker, which is right more often than the one that was served.
    """
    relevant = np.zeros((lists, width))
    taken = rng.integers(0, width, lists)
    relevant[np.arange(lists), taken] = 1
    served = np.argsort(-(relevant * 0.3 + rng.random((lists, width))), axis=1)
    place = np.argsort(served, axis=1)
    looked = 0.5**place
    clicks = relevant * (rng.random((lists, width)) < looked)
    return relevant, clicks, looked, relevant * 0.5 + rng.random((lists, width))


@pytest.mark.parametrize("self_normalised", [False, True])
def test_clicks_weighed_by_inverse_propensity_give_the_ndcg_by_relevance_and_plain_clicks_do_not(self_normalised):
    """Over 200 repeats of 300 lists; the ranker that was served is praised by plain clicks, by weighed ones not."""
    rng = np.random.default_rng(6)
    errors: dict[str, list[float]] = {"weighed": [], "plain": []}
    owner = np.repeat(np.arange(300), 6)
    for _ in range(200):
        relevant, clicks, looked, _ = (column.ravel() for column in shown(rng, 300))
        score = looked  # the order that was served
        truth = ndcg_at(Ranked.of(score, relevant, owner)).mean()
        for name, chance in (("weighed", looked), ("plain", np.ones(len(looked)))):
            found = ips_ndcg(score, clicks, chance, owner, self_normalised=self_normalised, repeats=1)
            errors[name].append(found.mean - truth)
    bias, plain = np.mean(errors["weighed"]), np.mean(errors["plain"])
    assert abs(bias) < 4 * np.std(errors["weighed"]) / math.sqrt(200) + 0.004
    assert abs(plain) > 0.1


def test_the_interval_of_weighed_clicks_covers_the_truth():
    """In at least 88 of 100 repeats, at a level of 95 %, over 400 lists."""
    rng = np.random.default_rng(9)
    many = shown(np.random.default_rng(1), 20_000)
    truth = ndcg_at(Ranked.of(many[3].ravel(), many[0].ravel(), np.repeat(np.arange(20_000), 6))).mean()
    owner, covered = np.repeat(np.arange(400), 6), 0
    for seed in range(100):
        _, clicks, looked, score = (column.ravel() for column in shown(rng, 400))
        found = ips_ndcg(score, clicks, looked, owner, repeats=200, seed=seed)
        covered += found.low <= truth <= found.high
    assert covered >= 88


def test_clipping_bounds_what_one_click_weighs():
    """With every click weighing 1 at most, the figure is that of plain clicks."""
    rng = np.random.default_rng(2)
    _, clicks, looked, score = (column.ravel() for column in shown(rng, 50))
    owner = np.repeat(np.arange(50), 6)
    plain = ips_ndcg(score, clicks, np.ones(len(looked)), owner)
    assert ips_ndcg(score, clicks, looked, owner, most_weight=1.0) == plain
    assert ips_ndcg(score, clicks, looked, owner) != plain


def test_intervals_of_weighed_clicks_resample_users():
    """One user's lists are not independent: the interval by user is wider where lists of a user agree."""
    users = np.repeat(np.arange(20), 60)
    score = np.tile([0.9, 0.5, 0.1], 400)
    clicks = np.where(np.repeat(np.arange(20) % 2, 60) == 1, score == 0.9, score == 0.1)
    lists = np.repeat(np.arange(400), 3)
    by_list, by_user = (ips_ndcg(score, clicks, np.ones(1200), lists, users=column, seed=1) for column in (None, users))
    assert by_user.high - by_user.low > 3 * (by_list.high - by_list.low)


# Sampled ranks


def test_sampled_ranks_put_a_worse_ranker_first():
    """Why they are not reported: at 100 items drawn of 10,000 the ranker that finds nothing in its first ten wins."""
    rng = np.random.default_rng(3)
    size, lists = 10_000, 200
    place = {"sharp": np.where(np.arange(lists) % 4 == 0, 1, 5_000), "blunt": np.full(lists, 600)}
    full, sampled = {}, {}
    for name, at in place.items():
        scores = np.tile(-np.arange(size, dtype=float), lists)
        positive = np.zeros((lists, size), bool)
        positive[np.arange(lists), at - 1] = True
        owner = np.repeat(np.arange(lists), size)
        ranks = sampled_rank_of_positive(scores, positive.ravel(), owner, 100, seed=int(rng.integers(9)))
        full[name], sampled[name] = (at <= 10).mean(), (ranks <= 10).mean()
    assert full["sharp"] == 0.25
    assert full["blunt"] == 0
    assert sampled["blunt"] > 0.8 > sampled["sharp"]


@given(LISTS, st.integers(1, 8), st.integers(0, 5))
def test_sampled_ranks_among_all_others_are_ranks_and_fewer_others_never_rank_lower(lists, negatives, seed):
    """With as many drawn as there are the rank is the pessimistic one; with fewer it can only be higher up."""
    rows = [(score, i) for i, one in enumerate(lists) for score, _ in one]
    score, owner = (np.array(column) for column in zip(*rows, strict=True))
    positive = np.diff(owner, prepend=-1) > 0
    every = sampled_rank_of_positive(score, positive, owner, 100, seed=seed)
    some = sampled_rank_of_positive(score, positive, owner, negatives, seed=seed)
    plain = [1 + sum(s >= one[0][0] for s, _ in one[1:]) for one in lists]
    assert every.tolist() == plain
    assert (some <= every).all()
    assert (some <= negatives + 1).all()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: Ranked.of(np.array([np.nan]), np.ones(1), np.zeros(1)), "a score is a number"),
        (lambda: Ranked.of(np.array([np.inf]), np.ones(1), np.zeros(1)), "a score is a number"),
        (lambda: Ranked.of(np.ones(1), -np.ones(1), np.zeros(1)), "a grade is 0"),
        (lambda: Ranked.of(np.ones(2), np.ones(1), np.zeros(1)), "one entry for each list"),
        (lambda: ndcg_at(ranked([[(1.0, 1)]]), 0), "k is at least 1"),
        (lambda: ips_ndcg(np.ones(1), np.ones(1), np.zeros(1), np.zeros(1)), "looked at with a chance"),
        (lambda: ips_ndcg(np.ones(1), np.zeros(1), np.ones(1), np.zeros(1)), "there is a click"),
        (lambda: sampled_rank_of_positive(np.ones(2), np.ones(2, bool), np.zeros(2), 5), "at most one positive"),
    ],
)
def test_measurements_that_make_no_sense_are_refused_with_the_rule(call, said):
    """The message says what is asked for."""
    with pytest.raises(EvaluationError, match=said):
        call()
