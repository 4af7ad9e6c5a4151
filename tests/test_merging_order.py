"""Merging gives what a stable sort of all would give, on any timing, and leaves nothing open behind it."""

from __future__ import annotations

import asyncio
import itertools
import selectors
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock as ps
from penstock.errors import DefinitionError

FEW_KEYS = st.lists(st.lists(st.integers(0, 5), max_size=12), max_size=9)


class Item:
    """Has a key, and an identity beside it."""

    def __init__(self, key: int) -> None:
        self.key = key


def items(keys: list[list[int]]) -> list[list[Item]]:
    return [[Item(key) for key in sorted(source)] for source in keys]


def by_key(item: Item) -> int:
    return item.key


def oracle(sources: list[list[Item]]) -> list[Item]:
    return sorted(itertools.chain(*sources), key=by_key)


class Counted:
    """A key that can only be compared by <, and counts it."""

    compared = 0

    def __init__(self, number: int) -> None:
        self.number = number

    def __lt__(self, other: Counted) -> bool:
        Counted.compared += 1
        return self.number < other.number

    __eq__ = None  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]


class Watched:
    """A generator's source that tells how far it was read and whether it was closed."""

    def __init__(self, *given: Any, error: Exception | None = None) -> None:
        self.read = 0
        self.closed = False
        self._given = given
        self._error = error

    def plain(self) -> Iterator[Any]:
        try:
            for one in self._given:
                self.read += 1
                yield one
            if self._error:
                raise self._error
        finally:
            self.closed = True

    async def later(self) -> AsyncIterator[Any]:
        try:
            for one in self._given:
                if isinstance(one, asyncio.Event):
                    await one.wait()
                elif isinstance(one, float):
                    await asyncio.sleep(one)
                else:
                    self.read += 1
                    yield one
            if self._error:
                raise self._error
        finally:
            # Closing that takes a while is waited for.
            await asyncio.sleep(1)
            self.closed = True


class InstantLoop(asyncio.SelectorEventLoop):
    """An event loop on a clock of its own: whatever it would wait for comes at once, nothing ever sleeps."""

    def __init__(self) -> None:
        self._now = 0.0
        inner = selectors.DefaultSelector()
        super().__init__(inner)
        select = inner.select

        def instant(timeout: float | None = None) -> Any:
            assert timeout is not None, "everything waits and nothing will come"
            self._now += max(0.0, timeout)
            return select(0)

        inner.select = instant  # type: ignore[method-assign,assignment]

    def time(self) -> float:
        return self._now


def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Runs it on an instant loop; no task may be left at its end."""

    async def checked() -> Any:
        result = await main()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return result

    with asyncio.Runner(loop_factory=InstantLoop) as runner:
        return runner.run(checked())


async def later(given: list[Any]) -> AsyncIterator[Any]:
    for at, one in enumerate(given):
        if at % 2:
            await asyncio.sleep(0.001 * at)
        yield one


@settings(deadline=None, derandomize=True)
@given(FEW_KEYS)
def test_merging_is_sorting(keys: list[list[int]]) -> None:
    """The very same items in the very same order as a stable sort of all, ties included."""
    sources = items(keys)
    assert list(ps.merge_sorted(*sources, key=by_key)) == oracle(sources)
    assert list(ps.merge_sorted(*map(sorted, keys))) == sorted(itertools.chain(*keys))


@dataclass
class Stamped:
    """Sorts by its time, and is equal only where all is."""

    time: int
    number: int

    def __lt__(self, other: Stamped) -> bool:
        return self.time < other.time


@settings(deadline=None, derandomize=True)
@given(FEW_KEYS, st.booleans())
def test_ties_are_what_neither_side_is_smaller_of(keys: list[list[int]], in_tuples: bool) -> None:
    """As in sorting, equality that says otherwise changes no order."""
    numbers = itertools.count(100, -1)
    sources = [[Stamped(key, next(numbers)) for key in sorted(source)] for source in keys]

    def key(item: Stamped) -> Any:
        return (0, item) if in_tuples else item

    together = list(itertools.chain(*sources))
    assert list(ps.merge_sorted(*sources, key=key)) == sorted(together, key=key)


@settings(deadline=None, derandomize=True)
@given(FEW_KEYS)
def test_merging_what_comes_later_is_sorting(keys: list[list[int]]) -> None:
    """However the sources' items come in time, the order is that of a stable sort of all."""
    sources = items(keys)

    async def main() -> list[Item]:
        merged = ps.merge_sorted_async(*map(later, sources), key=by_key)
        return [item async for item in merged]

    assert run(main) == oracle(sources)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.lists(st.integers(0, 9), max_size=15), max_size=4), st.integers(0, 5))
