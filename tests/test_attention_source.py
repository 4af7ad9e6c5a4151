"""Attention as a source: what is kept changes nothing, candidates all have scores, kinds and attributes count."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import helpers
from penstock.errors import DefinitionError
from penstock.learn import Attention
from penstock.learn.attention import Kept
from penstock.learn.sequence import source as module
from penstock.retrieve import History, Index, Query

SMALL: dict[str, Any] = {"length": 8, "width": 8, "epochs": 2, "batch": 16, "k": 5}


def history(lists: list[list[int]], first: int = 0) -> History:
    """Each list is a shopper's; an event is a second after the one before."""
    owner = np.repeat(np.arange(1, len(lists) + 1), [len(part) for part in lists])
    item = np.array([code for part in lists for code in part])
    at = np.arange(len(item)) + first
    return History(owner.astype(np.uint32), item.astype(np.uint32), at * 1_000_000, at)


def visits(seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [(10 + (start + np.arange(6)) % 9).tolist() for start in random.integers(0, 9, 60).tolist()]


@pytest.fixture(scope="module")
def fitted() -> tuple[Attention, Index]:
    source = Attention("recent", kinds="kinds", times="when", **SMALL)
    lists = visits()
    kinds = [[1 + i % 2 for i in range(len(part))] for part in lists]
    return source, source.fit({"recent": history(lists), "kinds": history(kinds), "when": history(lists)})


def query(items: list[int], kinds: list[int] | None = None, when: list[int] | None = None) -> Query:
    """Items newest first, as list features are, with room for one more; an event every three seconds."""
    told, times = kinds or [1] * len(items), when or [900 - 3 * i for i in range(len(items))]
    lists = {"recent": items, "kinds": told, "when": times}
    return Query({name: np.array([*part, 0], np.uint32) for name, part in lists.items()}, {})


def likes(source: Attention, index: Index, asked: Query, items: list[int]) -> Any:
    """The cosines of some items."""
    others = source.find(asked, index).others
    assert others is not None
    return others(np.array(items, np.uint32))[:, 0]


@given(clicks=st.lists(st.integers(8, 20), max_size=30), batch=st.integers(1, 4), most=st.integers(0, 20))
@settings(max_examples=60)
def test_what_is_kept_changes_nothing(fitted: Any, clicks: list[int], batch: int, most: int) -> None:
    """Asked after every few clicks, of a list that is cut, it finds to the last bit what plain computes anew."""
    source, index = fitted
    for end in range(0, len(clicks) + 1, batch):
        asked = query(clicks[max(0, end - most) : end][::-1])
        found, plain = source.find(asked, index), source.plain(asked, index)
        assert found.items.tolist() == list(plain)
        assert [tuple(row) for row in found.scores.tolist()] == list(plain.values())
        assert set(source.because(asked, index, found.items).tolist()) <= {0, *clicks}


@pytest.mark.parametrize("wrong", ["bias", "order"])
def test_plain_does_not_repeat_a_mistake_of_the_quick_form(
    fitted: Any, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where attention forgets its bias, or events are read the wrong way round, plain finds what the definition says
    and find does not: an audit would name it."""
    source, index = fitted
    index = {**index, "items": index["items"].copy(), "weight 0.distance": index["weight 0.distance"] + np.arange(8.0)}
    asked = query([12, 11, 10, 15], [1, 2, 1, 1])
    right = source.plain(asked, index)
    assert [tuple(row) for row in source.find(asked, index).scores.tolist()] == list(right.values())
    index = {**index, "items": index["items"].copy()}
    if wrong == "bias":
        step = Kept.step
        monkeypatch.setattr(Kept, "step", lambda self, query, key, value, bias: step(self, query, key, value))
    else:
        reading = Attention._events
        monkeypatch.setattr(Attention, "_events", lambda self, query, index: reading(self, query, index)[::-1])
    found, plain = source.find(asked, index), source.plain(asked, index)
    assert dict(zip(found.items.tolist(), map(tuple, found.scores.tolist()), strict=True)) != plain
    assert plain.keys() == right.keys()
    assert [row[0] for row in plain.values()] == pytest.approx([row[0] for row in right.values()], abs=1e-4)


def test_one_more_click_is_one_more_step(fitted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shopper's next click costs one step, also where the list is longer than what is looked at."""
    source, index = fitted
    stepper = module._memory(source, index).stepper
    steps: list[int] = []
    step = stepper.step
    monkeypatch.setattr(stepper, "step", lambda *what: (steps.append(1), step(*what))[1])
    clicks = [10 + int(code) for code in np.random.default_rng(1).integers(0, 9, 300)]
    for end in range(1, len(clicks)):
        source.find(query(clicks[max(0, end - 50) : end][::-1]), index)
    # Where the window begins elsewhere, all that is in it is gone through anew; it is so short that this is often.
    assert len(steps) < 4 * len(clicks)
    before = len(steps)
    source.find(query(clicks[:4][::-1]), index)
    assert len(steps) == before


@pytest.mark.parametrize("holds", [9, 24])
def test_one_more_click_is_a_few_steps_where_the_list_holds_no_more_than_is_looked_at(
    holds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full list moves on with each click; what is looked at does not, but goes back two thirds of it or more."""
    source = Attention("recent", **SMALL | {"length": 24, "epochs": 1})
    index = source.fit({"recent": history(visits())})
    stepper = module._memory(source, index).stepper
    steps: list[int] = []
    step = stepper.step
    monkeypatch.setattr(stepper, "step", lambda *what: (steps.append(1), step(*what))[1])
    clicks = [10 + int(code) for code in np.random.default_rng(1).integers(0, 9, 300)]
    for end in range(1, len(clicks)):
        newest = clicks[max(0, end - holds) : end][::-1]
        asked = Query({"recent": np.array(newest + [0] * (holds - len(newest)), np.uint32)}, {})
        source.find(asked, index)
        looked = len(source._events(asked, index))
        assert 2 * holds // 3 <= looked <= holds if end >= holds else looked == end
    assert len(steps) < holds / 2 * len(clicks)


def test_every_candidate_has_a_score_and_it_is_the_one_found(fitted: Any) -> None:
    """Items of other sources get their cosine, to the bit what `find` says of its own; unknown ones get none."""
    source, index = fitted
    asked = query([12, 11, 10])
    found = source.find(asked, index)
    np.testing.assert_array_equal(found.others(found.items)[:, 0], found.scores[:, 0])
    scores = found.others(np.array([10, 18, 99], np.uint32))
    assert np.isfinite(scores[:2, 0]).all()
    assert np.isnan(scores[2]).all()
    plain = source.plain_others(asked, index)
    assert len(plain) == len(index["items"])
    np.testing.assert_array_equal(found.others(np.array(list(plain), np.uint32)), np.array(list(plain.values())))
    assert source.find(query([]), index).others is None
    assert source.plain_others(query([]), index) == {}


def test_it_learns_what_comes_next() -> None:
    """After 12, 11, 10 (newest first) of a circle it expects 13."""
    source = Attention("recent", **SMALL | {"epochs": 12, "rate": 1e-2})
    index = source.fit({"recent": history(visits())})
    assert source.find(query([12, 11, 10]), index).items[0] == 13


def test_a_network_goes_on_from_an_earlier_one() -> None:
    """A quarter of the epochs teaches it what is new, and leaves it surer of what is old than so few from nothing."""
    source = Attention("recent", **SMALL | {"epochs": 12, "rate": 1e-2})
    early, late = visits(), [*visits(), *[[30, 31, 32, 33]] * 60]
    earlier = source.fit({"recent": history(early)})
    gone_on = source.fit({"recent": history(late)}, earlier)
    for newest, following in ([12, 11, 10], 13), ([32, 31, 30], 33):
        assert source.find(query(newest), gone_on).items[0] == following
    short = replace(source, epochs=4)
    more, anew = short.fit({"recent": history(late)}, earlier), replace(source, epochs=1).fit({"recent": history(late)})
    asked = query([12, 11, 10])
    assert likes(source, more, asked, [13])[0] > likes(source, anew, asked, [13])[0] + 0.1


def test_kinds_are_told_apart() -> None:
    """Where what follows depends on the kind alone, so does what is expected."""
    random = np.random.default_rng(2)
    kinds = [[int(random.integers(1, 3)), 1] for _ in range(200)]
    items = [[10, 10 + kind[0]] for kind in kinds]
    source = Attention("recent", kinds="kinds", **SMALL | {"epochs": 12, "rate": 1e-2})
    index = source.fit({"recent": history(items), "kinds": history(kinds)})
    assert [source.find(query([10], [kind]), index).items[0] for kind in (1, 2)] == [11, 12]


def test_the_time_between_events_is_looked_at() -> None:
    """Where what follows two events depends on the time between them alone, so does what is expected."""
    random = np.random.default_rng(5)
    quick = random.integers(0, 2, 200)
    items = [[10, 10, 11 + one] for one in quick.tolist()]
    past = history(items)
    time = np.arange(600) * 10_000_000_000
    time[1::3] = time[0::3] + np.where(quick == 1, 2, 5_000) * 1_000_000
    timed = replace(past, time=time)
    source = Attention("recent", times="when", **SMALL | {"epochs": 12, "rate": 1e-2})
    index = source.fit({"recent": timed, "when": timed})
    assert [source.find(query([10, 10], when=[9_000, at]), index).items[0] for at in (4_000, 8_998)] == [11, 12]


def test_an_item_that_nobody_went_on_to_is_known_by_what_it_is() -> None:
    """Of two items that were only ever seen first, the one of the category that follows is expected sooner."""
    random = np.random.default_rng(3)
    lists, categories = [], []
    for _ in range(300):
        lists.append([10, int(random.integers(20, 24))])
        categories.append([1, 2])
    # Items 30 and 31 stand alone: 30 is of the category that follows, 31 of another.
    lists += [[30], [31]]
    categories += [[2], [3]]
    what: Mapping[str, History] = {"recent": history(lists), "categories": history(categories)}
    source = Attention("recent", about=("categories",), **SMALL | {"epochs": 12, "rate": 1e-2})
    index = source.fit(what)
    asked = Query({"recent": np.array([10], np.uint32)}, {})
    scores = likes(source, index, asked, [30, 31])
    assert scores[0] > scores[1] + 0.1


def test_what_is_kept_goes_with_its_index() -> None:
    """An index that is gone leaves nothing behind."""
    source = Attention("recent", **SMALL)
    before = len(module._MEMORIES)
    index = source.fit({"recent": history(visits())})
    source.find(query([10]), index)
    assert len(module._MEMORIES) == before + 1
    del index
    gc.collect()
    assert len(module._MEMORIES) == before


def test_no_history_finds_nothing() -> None:
    """An empty shop has a source that finds nothing."""
    source = Attention("recent", **SMALL)
    index = source.fit({"recent": history([])})
    assert len(source.find(query([10]), index).items) == 0
    for asked in (query([10]), Query({"recent": np.zeros(0, np.uint32)}, {})):
        assert source.plain(asked, index) == {}
        assert len(source.find(asked, index).items) == 0


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ({"width": 9, "heads": 2}, "multiple of its heads"),
        ({"k": 0}, "at least 1"),
        ({"layers": 0}, "at least 1"),
        ({"scale": 0.0}, "more than 0"),
        ({"drop": 1.0}, "shares below 1"),
        ({"about": "categories"}, "named in a tuple"),
        ({"kinds": "recent"}, "a list feature of their own"),
        ({"kinds": "when", "times": "when"}, "a list feature of their own"),
        ({"of": ""}, "a list feature of their own"),
    ],
    ids=repr,
)
def test_arguments_that_do_not_fit_are_refused(wrong: dict[str, Any], rule: str) -> None:
    """With the rule, what came and the remedy, where the source is defined."""
    with pytest.raises(DefinitionError, match=rule) as raised:
        Attention(**wrong)
    assert raised.value.got
    assert raised.value.remedy


PARALLEL = helpers.APP.replace("    kind: str\n", "    kind: str\n    shelf: str | None = None\n").replace(
    "[ps.seen(", '[ps.attention("recent", kinds="beside"), ps.seen('
)


def parallel(folder: Path, recent: str, beside: str) -> None:
    text = PARALLEL.replace('ps.last("item", k=20)', f"{recent}\n    beside = {beside}", 1)
    helpers.load_app(folder, "from polars import col\n" + text).close()


@pytest.mark.parametrize(
    ("recent", "beside", "got"),
    [
        ('ps.last("item", k=20)', 'ps.last("kind", k=10)', "k=20"),
        ('ps.last("item", k=20)', 'ps.top_k("kind", k=20)', "top_k"),
        ('ps.last("item", k=20)', 'ps.first("kind", k=20)', "first"),
        ('ps.last("item", k=20, window="7d")', 'ps.last("kind", k=20, window="1d")', "window='1d'"),
        ('ps.last("item", k=20)', 'ps.last("kind", k=20, where=col("kind") == "view")', "where="),
        ('ps.last("item", k=20)', 'ps.last("shelf", k=20)', "'shelf', which an event may lack"),
        (
            'ps.last("shelf", k=20, where=col("item") == "a")',
            'ps.last("kind", k=20, where=col("item") == "a")',
            "shelf",
        ),
    ],
)
def test_lists_that_need_not_hold_the_same_events_are_refused(
    tmp_path: Path, recent: str, beside: str, got: str
) -> None:
    """What is read place by place is refused where a place might be another event, which training would not pair."""
    with pytest.raises(DefinitionError, match="recent and beside are read place by place") as raised:
        parallel(tmp_path, recent, beside)
    assert got in raised.value.got
    assert raised.value.remedy


@pytest.mark.parametrize(
    ("recent", "beside"),
    [
        ('ps.last("item", k=20)', 'ps.last("kind", k=20)'),
        ('ps.last("shelf", k=20)', 'ps.last_times("shelf", k=20)'),
        ('ps.last("item", k=20, window="1d")', 'ps.last("kind", k=20, window="24h")'),
        (
            'ps.last("shelf", k=20, where=(col("kind") == "view") & col("shelf").is_not_null())',
            'ps.last("kind", k=20, where=(col("kind") == "view") & col("shelf").is_not_null())',
        ),
    ],
)
def test_lists_of_the_same_events_are_read_beside_one_another(tmp_path: Path, recent: str, beside: str) -> None:
    """Fields that every event has, one column twice, and an optional field that the filter asks for."""
    parallel(tmp_path, recent, beside)
