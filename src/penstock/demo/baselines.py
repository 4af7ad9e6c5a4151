"""What a shop would do without a model, kept up to date with every event of the same replay.

Each baseline sees the same events as the served decisions, the history first, and is asked at the
same moments. Items are codes 0, 1, … in the order of first sight, which also breaks ties.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from penstock.clock import DAY, MINUTE, SECOND
from penstock.demo.figures import rank_of
from penstock.types import Micros, Progress

_REPORT_EVERY = 2_000


class Touch(NamedTuple):
    """One event as a baseline sees it."""

    user: str
    item: str
    time: Micros


def touch(event: Mapping[str, Any]) -> Touch:
    """The event's user, item and time; the time as posted: RFC 3339, or seconds since 1970.

    >>> touch({"user": "u", "item": "i", "time": "1970-01-01T00:00:02Z"})
    Touch(user='u', item='i', time=2000000)
    """
    time = event["time"]
    seconds = datetime.fromisoformat(time).timestamp() if isinstance(time, str) else time
    return Touch(event["user"], event["item"], round(seconds * SECOND))


class Baseline(Protocol):
    """Learns from one event at a time and lists items for a shopper at any moment."""

    def observe(self, user: str, item: int, time: Micros) -> None: ...

    def list(self, user: str, now: Micros) -> Sequence[int]:
        """The best items for `user` at `now`, best first, at most `k`."""


class Popular:
    """The items with most events of all shoppers in the last 24 hours, counted anew once a minute."""

    def __init__(self, k: int = 20, window: Micros = DAY, refresh: Micros = MINUTE) -> None:
        self._k = k
        self._window = window
        self._refresh = refresh
        self._counts = np.zeros(1024, np.int64)
        self._inside: deque[tuple[Micros, int]] = deque()
        self._list: list[int] = []
        self._counted: Micros | None = None

    def observe(self, user: str, item: int, time: Micros) -> None:
        if item >= len(self._counts):
            self._counts = np.concatenate([self._counts, np.zeros(item + 1, np.int64)])
        self._counts[item] += 1
        self._inside.append((time, item))

    def list(self, user: str, now: Micros) -> Sequence[int]:
        if self._counted is None or now >= self._counted + self._refresh:
            while self._inside and self._inside[0][0] <= now - self._window:
                self._counts[self._inside.popleft()[1]] -= 1
            self._list = _top(self._counts, self._k)
            self._counted = now
        return self._list


class Recent:
    """The shopper's own items, the latest first, each once."""

    def __init__(self, k: int = 20) -> None:
        self._k = k
        self._seen: dict[str, dict[int, None]] = {}

    def observe(self, user: str, item: int, time: Micros) -> None:
        seen = self._seen.setdefault(user, {})
        seen.pop(item, None)
        seen[item] = None

    def list(self, user: str, now: Micros) -> Sequence[int]:
        return list(islice(reversed(self._seen.get(user, {})), self._k))


class Covisits:
    """Items touched close to the shopper's latest ones, by anyone, in order of a decayed sum.

    Two events of one shopper, n places and less than `gap` apart, add 1/n to the later item as a neighbour
    of the earlier one, and `back`/n the other way round. The shopper's i-th latest item of `recent` passes
    on decay**i of its neighbours' weights. After Sarwar et al., "Item-based collaborative filtering" (2001).
    """

    def __init__(
        self,
        k: int = 20,
        *,
        recent: int = 20,
        decay: float = 0.8,
        steps: int = 10,
        gap: Micros = DAY,
        back: float = 1.0,
    ) -> None:
        self._k = k
        self._decay = decay ** np.arange(recent)
        self._steps = steps
        self._gap = gap
        self._back = back
        self._paths: dict[str, deque[tuple[int, Micros]]] = {}
        self._recent = Recent(recent)
        self._rows: dict[int, _Row] = {}

    def observe(self, user: str, item: int, time: Micros) -> None:
        path = self._paths.setdefault(user, deque(maxlen=self._steps))
        for place, (earlier, then) in enumerate(path):
            if time - then < self._gap and earlier != item:
                weight = 1 / (place + 1)
                self._row(earlier).add(item, weight)
                self._row(item).add(earlier, weight * self._back)
        path.appendleft((item, time))
        self._recent.observe(user, item, time)

    def list(self, user: str, now: Micros) -> Sequence[int]:
        latest = self._recent.list(user, now)
        known = [(self._rows[item], self._decay[i]) for i, item in enumerate(latest) if item in self._rows]
        if not known:
            return []
        item = np.concatenate([row.items for row, _ in known])
        weight = np.concatenate([row.weights * decay for row, decay in known])
        return _top(np.bincount(item, weights=weight), self._k)

    def _row(self, item: int) -> _Row:
        row = self._rows.get(item)
        if row is None:
            row = self._rows[item] = _Row()
        return row


