"""The server outlives failures, guards releases, describes itself, and finishes what it began before it ends."""

from __future__ import annotations

import http.client
import json
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import penstock as ps
from penstock.errors import UnavailableError
from penstock.serve.access import AccessLog
from penstock.serve.runtime import Runtime
from penstock.serve.server import BackgroundServer
from penstock.serve.token import operator_token
from serving import Client, Counting, Held, answer_on, half_sent, listens, problem, shop, until


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


# Failures


class Failing(Counting):
    """The real runtime, with a bug in one place."""

    def features(self, view: str, key: str) -> dict[str, Any]:
        raise ZeroDivisionError("a secret of the inside")


def test_an_unexpected_failure_is_500_with_an_id_that_the_log_knows(
    runtime: Runtime, caplog: pytest.LogCaptureFixture
) -> None:
    with BackgroundServer(Failing(runtime)) as server, Client(server) as call:
        answer = call("GET", "/v1/features/Shopper/ann")
        assert answer.status == 500
        assert "secret" not in answer.text.decode()
        assert "Traceback" not in answer.text.decode()
        assert problem(answer)["id"] in caplog.text
        assert "a secret of the inside" in caplog.text
        assert call("GET", "/healthz").status == 200


def test_a_runtime_that_no_longer_takes_events_is_503(tmp_path: Path) -> None:
    with shop(tmp_path) as app:
        runtime = app.open()
        with BackgroundServer(runtime) as server, Client(server) as call:
            runtime._inlet.close()
            for path, body in (
                ("/v1/events", {"user": "u", "item": "a"}),
                ("/v1/decide/home", {"user": "u", "event": {"user": "u", "item": "a"}}),
            ):
                answer = call("POST", path, body)
                assert answer.status == 503
                assert int(answer.headers["retry-after"]) >= 1
                problem(answer)


class Unready(Counting):
    """The real runtime while it still catches up."""

    def ready(self) -> tuple[bool, dict[str, Any]]:
        return False, {**self.runtime.ready()[1], "behind": 12}


def test_readyz_is_503_until_ready_and_says_what_it_waits_for(runtime: Runtime, call: Client) -> None:
    assert call("GET", "/readyz").json["ready"] is True
    with BackgroundServer(Unready(runtime)) as server, Client(server) as other:
        answer = other("GET", "/readyz")
        assert (answer.status, answer.json["ready"], answer.json["behind"]) == (503, False, 12)
        problem(answer)
        assert other("GET", "/healthz").status == 200


# Releases and the operator's token

RELEASES = (
    ("GET", "/v1/releases", None),
    ("POST", "/v1/releases/none/promote", None),
    ("POST", "/v1/releases/none/rollback", None),
    ("POST", "/v1/releases/none/dial", {"share": 0.5}),
)


@pytest.mark.parametrize(("method", "path", "body"), RELEASES)
def test_releases_need_the_operators_token(call: Client, method: str, path: str, body: Any) -> None:
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Bearer "}, {"Authorization": "Basic x"}):
        answer = call(method, path, body, **headers)
        assert answer.status == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "operator-token" in problem(answer)["remedy"]


def test_with_the_token_releases_are_listed_and_an_unknown_one_is_refused(
    call: Client, server: BackgroundServer
) -> None:
    token = {"Authorization": f"Bearer {server.token}"}
    assert call("GET", "/v1/releases", **token).json == {"releases": []}
    answer = call("POST", "/v1/releases/none/promote", **token)
    assert answer.status == 404
    problem(answer)
    assert call("POST", "/v1/releases/none/rollback", **token).status in (404, 422)
    answer = call("POST", "/v1/releases/none/dial", {"share": 1.5}, **token)
    assert answer.status == 422
    assert problem(answer)["field"] == "share"


def test_a_promoted_release_decides_next_and_a_rollback_returns_to_the_one_before(tmp_path: Path) -> None:
    with shop(tmp_path) as app:
        start = time.time() - 5 * 86_400
        events = [{"user": f"u{n % 40}", "item": f"i{n * n % 61}", "time": start + n * 200} for n in range(2_000)]
        app.ingest(events)
        first = app.train(promote=False).release
        app.ingest([{"user": "u1", "item": "new"}])
        second = app.train(promote=False).release
        with BackgroundServer(app.open()) as server, Client(server) as call:
            token = {"Authorization": f"Bearer {server.token}"}

            def serving() -> str | None:
                answer = call("POST", "/v1/decide/home", {"user": "u1"})
                assert answer.status == 200
                return answer.json["release"]

            assert serving() is None
            moves = (("promote", first, first), ("promote", second, second), ("rollback", second, first))
            for action, named, then in moves:
                assert call("POST", f"/v1/releases/{named}/{action}", **token).status == 200
                until(lambda then=then: serving() == then)
            listed = call("GET", "/v1/releases", **token).json["releases"]
            assert {r["id"]: r["champion"] for r in listed} == {first: True, second: False}


