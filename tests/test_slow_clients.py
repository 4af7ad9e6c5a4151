"""Who is slow, sends too much or does not read is let go of, and keeps nobody else from an answer."""

from __future__ import annotations

import http.client
import json
import random
import re
import resource
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

import helpers
from penstock.serve.limits import MAX_CONNECTIONS, MAX_HEAD, MAX_HEADERS, MAX_PIPELINED, SPARE_FILES, Limits
from penstock.serve.replies import Reply
from penstock.serve.routes import Endpoints, Request, Route
from penstock.serve.runtime import Runtime
from penstock.serve.server import BACKLOG, BackgroundServer
from serving import Client, Held, Response, answer_on, problem, shop, until

HEAD = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
EVENT = b'{"user": "u", "item": "a"}'
POST = b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(EVENT), EVENT)
RESET = struct.pack("ii", 1, 0)
LARGE = b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runtime]:
    with shop(tmp_path_factory.mktemp("shop")) as app:
        yield app.open()


@pytest.fixture(scope="module")
def server(runtime: Runtime) -> Iterator[BackgroundServer]:
    with BackgroundServer(runtime) as running:
        yield running


def connected(server: BackgroundServer, text: bytes = b"") -> socket.socket:
    """A connection on which `text` is sent."""
    line = socket.create_connection((server.host, server.port), timeout=20)
    line.sendall(text)
    return line


def heard(line: socket.socket) -> None:
    """Returns once the server has read what was sent on other connections: it takes one, then reads from it."""
    for _ in range(3):
        line.sendall(HEAD + b"\r\n")
        assert answer_on(line).status == 200


def ended(line: socket.socket) -> bool:
    """Waits for the end of a connection; whether nothing came before it."""
    try:
        return line.recv(1) == b""
    except ConnectionError:
        return True


def answers_on(line: socket.socket) -> Iterator[Response]:
    """The answers on a connection until it ends; several may come in one packet."""
    with line.makefile("rb") as file:
        while first := file.readline():
            headers = {name.lower(): value for name, value in http.client.parse_headers(file).items()}
            yield Response(int(first.split()[1]), headers, file.read(int(headers["content-length"])))


# Heads


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"X: " + b"x" * MAX_HEAD + b"\r\n\r\n",
        b"GET /" + b"x" * MAX_HEAD + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        HEAD + b"X: " + b"x" * (64 * MAX_HEAD),
        HEAD + b"X:\r\n" * MAX_HEADERS + b"\r\n",
        HEAD + b"X:\r\n" * (MAX_HEADERS + 1),
    ],
    ids=["one header", "the address", "an endless header", "many headers", "endless headers"],
)
def test_too_large_a_head_is_431_and_the_connection_ends(server: BackgroundServer, head: bytes) -> None:
    """Whole or not; the refusal is read though the client was still sending, and is counted."""
    with connected(server, head) as line:
        answer = answer_on(line)
        assert answer.status == 431
        assert "64 KiB" in problem(answer)["error"]
        assert answer.headers["connection"] == "close"
        assert ended(line)
    with Client(server) as call:
        assert b'path="other",status="431"' in call("GET", "/metrics").text


def test_a_head_just_within_its_limit_is_taken_with_whatever_body(server: BackgroundServer) -> None:
    """A body in the same packets is not charged to the head, nor to the head after it."""
    body = json.dumps([{"user": "u", "item": "i" * 200}] * 1_000).encode()
    assert len(body) > 3 * MAX_HEAD
    head = b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\nX: %s\r\n\r\n"
    whole = head % (len(body), b"x" * (MAX_HEAD - 200)) + body
    with connected(server, whole * 3) as line:
        assert [answer.status for answer in islice(answers_on(line), 3)] == [202] * 3


def test_trailers_are_held_to_the_limits_of_a_head(server: BackgroundServer) -> None:
    head = b"POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n"
    for trailers in (b"X: " + b"x" * (8 * MAX_HEAD), b"X:\r\n" * (MAX_HEADERS + 1)):
        with connected(server, head) as line:
            with suppress(ConnectionError):
                line.sendall(trailers)
            assert answer_on(line).status == 431
            assert ended(line)


