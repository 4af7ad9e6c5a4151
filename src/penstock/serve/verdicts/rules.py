"""Rules that act on an event beside a model, each with a reason code."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from penstock.errors import DefinitionError
from penstock.features.columns import evaluated, is_element_wise
from penstock.features.rowwise import TYPES, Type, compiled
from penstock.learn import ACTIONS, Action
from penstock.types import Kind, Schema

_POLARS: Mapping[Kind, Any] = {
    "text": pl.String, "int": pl.Int64, "money": pl.Int64, "float": pl.Float64, "bool": pl.Boolean,
}  # fmt: skip
_TIME = pl.Datetime("us", "UTC")


@dataclass(frozen=True, eq=False)
class ActionRule:
    """An action that holds wherever a condition does.

    Args:
        code: told as the reason.
        action: what is done: approve, review or decline.
        when: an element-wise Polars expression over the event's fields, ``now`` and features as ``View.feature``;
            among the last rules also over ``score``. Unknown counts as false.
        softens: whether it also acts where the model is stricter; one that approves always does.
    """

    code: str
    action: Action
    when: pl.Expr
    softens: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w{1,64}", self.code, re.ASCII) or self.action not in ACTIONS:
            raise DefinitionError(
                f"a rule has a code of letters, digits and underscores, and an action: {', '.join(ACTIONS)}",
                got=f"{self.code!r}, {self.action!r}", remedy='write ps.rule("too_fast", "review", col("…") > 5)',
            )  # fmt: skip
        if not isinstance(self.when, pl.Expr) or not is_element_wise(self.when):
            raise DefinitionError(
                f"rule {self.code} looks at one event at a time", got=str(self.when),
                remedy='use an element-wise expression such as col("amount") > 100_00',
            )  # fmt: skip

    def acts(self, action: Action) -> bool:
        """Whether it has its way where something else would do this, once its condition holds."""
        stricter = ACTIONS.index(self.action) >= ACTIONS.index(action)
        return stricter or self.softens or self.action == "approve"


def rule(code: str, action: Action, when: pl.Expr, *, softens: bool = False) -> ActionRule:
    """A rule of a verdict: what is done with an event wherever a condition holds.

    Where the model would decline, a review asked for by a rule does not keep it from that, unless it `softens`. A rule
    that approves, as an allow list does, always acts.

    Args:
        code: told as the reason.
        action: "approve", "review" or "decline".
        when: an element-wise expression over the event's fields, now and features as ``View.feature``; money is in
            cents. Among the last rules also over ``score``, the chance that the model gives.
        softens: whether it also acts where the model is stricter.

    >>> rule("large", "review", pl.col("amount") > 5_000_00).action
    'review'
    """
    return ActionRule(code, action, when, softens)


class Rules:
    """Some rules of one verdict, evaluated together.

    Args:
        rules: the first whose condition holds is the one that acts.
        schema: of the stream of the events.
    """

    def __init__(self, rules: Sequence[ActionRule], schema: Schema) -> None:
        self.rules = tuple(rules)
        self._out = [r.when.fill_null(False).alias(str(place)) for place, r in enumerate(self.rules)]
        self._reads = frozenset(name for r in self.rules for name in r.when.meta.root_names())
        self._named = sorted(self._reads)
        self._types = {f.name: _POLARS[f.kind] for f in schema.fields if f.name in self._reads}
        kinds: dict[str, Type] = {f.name: TYPES[f.kind] for f in schema.fields}
        kinds["now"] = "time"
        self._one = compiled([r.when for r in self.rules], lambda name: kinds.get(name, "float"))

    def without_features(self, schema: Schema) -> Rules:
        """Those that look at nothing but the event and now."""
        own = {"now", *(f.name for f in schema.fields)}
        return Rules([r for r in self.rules if own.issuperset(r.when.meta.root_names())], schema)

    def first(self, known: Mapping[str, Any]) -> ActionRule | None:
        """The rule that acts on an event, if any; `known` has its fields, `now` in microseconds, and features."""
        if not self.rules:
            return None
        row = {name: _known(known.get(name)) for name in self._named}
        if self._one is not None:
            return next((r for r, holds in zip(self.rules, self._one, strict=True) if holds(row)), None)
        columns = [pl.Series(name, [value], self._type(name)) for name, value in row.items()]
        held = evaluated(pl.DataFrame(columns or {"now": [0]}), self._out).row(0)
        return next((r for r, holds in zip(self.rules, held, strict=True) if holds), None)

    def _type(self, name: str) -> Any:
        return _TIME if name == "now" else self._types.get(name, pl.Float64)


def _known(value: Any) -> Any:
    """Unknown as null, which conditions take for false."""
    return None if isinstance(value, float) and math.isnan(value) else value
