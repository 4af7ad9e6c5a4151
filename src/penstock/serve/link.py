"""The line from a worker to the process that writes: events there, and which of them were new back.

Frames over a Unix socket: four bytes of length, then MessagePack. A worker whose writer is gone answers that
it is not available, and goes on once it is back; events sent again are recognised by their ids.
"""

from __future__ import annotations

import logging
import socket
import struct
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from time import sleep

import msgspec

from penstock.errors import PenstockError, UnavailableError
from penstock.events import Rejection
from penstock.serve.ingestor import Inlet
from penstock.serve.writer import MOST_WAITING
from penstock.types import Accepted

_LENGTH = struct.Struct("<I")
_RETRY = 0.05
_log = logging.getLogger("penstock.serve")


class _Ask(msgspec.Struct, array_like=True):
    """What a worker sends. `number` 0 wants no answer."""

    number: int
    events: list[Accepted] = []
    rejections: list[Rejection] = []
    source: str = ""
    shown: bool = True


class _Answer(msgspec.Struct, array_like=True):
    """Which events were new, or the rule, what came and the remedy of an error."""

    number: int
    new: list[bool]
    error: tuple[str, str, str] | None = None


_ASK = msgspec.msgpack.Decoder(_Ask)
_ANSWER = msgspec.msgpack.Decoder(_Answer)


class LinkServer:
    """Takes the events of other processes; in the process that writes.

    Args:
        path: of the socket, made anew.
        inlet: takes them from here.
    """

    def __init__(self, path: Path, inlet: Inlet) -> None:
        self._inlet = inlet
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        threading.Thread(target=self._accept, name="link", daemon=True).start()

    def close(self) -> None:
        """Takes no more; what was taken is still answered."""
        # A thread that waits in accept is only woken by a shutdown.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                line, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(line,), name="link-worker", daemon=True).start()

    def _serve(self, line: socket.socket) -> None:
        sending = threading.Lock()
        with line, suppress(OSError):
            try:
                while (frame := _receive(line)) is not None:
                    self._take(line, sending, _ASK.decode(frame))
            except msgspec.DecodeError:
                # The two sides are of different versions; the worker hears it as a line that was cut.
                _log.exception("a worker sent what this writing process cannot read")

    def _take(self, line: socket.socket, sending: threading.Lock, ask: _Ask) -> None:
        if ask.rejections:
            self._inlet.reject(ask.rejections, ask.source)
        if not ask.number:
            if not ask.rejections:
                self._inlet.look()
            return

        def answer(done: Future[list[bool]]) -> None:
            error = done.exception()
            if error is None:
                reply = _Answer(ask.number, done.result())
            elif isinstance(error, PenstockError):
                reply = _Answer(ask.number, [], (error.rule, error.got, error.remedy))
            else:
                reply = _Answer(ask.number, [], ("events are taken", str(error), "retry"))
            # A worker that is gone will send its events again, and their ids are known.
            with sending, suppress(OSError):
                _send(line, reply)

        try:
            self._inlet.submit(ask.events, shown=ask.shown).add_done_callback(answer)
        except PenstockError as error:
            failed: Future[list[bool]] = Future()
            failed.set_exception(error)
            answer(failed)


class Link:
    """An `Inlet` whose ingestor is in another process.

    Args:
        path: of the socket that a `LinkServer` listens on, now or later.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._numbers = count(1)
        self._waiting: dict[int, Future[list[bool]]] = {}
        self._out: SimpleQueue[_Ask | None] = SimpleQueue()
        self._line: socket.socket | None = None
        self._closing = False
        self._connected = threading.Event()
        # Two threads, so that neither a full socket nor a silent writer can hold up the one that decides.
        for work in (self._send_all, self._receive_all):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()

    def submit(self, events: Sequence[Accepted], *, shown: bool = True) -> Future[list[bool]]:
        """See `Inlet`."""
        future: Future[list[bool]] = Future()
        if not events:
            future.set_result([])
            return future
        if self._line is None or len(self._waiting) >= MOST_WAITING:
            raise _unavailable("none" if self._line is None else f"{len(self._waiting):,} requests that wait for it")
        number = next(self._numbers)
        self._waiting[number] = future
        self._out.put(_Ask(number, list(events), shown=shown))
        return future

    def reject(self, rejections: Sequence[Rejection], source: str) -> None:
        """See `Inlet`."""
        self._out.put(_Ask(0, rejections=list(rejections), source=source))

    def look(self) -> None:
        """See `Inlet`."""
        self._out.put(_Ask(0))

    def wait(self, seconds: float) -> bool:
        """Whether the writer is there, within so many seconds."""
        return self._connected.wait(seconds)

    def close(self) -> None:
        self._closing = True
        self._out.put(None)
        self._hang_up()

    def _send_all(self) -> None:
        while (ask := self._out.get()) is not None:
            line = self._line
            try:
                if line is None:
                    raise ConnectionError
                _send(line, ask)
            except Exception as error:
                # Whatever one request brings, those after it must be sent.
                if not isinstance(error, OSError):
                    _log.exception("events could not be sent to the writing process")
                waiting = self._waiting.pop(ask.number, None)
                if waiting is not None:
                    waiting.set_exception(_unavailable(str(error) or "none"))

    def _receive_all(self) -> None:
        while not self._closing:
            line = socket.socket(socket.AF_UNIX)
            try:
                line.connect(str(self._path))
            except OSError:
                line.close()
                sleep(_RETRY)
                continue
            self._line = line
            self._connected.set()
            with line, suppress(OSError):
                while (frame := _receive(line)) is not None:
                    self._resolve(_ANSWER.decode(frame))
            self._hang_up()

    def _resolve(self, answer: _Answer) -> None:
        waiting = self._waiting.pop(answer.number, None)
        if waiting is None:
            return
        if answer.error is None:
            waiting.set_result(answer.new)
        else:
            rule, got, remedy = answer.error
            waiting.set_exception(UnavailableError(rule, got=got, remedy=remedy))

    def _hang_up(self) -> None:
        line, self._line = self._line, None
        self._connected.clear()
        if line is not None:
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
        for number in list(self._waiting):
            waiting = self._waiting.pop(number, None)
            if waiting is not None:
                # It may be on disk already: whoever sends it again is told that it is a duplicate.
                waiting.set_exception(_unavailable("one that ended meanwhile"))


def _unavailable(got: str) -> UnavailableError:
    return UnavailableError(
        "events are taken while the writing process runs", got=got, remedy="send them again after Retry-After seconds"
    )


def _send(line: socket.socket, message: _Ask | _Answer) -> None:
    body = msgspec.msgpack.encode(message)
    line.sendall(_LENGTH.pack(len(body)) + body)


def _receive(line: socket.socket) -> bytes | None:
    head = _exactly(line, _LENGTH.size)
    return None if head is None else _exactly(line, _LENGTH.unpack(head)[0])


def _exactly(line: socket.socket, size: int) -> bytes | None:
    parts = []
    while size:
        part = line.recv(min(size, 1 << 20))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