def test_the_token_is_made_once_and_read_by_its_owner_only(tmp_path: Path) -> None:
    home = tmp_path / "home"
    token = operator_token(home)
    assert len(token) >= 32
    assert operator_token(home) == token
    path = home / "operator-token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    with pytest.raises(UnavailableError, match="read by its owner only"):
        operator_token(home)
    path.chmod(0o600)
    path.write_text("")
    with pytest.raises(UnavailableError, match="not empty"):
        operator_token(home)


# What the server says of itself


def test_openapi_lists_every_route_stream_and_name(call: Client, server: BackgroundServer) -> None:
    document = call("GET", "/openapi.json").json
    assert document["openapi"].startswith("3.1")
    listed = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert listed == {(route.method, route.path) for route in server.app.routes}
    schemas = document["components"]["schemas"]
    assert schemas["Event_action"]["required"] == ["user", "item", "kind"]
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert references <= set(schemas)
    decide = document["paths"]["/v1/decide/{decision}"]["post"]
    assert decide["parameters"][0]["schema"]["enum"] == ["home"]
    for path, methods in document["paths"].items():
        for operation in methods.values():
            named = {p["name"] for p in operation.get("parameters", ())}
            assert named == set(re.findall(r"{(\w+)}", path))
            assert operation["responses"]


def test_metrics_count_what_happened_under_the_routes_templates(runtime: Runtime) -> None:
    with BackgroundServer(runtime) as server, Client(server) as call:
        event = {"user": "kim", "item": "a", "id": "kim-1"}
        call("POST", "/v1/events", [event, event, {}])
        call("POST", "/v1/decide/home", {"user": "kim"})
        call("GET", "/v1/features/Shopper/kim")
        call("GET", "/made/up")
        text = call("GET", "/metrics").text.decode()
    for line in (
        'penstock_events_total{result="accepted"} 1.0',
        'penstock_events_total{result="duplicate"} 1.0',
        'penstock_events_total{result="rejected"} 1.0',
        'penstock_decide_seconds_count{stage="total"} 1.0',
        "penstock_freshness_seconds_count 1.0",
        'penstock_http_requests_total{path="/v1/features/{view}/{key}",status="200"} 1.0',
        'penstock_http_requests_total{path="other",status="404"} 1.0',
        "penstock_http_in_flight 0.0",
    ):
        assert line in text
    assert re.search(r'penstock_invocations_total\{decision="home",release="none",tier="\w+"\} 1.0', text)
    seconds = {
        name: float(re.search(rf"^penstock_{name} (\S+)", text, re.MULTILINE)[1])  # type: ignore[index]
        for name in ("model_latency_seconds_sum", "overhead_latency_seconds_sum", "worker_busy_seconds_total")
    }
    total = float(re.search(r'penstock_decide_seconds_sum\{stage="total"\} (\S+)', text)[1])  # type: ignore[index]
    assert seconds["model_latency_seconds_sum"] + seconds["overhead_latency_seconds_sum"] == pytest.approx(total)
    assert seconds["worker_busy_seconds_total"] > 0
    sizes = re.search(r'penstock_payload_bytes_sum\{direction="request"\} (\S+)', text)
    assert sizes is not None
    assert float(sizes[1]) == len(json.dumps([event, event, {}])) + len(json.dumps({"user": "kim"}))


