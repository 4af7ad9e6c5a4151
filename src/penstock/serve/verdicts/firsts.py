"""One verdict an event: who asks again, at the same time or later, is told the first one."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import msgspec

from penstock.errors import RequestError, UnavailableError
from penstock.serve.decisions import Decided
from penstock.serve.requests import Because, Judged
from penstock.types import Accepted, Schema

MOST = 4_096
"""Events of which the verdict is kept in memory; of older ones the decision log has it."""


class Firsts:
    """The newest events that verdicts were asked for, each with its first verdict or the promise of one.

    Any thread may use it.

    Args:
        most: events kept.

    >>> firsts = Firsts()
    >>> promise, mine = firsts.claim("payment", "p1")
    >>> firsts.claim("payment", "p1") == (promise, False)
    True
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._held: dict[tuple[str, str], Future[Judged]] = {}
        self._lock = threading.Lock()

    def claim(self, decision: str, event: str) -> tuple[Future[Judged], bool]:
        """The promise of the first verdict on an event, by its id; and whether it is the caller's to keep.

        Whoever has to keep it sets its result, or gives it up.
        """
        key = decision, event
        with self._lock:
            held = self._held.get(key)
            if held is not None:
                return held, False
            if len(self._held) >= self._most:
                del self._held[next(iter(self._held))]
            promise = self._held[key] = Future()
            return promise, True

    def give_up(self, decision: str, event: str, error: BaseException) -> None:
        """Says that no verdict was given; who waits for it hears the error, and who comes later begins anew."""
        with self._lock:
            promise = self._held.pop((decision, event), None)
        if promise is not None and not promise.done():
            # A request that was cut off says nothing about the others.
            promise.set_exception(error if isinstance(error, Exception) else undecided("one that was cut off"))


def undecided(got: str) -> UnavailableError:
    """Where nobody can say yet what the first verdict is."""
    return UnavailableError(
        "an event is decided once, by the first request for it", got=got,
        remedy="send the same request again after Retry-After seconds",
    )  # fmt: skip


def judged(decided: Decided) -> Judged:
    """What was answered, from the decision log."""
    said = decided.verdict
    assert said is not None, "a decision on an event"
    reasons = [Because(*reason) for reason in said["reasons"]]
    return Judged(
        decided.id, said["action"], said.get("score"), reasons, decided.tier, decided.release, decided.arm, {},
        float(decided.propensities[0]), cached=True, decided=decided,
    )  # fmt: skip


def again(first: Judged, event: Accepted, schema: Schema) -> Judged:
    """The first verdict on an event, given once more.

    Raises:
        RequestError: the event says something else now: the log keeps the first, and so does the verdict.
    """
    names = [f.name for f in schema.fields]
    other = [n for n, value in zip(names, event.values, strict=True) if first.decided.context.get(n) != value]
    if other:
        raise RequestError(
            "an event's id is its own: sent again, it is the same event", got=f"{event.id} with another {other[0]}",
            remedy="give another event another id", field=f"event.{other[0]}",
        )  # fmt: skip
    return msgspec.structs.replace(first, timings={}, cause=None, cached=True)
