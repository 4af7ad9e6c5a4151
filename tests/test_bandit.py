"""What is believed of rewards covers the truth, rules that draw by it regret less, and the chances logged are true."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

import helpers
import penstock as ps
import slates
from penstock.audit import Again
from penstock.clock import DAY
from penstock.errors import DefinitionError, ReleaseError
from penstock.learn import LinearReward, Posterior, Replay, Summary
from penstock.releases import Release, training
from penstock.releases.bundle import read
from penstock.releases.parts import label_part
from penstock.releases.rewards import learn_rewards
from penstock.serve.decisions import impressions
from penstock.serve.rerank import Slate, contextual, exploration, thompson

MODEL = LinearReward(("a", "b"))


def rows_of(draw: np.random.Generator, n: int) -> np.ndarray:
    """Rows of a model of two columns, of another size and centre each."""
    return MODEL.inputs([draw.normal(3, 2, n), draw.gamma(2, 200, n)])


# What is learned


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 999), cuts=st.lists(st.integers(0, 40), max_size=3), order=st.randoms())
def test_summaries_merge_to_the_same_bytes_in_any_order(seed: int, cuts: list[int], order: random.Random) -> None:
    """And to the sums of Python's own integers."""
    draw = np.random.default_rng(seed)
    rows, reward = rows_of(draw, 40), draw.normal(0, 20, 40)
    edges = [0, *sorted(cuts), 40]
    parts = [Summary.of(rows[a:b], reward[a:b]) for a, b in pairwise(edges)]
    order.shuffle(parts)
    total = Summary.empty(3)
    for part in parts:
        total = part.merged(total)
    whole = Summary.of(rows, reward)
    assert total == whole
    assert total.count == 40
    x = [[int(v) for v in row] for row in (rows * 4096).tolist()]
    r = [round(value * 1024) for value in reward.tolist()]
    assert whole.squares.tolist() == [[sum(row[i] * row[j] for row in x) for j in range(3)] for i in range(3)]
    assert whole.rewarded.tolist() == [sum(row[i] * one for row, one in zip(x, r, strict=True)) for i in range(3)]
    assert whole.energy.tolist() == [sum(one * one for one in r)]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 999), n=st.integers(0, 60), penalty=st.sampled_from([0.5, 1.0, 20.0]))
def test_the_posterior_equals_ridge_regression_on_the_standardised_rows(seed: int, n: int, penalty: float) -> None:
    """By the textbook's inverse, from the rows themselves."""
    draw = np.random.default_rng(seed)
    rows, asked = rows_of(draw, n), rows_of(draw, 7)
    reward = (draw.random(n) < 0.3).astype(float)
    posterior = Posterior(Summary.of(rows, reward), penalty)
    centre, spread = np.zeros(3), np.ones(3)
    if n:
        centre[1:] = rows[:, 1:].mean(0)
        spread[1:] = np.where(rows[:, 1:].var(0) > 1e-6, rows[:, 1:].std(0), 1.0)
    z, new = (rows - centre) / spread, (asked - centre) / spread
    inverse = np.linalg.inv(z.T @ z + penalty * np.eye(3))
    mean = inverse @ z.T @ reward
    noise = (reward @ reward - (z.T @ reward) @ mean + 0.25) / (n + 1)
    np.testing.assert_allclose(posterior.mean(asked), new @ mean, rtol=1e-6, atol=1e-8)
    wide = np.sqrt(noise * np.einsum("ij,jk,ik->i", new, inverse, new))
    np.testing.assert_allclose(posterior.deviation(asked), wide, rtol=1e-6)
    normals = np.random.default_rng(1).standard_normal((4_000, 3))
    drawn = posterior.drawn(asked, normals)
    assert np.abs(drawn.mean(0) - new @ mean).max() < 5 * wide.max() / 4_000**0.5
    np.testing.assert_allclose(drawn.std(0), wide, rtol=0.08)


