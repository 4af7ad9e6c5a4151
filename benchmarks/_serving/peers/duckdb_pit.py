"""Counts and sums of the last hour and the last day at labels, written by hand for DuckDB: running totals a key, and
as-of joins at both ends of each window. Prints seconds and peak memory."""

import json
import resource
import sys
import time
from pathlib import Path

import duckdb
import numpy as np

FOLDER, OUT = Path(sys.argv[1]), sys.argv[2]
HOPS = {"1h": (3_600_000_000, 300_000_000), "24h": (86_400_000_000, 3_600_000_000)}
ENDS = ", ".join(f"(time - {window}) // {hop} * {hop} - 1 AS from_{name}" for name, (window, hop) in HOPS.items())
JOINS = " ".join(
    f"ASOF LEFT JOIN totals AS t{name} ON l.key = t{name}.key AND l.from_{name} >= t{name}.time" for name in HOPS
)
PARTS = ", ".join(
    f"(coalesce(t.n, 0) - coalesce(t{name}.n, 0))::BIGINT AS count_{name}, "
    f"(coalesce(t.total, 0) - coalesce(t{name}.total, 0))::BIGINT AS sum_{name}"
    for name in HOPS
)

began = time.perf_counter()
base = duckdb.connect()
base.execute(f"""
    CREATE TEMP TABLE totals AS
    SELECT key, time, count(*) OVER w AS n, sum(price) OVER w AS total
    FROM '{FOLDER}/events.parquet'
    WINDOW w AS (PARTITION BY key ORDER BY time ROWS UNBOUNDED PRECEDING)
""")
found = base.execute(f"""
    WITH l AS (SELECT row_number() OVER () AS row, key, time, {ENDS} FROM '{FOLDER}/labels.parquet')
    SELECT {PARTS} FROM l ASOF LEFT JOIN totals AS t ON l.key = t.key AND l.time >= t.time {JOINS} ORDER BY l.row
""").fetchnumpy()
seconds = time.perf_counter() - began
np.savez(OUT, **found)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"seconds": seconds, "peak_gb": peak}))
