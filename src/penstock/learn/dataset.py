"""Training rows: what was known when each decision was or would have been made, and what came after."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.engines import BatchEngine
from penstock.errors import ReleaseError
from penstock.features.assemble import Read, Requests
from penstock.features.columns import check_element_wise
from penstock.features.plan import Plan
from penstock.features.view import View
from penstock.learn.impressions import Asks, Impressions, join_outcomes, worths
from penstock.learn.recipe import Candidates, Recipe, popular_lists, retrieve
from penstock.retrieve import Documents, History, Index, Popular, Popularity, PopularLists, Query, Reader, Source
from penstock.types import Array, Micros, Progress, Rows, Strings


@dataclass(frozen=True)
class Labels:
    """R moments of decision and the item that came next: (R,) columns, in offset order.

    The events themselves are not below what was `known`. `gain` (R,) is what each is worth to the goal.
    """

    asks: Asks
    item: NDArray[np.uint32]
    gain: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.item)

    def take(self, index: Array) -> Labels:
        return Labels(self.asks.take(index), self.item[index], self.gain[index])


@dataclass(frozen=True)
class Dataset:
    """Candidate rows of many requests, request after request.

    `rows` (n, features) float32; `owner` (n,) is each row's request; `positive` (n,) marks the item that came
    next; `groups` (R,) counts the rows of each request. `gain` (n,) is what came of each row, in the goal's worth;
    `place` (n,) the position from 0 at which a decision showed it, -1 where none did. `asks` are the requests, where
    features were read for them.
    """

    rows: NDArray[np.float32]
    owner: NDArray[np.int64]
    positive: NDArray[np.bool_]
    groups: NDArray[np.int64]
    candidates: Sequence[Candidates]
    gain: NDArray[np.float64]
    place: NDArray[np.int64]
    asks: Asks | None = None

    def keep(self, which: NDArray[np.bool_]) -> Dataset:
        """The same requests with only some of their rows, `which` (n,)."""
        groups = np.bincount(self.owner[which], minlength=len(self.groups)).astype(np.int64)
        edges = np.r_[0, np.cumsum(self.groups)]
        candidates = [part.take(which[edges[i] : edges[i + 1]]) for i, part in enumerate(self.candidates)]
        columns: dict[str, Any] = {
            f.name: getattr(self, f.name)[which] for f in fields(self) if f.name not in ("groups", "candidates", "asks")
        }
        return Dataset(**columns, groups=groups, candidates=candidates, asks=self.asks)


class Replay:
    """The log, opened for asking what was known at any offset."""

    def __init__(self, recipe: Recipe, rows: Mapping[str, Rows], strings: Strings) -> None:
        self.recipe = recipe
        if recipe.stream not in rows:
            raise ReleaseError(
                f"training {recipe.name} needs events of {recipe.stream}",
                got="none",
                remedy="penstock ingest FILE first",
            )
        self.rows = rows[recipe.stream]
        self.strings = strings
        self._batch = BatchEngine(rows, strings)
        self._newest = np.r_[0, np.maximum.accumulate(self.rows.time)] if len(self.rows) else np.zeros(1, np.int64)
        self._fitted: dict[int, dict[str, Index]] = {}
        self._took: dict[int, dict[str, float]] = {}

    def of(self, recipe: Recipe) -> Replay:
        """The same log for another recipe on its stream."""
        other = Replay(recipe, {recipe.stream: self.rows}, self.strings)
        mine = {source.label: source for source in self.recipe.sources}
        same = {source.label for source in recipe.sources if mine.get(source.label) == source}
        other._fitted = {
            before: {label: index for label, index in indexes.items() if label in same}
            for before, indexes in self._fitted.items()
        }
        return other

    def labels(self, start: int, stop: int) -> Labels:
        """The goal's events with start ≤ time < stop (microseconds), each a decision just before it."""
        recipe, rows = self.recipe, self.rows
        check_element_wise(recipe.rank.filter, recipe.views[0].schema, f"{recipe.name}.goal")
        at = np.flatnonzero((rows.time >= start) & (rows.time < stop))
        part = rows.take(at)
        worth = worths(recipe, part, self.strings)
        counts = (worth > 0) & (part.fields[recipe.by] != 0) & (part.fields[recipe.item] != 0)
        at, worth = at[counts], worth[counts]
        context = {name: rows.fields[name][at] for name in recipe.context}
        now = np.maximum(rows.time[at], self._newest[at])
        texts = {name: spelled(context[name], self.strings) for name in recipe.asks}
        asks = Asks(rows.fields[recipe.by][at], now, rows.offset[at], context, texts)
        return Labels(asks, rows.fields[recipe.item][at], worth)

    def fit(
        self, before: int, seconds: dict[str, float] | None = None, kept: Mapping[str, Index] | None = None
    ) -> dict[str, Index]:
        """The indexes of the recipe's sources, learned from the events below an offset; they are kept, to go on from.

        Args:
            seconds: gets by label what each source's index takes to learn, with that which it went on from.
            kept: by label, indexes to take as they are.
        """
        known = self._fitted.setdefault(before, {})
        known |= {label: index for label, index in (kept or {}).items() if label not in known}
        missing = [source for source in self.recipe.sources if source.label not in known]
        earlier: dict[str, Index] = {}
        before_that: dict[str, float] = {}
        for offset in sorted(offset for offset in self._fitted if offset < before):
            earlier |= self._fitted[offset]
            before_that |= self._took.get(offset, {})
        if missing:
            took: dict[str, float] = {}
            recipe = replace(self.recipe, sources=tuple(missing))
            known |= fit_indexes(recipe, self.rows, self.strings, before, earlier, took)
            mine = self._took.setdefault(before, {})
            for source in missing:
                went_on_from = before_that.get(source.label, 0.0) if source.goes_on else 0.0
                mine[source.label] = took[source.label] + went_on_from
        if seconds is not None:
            mine = self._took.get(before, {})
            seconds |= {source.label: mine.get(source.label, 0.0) for source in self.recipe.sources}
        return {source.label: known[source.label] for source in self.recipe.sources}

    def until(self, offset: int) -> Replay:
        """The log as it was when it held nothing from this offset on, with what had been learned before."""
        stop = int(np.searchsorted(self.rows.offset, offset))
        other = type(self)(self.recipe, {self.recipe.stream: self.rows.take(slice(0, stop))}, self.strings)
        other._fitted = {before: dict(indexes) for before, indexes in self._fitted.items() if before < offset}
        return other

    def newest(self, before: int) -> dict[str, Index]:
        """The newest indexes at hand that know nothing from an offset on; fitted up to it where there are none."""
        labels = {source.label for source in self.recipe.sources}
        held = [offset for offset, known in self._fitted.items() if offset <= before and labels <= known.keys()]
        return self.fit(max(held, default=before))

    def products(self, data: Dataset, source: Source, index: Index) -> NDArray[np.float64]:
        """What a source looks for at each request, times the rows' item vectors (`Source.products`): (n, width)."""
        assert data.asks is not None
        opened = self._open(data.asks)
        parts = [
            source.products(Query(opened.lists(i), {}, data.asks.said(i)), index, c.items)
            for i, c in enumerate(data.candidates)
        ]
        return np.concatenate([part for part in parts if part is not None])

    def read(self, asks: Asks) -> Read:
        """How views are read for these moments: as known at each one's offset."""

        def read(view: View, keys: NDArray[np.uint32], at: NDArray[np.int64]) -> Mapping[str, Array]:
            return self._batch.values(view, keys, asks.now[at], asks.known[at])

        return read

    def build(
        self,
        labels: Labels,
        indexes: Mapping[str, Index],
        *,
        negatives: int | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> Dataset:
        """Finds candidates for each label and gives their rows.

        Args:
            negatives: keep only requests whose item was found, with so many others drawn at random;
                None keeps every candidate of every request.
        """
        opened = self._open(labels.asks)
        found = self._candidates(labels.asks, opened, indexes, progress)
        positives = [part.items == item for part, item in zip(found, labels.item.tolist(), strict=True)]
        if negatives is not None:
            random = np.random.default_rng(seed)
            sampled = [_sample(c, p, negatives, random) for c, p in zip(found, positives, strict=True)]
            found, positives = [c for c, _ in sampled], [p for _, p in sampled]
        gains = [p * worth for p, worth in zip(positives, labels.gain.tolist(), strict=True)]
        return self._rows(labels.asks, opened, found, gains)

    def judge(
        self,
        shown: Impressions,
        indexes: Mapping[str, Index],
        *,
        window: Micros,
        as_of: Micros,
        progress: Progress | None = None,
        every: bool = False,
    ) -> Dataset:
        """The rows of items that were shown, marked by what came of them.

        Only decisions of which something came are kept (a ranker learns nothing from the others), and of their
        items those whose outcome is known: it came, or its window has closed.

        Args:
            shown: what decisions showed.
            window: how long after being shown an item an event still counts as its outcome, microseconds.
            as_of: the moment of training, microseconds; what arrived later is not known.
            every: keep all decisions, and only items whose window has closed, for asking how often something came.
        """
        rows = {self.recipe.stream: self.rows}
        came = join_outcomes(shown.flat(), self.recipe, rows, self.strings, window=window, as_of=as_of)
        known = came.mature if every else came.positive | came.mature
        useful = np.unique(shown.owner[known if every else came.positive])
        asks = shown.asks.take(useful)
        opened = self._open(asks)
        found, gains, places = [], [], []
        edges = np.searchsorted(shown.owner, np.arange(len(shown.asks) + 1))
        for one, candidates in zip(useful.tolist(), self._candidates(asks, opened, indexes, progress), strict=True):
            at = np.arange(edges[one], edges[one + 1])
            first, at = edges[one], at[known[at]]
            found.append(candidates.of(shown.item[at]))
            gains.append(came.gain[at])
            places.append(at - first)
        return self._rows(asks, opened, found, gains, places)

    def _rows(
        self,
        asks: Asks,
        opened: Requests,
        found: list[Candidates],
        gains: list[NDArray[np.float64]],
        places: list[NDArray[np.int64]] | None = None,
    ) -> Dataset:
        recipe = self.recipe
        groups = np.array([len(c.items) for c in found], np.int64)
        owner = np.repeat(np.arange(len(found)), groups)
        items = np.concatenate([np.zeros(0, np.uint32), *(c.items for c in found)])
        scores = np.concatenate([np.zeros((0, len(recipe.assembler.scores))), *(c.scores for c in found)])
        rows = recipe.assembler.matrix(self.read(asks), opened, owner, items, scores).rows
        gain = np.concatenate([np.zeros(0), *gains])
        place = np.full(len(gain), -1) if places is None else np.concatenate([np.zeros(0, np.int64), *places])
        return Dataset(rows.astype(np.float32), owner, gain > 0, groups, found, gain, place, asks)

    def candidates(self, labels: Labels, indexes: Mapping[str, Index]) -> list[Candidates]:
        """What each label's request would have found, without features."""
        return self._candidates(labels.asks, self._open(labels.asks), indexes, None)

    def find_seconds(self, labels: Labels, indexes: Mapping[str, Index]) -> dict[str, float]:
        """The median time in which each source finds its candidates for these labels, by label; "" is all, joined."""
        spent: dict[str, list[float]] = {"": [], **{source.label: [] for source in self.recipe.sources}}

        def time(query: Query) -> None:
            for source in self.recipe.sources:
                start = perf_counter()
                source.find(query, indexes.get(source.label, {}))
                spent[source.label].append(perf_counter() - start)
            start = perf_counter()
            retrieve(self.recipe, query, indexes)
            spent[""].append(perf_counter() - start)

        self._candidates(labels.asks, self._open(labels.asks), indexes, None, time)
        return {label: float(np.median(seconds)) if seconds else 0.0 for label, seconds in spent.items()}

    def _open(self, asks: Asks) -> Requests:
        keys = {self.recipe.by: asks.key, **asks.context}
        return self.recipe.assembler.open(self.read(asks), keys, asks.now)

    def _candidates(
        self,
        asks: Asks,
        opened: Requests,
        indexes: Mapping[str, Index],
        progress: Progress | None,
        watch: Callable[[Query], None] | None = None,
    ) -> list[Candidates]:
        lists = popularity_at(self.recipe, self.rows, self.strings, asks.known)
        found = []
        for i in range(len(asks)):
            mine = opened.lists(i)
            query = Query(mine, popular_lists(self.recipe, mine, lists[i]), asks.said(i))
            found.append(retrieve(self.recipe, query, indexes))
            if watch:
                watch(query)
            if progress and i % 100 == 99:
                progress(i + 1, len(asks))
        return found


def _sample(
    found: Candidates, positive: NDArray[np.bool_], negatives: int, random: np.random.Generator
) -> tuple[Candidates, NDArray[np.bool_]]:
    at = np.flatnonzero(positive)
    if len(at):
        others = np.flatnonzero(~positive)
        at = np.sort(np.r_[at, random.permutation(others)[:negatives]])
    return found.take(at), positive[at]


def fit_indexes(
    recipe: Recipe,
    rows: Rows,
    strings: Strings,
    before: int,
    earlier: Mapping[str, Index],
    seconds: dict[str, float],
) -> dict[str, Index]:
    """Each source's index, from the events below offset `before` that its list feature counts.

    Args:
        earlier: indexes of the same sources, learned from fewer events.
        seconds: gets by label what each source took.
    """
    past = rows.take(slice(0, int(np.searchsorted(rows.offset, before))))
    histories: dict[str, History] = {}
    for need in {need for source in recipe.sources for need in source.needs()}:
        if need in recipe.lists:
            view, name = recipe.lists[need]
            inputs = Plan([view]).inputs(past, strings)[view.version, name] if len(past) else None
            at = np.flatnonzero(inputs.counts) if inputs is not None else np.zeros(0, np.int64)
            owner = past.fields[recipe.by][at]
            order = np.argsort(owner, kind="stable")
            values = inputs.values[at][order] if inputs is not None else np.zeros(0, np.uint32)
            histories[need] = History(owner[order], values, past.time[at][order], past.offset[at][order])
    reads = {name for source in recipe.sources if isinstance(source, Reader) for name in source.reads()}
    documents = latest_texts(recipe, past, strings, sorted(reads)) if reads else None
    out: dict[str, Index] = {}
    for source in recipe.sources:
        start = perf_counter()
        if documents and isinstance(source, Reader):
            out[source.label] = source.learn(documents)
        else:
            out[source.label] = source.fit(histories, earlier.get(source.label))
        seconds[source.label] = perf_counter() - start
    return out


def latest_texts(recipe: Recipe, rows: Rows, strings: Strings, fields: Sequence[str]) -> Documents:
    """What the newest events of each item say in these text fields."""
    item = rows.fields[recipe.item]
    items = np.unique(item[item != 0])
    order = np.lexsort((rows.tie, rows.time, item))
    texts = {}
    for name in fields:
        at = order[(rows.fields[name][order] != 0) & (item[order] != 0)]
        last = np.flatnonzero(np.r_[item[at][1:] != item[at][:-1], True][: len(at)])
        codes = np.zeros(len(items), np.uint32)
        codes[np.searchsorted(items, item[at][last])] = rows.fields[name][at][last]
        texts[name] = spelled(codes, strings).tolist()
    return Documents(items, texts)


def spelled(codes: NDArray[np.uint32], strings: Strings) -> NDArray[np.object_]:
    """The texts of codes (n,), "" for a missing one."""
    known, inverse = np.unique(codes, return_inverse=True)
    texts = ["" if not code else text for code, text in zip(known.tolist(), strings.texts(known), strict=True)]
    return np.array(texts, object)[inverse]


def popularity_at(
    recipe: Recipe, rows: Rows, strings: Strings, known: NDArray[np.int64]
) -> list[dict[str, PopularLists]]:
    """For each (ascending) offset the popular lists that live counting would have had there."""
    out: list[dict[str, PopularLists]] = [{} for _ in known]
    schema = recipe.views[0].schema
    for source in recipe.sources:
        if not isinstance(source, Popular) or not len(known):
            continue
        counts = Popularity(source, schema, recipe.item)
        tile = np.maximum.accumulate(rows.time // source.hop)
        first = int(np.searchsorted(rows.offset, known[0]))
        turns = [first, *(np.flatnonzero(tile[1:] > tile[:-1]) + 2).tolist(), len(rows)]
        turns = [turn for turn in turns if turn >= first]
        at = 0
        offsets: list[int] = []
        states: list[PopularLists] = []
        for turn in turns:
            if turn > at:
                counts.add(rows.take(slice(at, turn)), strings)
                at = turn
            offsets.append(turn)
            states.append(counts.lists)
        position = np.searchsorted(rows.offset, known)
        for i, state in enumerate((np.searchsorted(offsets, position, side="right") - 1).tolist()):
            out[i][source.label] = states[max(state, 0)]
    return out
