"""What a merge holds of each source, and the tournament that finds the source whose turn it is."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from penstock.errors import DefinitionError, PenstockError

T = TypeVar("T")

UNKNOWN, KNOWN, OUT = range(3)


class OrderError(PenstockError):
    """A stream that should be sorted is not, or brings an item too late."""


class Source(Generic[T]):
    """The items of one source that were read and not yet given: one, and `disorder` more.

    Attributes:
        index: its place among the arguments, from 0.
        read: items read so far.
        ended: nothing more comes.
        idle: nothing came for so long that nobody waits for it.
        rank: `UNKNOWN` before anything is known of it, `KNOWN` with a bound, `OUT` where it has no turn.
        bound: its watermark: it gives nothing below this key.

    Args:
        index: its place among the arguments.
        key: gives an item's key; None where the item is its own.
        disorder: how many items with larger keys may come before an item.
    """

    __slots__ = ("_buffer", "_disorder", "_floor", "_key", "bound", "ended", "idle", "index", "rank", "read")

    def __init__(self, index: int, key: Callable[[T], Any] | None, disorder: int) -> None:
        self.index = index
        self.read = 0
        self.ended = self.idle = False
        self.rank = UNKNOWN
        self.bound: Any = None
        self._key = key
        self._disorder = disorder
        self._buffer: list[tuple[Any, T]] = []
        # In a tuple, since any object may be a key.
        self._floor: tuple[Any] | None = None

    @property
    def full(self) -> bool:
        """Whether its smallest item may be given, whatever comes."""
        return len(self._buffer) > self._disorder

    @property
    def ready(self) -> bool:
        """Whether it has an item to give."""
        return self.full or ((self.ended or self.idle) and bool(self._buffer))

    def key(self, item: T) -> Any:
        """The item's key, checked against the source's order.

        Raises:
            OrderError: the key cannot be ordered, or comes too late.
        """
        key = item if self._key is None else self._key(item)
        if (isinstance(key, float) and key != key) or (self._floor is not None and key < self._floor[0]):
            raise self.refused(key, self.read)
        self.read += 1
        return key

    def put(self, key: Any, item: T) -> None:
        """Takes in an item of a checked key."""
        if self._buffer:
            insort(self._buffer, (key, item), key=_key_of)
        else:
            self._buffer.append((key, item))

    def passed(self, key: Any) -> None:
        """An item was read and goes elsewhere: what comes after it is held to it all the same."""
        if not self._disorder:
            self._floor = (key,)

    def take(self) -> tuple[Any, T]:
        """Its smallest key, and the item; of equal ones, what was read first."""
        full = self.full
        key, item = self._buffer.pop(0)
        # Given only because the source was idle, it forbids nothing.
        if full:
            self._floor = (key,)
        return key, item

    def settle(self) -> None:
        """Brings rank and bound up to date."""
        if self.ready:
            self.rank, self.bound = KNOWN, self._buffer[0][0]
        elif self.ended or self.idle:
            self.rank = OUT
        elif self._floor is not None:
            self.rank, self.bound = KNOWN, self._floor[0]
        else:
            self.rank = UNKNOWN

    def refused(self, key: Any, number: int) -> OrderError:
        """The error of its item of that number, whose key is NaN or below what was passed on."""
        place = f"item {number} of stream {self.index}"
        if isinstance(key, float) and key != key:
            return OrderError("a key has an order", got=f"NaN, {place}", remedy="leave such items out")
        got = f"{_short(key)} after {_short(self._floor[0] if self._floor else None)}, {place}"
        if not self._disorder:
            return OrderError("each stream is sorted", got=got, remedy="sort it first, or allow for it: disorder=N")
        rule = f"at most disorder={self._disorder} larger items of its stream come before an item"
        return OrderError(rule, got=got, remedy="sort it first, or allow for more")

    def late(self, key: Any, given: Any) -> OrderError:
        """The error of an item below what was given while the source was idle."""
        return OrderError(
            "an item is not below what was given already",
            got=f"{_short(key)} of stream {self.index} after {_short(given)}",
            remedy="wait longer: idle=…, or take such items: late=…",
        )


def _key_of(entry: tuple[Any, Any]) -> Any:
    return entry[0]


def _short(key: Any) -> str:
    text = repr(key)
    return text if len(text) <= 80 else text[:79] + "…"


class Tournament(Generic[T]):
    """Finds the source whose turn it is: the smallest bound, among equal ones the earlier argument.

    A change of one source costs as many comparisons as there are rounds: log2 of the number of sources.
    """

    def __init__(self, sources: Sequence[Source[T]]) -> None:
        self._size = 1 << max(0, len(sources) - 1).bit_length()
        nobody: Source[T] = Source(-1, None, 0)
        nobody.ended = True
        nobody.settle()
        # Node n is the winner of nodes 2n and 2n + 1; the earlier argument is always on the left.
        self._nodes = [nobody] * self._size + [*sources] + [nobody] * (self._size - len(sources))
        for source in sources:
            source.settle()
        for node in range(self._size - 1, 0, -1):
            self._play(node)

    @property
    def winner(self) -> Source[T]:
        """The source whose turn it is; of rank `OUT` where none has one."""
        return self._nodes[1]

    def update(self, source: Source[T]) -> None:
        """Plays a changed source's matches again."""
        source.settle()
        node = (self._size + source.index) >> 1
        while node:
            self._play(node)
            node >>= 1

    def _play(self, node: int) -> None:
        left, right = self._nodes[2 * node], self._nodes[2 * node + 1]
        if left.rank != right.rank:
            right_wins = right.rank < left.rank
        else:
            right_wins = left.rank == KNOWN and right.bound < left.bound
        self._nodes[node] = right if right_wins else left


def check_disorder(disorder: int) -> None:
    """Raises a DefinitionError unless it is a number of items."""
    if not isinstance(disorder, int) or disorder < 0:
        raise DefinitionError(
            "disorder is a whole number of items, 0 or more",
            got=repr(disorder),
            remedy="leave it out for sorted sources",
        )
