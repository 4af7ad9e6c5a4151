"""Ranking metrics equal their plain definitions, intervals cover the truth, the simplest good candidate is taken."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.evaluate import (
    Candidate,
    EvaluationError,
    binned,
    bootstrap,
    compare,
    coverage,
    hit_rate,
    intervals,
    mrr,
    ndcg,
    paired,
    rank_in_list,
    rank_of_positive,
    recall_at_k,
)
from penstock.evaluate.intervals import resampled_means

CODES = st.integers(1, 12)
LISTS = st.lists(st.lists(CODES, max_size=8, unique=True), min_size=1, max_size=12)


def padded(lists: list[list[int]], width: int = 8) -> np.ndarray:
    return np.array([row + [0] * (width - len(row)) for row in lists], np.uint32)


def plain_dcg(relevance: list[int]) -> float:
    return sum(gain / math.log2(place + 2) for place, gain in enumerate(relevance))


@given(LISTS, st.data(), st.integers(1, 10))
def test_hit_rate_mrr_and_ndcg_equal_their_textbook_definitions(lists, data, k):
    taken = [data.draw(CODES) for _ in lists]
    ranks = rank_in_list(padded(lists), np.array(taken, np.uint32))
    cut = [row[:k] for row in lists]
    n = len(lists)
    assert hit_rate(ranks, k) == pytest.approx(sum(x in row for row, x in zip(cut, taken, strict=True)) / n)
    first = [1 / (row.index(x) + 1) if x in row else 0 for row, x in zip(cut, taken, strict=True)]
    assert mrr(ranks, k) == pytest.approx(sum(first) / n)
    gained = [plain_dcg([int(item == x) for item in row]) / plain_dcg([1]) for row, x in zip(cut, taken, strict=True)]
    assert ndcg(ranks, k) == pytest.approx(sum(gained) / n)


@pytest.mark.parametrize("metric", [hit_rate, mrr, ndcg])
def test_what_stands_past_the_first_k_places_is_as_good_as_absent(metric):
    assert metric(np.array([1, 3, 4, 99]), 3) == metric(np.array([1, 3, 0, 0]), 3)
    assert metric(np.array([3]), 3) > 0


def test_an_item_never_retrieved_stays_in_the_denominator():
    assert hit_rate(np.array([1, 0, 0, 0]), 20) == 0.25


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30),
    st.data(),
    st.sampled_from(["pessimistic", "average", "optimistic"]),
)
def test_the_rank_of_a_tied_positive_is_its_place_in_a_sorted_list(rows, data, ties):
    groups = sorted({group for group, _ in rows})
    positive = np.zeros(len(rows), bool)
    for group in groups:
        mine = [i for i, row in enumerate(rows) if row[0] == group]
        pick = data.draw(st.sampled_from([None, *mine]))
        if pick is not None:
            positive[pick] = True

    def place(group: int, positive_first: bool) -> int:
        mine = [(-score, positive[i] != positive_first) for i, (g, score) in enumerate(rows) if g == group]
        flags = [bool(positive[i]) for i, (g, _) in enumerate(rows) if g == group]
        ordered = sorted(zip(mine, flags, strict=True))
        return next((n + 1 for n, (_, flag) in enumerate(ordered) if flag), 0)

    worst, best = ([place(group, first) for group in groups] for first in (False, True))
    middle = [math.ceil((a + b) / 2) for a, b in zip(worst, best, strict=True)]
    table = np.array(rows)
    ranks = rank_of_positive(table[:, 1].astype(float), positive, table[:, 0], ties)
    assert ranks.tolist() == {"pessimistic": worst, "optimistic": best, "average": middle}[ties]
    assert ranks.dtype == np.int64


def test_a_model_that_scores_everything_alike_earns_nothing():
    scores, groups = np.zeros(100), np.zeros(100, int)
    assert hit_rate(rank_of_positive(scores, np.arange(100) == 0, groups), 20) == 0


@given(LISTS, st.data(), st.integers(1, 10))
def test_recall_of_many_relevant_items_equals_the_set_definition(lists, data, k):
    relevant = [data.draw(st.lists(CODES, max_size=6)) for _ in lists]
    found = recall_at_k(padded(lists), padded(relevant, 6), k)
    for row, wanted, value in zip(lists, relevant, found.tolist(), strict=True):
        if wanted:
            assert value == pytest.approx(len(set(row[:k]) & set(wanted)) / len(set(wanted)))
        else:
            assert math.isnan(value)


@given(LISTS)
def test_coverage_counts_each_item_once_and_no_padding(lists):
    assert coverage(padded(lists), 12) == len({item for row in lists for item in row}) / 12


def test_an_empty_list_holds_nothing():
    assert rank_in_list(np.zeros((3, 0), np.uint32), np.array([1, 2, 3])).tolist() == [0, 0, 0]


@pytest.mark.parametrize("chunk", [1, 40, 4_000_000])
def test_the_bootstrap_resamples_whole_users_as_a_plain_loop_does(monkeypatch, chunk):
    monkeypatch.setattr(intervals, "_CHUNK", chunk)
    rng = np.random.default_rng(5)
    users, values = rng.integers(0, 9, 60) * 7, rng.random((60, 2))
    names = np.unique(users)
    draws = np.random.default_rng(11).integers(0, len(names), (30, len(names)))
    expected = [np.concatenate([values[users == names[i]] for i in draw]).mean(0) for draw in draws]
    np.testing.assert_allclose(resampled_means(values, users, repeats=30, seed=11), expected)


def test_intervals_that_resample_users_cover_the_truth_and_those_that_resample_rows_do_not():
    rng = np.random.default_rng(1)
    clustered = naive = 0
    for seed in range(200):
        effect = rng.normal(0, 1, 60)
        users = np.repeat(np.arange(60), 10)
        values = 3 + effect[users] + rng.normal(0, 0.5, 600)
        by_user = bootstrap(values, users, repeats=200, seed=seed)
        by_row = bootstrap(values, np.arange(600), repeats=200, seed=seed)
        clustered += by_user.low <= 3 <= by_user.high
        naive += by_row.low <= 3 <= by_row.high
    assert 0.89 <= clustered / 200 <= 0.99
    assert naive / 200 < 0.7


def test_a_paired_difference_cancels_what_two_candidates_share():
    rng = np.random.default_rng(2)
    users = np.repeat(np.arange(100), 5)
    shared = rng.normal(0, 1, 100)[users]
    a, b = 2 + shared + rng.normal(0, 0.1, 500), 2.05 + shared + rng.normal(0, 0.1, 500)
    gap, alone = paired(a, b, users), bootstrap(a, users)
    assert gap.low <= -0.05 <= gap.high
    assert gap.high < 0
    assert gap.high - gap.low < 0.2 * (alone.high - alone.low)
    assert paired(a, b, users, relative=True).mean == pytest.approx(a.mean() / b.mean() - 1)


def test_the_same_seed_gives_the_same_interval():
    values, users = np.random.default_rng(3).random(50), np.arange(50) % 13
    assert bootstrap(values, users, seed=4) == bootstrap(values, users, seed=4)
    assert bootstrap(values, users, seed=4) != bootstrap(values, users, seed=5)


def test_one_user_alone_has_a_mean_and_no_interval():
    one = bootstrap(np.array([0.0, 1.0]), np.array([8, 8]))
    assert (one.mean, one.low, one.high) == (0.5, None, None)


def with_hits(name: str, complexity: int, hits: int, of: int = 1000) -> Candidate:
    ranks = np.zeros(of, np.int64)
    ranks[:hits] = 1
    return Candidate(name, complexity, ranks, 1.0, 0.1)


USERS = np.arange(1000) % 200


def test_the_simplest_candidate_within_the_tolerance_is_taken_and_the_reason_says_so():
    candidates = [with_hits("lambdarank", 5, 400), with_hits("co-visits", 2, 397), with_hits("popular", 0, 100)]
    found = compare(candidates, USERS, {}, tolerance=0.01)
    assert (found.best, found.chosen) == ("lambdarank", "co-visits")
    assert "co-visits is chosen: hit rate@20 0.3970 (95% interval 0.39" in found.reason
    assert "within 1% of the best, lambdarank (0.4000): it loses 0.7% (" in found.reason
    assert "so that a loss above 1% is not ruled out. " in found.reason
    assert "Each simpler candidate loses more than 1%: popular 75.0% (" in found.reason


def test_the_best_is_taken_where_every_simpler_candidate_loses_more_than_the_tolerance():
    candidates = [with_hits("popular", 0, 100), with_hits("lambdarank", 5, 400), with_hits("co-visits", 2, 390)]
    found = compare(candidates, USERS, {}, tolerance=0.01)
    assert found.chosen == found.best == "lambdarank"
    assert "is the best of all. Each simpler candidate loses more than 1%: co-visits 2.5% (" in found.reason
    assert compare(candidates, USERS, {}, tolerance=0.2).chosen == "co-visits"
    assert "not ruled out" not in compare(candidates, USERS, {}, tolerance=0.2).reason


def test_a_loss_of_exactly_the_tolerance_is_within_it():
    assert compare([with_hits("a", 1, 495), with_hits("b", 2, 500)], USERS, {}, tolerance=0.01).chosen == "a"


def test_equal_candidates_are_told_apart_by_complexity_then_by_name():
    candidates = [with_hits("z", 1, 10), with_hits("b", 0, 10), with_hits("a", 0, 10)]
    assert compare(candidates, USERS, {}).chosen == "a"


def test_where_nothing_hits_the_simplest_is_taken():
    found = compare([with_hits("deep", 3, 0), with_hits("plain", 1, 0)], USERS, {})
    assert found.chosen == "plain"
    assert "No candidate hit anything" in found.reason
    assert [row.change for row in found.candidates] == [None, None]


def test_another_metric_can_decide():
    early, often = with_hits("early", 1, 300), with_hits("often", 2, 400)
    often = Candidate("often", 2, often.ranks * 10, 1.0, 0.1)
    assert compare([early, often], USERS, {}).best == "often"
    found = compare([early, often], USERS, {}, metric="mrr")
    assert found.best == "early"
    assert "MRR@20" in found.reason


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_slice_is_the_comparison_of_its_own_rows(seed):
    rng = np.random.default_rng(seed)
    candidates = [Candidate(name, i, rng.integers(0, 40, 1000), 1.0, 0.1) for i, name in enumerate("ab")]
    users, counts = rng.integers(0, 30, 1000), rng.integers(0, 30, 1000)
    found = compare(candidates, users, {"user activity": binned(counts)}, repeats=20)
    assert [part.value for part in found.slices] == ["0", "1 to 4", "5 to 19", "20 to 99"]
    assert sum(part.lists for part in found.slices) == 1000
    for part, kept in zip(found.slices, [counts < 1, (counts > 0) & (counts < 5), None, counts >= 20], strict=True):
        if kept is not None:
            for row, candidate in zip(part.candidates, candidates, strict=True):
                assert row.scores.ndcg.mean == pytest.approx(ndcg(candidate.ranks[kept], 20))
                alone = bootstrap_of(candidate.ranks[kept], users[kept])
                assert (row.scores.mrr.low, row.scores.mrr.high) == pytest.approx((alone.low, alone.high))


def bootstrap_of(ranks: np.ndarray, users: np.ndarray) -> intervals.Interval:
    return bootstrap(np.where((ranks > 0) & (ranks <= 20), 1 / np.maximum(ranks, 1), 0), users, repeats=20)


def test_coverage_and_places_are_those_of_the_first_k_places():
    lists = np.array([[1, 2, 3], [1, 4, 5]])
    found = compare(
        [Candidate("only", 1, np.array([1, 3]), 1.0, 0.1, lists)], np.array([1, 2]), {}, k=2, catalogue_size=10
    )
    assert found.candidates[0].coverage == 0.3
    assert found.positions == [1, 0]
    assert "the only candidate" in found.reason


@given(st.lists(st.integers(0, 300), min_size=1), st.lists(st.integers(1, 200), min_size=1, max_size=5, unique=True))
def test_a_bin_holds_the_count_it_is_named_for(counts, edges):
    for count, label in zip(counts, binned(np.array(counts), sorted(edges)).tolist(), strict=True):
        words = [int(word) for word in label.split() if word.isdigit()]
        assert words[0] <= count
        assert "more" in label or count <= words[-1]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: hit_rate(np.array([1]), 0), "k is at least 1"),
        (lambda: hit_rate(np.array([-1]), 5), "a rank is a whole number"),
        (lambda: hit_rate(np.array([1.5]), 5), "a rank is a whole number"),
        (lambda: hit_rate(np.array([], np.int64), 5), "at least one list"),
        (lambda: rank_of_positive(np.ones(2), np.ones(2, bool), np.ones(2)), "at most one positive"),
        (lambda: rank_of_positive(np.array([np.nan]), np.ones(1, bool), np.ones(1)), "finite scores"),
        (lambda: coverage(np.array([[1]]), 0), "at least one item"),
        (lambda: bootstrap(np.ones(2), np.ones(3)), "one entry for each list"),
        (lambda: bootstrap(np.ones(2), np.arange(2), level=95), "between 0 and 1"),
        (lambda: bootstrap(np.ones(2), np.arange(2), repeats=0), "at least once"),
        (lambda: paired(np.ones(2), np.zeros(2), np.arange(2), relative=True), "other than 0"),
        (lambda: compare([], USERS, {}), "at least one candidate"),
        (lambda: compare([with_hits("a", 1, 1)] * 2, USERS, {}), "a name of its own"),
        (lambda: compare([with_hits("a", 1, 1)], USERS, {}, tolerance=1), "share of the best"),
        (lambda: compare([with_hits("users", 1, 1)], USERS, {"users": np.ones(3)}), "slice users: 3"),
    ],
)
def test_measurements_that_make_no_sense_are_refused_with_the_rule(call, said):
    with pytest.raises(EvaluationError, match=said):
        call()
