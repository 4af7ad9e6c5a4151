"""What an app file says of a decision, beyond what is learned, and the counts of popular items that it needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

import polars as pl

from penstock.errors import DefinitionError, NotFoundError
from penstock.features import View
from penstock.learn import LambdaRank, LinearReward, Recipe, check_group
from penstock.registry import fingerprint, name_of, to_spec
from penstock.releases import Release
from penstock.retrieve import Popular, Source
from penstock.serve.requests import MOST_ITEMS
from penstock.serve.rerank import Rule
from penstock.types import Micros


@dataclass(frozen=True, eq=False)
class Decision:
    """What an app file says of one decision, beyond what is learned.

    Attributes:
        budget: the time within which an answer leaves, microseconds.
        cache: how long an answer may be given again, microseconds.
    """

    recipe: Recipe
    rules: tuple[Rule, ...] = ()
    fallback: tuple[Popular, ...] = ()
    budget: Micros = 50_000
    k: int = 20
    cache: Micros = 0

    @property
    def name(self) -> str:
        return self.recipe.name

    @property
    def rewards(self) -> tuple[LinearReward, ...]:
        """The models of rewards that its rules explore by."""
        found = (rule.learns() for rule in self.rules)
        return tuple(model for model in found if model is not None)

    @property
    def wanted(self) -> frozenset[str]:
        """The columns that its rules read, and the sources whose vectors they need."""
        reads = [rule.reads() for rule in self.rules]
        return frozenset(name for one in reads for name in (*one.columns, *one.vectors))

    @property
    def budget_ms(self) -> float:
        return self.budget / 1_000


@dataclass(frozen=True)
class Able:
    """The rules of a decision that a release gives what they look at, and of each other one why not, by its name."""

    rules: tuple[Rule, ...]
    left_out: tuple[tuple[str, str], ...] = ()


@lru_cache(maxsize=256)
def able(decision: Decision, recipe: Recipe) -> Able:
    """Which rules hold over a release of this recipe: one of before a rule may lack its column, field or vectors."""
    rules, left_out = [], []
    for rule in decision.rules:
        try:
            _check_reads(rule, recipe)
        except DefinitionError as error:
            left_out.append((name_of(rule), str(error)))
        else:
            rules.append(rule)
    return Able(tuple(rules), tuple(left_out))


def unknown_decision(name: object, known: Iterable[str]) -> NotFoundError:
    """The error for a decision that an app has not."""
    names = ", ".join(known)
    remedy = f"use one of {names}" if names else "the app has none: add one with @app.decision"
    return NotFoundError("a decision is named", got=repr(name), remedy=remedy)


@lru_cache(maxsize=1_024)
def popularity_key(source: Popular, recipe: Recipe) -> str:
    """What a count of popular items is: the same for equal sources over the same stream and item field."""
    return fingerprint([to_spec(source), recipe.stream, recipe.item])


def live_sources(decisions: Sequence[Decision], releases: Sequence[Release]) -> dict[str, tuple[Popular, Recipe]]:
    """Every popularity count that these decisions and releases need, by `popularity_key`."""
    wanted = [(source, d.recipe) for d in decisions for source in d.fallback]
    for recipe in [*(d.recipe for d in decisions), *(r.recipe for r in releases)]:
        wanted += [(source, recipe) for source in recipe.sources if isinstance(source, Popular)]
    return {popularity_key(source, recipe): (source, recipe) for source, recipe in wanted}


def define(
    name: str,
    cls: type,
    *,
    by: str,
    item: str,
    budget: Micros,
    k: int,
    context: Sequence[str],
    cache: Micros,
    views: Mapping[str, View],
) -> Decision:
    """Reads a decision from a class body; `views` are the app's, used where the ranker names none."""
    if isinstance(context, str) or type(k) is not int or not 1 <= k <= MOST_ITEMS:
        raise DefinitionError(
            f"a decision's k is from 1 to {MOST_ITEMS}, and its context a list of fields",
            got=f"k={k!r}, context={context!r}", remedy='write k=20, context=["country"]',
        )  # fmt: skip
    body = {key: value for key, value in vars(cls).items() if not key.startswith("_")}
    allowed = {"candidates", "rank", "rerank", "fallback", "leave_out", "most"}
    unknown = sorted(set(body) - allowed)
    if unknown:
        raise DefinitionError(
            f"a decision's body holds {', '.join(sorted(allowed))}",
            got=f"{name}.{unknown[0]}",
            remedy="rename or remove it",
        )
    rank = body.get("rank")
    if not isinstance(rank, LambdaRank):
        raise DefinitionError(
            f"decision {name} has a ranker", got=type(rank).__name__, remedy='write rank = ps.LambdaRank(goal="view")'
        )
    if not isinstance(rank.goal, pl.Expr | str | Mapping):
        raise DefinitionError(
            "a goal is a kind, a filter, or kinds with what they are worth", got=repr(rank.goal),
            remedy='write goal="view"',
        )  # fmt: skip
    chosen = tuple(rank.views) or tuple(views.values())
    recipe = Recipe(
        name, by, item, chosen, _all(body, "candidates", Source), rank, tuple(context),
        tuple(body.get("leave_out", ())), int(body.get("most", 250)),
    )  # fmt: skip
    fallback = _all(body, "fallback", Popular)
    rules = _all(body, "rerank", Rule)
    early = [rule for rule in rules[:-1] if rule.explores]
    if early:
        raise DefinitionError(
            "exploration comes last, since later rules would change the chances that it logs",
            got=f"{name}.rerank with {name_of(early[0])} before {type(rules[-1]).__name__}",
            remedy=f"move {name_of(early[0])} to the end",
        )
    fields = {f.name: f.kind for f in chosen[0].schema.fields} if chosen else {}
    for field in context:
        if fields.get(field) != "text":
            raise DefinitionError(
                "context is made of text fields of the events", got=f"{field!r} in {name}",
                remedy="use some of " + ", ".join(field for field, kind in fields.items() if kind == "text"),
            )  # fmt: skip
    for source in fallback:
        check_group(source, fields)
    for rule in rules:
        _check_reads(rule, recipe)
    paired = [view.name for view in recipe.assembler.late if by in view.by]
    if cache and paired:
        raise DefinitionError(
            f"an answer is given again until the {by} does something, which no view by {by} and {item} would tell",
            got=f"cache with {paired[0]} in {name}", remedy="leave cache out, or give rank the other views: views=(…)",
        )  # fmt: skip
    return Decision(recipe, rules, fallback, budget, k, cache)


