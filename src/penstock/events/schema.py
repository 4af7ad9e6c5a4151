"""Event types, and the fixed-width form in which the log keeps them."""

from __future__ import annotations

import re
import types
from decimal import Decimal
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from penstock.errors import DefinitionError
from penstock.types import Field, Kind, Schema

Money = Annotated[Decimal, "money"]
"""An amount with at most two decimals, exact; the log keeps it in cents."""

MAX_TEXT = 512
_KINDS: dict[Any, Kind] = {str: "text", int: "int", float: "float", bool: "bool"}
_BASE = ("time", "id")


class Event(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The base of an app's event types: subclass it and annotate fields.

    Fields are str, Literal of strings, int, float, bool or Money, each optionally ``| None``.

    Attributes:
        time: when it happened: RFC 3339 text with a zone, or unix seconds; now where it is left out.
        id: makes sending twice count once; an event without one gets a random id.

    >>> class Click(Event):
    ...     user: str
    ...     price: Money | None = None
    >>> [(f.name, f.kind, f.optional) for f in schema_of(Click).fields]
    [('user', 'text', False), ('price', 'money', True)]
    """

    time: str | float | int | None = None
    id: str | None = None


def schema_of(cls: type[Event]) -> Schema:
    """The columns of an event type; its stream is the class name in snake case."""
    hints = get_type_hints(cls, include_extras=True)
    fields = [_field(cls, name, hint) for name, hint in hints.items() if name not in _BASE]
    if not fields:
        raise DefinitionError(
            f"event {cls.__name__} has fields of its own", got="none", remedy="annotate some: user: str"
        )
    return Schema(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower(), tuple(fields))


def _field(cls: type[Event], name: str, hint: Any) -> Field:
    optional = False
    if get_origin(hint) in (Union, types.UnionType):
        rest = [part for part in get_args(hint) if part is not type(None)]
        optional = len(rest) < len(get_args(hint))
        hint = rest[0] if len(rest) == 1 else hint
    if hint == Money:
        return Field(name, "money", optional)
    if get_origin(hint) is Literal and all(isinstance(value, str) for value in get_args(hint)):
        return Field(name, "text", optional)
    if hint in _KINDS:
        return Field(name, _KINDS[hint], optional)
    raise DefinitionError(
        f"{cls.__name__}.{name} is a str, Literal of strings, int, float, bool or Money, or one of these | None",
        got=str(hint),
        remedy="flatten it into such fields",
        field=name,
    )
