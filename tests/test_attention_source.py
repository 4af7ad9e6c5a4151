"""Attention as a source: what is kept changes nothing, candidates all have scores, kinds and attributes count."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import DefinitionError
from penstock.learn import Attention
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
    """Items newest first, as list features are; an event every three seconds."""
    told, times = kinds or [1] * len(items), when or [900 - 3 * i for i in range(len(items))]
    lists = {"recent": items, "kinds": told, "when": times}
    return Query({name: np.array(part, np.uint32) for name, part in lists.items()}, {})


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
    """An empty shop has a source that finds nothing, and sizes that do not fit are refused."""
    source = Attention("recent", **SMALL)
    index = source.fit({"recent": history([])})
    assert len(source.find(query([10]), index).items) == 0
    with pytest.raises(DefinitionError, match="multiple of its heads"):
        Attention(width=9, heads=2)
