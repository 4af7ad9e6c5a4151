"""Rules about what a slate holds keep their promise at the least cost, or as far as can be, and say where they fail."""

from __future__ import annotations

import random
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import helpers
import penstock as ps
import slates
from penstock.errors import DefinitionError
from penstock.releases import Release, read
from penstock.serve.metrics import Metrics
from penstock.serve.rerank import Slate, at_least, within

N = st.integers(0, 9)
K = st.integers(1, 11)
FIRST = st.sampled_from([None, 1, 2, 4])


def applied(rule: Any, slate: Slate, k: int) -> Slate:
    found = rule.apply(slate, k, slates.Names(), random.Random(0))
    assert len(set(found.order.tolist())) == len(found.order)
    return found


def grouped(groups: list[int]) -> Slate:
    return slates.slate(-np.arange(len(groups), dtype=float), {"brand": groups})


GROUPS = st.lists(st.integers(0, 3), max_size=9)


@settings(max_examples=300)
@given(groups=GROUPS, k=K, count=st.integers(1, 3), first=FIRST)
def test_at_least_takes_the_highest_slate_that_has_enough(groups: list[int], k: int, count: int, first: int) -> None:
    """Of all windows with as many of the value as were asked for, or as there are, it is the one whose places sum to
    the least, in the order that came in; what it displaces follows in that order, too."""
    count = min(count, first or count)
    rule = at_least("brand", "g1", count, first=first)
    found = applied(rule, grouped(groups), k)
    order = found.order.tolist()
    window = min(k, first or k, len(groups))
    reached = min(count, groups.count(1), window)
    best = min(
        (sum(chosen), chosen) for chosen in combinations(range(len(groups)), window)
        if sum(groups[i] == 1 for i in chosen) >= reached
    )  # fmt: skip
    assert sum(order[:window]) == best[0]
    assert order[:window] == sorted(order[:window])
    assert order[window:] == sorted(order[window:])
    assert sorted(order) == list(range(len(groups)))
    shown = [groups[i] for i in order[:window]]
    assert rule.holds(found, k, slates.Names()) == (shown.count(1) >= count)


@settings(max_examples=300)
@given(groups=GROUPS, k=K, most=st.integers(1, 2), first=st.sampled_from([1, 2, 4]))
def test_a_cap_of_the_first_places_holds_there_and_leaves_the_rest(
    groups: list[int], k: int, most: int, first: int
) -> None:
    """Among the first places no group has more than `most`; of all such windows it is the one with the least places;
    what was too many comes right after, and is left out only where nothing else fills the window."""
    rule = ps.cap("brand", most, first=first)
    found = applied(rule, grouped(groups), k)
    order = found.order.tolist()

    def allowed(chosen: Any) -> bool:
        held = [groups[i] for i in chosen if groups[i]]
        return all(held.count(group) <= most for group in held)

    window = max(
        size for size in range(min(first, len(groups)) + 1)
        if any(allowed(chosen) for chosen in combinations(range(len(groups)), size))
    )  # fmt: skip
    assert sum(order[:window]) == min(sum(c) for c in combinations(range(len(groups)), window) if allowed(c))
    assert allowed(order[:first])
    assert len(order) == (len(groups) if window == first else window)
    assert order[window:] == sorted(order[window:])
    assert rule.holds(found, k, slates.Names())
    # The order that came in would not always have held.
    assert rule.holds(grouped(groups), k, slates.Names()) == allowed(range(min(len(groups), k, first)))


@st.composite
def priced(draw: st.DrawFn) -> tuple[list[float], list[float], int]:
    n = draw(st.integers(1, 8))
    values = draw(st.lists(st.integers(0, 6).map(float), min_size=n, max_size=n))
    prices = draw(st.lists(st.integers(-2, 9).map(float), min_size=n, max_size=n))
    return values, prices, draw(st.integers(1, 9))


def brute(values: np.ndarray, prices: np.ndarray, size: int, fits: Any) -> float | None:
    sums = [values[list(c)].sum() for c in combinations(range(len(values)), size) if fits(prices[list(c)].sum())]
    return max(sums, default=None)


@settings(max_examples=400)
@given(world=priced(), limit=st.integers(-3, 25), floor=st.booleans())
def test_a_budget_is_kept_within_one_swap_of_the_best_slate(world: Any, limit: int, floor: bool) -> None:
    """Every subset tried: the sum is within the limit wherever some slate is, and the scores fall short of the best
    such slate's by less than one item's score less another's. Where none is, `least` gives the highest sum, and
    `most` as many items as fit."""
    values, prices, k = world
    rule = within("price", least=float(limit)) if floor else within("price", most=float(limit))
    slate = slates.slate(values, columns={"price": prices})
    found = applied(rule, slate, k)
    value, price = np.array(values), np.array(prices)
    window = min(k, len(value))

    def fits(total: float) -> bool:
        return total >= limit if floor else total <= limit

    best = brute(value, price, window, fits)
    shown = found.order[:window]
    place = {one: i for i, one in enumerate(slate.order.tolist())}
    assert [place[i] for i in shown.tolist()] == sorted(place[i] for i in shown.tolist())
    assert rule.holds(found, k, slates.Names()) == (best is not None)
    if best is not None:
        assert len(found.order) == len(value)
        assert fits(price[shown].sum())
        swaps = [a - b for a in value for b in value if a > b]
        short = best - value[shown].sum()
        assert short == pytest.approx(0.0, abs=1e-9) or short < max(swaps)
        if fits(price[slate.order[:window]].sum()):
            assert found.order.tolist() == slate.order.tolist()
    elif floor:
        assert price[shown].sum() == np.sort(price)[::-1][:window].sum()
    else:
        most = max(size for size in range(window) if brute(value, price, size, fits) is not None or size == 0)
        assert len(found.order) == most


