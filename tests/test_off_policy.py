"""Off-policy estimates equal their plain definitions, their intervals cover, and what cannot be answered is said."""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import scipy.stats
from benchmarks import ope
from benchmarks._ope import open_bandit
from benchmarks._ope.world import WORLDS, World
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock as ps
from penstock.errors import DefinitionError
from penstock.evaluate import EvaluationError, off_policy
from penstock.evaluate.off_policy import Logged, Rounds, estimate, judge, slates, weigh
from penstock.evaluate.off_policy.cautions import CHECK
from penstock.evaluate.off_policy.intervals import score_interval, student, unseen
from penstock.evaluate.off_policy.rewards import cross_fitted
from penstock.events import schema_of
from penstock.features import View
from penstock.learn import LambdaRank, Recipe
from penstock.registry import get, names
from penstock.serve.counterfactual import weighed
from penstock.serve.decisions import Decided
from penstock.serve.rerank import Slate
from penstock.types import Rows

ESTIMATORS = names("estimator")
DATA = Path(__file__).parents[2] / "shared" / "data" / "bandit"


def chances(draw: np.random.Generator, n: int, k: int) -> np.ndarray:
    raised = draw.gamma(0.7, size=(n, k)) + 1e-3
    return raised / raised.sum(1, keepdims=True)


def log(seed: int, n: int = 40, k: int = 3, groups: int | None = None) -> tuple[Logged, np.ndarray, np.ndarray]:
    """A small log, a target's chances and expected rewards, (n, k) each."""
    draw = np.random.default_rng(seed)
    logging = chances(draw, n, k)
    action = np.array([draw.choice(k, p=row) for row in logging])
    logged = Logged(
        action, draw.normal(1, 1, n).round(2), logging[np.arange(n), action], draw.normal(size=(n, 2)),
        draw.integers(0, 2, n), None if groups is None else draw.integers(0, groups, n),
    )  # fmt: skip
    return logged, chances(draw, n, k), draw.normal(1, 1, (n, k))


def plain(name: str, logged: Logged, target: np.ndarray, expected: np.ndarray, knob: float) -> float:
    """Each estimator as its paper writes it, one round after the other."""
    base = top = bottom = 0.0
    n = len(logged)
    for i in range(n):
        a = int(logged.action[i])
        w = target[i, a] / logged.propensity[i]
        whole = sum(target[i, k] * expected[i, k] for k in range(target.shape[1]))
        off = logged.reward[i] - expected[i, a]
        bottom += w
        if name == "dm":
            base += whole
        elif name in ("ips", "snips"):
            top += w * logged.reward[i]
        elif name in ("dr", "sndr"):
            base, top = base + whole, top + w * off
        elif name == "switch_dr":
            base, top = base + whole, top + (w * off if w <= knob else 0.0)
        else:
            base, top = base + whole, top + knob * w / (w * w + knob) * off
    return base / n + top / (bottom if name.startswith("sn") else n)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(1, 30), k=st.integers(1, 4), knob=st.floats(0.1, 5))
@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimate_equals_its_plain_definition(name: str, seed: int, n: int, k: int, knob: float) -> None:
    """Every registered estimator gives what the sum of its paper gives, term by term."""
    logged, target, expected = log(seed, n, k)
    rounds = weigh(logged, target, expected)
    knobs = {"switch_dr": "tau", "dr_os": "lam"}
    own = get("estimator", name)(**({knobs[name]: knob} if name in knobs else {}))
    assert judge(rounds, own).value == pytest.approx(plain(name, logged, target, expected, knob))


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 5))
@pytest.mark.parametrize("name", ["ips", "dr"])
def test_over_all_draws_of_the_logging_policy_the_mean_is_the_truth(name: str, seed: int, k: int) -> None:
    """IPS and DR are unbiased whatever the model says: summed over actions by their chances they give the value."""
    draw = np.random.default_rng(seed)
    logging, target, reward, expected = chances(draw, 1, k), chances(draw, 1, k), draw.random(k), draw.random((1, k))
    values = [
        judge(weigh(Logged(np.array([a]), reward[a : a + 1], logging[:, a]), target, expected), name).value
        for a in range(k)
    ]
    assert np.dot(logging[0], values) == pytest.approx(np.dot(target[0], reward))


