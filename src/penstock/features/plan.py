"""What every engine asks of a batch of events: for each aggregate, which rows count and their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from penstock.aggregates.base import present
from penstock.features.columns import Query
from penstock.features.view import View
from penstock.types import Array, Rows, Strings


@dataclass(frozen=True)
class Inputs:
    """One aggregate's share of a batch: `counts` (n,) bool and `values` (n,) in the column's dtype."""

    counts: NDArray[np.bool_]
    values: Array


class Plan:
    """The expressions of all views on one stream, evaluated together, each distinct one once a batch."""

    def __init__(self, views: Sequence[View]) -> None:
        filters: dict[str, pl.Expr] = {}
        numbers: dict[str, pl.Expr] = {}
        self._parts = {
            (view.version, name): (_name("?", aggregate.where, filters), _name("=", aggregate.column, numbers))
            for view in views
            for name, aggregate in view.features.items()
        }
        self._query = Query(views[0].schema, filters, numbers)

    def inputs(self, rows: Rows, strings: Strings) -> Mapping[tuple[bytes, str], Inputs]:
        """By (view version, feature name)."""
        derived = self._query.run(rows, strings)
        # Many aggregates read the same column under the same filter.
        found: dict[tuple[str | None, str | None], Inputs] = {}
        for where, column in self._parts.values():
            if (where, column) in found:
                continue
            counts = derived[where] if where is not None else np.ones(len(rows), bool)
            if column is None:
                found[where, column] = Inputs(counts, rows.time)
            else:
                values = derived[column] if column in derived else rows.fields[column]
                found[where, column] = Inputs(counts & present(values), values)
        return {key: found[part] for key, part in self._parts.items()}


def _name(mark: str, part: str | pl.Expr | None, held: dict[str, pl.Expr]) -> str | None:
    """The column that will hold `part`: a field's own name, or one that no field can have."""
    if not isinstance(part, pl.Expr):
        return part
    name = mark + part.meta.serialize(format="json")
    held.setdefault(name, part)
    return name
