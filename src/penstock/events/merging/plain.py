"""Sorted iterables into one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, suppress
from datetime import date, datetime
from heapq import heapify, heappop, heapreplace
from typing import Any, TypeVar, cast

from penstock.errors import DefinitionError
from penstock.events.merging.sources import OUT, Source, Tournament, check_disorder

T = TypeVar("T")

_PLAIN = {bool, int, float, str, bytes, date, datetime}


def merge_sorted(
    *streams: Iterable[T], key: Callable[[T], Any] | None = None, disorder: int = 0
) -> Generator[T, None, None]:
    """Merges sorted iterables into one sorted iterator, an item at a time.

    Of equal keys the earlier argument comes first, then the order within a source: the result is that of
    ``sorted(chain(*streams), key=key)``. Each step reads one item at most (the first, one of each source), calls `key`
    once and compares keys in proportion to log2(number of sources), those of your own classes by ``<`` alone. One item
    a source is held, and `disorder` more. Sources that are generators are closed when the merge ends or is closed; what
    a source raises passes through.

    Args:
        streams: the sources, each sorted; they may be endless.
        key: gives an item's key; without it the items themselves are compared.
        disorder: how many items with larger keys may come before an item; a source is sorted anew that far.

    Raises:
        OrderError: a source breaks its order, or a key is NaN.
        DefinitionError: an argument is not iterable, or `disorder` is not a number of items.

    >>> list(merge_sorted([1, 4, 5], [2, 4]))
    [1, 2, 4, 4, 5]
    >>> list(merge_sorted([2, 1, 3], [2.5], disorder=1))
    [1, 2, 2.5, 3]
    """
    check_disorder(disorder)
    iterators = [_iterator(index, stream) for index, stream in enumerate(streams)]
    merged = _merged(iterators, key, disorder)
    # Begun, so that it closes the sources even where nothing is ever asked of it.
    next(merged)
    return merged


def _iterator(index: int, stream: Iterable[T]) -> Iterator[T]:
    try:
        return iter(stream)
    except TypeError:
        remedy = "use merge_sorted_async" if hasattr(stream, "__aiter__") else "give each source as an argument"
        raise DefinitionError(
            "merge_sorted merges iterables", got=f"{type(stream).__name__} as stream {index}", remedy=remedy
        ) from None


def _merged(iterators: list[Iterator[T]], key: Callable[[T], Any] | None, disorder: int) -> Generator[T, None, None]:
    with ExitStack() as closing:
        for iterator in iterators:
            # Not a file, for instance: whoever opened it closes it.
            if isinstance(iterator, Generator):
                closing.callback(iterator.close)
        yield cast(T, None)
        sources = [Source(index, key, disorder) for index in range(len(iterators))]
        for source in sources:
            _fill(source, iterators[source.index])
            source.settle()
        if not disorder and all(source.ended or _plain(source.bound) for source in sources):
            yield from _by_heap(sources, iterators, key)
            return
        tournament = Tournament(sources)
        while (source := tournament.winner).rank != OUT:
            yield source.take()[1]
            _fill(source, iterators[source.index])
            tournament.update(source)


def _by_heap(sources: list[Source[T]], iterators: list[Iterator[T]], key: Callable[[T], Any] | None) -> Iterator[T]:
    """The same, several times as fast, where equality of keys is what neither being smaller is."""
    heap: list[list[Any]] = []
    for source in sources:
        if not source.ended:
            first, item = source.take()
            heap.append([first, source.index, item, _ordered(source, iterators[source.index], key, first).__next__])
    heapify(heap)
    while heap:
        with suppress(StopIteration):
            while True:
                entry = heap[0]
                yield entry[2]
                entry[0], entry[2] = entry[3]()
                heapreplace(heap, entry)
        heappop(heap)


def _ordered(
    source: Source[T], iterator: Iterator[T], key: Callable[[T], Any] | None, last: Any
) -> Iterator[tuple[Any, T]]:
    for number, item in enumerate(iterator, 1):
        now = item if key is None else key(item)
        # Of NaN this is not true either.
        if not last <= now:
            source.passed(last)
            raise source.refused(now, number)
        last = now
        yield now, item


def _plain(key: Any) -> bool:
    return all(map(_plain, key)) if type(key) is tuple else type(key) in _PLAIN


def _fill(source: Source[T], iterator: Iterator[T]) -> None:
    while not source.full and not source.ended:
        for item in iterator:
            source.put(source.key(item), item)
            break
        else:
            source.ended = True