def test_disorder_is_sorted_as_far_as_allowed(keys: list[list[int]], disorder: int) -> None:
    """Sorted where no item follows more than `disorder` larger keys; an error, in both merges, where one does."""
    sources = [[Item(key) for key in source] for source in keys]
    most = max(
        (sum(before > key for before in source[:at]) for source in keys for at, key in enumerate(source)), default=0
    )

    async def main() -> list[Item]:
        return [item async for item in ps.merge_sorted_async(*map(later, sources), key=by_key, disorder=disorder)]

    for merge in (lambda: list(ps.merge_sorted(*sources, key=by_key, disorder=disorder)), lambda: run(main)):
        if most <= disorder:
            assert merge() == oracle(sources)
        else:
            with pytest.raises(ps.PenstockError):
                merge()


@pytest.mark.parametrize("sources", [1, 2, 7, 64, 1000])
def test_a_step_compares_log_k_keys(sources: int) -> None:
    """One call of key an item; comparisons: log2 of the sources' number, and one of the source's own order."""
    each, calls = 20, itertools.count()
    given = [range(at, each * sources, sources) for at in range(sources)]

    def key(number: int) -> Counted:
        next(calls)
        return Counted(number)

    Counted.compared = 0
    assert list(ps.merge_sorted(*given, key=key)) == list(range(each * sources))
    assert next(calls) == each * sources
    rounds = max(0, sources - 1).bit_length()
    assert Counted.compared <= each * sources * (rounds + 1) + sources


def test_endless_sources_are_read_an_item_ahead() -> None:
    """Nothing is read before the first is asked for, then one item a source, then one a step."""
    one, two = Watched(*range(0, 100, 2)), Watched(*range(1, 100, 2))
    merged = ps.merge_sorted(one.plain(), two.plain(), itertools.count())
    assert (one.read, two.read) == (0, 0)
    assert next(merged) == 0
    assert (one.read, two.read) == (1, 1)
    assert list(itertools.islice(merged, 6)) == [0, 1, 1, 2, 2, 3]
    assert (one.read, two.read) == (3, 2)
    merged.close()


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_closing_closes_generators(taken: int, tmp_path: Path) -> None:
    """However much was taken, begun generators are closed; a file stays open, as its opener decides."""
    (tmp_path / "lines").write_text("3\n4\n")
    one, two = Watched(1, 2, 9), Watched(1, 8)
    begun = [one.plain(), two.plain()]
    assert [next(source) for source in begun] == [1, 1]
    with (tmp_path / "lines").open() as file:
        merged = ps.merge_sorted(*begun, file, key=int)
        assert len(list(itertools.islice(merged, taken))) == taken
        merged.close()
        assert one.closed
        assert two.closed
        assert not file.closed


def test_a_loop_that_is_left_closes_generators() -> None:
    one = Watched(1, 2, 3)
    source = one.plain()
    for _ in ps.merge_sorted(source, [5]):
        break
    assert one.closed


def test_what_a_source_raises_passes_through() -> None:
    """It comes when the item after the last was to be read, and closes the others."""
    one, two = Watched(1, 2, error=OSError("the disk")), Watched(1, 5)
    merged = ps.merge_sorted(one.plain(), two.plain())
    assert [next(merged) for _ in range(3)] == [1, 1, 2]
    with pytest.raises(OSError, match="the disk"):
        next(merged)
    assert two.closed


