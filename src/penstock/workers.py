"""Several processes that serve one app: one writes, the others answer, and the one that started them watches.

Workers share one listening socket and read the store through LMDB's memory map, or from Redis; what the writer
commits is in the next decision of each. SIGTERM drains and ends all; SIGHUP replaces the workers one after the other.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import msgspec
from prometheus_client.multiprocess import mark_process_dead

from penstock import console, shop
from penstock.app import App, load
from penstock.clock import Clock, EventsClock, SystemClock
from penstock.errors import PenstockError, UnavailableError
from penstock.serve import metrics
from penstock.serve.decisions import DECISIONS, DecisionLog
from penstock.serve.garbage import settle
from penstock.serve.link import Link, LinkServer
from penstock.serve.server import DRAIN, listen, quick_switches, run, url_of
from penstock.stores import open_store

_TURN = 0.02
_PATIENCE = 600.0
"""Seconds for the store to catch up with the log."""
_READY = "ready"
_log = logging.getLogger("penstock.serve")


class Plan(msgspec.Struct, frozen=True):
    """What every process of one server needs to know."""

    app: str
    home: str
    clock: str
    future: str | None
    token: str
    access_log: str | None = None
    store: str | None = None
    workers: int = 1
    folder: str = ""

    @property
    def line(self) -> Path:
        """The socket between workers and writer."""
        return Path(self.folder) / "writer"

    @property
    def shares(self) -> Path:
        """How many connections each worker has."""
        return Path(self.folder) / "connections"

    def load(self) -> App:
        """The app, over its home, by its clock."""
        app = load(self.app)
        app.home = Path(self.home)
        app.store = self.store or app.store
        app.clock = clock_of(self.clock, self.future)
        return app


def clock_of(name: str, future: str | None) -> Clock:
    """The clock ``"system"`` or ``"events"``, with a bound on dates ahead of it."""
    if name == "events":
        return EventsClock() if future is None else EventsClock(future=future)
    return SystemClock() if future is None else SystemClock(future=future)


class Supervisor:
    """Starts the processes of one server, starts again those that end, and ends them all.

    Args:
        plan: what they serve.
        host, port: the address; port 0 takes any that is free.
        workers: how many answer.
    """

    def __init__(self, plan: Plan, host: str, port: int, workers: int) -> None:
        self._plan = plan
        self._address = (host, port)
        self._count = workers
        self._stop = False
        self._roll = False

    def run(self, on_ready: Callable[[str], None]) -> None:
        """Serves until SIGTERM or Ctrl-C, then drains. For the main thread.

        Raises:
            UnavailableError: the address is taken, or a process cannot be started.
        """
        with listen(*self._address) as listener, TemporaryDirectory(prefix="penstock-") as folder:
            self._listener = listener
            self._plan = msgspec.structs.replace(self._plan, folder=folder)
            Path(folder, "metrics").mkdir()
            before = {number: signal.signal(number, self._hear) for number in _SIGNALS}
            self._writer = self._start("writer")
            self._workers: list[_Child] = []
            try:
                self._until_ready(self._writer)
                for _ in range(self._count):
                    self._workers.append(self._start("worker"))
                for worker in self._workers:
                    self._until_ready(worker)
                if not self._stop:
                    on_ready(url_of(listener))
                while not self._stop:
                    time.sleep(_TURN)
                    self._watch()
            finally:
                for children in (self._workers, [self._writer]):
                    for child in children:
                        child.end()
                    for child in children:
                        child.wait()
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._roll = True
        else:
            self._stop = True

    def _start(self, role: str) -> _Child:
        return _Child(role, self._plan, self._listener)

    def _watch(self) -> None:
        if self._writer.ended:
            _log.error("the writing process ended with %s and is started again", self._writer.process.returncode)
            self._writer = self._again(self._writer)
        for place, worker in enumerate(self._workers):
            if worker.ended:
                _log.error("a worker ended with %s and is started again", worker.process.returncode)
                self._workers[place] = self._again(worker)
        if self._roll:
            self._roll = False
            for place, worker in enumerate(self._workers):
                fresh = self._start("worker")
                try:
                    self._until_ready(fresh)
                except UnavailableError as error:
                    # A bad app file must not take down those that serve.
                    _log.error("the workers there are stay: %s", error)
                    fresh.end()
                    fresh.wait()
                    break
                self._workers[place] = fresh
                worker.end()
                worker.wait()

    def _again(self, child: _Child) -> _Child:
        child.wait()
        # One that fails at once must not be started in a tight loop.
        rest = child.began + 1.0 - time.monotonic()
        if rest > 0:
            time.sleep(rest)
        return self._start(child.role)

    def _until_ready(self, child: _Child) -> None:
        until = time.monotonic() + _PATIENCE
        while not self._stop and not child.ready:
            if child.ended or time.monotonic() > until:
                raise UnavailableError(
                    f"the {child.role} of a server starts", got=f"exit {child.process.poll()}",
                    remedy="see the lines above for why",
                )  # fmt: skip
            time.sleep(_TURN)


_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class _Child:
    """One process. It says on standard output that it is ready, and ends when its standard input does."""

    def __init__(self, role: str, plan: Plan, listener: socket.socket) -> None:
        self.role = role
        self.began = time.monotonic()
        self._metrics = str(Path(plan.folder) / "metrics")
        self._shares = plan.shares
        self.process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, role, str(listener.fileno())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[listener.fileno()],
            # A Ctrl-C on the terminal is for the supervisor alone, which drains in order.
            start_new_session=True,
            env={**os.environ, metrics.FOLDER: self._metrics} if role == "worker" else None,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        # One that died at once is noticed by its exit.
        with suppress(BrokenPipeError):
            self.process.stdin.write(msgspec.json.encode(plan) + b"\n")
            self.process.stdin.flush()
        os.set_blocking(self.process.stdout.fileno(), False)
        self._said = b""

    @property
    def ready(self) -> bool:
        assert self.process.stdout is not None
        self._said += self.process.stdout.read() or b""
        return _READY.encode() in self._said

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def end(self) -> None:
        """Asks it to drain and end."""
        if not self.ended:
            self.process.terminate()

    def wait(self) -> None:
        """Until it has ended; it is killed where draining takes too long."""
        try:
            self.process.wait(DRAIN + 5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()
        if self.role == "worker":
            (self._shares / str(self.process.pid)).unlink(missing_ok=True)
            mark_process_dead(self.process.pid, self._metrics)  # type: ignore[no-untyped-call]


def _work(plan: Plan, listener: socket.socket) -> None:
    app = plan.load()
    with ExitStack() as opened:
        log = app.log(read_only=True)
        opened.callback(log.close)
        store = open_store(app.store, app.home, log.id, read_only=True)
        opened.callback(store.close)
        link = Link(plan.line)
        opened.callback(link.close)
        link.wait(_PATIENCE)
        runtime = app.answering(log, store, link, opened, workers=plan.workers)
        access = None if plan.access_log is None else Path(plan.access_log)
        pages = (*shop.pages(app.home), *console.pages(runtime, plan.token))
        run(
            runtime, token=plan.token, listener=listener, access_log=access, pages=pages, shares=plan.shares,
            on_ready=lambda url: _say_ready(),
        )  # fmt: skip


def _write(plan: Plan, listener: socket.socket) -> None:
    listener.close()
    app = plan.load()
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: stopped.set())
    with ExitStack() as opened:
        _, _, ingestor = app.ingesting(opened)
        # Made before the workers come: several that make it at once would be in each other's way.
        DecisionLog(app.home / DECISIONS).close()
        server = LinkServer(plan.line, ingestor)
        opened.callback(server.close)
        settle()
        _say_ready()
        with quick_switches():
            stopped.wait()


def _say_ready() -> None:
    print(_READY, flush=True)


def _end_with_parent() -> None:
    """Drains this process once the supervisor is gone, however that ended."""
    # Not by way of a file object: its lock would be held while the interpreter ends.
    while os.read(0, 1 << 16):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main(role: str, listener: int) -> None:
    """Runs one process of a server; the plan comes as a line on standard input."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    given = b""
    while not given.endswith(b"\n"):
        given += os.read(0, 1 << 16)
    plan = msgspec.json.decode(given, type=Plan)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    try:
        {"worker": _work, "writer": _write}[role](plan, socket.socket(fileno=listener))
    except PenstockError as error:
        print(f"penstock: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
