"""Each candidate source finds exactly what its plain definition says, from an index that equals a recount by hand."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars import col

import penstock as ps
from penstock.clock import DAY, HOUR, MINUTE
from penstock.events import schema_of
from penstock.features import View
from penstock.learn import LambdaRank, Recipe, TwoTower
from penstock.learn.dataset import popularity_at
from penstock.registry import name_of, names
from penstock.retrieve import (
    Covisits,
    Documents,
    History,
    Index,
    Lexical,
    Popularity,
    Query,
    Reader,
    Seen,
    Semantic,
    SessionNeighbours,
    Similar,
    Source,
)
from penstock.retrieve.popularity import PopularLists
from penstock.types import Rows

ITEMS = st.integers(1, 9)
# (owner, item, minutes since the owner's event before)
VISITS = st.lists(st.tuples(st.integers(1, 4), ITEMS, st.integers(0, 90)), max_size=60)
RECENT = st.lists(st.integers(0, 12), max_size=25)
SOURCES = [
    Seen("recent", k=5),
    Covisits("recent", k=6, recent=4, steps=3, span="2h", neighbours=4),
    Covisits("recent", k=6, steps=2, span="30min", neighbours=3, norm=0.0, decay=0.5),
    Similar("recent", k=5, steps=5, span="4h", neighbours=5),
    SessionNeighbours("recent", k=6, recent=4, sample=3, neighbours=4),
    Covisits("recent", k=6, steps=3, neighbours=4, norm=0.25, backward=0.3),
    Covisits("recent", k=6, steps=3, neighbours=4, backward=0.0),
    SessionNeighbours("recent", k=6, recent=4, sample=3, neighbours=4, idf=True, near=True),
    TwoTower("recent", k=6, recent=4, width=6, epochs=1, batch=16, uniform=4),
    TwoTower("recent", k=3, recent=20, width=5, inner=4, epochs=2, batch=16, uniform=0, mined=1),
]


def history(visits: list[tuple[int, int, int]]) -> History:
    """Each owner's visits in a row, in the order of time."""
    clock: dict[int, int] = defaultdict(int)
    rows = []
    for owner, item, pause in visits:
        clock[owner] += pause * MINUTE
        rows.append((owner, item, clock[owner]))
    rows.sort(key=lambda row: row[0])
    owner, item, time = (np.array([row[i] for row in rows]) for i in range(3))
    return History(owner.astype(np.uint32), item.astype(np.uint32), time.astype(np.int64))


def fitted(source: Source, visits: list[tuple[int, int, int]]) -> Index:
    return source.fit({"recent": history(visits)})


@pytest.mark.parametrize("source", SOURCES, ids=repr)
@settings(max_examples=150, deadline=None)
@given(visits=VISITS, recent=RECENT)
def test_find_equals_the_plain_definition_to_the_bit(source: Source, visits: Any, recent: list[int]) -> None:
    """Items in the same order with the same float64 scores, for repeated, missing and unknown items too."""
    index = fitted(source, visits)
    query = Query({"recent": np.array(recent, np.uint32)}, {})
    found, plain = source.find(query, index), source.plain(query, index)
    assert (found.items.dtype, found.scores.dtype) == (np.uint32, np.float64)
    assert found.items.tolist() == list(plain)
    assert found.scores.shape == (len(plain), len(source.columns))
    assert [tuple(row) for row in found.scores.tolist()] == list(plain.values())
    assert set(source.because(query, index, found.items).tolist()) <= {0, *recent}


