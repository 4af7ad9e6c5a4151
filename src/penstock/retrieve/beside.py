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
        self._making = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    def of(self, array: Array, make: Callable[[], T]) -> T:
        """What was made of it, or is made now."""
        with self._making:
            found = self._held.get(id(array))
            if found is None:
                found = self._held[id(array)] = make()
                weakref.finalize(array, self._held.pop, id(array), None)
            return found
