"""Expressions over single rows: the same bits as Polars, or left to it."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, reject, settings
from hypothesis import strategies as st
from polars import col, lit

from penstock.events.log import SqliteLog
from penstock.features.columns import Query
from penstock.features.rowwise import Type, compiled
from penstock.types import Accepted, Field, Schema

SCHEMA: dict[str, Any] = {
    "x": pl.Float64, "y": pl.Float64, "n": pl.Int64, "m": pl.Int64, "b": pl.Boolean, "c": pl.Boolean, "t": pl.String,
    "now": pl.Datetime("us", "UTC"),
}  # fmt: skip
TYPES: dict[str, Type] = {
    "x": "float", "y": "float", "n": "int", "m": "int", "b": "bool", "c": "bool", "t": "text", "now": "time",
}  # fmt: skip

_WHOLE = [None, 0, 1, -1, 3, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 500_000]
_REAL = [None, 0.0, -0.0, 1.0, -2.5, 0.1, 3.0, math.inf, -math.inf, math.nan, 2.0**53, 1e308, 5e-324]
VALUES: dict[str, list[Any]] = {
    "x": _REAL, "y": _REAL, "n": _WHOLE, "m": _WHOLE, "b": [None, True, False], "c": [None, True, False],
    "t": [None, "", "a", "ä"], "now": [None, 0, -1, 1_750_000_000_000_000, 1_753_833_599_999_999, 2**50],
}  # fmt: skip


def numbers(depth: int) -> st.SearchStrategy[pl.Expr]:
    plain = st.sampled_from([col("x"), col("y"), col("n"), col("m"), lit(1), lit(2.5), lit(-7), lit(1.0)])
    if not depth:
        return plain
    inner = numbers(depth - 1)
    return plain | st.one_of(
        st.builds(lambda a, b, o: [a + b, a - b, a * b, a / b][o], inner, inner, st.integers(0, 3)),
        st.builds(lambda c, a, b: pl.when(c).then(a).otherwise(b), conditions(depth - 1), inner, inner),
        st.builds(lambda c: c.cast(pl.Int64), conditions(depth - 1)), st.builds(lambda a: a.cast(pl.Float64), inner),
        st.builds(lambda a: a.cast(pl.Float64).fill_null(col("y")), inner),
        st.builds(lambda a: (a / 1).sqrt(), inner), st.builds(lambda a: (a / 1).abs(), inner),
    )  # fmt: skip


def conditions(depth: int) -> st.SearchStrategy[pl.Expr]:
    plain = st.sampled_from([
        col("b"), col("c"), col("t") == "a", col("t") != "ä", col("now").dt.hour() <= 6,
        col("now").dt.weekday() > 5, col("now").dt.minute() == 59, col("x").is_null(), col("n").is_not_null(),
    ])  # fmt: skip
    if not depth:
        return plain
    a, b, c, d = numbers(depth - 1), numbers(depth - 1), conditions(depth - 1), conditions(depth - 1)
    compared = st.builds(lambda a, b, o: [a < b, a <= b, a > b, a >= b, a == b, a != b][o], a, b, st.integers(0, 5))
    return (
        plain | compared | st.builds(lambda c, d, o: [c & d, c | d, ~c, c.fill_null(False)][o], c, d, st.integers(0, 3))
    )


def bits(value: Any) -> Any:
    """What tells all values apart but the many NaNs."""
    return struct.pack("d", value) if isinstance(value, float) and not math.isnan(value) else repr(value)


@settings(max_examples=500, deadline=None)
@given(numbers(3) | conditions(3), st.randoms(use_true_random=False))
def test_a_row_gives_the_bits_that_polars_gives(expression: pl.Expr, random: Random) -> None:
    functions = compiled([expression], TYPES.get)
    # Of what has no column all may come to nothing, and zeros are left to Polars.
    assume(functions is not None)
    assert functions is not None
    rows = [{name: random.choice(values) for name, values in VALUES.items()} for _ in range(40)]
    try:
        expected = pl.DataFrame(rows, schema=SCHEMA).with_columns(out=expression)["out"].to_list()
    except pl.exceptions.InvalidOperationError:
        reject()  # what Polars finds to be one value for all rows, it may refuse beside columns
    assert [bits(functions[0](row)) for row in rows] == [bits(value) for value in expected], str(expression)


@pytest.mark.parametrize(
    "expression",
    [
        col("x") / col("y"), (col("x") - 1) / col("y").sqrt(),
        col("n") + 1 > 5_000_00, (col("b") & ~col("c")) | (col("t") == "a"), col("now").dt.hour() <= 6,
        pl.when(col("x") > 0).then(col("y")).otherwise(0.0), col("x").abs() >= col("n"),
    ],
)  # fmt: skip
def test_what_features_and_rules_are_made_of_needs_no_polars(expression: pl.Expr) -> None:
    assert compiled([expression], TYPES.get) is not None


@pytest.mark.parametrize(
    "expression",
    [
        col("now").dt.hour() * 20, col("x").log(), col("x") ** 2, col("z"), col("x").round(2), col("x") // 2,
        col("n").cast(pl.Int8), col("x").fill_nan(0.0), col("t").str.len_bytes(), col("b") + 1, col("x") % 2,
        col("x") + 0,
    ],
)  # fmt: skip
def test_what_would_need_polars_own_rules_is_left_to_it(expression: pl.Expr) -> None:
    assert compiled([expression], TYPES.get) is None


@pytest.mark.parametrize("size", [1, 3])
def test_a_derived_column_is_the_same_for_one_event_and_for_many(tmp_path: Path, size: int) -> None:
    # Rounding is Polars' own, so that the second goes through it; both divide by a number.
    schema = Schema("buy", (Field("price", "float", True),))
    query = Query(schema, {}, {"tenth": col("price") / 10, "rounded": (col("price") / 10).round(20)})
    prices = np.random.default_rng(3).uniform(1, 100, 300).tolist()
    log = SqliteLog(tmp_path / "log.sqlite", [schema])
    log.append([Accepted("buy", str(i), i, (price,)) for i, price in enumerate(prices)], list(range(300)))

    def run(first: int, end: int) -> dict[str, Any]:
        return query.run(log.read(first, end)["buy"], log.strings)

    pieces = [run(at, at + size) for at in range(0, 300, size)]
    for name, column in run(0, 300).items():
        assert np.concatenate([piece[name] for piece in pieces]).tobytes() == column.tobytes()
    log.close()
