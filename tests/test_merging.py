"""Sorted streams become one that is sorted, stable and lazy; what breaks the order or comes too late is told."""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import AsyncIterator, Iterator
from itertools import chain, count, islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock as ps
from penstock.errors import PenstockError

PAIRS = st.lists(st.lists(st.tuples(st.integers(0, 9), st.integers())), max_size=6)


def first(pair: tuple[int, Any]) -> int:
    return pair[0]


@settings(deadline=None, derandomize=True)
@given(PAIRS)
def test_it_is_the_sorted_chain_and_stable(streams: list[list[tuple[int, int]]]) -> None:
    """Equal keys keep the order of the streams, and within a stream its own."""
    ordered = [sorted(stream, key=first) for stream in streams]
    assert list(ps.merge_sorted(*ordered, key=first)) == sorted(chain(*ordered), key=first)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.lists(st.integers(0, 99)), max_size=4), st.integers(0, 5))
def test_a_bounded_disorder_is_sorted_out_or_refused(streams: list[list[int]], disorder: int) -> None:
    """It is refused exactly where an item stands more places too late than was allowed."""

    def bearable(stream: list[int]) -> bool:
        return all(sum(earlier > item for earlier in stream[:at]) <= disorder for at, item in enumerate(stream))

    try:
        merged = list(ps.merge_sorted(*streams, disorder=disorder))
    except PenstockError:
        assert not all(bearable(stream) for stream in streams)
    else:
        assert merged == sorted(chain(*streams))


def test_a_broken_order_names_the_stream_and_the_place() -> None:
    """After what came before it was given."""
    merged = ps.merge_sorted([1, 5], [2, 4, 3])
    assert list(islice(merged, 3)) == [1, 2, 4]
    with pytest.raises(PenstockError, match="got 3 after 4, item 2 of stream 1; sort it first"):
        next(merged)


def test_it_is_lazy_and_closes_what_it_was_given() -> None:
    """Endless streams are merged; one item of each is read ahead, no more; whoever stops early closes them."""
    read, closed = [0, 0], []

    def endless(place: int) -> Iterator[int]:
        try:
            for item in count(place, 2):
                read[place] += 1
                yield item
        finally:
            closed.append(place)

    merged = ps.merge_sorted(endless(0), endless(1))
    assert list(islice(merged, 6)) == [0, 1, 2, 3, 4, 5]
    assert max(read) <= 4
    merged.close()  # type: ignore[attr-defined]
    assert sorted(closed) == [0, 1]


def test_a_step_costs_the_logarithm_of_the_streams() -> None:
    """Comparisons an item, for 4 and for 256 streams."""
    compared = 0

    @functools.total_ordering
    class Item:
        def __init__(self, n: int) -> None:
            self.n = n

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Item) and self.n == other.n

        def __lt__(self, other: Item) -> bool:
            nonlocal compared
            compared += 1
            return self.n < other.n

    for streams in (4, 256):
        compared = 0
        parts = [[Item(i) for i in range(place, 4_096, streams)] for place in range(streams)]
        assert [item.n for item in ps.merge_sorted(*parts)] == list(range(4_096))
        assert compared / 4_096 < 2 * math.log2(streams) + 4


def test_an_error_of_a_stream_comes_through() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(ps.merge_sorted(failing(), [1, 2]))


class Fed:
    """A stream that brings what it is fed, when it is fed."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[int | None] = asyncio.Queue()
        self.closed = False

    def feed(self, *items: int | None) -> None:
        for item in items:
            self._queue.put_nowait(item)

    async def items(self) -> AsyncIterator[int]:
        try:
            while (item := await self._queue.get()) is not None:
                yield item
        finally:
            self.closed = True


def test_streams_in_time_are_merged_as_they_come() -> None:
    """Nothing is given before every other stream has brought a later item or has ended."""

    async def play() -> None:
        a, b = Fed(), Fed()
        merged = ps.merge_sorted_async(a.items(), b.items())
        a.feed(1, 2, 9)
        waiting = asyncio.ensure_future(anext(merged))
        done, _ = await asyncio.wait([waiting], timeout=0)
        assert not done
        b.feed(5, None)
        assert [await waiting, *[await anext(merged) for _ in range(2)]] == [1, 2, 5]
        a.feed(None)
        assert [item async for item in merged] == [9]
        assert a.closed
        assert b.closed

    asyncio.run(play())


def test_a_silent_stream_holds_nobody_back_and_its_late_items_are_handed_over() -> None:
    late: list[tuple[int, int]] = []

    async def play() -> list[int]:
        a, b = Fed(), Fed()
        a.feed(1, 4)
        merged = ps.merge_sorted_async(a.items(), b.items(), idle=0.01, late=lambda *item: late.append(item))
        found = [await anext(merged), await anext(merged)]
        b.feed(2, 6, None)
        a.feed(None)
        return found + [item async for item in merged]

    assert asyncio.run(play()) == [1, 4, 6]
    assert late == [(1, 2)]


def test_a_late_item_that_nobody_takes_and_a_broken_order_are_errors() -> None:
    async def play(late: bool) -> None:
        a, b = Fed(), Fed()
        a.feed(1, 4)
        merged = ps.merge_sorted_async(a.items(), b.items(), idle=0.01 if late else None)
        if not late:
            b.feed(0, 3, 2, None)
        found = [await anext(merged), await anext(merged)]
        b.feed(2, None)
        a.feed(None)
        while True:
            found.append(await anext(merged))

    with pytest.raises(PenstockError, match="not below what was given already; got 2 of stream 1 after 4"):
        asyncio.run(play(late=True))
    with pytest.raises(PenstockError, match="got 2 after 3, item 2 of stream 1"):
        asyncio.run(play(late=False))


def test_stopping_early_leaves_no_task() -> None:
    async def play() -> None:
        a, b = Fed(), Fed()
        a.feed(1, 2)
        b.feed(1)
        merged = ps.merge_sorted_async(a.items(), b.items())
        assert await anext(merged) == 1
        await merged.aclose()  # type: ignore[attr-defined]
        assert (a.closed, b.closed) == (True, True)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(play())
