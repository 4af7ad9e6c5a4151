"""Served decisions recomputed from the log by the naive engine, at the offset each one logged, with all candidates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.clock import SECOND
from penstock.engines import NaiveEngine
from penstock.events import ties
from penstock.features import View
from penstock.features.assemble import Read
from penstock.releases import Bundle, Release, VerdictRelease
from penstock.retrieve import Query
from penstock.serve.decisions import DIGEST, Decided, digests
from penstock.types import Array, Log, Progress, Rows, Strings


@dataclass
class Audit:
    """What an audit of served decisions found.

    Attributes:
        decisions: recomputed; `rows`: their candidates; `values`: rows times features.
        mismatches: rows of decisions whose digest differs, by feature; empty when serving told the truth.
        stale: decisions that missed an event accepted before them; `stale_ms` by how long, at most (freshness).
        changed: decisions that knew events which were erased since, and differ; `lost` the values that differ in
            them, which nobody can recompute any more. They are not among `values`.
        late: decisions for which an event that had happened had not arrived yet (lateness: nobody could know).
    """

    decisions: int = 0
    rows: int = 0
    values: int = 0
    mismatches: Counter[str] = field(default_factory=Counter)
    stale: int = 0
    stale_ms: float = 0.0
    late: int = 0
    changed: int = 0
    lost: int = 0
    wrong: list[str] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "audit_decisions": self.decisions,
            "audit_rows": self.rows,
            "audit_values": self.values,
            "audit_mismatches": sum(self.mismatches.values()),
            "audit_mismatches_by_feature": dict(self.mismatches),
            "audit_changed_by_erasure": self.changed,
            "audit_values_lost_by_erasure": self.lost,
            "audit_wrong_decisions": self.wrong[:20],
            "stale_decisions": self.stale,
            "stale_ms_max": self.stale_ms,
            "late_decisions": self.late,
        }


def served(
    log: Log,
    decided: Sequence[Decided],
    releases: Mapping[str, Bundle],
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
        erased = any(erasure.concerns(one.offset) for erasure in log.erasures)
        _check(audit, one, release, naive, log.strings, erased)
        own = None
        if one.verdict is not None and isinstance(release, VerdictRelease):
            own = ties(release.recipe.schema.stream, [one.verdict["event"]])[0]
        arrivals.note(audit, one, own)
        if progress:
            progress(done, len(drawn))
    return audit


def _check(audit: Audit, one: Decided, release: Bundle, naive: NaiveEngine, strings: Strings, erased: bool) -> None:
    recipe = release.recipe
    rows = recomputed_rows(one, release, naive, strings)
    expected = digests(rows)
    audit.decisions += 1
    audit.rows += len(rows)
    audit.values += len(rows) * len(recipe.assembler.names)
    cut = [slice(place * DIGEST, (place + 1) * DIGEST) for place in range(len(recipe.assembler.names))]
    differ = [name for name, at in zip(recipe.assembler.names, cut, strict=True) if expected[at] != one.digests[at]]
    if differ and erased:
        audit.changed += 1
        audit.lost += len(rows) * len(differ)
        audit.values -= len(rows) * len(differ)
    elif differ:
        audit.mismatches.update(dict.fromkeys(differ, len(rows)))
        audit.wrong.append(one.id)


@dataclass(frozen=True)
class Recomputed:
    """What one decision should have seen.

    `items` (n,) uint32 codes of its candidates; `scores` (n, c) of the sources, NaN where one did not find an
    item; `rows` (n, features) as ranked; `lists` the shopper's list features; `attributes` (n,) codes of the
    candidates' own, by name; `query` what the sources were asked, but for popular lists.
    """

    items: NDArray[np.uint32]
    scores: NDArray[np.float64]
    rows: NDArray[np.float64]
    lists: Mapping[str, NDArray[np.uint32]]
    attributes: Mapping[str, NDArray[np.uint32]]
    query: Query


def recomputed_rows(one: Decided, release: Bundle, naive: NaiveEngine, strings: Strings) -> NDArray[np.float64]:
    """The features, (n, features), that a logged decision of whatever kind should have seen."""
    if isinstance(release, Release):
        return recomputed(one, release, naive, strings).rows
    assert isinstance(release, VerdictRelease)
    recipe = release.recipe
    read = _naive_read(naive, one.time, one.offset)
    keys = {name: np.array([strings.code(str(one.context[name] or ""))], np.uint32) for name in recipe.keys}
    opened = recipe.assembler.open(read, keys, np.array([one.time]))
    values = [one.context[name] for name in recipe.numbers]
    numbers = np.array([[np.nan if value is None else float(value) for value in values]])
    return recipe.assembler.matrix(read, opened, np.zeros(1, np.int64), np.zeros(1, np.uint32), numbers).rows


def recomputed(one: Decided, release: Release, naive: NaiveEngine, strings: Strings) -> Recomputed:
    """One logged decision's features, by the naive engine and the sources' plain definitions."""
    recipe = release.recipe
    read = _naive_read(naive, one.time, one.offset)
    codes = {recipe.by: one.entity, **{name: str(one.context.get(name) or "") for name in recipe.context}}
    keys = {name: np.array([strings.code(text)], np.uint32) for name, text in codes.items()}
    opened = recipe.assembler.open(read, keys, np.array([one.time]))
    items = one.items[: len(one.found_by)]
    lists = opened.lists(0)
    query = Query(lists, {}, {name: codes[name] for name in recipe.context})
    scores = _plain_scores(release, query, items)
    matrix = recipe.assembler.matrix(read, opened, np.zeros(len(items), np.int64), items, scores)
    return Recomputed(items, scores, matrix.rows, lists, matrix.attributes, query)


def _plain_scores(release: Release, query: Query, items: NDArray[np.uint32]) -> NDArray[np.float64]:
    """The source scores of logged candidates, proposed by it or not, by each source's plain definitions."""
    recipe = release.recipe
    out = np.full((len(items), len(recipe.assembler.scores)), np.nan)
    column = 0
    for source in recipe.sources:
        width = len(source.columns)
        if width:
            index = release.indexes.get(source.label, {})
            others = source.plain_others(query, index) if recipe.others else {}
            plain = others | source.plain(query, index)
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
        none = np.zeros(0, np.int64)
        offset = np.concatenate([none, *(part.offset for part in parts)])
        order = np.argsort(offset)
        self._offset = offset[order]
        self._arrived = np.concatenate([none, *(part.arrived for part in parts)])[order]
        self._time = np.concatenate([none, *(part.time for part in parts)])[order]
        self._tie = np.concatenate([none.astype(np.uint64), *(part.tie for part in parts)])[order]

    def note(self, audit: Audit, one: Decided, own: np.uint64 | None) -> None:
        """Takes down one decision; `own` is the tie of the event that it was asked with."""
        begin = int(np.searchsorted(self._offset, one.offset))
        later = np.arange(begin, len(self._offset))
        if own is not None:
            later = later[self._tie[begin:] != own]
        missed = self._arrived[later] < one.time
        if missed.any():
            audit.stale += 1
            oldest = int(self._arrived[later][missed].min())
            audit.stale_ms = max(audit.stale_ms, (one.time - oldest) * 1_000 / SECOND)
        audit.late += bool(((self._time[later] < one.time) & (self._arrived[later] > one.time)).any())
