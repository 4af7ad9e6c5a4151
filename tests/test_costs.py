"""Actions are the cheapest ones, and a review's price shares out the reviewers there are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.clock import DAY
from penstock.errors import DefinitionError
from penstock.learn import ACTIONS, Costs, Price
from penstock.learn.costs import solve

Cents = st.floats(0, 1e6)
Given = st.builds(
    Costs, st.just("amount"), review=Cents, decline=st.floats(1, 1e6), decline_share=st.floats(0, 1),
    caught=st.floats(0, 1), reviews=st.floats(0, 1e4),
)  # fmt: skip


def plain(costs: Costs, p: float, a: float, price: float) -> list[float]:
    """The three costs, written out for one event."""
    return [
        p * a,
        costs.review + price + p * (1 - costs.caught) * a,
        (1 - p) * (costs.decline + costs.decline_share * a),
    ]


@given(costs=Given, events=st.lists(st.tuples(st.floats(0, 1), Cents), min_size=1, max_size=20), price=Cents)
def test_the_cheapest_action_is_taken(costs: Costs, events: list[tuple[float, float]], price: float) -> None:
    """Against the definition, an event at a time: nothing costs less than what is chosen."""
    chance, amount = (np.array(column, float) for column in zip(*events, strict=True))
    chosen = costs.cheapest(chance, amount, price)
    for (p, a), place in zip(events, chosen.tolist(), strict=True):
        each = plain(costs, p, a, price)
        assert each[place] <= min(each) * (1 + 1e-12)


@given(saving=st.lists(st.floats(-100, 100), min_size=1, max_size=60, unique=True), share=st.floats(0, 1))
def test_the_price_admits_as_many_reviews_as_there_are_people_for(saving: list[float], share: float) -> None:
    """Never more than the share; and one more than that would be worth no review at a lower price."""
    price = solve(np.array(saving), share)
    wanted = [one for one in saving if one > price]
    assert len(wanted) <= share * len(saving)
    if price:
        assert len([one for one in saving if one >= price]) > share * len(saving) - 1


@given(
    costs=Given, a_day=st.floats(1, 1e5),
    events=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 9_999), st.booleans(), st.integers(1, 4)), min_size=1),
)  # fmt: skip
def test_an_event_of_weight_three_is_three_events(costs: Costs, a_day: float, events: list[Any]) -> None:
    """What acting has cost, and the price of a review, are those of a table in which each stands as often as it counts;
    where the share of reviews ends within copies of one event, none of them is worth one."""
    chance, amount, positive, weight = (np.array(column) for column in zip(*events, strict=True))
    often = np.repeat(np.arange(len(events)), weight)
    price = costs.price(chance, amount, a_day, weight.astype(float))
    assert price == pytest.approx(costs.price(chance[often], amount[often], a_day), rel=1e-9)
    action = costs.cheapest(chance, amount, price)
    assert costs.came(action, amount, positive, weight.astype(float)) == pytest.approx(
        costs.came(action[often], amount[often], positive[often])
    )


def test_nobody_to_review_has_no_price() -> None:
    """Neither for a sample nor for what comes: with no reviewers no review is ever worth it."""
    assert solve(np.array([1e9]), 0.0) == math.inf
    price = Price(Costs("amount", reviews=0))
    assert price.now == math.inf
    price.begin(np.arange(1_000.0), a_day=1_000)
    assert price.now == math.inf
    price.set(3)
    assert 0 < price.now < math.inf
    price.set(0)
    price.add(1e6, 5)
    assert price.now == math.inf
    costs = price.costs
    assert costs.cheapest(np.array([0.5]), np.array([1e6]), math.inf).tolist() == [2]


def test_more_reviewers_make_reviews_cheaper_at_once() -> None:
    """The price is solved anew when their number changes, and falls to nothing once there are enough."""
    price = Price(Costs("amount", review=0, decline=100, reviews=10))
    price.begin(np.arange(1_000.0), a_day=1_000)
    assert price.now == pytest.approx(989, rel=0.005)
    price.set(100)
    assert price.now == pytest.approx(899, rel=0.005)
    price.set(5_000)
    assert price.now == 0


def asked_at(price: Price, savings: Iterable[float], a_day: float, begin: int = 0) -> list[int]:
    """When reviews are asked for, of events with these savings that come evenly."""
    asked = []
    for place, saving in enumerate(savings):
        time = begin + int(place * DAY / a_day)
        review = saving > price.now
        price.add(saving, time, asked=review)
        if review:
            asked.append(time)
    return asked


def test_the_price_follows_the_events() -> None:
    """As ever dearer events come, at their own rate, a tenth of them is reviewed, and never more than that in a day."""
    costs = Costs("amount", review=0, decline=100, reviews=48)
    random = np.random.default_rng(1)
    savings = [float(random.gamma(2, 10 + place / 100)) for place in range(20_000)]
    asked = asked_at(Price(costs), savings, a_day=480)
    assert 0.08 < len(asked) / len(savings) <= 0.1
    assert most_in_a_day(asked) <= 48


def most_in_a_day(asked: Sequence[int]) -> int:
    times = np.array(sorted(asked))
    return max((np.searchsorted(times, times + DAY) - np.arange(len(times))).tolist(), default=0)


@pytest.mark.parametrize("reviews", [1, 4])
def test_a_small_capacity_is_kept(reviews: int) -> None:
    """One review in 20,000 events or fewer: about as many are asked for as can be done, with a release or without."""
    random, a_day = np.random.default_rng(2), reviews * 20_000
    savings = random.gamma(2, 10, 4 * a_day)
    for begun in (True, False):
        price = Price(Costs("amount", review=0, decline=100, reviews=reviews))
        if begun:
            price.begin(random.gamma(2, 10, 5_000), a_day)
        asked = asked_at(price, savings.tolist(), a_day)
        assert most_in_a_day(asked) <= reviews
        assert len(asked) >= 1.5 * reviews  # of 4 days, the first of which may be used up early


def test_what_rules_have_reviewed_is_no_longer_there_for_others() -> None:
    """Of ten reviews a day rules take seven: three are left, and none where rules take all, until a day has passed."""
    random = np.random.default_rng(3)
    price = Price(Costs("amount", review=0, decline=100, reviews=10))
    price.begin(random.gamma(2, 10, 5_000), 1_000)
    before = price.now
    chosen = []
    for place in range(5_000):
        time, saving = place * DAY // 1_000, float(random.gamma(2, 10))
        if place % 143 == 0:
            price.add(None, time, asked=True)
        else:
            review = saving > price.now
            price.add(saving, time, asked=review)
            chosen += [time] if review else []
    assert price.now > before
    later = [time for time in chosen if time >= DAY]  # before, the rules had not asked for theirs yet
    assert most_in_a_day(later) <= 4
    assert 6 <= len(later) <= 4 * 3 + 1
    for _ in range(10):
        price.add(None, 5 * DAY, asked=True)
    assert price.now == math.inf
    price.add(1.0, 6 * DAY + 1)
    assert price.now < math.inf


@settings(deadline=None, max_examples=50)
@given(
    reviews=st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.5, 7.0]),
    events=st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, DAY)), max_size=60),
)
def test_no_more_are_asked_for_than_can_be_done(reviews: float, events: list[tuple[float, int]]) -> None:
    """Whatever comes and when: of n reviews in a row, n being a day's at least, none comes before there is time."""
    price = Price(Costs("amount", review=0, decline=100, reviews=reviews))
    price.begin(np.array([1.0, 2.0]), 1)
    asked, time = [], 0
    for saving, later in events:
        time += later
        price.add(0.0, time)  # time goes on, whoever asks
        if saving > price.now:
            asked.append(time)
            price.add(saving, time, asked=True)
    few = math.ceil(reviews)
    assert not asked or few
    for one, then in zip(asked, asked[few:], strict=False):
        assert then - one >= few / reviews * DAY - 1


