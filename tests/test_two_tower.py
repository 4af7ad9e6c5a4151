"""Two towers: vectors and negatives equal plain definitions, training learns what it should, the source is exact."""

from __future__ import annotations

import math
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import helpers
import penstock as ps
from penstock.audit import served
from penstock.errors import DefinitionError
from penstock.learn import TwoTower
from penstock.learn.autodiff import Tensor, gradcheck, gradients
from penstock.learn.losses import ContrastiveMargin
from penstock.learn.two_tower import Bags, Course, Epoch, Form, Pairs, encode, negatives, tower, train
from penstock.learn.two_tower import source as two_tower_source
from penstock.learn.two_tower.codes import examples, item_bags
from penstock.learn.two_tower.exact import ITEM_GRID, QUERY_GRID, grid, nearest
from penstock.learn.two_tower.negatives import alike, best, hardest, listed, lists_by, named
from penstock.learn.two_tower.network import begin, pooled
from penstock.learn.two_tower.training import Run
from penstock.registry import from_spec, to_spec
from penstock.releases import read
from penstock.retrieve import History, Query
from penstock.serve.decisions import logged

LISTS = st.lists(st.lists(st.integers(0, 9), max_size=5), min_size=1, max_size=8)


def weighted(lists: list[list[int]], random: np.random.Generator) -> Bags:
    bags = Bags.of(lists)
    return replace(bags, weight=random.uniform(0.1, 2.0, len(bags.codes)).astype(np.float32))


@settings(deadline=None)
@given(LISTS, st.integers(0, 99), st.booleans())
def test_a_bag_is_the_weighted_mean_of_its_rows(lists: list[list[int]], seed: int, weigh: bool) -> None:
    """Row by row as by hand, empty bags zero, code 0 counting as a row of zeros; bags taken in any order likewise."""
    random = np.random.default_rng(seed)
    table = random.normal(size=(10, 3))
    bags = weighted(lists, random) if weigh else Bags.of(lists)
    which = random.integers(0, len(lists), 6)
    found = pooled(Tensor(table), bags.taken(which)).value
    for line, i in zip(found, which.tolist(), strict=True):
        at = slice(bags.starts[i], bags.starts[i + 1])
        weight = np.ones(len(lists[i])) if bags.weight is None else bags.weight[at].astype(np.float64)
        rows = np.array([table[c] if c else np.zeros(3) for c in lists[i]]).reshape(-1, 3)
        wanted = (rows * weight[:, None]).sum(axis=0) / weight.sum() if len(rows) else np.zeros(3)
        np.testing.assert_allclose(line, wanted, atol=1e-6)


@pytest.mark.parametrize("inner", [0, 4])
@pytest.mark.parametrize("shared", [False, True])
def test_gradients_of_both_towers_are_those_of_differences(inner: int, shared: bool) -> None:
    """In every table and layer, of a score that both towers make, to 1e-5."""
    form = Form(6, 6, width=3, inner=inner, shared=shared)
    random = np.random.default_rng(1)
    weights = begin(form, random, np.float64)
    names = list(weights)
    arrays = [random.normal(size=part.shape) for part in weights.values()]
    asked, there = weighted([[1, 2], [3, 3, 5]], random), Bags.of([[4], [2, 1]])

    def scores(*parts: Tensor) -> Tensor:
        held = dict(zip(names, parts, strict=True))
        query = tower(form, held, "query", asked)
        return (query * tower(form, held, "item", there)).sum(axis=1)

    assert gradcheck(scores, *arrays) < 1e-5


def test_vectors_have_length_one_and_blocks_change_nothing() -> None:
    form = Form(10, 10, width=5, inner=3)
    weights = begin(form, np.random.default_rng(2))
    bags = Bags.of([[i % 9 + 1, (i * 7) % 9 + 1] for i in range(20)])
    whole, blocks = encode(form, weights, "item", bags), encode(form, weights, "item", bags, block=3)
    np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(whole, blocks, atol=1e-6)


@settings(deadline=None)
@given(LISTS, st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(0, 99))
def test_lists_name_candidates_as_one_would_look_them_up(
    lists: list[list[int]], candidates: list[int], seed: int
) -> None:
    """Candidates shared by all, of which some stand twice, and those that each list has of its own."""
    random = np.random.default_rng(seed)
    of = random.integers(0, len(lists), 5)
    wanted = [[c in lists[i] for c in candidates] for i in of.tolist()]
    assert named(Bags.of(lists), of, np.array(candidates), 10).tolist() == wanted
    own = random.integers(0, 10, (5, 3))
    assert listed(Bags.of(lists), of, own).tolist() == [
        [c in lists[i] for c in line] for i, line in zip(of.tolist(), own.tolist(), strict=True)
    ]


