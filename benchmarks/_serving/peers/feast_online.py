"""Reads ready-made values of some entities from Feast's online store, and prints p50 and p99 in milliseconds."""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.types import Float32
from feast.value_type import ValueType

ASKED, FEATURES = int(sys.argv[1]), int(sys.argv[2])
REDIS_PORT = sys.argv[3:]  # SQLite without one
ITEMS, REQUESTS = 5_000, 200
COLUMNS = [f"f{i}" for i in range(FEATURES)]

with tempfile.TemporaryDirectory() as folder:
    online = {"type": "sqlite", "path": f"{folder}/online.db"}
    if REDIS_PORT:
        online = {"type": "redis", "connection_string": f"127.0.0.1:{REDIS_PORT[0]}"}
    config = RepoConfig(
        project="bench",
        provider="local",
        registry=f"{folder}/registry.db",
        online_store=online,
        offline_store={"type": "file"},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    draw = np.random.default_rng(1)
    frame = pd.DataFrame(draw.random((ITEMS, FEATURES), np.float32), columns=COLUMNS)
    frame["item"] = np.arange(ITEMS)
    frame["event_timestamp"] = pd.Timestamp.now(tz="UTC")
    frame.head(1).to_parquet(Path(folder) / "items.parquet")
    source = FileSource(path=f"{folder}/items.parquet", timestamp_field="event_timestamp")
    item = Entity(name="item", join_keys=["item"], value_type=ValueType.INT64)
    schema = [Field(name=name, dtype=Float32) for name in COLUMNS]
    store.apply([item, FeatureView(name="Product", entities=[item], schema=schema, source=source, online=True)])
    store.write_to_online_store("Product", frame)
    wanted = [f"Product:{name}" for name in COLUMNS]
    times = []
    for _ in range(REQUESTS):
        rows = [{"item": int(code)} for code in draw.choice(ITEMS, ASKED + 1, replace=False)]
        began = time.perf_counter()
        store.get_online_features(features=wanted, entity_rows=rows).to_dict()
        times.append((time.perf_counter() - began) * 1e3)
p50, p99 = np.quantile(times[REQUESTS // 10 :], (0.5, 0.99)).tolist()
print(json.dumps({"p50_ms": round(p50, 2), "p99_ms": round(p99, 2)}))