@pytest.mark.parametrize("name", ["dm", "dr", "sndr", "switch_dr", "dr_os"])
def test_with_the_true_rewards_as_model_wrong_propensities_do_no_harm(name: str) -> None:
    """Where rewards are what the model expects, estimates are the mean over the target, however rounds are weighed."""
    logged, target, expected = log(3)
    wrong = replace(logged, propensity=np.full(len(logged), 0.3))
    told = replace(wrong, reward=expected[np.arange(len(logged)), logged.action])
    assert judge(weigh(told, target, expected), name).value == pytest.approx((target * expected).sum(1).mean())


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("seed", range(5))
def test_every_estimator_keeps_the_laws(name: str, seed: int) -> None:
    """The order of rounds is of no account, rewards twice as high are worth twice as much with an interval twice as
    wide, the interval holds the estimate, nothing that was passed in is changed, and the result goes into JSON."""
    logged, target, expected = log(seed, n=60, groups=40)
    held = [column.copy() for column in (logged.reward, logged.propensity, target, expected)]
    found = judge(weigh(logged, target, expected), name)
    assert found.low <= found.value <= found.high
    for before, now in zip(held, (logged.reward, logged.propensity, target, expected), strict=True):
        np.testing.assert_array_equal(before, now)
    order = np.random.default_rng(seed).permutation(len(logged))
    mixed = judge(weigh(logged.take(order), target[order], expected[order]), name)
    double = judge(weigh(replace(logged, reward=2 * logged.reward), target, 2 * expected), name)
    for field in ("value", "low", "high", "ess"):
        assert getattr(mixed, field) == pytest.approx(getattr(found, field))
        assert getattr(double, field) == pytest.approx(getattr(found, field) * (1 if field == "ess" else 2))
    assert json.loads(msgspec.json.encode(found))["estimator"] == name


def test_self_normalised_estimates_move_with_the_rewards() -> None:
    """SNIPS of rewards that all rise by 5 rises by 5, ends included; IPS does not, unless weights average 1."""
    logged, target, _ = log(1, n=200)
    risen = replace(logged, reward=logged.reward + 5)
    for name, moves in (("snips", True), ("ips", False)):
        before, after = (judge(weigh(one, target), name) for one in (logged, risen))
        gaps = [getattr(after, end) - getattr(before, end) for end in ("value", "low", "high")]
        assert (gaps == pytest.approx([5, 5, 5])) is moves


def test_rounds_that_repeat_within_a_group_tell_nothing_new() -> None:
    """Each round logged three times by the same shopper: the same estimate and interval; without
    groups it would look much narrower."""
    logged, target, expected = log(2, n=100)
    thrice = np.repeat(np.arange(100), 3)
    repeated = replace(logged.take(thrice), group=thrice)
    for name in ("ips", "snips", "dr", "sndr"):
        once, often = (
            judge(weigh(logged, target, expected), name),
            judge(weigh(repeated, target[thrice], expected[thrice]), name),
        )
        assert often.value == pytest.approx(once.value)
        assert often.high - often.low == pytest.approx(once.high - once.low, rel=0.05)
        loose = judge(weigh(replace(repeated, group=None), target[thrice], expected[thrice]), name)
        assert loose.high - loose.low < 0.7 * (once.high - once.low)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(5, 60))
def test_the_interval_of_a_mean_is_halls(seed: int, n: int) -> None:
    """For a plain mean the ends found by search are those of Hall's closed form, with Student's t."""
    values = np.random.default_rng(seed).exponential(size=n)
    off = values - values.mean()
    skew = np.mean(off**3) / values.var(ddof=1) ** 1.5
    rest = np.mean(off**4) / np.mean(off**2) ** 2 - 1 - np.mean(off**3) ** 2 / np.mean(off**2) ** 3
    t = student(0.975, 2 * n / rest)
    bent = skew / math.sqrt(n)

    def undone(z: float) -> float:
        return 3 / bent * (np.cbrt(1 + bent * (z - bent / 6)) - 1)

    error = values.std(ddof=1) / math.sqrt(n)
    expected = values.mean() - error * undone(t), values.mean() - error * undone(-t)
    assert score_interval(values, np.ones(n)) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_without_skewness_the_interval_of_a_ratio_is_fiellers() -> None:
    """Where terms are symmetric the ends solve Fieller's quadratic."""
    draw = np.random.default_rng(4)
    half = draw.normal([2.0, 1.0], [0.5, 0.2], (200, 2))
    a, b = np.concatenate([half, 2 * half.mean(0) - half]).T
    n, theta = len(a), a.sum() / b.sum()
    off = a - theta * b
    t = student(0.975, 2 * n / (np.mean(off**4) / np.mean(off**2) ** 2 - 1))
    c = np.cov(a, b) * t * t / n
    x, y = a.mean(), b.mean()
    roots = np.roots([y * y - c[1, 1], -2 * (x * y - c[0, 1]), x * x - c[0, 0]])
    assert score_interval(a, b) == pytest.approx(sorted(roots), rel=1e-6)


