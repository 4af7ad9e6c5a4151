"""How much of an index a search has to look at for the recall that was asked, and what that costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from time import process_time

import numpy as np
from numpy.typing import NDArray

from penstock.retrieve.vectors.base import Floats, Matrix, Rows, Searcher, Setting, drawn
from penstock.retrieve.vectors.exact import Exact

MANY, _SOME, _FEW = 1_000, 250, 100
_LARGE = 4_000_000
_LITTLE = 100
_SURE = 1.64
"""Standard errors that recall has to be above what was asked: one time in twenty it is not."""
_TIMED = 200
_STEP = 1.08
_WIDEST = 64
"""Candidates that are ranked anew, at most, as a multiple of k."""


@dataclass(frozen=True, eq=False)
class Asked:
    """Queries (m, d) float32 with what is truly nearest, (m, k) rows; `own` (m,) is the row that a query is itself.

    A vector that serves as a query is held out: it is neither looked for nor counted among what is found.
    """

    queries: Floats
    truth: Rows
    own: NDArray[np.int64] | None

    @property
    def k(self) -> int:
        return int(self.truth.shape[1])

    @classmethod
    def of(cls, vectors: Matrix, k: int, *, queries: Floats | None = None, seed: int = 0) -> Asked:
        """Those vectors that are set apart, or some of `queries`, compared with all vectors."""
        if queries is None and len(vectors) == 1:
            own, asked = None, vectors.rows(slice(None))
        elif queries is None:
            # A vector that its centre was learned from is easier to find than one that is not.
            own = drawn(len(vectors), MANY, seed) if vectors.apart is None else vectors.apart
            asked = vectors.rows(own)
        else:
            own = None
            asked = queries[drawn(len(queries), MANY, seed)]
        k = min(k, len(vectors) - (own is not None))
        found = nearest(vectors, asked, k + (own is not None))
        return cls(asked, found if own is None else _without(found, own, k), own)

    def part(self, most: int) -> Asked:
        """Some of them."""
        at = drawn(len(self.queries), most, 0)
        return Asked(self.queries[at], self.truth[at], None if self.own is None else self.own[at])

    def recalls(self, searcher: Searcher, setting: Setting) -> NDArray[np.float64]:
        """Of each query, the share (m,) of what is nearest that is found."""
        more = self.own is not None
        found, _ = searcher.search(self.queries, self.k + more, setting)
        if self.own is not None:
            found = _without(found, self.own, self.k)
        hits: NDArray[np.float64] = (found[:, :, None] == self.truth[:, None, :]).any(axis=1).mean(axis=1)
        return hits


def apart(n: int, seed: int) -> NDArray[np.int64] | None:
    """The rows of those of n vectors that are to measure with; None where all are needed to learn from."""
    return drawn(n, _many(n), seed + 2) if n >= _LITTLE else None


def _many(n: int) -> int:
    return min(MANY if n < _LARGE else MANY // 2, n // 5)


@dataclass(frozen=True)
class Tuned:
    """A setting, the recall that it was measured to have, and processor time a query in seconds."""

    setting: Setting
    recall: float
    seconds: float


def nearest(vectors: Matrix, queries: Floats, k: int) -> Rows:
    """The rows (m, k) of what is nearest to queries (m, d), going through the vectors once, a block at a time."""
    rows = np.zeros((len(queries), 0), np.int64)
    scores = np.zeros((len(queries), 0), np.float32)
    exact = Exact()
    for first, block in vectors.blocks(1 << 18):
        # Normalised already: what is read is compared as it is.
        state = exact.fit(Matrix(block, "l2" if vectors.metric == "l2" else "ip"), seed=0, threads=1)
        found, score = exact.open(state, vectors.metric).search(queries, k, Setting())
        rows, scores = np.concatenate([rows, found + first], axis=1), np.concatenate([scores, score], axis=1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        rows, scores = np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)
    return rows


def tune(searcher: Searcher, asked: Asked, recall: float) -> Tuned | None:
    """The fastest setting whose recall is at least `recall`, with a margin for chance; None where there is none."""
    best: Tuned | None = None
    highest = searcher.probes
    for keep in _keeps(searcher, asked.k):
        setting = _least(searcher, asked, recall, keep, highest)
        if setting is None:
            continue
        if best is not None and setting.probes >= best.setting.probes:
            continue  # more candidates and no fewer probes: whatever the clock says, that is not faster
        highest = setting.probes
        reached = float(asked.recalls(searcher, setting).mean())
        found = Tuned(setting, reached, seconds(searcher, asked, setting))
        if best is not None and found.seconds > 1.3 * best.seconds:
            break
        if best is None or found.seconds < best.seconds:
            best = found
    return best


def seconds(searcher: Searcher, asked: Asked, setting: Setting) -> float:
    """Processor time of one query by itself, whatever else the machine does: the best of three means."""
    some = asked.queries[:_TIMED]
    times = []
    for _ in range(3):
        began, done = process_time(), 0
        for i in range(len(some)):
            searcher.search(some[i : i + 1], asked.k, setting)
            done += 1
            if process_time() - began > 0.2:
                break
        times.append((process_time() - began) / done)
    return min(times)


def grown(searcher: Searcher, asked: Asked, tuned: Tuned, times: float) -> float:
    """Seconds a query is expected to take with `times` as many vectors: lists grow with their root, and so does what
    a probe costs, which is measured by probing more."""
    probes = tuned.setting.probes
    if not searcher.probes:
        return tuned.seconds * times
    more = min(8 * probes, searcher.probes)
    if more == probes:
        return tuned.seconds * sqrt(times)
    a_probe = (seconds(searcher, asked, Setting(more, tuned.setting.keep)) - tuned.seconds) / (more - probes)
    return tuned.seconds + max(a_probe, 0.0) * probes * (sqrt(times) - 1)


def widened(setting: Setting, tuned: int, k: int) -> Setting:
    """A setting that was tuned for so many neighbours, for more of them.

    Candidates grow in proportion. Further neighbours lie in more lists, but less than in proportion.
    """
    if k <= tuned:
        return setting
    times = k / tuned
    return Setting(int(np.ceil(setting.probes * times**0.75)), int(np.ceil(setting.keep * times)))


def _keeps(searcher: Searcher, k: int) -> Iterator[int]:
    if not searcher.keeps or not searcher.probes:
        yield 4 * k if searcher.keeps else 0
        return
    keep = k
    while keep <= min(_WIDEST * k, searcher.size):
        yield keep
        keep = 2 * keep if keep < 4 * k else int(1.3 * keep)


def _least(searcher: Searcher, asked: Asked, recall: float, keep: int, highest: int) -> Setting | None:
    """The fewest probes that reach the recall with so many candidates."""

    def enough(of: Asked, probes: int, margin: bool) -> bool:
        found = of.recalls(searcher, Setting(probes, keep))
        error = _SURE * float(found.std()) / len(found) ** 0.5 if margin else 0.0
        return float(found.mean()) - error >= recall

    if highest < 2:
        return Setting(highest, keep) if enough(asked, highest, True) else None
    if not enough(asked.part(_FEW), highest, False):
        return None
    some = asked.part(_SOME)
    low, high = 0, highest  # low does not reach it, high does
    probe = 1
    while probe < high:
        if enough(some, probe, False):
            high = probe
            break
        low, probe = probe, probe * 2
    while high - low > max(1, int(low * (_STEP - 1))):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(some, middle, False) else (middle, high)
    while not enough(asked, high, True):
        if high >= searcher.probes:
            return None
        high = min(searcher.probes, max(high + 1, int(high * _STEP)))
    return Setting(high, keep)


def _without(rows: Rows, own: NDArray[np.int64], k: int) -> Rows:
    """The first k of each line of rows (m, k + 1), the line's own row left out."""
    other = rows != own[:, None]
    other[other.all(axis=1), k] = False
    kept: Rows = rows[other].reshape(len(rows), k)
    return kept
