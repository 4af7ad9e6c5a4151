"""The engine for logs that one machine is too small or too slow for: parts of the log on many machines, merged."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from penstock.engines.spark.staged import OFFSET, TIE, TIME, Words, column, stage
from penstock.engines.spark.tasks import KEY, KNOWN, NOW, RECORD, ROW, STATES, TILES, VALUES, Task, unpacked
from penstock.engines.stream import StreamEngine
from penstock.errors import UnavailableError
from penstock.features.view import View
from penstock.types import Array, Log, Progress, Store

_CELL, _AT = "cell", "at"
_RAISED = re.compile(r"[\w.]*(Error|Exception)\b")  # the end of a worker's own traceback


@contextmanager
def _told() -> Iterator[None]:
    """Makes one line of what goes wrong on the cluster; the whole story is in Spark's own log."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        text = str(error.java_exception.getMessage()) if isinstance(error, Py4JJavaError) else str(error)
        lines = [line for line in text.split("\n\tat ")[0].splitlines() if line.strip()] or ["no message"]
        failed = [line for line in lines if _RAISED.match(line)]
        raise UnavailableError(
            "Spark does the work to its end", got=(failed or lines[:1])[-1][:300],
            remedy="see Spark's log; every worker needs penstock, and to read the engine's folder",
        ) from error  # fmt: skip


