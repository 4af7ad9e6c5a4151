"""The index that is asked: a main part that never changes, beside it what was added since, and what is gone."""

from __future__ import annotations

import json
import math
import mmap
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.errors import PenstockError
from penstock.registry import from_spec, to_spec
from penstock.retrieve.vectors.allowed import Allowed, Ids, allowing
from penstock.retrieve.vectors.balance import Balance, imbalance
from penstock.retrieve.vectors.base import (
    Engine,
    Floats,
    Matrix,
    Metric,
    Rows,
    Scores,
    Searcher,
    Setting,
    State,
    VectorError,
    best,
    checked,
    floats,
    padded,
    prepared,
)
from penstock.retrieve.vectors.kmeans import assigned
from penstock.retrieve.vectors.report import Report
from penstock.retrieve.vectors.tuning import Asked, Tuned, apart, tune, widened
from penstock.types import Array

FORMAT = 1
_ABOUT = "about"
_MAIN = "main."
_SCORED = 1 << 16
"""Vectors that are compared one by one at a time."""
_UNIT = 1e-6
"""How far a squared length may be from 1 and still count as 1."""
_WORTH = 20
"""A fetched candidate costs as much as comparing so many vectors one by one."""


@dataclass(frozen=True, eq=False)
class Main:
    """What was built: an engine's arrays, opened, and the id of each row (None where the row is the id)."""

    engine: Engine
    state: State
    searcher: Searcher
    ids: Ids | None
    tuned: Tuned
    k: int

    def named(self, rows: Rows) -> Ids:
        """The ids at `rows`; -1 stays -1."""
        if self.ids is None:
            return rows
        return np.where(rows < 0, -1, self.ids[rows])


@dataclass(frozen=True, eq=False)
class _Parts:
    """All that one search looks at. It is replaced as a whole, so that a search never sees half a change."""

    main: Main
    dead: NDArray[np.bool_] | None  # of the main part, by row
    gone: int
    added: Ids  # -1 where it was deleted again
    vectors: Floats
    extra: int  # of those added, how many are not deleted

    @property
    def plain(self) -> bool:
        return self.dead is None and not len(self.added)

    @property
    def live(self) -> int:
        return self.main.searcher.size - self.gone


