"""A view's version says all that it means and nothing more, and what cannot be counted is refused at definition."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import polars as pl
import pytest
from polars import col

import penstock.aggregates as ps
from penstock.aggregates import Aggregate
from penstock.errors import DefinitionError
from penstock.features import View, define, request
from penstock.types import Field, Schema

FIELDS = (
    Field("user", "text", False),
    Field("item", "text", True),
    Field("kind", "text", False),
    Field("price", "money", True),
    Field("weight", "float", True),
    Field("gift", "bool", True),
)
SCHEMA = Schema("action", FIELDS)
FEATURES: dict[str, Aggregate] = {
    "n": ps.count(window="1h"),
    "spend": ps.sum("price", where=col("kind") == "buy"),
    "recent": ps.last("item", k=5),
}


def view(features: dict[str, Aggregate] = FEATURES, by: tuple[str, ...] = ("user",), schema: Schema = SCHEMA) -> View:
    return View("Shopper", by, features, schema)


CHANGES: dict[str, Callable[[], View]] = {
    "another window": lambda: view({**FEATURES, "n": ps.count(window="2h")}),
    "no window": lambda: view({**FEATURES, "n": ps.count()}),
    "another filter": lambda: view({**FEATURES, "spend": ps.sum("price", where=col("kind") == "bought")}),
    "no filter": lambda: view({**FEATURES, "spend": ps.sum("price")}),
    "another column": lambda: view({**FEATURES, "spend": ps.sum(col("price") * 2, where=col("kind") == "buy")}),
    "another k": lambda: view({**FEATURES, "recent": ps.last("item", k=6)}),
    "another class": lambda: view({**FEATURES, "spend": ps.mean("price", where=col("kind") == "buy")}),
    "a default": lambda: view({**FEATURES, "spend": ps.max("price", default=0.0, where=col("kind") == "buy")}),
    "another name": lambda: view({"m" if name == "n" else name: a for name, a in FEATURES.items()}),
    "another order": lambda: view(dict(reversed(FEATURES.items()))),
    "one feature more": lambda: view({**FEATURES, "m": ps.count()}),
    "another key": lambda: view(by=("item",)),
    "one key field more": lambda: view(by=("user", "item")),
    "keys the other way": lambda: view(by=("item", "user")),
    "another stream": lambda: view(schema=Schema("order", FIELDS)),
    "a read field of another kind": lambda: view(
        schema=Schema("action", tuple(Field("price", "int", True) if f.name == "price" else f for f in FIELDS))
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_a_value_changes_the_version(change: str) -> None:
    """Records of another meaning never pass for these."""
    assert CHANGES[change]().version != view().version


def test_all_versions_differ() -> None:
    assert len({make().version for make in CHANGES.values()}) == len(CHANGES)


@pytest.mark.parametrize(
    "fields",
    [
        (*FIELDS, Field("added", "text", True)),
        tuple(f for f in FIELDS if f.name not in ("weight", "gift")),
        tuple(Field("weight", "int", True) if f.name == "weight" else f for f in FIELDS),
        tuple(reversed(FIELDS)),
    ],
    ids=["added", "removed", "of another kind", "in another order"],
)
def test_fields_that_a_view_does_not_read_do_not_count(fields: tuple[Field, ...]) -> None:
    """A stream that gains a field does not make its views start again."""
    assert view(schema=Schema("action", fields)).version == view().version


def test_equal_definitions_have_equal_versions_of_eight_bytes() -> None:
    """Versions do not depend on which objects say the same, nor on how they travelled."""
    same = view({
        "n": ps.count(window="1h"),
        "spend": ps.sum("price", where=pl.col("kind") == "buy"),
        "recent": ps.last("item", k=5),
    })  # fmt: skip
    again = View.from_spec(json.loads(json.dumps(view().spec())))
    assert same.version == view().version == again.version
    assert again.spec() == view().spec()
    assert len(same.version) == 8
    assert [group.dtype for group in again.groups] == [group.dtype for group in view().groups]


ACROSS = {
    "mean": col("price") > col("price").mean(),
    "cum_sum": col("price").cum_sum() > 10,
    "shift": col("price").shift() > 10,
    "sort": col("gift").sort(),
    "len": pl.len() > 3,
    "over": col("price").max().over("user") > 3,
    "unique": col("user").is_duplicated(),
    "rank": col("price").rank() > 2,
    "head": col("gift").head(2),
    "map_elements": col("price").map_elements(lambda x: bool(str(x)), return_dtype=pl.Boolean),
    "all fields": pl.all(),
    "deep inside": pl.when(~(col("price") > 1)).then(pl.len() - 1).otherwise(2) > 1,
    "a filter": col("gift").filter(col("gift")),
    "a column of its own": col("price") > pl.lit(pl.Series([1, 2])),
}


@pytest.mark.parametrize("name", ACROSS)
@pytest.mark.parametrize("where", ["filter", "column", "request"])
def test_an_expression_that_looks_past_its_row_is_refused(name: str, where: str) -> None:
    """What depends on other rows depends on how the stream is cut; a Python function, on who runs it."""
    make: dict[str, Callable[[], Any]] = {
        "filter": lambda: view({"n": ps.count(where=ACROSS[name])}),
        "column": lambda: view({"n": ps.max(ACROSS[name])}),
        "request": lambda: request(ACROSS[name]),
    }
    with pytest.raises(DefinitionError, match=r"look.* at one (event|candidate) at a time; got .+; use .*element-wise"):
        make[where]()


ELEMENT_WISE = [
    col("kind") == "buy",
    col("price") * 2 + 1 > 10,
    col("kind").is_in(["buy", "view"]) & ~col("gift"),
    col("time").dt.hour() < 6,
    col("user").str.starts_with("a"),
    pl.when(col("price") > 3).then(col("weight")).otherwise(0.5) > 0.1,
    col("price").is_null(),
]


@pytest.mark.parametrize("expression", ELEMENT_WISE, ids=str)
def test_element_wise_expressions_are_taken(expression: pl.Expr) -> None:
    """The rule above does not refuse what is harmless."""
    assert view({"n": ps.count(where=expression)}).groups


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "an unknown column": (
        lambda: view({"n": ps.sum("prize")}),
        r"Shopper\.n reads a field of action; got 'prize'; name one of user, item, kind, price",
    ),
    "an unknown field in a filter": (
        lambda: view({"n": ps.count(where=col("knd") == "buy")}),
        r"Shopper\.n: an expression fits the fields of action; got .*knd.*; use the fields user, .*, and time",
    ),
    "types that do not compare": (
        lambda: view({"n": ps.count(where=col("price") > "x")}),
        r"an expression fits the fields of action; got .*; use the fields",
    ),
    "a sum of text": (
        lambda: view({"n": ps.sum("item")}), r"Sum reads columns of kind int, money, float, bool; got 'item' of kind",
    ),
    "a list of numbers": (
        lambda: view({"n": ps.last("price")}), r"Last reads columns of kind text; got 'price' of kind money",
    ),
    "distinct floats": (lambda: view({"n": ps.distinct("weight")}), r"Distinct reads columns of kind text, int"),
    "a derived text": (
        lambda: view({"n": ps.last(col("item").str.to_lowercase())}),
        r"Shopper\.n: a derived column is a number; got String; name a text field itself",
    ),
    "a sum of floats without unit": (
        lambda: view({"n": ps.sum("weight")}),
        r"a sum of floats depends on their order.*; got 'weight' of kind float and unit=None; declare one",
    ),
    "a mean of floats without unit": (lambda: view({"n": ps.mean("weight")}), r"a sum of floats depends"),
    "a unit of nothing": (lambda: view({"n": ps.sum("weight", unit=0.0)}), r"a sum of floats .*unit=0\.0"),
    "an empty window": (
        lambda: ps.count(window="0h"), r"a duration is a positive number and a unit; got '0h'; write it like",
    ),
    "a window without unit": (lambda: ps.count(window="15"), r"a duration is a positive number and a unit; got '15'"),
    "a window of unknown unit": (lambda: ps.count(window="1 year"), r"got '1 year'; write it like \"50ms\""),
    "a count of a column": (lambda: ps.count("price"), r"Count reads no column; got column='price'; leave"),
    "a sum of nothing": (
        lambda: view({"n": ps.sum()}), r"Shopper\.n: Sum reads one column of kind .*; got column=None; name the field",
    ),
    "an aggregate of ordered events": (
        lambda: view({"n": ps.max_run("price")}),
        r"Shopper\.n: a view gives the same in whatever order .*; got MaxRun, .* order of time; keep it by itself",
    ),
    "a default beside a value": (
        lambda: ps.count(default=1.0), r"Count has a value for an empty window already .*; got default=1\.0; leave",
    ),
    "k of nothing": (lambda: ps.last("item", k=0), r"k is between 1 and 1,000; got 0; 50 is usual"),
    "more than fit": (lambda: ps.top_k("item", k=9, capacity=8), r"1 ≤ k ≤ capacity .*; got k=9, capacity=8; raise"),
    "too precise": (lambda: ps.distinct("item", precision=15), r"precision is between 4 and 14; got 15; 8 is usual"),
    "bins without end": (lambda: ps.auc("weight", bins=4_097), r"bins are between 1 and 4,096; got 4097; leave it out"),
    "no bins": (lambda: ps.calibration_error("weight", bins=0), r"bins are between 1 and 256; got 0"),
    "more than counted": (
        lambda: ps.frequent("item", k=9, capacity=8), r"1 ≤ k ≤ capacity .*; got k=9, capacity=8; raise",
    ),
    "a sample of none": (lambda: ps.sample("item", k=0), r"k is between 1 and 10,000; got 0; 100 is usual"),
    "a sample of too many": (lambda: ps.sample("item", k=10_001), r"k is between 1 and 10,000; got 10001"),
    "a negative seed": (lambda: ps.sample("item", seed=-1), r"seed is between 0 and 2\*\*32 - 1; got -1; leave it out"),
    "a seed too large": (lambda: ps.sample("item", seed=2**32), r"seed is between 0 .*; got 4294967296"),
    "latest of two": (lambda: ps.latest("item", k=2), r"latest keeps one value; got k=2; use ps\.last"),
    "a key of money": (
        lambda: view(by=("price",)), r"Shopper is keyed by text fields of action; got 'price' of kind money",
    ),
    "an unknown key": (lambda: view(by=("usr",)), r"keyed by text fields of action; got 'usr'; name one of user, item"),
    "no aggregate": (lambda: view({}), r"view Shopper holds at least one aggregate; got none; add"),
    "something else in the body": (
        lambda: define(type("Shopper", (), {"n": 3}), schema=SCHEMA, by="user"),
        r"a view's body holds aggregates only; Shopper\.n; got int; write",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_counted_is_refused_with_rule_offence_and_remedy(case: str) -> None:
    """Nothing waits for the first event to fail."""
    make, said = REFUSED[case]
    with pytest.raises(DefinitionError, match=said) as caught:
        make()
    assert caught.value.rule
    assert caught.value.got
    assert caught.value.remedy