def test_quantiles_of_students_t_are_scipys() -> None:
    """From 3 degrees of freedom on they differ by less than 6 %, from 10 on by less than 1 in 1,000."""
    for freedom in (3, 4, 6, 10, 30, 1e3):
        for chance in (0.9, 0.975, 0.995):
            wanted = scipy.stats.t.ppf(chance, freedom)
            assert student(chance, freedom) == pytest.approx(wanted, rel=0.06 if freedom < 10 else 1e-3)


def test_nothing_bounds_an_estimate_from_one_group_or_without_any_difference() -> None:
    """A single group, or rewards that are all 0, leave the interval open instead of making it a point."""
    for rounds in (
        Rounds(np.array([0.0, 1.0]), np.ones(2), np.zeros(2, int)),
        Rounds(np.zeros(50), np.ones(50), np.arange(50)),
    ):
        found = judge(rounds, "ips")
        assert (found.low, found.high) == (-math.inf, math.inf)
        assert "rewarded" in {caution.code for caution in found.warnings}


def test_a_target_that_never_did_what_was_logged_has_no_value() -> None:
    """With weights of 0 alone SNIPS is not a number, with an open interval and a caution, and no exception."""
    found = judge(Rounds(np.ones(300), np.zeros(300), np.arange(300)), "snips")
    assert math.isnan(found.value)
    assert found.high == math.inf
    assert {"ess", "mean_weight"} <= {caution.code for caution in found.warnings}


RARE = World("rare", rounds=3_000, rate=0.02, aim=1.5)


def test_intervals_cover_where_clicks_are_rare_and_those_of_the_normal_do_not() -> None:
    """Few clicks and heavy weights: of 300 intervals at least 93 % hold the truth; of those of mean ± 1.96 errors fewer
    than 92 %."""
    hits = {"ips": 0, "snips": 0, "normal": 0}
    for seed in range(300):
        rounds = weigh(*RARE.draw(seed))
        for name in ("ips", "snips"):
            found = judge(rounds, name)
            hits[name] += found.low <= RARE.truth <= found.high
        terms = rounds.weight * rounds.reward
        hits["normal"] += abs(terms.mean() - RARE.truth) <= 1.96 * terms.std(ddof=1) / math.sqrt(len(terms))
    assert min(hits["ips"], hits["snips"]) >= 0.93 * 300
    assert hits["normal"] < 0.92 * 300


def test_what_rounds_fail_to_show_is_nothing_where_weights_are_equal_or_rewards_plenty() -> None:
    """`unseen` leaves plain means alone, and looks only upward where rewards are not negative."""
    draw = np.random.default_rng(0)
    assert max(unseen(np.ones(500), (draw.random(500) < 0.1).astype(float), np.arange(500))) < 1e-12
    weight, reward = draw.gamma(1.0, size=20_000), (draw.random(20_000) < 0.5).astype(float)
    low, high = unseen(weight, reward, np.arange(20_000))
    assert low == 0
    assert high < 0.02 * np.var(weight * reward) / len(weight)


@given(seed=st.integers(0, 1_000), clip=st.floats(0.1, 5))
def test_clipping_takes_what_it_says(seed: int, clip: float) -> None:
    """No weight above the limit, the share that went is reported, and a limit above all weights changes nothing."""
    logged, target, _ = log(seed)
    whole, cut = weigh(logged, target), weigh(logged, target, clip=clip)
    assert cut.weight.tolist() == [min(w, clip) for w in whole.weight]
    assert judge(cut, "ips").clipped == pytest.approx(1 - cut.weight.sum() / whole.weight.sum())
    assert judge(cut, "ips").mean_weight == pytest.approx(judge(whole, "ips").mean_weight)
    assert judge(weigh(logged, target, clip=float(whole.weight.max())), "ips") == judge(whole, "ips")


def test_what_switching_leaves_out_counts_as_clipped() -> None:
    """Switch-DR that believes no weight is the model alone, and says that all is left out."""
    logged, target, expected = log(0)
    rounds = weigh(logged, target, expected)
    found = judge(rounds, off_policy.SwitchDoublyRobust(tau=0.0))
    assert found.value == pytest.approx(judge(rounds, "dm").value)
    assert found.clipped == 1


