"""A minimal HTTP/1.1 client on one kept-alive connection, light enough not to be what it measures."""

from __future__ import annotations

import asyncio
from typing import NamedTuple, cast

from penstock.errors import PenstockError, UnavailableError


class Answer(NamedTuple):
    """One response; `timing` is its Server-Timing header."""

    status: int
    timing: str
    body: bytes


class Connection:
    """One request at a time to one server; opens itself, and again after a failure. Nothing is sent twice.

    Args:
        host: name or address.
        port: of plain HTTP.
        timeout: seconds until an unanswered request fails.
    """

    def __init__(self, host: str, port: int, timeout: float = 30.0) -> None:
        self._address = (host, port)
        self._host = f"Host: {host}:{port}\r\n"
        self._timeout = timeout
        self._peer: _Peer | None = None

    async def open(self) -> None:
        """Connects where not connected. Raises OSError where nobody listens."""
        if self._peer is None or self._peer.closed:
            loop = asyncio.get_running_loop()
            _, self._peer = await loop.create_connection(lambda: _Peer(loop), *self._address)

    async def request(self, method: str, path: str, body: bytes = b"") -> Answer:
        """Sends one request and waits for the whole answer.

        Raises:
            OSError: nobody listens, the connection broke, or the time is up (TimeoutError).
            UnavailableError: what came is not an HTTP/1.1 answer with a Content-Length.
        """
        await self.open()
        assert self._peer is not None
        head = f"{method} {path} HTTP/1.1\r\n{self._host}Content-Type: application/json\r\n"
        return await self._peer.ask(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body, self._timeout)

    def close(self) -> None:
        if self._peer is not None:
            self._peer.fail(ConnectionError("closed"))


class _Peer(asyncio.Protocol):
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._answer: asyncio.Future[Answer] | None = None
        self._data = b""
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has the methods, not the base

    async def ask(self, message: bytes, timeout: float) -> Answer:
        self._answer = self._loop.create_future()
        timer = self._loop.call_later(timeout, self.fail, TimeoutError(f"no answer within {timeout:g} s"))
        self._transport.write(message)
        try:
            return await self._answer
        except asyncio.CancelledError:
            self.fail(ConnectionError("cancelled"))
            raise
        finally:
            timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._data = self._data + data if self._data else data
        try:
            parsed = _parse(self._data)
        except PenstockError as error:
            self.fail(error)
            return
        if parsed is None:
            return
        answer, rest, last = parsed
        self._data = rest
        if last:
            self._drop()
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(exc or ConnectionResetError("the server closed the connection"))

    def fail(self, error: Exception) -> None:
        self._drop()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error)

    def _drop(self) -> None:
        self.closed = True
        self._transport.close()


def _parse(data: bytes) -> tuple[Answer, bytes, bool] | None:
    """The answer that `data` begins with, what follows it, and whether the server closes; None while incomplete."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    first, *lines = data[:end].decode("latin-1").split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    try:
        status = int(first.split(" ", 2)[1])
        length = int(fields["content-length"])
    except (KeyError, ValueError, IndexError):
        raise UnavailableError(
            "a server answers in HTTP/1.1 with a Content-Length",
            got=repr(data[: min(end, 120)]),
            remedy="check what listens on that port",
        ) from None
    stop = end + 4 + length
    if len(data) < stop:
        return None
    answer = Answer(status, fields.get("server-timing", ""), data[end + 4 : stop])
    return answer, data[stop:], fields.get("connection", "").lower() == "close"
