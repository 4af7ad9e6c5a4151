"""Sorted asynchronous iterators into one; a silent source holds the others back only for so long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar

from penstock.errors import DefinitionError
from penstock.events.merging.sources import OUT, UNKNOWN, Source, Tournament, check_disorder

T = TypeVar("T")


def merge_sorted_async(
    *streams: AsyncIterable[T],
    key: Callable[[T], Any] | None = None,
    disorder: int = 0,
    idle: float | None = None,
    late: Callable[[int, T], None] | None = None,
) -> MergedAsync[T]:
    """Merges sorted asynchronous iterators into one sorted asynchronous iterator.

    Order, ties and what is held are those of `merge_sorted`; a step compares twice as many keys. Each source is read by
    a task of its own, that reads on once its item was given and the next is asked for. An item waits until no source
    can bring one that comes before it, by its watermark (the key that it gave last). Where that waits for a source that
    has brought nothing for `idle` seconds, the others go on without it. What it brings later is merged again, but for
    what is below a key that was already given: that is late, and goes to `late`. Ties with what was given while it was
    silent come after it.

    Args:
        streams: the sources, each sorted.
        key: gives an item's key; without it the items themselves are compared.
        disorder: how many items with larger keys may come before an item; a source is sorted anew that far.
        idle: seconds on the event loop's clock, of a source's silence and of waiting for it; None waits for ever.
        late: called with the place of the stream, from 0, and the item that is late; without it that is an error.

    Raises:
        OrderError: a source breaks its order, a key is NaN, or an item is late and nobody takes it.
        DefinitionError: an argument is not an asynchronous iterable, or `disorder` or `idle` is not a size.

    >>> async def source(*items):
    ...     for item in items:
    ...         yield item
    >>> async def merged():
    ...     async with merge_sorted_async(source(1, 4), source(2, 3)) as items:
    ...         return [item async for item in items]
    >>> asyncio.run(merged())
    [1, 2, 3, 4]
    """
    check_disorder(disorder)
    if idle is not None and not idle > 0:
        raise DefinitionError("idle is seconds above 0", got=repr(idle), remedy="leave it out to wait for every source")
    for index, stream in enumerate(streams):
        if not hasattr(stream, "__aiter__"):
            raise DefinitionError(
                "merge_sorted_async merges asynchronous iterables",
                got=f"{type(stream).__name__} as stream {index}",
                remedy="use merge_sorted" if hasattr(stream, "__iter__") else "give each source as an argument",
            )
    return MergedAsync(_Merge([aiter(stream) for stream in streams], key, disorder, idle, late))


class MergedAsync(Generic[T]):
    """The items of several sources in order; what `merge_sorted_async` gives.

    Left early, it is closed by ``async with`` or `aclose`: the sources that are asynchronous generators are closed, and
    no task is left. What a source raises passes through and closes the others; so does cancelling the wait for an item.
    """

    def __init__(self, merge: _Merge[T]) -> None:
        self._merge = merge
        self._items = merge.items()

    @property
    def late(self) -> int:
        """How many items came too late to be given in order."""
        return self._merge.too_late

    @property
    def watermarks(self) -> list[Any]:
        """For each source the key below which it gives nothing any more; None before the first."""
        return [None if source.rank == UNKNOWN else source.bound for source in self._merge.sources]

    def __aiter__(self) -> MergedAsync[T]:
        return self

    async def __anext__(self) -> T:
        return await anext(self._items)

    async def __aenter__(self) -> MergedAsync[T]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stops reading: once it returns, no task is left and the sources are closed."""
        await self._items.aclose()
        # A generator that was never begun runs nothing when it is closed.
        await self._merge.close()


class _Merge(Generic[T]):
    """The readers' tasks, and what they and the consumer share; all of it belongs to one event loop."""

    def __init__(
        self,
        iterators: Sequence[AsyncIterator[T]],
        key: Callable[[T], Any] | None,
        disorder: int,
        idle: float | None,
        late: Callable[[int, T], None] | None,
    ) -> None:
        self.sources = [Source(index, key, disorder) for index in range(len(iterators))]
        self.too_late = 0
        self._tournament = Tournament(self.sources)
        self._iterators = iterators
        self._idle = idle
        self._late = late
        self._tasks: list[asyncio.Task[None]] = []
        self._since = [0.0] * len(iterators)
        self._room = [asyncio.Event() for _ in iterators]
        self._changed = asyncio.Event()
        self._given: tuple[Any] | None = None
        self._open = len(iterators)
        self._failure: BaseException | None = None
        self._closing = False

    async def items(self) -> AsyncGenerator[T, None]:
        loop = asyncio.get_running_loop()
        try:
            for source in self.sources:
                self._since[source.index] = loop.time()
                task = loop.create_task(self._read(source, loop))
                task.add_done_callback(partial(self._ended, source))
                self._tasks.append(task)
            asked = loop.time()
            while True:
                if self._failure is not None:
                    raise self._failure
                source = self._tournament.winner
                if source.ready:
                    key, item = source.take()
                    self._given = (key,)
                    self._tournament.update(source)
                    yield item
                    del item
                    asked = self._since[source.index] = loop.time()
                    self._room[source.index].set()
                elif source.rank == OUT and not self._open:
                    return
                else:
                    await self._wait(source, asked)
        finally:
            await self.close()

    async def _wait(self, source: Source[T], asked: float) -> None:
        """Waits until anything changes; or, where all wait for one source, until that is idle."""
        self._changed.clear()
        if source.rank == OUT or self._idle is None:
            await self._changed.wait()
            return
        # From the question on at the least: while the consumer kept the loop busy, no source could bring anything.
        until = max(asked, self._since[source.index]) + self._idle
        try:
            async with asyncio.timeout_at(until):
                await self._changed.wait()
        except TimeoutError:
            if not self._changed.is_set():
                source.idle = True
                self._tournament.update(source)

    async def _read(self, source: Source[T], loop: asyncio.AbstractEventLoop) -> None:
        iterator = self._iterators[source.index]
        room = self._room[source.index]
        try:
            async for item in iterator:
                # A source that swallows its cancelling is not waited for a second time.
                if self._closing:
                    break
                self._put(source, item)
                del item
                self._since[source.index] = loop.time()
                while source.full:
                    room.clear()
                    await room.wait()
        finally:
            await _close(iterator)

    def _put(self, source: Source[T], item: T) -> None:
        key = source.key(item)
        source.idle = False
        if self._given is not None and key < self._given[0]:
            self.too_late += 1
            if self._late is None:
                raise source.late(key, self._given[0])
            self._late(source.index, item)
            source.passed(key)
        else:
            source.put(key, item)
        self._tournament.update(source)
        self._changed.set()

    def _ended(self, source: Source[T], task: asyncio.Task[None]) -> None:
        """Hears that a reader is done; a failure goes to the consumer."""
        if task.cancelled():
            failure: BaseException | None = asyncio.CancelledError()
        else:
            failure = task.exception()
        if not self._closing:
            self._failure = self._failure or failure
        self._open -= 1
        source.ended = True
        self._tournament.update(source)
        self._changed.set()

    async def close(self) -> None:
        """Cancels the readers, waits for them and closes the sources; a second time nothing is left to do."""
        self._closing = True
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        # A reader that never ran has closed nothing.
        results += await asyncio.gather(*map(_close, self._iterators), return_exceptions=True)
        for result in results:
            if isinstance(result, Exception) and result is not self._failure:
                raise result


async def _close(iterator: AsyncIterator[Any]) -> None:
    if isinstance(iterator, AsyncGenerator):
        await iterator.aclose()