def test_a_weight_of_exactly_tau_is_believed() -> None:
    """Switch-DR keeps w ≤ τ, as its paper has it."""
    rounds = Rounds(np.ones(4), np.full(4, 2.0), np.arange(4), np.zeros(4), np.zeros(4))
    assert judge(rounds, off_policy.SwitchDoublyRobust(tau=2.0)).value == 2
    assert judge(rounds, off_policy.SwitchDoublyRobust(tau=1.9)).value == 0


def test_sndr_varies_as_its_model_does_where_the_model_makes_no_error() -> None:
    """With residuals of 0 and weights of 1 it is the mean over the target, with that mean's interval."""
    draw = np.random.default_rng(0)
    reward, whole = draw.random(500), draw.exponential(size=500)
    rounds = Rounds(reward, np.ones(500), np.arange(500), reward, whole)
    sndr, dr = judge(rounds, "sndr"), judge(rounds, "dr")
    assert (sndr.value, sndr.low, sndr.high) == pytest.approx((dr.value, dr.low, dr.high))
    assert dr.high - dr.low > 0.1


def test_a_model_is_not_believed_where_weights_prove_it_wrong() -> None:
    """Chosen by itself, τ keeps every weight under a good overlap, so that Switch-DR is DR there."""
    world = World("even", greed=0.0, explored=0.0, rounds=4_000)
    rounds = weigh(*world.draw(0), off_policy.Ridge())
    assert judge(rounds, "switch_dr").value == judge(rounds, "dr").value
    assert "model" in {caution.code for caution in judge(rounds, "dm").warnings}


@pytest.mark.parametrize("name", names("reward_model"))
def test_no_round_meets_its_own_reward_or_its_groups(name: str) -> None:
    """Rewards of one group, however they change, leave what is expected in its own rounds as it was, and only there."""
    logged, _, _ = log(5, n=120, groups=12)
    assert logged.group is not None
    mine = logged.group == logged.group[0]
    changed = replace(logged, reward=np.where(mine, logged.reward + 1_000, logged.reward))
    before, after = (cross_fitted(get("reward_model", name)(), one, 3).values for one in (logged, changed))
    np.testing.assert_allclose(before[mine], after[mine])
    assert not np.allclose(before[~mine], after[~mine])


def test_a_ridge_finds_the_coefficients_of_a_linear_world() -> None:
    """With many rounds its expectations come close to a linear truth with interactions, for every action."""
    draw = np.random.default_rng(0)
    context, action, weights = draw.normal(size=(4_000, 3)), draw.integers(0, 4, 4_000), draw.normal(size=(3, 4))
    truth = context @ weights + np.arange(4)
    logged = Logged(action, truth[np.arange(4_000), action], np.full(4_000, 0.25), context)
    found = off_policy.Ridge(penalty=0.01).fit(logged, 4)(logged)
    inside = (truth >= logged.reward.min()) & (truth <= logged.reward.max())
    np.testing.assert_allclose(found[inside], truth[inside], atol=0.01)


def test_a_ridge_that_shrinks_without_end_expects_the_mean_of_all_actions() -> None:
    """The mean itself is not shrunk; an action that was never taken is expected to do as the rest."""
    logged, _, _ = log(2, n=300)
    found = off_policy.Ridge(penalty=1e12).fit(logged, 5)(logged)
    np.testing.assert_allclose(found, logged.reward.mean(), rtol=1e-6)


@given(seed=st.integers(0, 1_000), interactions=st.booleans(), penalty=st.floats(0.5, 50))
def test_a_ridge_is_the_regularised_least_squares_of_its_columns(seed: int, interactions: bool, penalty: float) -> None:
    """Its expectations are those of the design written out column by column, solved as one augmented least squares."""
    logged, _, _ = log(seed, n=60)
    assert logged.context is not None
    x = (logged.context - logged.context.mean(0)) / logged.context.std(0)

    def columns(i: int, action: int) -> list[float]:
        own = [1.0, *x[i]] if interactions else [1.0]
        each = [value * (action == a) for a in range(4) for value in own]
        return [1.0, *x[i], *(float(logged.places[i] == p) for p in range(logged.places.max() + 1)), *each]

    design = np.array([columns(i, int(logged.action[i])) for i in range(60)])
    shrink = np.diag([0.0] + [math.sqrt(penalty)] * (design.shape[1] - 1))
    both, aim = np.vstack([design, shrink]), np.r_[logged.reward, np.zeros(len(shrink))]
    found = np.linalg.lstsq(both, aim, rcond=None)[0]
    expected = np.array([[np.dot(columns(i, a), found) for a in range(4)] for i in range(60)])
    fitted = off_policy.Ridge(penalty=penalty, interactions=interactions).fit(logged, 4)(logged)
    np.testing.assert_allclose(fitted, np.clip(expected, logged.reward.min(), logged.reward.max()), atol=1e-5)


