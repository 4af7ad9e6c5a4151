"""From bytes to checked events: each bad one is rejected by itself, and the rest goes on."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from penstock.clock import Clock
from penstock.errors import DefinitionError, EventError, RequestError, TooLargeError
from penstock.events.explain import Explainer
from penstock.events.rejection import Rejection
from penstock.events.schema import Event, event_type
from penstock.events.values import MAX_TIME
from penstock.events.wire import Wire, refused
from penstock.types import Accepted, Micros, Schema

_BROKEN = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_SPACE = re.compile(r"[ \t\r\n]*")
_PYTHON = json.JSONDecoder()


class BodyError(RequestError):
    """A body that is not JSON at all, so that no event of it can be told apart (HTTP 400)."""


@dataclass(frozen=True)
class Parsed:
    """A body's events, in its order: those for the log and those refused."""

    accepted: list[Accepted] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)


class Intake:
    """Checks events from outside.

    Args:
        event_types: the app's event classes; each is one stream.
        clock: says now, for events without a time, and how far in the future one may lie.
        max_events: the most events in a body.
        max_body: the most bytes in a body.
        max_text: the most characters in a text.

    >>> from penstock.clock import SystemClock
    >>> class Visit(Event):
    ...     page: str
    >>> parsed = Intake([Visit], SystemClock()).parse(b'[{"page": "/", "time": 1}, {"pgae": "/"}]')
    >>> parsed.accepted[0].values, parsed.rejected[0].field
    (('/',), 'pgae')
    """

    def __init__(
        self,
        event_types: Iterable[type[Event]],
        clock: Clock,
        *,
        max_events: int = 10_000,
        max_body: int = 4 << 20,
        max_text: int = 512,
    ) -> None:
        kinds = [event_type(cls) for cls in event_types]
        self.event_types = {kind.stream: kind for kind in kinds}
        if not kinds or len(self.event_types) < len(kinds):
            raise DefinitionError(
                "an app has at least one event type, each with a name of its own",
                got=", ".join(kind.cls.__name__ for kind in kinds) or "none",
                remedy="define class Action(ps.Event), or rename one",
            )
        self.max_events = max_events
        self.max_body = max_body
        self._clock = clock
        self._wire = Wire(self.event_types, max_text)
        self._explainer = Explainer(self.event_types, max_text)

    @property
    def schemas(self) -> Mapping[str, Schema]:
        """The schema of every stream, by name."""
        return {stream: kind.schema for stream, kind in self.event_types.items()}

    def parse(self, body: bytes, content_type_hint: str | None = None) -> Parsed:
        """Checks a body of one JSON object, an array, or NDJSON (by its content type, or by its looks).

        Raises:
            TooLargeError: the body has too many bytes or events.
            BodyError: it is not JSON, so that no single event can be rejected.
        """
        if len(body) > self.max_body:
            raise TooLargeError(
                f"a body has at most {self.max_body:,} bytes", got=f"{len(body):,}", remedy="send several smaller ones"
            )
        body = body.removeprefix(b"\xef\xbb\xbf").strip(b" \t\r\n")
        lines = _is_lines(body, content_type_hint or "")
        try:
            events = self._decode(body, lines)
        except _BROKEN:
            return self._one_by_one(_split_lines(body) if lines else _split(body))
        self._check_count(len(events))
        return self._accept_all(events, body, lines)

    def check(self, event: Mapping[str, Any] | Event, *, after: Micros = 0) -> Accepted:
        """Checks one event in process.

        Args:
            after: the newest time among those checked before it and not yet appended.

        Raises:
            EventError: it breaks its schema or a rule.
        """
        if isinstance(event, Event):
            event = self._as_mapping(event)
        try:
            wire = self._wire.convert(event)
        except (msgspec.ValidationError, TypeError) as error:
            self._explainer.explain(event)
            raise refused(error) from None
        if self._wire.unfit(wire):
            self._explainer.explain(event)
        return self._wire.accept(wire, self._clock.now(), self._latest(after), os.urandom(16).hex())

    def _as_mapping(self, event: Event) -> Mapping[str, Any]:
        kind = next((kind for kind in self.event_types.values() if kind.cls is type(event)), None)
        if kind is None:
            raise EventError(
                "the event's class is one of the app's",
                got=type(event).__name__,
                remedy="use one of " + ", ".join(kind.cls.__name__ for kind in self.event_types.values()),
                field="stream",
            )
        return {"stream": kind.stream, **msgspec.structs.asdict(event)}

    def _latest(self, after: Micros) -> Micros:
        return min(self._clock.latest(after), MAX_TIME - 1)

    def _check_count(self, count: int) -> None:
        if count > self.max_events:
            raise TooLargeError(
                f"a body has at most {self.max_events:,} events", got=f"{count:,}", remedy="send several smaller bodies"
            )

    def _decode(self, body: bytes, lines: bool) -> list[Any]:
        if lines:
            return self._wire.one.decode_lines(body)
        return self._wire.many.decode(body) if body[:1] == b"[" else [self._wire.one.decode(body)]

    def _accept_all(self, events: Sequence[Any], body: bytes, lines: bool) -> Parsed:
        # A NUL reaches a text only through this escape, so the fast path need not look at every text.
        if b"\\u0000" in body and any(map(self._wire.unfit, events)):
            return self._one_by_one(_split_lines(body) if lines else _split(body))
        now, newest = self._clock.now(), 0
        stem = os.urandom(12).hex()
        accepted, wrong = [], {}
        for index, wire in enumerate(events):
            try:
                accepted.append(self._wire.accept(wire, now, self._latest(newest), f"{stem}{index:08x}"))
                newest = max(newest, accepted[-1].time)
            except EventError as error:
                wrong[index] = error
        if not wrong:
            return Parsed(accepted)
        parts = _split_lines(body) if lines else _split(body)
        return Parsed(accepted, [Rejection.of(i, error, _text(parts[i])) for i, error in wrong.items()])

    def _one_by_one(self, parts: Sequence[bytes]) -> Parsed:
        self._check_count(len(parts))
        now, newest = self._clock.now(), 0
        stem = os.urandom(12).hex()
        parsed = Parsed()
        for index, raw in enumerate(parts):
            try:
                one = self._wire.accept(self._checked(raw), now, self._latest(newest), f"{stem}{index:08x}")
                parsed.accepted.append(one)
                newest = max(newest, one.time)
            except EventError as error:
                parsed.rejected.append(Rejection.of(index, error, _text(raw)))
        return parsed

    def _checked(self, raw: bytes) -> Any:
        try:
            wire = self._wire.one.decode(raw)
        except _BROKEN as error:
            self._explainer.explain(_lenient(raw))
            raise refused(error) from None
        if self._wire.unfit(wire):
            self._explainer.explain(_lenient(raw))
        return wire


