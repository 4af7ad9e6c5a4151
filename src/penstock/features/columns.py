"""Columns of events as Polars sees them: filters and derived columns, element-wise only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from penstock.errors import DefinitionError
from penstock.features.rowwise import FEW, TYPES, Function, Type, as_float, compiled
from penstock.types import MISSING_INT, Array, Kind, Rows, Schema, Strings

_POLARS: Mapping[Kind, Any] = {
    "text": pl.String, "int": pl.Int64, "money": pl.Int64, "float": pl.Float64, "bool": pl.Boolean,
}  # fmt: skip
_TIME = pl.Datetime("us", "UTC")
_FEW = 32  # texts that are spelled out faster one by one than by way of the different ones


def empty_frame(schema: Schema) -> pl.DataFrame:
    """No rows, with the columns that expressions over this stream may name: its fields and `time`."""
    return pl.DataFrame(schema={**{f.name: _POLARS[f.kind] for f in schema.fields}, "time": _TIME})


def is_element_wise(expression: pl.Expr) -> bool:
    """Whether each row's result depends on that row alone, so that any split of the input gives the same."""
    try:
        return not expression.meta.has_multiple_outputs() and _row_by_row(expression)
    except pl.exceptions.PolarsError:
        return False


def _row_by_row(expression: pl.Expr) -> bool:
    # Polars looks at the outermost operation alone: of col("price") > col("price").mean() it sees the comparison.
    meta = expression.meta
    whole = meta.is_row_separable() and (meta.is_length_preserving() or meta.is_scalar())
    return whole and all(_row_by_row(part) for part in meta.pop())


def check_element_wise(expression: pl.Expr, schema: Schema, where: str) -> pl.DataType:
    """Refuses anything but an element-wise expression over the stream's fields; gives its type."""
    if not is_element_wise(expression):
        raise DefinitionError(
            f"{where}: filters and derived columns look at one event at a time",
            got=str(expression),
            remedy="use element-wise expressions (col('price') > 100), and an aggregate for anything over events",
        )
    try:
        return empty_frame(schema).select(expression).dtypes[0]
    except pl.exceptions.PolarsError as error:
        names = ", ".join(f.name for f in schema.fields)
        raise DefinitionError(
            f"{where}: an expression fits the fields of {schema.stream}",
            got=f"{expression} ({str(error).splitlines()[0]})",
            remedy=f"use the fields {names}, and time",
        ) from None


def kind_of(column: str | pl.Expr, schema: Schema, where: str) -> Kind:
    """The kind of a plain or derived column."""
    if isinstance(column, str):
        field = schema.field(column)
        if field is None:
            raise DefinitionError(
                f"{where} reads a field of {schema.stream}",
                got=repr(column),
                remedy="name one of " + ", ".join(f.name for f in schema.fields),
            )
        return field.kind
    dtype = check_element_wise(column, schema, where)
    if dtype.is_float():
        return "float"
    if dtype.is_integer() or dtype == pl.Boolean:
        return "int"
    raise DefinitionError(
        f"{where}: a derived column is a number", got=str(dtype), remedy="name a text field itself, underived"
    )


