"""Rules that spread a slate over what there is: by rank, by marginal relevance, by determinants."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from penstock.errors import DefinitionError
from penstock.registry import registered
from penstock.serve.rerank.base import Floats, Reads, Rule, Slate, by_rest
from penstock.types import Strings

_ALIKE = 0.95
"""How alike a determinant sees two items that nothing tells apart; at 1 no second one would ever be chosen."""


@registered("rule")
@dataclass(frozen=True)
class Diversify(Rule):
    """Spreads a field over the slate: each item already chosen of a group costs the group's others places.

    A greedy re-ranking in the manner of maximal marginal relevance (Carbonell and Goldstein, 1998), on ranks
    instead of scores, so that it does not depend on the model's scale.

    Args:
        field: an attribute of the items, such as ``"category"``.
        strength: places lost for each item of the same group above.
    """

    field: str
    strength: float = 0.5

    def __post_init__(self) -> None:
        if not self.strength >= 0:
            raise DefinitionError("strength is zero or more", got=str(self.strength), remedy="0.5 is usual")

    def reads(self) -> Reads:
        return Reads((self.field,))

    def apply(self, slate: Slate, k: int, strings: Strings, draw: random.Random) -> Slate:
        group = slate.groups(self.field)[slate.order]
        cost = np.arange(len(group), dtype=np.float64)
        chosen = np.empty(min(k, len(group)), np.int64)
        for place in range(len(chosen)):
            best = int(np.argmin(cost))
            chosen[place] = best
            if group[best]:
                cost[group == group[best]] += self.strength
            cost[best] = np.inf
        return slate.reordered(by_rest(slate.order, chosen))


@registered("rule")
@dataclass(frozen=True)
class Mmr(Rule):
    """Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998) on the model's scores.

    Each place takes the candidate with the most of relevance · s − (1 − relevance) · (the likeness to the most alike
    item above), where s are the scores from 0 to 1. Likeness is a weighted mean, from 0 to 1: of a field, 1 where
    both have the same value; of vectors, (1 + cosine) / 2, 0 where one has none.

    Args:
        fields: attributes of the items, such as ``("category", "brand")``.
        relevance: what the score counts, from 0 to 1; at 1 the order is the scores'.
        weights: what each field counts, and last the vectors; all the same, where absent.
        vectors: the name of a candidate source whose index has vectors of items.
    """

    fields: tuple[str, ...] = ()
    relevance: float = 0.7
    weights: tuple[float, ...] = ()
    vectors: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.relevance <= 1:
            raise DefinitionError("relevance is from 0 to 1", got=str(self.relevance), remedy="0.7 is usual")
        _check_parts(self.fields, self.weights, self.vectors)

    def reads(self) -> Reads:
        return _reads(self.fields, self.vectors)

    def apply(self, slate: Slate, k: int, strings: Strings, draw: random.Random) -> Slate:
        order = slate.order
        alike = likeness(slate, self.fields, self.weights, self.vectors)
        value = self.relevance * slate.relevance()[order]
        nearest = np.zeros(len(order))
        chosen = np.empty(min(k, len(order)), np.int64)
        for place in range(len(chosen)):
            best = int(np.argmax(value - (1.0 - self.relevance) * nearest))
            chosen[place] = best
            value[best] = -np.inf
            np.maximum(nearest, alike(best), out=nearest)
        return slate.reordered(by_rest(order, chosen))


@registered("rule")
@dataclass(frozen=True)
class Determinantal(Rule):
    """The slate that a determinantal point process likes best, chosen greedily.

    Of a set Y it maximises relevance · Σ s − (1 − relevance) · (−log det S) / 2 over Y, where s are the scores from 0
    to 1 and S is the matrix of likenesses, as in `Mmr`, times 0.95 off the diagonal: the more alike items are, the
    smaller their determinant. It sees all pairs at once, where marginal relevance sees the nearest. One place more
    costs O(candidates · places) by updating Cholesky factors (Chen, Zhang and Zhou, "Fast greedy MAP inference for
    determinantal point process to improve recommendation diversity", NeurIPS 2018).

    Args:
        fields, weights, vectors: see `Mmr`.
        relevance: what the scores count, from 0 to below 1; at 0 only diversity counts.
    """

    fields: tuple[str, ...] = ()
    relevance: float = 0.7
    weights: tuple[float, ...] = ()
    vectors: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.relevance < 1:
            raise DefinitionError("relevance is from 0 to below 1", got=str(self.relevance), remedy="0.7 is usual")
        _check_parts(self.fields, self.weights, self.vectors)

    def reads(self) -> Reads:
        return _reads(self.fields, self.vectors)

    def apply(self, slate: Slate, k: int, strings: Strings, draw: random.Random) -> Slate:
        order = slate.order
        alike = likeness(slate, self.fields, self.weights, self.vectors)
        # log det L of Y is Σ log quality² + log det S; only the ratio of the two parts counts.
        worth = 2.0 * self.relevance / (1.0 - self.relevance) * slate.relevance()[order]
        places = min(k, len(order))
        # What is left of each one's length once those above are projected out, squared; and the factor's rows.
        left, factor = np.ones(len(order)), np.zeros((places, len(order)))
        chosen = np.empty(places, np.int64)
        for place in range(places):
            best = int(np.argmax(worth + np.log(left)))
            chosen[place] = best
            row = _ALIKE * alike(best)
            row[best] = 1.0
            row -= factor[:place, best] @ factor[:place]
            row /= np.sqrt(left[best])
            factor[place] = row
            # Rounding must not take it below what the 0.95 leaves at the least.
            np.maximum(left - row * row, (1.0 - _ALIKE) / 2, out=left)
            worth[best] = -np.inf
        return slate.reordered(by_rest(order, chosen))


def likeness(
    slate: Slate, fields: tuple[str, ...], weights: tuple[float, ...], vectors: str
) -> Callable[[int], Floats]:
    """How alike all candidates, in the slate's order, are to the one at a place of it: from 0 to 1, (m,) float64.

    Of each field a missing value is like no other; so is a missing vector.
    """
    parts = len(fields) + bool(vectors)
    shares = np.array(weights or (1.0,) * parts) / (sum(weights) or parts)
    groups = [(slate.groups(field)[slate.order], float(share)) for field, share in zip(fields, shares, strict=False)]
    table = slate.vectors(vectors)[slate.order] if vectors else None
    known = np.zeros(0, bool) if table is None else np.asarray(table.any(axis=1))
    half = float(shares[-1]) / 2

    def alike(place: int) -> Floats:
        out = np.zeros(len(slate.order))
        for group, share in groups:
            if group[place]:
                out += share * (group == group[place])
        if table is not None and known[place]:
            out += half * (known + table @ table[place])
        return out

    return alike


def _check_parts(fields: tuple[str, ...], weights: tuple[float, ...], vectors: str) -> None:
    parts = len(fields) + bool(vectors)
    whole = not weights or (len(weights) == parts and all(weight > 0 for weight in weights))
    if isinstance(fields, str) or not parts or not whole:
        raise DefinitionError(
            "likeness is by fields or vectors, with a weight above 0 for each or none at all",
            got=f"fields={fields!r}, vectors={vectors!r}, weights={weights!r}",
            remedy='mmr("category", "brand", weights=(2, 1))',
        )


def _reads(fields: tuple[str, ...], vectors: str) -> Reads:
    return Reads(fields, ("score",), (vectors,) if vectors else ())


def diversify(field: str, strength: float = 0.5) -> Diversify:
    """Spreads the values of `field` over the slate."""
    return Diversify(field, strength)


def mmr(*fields: str, relevance: float = 0.7, weights: tuple[float, ...] = (), vectors: str = "") -> Mmr:
    """Trades each item's score against its likeness to the most alike item above it."""
    return Mmr(fields, relevance, tuple(weights), vectors)


def determinantal(
    *fields: str, relevance: float = 0.7, weights: tuple[float, ...] = (), vectors: str = ""
) -> Determinantal:
    """Trades the slate's scores against how alike its items are, all pairs at once."""
    return Determinantal(fields, relevance, tuple(weights), vectors)
