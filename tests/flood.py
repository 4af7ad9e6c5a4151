"""A client that asks at a rate of its own, whatever the answers do: many connections, one thread."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter


@dataclass
class Flood:
    """What came back: answers by status, milliseconds of each 200 by the client's and by the server's clock.

    `unsent` are requests for which every connection was still waiting; `lag` is the longest that the client itself
    did not look, in milliseconds: what it measured can be later by as much.
    """

    seconds: float = 0.0
    statuses: Counter[int] = field(default_factory=Counter)
    took: list[float] = field(default_factory=list)
    total: list[float] = field(default_factory=list)
    retry: int = 0
    sent: int = 0
    unsent: int = 0
    lag: float = 0.0

    @property
    def rate(self) -> float:
        """Requests a second that were answered 200."""
        return self.statuses[200] / self.seconds


class _Line(asyncio.Protocol):
    def __init__(self, flood: Flood, idle: deque[_Line]) -> None:
        self._flood = flood
        self._idle = idle
        self._read = b""
        self._sent = 0.0
        self.waits = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        self._idle.append(self)

    def send(self, request: bytes) -> None:
        self._sent, self.waits = perf_counter(), True
        self._flood.sent += 1
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, found, body = self._read.partition(b"\r\n\r\n")
        if not found:
            return
        headers = {
            name.lower(): value for name, _, value in (line.partition(b": ") for line in head.split(b"\r\n")[1:])
        }
        if len(body) < int(headers[b"content-length"]):
            return
        self._read, self.waits = b"", False
        status = int(head[9:12])
        self._flood.statuses[status] += 1
        self._flood.retry += b"retry-after" in headers
        if status == 200:
            self._flood.took.append((perf_counter() - self._sent) * 1e3)
            self._flood.total.append(float(headers[b"server-timing"].rpartition(b"total;dur=")[2]))
        self._idle.append(self)

    def close(self) -> None:
        self._transport.close()


def flood(
    host: str,
    port: int,
    users: Sequence[str],
    *,
    connections: int,
    seconds: float,
    rate: float | None = None,
    connected: Callable[[], None] = lambda: None,
) -> Flood:
    """Asks for decisions of `users` in turn.

    Args:
        rate: requests a second; without one, each connection asks again as soon as it is answered.
        connected: called once every connection is made and nothing is asked yet.
    """
    return asyncio.run(_flood(host, port, [_request(user) for user in users], connections, seconds, rate, connected))


async def _flood(
    host: str,
    port: int,
    requests: Sequence[bytes],
    connections: int,
    seconds: float,
    rate: float | None,
    connected: Callable[[], None],
) -> Flood:
    found, idle = Flood(), deque[_Line]()
    loop = asyncio.get_running_loop()
    lines = [(await loop.create_connection(lambda: _Line(found, idle), host, port))[1] for _ in range(connections)]
    connected()
    began, due, looked = perf_counter(), 0, 0.0
    while (now := perf_counter() - began) < seconds:
        found.lag, looked = max(found.lag, (now - looked) * 1e3), now
        more = len(idle) if rate is None else int(now * rate) - due
        due += more
        for n in range(more):
            if not idle:
                found.unsent += more - n
                break
            idle.popleft().send(requests[(due + n) % len(requests)])
        await asyncio.sleep(0 if rate is None else 0.002)
    found.seconds = perf_counter() - began
    while any(line.waits for line in lines):
        assert perf_counter() - began < seconds + 20, "answers are missing"
        await asyncio.sleep(0.01)
    for line in lines:
        line.close()
    return found


def _request(user: str) -> bytes:
    body = json.dumps({"user": user}).encode()
    return b"POST /v1/decide/home HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