@pytest.mark.parametrize("source", SOURCES[1:], ids=repr)
@settings(max_examples=100, deadline=None)
@given(visits=VISITS, recent=RECENT)
def test_others_have_the_scores_that_a_longer_list_would_tell(source: Any, visits: Any, recent: list[int]) -> None:
    """Of items not proposed: to the bit what `plain` says where everything is proposed; NaN of unknown ones. So does
    their own plain definition."""
    index = fitted(source, visits)
    query = Query({"recent": np.array(recent, np.uint32)}, {})
    found, every = source.find(query, index), replace(source, k=1_000).plain(query, index)
    assert source.plain_others(query, index) == every
    scores = found.others(np.arange(1, 14, dtype=np.uint32))
    nothing = (np.nan,) * len(source.columns)
    np.testing.assert_array_equal(scores, np.array([every.get(item, nothing) for item in range(1, 14)]))


SAID = st.lists(st.sampled_from(["oak", "oaks", "lamp", "lam", "the", "tea", "teacup", "zinc", "é"]), max_size=5).map(
    " ".join
)
READERS: list[Reader] = [
    Lexical("query", fields={"name": 3.0, "brand": 1.0}, k=4),
    Lexical("query", fields=["name"], k=50, begun=False, stems=False, k1=1.2, b=0.75),
    Semantic("query", fields={"name": 3.0, "brand": 1.0}, k=4, dims=3),
    Semantic("query", fields=["name"], k=50, dims=16),
]


@pytest.mark.parametrize("source", READERS, ids=repr)
@settings(max_examples=150, deadline=None)
@given(shelf=st.lists(st.tuples(SAID, SAID), max_size=9), said=SAID)
def test_what_reads_words_finds_what_its_plain_definition_does(source: Reader, shelf: Any, said: str) -> None:
    """The same items in the same order with the same float64 scores, for empty shelves, texts and requests too; and
    an index that was on the disk finds the same."""
    documents = Documents(
        np.arange(3, 3 + len(shelf), dtype=np.uint32),
        {"name": [one[0] for one in shelf], "brand": [one[1] for one in shelf]},
    )
    index = source.learn(documents)
    query = Query({}, {}, {"query": said})
    found, plain = source.find(query, index), source.plain(query, index)
    assert (found.items.dtype, found.scores.dtype) == (np.uint32, np.float64)
    assert found.items.tolist() == list(plain)
    assert found.scores.shape == (len(plain), len(source.columns))
    assert [tuple(row) for row in found.scores.tolist()] == list(plain.values())
    assert source.find(Query({}, {}), index).items.tolist() == []
    with TemporaryFile() as file:
        np.savez(file, **index)
        file.seek(0)
        with np.load(file) as kept:
            again = source.find(query, dict(kept))
    assert (again.items.tolist(), again.scores.tolist()) == (found.items.tolist(), found.scores.tolist())


# Without decay, items often pass on the same.
NEIGHBOURS = [*(s for s in SOURCES if isinstance(s, Covisits | Similar)), Similar(decay=1.0, norm=0.0)]


@pytest.mark.parametrize("source", NEIGHBOURS, ids=repr)
@settings(max_examples=100, deadline=None)
@given(visits=VISITS, recent=RECENT)
def test_because_names_the_recent_item_that_passed_on_most(source: Any, visits: Any, recent: list[int]) -> None:
    """For every item, found or not: the newest of those whose decayed score is largest, looked up one by one."""
    index = fitted(source, visits)
    own = [code for code in dict.fromkeys(recent) if code][: source.recent]
    starts, known = index["starts"].tolist(), index["items"].tolist()
    expected = []
    for item in range(1, 14):
        best, led, weight = 0.0, 0, 1.0
        for code in own:
            if code in known:
                for edge in range(starts[known.index(code)], starts[known.index(code) + 1]):
                    passed = float(index["score"][edge]) * weight
                    if index["near"][edge] == item and passed > best:
                        best, led = passed, code
            weight *= source.decay
        expected.append(led)
    query = Query({"recent": np.array(recent, np.uint32)}, {})
    assert source.because(query, index, np.arange(1, 14, dtype=np.uint32)).tolist() == expected