@pytest.mark.parametrize("yes", [True, False])
def test_what_is_believed_covers_the_truth_as_often_as_it_says(yes: bool) -> None:
    """Over 400 worlds of 300 rewards, 95 % intervals of expected rewards hold the true one 93 to 97 times in 100."""
    hit = asked = 0
    for seed in range(400):
        draw = np.random.default_rng(seed)
        rows, new = rows_of(draw, 300), rows_of(draw, 5)
        weights = np.array([0.3, 0.03, 0.02]) * draw.choice([-1, 1], 3)
        weights[0] = 0.4
        true, expected = np.clip(rows @ weights, 0, 1), new @ weights
        reward = (draw.random(300) < true).astype(float) if yes else rows @ weights + draw.normal(0, 0.5, 300)
        posterior = Posterior(Summary.of(rows, reward))
        hit += int((np.abs(posterior.mean(new) - expected) <= 1.96 * posterior.deviation(new)).sum())
        asked += 5
    assert 0.93 <= hit / asked <= 0.97


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e300])
def test_counts_that_cannot_be_leave_the_other_candidates_as_they_are(bad: float) -> None:
    """No chance becomes NaN, all add up to one, and wins that are no number are none."""
    slate = bandit([bad, 9, 1], [bad, 90, 30])
    rule = thompson("wins", "tries")
    chances = [float(rule.chances(slate, np.array([one]))[0]) for one in range(3)]
    assert sum(chances) == pytest.approx(1.0)
    if not np.isfinite(bad):
        plain = bandit([0, 9, 1], [0, 90, 30])
        assert chances == [float(rule.chances(plain, np.array([one]))[0]) for one in range(3)]
    with np.errstate(over="ignore"):
        rows = MODEL.inputs([np.array([bad, 1.0]), np.array([2.0, bad])])
    assert rows.tolist() == MODEL.inputs([np.array([np.nan, 1.0]), np.array([2.0, np.nan])]).tolist()


def test_draws_are_made_once_however_many_candidates_there_are() -> None:
    """Requests with fewer candidates than may take part draw nothing anew, and see the same draws place by place."""
    exploration._normals.cache_clear()
    rule = thompson("wins", "tries", among=12)
    values = []
    for n in (5, 12, 7, 40):
        slate = bandit([1.0] * n, [30.0] * n)
        rule.apply(slate, 3, slates.Names(), random.Random(n))
        values.append(rule._values(slate, slate.order[:5]))
    assert exploration._normals.cache_info().misses == 1
    all_of_them = replace(rule, among=10**9)
    assert all_of_them.apply(slate, 3, slates.Names(), random.Random(1)).propensity[0] > 0
    assert all((one == values[0]).all() for one in values)


def test_a_reward_out_of_bounds_is_refused() -> None:
    with pytest.raises(ReleaseError, match=r"between -256 and 256; got 300.0; divide"):
        Summary.of(np.ones((2, 1)), np.array([1.0, 300.0]))


# Chances


def bandit(wins: list[float], tries: list[float]) -> Slate:
    return slates.slate(-np.arange(len(wins), dtype=float), columns={"wins": wins, "tries": tries})


def linear(rate: float, how: Any = "thompson", **more: Any) -> tuple[Any, Slate]:
    """Five items, of which a model has seen 40 rewards."""
    rule = contextual(("a", "b"), how=how, rate=rate, **more)
    draw = np.random.default_rng(3)
    posterior = Posterior(Summary.of(rows_of(draw, 40), (draw.random(40) < 0.3).astype(float)))
    columns = {"a": draw.normal(3, 2, 5), "b": draw.gamma(2, 200, 5)}
    return rule, slates.slate(-np.arange(5.0), columns=columns, learned={rule.learns().key: posterior})


