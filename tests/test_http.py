"""The HTTP face keeps its word: every status with its message, events durable and visible before the answer."""

from __future__ import annotations

import json
import os
import re
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from penstock.errors import UnavailableError
from penstock.serve.requests import Answer, DecideRequest
from penstock.serve.runtime import Runtime
from penstock.serve.server import BackgroundServer
from penstock.types import Accepted
from serving import Client, Counting, Held, Response, answer_on, half_sent, in_flight, problem, shop, until


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    with shop(tmp_path_factory.mktemp("shop")) as app:
        yield app.open()


@pytest.fixture(scope="module")
def server(runtime: Runtime) -> Iterator[BackgroundServer]:
    with BackgroundServer(runtime) as running:
        yield running


@pytest.fixture
def call(server: BackgroundServer) -> Iterator[Client]:
    with Client(server) as client:
        yield client


# Events


def test_one_object_an_array_and_ndjson_are_all_taken_and_visible_at_once(call: Client) -> None:
    one = {"user": "ann", "item": "a"}
    assert call("POST", "/v1/events", one).status == 202
    assert call("POST", "/v1/events", [one, one]).json == {"accepted": 2, "duplicates": 0, "rejected": []}
    lines = b"\n".join(json.dumps(one).encode() for _ in range(3)) + b"\n"
    assert call("POST", "/v1/events", lines).json["accepted"] == 3
    assert call("GET", "/v1/features/Shopper/ann").json["features"]["actions"] == 6


def test_a_repeated_id_counts_once_within_a_body_and_across_bodies(call: Client) -> None:
    event = {"user": "bob", "item": "a", "id": "once"}
    assert call("POST", "/v1/events", [event, event]).json == {"accepted": 1, "duplicates": 1, "rejected": []}
    assert call("POST", "/v1/events", event).json == {"accepted": 0, "duplicates": 1, "rejected": []}
    assert call("GET", "/v1/features/Shopper/bob").json["features"]["actions"] == 1


def test_a_bad_event_is_rejected_by_itself_and_kept_as_a_dead_letter(call: Client, runtime: Runtime) -> None:
    good = {"user": "cat", "item": "a"}
    batch = [good, {"user": "cat", "item": 7}, good, {"item": "a"}, {**good, "price": 1.234}]
    answer = call("POST", "/v1/events", batch)
    assert answer.status == 202
    assert answer.json["accepted"] == 2
    assert [(r["index"], r["field"]) for r in answer.json["rejected"]] == [(1, "item"), (3, "user"), (4, "price")]
    assert all(r["error"] for r in answer.json["rejected"])
    call("POST", "/v1/events", good)
    assert "price" in {letter.rejection.field for letter in runtime.log.rejects()}


@pytest.mark.parametrize("body", [b"", b"nonsense", b"[1, 2", b"[" * 5000, b"\xff"])
@pytest.mark.parametrize("path", ["/v1/events", "/v1/decide/home"])
def test_what_is_not_json_is_400(call: Client, path: str, body: bytes) -> None:
    answer = call("POST", path, body)
    assert answer.status == 400, answer.text
    problem(answer)


def test_too_large_a_body_is_413_before_it_is_read_and_the_connection_lives_on(call: Client) -> None:
    answer = call("POST", "/v1/events", b" " * ((4 << 20) + 1))
    assert answer.status == 413
    assert "4 MiB" in problem(answer)["error"]
    assert call("GET", "/healthz").status == 200
    answer = call("POST", "/v1/decide/home", b" " * ((256 << 10) + 1))
    assert answer.status == 413
    assert "256 KiB" in problem(answer)["error"]


def test_too_many_events_are_413(call: Client) -> None:
    answer = call("POST", "/v1/events", b"[" + b"{}," * 10_000 + b"{}]")
    assert answer.status == 413
    assert "10,000" in problem(answer)["error"]


