"""How connections are taken from a listening socket, alone or among processes that share it."""

from __future__ import annotations

import asyncio
import mmap
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_LEAVE = 0.002
"""Seconds for which a connection is left to a process that has fewer."""
_LATE = 0.05
"""Seconds by which a timer is late where the event loop's rounds are long."""
_REST = 1.0
"""Seconds of rest where this process may open no more files."""
_COUNT = struct.Struct("q")


class Shares:
    """How many connections each process of a server has, each in a file that the others map.

    Args:
        folder: theirs alone; a file stands for a process, and bears its number.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / str(os.getpid())
        begun = folder / f".{os.getpid()}"
        begun.write_bytes(_COUNT.pack(0))
        self._mine = _mapped(begun)
        begun.rename(self._path)
        self._stamp = 0
        self._others: list[mmap.mmap] = []

    def fewer(self, count: int) -> bool:
        """Takes down how many this process has, and says whether another has fewer."""
        _COUNT.pack_into(self._mine, 0, count)
        stamp = os.stat(self._folder).st_mtime_ns
        if stamp != self._stamp:
            self._stamp, self._others = stamp, self._look()
        return any(_COUNT.unpack_from(other)[0] < count for other in self._others)

    def close(self) -> None:
        """The others no longer leave it any."""
        self._path.unlink(missing_ok=True)

    def _look(self) -> list[mmap.mmap]:
        found = []
        for path in self._folder.iterdir():
            if path != self._path and not path.name.startswith("."):
                # It may have ended meanwhile.
                with suppress(FileNotFoundError):
                    found.append(_mapped(path))
        return found


class Acceptor:
    """Takes the connections of one listening socket, in an event loop that runs.

    An event loop's own way is one connection in each of its rounds, whichever process is first. Where rounds are long,
    hundreds wait for seconds before a word of theirs is read, and could not even be refused; and of several processes
    that share the socket, one may get nearly all.

    Args:
        listener: the socket; not closed here.
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
        """Takes no more; may be called again."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._listener.fileno())
            if self._timer is not None:
                self._timer.cancel()

    async def wait_closed(self) -> None:
        """As servers of the event loop have it: there is nothing to wait for."""

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
        except (BlockingIOError, ConnectionAbortedError):
            return False
        except OSError:
            # Too many files: without a rest it would be told at once again that somebody waits.
            self._rest(_REST)
            return False
        taken.setblocking(False)
        self._take(taken)
        return True


def _mapped(path: Path) -> mmap.mmap:
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), _COUNT.size)