def test_the_access_log_has_a_line_a_request_with_its_waterfall_and_no_shopper(
    runtime: Runtime, tmp_path: Path
) -> None:
    """Route, status, sizes, stages and the decision's id; no user, no token, no query of the client's making."""
    path = tmp_path / "access.jsonl"
    access = AccessLog(path)
    with BackgroundServer(runtime, token="secret-token", access=access) as server, Client(server) as call:
        answer = call("POST", "/v1/decide/home", {"user": "kim-the-shopper"})
        call("GET", "/v1/features/Shopper/kim-the-shopper")
        path.rename(tmp_path / "rotated.jsonl")
        call("GET", "/v1/releases", authorization="Bearer secret-token")
        access.close()
    text = path.read_text() + (tmp_path / "rotated.jsonl").read_text()
    assert "kim" not in text
    assert "secret" not in text
    lines = {line["path"]: line for line in map(json.loads, text.splitlines())}
    assert set(lines) == {"/v1/decide/{decision}", "/v1/features/{view}/{key}", "/v1/releases"}
    decided = lines["/v1/decide/{decision}"]
    assert decided["decision_id"] == answer.json["decision_id"]
    assert (decided["status"], decided["sent"]) == (200, len(answer.text))
    assert {"queue", "parse", "retrieve", "serialise", "total"} <= set(decided["ms"])


def test_an_access_log_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"can be written.*choose another --access-log"):
        AccessLog(tmp_path / "none" / "access.jsonl")


def test_the_contract_of_sagemaker_is_a_second_face_of_the_same_decisions(runtime: Runtime) -> None:
    """/ping says ready; /invocations answers as /v1/decide does, and names what it does not know."""
    with BackgroundServer(runtime) as server, Client(server) as call:
        assert call("GET", "/ping").status == 200
        call("POST", "/v1/events", [{"user": "kim", "item": f"i{n}"} for n in range(3)])
        for body in ({"user": "kim"}, {"user": "kim", "decision": "home"}):
            first, second = call("POST", "/v1/decide/home", {"user": "kim"}), call("POST", "/invocations", body)
            assert second.status == 200
            assert second.json["items"] == first.json["items"]
        unknown = call("POST", "/invocations", {"user": "kim", "decision": "nowhere"})
        assert unknown.status == 404
        problem(unknown)
    with BackgroundServer(Unready(runtime)) as server, Client(server) as call:
        assert call("GET", "/ping").status == 503


def test_the_front_page_links_to_the_open_addresses(call: Client) -> None:
    page = call("GET", "/")
    assert page.headers["content-type"].startswith("text/html")
    for link in ("/metrics", "/openapi.json", "/readyz", "/healthz"):
        assert f'href="{link}"' in page.text.decode()


# Start and end


def test_a_taken_address_is_an_error_with_a_remedy(server: BackgroundServer, runtime: Runtime) -> None:
    with pytest.raises(UnavailableError, match="--port 0"), BackgroundServer(runtime, server.port):
        pass


def test_stopping_answers_what_is_in_flight_first(runtime: Runtime) -> None:
    face = Held(runtime)
    body = json.dumps({"user": "lou", "item": "a"}).encode()
    with BackgroundServer(face) as server:
        with half_sent(server, body) as line:
            line.sendall(body[-1:])
            face.reached.wait()
            server.stop()
            until(lambda: not listens(server.port))
            face.go.set()
            answer = answer_on(line)
        assert (answer.status, answer.json["accepted"]) == (202, 1)
        assert answer.headers["connection"] == "close"


SERVE = """
import sys, threading
from concurrent.futures import Future
from pathlib import Path
sys.path[:0] = sys.argv[2:]
from serving import Held, shop
from penstock.serve.server import run

app = shop(Path(sys.argv[1]))
face = Held(app.open())
def letting_go():
    face.reached.wait(); print("reached", flush=True); sys.stdin.readline(); face.go.set()
threading.Thread(target=letting_go, daemon=True).start()
run(face, port=0, token="t", on_ready=lambda url: print(url, flush=True))
print(sys.getswitchinterval(), face.runtime._inlet._writer.alive, flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_closes_the_runtime_and_ends_with_0(tmp_path: Path, number: signal.Signals) -> None:
    paths = [str(Path(__file__).parent), str(Path(ps.__file__).parents[1])]
    command = [sys.executable, "-W", "error", "-c", SERVE, str(tmp_path), *paths]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        client.request("POST", "/v1/events", json.dumps({"user": "mia", "item": "a"}))
        assert process.stdout.readline() == "reached\n"
        process.send_signal(number)
        until(lambda: not listens(port))
        process.stdin.write("go\n")
        process.stdin.flush()
        answer = client.getresponse()
        assert (answer.status, json.loads(answer.read())["accepted"]) == (202, 1)
        client.close()
        assert process.stdout.readline() == "0.005 False\n"
        assert process.wait(20) == 0
    with shop(tmp_path) as again:
        assert again.features("Shopper", "mia")["actions"] == 1
