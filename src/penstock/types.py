"""Every shared protocol and alias of the project, on one page.

Times are microseconds since 1970 UTC. Strings are interned once, by the log at append: everywhere
else they are ``uint32`` codes, 0 meaning "missing". A missing integer is `MISSING_INT`, a missing
float NaN (a NaN never enters from outside: non-finite numbers are rejected).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Micros = int
Code = int
Kind = Literal["text", "int", "money", "float", "bool"]

MISSING_INT = int(np.iinfo(np.int64).min)
DTYPES: Mapping[Kind, str] = {"text": "<u4", "int": "<i8", "money": "<i8", "float": "<f8", "bool": "<i8"}


@dataclass(frozen=True)
class Field:
    """One column of a stream, as the log keeps it."""

    name: str
    kind: Kind
    optional: bool

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(DTYPES[self.kind])


@dataclass(frozen=True)
class Schema:
    """The fixed-width form of one stream's events, derived from its `Event` class."""

    stream: str
    fields: tuple[Field, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The packed record of one event's own fields; without `time` and `id`."""
        return np.dtype([(f.name, f.dtype) for f in self.fields])

    def field(self, name: str) -> Field | None:
        return next((f for f in self.fields if f.name == name), None)


class Strings(Protocol):
    """The log's dictionary of interned strings."""

    def code(self, text: str) -> Code:
        """The code of `text`, or 0 where the log has never seen it."""

    def text(self, code: Code) -> str: ...

    def texts(self, codes: Array) -> list[str]: ...

    @property
    def cached(self) -> Strings:
        """The same from memory alone, without waiting: what is not there is as if the log had never seen it."""


@dataclass(frozen=True)
class Rows:
    """Events of one stream in offset order, as columns of equal length n.

    `time` is when it happened, never later than `arrived` (`raw_time` keeps what was sent);
    `tie` is a 64-bit hash of the event id, the tie-break of every ordered aggregate.
    """

    stream: str
    offset: NDArray[np.int64]
    time: NDArray[np.int64]
    raw_time: NDArray[np.int64]
    arrived: NDArray[np.int64]
    tie: NDArray[np.uint64]
    fields: NDArray[np.void]  # structured, `Schema.dtype`

    def __len__(self) -> int:
        return len(self.offset)

    def take(self, index: Array | slice) -> Rows:
        """The rows at `index`, in its order."""
        return Rows(
            self.stream,
            self.offset[index],
            self.time[index],
            self.raw_time[index],
            self.arrived[index],
            self.tie[index],
            self.fields[index],
        )


@dataclass(frozen=True)
class Accepted:
    """One validated event on its way into the log; strings not yet interned."""

    stream: str
    id: str
    time: Micros
    values: tuple[Any, ...]  # in `Schema.fields` order: str | int | float | bool | None, money in cents


@dataclass(frozen=True)
class Appended:
    """What an append did, once it is durable. New events took offsets first … end - 1, in their order.

    `new` says for each event given whether it was new; the others are duplicates.
    """

    new: Sequence[bool]
    first: int
    end: int

    @property
    def accepted(self) -> int:
        return self.end - self.first

    @property
    def duplicates(self) -> int:
        return len(self.new) - self.accepted


@dataclass(frozen=True)
class Erasure:
    """Events that were taken out of the log for good.

    `offset` is the erasure's own place in the log: what was decided from an offset up to it, and above `first`, may
    have known the events. `first` and `last` are the lowest and highest of their offsets, `events` their number, and
    `time` when it was done, in microseconds.
    """

    offset: int
    first: int
    last: int
    events: int
    time: Micros

    def concerns(self, offset: int) -> bool:
        """Whether what was decided from `offset` may have known what is gone."""
        return self.first < offset <= self.offset


class Log(Protocol):
    """Durable, ordered by arrival, deduplicated by event id, readable from an offset (0-based)."""

    @property
    def id(self) -> str:
        """Names this log: codes and offsets mean something only beside it."""

    @property
    def strings(self) -> Strings: ...

    @property
    def end(self) -> int:
        """The offset that the next event will get."""

    @property
    def newest(self) -> Micros:
        """The newest effective time in the log, 0 while empty."""

    @property
    def erasures(self) -> Sequence[Erasure]:
        """What was taken out of it, oldest first: whatever was built before the last one is to be built anew."""

    def append(self, events: Sequence[Accepted], arrived: Micros | Sequence[Micros]) -> Appended: ...

    def read(self, start: int, stop: int) -> dict[str, Rows]:
        """The events with start ≤ offset < stop, by stream."""

    def close(self) -> None: ...


class Snapshot(Protocol):
    """A consistent view of a store: every record reflects exactly the events below `offset`."""

    @property
    def offset(self) -> int: ...

    @property
    def newest(self) -> Micros: ...

    def get(self, view: bytes, keys: Sequence[bytes]) -> list[bytes | None]: ...

    def applied(self, view: bytes) -> int:
        """The offset up to which this view version has been built; 0 for an unknown one."""

    @property
    def commit(self) -> int:
        """Numbers the last write that it sees, in the order of writes; 0 where the store does not count them."""

    def changed(self, since: int) -> Iterable[bytes] | None:
        """Of what may differ from how commit `since` left it: each view's and key's bytes, joined.

        None where the store does not know, or no longer, or where it may be anything.
        """


class Store(Protocol):
    """Opaque bytes by (view version, key), written together with the log offset they reflect."""

    def snapshot(self) -> AbstractContextManager[Snapshot]: ...

    def write(
        self, records: Iterable[tuple[bytes, bytes, bytes]], applied: Mapping[bytes, int], offset: int, newest: Micros
    ) -> None:
        """Replaces (view, key, record) triples and moves the offsets, all or nothing."""

    def scan(self, view: bytes) -> Iterator[tuple[bytes, bytes]]: ...

    def views(self) -> dict[bytes, int]:
        """Every view version held, with its `applied` offset."""

    def sizes(self) -> dict[bytes, tuple[int, int]]:
        """How many records each view version has, and their bytes, keys included; kept as they are written."""

    def drop(self, view: bytes) -> None: ...

    def close(self) -> None: ...


Progress = Callable[[int, int | None], None]
"""Called with (done, total or None) by everything that takes long."""
