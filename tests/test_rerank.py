"""Each rule keeps its promise on every slate, and logged propensities are the chances with which items are shown."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import penstock as ps
from penstock.errors import DefinitionError
from penstock.serve.rerank import Rule, Slate

ITEMS = list(range(10, 22))
GROUP = {item: 1 + item % 3 for item in ITEMS}


class Names:
    """Item 10 is "i10", group 1 is "g1"; nothing else is known."""

    def code(self, text: str) -> int:
        return int(text[1:]) if text[1:].isdigit() and int(text[1:]) < 30 else 0

    def text(self, code: int) -> str:
        return f"i{code}"

    def texts(self, codes: np.ndarray) -> list[str]:
        return [self.text(code) for code in codes.tolist()]


def slate(items: list[int]) -> Slate:
    """A slate of these items in this order, found in another one."""
    found = sorted(items)
    order = np.array([found.index(item) for item in items], np.int64)
    groups = np.array([GROUP[item] for item in found], np.uint32)
    return Slate(np.array(found, np.uint32), order, {"group": groups}, np.ones(len(items)))


def after(rules: list[Rule], items: list[int], k: int = 5, seed: int = 0) -> list[int]:
    """The items shown."""
    found = slate(items)
    for rule in rules:
        found = rule.apply(found, k, Names(), random.Random(seed))
        assert len(found.order) == len(found.propensity)
        assert len(set(found.order.tolist())) == len(found.order)
    return [int(item) for item in found.items[found.order[:k]]]


SLATES = st.lists(st.sampled_from(ITEMS), unique=True, max_size=12)
SIZES = st.integers(1, 14)


@given(items=SLATES, k=SIZES, most=st.integers(1, 3))
def test_a_cap_keeps_the_first_of_each_group(items: list[int], k: int, most: int) -> None:
    """At most `most` of a group are left, the best ones in their order, even where the slate is then short."""
    kept = [item for i, item in enumerate(items) if [GROUP[x] for x in items[:i]].count(GROUP[item]) < most]
    assert after([ps.cap("group", most=most)], items, k) == kept[:k]


@given(items=SLATES, k=SIZES)
def test_blocked_items_and_values_are_never_shown_and_the_others_keep_their_order(items: list[int], k: int) -> None:
    assert after([ps.block("i10", "i12", "i9", "nothing")], items, k) == [i for i in items if i not in (10, 12)][:k]
    assert after([ps.block("g2", field="group")], items, k) == [i for i in items if GROUP[i] != 2][:k]


@given(items=SLATES, k=SIZES, place=st.integers(1, 14), item=st.sampled_from([10, 15, 29]))
def test_a_pinned_item_stands_at_its_place_found_or_not(items: list[int], k: int, place: int, item: int) -> None:
    """At the end where there are fewer; what stands around it keeps its order; an unknown item changes nothing."""
    others = [i for i in items if i != item]
    others.insert(min(place - 1, len(others)), item)
    assert after([ps.pin(f"i{item}", place=place)], items, k) == others[:k]
    assert after([ps.pin("unknown", place=place)], items, k) == items[:k]


@given(items=SLATES, k=SIZES)
def test_a_rule_that_comes_later_has_the_last_word(items: list[int], k: int) -> None:
    assert 10 not in after([ps.pin("i10"), ps.block("i10")], items, k)
    assert after([ps.block("i10"), ps.pin("i10")], items, k)[0] == 10


@given(items=SLATES, k=SIZES, strength=st.sampled_from([0.0, 0.5, 2.0, 1e9]))
def test_diversity_is_greedy_by_rank_and_cost(items: list[int], k: int, strength: float) -> None:
    """Each place takes the item with the lowest rank plus strength times the group's items above; ties by rank."""
    left = list(enumerate(items))
    expected: list[int] = []
    while left and len(expected) < k:
        chosen = [GROUP[item] for item in expected]
        costs = [(rank + strength * chosen.count(GROUP[item]), rank) for rank, item in left]
        expected.append(left.pop(costs.index(min(costs)))[1])
    found = after([ps.diversify("group", strength=strength)], items, k)
    assert found == expected


