"""What the tests of the server share: a small real app, a client that speaks plain HTTP, and ways to wait."""

from __future__ import annotations

import http.client
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import penstock as ps
from penstock.events import Parsed
from penstock.serve.requests import Answer, DecideRequest
from penstock.serve.runtime import Runtime
from penstock.serve.server import BackgroundServer
from penstock.types import Accepted


class Time:
    """Seconds that go by only when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Action(ps.Event):
    user: str
    item: str
    kind: str = "view"
    price: ps.Money | None = None


def shop(home: Path) -> ps.App:
    """An app in its own folder, with nothing in it yet."""
    app = ps.App("shop", home=home)

    @app.view(on=Action, by="user")
    class Shopper:
        recent = ps.last("item", k=10)
        actions = ps.count()

    @app.view(on=Action, by=("user", "item"))
    class Interest:
        actions = ps.count()

    @app.decision("home", by="user", budget="10s", k=5)
    class Home:
        candidates = (ps.popular(),)
        rank = ps.LambdaRank(goal="view")
        fallback = (ps.popular(),)

    return app


class Response(NamedTuple):
    status: int
    headers: dict[str, str]
    text: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.text)


class Client:
    """One kept-alive connection."""

    def __init__(self, server: BackgroundServer) -> None:
        self.connection = http.client.HTTPConnection(server.host, server.port, timeout=20)

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> Response:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(method, path, data, named)
        answer = self.connection.getresponse()
        return Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self.connection.close()


def problem(answer: Response) -> dict[str, Any]:
    """The body of a refusal, which has all three parts."""
    assert {"error", "field", "remedy"} <= set(answer.json), answer.text
    assert answer.json["error"]
    assert answer.json["remedy"]
    return answer.json


def half_sent(server: BackgroundServer, body: bytes) -> socket.socket:
    """A connection on which a request to /v1/events has begun, and all but its last byte is sent."""
    line = socket.create_connection((server.host, server.port), timeout=20)
    head = f"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    line.sendall(head.encode() + body[:-1])
    return line


def answer_on(line: socket.socket) -> Response:
    """The next answer on a raw connection."""
    answer = http.client.HTTPResponse(line)
    answer.begin()
    return Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())


def in_flight(call: Client) -> float:
    """What the server says of itself; metrics answer under any load."""
    found = re.search(rb"^penstock_http_in_flight (\S+)", call("GET", "/metrics").text, re.MULTILINE)
    assert found is not None
    return float(found[1])


def until(condition: Callable[[], bool]) -> None:
    """Returns once `condition` holds; fails after 20 seconds."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited for 20 s"


def listens(port: int) -> bool:
    """Whether a connection to this machine's `port` is taken."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Counting:
    """The real runtime; its decisions say in `tier` how many events their shopper had in the features just then."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.runtime, name)

    def decide(
        self, name: str, request: DecideRequest, spent_ms: float = 0.0, event: Accepted | None = None, *looked: Any
    ) -> Answer:
        assert request.user is not None
        self.asked.append(request.user)
        answer = self.runtime.decide(name, request, spent_ms, event)
        assert isinstance(answer, Answer)
        answer.tier = f"{self.runtime.features('Shopper', request.user)['features']['actions']:g}"
        return answer


class Held(Counting):
    """The real runtime, whose answers about events wait until they are let go."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        self.reached, self.go = threading.Event(), threading.Event()

    def submit(self, parsed: Parsed, source: str, *, shown: bool = True) -> Future[list[bool]]:
        later: Future[list[bool]] = Future()

        def finish() -> None:
            self.reached.set()
            self.go.wait()
            later.set_result(self.runtime.submit(parsed, source).result())

        threading.Thread(target=finish).start()
        return later
