"""An event is decided once, whoever sends it again, and what was decided of it is not lost."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import paying
import penstock as ps
from paying import DAY, NOW, payment
from penstock.audit import explain
from penstock.clock import SECOND
from penstock.errors import RequestError, UnavailableError
from penstock.events import Parsed
from penstock.releases import read
from penstock.serve import asking, batches, routes
from penstock.serve.decisions import DECISIONS, Decided, DecisionLog
from penstock.serve.requests import Judged
from penstock.serve.server import BackgroundServer
from penstock.serve.verdicts import Firsts, Judge
from serving import Client, Response, in_flight, problem, until


@pytest.fixture
def app(tmp_path: Path) -> Iterator[ps.App]:
    """The fraud app with a release in charge; half of what it would decline is let through to learn from."""
    with paying.paying(tmp_path) as app:
        exploring(app)
        yield paying.look_at_large(app)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a slow machine the disk and other requests are waited for."""
    monkeypatch.setattr(asking, "STORE_WITHIN", 20.0)
    monkeypatch.setattr(routes, "STORE_WITHIN", 20.0)


def exploring(app: ps.App) -> None:
    verdict = app.verdicts["payment"]
    # Nobody looks, so that whatever is bad is declined, unless it is explored.
    costs = replace(verdict.costs, review=1e9, decline=1_00)
    app.close()
    app.verdicts["payment"] = replace(verdict, explore=0.5, costs=costs)


def risky(name: str, amount: float = 36.0) -> dict[str, Any]:
    """A payment that is declined, or approved to explore."""
    return payment(name, NOW, amount, "c2", "t3")


def looked_at(name: str, more: float = 0.0) -> dict[str, Any]:
    """A payment beyond the app's limit, which is sent to review."""
    return payment(name, NOW, 6_000.0 + more, "c5", "t9")


def ask(call: Client, event: dict[str, Any], **more: Any) -> Response:
    return call("POST", "/v1/decide/payment", {"event": event, **more})


def rows(app: ps.App) -> list[Decided]:
    log = app.open().decisions
    log.flush()
    return log.read()