@pytest.mark.parametrize("seed", range(20))
def test_among_sessions_alike_the_newest_vote_and_sums_keep_their_order(seed: int) -> None:
    """Where far more sessions tie than may vote, find and plain choose the same ones and add in the same order."""
    rng = np.random.default_rng(seed)
    visits = [(owner, int(rng.integers(1, 12)), int(rng.choice([5, 45]))) for owner in range(1, 60) for _ in range(8)]
    source = SessionNeighbours("recent", k=7, recent=5, sample=40, neighbours=15)
    index = fitted(source, visits)
    query = Query({"recent": rng.integers(1, 12, 12).astype(np.uint32)}, {})
    found, plain = source.find(query, index), source.plain(query, index)
    assert len(found.items) == 7
    assert dict(zip(found.items.tolist(), map(tuple, found.scores.tolist()), strict=True)) == plain
    assert found.items.tolist() == list(plain)


def test_a_pause_as_long_as_the_gap_goes_on_and_a_longer_one_ends_the_session() -> None:
    index = fitted(SOURCES[4], [(1, 5, 0), (1, 6, 30), (1, 7, 31)])
    starts = index["starts"].tolist()
    assert [index["visited"][a:b].tolist() for a, b in pairwise(starts)] == [[5, 6], [7]]


def test_only_the_newest_session_votes_where_one_may() -> None:
    """Two sessions share the item alike; the later one's company is found."""
    source = SessionNeighbours("recent", neighbours=1)
    found = source.find(
        Query({"recent": np.array([5], np.uint32)}, {}), fitted(source, [(1, 5, 0), (1, 6, 1), (1, 5, 60), (1, 7, 1)])
    )
    assert found.items.tolist() == [5, 7]


def test_a_pair_of_visits_counts_less_the_further_apart_and_a_similar_one_does_not() -> None:
    """d ** -0.5 and 1, as a fit on one sequence shows without a norm."""
    visits = [(1, item, 1) for item in (1, 2, 3, 4, 5)]
    for source, expected in (
        (Covisits("recent", steps=4, norm=0.0), [1.0, 2**-0.5, 3**-0.5, 0.5]),
        (Similar("recent", steps=4, norm=0.0), [1.0] * 4),
    ):
        index = fitted(source, visits)
        assert index["score"][: index["starts"][1]].tolist() == expected
        assert index["near"][: index["starts"][1]].tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize("source", [s for s in SOURCES if isinstance(s, Covisits | Similar)], ids=repr)
@settings(max_examples=150, deadline=None)
@given(visits=VISITS)
def test_neighbours_equal_a_recount_of_pairs(source: Any, visits: Any) -> None:
    """Pairs within steps and span, weighed by their distance, over the norm of both items' visits; ties by code."""
    past = history(visits)
    steps, span = source.steps, _micros(source.span)
    weight: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    times = list(zip(past.owner.tolist(), past.item.tolist(), past.time.tolist(), strict=True))
    # In the order of distance, then of time, since sums of floats depend on their order.
    for step in range(1, steps + 1):
        pairs = [
            (a[1], b[1])
            for a, b in zip(times, times[step:], strict=False)
            if a[0] == b[0] and b[2] - a[2] <= span and a[1] != b[1]
        ]
        for one, other in pairs:
            weight[one][other].append(source.weight(step))
        for one, other in pairs if source.backward else []:
            weight[other][one].append(source.weight(step) * source.backward)
    visited = {item: past.item.tolist().count(item) for item in set(past.item.tolist())}
    index = source.fit({"recent": past})
    assert index["items"].tolist() == sorted(visited)
    for place, item in enumerate(sorted(visited)):
        scores = {
            other: sum(parts) / ((visited[item] + 1.0) * (visited[other] + 1.0)) ** source.norm
            for other, parts in weight[item].items()
        }
        expected = sorted(scores, key=lambda other, scores=scores: (-scores[other], other))[: source.neighbours]
        edges = slice(index["starts"][place], index["starts"][place + 1])
        assert index["near"][edges].tolist() == expected
        assert index["score"][edges].tolist() == [scores[other] for other in expected]