def test_a_chunked_body_is_413_as_soon_as_it_is_too_large(server: BackgroundServer) -> None:
    with socket.create_connection((server.host, server.port), timeout=20) as line:
        line.sendall(b"POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(5):
            line.sendall(b"100000\r\n" + b" " * (1 << 20) + b"\r\n")
        # The last chunk never comes.
        answer = answer_on(line)
    assert answer.status == 413
    problem(answer)


def test_a_chunked_body_is_counted_by_its_bytes(runtime: Runtime) -> None:
    with BackgroundServer(runtime) as server, Client(server) as call:
        call.connection.request("POST", "/v1/decide/home", iter([b'{"user":', b' "dan"}']), encode_chunked=True)
        call.connection.getresponse().read()
        text = call("GET", "/metrics").text.decode()
    assert 'penstock_payload_bytes_sum{direction="request"} 15.0' in text


def test_a_server_that_cannot_listen_leaves_no_thread(runtime: Runtime, server: BackgroundServer) -> None:
    before = threading.active_count()
    with pytest.raises(UnavailableError), BackgroundServer(runtime, server.port):
        pass
    assert threading.active_count() == before


def test_a_chunked_body_within_the_limit_is_taken(call: Client) -> None:
    call.connection.request("POST", "/v1/events", iter([b'{"user": "dan",', b' "item": "a"}']), encode_chunked=True)
    answer = call.connection.getresponse()
    assert (answer.status, json.loads(answer.read())["accepted"]) == (202, 1)


def test_who_asks_before_sending_too_much_is_refused_without_a_go_ahead(server: BackgroundServer) -> None:
    with socket.create_connection((server.host, server.port), timeout=20) as line:
        line.sendall(b"POST /v1/events HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n")
        answer = answer_on(line)
        assert answer.status == 413
        assert answer.headers["connection"] == "close"


def test_a_body_that_does_not_arrive_is_408(runtime: Runtime) -> None:
    with BackgroundServer(runtime, body_within=0.05) as server, half_sent(server, b'{"user": "eve"}') as line:
        answer = answer_on(line)
    assert answer.status == 408
    assert "14 bytes" in problem(answer)["error"]


def test_a_large_body_is_taken_whole(call: Client) -> None:
    batch = [{"user": f"many{i % 10}", "item": f"i{i}"} for i in range(3_000)]
    assert call("POST", "/v1/events", batch).json["accepted"] == 3_000


# Decisions


def test_a_decision_answers_with_all_its_fields_and_a_waterfall(call: Client) -> None:
    for body in ({"user": "ann"}, {"user": "nobody", "k": 3, "context": {"country": "AU", "n": 1, "x": None}}):
        answer = call("POST", "/v1/decide/home", body)
        assert answer.status == 200
        assert set(answer.json) == {"decision_id", "items", "tier", "release", "arm"}
        assert answer.json["arm"] == "champion"
        names = [part.split(";dur=")[0] for part in answer.headers["server-timing"].split(", ")]
        assert names[:2] == ["queue", "parse"]
        assert names[-2:] == ["serialise", "total"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "user"),
        ({"user": 7}, "user"),
        ({"user": ""}, "user"),
        ({"user": "u" * 513}, "user"),
        ({"user": "u", "k": 0}, "k"),
        ({"user": "u", "k": 501}, "k"),
        ({"user": "u", "k": "3"}, "k"),
        ({"user": "u", "budget_ms": 0}, "budget_ms"),
        ({"user": "u", "budget_ms": 10_001}, "budget_ms"),
        ({"user": "u", "context": {"deep": {}}}, "context"),
        ({"user": "u", "event": []}, "event"),
        ({"usr": "u"}, "usr"),
        ([], None),
        ({"user": "u", "event": {"user": "u", "item": 1}}, "event.item"),
        ({"user": "u", "event": {"user": "u"}}, "event.item"),
        ({"user": "u", "event": {"user": "u", "item": "a", "time": "2999-01-01T00:00:00Z"}}, "event.time"),
    ],
)
def test_a_request_that_breaks_a_rule_is_422_and_names_the_field(call: Client, body: Any, field: str | None) -> None:
    answer = call("POST", "/v1/decide/home", body)
    assert answer.status == 422, answer.text
    assert problem(answer)["field"] == field


@pytest.mark.parametrize("body", [b'{"user": "u", "budget_ms": 1e999}', b'{"user": "\xff"}', b'{"context":' * 5_000])
def test_what_the_decoder_gives_up_on_is_400_not_500(call: Client, body: bytes) -> None:
    answer = call("POST", "/v1/decide/home", body)
    assert answer.status == 400
    problem(answer)