COUNTS = bandit([3, 1, 9, 0, 2], [30, 30, 90, np.nan, 50])
CASES: dict[str, Callable[[], tuple[Any, Slate]]] = {
    "thompson": lambda: (thompson("wins", "tries"), COUNTS),
    "thompson and epsilon, from the second": lambda: (thompson("wins", "tries", rate=0.3, first=2), COUNTS),
    "thompson among three": lambda: (thompson("wins", "tries", among=3, draws=16), COUNTS),
    "linear thompson": lambda: linear(0.1),
    "linear thompson, grain of seven": lambda: linear(0.0, draws=7),
    "upper bound": lambda: linear(0.3, "ucb"),
}


@pytest.mark.parametrize("case", CASES)
def test_logged_propensities_are_the_chances_of_what_is_shown(case: str) -> None:
    """Over 6,000 draws each item stands at each place as often as its propensity says, given those above it; the
    chances of all that may follow add up to one; and `chances` says the same beforehand."""
    rule, slate = CASES[case]()
    draws, k = 6_000, 3
    shown: Counter[tuple[int, ...]] = Counter({(): draws})
    said: dict[tuple[int, ...], float] = {}
    for seed in range(draws):
        found = rule.apply(slate, k, slates.Names(), random.Random(seed))
        path = tuple(found.order[:k].tolist())
        for place in range(1, k + 1):
            shown[path[:place]] += 1
            chance = float(found.propensity[place - 1])
            assert said.setdefault(path[:place], chance) == chance
        if seed < 200:
            assert sorted(found.order.tolist()) == list(range(5))
            np.testing.assert_allclose(rule.chances(slate, found.order[:k]), found.propensity[:k])
    for path, chance in said.items():
        asked = shown[path[:-1]]
        assert abs(shown[path] / asked - chance) <= 5 * (chance * (1 - chance) / asked) ** 0.5 + 1e-12, path
    for above in {path[:-1] for path in said}:
        every = [float(rule.chances(slate, np.array([*above, one]))[-1]) for one in set(range(5)) - set(above)]
        assert sum(every) == pytest.approx(1.0)
    assert rule.chances(slate, np.array([0, 0]))[1] == 0.0


def test_what_is_not_among_those_drawn_keeps_its_place_for_certain() -> None:
    """Of five items three are drawn from; the other two follow as they stood, and those first have no chance there."""
    rule = thompson("wins", "tries", among=3, rate=0.5)
    for seed in range(50):
        found = rule.apply(COUNTS, 5, slates.Names(), random.Random(seed))
        assert sorted(found.order[:3].tolist()) == [0, 1, 2]
        assert found.order[3:].tolist() == [3, 4]
        assert found.propensity[2:].tolist() == [1.0, 1.0, 1.0]
        assert rule.chances(COUNTS, found.order).tolist() == found.propensity.tolist()
    assert rule.chances(COUNTS, np.array([3, 0])).tolist() == [0.0, 0.0]


def test_the_chance_of_two_items_is_that_of_two_betas() -> None:
    """By integration, within the grain and what Wilson and Hilferty leave out; at later places, too."""
    for wins, tries in [([0, 0], [0, 0]), ([5, 2], [50, 60]), ([1, 0], [3, 0]), ([200, 30], [4_000, 500])]:
        rule = thompson("wins", "tries", draws=2_048)
        one, two = (scipy.stats.beta(1 + w, 19 + t - w) for w, t in zip(wins, tries, strict=True))
        true = scipy.integrate.quad(lambda x, a=one, b=two: a.pdf(x) * b.cdf(x), 0, 1, points=[one.mean()])[0]
        said = rule.chances(bandit(wins, tries), np.array([0]))[0]
        assert said == pytest.approx(true, abs=0.03), (wins, tries)
        # So it is at the second place, after a third item.
        three = bandit([*wins, wins[0]], [*tries, tries[0]])
        assert rule.chances(three, np.array([2, 0]))[1] == pytest.approx(true, abs=0.03)


