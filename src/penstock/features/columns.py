"""Columns of events as Polars sees them: filters and derived columns, element-wise only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from penstock.aggregates.base import present
from penstock.errors import DefinitionError
from penstock.types import MISSING_INT, Array, Kind, Rows, Schema, Strings

_POLARS: Mapping[Kind, Any] = {
    "text": pl.String, "int": pl.Int64, "money": pl.Int64, "float": pl.Float64, "bool": pl.Boolean,
}  # fmt: skip
_TIME = pl.Datetime("us", "UTC")


def empty_frame(schema: Schema) -> pl.DataFrame:
    """No rows, with the columns that expressions over this stream may name: its fields and `time`."""
    return pl.DataFrame(schema={**{f.name: _POLARS[f.kind] for f in schema.fields}, "time": _TIME})


def is_element_wise(expression: pl.Expr) -> bool:
    """Whether each row's result depends on that row alone, so that any split of the input gives the same."""
    try:
        return expression.meta.is_row_separable() and not expression.meta.has_multiple_outputs()
    except pl.exceptions.PolarsError:
        return False


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


def frame(rows: Rows, schema: Schema, names: Iterable[str], strings: Strings) -> pl.DataFrame:
    """The named columns of `rows` with nulls where missing and strings spelled out."""
    columns: dict[str, pl.Series] = {}
    for name in names:
        if name == "time":
            columns[name] = pl.Series(name, rows.time).cast(_TIME)
            continue
        field = schema.field(name)
        if field is None:
            continue
        values = np.ascontiguousarray(rows.fields[name])
        if field.kind == "text":
            unique, inverse = np.unique(values, return_inverse=True)
            texts = pl.Series(name, [None if code == 0 else strings.text(int(code)) for code in unique], pl.String)
            columns[name] = texts.gather(inverse)
            continue
        series = pl.Series(name, values)
        missing = ~present(values)
        if missing.any():
            series = series.set(pl.Series(missing), None)
        columns[name] = series.cast(_POLARS[field.kind])
    return pl.DataFrame(columns)


def numbers(series: pl.Series) -> Array:
    """A derived column as the log would keep it: float64 or int64 with the missing marks."""
    if series.dtype.is_float():
        values = series.cast(pl.Float64).fill_null(float("nan")).to_numpy()
        return np.where(np.isfinite(values), values, np.nan)
    return series.cast(pl.Int64).fill_null(MISSING_INT).to_numpy()


def mask(series: pl.Series) -> NDArray[np.bool_]:
    """A filter's outcome; unknown counts as false."""
    return series.fill_null(False).to_numpy()
