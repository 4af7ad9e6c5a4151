"""The proof on streams as large as a shop's: what is too much for the naive engine is held to the batch engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

import penstock as ps
from penstock.audit import drawn, proof
from penstock.audit.disorder import Proof
from penstock.clock import DAY
from penstock.engines import BatchEngine, NaiveEngine
from penstock.features import View
from penstock.types import Array, Rows, Schema, Strings

NAIVE, BATCH = 60, 20_000
"""How many entities of each view are asked for, of the naive engine and of the batch engine."""
HOTTEST = 30
"""The naive engine, which keeps each event as Python's own objects, gets no key before this place by its events."""
MOST = 50_000
"""Events in a batch of the stream engine, at most."""


def views(schema: Schema, user: str, item: str, price: str, bought: pl.Expr) -> list[View]:
    """Two views with the aggregates that shops ask for most."""
    by_user = {
        "events_1h": ps.count(window="1h"),
        "spent": ps.sum(price, where=bought),
        "spent_24h": ps.sum(price, window="24h", where=bought),
        "items_24h": ps.distinct(item, window="24h", precision=6),
        "tastes": ps.top_k(item, k=3, capacity=16, window="7d"),
        "recent": ps.last(item, k=5),
        "since": ps.recency(),
    }
    by_item = {
        "sold_7d": ps.count(window="7d", where=bought),
        "price": ps.mean(price, window="24h"),
        "lowest": ps.min(price, window="30d"),
        "highest": ps.max(price),
    }
    return [View("Users", (user,), by_user, schema), View("Items", (item,), by_item, schema)]


def generated(events: int) -> tuple[Rows, Strings, list[View]]:
    """As in the proof on random apps, with 100,000 users and 10,000 items."""
    rows, texts = drawn.stream(np.random.default_rng(10), events, users=100_000, items=10_000)
    return rows, texts, views(drawn.SCHEMA, "user", "item", "price", pl.col("kind") == "buy")


def retail(file: Path) -> tuple[Rows, Strings, list[View]]:
    """The invoices of Online Retail (UCI); a tenth of their lines arrive up to a day late."""
    columns = ["CustomerID", "StockCode", "Quantity", "UnitPrice", "InvoiceDate"]
    frame = pl.read_csv(file, infer_schema_length=0).select(columns).drop_nulls()
    time = frame["InvoiceDate"].str.to_datetime(strict=False).cast(pl.Datetime("us")).to_numpy().astype(np.int64)
    n, random = len(frame), np.random.default_rng(11)
    users, items = (frame[name].unique(maintain_order=True).to_list() for name in ("CustomerID", "StockCode"))
    texts = drawn.Texts([*drawn.KINDS, *users, *items])
    fields = np.zeros(n, drawn.SCHEMA.dtype)
    for name, column in (("user", "CustomerID"), ("item", "StockCode")):
        fields[name] = [texts.code(text) for text in frame[column].to_list()]
    sold = frame["Quantity"].cast(pl.Int64).to_numpy()
    fields["kind"] = np.where(sold > 0, texts.code("buy"), texts.code("view"))
    fields["price"] = np.rint(frame["UnitPrice"].cast(pl.Float64).to_numpy() * 100).astype(np.int64) * np.abs(sold)
    arrived = time + random.integers(0, DAY, n) * (random.random(n) < 0.1)
    order = np.argsort(arrived, kind="stable")
    tie = random.integers(1, 2**63, n).astype(np.uint64)
    rows = Rows("action", np.arange(n), time[order], time[order], arrived[order], tie[order], fields[order])
    return rows, texts, views(drawn.SCHEMA, "user", "item", "price", pl.col("kind") == "buy")


def prove(
    rows: Rows, texts: Strings, views: Sequence[View], *, stores: Mapping[str, Any], engines: Mapping[str, Any]
) -> Proof:
    """Every engine and store on the whole stream."""
    random = np.random.default_rng(12)
    ranked = {view.version: _ranked(rows, view) for view in views}
    few = {version: keys[_places(len(keys))] for version, keys in ranked.items()}
    many = {version: random.permutation(keys)[:BATCH] for version, keys in ranked.items()}
    batch = BatchEngine({rows.stream: rows}, texts)

    def table(view: View, keys: NDArray[np.uint32], now: int, stop: int) -> Mapping[str, Array]:
        known = None if stop == len(rows) else np.full(len(keys), stop)
        return batch.values(view, keys, np.full(len(keys), now), known)

    naive = NaiveEngine({rows.stream: rows.take(_of(rows, views, few))}, views, texts)
    oracles = [
        proof.Oracle(lambda view: few[view.version], naive.table),
        proof.Oracle(lambda view: many[view.version], table, engine="batch"),
    ]
    found = Proof(streams=1)
    proof.prove_on(found, views, rows, texts, oracles, random, stores=stores, engines=engines, most=MOST)
    return found


def _ranked(rows: Rows, view: View) -> NDArray[np.uint32]:
    """Every key (n, 1), the one with most events first."""
    codes, counts = np.unique(rows.fields[view.by[0]], return_counts=True)
    codes = codes[np.argsort(-counts, kind="stable")]
    found: NDArray[np.uint32] = codes[codes != 0].reshape(-1, 1)
    return found


def _places(n: int) -> NDArray[np.int64]:
    """Hot keys and cold ones, ever further apart."""
    return np.unique(np.geomspace(min(HOTTEST, n), n, NAIVE).astype(np.int64) - 1)


def _of(rows: Rows, views: Sequence[View], keys: Mapping[bytes, NDArray[np.uint32]]) -> NDArray[np.int64]:
    """Where the events of any of the keys are."""
    mine = np.zeros(len(rows), bool)
    for view in views:
        mine |= np.isin(rows.fields[view.by[0]], keys[view.version])
    return np.flatnonzero(mine)