def _micros(span: str) -> int:
    return {"1d": DAY, "2h": 2 * HOUR, "30min": 30 * MINUTE, "4h": 4 * HOUR}[span]


@settings(max_examples=150, deadline=None)
@given(visits=VISITS)
def test_sessions_equal_a_recount(visits: Any) -> None:
    """A pause longer than the gap ends a session; each item keeps the sessions that ended last."""
    source = replace(SOURCES[4], sample=2)
    past = history(visits)
    sessions: list[dict[str, Any]] = []
    before: tuple[int, int] | None = None
    for owner, item, time in zip(past.owner.tolist(), past.item.tolist(), past.time.tolist(), strict=True):
        if before is None or before[0] != owner or time - before[1] > 30 * MINUTE:
            sessions.append({"items": set(), "end": 0})
        sessions[-1]["items"].add(item)
        sessions[-1]["end"] = time
        before = (owner, time)
    index = source.fit({"recent": past})
    ends = [*index["item_starts"].tolist(), len(index["item_sessions"])]
    for number, session in enumerate(sessions):
        visited = index["visited"][index["starts"][number] : index["starts"][number + 1]]
        assert visited.tolist() == sorted(session["items"])
    for place, item in enumerate(index["items"].tolist()):
        holding = [n for n, session in enumerate(sessions) if item in session["items"]]
        newest = sorted(holding, key=lambda n: -sessions[n]["end"])[:2]
        assert index["item_sessions"][ends[place] : ends[place + 1]].tolist() == newest


# Popularity


class Action(ps.Event):
    user: str
    item: str
    kind: str
    category: str | None = None


SCHEMA = schema_of(Action)
WORDS = ["", "view", "buy", "shoes", "hats"]


class Texts:
    """A dictionary of a few words."""

    def text(self, code: int) -> str:
        return WORDS[code] if code < len(WORDS) else f"t{code}"

    def code(self, text: str) -> int:
        return WORDS.index(text)

    def texts(self, codes: np.ndarray) -> list[str]:
        return [self.text(code) for code in codes.tolist()]


EVENTS = st.lists(
    st.tuples(
        st.integers(0, 50),  # hours
        st.integers(0, 30),  # late by so many hours
        st.sampled_from([0, 10, 11, 12, 13]),  # item
        st.sampled_from([1, 2]),  # kind
        st.sampled_from([0, 3, 4]),  # category
    ),
    max_size=40,
)
POPULAR = [
    ps.popular(window="1d", k=2),
    ps.popular(k=3),
    ps.popular(by="category", window="12h", k=2, groups=1),
    ps.popular(where=col("kind") == "buy", window="2d", k=2, name="bought"),
]


def rows_of(events: list[tuple[int, ...]]) -> Rows:
    """The events in the order of their arrival."""
    events = sorted(events, key=lambda e: e[0] + e[1])
    fields = np.zeros(len(events), SCHEMA.dtype)
    for i, (_, _, item, kind, category) in enumerate(events):
        fields[i] = (20 + i, item, kind, category)
    time = np.array([e[0] * HOUR for e in events], np.int64)
    arrived = np.array([(e[0] + e[1]) * HOUR for e in events], np.int64)
    n = len(events)
    return Rows("action", np.arange(n), time, time, arrived, np.arange(n, dtype=np.uint64), fields)


