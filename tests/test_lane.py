"""The deciding thread keeps its order and nobody waits longer than they said; what memory answers with is bounded, in
number and in age, and found without the store or the log."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from polars.exceptions import PanicException

import helpers
from penstock.errors import UnavailableError
from penstock.serve import writer
from penstock.serve.admission import Admission
from penstock.serve.budget import Costs
from penstock.serve.known import LastKnown
from penstock.serve.lane import Lane
from penstock.serve.requests import DecideRequest
from serving import Time, until


def on_lane(use: Callable[[Lane], Awaitable[Any]]) -> Any:
    """What `use` returns, on an event loop of its own with a lane."""
    lane = Lane()
    try:
        return asyncio.run(use(lane))  # type: ignore[arg-type]
    finally:
        lane.close()
        assert not lane._thread.is_alive()


class Held:
    """A job that runs until it is let go."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        self.go.wait(20)
        return "held"


# The lane


def test_whatever_a_job_raises_the_next_one_is_run() -> None:
    """Also what is no Exception, such as a panic of Polars."""

    async def use(lane: Lane) -> str:
        def panic() -> str:
            raise PanicException("index out of bounds")

        with pytest.raises(PanicException):
            await lane.run(panic, 20)
        return await lane.run(lambda: "next", 20)

    assert on_lane(use) == "next"


def test_jobs_run_one_after_the_other_in_order_on_another_thread() -> None:
    ran: list[tuple[int, int]] = []

    async def use(lane: Lane) -> list[int]:
        def job(n: int) -> int:
            ran.append((n, threading.get_ident()))
            return n

        return await asyncio.gather(*(lane.run(lambda n=n: job(n), 20) for n in range(50)))  # type: ignore[misc]

    assert on_lane(use) == list(range(50))
    assert [n for n, _ in ran] == list(range(50))
    assert {thread for _, thread in ran} & {threading.get_ident()} == set()
    assert len({thread for _, thread in ran}) == 1


def test_what_a_job_raises_reaches_its_caller_and_the_next_job_runs() -> None:
    async def use(lane: Lane) -> float:
        with pytest.raises(ZeroDivisionError):
            await lane.run(lambda: 1 / 0, 20)
        return await lane.run(lambda: 1.0, 20)

    assert on_lane(use) == 1


def test_who_waits_too_long_gets_an_error_and_the_late_result_is_dropped() -> None:
    """A job that had not begun is never run, neither after its time nor when its caller was cancelled."""
    ran: list[str] = []

    async def use(lane: Lane) -> None:
        held = Held()
        first = asyncio.ensure_future(lane.run(held, 20))
        await asyncio.to_thread(held.begun.wait, 20)
        late = asyncio.ensure_future(lane.run(lambda: ran.append("late"), 0.01))
        gone = asyncio.ensure_future(lane.run(lambda: ran.append("gone"), 20))
        await asyncio.sleep(0)
        assert lane.waiting == 2
        with pytest.raises(TimeoutError):
            await late
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert lane.waiting == 0
        with pytest.raises(TimeoutError):
            await asyncio.gather(first, lane.run(lambda: ran.append("too"), 0.01))
        held.go.set()
        assert await first == "held"
        assert await lane.run(lambda: "next", 20) == "next"
        assert lane.waiting == 0

    on_lane(use)
    assert ran == []


def test_the_result_of_a_job_that_overran_is_nobodys() -> None:
    async def use(lane: Lane) -> str:
        held = Held()
        with pytest.raises(TimeoutError):
            await lane.run(held, 0.01)
        after = asyncio.ensure_future(lane.run(lambda: "after", 20))
        held.go.set()
        return await after

    assert on_lane(use) == "after"


def test_the_wait_is_reckoned_from_the_median_and_from_how_long_the_running_job_has_overrun() -> None:
    async def use(lane: Lane) -> None:
        assert lane.wait == 0
        for _ in range(40):
            await lane.run(lambda: None, 20)
        one = lane._median
        assert 0 < one < 1
        held = Held()
        first = asyncio.ensure_future(lane.run(held, 20))
        await asyncio.to_thread(held.begun.wait, 20)
        more = [asyncio.ensure_future(lane.run(lambda: None, 20)) for _ in range(10)]
        await asyncio.sleep(0)
        assert lane.waiting == 10
        # However quick the others were, one that has run for long is reckoned to take as long again.
        while lane.wait < 0.05:
            await asyncio.sleep(0.001)
        before = lane.wait
        await asyncio.sleep(0.01)
        assert lane.wait >= before + 0.01
        held.go.set()
        await asyncio.gather(first, *more)
        # One stall among many changes no median.
        assert lane._median < 0.05
        assert lane.wait == 0

    on_lane(use)


# What is known


def test_what_was_known_of_a_shopper_is_used_for_ten_minutes_and_of_so_many_at_most() -> None:
    time = Time()
    known = LastKnown(["bought"], most=2, elapsed=time)
    for user in ("a", "b"):
        known.keep(user, {"bought": np.array([1]), "other": np.array([2])})
    assert set(known.of("a")) == {"bought"}
    time.now = 599
    known.keep("a", {"bought": np.array([3])})
    known.keep("c", {"bought": np.array([4])})
    # The one longest unseen has gone.
    assert [bool(known.of(user)) for user in "abc"] == [True, False, True]
    time.now = 599 + 600
    assert known.of("a")["bought"].tolist() == [3]
    time.now += 1
    assert known.of("a") == {}