def test_broken_order_names_source_place_and_keys() -> None:
    with pytest.raises(ps.PenstockError) as caught:
        list(ps.merge_sorted([1], [2, 7, 5]))
    assert str(caught.value) == (
        "each stream is sorted; got 5 after 7, item 2 of stream 1; sort it first, or allow for it: disorder=N"
    )
    with pytest.raises(ps.PenstockError, match=r"most disorder=1 larger .* got 1 after 2, item 2 of stream 0"):
        list(ps.merge_sorted([3, 2, 1], disorder=1))
    for disorder in (0, 2):
        with pytest.raises(ps.PenstockError, match="got NaN, item 1 of stream 0"):
            list(ps.merge_sorted([1.0, float("nan"), 0.5], disorder=disorder))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: ps.merge_sorted([1], 2),
        lambda: ps.merge_sorted(later([1])),
        lambda: ps.merge_sorted([1], disorder=-1),
        lambda: ps.merge_sorted_async([1]),
        lambda: ps.merge_sorted_async(idle=0),
        lambda: ps.merge_sorted_async(idle=float("nan")),
        lambda: ps.merge_sorted_async(disorder=0.5),
    ],
)
def test_wrong_arguments_are_refused_at_the_call(wrong: Callable[[], Any]) -> None:
    with pytest.raises(DefinitionError):
        wrong()


def test_an_idle_source_holds_nothing_back_and_its_late_items_are_told() -> None:
    """After `idle` seconds the others go on; below what was given is late, at or above it is merged again."""
    slow, quick = Watched(1, 10.0, 2, 3, 4, 4, 7), Watched(1, 3, 4, 30.0, 5, 9)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        late: list[tuple[int, int]] = []
        when: list[tuple[float, int]] = []
        async with ps.merge_sorted_async(
            slow.later(), quick.later(), idle=2, late=lambda *told: late.append(told)
        ) as merged:
            async for item in merged:
                when.append((loop.time(), item))
                if len(when) == 4:
                    assert merged.watermarks == [1, 4]
        # The second 1 waits as well: the earlier argument might still bring a 1, which would come first.
        assert when == [(0, 1), (2, 1), (2, 3), (2, 4), (10, 4), (10, 4), (10, 7), (32, 9)]
        assert late == [(0, 2), (0, 3), (1, 5)]
        assert merged.late == 3

    run(main)


def test_without_idle_a_source_is_waited_for() -> None:
    slow, quick = Watched(1, 1e6, 2), Watched(1, 3)

    async def main() -> list[int]:
        return [item async for item in ps.merge_sorted_async(slow.later(), quick.later())]

    assert run(main) == [1, 1, 2, 3]


def test_a_slow_consumer_makes_no_source_idle() -> None:
    """What keeps the consumer, even with the event loop held up, is not a source's silence."""
    one, two = Watched(1, 0.5, 2, 0.5, 4), Watched(1, 3, 5)

    async def main() -> list[int]:
        loop, out = asyncio.get_running_loop(), []
        merged = ps.merge_sorted_async(one.later(), two.later(), idle=1)
        async for item in merged:
            loop._now += 100  # type: ignore[attr-defined]
            out.append(item)
        assert merged.late == 0
        return out

    assert run(main) == [1, 1, 2, 3, 4, 5]


def test_silence_counts_while_it_is_waited_for() -> None:
    """A consumer that comes back late waits `idle` seconds more for a source that is behind."""
    quick, slow = Watched(1, 5, 9), Watched(10.0, 2, 1e3, 8)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        when = []
        async with ps.merge_sorted_async(quick.later(), slow.later(), idle=1, late=lambda *_: None) as merged:
            for _ in range(3):
                item = await anext(merged)
                when.append((loop.time(), item))
                await asyncio.sleep(99 if item == 5 else 0)
        assert when == [(1, 1), (1, 5), (101, 9)]

    run(main)


def test_all_sources_idle_is_not_the_end() -> None:
    one, two = Watched(5.0, 1), Watched(9.0, 2)

    async def main() -> list[int]:
        return [item async for item in ps.merge_sorted_async(one.later(), two.later(), idle=1)]

    assert run(main) == [1, 2]


def test_an_idle_source_gives_what_its_buffer_holds() -> None:
    """What waits in a source's buffer for smaller keys is given in order once the source is idle."""
    one, two = Watched(3, 1, 2, 50.0, 4, 0), Watched(2, 9)

    async def main() -> None:
        late: list[int] = []
        merged = ps.merge_sorted_async(
            one.later(), two.later(), idle=1, disorder=5, late=lambda _, item: late.append(item)
        )
        assert [item async for item in merged] == [1, 2, 2, 3, 9]
        assert late == [4, 0]

    run(main)


