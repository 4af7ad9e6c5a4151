"""What every engine asks of a batch of events: for each aggregate, which rows count and their values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from penstock.aggregates.base import Aggregate, present
from penstock.features.columns import Query
from penstock.features.view import View
from penstock.types import Array, Rows, Strings


@dataclass(frozen=True)
class Inputs:
    """One aggregate's share of a batch: `counts` (n,) bool and `values` (n,) in the column's dtype."""

    counts: NDArray[np.bool_]
    values: Array


@dataclass(frozen=True)
class _Read:
    """What an aggregate reads: columns by name, of its filter and its values or of those of its parts."""

    where: str | None
    column: str | None
    parts: tuple[_Read, ...] = ()


class Plan:
    """The expressions of all views on one stream, evaluated together, each distinct one once a batch."""

    def __init__(self, views: Sequence[View]) -> None:
        filters: dict[str, pl.Expr] = {}
        numbers: dict[str, pl.Expr] = {}

        def read(aggregate: Aggregate) -> _Read:
            where, column = _name("?", aggregate.where, filters), _name("=", aggregate.column, numbers)
            return _Read(where, column, tuple(read(part) for part in aggregate.parts))

        self._reads = {
            (view.version, name): read(aggregate) for view in views for name, aggregate in view.features.items()
        }
        self._query = Query(views[0].schema, filters, numbers)

    def inputs(self, rows: Rows, strings: Strings) -> Mapping[tuple[bytes, str], Inputs]:
        """By (view version, feature name)."""
        derived = self._query.run(rows, strings)
        # Many aggregates read the same column under the same filter.
        every = np.ones(len(rows), bool)
        columns: dict[str, tuple[NDArray[np.bool_], Array]] = {}
        found: dict[_Read, Inputs] = {}

        def inputs(read: _Read) -> Inputs:
            if read not in found:
                found[read] = made(read)
            return found[read]

        def made(read: _Read) -> Inputs:
            counts = derived[read.where] if read.where is not None else every
            if read.parts:
                parts = [inputs(part) for part in read.parts]
                some = np.logical_or.reduce([part.counts for part in parts])
                return Inputs(counts & some, Aggregate.joined([(part.counts, part.values) for part in parts]))
            if read.column is None:
                return Inputs(counts, rows.time)
            if read.column not in columns:
                values = derived[read.column] if read.column in derived else rows.fields[read.column]
                there = present(values)
                columns[read.column] = (every if there.all() else there), values
            there, values = columns[read.column]
            return Inputs(there if counts is every else counts if there is every else counts & there, values)

        return {key: inputs(read) for key, read in self._reads.items()}


def _name(mark: str, part: str | pl.Expr | None, held: dict[str, pl.Expr]) -> str | None:
    """The column that will hold `part`: a field's own name, or one that no field can have."""
    if not isinstance(part, pl.Expr):
        return part
    name = mark + part.meta.serialize(format="json")
    held.setdefault(name, part)
    return name
