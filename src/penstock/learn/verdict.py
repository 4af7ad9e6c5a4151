"""What a verdict learns from: the views around one event, and the events that later tell what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from typing import Any

import polars as pl

from penstock.clock import duration
from penstock.errors import DefinitionError
from penstock.events import Event, schema_of
from penstock.features.assemble import Assembler
from penstock.features.columns import check_element_wise
from penstock.features.request import Request
from penstock.features.view import View
from penstock.learn.classify import Classifier, ClassifierSpec, Logistic
from penstock.registry import from_spec, to_spec
from penstock.types import Field, Micros, Schema


@dataclass(frozen=True, eq=False)
class Outcome:
    """Events of one stream that tell what came of earlier events.

    Args:
        schema: of the stream.
        of: the text field that holds the id of the event it is about.
        where: which of them mean that the event was positive, element-wise; all, where absent. The others settle
            that it was not.
        within: after how long without any such event one may take an event for negative.
    """

    schema: Schema
    of: str
    where: pl.Expr | None = None
    within: str | None = None

    def __post_init__(self) -> None:
        found = self.schema.field(self.of)
        if found is None or found.kind != "text":
            raise DefinitionError(
                f"an outcome names the event that it is about by a text field of {self.schema.stream}",
                got=repr(self.of),
                remedy="use one of " + ", ".join(f.name for f in self.schema.fields if f.kind == "text"),
            )
        if self.where is not None:
            check_element_wise(self.where, self.schema, f"outcome on {self.schema.stream}")
        if self.within is not None:
            duration(self.within)

    def spec(self) -> dict[str, Any]:
        """The definition as plain JSON values; `from_spec` is the inverse."""
        return {**_schema_spec(self.schema), "of": self.of, "where": to_spec(self.where), "within": self.within}

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Outcome:
        return cls(_schema(spec), spec["of"], from_spec(spec["where"]), spec["within"])


def outcome(on: type[Event], *, of: str, where: pl.Expr | None = None, within: str | None = None) -> Outcome:
    """Events that tell what came of earlier ones, for a verdict to learn from.

    Args:
        on: their type.
        of: the field that holds the id of the event it is about.
        where: which of them mean yes; all of them, where absent. The others mean no.
        within: after how long without any of them the answer is no.

    >>> class Chargeback(Event):
    ...     payment: str
    >>> outcome(Chargeback, of="payment", within="7d").within
    '7d'
    """
    return Outcome(schema_of(on), of, where, within)


@dataclass(frozen=True, eq=False)
class VerdictRecipe:
    """One verdict, as far as it is learned and released.

    Args:
        name: the decision's name.
        by: the key field that names who is decided about.
        schema: of the stream whose events are decided on.
        views: whose features are seen, of any streams; their key fields are text fields of `schema`.
        outcomes: what tells positives from negatives.
        request: further columns computed when the event asks, from its own fields, features and now.
        models: what is compared, the simplest first.
        labels: how far back the events to learn from reach, before those to choose by.
        valid: the newest span whose outcomes are known, held out to choose by and to calibrate on.
        most: rows learned from at most; more are sampled, positives before others.
        tolerance: the simplest model within this share of the best one's average precision is taken.
        seed: of every random draw.
    """

    name: str
    by: str
    schema: Schema
    views: tuple[View, ...]
    outcomes: tuple[Outcome, ...]
    request: Mapping[str, Request] = field(default_factory=dict)
    models: tuple[ClassifierSpec, ...] = (Logistic(), Classifier())
    labels: str = "28d"
    valid: str = "7d"
    most: int = 400_000
    tolerance: float = 0.02
    seed: int = 1

    def __post_init__(self) -> None:
        for span in (self.labels, self.valid):
            duration(span)
        texts = {f.name for f in self.schema.fields if f.kind == "text"}
        if self.by not in texts:
            raise DefinitionError(
                f"a verdict on {self.schema.stream} is by one of its text fields", got=repr(self.by),
                remedy="use one of " + ", ".join(sorted(texts)),
            )  # fmt: skip
        for view in self.views:
            other = next((name for name in view.by if name not in texts), None)
            if other is not None:
                raise DefinitionError(
                    f"the views of {self.name} are keyed by text fields of {self.schema.stream}",
                    got=f"{view.name} by {other}", remedy="name those to use: views = [Customer, …]",
                )  # fmt: skip
        if not self.outcomes or not any(outcome.within for outcome in self.outcomes):
            raise DefinitionError(
                f"{self.name} learns from outcomes, one of which says after how long nothing means no",
                got=f"{len(self.outcomes)} outcomes, none with within",
                remedy='write outcomes = [ps.outcome(Chargeback, of="payment", within="7d")]',
            )
        # They are computed over many events at once, of which texts are not kept.
        self._read("request-time columns", {n: r.expression for n, r in self.request.items()}, "numbers", self.numbers)

    def check(self, what: str, expressions: Mapping[str, pl.Expr], more: Sequence[str] = ()) -> None:
        """Refuses expressions that read anything but features, the event's fields and now, or a name in `more`."""
        self._read(what, expressions, "fields", (*more, *(f.name for f in self.schema.fields)))

    def _read(self, what: str, expressions: Mapping[str, pl.Expr], kind: str, own: Sequence[str]) -> None:
        known = {"now", *own}
        known |= {f"{view.name}.{feature}" for view in self.views for feature in view.features}
        for name, expression in expressions.items():
            for root in expression.meta.root_names():
                if root not in known:
                    near = get_close_matches(root, known, 1)
                    raise DefinitionError(
                        f"{what} of {self.name} read features, {kind} of {self.schema.stream} and now",
                        got=f"{root!r} in {name}",
                        remedy=f"did you mean {near[0]}?" if near else "use View.feature, as in Customer.since",
                    )

    @property
    def within(self) -> Micros:
        """After how long without an outcome an event counts as negative."""
        return max(duration(outcome.within) for outcome in self.outcomes if outcome.within)

    @cached_property
    def numbers(self) -> tuple[str, ...]:
        """The event's fields that are columns of their own: all but texts."""
        return tuple(f.name for f in self.schema.fields if f.kind != "text")

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """The event's fields that key views, `by` first."""
        used = {name for view in self.views for name in view.by}
        return (self.by, *(f.name for f in self.schema.fields if f.name in used and f.name != self.by))

    @cached_property
    def assembler(self) -> Assembler:
        return Assembler(
            self.views, self.by, context=self.keys[1:], scores=self.numbers, requests=self.request
        )  # fmt: skip

    @cached_property
    def streams(self) -> frozenset[str]:
        """Every stream that it reads."""
        learned = (self.schema.stream, *(outcome.schema.stream for outcome in self.outcomes))
        return frozenset({*learned, *(view.stream for view in self.views)})

    def spec(self) -> dict[str, Any]:
        """The definition as plain JSON values; `VerdictRecipe.from_spec` is the inverse."""
        return {
            "name": self.name,
            "by": self.by,
            **_schema_spec(self.schema),
            "views": [view.spec() for view in self.views],
            "outcomes": [outcome.spec() for outcome in self.outcomes],
            "request": to_spec(self.request),
            "models": to_spec(self.models),
            "labels": self.labels,
            "valid": self.valid,
            "most": self.most,
            "tolerance": self.tolerance,
            "seed": self.seed,
        }

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> VerdictRecipe:
        return cls(
            spec["name"], spec["by"], _schema(spec), tuple(View.from_spec(view) for view in spec["views"]),
            tuple(Outcome.from_spec(outcome) for outcome in spec["outcomes"]), from_spec(spec["request"]),
            from_spec(spec["models"]), spec["labels"], spec["valid"], spec["most"], spec["tolerance"], spec["seed"],
        )  # fmt: skip


def _schema_spec(schema: Schema) -> dict[str, Any]:
    return {"stream": schema.stream, "fields": [[f.name, f.kind, f.optional] for f in schema.fields]}


def _schema(spec: Mapping[str, Any]) -> Schema:
    return Schema(spec["stream"], tuple(Field(*parts) for parts in spec["fields"]))