def test_a_fallback_reads_neither_the_log_nor_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the first answer of a process on; rules hold, and items whose ids are not at hand are passed over."""
    popular = [str(event["item"]) for event in helpers.history()]
    first = max(set(popular), key=popular.count)
    text = helpers.APP + f"    rerank = [ps.block({first!r}), ps.pin('p-00001', place=3)]\n"
    with helpers.trained(tmp_path, text) as app:
        app.close()
        runtime = app.open()

        def broken(*_: object) -> Any:
            raise sqlite3.OperationalError("the disk is gone")

        monkeypatch.setattr(runtime.log.strings, "_reader", broken)
        monkeypatch.setattr(runtime.store, "snapshot", broken)
        asked = DecideRequest("never-seen", why=True)
        answer = runtime.fall_back("home", asked, 0.0, "late")
        assert (answer.tier, answer.cause, len(answer.items)) == ("popular", "late", 10)
        assert answer.items[2].id == "p-00001"
        assert first not in [item.id for item in answer.items]
        assert answer.why == [[]] * 10
        with monkeypatch.context() as patch:
            patch.setattr(runtime.log.strings, "_texts", {})
            patch.setattr(runtime.log.strings, "_codes", {})
            assert runtime.fall_back("home", asked, 0.0, "late").items == []


# Costs and waiting


def test_one_stall_keeps_no_decision_from_its_budget() -> None:
    costs = Costs(100)
    for _ in range(50):
        costs.add({"features": 2.0, "score": 1.0})
    costs.add({"features": 2_000.0})
    assert costs.expected < 45


def test_a_bad_minute_is_forgotten_within_seconds_at_any_rate() -> None:
    """Asked once a second as well as a hundred times."""
    for gap in (0.01, 1.0):
        time = Time()
        costs = Costs(100, time)
        for _ in range(200):
            costs.add({"features": 100.0, "score": 100.0})
        assert costs.expected > 190
        while costs.expected >= 45:
            time.now += gap
            costs.forget()
        assert time.now <= 4


def test_what_requests_waited_is_a_moving_mean_that_a_pause_forgets() -> None:
    time = Time()
    admission = Admission(time)
    for _ in range(200):
        time.now += 0.001
        delay = admission.delay(time.now - 0.3)
    assert delay == pytest.approx(600, rel=0.01)
    assert admission.lag == pytest.approx(600, rel=0.01)
    time.now += 0.05
    assert admission.delay(time.now) > 250
    time.now += 0.2
    assert admission.delay(time.now) == 0
    # Whoever does not say when it was read has waited for nothing that is known.
    assert admission.delay(None) == 0
    admission.late(80)
    time.now += 0.5
    assert admission.lag == pytest.approx(40)
    admission.late(10)
    assert admission.lag == pytest.approx(40)


# The writer


def test_no_more_than_so_many_requests_wait_for_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MOST_WAITING", 3)
    with helpers.load_app(tmp_path) as app:
        runtime = app.open()
        held = Held()
        runtime._inlet.call(held)  # type: ignore[attr-defined]
        held.begun.wait(20)
        events = [runtime.intake.check({**event, "id": f"w-{n}"}) for n, event in enumerate(helpers.history()[:4])]
        taken = [runtime._inlet.submit([event]) for event in events[:3]]
        with pytest.raises(UnavailableError, match="at most 3 requests wait"):
            runtime._inlet.submit(events[3:])
        held.go.set()
        assert [future.result() for future in taken] == [[True]] * 3
        until(lambda: runtime.log.end == 3)


def test_who_waits_for_the_disk_alone_does_not_wait_for_the_store(tmp_path: Path) -> None:
    """Events are durable, and say so, while the store is busy with something else; they are shown once it is not."""
    with helpers.load_app(tmp_path) as app:
        runtime = app.open()
        held = Held()
        runtime._inlet.call(held)  # type: ignore[attr-defined]
        held.begun.wait(20)
        events = [runtime.intake.check({**event, "id": f"d-{n}"}) for n, event in enumerate(helpers.history()[:2])]
        shown = runtime._inlet.submit(events[:1])
        assert runtime._inlet.submit(events[1:], shown=False).result(20) == [True]
        assert (runtime.log.end, runtime.store.views()) == (2, {})
        assert not shown.done()
        held.go.set()
        assert shown.result(20) == [True]
        until(lambda: runtime.store.views()[app.views["Shopper"].version] == 2)


def test_what_is_durable_and_not_shown_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the store is busy, commits stop once so many events wait to be shown, and go on once it is not."""
    monkeypatch.setattr(writer, "MOST", 3)
    with helpers.load_app(tmp_path) as app:
        runtime = app.open()
        held = Held()
        runtime._inlet.call(held)  # type: ignore[attr-defined]
        held.begun.wait(20)
        events = [runtime.intake.check({**event, "id": f"b-{n}"}) for n, event in enumerate(helpers.history()[:5])]
        assert runtime._inlet.submit(events[:3], shown=False).result(20) == [True] * 3
        others = [runtime._inlet.submit([event], shown=False) for event in events[3:]]
        with pytest.raises(TimeoutError):
            others[0].result(0.2)
        held.go.set()
        assert [future.result(20) for future in others] == [[True]] * 2
        until(lambda: runtime.store.views()[app.views["Shopper"].version] == 5)
