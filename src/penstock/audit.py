"""The proof that serving saw what training sees: decisions recomputed from the log by the naive engine.

`served` recomputes decisions that were answered, at the offset each one logged, with all its candidates.
`shuffled` replays the app's own events shuffled, duplicated, delayed and with crashes, and compares engines.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.clock import SECOND
from penstock.engines import BatchEngine, NaiveEngine, StreamEngine
from penstock.events import RowsLog
from penstock.features import View
from penstock.features.assemble import Read
from penstock.features.records import decode, fold
from penstock.releases import Release
from penstock.retrieve import Query
from penstock.serve.decisions import DIGEST, Decided, DecisionLog, digests
from penstock.stores import LmdbStore
from penstock.types import Array, Log, Progress, Rows, Store, Strings


@dataclass
class Audit:
    """What an audit of served decisions found.

    Attributes:
        decisions: recomputed; `rows`: their candidates; `values`: rows times features.
        mismatches: rows of decisions whose digest differs, by feature; empty when serving told the truth.
        stale: decisions that missed an event accepted before them; `stale_ms` by how long, at most (freshness).
        late: decisions for which an event that had happened had not arrived yet (lateness: nobody could know).
    """

    decisions: int = 0
    rows: int = 0
    values: int = 0
    mismatches: Counter[str] = field(default_factory=Counter)
    stale: int = 0
    stale_ms: float = 0.0
    late: int = 0
    wrong: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "audit_decisions": self.decisions,
            "audit_rows": self.rows,
            "audit_values": self.values,
            "audit_mismatches": sum(self.mismatches.values()),
            "audit_mismatches_by_feature": dict(self.mismatches),
            "audit_wrong_decisions": self.wrong[:20],
            "stale_decisions": self.stale,
            "stale_ms_max": self.stale_ms,
            "late_decisions": self.late,
        }


def served(
    log: Log,
    decided: Sequence[Decided],
    releases: Mapping[str, Release],
    *,
    most: int = 500,
    seed: int = 0,
    progress: Progress | None = None,
) -> Audit:
    """Recomputes up to `most` decisions, drawn at random, with all their candidates.

    Args:
        log: the event log that they were served from.
        decided: logged decisions; those without features (fallback tiers) are passed over.
        releases: by id, those that the decisions name.
        seed: of the draw.
    """
    usable = [d for d in decided if d.digests and d.release in releases]
    drawn = np.random.default_rng(seed).permutation(len(usable))[:most]
    audit = Audit()
    if not len(drawn):
        return audit
    rows = log.read(0, log.end)
    views = {v.version: v for release in releases.values() for v in release.recipe.views}
    naive = NaiveEngine(rows, list(views.values()), log.strings)
    arrivals = _Arrivals(rows)
    for done, i in enumerate(np.sort(drawn).tolist(), 1):
        one = usable[i]
        release = releases[str(one.release)]
        _check(audit, one, release, naive, log.strings)
        arrivals.note(audit, one)
        if progress:
            progress(done, len(drawn))
    return audit


def logged(path: Path) -> list[Decided]:
    """The decisions that a home folder's decision log holds; none where there is no log yet."""
    if not path.exists():
        return []
    log = DecisionLog(path)
    try:
        return log.read(audited=True)
    finally:
        log.close()


def _check(audit: Audit, one: Decided, release: Release, naive: NaiveEngine, strings: Strings) -> None:
    recipe = release.recipe
    read = _naive_read(naive, one.time, one.offset)
    codes = {recipe.by: one.entity, **{name: str(one.context.get(name) or "") for name in recipe.context}}
    keys = {name: np.array([strings.code(text)], np.uint32) for name, text in codes.items()}
    opened = recipe.assembler.open(read, keys, np.array([one.time]))
    items = one.items[: len(one.found_by)]
    scores = _plain_scores(release, opened.lists(0), items)
    matrix = recipe.assembler.matrix(read, opened, np.zeros(len(items), np.int64), items, scores)
    expected = digests(matrix.rows)
    audit.decisions += 1
    audit.rows += len(items)
    audit.values += len(items) * len(recipe.assembler.names)
    for place, name in enumerate(recipe.assembler.names):
        at = slice(place * DIGEST, (place + 1) * DIGEST)
        if expected[at] != one.digests[at]:
            audit.mismatches[name] += len(items)
            if one.id not in audit.wrong:
                audit.wrong.append(one.id)