@pytest.mark.parametrize(("won", "lost"), [(1.0, 3.0), (1.0, 19.0), (4.0, 40.0), (100.0, 900.0)])
def test_what_is_believed_of_an_item_is_its_beta(won: float, lost: float) -> None:
    """The share of draws above a sure rival of rate x is how much of the Beta lies above x: at most 0.02 off."""
    rule = thompson("wins", "tries", prior=won / (won + lost), strength=won + lost, draws=4_096)
    believed = scipy.stats.beta(won, lost)
    for x in believed.ppf([0.05, 0.25, 0.5, 0.75, 0.95]):
        sure = 1e9
        slate = bandit([0, x * sure], [0, sure])
        assert rule.chances(slate, np.array([0]))[0] == pytest.approx(1 - believed.cdf(x), abs=0.02)


def test_draws_are_repeated_by_their_seed_and_by_nothing_else() -> None:
    """The same decision id shows the same again, in whatever process; another one may not."""
    rule, slate = CASES["linear thompson"]()
    one, again = (rule.apply(slate, 5, slates.Names(), random.Random("id")).order.tolist() for _ in range(2))
    assert one == again
    assert len({tuple(rule.apply(slate, 5, slates.Names(), random.Random(i)).order) for i in range(50)}) > 5


# Regret


def regret(play: Callable[[np.ndarray, np.ndarray, random.Random], int], rates: np.ndarray, seed: int) -> float:
    """What was lost to the best arm in 1,500 rounds; counts are known at once."""
    draw, throw = random.Random(seed), np.random.default_rng(seed)
    wins, tries, lost = np.zeros(len(rates)), np.zeros(len(rates)), 0.0
    for _ in range(1_500):
        arm = play(wins, tries, draw)
        tries[arm] += 1
        wins[arm] += throw.random() < rates[arm]
        lost += rates.max() - rates[arm]
    return lost


def test_thompson_regrets_less_than_epsilon_greedy() -> None:
    """Ten arms won 5 % to 25 % of the time, eight worlds: less than with any of three rates of exploring."""

    def greedy(rate: float) -> Callable[[np.ndarray, np.ndarray, random.Random], int]:
        rule = ps.explore(rate)

        def play(wins: np.ndarray, tries: np.ndarray, draw: random.Random) -> int:
            slate = slates.slate((wins + 1) / (tries + 20))
            return int(rule.apply(slate, 1, slates.Names(), draw).order[0])

        return play

    rule = thompson("wins", "tries")

    def sampled(wins: np.ndarray, tries: np.ndarray, draw: random.Random) -> int:
        return int(rule.apply(bandit(wins.tolist(), tries.tolist()), 1, slates.Names(), draw).order[0])

    def total(play: Any) -> float:
        worlds = [np.random.default_rng(seed).uniform(0.05, 0.25, 10) for seed in range(8)]
        return sum(regret(play, rates, seed) for seed, rates in enumerate(worlds))

    lost = total(sampled)
    assert all(lost < total(greedy(rate)) for rate in (0.02, 0.1, 0.3))


def contextual_regret(rule: Any, seed: int) -> float:
    """What was lost in 1,500 rounds over the same 20 items, told apart by 6 features; learned from every 25 rounds."""
    throw, draw = np.random.default_rng(seed), random.Random(seed)
    weights = np.r_[0.2, throw.normal(0, 0.1, 6)]
    columns = {name: throw.normal(0, 1, 20) for name in "abcdef"}
    key, model = rule.learns().key, rule.learns()
    total, lost = Summary.empty(7), 0.0
    rows, rewards = [], []
    posterior = Posterior(total)
    for turn in range(1_500):
        slate = slates.slate(np.zeros(20), columns=columns, learned={key: posterior})
        at = int(rule.apply(slate, 1, slates.Names(), draw).order[0])
        inputs = model.inputs(list(columns.values()))
        expected = np.clip(inputs @ weights, 0, 1)
        lost += expected.max() - expected[at]
        rows.append(inputs[at])
        rewards.append(float(throw.random() < expected[at]))
        if turn % 25 == 24:
            total = total.merged(Summary.of(np.array(rows[-25:]), np.array(rewards[-25:])))
            posterior = Posterior(total)
    return lost


