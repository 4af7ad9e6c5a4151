"""Actions are the cheapest ones, and a review's price shares out the reviewers there are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
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


def test_more_reviewers_make_reviews_cheaper_at_once() -> None:
    """The price is solved anew when their number changes, and falls to nothing once there are enough."""
    price = Price(Costs("amount", review=0, decline=100, reviews=10))
    price.begin(np.arange(1_000.0), a_day=1_000)
    assert price.now == 989
    price.set(100)
    assert price.now == 899
    price.set(5_000)
    assert price.now == 0


def test_the_price_follows_the_events() -> None:
    """As ever dearer events come, at their own rate, the share of them that is reviewed stays what it should be."""
    costs = Costs("amount", review=0, decline=100, reviews=48)
    price, random = Price(costs, most=1_000), np.random.default_rng(1)
    reviewed = 0
    for place in range(20_000):
        saving = float(random.gamma(2, 10 + place / 100))
        reviewed += saving > price.now
        price.add(saving, place * DAY // 480)  # 480 a day: a tenth of them may be reviewed
    assert 0.08 < reviewed / 20_000 < 0.15


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