@settings(deadline=None, derandomize=True)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 6), st.floats(0, 5)), max_size=10), min_size=1, max_size=4),
    st.integers(0, 3),
)
def test_with_pauses_nothing_is_lost_nor_out_of_order(plan: list[list[tuple[int, float]]], disorder: int) -> None:
    """Whatever the pauses: what is given is sorted, and with what is late it is all that came."""

    async def paused(source: list[tuple[int, float]]) -> AsyncIterator[int]:
        keys = sorted(key for key, _ in source)
        for key, (_, pause) in zip(keys, source, strict=True):
            await asyncio.sleep(pause)
            yield key

    async def main() -> None:
        late: list[int] = []
        merged = ps.merge_sorted_async(
            *map(paused, plan), idle=1, disorder=disorder, late=lambda _, item: late.append(item)
        )
        out = [item async for item in merged]
        assert out == sorted(out)
        assert sorted(out + late) == sorted(key for source in plan for key, _ in source)
        assert merged.late == len(late)

    run(main)


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_leaving_an_asynchronous_merge_closes_all(taken: int) -> None:
    """Sources that have begun are closed, waited for, and no task is left (`run` looks)."""
    one, two = Watched(0, 1, 4), Watched(0, 2, 1e9, 3)

    async def main() -> None:
        begun = [one.later(), two.later()]
        assert [await anext(source) for source in begun] == [0, 0]
        async with ps.merge_sorted_async(*begun) as merged:
            for _ in range(taken):
                await anext(merged)
        assert one.closed
        assert two.closed
        with pytest.raises(StopAsyncIteration):
            await anext(merged)

    run(main)


def test_a_source_that_goes_on_when_cancelled_is_closed() -> None:
    """What it brings instead of ending is not waited on."""

    async def stubborn() -> AsyncIterator[int]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            yield 9

    async def main() -> None:
        async with ps.merge_sorted_async(stubborn(), later([1]), idle=1) as merged:
            assert await anext(merged) == 1

    run(main)


def test_a_failing_source_or_callback_ends_an_asynchronous_merge() -> None:
    """What a source, or `late`, raises reaches the consumer, and everything is closed."""
    failing, other = Watched(1, 2, error=OSError("the line")), Watched(1, 5, 1e9, 6)

    async def main() -> None:
        merged = ps.merge_sorted_async(failing.later(), other.later())
        assert [await anext(merged) for _ in range(3)] == [1, 1, 2]
        with pytest.raises(OSError, match="the line"):
            await anext(merged)
        assert failing.closed
        assert other.closed

    async def refused() -> None:
        def refuse(place: int, item: int) -> None:
            raise ValueError(item)

        slow = Watched(1, 10.0, 2)
        with pytest.raises(ValueError, match="2"):
            async for _ in ps.merge_sorted_async(slow.later(), Watched(1, 5, 1e9).later(), idle=1, late=refuse):
                pass
        assert slow.closed

    run(main)
    run(refused)


def test_cancelling_the_wait_closes_all() -> None:
    one = Watched(asyncio.Event(), 1)

    async def main() -> None:
        merged = ps.merge_sorted_async(one.later(), Watched(1).later())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(merged), 5)
        assert one.closed

    run(main)


def test_a_source_that_cancels_itself_ends_the_merge() -> None:
    """A source whose own work was cancelled is no endless wait."""

    async def cancelled() -> AsyncIterator[int]:
        yield 1
        raise asyncio.CancelledError

    async def main() -> None:
        merged = ps.merge_sorted_async(cancelled(), later([2]))
        assert await anext(merged) == 1
        with pytest.raises(asyncio.CancelledError):
            await anext(merged)

    run(main)


def test_an_asynchronous_step_compares_log_k_keys() -> None:
    """Twice log2 of the sources' number (an item goes, an item comes), and two for order and lateness."""
    sources, each = 64, 5

    async def main() -> list[int]:
        given = [later(list(range(at, each * sources, sources))) for at in range(sources)]
        return [number async for number in ps.merge_sorted_async(*given, key=Counted)]

    Counted.compared = 0
    assert run(main) == list(range(each * sources))
    # The end of a source plays its matches once more.
    assert Counted.compared <= each * sources * (2 * 6 + 2) + 6 * sources


def test_merges_merge() -> None:
    """A merge is a sorted source itself, and is closed with the outer one."""
    one = Watched(1, 4, 7)
    outer = ps.merge_sorted(ps.merge_sorted(one.plain(), [2, 5]), [3, 6])
    assert list(itertools.islice(outer, 5)) == [1, 2, 3, 4, 5]
    outer.close()
    assert one.closed
    assert list(ps.merge_sorted()) == []
