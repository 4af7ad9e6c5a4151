"""Self-registration by kind and name, and definitions as plain JSON values.

A class registers itself, so nothing enumerates: `@registered("aggregate")` on a frozen dataclass is all.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

import polars as pl

from penstock.errors import DefinitionError, NotFoundError

T = TypeVar("T", bound=type)

_KINDS: dict[str, dict[str, type]] = {}
_NAMES: dict[type, tuple[str, str]] = {}


def registered(kind: str, name: str | None = None) -> Callable[[T], T]:
    """Registers the decorated class under `kind`, by `name` (the class name in snake case by default)."""

    def register(cls: T) -> T:
        own = name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).lower()
        held = _KINDS.setdefault(kind, {}).setdefault(own, cls)
        if held.__qualname__ != cls.__qualname__ or held.__module__ != cls.__module__:
            raise DefinitionError(
                f"each {kind} has a name of its own", got=f"{own!r} twice", remedy="register the class under another"
            )
        _KINDS[kind][own] = cls
        _NAMES[cls] = (kind, own)
        return cls

    return register


def kinds() -> list[str]:
    """The kinds that have registered classes, sorted."""
    return sorted(_KINDS)


def names(kind: str) -> list[str]:
    """The registered names of a kind, sorted."""
    return sorted(_KINDS.get(kind, {}))


def get(kind: str, name: str) -> type:
    """The class registered as `name`."""
    try:
        return _KINDS[kind][name]
    except KeyError:
        known = names(kind)
        remedy = f"use one of {', '.join(known)}" if known else f"kinds are {', '.join(kinds())}"
        raise NotFoundError(f"a registered {kind} is named", got=repr(name), remedy=remedy) from None


def name_of(value: Any) -> str:
    """The name under which a registered object's class is known."""
    return _NAMES[type(value)][1]


def to_spec(value: Any) -> Any:
    """A registered object (or a plain value holding some) as JSON values; `from_spec` is the inverse.

    Raises:
        DefinitionError: the value holds something else.

    >>> to_spec({"limits": (1, 2)})
    {'map': {'limits': [1, 2]}}
    """
    if isinstance(value, pl.Expr):
        return {"expr": json.loads(value.meta.serialize(format="json"))}
    if type(value) in _NAMES:
        kind, name = _NAMES[type(value)]
        return {"kind": kind, "type": name, **{f.name: to_spec(getattr(value, f.name)) for f in fields(value)}}
    if isinstance(value, Mapping):
        # Set apart, since its keys are a user's words: "type" and "expr" may be among them.
        return {"map": {str(key): to_spec(part) for key, part in value.items()}}
    if isinstance(value, (list, tuple)):
        return [to_spec(part) for part in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise DefinitionError(
        "a definition holds plain values, expressions and registered objects",
        got=f"{type(value).__name__} {value!r}",
        remedy="register its class, or pass a string or number",
    )


def from_spec(spec: Any) -> Any:
    """Rebuilds what `to_spec` wrote down; lists come back as tuples.

    Raises:
        NotFoundError: a class of that name is not registered.
        DefinitionError: the class takes other fields, or an expression cannot be read.
    """
    if isinstance(spec, list):
        return tuple(from_spec(part) for part in spec)
    if not isinstance(spec, Mapping):
        return spec
    if "type" in spec:
        parts = {key: from_spec(part) for key, part in spec.items() if key not in ("kind", "type")}
        return _build(get(spec["kind"], spec["type"]), parts)
    if "map" in spec:
        return {key: from_spec(part) for key, part in spec["map"].items()}
    return _expression(spec.get("expr"))


def _build(cls: type, parts: Mapping[str, Any]) -> Any:
    known = {field.name for field in fields(cls)}
    if not parts.keys() <= known:
        raise DefinitionError(
            f"{cls.__name__} has the fields {', '.join(sorted(known))}",
            got=", ".join(sorted(parts.keys() - known)),
            remedy="read the definition with the version of penstock that wrote it",
        )
    return cls(**parts)


def _expression(serialised: Any) -> pl.Expr:
    try:
        return pl.Expr.deserialize(io.StringIO(json.dumps(serialised)), format="json")
    except pl.exceptions.PolarsError as error:
        raise DefinitionError(
            "a written expression can be read again",
            got=str(error),
            remedy="read the definition with the version of Polars that wrote it",
        ) from None


def canonical(spec: Any) -> bytes:
    """The one JSON text of plain values: sorted keys, no spaces."""
    return json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def fingerprint(spec: Any) -> str:
    """16 hexadecimal digits (BLAKE2b, 64 bits) that stand for plain JSON values.

    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    True
    """
    return hashlib.blake2b(canonical(spec), digest_size=8).hexdigest()
