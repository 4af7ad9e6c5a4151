"""From bytes to checked events: each bad one is rejected by itself, with the rule and the remedy."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from penstock.clock import Clock, duration
from penstock.errors import EventError, PenstockError, RequestError, TooLargeError
from penstock.events.log import Rejected
from penstock.events.schema import MAX_TEXT, Event, schema_of
from penstock.types import Accepted, Micros, Schema

MAX_BODY = 4 << 20
MAX_EVENTS = 10_000
_INT64 = 1 << 63


@dataclass(frozen=True)
class Parsed:
    """A body of events, sorted into good and bad."""

    accepted: Sequence[Accepted]
    rejected: Sequence[Rejected] = field(default_factory=list)


class Intake:
    """Checks events of the given types.

    Args:
        event_types: the app's `Event` classes; the member ``stream`` names one, and may be left out if there is one.
        clock: dates events that carry no time.
        future: how far ahead of the clock a time may lie; none where the events themselves are the clock.
    """

    def __init__(self, event_types: Sequence[type[Event]], clock: Clock, *, future: str | None = "5min") -> None:
        self._clock = clock
        self._future = None if future is None else duration(future)
        self._types = {schema_of(cls).stream: cls for cls in event_types}
        self.schemas: Mapping[str, Schema] = {schema_of(cls).stream: schema_of(cls) for cls in event_types}
        self._only = next(iter(self._types)) if len(self._types) == 1 else None
        # With a single stream a whole body is decoded at once; what fails is then looked at one by one.
        self._decoder = msgspec.json.Decoder(list[self._types[self._only]]) if self._only else None  # type: ignore[name-defined]

    def parse(self, body: bytes) -> Parsed:
        """Checks a body: one JSON object, an array of them, or NDJSON.

        Raises:
            TooLargeError: more than 4 MiB or 10,000 events.
            RequestError: not JSON at all.
        """
        if len(body) > MAX_BODY:
            raise TooLargeError(
                f"a body is at most {MAX_BODY >> 20} MiB", got=f"{len(body):,} bytes", remedy="send smaller batches"
            )
        text = body.strip()
        if text.startswith(b"[") and self._decoder is not None and self._only:
            try:
                events = self._decoder.decode(text)
                self._count(len(events))
                return Parsed([self._accepted(self._only, event) for event in events])
            except (msgspec.MsgspecError, EventError):
                pass
        return self._one_by_one(self._split(text))

    def check(self, event: Mapping[str, Any] | Event) -> Accepted:
        """Checks one event given as a mapping or an instance.

        Raises:
            EventError: names the field, the rule, what came and the remedy.
        """
        if isinstance(event, Event):
            return self._accepted(schema_of(type(event)).stream, event)
        stream, rest = self._stream(event)
        try:
            return self._accepted(stream, msgspec.convert(rest, self._types[stream], strict=True))
        except msgspec.ValidationError as error:
            raise _from_msgspec(error, self.schemas[stream], event) from None

    def _count(self, events: int) -> None:
        if events > MAX_EVENTS:
            raise TooLargeError(
                f"a body holds at most {MAX_EVENTS:,} events", got=f"{events:,}", remedy="send smaller batches"
            )

    def _split(self, text: bytes) -> list[bytes]:
        """The raw text of each event."""
        try:
            if text.startswith(b"["):
                parts = [bytes(raw) for raw in msgspec.json.decode(text, type=list[msgspec.Raw])]
            elif text.startswith(b"{") and b"\n" not in text:
                parts = [text]
            elif text.startswith(b"{"):
                parts = [text] if _is_json(text) else [line for line in text.splitlines() if line.strip()]
            else:
                raise msgspec.DecodeError(f"it begins with {text[:20].decode('utf-8', 'replace')!r}")
        except msgspec.DecodeError as error:
            raise RequestError(
                "a body of events is a JSON object, an array of objects, or one object a line",
                got=str(error) if text else "an empty body",
                remedy='send {"stream": …, "user": …}',
            ) from None
        self._count(len(parts))
        return parts

    def _one_by_one(self, parts: Sequence[bytes]) -> Parsed:
        accepted, rejected = [], []
        for index, raw in enumerate(parts):
            try:
                accepted.append(self.check(_decode(raw)))
            except PenstockError as error:
                rejected.append(Rejected(index, error.field, error.rule, error.got, error.remedy, raw))
        return Parsed(accepted, rejected)

    def _stream(self, event: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        rest = dict(event)
        stream = rest.pop("stream", self._only)
        if stream not in self._types:
            raise EventError(
                "an event names its stream" if stream is None else "a stream is one of the app's",
                got="none" if stream is None else repr(stream),
                remedy="use one of " + ", ".join(self._types),
                field="stream",
            )
        return stream, rest

    def _accepted(self, stream: str, event: Event) -> Accepted:
        values: list[Any] = []
        for column in self.schemas[stream].fields:
            value = getattr(event, column.name)
            if value is not None:
                if column.kind == "text":
                    value = _text(value, column.name, column.optional)
                elif column.kind == "money":
                    value = _cents(value, column.name)
                elif column.kind == "int" or column.kind == "bool":
                    value = _integer(int(value), column.name)
                elif not math.isfinite(value):
                    raise EventError(
                        "a number is finite",
                        got=str(value),
                        remedy="leave the field out where unknown",
                        field=column.name,
                    )
            values.append(value)
        given = event.id
        if given is not None:
            given = _text(given, "id", optional=False)
        return Accepted(stream, given or secrets.token_hex(12), self._time(event.time), tuple(values))

    def _time(self, given: str | float | int | None) -> Micros:
        now = self._clock.now()
        if given is None:
            return now
        if isinstance(given, str):
            micros = _rfc3339(given)
        elif math.isfinite(given) and abs(given) < 1e12:
            micros = given * 1_000_000 if isinstance(given, int) else round(given * 1e6)
        else:
            raise EventError(
                "a time is RFC 3339 text or unix seconds",
                got=str(given),
                remedy="divide milliseconds by 1,000",
                field="time",
            )
        if micros < 0:
            raise EventError(
                "a time lies after 1970", got=str(given), remedy="check the unit and the clock", field="time"
            )
        if self._future is not None and micros > now + self._future:
            raise EventError(
                f"a time is at most {self._future // 1_000_000:,} s ahead of the server's clock",
                got=f"{given}, {(micros - now) / 1e6:,.0f} s ahead",
                remedy="check the sender's clock and unit (seconds, not milliseconds)",
                field="time",
            )
        return micros


def _decode(raw: bytes) -> dict[str, Any]:
    try:
        event = msgspec.json.decode(raw)
    except msgspec.DecodeError as error:
        text = str(error)
        if re.search(rb"\b(NaN|Infinity)\b", raw):
            raise EventError("a number is finite", got="NaN or Infinity", remedy="leave the field out") from None
        raise EventError("an event is a JSON object", got=text, remedy="check quotes, commas and encoding") from None
    if not isinstance(event, dict):
        raise EventError("an event is a JSON object", got=type(event).__name__, remedy='send {"user": …}')
    return event


def _is_json(text: bytes) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except msgspec.DecodeError:
        return False
    return True


def _text(value: str, name: str, optional: bool) -> str:
    if len(value) > MAX_TEXT or "\0" in value or not (value or optional):
        raise EventError(
            f"a text has 1 to {MAX_TEXT} characters and no NUL",
            got=f"{len(value)} characters" + (" with a NUL" if "\0" in value else ""),
            remedy="shorten it, or leave an optional field out",
            field=name,
        )
    return value


def _cents(value: Decimal, name: str) -> int:
    cents = value.scaleb(2) if value.is_finite() else value
    if not value.is_finite() or cents != cents.to_integral_value():
        raise EventError(
            "an amount of money is finite and has at most two decimals", got=str(value), remedy="round it", field=name
        )
    return _integer(int(cents), name)


def _integer(value: int, name: str) -> int:
    if not -_INT64 < value < _INT64:
        raise EventError("an integer fits 64 bits", got=str(value), remedy="send it as text, or scale it", field=name)
    return value


def _rfc3339(text: str) -> Micros:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        when = None
    if when is None or when.tzinfo is None:
        raise EventError(
            "a time as text is RFC 3339 with a zone", got=repr(text), remedy="write 2026-05-04T09:30:00Z", field="time"
        )
    whole = when.replace(microsecond=0)
    return int(whole.timestamp()) * 1_000_000 + when.microsecond


def _from_msgspec(error: msgspec.ValidationError, schema: Schema, event: Mapping[str, Any]) -> EventError:
    text = str(error)
    path = re.search(r" - at `\$\.?([^`\[]*)", text)
    missing = re.search(r"missing required field `(\w+)`", text)
    unknown = re.search(r"unknown field `([^`]+)`", text)
    names = ", ".join(f.name for f in schema.fields)
    if missing:
        return EventError(
            f"an event of {schema.stream} has the field {missing[1]}", got="none", remedy=f"send {missing[1]}",
            field=missing[1],
        )  # fmt: skip
    if unknown:
        return EventError(
            f"an event of {schema.stream} has no field {unknown[1]}", got=repr(event.get(unknown[1]))[:100],
            remedy=f"its fields are {names}, time and id", field=unknown[1],
        )  # fmt: skip
    name = path[1] if path else ""
    rule = text.split(" - at ")[0][:1].lower() + text.split(" - at ")[0][1:]
    return EventError(rule, got=repr(event.get(name))[:100], remedy=f"mend {name or 'the event'}", field=name)
