"""Why an event was refused, in words: msgspec decides, this says what to do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from typing import Any

from penstock.errors import EventError
from penstock.events.schema import RESERVED, EventType
from penstock.events.values import show
from penstock.types import MISSING_INT, Field

_NOUNS = {
    "text": "text", "int": "a whole number", "float": "a number", "money": "an amount, as number or text",
    "bool": "true or false",
}  # fmt: skip


@dataclass(frozen=True)
class Explainer:
    """Finds the first rule that an event breaks, given the known streams and the longest text."""

    streams: Mapping[str, EventType]
    max_text: int

    def explain(self, event: Any) -> None:
        """Raises EventError for the first broken rule; returns where it finds none."""
        if not isinstance(event, Mapping):
            raise EventError("an event is a JSON object", got=show(event), remedy='write it as {"field": value, …}')
        kind = self.stream(event.get("stream"))
        self._names(kind, event)
        self._id(event.get("id"))
        self._time(event.get("time"))
        for field in kind.schema.fields:
            if field.name in event:
                self._value(kind, field, event[field.name])

    def stream(self, name: Any) -> EventType:
        """The stream that an event names; the only one where it names none."""
        known = ", ".join(sorted(self.streams))
        if name is None and len(self.streams) == 1:
            return next(iter(self.streams.values()))
        if name is None:
            raise EventError(
                "an event names its stream, as this app has several",
                got="no stream",
                remedy=f'add "stream" with one of {known}',
                field="stream",
            )
        if not isinstance(name, str) or name not in self.streams:
            raise EventError("the stream is known", got=show(name), remedy=f"use one of {known}", field="stream")
        return self.streams[name]

    def _names(self, kind: EventType, event: Mapping[str, Any]) -> None:
        names = [*(f.name for f in kind.schema.fields), *RESERVED]
        for name in event:
            if name not in names:
                near = get_close_matches(str(name), names, 1)
                raise EventError(
                    f"{kind.stream} has no field {show(name)}",
                    got=show(event[name]),
                    remedy=(f"did you mean {near[0]}? " if near else "") + f"its fields are {', '.join(names)}",
                    field=str(name),
                )
        for field in kind.schema.fields:
            if field.name in kind.required and field.name not in event:
                noun = self._noun(kind, field)
                raise EventError(f"{field.name} is present", got="nothing", remedy=f"send {noun}", field=field.name)

    def _id(self, value: Any) -> None:
        if value is None:
            return
        if not isinstance(value, str) or not value:
            raise EventError("id is non-empty text", got=show(value), remedy="quote it, or leave it out", field="id")
        self.text("id", value)

    def _time(self, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, str | int | float | None):
            raise EventError(
                "time is a number of seconds or RFC 3339 text",
                got=show(value),
                remedy='write it like "2024-05-01T12:00:00Z" or 1714564800',
                field="time",
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise EventError("time is finite", got=show(value), remedy="send seconds since 1970 UTC", field="time")

    def _noun(self, kind: EventType, field: Field) -> str:
        choices = kind.choices.get(field.name)
        return f"one of {', '.join(choices)}" if choices else _NOUNS[field.kind]

    def _value(self, kind: EventType, field: Field, value: Any) -> None:
        noun = self._noun(kind, field)
        wrong = EventError(
            f"{field.name} is {noun}", got=show(value), remedy=f"send {field.name} as {noun}", field=field.name
        )
        if value is None:
            if not field.optional:
                raise wrong
        elif not _fits(field, value) or value not in kind.choices.get(field.name, (value,)):
            raise wrong
        elif isinstance(value, float) and not math.isfinite(value):
            raise EventError(
                f"{field.name} is a finite number",
                got=show(value),
                remedy="leave the field out where nothing is known" if field.optional else "send a finite number",
                field=field.name,
            )
        elif isinstance(value, int) and field.kind == "int" and not MISSING_INT < value < -MISSING_INT:
            raise EventError(
                f"{field.name} fits 64 bits", got=show(value), remedy="send large identifiers as text", field=field.name
            )
        elif isinstance(value, str) and field.kind == "text":
            if not value and not field.optional:
                raise EventError(
                    f"{field.name} is not empty",
                    got='""',
                    remedy="send a value, or make the field optional",
                    field=field.name,
                )
            self.text(field.name, value)

    def text(self, name: str, value: str) -> None:
        """Refuses text that is too long, or that SQLite or UTF-8 cannot carry."""
        if len(value) > self.max_text:
            raise EventError(
                f"{name} has at most {self.max_text} characters",
                got=f"{len(value)} characters, {show(value[:20])} …",
                remedy="shorten it, or raise max_text",
                field=name,
            )
        if "\0" in value:
            raise EventError(f"{name} has no NUL character", got=show(value), remedy="remove it", field=name)
        try:
            value.encode()
        except UnicodeEncodeError:
            raise EventError(
                f"{name} is valid Unicode", got=show(value), remedy="send UTF-8, and no lone surrogates", field=name
            ) from None


def _fits(field: Field, value: Any) -> bool:
    if field.kind == "bool":
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    if field.kind == "money":
        return isinstance(value, int | float | Decimal) or (isinstance(value, str) and _is_decimal(value))
    if field.kind == "text":
        return isinstance(value, str)
    return isinstance(value, int) or (field.kind == "float" and isinstance(value, float))


def _is_decimal(text: str) -> bool:
    try:
        Decimal(text)
    except InvalidOperation:
        return False
    return True
