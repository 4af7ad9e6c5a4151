"""A served day follows its events, and no single event takes the clock where the others cannot follow."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

import helpers
from penstock import commands
from penstock.clock import DAY, MINUTE, EventsClock, SystemClock
from penstock.errors import DefinitionError, EventError
from penstock.serve.runtime import Runtime


def test_an_absurd_event_leaves_a_replay_where_it_was(tmp_path: Path) -> None:
    """The year 9999 is refused with nothing of its call; features, the clock and the next event are as before."""
    with helpers.load_app(tmp_path) as app:
        history = helpers.history()
        app.ingest(history)
        user, now = history[-1]["user"], app.clock.now()
        before = app.features("Shopper", user)
        next_one = {**history[-1], "id": "next", "time": helpers.next_time(history, 60)}
        with pytest.raises(EventError, match=r"time is not after .*--future"):
            app.ingest([next_one, {**history[-1], "id": "absurd", "time": "9999-12-31T00:00:00Z"}])
        assert app.clock.now() == now
        assert app.features("Shopper", user) == before
        assert app.ingest([next_one]) == 1
        assert app.clock.now() == now + MINUTE


def test_a_quiet_year_is_ingested_in_one_call(tmp_path: Path) -> None:
    """Each event may follow the one before it, though the last lies far beyond the newest in the log."""
    with helpers.load_app(tmp_path) as app:
        history = helpers.history()
        app.ingest(history)
        year = [
            {**history[-1], "id": f"day-{day}", "time": helpers.next_time(history, 86_400 * day)}
            for day in range(20, 365, 20)
        ]
        assert app.ingest(year) == len(year)


@pytest.mark.parametrize(
    ("clock", "future", "kind", "ahead"),
    [
        ("events", None, EventsClock, 30 * DAY), ("events", "90d", EventsClock, 90 * DAY),
        ("system", None, SystemClock, 5 * MINUTE), ("system", "2h", SystemClock, 120 * MINUTE),
    ],
)  # fmt: skip
def test_the_command_line_sets_how_far_ahead_an_event_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: str, future: str | None, kind: type, ahead: int
) -> None:
    """`serve --future` reaches the clock of either kind; each has its own span without it."""
    file = tmp_path / "small.py"
    file.write_text(helpers.APP)
    served: list[int] = []

    def run(runtime: Runtime, *rest: Any, **more: Any) -> None:
        assert type(runtime._clock) is kind
        runtime._clock.saw(DAY)
        served.append(runtime._clock.latest() - runtime._clock.now())
        runtime.close()

    monkeypatch.setattr(commands, "run", run)
    try:
        commands.serve(
            app=file, home=tmp_path / "home", host="127.0.0.1", port=0, workers=1, clock=clock, future=future,
            access_log=None, store=None, json=True,
        )  # fmt: skip
    finally:
        gc.unfreeze()
    # The wall goes on between its two looks.
    assert ahead - MINUTE < served[0] <= ahead


def test_a_span_that_is_none_is_refused() -> None:
    with pytest.raises(DefinitionError, match="a duration is a positive number and a unit"):
        EventsClock(future="soon")


class Machine:
    """A wall clock that can be set, and one that only goes forward; nanoseconds."""

    def __init__(self) -> None:
        self.wall = self.elapsed = 10**18

    def pass_(self, nanoseconds: int) -> None:
        self.wall += nanoseconds
        self.elapsed += nanoseconds

    @property
    def clock(self) -> SystemClock:
        return SystemClock(wall=lambda: self.wall, elapsed=lambda: self.elapsed)


def test_a_wall_clock_that_is_set_back_goes_on_at_half_speed_until_it_is_right_again() -> None:
    """It never goes back, is never behind the wall, and after twice the step it is the wall again."""
    machine = Machine()
    clock = machine.clock
    machine.pass_(1_000_000)
    start = clock.now()
    assert start * 1_000 == machine.wall
    machine.wall -= 3_600 * 10**9
    assert clock.now() == start
    machine.pass_(10 * 10**9)
    assert clock.now() == start + 5_000_000
    assert clock.latest() == start + 5_000_000 + 5 * MINUTE
    machine.pass_(2 * 3_600 * 10**9 - 10 * 10**9 - 2_000)
    assert clock.now() * 1_000 > machine.wall
    machine.pass_(4_000)
    assert clock.now() == machine.wall // 1_000


def test_a_clock_that_is_asked_often_loses_no_half() -> None:
    machine = Machine()
    clock = machine.clock
    start = clock.now()
    machine.wall -= 3_600 * 10**9
    for _ in range(3_001):
        machine.pass_(1)
        clock.now()
    machine.pass_(999)
    assert clock.now() == start + 2


def test_a_wall_clock_that_is_set_forward_is_followed() -> None:
    machine = Machine()
    clock = machine.clock
    start = clock.now()
    machine.wall += 3_600 * 10**9
    assert clock.now() == start + 3_600 * 10**6
