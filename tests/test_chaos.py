"""Whatever the store, the log, the disk, the clock or the traffic does: no answer is later than its budget, what was
acknowledged is in the log once, and the audit of what was decided finds no mismatch."""

from __future__ import annotations

import gc
import http.client
import random
import resource
import shutil
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from polars.exceptions import PanicException

import helpers
import penstock as ps
from flood import flood
from penstock.audit import served
from penstock.clock import HOUR, Clock, EventsClock, SystemClock
from penstock.errors import StoreError
from penstock.releases import read
from penstock.serve.decisions import DECISIONS, Decided, logged
from penstock.serve.garbage import settle
from penstock.serve.runtime import Runtime
from penstock.serve.server import BackgroundServer
from penstock.stores import LmdbStore
from penstock.types import Snapshot, Store
from serving import Client, Response, problem, until

BUDGET = 1_000.0
"""Milliseconds; wide, so that a busy machine does not choose the tier."""
APP = helpers.APP.replace('budget="10s"', f'budget="{BUDGET:g}ms"')
USERS = sorted({str(event["user"]) for event in helpers.history()})[:30]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an app's file, and a home with a history and a release."""
    folder = tmp_path_factory.mktemp("chaos")
    helpers.trained(folder, APP).close()
    return folder


class Faulty:
    """A real store, each of whose snapshots is opened only after `before` has returned."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.before: Callable[[], object] = lambda: None

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        self.before()
        with self._store.snapshot() as found:
            yield found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class Shop:
    """A served system, what it was asked and what it acknowledged."""

    def __init__(self, home: Path, runtime: Runtime, server: BackgroundServer, store: Faulty) -> None:
        self.home = home
        self.runtime = runtime
        self.server = server
        self.store = store
        self.call = Client(server)
        self.acknowledged: list[str] = []
        self.many = ThreadPoolExecutor(16)

    def decide(self, user: str = USERS[0], **body: Any) -> tuple[Response, float]:
        """The answer to one request, on a connection of its own, and the milliseconds that it took."""
        with Client(self.server) as call:
            call("GET", "/healthz")
            began = time.perf_counter()
            answer = call("POST", "/v1/decide/home", {"user": user, **body})
            return answer, (time.perf_counter() - began) * 1e3

    def soon(self, user: str = USERS[0], **body: Any) -> Future[tuple[Response, float]]:
        """The same, from another thread."""
        return self.many.submit(self.decide, user, **body)

    def get(self, path: str) -> Response:
        """The answer on a connection of its own."""
        with Client(self.server) as call:
            return call("GET", path)

    def tier(self, user: str = USERS[0], **body: Any) -> str:
        return in_time(self.decide(user, **body))

    def post(self, name: str, user: str = USERS[0], **more: Any) -> Response:
        answer = self.call("POST", "/v1/events", event(name, user, **more))
        if answer.status == 202:
            assert answer.json["rejected"] == []
            self.acknowledged.append(name)
        return answer

    def actions(self, user: str = USERS[0]) -> float:
        return float(self.call("GET", f"/v1/features/Shopper/{user}").json["features"]["actions"])

    def metric(self, line: str) -> float:
        text = self.call("GET", "/metrics").text.decode()
        return sum(float(found.rpartition(" ")[2]) for found in text.splitlines() if found.startswith(line))

    def close(self) -> None:
        self.call.connection.close()
        self.many.shutdown()


def event(name: str, user: str = USERS[0], **more: Any) -> dict[str, Any]:
    # No time: the server says when.
    return {"stream": "action", "id": name, "user": user, "item": "p-00001", "kind": "view", **more}


def in_time(asked: tuple[Response, float]) -> str:
    """The tier of an answer that came within the budget, by the client's clock and by the server's."""
    answer, took = asked
    assert answer.status == 200, answer.text
    assert took < BUDGET
    assert float(answer.headers["server-timing"].rpartition("total;dur=")[2]) < BUDGET
    assert len(answer.json["items"]) == 10
    return str(answer.json["tier"])


@contextmanager
def shop(trained: Path, folder: Path, clock: Clock | None = None, store: str | None = None) -> Iterator[Shop]:
    """A system over a home of its own; afterwards its log and its decisions are checked."""
    app = ps.load(trained / "small.py")
    app.home = shutil.copytree(trained / "home", folder / "home")
    app.clock = clock or EventsClock()
    app.store = store
    with ExitStack() as opened:
        log, real, inlet = app.ingesting(opened)
        faulty = Faulty(real)
        runtime = app.answering(log, faulty, inlet, opened)  # type: ignore[arg-type]
    with runtime:
        with BackgroundServer(runtime) as server:
            found = Shop(app.home, runtime, server, faulty)
            # As a process that only serves does: a walk through all that the tests hold takes longer than a budget.
            settle()
            try:
                until(lambda: found.tier() == "personal")
                yield found
            finally:
                gc.unfreeze()
                found.store.before = lambda: None
                found.close()
        runtime.decisions.flush()
        check(app, found.acknowledged)


def check(app: ps.App, acknowledged: list[str]) -> list[Decided]:
    """What was acknowledged is in the log once, and every logged decision saw what the log says it should have."""
    log = app.log(read_only=True)
    try:
        held = Counter(log.read(0, log.end)["action"].tie.tolist())
        assert [name for name in acknowledged if held[helpers.tie(name)] != 1] == []
        assert set(held.values()) == {1}
        decided = logged(app.home / DECISIONS)
        releases = {name: read(app.home / "releases", name) for name in app.registry.ids()}
        audit = served(log, decided, releases, most=40)
    finally:
        log.close()
    assert audit.decisions
    assert not audit.mismatches
    return decided


# The store


def test_a_store_that_blocks_holds_up_no_answer(trained: Path, tmp_path: Path) -> None:
    """Those that wait on it, and those that come meanwhile, answer within the budget; it is personal again at once."""
    with shop(trained, tmp_path) as one:
        stuck, go = threading.Event(), threading.Event()

        def block() -> None:
            stuck.set()
            go.wait(20)

        one.store.before = block
        waiting = [one.soon(user) for user in USERS[:3]]
        stuck.wait(20)
        features = one.many.submit(one.get, "/v1/features/Shopper/x")
        assert {in_time(asked.result()) for asked in waiting} == {"popular"}
        # The deciding thread has been held for longer than any budget: nobody waits for it any more.
        for user in USERS:
            answer = one.decide(user)
            assert in_time(answer) == "popular"
        assert one.metric('penstock_fallbacks_total{cause="late"') >= 1
        assert one.metric('penstock_fallbacks_total{cause="busy"') >= len(USERS)
        for path in ("/readyz", "/ping"):
            refused = one.call("GET", path)
            assert refused.status == 503
            assert int(refused.headers["retry-after"]) >= 1
        assert problem(features.result())["error"].startswith("the store answers within 1 s")
        assert one.call("GET", "/healthz").status == 200
        go.set()
        until(lambda: one.tier() == "personal")
        assert [one.tier(user) for user in USERS] == ["personal"] * len(USERS)
        assert one.call("GET", "/readyz").status == 200
        assert one.actions() > 0


def test_a_store_that_stalls_at_random_mixes_tiers_within_the_budget(trained: Path, tmp_path: Path) -> None:
    """Each snapshot is up to one and a half budgets late; once that ends, all is personal within seconds."""
    with shop(trained, tmp_path) as one:
        draw, never = random.Random(7), threading.Event()
        one.store.before = lambda: never.wait(draw.uniform(0, 1.5 * BUDGET / 1e3))
        tiers = Counter(one.tier(user) for user in USERS[:8])
        assert set(tiers) == {"personal", "popular"}
        one.store.before = lambda: None
        row: list[str] = []
        until(lambda: bool(row.append(one.tier())) or row[-10:] == ["personal"] * 10)


def test_a_store_that_fails_is_passed_over(trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Errors of any kind, timeouts among them, give the next tier; what has no tiers is 503 while it cannot be read."""
    with shop(trained, tmp_path) as one:
        closed_store = LmdbStore(tmp_path / "closed")
        closed_store.close()
        for error in (
            OSError("the line is cut"),
            TimeoutError("no answer"),
            ps.PenstockError("a rule"),
            KeyError(1),
            PanicException("a bug"),
        ):

            def fail(error: BaseException = error) -> None:
                raise error

            one.store.before = fail
            assert {one.tier(user) for user in USERS[:5]} == {"popular"}
        assert one.metric('penstock_fallbacks_total{cause="failed"') == 25
        assert one.metric("penstock_worker_busy_seconds_total") > 0

        def closed() -> None:
            with closed_store.snapshot():
                pass

        one.store.before = closed
        assert one.tier() == "popular"
        for path in ("/readyz", "/ping", f"/v1/features/Shopper/{USERS[0]}"):
            refused = one.call("GET", path)
            assert (refused.status, refused.headers["retry-after"]) == (503, "1")
            assert problem(refused)["error"].startswith("the feature store can be read; got ")
        one.store.before = lambda: None
        assert {one.tier(user) for user in USERS} == {"personal"}
    assert "the line is cut" in caplog.text


