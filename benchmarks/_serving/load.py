"""An open-loop load generator: requests leave when they are due, and are timed from that moment.

A client that waits for an answer before it asks again slows down with the server, and so hides its stalls. Here the
moments are fixed beforehand; a request that is due during a stall counts the whole of what it waited.
"""

from __future__ import annotations

import gc
import selectors
import socket
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

Address = tuple[str, int]
BEHIND = 1.0
"""Seconds that a due request waits for a connection before a run is given up as more than the server can take."""
DRAIN = 5.0
_CHUNK = 1 << 16
_GREETING = b"GET /healthz HTTP/1.1\r\nHost: bench\r\n\r\n"


@dataclass(frozen=True)
class Stream:
    """Requests to one address at fixed moments.

    Args:
        address: host and port.
        messages: whole HTTP requests; taken in turn, from the first again where there are fewer than moments.
        moments: (n,) seconds from the start, rising.
        status: what a good answer says.
        connections: opened before the start; a request goes out on the one that has been idle longest.
        wanted: bytes that the body of a good answer holds.
    """

    address: Address
    messages: Sequence[bytes]
    moments: NDArray[np.float64]
    status: int = 200
    connections: int = 32
    wanted: bytes = b""


@dataclass
class Measured:
    """What became of one stream.

    Attributes:
        ms: from the moment that a request was due until its answer was read, of good answers only.
        lag_ms: from that moment until it was sent, where a connection was idle: the generator's own delay.
        errors: counts of other answers by status, of broken connections, and of requests given up.
        seconds: from the start to the last answer.
    """

    seconds: float = 0.0
    errors: Counter[str] = field(default_factory=Counter)
    ms: list[float] = field(default_factory=list)
    lag_ms: list[float] = field(default_factory=list)


def post(path: str, body: bytes) -> bytes:
    """A whole POST request with a JSON body."""
    head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def poisson(rate: float, seconds: float, seed: int) -> NDArray[np.float64]:
    """Moments of independent requests, `rate` a second on average."""
    draw = np.random.default_rng(seed)
    gaps = draw.exponential(1 / rate, round(rate * seconds * 1.5) + 50)
    moments = np.cumsum(gaps)
    return moments[moments < seconds]


def evenly(rate: float, seconds: float) -> NDArray[np.float64]:
    """Moments of equal distance."""
    return np.arange(int(rate * seconds)) / rate


def drive(streams: Sequence[Stream], *, until: float | None = None) -> list[Measured]:
    """Sends every stream's requests, each in time, from this one thread; returns what became of each stream.

    Args:
        until: seconds after which it ends, whatever is unanswered: for measuring throughput with requests that
            are all due at once. Without it all are answered, or given up once the server is `BEHIND`.
    """
    run = _Run(streams, until)
    collecting = gc.isenabled()
    gc.disable()  # a collection would be a stall of the client's own
    try:
        run.go()
    finally:
        if collecting:
            gc.enable()
        run.close()
    return [lane.found for lane in run.lanes]


class _Line:
    """One connection, with at most one request on it."""

    def __init__(self, address: Address, lane: _Lane) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.lane = lane
        self.due = 0.0
        self.busy = False
        self.data = b""
        # Of several workers that share a port an idle one takes all new connections; with a request on each they
        # take turns, as they do where connections come from many clients.
        self.socket.send(_GREETING)
        while self.answer() is None:
            pass
        self.socket.setblocking(False)

    def answer(self) -> tuple[int, bytes] | None:
        """Status and body once all has come; raises ConnectionError where the server hung up."""
        part = self.socket.recv(_CHUNK)
        if not part:
            raise ConnectionError
        self.data += part
        end = self.data.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = self.data[:end].lower()
        at = head.index(b"content-length:") + 15
        stop = end + 4 + int(head[at : at + 12].split(b"\r\n", 1)[0])
        if len(self.data) < stop:
            return None
        body, self.data = self.data[end + 4 : stop], b""
        return int(head[9:12]), body


