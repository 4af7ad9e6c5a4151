"""What a rule is, and what it may look at: candidates in order, and what the decision knows of them."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock.errors import DefinitionError
from penstock.learn import LinearReward, Posterior
from penstock.retrieve import Index, Query, Source
from penstock.types import Array, Strings

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Facts:
    """What a decision knows of its n found candidates; nothing is computed before a rule asks.

    Attributes:
        rows: (n, features) float64, as the model saw them; `places` has the columns by name.
        sources: the candidate sources by label, each with its index.
        query: what the sources were asked.
        learned: what the release knows of rewards, by `LinearReward.key`.
    """

    rows: Floats
    places: Mapping[str, int]
    sources: Mapping[str, tuple[Source, Index]] = field(default_factory=dict)
    query: Query | None = None
    learned: Mapping[str, Posterior] = field(default_factory=dict)


@dataclass(frozen=True)
class Slate:
    """Candidates in order, best first.

    Attributes:
        items: (n,) codes of all candidates, as they were found; one that a rule added stands behind those.
        order: (m,) positions in `items`, best first; m ≥ k where there are enough.
        attributes: (n,) codes by name, such as ``category``.
        propensity: (m,) the chance with which the slate has this item at this place, given those above it.
        scores: (n,) the model's, NaN of an item that a rule added; empty where no model was asked.
        facts: what else is known; None where no features were read.
        cut: the rules that left out items for which there was room, since no full slate would have kept their promise.
    """

    items: NDArray[np.uint32]
    order: NDArray[np.int64]
    attributes: Mapping[str, NDArray[np.uint32]]
    propensity: Floats
    scores: Floats = field(default_factory=lambda: np.zeros(0))
    facts: Facts | None = None
    cut: tuple[Rule, ...] = ()

    @classmethod
    def of(cls, items: NDArray[np.uint32], order: Array) -> Slate:
        """Items (n,) in an order (m,) of their positions, of which nothing else is known.

        >>> Slate.of(np.array([7, 8, 9], np.uint32), np.array([2, 0])).order.tolist()
        [2, 0]
        """
        return cls(items, np.asarray(order, np.int64), {}, np.ones(len(order)))

    def reordered(self, order: NDArray[np.int64], propensity: Floats | None = None) -> Slate:
        """The same slate in another order, a deterministic one unless its chances are given."""
        return replace(self, order=order, propensity=np.ones(len(order)) if propensity is None else propensity)

    def grown(self, code: int) -> Slate:
        """The same with one more candidate, of which nothing is known, at the end of `items`."""
        items = np.append(self.items, np.uint32(code))
        attributes = {name: np.append(codes, np.uint32(0)) for name, codes in self.attributes.items()}
        scores = np.append(self.scores, np.nan) if len(self.scores) else self.scores
        return replace(self, items=items, attributes=attributes, scores=scores)

    def groups(self, field: str) -> NDArray[np.uint32]:
        """The attribute `field` of every candidate."""
        if field not in self.attributes:
            raise DefinitionError(
                "re-ranking by a field needs it as an attribute of the candidates",
                got=repr(field),
                remedy=f"add {field} = ps.latest({field!r}) to the view by item",
            )
        return self.attributes[field]

    def column(self, name: str) -> Floats:
        """A feature of every candidate, (n,) float64, NaN where unknown; ``"score"`` is the model's score.

        A view of the matrix that the model saw, not a copy, unless a rule has added an item.
        """
        if name == "score":
            return self._whole(self._scored())
        if self.facts is None or name not in self.facts.places:
            raise DefinitionError(
                "a rule's column is one of the features that the ranker sees", got=repr(name),
                remedy="use View.feature, a source's label, a request-time column, or score",
            )  # fmt: skip
        return self._whole(self.facts.rows[:, self.facts.places[name]])

    def relevance(self) -> Floats:
        """The scores on a scale from 0 to 1, (n,): the lowest is 0, as is what has no finite one; all alike are 0.

        >>> none = np.zeros(0, np.uint32)
        >>> Slate(none, none, {}, none, np.array([3.0, 1.0, 2.0])).relevance().tolist()
        [1.0, 0.0, 0.5]
        """
        scores = self._scored()
        known = np.isfinite(scores)
        low, high = (float(scores[known].min()), float(scores[known].max())) if known.any() else (0.0, 0.0)
        return np.nan_to_num(self._whole((np.where(known, scores, low) - low) / ((high - low) or 1.0)))

    def vectors(self, label: str) -> NDArray[np.float32]:
        """What a source's index knows every candidate by, (n, width), of length 1 or 0."""
        source, index = self._source(label)
        found = source.vectors(index, self.items)
        if found is None:
            raise _no_vectors(label)
        return found

    def products(self, label: str, at: NDArray[np.int64]) -> Floats:
        """What a source looks for, times the vectors of the candidates `at` (m,): (m, width), 0 where unknown."""
        source, index = self._source(label)
        query = self.facts.query if self.facts is not None else None
        found = None if query is None else source.products(query, index, self.items[at])
        if found is None:
            raise _no_vectors(label)
        return found

    def _source(self, label: str) -> tuple[Source, Index]:
        if self.facts is None or label not in self.facts.sources:
            raise _no_vectors(label)
        return self.facts.sources[label]

    def _scored(self) -> Floats:
        if not len(self.scores) and len(self.items):
            raise DefinitionError(
                "re-ranking by scores needs a model's", got="candidates without scores",
                remedy="fallback tiers leave such rules out",
            )  # fmt: skip
        return self.scores

    def _whole(self, values: Floats) -> Floats:
        """With NaN for the items that rules have added."""
        more = len(self.items) - len(values)
        return np.r_[values, np.full(more, np.nan)] if more > 0 else values