@settings(deadline=None)
@given(LISTS, st.sampled_from([0.3, 0.5, 1.0]), st.integers(1, 4))
def test_items_alike_are_those_that_share_most_codes(lists: list[list[int]], least: float, most: int) -> None:
    """Shared over all codes, the id left aside; ties to the lower item."""
    found = alike(Bags.of(lists), least, most)
    known = [set(part[1:]) for part in lists]
    for i, mine in enumerate(known):
        shares = {
            j: float(np.float32(len(mine & other)) / np.float32(max(len(mine | other), 1)))
            for j, other in enumerate(known)
            if j != i
        }
        wanted = sorted((j for j in shares if shares[j] >= np.float32(least)), key=lambda j: (-shares[j], j))[:most]
        at = slice(found.starts[i], found.starts[i + 1])
        assert found.codes[at].tolist() == wanted
        assert found.weight is not None
        assert found.weight[at].tolist() == [shares[j] for j in wanted]


def test_items_alike_are_found_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is in memory at once, the same items are found; of 6,000 items with 9,000 codes, 216 MB as one table,
    little is."""
    random = np.random.default_rng(3)
    lists = [[i, *(10 + random.integers(0, 9, 5))] for i in range(300)]
    wanted = alike(Bags.of(lists), 0.5, 4)
    monkeypatch.setattr(negatives, "_BYTES", 1 << 20)
    many = Bags.of([[i, *random.integers(6_000, 15_000, 3)] for i in range(6_000)])
    tracemalloc.start()
    try:
        alike(many)
        assert tracemalloc.get_traced_memory()[1] < 20 << 20
    finally:
        tracemalloc.stop()
    monkeypatch.setattr(negatives, "_BLOCK", 7)
    monkeypatch.setattr(negatives, "_BYTES", 1 << 10)
    found = alike(Bags.of(lists), 0.5, 4)
    for one, other in ((found.starts, wanted.starts), (found.codes, wanted.codes), (found.weight, wanted.weight)):
        np.testing.assert_array_equal(one, other)
    query, item = random.normal(size=(9, 4)), random.normal(size=(50, 4))
    assert best(query, item, 3).tolist() == np.argsort(-query @ item.T, axis=1)[:, :3].tolist()


@settings(deadline=None)
@given(st.integers(0, 500), st.integers(1, 6), st.integers(0, 3))
def test_the_hardest_and_the_best_are_those_of_a_full_sort(seed: int, depth: int, skip: int) -> None:
    """What is known to be right is passed over, and so are the first few; the best come in order, ties by number."""
    random = np.random.default_rng(seed)
    query, item = random.normal(size=(4, 3)), random.integers(-2, 3, (12, 3)).astype(float)
    known = lists_by(np.array([0, 2, 2]), np.array([1, 5, 5]), 4)
    assert [known.codes[a:b].tolist() for a, b in zip(known.starts, known.starts[1:], strict=False)] == [
        [1], [], [5], []
    ]  # fmt: skip
    for i, line in enumerate(hardest(query, item, depth, known, skip)):
        score = query[i] @ item.T
        score[known.taken(np.array([i])).codes] = -np.inf
        wanted = np.sort(score)[::-1][skip : skip + depth]
        np.testing.assert_allclose(np.sort(score[line])[::-1], wanted)
        assert len(set(line.tolist())) == depth
    scores = query @ item.T
    for i, line in enumerate(best(query, item, depth)):
        assert line.tolist() == sorted(range(12), key=lambda j, i=i: (-scores[i, j], j))[:depth]  # type: ignore[misc]


def a_run(course: Course, seed: int = 0) -> Run:
    """30 queries and 40 items, of which some are alike; popular items are asked for more often."""
    random = np.random.default_rng(seed)
    items = Bags.of([[i + 1, 41 + i % 9, 50 + i % 2, 52 + i // 8] for i in range(40)])
    queries = Bags.of([[i + 1, 31 + i % 9] for i in range(30)])
    item = np.minimum(random.geometric(0.15, 300) - 1, 39)
    pairs = Pairs(random.integers(0, 30, 300), item)
    return Run(Form(40, 60, width=4), course, queries, items, pairs, random)


@pytest.mark.parametrize("by", ["attributes", "cosine"])
@pytest.mark.parametrize("log_q", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("uniform", "mined"), [(0, 0), (7, 0), (7, 2)])
def test_each_candidate_counts_what_its_own_definition_says(
    by: Any, log_q: bool, masked: bool, uniform: int, mined: int
) -> None:
    """Cell by cell: how often it is expected to be drawn, whether it is known to be right, whether it is a twin."""
    course = Course(log_q=log_q, masked=masked, uniform=uniform, mined=mined, depth=10, alike=0.2, by=by, like=0.5)
    run = a_run(course)
    weights = begin(run.form, np.random.default_rng(3))
    run.refresh(weights, 1)
    drawn = run.draw(np.arange(20))
    vectors = encode(run.form, weights, "item", run.items)
    own = drawn.own
    found, hidden = run.weigh(drawn, vectors[drawn.shared], None if own is None else vectors[own])
    assert (hidden is not None) == masked
    clicks = list(zip(run.pairs.query.tolist(), run.pairs.item.tolist(), strict=True))
    codes = [set(run.items.taken(np.array([i])).codes[1:].tolist()) for i in range(40)]
    wide = 20 + uniform + mined
    assert found.shape == (20, wide)
    some = np.zeros(2, int)
    for i in range(20):
        right = int(drawn.right[i])
        for j in range(wide):
            shared = j < 20 + uniform
            item = int(drawn.shared[j] if shared else own[i, j - 20 - uniform])  # type: ignore[index]
            count = 1.0
            if log_q:
                times = sum(1 for _, other in clicks if other == item)
                count = 20 * times / 300 + uniform / 40 if shared else mined / 10
            if by == "attributes":
                twin = len(codes[item] & codes[right]) / len(codes[item] | codes[right]) >= 0.5
            else:
                twin = bool(vectors[item] @ vectors[right] >= 0.5)
            if twin:
                count /= 0.2
            known = (int(drawn.asked[i]), item) in clicks and i != j
            if i == j:
                count = 1.0
            some += (twin, known)
            assert found[i, j] == pytest.approx(math.log(count), abs=1e-6)
            if hidden is not None:
                assert hidden[i, j] == known
    assert some.all()


def test_mined_items_are_the_hardest_of_their_own_query_and_none_that_was_right() -> None:
    run = a_run(Course(mined=3, depth=6))
    weights = begin(run.form, np.random.default_rng(3))
    assert run.draw(np.arange(9)).own is None
    run.refresh(weights, 0)
    assert run.hard is None
    run.refresh(weights, 1)
    drawn = run.draw(np.arange(9))
    assert drawn.own is not None
    scores = encode(run.form, weights, "query", run.queries) @ encode(run.form, weights, "item", run.items).T
    for query, line in zip(drawn.asked.tolist(), drawn.own.tolist(), strict=True):
        right = set(run.pairs.item[run.pairs.query == query].tolist())
        others = sorted((i for i in range(40) if i not in right), key=lambda i, q=query: -scores[q, i])  # type: ignore[misc]
        assert set(line) <= set(others[:6])


def a_shop(seed: int = 0, clicks: int = 1_500) -> tuple[Bags, Bags, Pairs, Pairs]:
    """Six groups of ten items each; a query asks for a group, in one of its two words, and any of the ten is right."""
    random = np.random.default_rng(seed)
    items = Bags.of([[i + 1, 61 + i // 10] for i in range(60)])
    queries = Bags.of([[1 + i % 12] for i in range(36)])
    query = random.integers(0, 36, clicks + 200)
    item = (query % 12) // 2 * 10 + random.integers(0, 10, clicks + 200)
    return queries, items, Pairs(query[:clicks], item[:clicks]), Pairs(query[clicks:], item[clicks:])


FORM = Form(13, 67, width=8)


@pytest.mark.parametrize(
    "course",
    [
        Course(epochs=5, batch=64, rate=0.02, k=10),
        Course(epochs=5, batch=64, rate=0.02, k=10, uniform=32, mined=2, depth=20, alike=0.5, cold=0.2),
        Course(epochs=5, batch=64, rate=0.02, k=10, loss=ContrastiveMargin(0.2, 5.0), uniform=32),
    ],
    ids=["softmax", "everything", "margin"],
)
def test_training_finds_the_ten_right_items_of_a_query(course: Course) -> None:
    """Nearly all held-out items are among the ten best, where chance would find one in six."""
    queries, items, pairs, held = a_shop()
    told: list[Epoch] = []
    done: list[tuple[int, int | None]] = []
    weights = train(
        FORM, course, queries, items, pairs, held=held,
        each=lambda epoch: told.append(epoch) is not None, progress=lambda n, total: done.append((n, total)),
    )  # fmt: skip
    found = best(encode(FORM, weights, "query", queries), encode(FORM, weights, "item", items), 10)
    assert (found[held.query] == held.item[:, None]).any(axis=1).mean() > 0.95
    assert told[-1].loss < told[0].loss
    assert [n for n, _ in done] == list(range(1, len(done) + 1))
    assert done[0][1] == 5 * 24
    assert not weights["item"][0].any()
    assert not weights["query"][0].any()


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    queries, items, pairs, _ = a_shop(clicks=300)
    course = Course(epochs=2, batch=64, uniform=8, mined=1, depth=5, cold=0.3, seed=4)
    one, two, other = (
        train(FORM, c, queries, items, pairs) for c in (course, course, replace(course, seed=5))
    )  # fmt: skip
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert not np.array_equal(one["item"], other["item"])


def test_training_gives_back_the_epoch_that_found_held_out_items_best_and_ends_when_none_is_better() -> None:
    """With pairs held out that contradict the others, recall falls: the first epochs' weights come back."""
    queries, items, pairs, _ = a_shop()
    held = Pairs(pairs.query[:100], (pairs.item[:100] + 30) % 60)
    seen: list[tuple[float, np.ndarray]] = []

    def each(epoch: Epoch) -> bool:
        seen.append((epoch.recall, epoch.weights["item"].copy()))
        return False

    course = Course(epochs=9, batch=64, rate=0.02, k=10, patience=2)
    weights = train(FORM, course, queries, items, pairs, held=held, each=each)
    recalls = [recall for recall, _ in seen]
    top = recalls.index(max(recalls))
    assert len(seen) == top + 3 < 9
    assert np.array_equal(weights["item"], seen[top][1])


