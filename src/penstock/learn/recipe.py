"""What a decision learns from: views, candidate sources and a ranker, as one serialisable definition."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property, reduce
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from penstock.aggregates import Latest
from penstock.clock import duration
from penstock.errors import DefinitionError
from penstock.features.assemble import Assembler
from penstock.features.request import Request
from penstock.features.view import View
from penstock.registry import from_spec, registered, to_spec
from penstock.retrieve import Index, Popular, PopularLists, Query, Reader, Source
from penstock.types import Array


@registered("ranker")
@dataclass(frozen=True, eq=False)
class LambdaRank:
    """A LightGBM ranker trained with LambdaRank (Burges, 2010) on what shoppers did next.

    Args:
        goal: the events to predict: a value of the field ``kind``, an element-wise filter, or several kinds with what
            each is worth: ``{"view": 0.1, "cart": 0.3, "buy": 1.0}``. An item is worth the best that came of it.
        views: whose features it sees.
        request: further columns computed at request time, by name.
        trees, leaves, learning_rate, min_leaf: of the boosted trees.
        negatives: candidates kept beside each positive when training.
        examples: what it learns from: ``"next"``, the events that came next, each as if a decision had been asked
            just before; or ``"shown"``, what decisions showed and what came of it.
        window: how long after a decision an event still counts as its outcome.
        position_bias: with ``"shown"``, outcomes weigh one over how likely their position is looked at, so that what
            stood high is not favoured for that; estimated from the decision log by ``"harvest"`` (items that a
            shopper was shown at several positions) or ``"em"`` (a click model beside a model of relevance).
        most_weight: the most that an outcome weighs so.
        labels: how far back the training labels reach, before the validation span.
        valid: the newest span, held out to choose between rankers.
        most_labels: labels drawn at random from each span of length `valid`.
        tolerance: the simplest ranker within this share of the best one's figure is taken.
        seed: of every random draw.
        metric: the figure that rankers are compared by, at 20 places: ``mrr``, ``ndcg`` or ``hit_rate`` of the item
            that came next, or ``goals``: on how many of the items in a list the goal followed within `window`.
    """

    goal: str | pl.Expr | Mapping[str, float]
    views: tuple[View, ...] = ()
    request: Mapping[str, Request | pl.Expr] = field(default_factory=dict)
    trees: int = 100
    leaves: int = 15
    learning_rate: float = 0.1
    min_leaf: int = 100
    negatives: int = 20
    examples: Literal["next", "shown"] = "next"
    window: str = "1d"
    labels: str = "3d"
    valid: str = "1d"
    most_labels: int = 4_000
    tolerance: float = 0.02
    seed: int = 1
    position_bias: Literal["harvest", "em"] | None = None
    most_weight: float = 20.0
    metric: Literal["mrr", "ndcg", "hit_rate", "goals"] = "mrr"

    def __post_init__(self) -> None:
        for span in (self.window, self.labels, self.valid):
            duration(span)
        if self.metric not in ("mrr", "ndcg", "hit_rate", "goals"):
            raise DefinitionError(
                "rankers are compared by mrr, ndcg, hit_rate or goals", got=f"metric={self.metric!r}",
                remedy='leave it out for "mrr"',
            )  # fmt: skip
        if self.examples not in ("next", "shown"):
            raise DefinitionError(
                "a ranker learns from what came next or from what was shown", got=f"examples={self.examples!r}",
                remedy='write examples="next" or examples="shown"',
            )  # fmt: skip
        if self.position_bias not in (None, "harvest", "em") or (self.position_bias and self.examples != "shown"):
            raise DefinitionError(
                "position bias is undone by harvest or em, in what was shown",
                got=f"position_bias={self.position_bias!r}, examples={self.examples!r}",
                remedy='write examples="shown", position_bias="harvest"',
            )
        if not self.most_weight >= 1:
            raise DefinitionError(
                "an outcome weighs 1 or more", got=f"most_weight={self.most_weight!r}", remedy="most_weight=20.0"
            )
        if isinstance(self.goal, Mapping) and not (
            self.goal and all(isinstance(worth, int | float) and 0 < worth < np.inf for worth in self.goal.values())
        ):
            raise DefinitionError(
                "several goals are kinds, each with what it is worth, more than nothing", got=f"goal={self.goal!r}",
                remedy='write goal={"view": 0.1, "buy": 1.0}',
            )  # fmt: skip

    @property
    def filter(self) -> pl.Expr:
        """The goal as a filter."""
        if isinstance(self.goal, Mapping):
            return reduce(operator.or_, (goal for goal, _ in self.grades))
        return pl.col("kind") == self.goal if isinstance(self.goal, str) else self.goal

    @property
    def grades(self) -> tuple[tuple[pl.Expr, float], ...]:
        """Filters and what the events that they keep are worth, the least first."""
        if not isinstance(self.goal, Mapping):
            return ((self.filter, 1.0),)
        ordered = sorted(self.goal.items(), key=lambda each: (each[1], each[0]))
        return tuple((pl.col("kind") == kind, float(worth)) for kind, worth in ordered)


@dataclass(frozen=True, eq=False)
class Recipe:
    """One decision, as far as it is learned and released.

    Args:
        name: the decision's name.
        by: the key field of requests.
        item: the key field of candidates.
        views: every view that the ranker or a source reads.
        sources: where candidates come from.
        rank: the ranker.
        context: text fields that a request may carry.
        leave_out: list features of the shopper whose items are never proposed.
        most: candidates scored at most.
        others: whether a candidate has the scores of every source that knows it; otherwise of those that found it, as
            in releases whose written recipe does not say.
    """

    name: str
    by: str
    item: str
    views: tuple[View, ...]
    sources: tuple[Source, ...]
    rank: LambdaRank
    context: tuple[str, ...] = ()
    leave_out: tuple[str, ...] = ()
    most: int = 250
    others: bool = True

    def __post_init__(self) -> None:
        streams = sorted({view.stream for view in self.views})
        if len(streams) > 1:
            raise DefinitionError(
                f"the views of {self.name} read one stream", got=", ".join(streams),
                remedy="name those to use: rank = ps.LambdaRank(..., views=(Shopper, Product))",
            )  # fmt: skip
        labels = [source.label for source in self.sources]
        for label in labels:
            # They name columns, and folders of the release.
            if not re.fullmatch(r"\w+", label, re.ASCII):
                raise DefinitionError(
                    "a candidate source's name has letters, digits and underscores", got=repr(label),
                    remedy="give it another: name='near'",
                )  # fmt: skip
            if labels.count(label) > 1:
                raise DefinitionError(
                    f"the candidate sources of {self.name} differ in name", got=f"{label!r} twice",
                    remedy=f"give one a name: name={label + '_2'!r}",
                )  # fmt: skip
        lists = self.lists
        for need in (*(need for source in self.sources for need in source.needs()), *self.leave_out):
            if need not in lists and need not in self.context:
                raise DefinitionError(
                    f"sources of {self.name} read list features of the views by {self.by}", got=repr(need),
                    remedy="add it there (recent = ps.last('item', k=50)), or use one of " + ", ".join(sorted(lists)),
                )  # fmt: skip
        known = {"now", *self.assembler.scores}
        known |= {f"{view.name}.{feature}" for view in self.views for feature in view.features}
        for name, request in self.assembler.requests.items():
            for root in request.expression.meta.root_names():
                if root not in known:
                    near = get_close_matches(root, known, 1)
                    raise DefinitionError(
                        f"request-time columns of {self.name} read features, source scores and now",
                        got=f"{root!r} in {name}",
                        remedy=f"did you mean {near[0]}?" if near else "use View.feature, as in Shopper.since",
                    )
        fields = {f.name: f.kind for f in self.views[0].schema.fields} if self.views else {}
        for source in self.sources:
            check_group(source, fields)
            check_words(source, self.context, fields)
            source.check(lists)

    @property
    def attributes(self) -> frozenset[str]:
        """What is known of a candidate as text: its latest values, and the keys of the request."""
        latest = {name for view in self.views for name, a in view.features.items() if isinstance(a, Latest)}
        return frozenset({self.by, self.item, *self.context, *latest})

    @property
    def asks(self) -> tuple[str, ...]:
        """The context fields whose words some source reads."""
        return tuple(dict.fromkeys(name for source in self.sources for name in source.asks()))

    @property
    def stream(self) -> str:
        return self.views[0].stream

    @cached_property
    def lists(self) -> dict[str, tuple[View, str]]:
        """List features of the request's views, by plain and by full name."""
        known = {self.by, *self.context}
        out: dict[str, tuple[View, str]] = {}
        for view in self.views:
            if set(view.by) <= known:
                for name, aggregate in view.features.items():
                    if aggregate.is_list:
                        out.setdefault(name, (view, name))
                        out[f"{view.name}.{name}"] = (view, name)
        return out

    @cached_property
    def assembler(self) -> Assembler:
        columns = tuple(column for source in self.sources for column in source.columns)
        request = {n: r if isinstance(r, Request) else Request(r) for n, r in self.rank.request.items()}
        return Assembler(self.views, self.by, self.item, self.context, columns, request)

    def spec(self) -> dict[str, Any]:
        """The definition as plain JSON values; `Recipe.from_spec` is the inverse."""
        rank = to_spec(_without_views(self.rank))
        return {
            "name": self.name,
            "by": self.by,
            "item": self.item,
            "views": [view.spec() for view in self.views],
            "sources": [to_spec(source) for source in self.sources],
            "rank": rank,
            "context": list(self.context),
            "leave_out": list(self.leave_out),
            "most": self.most,
            "others": self.others,
        }

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Recipe:
        return cls(
            spec["name"],
            spec["by"],
            spec["item"],
            tuple(View.from_spec(view) for view in spec["views"]),
            tuple(from_spec(source) for source in spec["sources"]),
            from_spec(spec["rank"]),
            tuple(spec["context"]),
            tuple(spec["leave_out"]),
            spec["most"],
            spec.get("others", False),
        )