def test_a_budget_counts_many_items_of_one_worth_one_by_one() -> None:
    """Where all swaps are worth the same, as many are made as fit, and no more."""
    slate = slates.slate([1.0] * 4 + [0.0] * 4, columns={"price": [1.0] * 4 + [0.0] * 4})
    found = applied(within("price", most=3.0), slate, 4)
    assert slate.scores[found.order[:4]].sum() == 3.0


def test_an_unknown_price_is_taken_for_the_worst() -> None:
    """A budget of money does not hide the dear behind missing values; all missing, nothing is known to break it."""
    slate = slates.slate([3.0, 2.0, 1.0], columns={"price": [np.nan, 5.0, 1.0]})
    assert applied(within("price", most=9.0), slate, 2).order[:2].tolist() == [0, 2]
    nothing = slates.slate([3.0, 2.0], columns={"price": [np.nan, np.nan]})
    assert applied(within("price", most=0.0), nothing, 2).order.tolist() == [0, 1]


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("floor", [False, True])
def test_what_is_no_finite_number_neither_breaks_nor_makes_a_budget(bad: float, floor: bool) -> None:
    """It counts as the worst there is, of a ceiling and of a floor; the others are chosen as without it."""
    slate = slates.slate([4.0, 3.0, 2.0, 1.0], columns={"price": [bad, 5.0, 1.0, 3.0]})
    rule = within("price", least=8.0) if floor else within("price", most=4.0)
    found = applied(rule, slate, 2)
    assert found.order[:2].tolist() == ([1, 3] if floor else [2, 3])
    assert rule.holds(found, 2, slates.Names())
    assert not rule.holds(slate, 2, slates.Names())


def test_scores_that_are_no_finite_numbers_are_the_lowest() -> None:
    """The others keep their distances."""
    found = slates.slate([3.0, np.inf, 1.0, -np.inf, 2.0, np.nan]).relevance()
    assert found.tolist() == [1.0, 0.0, 0.0, 0.0, 0.5, 0.0]
    assert slates.slate([np.nan, np.inf]).relevance().tolist() == [0.0, 0.0]


def test_a_budget_is_kept_where_other_rules_left_fewer_than_were_asked_for() -> None:
    """What is short because of them breaks no promise; what is short because nothing more fits does."""
    slate = slates.slate([3.0, 2.0, 1.0], {"brand": [1, 1, 2]}, {"price": [5.0, 1.0, 1.0]})
    budget = within("price", most=6.0)
    for other in (ps.block("i1"), ps.cap("brand", 1)):
        found = applied(budget, applied(other, slate, 3), 3)
        assert len(found.order) == 2
        assert budget.holds(found, 3, slates.Names())
    short = applied(budget, slate, 3)
    assert len(short.order) == 2
    assert not budget.holds(short, 3, slates.Names())
    assert applied(within("price", most=9.0), slate, 10).cut == ()


def test_a_column_is_looked_at_and_not_copied() -> None:
    """It is memory of the matrix that the model saw; only where a rule added an item is it copied, and that is NaN."""
    slate = slates.slate([3.0, 2.0], columns={"price": [5.0, 1.0], "margin": [2.0, 4.0]})
    assert slate.facts is not None
    assert np.shares_memory(slate.column("margin"), slate.facts.rows)
    assert slate.column("margin").tolist() == [2.0, 4.0]
    grown = applied(ps.pin("i9"), slate, 3)
    np.testing.assert_array_equal(grown.column("margin"), [2.0, 4.0, np.nan])
    np.testing.assert_array_equal(grown.column("score"), [3.0, 2.0, np.nan])
    assert grown.propensity.tolist() == [1.0, 1.0, 1.0]


def test_a_broken_promise_of_a_served_answer_is_named_and_counted(tmp_path: Path) -> None:
    """An item asked for that no candidate is: the answer goes out in full, names the rule, and the metric counts it."""
    rules = 'rerank = [ps.rerank.at_least("item", "no-such", 1), ps.rerank.within("Product.actions", most=1e9)]'
    with helpers.trained(tmp_path, helpers.APP + f"    {rules}\n") as app:
        answer = app.decide("home", user=helpers.history()[0]["user"])
    assert len(answer.items) == 10
    assert answer.broken == ("at_least",)
    assert "broken" not in answer.body()
    metrics = Metrics()
    for _ in range(2):
        metrics.decided("home", answer.tier, "r", {"total": 1.0}, broken=answer.broken)
    counted = {s.labels["rule"]: s.value for s in metrics.samples() if s.name == "penstock_rules_broken_total"}
    metrics.close()
    assert counted == {"at_least": 2.0}


