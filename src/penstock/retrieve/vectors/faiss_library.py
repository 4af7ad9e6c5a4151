"""What the engines on faiss share: the library, loaded when it is needed, and its indexes as arrays of bytes."""

from __future__ import annotations

import importlib
import importlib.util
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.retrieve.vectors.base import (
    Floats,
    Metric,
    Rows,
    Scores,
    Searcher,
    Setting,
    VectorError,
)

EXTRA = "vectors"


def faiss() -> Any:
    """The library.

    Raises:
        VectorError: it is not installed.
    """
    try:
        return importlib.import_module("faiss")
    except ImportError:
        raise VectorError(
            "an index that faiss built is searched by faiss", got="no faiss here",
            remedy=f"pip install 'penstock[{EXTRA}]'",
        ) from None  # fmt: skip


def lacks() -> str:
    """The package's name, where it is not installed."""
    return "" if importlib.util.find_spec("faiss") else "faiss-cpu"


@contextmanager
def threads(count: int) -> Iterator[None]:
    """As many threads for what this thread asks of faiss."""
    library = faiss()
    before = library.omp_get_max_threads()
    library.omp_set_num_threads(count)
    try:
        yield
    finally:
        library.omp_set_num_threads(before)


def measure(metric: Metric) -> Any:
    """faiss's number of the metric."""
    return faiss().METRIC_L2 if metric == "l2" else faiss().METRIC_INNER_PRODUCT


class Opened(Searcher):
    """A faiss index over bytes that may be a memory map: what is large of it stays there, shared by all processes."""

    def __init__(self, data: NDArray[np.uint8], metric: Metric, *, probes: int | None, keeps: bool) -> None:
        library = faiss()
        self._bytes = np.asarray(data)  # the index points into it
        self._index = library.read_index(library.ZeroCopyIOReader(library.swig_ptr(self._bytes), self._bytes.nbytes))
        self._library, self._far = library, metric == "l2"
        self.size, self.keeps = int(self._index.ntotal), keeps
        self._base = library.downcast_index(self._index.base_index) if keeps else self._index
        self.probes = int(self._base.nlist) if probes is None else probes
        self._settings: dict[tuple[Setting, int], Any] = {}
        self._mapped = threading.Lock()

    def parameters(self, setting: Setting, k: int) -> Any:
        """faiss's own form of a setting."""
        probes = min(max(setting.probes, 1), self.probes)
        found = self._library.SearchParametersIVF(nprobe=probes)
        if not self.keeps:
            return found
        factor = max(1.0, min(setting.keep, self.size) / k)
        out = self._library.IndexRefineSearchParameters(k_factor=factor, base_index_params=found)
        out.held = found  # faiss keeps a bare pointer to it
        return out

    def search(self, queries: Floats, k: int, setting: Setting) -> tuple[Rows, Scores]:
        m = len(queries)
        found = self._settings.get((setting, k))
        if found is None:
            if len(self._settings) > 256:
                self._settings.clear()
            found = self._settings[setting, k] = self.parameters(setting, k)
        if self._library.omp_get_max_threads() > 1:
            # Threads of its own would spin for what takes microseconds. It is a setting of this thread alone.
            self._library.omp_set_num_threads(1)
        queries = np.ascontiguousarray(queries, np.float32)
        rows, scores = np.empty((m, k), np.int64), np.empty((m, k), np.float32)
        pointer = self._library.swig_ptr
        self._index.search_c(m, pointer(queries), k, pointer(scores), pointer(rows), found)
        if self._far:
            np.negative(scores, out=scores)
        return rows, scores

    def take(self, rows: NDArray[np.int64]) -> Floats:
        if self.keeps:
            held = self._index.refine_index
        else:
            held = self._base
            if hasattr(held, "make_direct_map"):
                with self._mapped:
                    held.make_direct_map(True)
        out = np.empty((len(rows), self._index.d), np.float32)
        if len(rows):
            rows = np.ascontiguousarray(rows, np.int64)
            pointer = self._library.swig_ptr
            held.reconstruct_batch_c(len(rows), pointer(rows), pointer(out))
        return out

    def lists(self) -> tuple[Floats, NDArray[np.int64]] | None:
        if not hasattr(self._base, "nlist"):
            return None
        centres: Floats = self._base.quantizer.reconstruct_n(0, self._base.nlist)
        nearest = np.empty(self.size, np.int64)
        held = self._base.invlists
        for number in range(self._base.nlist):
            size = held.list_size(number)
            if size:
                nearest[self._library.rev_swig_ptr(held.get_ids(number), size)] = number
        return centres, nearest
