"""Several processes serve as one: a click posted to any is in the next decision of every other, what ends is
started again, and what was acknowledged is kept."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlencode

import pytest

import helpers
from serving import until

WORKERS = 3


class Line(http.client.HTTPConnection):
    """One connection, and so one worker."""

    opened: ClassVar[list[Line]] = []

    def __init__(self, server: helpers.Server) -> None:
        super().__init__(server.host, server.port, timeout=20)
        self.opened.append(self)

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, dict[str, str], Any]:
        self.request(method, path, None if body is None else json.dumps(body))
        with self.getresponse() as response:
            text = response.read()
            kind = response.headers.get("content-type", "")
            return response.status, dict(response.headers), json.loads(text) if "json" in kind else text.decode()

    @property
    def pid(self) -> int:
        return int(self.ask("GET", "/healthz")[2]["pid"])


def children(pid: int, role: str) -> list[int]:
    """The processes of one role that a supervisor has started."""
    found = []
    for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        with suppress(FileNotFoundError, ProcessLookupError):
            if role.encode() in Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0"):
                found.append(child)
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def lines(server: helpers.Server) -> list[Line]:
    """A connection to each worker; one that was just started takes none for a while."""
    found: dict[int, Line] = {}
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        line = Line(server)
        pid = line.pid
        if pid in found:
            line.close()
        else:
            found[pid] = line
        if len(found) == WORKERS:
            return list(found.values())
    raise AssertionError(f"in 20 s connections reached {len(found)} workers")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An app's file, and beside it a home with a history and a release."""
    folder = tmp_path_factory.mktemp("workers")
    with helpers.trained(folder) as app:
        return app.home


@pytest.fixture
def server(home: Path) -> Iterator[helpers.Server]:
    with helpers.server(home.parent / "small.py", home, "--workers", str(WORKERS)) as found:
        yield found
    for line in Line.opened:
        line.close()
    Line.opened.clear()


_count = iter(range(1_000_000))


def click(user: str) -> dict[str, Any]:
    number = next(_count)
    time = helpers.next_time(helpers.history(), 1 + number / 1_000)
    return {"stream": "action", "id": f"w-{number}", "time": time, "user": user, "item": "p-00001", "kind": "view"}


def seen(line: Line, user: str) -> float:
    return float(line.ask("GET", f"/v1/features/Shopper/{user}")[2]["features"]["actions"])


def accepted(line: Line, event: dict[str, Any]) -> bool:
    status, _, body = line.ask("POST", "/v1/events", event)
    return status == 202 and body["accepted"] == 1


def test_connections_are_shared_evenly_among_workers(server: helpers.Server) -> None:
    """Of connections made one after the other no worker gets three times as many as another."""
    opened = [Line(server) for _ in range(20 * WORKERS)]
    counts = Counter(line.pid for line in opened)
    assert len(counts) == WORKERS
    assert max(counts.values()) < 3 * min(counts.values())


def test_a_click_posted_to_any_worker_is_in_the_next_answer_of_every_other(server: helpers.Server) -> None:
    """Features and decisions, right after the answer to the post; and each worker gives the metrics of all."""
    workers = lines(server)
    posted = 0
    for turn in range(30):
        user, writes = f"cross-{turn}", workers[turn % WORKERS]
        for n in (1, 2):
            assert accepted(writes, click(user))
            posted += 1
            assert [seen(line, user) for line in workers] == [n] * WORKERS
        for line in workers:
            status, _, body = line.ask("POST", "/v1/decide/home", {"user": user})
            assert (status, body["tier"]) == (200, "personal")
            assert "p-00001" in [item["id"] for item in body["items"]]
    for line in workers:
        until(lambda line=line: events_of_all(line) == posted)
        assert f"\npenstock_workers {float(WORKERS)}\n" in line.ask("GET", "/metrics")[2]


def events_of_all(line: Line) -> float:
    """Accepted events, as the metrics at one worker have them of all."""
    text = line.ask("GET", "/metrics")[2]
    found = re.search(r'^penstock_events_total\{result="accepted"\} (\S+)', text, re.MULTILINE)
    return float(found[1]) if found is not None else 0.0


def test_who_signs_in_at_one_worker_is_signed_in_at_every_other_and_sees_the_figures_of_all(
    server: helpers.Server, home: Path
) -> None:
    workers = lines(server)
    token = (home / "operator-token").read_text().strip()
    workers[0].request("POST", "/console/sign-in", urlencode({"token": token}), {"Sec-Fetch-Site": "same-origin"})
    with workers[0].getresponse() as response:
        assert response.status == 303
        cookie = response.headers["set-cookie"].split(";")[0]
    for line in workers:
        assert line.ask("POST", "/v1/decide/home", {"user": "at-every-worker"})[0] == 200

    def decisions(line: Line) -> float:
        line.request("GET", "/console/live", headers={"Cookie": cookie})
        with line.getresponse() as response:
            assert response.status == 200
            return float(json.loads(response.read())["decisions"])

    for line in workers:
        until(lambda line=line: decisions(line) == WORKERS)


