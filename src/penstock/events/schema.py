"""A user's event types, and the fixed-width schema that each one becomes."""

from __future__ import annotations

import re
import types as stdlib_types
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from penstock.errors import DefinitionError
from penstock.types import Field, Kind, Schema


class Event(msgspec.Struct, kw_only=True):
    """The base of every event type; a subclass names its fields and is one stream of the log.

    Fields are `str`, `Literal[...]` of strings, `int`, `float`, `bool`, `Money`, and each of them `| None`.

    Attributes:
        time: when it happened: seconds since 1970 UTC, or RFC 3339 text with a zone. Now, where absent.
        id: the idempotency key: a second event of the stream with the same id is dropped. Where absent a random
            one is made, so a repeated event counts twice.

    >>> class Visit(Event):
    ...     page: str
    ...     seconds: float | None = None
    >>> [(f.name, f.kind, f.optional) for f in schema_of(Visit).fields]
    [('page', 'text', False), ('seconds', 'float', True)]
    """

    time: str | int | float | None = None
    id: str | None = None


Money = Annotated[Decimal, "money"]
"""An exact amount with at most two decimals: a JSON number or string, kept as int64 cents."""

RESERVED = ("stream", *Event.__struct_fields__)
_KINDS: Mapping[Any, Kind] = {str: "text", int: "int", float: "float", bool: "bool", Money: "money"}
_BASE = get_type_hints(Event, include_extras=True)
_ALLOWED = "str, Literal of strings, int, float, bool or ps.Money, each alone or | None"


@dataclass(frozen=True)
class EventType:
    """What is known of one event class: its schema, the choices of `Literal` fields, fields without a default."""

    cls: type[Event]
    schema: Schema
    choices: Mapping[str, tuple[str, ...]]
    required: frozenset[str]

    @property
    def stream(self) -> str:
        return self.schema.stream


def schema_of(cls: type[Event]) -> Schema:
    """The stream of an event class: its snake-case name and typed fields.

    Raises:
        DefinitionError: a field has a type that the log cannot keep, or a reserved name.
    """
    return event_type(cls).schema


@cache
def event_type(cls: type[Event]) -> EventType:
    """Everything derived from an event class, computed once."""
    if not (isinstance(cls, type) and issubclass(cls, Event) and cls is not Event):
        raise DefinitionError(
            "an event type is a subclass of ps.Event", got=repr(cls), remedy="write class Action(ps.Event): ..."
        )
    hints = _hints(cls)
    fields, choices = [], {}
    for name in (name for name in cls.__struct_fields__ if name not in _BASE):
        if name in RESERVED:
            raise _refused(cls, name, f"a field is not named {name!r}, which has a meaning of its own", "rename it")
        fields.append(_field(cls, name, hints[name]))
        if get_origin(_bare(hints[name])[0]) is Literal:
            choices[name] = tuple(get_args(_bare(hints[name])[0]))
    if not fields:
        raise DefinitionError("an event type has fields", got=f"{cls.__name__} with none", remedy="name at least one")
    stream = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
    required = frozenset(info.name for info in msgspec.structs.fields(cls) if info.required)
    return EventType(cls, Schema(stream, tuple(fields)), choices, required)


def _hints(cls: type[Event]) -> dict[str, Any]:
    try:
        hints = get_type_hints(cls, include_extras=True)
    except (NameError, TypeError, AttributeError) as error:
        raise DefinitionError(
            f"the annotations of {cls.__name__} can be resolved",
            got=str(error),
            remedy="import the names that they use at the top of the file",
        ) from None
    for name, hint in _BASE.items():
        if hints[name] != hint:
            raise _refused(cls, name, f"{name!r} is as ps.Event defines it", "remove the line, or rename the field")
    return hints


def _bare(annotation: Any) -> tuple[Any, bool]:
    """The annotation without `| None`, and whether it had it."""
    if get_origin(annotation) not in (Union, stdlib_types.UnionType):
        return annotation, False
    parts = [part for part in get_args(annotation) if part is not type(None)]
    return (parts[0] if len(parts) == 1 else annotation), len(parts) < len(get_args(annotation))


def _field(cls: type[Event], name: str, annotation: Any) -> Field:
    bare, optional = _bare(annotation)
    if get_origin(bare) is Literal:
        if all(isinstance(choice, str) and choice for choice in get_args(bare)):
            return Field(name, "text", optional)
        raise _refused(cls, name, "the choices of a Literal are non-empty strings", "name them as strings", annotation)
    try:
        kind = _KINDS.get(bare)
    except TypeError:
        kind = None
    if kind is None:
        remedy = "write ps.Money" if bare is Decimal else f"use {_ALLOWED}"
        raise _refused(cls, name, "a field has a type that the log can keep", remedy, annotation)
    return Field(name, kind, optional)


def _refused(cls: type[Event], name: str, rule: str, remedy: str, annotation: Any = None) -> DefinitionError:
    shown = "" if annotation is None else f": {getattr(annotation, '__name__', None) or annotation}"
    return DefinitionError(rule, got=f"{cls.__name__}.{name}{shown}", remedy=remedy, field=name)