class Vectors:
    """Vectors by id, of which those nearest to a query are found: what `build` makes, and `open` reads.

    Any number of threads may search while one or more add, delete and merge; each search sees all of a change or
    nothing of it. `search` itself runs in the thread that calls it.

    Args:
        main: the built part.
        metric: "cosine", "ip" (inner product) or "l2".
        recall: of the k nearest, the share that is to be found; measured when it was built and is again when merged.
        seed: of whatever is drawn.
        report: how the engine was chosen.
        queries: (m, d) float32 to measure recall with; None for vectors that are set apart.
    """

    def __init__(
        self, main: Main, metric: Metric, *, d: int, recall: float, seed: int, report: Report,
        queries: Floats | None = None,
    ) -> None:  # fmt: skip
        self.metric, self.d, self.recall, self.seed = metric, d, recall, seed
        self.report, self.queries = report, queries
        self._parts = _Parts(main, None, 0, np.zeros(0, np.int64), np.zeros((0, d), np.float32), 0)
        self._room = self._parts.vectors
        self._where: dict[int, int] = {}
        self._sorted: tuple[Main, Ids, NDArray[np.int64]] | None = None
        self._writing = threading.RLock()
        self._merging = threading.Lock()
        self._changed: set[int] = set()
        self._loose, self._single = metric != "cosine", (1, d)

    def __len__(self) -> int:
        """How many vectors it holds."""
        parts = self._parts
        return parts.live + parts.extra

    def __contains__(self, id: int) -> bool:
        parts = self._parts
        if id in self._where:
            return True
        row = self._rows(parts.main, np.array([id]))[0]
        return bool(row >= 0 and (parts.dead is None or not parts.dead[row]))

    @property
    def engine(self) -> Engine:
        """What the main part was built with."""
        return self._parts.main.engine

    @property
    def tuned(self) -> Tuned:
        """How the main part is searched, and what was measured of that."""
        return self._parts.main.tuned

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays of the index; where they are mapped from files, all processes share most of them."""
        return sum(array.nbytes for array in self.arrays().values())

    def search(self, queries: Array, k: int = 10, allowed: Array | Iterable[int] | None = None) -> tuple[Ids, Scores]:
        """The k nearest of each query, best first: ids (m, k) int64 and scores (m, k) float32.

        Scores are the cosine, the inner product, or for "l2" minus the squared distance: higher is nearer. Where
        fewer than k vectors are there, or allowed, the rest of the line is -1 with a score of -inf.

        Args:
            queries: (m, d) floats.
            k: how many; the recall was measured for the k of `build`.
            allowed: only these: a mask by id, (n,) bool, or ids. However few they are, all k are found.

        Raises:
            VectorError: another shape, NaN or infinity, k below 1.
        """
        parts = self._parts
        asked = self._asked(queries)
        if k < 1:
            raise VectorError("k is at least 1", got=str(k), remedy="ask for one neighbour or more")
        if allowed is None and parts.dead is None and not parts.extra:
            main = parts.main
            setting = main.tuned.setting if k <= main.k else widened(main.tuned.setting, main.k, k)
            rows, scores = main.searcher.search(asked, k, setting)
            # A line that is short ends in -1: lists that were probed held too few.
            if (len(rows) == 1 and rows.item(-1) >= 0) or (len(rows) > 1 and int(rows[:, -1].min()) >= 0):
                return (rows if main.ids is None else main.ids[rows]), scores
        return self._among(parts, asked, k, None if allowed is None else allowing(allowed))

    def add(self, ids: Array, vectors: Array) -> None:
        """Adds vectors (m, d) under `ids` (m,), which are at least 0; an id that is there gets the new vector.

        They are found at once, and exactly, by going through them one by one until the next `merge`.

        Raises:
            VectorError: an id twice or below 0, as many ids as vectors, NaN or infinity, other dimensions.
        """
        vectors = prepared(checked(vectors, self.metric, d=self.d), self.metric)
        new = ids_of(ids, len(vectors))
        with self._writing:
            parts = self._without(new)
            first, end = len(parts.added), len(parts.added) + len(new)
            if end > len(self._room):
                room = np.empty((max(end, 2 * len(self._room), 256), self.d), np.float32)
                room[:first] = self._room[:first]
                self._room = room
            self._room[first:end] = vectors  # beyond what any search looks at
            self._where.update(zip(new.tolist(), range(first, end), strict=True))
            self._changed.update(new.tolist())
            self._parts = replace(
                parts, added=np.concatenate([parts.added, new]), vectors=self._room[:end], extra=parts.extra + len(new)
            )

    def delete(self, ids: Array) -> int:
        """Takes out the vectors of `ids`, and gives how many there were; no search finds them any more."""
        old = np.unique(np.asarray(ids, np.int64).reshape(-1))
        with self._writing:
            before = len(self)
            parts = self._without(old)
            for id in old.tolist():
                self._where.pop(id, None)
            self._changed.update(old.tolist())
            self._parts = parts
            return before - len(self)

    def merge(self) -> bool:
        """Builds the main part anew from all that is held, with the same engine, and tunes it to the recall again.

        Searches go on meanwhile, and so do changes, which end up beside the new part. It builds from the vectors as
        they are held; where those are codes, build from the vectors themselves from time to time.

        Returns: whether there was anything to merge.
        """
        with self._merging:
            with self._writing:
                parts = self._parts
                if parts.plain:
                    return False
                self._changed = set()
            keep = np.arange(parts.main.searcher.size) if parts.dead is None else np.flatnonzero(~parts.dead)
            beside = np.flatnonzero(parts.added >= 0)
            ids = np.concatenate([parts.main.named(keep), parts.added[beside]])
            held: Any = _Joined(parts.main.searcher, keep, parts.vectors[beside])
            joined = Matrix(held, self.metric, None if self.queries is not None else apart(len(ids), self.seed))
            if not len(ids):
                raise VectorError(
                    "an index holds at least one vector", got="all of them deleted",
                    remedy="add the new ones before merging",
                )  # fmt: skip
            main = built(
                parts.main.engine, joined, ids, k=parts.main.k, recall=self.recall, queries=self.queries,
                seed=self.seed, threads=os.cpu_count() or 1,
            )  # fmt: skip
            with self._writing:
                self._take_over(main)
        return True

    def merge_in_background(self) -> Future[bool]:
        """`merge` in a thread of its own; the future has its result, or its error."""
        pool = ThreadPoolExecutor(1, thread_name_prefix="penstock-merge")
        done = pool.submit(self.merge)
        pool.shutdown(wait=False)
        return done

    def balance(self) -> Balance:
        """How the index has changed since it was built, and whether to merge."""
        parts = self._parts
        lists = parts.main.searcher.lists()
        plain = Balance(parts.live, parts.extra, parts.gone)
        if lists is None:
            return plain
        centres, member = lists
        built_ = np.bincount(member, minlength=len(centres))
        now = built_ if parts.dead is None else np.bincount(member[~parts.dead], minlength=len(centres))
        beside = parts.vectors[parts.added >= 0]
        if len(beside):
            now = now + np.bincount(assigned(beside, centres)[0], minlength=len(centres))
        return replace(
            plain, lists=len(centres), built=imbalance(built_), now=imbalance(now), longest=int(now.max(initial=0))
        )

    def arrays(self) -> dict[str, Array]:
        """All of it as named arrays, which `from_arrays` takes back; a release keeps them as .npy files."""
        with self._writing:
            parts = self._parts
        main = parts.main
        about = {
            "format": FORMAT, "engine": to_spec(main.engine), "metric": self.metric, "d": self.d, "k": main.k,
            "recall": self.recall, "seed": self.seed, "setting": list(main.tuned.setting),
            "reached": main.tuned.recall, "seconds": main.tuned.seconds, "report": self.report.spec(),
        }  # fmt: skip
        out: dict[str, Array] = {_ABOUT: np.frombuffer(json.dumps(about).encode(), np.uint8)}
        out |= {_MAIN + name: array for name, array in main.state.items()}
        if main.ids is not None:
            out["ids"] = main.ids
        if self.queries is not None:
            out["queries"] = self.queries
        if parts.dead is not None:
            out["dead"] = np.flatnonzero(parts.dead)
        if parts.extra:
            beside = np.flatnonzero(parts.added >= 0)
            out |= {"added": parts.added[beside], "vectors": parts.vectors[beside]}
        return out

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Array]) -> Vectors:
        """An index from what `arrays` gave; the arrays may be memory maps, and are not copied where possible.

        Raises:
            VectorError: arrays that are not of an index, or of one whose library is not installed.
        """
        for array in arrays.values():
            _touch(array)
        try:
            about = json.loads(np.asarray(arrays[_ABOUT]).tobytes())
            if about["format"] != FORMAT:
                raise ValueError(f"format {about['format']}")
            engine: Engine = from_spec(about["engine"])
            state = {name.removeprefix(_MAIN): array for name, array in arrays.items() if name.startswith(_MAIN)}
            tuned = Tuned(Setting(*about["setting"]), about["reached"], about["seconds"])
            main = Main(engine, state, engine.open(state, about["metric"]), arrays.get("ids"), tuned, about["k"])
            report = Report.from_spec(about["report"])
        except VectorError:
            raise
        except (LookupError, ValueError, TypeError, RuntimeError, PenstockError) as error:
            raise VectorError(
                "an index is read from the arrays that it gave", got=f"{type(error).__name__}: {error}",
                remedy="restore them, or build the index anew with this version",
            ) from None  # fmt: skip
        out = cls(
            main, about["metric"], d=about["d"], recall=about["recall"], seed=about["seed"], report=report,
            queries=arrays.get("queries"),
        )  # fmt: skip
        dead = None
        if "dead" in arrays:
            dead = np.zeros(main.searcher.size, np.bool_)
            dead[arrays["dead"]] = True
        if "added" in arrays:
            out._renewed(main, dead, np.asarray(arrays["added"]), np.asarray(arrays["vectors"]))
        elif dead is not None:
            out._parts = replace(out._parts, dead=dead, gone=int(dead.sum()))
        return out

    def save(self, folder: Path) -> None:
        """Writes the index as a folder of .npy files; one that is there is replaced once the new one is complete."""
        part = folder.with_name(f".{folder.name}-{os.getpid()}")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for name, array in self.arrays().items():
            np.save(part / f"{name}.npy", array, allow_pickle=False)
        if folder.exists():
            old = folder.with_name(f".{folder.name}-{os.getpid()}-old")
            folder.rename(old)
            part.rename(folder)
            shutil.rmtree(old)
        else:
            part.rename(folder)

    @classmethod
    def open(cls, folder: Path) -> Vectors:
        """Reads what `save` wrote; arrays are mapped from the files, so that processes share them.

        Raises:
            VectorError: there is no index in the folder, or it is damaged.
        """
        files = sorted(folder.glob("*.npy"))
        try:
            found = {path.name.removesuffix(".npy"): np.load(path, mmap_mode="r", allow_pickle=False) for path in files}
        except (ValueError, OSError) as error:
            raise VectorError(
                "an index is a folder of .npy files", got=f"{folder}: {error}", remedy="restore the folder"
            ) from None
        if _ABOUT not in found:
            raise VectorError(
                "an index is a folder that Vectors.save wrote", got=str(folder), remedy="name such a folder"
            )
        # Plain views of the maps: fancy indexing of np.memmap costs ten times as much.
        return cls.from_arrays({name: np.asarray(array) for name, array in found.items()})

    def _asked(self, queries: Array) -> Floats:
        asked = floats(queries)
        if asked.shape == self._single:
            # The way of a request, in microseconds: a length that is finite says that every part is.
            length = float(asked[0].dot(asked[0]))
            if 0 < length < math.inf:
                return asked if self._loose or abs(length - 1) < _UNIT else asked * np.float32(length**-0.5)
        return prepared(checked(asked, self.metric, d=self.d, what="queries"), self.metric)

    def _among(self, parts: _Parts, queries: Floats, k: int, allowed: Allowed | None) -> tuple[Ids, Scores]:
        ids, scores = _in_main(parts, queries, k, allowed, self.metric, self._rows)
        if parts.extra:
            passes = parts.added >= 0
            if allowed is not None:
                passes &= allowed.has(parts.added)
            near, far = _compared(parts.vectors, np.flatnonzero(passes), queries, k, self.metric)
            ids = np.concatenate([ids, np.where(near < 0, -1, parts.added[near])], axis=1)
            scores = np.concatenate([scores, far], axis=1)
        order = np.lexsort((ids, -scores))[:, :k]
        return np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1)

    def _rows(self, main: Main, ids: Ids) -> Rows:
        """The rows of the main part at which ids are, -1 where they are not."""
        if main.ids is None:
            return np.where((ids >= 0) & (ids < main.searcher.size), ids, -1)
        held = self._sorted
        if held is None or held[0] is not main:
            order = np.argsort(main.ids, kind="stable")
            held = self._sorted = main, main.ids[order], order
        _, known, order = held
        at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
        return np.where(known[at] == ids, order[at], -1)

    def _without(self, ids: Ids) -> _Parts:
        """All parts with what is held of some ids marked as deleted; no search sees that until they are published."""
        parts = self._parts
        rows = self._rows(parts.main, ids)
        rows = rows[rows >= 0]
        if parts.dead is not None:
            rows = rows[~parts.dead[rows]]
        if len(rows):
            dead = np.zeros(parts.main.searcher.size, np.bool_) if parts.dead is None else parts.dead.copy()
            dead[rows] = True
            parts = replace(parts, dead=dead, gone=parts.gone + len(rows))
        beside = [self._where[id] for id in ids.tolist() if id in self._where]
        if beside:
            added = parts.added.copy()
            added[beside] = -1
            parts = replace(parts, added=added, extra=parts.extra - len(beside))
        return parts

    def _renewed(self, main: Main, dead: NDArray[np.bool_] | None, ids: Ids, vectors: Floats) -> None:
        """Takes a main part as it was built, what is dead in it, and prepared vectors beside it."""
        self._room = np.array(vectors, np.float32)
        self._where = {id: at for at, id in enumerate(ids.tolist())}
        gone = 0 if dead is None else int(dead.sum())
        self._parts = _Parts(main, dead, gone, np.array(ids), self._room, len(ids))

    def _take_over(self, main: Main) -> None:
        """Replaces the main part; what changed while it was built is beside it, or dead in it."""
        before, changed = self._parts, np.array(sorted(self._changed), np.int64)
        self._sorted = None
        rows = self._rows(main, changed)
        rows = rows[rows >= 0]
        dead = None
        if len(rows):
            dead = np.zeros(main.searcher.size, np.bool_)
            dead[rows] = True
        later = [self._where[id] for id in changed.tolist() if id in self._where]
        self._renewed(main, dead, before.added[later], before.vectors[later].reshape(-1, self.d))


def built(
    engine: Engine, vectors: Matrix, ids: Ids | None, *, k: int, recall: float, queries: Floats | None, seed: int,
    threads: int,
) -> Main:  # fmt: skip
    """A main part, tuned to the recall, or as exact as it can be where it does not reach it."""
    state = engine.fit(vectors, seed=seed, threads=threads)
    searcher = engine.open(state, vectors.metric)
    asked = Asked.of(vectors, k, queries=queries, seed=seed)
    found = tune(searcher, asked, recall)
    if found is None:
        setting = Setting(searcher.probes, min(64 * k, searcher.size) if searcher.keeps else 0)
        found = Tuned(setting, float(asked.recalls(searcher, setting).mean()), float("nan"))
    return Main(engine, state, searcher, ids, found, k)


def ids_of(ids: Array | None, n: int) -> Ids:
    """Ids (n,) int64, checked.

    Raises:
        VectorError: another number than n, below 0, twice, or no integers.
    """
    found = np.asarray(ids)
    if found.shape != (n,) or (n and found.dtype.kind not in "iu"):
        raise VectorError(
            "each vector has an id, an integer", got=f"{found.dtype} {found.shape} for {n} vectors",
            remedy="pass ids (n,)",
        )  # fmt: skip
    found = found.astype(np.int64)
    if n and int(found.min()) < 0:
        raise VectorError("an id is at least 0", got=str(int(found.min())), remedy="-1 stands for nothing found")
    values, counts = np.unique(found, return_counts=True)
    if len(values) < n:
        twice = int(values[counts > 1][0])
        raise VectorError("ids differ from one another", got=f"{twice} twice", remedy="keep its last vector only")
    return found


@dataclass(frozen=True, eq=False)
class _Joined:
    """Rows of an index and vectors beside it as one matrix that is read a block at a time."""

    searcher: Searcher
    keep: NDArray[np.int64]
    beside: Floats

    dtype = np.dtype(np.float32)

    def __len__(self) -> int:
        return len(self.keep) + len(self.beside)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), self.beside.shape[1]

    def __getitem__(self, index: Array | slice) -> Floats:
        at = np.arange(len(self))[index]
        out = np.empty((len(at), self.shape[1]), np.float32)
        old = at < len(self.keep)
        out[old] = self.searcher.take(self.keep[at[old]])
        out[~old] = self.beside[at[~old] - len(self.keep)]
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Floats:
        return self[slice(None)]


def _touch(array: Array) -> None:
    """Reads a byte of each page, which maps them all: searches would else fault on a hundred pages each, for thousands
    of searches. Other threads go on meanwhile."""
    if array.flags.c_contiguous and array.nbytes:
        np.asarray(array).reshape(-1).view(np.uint8)[:: mmap.PAGESIZE].max()


def _in_main(
    parts: _Parts,
    queries: Floats,
    k: int,
    allowed: Allowed | None,
    metric: Metric,
    rows_of: Callable[[Main, Ids], Rows],
) -> tuple[Ids, Scores]:
    """The k nearest in the main part that pass, (m, k): fetched with some to spare until so many pass."""
    main, n, m = parts.main, parts.main.searcher.size, len(queries)
    live = min(allowed.count, parts.live) if allowed is not None else parts.live
    ids, scores = np.full((m, k), -1, np.int64), np.full((m, k), -np.inf, np.float32)
    want, left = min(k, live), np.arange(m)
    fetch = k if live == n else int(1.5 * k * n / max(live, 1)) + 8
    # Of few that are allowed, comparing each costs less than looking for them among all.
    while want and len(left) and fetch < n and live > _WORTH * fetch:
        setting = widened(main.tuned.setting, main.k, max(fetch, main.k))
        rows, found = main.searcher.search(queries[left], fetch, setting)
        named = main.named(rows)
        passes = rows >= 0
        if parts.dead is not None:
            passes &= ~parts.dead[rows]
        if allowed is not None:
            passes &= allowed.has(named)
        order = np.argsort(~passes, axis=1, kind="stable")[:, :k]
        passes = np.take_along_axis(passes, order, 1)
        width = order.shape[1]
        ids[left, :width] = np.where(passes, np.take_along_axis(named, order, 1), -1)
        scores[left, :width] = np.where(passes, np.take_along_axis(found, order, 1), -np.inf)
        left = left[passes[:, :want].sum(axis=1) < want]
        fetch *= 4
    if want and len(left):
        rows = np.arange(n) if allowed is None else rows_of(main, allowed.ids())
        rows = rows[rows >= 0]
        if parts.dead is not None:
            rows = rows[~parts.dead[rows]]
        near, scores[left] = _compared(main.searcher, rows, queries[left], k, metric)
        ids[left] = main.named(near)
    return ids, scores


def _compared(
    held: Searcher | Floats, rows: NDArray[np.int64], queries: Floats, k: int, metric: Metric
) -> tuple[Rows, Scores]:
    """The k nearest (m, k) among `rows` (r,), each of which is compared with every query."""
    ids, scores = np.full((len(queries), 0), -1, np.int64), np.full((len(queries), 0), -np.inf, np.float32)
    for first in range(0, len(rows), _SCORED):
        some = rows[first : first + _SCORED]
        block = held.take(some) if isinstance(held, Searcher) else held[some]
        found = queries @ block.T
        if metric == "l2":
            found *= 2
            found -= np.einsum("ij,ij->i", block, block)
            found -= np.einsum("ij,ij->i", queries, queries)[:, None]
            found = np.minimum(found, 0)
        top = [best(line, k) for line in found]
        ids = np.concatenate([ids, np.stack([some[at] for at in top])], axis=1)
        scores = np.concatenate([scores, np.stack([line[at] for line, at in zip(found, top, strict=True)])], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        ids, scores = np.take_along_axis(ids, order, 1), np.take_along_axis(scores, order, 1)
    return padded(ids, scores, k)
