"""The same features in Feast: a view by shopper and one by item, online on Redis."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
from common import COLUMNS, NAMES
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.types import Float32
from feast.value_type import ValueType

FOLDER = Path(os.environ["PEER_REPOSITORY"])
KEYS = {"Shopper": "user", "Product": "item"}


def store() -> FeatureStore:
    config = RepoConfig(
        project="bench",
        provider="local",
        registry=str(FOLDER / "registry.db"),
        online_store={"type": "redis", "connection_string": f"127.0.0.1:{os.environ['PEER_REDIS_PORT']}"},
        offline_store={"type": "file"},
        entity_key_serialization_version=3,
    )
    return FeatureStore(config=config)


def frame(view: str, names: list[str], rows: np.ndarray) -> pd.DataFrame:
    found = pd.DataFrame(rows, columns=COLUMNS[view])
    found[KEYS[view]] = names
    found["event_timestamp"] = pd.Timestamp.now(tz="UTC")
    return found


def write(filled: FeatureStore, view: str, names: list[str], rows: np.ndarray) -> None:
    filled.write_to_online_store(view, frame(view, names, rows))


def fill(user_rows: np.ndarray, item_rows: np.ndarray) -> None:
    found = store()
    parts = []
    for view, key in KEYS.items():
        entity = Entity(name=key, join_keys=[key], value_type=ValueType.STRING)
        frame(view, NAMES[f"{key}s"][:1], (user_rows if key == "user" else item_rows)[:1]).to_parquet(
            FOLDER / f"{view}.parquet"
        )
        source = FileSource(path=str(FOLDER / f"{view}.parquet"), timestamp_field="event_timestamp")
        schema = [Field(name=name, dtype=Float32) for name in COLUMNS[view]]
        parts += [entity, FeatureView(name=view, entities=[entity], schema=schema, source=source, online=True)]
    found.apply(parts)
    write(found, "Shopper", NAMES["users"], user_rows)
    write(found, "Product", NAMES["items"], item_rows)