def submitted(app: ps.App, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the events that are handed to the log from now on."""
    runtime = app.open()
    plain, found = runtime.submit, []

    def submit(parsed: Parsed, source: str, *, shown: bool = True) -> Future[list[bool]]:
        found.extend(event.id for event in parsed.accepted)
        return plain(parsed, source, shown=shown)

    monkeypatch.setattr(runtime, "submit", submit)
    return found


# Sent again


@pytest.mark.usefixtures("patient")
def test_a_payment_that_is_sent_again_is_not_decided_anew(app: ps.App) -> None:
    """However often: the answer is the first one to the byte, one row is logged, and the price counts it once."""
    runtime = app.open()
    price = runtime._judges["payment"].price
    with BackgroundServer(runtime) as server, Client(server) as call:
        first = ask(call, risky("once"))
        seen = price._seen
        for _ in range(40):
            assert ask(call, risky("once")).text == first.text
    assert [one.verdict["event"] for one in rows(app) if one.verdict] == ["once"]
    assert price._seen == seen == 1
    assert app.judge("payment", risky("once")).decision_id == first.json["decision_id"]


def test_one_payment_is_one_review(app: ps.App) -> None:
    """Three sends of it wait for a person once."""
    for _ in range(3):
        app.judge("payment", looked_at("thrice"))
    assert [one["event"] for one in app.open().reviews("payment")] == ["thrice"]


def test_another_payment_under_the_same_id_is_refused(app: ps.App) -> None:
    """The log keeps the first, and nobody is told its verdict for something else."""
    end = app.open().log.end
    with BackgroundServer(app.open()) as server, Client(server) as call:
        assert ask(call, payment("swap", NOW, 1.0)).json["action"] == "approve"
        other = ask(call, payment("swap", NOW + 1, 150.0))
        assert (other.status, problem(other)["field"]) == (422, "event.amount")
        # A later moment is not another payment: a client that names none is given the time of its request.
        assert ask(call, payment("swap", NOW + 1, 1.0)).status == 200
        review = {"stream": "review", "id": "swap", "payment": "p", "customer": "c", "terminal": "t", "fraud": True}
        assert problem(ask(call, review))["field"] == "event"
    with pytest.raises(RequestError, match="an event's id is its own"):
        app.judge("payment", payment("swap", NOW + 1, 150.0))
    assert app.open().log.refresh() == end + 1


@pytest.mark.usefixtures("patient")
def test_sends_at_the_same_time_are_answered_by_the_first(app: ps.App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six clients whose requests overlap get one decision, which is computed once."""
    plain, computed, go = Judge.decide, [], threading.Event()

    def held(judge: Judge, *args: Any) -> Judged:
        go.wait(20)
        computed.append(plain(judge, *args))
        return computed[-1]

    monkeypatch.setattr(Judge, "decide", held)
    with BackgroundServer(app.open()) as server, Client(server) as probe, ThreadPoolExecutor(6) as pool:

        def send(_: int) -> Response:
            with Client(server) as call:
                return ask(call, risky("same"))

        answers = pool.map(send, range(6))
        until(lambda: in_flight(probe) == 6)
        go.set()
        assert len({answer.text for answer in answers}) == 1
    assert len(computed) == len(rows(app)) == 1


@pytest.mark.usefixtures("patient")
def test_what_was_decided_elsewhere_is_read_and_not_counted(app: ps.App, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verdict that another process gave is given again: neither is it handed to the disk nor does the price hear."""
    runtime = app.open()
    first = app.judge("payment", risky("elsewhere"))

    def served(answer: Judged, *, sure: bool = False) -> None:
        assert answer.cached

    monkeypatch.setattr(runtime, "served", served)
    runtime._firsts = Firsts()
    with BackgroundServer(runtime) as server, Client(server) as call:
        assert ask(call, risky("elsewhere")).json["decision_id"] == first.decision_id
    runtime._firsts = Firsts()
    assert app.judge("payment", risky("elsewhere")).decision_id == first.decision_id


@pytest.mark.usefixtures("patient")
def test_the_first_verdict_outlives_the_process(app: ps.App) -> None:
    """After a restart, and where memory has let it go, it is read from the decision log, to the last digit."""
    with BackgroundServer(app.open()) as server, Client(server) as call:
        told = [ask(call, event).text for event in (risky("kept"), looked_at("limit"), payment("fine", NOW, 3.0))]
    app.close()
    with paying.open_app(app.home) as other:
        for _ in range(2):
            with BackgroundServer(other.open()) as server, Client(server) as call:
                events = (risky("kept"), looked_at("limit"), payment("fine", NOW, 3.0))
                assert [ask(call, event).text for event in events] == told
            other.open()._firsts = Firsts()
        assert len(rows(other)) == 3


def test_workers_agree_on_the_first_verdict(app: ps.App) -> None:
    """Where two processes decided on one payment, what was first on the disk stands, also for the other."""
    mine = app.judge("payment", risky("both")).decided
    with closing(DecisionLog(app.home / DECISIONS)) as other:
        stands = other.keep(replace(mine, id="f" * 28)).result()
        assert stands.id == mine.id
        assert other.first("payment", "both").id == mine.id  # type: ignore[union-attr]
        assert other.first("payment", "neither") is None
    assert [one.id for one in rows(app)] == [mine.id]


def test_a_promise_that_is_not_kept_is_given_up() -> None:
    """Who waits hears why; who comes later begins anew; memory is bounded."""
    firsts = Firsts(most=2)
    promise, mine = firsts.claim("d", "e")
    waiting, other = firsts.claim("d", "e")
    assert (mine, other) == (True, False)
    firsts.give_up("d", "e", RequestError("no"))
    with pytest.raises(RequestError, match="no"):
        waiting.result()
    again, mine = firsts.claim("d", "e")
    assert mine
    assert again is not promise
    firsts.give_up("d", "e", KeyboardInterrupt())
    with pytest.raises(UnavailableError, match="decided once"):
        again.result()
    assert [firsts.claim("d", name)[1] for name in ("a", "b", "c", "c", "a")] == [True, True, True, False, True]


def test_what_the_log_takes_late_is_decided_once(app: ps.App, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first try is 503 and logged; the second is told the same verdict, in whose features the payment is not."""
    runtime = app.open()
    plain, go = runtime.log.append, threading.Event()

    def stalled(*args: Any) -> Any:
        go.wait(20)
        return plain(*args)

    monkeypatch.setattr(runtime.log, "append", stalled)
    with BackgroundServer(runtime) as server, Client(server) as call:
        late = ask(call, payment("late", NOW, 20.0, "somebody"))
        assert late.status == 503
        assert problem(late)["remedy"].startswith("send the same request again")
        (logged,) = rows(app)
        go.set()
        again = ask(call, payment("late", NOW, 20.0, "somebody"))
    assert (again.status, again.json["decision_id"]) == (200, logged.id)
    assert [one.id for one in rows(app)] == [logged.id]
    values = explain(logged, read(app.registry.folder, str(logged.release)), runtime.log).values
    assert values["verdict"]["features"]["Customer.payments_1min"]["value"] == 0


@pytest.mark.usefixtures("patient")
def test_a_deciding_thread_that_is_late_does_not_send_the_payment_twice(
    app: ps.App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes to it after rules have answered, by when the payment is on its way; so it is not its own duplicate."""
    sent = submitted(app, monkeypatch)
    plain, looked = Judge._judge, threading.Event()

    def late(judge: Judge, release: Any, values: Any, timer: Any, draw: Any, look: Any = None) -> Any:
        until(lambda: sent == ["slow"])
        look()
        looked.set()
        return plain(judge, release, values, timer, draw)

    monkeypatch.setattr(Judge, "_judge", late)
    with BackgroundServer(app.open()) as server, Client(server) as call:
        answer = ask(call, payment("slow", NOW, 20.0), budget_ms=100)
        assert (answer.status, answer.json["tier"]) == (200, "rules")
        assert looked.wait(20)
    assert sent == ["slow"]
    assert [one.id for one in rows(app)] == [answer.json["decision_id"]]


@pytest.mark.usefixtures("patient")
def test_a_payment_that_is_known_and_was_not_decided_on_is_decided(app: ps.App) -> None:
    """Its first verdict is durable on return, whatever it is."""
    app.ingest([payment("known", NOW, 3.0)])
    with BackgroundServer(app.open()) as server, Client(server) as call:
        answer = ask(call, payment("known", NOW, 3.0))
        assert on_disk(app) == {"known"}
        assert ask(call, payment("known", NOW, 3.0)).text == answer.text


# Durable


def on_disk(app: ps.App) -> set[str]:
    """The events whose verdicts another connection finds now."""
    with closing(sqlite3.connect(app.home / DECISIONS)) as db:
        return {name for (name,) in db.execute("SELECT json_extract(verdict, '$.event') FROM decisions")}


@pytest.mark.usefixtures("patient")
def test_what_is_not_plainly_approved_is_on_the_disk_before_the_answer(
    app: ps.App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reviews, declines and explored approvals, one by one; a plain approval is gathered with what follows it."""
    monkeypatch.setattr(batches, "PAUSE", 60.0)
    with BackgroundServer(app.open()) as server, Client(server) as call:
        assert ask(call, payment("plain", NOW, 3.0)).json["action"] == "approve"
        assert on_disk(app) == set()
        actions = {ask(call, looked_at("limit")).json["action"]}
        assert on_disk(app) == {"plain", "limit"}
        assert ask(call, payment("small", NOW, 3.0)).json["action"] == "approve"
        for i in range(20):
            actions.add(ask(call, risky(f"risky{i}")).json["action"])
            assert f"risky{i}" in on_disk(app)
    assert actions == {"review", "decline", "approve"}


@pytest.mark.usefixtures("patient")
def test_what_is_waited_for_is_synced(app: ps.App) -> None:
    """SQLite waits for the disk at the commit that somebody waits for, and at no other."""
    log = app.open().decisions
    app.judge("payment", looked_at("limit"))
    assert log._writing.execute("PRAGMA synchronous").fetchone() == (2,)  # type: ignore[union-attr]
    app.judge("payment", payment("plain", NOW + 60, 3.0))
    log.flush()
    assert log._writing.execute("PRAGMA synchronous").fetchone() == (1,)  # type: ignore[union-attr]


@pytest.mark.usefixtures("patient")
def test_an_approval_does_not_wait_for_the_decision_log(app: ps.App, monkeypatch: pytest.MonkeyPatch) -> None:
    """While that is held up approvals are answered, and a review is not until it goes on."""
    log, go, began = app.open().decisions, threading.Event(), threading.Event()
    plain = log._connect

    def held() -> Any:
        began.set()
        go.wait(20)
        return plain()

    monkeypatch.setattr(log, "_connect", held)
    with BackgroundServer(app.open()) as server, ThreadPoolExecutor(1) as pool, Client(server) as call:

        def review() -> Response:
            with Client(server) as other:
                return ask(other, looked_at("limit"))

        waiting = pool.submit(review)
        assert began.wait(20)
        for i in range(5):
            assert ask(call, payment(f"plain{i}", NOW + 60 * i, 3.0)).status == 200
        assert not waiting.done()
        go.set()
        assert waiting.result().json["action"] == "review"


def test_a_decision_log_that_fails_keeps_nobody_from_an_answer(
    app: ps.App, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Payments go on, the server's log says so, and later ones are logged again."""
    log, plain = app.open().decisions, DecisionLog._connect
    broken = True

    def connect() -> sqlite3.Connection:
        if broken:
            raise sqlite3.OperationalError("disk I/O error")
        return plain(log)

    monkeypatch.setattr(log, "_connect", connect)
    with BackgroundServer(app.open()) as server, Client(server) as call:
        assert ask(call, looked_at("lost")).json["action"] == "review"
        assert "disk I/O error" in caplog.text
        broken = False
        assert ask(call, looked_at("kept", 1.0)).json["action"] == "review"
        assert on_disk(app) == {"kept"}


def test_reviews_asked_for_before_a_restart_count(app: ps.App) -> None:
    """Their times are read from the decision log, so that a restart does not make room for as many again."""
    for i in range(3):
        app.judge("payment", payment(f"limit{i}", NOW + i, 6_000.0, "c5", "t9"))
    app.judge("payment", payment("old", NOW - 3 * DAY, 6_000.0, "c5", "t9"))
    app.close()
    with paying.open_app(app.home) as other:
        asked = other.open()._judges["payment"].price._asked
        assert [time // SECOND for time in asked][:3] == [NOW, NOW + 1, NOW + 2]
        assert len(asked) == 4  # by the clock of the events the old one was decided on now, too
