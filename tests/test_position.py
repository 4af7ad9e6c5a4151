"""Examination is recovered from clicks of a shop whose truth is known: by chance, by harvest, by click models."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from penstock.learn.position import (
    Clicks,
    Examination,
    PositionError,
    by_cascade,
    by_em,
    by_harvest,
    by_shuffles,
    by_swaps,
)
from penstock.simulator import Impressions, World

WIDTH = 10
WORLD = World(seed=5, shoppers=300, items=400)


def seen(world: World, sessions: int, *, seed: int = 0, queries: int = 200, shuffled: float = 0.0) -> Impressions:
    """Three rankers, each partly right, show slates of ten out of fifteen."""
    rng = np.random.default_rng(seed)
    users = rng.integers(world.shoppers, size=queries)
    candidates = np.array([rng.choice(world.items, 15, replace=False) for _ in range(queries)])
    relevance = world.relevance(users[:, None], candidates)
    scores = np.log(relevance / (1 - relevance)) + 1.5 * rng.normal(size=(3, queries, 15))
    return world.impressions(
        users, candidates, scores, rng, sessions=sessions, positions=WIDTH, shuffled=shuffled
    )  # fmt: skip


def clicks_of(found: Impressions) -> Clicks:
    return Clicks.of_slates(found.query[:, None] * 1_000 + found.slate, found.clicked)


def swapped(world: World, sessions: int) -> tuple[Clicks, np.ndarray]:
    """Slates whose first item changed places with one of the others, where a coin said so."""
    rng = np.random.default_rng(1)
    shown = seen(world, sessions)
    other = rng.integers(1, WIDTH, sessions)
    slate, turned = shown.slate.copy(), np.flatnonzero(rng.random(sessions) < 0.5)
    slate[turned, 0], slate[turned, other[turned]] = slate[turned, other[turned]], slate[turned, 0]
    return Clicks.of_slates(slate, world.clicks(shown.user, slate, rng)), np.repeat(other, WIDTH)


def naive(clicks: Clicks) -> np.ndarray:
    """What click rates alone would say."""
    rate = np.bincount(clicks.position, clicks.clicked) / np.bincount(clicks.position)
    return rate / rate[0]


WAYS: dict[str, Callable[[], tuple[Examination, np.ndarray]]] = {
    "shuffles": lambda: (
        by_shuffles(clicks_of(seen(WORLD, 60_000, shuffled=1.0))), naive(clicks_of(seen(WORLD, 60_000)))
    ),
    "swaps": lambda: (by_swaps(*swapped(WORLD, 250_000)), naive(clicks_of(seen(WORLD, 60_000)))),
    "harvest": lambda: (by_harvest(clicks := clicks_of(seen(WORLD, 60_000))), naive(clicks)),
    "all pairs": lambda: (by_harvest(clicks := clicks_of(seen(WORLD, 60_000)), "all_pairs"), naive(clicks)),
    "em": lambda: (by_em(clicks := clicks_of(seen(WORLD, 60_000))).examination, naive(clicks)),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_examination_is_recovered_within_a_tenth(way: str) -> None:
    """Of each of ten positions, where click rates, better items standing higher, are wrong by far more."""
    found, rates = WAYS[way]()
    truth = WORLD.examination(WIDTH)
    np.testing.assert_allclose(found.probability, truth, rtol=0.1)
    assert np.abs(rates / truth - 1).max() > 0.25
    assert found.probability[0] == 1
    assert (found.error[1:] > 0).all()
    within = (found.interval(0.999)[:, 0] <= truth) & (truth <= found.interval(0.999)[:, 1])
    assert within.all()


def test_trust_is_told_apart_from_examination_and_from_relevance() -> None:
    """With noise by position, examination within a tenth and noise within a fiftieth; the model without noise is off
    by more."""
    world = dataclasses.replace(WORLD, trust=0.3)
    clicks = clicks_of(seen(world, 250_000))
    found = by_em(clicks, trust=True)
    assert found.settled
    np.testing.assert_allclose(found.examination.probability, world.examination(WIDTH), rtol=0.1)
    assert found.examination.noise is not None
    np.testing.assert_allclose(found.examination.noise, world.trust_noise(WIDTH), atol=0.02)
    plain = by_em(clicks).examination.probability
    assert np.abs(plain / world.examination(WIDTH) - 1).max() > 0.15


def test_affine_gains_are_unbiased_where_trust_adds_clicks() -> None:
    """The mean gain of a pair is its relevance, wherever it stood; clicks over examination alone say more."""
    world = dataclasses.replace(WORLD, trust=0.4)
    shown = seen(world, 200_000, queries=5)
    clicks = clicks_of(shown)
    truth = world.relevance(shown.user[:, None], shown.slate).ravel()
    known = Examination(world.examination(WIDTH), np.zeros(WIDTH), world.trust_noise(WIDTH), np.zeros(WIDTH))
    blind = Examination(world.examination(WIDTH), np.zeros(WIDTH))
    for position in (0, 1, 4):
        here = clicks.position == position
        for one, off in ((known, 0.0), (blind, float(world.trust_noise(WIDTH)[position]))):
            gain = one.gains(clicks.position, clicks.clicked)[here].mean()
            want = (truth + (1 - truth) * off)[here].mean()
            assert gain == pytest.approx(want, abs=0.02)


@pytest.mark.parametrize(
    ("estimate", "shuffled"), [(by_shuffles, 1.0), (by_harvest, 0.0), (lambda clicks: by_em(clicks).examination, 0.0)]
)
def test_intervals_hold_the_truth_as_often_as_they_say(
    estimate: Callable[[Clicks], Examination], shuffled: float
) -> None:
    """95 % intervals of nine positions in forty repeats: from 91 to 99 % hold it."""
    truth = WORLD.examination(WIDTH)[1:]
    inside = []
    for seed in range(40):
        # Many clicks a pair: the click model's own bias at few is not what is judged here.
        shown = seen(WORLD, 8_000, seed=seed, queries=20, shuffled=shuffled)
        bounds = estimate(clicks_of(shown)).interval()[1:]
        inside.append((bounds[:, 0] <= truth) & (truth <= bounds[:, 1]))
    assert 0.91 <= np.mean(inside) <= 0.99


def test_clicks_of_a_session_are_not_taken_to_be_independent() -> None:
    """Shoppers who click all or nothing leave no doubt that two positions are looked at alike, though rates vary."""
    clicked = np.repeat(np.random.default_rng(0).random((500, 1)) < 0.3, 3, axis=1)
    found = by_shuffles(Clicks.of_slates(np.tile(np.arange(3), (500, 1)), clicked))
    assert found.probability.tolist() == [1, 1, 1]
    np.testing.assert_allclose(found.error, 0, atol=1e-6)


def test_harvest_needs_no_relevance_where_pairs_are_seldom_seen() -> None:
    """Pairs shown three times each: the harvest is within a tenth, where a relevance for each pair misleads EM."""
    shown = seen(WORLD, 60_000, queries=20_000)
    clicks, truth = clicks_of(shown), WORLD.examination(WIDTH)
    assert np.median(clicks.table[0].sum(axis=1)) <= 3
    harvest, model = by_harvest(clicks), by_em(clicks, steps=100).examination
    assert (np.abs(harvest.probability - truth) < np.maximum(0.1 * truth, 3.5 * harvest.error)).all()
    off = [np.abs(found.probability / truth - 1).mean() for found in (harvest, model)]
    assert off[1] > 1.5 * off[0]


def test_a_model_of_relevance_takes_the_place_of_one_for_each_pair() -> None:
    """Regression EM: pairs seen once each, of which a single column tells the relevance, in ten classes."""
    rng = np.random.default_rng(3)
    sessions, truth = 40_000, WORLD.examination(WIDTH)
    kind = rng.integers(10, size=(sessions, WIDTH))
    relevant = np.linspace(0.05, 0.8, 10)
    kind = np.take_along_axis(kind, np.argsort(-kind + 4 * rng.normal(size=kind.shape), axis=1), axis=1)
    clicked = rng.random(kind.shape) < truth * relevant[kind]
    clicks = Clicks.of_slates(np.arange(kind.size).reshape(kind.shape), clicked)

    def by_kind(target: np.ndarray, weight: np.ndarray) -> np.ndarray:
        mean = np.bincount(kind.ravel(), target * weight) / np.bincount(kind.ravel(), weight)
        return np.asarray(mean[kind.ravel()])

    found = by_em(clicks, relevance=by_kind, close=1e-4)
    np.testing.assert_allclose(found.examination.probability, truth, rtol=0.1)
    assert np.abs(naive(clicks) / truth - 1).max() > 0.2
    scaled = found.relevance / found.relevance.max() * 0.8
    np.testing.assert_allclose(np.unique(scaled), relevant, atol=0.08)


def test_a_cascade_is_recovered() -> None:
    """How shoppers go on with and without a click, how far they get, and what is relevant."""
    rng = np.random.default_rng(0)
    sessions, width = 10_000, 6
    relevance = rng.beta(1, 3, (30, 8))
    query = rng.integers(30, size=sessions)
    slate = rng.permuted(np.tile(np.arange(8), (sessions, 1)), axis=1)[:, :width]
    clicked, here, looked = np.zeros((sessions, width), bool), np.ones(sessions, bool), []
    for k in range(width):
        looked.append(here.mean())
        clicked[:, k] = here & (rng.random(sessions) < relevance[query, slate[:, k]])
        here = here & (rng.random(sessions) < np.where(clicked[:, k], 0.4, 0.85))
    found = by_cascade(Clicks.of_slates(query[:, None] * 8 + slate, clicked))
    assert found.onward == pytest.approx(0.85, abs=0.02)
    assert found.after_click == pytest.approx(0.4, abs=0.03)
    np.testing.assert_allclose(found.examination.probability, looked, rtol=0.1)
    assert (np.abs(found.examination.probability - looked) <= 4 * found.examination.error).all()
    assert np.corrcoef(found.relevance, relevance.ravel())[0, 1] > 0.95


def test_the_conditional_likelihood_equals_its_plain_form() -> None:
    """No examination near the one found makes it likelier that pairs' clicks fell where they fell."""
    clicks = clicks_of(seen(WORLD, 2_000, queries=20))
    found = by_harvest(clicks).probability
    cells: dict[int, dict[int, list[int]]] = {}
    for pair, position, hit in zip(
        clicks.pair.tolist(), clicks.position.tolist(), clicks.clicked.tolist(), strict=True
    ):
        counts = cells.setdefault(pair, {}).setdefault(position, [0, 0])
        counts[0] += 1
        counts[1] += hit

    def value(look: np.ndarray) -> float:
        total = 0.0
        for pair in cells.values():
            whole = sum(shown * look[k] for k, (shown, _) in pair.items())
            total += sum(hits * np.log(shown * look[k] / whole) for k, (shown, hits) in pair.items())
        return total

    best = value(found)
    for k in range(1, WIDTH):
        for factor in (0.97, 1.03):
            other = found.copy()
            other[k] *= factor
            assert value(other) < best


