"""Samples of fixed size in which every event has the same chance, whatever the order and number of events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from penstock.aggregates.base import Aggregate, Event
from penstock.aggregates.mixing import mix, mix_plain
from penstock.aggregates.runs import pairs, place_in_run, run_of
from penstock.errors import DefinitionError
from penstock.registry import registered
from penstock.types import Array, Kind


@registered("aggregate")
@dataclass(frozen=True, eq=False)
class Sample(Aggregate):
    """The values of k events drawn at random without replacement: those with the smallest hashes of their ids.

    State: 12 k + 8 bytes; of N events each is in the sample with probability min(1, k / N), exactly, and any k of them
    are equally likely, over the hashes. N is counted, so `weights` are exact too. A view by the stratum is a stratified
    sample: each stratum has k places of its own, whenever it is first seen and however rare it is. The order is random;
    missing places are code 0.

    Args:
        k: how many events at most.
        seed: samples of other seeds are drawn independently; those of one seed share events as far as they can.

    Source: Cohen and Kaplan, "Summarizing data using bottom-k sketches" (2007).

    >>> s, t = Sample("item", k=2), np.arange(3)
    >>> state = s.collect(np.array([7, 8, 9], np.uint32), t, t.astype(np.uint64), np.array([0]))
    >>> s.value(state, t[:1]).shape, s.weights(state)
    ((1, 2), array([[1.5, 1.5]]))
    """

    k: int = 100
    seed: int = 0

    reads: ClassVar[tuple[Kind, ...]] = ("text",)
    is_list: ClassVar[bool] = True
    timeless: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.k <= 10_000:
            raise DefinitionError("k is between 1 and 10,000", got=str(self.k), remedy="100 is usual")
        if not 0 <= self.seed < 2**32:
            raise DefinitionError("seed is between 0 and 2**32 - 1", got=str(self.seed), remedy="leave it out")

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype([("count", "<i8"), ("hash", "<u8", (self.k,)), ("code", "<u4", (self.k,))])

    def empty(self, n: int) -> Array:
        return np.zeros(n, self.dtype)

    def lift(self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64]) -> Array:
        return self.collect(values, time, tie, np.arange(len(values)))

    def merge(self, a: Array, b: Array) -> Array:
        return self.reduce(*pairs(a, b))

    def reduce(self, states: Array, starts: NDArray[np.int64]) -> Array:
        owner, slot = np.nonzero(states["code"])
        run = run_of(starts, len(states))
        out = self._smallest(run[owner], states["hash"][owner, slot], states["code"][owner, slot], len(starts))
        np.add.at(out["count"], run, states["count"])
        return out

    def collect(
        self, values: Array, time: NDArray[np.int64], tie: NDArray[np.uint64], starts: NDArray[np.int64]
    ) -> Array:
        run = run_of(starts, len(values))
        salt = np.uint64(mix_plain(self.seed))
        out = self._smallest(run, mix(tie.astype(np.uint64) ^ salt), values, len(starts))
        out["count"] = np.bincount(run, minlength=len(starts))
        return out

    def _smallest(self, run: Array, hashes: Array, code: Array, n: int) -> Array:
        order = np.lexsort((code, hashes, run))
        run = run[order]
        place = place_in_run(run)
        keep = place < self.k
        out = self.empty(n)
        out["hash"][run[keep], place[keep]] = hashes[order][keep]
        out["code"][run[keep], place[keep]] = code[order][keep]
        return out

    def value(self, states: Array, now: NDArray[np.int64]) -> Array:
        return np.ascontiguousarray(states["code"])

    def inclusion(self, states: Array) -> NDArray[np.float64]:
        """The probability with which each event of a state's key was drawn, (n,); 1 while all have a place."""
        return np.asarray(self.k / np.maximum(states["count"], self.k).astype(np.float64))

    def weights(self, states: Array) -> NDArray[np.float64]:
        """How many events each drawn one stands for, (n, k): 1 / `inclusion`, and 0 in missing places.

        Sums of value times weight are unbiased for the sums over all events (Horvitz and Thompson, 1952).
        """
        return np.asarray((states["code"] > 0) / self.inclusion(states)[:, None])

    def plain(self, events: Sequence[Event], now: int) -> Any:
        salt = mix_plain(self.seed)
        drawn = sorted((mix_plain(tie ^ salt), int(code)) for code, _, tie in events)[: self.k]
        return [code for _, code in drawn] + [0] * (self.k - len(drawn))