def test_means_are_those_of_the_action_at_the_position() -> None:
    """Without shrinkage the expected reward is the position's mean plus the action's mean excess over it."""
    logged, _, _ = log(9, n=200)
    found = off_policy.Means(strength=0.0).fit(logged, 3)(logged)
    means = [logged.reward[logged.places == p].mean() for p in range(2)]
    excess = logged.reward - np.array(means)[logged.places]
    for i in range(0, 200, 17):
        for action in range(3):
            own = excess[logged.action == action].mean()
            assert found[i, action] == pytest.approx(means[logged.places[i]] + own)


def even(n: int = 2_000, k: int = 4, seed: int = 0) -> tuple[Logged, np.ndarray]:
    """A log that answers: even draws, rewards of 0 or 1 at even odds, and a target that prefers one action a little."""
    draw = np.random.default_rng(seed)
    target = np.full(k, 0.8 / k) + 0.2 * (np.arange(k) == 0)
    reward = (draw.random(n) < 0.5).astype(float)
    return Logged(draw.integers(0, k, n), reward, np.full(n, 1 / k)), np.tile(target, (n, 1))


def broken() -> Mapping[str, Rounds]:
    """For each check a log that breaks it."""
    logged, target = even()
    only = np.tile([0.0, 0.0, 0.0, 1.0], (2_000, 1))
    never = replace(logged, action=logged.action % 3, propensity=np.full(2_000, 1 / 3))
    heavy = replace(logged, propensity=np.where(np.arange(2_000) == 0, 1e-3, 0.25))
    model = np.full((2_000, 4), 0.9)
    few = replace(logged, reward=(np.arange(2_000) < 5).astype(float))
    return {
        "support": weigh(never, target),
        "mean_weight": weigh(replace(logged, propensity=np.full(2_000, 0.2)), target),
        "ess": weigh(
            *(part if isinstance(part, np.ndarray) else part.take(np.arange(50)) for part in (logged, target[:50]))
        ),
        "largest_share": weigh(heavy, target),
        "rewarded": weigh(few, target),
        "groups": weigh(replace(logged, group=np.arange(2_000) % 20), target),
        "clipped": weigh(logged, only, clip=2.0),
        "model": weigh(logged, target, model),
    }


@pytest.mark.parametrize("code", sorted(broken()))
def test_each_check_speaks_where_its_rule_is_broken(code: str) -> None:
    """A log made to break one rule raises that caution; the log that breaks none raises nothing."""
    logged, target = even()
    by = "dm" if code == "model" else "ips"
    assert judge(weigh(logged, target, np.full(target.shape, 0.5)), by).warnings == ()
    found = {caution.code: caution for caution in judge(broken()[code], by).warnings}
    assert code in found
    assert re.match(r".+; got .+; .+", str(found[code]))


def test_every_check_is_broken_by_a_log_above() -> None:
    """No check is registered that the tests do not see speak."""
    assert len(names(CHECK)) == len(broken())


def test_actions_that_cannot_be_logged_are_known_before_they_are_missed() -> None:
    """A log that says the chance of every action names what it never takes, where it might have been bad luck, too."""
    logged, target = even(k=50, n=200)
    assert weigh(logged, target).unsupported < 0.02
    told = np.tile((np.arange(50) >= 25) / 25, (200, 1))
    from_25 = replace(logged, action=25 + logged.action % 25, propensity=np.full(200, 0.04), chances=told)
    assert weigh(from_25, target).unsupported == pytest.approx(0.2 + 0.8 * 0.5)


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_cautions_tell_the_simulators_worlds_apart(world: World) -> None:
    """Of 20 logs of a world that can answer at most one is warned of, and all of one that cannot."""
    warned = 0
    for seed in range(20):
        rounds = weigh(*world.draw(seed))
        warned += bool(judge(rounds, "snips").warnings)
    assert warned <= 1 if world.overlap else warned == 20


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_the_simulators_truth_is_what_its_target_earns(world: World) -> None:
    """The logged propensities are those with which actions are drawn, and the truth is the mean over its contexts."""
    logged, target = world.draw(1, told=True)
    assert logged.chances is not None
    np.testing.assert_allclose(logged.chances[np.arange(len(logged)), logged.action], logged.propensity)
    taken, due = np.bincount(logged.action, minlength=world.actions), logged.chances.sum(0)
    assert np.abs(taken - due).max() < 5 * math.sqrt(due.max()) * math.sqrt(world.shopper)
    assert target.sum(1) == pytest.approx(1)