class Reads(NamedTuple):
    """What a rule looks at: attributes, feature columns, and the sources whose vectors it needs."""

    attributes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    vectors: tuple[str, ...] = ()


class Rule(ABC):
    """One step from slate to slate; implementations are frozen dataclasses, registered as "rule".

    Attributes:
        explores: whether it draws, and says the chances. It then comes last, and fallback tiers leave it out.
    """

    explores: ClassVar[bool] = False

    @abstractmethod
    def apply(self, slate: Slate, k: int, strings: Strings, draw: random.Random) -> Slate:
        """The next slate; at least its first k places must be final."""

    def holds(self, slate: Slate, k: int, strings: Strings) -> bool:
        """Whether a final slate keeps what this rule promises; no means that it could not, or a later rule broke it."""
        return True

    def reads(self) -> Reads:
        """What it looks at, so that a decision without it is refused when it is defined."""
        return Reads()

    def learns(self) -> LinearReward | None:
        """The model of rewards that training is to fit for it."""
        return None


class Explores(Rule):
    """A rule that draws. It comes last, and its `apply` gives a slate the very chances that `chances` says."""

    explores: ClassVar[bool] = True

    @abstractmethod
    def chances(self, slate: Slate, shown: Array) -> Floats:
        """The chance of showing `shown` (k,) place by place, each given those above it, had `slate` come in.

        0 from the first place on that the rule would never fill so.

        Args:
            shown: positions in `slate.items`.
        """


def check_place(name: str, place: int) -> None:
    """Refuses places below the first."""
    if place < 1:
        raise DefinitionError("places count from 1", got=f"{name}={place}", remedy="1 is the first place")


def by_rest(order: Array, chosen: Array) -> NDArray[np.int64]:
    """`order` with the places `chosen` in front, the others after them as they stood.

    >>> by_rest(np.array([7, 8, 9]), np.array([2])).tolist()
    [9, 7, 8]
    """
    left = np.ones(len(order), bool)
    left[chosen] = False
    return np.asarray(np.concatenate([order[chosen], order[left]]), np.int64)


def _no_vectors(label: str) -> DefinitionError:
    return DefinitionError(
        "a rule's vectors are those of a candidate source that has some", got=repr(label),
        remedy="name the decision's ps.attention source",
    )  # fmt: skip
