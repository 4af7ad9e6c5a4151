"""The app's own events shuffled, duplicated, delayed and through a crash: all engines must still agree."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from penstock.audit.crash import MOMENTS, Delivery, finish, start
from penstock.clock import SECOND
from penstock.engines import BatchEngine, NaiveEngine, StreamEngine
from penstock.events import SqliteLog
from penstock.features import View
from penstock.features.records import decode, fold
from penstock.stores import LmdbStore
from penstock.types import MISSING_INT, Accepted, Log, Progress, Rows, Schema, Store, Strings


@dataclass
class Proof:
    """What replaying the app's own events in disorder found.

    Attributes:
        streams: disordered streams; `crashes`: processes killed on the way.
        duplicates: deliveries that the log had to drop, and dropped.
        values: compared.
        mismatches: by feature; as ``log.STREAM`` events that the log lost, doubled or changed.
    """

    streams: int = 0
    crashes: int = 0
    duplicates: int = 0
    values: int = 0
    mismatches: Counter[str] = field(default_factory=Counter)

    def add(self, other: Proof) -> None:
        """Counts what another one found, too."""
        self.streams += other.streams
        self.crashes += other.crashes
        self.duplicates += other.duplicates
        self.values += other.values
        self.mismatches += other.mismatches

    def summary(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "proof_streams": self.streams,
            "proof_crashes": self.crashes,
            "proof_duplicates": self.duplicates,
            "proof_values": self.values,
            "proof_mismatches": sum(self.mismatches.values()),
            "proof_mismatches_by_feature": dict(self.mismatches),
        }


_AT_ONCE = 5
"""Processes that crash side by side: starting Python takes longer than what they do."""


def shuffled(
    views: Sequence[View],
    log: Log,
    *,
    streams: int = 5,
    events: int = 400,
    seed: int = 0,
    progress: Progress | None = None,
) -> Proof:
    """Runs samples of the log's events through all engines in disorder and compares them byte for byte.

    Each sample is delayed at random, delivered in part more than once, and cut into random batches. A process of
    its own takes the first of them into a log and a store, and is killed (kill -9): after its last batch is durable
    and before it is applied, while its records are written, or right after. Here both are opened again: what may
    not have been acknowledged is sent once more, the log must hold every event exactly once, and from the store's
    own offset on, the naive, stream and batch engines must agree on every entity at several moments.

    Args:
        views: whose features.
        log: where the events are taken from.
        streams: how many disordered streams; `events` in each.

    Raises:
        UnavailableError: the process cannot be started, so that nothing was proved.
    """
    proof = Proof()
    schemas = {view.stream: view.schema for view in views}
    for first in range(0, streams if log.end and views else 0, _AT_ONCE):
        with ExitStack() as stack:
            going = []
            for number in range(first, min(first + _AT_ONCE, streams)):
                random = np.random.default_rng([seed, number])
                begin = int(random.integers(0, max(1, log.end - events)))
                batches = _disorder(log.read(begin, begin + events), schemas, log.strings, random)
                if batches:
                    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                    going.append(_Crashing(views, schemas, batches, folder, random))
                    stack.enter_context(going[-1].process)
            for done, one in enumerate(going, first + 1):
                one.go_on(proof)
                if progress:
                    progress(done, streams)
    return proof


def _disorder(
    sample: Mapping[str, Rows], schemas: Mapping[str, Schema], strings: Strings, random: np.random.Generator
) -> list[list[Delivery]]:
    """The events of a sample as clients send them: some late by up to hours, some more than once, in batches."""
    sent: list[Delivery] = []
    for stream in sorted(sample.keys() & schemas.keys()):
        part = sample[stream]
        late = random.integers(0, 7_200 * SECOND, len(part)) * (random.random(len(part)) < 0.3)
        rows = zip(part.offset.tolist(), part.raw_time.tolist(), (part.time + late).tolist(), strict=True)
        for (offset, time, arrived), values in zip(rows, _values(part, schemas[stream], strings), strict=True):
            event = Accepted(stream, f"{offset}", time, values)
            sent.append((event, arrived))
            if random.random() < 0.2:
                again = random.integers(0, 600 * SECOND, int(random.integers(1, 4)))
                sent.extend((event, arrived + wait) for wait in again.tolist())
    sent.sort(key=lambda delivery: delivery[1])
    queue = iter(sent)
    batches = []
    while batch := list(islice(queue, int(random.integers(1, 60)))):
        batches.append(batch)
    return batches


def _values(part: Rows, schema: Schema, strings: Strings) -> list[tuple[Any, ...]]:
    """Each event's own values as they came, None for missing ones."""
    columns: list[list[Any]] = []
    for f in schema.fields:
        column = part.fields[f.name]
        known = column != (0 if f.kind == "text" else MISSING_INT) if f.kind != "float" else ~np.isnan(column)
        values = strings.texts(column) if f.kind == "text" else column.tolist()
        columns.append([value if there else None for value, there in zip(values, known.tolist(), strict=True)])
    return list(zip(*columns, strict=True))


