"""Which store a system has: its own in the home folder, or one that other machines reach, too."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from penstock.errors import StoreError
from penstock.stores.lmdb import LmdbStore
from penstock.types import Store

# Loaded when first used: redis-py is an extra.
_REDIS = "penstock.stores.redis"


def open_store(url: str | None, home: Path, log: str, *, read_only: bool = False) -> Store:
    """The store of a log.

    Args:
        url: an address of Redis; LMDB in the home folder without one.
        home: the folder of everything else that is durable.
        log: the log's id; the store's keys bear it, so that several logs may share a Redis.
        read_only: for a process that only reads, while another one writes.

    Raises:
        StoreError: it cannot be opened.
    """
    if url is None:
        return LmdbStore(home / "store", read_only=read_only)
    try:
        kind = import_module(_REDIS).RedisStore
    except ModuleNotFoundError:
        raise StoreError(
            "a store in Redis needs redis-py", got="no module redis", remedy="pip install 'penstock[redis]'"
        ) from None
    store: Store = kind(url, name=f"penstock:{log}", read_only=read_only)
    return store