def test_trailers_within_the_limits_are_passed_over(server: BackgroundServer) -> None:
    """They are not charged to a head that has used up its own, nor is the head charged to them."""
    head = b"POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nX: %s\r\n\r\n" % (
        b"x" * (MAX_HEAD - 200)
    )
    with connected(server) as line, Client(server) as call:
        for part in (head, b"2\r\n[]\r\n0\r\n", b"X: " + b"x" * 1_000, b"\r\n\r\n"):
            line.sendall(part)
            assert call("GET", "/healthz").status == 200
        assert answer_on(line).status == 202


def test_what_is_not_http_is_400_in_the_form_of_every_refusal(server: BackgroundServer) -> None:
    with connected(server, b"\x16\x03\x01 nonsense\r\n\r\n") as line:
        answer = answer_on(line)
        assert answer.status == 400
        problem(answer)
        assert ended(line)


def test_a_head_that_is_not_whole_in_time_is_408_and_silence_is_just_closed(runtime: Runtime) -> None:
    with BackgroundServer(runtime, limits=Limits(head_within=0.05)) as server, ExitStack() as lines:
        begun, silent, blank = (lines.enter_context(connected(server, text)) for text in (HEAD, b"", b"\r\n"))
        answer = answer_on(begun)
        assert answer.status == 408
        assert "0.05 s" in problem(answer)["error"]
        for line in (begun, silent, blank):
            assert ended(line)


def test_a_second_head_has_its_time_as_well_and_idleness_another(runtime: Runtime) -> None:
    """A blank line is no head: it does not stop the clock of an idle connection."""
    with (
        BackgroundServer(runtime, limits=Limits(head_within=0.05)) as server,
        connected(server, HEAD + b"\r\n") as line,
    ):
        assert answer_on(line).status == 200
        line.sendall(HEAD)
        assert answer_on(line).status == 408
        assert ended(line)
    with BackgroundServer(runtime, limits=Limits(keep_alive=0.05)) as server, connected(server, HEAD + b"\r\n") as line:
        assert answer_on(line).status == 200
        with suppress(ConnectionError):
            line.sendall(b"\r\n")
        assert ended(line)


def test_a_head_begun_while_an_answer_is_awaited_is_not_timed(runtime: Runtime) -> None:
    """The answer comes first; only then does the head that follows have its time."""
    face = Held(runtime)
    with BackgroundServer(face, limits=Limits(head_within=0.05)) as server, connected(server, POST + HEAD) as line:
        face.reached.wait()
        with connected(server, HEAD) as other:
            assert answer_on(other).status == 408
        face.go.set()
        assert [answer.status for answer in answers_on(line)] == [202, 408]


def test_requests_sent_ahead_are_answered_up_to_a_bound(server: BackgroundServer) -> None:
    """Those within it get their answers; then the connection ends."""
    with connected(server, (HEAD + b"\r\n") * (MAX_PIPELINED * 3)) as line:
        answers = list(answers_on(line))
    assert [answer.status for answer in answers] == [200] * (MAX_PIPELINED + 1)
    assert answers[-1].headers["connection"] == "close"


# Answers


def large(endpoints: Endpoints) -> list[Route]:
    """An answer that no operating system takes off a server's hands."""

    async def answer(request: Request) -> Reply:
        return Reply(200, b"x" * (32 << 20))

    return [Route("GET", "/large", answer)]


def test_a_client_that_does_not_read_its_answer_is_cut_off(runtime: Runtime) -> None:
    """The connection is reset, so that not even the operating system keeps the answer; no place was taken by it."""
    more = {"limits": Limits(read_within=0.05), "pages": [large], "in_flight": 1}
    with BackgroundServer(runtime, **more) as server, Client(server) as call, connected(server, LARGE) as line:
        assert call("POST", "/v1/decide/home", {"user": "u"}).status == 200
        cut = select.poll()
        cut.register(line, 0)
        assert cut.poll(20_000)


def test_a_client_that_reads_a_long_answer_slowly_gets_all_of_it(runtime: Runtime) -> None:
    """Twice its time passes, and each time it has read enough."""
    more = {"limits": Limits(read_within=1.0), "pages": [large]}
    with BackgroundServer(runtime, **more) as server, Client(server) as call, connected(server, LARGE) as line:
        began, size = time.monotonic(), 0
        while size < 32 << 20:
            part = line.recv(64 << 10)
            assert part
            size += len(part)
            # As slowly as it takes to last longer than the limit.
            while time.monotonic() < began + 2.5 * size / (32 << 20):
                assert call("GET", "/healthz").status == 200


# Connections