def test_a_log_whose_strings_cannot_be_read_is_passed_over(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decision whose items cannot be spelled falls back; features of a shopper never seen are 503."""
    with shop(trained, tmp_path) as one:
        strings = one.runtime.log.strings
        assert one.tier() == "personal"

        def failing() -> Any:
            raise sqlite3.OperationalError("disk I/O error")

        with monkeypatch.context() as patch:
            patch.setattr(strings, "_reader", failing)
            patch.setattr(strings, "_texts", {0: ""})
            answer, _ = one.decide()
            assert answer.status == 200
            assert answer.json["tier"] != "personal"
            refused = one.get("/v1/features/Shopper/nobody-yet")
            assert refused.status == 503
            assert "disk I/O error" in problem(refused)["error"]
        assert one.tier() == "personal"


def test_what_late_decisions_cost_counts_as_work(trained: Path, tmp_path: Path) -> None:
    """Or a worker that answers nobody in time would seem to be idle."""
    with shop(trained, tmp_path) as one:
        one.store.before = lambda: time.sleep(0.2)
        assert one.tier(budget_ms=100) != "personal"
        until(lambda: one.metric("penstock_worker_busy_seconds_total") >= 0.2)


def test_a_store_that_takes_nothing_is_told(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events are still durable and answered; how many of them decisions do not see stands in the metrics."""

    def full(*args: Any) -> None:
        raise StoreError("the feature store has room to write", got="MDB_MAP_FULL")

    with shop(trained, tmp_path) as one:
        with monkeypatch.context() as patch:
            patch.setattr(LmdbStore, "write", full)
            for i in range(3):
                assert one.post(f"unseen-{i}").status == 202
            until(lambda: one.metric("penstock_store_behind_events") == 3)
        until(lambda: one.metric("penstock_store_behind_events") == 0)


def test_what_was_left_out_stays_left_out_while_the_store_is_away(tmp_path: Path) -> None:
    """For shoppers who were seen before; and the groups of a fallback are those of the shopper as last known."""
    text = APP.replace(
        "    fallback = [", '    leave_out = ["recent"]\n    fallback = [ps.popular(by="kind", of="kinds", k=20), '
    )
    text = text.replace("    actions = ps.count()\n", '    actions = ps.count()\n    kinds = ps.last("kind", k=3)\n', 1)
    helpers.trained(tmp_path, text).close()
    with shop(tmp_path, tmp_path / "served") as one:
        before = {user: one.runtime.features("Shopper", user)["features"] for user in USERS}
        assert {one.tier(user) for user in USERS} == {"personal"}
        one.store.before = failing(OSError("gone"))
        for user in USERS:
            answer, _ = one.decide(user)
            assert answer.json["tier"] == "segment"
            assert not {item["id"] for item in answer.json["items"]} & set(before[user]["recent"])
        # Of whom nothing is known, no group is; everyone's list answers.
        assert one.tier("never-seen") == "popular"


def failing(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


# The log and the disk


def test_an_event_that_the_log_does_not_take_in_time_is_503_and_counts_once_when_sent_again(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decision of the first try is not logged, decisions without events go on, and nothing is lost."""
    with shop(trained, tmp_path) as one:
        reached, go = threading.Event(), threading.Event()
        log = one.runtime.log
        real = log.append

        def append(*args: Any, **more: Any) -> Any:
            reached.set()
            go.wait(20)
            return real(*args, **more)

        monkeypatch.setattr(log, "append", append)
        actions = one.actions()
        asked = one.soon(event=event("along"))
        reached.wait(20)
        assert one.tier() == "personal"
        answer, took = asked.result()
        assert answer.status == 503
        assert took < 2 * BUDGET
        assert int(answer.headers["retry-after"]) >= 1
        assert problem(answer)["remedy"].startswith("send the same request again")
        go.set()
        assert in_time(one.decide(event=event("along"))) == "personal"
        one.acknowledged.append("along")
        assert one.actions() == actions + 1
        assert one.metric('penstock_events_total{result="accepted"}') == 1
        assert one.metric('penstock_events_total{result="duplicate"}') == 1
        one.runtime.decisions.flush()
        # The one that waited for a release, those without an event, and the second try.
        assert len(logged(one.home / DECISIONS)) == one.metric("penstock_invocations_total")


def test_a_full_disk_refuses_events_and_stops_no_decision(trained: Path, tmp_path: Path) -> None:
    """Past a limit on the size of its files the server refuses events, and takes them again once there is room."""
    home = shutil.copytree(trained / "home", tmp_path / "home")
    acknowledged: list[str] = []
    with helpers.server(trained / "small.py", home) as server, Line(server) as line:

        def post(first: int, n: int = 200) -> int:
            names = [f"full-{first + i}" for i in range(n)]
            answer = line("POST", "/v1/events", [event(name, USERS[i % 30]) for i, name in enumerate(names)])
            if answer.status == 202:
                assert answer.json["accepted"] + answer.json["duplicates"] == n
                acknowledged.extend(names)
            else:
                assert "free" in problem(answer)["remedy"]
                assert int(answer.headers["retry-after"]) >= 1
            return answer.status

        size = max(file.stat().st_size for file in home.glob("**/log.sqlite*"))
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (size + 100_000, resource.RLIM_INFINITY))
        turn, status = 0, 202
        while status == 202:
            assert turn < 100, "the disk never filled"
            status = post(turn * 200)
            turn += 1
        assert status == 503
        for user in USERS:
            assert in_time(timed(line, user)) == "personal"
        assert post((turn - 1) * 200) == 503
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert post((turn - 1) * 200) == 202
        counts = Counter(USERS[i % 30] for _ in range(turn) for i in range(200))
        before = Counter(str(one["user"]) for one in helpers.history())
        for user in USERS[:5]:
            until(lambda user=user: actions(line, user) == counts[user] + before[user])  # type: ignore[misc]
        assert server.stop() == 0
    app = ps.load(trained / "small.py")
    app.home = home
    check(app, acknowledged)


class Line(Client):
    """One kept-alive connection to a server of its own process."""

    def __init__(self, server: helpers.Server) -> None:
        self.connection = http.client.HTTPConnection(server.host, server.port, timeout=20)


def timed(line: Client, user: str) -> tuple[Response, float]:
    began = time.perf_counter()
    answer = line("POST", "/v1/decide/home", {"user": user})
    return answer, (time.perf_counter() - began) * 1e3


def actions(line: Client, user: str) -> float:
    return float(line("GET", f"/v1/features/Shopper/{user}").json["features"]["actions"])


# The clock


def test_a_clock_that_is_set_back_an_hour_stops_nothing(trained: Path, tmp_path: Path) -> None:
    """Events with right dates are taken, are in the next decision, and time goes on."""
    back = [0]
    clock = SystemClock(wall=lambda: time.time_ns() - back[0])
    with shop(trained, tmp_path, clock) as one:
        assert one.post("before").status == 202
        actions, moment = one.actions(), clock.now()
        back[0] = HOUR * 1_000
        for n in range(5):
            assert one.post(f"dated-{n}", time=time.time()).status == 202
            assert one.post(f"undated-{n}").status == 202
            assert one.actions() == actions + 2 * (n + 1)
            assert one.tier() == "personal"
        assert moment <= clock.now() < moment + HOUR
        one.runtime.decisions.flush()
        times = [decided.time for decided in sorted(logged(one.home / DECISIONS), key=lambda one: one.id)]
        assert times == sorted(times)


# The traffic


def test_ten_times_the_traffic_is_answered_in_time_or_refused(trained: Path, tmp_path: Path) -> None:
    """At ten times its capacity the server answers at a third of it at least, and is itself again at once.

    None of the connections, made while it was busy with something else, waits in vain to be taken.
    """
    home = shutil.copytree(trained / "home", tmp_path / "home")
    with helpers.server(trained / "small.py", home) as server, Line(server) as line:
        until(lambda: in_time(timed(line, USERS[0])) == "personal")
        calm = flood(server.host, server.port, USERS, connections=4, seconds=2)
        assert set(calm.statuses) == {200}
        server.process.send_signal(signal.SIGSTOP)
        storm = flood(
            server.host, server.port, USERS, connections=600, seconds=4, rate=10 * calm.rate,
            connected=lambda: server.process.send_signal(signal.SIGCONT),
        )  # fmt: skip
        assert set(storm.statuses) <= {200, 429, 503}
        assert storm.statuses[200] + storm.retry == storm.statuses.total() == storm.sent
        assert max(storm.total) < BUDGET
        took = sorted(storm.took)
        assert took[len(took) * 99 // 100] < 3 * BUDGET + 2 * storm.lag
        assert storm.rate > calm.rate / 3
        until(lambda: in_time(timed(line, USERS[0])) == "personal")
        assert [in_time(timed(line, user)) for user in USERS] == ["personal"] * len(USERS)
        assert server.stop() == 0
    app = ps.load(trained / "small.py")
    app.home = home
    check(app, [])
