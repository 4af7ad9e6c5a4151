"""Several sorted streams as one, lazily: one item of each is held, and a step costs O(log K) comparisons."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

from penstock.errors import PenstockError

T = TypeVar("T")
Key = Callable[[T], Any]


class OrderError(PenstockError):
    """A stream that should be sorted is not."""


def merge_sorted(*streams: Iterable[T], key: Key[T] | None = None, disorder: int = 0) -> Iterator[T]:
    """The items of all streams in one order; of equal ones those of earlier streams come first.

    Args:
        streams: each sorted by `key`; they may be endless. Those that can be closed are, once the result is.
        key: what to sort by; the item itself by default.
        disorder: so many items of each stream are held back and sorted again, so that one may come that many places
            too late.

    Raises:
        OrderError: a stream breaks its order by more than that; what came before it was given.

    >>> list(merge_sorted([1, 4], [2, 3, 5]))
    [1, 2, 3, 4, 5]
    >>> list(merge_sorted([2, 1, 3], [2], disorder=1))
    [1, 2, 2, 3]
    >>> list(merge_sorted([2, 1]))
    Traceback (most recent call last):
    penstock.events.merging.OrderError: each stream is sorted; got 1 after 2, item 1 of stream 0; sort it first, or \
allow for it: disorder=N
    """
    if type(disorder) is not int or disorder < 0:
        raise OrderError("disorder is a number of items", got=repr(disorder), remedy="write disorder=100")
    by = key or _itself
    checked = [_checked(_resorted(stream, by, disorder), by, place) for place, stream in enumerate(streams)]
    try:
        # Its order is stable over the streams, and its heap as large as there are streams.
        yield from heapq.merge(*checked, key=key)
    finally:
        for one, stream in zip(checked, streams, strict=True):
            one.close()
            close = getattr(stream, "close", None)
            if close is not None and isinstance(stream, Iterator):
                close()


def _itself(item: Any) -> Any:
    return item


def _checked(stream: Iterable[T], key: Key[T], place: int) -> Any:
    """The same items, as long as they are in order."""
    last: Any = None
    for number, item in enumerate(stream):
        now = key(item)
        if number and now < last:
            raise _broken(now, last, number, place)
        last = now
        yield item


def _broken(now: Any, last: Any, number: int, place: int) -> OrderError:
    return OrderError(
        "each stream is sorted",
        got=f"{now!r} after {last!r}, item {number} of stream {place}",
        remedy="sort it first, or allow for it: disorder=N",
    )


def _resorted(stream: Iterable[T], key: Key[T], disorder: int) -> Iterable[T]:
    """The same items, the smallest of `disorder` + 1 at a time; equal ones stay in order."""
    if not disorder:
        yield from stream
        return
    held: list[tuple[Any, int, T]] = []
    for number, item in enumerate(stream):
        heapq.heappush(held, (key(item), number, item))
        if len(held) > disorder:
            yield heapq.heappop(held)[2]
    while held:
        yield heapq.heappop(held)[2]


async def merge_sorted_async(
    *streams: AsyncIterable[T],
    key: Key[T] | None = None,
    idle: float | None = None,
    late: Callable[[int, T], None] | None = None,
) -> AsyncIterator[T]:
    """The same of streams whose items come with time.

    An item is given once every other stream has brought a later one, has ended, or has been silent for `idle`
    seconds. What a silent stream brings afterwards may be below what was given meanwhile: it is late.

    Args:
        streams: each sorted by `key`.
        key: what to sort by; the item itself by default.
        idle: seconds of silence after which a stream holds the others back no longer; by default it does for ever.
        late: called with the place of the stream and the item that is late; without it that is an error.

    Raises:
        OrderError: a stream breaks its order, or an item is late and nobody takes it.

    >>> async def counted(*items):
    ...     for item in items:
    ...         yield item
    >>> async def merged():
    ...     return [item async for item in merge_sorted_async(counted(1, 4), counted(2, 3))]
    >>> asyncio.run(merged())
    [1, 2, 3, 4]
    """
    by = key or _itself
    sources = [_Source(stream, place) for place, stream in enumerate(streams)]
    ready: list[tuple[Any, int, T]] = []
    given: Any = None
    began = False
    try:
        while sources or ready:
            for place, item in await _arrived(sources, idle, anyway=bool(ready)):
                now = by(item)
                source = next(source for source in sources if source.place == place)
                if source.number and now < source.watermark:
                    raise _broken(now, source.watermark, source.number, place)
                source.number, source.watermark = source.number + 1, now
                if began and now < given:
                    if late is None:
                        raise OrderError(
                            "an item is not below what was given already",
                            got=f"{now!r} of stream {place} after {given!r}",
                            remedy="wait longer: idle=…, or take such items: late=…",
                        )  # fmt: skip
                    late(place, item)
                    source.ask()
                else:
                    heapq.heappush(ready, (now, place, item))
            sources = [source for source in sources if not source.ended]
            waiting = [source for source in sources if source.asked and not source.silent]
            if ready and not waiting:
                given, place, item = heapq.heappop(ready)
                began = True
                yield item
                for source in sources:
                    if source.place == place:
                        source.ask()
    finally:
        for source in sources:
            await source.close()


class _Source:
    """One stream, of which one item at a time is asked for."""

    def __init__(self, stream: AsyncIterable[Any], place: int) -> None:
        self._items = aiter(stream)
        self.place = place
        self.number = 0
        self.watermark: Any = None
        self.silent = False
        self.ended = False
        self.task: asyncio.Task[Any] | None = None
        self.ask()

    @property
    def asked(self) -> bool:
        return self.task is not None

    def ask(self) -> None:
        """Asks for the next item."""
        self.task = asyncio.ensure_future(anext(self._items))
        self.silent = False

    async def close(self) -> None:
        if self.task is not None:
            self.task.cancel()
            with suppress(asyncio.CancelledError, StopAsyncIteration, Exception):
                await self.task
        close = getattr(self._items, "aclose", None)
        if close is not None:
            await close()


async def _arrived(sources: list[_Source], idle: float | None, *, anyway: bool) -> list[tuple[int, Any]]:
    """What has come: waits for those that are asked, for `idle` seconds; then they count as silent."""
    asked = {source.task: source for source in sources if source.task is not None}
    if not asked:
        return []
    loud = [task for task, source in asked.items() if not source.silent]
    # All silent: with nothing to give there is nothing else to do than to wait for any of them.
    wait_for = loud or list(asked)
    if not loud and anyway:
        done = {task for task in asked if task.done()}
    else:
        done, _ = await asyncio.wait(wait_for, timeout=idle if loud else None, return_when=asyncio.FIRST_COMPLETED)
        done |= {task for task in asked if task.done()}
    if not done:
        for task in loud:
            asked[task].silent = True
    found = []
    for task, source in asked.items():
        if task in done:
            source.task = None
            source.silent = False
            try:
                found.append((source.place, task.result()))
            except StopAsyncIteration:
                source.ended = True
    return found
