"""Views: named aggregates over one stream and key, with windows, filters and defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from penstock.aggregates import Aggregate
from penstock.clock import DAY, HOUR, MINUTE, SECOND, duration
from penstock.errors import DefinitionError
from penstock.features.columns import check_element_wise, kind_of
from penstock.registry import fingerprint, from_spec, to_spec
from penstock.types import Field, Micros, Schema

TILE = "@tile"  # no feature can be called so
_HOPS = (DAY, HOUR, 5 * MINUTE, MINUTE, 10 * SECOND, SECOND)


def hop_of(window: Micros) -> Micros:
    """The width of a window's tiles: the largest of 1 s … 1 d that is at most a twelfth of it.

    >>> hop_of(HOUR) == 5 * MINUTE, hop_of(30 * DAY) == DAY
    (True, True)
    """
    return next((hop for hop in _HOPS if hop <= window / 12), SECOND)


@dataclass(frozen=True)
class Block:
    """Neighbouring features of a group whose states are merged in one go: one class, one state.

    Attributes:
        field: of the group's `blocked` tiles that holds their states: (n,) of a single feature, (n, m) of several.
        aggregate: the first one; the others differ in what they read.
    """

    field: str
    features: Mapping[str, Aggregate]

    @cached_property
    def aggregate(self) -> Aggregate:
        return next(iter(self.features.values()))


@dataclass(frozen=True)
class Group:
    """The aggregates of a view that share a window, and so their tiles."""

    window: Micros | None
    features: Mapping[str, Aggregate]

    @cached_property
    def hop(self) -> Micros | None:
        return None if self.window is None else hop_of(self.window)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """One tile: its number and a state an aggregate."""
        return np.dtype([(TILE, "<i8"), *((name, a.dtype) for name, a in self.features.items())])

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The features in their order, neighbours that can be merged in one go together."""
        runs: list[dict[str, Aggregate]] = []
        before: Aggregate | None = None
        for name, aggregate in self.features.items():
            alike = before is not None and type(before) is type(aggregate) and before.dtype == aggregate.dtype
            if not (alike and aggregate.columnwise):
                runs.append({})
            runs[-1][name] = before = aggregate
        return tuple(Block(f"@{i}", run) for i, run in enumerate(runs))

    @cached_property
    def blocked(self) -> np.dtype[Any]:
        """The same tile with a field a block."""
        fields: list[Any] = [(TILE, "<i8")]
        for block in self.blocks:
            state, n = block.aggregate.dtype, len(block.features)
            fields.append((block.field, state) if n == 1 else (block.field, state, (n,)))
        return np.dtype(fields)

    def tile(self, time: Any) -> Any:
        """The tile that holds each time (microseconds)."""
        return time * 0 if self.hop is None else time // self.hop

    def oldest(self, now: Any) -> Any:
        """The first tile that a window ending at each `now` covers."""
        return now * 0 if self.window is None or self.hop is None else (now - self.window) // self.hop

    def left(self, tile: Any) -> Any:
        """The first `now` at which a window no longer covers each tile."""
        return tile * 0 if self.window is None or self.hop is None else (tile + 1) * self.hop + self.window