def test_linear_bandits_regret_less_than_epsilon_greedy() -> None:
    """Six features, six worlds: an upper bound and linear Thompson lose less than the same model that draws evenly."""
    names = tuple("abcdef")

    def total(rule: Any) -> float:
        return sum(contextual_regret(rule, seed) for seed in range(6))

    greedy = {rate: total(contextual(names, how="ucb", scale=0.0, rate=rate)) for rate in (0.02, 0.1, 0.3)}
    bound = total(contextual(names, how="ucb", rate=1e-6))
    drawn = total(contextual(names, rate=0.0))
    assert max(bound, drawn) < min(greedy.values()), (bound, drawn, greedy)


# In a release

RULE = 'ps.rerank.contextual(("score", "Product.actions", "Interest.since"), rate=0.1)'
NEURAL = RULE.replace("rate=0.1", 'vectors="attention", how="ucb"')
NETWORK = 'ps.attention("recent", width=8, heads=1, epochs=1, length=8)'


def app_text(rule: str, *, network: bool = False) -> str:
    text = helpers.APP.replace("candidates = [", f"candidates = [{NETWORK}, ") if network else helpers.APP
    return f"{text}    rerank = [{rule}]\n"


def release_of(app: ps.App, id: str) -> Release:
    found = read(app.home / "releases", id)
    assert isinstance(found, Release)
    return found


@pytest.mark.parametrize(("rule", "network"), [(RULE, False), (NEURAL, True)])
def test_a_release_knows_what_its_rules_learned(tmp_path: Path, rule: str, network: bool) -> None:
    """Trained on what came next where nothing was shown. Every served slate and its chances can be had again from
    the log, the release and the decision's id."""
    with helpers.trained(tmp_path, app_text(rule, network=network)) as app:
        learner = app.decisions["home"].rules[0]
        release = release_of(app, str(app.registry.champion("home")))
        (posterior,) = release.learned.values()
        assert list(release.learned) == [learner.learns().key]
        assert posterior.width == 4 + 8 * network
        assert posterior.summary.count > 1_000
        assert 0 < float(posterior.summary.rewarded[0]) / 2**22 < posterior.summary.count
        users = sorted({event["user"] for event in helpers.history()})[:30]
        answers = [app.decide("home", user=user) for user in users]
        assert {answer.tier for answer in answers} == {"personal"}
        assert min(item.propensity for answer in answers for item in answer.items) < 0.9
        app.open().decisions.flush()
        decided = app.open().decisions.read("home", audited=True)
        log = app.open().log
        slates_again = Again(log, app.decisions["home"], {release.id: release})
        assert len(decided) == 30
        for one in decided:
            slate = slates_again.of(one)
            facts, order = slate.facts, slate.order
            assert facts is not None
            again = learner.apply(slate, 10, log.strings, random.Random(one.id))
            assert again.order[:10].tolist() == one.shown.tolist()
            np.testing.assert_allclose(again.propensity[:10], one.propensities, rtol=1e-6)
            np.testing.assert_allclose(learner.chances(slate, again.order[:10]), one.propensities, rtol=1e-6)
            # With nothing learned it would be another slate.
            nothing = replace(slate, facts=replace(facts, learned={}))
            assert learner.apply(nothing, 10, log.strings, random.Random(one.id)).order.tolist() != again.order.tolist()
            if network:
                cosine = facts.rows[:, release.recipe.assembler.places["attention"]]
                products = slate.products("attention", np.arange(len(order)))
                held = ~np.isnan(cosine)
                np.testing.assert_allclose(products[held].sum(1), cosine[held], atol=1e-5)
                lengths = np.linalg.norm(slate.vectors("attention"), axis=1)
                assert np.isin(lengths.round(5), (0.0, 1.0)).all()
                assert lengths.sum() > 10


