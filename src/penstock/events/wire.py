"""The decoders of events: one msgspec struct for each stream, with every limit that msgspec can check itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal

import msgspec

from penstock.errors import EventError
from penstock.events.schema import EventType
from penstock.events.values import cents, micros, show
from penstock.types import MISSING_INT, Accepted, Field, Micros

_INTEGER = Annotated[int, msgspec.Meta(ge=MISSING_INT + 1, le=-MISSING_INT - 1)]


@dataclass(frozen=True)
class Shape:
    """How the decoded struct of one stream becomes values of the log: (time, id, *fields)."""

    stream: str
    names: tuple[str, ...]
    money: tuple[int, ...]
    blanks: tuple[int, ...]  # optional texts, where "" means missing


class Wire:
    """Typed decoders over the given event types.

    Args:
        kinds: event types by stream.
        max_text: the longest text, in characters.
    """

    def __init__(self, kinds: Mapping[str, EventType], max_text: int) -> None:
        self.types = {stream: _struct(kind, max_text) for stream, kind in kinds.items()}
        self._shapes = {self.types[stream]: _shape(kind) for stream, kind in kinds.items()}
        union: Any = reduce(or_, self.types.values())
        self._union = union
        self.one: msgspec.json.Decoder[Any] = msgspec.json.Decoder(union)
        self.many: msgspec.json.Decoder[list[Any]] = msgspec.json.Decoder(list[union])

    def convert(self, event: Mapping[str, Any]) -> Any:
        """The struct of an event that is already a mapping; raises msgspec.ValidationError."""
        return msgspec.convert(event, self._union)

    def accept(self, wire: Any, now: Micros, latest: Micros, random_id: str) -> Accepted:
        """The event for the log, or EventError where a rule beyond msgspec's is broken."""
        shape = self._shapes[type(wire)]
        time, id_, *values = msgspec.structs.astuple(wire)
        for place in shape.money:
            if values[place] is not None:
                values[place] = cents(values[place], shape.names[place])
        for place in shape.blanks:
            if values[place] == "":
                values[place] = None
        at = now if time is None else micros(time, latest)
        return Accepted(shape.stream, random_id if id_ is None else id_, at, tuple(values))

    def unfit(self, wire: Any) -> bool:
        """Whether a text or number is one that msgspec lets pass and the log cannot take."""
        return any(map(_unfit, msgspec.structs.astuple(wire)))


def _unfit(value: Any) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if not isinstance(value, str):
        return False
    try:
        return b"\0" in value.encode()
    except UnicodeEncodeError:
        return True


def _struct(kind: EventType, max_text: int) -> type[msgspec.Struct]:
    text = Annotated[str, msgspec.Meta(min_length=1, max_length=max_text)]
    members: list[Any] = [("time", str | int | float | None, None), ("id", text | None, None)]
    infos = {info.name: info for info in msgspec.structs.fields(kind.cls)}
    for field in kind.schema.fields:
        info = infos[field.name]
        own = _annotation(field, kind.choices.get(field.name, ()), max_text)
        if info.required:
            members.append((field.name, own))
        elif info.default is not msgspec.NODEFAULT:
            members.append((field.name, own, info.default))
        else:
            members.append((field.name, own, msgspec.field(default_factory=info.default_factory)))
    return msgspec.defstruct(
        kind.cls.__name__,
        members,
        tag_field="stream",
        tag=kind.stream,
        forbid_unknown_fields=True,
        kw_only=True,
        gc=False,
    )


def _annotation(field: Field, choices: Sequence[str], max_text: int) -> Any:
    bare: Any = {
        "text": Annotated[str, msgspec.Meta(min_length=0 if field.optional else 1, max_length=max_text)],
        "int": _INTEGER, "float": float, "money": Decimal, "bool": bool,
    }[field.kind]  # fmt: skip
    if choices:
        bare = Literal[tuple(choices)]
    return bare | None if field.optional else bare


def _shape(kind: EventType) -> Shape:
    fields = kind.schema.fields
    return Shape(
        kind.stream,
        tuple(field.name for field in fields),
        tuple(i for i, field in enumerate(fields) if field.kind == "money"),
        tuple(i for i, f in enumerate(fields) if f.kind == "text" and f.optional and f.name not in kind.choices),
    )


def refused(error: Exception) -> EventError:
    """What msgspec said, where no rule of ours explains it."""
    return EventError("an event fits its schema", got=show(str(error)), remedy="compare it with /openapi.json")
