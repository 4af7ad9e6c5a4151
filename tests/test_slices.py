"""Decisions are split as their labels say; what is called better or worse in a slice hardly ever is so by chance."""

from __future__ import annotations

import itertools
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.evaluate import (
    Candidate,
    EvaluationError,
    Goals,
    compare,
    false_discovery,
    goals_at,
    p_value,
    query_type,
    tenths,
    top_values,
)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=200))
def test_a_decile_holds_the_counts_it_is_named_for_and_rises_with_them(counts):
    """The range in a label holds its counts; equal counts are together; a higher count is never in a lower decile."""
    labels = tenths(np.array(counts)).tolist()
    number = [int(label.split()[1]) for label in labels]
    for count, label in zip(counts, labels, strict=True):
        bounds = [int(word) for word in label.split("(")[1].rstrip(")").split() if word.isdigit()]
        assert bounds[0] <= count <= bounds[-1]
    pairs = sorted(zip(counts, number, strict=True))
    assert all(a[1] <= b[1] for a, b in itertools.pairwise(pairs))
    assert len({(count, label) for count, label in zip(counts, labels, strict=True)}) == len(set(counts))


def test_deciles_of_different_counts_have_a_tenth_each():
    """In whatever order they come."""
    labels = tenths(np.random.default_rng(1).permutation(500))
    assert np.unique(labels, return_counts=True)[1].tolist() == [50] * 10


@given(st.lists(st.sampled_from(["de", "fr", "at", "ch", ""]), max_size=40), st.integers(1, 4))
def test_the_commonest_values_keep_their_names(texts, most):
    """No value that is dropped is commoner than a kept one; missing ones are told apart from rare ones."""
    labels = top_values(texts, most).tolist()
    kept = {text for text, label in zip(texts, labels, strict=True) if text == label}
    assert len(kept) == min(most, len({text for text in texts if text}))
    for text, label in zip(texts, labels, strict=True):
        assert label == (text if text in kept else "other" if text else "none")
        assert label != "other" or all(texts.count(one) >= texts.count(text) for one in kept)


WORD = st.text(string.ascii_letters + "äß-", min_size=1, max_size=8)


@given(st.lists(WORD, min_size=1, max_size=4), st.sampled_from(["", " ", "  "]))
def test_words_without_digits_are_one_or_several(words, space):
    """Whatever the spaces around them."""
    assert query_type(space + "  ".join(words) + space) == ("one word" if len(words) == 1 else "several words")


@given(st.lists(WORD, max_size=3), st.text("abc0", max_size=3), st.integers(0, 9))
def test_a_query_with_a_digit_asks_for_a_code(words, letters, digit):
    """Wherever in it the digit is."""
    assert query_type(" ".join([*words, f"{letters}{digit}"])) == "code"


def test_no_query_is_empty():
    """An absent one, none and spaces alike."""
    assert [query_type(text) for text in (None, "", " \t")] == ["empty"] * 3


@given(
    st.lists(st.lists(st.integers(1, 6), max_size=5, unique=True), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6)), min_size=1, max_size=20),
    st.integers(1, 6),
)
def test_goals_of_a_list_are_the_items_of_it_on_which_the_goal_followed(lists, pairs, k):
    """Each once, and only in the first k places."""
    pairs = [(owner % len(lists), item) for owner, item in pairs]
    table = np.array([row + [0] * (5 - len(row)) for row in lists], np.uint32)
    owner, item = (np.array(column) for column in zip(*pairs, strict=True))
    plain = [len({item for whose, item in pairs if whose == i and item} & set(row[:k])) for i, row in enumerate(lists)]
    assert goals_at(table, owner, item, k).tolist() == plain


def test_goals_can_decide_and_need_lists():
    """A list with two purchases beats one that has the first of them higher up."""
    lists = {"high": np.array([[1, 8, 9]] * 40), "many": np.array([[9, 1, 2]] * 40)}
    goals = Goals(np.repeat(np.arange(40), 3), np.tile([1, 2, 3], 40))
    candidates = [
        Candidate("high", 1, np.full(40, 1), 1.0, 1.0, lists["high"]),
        Candidate("many", 2, np.full(40, 2), 1.0, 1.0, lists["many"]),
    ]
    users = np.arange(40)
    assert compare(candidates, users, {}, k=3, metric="mrr", goals=goals).best == "high"
    found = compare(candidates, users, {}, k=3, metric="goals", goals=goals)
    assert found.best == "many"
    assert [row.scores.goals.mean for row in found.candidates] == [1.0, 2.0]
    with pytest.raises(EvaluationError, match="knows them"):
        compare(candidates, users, {}, metric="goals")
    with pytest.raises(EvaluationError, match="counted in the candidates' lists"):
        compare([Candidate("bare", 1, np.full(40, 1), 1.0, 1.0)], users, {}, goals=goals)


# What may be said of many slices at once


