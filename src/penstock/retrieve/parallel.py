"""List features that a source reads place by place: whether their places are sure to be the same events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import polars as pl

from penstock.aggregates import Aggregate
from penstock.clock import duration
from penstock.errors import DefinitionError
from penstock.features.view import View
from penstock.registry import name_of
from penstock.retrieve.base import Listed


def check_parallel(lists: Mapping[str, Listed], names: tuple[str, ...]) -> None:
    """Refuses list features whose n-th values need not be of the same event.

    They have the same key, window, filter, order and length, and none passes over an event that another one counts: all
    read one column, or fields that every event has. A field that is optional counts as had where the filter asks for
    it: ``where=col("item").is_not_null()``.

    Raises:
        DefinitionError: two of them may differ.
    """
    known = [(name, lists[name]) for name in names if name in lists]
    for name, listed in known[1:]:
        (first, other) = known[0]
        why = _difference(other, listed)
        if why:
            raise DefinitionError(
                f"{first} and {name} are read place by place, so that each place is one event",
                got=why, remedy="give both the same k, window and where, and list fields that every event has: "
                'where=pl.col("field").is_not_null() makes sure of it',
            )  # fmt: skip


def _difference(one: Listed, other: Listed) -> str:
    """Why two list features need not hold the same events; empty where they do."""
    (view, name), (view_2, name_2) = one, other
    a, b = view.features[name], view_2.features[name_2]
    if (view.stream, view.by) != (view_2.stream, view_2.by):
        return f"views by {', '.join(view.by)} and by {', '.join(view_2.by)}"
    if a.choice is None or a.choice != b.choice:
        return f"{_told(a)} and {_told(b)}"
    if _span(a) != _span(b):
        return f"window={a.window!r} and window={b.window!r}"
    if not _same(a.where, b.where):
        return f"where={_text(a.where)} and where={_text(b.where)}"
    if _same(_column(a), _column(b)):
        return ""
    missing = [part for part, of in ((a, view), (b, view_2)) if not _always(part, of)]
    return f"{_text(missing[0].column)}, which an event may lack" if missing else ""


def _always(aggregate: Aggregate, view: View) -> bool:
    """Whether every event that passes the filter has the column."""
    column = _column(aggregate)
    field = view.schema.field(aggregate.column) if isinstance(aggregate.column, str) else None
    if column is None or (field is not None and not field.optional):
        return True
    return any(_same(part, column.is_not_null()) for part in _conditions(aggregate.where))


def _conditions(where: pl.Expr | None) -> Iterator[pl.Expr]:
    """The parts of a filter that all have to hold."""
    if where is not None:
        inputs = where.meta.pop()
        if len(inputs) == 2 and _same(where, inputs[1] & inputs[0]):
            yield from _conditions(inputs[0])
            yield from _conditions(inputs[1])
        else:
            yield where


def _column(aggregate: Aggregate) -> pl.Expr | None:
    return pl.col(aggregate.column) if isinstance(aggregate.column, str) else aggregate.column


def _span(aggregate: Aggregate) -> int | None:
    return None if aggregate.window is None else duration(aggregate.window)


def _same(one: pl.Expr | None, other: pl.Expr | None) -> bool:
    return one is other or (one is not None and other is not None and one.meta.eq(other))


def _text(expression: pl.Expr | str | None) -> str:
    return repr(expression) if expression is None or isinstance(expression, str) else str(expression)


def _told(aggregate: Aggregate) -> str:
    k = getattr(aggregate, "k", None)
    return name_of(aggregate) + (f"(k={k})" if k else "")