def _plain_scores(
    release: Release, lists: Mapping[str, NDArray[np.uint32]], items: NDArray[np.uint32]
) -> NDArray[np.float64]:
    """The source scores of logged candidates, by each source's plain definition."""
    recipe = release.recipe
    out = np.full((len(items), len(recipe.assembler.scores)), np.nan)
    column = 0
    for source in recipe.sources:
        width = len(source.columns)
        if width:
            plain = source.plain(Query(lists, {}), release.indexes.get(source.label, {}))
            for row, item in enumerate(items.tolist()):
                if item in plain:
                    out[row, column : column + width] = plain[item]
        column += width
    return out


def _naive_read(naive: NaiveEngine, now: int, known: int) -> Read:
    def read(view: View, keys: NDArray[np.uint32], at: NDArray[np.int64]) -> Mapping[str, Array]:
        return naive.table(view, keys, now, known)

    return read


class _Arrivals:
    """When events arrived and when they happened, for telling staleness from lateness."""

    def __init__(self, rows: Mapping[str, Rows]) -> None:
        parts = [part for part in rows.values() if len(part)]
        offset = np.concatenate([part.offset for part in parts])
        order = np.argsort(offset)
        self._arrived = np.concatenate([part.arrived for part in parts])[order]
        self._time = np.concatenate([part.time for part in parts])[order]

    def note(self, audit: Audit, one: Decided) -> None:
        later = slice(one.offset, None)
        missed = self._arrived[later] < one.time
        if missed.any():
            audit.stale += 1
            oldest = int(self._arrived[later][missed].min())
            audit.stale_ms = max(audit.stale_ms, (one.time - oldest) * 1_000 / SECOND)
        audit.late += bool(((self._time[later] < one.time) & (self._arrived[later] > one.time)).any())


@dataclass
class Proof:
    """What replaying the app's own events in disorder found: values compared, and mismatches by feature."""

    streams: int = 0
    values: int = 0
    mismatches: Counter[str] = field(default_factory=Counter)

    def summary(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "proof_streams": self.streams,
            "proof_values": self.values,
            "proof_mismatches": sum(self.mismatches.values()),
            "proof_mismatches_by_feature": dict(self.mismatches),
        }


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

    Each sample is delayed at random, shuffled accordingly and cut into random batches; the store is closed and
    opened between some of them (a crash: the batch after it is applied again from the store's own offset).
    Naive, stream and batch engines must then agree on every entity at several moments.

    Args:
        views: whose features.
        log: where the events are taken from.
        streams: how many disordered streams; `events` in each.
    """
    proof = Proof()
    random = np.random.default_rng(seed)
    if not log.end:
        return proof
    for done in range(streams):
        start = int(random.integers(0, max(1, log.end - events)))
        sample = log.read(start, start + events)
        disordered = _disorder(sample, random)
        with tempfile.TemporaryDirectory() as folder:
            _compare(proof, views, RowsLog(disordered, log.strings), Path(folder), random)
        proof.streams += 1
        if progress:
            progress(done + 1, streams)
    return proof


def _disorder(sample: Mapping[str, Rows], random: np.random.Generator) -> dict[str, Rows]:
    """The same events, some of them delayed by up to hours, in their new order of arrival."""
    total = sum(len(part) for part in sample.values())
    delay = random.integers(0, 7_200 * SECOND, total) * (random.random(total) < 0.3)
    arrived = np.concatenate([part.time for part in sample.values()]) + delay
    offset = np.empty(total, np.int64)
    offset[np.argsort(arrived, kind="stable")] = np.arange(total)
    out = {}
    at = 0
    for stream, part in sample.items():
        mine = slice(at, at + len(part))
        at += len(part)
        moved = Rows(stream, offset[mine], part.time, part.raw_time, arrived[mine], part.tie, part.fields)
        out[stream] = moved.take(np.argsort(offset[mine]))
    return out


def _compare(proof: Proof, views: Sequence[View], log: RowsLog, folder: Path, random: np.random.Generator) -> None:
    rows = log.read(0, log.end)
    naive = NaiveEngine(rows, views, log.strings)
    batch = BatchEngine(rows, log.strings)
    store: Store = LmdbStore(folder)
    engine = StreamEngine(log, store, views)
    for stop in [*sorted(random.integers(1, log.end + 1, 3).tolist()), log.end]:
        while engine.behind() > log.end - stop:
            engine.step(min(int(random.integers(1, 60)), engine.behind() - (log.end - stop)))
        if random.random() < 0.5:
            store.close()
            store = LmdbStore(folder)
            engine = StreamEngine(log, store, views)
        # Delivered once more: what the store has seen must not count twice.
        engine.apply(log.read(max(0, stop - 20), stop), max(0, stop - 20), stop)
        _compare_at(proof, views, rows, stop, naive, batch, store, random)
    store.close()


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
