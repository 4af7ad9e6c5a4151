"""What was made of an index once, for as long as the index lives: an opened network, a vector index."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

from penstock.types import Array

T = TypeVar("T")


class Beside(Generic[T]):
    """Things by the array of an index that they were made of; any thread may ask. The array is not kept alive.

    >>> import numpy as np
    >>> opened, items = Beside[list[int]](), np.arange(3)
    >>> opened.of(items, lambda: [1]) is opened.of(items, lambda: [2])
    True
    >>> len(opened); del items; len(opened)
    1
    0
    """

    def __init__(self) -> None:
        self._held: dict[int, T] = {}
        self._making: dict[int, threading.Lock] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    def of(self, array: Array, make: Callable[[], T]) -> T:
        """What was made of it, or is made now; whoever asks for the same meanwhile waits, and nobody else."""
        key = id(array)
        found = self._held.get(key)
        if found is not None:
            return found
        with self._lock:
            if key not in self._making:
                self._making[key] = threading.Lock()
                weakref.finalize(array, self._forget, key)
            making = self._making[key]
        with making:
            found = self._held.get(key)
            if found is None:
                found = self._held[key] = make()
            return found

    def _forget(self, key: int) -> None:
        """Runs wherever the array happens to die, so it takes no lock."""
        self._held.pop(key, None)
        self._making.pop(key, None)