def test_slates_are_had_again_with_the_rules_before_exploration(tmp_path: Path) -> None:
    """Chances of what was shown are those logged, after rules by columns and one that adds an item; drawn again, the
    same items are shown. An answer without features is refused."""
    rules = 'ps.rerank.within("Product.actions", least=300.0), ps.pin("p-00001", place=2), ps.explore(0.3)'
    with helpers.trained(tmp_path, helpers.APP + f"    rerank = [{rules}]\n") as app:
        users = sorted({event["user"] for event in helpers.history()})[:20]
        for user in users:
            app.decide("home", user=user)
        app.open().decisions.flush()
        decided = app.open().decisions.read("home", audited=True)
        release = release_of(app, str(app.registry.champion("home")))
        again = Again(app.open().log, app.decisions["home"], {release.id: release})
        rule = app.decisions["home"].rules[-1]
        assert len(decided) == len(users)
        for one in decided:
            slate = again.of(one)
            assert slate.items.tolist() == one.items.tolist()
            np.testing.assert_allclose(rule.chances(slate, one.shown), one.propensities, rtol=1e-6)
            drawn = rule.apply(slate, len(one.shown), app.open().log.strings, random.Random(one.id))
            assert drawn.order[: len(one.shown)].tolist() == one.shown.tolist()
        assert any(len(one.items) > len(one.found_by) for one in decided)
        with pytest.raises(ReleaseError, match=r"had again from features and the release.*tier personal, release None"):
            again.of(replace(decided[0], release=None))


def test_what_was_shown_and_came_of_it_is_learned_from_once_there_is_some(tmp_path: Path) -> None:
    """Every item shown whose window has closed is a row, and the sums are those of what serving saw of it."""
    text = app_text(RULE).replace('goal="view", ', 'goal="view", window="1min", ')
    text = text.replace('valid="1d", labels="2d"', 'valid="10min", labels="20min"')
    with helpers.trained(tmp_path, app_text(RULE)) as app:
        users = sorted({event["user"] for event in helpers.history()})
        for i in range(60):
            answer = app.decide("home", user=users[i])
            viewed = {"user": users[i], "item": answer.items[i % 3].id, "kind": "view", "stream": "action"}
            when = helpers.next_time(helpers.history(), 20.0 * (i + 1))
            app.ingest([{**viewed, "id": f"shown-{i}", "time": when}])
    with helpers.load_app(tmp_path, text, name="shown.py") as app:
        release = release_of(app, app.train().release)
        (posterior,) = release.learned.values()
        log = app.open().log
        decided = app.open().decisions.read("home", audited=True)
        shown = impressions(decided, release.recipe, log.strings)
        closed = shown.take(np.flatnonzero(shown.asks.now + 60_000_000 <= log.newest))
        assert posterior.summary.count == len(closed.item) > 300
        # Every decision but those whose window is open got its view.
        assert int(posterior.summary.rewarded[0]) / 2**22 == len(closed.asks)
        replay = Replay(release.recipe, log.read(0, log.end), log.strings)
        data = replay.judge(closed, release.indexes, window=60_000_000, as_of=log.newest, every=True)
        at = release.recipe.assembler.places["Product.actions"]
        column = release.recipe.rank and data.rows[:, at]
        expected = LinearReward(("x",)).inputs([column])[:, 1].sum()
        assert posterior.summary.squares[0, 2] / 2**24 == pytest.approx(expected)


class Actions:
    """Stands for a model that scores by how much was done with an item."""

    def __init__(self, place: int) -> None:
        self.place = place

    def score(self, rows: np.ndarray, candidates: Any, editions: Any = None) -> np.ndarray:
        return rows[:, self.place].astype(np.float64)

    def save(self, folder: Path) -> dict[str, Any]:
        raise NotImplementedError


