"""Connections are taken as they come, evenly among processes, and what lives long is no load for the collector."""

from __future__ import annotations

import asyncio
import gc
import shutil
import socket
import weakref
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
import uvloop

from penstock.serve.accepting import Acceptor, Shares
from penstock.serve.garbage import Collector
from serving import Time


def rounds(
    connect: int, fewer: Callable[[], bool], run_in: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run
) -> list[int]:
    """The round of the event loop, from 0, in which each of so many waiting connections is taken."""
    with ExitStack() as opened:
        listener = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
        for _ in range(connect):
            opened.enter_context(socket.create_connection(listener.getsockname()))
        found: list[int] = []

        async def run() -> None:
            loop = asyncio.get_running_loop()
            done, now = loop.create_future(), -1

            def turn() -> None:
                nonlocal now
                now += 1
                loop.call_soon(turn)

            def take(one: socket.socket) -> None:
                opened.enter_context(one)
                found.append(now)
                if len(found) == connect:
                    done.set_result(None)

            turn()
            acceptor = Acceptor(listener, take, fewer)
            try:
                async with asyncio.timeout(20):
                    await done
            finally:
                acceptor.close()

        run_in(run())
        return found


def test_a_process_by_itself_takes_all_that_wait_at_once() -> None:
    """Thirty connections are taken within one round of either event loop, not one in each."""
    assert len(set(rounds(30, lambda: False))) == 1
    assert len(set(rounds(30, lambda: False, uvloop.run))) == 1


def test_a_connection_is_left_a_while_to_a_process_that_has_fewer() -> None:
    """Each is left to the others for two milliseconds, and taken once they have not come for it."""
    for run_in in (asyncio.run, uvloop.run):
        began = perf_counter()
        assert len(rounds(3, lambda: True, run_in)) == 3
        # uvloop's timers tick in whole milliseconds.
        assert perf_counter() - began > 3 * 0.001


def test_processes_know_who_has_fewer_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that has more than another says so. One that is gone, or has said nothing for a second, counts no more."""
    numbers = iter([11, 22])
    monkeypatch.setattr("penstock.serve.accepting.os.getpid", lambda: number)
    now = 0
    number = next(numbers)
    one = Shares(tmp_path, lambda: now)
    assert not one.fewer(5)
    number = next(numbers)
    other = Shares(tmp_path, lambda: now)
    assert one.fewer(5)
    assert not other.fewer(4)
    assert one.fewer(5)
    assert not other.fewer(5)
    assert not one.fewer(5)
    assert other.fewer(6)
    now += 2_000_000_000
    assert not other.fewer(6)
    assert not one.fewer(5)
    assert other.fewer(6)
    one.close()
    assert not other.fewer(6)
    shutil.rmtree(tmp_path)
    assert not other.fewer(6)


# The collector


@pytest.fixture
def frozen() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class Node:
    """Refers to itself, so that only the collector frees it."""

    def __init__(self) -> None:
        self.itself = self


def aside(time: Time, collector: Collector, request: int) -> weakref.ref[Node]:
    """A cycle that nobody needs, and that the collector has set aside."""
    node = Node()
    time.now += 3.0
    collector.tick(request)
    return weakref.ref(node)


def test_a_full_collection_has_little_to_walk_through_while_requests_come(frozen: None) -> None:
    """What outlives the young generations is set aside every two seconds."""
    time = Time()
    collector = Collector(time)
    kept = [[number] for number in range(50_000)]
    time.now = 3.0
    collector.tick(1)
    assert len(gc.get_objects(generation=2)) < 1_000
    assert gc.get_freeze_count() > len(kept)


def test_cycles_that_were_set_aside_are_freed_when_nobody_asks(frozen: None) -> None:
    """Not while requests come, however long, and not a second time within ten minutes."""
    time = Time()
    collector = Collector(time)
    gone = aside(time, collector, 1)
    for request in range(2, 400):
        time.now += 2.0
        collector.tick(request)
    assert gone() is not None
    time.now += 5.0
    collector.tick(399)
    assert gone() is None
    gone = aside(time, collector, 400)
    time.now += 300.0
    collector.tick(400)
    assert gone() is not None
    time.now += 300.0
    collector.tick(400)
    assert gone() is None


def test_cycles_are_freed_once_an_hour_whoever_asks(frozen: None) -> None:
    """A process that is never idle does not grow without end."""
    time = Time()
    collector = Collector(time)
    gone = aside(time, collector, 1)
    for request in range(2, 722):
        time.now += 5.0
        collector.tick(request)
    assert gone() is None