def _is_lines(body: bytes, hint: str) -> bool:
    if "ndjson" in hint or "jsonl" in hint:
        return True
    if body[:1] == b"[" or b"\n" not in body:
        return False
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except _BROKEN:
        return True
    return False


def _split_lines(body: bytes) -> list[bytes]:
    return [line.strip(b" \t\r") for line in body.split(b"\n") if line.strip(b" \t\r")]


def _split(body: bytes) -> list[bytes]:
    """The elements of an array as they came, or the one object; also where they hold NaN or broken text."""
    text = body.decode("utf-8", "surrogateescape")
    parts: list[bytes] = []
    at = 0 if text[:1] != "[" else _skip(text, 1)
    try:
        while text[at : at + 1] != "]":
            _, end = _PYTHON.raw_decode(text, at)
            parts.append(text[at:end].encode("utf-8", "surrogateescape"))
            at = _skip(text, end)
            if text[at : at + 1] != ",":
                break
            at = _skip(text, at + 1)
            if text[at : at + 1] == "]":
                raise json.JSONDecodeError("nothing follows the comma", text, at)
        if text[at:] != ("]" if text[:1] == "[" else ""):
            raise json.JSONDecodeError("something else follows", text, at)
    except (json.JSONDecodeError, RecursionError) as error:
        where = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ": too deeply nested"
        raise BodyError(
            "a body is one JSON object, an array of them, or one a line",
            got=f"broken JSON{where}" if body else "nothing",
            remedy="check the quotes and commas; one a line rejects only the broken lines",
        ) from None
    return parts


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _lenient(raw: bytes) -> Any:
    """An event that msgspec refuses, with NaN and broken text let through so that they can be named."""
    try:
        return json.loads(raw.decode("utf-8", "surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise EventError(
            "an event is valid JSON",
            got=f"{_text(raw)[:60]!r} ({error})",
            remedy="check the quotes and commas, one whole object a line",
        ) from None


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