def recount(source: Any, rows: Rows, end: int) -> dict[int, list[int]]:
    """Lists by group from the first `end` rows: counts in the window that ends at the newest full hop, ties by code.

    Lists were last made when the newest hop began, so a late event counts only from the next hop on.
    """
    hop = source.hop
    tile = (rows.time[:end] // hop).tolist()
    if not tile:
        return {}
    newest = max(tile)
    began = tile.index(newest) + 1
    first = None if source.window is None else newest - _window(source) // hop
    counts: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for i in range(began):
        item, kind = int(rows.fields["item"][i]), int(rows.fields["kind"][i])
        group = int(rows.fields["category"][i]) if source.by else 0
        inside = tile[i] < newest and (first is None or tile[i] >= first)
        if inside and item and (group or not source.by) and (source.where is None or WORDS[kind] == "buy"):
            counts[group][item] += 1
    return {
        group: sorted(found, key=lambda item, found=found: (-found[item], item))[: source.k]
        for group, found in counts.items()
    }


def _window(source: Any) -> int:
    return {"1d": DAY, "12h": 12 * HOUR, "2d": 2 * DAY}[source.window]


def listed(lists: Any) -> dict[int, list[int]]:
    return {group: items.tolist() for group, items in lists.by_group.items() if len(items)}


@pytest.mark.parametrize("source", POPULAR, ids=lambda s: s.label)
@settings(max_examples=100, deadline=None)
@given(events=EVENTS, data=st.data())
def test_live_popularity_equals_a_recount_whatever_the_batches(source: Any, events: Any, data: st.DataObject) -> None:
    """Fed singly or in random batches, lists equal the recount after each; so do those asked for at any offset."""
    rows = rows_of(events)
    live = Popularity(source, SCHEMA, "item")
    seen = [listed(live.lists)]
    for i in range(len(rows)):
        live.add(rows.take(slice(i, i + 1)), Texts())
        seen.append(listed(live.lists))
        assert seen[-1] == recount(source, rows, i + 1)
    batched = Popularity(source, SCHEMA, "item")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=6)))
    for start, stop in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        batched.add(rows.take(slice(start, stop)), Texts())
        assert listed(batched.lists) == seen[stop]
    view = View("Shopper", ("user",), {"recent": ps.last("item", k=5), "category": ps.last("category", k=2)}, SCHEMA)
    recipe = Recipe("home", "user", "item", (view,), (source,), LambdaRank("view", (view,)))
    known = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=6)))
    found = popularity_at(recipe, rows, Texts(), np.array(known, np.int64))
    assert [listed(lists[source.label]) for lists in found] == [seen[offset] for offset in known]


def test_lists_of_a_moment_do_not_change_with_later_counting() -> None:
    rows = rows_of([(0, 0, 10, 1, 3), (3, 0, 11, 1, 3), (6, 0, 11, 1, 3), (9, 0, 12, 1, 3)])
    live = Popularity(ps.popular(window="1d"), SCHEMA, "item")
    live.add(rows.take(slice(0, 2)), Texts())
    held = live.lists
    live.add(rows.take(slice(2, 4)), Texts())
    assert (listed(held), listed(live.lists)) == ({0: [10]}, {0: [11, 10]})


def test_popular_items_come_from_the_first_groups_that_have_any() -> None:
    """In the shopper's order, each group once; groups without items take no place, and later groups none."""
    lists = PopularLists({3: np.array([10, 11], np.uint32), 4: np.array([12], np.uint32), 5: np.array([13])}, groups=2)
    assert lists.items([4, 9, 4, 3, 5]).tolist() == [12, 10, 11]
    assert lists.items([9]).tolist() == lists.items([]).tolist() == []


@pytest.mark.parametrize("source", POPULAR, ids=lambda s: s.label)
@pytest.mark.parametrize("items", [[], [12, 10, 11]])
def test_popular_finds_its_list_in_its_order_without_scores(source: Any, items: list[int]) -> None:
    query = Query({}, {source.label: np.array(items, np.uint32)})
    found = source.find(query, {})
    assert found.items.tolist() == list(source.plain(query, {})) == items
    assert found.scores.shape == (len(items), len(source.columns))
    assert list(source.plain(query, {}).values()) == [tuple(row) for row in found.scores.tolist()]


def test_every_registered_source_is_tried_here() -> None:
    """A new source must stand in the lists above; those that train a network have files of their own."""
    trained = {"attention"}
    assert {name_of(source) for source in [*SOURCES, *READERS, *POPULAR]} == set(names("source")) - trained
