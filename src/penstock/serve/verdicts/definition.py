"""What an app file says of a verdict: what it learns from, what actions cost, which rules hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock.errors import DefinitionError
from penstock.features import View
from penstock.features.request import Request
from penstock.learn import ACTIONS, Action, Classifier, Costs, Logistic, Outcome, VerdictRecipe
from penstock.serve.verdicts.rules import ActionRule
from penstock.types import Micros, Schema


@dataclass(frozen=True, eq=False)
class Verdict:
    """What an app file says of one verdict, beyond what is learned.

    Attributes:
        costs: what each action costs; the cheapest is taken.
        first: rules that act whatever the model says; `last`: rules over what it says.
        fallback: rules for when features or the model cannot be had in time; else `otherwise` is done.
        explore: the share of declines that are approved all the same, so that training sees what became of them.
        budget: the time within which an answer leaves, microseconds.
    """

    recipe: VerdictRecipe
    costs: Costs
    first: tuple[ActionRule, ...] = ()
    last: tuple[ActionRule, ...] = ()
    fallback: tuple[ActionRule, ...] = ()
    otherwise: Action = "approve"
    explore: float = 0.0
    budget: Micros = 50_000

    def __post_init__(self) -> None:
        recipe, fields = self.recipe, {f.name: f.kind for f in self.recipe.schema.fields}
        if fields.get(self.costs.amount) not in ("money", "int", "float"):
            raise DefinitionError(
                f"the costs of {recipe.name} are of a number of {recipe.schema.stream}",
                got=repr(self.costs.amount), remedy="use one of " + ", ".join(recipe.numbers),
            )  # fmt: skip
        if self.otherwise not in ACTIONS:
            raise DefinitionError(
                f"otherwise is an action: {', '.join(ACTIONS)}", got=repr(self.otherwise),
                remedy='write otherwise = "approve"',
            )  # fmt: skip
        if not 0 <= self.explore < 1:
            raise DefinitionError(
                "a share of declines from 0 to below 1 is explored", got=repr(self.explore), remedy="explore = 0.02"
            )
        recipe.check("the first rules", {r.code: r.when for r in self.first})
        recipe.check("the last rules", {r.code: r.when for r in self.last}, ("score",))
        recipe.check("the fallback's rules", {r.code: r.when for r in self.fallback})
        featured = next(
            (r for r in self.fallback if not fields.keys() | {"now"} >= set(r.when.meta.root_names())), None
        )
        if featured is not None:
            raise DefinitionError(
                "a fallback reads nothing but the event, since features may be what is missing",
                got=f"rule {featured.code}", remedy="move it to first or last",
            )  # fmt: skip

    @property
    def name(self) -> str:
        return self.recipe.name

    @property
    def budget_ms(self) -> float:
        return self.budget / 1_000


_BODY = {
    "costs", "explore", "fallback", "first", "labels", "last", "models", "most", "otherwise", "outcomes", "request",
    "valid", "views",
}  # fmt: skip


def define(name: str, cls: type, *, schema: Schema, by: str, budget: Micros, views: Mapping[str, View]) -> Verdict:
    """Reads a verdict from a class body; `views` are the app's, used where the body names none."""
    body = {key: value for key, value in vars(cls).items() if not key.startswith("_")}
    unknown = sorted(set(body) - _BODY)
    if unknown:
        raise DefinitionError(
            f"a verdict's body holds {', '.join(sorted(_BODY))}", got=f"{name}.{unknown[0]}",
            remedy="rename or remove it",
        )  # fmt: skip
    if not isinstance(body.get("costs"), Costs):
        raise DefinitionError(
            f"verdict {name} has costs", got=type(body.get("costs")).__name__,
            remedy='write costs = ps.Costs("amount", review=300, decline=1_500), in cents',
        )  # fmt: skip
    texts = {f.name for f in schema.fields if f.kind == "text"}
    fitting = tuple(view for view in views.values() if texts.issuperset(view.by))
    request = {n: r if isinstance(r, Request) else Request(r) for n, r in dict(body.get("request", {})).items()}
    spans = {key: body[key] for key in ("labels", "valid", "most") if key in body}
    recipe = VerdictRecipe(
        name, by, schema, _all(body, "views", View) or fitting, _all(body, "outcomes", Outcome), request,
        _all(body, "models", (Classifier, Logistic)) or (Logistic(), Classifier()), **spans,
    )  # fmt: skip
    rules = {key: _all(body, key, ActionRule) for key in ("first", "last", "fallback")}
    return Verdict(
        recipe, body["costs"], **rules, otherwise=body.get("otherwise", "approve"),
        explore=body.get("explore", 0.0), budget=budget,
    )  # fmt: skip


def _all(body: Mapping[str, Any], name: str, cls: Any) -> tuple[Any, ...]:
    found = tuple(body.get(name, ()))
    for value in found:
        if not isinstance(value, cls):
            raise DefinitionError(f"{name} of a verdict are of another kind", got=repr(value), remedy="see the docs")
    return found