class _Row:
    """The neighbours of one item with their weights: a list that is appended to and summed up now and then.

    Sums are exact for up to `KEEP` different neighbours; past that the lightest are forgotten.
    """

    KEEP = 1024

    def __init__(self) -> None:
        self._items = array("q")
        self._weights = array("d")

    @property
    def items(self) -> NDArray[np.int64]:
        return np.frombuffer(self._items, np.int64)

    @property
    def weights(self) -> NDArray[np.float64]:
        return np.frombuffer(self._weights, np.float64)

    def add(self, item: int, weight: float) -> None:
        self._items.append(item)
        self._weights.append(weight)
        if len(self._items) >= 2 * self.KEEP:
            self._sum_up()

    def _sum_up(self) -> None:
        items, inverse = np.unique(self.items, return_inverse=True)
        weights = np.bincount(inverse, weights=self.weights)
        kept = np.argsort(-weights, kind="stable")[: self.KEEP]
        self._items = array("q", items[kept].tobytes())
        self._weights = array("d", weights[kept].tobytes())


def _top(score: NDArray[Any], k: int) -> list[int]:
    """The `k` places with the highest positive score, best first, ties by place."""
    found = np.flatnonzero(score)
    if len(found) > k:
        least = np.partition(score[found], -k)[-k]
        found = found[score[found] >= least]
    order = np.lexsort((found, -score[found]))[:k]
    top: list[int] = found[order].tolist()
    return top


def score_baselines(
    history: Iterable[Touch],
    replayed: Sequence[Touch],
    asked: Sequence[bool],
    *,
    k: int = 20,
    baselines: Mapping[str, Baseline] | None = None,
    progress: Progress | None = None,
) -> dict[str, NDArray[np.int64]]:
    """The rank of each asked event's item in each baseline's list just before the event.

    Args:
        history: everything before the replay, in the order of time.
        replayed: the events of the replay, in the order of time.
        asked: whether a list is asked for before each of them.

    Returns:
        By baseline, ranks `(asks,) int64` from 1, 0 where the item is not in the list.

    >>> day = [Touch("u", "a", 0), Touch("u", "b", 1), Touch("u", "a", 2)]
    >>> score_baselines(day[:2], day[2:], [True])["recent"].tolist()
    [2]
    """
    if baselines is None:
        baselines = {"popular": Popular(k), "covisit": Covisits(k), "recent": Recent(k)}
    codes: dict[str, int] = {}
    ranks: dict[str, list[int]] = {name: [] for name in baselines}
    for user, item, time in history:
        code = codes.setdefault(item, len(codes))
        for baseline in baselines.values():
            baseline.observe(user, code, time)
    for done, ((user, item, time), ask) in enumerate(zip(replayed, asked, strict=True)):
        code = codes.setdefault(item, len(codes))
        for name, baseline in baselines.items():
            if ask:
                ranks[name].append(rank_of(code, baseline.list(user, time)))
            baseline.observe(user, code, time)
        if progress and done % _REPORT_EVERY == 0:
            progress(done, len(replayed))
    if progress:
        progress(len(replayed), len(replayed))
    return {name: np.array(found, np.int64) for name, found in ranks.items()}