def check_group(source: Source, fields: Mapping[str, str]) -> None:
    """Refuses popular items by what is no text field of the stream."""
    by = source.by if isinstance(source, Popular) else None
    if by is not None and fields.get(by) != "text":
        raise DefinitionError(
            "popular items are counted by a text field of the stream", got=f"by={by!r}",
            remedy="use one of " + ", ".join(name for name, kind in fields.items() if kind == "text"),
        )  # fmt: skip


def check_words(source: Source, context: Sequence[str], fields: Mapping[str, str]) -> None:
    """Refuses words that no request carries, and texts that no event has."""
    for name in source.asks():
        if name not in context:
            raise DefinitionError(
                "a source reads the words of a field that requests carry", got=f"{name!r}",
                remedy=f"write context=[{name!r}] in the decision",
            )  # fmt: skip
    for name in source.reads() if isinstance(source, Reader) else ():
        if fields.get(name) != "text":
            raise DefinitionError(
                "what items say of themselves are text fields of the events", got=repr(name),
                remedy="use some of " + ", ".join(name for name, kind in fields.items() if kind == "text"),
            )  # fmt: skip


def _without_views(rank: LambdaRank) -> LambdaRank:
    return replace(rank, views=())


@dataclass(frozen=True)
class Candidates:
    """Different items (n,), with the source score columns (n, c), NaN where a source did not find them.

    `place` (n, sources) is the position in each source's own list, NaN where absent.
    """

    items: NDArray[np.uint32]
    scores: NDArray[np.float64]
    place: NDArray[np.float64]

    def take(self, which: Array) -> Candidates:
        """Some of them, by position or as a mask (n,)."""
        return Candidates(self.items[which], self.scores[which], self.place[which])

    def of(self, items: NDArray[np.uint32]) -> Candidates:
        """These items in their order; what no source found has neither scores nor places."""
        row = {code: i for i, code in enumerate(self.items.tolist())}
        at = np.array([row.get(code, -1) for code in items.tolist()], np.int64)
        none = (at < 0)[:, None]
        if not len(self.items):
            return Candidates(
                items, *(np.full((len(items), part.shape[1]), np.nan) for part in (self.scores, self.place))
            )
        return Candidates(items, np.where(none, np.nan, self.scores[at]), np.where(none, np.nan, self.place[at]))