def test_a_newcomer_is_answered_in_the_place_of_whoever_owes_a_head_longest(runtime: Runtime) -> None:
    """Of three, the oldest that waits goes first, then the next, then the one that was idle longest."""
    with BackgroundServer(runtime, limits=Limits(connections=3)) as server, ExitStack() as lines:

        def come(text: bytes) -> socket.socket:
            return lines.enter_context(connected(server, text))

        def asks() -> socket.socket:
            line = come(HEAD + b"\r\n")
            assert answer_on(line).status == 200
            return line

        kept = asks()
        slow = []
        for _ in range(2):
            slow.append(come(HEAD))
            heard(kept)
        first = asks()
        assert ended(slow[0])
        second = asks()
        assert ended(slow[1])
        third = asks()
        assert ended(kept)
        for line in (first, second, third):
            line.sendall(HEAD + b"\r\n")
            assert answer_on(line).status == 200


def test_where_all_connections_are_at_work_a_newcomer_is_503_and_each_one_at_work_is_answered(runtime: Runtime) -> None:
    face = Held(runtime)
    with BackgroundServer(face, limits=Limits(connections=3)) as server, ExitStack() as lines:
        lines.callback(face.go.set)
        busy = [lines.enter_context(connected(server, HEAD + b"\r\n")) for _ in range(3)]
        for line in busy:
            assert answer_on(line).status == 200
            line.sendall(POST)
        until(lambda: server.app.in_flight == 3)
        for _ in range(5):
            with connected(server, HEAD + b"\r\n") as line:
                answer = answer_on(line)
            assert answer.status == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert "3 connections" in problem(answer)["error"]
        face.go.set()
        assert [answer_on(line).status for line in busy] == [202] * 3


def test_all_unfinished_heads_together_have_a_bound(runtime: Runtime) -> None:
    """The oldest goes; what the others hold is theirs still."""
    half = HEAD + b"X: " + b"x" * 30_000
    with BackgroundServer(runtime, limits=Limits(heads=80_000)) as server, ExitStack() as lines:
        other = lines.enter_context(connected(server))
        slow = []
        for _ in range(3):
            slow.append(lines.enter_context(connected(server, half)))
            heard(other)
        assert ended(slow[0])
        for line in slow[1:]:
            line.sendall(b"\r\n\r\n")
            assert answer_on(line).status == 200


def test_an_answer_to_whoever_is_gone_is_let_go(runtime: Runtime) -> None:
    """Two requests were sent ahead, and the connection reset; the server outlives the answer to the first."""
    face = Held(runtime)
    with BackgroundServer(face, limits=Limits(read_within=0.01)) as server, Client(server) as call:
        with connected(server, POST + POST) as line:
            face.reached.wait()
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        until(lambda: len(server._server.server_state.connections) == 0)
        face.go.set()
        until(lambda: server.app.in_flight == 0)
        assert not server._server._connections.unread
        assert call("GET", "/healthz").status == 200


def test_nothing_is_kept_of_whoever_is_gone(runtime: Runtime) -> None:
    """Clients that send parts of anything, read or not, and go politely or not: the server answers on, and has
    no trace of them afterwards."""
    draw = random.Random(1)
    parts = [HEAD, HEAD + b"\r\n", POST, POST[:-1], LARGE, b"\r\n", b"\x16nonsense\r\n\r\n", b"X: " + b"x" * MAX_HEAD]
    limits = Limits(connections=12, heads=2 * MAX_HEAD, head_within=0.1, keep_alive=0.3, read_within=0.1)
    more = {"limits": limits, "pages": [large], "body_within": 0.1}
    with BackgroundServer(runtime, **more) as server, ExitStack() as open_lines:
        lines = [open_lines.enter_context(connected(server)) for _ in range(40)]
        for _ in range(800):
            at = draw.randrange(len(lines))
            with suppress(OSError):
                act = draw.random()
                lines[at].setblocking(False)
                if act < 0.7:
                    lines[at].send(draw.choice(parts))
                elif act < 0.8:
                    lines[at].recv(1 << 20)
                else:
                    if act < 0.9:
                        lines[at].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    lines[at].close()
            if lines[at].fileno() < 0:
                lines[at] = open_lines.enter_context(connected(server))
        kept = server._server._connections
        until(lambda: not (kept.waiting or kept.idle or kept.unread or kept.leaving or kept.held))
        until(lambda: not server._server.server_state.connections)
        assert (server.app.in_flight, server.app._held) == (0, 0)
        with Client(server) as call:
            assert call("GET", "/healthz").status == 200


