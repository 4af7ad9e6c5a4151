"""Sorted sources into one, an item at a time."""

from penstock.events.merging.asynchronous import MergedAsync, merge_sorted_async
from penstock.events.merging.plain import merge_sorted
from penstock.events.merging.sources import OrderError

__all__ = ["MergedAsync", "OrderError", "merge_sorted", "merge_sorted_async"]
