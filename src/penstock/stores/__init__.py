"""Stores move opaque records by view and key, and know nothing of features."""

from penstock.stores.lmdb import LmdbStore, trusted
from penstock.stores.memory import MemoryStore
from penstock.stores.opening import open_store

__all__ = ["LmdbStore", "MemoryStore", "open_store", "trusted"]