# Ten thousand

SLOW = 10_000
ROUNDS = 20


@pytest.fixture
def many_files() -> Iterator[None]:
    """Lets this process, and those that it starts, open enough files."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = SLOW + SPARE_FILES
    if most != resource.RLIM_INFINITY and most < needed:
        pytest.skip(f"{SLOW:,} connections need more open files than {most:,}: ulimit -Hn {needed}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before, needed), most))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


class Ordinary(threading.Thread):
    """A client that posts an event and asks for a decision, again and again; on new connections, or on one.

    Attributes:
        seconds: that each answer took.
        statuses: of the answers.
        acknowledged: ids of the events that were taken.
        failures: what else happened.
    """

    def __init__(self, server: helpers.Server, name: str, *, anew: bool) -> None:
        super().__init__(name=name, daemon=True)
        self._line = http.client.HTTPConnection(server.host, server.port, timeout=30)
        self._anew = anew
        self._over = threading.Event()
        self.seconds: list[float] = []
        self.statuses: list[int] = []
        self.acknowledged: list[str] = []
        self.failures: list[str] = []

    def run(self) -> None:
        sent = 0
        while not self._over.is_set():
            id = f"{self.name}-{sent}"
            event = {"id": id, "stream": "action", "user": self.name, "item": "p-00001", "kind": "view"}
            event["time"] = helpers.next_time(helpers.history(), 1 + sent / 1_000)
            try:
                if self._ask("/v1/events", event) == 202:
                    self.acknowledged.append(id)
                self._ask("/v1/decide/home", {"user": self.name})
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                self._line.close()
            sent += 1

    def finish(self) -> None:
        self._over.set()
        self.join()
        self._line.close()

    def _ask(self, path: str, body: Any) -> int:
        began = time.perf_counter()
        self._line.request("POST", path, json.dumps(body))
        with self._line.getresponse() as response:
            response.read()
        self.seconds.append(time.perf_counter() - began)
        self.statuses.append(response.status)
        if self._anew:
            self._line.close()
        return response.status


def memory(pid: int) -> int:
    """Bytes of memory that a process takes."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def dribble(lines: list[socket.socket], between: Callable[[], None]) -> int:
    """Sends one byte more of a head on each line that is open; how many still are."""
    left = 0
    for at, line in enumerate(lines):
        with suppress(ConnectionError, BlockingIOError):
            line.send(b"x")
            left += 1
        if at % 1_000 == 0:
            between()
    return left


@pytest.mark.usefixtures("many_files")
def test_ten_thousand_slow_clients_keep_nobody_from_an_answer(tmp_path: Path) -> None:
    """While they dribble their heads, events and decisions are answered, on new connections and on kept ones.

    No answer is anything but one or a refusal that says when to come again, memory is bounded, and afterwards
    the log has every event that was acknowledged.
    """
    helpers.load_app(tmp_path).close()
    peak = 0
    with helpers.server(tmp_path / "small.py", tmp_path / "home") as server, ExitStack() as open_lines:
        server("POST", "/v1/events", helpers.history()[:1_000])
        before = memory(server.process.pid)
        clients = [Ordinary(server, f"kept-{n}", anew=False) for n in range(2)]
        clients += [Ordinary(server, f"anew-{n}", anew=True) for n in range(2)]
        for client in clients:
            client.start()

        def look() -> None:
            nonlocal peak
            peak = max(peak, memory(server.process.pid))

        slow = []
        for _ in range(SLOW):
            line = open_lines.enter_context(socket.create_connection((server.host, server.port), timeout=30))
            line.setblocking(False)
            with suppress(ConnectionError):
                line.send(HEAD + b"X: ")
            slow.append(line)
        left = SLOW
        for _ in range(ROUNDS):
            left = dribble(slow, look)
        for client in clients:
            client.finish()
        code = server.stop()
    assert code == 0
    assert [client.failures for client in clients] == [[]] * len(clients)
    assert {status for client in clients for status in client.statuses} <= {200, 202, 429, 503}
    seconds = sorted(second for client in clients for second in client.seconds)
    assert len(seconds) > 200
    assert seconds[int(len(seconds) * 0.99)] < 1
    assert peak - before < 256 << 20
    assert left <= MAX_CONNECTIONS + BACKLOG
    with helpers.load_app(tmp_path) as app:
        for client in clients:
            assert client.acknowledged
            assert app.features("Shopper", client.name)["actions"] == len(client.acknowledged)