def test_positions_that_nothing_links_to_the_first_are_unknown() -> None:
    """Where pairs 1 and 2 only change the first two places and pairs 3 and 4 the next two, the latter are NaN."""
    slates = np.array([[1, 2, 3, 4], [2, 1, 4, 3]] * 30)
    rng = np.random.default_rng(0)
    found = by_harvest(Clicks.of_slates(slates, rng.random(slates.shape) < 0.5))
    assert np.isnan(found.probability).tolist() == [False, False, True, True]
    assert (found.known()[2:] == found.probability[1]).all()
    assert np.isfinite(found.weights(np.arange(6))).all()


def test_weights_are_bounded_and_examination_can_be_held_to_fall() -> None:
    """A weight is at most what is asked for; neighbours that rise are averaged by how well they are known."""
    found = Examination(np.array([1.0, 0.2, 0.4, 0.01]), np.array([0.0, 0.02, 0.4, 0.01]))
    np.testing.assert_allclose(found.weights(np.arange(4), most=20), [1, 5, 2.5, 20])
    held = found.falling().probability
    assert (np.diff(held) <= 0).all()
    assert held[1] == held[2] == pytest.approx(0.2, rel=0.02)
    assert held[3] == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Clicks(*(np.zeros(n, np.int64) for n in (2, 2, 1)), np.zeros(2, bool)), "lengths 1, 2"),
        (lambda: Clicks(*(np.full(2, -1) for _ in range(3)), np.zeros(2, bool)), "count from 0; got -1"),
        (lambda: by_shuffles(Clicks.of_slates(np.ones((3, 2), int), np.zeros((3, 2), bool))), "no click there"),
        (lambda: by_em(Clicks.of_slates(np.ones((3, 2), int), np.zeros((3, 2), bool))), "no click there"),
        (lambda: by_harvest(Clicks.of_slates(np.array([[1, 2]] * 3), np.ones((3, 2), bool))), "let rankers differ"),
        (
            lambda: by_swaps(Clicks.of_slates(np.array([[1, 2]]), np.ones((1, 2), bool)), np.zeros(2, int)),
            "no coin was thrown",
        ),
        (
            lambda: by_cascade(Clicks(*(np.array(c) for c in ([0, 0], [1, 2], [0, 2])), np.ones(2, bool))),
            "lack one above",
        ),
    ],
)  # fmt: skip
def test_clicks_that_do_not_tell_are_refused_with_the_remedy(make: Callable[[], object], message: str) -> None:
    """Each estimator says what it needs."""
    with pytest.raises(PositionError, match=message):
        make()