def _check_reads(rule: Rule, recipe: Recipe) -> None:
    """Refuses a rule that looks at what the decision does not know."""
    reads = rule.reads()
    for field in reads.attributes:
        if field not in recipe.attributes:
            raise DefinitionError(
                "a rule's field is a latest value of the candidates", got=f"{field!r} in {recipe.name}.rerank",
                remedy=f"add {field} = ps.latest({field!r}) to the view by {recipe.item}, or use one of "
                + ", ".join(sorted(recipe.attributes)),
            )  # fmt: skip
    known = ("score", *recipe.assembler.names)
    for column in reads.columns:
        if column not in known:
            near = get_close_matches(column, known, 1)
            raise DefinitionError(
                "a rule's column is one of the features that the ranker sees",
                got=f"{column!r} in {recipe.name}.rerank",
                remedy=f"did you mean {near[0]}?" if near else "use View.feature, as in Product.price, or score",
            )
    having = [source.label for source in recipe.sources if type(source).vectors is not Source.vectors]
    for label in reads.vectors:
        if label not in having:
            raise DefinitionError(
                "a rule's vectors are those of a candidate source that has some",
                got=f"{label!r} in {recipe.name}.rerank",
                remedy=f"use one of {', '.join(having)}" if having else "add ps.attention to the candidates",
            )


def _all(body: Mapping[str, Any], name: str, cls: type[Any]) -> tuple[Any, ...]:
    found = tuple(body.get(name, ()))
    for value in found:
        if not isinstance(value, cls):
            raise DefinitionError(
                f"{name} holds objects of kind {cls.__name__}", got=repr(value), remedy="see the page on decisions"
            )
    return found
