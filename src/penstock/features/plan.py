"""What every engine asks of a batch of events: for each aggregate, which rows count and their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from penstock.aggregates.base import present
from penstock.features.columns import frame, mask, numbers
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
        self._views = tuple(views)
        self._schema = views[0].schema
        self._expressions: dict[str, pl.Expr] = {}
        for view in views:
            for aggregate in view.features.values():
                for part in (aggregate.where, aggregate.column):
                    if isinstance(part, pl.Expr):
                        self._expressions.setdefault(part.meta.serialize(format="json"), part)
        self._alias = {text: f"={i}" for i, text in enumerate(self._expressions)}
        self._query = [part.alias(self._alias[text]) for text, part in self._expressions.items()]
        self._reads = sorted({name for part in self._expressions.values() for name in part.meta.root_names()})
        self._parts = {
            (view.version, name): (self._name(aggregate.where), self._name(aggregate.column))
            for view in views
            for name, aggregate in view.features.items()
        }

    def _name(self, part: str | pl.Expr | None) -> str | pl.Expr | None:
        return self._alias[part.meta.serialize(format="json")] if isinstance(part, pl.Expr) else part

    def inputs(self, rows: Rows, strings: Strings) -> Mapping[tuple[bytes, str], Inputs]:
        """By (view version, feature name)."""
        derived: Mapping[str, pl.Series] = {}
        if self._query:
            columns = frame(rows, self._schema, self._reads, strings).select(self._query).get_columns()
            # A literal filter comes out as a single row.
            derived = {s.name: s if len(s) == len(rows) else s.new_from_index(0, len(rows)) for s in columns}
        masks: dict[str, NDArray[np.bool_]] = {}
        everything = np.ones(len(rows), bool)
        out: dict[tuple[bytes, str], Inputs] = {}
        for key, (where, column) in self._parts.items():
            counts = everything
            if isinstance(where, str):
                if where not in masks:
                    masks[where] = mask(derived[where])
                counts = masks[where]
            if column is None:
                values: Array = rows.time
            else:
                assert isinstance(column, str)
                values = numbers(derived[column]) if column in derived else rows.fields[column]
                counts = counts & present(values)
            out[key] = Inputs(counts, values)
        return out
