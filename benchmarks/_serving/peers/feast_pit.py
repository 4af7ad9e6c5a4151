"""The newest values of ten fields at labels, by Feast's DuckDB offline store. Prints seconds and peak memory."""

import json
import os
import resource
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource
from feast.types import Int64

FOLDER, OUT = Path(sys.argv[1]), sys.argv[2]
NAMES = [f"v{i}" for i in range(10)]
LIMIT = int(os.environ.get("PIT_MEMORY_GB", "0")) << 30
if LIMIT:
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))

repository = Path(tempfile.mkdtemp())
(repository / "feature_store.yaml").write_text(
    "project: pit\nregistry: registry.db\nprovider: local\noffline_store:\n  type: duckdb\n"
    "online_store:\n  type: sqlite\n  path: online.db\nentity_key_serialization_version: 3\n"
)
events = pd.read_parquet(FOLDER / "events.parquet", columns=["key", "time", *NAMES])
events["event_timestamp"] = pd.to_datetime(events.pop("time"), unit="us", utc=True)
path = repository / "events.parquet"
events.astype(dict.fromkeys(["key", *NAMES], "int64")).to_parquet(path)
labels = pd.read_parquet(FOLDER / "labels.parquet")
labels["event_timestamp"] = pd.to_datetime(labels.pop("time"), unit="us", utc=True)
labels["row"] = np.arange(len(labels))
labels = labels.astype({"key": "int64"})
key = Entity(name="key", join_keys=["key"])
view = FeatureView(
    name="newest", entities=[key], ttl=timedelta(days=36_500), online=False,
    schema=[Field(name=name, dtype=Int64) for name in NAMES],
    source=FileSource(path=str(path), timestamp_field="event_timestamp"),
)  # fmt: skip
store = FeatureStore(repo_path=str(repository))
store.apply([key, view])

began = time.perf_counter()
found = store.get_historical_features(labels, [f"newest:{name}" for name in NAMES]).to_df()
seconds = time.perf_counter() - began
found = found.sort_values("row")
np.savez(OUT, **{name: found[name].fillna(0).to_numpy().astype(np.int64) for name in NAMES})
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"seconds": seconds, "peak_gb": peak}))
