"""What waits for a person: the same wherever one asks, in order of what a look saves, and read without the rest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import paying
import penstock as ps
from paying import DAY, NOW, payment
from penstock.audit import explain
from penstock.commands import explain as explain_command
from penstock.commands import reviews as reviews_command
from penstock.console.decisions import explanation
from penstock.serve.decisions import Decided
from penstock.serve.requests import checked
from penstock.serve.server import BackgroundServer
from serving import Client


@pytest.fixture
def app(tmp_path: Path) -> Iterator[ps.App]:
    """The fraud app with a release in charge, whose limit has everything above it looked at."""
    with paying.paying(tmp_path) as app:
        yield paying.look_at_large(app)


def by_rules(app: ps.App, name: str, amount: float, time: float = NOW) -> Decided:
    """A payment that rules alone decide on, as when there is no time for the model."""
    runtime = app.open()
    event = runtime.intake.check(payment(name, time, amount, "c7"))
    answer = runtime.fall_back("payment", checked(), 0.0, "busy", event)
    runtime.append([event])
    runtime.served(answer)
    decided: Decided = answer.decided
    return decided


def told(app: ps.App, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What the command prints."""
    capsys.readouterr()
    reviews_command(decision="payment", app=paying.APP, home=app.home, most=200, staff=None, json=True)
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["reviews"]
    return found


def test_the_command_tells_what_the_address_tells(app: ps.App, capsys: pytest.CaptureFixture[str]) -> None:
    """Reviews that the model, a rule beside it, and rules alone asked for, the dearest first; old ones on neither."""
    by_rules(app, "old", 300.0)
    later = NOW + 8 * DAY
    for i in range(4):
        app.judge("payment", payment(f"limit{i}", later + i, 6_000.0 + i, f"c{i}", f"t{20 + i}"))
    by_rules(app, "small", 230.0, later)
    by_rules(app, "large", 300_000.0, later)
    with BackgroundServer(app.open()) as server, Client(server) as call:
        over_http = call("GET", "/v1/reviews/payment", Authorization=f"Bearer {server.token}").json["reviews"]
    names = [one["event"] for one in over_http]
    assert {*names} == {"limit0", "limit1", "limit2", "limit3", "small", "large"}
    assert names.index("large") == 0
    assert names.index("small") > names.index("large")
    app.close()
    assert told(app, capsys) == over_http


def test_what_rules_send_to_review_is_ranked_by_its_amount(app: ps.App) -> None:
    """A review saves the amount times how often events are bad as a rule, less what it costs."""
    judge = app.open()._judges["payment"]
    assert judge.release is not None
    chance = float(judge.release.model.reference[:, 0].mean())
    decided = by_rules(app, "x", 3_000.0)
    assert decided.verdict is not None
    assert decided.verdict["saving"] == pytest.approx(chance * 300_000 - judge.decision.costs.review)


def test_rules_rank_by_amount_before_there_is_a_release(tmp_path: Path) -> None:
    """Then one in a thousand is reckoned with."""
    with paying.paying(tmp_path, trained=False) as app:
        for name, amount in (("little", 300.0), ("much", 4_000.0), ("more", 700.0)):
            by_rules(app, name, amount)
        assert [one["event"] for one in app.open().reviews("payment")] == ["much", "more", "little"]


def test_the_queue_reads_reviews_and_no_approvals(app: ps.App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of fifty decisions the two that asked for a review."""
    for i in range(48):
        app.judge("payment", payment(f"fine{i}", NOW + 60 * i, 3.0, f"c{i % 40}"))
    for i in range(2):
        app.judge("payment", payment(f"limit{i}", NOW + i, 6_000.0, "c2"))
    read: list[str] = []
    plain = Decided.from_row.__func__  # type: ignore[attr-defined]

    def counted(cls: type[Decided], row: Any) -> Decided:
        read.append(row[0])
        made: Decided = plain(cls, row)
        return made

    monkeypatch.setattr(Decided, "from_row", classmethod(counted))
    assert len(app.open().reviews("payment")) == 2
    assert len(read) == 2


def test_the_log_is_read_once_from_before_the_oldest_review(app: ps.App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where rules asked for that one, of whom nobody knows what they had seen; asked again, only what is new."""
    runtime = app.open()
    app.judge("payment", payment("before", NOW, 3.0))
    begin = runtime.log.end - 1
    by_rules(app, "first", 300.0, NOW + 1)
    app.judge("payment", payment("second", NOW + 2, 6_000.0))
    plain, spans = runtime.log.read, []

    def read(start: int, stop: int) -> Any:
        spans.append((start, stop))
        return plain(start, stop)

    monkeypatch.setattr(runtime.log, "read", read)
    queue = runtime._queues["payment"]

    def waiting() -> list[str]:
        spans.clear()
        return sorted(one.event for one in queue.waiting(runtime.now()))

    assert waiting() == ["first", "second"]
    assert spans == [(begin, begin + 3)]
    assert waiting() == ["first", "second"]
    assert spans == []
    about = {"stream": "review", "payment": "first", "customer": "c7", "terminal": "t1", "fraud": False}
    app.ingest([{**about, "time": NOW + 60}])
    assert waiting() == ["second"]
    assert spans == [(begin + 3, begin + 4)]


def test_a_verdict_without_a_score_is_explained_in_json(app: ps.App, capsys: pytest.CaptureFixture[str]) -> None:
    """Rules know none: it is null, not NaN, which is no JSON; lines and the console say that there is none."""
    decided = by_rules(app, "x", 300.0)
    found = explain(decided, app.open()._judges["payment"].release, app.open().log)
    assert json.loads(json.dumps(found.values, allow_nan=False))["verdict"]["score"] is None
    assert any("no score" in line for line in found.lines())
    assert "nan" not in str(explanation(found))
    app.close()
    explain_command(id=decided.id, app=paying.APP, home=app.home, most=5, json=True)
    assert "NaN" not in capsys.readouterr().out


def test_training_reads_no_older_decisions_than_it_can_use(app: ps.App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those before the oldest event that may be learned from nothing is asked."""
    asked: list[int] = []
    plain = type(app.open().decisions).read

    def read(log: Any, *args: Any, since: int = 0, **more: Any) -> Any:
        asked.append(since)
        return plain(log, *args, since=since, **more)

    monkeypatch.setattr(type(app.open().decisions), "read", read)
    app.train()
    assert asked == [app.open().log.newest - (28 + 7 + 7) * DAY * 1_000_000]
