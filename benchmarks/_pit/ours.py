"""penstock's part: `python -m benchmarks._pit.ours FOLDER KIND OUT` prints seconds and peak memory as JSON.

From Parquet files of events and labels to one column a feature in memory. KIND is `windows`, the ten features over
windows, `counts`, the counts and sums among them, or `last`, the newest values of ten fields.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter

import numpy as np
import polars as pl

import penstock.aggregates as ps
from penstock.aggregates import Aggregate
from penstock.audit.drawn import Texts
from penstock.engines import BatchEngine
from penstock.features import View
from penstock.types import Field, Rows, Schema

COUNTS: Mapping[str, Aggregate] = {
    f"{name}_{window}": made
    for window in ("1h", "24h")
    for name, made in (("count", ps.count(window=window)), ("sum", ps.sum("price", window=window)))
}
WINDOWS: Mapping[str, Aggregate] = {
    **COUNTS,
    "highest_24h": ps.max("price", window="24h"),
    "mean_24h": ps.mean("price", window="24h"),
    "items_24h": ps.distinct("item", window="24h", precision=6),
    "top_24h": ps.top_k("category", k=3, capacity=12, window="24h"),
    "recent": ps.last("item", k=10),
    "since": ps.recency(),
}
LAST: Mapping[str, Aggregate] = {f"v{i}": ps.latest(f"v{i}") for i in range(10)}


def main(folder: Path, kind: str, out: Path) -> None:
    """Reads, computes, and leaves the numbers in `out` to be compared."""
    features = {"windows": WINDOWS, "counts": COUNTS, "last": LAST}[kind]
    texts = sorted({str(a.column) for a in features.values() if a.column not in (None, "price")})
    read = ["key", "time", *texts, *(["price"] if kind != "last" else [])]
    began = perf_counter()
    events = pl.read_parquet(folder / "events.parquet", columns=read)
    labels = pl.read_parquet(folder / "labels.parquet", columns=["key", "time"])
    schema = Schema(
        "action",
        (Field("key", "text", False), *(Field(name, "text", False) for name in texts), Field("price", "money", False)),
    )
    fields = np.zeros(len(events), schema.dtype)
    for name in {"key", "price", *texts} & set(read):
        fields[name] = events[name].to_numpy()
    time, number = events["time"].to_numpy(), np.arange(len(events))
    rows = Rows("action", number, time, time, time, number.astype(np.uint64), fields)
    view = View("Key", ("key",), features, schema)
    keys, now = labels["key"].to_numpy().astype(np.uint32).reshape(-1, 1), labels["time"].to_numpy()
    order = np.argsort(now)
    known = np.empty(len(now), np.int64)
    known[order] = np.searchsorted(time, now[order], side="right")
    made = perf_counter()
    values = BatchEngine({rows.stream: rows}, Texts(())).values(view, keys, now, known)
    ended = perf_counter()
    np.savez(out, **{name: values[name] for name in COUNTS if name in values}, **_lasts(values))  # type: ignore[arg-type]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": ended - made, "reading": made - began, "peak_gb": peak}))


def _lasts(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: values[name][:, 0] for name in LAST if name in values}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