# Lists.


@given(
    st.lists(st.lists(st.tuples(st.floats(0.1, 1), st.floats(0, 1)), min_size=1, max_size=5), min_size=1, max_size=8),
)
def test_an_items_weight_is_the_product_down_to_it(lists: list[list[tuple[float, float]]]) -> None:
    """Weights of lists of different lengths equal a loop that multiplies from the first place on."""
    rows = [(i, *pair) for i, one in enumerate(lists) for pair in one]
    decision, propensity, target = (np.array(column) for column in zip(*rows, strict=True))
    expected = [math.prod(t / p for p, t in one[: place + 1]) for one in lists for place in range(len(one))]
    found = slates(np.zeros(len(rows)), propensity, target, decision)
    assert found.weight == pytest.approx(np.array(expected))
    assert found.group.tolist() == decision.tolist()


def ordered(order: Sequence[int]) -> Slate:
    """Any items in this order."""
    return Slate.of(np.arange(10, dtype=np.uint32), np.array(order))


def ways(order: list[int], rule: ps.explore, k: int) -> dict[tuple[int, ...], np.ndarray]:
    """Every list that exploring can make of an order, with its chances."""
    every = itertools.permutations(order, k)
    return {one: rule.chances(ordered(order), np.array(one)) for one in every}


@pytest.mark.parametrize(("rate", "first"), [(0.0, 1), (0.3, 1), (1.0, 1), (0.5, 2)])
def test_over_all_lists_that_may_be_logged_the_mean_is_the_truth(rate: float, first: int) -> None:
    """Where a click depends on an item and those above it, IPS over all lists by chance gives the target's value."""
    logging, target = ps.explore(0.6), ps.explore(rate, first=first)
    clicks = {}
    draw = random.Random(1)

    def click(shown: tuple[int, ...]) -> float:
        return clicks.setdefault(shown, draw.random())  # of the last item, given all above it

    value = truth = 0.0
    for shown, chance in ways([0, 1, 2, 3], logging, 3).items():
        aim = target.chances(ordered([3, 1, 0, 2]), np.array(shown))
        rewards = np.array([click(shown[: place + 1]) for place in range(3)])
        found = judge(slates(rewards, chance, aim, np.zeros(3, int)), "ips").value
        value += chance.prod() * found
        truth += aim.prod() * rewards.mean()
    assert value == pytest.approx(truth)


@settings(max_examples=50, deadline=None)
@given(
    m=st.integers(1, 6), k=st.integers(1, 6), rate=st.floats(0, 1), first=st.integers(1, 3), seed=st.integers(0, 999)
)
def test_the_chances_of_exploring_are_what_it_logs(m: int, k: int, rate: float, first: int, seed: int) -> None:
    """`Explore.chances` gives back the propensities of a slate that it made, and those of all next items sum to 1."""
    draw = random.Random(seed)
    order = np.array(draw.sample(range(m), m))
    slate = Slate(np.arange(m, dtype=np.uint32), order, {}, np.ones(m))
    rule = ps.explore(rate, first=first)
    made = rule.apply(slate, k, None, draw)
    shown = made.order[: min(k, m)]
    np.testing.assert_allclose(rule.chances(slate, shown), made.propensity[: len(shown)])
    above = shown[:-1]
    left = [one for one in range(m) if one not in above]
    assert sum(rule.chances(slate, np.r_[above, one])[-1] for one in left) == pytest.approx(1)


def test_what_is_not_in_the_order_is_never_shown() -> None:
    """An item that the target does not find has no chance, nor has what stands below it, nor an item twice."""
    rule = ps.explore(0.5)
    assert rule.chances(ordered([1, 2]), np.array([3, 1])).tolist() == [0, 0]
    assert rule.chances(ordered([1, 2]), np.array([2, 2])).tolist() == [0.25, 0]


# From the decision log.


class Names:
    """A dictionary in which a text is its number."""

    def text(self, code: int) -> str:
        return ["", "view", "buy"][code] if code < 3 else str(code)

    def code(self, text: str) -> int:
        return {"": 0, "view": 1, "buy": 2}.get(text) or int(text)

    def texts(self, codes: np.ndarray) -> list[str]:
        return [self.text(code) for code in codes.tolist()]


class Action(ps.Event):
    user: str
    item: str
    kind: str


