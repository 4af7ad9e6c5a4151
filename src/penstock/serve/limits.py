"""What connections are held to: the limits, and what is said to whoever breaks one."""

from __future__ import annotations

import resource
from contextlib import suppress

import msgspec

from penstock.errors import PenstockError
from penstock.serve.replies import RETRY, Reply, refusal

MAX_HEAD = 64 << 10
"""Bytes of a request line and its headers together; trailers count along."""
MAX_HEADERS = 128
"""Headers of a request, trailers among them: many short ones would take far more memory than they have bytes."""
MAX_HEADS = 64 << 20
"""Bytes of all heads that a process has begun to read; beyond, the oldest are closed."""
MAX_PIPELINED = 128
"""Requests that a client may send ahead, before the answer to the first."""
MAX_CONNECTIONS = 8_192
"""Connections of a process, where it may open so many files."""
SPARE_FILES = 512
"""Files that are kept for the log, the store and the rest."""
HEAD_WITHIN = 10.0
"""Seconds from a head's first byte, or from connecting, until the head must be whole."""
KEEP_ALIVE = 75
"""Seconds that a connection may be idle after an answer."""
READ_WITHIN = 30.0
"""Seconds in which a client must read some of an answer: its end, or `READ_AT_LEAST`."""
READ_AT_LEAST = 64 << 10
"""Bytes of a long answer, in `READ_WITHIN` seconds."""
LINGER = 2.0
"""Seconds that a refused client gets to read why; a connection closed on unread bytes loses its answer."""
MAX_LEAVING = 256
"""Refused clients that get that time; beyond, the oldest have had it."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one connection may take, and how many there may be.

    Attributes:
        head: bytes of a request line and its headers.
        heads: bytes of all heads that are not yet whole.
        head_within: seconds until a head must be whole.
        keep_alive: seconds that a connection may be idle.
        read_within: seconds in which a client must read some of its answer.
        connections: of a process; None for what its limit of open files allows.
    """

    head: int = MAX_HEAD
    heads: int = MAX_HEADS
    head_within: float = HEAD_WITHIN
    keep_alive: float = KEEP_ALIVE
    read_within: float = READ_WITHIN
    connections: int | None = None


def most_connections() -> int:
    """How many connections this process can have beside its other files, at most `MAX_CONNECTIONS`."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return min(MAX_CONNECTIONS, max(files - SPARE_FILES, files // 2))


def raise_file_limit() -> None:
    """Lets this process open as many files as it may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Some systems call it unlimited and allow less.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def full(most: int) -> Reply:
    """The reply to one connection more than `most`."""
    error = PenstockError(
        f"a process has at most {most:,} connections", got="one more, while all of them are at work",
        remedy="try again after Retry-After seconds",
    )  # fmt: skip
    return refusal(503, error, RETRY)


def too_long(most: int) -> Reply:
    """The reply to a head of more than `most` bytes, or with too many headers."""
    size = f"{most >> 10} KiB" if most >= 1 << 10 else f"{most} bytes"
    error = PenstockError(
        f"a request's head has at most {size} and {MAX_HEADERS} headers", got="more",
        remedy="send fewer cookies and shorter headers",
    )  # fmt: skip
    return refusal(431, error)


def late(within: float) -> Reply:
    """The reply to a head that was not whole within so many seconds."""
    error = PenstockError(
        f"a request's head arrives within {within:g} s", got="some of it", remedy="send the head all at once"
    )
    return refusal(408, error)


def unreadable() -> Reply:
    """The reply to what is not HTTP."""
    return refusal(400, PenstockError("a request is HTTP/1.1", got="something else", remedy="see RFC 9112"))
