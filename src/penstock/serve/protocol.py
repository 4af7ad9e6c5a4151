"""Connections that keep to limits: who is slow, sends too much or does not read makes room for the others."""

from __future__ import annotations

import socket
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice, takewhile
from time import monotonic, perf_counter
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from penstock.serve.http import BEGAN, HANDED
from penstock.serve.limits import (
    LINGER,
    MAX_HEADERS,
    MAX_LEAVING,
    MAX_PIPELINED,
    READ_AT_LEAST,
    Limits,
    full,
    late,
    most_connections,
    too_long,
    unreadable,
)  # fmt: skip
from penstock.serve.replies import CLOSE, Reply, Waterfall

_AT_ONCE = 200
"""Connections that one sweep ends, so that ending thousands holds nobody up."""
_NOTHING_LEFT = struct.pack("ii", 1, 0)


class Connections:
    """All connections of one process, by what they are waited for; each kind with the oldest first.

    Args:
        limits: what they are held to.
        told: hears of every reply to what never became a request.

    Attributes:
        limits: what they are held to.
        most: connections at once.
        waiting: those that owe a head, and since when.
        idle: those that may ask again, and since when.
        unread: those whose client does not read its answer, and since when.
        leaving: those that were refused and may still read why, and since when.
        held: bytes of heads that are not yet whole.
    """

    def __init__(self, limits: Limits, told: Callable[[Reply], None]) -> None:
        self.limits = limits
        self.most = limits.connections or most_connections()
        self.told = told
        self.waiting: OrderedDict[Connection, float] = OrderedDict()
        self.idle: OrderedDict[Connection, float] = OrderedDict()
        self.unread: OrderedDict[Connection, float] = OrderedDict()
        self.leaving: OrderedDict[Connection, float] = OrderedDict()
        self.held = 0

    def sweep(self) -> None:
        """Ends those whose time is up. To be called some times a second."""
        now = monotonic()
        for one in _due(self.waiting, now - self.limits.head_within):
            one.too_late()
        for one in _due(self.idle, now - self.limits.keep_alive):
            one.close()
        for one in _due(self.unread, now - self.limits.read_within):
            one.abort_unless_read()
        for one in _due(self.leaving, now - LINGER):
            one.transport.abort()

    def came(self, one: Connection, connected: int) -> bool:
        """Takes in a new connection, in the place of the one that is missed least; False where all are at work.

        Args:
            connected: how many there are, with this one.
        """
        if connected - len(self.leaving) > self.most:
            if self.waiting:
                self.waiting.popitem(last=False)[0].abort()
            elif self.idle:
                self.idle.popitem(last=False)[0].close()
            else:
                return False
        self.waiting[one] = monotonic()
        return True

    def leaves(self, one: Connection) -> None:
        """Takes down one that was refused."""
        self.leaving[one] = monotonic()
        if len(self.leaving) > MAX_LEAVING:
            self.leaving.popitem(last=False)[0].transport.abort()

    def owes(self, more: int) -> None:
        """Takes down `more` bytes of a head that is not yet whole; where all are too many, the oldest goes."""
        self.held += more
        while self.held > self.limits.heads and self.waiting:
            self.waiting.popitem(last=False)[0].abort()

    def gone(self, one: Connection) -> None:
        """Forgets one that is closed."""
        for those in (self.waiting, self.idle, self.unread, self.leaving):
            those.pop(one, None)


