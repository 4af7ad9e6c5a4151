"""What a decision says of its items is so: each source named found the item, and what led to it was looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

import helpers
import penstock as ps
from penstock.clock import DAY, HOUR
from penstock.releases import read
from penstock.serve.replies import Reply
from penstock.serve.requests import Answer, DecideRequest
from penstock.serve.routes import Endpoints, Request, Route
from penstock.serve.server import BackgroundServer
from serving import Client, problem

USERS = [str(event["user"]) for event in helpers.history()[-200::20]]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ps.App]:
    with helpers.trained(tmp_path_factory.mktemp("why")) as app:
        yield app


def decide(app: ps.App, user: str) -> Answer:
    return app.open().decide("home", DecideRequest(user=user, k=40, why=True))


@pytest.mark.parametrize("user", USERS)
def test_each_reason_is_a_fact_of_the_log_and_of_the_release(app: ps.App, user: str) -> None:
    """Seen items were looked at, and a co-visit's cause is the recent item with the largest decayed score."""
    answer = decide(app, user)
    mine = [str(event["item"]) for event in helpers.history() if event["user"] == user]
    recent = list(dict.fromkeys(reversed(mine)))
    assert answer.why is not None
    assert len(answer.why) == len(answer.items)
    code = app.open().log.strings.code
    index = read(app.home / "releases", str(answer.release)).indexes["covisits"]
    known = index["items"].tolist()
    kinds: Counter[str] = Counter()
    for item, reasons in zip(answer.items, answer.why, strict=True):
        assert reasons, "every item of this decision was found by a source"
        for reason in reasons:
            kinds[reason.kind] += 1
            if reason.kind == "seen":
                assert item.id in recent
            if reason.kind == "covisits":
                passed = {}
                for place, own in enumerate(recent[:10]):
                    if code(own) in known:
                        at = slice(*index["starts"][known.index(code(own)) :][:2].tolist())
                        edges = dict(zip(index["near"][at].tolist(), index["score"][at].tolist(), strict=True))
                        passed[own] = edges.get(code(item.id), 0.0) * 0.8**place
                assert reason.because is not None
                assert passed[reason.because] == pytest.approx(max(passed.values()))
            else:
                assert reason.because is None
    assert kinds["seen"]
    assert kinds["covisits"]


def test_nobody_knows_why_where_no_source_was_asked(app: ps.App) -> None:
    """Below the personal tiers, the reasons are empty, one list an item."""
    answer = app.open().decide("home", DecideRequest(user=USERS[0], why=True, budget_ms=0.001))
    assert answer.tier == "popular"
    assert answer.why == [[] for _ in answer.items]
    assert answer.items


def test_over_http_the_reasons_come_only_where_they_are_asked_for(app: ps.App) -> None:
    with BackgroundServer(app.open()) as server, Client(server) as call:
        plain = call("POST", "/v1/decide/home", {"user": USERS[0]})
        assert "why" not in plain.json
        asked = call("POST", "/v1/decide/home", {"user": USERS[0], "why": True})
        assert len(asked.json["why"]) == len(asked.json["items"])
        assert set(asked.json["why"][0][0]) == {"source", "kind", "because"}
        assert "why;dur=" in asked.headers["server-timing"]
        refused = call("POST", "/v1/decide/home", {"user": USERS[0], "why": "yes"})
        assert refused.status == 422
        assert problem(refused)["field"] == "why"


def test_what_is_popular_is_counted_from_the_log(app: ps.App) -> None:
    """The counts of the broadest popular source are those of its window, which ends at the last full hour."""
    newest = app.open().now()
    until = newest // HOUR * HOUR
    times = {str(e["id"]): row for e, row in zip(helpers.history(), _times(app), strict=True)}
    recent = [e for e in helpers.history() if until - 7 * DAY <= times[str(e["id"])] < until]
    assert app.open().popular("home") == Counter(str(event["item"]) for event in recent)


def _times(app: ps.App) -> list[int]:
    log = app.open().log
    return [int(t) for t in log.read(0, log.end)["action"].time]


def test_pages_are_routes_of_the_same_server(app: ps.App) -> None:
    """A group of pages answers beside the server's own addresses, and decides by the same endpoints."""

    def pages(endpoints: Endpoints) -> list[Route]:
        async def first(request: Request) -> Reply:
            answer = await endpoints.asking.ask("home", DecideRequest(user=USERS[0], k=1), request.waterfall)
            return Reply(200, answer.items[0].id.encode(), b"text/plain")

        return [Route("GET", "/first", first)]

    with BackgroundServer(app.open(), pages=[pages]) as server, Client(server) as call:
        first = call("POST", "/v1/decide/home", {"user": USERS[0], "k": 1}).json["items"][0]["id"]
        assert call("GET", "/first").text.decode() == first
        assert call("GET", "/healthz").status == 200