MORE = helpers.APP.replace(
    '    shoppers = ps.distinct("user", precision=4)\n',
    '    shoppers = ps.distinct("user", precision=4)\n    buys = ps.count()\n    shelf = ps.latest("kind")\n',
)
NEAR = 'ps.attention("recent", k=20, width=8, epochs=1, length=10)'


def test_a_release_of_before_the_rules_answers_without_those_that_it_cannot_serve(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A column, a field and vectors that it lacks leave their rules out, and the log and readiness say which; the
    others hold and the answer stays personal. Trained anew, all are there."""
    helpers.trained(tmp_path).close()
    rules = [
        'ps.rerank.mmr(vectors="attention")', 'ps.rerank.at_least("shelf", "view")',
        'ps.rerank.within("Product.buys", most=1e9)', 'ps.block("p-00001", "p-00002")',
    ]  # fmt: skip
    text = MORE.replace("candidates = [", f"candidates = [{NEAR}, ") + f"    rerank = [{', '.join(rules)}]\n"
    user = helpers.history()[0]["user"]
    with helpers.load_app(tmp_path, text, name="later.py") as app:
        answer = app.decide("home", user=user)
        assert (answer.tier, answer.cause, answer.broken) == ("personal", None, ())
        assert not {"p-00001", "p-00002"} & {item.id for item in answer.items}
        assert app.open().ready()[1]["rules_left_out"] == {"home": ["mmr", "at_least", "within"]}
        said = [record.getMessage() for record in caplog.records if "goes without" in record.getMessage()]
        assert [why.split("without its rule ")[1].split(":")[0] for why in said] == ["mmr", "at_least", "within"]
        app.train()
        again = app.decide("home", user=user)
        assert (again.tier, again.release == answer.release) == ("personal", False)
        assert app.open().ready()[1]["rules_left_out"] == {}


def test_what_a_rule_reads_is_served_though_the_ranker_could_do_without_it(tmp_path: Path) -> None:
    """A source that brings the ranker nothing stays for a rule's vectors, or its column, and answers are by them."""
    user = helpers.history()[0]["user"]
    rules = ('mmr(vectors="attention", relevance=0.0)', 'within("attention", least=1e9)')
    shown = []
    for number, rule in enumerate(rules):
        text = helpers.APP.replace("candidates = [", f"candidates = [{NEAR}, ") + f"    rerank = [ps.rerank.{rule}]\n"
        (folder := tmp_path / str(number)).mkdir()
        with helpers.load_app(folder, text.replace("trees=10", "trees=10, tolerance=0.5")) as app:
            app.ingest(helpers.history())
            trained = app.train()
            answer = app.decide("home", user=user)
            assert (answer.tier, answer.cause, len(answer.items)) == ("personal", None, 10)
            assert answer.broken == (() if number == 0 else ("within",))
            release = read(app.home / "releases", trained.release)
            assert isinstance(release, Release)
            assert "attention" in release.sources
            assert app.open().ready()[1]["rules_left_out"] == {}
            shown.append([item.id for item in answer.items])
    # By likeness alone, and the highest sum of scores.
    assert shown[0] != shown[1]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: at_least("brand", "own", 0), "at least one item is asked for.*got count=0"),
        (lambda: at_least("brand", "own", 3, first=2), "no more than there are places; got count=3, first=2"),
        (lambda: ps.cap("brand", 1, first=0), "count from 1.*got first=0"),
        (lambda: within("price"), "a sum has one limit; got most=None, least=None"),
        (lambda: within("price", most=1.0, least=0.0), "a sum has one limit; got most=1.0, least=0.0"),
        (lambda: applied(within("price", most=1.0), slates.slate([1.0]), 1), "features that the ranker sees.*'price'"),
    ],
)
def test_a_constraint_that_says_nothing_is_refused(make: Any, words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        make()


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ('ps.rerank.within("Product.action", most=1)', "got 'Product.action' in home.rerank; did you mean Product.act"),
        ('ps.rerank.mmr("brand")', "a rule's field is a latest value of the candidates; got 'brand' in home.rerank"),
        ('ps.rerank.mmr(vectors="seen")', "source that has some; got 'seen' in home.rerank; add ps.attention"),
        ('ps.rerank.thompson("Product.wins", "Product.actions"), ps.cap("item", 1)', "thompson before Cap"),
    ],
)
def test_a_decision_refuses_rules_about_what_it_does_not_know(tmp_path: Path, rule: str, words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        helpers.load_app(tmp_path, helpers.APP + f"    rerank = [{rule}]\n")