def test_a_new_release_goes_on_with_what_was_asked_for() -> None:
    """Reviews that are waiting use up the day's, whoever asked for them, also those before a restart."""
    price = Price(Costs("amount", review=0, decline=100, reviews=2))
    price.begin(np.arange(100.0), 100)
    price.remember([5 * DAY])
    price.add(1e6, 5 * DAY + 1, asked=True)
    assert price.now == math.inf
    fresh = Price(price.costs)
    fresh.begin(np.arange(100.0), 100)
    fresh.take_over(price)
    assert fresh.now == math.inf
    fresh.add(1.0, 6 * DAY)
    assert fresh.now < math.inf


def test_what_came_is_counted_as_by_hand() -> None:
    """Four events: a fraud approved, a fraud reviewed, somebody honest declined, somebody honest approved."""
    costs = Costs("amount", review=300, decline=1_000, decline_share=0.1, caught=0.5)
    action = np.array([ACTIONS.index(name) for name in ("approve", "review", "decline", "approve")])
    came = costs.came(action, np.array([5_000.0, 8_000.0, 2_000.0, 1_000.0]), np.array([True, True, False, False]))
    assert came == {
        "lost": 5_000 + 4_000, "saved": 4_000, "reviews": 1, "declined_good": 1, "declined_bad": 0,
        "cost": 9_000 + 1_200 + 300, "cost_of_approving": 13_000,
    }  # fmt: skip


@pytest.mark.parametrize("wrong", [{"review": -1}, {"caught": 1.5}, {"decline": 0.0}, {"reviews": -5}])
def test_senseless_costs_are_refused(wrong: dict[str, Any]) -> None:
    """At definition."""
    with pytest.raises(DefinitionError, match=r"costs are 0 or more.*write ps\.Costs"):
        Costs("amount", **wrong)