class _Lane:
    """A stream while it runs."""

    def __init__(self, stream: Stream, selector: selectors.BaseSelector) -> None:
        self.stream = stream
        self.found = Measured()
        self.moments = stream.moments.tolist()
        self.next = 0
        self.waiting: deque[tuple[float, bytes]] = deque()
        self.idle: deque[_Line] = deque()
        self.lines: list[_Line] = []
        self._selector = selector
        for _ in range(stream.connections):
            self.idle.append(self.open())

    def open(self) -> _Line:
        line = _Line(self.stream.address, self)
        self.lines.append(line)
        self._selector.register(line.socket, selectors.EVENT_READ, line)
        return line

    def send(self, due: float, message: bytes) -> None:
        line = self.idle.popleft()
        line.due, line.busy = due, True
        line.socket.send(message)

    def drop(self, line: _Line) -> None:
        """Closes a line that broke, and opens another in its place."""
        self._selector.unregister(line.socket)
        line.socket.close()
        self.lines.remove(line)
        if line in self.idle:
            self.idle.remove(line)
        self.idle.append(self.open())

    @property
    def open_requests(self) -> int:
        return len(self.waiting) + sum(line.busy for line in self.lines)


class _Run:
    def __init__(self, streams: Sequence[Stream], until: float | None) -> None:
        # Unlike epoll's, its timeout is in microseconds.
        self._selector = selectors.SelectSelector()
        self._until = until
        self.lanes = [_Lane(stream, self._selector) for stream in streams]

    def go(self) -> None:
        start = perf_counter()
        last = max((lane.moments[-1] for lane in self.lanes if lane.moments), default=0.0)
        end = last + DRAIN if self._until is None else self._until
        while True:
            now = perf_counter() - start
            if now > end or (self._until is None and self._behind(now)):
                break
            following = min((self._send_due(lane, now) for lane in self.lanes), default=end)
            if following == float("inf") and not any(lane.open_requests for lane in self.lanes):
                break
            wait = max(0.0, min(following, end) - (perf_counter() - start))
            for key, _ in self._selector.select(wait):
                self._read(key.data, perf_counter() - start)
        for lane in self.lanes:
            lost = lane.open_requests + len(lane.moments) - lane.next
            if self._until is None and lost:
                lane.found.errors["unanswered"] += lost
            lane.found.seconds = perf_counter() - start

    def _send_due(self, lane: _Lane, now: float) -> float:
        """Sends what is due; returns the next moment."""
        while lane.waiting and lane.idle:
            lane.send(*lane.waiting.popleft())
        moments, messages = lane.moments, lane.stream.messages
        while lane.next < len(moments) and moments[lane.next] <= now:
            due, message = moments[lane.next], messages[lane.next % len(messages)]
            lane.next += 1
            if lane.idle:
                lane.send(due, message)
                lane.found.lag_ms.append((now - due) * 1e3)
            else:
                lane.waiting.append((due, message))
        return float(moments[lane.next]) if lane.next < len(moments) else float("inf")

    def _read(self, line: _Line, now: float) -> None:
        lane = line.lane
        try:
            answer = line.answer()
        except (OSError, ValueError) as error:
            if line.busy:
                lane.found.errors[type(error).__name__] += 1
            lane.drop(line)
            return
        if answer is None:
            return
        status, body = answer
        if status != lane.stream.status:
            lane.found.errors[str(status)] += 1
        elif lane.stream.wanted not in body:
            lane.found.errors["unwanted"] += 1
        else:
            lane.found.ms.append((now - line.due) * 1e3)
        line.busy = False
        lane.idle.append(line)
        if lane.waiting:
            lane.send(*lane.waiting.popleft())

    def _behind(self, now: float) -> bool:
        return any(lane.waiting and now - lane.waiting[0][0] > BEHIND for lane in self.lanes)

    def close(self) -> None:
        for lane in self.lanes:
            for line in lane.lines:
                line.socket.close()
        self._selector.close()
