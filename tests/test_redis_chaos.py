"""A served system whose features are in Redis: what happens to Redis is no error of any request."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import helpers
import test_chaos as chaos
import test_faults as faults
from penstock.engines import StreamEngine
from penstock.stores import MemoryStore
from penstock.stores.redis import RedisStore
from penstock.types import Store
from redis_server import RedisServer
from serving import until
from test_workers import WORKERS, Line, lines

SLOW = 20.0
USERS = chaos.USERS


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an app's file, and a home with a history and a release."""
    folder = tmp_path_factory.mktemp("redis-chaos")
    helpers.trained(folder, chaos.APP).close()
    return folder


@pytest.fixture
def redis(redis_server: RedisServer) -> Iterator[RedisServer]:
    """One that runs again afterwards."""
    yield redis_server
    redis_server.resume()
    if redis_server.process.poll() is not None:
        redis_server.start()


def held(store: Store) -> dict[bytes, dict[bytes, bytes]]:
    return {view: dict(store.scan(view)) for view in store.views()}


def test_what_redis_lost_is_filled_in_from_the_log(redis: RedisServer, tmp_path: Path) -> None:
    """Emptied between two looks, or between a look and the next events: every byte is there again, each event once."""
    log = faults.log_of(tmp_path, 50)
    expected = MemoryStore()
    StreamEngine(log, expected, [faults.VIEW]).catch_up()
    with closing(RedisStore(redis.url, name="lost", timeout=SLOW)) as store:
        engine = StreamEngine(log, store, [faults.VIEW])
        engine.step(20)
        redis.kill()
        redis.start()
        engine.look()
        assert engine.behind() == 50
        engine.step(20)
        redis.kill()
        redis.start()
        engine.apply(log.read(20, 50), 20, 50)
        assert engine.behind() == 50
        engine.catch_up(batch=7)
        assert held(store) == held(expected) != {}
        with store.snapshot() as snapshot:
            assert snapshot.offset == 50
        engine.look()
        assert engine.behind() == 0
    log.close()


def test_a_write_of_which_no_answer_came_counts_once(redis: RedisServer, tmp_path: Path) -> None:
    """Whether it came through or not is seen at the next look."""
    log = faults.log_of(tmp_path, 50)
    expected = MemoryStore()
    StreamEngine(log, expected, [faults.VIEW]).catch_up()
    with (
        closing(RedisStore(redis.url, name="unheard", timeout=SLOW)) as store,
        closing(RedisStore(redis.url, name="unheard", timeout=SLOW, read_only=True)) as unheard,
    ):
        engine = StreamEngine(log, store, [faults.VIEW])
        engine.step(20)
        # The same writer, on a line that was cut before the answer.
        unheard._token = store._token
        StreamEngine(log, unheard, [faults.VIEW]).step(20)
        engine.catch_up(batch=20)
        assert held(store) == held(expected)
    log.close()


def test_a_redis_that_stops_for_a_second_is_passed_over(trained: Path, tmp_path: Path, redis: RedisServer) -> None:
    """Every answer is in time, from memory; events are taken; afterwards all is personal, each event once."""
    with chaos.shop(trained, tmp_path, store=redis.url) as one:
        actions = one.actions()
        assert one.post("before").status == 202
        assert one.actions() == actions + 1
        redis.pause()
        until_then = time.monotonic() + 1
        tiers: list[str] = []
        while time.monotonic() < until_then:
            tiers.append(one.tier(USERS[len(tiers) % len(USERS)]))
        assert set(tiers) == {"popular"}
        assert one.post("meanwhile").status == 202
        for path in ("/readyz", "/ping", f"/v1/features/Shopper/{USERS[0]}"):
            assert one.get(path).status == 503
        assert one.tier() == "popular"
        redis.resume()
        until(lambda: one.tier() == "personal")
        until(lambda: one.get("/readyz").status == 200)
        until(lambda: one.actions() == actions + 2)
        assert {one.tier(user) for user in USERS} == {"personal"}


def test_a_redis_that_is_killed_and_comes_back_empty_is_filled(
    trained: Path, tmp_path: Path, redis: RedisServer
) -> None:
    """While it is away a fallback answers and events are taken; afterwards it has the whole log, each event once."""
    with chaos.shop(trained, tmp_path, store=redis.url) as one:
        actions, others = one.actions(), {user: one.actions(user) for user in USERS[1:]}
        redis.kill()
        assert {one.tier(user) for user in USERS} == {"popular"}
        for n in range(3):
            assert one.post(f"away-{n}").status == 202
        until(lambda: one.metric("penstock_store_behind_events") == 3)
        redis.start()
        until(lambda: one.get("/readyz").status == 200 and one.actions() == actions + 3)
        assert one.post("after").status == 202
        assert one.actions() == actions + 4
        assert {one.tier(user) for user in USERS} == {"personal"}
        assert {user: one.actions(user) for user in USERS[1:]} == others


def test_workers_read_what_the_writer_put_into_redis(trained: Path, tmp_path: Path, redis: RedisServer) -> None:
    """A click that one worker took is in the next answer of every other, also after Redis has lost everything.

    A worker that starts while Redis is away answers, too.
    """
    home = tmp_path / "home"
    more = ("--workers", str(WORKERS), "--store", redis.url)
    with helpers.server(trained / "small.py", home, *more) as server:
        workers = lines(server)
        try:
            for n in range(4 * WORKERS):
                event = chaos.event(f"click-{n}", "ann")
                assert workers[n % WORKERS].ask("POST", "/v1/events", event)[0] == 202
                assert {actions(line) for line in workers} == {n + 1}
            redis.kill()
            os.kill(workers[0].pid, signal.SIGKILL)
            for line in workers:
                line.close()
            workers = lines(server)
            for line in workers:
                assert line.ask("POST", "/v1/decide/home", {"user": "ann"})[0] == 200
            redis.start()
            until(lambda: all(actions(line) == 4 * WORKERS for line in workers))
            assert workers[0].ask("POST", "/v1/events", chaos.event("last", "ann"))[0] == 202
            assert {actions(line) for line in workers} == {4 * WORKERS + 1}
        finally:
            for line in workers:
                line.close()
        assert server.stop() == 0
    assert not (home / "store").exists()


def actions(line: Line) -> float | None:
    """As one worker reads them; None while it cannot."""
    status, _, answer = line.ask("GET", "/v1/features/Shopper/ann")
    return answer["features"]["actions"] if status == 200 else None
