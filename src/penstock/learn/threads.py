"""How many threads the products of matrices take."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits


class _OneThread:
    """A limit of the whole process, set by the first that asks for it and taken off by the last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked = 0
        self._limits: threadpool_limits | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        with self._lock:
            if not self._asked:
                self._limits = threadpool_limits(1, "blas")
            self._asked += 1
        try:
            yield
        finally:
            with self._lock:
                self._asked -= 1
                if not self._asked and self._limits is not None:
                    self._limits.restore_original_limits()
                    self._limits = None


one_blas_thread = _OneThread().held
"""While any thread is inside, products of matrices take one thread each; afterwards as many as before."""