SCHEMA = schema_of(Action)
VIEW = View("Shopper", ("user",), {"recent": ps.last("item", k=5)}, SCHEMA)
RECIPE = Recipe("home", "user", "item", (VIEW,), (ps.seen("recent"),), LambdaRank("buy", (VIEW,)))
ITEMS = np.array([11, 12, 13, 14], np.uint32)
BUYS = {11: 0.1, 12: 0.3, 13: 0.5, 14: 0.2}


def shop(decisions: int, logging: ps.explore, seed: int) -> tuple[list[Decided], Rows]:
    """Decisions of a policy that sorts items as they come, each for a shopper of its own, and what is bought."""
    draw = random.Random(seed)
    decided, bought = [], []
    for number in range(decisions):
        slate = Slate(ITEMS, np.arange(4), {}, np.ones(4))
        made = logging.apply(slate, 2, None, draw)
        shown = made.order[:2].astype(np.uint32)
        decided.append(
            Decided(
                str(number), "home", "r", "personal", "champion", str(1_000 + number), number * 10, number, {}, ITEMS,
                np.ones(4, np.uint32), shown, np.ones(2, np.float32), made.propensity[:2].astype(np.float32), b"d" * 8,
            )
        )  # fmt: skip
        bought += [
            (number * 10 + 5, 1_000 + number, item, 2) for item in ITEMS[shown].tolist() if draw.random() < BUYS[item]
        ]
    time = np.array([row[0] for row in bought], np.int64)
    fields = np.array([row[1:] for row in bought], np.int64)
    packed = np.zeros(len(bought), SCHEMA.dtype)
    for column, name in enumerate(("user", "item", "kind")):
        packed[name] = fields[:, column]
    return decided, Rows("action", np.arange(len(time)), time, time, time, time.astype("u8"), packed)


def test_logged_decisions_tell_what_another_policy_would_have_earned() -> None:
    """Intervals for a policy that sorts the other way hold its truth; of the one that was logged, nothing changes."""
    logging, target = ps.explore(0.7), ps.explore(0.2)
    decided, rows = shop(4_000, logging, seed=3)
    when = {"window": 8, "as_of": 10**9}
    same = weighed(
        decided, lambda one: logging.chances(ordered(range(4)), one.shown), RECIPE, {"action": rows}, Names(), **when
    )
    assert same is not None
    assert same.weight == pytest.approx(1)
    assert judge(same, "ips").value == pytest.approx(len(rows) / 8_000)
    other = weighed(
        decided, lambda one: target.chances(ordered([3, 2, 1, 0]), one.shown), RECIPE, {"action": rows}, Names(), **when
    )
    assert other is not None
    truth = sum(
        chance.prod() * np.mean([BUYS[int(ITEMS[at])] for at in shown])
        for shown, chance in ways([3, 2, 1, 0], target, 2).items()
    )
    for name in ("ips", "snips"):
        found = judge(other, name)
        assert found.warnings == ()
        assert found.low <= truth <= found.high
        assert found.high - found.low < 0.2
        assert not found.low <= len(rows) / 8_000 <= found.high


def test_a_policy_that_shows_what_was_never_a_candidate_is_warned_of() -> None:
    """Its weights no longer average 1."""
    logging = ps.explore(0.7)
    decided, rows = shop(500, logging, seed=4)
    elsewhere = weighed(
        decided, lambda one: logging.chances(ordered([9, 0, 1, 2, 3]), one.shown), RECIPE, {"action": rows}, Names(),
        window=8, as_of=10**9,
    )  # fmt: skip
    assert elsewhere is not None
    assert "mean_weight" in {caution.code for caution in judge(elsewhere, "snips").warnings}


def test_decisions_whose_window_is_open_are_left_out() -> None:
    """Before a window has closed its decision is not judged, whatever has come of it already; with none closed there is
    nothing."""
    logging = ps.explore(0.7)
    decided, rows = shop(50, logging, seed=5)

    def unmoved(one: Decided) -> np.ndarray:
        return logging.chances(ordered(range(4)), one.shown)

    def seen(as_of: int) -> Rounds | None:
        return weighed(decided, unmoved, RECIPE, {"action": rows}, Names(), window=8, as_of=as_of)

    half = seen(248)
    assert half is not None
    assert len(half) == 2 * 25
    assert seen(7) is None


# What is refused.