class SparkEngine:
    """Values of views as in `BatchEngine`, and whole stores, computed by Apache Spark.

    The log's events are written to Parquet once. Spark moves events to cells by the hash of their key; in each a
    worker runs the kernels of the other engines on Arrow tables. What a cell makes are partial states, which merge:
    so the events of a key, or of a view without one, may be spread over many cells.

    Args:
        log: whose events below its present end.
        session: a running Spark; its workers need penstock, too. `local_session` starts one on this machine.
        folder: for the Parquet files, where every worker can read them; by default a temporary one of this machine.
        cells: into how many parts the work is cut; each part's events lie in one worker's memory.
        spread: over how many cells the events of one key are spread.
        chunk: events that are written at a time.
        progress: told how many events have been written.
    """

    def __init__(
        self,
        log: Log,
        session: SparkSession,
        *,
        folder: Path | None = None,
        cells: int = 32,
        spread: int = 1,
        chunk: int = 500_000,
        progress: Progress | None = None,
    ) -> None:
        self._log = log
        self._session = session
        self._cells = cells
        self._spread = min(spread, cells)
        self._end, self._newest = log.end, log.newest
        self._temporary = tempfile.TemporaryDirectory(prefix="penstock-", dir=folder)
        try:
            self._folders = stage(log, self._end, Path(self._temporary.name), chunk, progress)
        except BaseException:
            self._temporary.cleanup()
            raise

    def close(self) -> None:
        """Deletes the Parquet files."""
        self._temporary.cleanup()

    @_told()
    def values(
        self,
        view: View,
        keys: NDArray[np.uint32],
        now: NDArray[np.int64],
        known: NDArray[np.int64] | None,
    ) -> dict[str, Array]:
        """Feature values of n rows, to the byte as `BatchEngine.values` gives them.

        Args:
            view: whose features.
            keys: (n, len(by)) codes.
            now: (n,) microseconds.
            known: (n,) offsets: only earlier events count. None asks *as happened*.

        Returns:
            By feature: float64 (n,), or uint32 codes (n, k).

        Raises:
            UnavailableError: Spark failed; the work can be asked for again.
        """
        task = self._task(view)
        if view.stream not in self._folders or not len(keys):
            return {name: a.served(a.empty(len(keys)), now) for name, a in view.features.items()}
        spread = self._spread if view.by else self._cells
        asked = self._asked(keys, now, known).withColumn(_AT, F.explode(F.sequence(F.lit(0), F.lit(spread - 1))))
        events = self._events(view).withColumn(_AT, F.pmod(F.col(OFFSET), F.lit(spread)))
        parts = self._in_cells(events, [column(view.schema, name) for name in view.by]).cogroup(
            self._in_cells(asked, [f"k{i}" for i in range(len(view.by))])
        )
        partial, finished = task.partial(known is not None), task.finished
        if spread == 1:
            done = parts.applyInArrow(lambda events, asked: finished(partial(events, asked)), VALUES)
        else:
            states = parts.applyInArrow(lambda events, asked: partial(events, asked), STATES).withColumn(_AT, F.lit(0))
            done = self._in_cells(states, [ROW]).applyInArrow(lambda states: finished(states), VALUES)
        table = done.toArrow()
        records = unpacked(table, task.values)[np.argsort(table.column(ROW).to_numpy())]
        return {name: np.ascontiguousarray(records[name]) for name in view.features}

    @_told()
    def fill(self, store: Store, views: Sequence[View]) -> None:
        """Writes the records of `views` into `store`, all or nothing; a `StreamEngine` goes on from there.

        What the store holds of their keys is replaced.
        """
        # It also empties a store of another log.
        StreamEngine(self._log, store)
        ahead = max((store.views().get(view.version, 0) for view in views), default=0)
        if ahead > self._end:
            raise UnavailableError(
                "a store is filled from a log that has all that the store has seen",
                got=f"a store that has seen {ahead} events, and {self._end} events",
                remedy="make the SparkEngine anew: it reads the log as it was when it was made",
            )
        with store.snapshot() as snapshot:
            offset, newest = max(snapshot.offset, self._end), max(snapshot.newest, self._newest)
        records = (record for view in views for record in self._records(view))
        store.write(records, {view.version: self._end for view in views}, offset, newest)

    def _records(self, view: View) -> Iterator[tuple[bytes, bytes, bytes]]:
        if view.stream not in self._folders:
            return
        task = self._task(view)
        parts = self._events(view).mapInArrow(task.tiles, TILES).withColumn(_AT, F.lit(0))
        merged = self._in_cells(parts, [KEY]).applyInArrow(task.merged(self._newest), TILES)
        for row in merged.toLocalIterator(prefetchPartitions=True):
            yield view.version, bytes(row[KEY]), bytes(row[RECORD])

    def _events(self, view: View) -> DataFrame:
        used = [column(view.schema, name) for name in sorted({*view.by, *view.reads})]
        # Other columns are never read from disk.
        return self._session.read.parquet(str(self._folders[view.stream])).select(OFFSET, TIME, TIE, *used)

    def _asked(self, keys: NDArray[np.uint32], now: NDArray[np.int64], known: NDArray[np.int64] | None) -> DataFrame:
        columns: dict[str, Any] = {ROW: np.arange(len(now)), NOW: now}
        if known is not None:
            columns[KNOWN] = known
        for i in range(keys.shape[1]):
            columns[f"k{i}"] = np.ascontiguousarray(keys[:, i], np.uint32).view(np.int32)
        return self._session.createDataFrame(pa.table(columns))

    def _in_cells(self, frame: DataFrame, by: Sequence[str]) -> Any:
        """Grouped by cell, which the columns `by` and what `_AT` counts make out."""
        place = F.hash(*by) if by else F.lit(0)
        # One type on both sides of a cogroup: Spark sends the same number elsewhere where its type differs.
        cell = F.pmod(place.cast("long") + F.col(_AT).cast("long"), F.lit(self._cells)).cast("int")
        return frame.withColumn(_CELL, cell).groupBy(_CELL)

    def _task(self, view: View) -> Task:
        spelled = [column(view.schema, name) for name in view.spells]
        words: dict[int, str] = {}
        if view.stream in self._folders:
            frame = self._session.read.parquet(str(self._folders[view.stream]))
            for name in spelled:
                codes = frame.select(name).distinct().toArrow().column(name).to_numpy().view(np.uint32)
                words |= zip(codes.tolist(), self._log.strings.texts(codes), strict=True)
        return Task(view.spec(), Words({code: word for code, word in words.items() if code}))