@pytest.mark.parametrize(("rate", "first"), [(0.3, 1), (0.5, 3), (1.0, 1), (0.0, 1)])
def test_logged_propensities_are_the_chances_of_what_is_shown(rate: float, first: int) -> None:
    """Over 20,000 draws, each item stands at each place as often as its propensity says, given those above it."""
    draws, k, items = 20_000, 3, ITEMS[:4]
    shown: Counter[tuple[int, ...]] = Counter()
    chance: dict[tuple[int, ...], float] = {}
    for seed in range(draws):
        found = ps.explore(rate, first=first).apply(slate(items), k, Names(), random.Random(seed))
        path = tuple(int(item) for item in found.items[found.order[:k]])
        for place in range(1, k + 1):
            shown[path[:place]] += 1
            given_above = float(found.propensity[place - 1])
            assert chance.setdefault(path[:place], given_above) == given_above
    shown[()] = draws
    for path, said in chance.items():
        if not path:
            continue
        asked = shown[path[:-1]]
        deviation = (said * (1 - said) / asked) ** 0.5
        assert abs(shown[path] / asked - said) <= 5 * deviation + 1e-12, path
    # What can follow the same places above has chances that add up to one.
    for above in {path[:-1] for path in chance}:
        following = [said for path, said in chance.items() if path[:-1] == above]
        if len(following) == len(items) - len(above):
            assert sum(following) == pytest.approx(1.0)
    assert all(path[: first - 1] == tuple(items[: first - 1])[: len(path)] for path in chance)


def test_exploring_begins_at_its_first_place() -> None:
    """Places before it are the best items' for certain; at it, each candidate comes, and none beyond k is shown."""
    shown: list[set[int]] = [set() for _ in range(4)]
    for seed in range(300):
        found = ps.explore(1.0, first=3).apply(slate(ITEMS[:6]), 4, Names(), random.Random(seed))
        for place in range(4):
            shown[place].add(int(found.items[found.order[place]]))
        assert found.propensity.tolist() == [1.0, 1.0, 0.25, 1 / 3, 0.0, 0.0]
    assert shown[:3] == [{10}, {11}, {12, 13, 14, 15}]


@given(items=SLATES, k=SIZES, seed=st.integers(0, 1000))
def test_exploring_loses_and_doubles_nothing(items: list[int], k: int, seed: int) -> None:
    """The candidates stay the same ones, and the best stay best where there is no chance of anything else."""
    found = ps.explore(0.5).apply(slate(items), k, Names(), random.Random(seed))
    assert sorted(found.items[found.order].tolist()) == sorted(items)
    assert after([ps.explore(0.0)], items, k, seed) == items[:k]


@given(items=SLATES, k=SIZES, pinned=st.sampled_from([10, 15, 29]))
def test_a_slate_is_filled_from_what_spreading_left_over(items: list[int], k: int, pinned: int) -> None:
    """Diversity keeps the candidates behind the slate, so that blocking after it leaves no hole."""
    rules = [ps.diversify("group"), ps.block("i11", "i13"), ps.pin(f"i{pinned}", place=2)]
    left = [item for item in items if item not in (11, 13, pinned)]
    assert len(after(rules, items, k)) == min(k, len(left) + 1)


def test_rules_by_a_field_take_a_pinned_item_that_no_source_found() -> None:
    """It has no attribute, so neither a cap nor a block of a value, known or not, is about it."""
    items = [10, 13, 11]
    assert after([ps.pin("i29"), ps.cap("group", most=1)], items) == [29, 10, 11]
    assert after([ps.pin("i29"), ps.block("g2", "nothing", field="group")], items) == [29, 11]
    assert after([ps.pin("i29"), ps.diversify("group", strength=2.0)], items) == [29, 10, 11, 13]


def test_exploring_shows_only_what_the_rules_before_it_left() -> None:
    """No blocked item is ever drawn, and nothing is shown twice."""
    for seed in range(300):
        found = after([ps.block("i10", "i11"), ps.explore(1.0)], ITEMS, k=20, seed=seed)
        assert sorted(found) == ITEMS[2:]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ps.cap("group", most=0), "at least one item.*got most=0.*ps.block"),
        (lambda: ps.pin("i1", place=0), "count from 1.*got place=0"),
        (lambda: ps.explore(1.5), "between 0 and 1; got 1.5"),
        (lambda: ps.explore(0.1, first=0), "count from 1.*got first=0"),
        (lambda: ps.diversify("group", strength=-1.0), "zero or more; got -1.0"),
        (
            lambda: after([ps.cap("brand", most=1)], ITEMS),
            "attribute of the candidates; got 'brand'; add brand = ps.la",
        ),
    ],
)
def test_a_rule_that_cannot_hold_says_why(make: Any, words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        make()


def test_items_without_a_value_are_no_group() -> None:
    """Neither a cap nor diversity counts those whose field is missing as alike."""
    order = np.arange(4)
    none = Slate(np.arange(1, 5, dtype=np.uint32), order, {"group": np.zeros(4, np.uint32)}, np.ones(4))
    for rule in (ps.cap("group", most=1), ps.diversify("group", strength=9.0)):
        assert rule.apply(none, 4, Names(), random.Random(0)).order.tolist() == [0, 1, 2, 3]