class Connection(HttpToolsProtocol):
    """One connection, held to its limits without a timer of its own, and noting when a request began.

    Args:
        among: all connections of this process; the rest is uvicorn's.
    """

    def __init__(self, among: Connections, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._among = among
        self._limits = among.limits
        # A head has begun and is not whole.
        self._in_head = False
        # Some of a body, or the end of a message, came in this packet.
        self._moved = False
        self._packet = 0
        # Bytes of this message's head and trailers, but for those in a packet that also held something else.
        self._head = 0
        # Those of them that count among all unfinished heads.
        self._charged = 0
        # Refused: what still comes is not read.
        self._deaf = False
        self._fault: Reply | None = None
        self._unsent = 0

    # What the transport says

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if not self._among.came(self, len(self.connections)):
            self._refuse(full(self._among.most))

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return
        was_in_head = self._in_head
        self._moved, self._packet = False, len(data)
        super().data_received(data)
        if self._deaf:
            return
        if not self._moved:
            self._head += self._packet
        if self._in_head:
            self._still_in_head(was_in_head)
        if self._head > self._limits.head or (self.headers is not None and len(self.headers) > MAX_HEADERS):
            self._refuse(too_long(self._limits.head))

    def eof_received(self) -> None:
        self._flushes()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._flushes()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.transport.is_closing():
            self._among.unread.pop(self, None)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._settle()
        self._among.gone(self)

    # What the parser says

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"][BEGAN] = perf_counter()
        self._among.idle.pop(self, None)
        self._in_head = True
        self._head = 0

    def on_headers_complete(self) -> None:
        if self._head + self._packet > self._limits.head or len(self.headers) > MAX_HEADERS:
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > self._limits.head or len(self.headers) > MAX_HEADERS:
                self._fault = too_long(self._limits.head)
                raise _Fault
        if len(self.pipeline) >= MAX_PIPELINED:
            raise _Fault
        self._in_head = False
        self._settle()
        self._among.waiting.pop(self, None)
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        cycle.scope["state"][HANDED] = perf_counter()
        super()._start_asgi_task(cycle, app)

    def on_body(self, body: bytes) -> None:
        self._moved = True
        # What follows a body without being one, as trailers do, is counted by itself.
        self._head = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._moved = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._fault or unreadable())

    # What the answer says

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._flushes()
        elif self._in_head:
            self._among.waiting[self] = monotonic()
        elif self.cycle.response_complete:
            self._among.idle[self] = monotonic()

    def timeout_keep_alive_handler(self) -> None:
        self.close()

    # How it ends

    def too_late(self) -> None:
        """Says that the head did not come in time; nothing where nothing came."""
        if self._in_head:
            self._refuse(late(self._limits.head_within))
        else:
            self.close()

    def close(self) -> None:
        """Closes it once all is sent, which must not take long."""
        self.transport.close()
        self._flushes()

    def abort(self) -> None:
        """Closes it now, and leaves nothing to the operating system to be sent."""
        self._settle()
        # Some systems refuse where the client is gone.
        with suppress(OSError):
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NOTHING_LEFT)
        self.transport.abort()

    def abort_unless_read(self) -> None:
        """Closes it now if its client does not read."""
        unsent = self.transport.get_write_buffer_size()
        if unsent > self._unsent - READ_AT_LEAST:
            self.abort()
        else:
            self._flushes()

    def _still_in_head(self, before: bool) -> None:
        waiting = self._among.waiting
        if not before and (self.cycle is None or self.cycle.response_complete):
            waiting.pop(self, None)
            waiting[self] = monotonic()
        if not self._moved:
            self._charged += self._packet
            self._among.owes(self._packet)

    def _flushes(self) -> None:
        if self not in self.connections:
            # It is gone already; an answer that was on its way to it comes here late.
            return
        self._unsent = self.transport.get_write_buffer_size()
        self._among.unread[self] = monotonic()
        self._among.unread.move_to_end(self)

    def _settle(self) -> None:
        self._among.held -= self._charged
        self._charged = 0

    def _refuse(self, reply: Reply) -> None:
        """Answers what never became a request, and ends the connection; what was asked before is answered first."""
        self._deaf = True
        self._settle()
        self._among.waiting.pop(self, None)
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if self.pipeline or cycle.response_started or not cycle.more_body:
                cycle.keep_alive = False
                return
            # The request whose body this was has gone with it.
            cycle.disconnected = True
            cycle.message_event.set()
        if self.transport.is_closing():
            return
        self._among.idle.pop(self, None)
        self._among.leaves(self)
        self._among.told(reply)
        began = self.scope["state"].get(BEGAN) if self.scope else None
        headers = [
            *self.server_state.default_headers,
            (b"content-type", reply.kind),
            (b"content-length", str(len(reply.body)).encode()),
            (b"server-timing", Waterfall(began).header()),
            *reply.headers,
            CLOSE,
        ]
        head = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.transport.write(STATUS_LINE[reply.status] + head + b"\r\n" + reply.body)
        self.transport.write_eof()


class _Fault(Exception):
    """Stops the parser."""


def _due(those: OrderedDict[Connection, float], since: float) -> Iterator[Connection]:
    """Takes out those that are there since then or longer."""
    oldest = takewhile(lambda item: item[1] <= since, islice(those.items(), _AT_ONCE))
    for one in [one for one, _ in oldest]:
        if those.pop(one, None) is not None:
            yield one
