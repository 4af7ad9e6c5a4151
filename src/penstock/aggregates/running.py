"""One aggregate by itself: values are added one at a time, and what they come to is read at any moment."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from numbers import Integral, Real
from typing import Any

import numpy as np

from penstock.aggregates.base import Aggregate
from penstock.clock import SECOND
from penstock.errors import DefinitionError, PenstockError
from penstock.types import DTYPES, Array, Kind, Micros

_WAITING = 1_024  # values that are held back, to be merged in one go
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ADDED = count(1)  # numbers every value added in this process: the tie-break, and the time where none is given


class Running:
    """An aggregate by itself, without app, view or store: add values, read, merge.

    It keeps one state and at most 1,024 values that are yet to be merged into it, however many are added. Texts are
    kept once a process. Objects are not to be shared between threads.

    Args:
        aggregate: what to keep, such as ``max_run()``; its column need not be named. A window or a filter is refused,
            since everything added counts.

    Raises:
        DefinitionError: it has a window, a filter or an expression as its column.

    >>> from penstock.aggregates import max_run, running, top_k
    >>> m = running(max_run())
    >>> for gain in (-2, 4, -1, 3, -9, 5):
    ...     m.add(gain)
    >>> m.get()
    6.0
    >>> words = running(top_k(k=1))
    >>> words.add("oak"), words.add("ash"), words.add("oak"), words.get()
    (None, None, None, ['oak'])
    """

    def __init__(self, aggregate: Aggregate) -> None:
        for part in aggregate.with_parts:
            if part.window is not None or part.where is not None:
                raise DefinitionError(
                    "a running aggregate counts everything that is added",
                    got=f"window={part.window!r}, where={part.where}",
                    remedy="leave window and where out, and add only what counts",
                )
            if not (part.column is None or isinstance(part.column, str)):
                raise DefinitionError(
                    "a running aggregate reads the values that are added",
                    got=f"column={part.column}",
                    remedy="leave the column out, and add what the expression gives",
                )
        self.aggregate = _alone(aggregate)
        self._readers = self.aggregate.parts or (self.aggregate,)
        self._state = self.aggregate.empty(1)
        self._count = 0
        self._waiting: list[tuple[Any, Micros, int]] = []
        self._kinds: tuple[Kind, ...] = ()  # of those that wait
        self._checked: set[tuple[Aggregate, Kind]] = set()
        self._text: dict[Aggregate, bool] = {}  # whether what each part reads is text
        self._timed: bool | None = None
        # (time, number) of the first and of the last in time.
        self._first = self._last = (0, 0)

    def __len__(self) -> int:
        """How many values were added, those of merged ones included."""
        return self._count

    def add(self, value: Any = None, time: datetime | float | None = None) -> None:
        """Takes one more value.

        Args:
            value: a finite number, a bool or a text, as the aggregate reads; anything where it reads no values. For a
                ratio a pair of them, None where one of the two does not count.
            time: when it happened: a datetime with a zone, or seconds since 1970. Without one, values are in the order
                in which they were added, over all running aggregates of the process.

        Raises:
            PenstockError: the aggregate cannot read the value; times are given with some values only; or order
                carries meaning for the aggregate and the time is before that of an earlier value.
        """
        kinds, read = self._taken(value)
        number = next(_ADDED)
        moment = number if time is None else micros(time)
        if self._count:
            self._same_clock(time is not None)
            if moment < self._last[0] and not self.aggregate.commutative:
                raise PenstockError(
                    f"{type(self.aggregate).__name__} takes values in the order of their times",
                    got=f"time={time!r}, {(self._last[0] - moment) / SECOND:g} s before that of an earlier value",
                    remedy="sort the values by time, or keep late ones in an object of their own and merge in order",
                )
        if kinds != self._kinds or len(self._waiting) == _WAITING:
            self._settle()
        self._kinds, self._timed = kinds, time is not None
        self._waiting.append((read, moment, number))
        at = (moment, number)
        self._first = min(self._first, at) if self._count else at
        self._last = max(self._last, at) if self._count else at
        self._count += 1

    def get(self, now: datetime | float | None = None) -> Any:
        """The value of everything added: a float, or a list of texts where the aggregate gives several.

        Args:
            now: the moment at which it is asked, for aggregates that look at it; by default that of the last value.

        Raises:
            PenstockError: nothing was added.
        """
        if not self._count:
            raise PenstockError(
                f"{type(self.aggregate).__name__} has a value once something was added",
                got="none yet",
                remedy="call add(value) first, or merge an object that has values",
            )
        self._settle()
        moment = self._last[0] if now is None else micros(now)
        value = self.aggregate.served(self._state, np.array([moment], np.int64))[0]
        if self.aggregate.is_list:
            listed = value[value > 0]
            return listed.tolist() if self.aggregate.numbers else self.texts(listed)
        return float(value)

    @property
    def state(self) -> Array:
        """The state of everything added, (1,): for what an aggregate tells besides its value, such as bounds."""
        self._settle()
        return self._state.copy()

    @staticmethod
    def texts(codes: Array) -> list[str]:
        """The texts that stand behind codes of this process; the empty one of code 0."""
        return [_TEXTS.text(code) for code in codes.tolist()]

    def merge(self, other: Running) -> None:
        """Takes in everything that was added to `other`, which stays as it is.

        Where order carries meaning and no times were given, the values of `other` follow those of this one. With
        times, one of the two ends before the other begins.

        Raises:
            PenstockError: the two keep different aggregates, one has times and the other none, or their times
                overlap and order carries meaning.
        """
        if _meaning(self.aggregate) != _meaning(other.aggregate):
            raise PenstockError(
                "running aggregates merge when both keep the same",
                got=f"{_meaning(self.aggregate)} and {_meaning(other.aggregate)}",
                remedy="make both from one definition",
            )
        if not other._count:
            return
        self._settle()
        other._settle()
        first, second = self, other
        if self._count:
            self._same_clock(bool(other._timed))
            if self._timed and not self.aggregate.commutative:
                first, second = (self, other) if self._first < other._first else (other, self)
                if first._last >= second._first:
                    raise PenstockError(
                        f"{type(self.aggregate).__name__} merges what lies before or after it in time",
                        got=f"times that overlap by {(first._last[0] - second._first[0]) / SECOND:g} s",
                        remedy="split the values by time",
                    )
        merged = self.aggregate.merge(first._state, second._state)
        low, high = (min(self._first, other._first), max(self._last, other._last))
        self._first, self._last = (low, high) if self._count else (other._first, other._last)
        self._state, self._timed, self._count = merged, other._timed, self._count + other._count

    def __contains__(self, value: Any) -> bool:
        """Whether the value was added, as far as an aggregate that is a set of values tells."""
        contains = getattr(self.aggregate, "contains", None)
        if contains is None:
            raise PenstockError(
                f"{type(self.aggregate).__name__} does not tell which values were added",
                got=f"{value!r} in it", remedy="use ps.running(ps.members())",
            )  # fmt: skip
        if isinstance(value, str) is not self._text.get(self.aggregate) or not _whole(value):
            return False
        read = _TEXTS.known(value) if isinstance(value, str) else int(value)
        return read is not None and bool(contains(self.state, np.array([[read]], np.int64))[0, 0])

    def _taken(self, value: Any) -> tuple[tuple[Kind, ...], Any]:
        """The kinds of what is added, and how it is kept until it is merged."""
        if not self.aggregate.parts:
            kind, read = self._read(self.aggregate, value)
            return (kind,), read
        if not isinstance(value, tuple) or len(value) != len(self._readers):
            raise PenstockError(
                f"{type(self.aggregate).__name__} takes {len(self._readers)} values at a time, None for a missing one",
                got=repr(value), remedy="write add((250, 1))",
            )  # fmt: skip
        unknown: Kind = "int"
        before = self._kinds or (unknown,) * len(self._readers)
        pairs: list[tuple[Kind, Any]] = [
            (kind, None) if part is None else self._read(reader, part)
            for reader, part, kind in zip(self._readers, value, before, strict=True)
        ]
        return tuple(kind for kind, _ in pairs), tuple(read for _, read in pairs)

    def _read(self, reader: Aggregate, value: Any) -> tuple[Kind, Any]:
        """The value as a column of the log would hold it."""
        if not reader.reads:
            return "int", 0
        kind: Kind
        if isinstance(value, str):
            kind, value = "text", _TEXTS.code(value)
        elif isinstance(value, bool | np.bool_):
            kind, value = "bool", int(value)
        elif isinstance(value, Integral):
            kind, value = "int", int(value)
            if abs(value) >= 2**63:
                raise PenstockError(
                    "a whole number has at most 63 bits", got=f"one of {value.bit_length()}", remedy="add it as a float"
                )
        elif isinstance(value, Real) and math.isfinite(float(value)):
            kind, value = "float", float(value)
        else:
            raise PenstockError(
                "a value is a finite number, a bool or a text",
                got=f"{type(value).__name__} {value!r}",
                remedy="leave missing values out, and convert others",
            )
        if self._text.setdefault(reader, kind == "text") is not (kind == "text"):
            raise PenstockError(
                f"what one {type(reader).__name__} is given is all text, or all numbers",
                got=f"{kind} beside {'text' if self._text[reader] else 'numbers'}",
                remedy="convert the values, or keep two",
            )
        # A unit is that of floats: whole numbers beside them are on the same scale.
        if kind in ("int", "bool") and getattr(reader, "unit", None) is not None:
            kind, value = "float", float(value)
        elif kind == "float" and value.is_integer() and abs(value) < 2**63 and not _takes(reader, "float"):
            kind, value = "int", int(value)
        if (reader, kind) not in self._checked:
            reader.check(kind)
            self._checked.add((reader, kind))
        return kind, value

    def _same_clock(self, timed: bool) -> None:
        if timed is not self._timed:
            raise PenstockError(
                "times are given with every value or with none",
                got="a value with a time beside one without",
                remedy="give each value its time, or leave all times out",
            )

    def _settle(self) -> None:
        """Merges the values that wait into the state."""
        if self._waiting:
            values, times, numbers = zip(*self._waiting, strict=True)
            state = self.aggregate.collect(
                self._columns(values), np.array(times, np.int64), np.array(numbers, np.uint64), np.zeros(1, np.int64)
            )
            self._state = self.aggregate.merge(self._state, state)
            self._waiting = []

    def _columns(self, values: Sequence[Any]) -> Array:
        """What waits as the column that the aggregate reads."""
        if not self.aggregate.parts:
            return np.array(values, DTYPES[self._kinds[0]])
        parts = zip(self._kinds, zip(*values, strict=True), strict=True)
        return Aggregate.joined(
            [
                (np.array([v is not None for v in part]), np.array([v or 0 for v in part], DTYPES[kind]))
                for kind, part in parts
            ]
        )


def _alone(aggregate: Aggregate) -> Aggregate:
    """The same, of what is added in place of a field."""
    changed: dict[str, Any] = {
        f.name: _alone(value) for f in fields(aggregate) if isinstance(value := getattr(aggregate, f.name), Aggregate)
    }
    if aggregate.reads:
        changed["column"] = "value"
    return replace(aggregate, **changed)


def _whole(value: Any) -> bool:
    """Whether a value is a text or a whole number, as sets hold."""
    return isinstance(value, str | Integral | np.bool_) or (isinstance(value, Real) and float(value).is_integer())


def _takes(aggregate: Aggregate, kind: Kind) -> bool:
    try:
        aggregate.check(kind)
    except DefinitionError:
        return False
    return True


class _Texts:
    """Codes of texts, the same for all in this process, so that what they counted can be merged."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._texts = [""]
        self._lock = threading.Lock()

    def code(self, text: str) -> int:
        with self._lock:
            if text not in self._codes:
                self._codes[text] = len(self._texts)
                self._texts.append(text)
            return self._codes[text]

    def known(self, text: str) -> int | None:
        """The code of a text that has one."""
        return self._codes.get(text)

    def text(self, code: int) -> str:
        return self._texts[code]


_TEXTS = _Texts()


def micros(time: datetime | float) -> Micros:
    """Microseconds since 1970 UTC of a datetime with a zone, or of seconds.

    >>> micros(1.5), micros(datetime(1970, 1, 1, 0, 0, 2, tzinfo=UTC))
    (1500000, 2000000)
    """
    if isinstance(time, datetime) and time.tzinfo is not None:
        return (time - _EPOCH) // _MICROSECOND
    if isinstance(time, Real) and not isinstance(time, bool) and -(2**43) < time < 2**43:
        return round(float(time) * SECOND)
    raise PenstockError(
        "time is a datetime with a zone, or seconds since 1970 UTC",
        got=repr(time),
        remedy="write it like datetime.now(UTC) or 1714564800",
    )


def _meaning(aggregate: Aggregate) -> str:
    given = ", ".join(f"{f.name}={getattr(aggregate, f.name)!r}" for f in fields(aggregate) if f.name != "column")
    return f"{type(aggregate).__name__}({given})"