def test_an_event_sent_along_is_not_in_its_own_features_and_in_all_later_ones(runtime: Runtime) -> None:
    with BackgroundServer(Counting(runtime)) as server, Client(server) as call:
        for before in range(100):
            body = {"user": "fay", "event": {"user": "fay", "item": f"i{before}"}}
            answer = call("POST", "/v1/decide/home", body)
            assert (answer.status, answer.json["tier"]) == (200, str(before))
            assert "log;dur=" in answer.headers["server-timing"]
            assert runtime.features("Shopper", "fay")["features"]["actions"] == before + 1


def test_with_a_rejected_event_nothing_is_decided_and_the_letter_is_kept(runtime: Runtime) -> None:
    face = Counting(runtime)
    with BackgroundServer(face) as server, Client(server) as call:
        answer = call("POST", "/v1/decide/home", {"user": "gil", "event": {"user": "gil", "item": "a", "kid": 1}})
        assert answer.status == 422
        assert problem(answer)["field"] == "event.kid"
        assert face.asked == []
        call("POST", "/v1/events", {"user": "x", "item": "a"})
    letter = runtime.log.rejects(1)[0]
    assert (letter.rejection.field, letter.source) == ("kid", "decide")


class Budgets(Counting):
    """Remembers how much of each budget was gone."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        self.spent: list[float] = []

    def decide(
        self, name: str, request: DecideRequest, spent_ms: float = 0.0, event: Accepted | None = None, *looked: Any
    ) -> Answer:
        self.spent.append(spent_ms)
        answer = self.runtime.decide(name, request, spent_ms, event)
        assert isinstance(answer, Answer)
        return answer


def test_queueing_and_reading_are_paid_from_the_budget(runtime: Runtime) -> None:
    face = Budgets(runtime)
    with BackgroundServer(face) as server, Client(server) as call:
        for body in ({"user": "u", "budget_ms": 1_000}, {"user": "u"}):
            call("POST", "/v1/decide/home", body)
    assert len(face.spent) == 2
    assert min(face.spent) > 0


# Features


def test_composite_keys_are_joined_by_commas_and_url_encoded(call: Client) -> None:
    call("POST", "/v1/events", {"user": "a,b/c", "item": "ü 1%"})
    answer = call("GET", "/v1/features/Interest/a%2Cb%2Fc,%C3%BC%201%25")
    assert answer.status == 200
    assert answer.json["features"]["actions"] == 1
    answer = call("GET", "/v1/features/Interest/alone")
    assert answer.status == 422
    problem(answer)


def test_unknown_names_are_404_and_say_which_there_are(call: Client) -> None:
    for method, path, body, known in (
        ("GET", "/v1/features/Shoper/ann", None, "Shopper"),
        ("POST", "/v1/decide/hom", {"user": "u"}, "home"),
        ("GET", "/nothing", None, "/openapi.json"),
        ("GET", "/v1/features/Shopper/", None, "/openapi.json"),
        ("GET", "/v1/features/Shopper/a/b", None, "/openapi.json"),
        ("POST", "/v1/releases/none/drop", {}, "/openapi.json"),
    ):
        answer = call(method, path, body)
        assert answer.status == 404, path
        assert known in problem(answer)["remedy"]


# Methods and connections


def test_head_is_get_without_the_body_and_other_methods_are_405(call: Client) -> None:
    got, headed = call("GET", "/openapi.json"), call("HEAD", "/openapi.json")
    assert (headed.status, headed.text) == (200, b"")
    assert headed.headers["content-length"] == got.headers["content-length"]
    for method, path, allowed in (
        ("GET", "/v1/events", "POST"),
        ("HEAD", "/v1/decide/home", "POST"),
        ("PUT", "/v1/features/Shopper/ann", "GET, HEAD"),
        ("DELETE", "/", "GET, HEAD"),
        ("OPTIONS", "/metrics", "GET, HEAD"),
    ):
        answer = call(method, path)
        assert (answer.status, answer.headers["allow"]) == (405, allowed)
        assert method == "HEAD" or problem(answer)


def test_one_connection_serves_many_requests_even_after_refusals(call: Client) -> None:
    call("GET", "/healthz")
    line = call.connection.sock
    for path, body in (("/v1/decide/home", b"{"), ("/v1/decide/home", {"user": "u"}), ("/nothing", {"user": "u"})):
        call("POST", path, body)
    assert call("GET", "/healthz").json == {"status": "alive", "pid": os.getpid()}
    assert line is not None
    assert call.connection.sock is line


def test_every_answer_has_server_timing(call: Client) -> None:
    for method, path in (("GET", "/"), ("GET", "/metrics"), ("GET", "/x"), ("PUT", "/"), ("GET", "/v1/releases")):
        assert re.search(r"queue;dur=[\d.]+.*total;dur=[\d.]+$", call(method, path).headers["server-timing"])


def sent(server: BackgroundServer, body: bytes) -> socket.socket:
    """A connection on which events are sent, and no answer is read yet."""
    line = half_sent(server, body)
    line.sendall(body[-1:])
    return line


def test_requests_over_the_bound_are_429_and_probes_still_answer(runtime: Runtime) -> None:
    body = json.dumps({"user": "hal", "item": "a"}).encode()
    face = Held(runtime)
    with BackgroundServer(face, in_flight=2) as server, Client(server) as call:
        with sent(server, body) as one, sent(server, body) as two:
            until(lambda: in_flight(call) == 2)
            refused = call("POST", "/v1/decide/home", {"user": "u"})
            assert refused.status == 429
            assert int(refused.headers["retry-after"]) >= 1
            assert "2 requests" in problem(refused)["error"]
            assert call("GET", "/healthz").status == 200
            assert call("GET", "/readyz").status == 200
            face.go.set()
            assert [answer_on(line).status for line in (one, two)] == [202, 202]
        assert call("POST", "/v1/decide/home", {"user": "u"}).status == 200


def test_a_client_that_goes_away_frees_its_place(runtime: Runtime) -> None:
    """The place is free once its events are durable; they count, though nobody hears of it."""
    face = Held(runtime)
    with BackgroundServer(face, in_flight=1) as server, Client(server) as call:
        with sent(server, b'{"user": "ian", "item": "a"}'):
            until(lambda: in_flight(call) == 1)
        assert call("POST", "/v1/decide/home", {"user": "u"}).status == 429
        face.go.set()
        until(lambda: in_flight(call) == 0)
        assert call("POST", "/v1/events", {"user": "ian", "item": "a"}).status == 202
        assert call("GET", "/v1/features/Shopper/ian").json["features"]["actions"] == 2


def test_bodies_that_are_not_there_yet_take_no_place(runtime: Runtime) -> None:
    """With one place, three half-sent bodies keep neither events nor decisions waiting, and are answered in the end."""
    body = json.dumps({"user": "jim", "item": "a"}).encode()
    with BackgroundServer(runtime, in_flight=1) as server, Client(server) as call, ExitStack() as open_lines:
        lines = [open_lines.enter_context(half_sent(server, body)) for _ in range(3)]
        for _ in range(20):
            assert call("POST", "/v1/events", {"user": "jim", "item": "b"}).status == 202
            assert call("POST", "/v1/decide/home", {"user": "jim"}).status == 200
        for line in lines:
            line.sendall(body[-1:])
            assert answer_on(line).status == 202


def test_unfinished_bodies_beyond_their_bound_are_429_and_whole_ones_are_still_taken(runtime: Runtime) -> None:
    """The bound is on bytes that wait for their rest; who goes away gives them back."""
    body = json.dumps([{"user": "kay", "item": "a"}] * 40).encode()
    with BackgroundServer(runtime, bodies=len(body) * 3 // 2) as server, Client(server) as call:
        with half_sent(server, body):
            refused = refused_half(server, body)
            assert refused.status == 429
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.headers["connection"] == "close"
            assert "unfinished" in problem(refused)["error"]
            assert call("POST", "/v1/events", body).status == 202
            assert call("POST", "/v1/decide/home", {"user": "u"}).status == 200
        until(lambda: finished(server, body) == 202)


def refused_half(server: BackgroundServer, body: bytes) -> Response:
    """The answer to half a body, of as many as it takes: one that is sent may not have been read yet."""
    with half_sent(server, body) as one, half_sent(server, body) as two:
        ready, _, _ = select.select([one, two], [], [], 20)
        return answer_on(ready[0])


def finished(server: BackgroundServer, body: bytes) -> int:
    """The answer's status to a body that comes in two parts."""
    with half_sent(server, body) as line:
        ready, _, _ = select.select([line], [], [], 0.05)
        if not ready:
            line.sendall(body[-1:])
        return answer_on(line).status