def test_the_score_that_is_learned_from_is_that_of_the_spans_own_model(tmp_path: Path) -> None:
    """Where the model scores by a feature, both columns come to the same sums; several spans are merged; a span
    without a model is left out, but of a reward that does not look at the score."""
    with helpers.load_app(tmp_path) as app:
        app.ingest(helpers.history())
        recipe, log = app.decisions["home"].recipe, app.open().log
        replay = Replay(recipe, log.read(0, log.end), log.strings)
        model = Actions(recipe.assembler.places["Product.actions"])
        reward = LinearReward(("score", "Product.actions"))
        end = log.newest + 1
        spans = [(end - 2 * DAY, end - DAY), (end - DAY, end)]
        both, first, second = (
            learn_rewards(replay, part, [reward], [model] * len(part), {})[reward.key].summary
            for part in (spans, spans[:1], spans[1:])
        )
        assert both.squares[0, 1] == both.squares[0, 2] != 0
        assert both == first.merged(second)
        assert min(first.count, second.count) > 100
        other = Actions(recipe.assembler.places["Product.actions_1d"])
        mixed = learn_rewards(replay, spans, [reward], [model, other], {})[reward.key].summary
        assert mixed.squares[0, 2] == both.squares[0, 2]
        assert mixed.squares[0, 1] - first.squares[0, 1] != second.squares[0, 1]
        bare = LinearReward(("Product.actions",))
        halved = learn_rewards(replay, spans, [reward, bare], [None, model], {})
        assert halved[reward.key].summary == second
        assert halved[bare.key].summary.count == both.count


def test_the_ranker_that_scores_a_span_did_not_learn_from_it(tmp_path: Path) -> None:
    """Whatever had come of one span, its own ranker is the same, and those of the other spans are others."""
    with helpers.load_app(tmp_path) as app:
        app.ingest(helpers.history())
        recipe, log = app.decisions["home"].recipe, app.open().log
        replay = Replay(recipe, log.read(0, log.end), log.strings)
        end = log.newest + 1
        spans = [(end - (i + 1) * DAY, end - i * DAY) for i in (2, 1, 0)]
        parts = {span: label_part(replay, span, negatives=20)[1] for span in spans}
        apart = training._apart(recipe, spans, parts, None, None)
        assert apart[2] is None
        part = parts[spans[0]]
        turned = replace(part, gain=part.gain[::-1].copy())
        again = training._apart(recipe, spans, parts | {spans[0]: turned}, None, None)
        for before, after, same in zip(apart[:2], again[:2], (True, False), strict=True):
            assert before is not None
            assert after is not None
            scores = [model.score(part.rows, part.candidates[0]) for model in (before, after)]
            assert np.array_equal(*scores) is same
        assert training._apart(recipe, spans[:2], {spans[0]: part}, None, None) == [None, None]


def test_a_rule_that_nothing_was_learned_for_explores_from_nothing(tmp_path: Path) -> None:
    """A release of before the rule serves it: all that is believed is the prior."""
    helpers.trained(tmp_path).close()
    with helpers.load_app(tmp_path, app_text(RULE), name="later.py") as app:
        answer = app.decide("home", user=helpers.history()[0]["user"])
    assert answer.tier == "personal"
    assert min(item.propensity for item in answer.items) < 0.5


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: contextual((), rate=0.1), "sees columns or a source's vectors"),
        (lambda: contextual(how="ucb", rate=0.0), "chance is left to the others; got rate=0.0"),
        (lambda: contextual(how="best"), "thompson or ucb.*got how='best'"),
        (lambda: contextual(penalty=0.0), "penalty is more than 0"),
        (lambda: thompson("w", "t", rate=2.0), "between 0 and 1; got 2.0"),
        (lambda: thompson("w", "t", prior=0.0), "between 0 and 1 of more than no tries; got prior=0.0"),
        (lambda: thompson("w", "t", draws=0), "draws from what is believed.*draws=0"),
        (lambda: thompson("w", "t", first=0), "count from 1"),
    ],
)
def test_a_bandit_that_cannot_be_is_refused(make: Any, words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        make()
