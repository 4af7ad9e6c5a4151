"""How connections are taken from a listening socket, alone or among processes that share it."""

from __future__ import annotations

import asyncio
import errno
import logging
import mmap
import os
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_LEAVE = 0.002
"""Seconds for which a connection is left to a process that has fewer."""
_LATE = 0.05
"""Seconds by which a timer is late where the event loop's rounds are long."""
_REST = 1.0
"""Seconds of rest where this process may open no more files."""
_FEW = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_SURE = 50_000_000
"""Nanoseconds after which a folder's time of change has changed with it, on any file system."""
_HEARD = 1_000_000_000
"""Nanoseconds after which a process that took nothing down is not there, or does not answer."""
_SHARE = struct.Struct("qq")
"""How many, and when, on the clock that all processes share."""
_log = logging.getLogger("penstock.serve")


class Shares:
    """How many connections each process of a server has, each in a file that the others map.

    Args:
        folder: theirs alone, made where it is not there; a file stands for a process, and bears its number.
        now: nanoseconds on a clock that all of them share.
    """

    def __init__(self, folder: Path, now: Callable[[], int] = time.monotonic_ns) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._now = now
        self._path = folder / str(os.getpid())
        begun = folder / f".{os.getpid()}"
        begun.write_bytes(_SHARE.pack(0, now()))
        self._mine = _mapped(begun)
        begun.rename(self._path)
        self._stamp = 0
        self._others: list[mmap.mmap] = []

    def fewer(self, count: int) -> bool:
        """Takes down how many this process has, and says whether another has fewer; to be asked some times a second."""
        now = self._now()
        _SHARE.pack_into(self._mine, 0, count, now)
        # Connections go on without a folder that somebody cleaned up, or where no more files may be opened.
        with suppress(OSError):
            self._look()
        return any(few < count and now - then < _HEARD for few, then in map(_SHARE.unpack_from, self._others))

    def close(self) -> None:
        """The others no longer leave it any."""
        self._path.unlink(missing_ok=True)

    def _look(self) -> None:
        """Finds the others, where some came or went."""
        stamp = os.stat(self._folder).st_mtime_ns
        if stamp == self._stamp and time.time_ns() - stamp > _SURE:
            return
        found = []
        for path in self._folder.iterdir():
            if path != self._path and not path.name.startswith("."):
                # It may have ended meanwhile.
                with suppress(FileNotFoundError):
                    found.append(_mapped(path))
        self._stamp, self._others = stamp, found


class Acceptor:
    """Takes the connections of one listening socket, in an event loop that runs.

    An event loop's own way is one connection in each of its rounds, whichever process is first. Where rounds are long,
    hundreds wait for seconds before a word of theirs is read, and could not even be refused; and of several processes
    that share the socket, one may get nearly all.

    Args:
        listener: the socket.
        take: is given each new connection.
        fewer: whether another process that has the socket has fewer connections: it is left a while to take the next.
    """

    def __init__(
        self, listener: socket.socket, take: Callable[[socket.socket], None], fewer: Callable[[], bool]
    ) -> None:
        self._listener, self._take, self._fewer = listener, take, fewer
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._open = True
        listener.setblocking(False)
        self._loop.add_reader(listener.fileno(), self._ready)

    def close(self) -> None:
        """Takes no more and closes the socket, so that clients turn elsewhere; may be called again."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._listener.fileno())
            if self._timer is not None:
                self._timer.cancel()
            self._listener.close()

    def _ready(self) -> None:
        while not self._fewer():
            if not self._accept():
                return
        self._rest(_LEAVE)

    def _rest(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._timer = self._loop.call_later(seconds, self._again, self._loop.time() + seconds)

    def _again(self, due: float) -> None:
        """Takes one that nobody else took, and all of them where the loop is late."""
        self._timer = None
        late = self._loop.time() - due > _LATE
        while self._accept() and late:
            pass
        if self._timer is None:
            self._loop.add_reader(self._listener.fileno(), self._ready)

    def _accept(self) -> bool:
        try:
            taken, _ = self._listener.accept()
        except OSError as error:
            # Else nobody waits, or no longer: what is wrong with one connection may be told here, too.
            if error.errno in _FEW:
                # Without a rest it would be told at once again that somebody waits.
                _log.error("no connection is taken for %g s: %s", _REST, error.strerror)
                self._rest(_REST)
            return False
        taken.setblocking(False)
        self._take(taken)
        return True


def _mapped(path: Path) -> mmap.mmap:
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), _SHARE.size)
