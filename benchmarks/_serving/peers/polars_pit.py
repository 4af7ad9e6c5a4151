"""Counts and sums of the last hour and the last day at labels, written by hand in Polars: running totals a key, and
as-of joins at both ends of each window. Prints seconds and peak memory."""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl

FOLDER, OUT = Path(sys.argv[1]), sys.argv[2]
HOPS = {"1h": (3_600_000_000, 300_000_000), "24h": (86_400_000_000, 3_600_000_000)}

began = time.perf_counter()
events = (
    pl.read_parquet(FOLDER / "events.parquet", columns=["key", "time", "price"])
    .sort("key", "time", maintain_order=True)
    .with_columns(count=pl.int_range(1, pl.len() + 1).over("key"), sum=pl.col("price").cum_sum().over("key"))
    .drop("price")
    .sort("time", maintain_order=True)
)
labels = pl.read_parquet(FOLDER / "labels.parquet").with_row_index("row")
now = labels.sort("time").join_asof(events, on="time", by="key")
found = now.select("row", "key", "time", "count", "sum")
for name, (window, hop) in HOPS.items():
    before = found.select("row", "key", ((pl.col("time") - window) // hop * hop - 1).alias("time")).sort("time")
    before = before.join_asof(events, on="time", by="key").select(
        "row", pl.col("count").alias(f"count_{name}"), pl.col("sum").alias(f"sum_{name}")
    )
    found = found.join(before, on="row").with_columns(
        (pl.col("count").fill_null(0) - pl.col(f"count_{name}").fill_null(0)).alias(f"count_{name}"),
        (pl.col("sum").fill_null(0) - pl.col(f"sum_{name}").fill_null(0)).alias(f"sum_{name}"),
    )
found = found.sort("row").drop("count", "sum")
seconds = time.perf_counter() - began
np.savez(OUT, **{name: found[name].to_numpy() for name in found.columns if name not in ("row", "key", "time")})
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"seconds": seconds, "peak_gb": peak}))
