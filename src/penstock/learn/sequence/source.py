"""Candidates by self-attention over what a shopper did lately."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from penstock.clock import SECOND
from penstock.errors import DefinitionError
from penstock.learn.sequence.incremental import State, Stepper
from penstock.learn.sequence.network import Attributes, Form, begin
from penstock.learn.sequence.plain import Plain
from penstock.learn.sequence.training import Course, Sequences, train
from penstock.registry import registered
from penstock.retrieve import Found, History, Index, Query, Source
from penstock.retrieve.base import EVERY, Listed, places
from penstock.retrieve.beside import Beside
from penstock.retrieve.parallel import check_parallel
from penstock.types import Array

_MOST_KEPT = 64 << 20
"""Bytes of states kept in memory for each network."""
_CLOSE = 1e-4
"""How far a cosine in float32 may be off."""
_MIX, _MASK = 0x9E3779B1, 0xFFFFFFFF


@registered("source")
@dataclass(frozen=True)
class Attention(Source):
    """Items that a network of self-attention expects next (see `penstock.learn.sequence.network`).

    What was computed of a shopper's events is kept, so that one more click costs one step. It scores every candidate,
    those of other sources as well. Score columns: the cosine between what is looked for and the item, and the rank.

    Args:
        of: the shopper's list feature of items, such as ``"recent"``.
        kinds: the list feature of the same events' kinds, where they are to be told apart.
        times: that of their times (`last_times`), where the time between events is to be looked at.
        about: list features of the same events that say what their items are, such as ``("categories",)``: items that
            few have touched are then known by what they are.
        length: events looked at, the newest, and up to half as many again; of a list that holds no more than that the
            newest two thirds, and up to all. Most clicks then cost one step; the shorter the list, the more go through
            all of it.
        width, heads, layers: of the network.
        scale: times cosines, before the softmax.
        epochs, batch, rate, drop, negatives, smoothing, seed: see `Course`.
        always: keeps it in a release where the ranker gains nothing by it.
    """

    goes_on: ClassVar[bool] = True
    of: str = "recent"
    kinds: str = ""
    times: str = ""
    about: tuple[str, ...] = ()
    k: int = 60
    name: str = ""
    length: int = 50
    width: int = 64
    heads: int = 2
    layers: int = 1
    scale: float = 14.0
    epochs: int = 10
    batch: int = 128
    rate: float = 2e-3
    drop: float = 0.2
    negatives: int = 0
    smoothing: float = 0.0
    seed: int = 1
    always: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.about, str):
            raise DefinitionError(
                "what items are is named in a tuple", got=repr(self.about), remedy=f"write about=({self.about!r},)"
            )
        read = [name for name in (self.of, self.kinds, self.times) if name]
        if not self.of or len({*read, *self.about}) < len(read) + len(self.about):
            raise DefinitionError(
                "items, kinds, times and what items are each come from a list feature of their own",
                got=f"of={self.of!r}, kinds={self.kinds!r}, times={self.times!r}, about={self.about!r}",
                remedy='of="recent", kinds="kinds", times="when", about=("categories",)',
            )
        sizes = (self.k, self.width, self.heads, self.layers, self.length, self.epochs, self.batch)
        if min(sizes) < 1 or self.width % self.heads:
            raise DefinitionError(
                "a network's width is a multiple of its heads, and its sizes are at least 1",
                got=f"k={self.k!r}, width={self.width!r}, heads={self.heads!r}, layers={self.layers!r}, "
                f"length={self.length!r}, epochs={self.epochs!r}, batch={self.batch!r}",
                remedy="k=60, width=64, heads=2, layers=1, length=50, epochs=10, batch=128 are usual",
            )
        if not self.scale > 0:
            raise DefinitionError("cosines are multiplied by more than 0", got=f"scale={self.scale!r}", remedy="14.0")
        _ = self.course  # refuses what it cannot be

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.label, f"{self.label}.rank")

    @property
    def costly(self) -> bool:
        return not self.always

    def needs(self) -> tuple[str, ...]:
        return (self.of, *(name for name in (self.kinds, self.times) if name), *self.about)

    def check(self, lists: Mapping[str, Listed]) -> None:
        """Kinds and times are read place by place beside the items; what items are is not."""
        check_parallel(lists, (self.of, *(name for name in (self.kinds, self.times) if name)))

    def form(self, items: int, kinds: int = 1, attributes: int = 1) -> Form:
        """The network's sizes, for so many codes of each."""
        return Form(
            items, kinds, self.width, self.heads, self.layers, self.length, bool(self.times), scale=self.scale,
            attributes=attributes,
        )  # fmt: skip

    @property
    def course(self) -> Course:
        """How it is trained."""
        return Course(
            self.epochs, self.batch, self.rate, self.drop, self.length, self.negatives, self.smoothing, seed=self.seed
        )

    def fit(self, history: Mapping[str, History], earlier: Index | None = None) -> Index:
        """Trains the network; from an earlier one it goes on for a quarter of the epochs."""
        past = history[self.of]
        items, item = np.unique(past.item, return_inverse=True)
        kinds, kind = np.zeros(0, np.uint32), None
        if self.kinds:
            kinds, kind = np.unique(past.beside(history[self.kinds]), return_inverse=True)
            kind = kind + 1
        turns = np.flatnonzero(np.diff(past.owner, prepend=-1)) if len(past.owner) else np.zeros(0, np.int64)
        time = past.time // SECOND * SECOND if self.times else None  # serving knows them to the second
        sequences = Sequences(turns, np.r_[turns[1:], len(item)][: len(turns)], item + 1, kind, time)
        attributes, known = self._attributes(past, history, items)
        form = self.form(len(items) + 1, len(kinds) + 1 if self.kinds else 1, int(attributes.codes.max(initial=0)) + 1)
        course, weights = self.course, begin(form, np.random.default_rng(self.seed))
        if earlier is not None and len(earlier["items"]):
            course = replace(course, epochs=max(1, course.epochs // 4))
            _go_on(weights, earlier, items, kinds, known)
        weights = train(form, course, sequences, attributes, weights=weights)
        return {
            "items": items.astype(np.uint32),
            "kinds": kinds.astype(np.uint32),
            "attribute_starts": attributes.starts,
            "attribute_codes": attributes.codes,
            "attributes": known,
            **{f"weight {name}": value for name, value in weights.items()},
        }

    def _attributes(
        self, past: History, history: Mapping[str, History], items: Array
    ) -> tuple[Attributes, NDArray[np.uint32]]:
        """What the newest event of each item says of it, and the words for it, ascending.

        Equal words of two list features are one attribute.
        """
        lists: list[list[int]] = [[] for _ in range(len(items) + 1)]
        order = np.argsort(past.time, kind="stable")
        for name in self.about:
            said = past.beside(history[name])
            told = order[said[order] > 0]
            newest = dict(zip(past.item[told].tolist(), said[told].tolist(), strict=True))
            for place, item in enumerate(items.tolist(), 1):
                if item in newest and newest[item] not in lists[place]:
                    lists[place].append(newest[item])
        words = sorted({code for part in lists for code in part})
        codes = {code: i for i, code in enumerate(words, 1)}
        return Attributes.of([[codes[code] for code in part] for part in lists]), np.array(words, np.uint32)

    def find(self, query: Query, index: Index) -> Found:
        memory = _memory(self, index)
        state = memory.state(self._events(query, index))
        if state is None:
            return Found(np.zeros(0, np.uint32), np.zeros((0, 2)))
        found = self._best(memory.stepper, state, index)

        def others(items: NDArray[np.uint32]) -> NDArray[np.float64]:
            """Cosines of whatever the network knows; it tells no rank."""
            out = np.full((len(items), 2), np.nan)
            held, at = places(index["items"], items)
            out[held, 0] = _cosines(memory.stepper, state, at)
            return out

        return replace(found, others=others)

    def vectors(self, index: Index, items: NDArray[np.uint32]) -> NDArray[np.float32]:
        """Rows of the network's table of items, (n, width)."""
        table = _memory(self, index).stepper.table
        held, at = places(index["items"], items)
        out = np.zeros((len(items), table.shape[1]), np.float32)
        out[held] = table[at + 1]
        return out

    def products(self, query: Query, index: Index, items: NDArray[np.uint32]) -> NDArray[np.float64]:
        """Zeros where the shopper has done nothing that it knows."""
        state = _memory(self, index).state(self._events(query, index))
        vectors = self.vectors(index, items)
        if state is None:
            return np.zeros(vectors.shape)
        return (vectors * state.found).astype(np.float64)

    def because(self, query: Query, index: Index, items: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Which of the newest events' items is most like each item."""
        table = _memory(self, index).stepper.table
        rows = self._events(query, index)[:, 0]
        held, at = places(index["items"], items)
        led = np.zeros(len(items), np.uint32)
        if len(rows):
            newest = rows[::-1]
            led[held] = index["items"][newest[(table[at + 1] @ table[newest].T).argmax(axis=1)] - 1]
        return led

    def plain(self, query: Query, index: Index) -> dict[int, tuple[float, ...]]:
        """By the network's definition, in float64 (see `penstock.learn.sequence.plain`).

        Where the quick form, gone through anew with nothing kept, comes within 1e-4 of it in every cosine and in what
        is among the best, its own numbers, since audits compare bits; else those of the definition.
        """
        events = self._plain_events(query, index)
        if not events:
            return {}
        exact = _plain(self, index).fits(events)[1:]
        stepper = _memory(self, index).stepper
        state = stepper.start()
        for row, kind, gap in events:
            state = stepper.step(state, row, kind, gap)
        found = self._best(stepper, state, index)
        best = np.argsort(-exact, kind="stable")[: self.k]
        at = np.searchsorted(index["items"], found.items)
        if (
            len(at) == len(best)
            and np.abs(found.scores[:, 0] - exact[at]).max() <= _CLOSE
            and exact[at].min() >= exact[best[-1]] - _CLOSE
        ):
            return dict(zip(found.items.tolist(), map(tuple, found.scores.tolist()), strict=True))
        told = zip(index["items"][best].tolist(), exact[best].tolist(), strict=True)
        return {code: (cosine, float(rank)) for rank, (code, cosine) in enumerate(told)}

    def _plain_events(self, query: Query, index: Index) -> list[tuple[int, int, int]]:
        """`_events` once more, event by event."""
        rows, kinds = (
            {code: row for row, code in enumerate(index[name].tolist(), 1)} for name in ("items", "kinds")
        )  # fmt: skip
        items = query.lists[self.of].tolist()
        known = []
        for place, code in enumerate(items):
            if code in rows:
                kind, time = (
                    query.lists[name].tolist()[place] if name and place < len(query.lists[name]) else 0
                    for name in (self.kinds, self.times)
                )
                known.append((rows[code], kinds.get(kind, 0), time))
        most = min(self.length + self.length // 2, len(items))
        least = max(1, min(self.length, 2 * len(items) // 3))
        if len(known) > most or (len(known) > least and items[-1]):
            ends = range(least, min(most, len(known)) + 1)
            known = known[: min(ends, key=lambda end: known[end - 1][0] * _MIX % (_MASK + 1))]
        known = known[::-1]
        before = [known[0][2] if known else 0, *(time for _, _, time in known)]
        return [(row, kind, max(time - since, 0)) for (row, kind, time), since in zip(known, before, strict=False)]

    def plain_others(self, query: Query, index: Index) -> dict[int, tuple[float, ...]]:
        every = replace(self, k=EVERY).plain(query, index)
        return {item: (cosine, math.nan) for item, (cosine, _) in every.items()}

    def _best(self, stepper: Stepper, state: State, index: Index) -> Found:
        like = stepper.table[1:] @ state.found
        k = min(self.k, len(like))
        near = np.flatnonzero(like >= np.partition(like, len(like) - k)[len(like) - k])
        cosine = _cosines(stepper, state, near)
        order = np.lexsort((near, -cosine))[:k]
        scores = np.stack([cosine[order], np.arange(len(order), dtype=np.float64)], axis=1)
        return Found(index["items"][near[order]], scores)

    def _events(self, query: Query, index: Index) -> NDArray[np.int64]:
        """Row, kind and seconds since the one before of each event that is looked at, oldest first, (n, 3).

        What the network does not know is left out.
        """
        held, at = places(index["items"], query.lists[self.of])
        events = np.zeros((len(held), 3), np.int64)
        events[:, 0] = at + 1
        if self.kinds:
            known, place = places(index["kinds"], _beside(query.lists[self.kinds], held))
            events[known, 1] = place + 1
        if self.times:
            time = _beside(query.lists[self.times], held).astype(np.int64)
            events[:-1, 2] = np.maximum(time[:-1] - time[1:], 0)
        # A window that moved on with each event, as the list's own end does once it is full, would have everything
        # computed anew each time. It begins instead where a mixed code is the least, which stays while the list goes
        # on.
        newest = query.lists[self.of]
        most = min(self.length + self.length // 2, len(newest))
        least = max(1, min(self.length, 2 * len(newest) // 3))
        if len(events) > most or (len(events) > least and newest[-1]):
            mixed = events[least - 1 : most, 0] * _MIX & _MASK
            events = events[: least + int(mixed.argmin())]
        if len(events):
            events[-1, 2] = 0  # as in training, nothing is known of what came before the window
        return events[::-1]


def _beside(values: NDArray[np.uint32], places_: NDArray[np.int64]) -> NDArray[np.uint32]:
    """The values at some places of a list; 0 where it is shorter."""
    out = np.zeros(len(places_), np.uint32)
    there = places_ < len(values)
    out[there] = values[places_[there]]
    return out


def _go_on(weights: dict[str, Array], earlier: Index, items: Array, kinds: Array, words: Array) -> None:
    """Puts an earlier network's weights in the place of new ones; rows of its tables by what they stand for."""
    for table, mine, theirs in (("item", items, "items"), ("kind", kinds, "kinds"), ("attribute", words, "attributes")):
        if table in weights and f"weight {table}" in earlier:
            held, at = places(earlier[theirs], mine.astype(np.uint32))
            weights[table][held + 1] = earlier[f"weight {table}"][at + 1]
    for name, value in earlier.items():
        inner = name.removeprefix("weight ")
        if inner != name and inner not in ("item", "kind", "attribute"):
            weights[inner] = value.copy()


def _cosines(stepper: Stepper, state: State, at: Array) -> NDArray[np.float64]:
    """Row by row, so that an item's score does not depend on which others are asked about."""
    return np.asarray((stepper.table[at + 1] * state.found).sum(axis=1), np.float64)


def _network(source: Attention, index: Index) -> tuple[Form, dict[str, Array], Attributes]:
    """The network that lies in an index."""
    weights = {name.removeprefix("weight "): array for name, array in index.items() if name.startswith("weight ")}
    attributes = Attributes(index["attribute_starts"], index["attribute_codes"])
    kinds = len(index["kinds"]) + 1 if source.kinds else 1
    form = source.form(len(index["items"]) + 1, kinds, int(index["attribute_codes"].max(initial=0)) + 1)
    return form, weights, attributes


class _Memory:
    """A network and what it has computed of some shoppers' events; any thread may use it."""

    def __init__(self, source: Attention, index: Index) -> None:
        form, weights, attributes = _network(source, index)
        self.stepper = Stepper(form, weights, attributes, most=source.length + source.length // 2 + 1)
        self._most = max(1, _MOST_KEPT // (8 * form.layers * form.width * self.stepper.most + 512))
        self._states: OrderedDict[bytes, State] = OrderedDict()
        self._lock = threading.Lock()

    def state(self, events: NDArray[np.int64]) -> State | None:
        """After these events (n, 3), oldest first; None without any."""
        if not len(events):
            return None
        with self._lock:
            done, state = self._longest(events)
        for row, kind, gap in events[done:].tolist():
            state = self.stepper.step(state, row, kind, gap)
        with self._lock:
            self._states[events.tobytes()] = state
            self._states.move_to_end(events.tobytes())
            while len(self._states) > self._most:
                self._states.popitem(last=False)
        return state

    def _longest(self, events: NDArray[np.int64]) -> tuple[int, State]:
        """How many of the events a kept state covers, and it; a state that is to grow is a copy."""
        for done in range(len(events), max(0, len(events) - 8), -1):
            state = self._states.get(events[:done].tobytes())
            if state is not None:
                return done, state if done == len(events) else self.stepper.copied(state)
        return 0, self.stepper.start()


_MEMORIES: Beside[_Memory] = Beside()


_PLAIN: Beside[Plain] = Beside()


def _plain(source: Attention, index: Index) -> Plain:
    return _PLAIN.of(index["items"], lambda: Plain(*_network(source, index)))


def _memory(source: Attention, index: Index) -> _Memory:
    return _MEMORIES.of(index["items"], lambda: _Memory(source, index))


attention = Attention