def refused() -> dict[str, tuple[object, str]]:
    logged, target = even(n=20)
    half = replace(logged, propensity=np.full(20, 0.25))
    return {
        "no propensity": (lambda: replace(logged, propensity=np.zeros(20)), "chance above 0.*got 0.0 in round 0"),
        "lengths": (lambda: replace(logged, reward=np.zeros(3)), "one entry.*reward: 3"),
        "reward": (lambda: replace(logged, reward=np.full(20, np.nan)), "finite number; got 20"),
        "action": (lambda: replace(logged, action=np.full(20, -1)), "whole number from 0.*from -1"),
        "not chances": (lambda: weigh(half, target * 2), "distribution.*sum 2"),
        "columns": (lambda: weigh(half, target[:, :2]), "column an action"),
        "rows": (lambda: weigh(half, target[:3]), "for each logged round; got 3 for 20"),
        "scores": (lambda: weigh(half, np.full(20, 3.0)), "between 0 and 1; got 3 to 3"),
        "no model": (lambda: judge(weigh(half, target), "dr"), "needs a reward model"),
        "alone": (lambda: estimate(half, np.full(20, 0.5), "dr"), "needs a reward model"),
        "folds": (lambda: estimate(half, target, "dr", folds=30), "at least 2 folds.*30 folds of 20"),
        "level": (lambda: estimate(half, target, "ips", level=95), "level lies between.*got 95"),
        "clip": (lambda: weigh(half, target, clip=0), "above 0; got 0"),
        "expected": (lambda: weigh(half, target, np.zeros((20, 3))), r"column an action; got \(20, 3\)"),
        "torn list": (lambda: slates(*np.full((3, 3), 0.5), np.array([1, 2, 1])), "stand together"),
        "list chance": (lambda: slates(*np.full((2, 3), 0.5), np.full(3, 2.0), np.arange(3)), "between 0 and 1"),
        "tau": (lambda: off_policy.SwitchDoublyRobust(tau=-1.0), "tau is zero or more"),
        "penalty": (lambda: off_policy.Ridge(penalty=-1.0), "penalty is zero or more"),
    }  # fmt: skip


@pytest.mark.parametrize("case", refused())
def test_what_does_not_fit_is_refused_with_the_rule(case: str) -> None:
    """The message has the rule and what came."""
    call, message = refused()[case]
    with pytest.raises((EvaluationError, DefinitionError), match=message):
        call()  # type: ignore[operator]


def test_an_unknown_estimator_is_answered_with_the_known_ones() -> None:
    """The names are those of the registry."""
    logged, target = even(n=20)
    with pytest.raises(ps.PenstockError, match="dm, dr, dr_os, ips"):
        estimate(logged, target, "magic")


def test_every_estimator_and_check_stands_in_the_docs() -> None:
    """docs/evaluation.md has a row for each registered estimator, reward model and caution."""
    page = (Path(__file__).parents[1] / "docs" / "evaluation.md").read_text()
    rows = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    models = {get("reward_model", name).__name__ for name in names("reward_model")}
    assert set(ESTIMATORS) | set(broken()) | models <= rows


def test_chances_by_action_and_of_the_logged_action_give_the_same_weights() -> None:
    """Where the target's chances are known for the logged actions alone, IPS and SNIPS are the same."""
    logged, target, _ = log(8, n=300)
    alone = target[np.arange(300), logged.action]
    both = [(estimate(logged, target, by), estimate(logged, alone, by)) for by in ("ips", "snips")]
    for whole, part in both:
        assert (whole.value, whole.low, whole.high) == (part.value, part.low, part.high)


def test_the_benchmark_has_the_figures_that_others_read(tmp_path: Path) -> None:
    """Without data and peer it still measures every estimator, and says what gets the rest."""
    chosen = argparse.Namespace(data=tmp_path, repeats=2, compared=1, peer=tmp_path / "python")
    result = ope.run(chosen)
    assert set(result.detail["coverage"]) == set(result.detail["error"]) == set(ESTIMATORS)
    assert (result.peer, result.ratio) == (None, None)
    assert result.detail["peer"]["install"] == "make bench-setup"
    assert "--data" in result.detail["open_bandit"]


def test_open_bandit_clicks_are_estimated_from_the_other_policys_log(shared_data: Path) -> None:
    """On both campaigns the intervals from an even draw to Thompson sampling meet what that earned."""
    for campaign in open_bandit.CAMPAIGNS:
        even_draw, bts = (open_bandit.read(shared_data / "bandit", policy, campaign) for policy in open_bandit.POLICIES)
        target = open_bandit.chances("bts", bts, even_draw.rounds)
        earned = estimate(bts.rounds, bts.rounds.propensity, "ips")
        assert earned.value == pytest.approx(bts.rounds.reward.mean())
        for name in ("ips", "snips"):
            found = estimate(even_draw.rounds, target, name)
            assert found.mean_weight == pytest.approx(1, abs=0.05)
            assert found.low < earned.high
            assert earned.low < found.high