@dataclass(frozen=True)
class View:
    """A view bound to the schema of its stream; `version` is the fingerprint of all that it means."""

    name: str
    by: tuple[str, ...]
    features: Mapping[str, Aggregate]
    schema: Schema

    def __post_init__(self) -> None:
        for field in self.by:
            found = self.schema.field(field)
            if found is None or found.kind != "text":
                raise DefinitionError(
                    f"view {self.name} is keyed by text fields of {self.schema.stream}",
                    got=repr(field) if found is None else f"{field!r} of kind {found.kind}",
                    remedy="name one of " + ", ".join(f.name for f in self.schema.fields if f.kind == "text"),
                )
        if not self.features:
            raise DefinitionError(
                f"view {self.name} holds at least one aggregate", got="none", remedy="add orders = ps.count()"
            )
        for name, aggregate in self.features.items():
            where = f"{self.name}.{name}"
            if not aggregate.commutative:
                raise DefinitionError(
                    f"{where}: a view gives the same in whatever order events arrive",
                    got=f"{type(aggregate).__name__}, which has to see them in order of time",
                    remedy="keep it by itself: ps.running(ps.max_run()), and add values in their order",
                )
            for part in aggregate.with_parts:
                self._check(part, where)

    def _check(self, aggregate: Aggregate, where: str) -> None:
        """That its column and filter fit the stream."""
        if aggregate.column is not None:
            aggregate.check(kind_of(aggregate.column, self.schema, where))
        elif aggregate.reads:
            raise DefinitionError(
                f"{where}: {type(aggregate).__name__} reads one column of kind {', '.join(aggregate.reads)}",
                got=f"column={aggregate.column!r}",
                remedy="name the field first: ps.sum('price')",
            )
        if aggregate.where is not None:
            check_element_wise(aggregate.where, self.schema, where)

    @property
    def stream(self) -> str:
        return self.schema.stream

    def spec(self) -> dict[str, Any]:
        """The definition as plain JSON values; `View.from_spec` is its inverse."""
        return {
            "name": self.name,
            "by": list(self.by),
            # A list: the order of features is the order of bytes in a record, and so part of the version.
            "features": [[name, to_spec(aggregate)] for name, aggregate in self.features.items()],
            "stream": self.schema.stream,
            "fields": [[f.name, f.kind, f.optional] for f in self.schema.fields],
        }

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> View:
        schema = Schema(spec["stream"], tuple(Field(*field) for field in spec["fields"]))
        features = {name: from_spec(part) for name, part in spec["features"]}
        return cls(spec["name"], tuple(spec["by"]), features, schema)

    @cached_property
    def version(self) -> bytes:
        """8 bytes: equal versions mean equal values. Fields that the view does not read do not count."""
        spec = self.spec()
        read = self.reads | set(self.by)
        spec["fields"] = sorted(field for field in spec["fields"] if field[0] in read)
        return bytes.fromhex(fingerprint(spec))[:8]

    @cached_property
    def reads(self) -> frozenset[str]:
        """The stream's fields that the aggregates read."""
        names: set[str] = set()
        for part in self._inputs:
            names.update([part] if isinstance(part, str) else part.meta.root_names())
        return frozenset(names & {f.name for f in self.schema.fields})

    @cached_property
    def spells(self) -> frozenset[str]:
        """Its text fields that expressions read: of all others the codes are enough."""
        named = {name for part in self._inputs if isinstance(part, pl.Expr) for name in part.meta.root_names()}
        return frozenset(f.name for f in self.schema.fields if f.kind == "text" and f.name in named)

    @cached_property
    def _inputs(self) -> list[str | pl.Expr]:
        """All columns and filters of the aggregates and of their parts."""
        parts = [part for aggregate in self.features.values() for part in aggregate.with_parts]
        return [given for part in parts for given in (part.column, part.where) if given is not None]

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        windows: dict[Micros | None, dict[str, Aggregate]] = {}
        for name, aggregate in self.features.items():
            window = None if aggregate.window is None else duration(aggregate.window)
            windows.setdefault(window, {})[name] = aggregate
        return tuple(Group(window, features) for window, features in windows.items())

    def key(self, codes: Sequence[int]) -> bytes:
        """The store key of one entity, from its codes in `by` order."""
        return b"".join(int(code).to_bytes(4, "big") for code in codes)


def define(cls: type, *, schema: Schema, by: str | Sequence[str]) -> View:
    """Reads a view from a class body of aggregates, in the order they are written."""
    features: dict[str, Aggregate] = {}
    for name, value in vars(cls).items():
        if isinstance(value, Aggregate):
            features[name] = value
        elif not name.startswith("_"):
            raise DefinitionError(
                f"a view's body holds aggregates only; {cls.__name__}.{name}",
                got=type(value).__name__,
                remedy="write views_1h = ps.count(window='1h')",
            )
    return View(cls.__name__, (by,) if isinstance(by, str) else tuple(by), features, schema)