def test_a_worker_that_is_killed_is_replaced_and_the_others_go_on(server: helpers.Server) -> None:
    first, second, _ = lines(server)
    gone = first.pid
    assert accepted(first, click("bereft"))
    os.kill(gone, signal.SIGKILL)
    assert seen(second, "bereft") == 1
    until(lambda: len(children(server.process.pid, "worker")) == WORKERS and not alive(gone))
    fresh = lines(server)
    assert gone not in [line.pid for line in fresh]
    assert [seen(line, "bereft") for line in fresh] == [1] * WORKERS
    # The one that is gone is not counted among those that answer.
    assert f"\npenstock_workers {float(WORKERS)}\n" in fresh[0].ask("GET", "/metrics")[2]


def test_while_the_writer_is_gone_decisions_go_on_events_are_503_and_nothing_acknowledged_is_lost(
    server: helpers.Server, home: Path
) -> None:
    """Killed with -9 amid posts; afterwards each acknowledged event is there once, and the audit agrees."""
    workers = lines(server)
    (writer,) = children(server.process.pid, "writer")
    kept, refused, stopping = 0, 0, False
    for n in range(3_000):
        line = workers[n % WORKERS]
        event = click("survivor")
        status, headers, body = line.ask("POST", "/v1/events", event)
        if n == 100:
            os.kill(writer, signal.SIGKILL)
        while status == 503:
            refused += 1
            assert int(headers["retry-after"]) >= 1
            assert {"error", "field", "remedy"} <= set(body)
            decided = line.ask("POST", "/v1/decide/home", {"user": "survivor", "budget_ms": 2_000})
            assert (decided[0], decided[2]["tier"]) == (200, "personal")
            assert float(decided[1]["server-timing"].rpartition("total;dur=")[2]) < 2_000
            status, headers, body = line.ask("POST", "/v1/events", event)
            stopping = True
        assert status == 202
        # One that was on disk when the writer died is known by its id.
        assert body["accepted"] + body["duplicates"] == 1
        kept += 1
        if stopping and n > 200:
            break
    assert refused
    assert [seen(line, "survivor") for line in workers] == [kept] * WORKERS
    assert server.stop() == 0
    done = helpers.cli("audit", "--app", home.parent / "small.py", "--home", home, "--decisions", "60", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["audit_decisions"] == 60
    assert found["audit_mismatches"] == 0


def test_a_name_that_no_text_can_hold_is_refused_by_itself_and_stops_nothing(server: helpers.Server) -> None:
    """The event beside it is taken, and so is every one that follows, on each worker."""
    for line in lines(server):
        bad, good = {**click("odd"), "us\ud800": "a"}, click("odd")
        status, _, body = line.ask("POST", "/v1/events", [bad, good])
        assert (status, body["accepted"], [r["field"] for r in body["rejected"]]) == (202, 1, ["us?"])
        assert accepted(line, click("odd"))


def test_a_rolling_restart_with_a_broken_app_file_leaves_those_that_serve(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text(helpers.APP)
    with helpers.server(file, home, "--workers", str(WORKERS)) as server:
        before = children(server.process.pid, "worker")
        file.write_text(helpers.APP + "\nx = (")
        server.process.send_signal(signal.SIGHUP)
        # The first new one has come and gone.
        until(lambda: len(children(server.process.pid, "worker")) > WORKERS)
        until(lambda: len(children(server.process.pid, "worker")) == WORKERS)
        assert children(server.process.pid, "worker") == before
        assert server("GET", "/healthz")["pid"] in before


def test_a_rolling_restart_under_load_fails_no_request(server: helpers.Server) -> None:
    """Every worker is replaced while clients post and decide without a pause; none sees an error."""
    before = set(children(server.process.pid, "worker"))
    stop = threading.Event()
    done: list[int] = []
    failures: list[str] = []

    def client(name: str) -> None:
        line = Line(server)
        sent = 0
        while not stop.is_set():
            try:
                if not accepted(line, click(name)):
                    failures.append("a post")
                answer = line.ask("POST", "/v1/decide/home", {"user": name})
                if answer[0] != 200:
                    failures.append(str(answer))
            except (OSError, http.client.HTTPException) as error:
                failures.append(repr(error))
                line.close()
            sent += 1
        done.append(sent - int(seen(line, name)))

    clients = [threading.Thread(target=client, args=(f"roller-{i}",)) for i in range(4)]
    for one in clients:
        one.start()
    server.process.send_signal(signal.SIGHUP)
    until(lambda: not any(alive(pid) for pid in before))
    stop.set()
    for one in clients:
        one.join()
    assert failures == []
    assert done == [0] * 4
    assert len(children(server.process.pid, "worker")) == WORKERS


def test_a_signal_ends_all_and_so_does_the_supervisors_death(home: Path) -> None:
    """SIGTERM ends with 0; after kill -9 of the supervisor no process is left, and the home opens again."""
    for end in ("stop", "kill"):
        with helpers.server(home.parent / "small.py", home, "--workers", str(WORKERS)) as found:
            pid = found.process.pid
            mine = [*children(pid, "worker"), *children(pid, "writer")]
            assert len(mine) == WORKERS + 1
            if end == "stop":
                assert found.stop() == 0
                assert not any(alive(child) for child in mine)
            else:
                found.kill()
                until(lambda mine=mine: not any(alive(child) for child in mine))
    with helpers.load_app(home.parent) as app:
        assert app.features("Shopper", "nobody")["actions"] == 0
