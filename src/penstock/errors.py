"""One root error. Every message says the rule, what came, and the remedy."""

from __future__ import annotations


class PenstockError(Exception):
    """The root of every error that penstock raises on purpose.

    Args:
        rule: what must hold, as a full clause.
        got: what came instead, already readable (``repr`` it where needed).
        remedy: what the reader does now.
        field: the name of the offending field, if there is one.

    >>> str(PenstockError("k is at least 1", got="0", remedy="ask for one item or more"))
    'k is at least 1; got 0; ask for one item or more'
    """

    def __init__(self, rule: str, *, got: str = "", remedy: str = "", field: str = "") -> None:
        self.rule = rule
        self.got = got
        self.remedy = remedy
        self.field = field
        super().__init__("; ".join(filter(None, [rule, got and f"got {got}", remedy])))


class DefinitionError(PenstockError):
    """The app file asks for something that cannot be built."""


class EventError(PenstockError):
    """One event breaks its schema or a rule of the intake."""


class MappingError(PenstockError):
    """A mapping file does not fit the data file it describes."""


class RequestError(PenstockError):
    """A decision or feature request that cannot be answered as asked (HTTP 422)."""


class TooLargeError(RequestError):
    """A body is larger than the server takes (HTTP 413)."""


class NotFoundError(PenstockError):
    """A named thing (stream, view, decision, release) does not exist (HTTP 404)."""


class UnavailableError(PenstockError):
    """The log or the store cannot take or give data now; nothing was half done (HTTP 503)."""


class StoreError(UnavailableError):
    """The feature store cannot be opened or written; the log is unharmed."""


class ReleaseError(PenstockError):
    """A release is missing, damaged, not ready, or does not fit the app."""


class OverflowedError(PenstockError):
    """A value left the declared range of its aggregate."""
