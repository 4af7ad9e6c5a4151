"""Sources and a ranker over plain sequences of items, as a release has them, judged on all items.

Sources learn from sequences without their newest part; the ranker learns which of their candidates came next in that
part; then the sources learn anew from everything. Nothing that is judged is seen by either.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from penstock.clock import MINUTE
from penstock.learn import Candidates, Fusion, LambdaRank, Model, Trees, fit_trees
from penstock.retrieve import History, Index, Query, Source
from penstock.types import Array

Sequence_ = Sequence[int]
_CHUNK = 2_000


def history(lists: Sequence[Sequence_]) -> History:
    """Each list as one shopper's visits, oldest first, a minute apart."""
    size = np.array([len(part) for part in lists], np.int64)
    owner = np.repeat(np.arange(1, len(lists) + 1, dtype=np.uint32), size)
    item = np.array([code for part in lists for code in part], np.uint32)
    # Later lists end later, so that sessions rank as new as they are.
    time = (np.repeat(np.arange(len(lists)), size) + np.arange(len(item))) * MINUTE
    return History(owner, item, time.astype(np.int64))


@dataclass(frozen=True)
class Asked:
    """Questions: what was visited so far, oldest first, and what came next."""

    before: Sequence[Sequence_]
    after: NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.before)


@dataclass
class Pipeline:
    """Sources, and boosted trees over what they say of each candidate.

    Args:
        sources: fitted on sequences of items, each the shopper's `recent` list.
        rank: the trees' parameters.
        most: candidates a question.
        items: codes are below this.
    """

    sources: Sequence[Source]
    rank: LambdaRank
    most: int
    items: int
    attributes: Mapping[str, History] | None = None

    def fit_sources(self, lists: Sequence[Sequence_], about: Callable[[History], Mapping[str, History]]) -> None:
        """Fits every source, and counts visits."""
        past = history(lists)
        known = {"recent": past, **about(past)}
        self.indexes: list[Index] = []
        for source in self.sources:
            began = perf_counter()
            self.indexes.append(source.fit(known))
            say(f"{source.label} fitted in {perf_counter() - began:.0f} s")
        self.visits = np.bincount(past.item, minlength=self.items).astype(np.float64)
        newest = past.item[len(past.item) * 7 // 8 :]
        self.lately = np.bincount(newest, minlength=self.items).astype(np.float64)

    @property
    def names(self) -> list[str]:
        columns = [column for source in self.sources for column in source.columns]
        places = [f"{source.label}.place" for source in self.sources]
        return [*columns, *places, "seen_back", "seen_times", "visits", "visits_lately", "length", "found_by"]

    @property
    def _places(self) -> slice:
        """The columns that tell each item's place in each source's list."""
        first = sum(len(source.columns) for source in self.sources)
        return slice(first, first + len(self.sources))

    def candidates(self, before: Sequence_) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
        """The candidates of one question and their rows, (n, features); none where no source knows what was visited."""
        newest_first = np.array(before[::-1], np.uint32)
        query = Query({"recent": newest_first}, {})
        found = [source.find(query, index) for source, index in zip(self.sources, self.indexes, strict=True)]
        items, first = np.unique(np.concatenate([part.items for part in found]), return_index=True)
        items = items[np.argsort(first, kind="stable")][: self.most]
        order = np.argsort(items)
        rows = np.full((len(items), len(self.names)), np.nan, np.float32)
        if not len(items):
            return items, rows
        column, place = 0, self._places.start
        for source, part in zip(self.sources, found, strict=True):
            at = np.searchsorted(items[order], part.items)
            at = np.minimum(at, len(items) - 1)
            kept = np.flatnonzero(items[order[at]] == part.items)
            row, width = order[at[kept]], len(source.columns)
            if part.others is not None:
                rows[:, column : column + width] = part.others(items)
            rows[row, column : column + width] = part.scores[kept]
            rows[row, place] = kept
            column, place = column + width, place + 1
        own = newest_first[:, None] == items
        some = own.any(axis=0)
        rows[some, place] = own.argmax(axis=0)[some]
        rows[:, place + 1] = own.sum(axis=0)
        rows[:, place + 2], rows[:, place + 3] = self.visits[items], self.lately[items]
        rows[:, place + 4] = len(before)
        places = rows[:, place - len(self.sources) : place]
        rows[:, place + 5] = (~np.isnan(places)).sum(axis=1)
        return items, rows

    def fit_rank(self, asked: Asked) -> Model:
        """The ranker, from the questions whose answer is among their candidates.

        Where those tell too little for a single split, the sources' lists are fused by rank.
        """
        parts, positive, groups = [], [], []
        for number, (before, after) in enumerate(zip(asked.before, asked.after.tolist(), strict=True)):
            if number % 5_000 == 0:
                say(f"rows to learn from: {number:,} of {len(asked):,}")
            items, rows = self.candidates(before)
            right = items == after
            if right.any():
                parts.append(rows)
                positive.append(right)
                groups.append(len(items))
        say(f"{sum(groups):,} rows, {len(groups) / max(len(asked), 1):.1%} of answers among the candidates")
        self.model: Model = Fusion(range(len(self.sources)))
        if groups:
            gain = np.concatenate(positive).astype(float)
            trees = fit_trees(self.rank, np.concatenate(parts), gain, np.array(groups), self.names)
            if trees.importance.any():
                self.model = trees
        return self.model

    @property
    def importance(self) -> dict[str, float]:
        """The gain of each feature's splits; empty where there is nothing but lists fused by rank."""
        if not isinstance(self.model, Trees):
            return {}
        return dict(zip(self.names, self.model.importance.round().tolist(), strict=True))

    def ranks(self, asked: Asked) -> dict[str, NDArray[np.int64]]:
        """The rank of each answer among all items, by the ranker and by each source alone; 0 where it was not found.

        What no source proposed stands behind what some did, and an answer that training does not know (code 0) is never
        found. Of candidates that the ranker scores the same the answer counts as the last. A source's own list keeps
        equal ones in the order of their codes, which are dealt at random (`drawn_codes`): on average the answer stands
        in their middle.
        """
        out = {name: np.zeros(len(asked), np.int64) for name in ["ranker", *(s.label for s in self.sources)]}
        for start in range(0, len(asked), _CHUNK):
            say(f"judged: {start:,} of {len(asked):,}")
            stop = min(start + _CHUNK, len(asked))
            found = [self.candidates(before) for before in asked.before[start:stop]]
            edges = np.r_[0, np.cumsum([len(items) for items, _ in found])]
            joined = np.concatenate([rows for _, rows in found])
            scores = self._scores(np.concatenate([items for items, _ in found]), joined)
            for place, (items, rows) in enumerate(found, start):
                right = np.flatnonzero((items == asked.after[place]) & (items > 0))
                if not len(right):
                    continue
                mine = scores[edges[place - start] : edges[place - start + 1]]
                out["ranker"][place] = int((mine >= mine[right[0]]).sum())
                for source, where in zip(self.sources, rows[right[0], self._places].tolist(), strict=True):
                    out[source.label][place] = 0 if np.isnan(where) else int(where) + 1
        return out

    def _scores(self, items: NDArray[np.uint32], rows: NDArray[np.float32]) -> NDArray[np.float64]:
        place = rows[:, self._places].astype(np.float64)
        return self.model.score(rows, Candidates(items, np.zeros((len(items), 0)), place))


def drawn_codes(names: Iterable[str]) -> dict[str, int]:
    """Codes from 1 on, dealt at random: files number items as they first appear, and ties are broken by code."""
    known = list(names)
    order = np.random.default_rng(11).permutation(len(known))
    return {name: int(code) + 1 for name, code in zip(known, order.tolist(), strict=True)}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def interval(values: Array, repeats: int = 1_000) -> list[float]:
    """The 95 % bootstrap interval of a mean over questions."""
    random = np.random.default_rng(0)
    n = len(values)
    means = [values[random.integers(0, n, n)].mean() for _ in range(repeats)]
    return [float(end) for end in np.percentile(means, (2.5, 97.5))]
