"""What becomes of an event that is not taken."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.errors import EventError
from penstock.types import Micros


@dataclass(frozen=True)
class Rejection:
    """One event that breaks a rule.

    Attributes:
        index: its place in what was sent, from 0 (in a file: the data row).
        field: the offending field, or "".
        rule: what must hold.
        got: what came instead.
        remedy: what the sender does now.
        raw: the event as it came.
    """

    index: int
    field: str
    rule: str
    got: str
    remedy: str
    raw: str

    @staticmethod
    def of(index: int, error: EventError, raw: str) -> Rejection:
        return Rejection(index, *map(storable, (error.field, error.rule, error.got, error.remedy, raw)))

    @property
    def error(self) -> str:
        """The rule, what came, and the remedy in one line."""
        return str(EventError(self.rule, got=self.got, remedy=self.remedy))

    def as_dict(self) -> dict[str, int | str]:
        """What the sender is told.

        >>> Rejection(3, "user", "user is text", "5", "quote it", '{"user": 5}').as_dict()
        {'index': 3, 'field': 'user', 'error': 'user is text; got 5; quote it'}
        """
        return {"index": self.index, "field": self.field, "error": self.error}


def storable(text: str) -> str:
    """The text with what no UTF-8 can hold replaced, as a sender's own words may have any of it.

    >>> storable("us\\ud800")
    'us?'
    """
    return text.encode("utf-8", "replace").decode()


@dataclass(frozen=True)
class DeadLetter:
    """A rejection as the log keeps it: when (microseconds) and from where it came."""

    time: Micros
    source: str
    rejection: Rejection
