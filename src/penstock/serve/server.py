"""Runs the HTTP face: in the foreground until it is told to stop, or beside a program in a thread of its own."""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import perf_counter
from types import FrameType
from typing import Any, cast

import uvicorn

from penstock.errors import UnavailableError
from penstock.serve.accepting import Acceptor, Shares
from penstock.serve.access import AccessLog
from penstock.serve.face import Face
from penstock.serve.garbage import Collector, settle
from penstock.serve.http import MAX_IN_FLIGHT, HttpApp
from penstock.serve.limits import KEEP_ALIVE, Limits, raise_file_limit
from penstock.serve.protocol import Connection, Connections
from penstock.serve.routes import Pages

DRAIN = 30
"""Seconds that requests in flight get to finish once the server is told to stop."""
BACKLOG = 2_048
"""Connections that the system holds until the server takes them."""
_LINGER = 1.0
"""Seconds after which a connection without a request is closed while draining."""


def run(
    face: Face,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    token: str,
    log_level: str = "warning",
    on_ready: Callable[[str], None] | None = None,
    in_flight: int = MAX_IN_FLIGHT,
    listener: socket.socket | None = None,
    access_log: Path | None = None,
    pages: Sequence[Pages] = (),
    shares: Path | None = None,
) -> None:
    """Serves until SIGTERM or Ctrl-C, finishes what is in flight, closes `face`, and returns. For the main thread.

    Args:
        face: the running system; closed here, whatever ends the server.
        host: the address to listen on.
        port: 0 takes any that is free.
        token: the operator's, see `operator_token`.
        log_level: of the server's own log.
        on_ready: told the address once connections are taken.
        in_flight: requests answered at once.
        access_log: a file that gets a JSON line for each request.
        pages: further routes, see `HttpApp`.
        listener: takes connections from here, as other processes may; `host` and `port` are passed over.
        shares: a folder by which these processes share connections evenly.

    Raises:
        UnavailableError: the address is taken or not this machine's.
    """
    raise_file_limit()
    access = AccessLog(access_log) if access_log is not None else None
    try:
        with listener or listen(host, port) as listening:
            address = url_of(listening)
            ready = (lambda: on_ready(address)) if on_ready is not None else (lambda: None)
            app = HttpApp(face, token=token, in_flight=in_flight, access=access, pages=pages)
            server = _Server(app, log_level, ready, Limits(), shares, Collector())
            settle()
            try:
                with quick_switches():
                    server.run([listening])
            finally:
                app.close()
    finally:
        face.close()
        if access is not None:
            access.close()


class BackgroundServer:
    """The same server in a thread of this process, for as long as a with block lasts. `face` stays open.

    Args:
        face: the running system.
        port: 0 takes any that is free.
        host: the address to listen on.
        token: the operator's; a random one by default.
        limits: of its connections; by default what a server of its own has, as far as this process may open files.
        options: `in_flight`, `bodies`, `body_within`, `access` and `pages` of `HttpApp`.
    """

    def __init__(
        self,
        face: Face,
        port: int = 0,
        *,
        host: str = "127.0.0.1",
        token: str | None = None,
        limits: Limits | None = None,
        **options: Any,
    ) -> None:
        self.token = token or secrets.token_urlsafe(32)
        self.host = host
        self.port = port
        self.app = HttpApp(face, token=self.token, **options)
        self.url = ""
        self._limits = limits or Limits()
        self._came = threading.Event()

    def __enter__(self) -> BackgroundServer:
        try:
            listener = listen(self.host, self.port)
        except BaseException:
            self.app.close()
            raise
        self.port = listener.getsockname()[1]
        self.url = url_of(listener)
        self._server = _Server(self.app, "warning", self._came.set, self._limits)
        self._thread = threading.Thread(target=self._run, args=(listener,), name="http", daemon=True)
        self._thread.start()
        self._came.wait()
        if not self._server.started:
            self._thread.join()
            raise UnavailableError("the server starts", got="an early end", remedy="see the log")
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        self._thread.join()

    def stop(self) -> None:
        """Takes no more connections, and ends once what is in flight is answered."""
        self._server.drain()

    def _run(self, listener: socket.socket) -> None:
        try:
            with listener, quick_switches():
                self._server.run([listener])
        finally:
            self.app.close()
            self._came.set()


class _Server(uvicorn.Server):
    """uvicorn, which says when it listens, holds connections to limits, and lets clients go before it ends."""

    def __init__(
        self,
        app: HttpApp,
        log_level: str,
        on_ready: Callable[[], None],
        limits: Limits,
        shares: Path | None = None,
        collector: Collector | None = None,
    ) -> None:
        self._on_ready = on_ready
        self._connections = Connections(limits, app.turned_away)
        self._app = app
        self._draining: float | None = None
        self._folder = shares
        self._shares: Shares | None = None
        self._acceptors: list[Acceptor] = []
        self._collector = collector
        self._taking: set[asyncio.Task[Any]] = set()
        config = uvicorn.Config(
            app,
            http=cast("type[asyncio.Protocol]", partial(Connection, self._connections)),
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level=log_level,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=DRAIN,
        )
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        assert sockets is not None
        self.servers = []
        if self._folder is not None:
            self._shares = Shares(self._folder)
        self._acceptors = [Acceptor(listener, self._take, self._fewer) for listener in sockets]
        self.started = True
        self._on_ready()

    def drain(self) -> None:
        """Takes no more connections; each one open is closed with its next answer, idle ones a little later.

        A connection that was simply closed may have had a request on its way.
        """
        self._app.draining = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own would end at once, and raise the signal again afterwards, when the system is yet to be closed.
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: FrameType | None) -> None:
            self.force_exit = self._app.draining and number == signal.SIGINT
            self.drain()

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _take(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(loop.connect_accepted_socket(self._protocol, connection))
        self._taking.add(task)
        task.add_done_callback(self._taking.discard)

    def _protocol(self) -> asyncio.Protocol:
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    def _fewer(self) -> bool:
        return self._shares is not None and self._shares.fewer(len(self.server_state.connections) + len(self._taking))

    async def on_tick(self, counter: int) -> bool:
        self._connections.sweep()
        self._fewer()
        if self._collector is not None:
            self._collector.tick(self.server_state.total_requests)
        if self._app.draining:
            now = perf_counter()
            if self._draining is None:
                self._draining = now
                for acceptor in self._acceptors:
                    acceptor.close()
                if self._shares is not None:
                    self._shares.close()
            if not self.server_state.connections or now - self._draining > _LINGER:
                self.should_exit = True
        return await super().on_tick(counter)


def url_of(listener: socket.socket) -> str:
    """The address of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any that is free.

    Raises:
        UnavailableError: the address is taken or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise UnavailableError(
            "the server's address is free and this machine's",
            got=f"{host}:{port}, {error.strerror or error}",
            remedy="stop what listens there, or choose another: --port 0 takes any that is free",
        ) from None


@contextmanager
def quick_switches() -> Iterator[None]:
    """Threads that ask for the interpreter get it soon.

    One that holds it keeps it for a switch interval while others ask: at the default 5 ms, a decision of 3 ms that
    meets the writer's thread would take 8, and a worker's events would wait 5 until they are so much as read.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0001)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
