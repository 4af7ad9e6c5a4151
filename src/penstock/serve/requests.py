"""What a decision is asked with, and what it answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec

from penstock.errors import RequestError

T = TypeVar("T", bound=msgspec.Struct)
MOST_ITEMS = 500


class DecideRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a decision request: a list is asked for by its `user`, a verdict by its `event`."""

    user: Annotated[str, msgspec.Meta(min_length=1, max_length=512)] | None = None
    context: dict[str, str | int | float | bool | None] | None = None
    event: dict[str, Any] | None = None
    k: Annotated[int, msgspec.Meta(ge=1, le=MOST_ITEMS)] | None = None
    budget_ms: Annotated[float, msgspec.Meta(gt=0, le=10_000)] | None = None
    why: bool = False


class Invocation(DecideRequest, forbid_unknown_fields=True):
    """A decision request that says which decision it asks for; the app's first without it."""

    decision: str | None = None


class DialRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body that sets a release's share of the traffic."""

    share: Annotated[float, msgspec.Meta(ge=0, le=1)]


class StaffRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body that says how many reviews a day a verdict has people for."""

    reviews: Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class Item(msgspec.Struct, frozen=True):
    """One item of an answer; `propensity` is the chance that it stood there, given those above it."""

    id: str
    score: float
    propensity: float


class Reason(msgspec.Struct, frozen=True):
    """A source that proposed an item, its kind, and the one of the shopper's items that led most to it, if any did."""

    source: str
    kind: str
    because: str | None


class Answer(msgspec.Struct):
    """A decision. `timings` are milliseconds a stage and go into the Server-Timing header.

    `why` holds, where it was asked for, the reasons of each item; none where an item came from a fallback or a rule.
    `cause` says why a fallback answered, where one did; `cached` whether it was given before. `decided`, a `Decided`,
    is logged once it is sent. `broken` names the rules whose promise the items do not keep.
    """

    decision_id: str
    items: list[Item]
    tier: str
    release: str | None
    arm: str
    timings: dict[str, float]
    why: list[list[Reason]] | None = None
    cause: str | None = None
    cached: bool = False
    # A `Decided`: no type of JSON, as this struct's are.
    decided: Any = None
    broken: tuple[str, ...] = ()

    def body(self) -> dict[str, Any]:
        """What the client is told."""
        names = ("decision_id", "items", "tier", "release", "arm")
        told = {name: getattr(self, name) for name in names}
        return told if self.why is None else {**told, "why": self.why}


class Because(msgspec.Struct, frozen=True):
    """Why an event was not approved: a rule's code; or a feature, its value, and what it adds to the log-odds."""

    code: str
    value: float | None = None
    effect: float | None = None


class Judged(msgspec.Struct):
    """A verdict: what to do with one event, the chance that it is bad, and why where it is not approved.

    `timings`, `cause` and `decided` are as in `Answer`; `propensity` is the chance that this action was taken.
    """

    decision_id: str
    action: str
    score: float | None
    reasons: list[Because]
    tier: str
    release: str | None
    arm: str
    timings: dict[str, float]
    propensity: float = 1.0
    cause: str | None = None
    cached: bool = False
    # A `Decided`: no type of JSON, as this struct's are.
    decided: Any = None
    broken: tuple[str, ...] = ()

    def body(self) -> dict[str, Any]:
        """What the client is told."""
        names = ("decision_id", "action", "score", "reasons", "tier", "release", "arm")
        return {name: getattr(self, name) for name in names}


_RULES: Mapping[str, tuple[str, str]] = {
    "user": ("user is a text of 1 to 512 characters", 'send {"user": "…"}'),
    "decision": ("decision is the name of one", "leave it out for the app's first"),
    "context": ("context is an object of texts, numbers, booleans and nulls", "flatten it, or leave it out"),
    "event": ("event is one event, as an object", "send several to /v1/events"),
    "k": ("k is an integer from 1 to 500", "ask for fewer items, or leave it out"),
    "budget_ms": ("budget_ms is a number above 0 and at most 10,000", "give milliseconds, or leave it out"),
    "why": ("why is true or false", "leave it out, or send true for the reasons of each item"),
    "reviews": ("reviews is a number a day, 0 or more", 'send {"reviews": 200}'),
    "share": ("share is a number from 0 to 1", 'send {"share": 0.1} for a tenth of the traffic'),
}


def read(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """The request that `body` holds.

    Raises:
        msgspec.DecodeError: it is not JSON, or holds a number that no double holds.
        RequestError: it is JSON and breaks a rule; names the field.

    >>> decoder = msgspec.json.Decoder(DialRequest)
    >>> read(b'{"share": 0.5}', decoder).share
    0.5
    >>> read(b'{"share": 2}', decoder)
    Traceback (most recent call last):
    penstock.errors.RequestError: share is a number from 0 to 1; got 2; send {"share": 0.1} for a tenth of the traffic
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        # Decoding again to show what came costs only those who send it.
        raise _broken_rule(str(error), msgspec.json.decode(body), decoder.type.__struct_fields__) from None


def user_of(request: DecideRequest) -> str:
    """Who is asked for.

    Raises:
        RequestError: nobody.
    """
    if request.user is None:
        rule, remedy = _RULES["user"]
        raise RequestError(rule, got="none", remedy=remedy, field="user")
    return request.user


def checked(**fields: Any) -> DecideRequest:
    """A decision request of this process's own making, held to the rules of those that come over HTTP.

    Raises:
        RequestError: it breaks one; names the field.

    >>> checked(user="u1", k=5).k
    5
    """
    try:
        body = msgspec.json.encode(fields)
    except (TypeError, ValueError) as error:
        raise RequestError(
            "a request holds what JSON holds", got=str(error), remedy="send texts, numbers, booleans and nulls"
        ) from None
    return read(body, _DECIDE)


def checked_staff(reviews: float) -> float:
    """A number of reviews a day of this process's own making, held to the rules of those that come over HTTP.

    >>> checked_staff(40)
    40.0
    """
    return read(msgspec.json.encode({"reviews": reviews}), _STAFF).reviews


_STAFF = msgspec.json.Decoder(StaffRequest)
_DECIDE = msgspec.json.Decoder(DecideRequest)


def _broken_rule(text: str, given: Any, names: tuple[str, ...]) -> RequestError:
    fields = ", ".join(names)
    if not isinstance(given, dict):
        return RequestError("a request is a JSON object", got=type(given).__name__, remedy=f"its fields are {fields}")
    unknown = re.search(r"unknown field `(.*)`", text, re.DOTALL)
    if unknown:
        return RequestError(
            f"a request has the fields {fields}",
            got=repr(unknown[1])[:100],
            remedy="rename or remove it",
            field=unknown[1],
        )
    found = re.search(r"required field `(\w+)`|at `\$\.(\w+)", text)
    name = (found[1] or found[2]) if found else ""
    rule, remedy = _RULES.get(name, (text, f"its fields are {fields}"))
    return RequestError(rule, got=repr(given[name])[:100] if name in given else "none", remedy=remedy, field=name)