def test_each_can_end_training() -> None:
    queries, items, pairs, _ = a_shop(clicks=100)
    told: list[Epoch] = []
    train(FORM, Course(epochs=5), queries, items, pairs, each=lambda epoch: not told.append(epoch))
    assert [epoch.number for epoch in told] == [0]
    assert math.isnan(told[0].recall)


def test_evenly_drawn_negatives_push_down_what_was_never_clicked() -> None:
    """In a group of which half is never clicked, these stand among the first ten by batch negatives alone, and behind
    the clicked ones once the whole catalogue is drawn from."""
    queries, items, pairs, _ = a_shop()
    part = pairs.item % 10 < 5
    pairs = Pairs(pairs.query[part], pairs.item[part])

    def dead(course: Course) -> float:
        weights = train(FORM, course, queries, items, pairs)
        found = best(encode(FORM, weights, "query", queries), encode(FORM, weights, "item", items), 5)
        return float((found % 10 >= 5).mean())

    course = Course(epochs=6, batch=64, rate=0.02)
    assert dead(course) > 0.3
    assert dead(replace(course, uniform=60)) < 0.05


def test_ids_are_left_out_about_as_often_as_asked_and_never_where_nothing_else_is_known() -> None:
    """Of 2,000 bags 0.3 lose their first code to 0, those of a single code none, and the items stay as they were."""
    run = a_run(Course(cold=0.3))
    run.items = Bags.of([*([i + 1, 41, 42] for i in range(39)), [40]])
    before = run.items.codes.copy()
    which = np.arange(2_000) % 40
    part = run.bags(which)
    first = part.codes[part.starts[:-1]]
    single = which == 39
    assert 0.25 < (first[~single] == 0).mean() < 0.35
    assert (first[single] == 40).all()
    assert (part.codes[part.starts[:-1][~single] + 1] == 41).all()
    assert np.array_equal(run.items.codes, before)


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: Form(1, 5), "each tower reads two codes or more"),
        (lambda: Form(4, 5, shared=True), "share a table read the same codes"),
        (lambda: Course(epochs=0), "a course has epochs"),
        (lambda: Course(uniform=-1), "no less than no negatives"),
        (lambda: Course(alike=1.5), "are shares"),
        (lambda: Course(by="words"), "told by attributes or by cosine"),  # type: ignore[arg-type]
        (lambda: train(FORM, Course(), *a_shop()[:2], Pairs(*np.zeros((2, 0), np.int64))), "learn from pairs"),
        (lambda: ps.two_tower("recent", attributes="brand"), "named in a tuple"),
        (lambda: ps.two_tower("recent", decay=0.0), "older ones count less"),
        (lambda: ps.two_tower("recent", temperature=0.0), "a temperature is above 0"),
    ],
)
def test_what_cannot_be_is_refused_with_the_rule_and_the_remedy(make: Any, rule: str) -> None:
    with pytest.raises(DefinitionError, match=rule) as raised:
        make()
    assert raised.value.remedy


