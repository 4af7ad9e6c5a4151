"""Rules that spread a slate equal their plain definitions, place by place."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock as ps
import slates
from penstock.errors import DefinitionError
from penstock.serve.rerank import Rule, Slate, determinantal, mmr

WIDTH = 3


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Slate, np.ndarray, np.ndarray, np.ndarray]:
    """A slate with two attributes and vectors, some of them missing."""
    n = draw(st.integers(1, 9))
    scores = draw(st.lists(st.integers(-4, 4).map(float), min_size=n, max_size=n))
    two = [np.array(draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)), np.uint32) for _ in range(2)]
    vectors = np.random.default_rng(draw(st.integers(0, 99))).normal(size=(n + 1, WIDTH))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[[0, *draw(st.sets(st.integers(1, n), max_size=2))]] = 0
    table = slates.Table(vectors)
    slate = slates.slate(scores, {"category": two[0], "brand": two[1]}, vectors=table)
    return slate, two[0], two[1], table.table[1:].astype(np.float64)


def alike(i: int, j: int, category: np.ndarray, brand: np.ndarray, vectors: np.ndarray) -> float:
    """A quarter by brand, a half by category, a quarter by vectors."""
    both = vectors[i].any() and vectors[j].any()
    return (
        0.5 * (category[i] == category[j] != 0)
        + 0.25 * (brand[i] == brand[j] != 0)
        + 0.25 * ((1 + float(vectors[i] @ vectors[j])) / 2 if both else 0.0)
    )


def relevance(slate: Slate) -> np.ndarray:
    low, high = slate.scores.min(), slate.scores.max()
    return (slate.scores - low) / (high - low) if high > low else np.zeros(len(slate.scores))


def shown(rule: Rule, slate: Slate, k: int) -> list[int]:
    """Positions in the slate's items; the rest is all there and in the order it came."""
    found = rule.apply(slate, k, slates.Names(), random.Random(0))
    assert sorted(found.order.tolist()) == sorted(slate.order.tolist())
    rest = found.order[k:].tolist()
    assert rest == [i for i in slate.order.tolist() if i in rest]
    assert found.propensity.tolist() == [1.0] * len(found.order)
    return [int(i) for i in found.order[:k]]


PARTS: dict[str, Any] = {"weights": (2, 1, 1), "vectors": "near"}


@settings(max_examples=150, deadline=None)
@given(world=worlds(), k=st.integers(1, 10), share=st.sampled_from([0.0, 0.3, 0.7, 1.0]))
def test_marginal_relevance_equals_its_definition(world: Any, k: int, share: float) -> None:
    """Each place takes an item whose share of relevance less its likeness to the nearest above is the most."""
    slate, *known = world
    found = shown(mmr("category", "brand", relevance=share, **PARTS), slate, k)
    good = relevance(slate)
    for place, item in enumerate(found):

        def worth(i: int, above: list[int] = found[:place]) -> float:
            return share * good[i] - (1 - share) * max((alike(i, j, *known) for j in above), default=0.0)

        best = max(worth(i) for i in range(len(good)) if i not in found[:place])
        assert worth(item) == pytest.approx(best, abs=1e-6)


@settings(max_examples=150, deadline=None)
@given(world=worlds(), k=st.integers(1, 10), share=st.sampled_from([0.0, 0.3, 0.7, 0.99]))
def test_the_determinantal_slate_takes_the_largest_determinant_at_each_place(world: Any, k: int, share: float) -> None:
    """By NumPy's determinants of the whole matrix of those chosen, for every candidate that might come next."""
    slate, *known = world
    found = shown(determinantal("category", "brand", relevance=share, **PARTS), slate, k)
    good, n = relevance(slate), len(slate.items)
    matrix = np.array([[1.0 if i == j else 0.95 * alike(i, j, *known) for j in range(n)] for i in range(n)])
    assert np.linalg.eigvalsh(matrix).min() > 0.05 - 1e-6
    for place, item in enumerate(found):

        def worth(i: int, above: list[int] = found[:place]) -> float:
            chosen = [*above, i]
            volume = np.linalg.slogdet(matrix[np.ix_(chosen, chosen)])[1]
            return share * good[chosen].sum() + (1 - share) * volume / 2

        best = max(worth(i) for i in range(n) if i not in found[:place])
        assert worth(item) == pytest.approx(best, abs=1e-5)


@given(world=worlds(), k=st.integers(1, 10))
def test_where_only_relevance_counts_the_order_is_the_scores(world: Any, k: int) -> None:
    slate = world[0]
    assert shown(mmr("category", relevance=1.0), slate, k) == slate.order[:k].tolist()


def test_a_determinantal_slate_mixes_what_scores_alone_would_not() -> None:
    """Ten lamps a little ahead of five other things: scores show lamps only, either rule shows the others, too."""
    slate = slates.slate([1.0 + 0.01 * i for i in range(10)] + [0.9] * 5, {"category": [1] * 10 + [2, 3, 4, 5, 6]})
    for rule in (mmr("category", relevance=0.3), determinantal("category", relevance=0.3)):
        found = shown(rule, slate, 6)
        assert len({int(slate.attributes["category"][i]) for i in found}) == 6
        assert found[0] == 9


def test_an_item_that_a_rule_added_has_no_score_and_comes_last() -> None:
    """It is pinned, is like nothing else, and counts as the least relevant."""
    slate = slates.slate([3.0, 2.0, 1.0], {"category": [1, 1, 2]}, vectors=slates.Table(np.eye(4)[[0, 1, 1, 2]]))
    pinned = ps.pin("i9").apply(slate, 4, slates.Names(), random.Random(0))
    assert pinned.order.tolist() == [3, 0, 1, 2]
    for rule in (mmr("category", relevance=0.9), determinantal("category", relevance=0.9)):
        assert rule.apply(pinned, 4, slates.Names(), random.Random(0)).order[-1] in (2, 3)
        assert int(rule.apply(pinned, 1, slates.Names(), random.Random(0)).order[0]) == 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: mmr("category", relevance=1.5), "from 0 to 1; got 1.5"),
        (lambda: determinantal("category", relevance=1.0), "below 1; got 1.0"),
        (mmr, "fields or vectors.*fields=()"),
        (lambda: determinantal("a", "b", weights=(1,)), "a weight above 0 for each.*weights=\\(1,\\)"),
        (lambda: shown(mmr("colour"), slates.slate([1.0]), 1), "attribute of the candidates; got 'colour'"),
        (lambda: shown(mmr(vectors="far"), slates.slate([1.0]), 1), "source that has some; got 'far'"),
        (
            lambda: shown(
                mmr("a"), Slate(np.ones(1, np.uint32), np.zeros(1, np.int64), {"a": np.ones(1, "u4")}, np.ones(1)), 1
            ),
            "needs a model's; got candidates without scores",
        ),
    ],
)
def test_what_cannot_be_spread_is_refused(make: Any, words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        make()
