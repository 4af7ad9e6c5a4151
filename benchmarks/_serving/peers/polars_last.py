"""The newest values of ten fields at labels, by one as-of join in Polars. Prints seconds and peak memory."""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl

FOLDER, OUT = Path(sys.argv[1]), sys.argv[2]

began = time.perf_counter()
events = pl.read_parquet(FOLDER / "events.parquet")
labels = pl.read_parquet(FOLDER / "labels.parquet").with_row_index("row")
found = labels.sort("time").join_asof(events, on="time", by="key").sort("row")
seconds = time.perf_counter() - began
np.savez(OUT, **{f"v{i}": found[f"v{i}"].fill_null(0).to_numpy() for i in range(10)})
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"seconds": seconds, "peak_gb": peak}))