@dataclass(frozen=True)
class Query:
    """Element-wise expressions over one stream's events, evaluated together in one pass.

    Args:
        schema: of the stream.
        filters: by name; come out as bool, unknown as false.
        numbers: by name; come out as int64 or float64 with the log's marks where missing or not finite.
    """

    schema: Schema
    filters: Mapping[str, pl.Expr]
    numbers: Mapping[str, pl.Expr]

    def run(self, rows: Rows, strings: Strings) -> dict[str, Array]:
        """The result of every expression, (n,), by name."""
        if not self._out or not len(rows):
            return {name: np.zeros(len(rows), bool) for name in self.filters} | {
                name: np.zeros(len(rows), np.int64) for name in self.numbers
            }
        n = len(rows)
        if n <= FEW and self._one_by_one is not None:
            return self._few(rows, strings, *self._one_by_one)
        frame = pl.DataFrame({name: self._column(rows, name, strings) for name in self._reads} or {"time": rows.time})
        frame = frame.with_columns_seq(self._clean) if self._clean else frame
        columns = {s.name: s.to_numpy() for s in evaluated(frame, self._out).get_columns()}
        # A constant comes out as a single row.
        return {name: values if len(values) == n else np.broadcast_to(values, n) for name, values in columns.items()}

    @cached_property
    def _reads(self) -> list[str]:
        return sorted({n for e in (*self.filters.values(), *self.numbers.values()) for n in e.meta.root_names()})

    @cached_property
    def _types(self) -> dict[str, Type]:
        return {"time": "time", **{f.name: TYPES[f.kind] for f in self.schema.fields}}

    @cached_property
    def _one_by_one(self) -> tuple[list[Function], list[tuple[Function, bool]]] | None:
        """For few rows: filters as functions, and numbers, of which each is a float or not."""
        found = compiled([*self.filters.values(), *self.numbers.values()], self._types.get)
        if found is None:
            return None
        numbers = found[len(self.filters) :]
        return found[: len(self.filters)], list(zip(numbers, self._floats, strict=True))

    @cached_property
    def _floats(self) -> list[bool]:
        """Whether each number comes out as one."""
        empty = empty_frame(self.schema)
        return [empty.select(part).dtypes[0].is_float() for part in self.numbers.values()]

    def _few(
        self, rows: Rows, strings: Strings, filters: list[Function], numbers: list[tuple[Function, bool]]
    ) -> dict[str, Array]:
        columns = [self._plain(rows, name, strings) for name in self._reads]
        each = [dict(zip(self._reads, row, strict=True)) for row in zip(*columns, strict=True)] or [{}] * len(rows)
        found: dict[str, Array] = {
            name: np.array([bool(function(row)) for row in each])
            for name, function in zip(self.filters, filters, strict=True)
        }
        for name, (function, is_float) in zip(self.numbers, numbers, strict=True):
            values = [function(row) for row in each]
            found[name] = (
                np.array([as_float(value) for value in values])
                if is_float
                else np.array([MISSING_INT if value is None else value for value in values], np.int64)
            )
        return found

    def _plain(self, rows: Rows, name: str, strings: Strings) -> list[Any]:
        """A column as Python values, None where missing."""
        values: list[Any] = (rows.time if name == "time" else rows.fields[name]).tolist()
        kind = self._types[name]
        if kind == "time":
            return values
        if kind == "text":
            return [strings.text(code) or None for code in values]
        if kind == "float":
            return [None if value != value else value for value in values]
        known = [None if value == MISSING_INT else value for value in values]
        return [None if value is None else bool(value) for value in known] if kind == "bool" else known

    @cached_property
    def _clean(self) -> list[pl.Expr]:
        """Columns of the log as expressions see them: nulls where missing, times as times."""
        out = [pl.col("time").cast(_TIME)] if "time" in self._reads else []
        for name in self._reads:
            field = self.schema.field(name)
            if field is not None and field.kind == "float":
                out.append(pl.col(name).fill_nan(None))
            elif field is not None and field.kind != "text":
                known = pl.when(pl.col(name) != MISSING_INT).then(pl.col(name))
                out.append(known.cast(_POLARS[field.kind]).alias(name))
        return out

    @cached_property
    def _out(self) -> list[pl.Expr]:
        out = [part.fill_null(False).alias(name) for name, part in self.filters.items()]
        for (name, part), is_float in zip(self.numbers.items(), self._floats, strict=True):
            if is_float:
                out.append(finite(part).alias(name))
            else:
                out.append(part.cast(pl.Int64).fill_null(MISSING_INT).alias(name))
        return out

    def _column(self, rows: Rows, name: str, strings: Strings) -> pl.Series:
        if name == "time":
            return pl.Series(name, rows.time)
        field = self.schema.field(name)
        values = np.ascontiguousarray(rows.fields[name])
        if field is None or field.kind != "text":
            return pl.Series(name, values)
        if len(values) <= _FEW:
            return pl.Series(name, [strings.text(code) or None for code in values.tolist()], pl.String)
        unique, inverse = np.unique(values, return_inverse=True)
        return pl.Series(name, [strings.text(code) or None for code in unique.tolist()], pl.String).gather(inverse)


def evaluated(frame: pl.DataFrame, out: Sequence[pl.Expr]) -> pl.DataFrame:
    """What the expressions give, as for many rows."""
    # In sequence: for small batches the thread pool costs more than it saves.
    if len(frame) != 1:
        return frame.select_seq(out)
    # Polars takes a single row for a number, and computes with numbers otherwise than with columns: the last bit may
    # differ. A second row, of nulls, makes it a column.
    return pl.concat([frame, frame.clear(1)]).select_seq(out).head(1)


def finite(part: pl.Expr) -> pl.Expr:
    """A float64 column with NaN for everything that is missing or not finite."""
    value = part.cast(pl.Float64)
    return pl.when(value.is_finite()).then(value).otherwise(float("nan"))


def matches(where: pl.Expr, rows: Rows, schema: Schema, strings: Strings) -> NDArray[np.bool_]:
    """Which rows a filter keeps, (n,) bool."""
    return Query(schema, {"where": where}, {}).run(rows, strings)["where"]