# The source


def shoppers(n: int = 60, seed: int = 0) -> tuple[History, History]:
    """Shoppers who stay among the ten items of a group, 11 … 20, 21 … 30, …; and the groups, from 101, beside them."""
    random = np.random.default_rng(seed)
    owner = np.repeat(np.arange(1, n + 1, dtype=np.uint32), 12)
    group = np.repeat(random.integers(1, 7, n), 12)
    item = (group * 10 + 1 + random.integers(0, 10, len(group))).astype(np.uint32)
    time = np.tile(np.arange(12), n) * 1_000_000 + owner.astype(np.int64) * 7
    return History(owner, item, time), History(owner, (100 + group).astype(np.uint32), time)


SOURCE = TwoTower("recent", k=9, attributes=("group",), width=12, epochs=6, batch=64, rate=0.02, uniform=32)


@pytest.fixture(scope="module")
def fitted() -> tuple[TwoTower, Any]:
    recent, group = shoppers()
    return SOURCE, SOURCE.fit({"recent": recent, "group": group})


def asked(recent: list[int], group: list[int] | None = None) -> Query:
    return Query({"recent": np.array(recent, np.uint32), "group": np.array(group or [], np.uint32)}, {})


def test_the_source_finds_what_shoppers_like_this_one_went_on_to(fitted: Any) -> None:
    """The nine other items of the group, by one item of it, or by the group alone; the item itself is not proposed."""
    source, index = fitted
    for query in (asked([23]), asked([99], [102])):
        found = source.find(query, index)
        assert set(found.items.tolist()) - {23} <= set(range(21, 31))
        assert (np.diff(found.scores[:, 0]) <= 0).all()
    assert 23 not in source.find(asked([23]), index).items


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([0, *range(9, 33), 99]), max_size=14), st.lists(st.integers(99, 108), max_size=6))
def test_find_equals_plain_to_the_bit_with_attributes(fitted: Any, recent: list[int], group: list[int]) -> None:
    source, index = fitted
    query = asked(recent, group)
    found, plain = source.find(query, index), source.plain(query, index)
    assert found.items.tolist() == list(plain)
    assert found.scores.tobytes() == np.array(list(plain.values()), np.float64).reshape(-1, 1).tobytes()
    every = np.arange(120, dtype=np.uint32)
    others = source.plain_others(query, index)
    assert found.others is not None
    np.testing.assert_array_equal(found.others(every)[:, 0], [others.get(one, (np.nan,))[0] for one in every.tolist()])
    assert set(source.because(query, index, found.items).tolist()) <= {0, *recent}