def _once(batches: Sequence[Sequence[Delivery]], schemas: Mapping[str, Schema], strings: Strings) -> dict[str, Rows]:
    """What a log must hold of these deliveries, by the plain definition: the first of each id, in order."""
    first: dict[tuple[str, str], Delivery] = {}
    for batch in batches:
        for event, arrived in batch:
            first.setdefault((event.stream, event.id), (event, arrived))
    out = {}
    for stream in {stream for stream, _ in first}:
        mine = [(offset, *one) for offset, one in enumerate(first.values()) if one[0].stream == stream]
        raw = np.array([event.time for _, event, _ in mine])
        arrived_at = np.array([arrived for *_, arrived in mine])
        fields = np.empty(len(mine), schemas[stream].dtype)
        for place, f in enumerate(schemas[stream].fields):
            column = [event.values[place] for _, event, _ in mine]
            if f.kind == "text":
                fields[f.name] = [0 if text is None else strings.code(text) for text in column]
            else:
                missing = np.nan if f.kind == "float" else MISSING_INT
                fields[f.name] = [missing if value is None else value for value in column]
        tie = np.array([_tie(event) for _, event, _ in mine], np.uint64)
        offset = np.array([offset for offset, *_ in mine])
        out[stream] = Rows(stream, offset, np.minimum(raw, arrived_at), raw, arrived_at, tie, fields)
    return out


def _tie(event: Accepted) -> int:
    digest = hashlib.blake2b(f"{event.stream}\0{event.id}".encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "little")


class _Crashing:
    """One disordered stream, whose writer is on its way to its end; `process` is that writer."""

    def __init__(
        self,
        views: Sequence[View],
        schemas: Mapping[str, Schema],
        batches: Sequence[Sequence[Delivery]],
        folder: Path,
        random: np.random.Generator,
    ) -> None:
        self._views, self._schemas, self._batches, self._folder, self._random = views, schemas, batches, folder, random
        self._last = int(random.integers(min(1, len(batches) - 1), len(batches)))
        moment = MOMENTS[int(random.integers(len(MOMENTS)))]
        self.process: subprocess.Popen[bytes] = start(folder, views, batches[: self._last + 1], moment)

    def go_on(self, proof: Proof) -> None:
        """Takes over what the crash left, and compares the engines from there to the end."""
        finish(self.process, self._folder)
        proof.crashes += 1
        with (
            closing(SqliteLog(self._folder / "log.sqlite", list(self._schemas.values()))) as log,
            closing(LmdbStore(self._folder / "store")) as store,
        ):
            # Nobody heard of the last batch, and an answer may have been lost on its way: both are sent again.
            for batch in self._batches[max(0, self._last - 1) :]:
                proof.duplicates += log.append([e for e, _ in batch], [arrived for _, arrived in batch]).duplicates
            rows = _once(self._batches, self._schemas, log.strings)
            for stream, found in _differing(rows, log.read(0, log.end)).items():
                proof.mismatches[f"log.{stream}"] += found
            self._compare(proof, log, store, rows)
        proof.streams += 1

    def _compare(self, proof: Proof, log: SqliteLog, store: Store, rows: Mapping[str, Rows]) -> None:
        random = self._random
        naive, batch = NaiveEngine(rows, self._views, log.strings), BatchEngine(rows, log.strings)
        engine = StreamEngine(log, store, self._views)
        with store.snapshot() as snapshot:
            begin = min(snapshot.offset, log.end)
        for stop in [begin, *sorted(random.integers(begin, log.end + 1, 2).tolist()), log.end]:
            while engine.behind() > log.end - stop:
                engine.step(min(int(random.integers(1, 60)), engine.behind() - (log.end - stop)))
            # Delivered once more: what the store has seen must not count twice.
            engine.apply(log.read(max(0, stop - 20), stop), max(0, stop - 20), stop)
            if stop:
                _compare_at(proof, self._views, rows, stop, naive, batch, store, random)


def _differing(expected: Mapping[str, Rows], held: Mapping[str, Rows]) -> Counter[str]:
    """How many events of each stream are lost, doubled or changed."""
    out: Counter[str] = Counter()
    for stream, part in expected.items():
        wanted, found = _records(part), _records(held[stream]) if stream in held else []
        if wanted != found:
            out[stream] = sum(((Counter(wanted) - Counter(found)) + (Counter(found) - Counter(wanted))).values())
    return out


def _records(part: Rows) -> list[tuple[Any, ...]]:
    columns = (part.offset, part.time, part.raw_time, part.arrived, part.tie)
    return list(zip(*(column.tolist() for column in columns), map(bytes, part.fields), strict=True))


def _compare_at(
    proof: Proof,
    views: Sequence[View],
    rows: Mapping[str, Rows],
    stop: int,
    naive: NaiveEngine,
    batch: BatchEngine,
    store: Store,
    random: np.random.Generator,
) -> None:
    newest = max(int(part.time[part.offset < stop].max(initial=0)) for part in rows.values())
    now = newest + int(random.integers(0, 3_600)) * SECOND
    for view in views:
        part = rows.get(view.stream)
        if part is None:
            continue
        keys = np.unique(np.stack([part.fields[f] for f in view.by], axis=1), axis=0)[:100] if view.by else None
        codes = keys if keys is not None else np.zeros((1, 0), np.uint32)
        n = len(codes)
        oracle = naive.table(view, codes, now, stop)
        with store.snapshot() as snapshot:
            names = [view.key(key) for key in codes.tolist()]
            streamed = fold(view, decode(view, snapshot.get(view.version, names)), np.full(n, now))
        batched = batch.values(view, codes, np.full(n, now), np.full(n, stop))
        for name, expected in oracle.items():
            proof.values += 2 * n
            for got in (streamed[name], batched[name]):
                if got.astype(expected.dtype).tobytes() != expected.tobytes():
                    proof.mismatches[f"{view.name}.{name}"] += int((got != expected).sum()) or n
