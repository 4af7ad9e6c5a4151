"""Self-registration by kind and name, and definitions as plain JSON values.

A class registers itself, so nothing enumerates: `@registered("aggregate")` on a frozen dataclass is all.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
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


def names(kind: str) -> list[str]:
    """The registered names of a kind, sorted."""
    return sorted(_KINDS.get(kind, {}))


def get(kind: str, name: str) -> type:
    """The class registered as `name`."""
    try:
        return _KINDS[kind][name]
    except KeyError:
        raise NotFoundError(
            f"a registered {kind} is named", got=repr(name), remedy="use one of " + ", ".join(names(kind))
        ) from None


def to_spec(value: Any) -> Any:
    """A registered object (or a plain value holding some) as JSON values; `from_spec` is the inverse."""
    if isinstance(value, pl.Expr):
        return {"expr": json.loads(value.meta.serialize(format="json"))}
    if is_dataclass(value) and type(value) in _NAMES:
        kind, name = _NAMES[type(value)]
        return {"kind": kind, "type": name, **{f.name: to_spec(getattr(value, f.name)) for f in fields(value)}}
    if isinstance(value, Mapping):
        return {str(key): to_spec(part) for key, part in value.items()}
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
    """Rebuilds what `to_spec` wrote down."""
    if isinstance(spec, list):
        return tuple(from_spec(part) for part in spec)
    if not isinstance(spec, Mapping):
        return spec
    if set(spec) == {"expr"}:
        return pl.Expr.deserialize(io.StringIO(json.dumps(spec["expr"])), format="json")
    parts = {key: from_spec(part) for key, part in spec.items() if key not in ("kind", "type")}
    return get(spec["kind"], spec["type"])(**parts) if "type" in spec else parts


def canonical(spec: Any) -> bytes:
    """The one JSON text of plain values: sorted keys, no spaces."""
    return json.dumps(spec, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def fingerprint(spec: Any) -> str:
    """16 hexadecimal digits (BLAKE2b, 64 bits) that stand for plain JSON values.

    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    True
    """
    return hashlib.blake2b(canonical(spec), digest_size=8).hexdigest()