def test_because_names_the_nearest_of_the_recent_items(fitted: Any) -> None:
    """An item of the group that the shopper also looked at, not the one of another group."""
    source, index = fitted
    assert set(source.because(asked([45, 23]), index, np.array([24, 25, 26], np.uint32)).tolist()) == {23}
    assert source.because(asked([99]), index, np.array([24], np.uint32)).tolist() == [0]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 200))
def test_scores_are_the_same_in_whatever_order_they_are_added_up(seed: int, width: int) -> None:
    """Forward, backward, in halves, by the library and in float64: not one bit differs."""
    random = np.random.default_rng(seed)
    item, query = random.normal(size=(5, width)), random.normal(size=width)
    item = grid(item / np.linalg.norm(item, axis=1, keepdims=True), ITEM_GRID)
    query = grid(query / np.linalg.norm(query), QUERY_GRID)
    exact = item.astype(np.float64) @ query.astype(np.float64)
    shuffled = random.permutation(width)
    ways = [item @ query, item[:, ::-1] @ query[::-1], item[:, shuffled] @ query[shuffled]]
    ways.append(np.cumsum(item[:, shuffled] * query[shuffled], axis=1, dtype=np.float32)[:, -1])
    assert all(np.array_equal(way.astype(np.float64), exact) for way in ways)


def test_of_equal_scores_the_lower_codes_are_found() -> None:
    index = {"items": np.array([3, 5, 7, 9], np.uint32), "vectors": np.ones((4, 1), np.float32)}
    items, _ = nearest(index, np.ones(1, np.float32), 2, np.array([5, 8], np.uint32))
    assert items.tolist() == [3, 7]
    assert len(nearest(index, np.ones(1, np.float32), 2, index["items"])[0]) == 0


VISITS = st.lists(st.tuples(st.integers(1, 3), st.integers(0, 5), st.integers(0, 3)), max_size=25)


def of_visits(visits: list[tuple[int, int, int]], column: int) -> History:
    """The list feature of one column: the events, by their places, that have a value there."""
    at = np.array([i for i, visit in enumerate(visits) if visit[column]], np.int64)
    owner, value = (np.array([visits[i][j] for i in at.tolist()], np.uint32) for j in (0, column))
    return History(owner, value, (at * 7) % 25, at)  # not in the order of time


@settings(deadline=None)
@given(VISITS, st.integers(1, 4), st.integers(1, 30))
def test_examples_are_what_came_before_each_event(visits: list[tuple[int, int, int]], recent: int, most: int) -> None:
    """Event by event: the newest of each list's events before it, repeats where they came last, each with what it
    counts; not for a shopper's first event, or one that only repeats the last."""
    visits = sorted(visits, key=lambda visit: visit[0])
    items, groups = of_visits(visits, 1), of_visits(visits, 2)
    wanted = []
    for i, (who, what, _) in enumerate(visits):
        before = [visit[1] for visit in visits[:i][::-1] if visit[0] == who and visit[1]]
        if not before or not what or before[0] == what:
            continue
        bag = []
        for column, first in ((1, 0), (2, 5)):
            codes = [visit[column] + first for visit in visits[:i][::-1] if visit[0] == who and visit[column]][:recent]
            bag += [(c, 0.5**p) for p, c in enumerate(codes) if c not in codes[:p]]
        wanted.append(((i * 7) % 25, bag, what - 1))
    wanted = sorted(wanted, key=lambda one: one[0])[-most:]
    rows = [(items, items.item.astype(np.int64)), (groups, groups.item.astype(np.int64) + 5)]
    queries, pairs = examples(rows, recent, 0.5, most)
    assert pairs.item.tolist() == [right for _, _, right in wanted]
    assert pairs.query.tolist() == list(range(len(wanted)))
    for i, (_, bag, _) in enumerate(wanted):
        at = slice(queries.starts[i], queries.starts[i + 1])
        assert queries.weight is not None
        assert list(zip(queries.codes[at].tolist(), queries.weight[at].tolist(), strict=True)) == bag