@given(st.lists(st.one_of(st.none(), st.floats(1e-6, 1.0)), max_size=20), st.floats(0.01, 0.5))
def test_q_values_call_what_the_step_up_procedure_of_benjamini_and_hochberg_calls(p, level):
    """All p-values up to the largest p(i) ≤ level × i / m, and no other."""
    tested = sorted(one for one in p if one is not None)
    passing = [one for i, one in enumerate(tested) if one <= level * (i + 1) / len(tested) * (1 + 1e-12)]
    most = max(passing, default=-1.0)
    for one, q in zip(p, false_discovery(p), strict=True):
        assert (q is None) == (one is None)
        if one is not None and q is not None and abs(q - level) > 1e-9:
            assert (q <= level) == (one <= most)


def test_p_values_are_the_share_of_all_swaps_of_users_with_as_large_a_difference():
    """Of ten users with one to three lists each, all 1,024 ways to swap the two candidates are counted."""
    rng = np.random.default_rng(4)
    users = np.repeat(np.arange(10), rng.integers(1, 4, 10))
    a, b = rng.random(len(users)) + 0.2, rng.random(len(users))
    sums = np.bincount(users, weights=a - b)
    swaps = np.array(list(itertools.product((-1, 1), repeat=10)))
    exact = (np.abs(swaps @ sums) >= abs(sums.sum()) - 1e-9).mean()
    found = p_value(a, b, users, fewest=10, repeats=20_000)
    assert found == pytest.approx(exact, abs=4 * np.sqrt(exact / 20_000))


def test_p_values_of_no_difference_are_small_as_often_as_they_say():
    """Of 300 null comparisons of 60 users with ten correlated lists each, 2 to 9 % are below 0.05."""
    rng = np.random.default_rng(8)
    users, small = np.repeat(np.arange(60), 10), 0
    for seed in range(300):
        a, b = (rng.normal(0, 1, 60)[users] + rng.normal(0, 1, 600) for _ in range(2))
        value = p_value(a, b, users, repeats=400, seed=seed)
        assert value is not None
        small += value < 0.05
    assert 0.02 <= small / 300 <= 0.09


def test_few_users_are_not_tested():
    """Three users who agree are no evidence, and thirty are."""
    assert p_value(np.ones(3), np.zeros(3), np.arange(3)) is None
    assert p_value(np.ones(30), np.zeros(30), np.arange(30)) < 0.01


def two(ranks: np.ndarray, other: np.ndarray) -> list[Candidate]:
    """One that is chosen, and a simpler one that loses."""
    return [Candidate("plain", 1, other, 1.0, 1.0), Candidate("deep", 2, ranks, 1.0, 1.0)]


def test_slices_where_the_chosen_one_is_better_or_worse_are_named_and_no_other():
    """Of eight values it wins in six by far, loses in one, and in one both are alike."""
    rng = np.random.default_rng(5)
    country = np.repeat(list("abcdefgh"), 300)
    users = np.arange(2400) // 2
    good, bad = rng.integers(1, 4, 2400), rng.integers(5, 30, 2400)
    deep, plain = np.where(country == "g", bad, good), np.where(country == "g", good, bad)
    plain = np.where(country == "h", deep, plain)
    found = compare(two(deep, plain), users, {"country": country}, metric="mrr", repeats=50)
    assert (found.chosen, found.rival) == ("deep", "plain")
    verdicts = {part.value: part.change.verdict for part in found.slices}
    assert verdicts == {**dict.fromkeys("abcdef", "better"), "g": "worse", "h": "unsure"}
    worse = next(part.change for part in found.slices if part.value == "g")
    assert worse.difference.high < 0
    assert worse.p <= worse.q <= 0.05


def test_of_slices_without_a_difference_hardly_any_is_called():
    """In 40 comparisons of two alike, over 40 slices each, at most 5 have a slice that is called; plain p ≤ 0.05 calls
    some in nearly each."""
    rng = np.random.default_rng(3)
    called = plain = 0
    for seed in range(40):
        ranks = rng.integers(1, 20, (2, 1600))
        slices = {"value": np.array([f"v{i % 40}" for i in range(1600)])}
        users = np.arange(1600)
        found = compare(two(*ranks), users, slices, metric="mrr", repeats=2, seed=seed)
        changes = [part.change for part in found.slices]
        called += any(one.verdict in ("better", "worse") for one in changes)
        plain += any(one.p <= 0.05 for one in changes)
    assert called <= 5
    assert plain >= 25


def test_a_lone_candidate_has_no_rival():
    """And nothing is said of its slices."""
    found = compare([Candidate("only", 1, np.full(40, 1), 1.0, 1.0)], np.arange(40), {"all": np.full(40, "x")})
    assert found.rival is None
    assert [part.change for part in found.slices] == [None]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_rival_is_the_best_of_the_others(seed):
    """Whichever one is chosen."""
    rng = np.random.default_rng(seed)
    candidates = [Candidate(name, i, rng.integers(0, 30, 200), 1.0, 0.1) for i, name in enumerate("abc")]
    found = compare(candidates, np.arange(200) // 3, {}, metric="mrr", tolerance=0.2, repeats=10)
    means = {row.name: row.scores.mrr.mean for row in found.candidates if row.name != found.chosen}
    assert means[found.rival] == max(means.values())