def retrieve(recipe: Recipe, query: Query, indexes: Mapping[str, Index]) -> Candidates:
    """Asks every source, joins what they found in their order, and leaves out what must not be shown."""
    found = [source.find(query, indexes.get(source.label, {})) for source in recipe.sources]
    items = np.concatenate([np.zeros(0, np.uint32), *(part.items for part in found)])
    different, first, which = np.unique(items, return_index=True, return_inverse=True)
    order = np.argsort(first)
    if recipe.leave_out:
        out = np.concatenate([query.lists[name] for name in recipe.leave_out])
        order = order[~np.isin(different[order], out)]
    order = order[: recipe.most]
    row = np.full(len(different), -1)
    row[order] = np.arange(len(order))
    rows = row[which]
    scores = np.full((len(order), len(recipe.assembler.scores)), np.nan)
    place = np.full((len(order), len(found)), np.nan)
    column, begin = 0, 0
    for i, (source, part) in enumerate(zip(recipe.sources, found, strict=True)):
        at = rows[begin : begin + len(part.items)]
        kept = np.flatnonzero(at >= 0)
        place[at[kept], i] = kept
        width = len(source.columns)
        scores[at[kept], column : column + width] = part.scores[kept]
        if part.others is not None and recipe.others:
            rest = np.flatnonzero(np.isnan(place[:, i]))
            scores[rest, column : column + width] = part.others(different[order[rest]])
        column, begin = column + width, begin + len(part.items)
    return Candidates(different[order], scores, place)


def popular_lists(
    recipe: Recipe, lists: Mapping[str, Array], popularity: Mapping[str, PopularLists]
) -> dict[str, NDArray[np.uint32]]:
    """What each popularity-based source offers a request, from its groups' lists."""
    out = {}
    for source in recipe.sources:
        if source.label in popularity:
            needs = source.needs()
            groups = [0] if not needs else [code for code in lists[needs[0]].tolist() if code]
            out[source.label] = popularity[source.label].items(groups)
    return out