def test_training_reads_lists_as_requests_do() -> None:
    """An event that lacks its attribute shifts that list in training as in serving: both read the same rows, each
    with what it counts."""
    random = np.random.default_rng(5)
    visits = [(1 + i // 30, int(random.integers(1, 9)), int(random.integers(0, 4))) for i in range(90)]
    lists = {"recent": of_visits(visits, 1), "group": of_visits(visits, 2)}
    source = replace(SOURCE, epochs=1)
    index = source.fit(lists)
    known, values = index["items"], index["values"] & np.uint64(0xFFFFFFFF)
    rows = [np.searchsorted(known, lists["recent"].item) + 1]
    rows.append(np.searchsorted(values, lists["group"].item) + 1 + len(known))
    queries, pairs = examples(list(zip(lists.values(), rows, strict=True)), source.recent, source.decay, 1)
    last = int(np.argmax(lists["recent"].time[::-1] == lists["recent"].time.max()))
    event = lists["recent"].at[len(rows[0]) - 1 - last]
    before = [visit for visit in visits[:event][::-1] if visit[0] == visits[event][0]]
    served = source._asked(asked([v[1] for v in before if v[1]], [v[2] for v in before if v[2]]), index)
    assert queries.weight is not None
    trained = zip(queries.codes.tolist(), queries.weight.tolist(), strict=True)
    assert len(pairs) == 1
    assert [(row, pytest.approx(weight)) for row, weight in served] == list(trained)


def test_a_list_that_holds_less_than_is_read_is_refused(tmp_path: Path) -> None:
    """Training reads ten events of a list; a list of five would be served with less."""
    text = helpers.APP.replace(
        "    actions = ps.count()\n", '    kinds = ps.last("kind", k=5)\n    actions = ps.count()\n', 1
    )
    text = text.replace("[ps.seen(", '[ps.two_tower("recent", attributes=("kinds",)), ps.seen(')
    with pytest.raises(DefinitionError, match="kinds holds the 10 newest events") as raised:
        helpers.load_app(tmp_path, text)
    assert "recent=5" in raised.value.remedy


def test_an_item_has_its_id_and_the_newest_value_of_each_attribute() -> None:
    """Items 2 and 4 changed theirs, one up and one down; item 3 has none."""
    item, group = np.array([1, 2, 2, 3, 0, 4, 4]), np.array([7, 9, 8, 0, 7, 8, 9])
    found = item_bags(item, [group], np.array([0, 4, 5, 1, 9, 3, 6]), 4)
    assert [found.taken(np.array([i])).codes.tolist() for i in range(4)] == [[1, 7], [2, 8], [3], [4, 9]]


def test_the_source_is_trained_on_all_but_the_newest_pairs_which_say_when_to_stop() -> None:
    """Its table is that of a training in which the newest twentieth was held out, to the bit."""
    recent, _ = shoppers()
    source = replace(SOURCE, attributes=())
    known = np.unique(recent.item)
    line = np.searchsorted(known, recent.item) + 1
    items = Bags.of([[i + 1] for i in range(len(known))])
    queries, pairs = examples([(recent, line)], source.recent, source.decay, source.most)
    cut = len(pairs) - len(pairs) // 20
    past, newest = Pairs(pairs.query[:cut], pairs.item[:cut]), Pairs(pairs.query[cut:], pairs.item[cut:])
    form = Form(len(known) + 1, len(known) + 1, source.width, shared=True)
    weights = train(form, source.course, queries, items, past, held=newest)
    assert np.array_equal(source.fit({"recent": recent})["code"], weights["code"])


@pytest.mark.parametrize("inner", [0, 4])
def test_a_history_without_any_pair_finds_nothing(inner: int) -> None:
    nothing = History(np.zeros(0, np.uint32), np.zeros(0, np.uint32), np.zeros(0, np.int64))
    single = History(np.array([1], np.uint32), np.array([7], np.uint32), np.zeros(1, np.int64))
    source = replace(SOURCE, inner=inner)
    for recent in (nothing, single):
        index = source.fit({"recent": recent, "group": nothing})
        assert source.find(asked([7]), index).items.tolist() == list(source.plain(asked([7]), index)) == []


def test_a_source_survives_being_written_down_and_reads_the_lists_it_names() -> None:
    assert from_spec(to_spec(SOURCE)) == SOURCE
    assert SOURCE.needs() == ("recent", "group")
    assert ps.two_tower("recent").columns == ("two_tower",)


def test_weights_fall_with_age_and_the_newest_place_of_an_item_counts() -> None:
    """A shopper who came from one group to another is nearer to the newer one's items; an old repeat adds nothing."""
    recent, group = shoppers()
    source = replace(SOURCE, k=10, decay=0.3)
    index = source.fit({"recent": recent, "group": group})
    found = source.find(asked([23, 45, 23]), index)
    assert set(found.items[:5].tolist()) <= set(range(21, 31))
    again = source.find(asked([23, 45]), index)
    assert found.scores.tolist() == again.scores.tolist()


def test_what_an_app_serves_from_it_is_what_an_audit_recomputes(tmp_path: Path) -> None:
    """Trained, released, read back and asked: every score of 20 decisions has the digest of its plain definition."""
    text = helpers.APP.replace("    kind: str\n", "    kind: str\n    shelf: str | None = None\n")
    text = text.replace(
        "    actions = ps.count()\n", '    shelves = ps.last("shelf", k=20)\n    actions = ps.count()\n', 1
    )
    source = 'ps.two_tower("recent", k=20, attributes=("shelves",), width=12, inner=6, epochs=2, always=True)'
    text = text.replace("[ps.seen(", f"[{source}, ps.seen(")
    events = [{**event, "shelf": f"shelf-{int(event['item'][-2:]) % 5}"} for event in helpers.history()]
    with helpers.trained(tmp_path, text, events) as app:
        for i, user in enumerate(sorted({event["user"] for event in events})[:20]):
            live = {"stream": "action", "id": f"live-{i}", "time": helpers.next_time(events, 60.0 * (i + 1))}
            app.ingest([{**live, "user": user, "item": events[i]["item"], "kind": "view"}])
            app.decide("home", user=user)
        app.open().decisions.flush()
        decided = logged(app.home / "decisions.sqlite")
        releases = {name: read(app.registry.folder, name) for name in app.registry.ids()}
        found = served(app.open().log, decided, releases)
    (release,) = releases.values()
    assert release.indexes["two_tower"]["values"].size == 5
    place = [source.label for source in release.recipe.sources].index("two_tower")
    assert sum(int((one.found_by >> place & 1).sum()) for one in decided) >= 20 * 15
    assert found.decisions == 20
    assert found.mismatches == {}


def test_a_vector_index_finds_most_of_the_nearest_with_their_exact_scores(
    fitted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it finds has, to the bit, the scores of the exact search; after JSON and files it is the same index."""
    monkeypatch.setattr(two_tower_source, "_MANY", 10)
    source, index = fitted
    near = replace(source, recall=0.9)
    searched = near.released(index)
    assert any(name.startswith("near.") for name in searched)
    found = 0
    for seed in range(30):
        recent = np.random.default_rng(seed).choice(index["items"], 5).astype(np.uint32)
        query = Query(dict.fromkeys(source.needs(), recent), {})
        exact, fast = source.find(query, index), near.find(query, searched)
        assert fast.others is not None
        np.testing.assert_array_equal(fast.others(fast.items), fast.scores)
        assert (np.diff(fast.scores[:, 0]) <= 0).all()
        scores = dict(zip(exact.items.tolist(), exact.scores[:, 0].tolist(), strict=True))
        both = [code for code in fast.items.tolist() if code in scores]
        assert [scores[code] for code in both] == [
            score for code, score in zip(fast.items.tolist(), fast.scores[:, 0].tolist(), strict=True) if code in scores
        ]
        found += len(both) / max(len(exact.items), 1)
    assert found / 30 >= 0.85


def test_the_vector_index_is_built_for_the_release_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training finds by comparing all, whatever the recall asked for: its rows do not depend on what is quick here."""
    monkeypatch.setattr(two_tower_source, "_MANY", 10)
    built: list[int] = []
    build = two_tower_source.build
    monkeypatch.setattr(two_tower_source, "build", lambda *what, **more: (built.append(1), build(*what, **more))[1])
    source = 'ps.two_tower("recent", k=20, width=12, epochs=1, recall=0.9, always=True)'
    with helpers.trained(tmp_path, helpers.APP.replace("[ps.seen(", f"[{source}, ps.seen(")) as app:
        (name,) = app.registry.ids()
        released = read(app.registry.folder, name).indexes["two_tower"]
    assert any(part.startswith("near.") for part in released)
    assert built == [1]


def test_training_goes_on_from_weights_and_leaves_them_as_they_are() -> None:
    """Given the weights that it would begin with, it comes to the same ones; those given are not changed."""
    form, course = Form(13, 13, 8), Course(epochs=1, batch=64)
    queries, items = Bags.of([[i + 1] for i in range(12)]), Bags.of([[i + 1] for i in range(12)])
    pairs = Pairs(np.repeat(np.arange(12), 5), np.repeat(np.arange(12), 5))
    first = train(form, course, queries, items, pairs)
    before = {name: value.copy() for name, value in first.items()}
    second = train(form, course, queries, items, pairs, weights=first)
    for name, value in first.items():
        np.testing.assert_array_equal(value, before[name])
    assert any((second[name] != first[name]).any() for name in first)


@pytest.mark.parametrize("inner", [0, 3])
def test_pytorch_gives_the_same_numbers_and_gradients(inner: int) -> None:
    """Vectors of both towers and gradients of every weight agree to 1e-5; weights come back as they went."""
    torch = pytest.importorskip("torch", reason="torch is missing: .venv/bin/pip install torch==2.13.0")
    from penstock.learn.pytorch.two_tower import TwoTowers

    random = np.random.default_rng(1)
    form = Form(10, 10, 4, inner)
    weights = {name: value + 0.2 * random.normal(size=value.shape) for name, value in begin(form, random).items()}
    queries, items = (weighted([[1, 2], [3], [4, 0, 5]], random) for _ in range(2))
    towers = TwoTowers(form, weights)
    for name, value in towers.weights().items():
        np.testing.assert_array_equal(value, weights[name])
    held = {name: Tensor(value) for name, value in weights.items()}
    mine = [tower(form, held, side, bags) for side, bags in (("query", queries), ("item", items))]
    theirs = [towers.tower(side, bags) for side, bags in (("query", queries), ("item", items))]
    for one, other in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(one.value, other.detach().numpy(), atol=1e-7)
    each = np.arange(9.0).reshape(3, 3)
    (theirs[0] @ theirs[1].T * torch.tensor(each)).sum().backward()
    found = gradients((mine[0] @ mine[1].T * each).sum(), list(held.values()))
    for name, gradient in zip(held, found, strict=True):
        dense = gradient if isinstance(gradient, np.ndarray) else gradient.dense()
        np.testing.assert_allclose(dense, towers.held[name.replace(".", "__")].grad.numpy(), atol=1e-5, err_msg=name)


@pytest.mark.parametrize("mined", [0, 2])
def test_pytorch_learns_what_numpy_serves(mined: int) -> None:
    """Trained on PyTorch, the nearest item of each query is its own, in NumPy's form."""
    pytest.importorskip("torch", reason="torch is missing: .venv/bin/pip install torch==2.13.0")
    from penstock.learn.pytorch.two_tower import train as trained

    queries, items = Bags.of([[i + 1] for i in range(12)]), Bags.of([[i + 1] for i in range(12)])
    pairs = Pairs(np.repeat(np.arange(12), 20), np.repeat(np.arange(12), 20))
    form = Form(13, 13, 8)
    course = Course(epochs=8, batch=32, rate=2e-2, uniform=8, mined=mined, depth=4)
    weights = trained(form, course, queries, items, pairs, held=pairs, device="cpu")
    like = encode(form, weights, "query", queries) @ encode(form, weights, "item", items).T
    assert (like.argmax(axis=1) == np.arange(12)).all()
    assert trained(form, replace(course, epochs=1, rate=1e-12), queries, items, pairs, weights=weights, device="cpu")[
        "item"
    ] == pytest.approx(weights["item"], abs=1e-6)


PART = """
import os
import numpy as np
from penstock.learn.pytorch import two_tower
from penstock.learn.two_tower import Bags, Course, Form, Pairs

asked, shared = [], []
draw = two_tower.Run.draw

def watched(run, which):
    drawn = draw(run, which)
    asked.append(drawn.asked)
    shared.append(drawn.shared[len(drawn.right):])
    return drawn

two_tower.Run.draw = watched
queries = Bags.of([[i + 1] for i in range(60)])
items = Bags.of([[1 + i] + [13 + i % 4] * (i % 3 > 0) for i in range(12)])
pairs = Pairs(np.arange(60), np.arange(60) % 12)
course = Course(epochs=3, batch={batch}, rate=2e-2, uniform=4, mined=1, depth=4, cold=0.5)
weights = two_tower.train(Form(61, 17, 8), course, queries, items, pairs, device="cpu")
np.savez(f"part-{os.environ['RANK']}.npz", asked=np.array(asked), shared=np.array(shared), item=weights["item"])
"""


def together(folder: Path, batch: int) -> subprocess.CompletedProcess[str]:
    """Two processes that train one network."""
    script = folder / "part.py"
    script.write_text(PART.replace("{batch}", str(batch)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, cwd=folder)


def test_two_processes_learn_from_different_pairs_and_draw_different_negatives(tmp_path: Path) -> None:
    """In each epoch every pair is learned from once, by one of them, however many numbers each has drawn for its
    negatives and for ids that are left out; these differ. Both end with the same weights."""
    pytest.importorskip("torch", reason="torch is missing: .venv/bin/pip install torch==2.13.0")
    done = together(tmp_path, 10)
    assert done.returncode == 0, done.stderr
    parts = [np.load(tmp_path / f"part-{rank}.npz") for rank in range(2)]
    asked = np.stack([part["asked"].reshape(3, 30) for part in parts])
    for epoch in range(3):
        assert sorted(asked[:, epoch].ravel().tolist()) == list(range(60))
    assert not np.array_equal(parts[0]["shared"], parts[1]["shared"])
    np.testing.assert_array_equal(parts[0]["item"], parts[1]["item"])


def test_fewer_batches_than_processes_are_refused(tmp_path: Path) -> None:
    """One batch for two processes would teach nothing; the rule and the remedy are said."""
    pytest.importorskip("torch", reason="torch is missing: .venv/bin/pip install torch==2.13.0")
    done = together(tmp_path, 60)
    assert done.returncode != 0
    assert "each of 2 processes takes a batch or more" in done.stderr
    assert "make batches smaller" in done.stderr
