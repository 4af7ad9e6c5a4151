"""Answers before they are sent: bodies, refusals, and the Server-Timing waterfall."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter

import msgspec

from penstock.errors import NotFoundError, PenstockError, TooLargeError, UnavailableError

Header = tuple[bytes, bytes]

encode = msgspec.json.Encoder().encode
RETRY: Header = (b"retry-after", b"1")
CLOSE: Header = (b"connection", b"close")
_STATUS: Mapping[type[PenstockError], int] = {TooLargeError: 413, NotFoundError: 404, UnavailableError: 503}


class Reply(msgspec.Struct, frozen=True):
    """One whole answer; its length and Server-Timing are added when it is sent."""

    status: int
    body: bytes
    kind: bytes = b"application/json"
    headers: tuple[Header, ...] = ()
    note: dict[str, str | None] = {}
    """What the access log says of it."""


class Refused(Exception):
    """Carries the reply that refuses a request up to where it is sent."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def refusal(status: int, error: PenstockError, *headers: Header) -> Reply:
    """The reply that says which rule was broken, by what, in which field, and what to do.

    >>> refusal(404, PenstockError("a view is named", got="'x'", remedy="use one of Shopper")).body.decode()
    '{"error":"a view is named; got \\'x\\'","field":null,"remedy":"use one of Shopper"}'
    """
    text = f"{error.rule}; got {error.got}" if error.got else error.rule
    return Reply(status, encode({"error": text, "field": error.field or None, "remedy": error.remedy}), headers=headers)


def refused(status: int, rule: str, *headers: Header, got: str = "", remedy: str = "") -> Refused:
    """To be raised where the request itself, not a field of it, is refused."""
    return Refused(refusal(status, PenstockError(rule, got=got, remedy=remedy), *headers))


def of_error(error: PenstockError) -> Reply:
    """The reply to an error that the running system raised on purpose."""
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 422)
    return refusal(status, error, *((RETRY,) if status == 503 else ()))


class Waterfall:
    """Milliseconds a stage, in order, since the first byte of the request was read.

    Args:
        began: when that was, on `time.perf_counter`; now where it is not known.
    """

    def __init__(self, began: float | None) -> None:
        now = perf_counter()
        self._began = now if began is None else began
        self._last = now
        self.stages: dict[str, float] = {"queue": (now - self._began) * 1e3}

    def lap(self, stage: str, at: float | None = None) -> None:
        """Ends `stage`, now or at a moment, which began when the one before it ended; what it took is added to."""
        now = perf_counter() if at is None else at
        self.stages[stage] = self.stages.get(stage, 0.0) + (now - self._last) * 1e3
        self._last = now

    def add(self, stages: Mapping[str, float]) -> None:
        """Takes over stages that were measured elsewhere; the next one begins now."""
        self.stages.update(stages)
        self._last = perf_counter()

    @property
    def total(self) -> float:
        return (perf_counter() - self._began) * 1e3

    def header(self) -> bytes:
        """The value of the Server-Timing header."""
        self.stages["total"] = self.total
        return ", ".join([f"{name};dur={ms:.3f}" for name, ms in self.stages.items()]).encode()
