"""A decision's feature rows, put together the same way for serving, training and audit.

The three differ only in how a view is read; which keys are asked, in which order columns stand and how
request-time columns are computed is here, once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isnan

import numpy as np
import polars as pl
from numpy.typing import NDArray

from penstock.aggregates import Latest
from penstock.errors import DefinitionError
from penstock.features.columns import evaluated, finite
from penstock.features.request import Request
from penstock.features.rowwise import Function, Type, as_float, compiled
from penstock.features.view import View
from penstock.types import Array

EDITION = "@edition"
"""What a reader may give beside the features: (n,) int64, the same number only for what was folded once."""
Read = Callable[[View, NDArray[np.uint32], NDArray[np.int64]], Mapping[str, Array]]
"""Reads a view: keys (n, len(by)) codes and, for each, the position of its request; columns of n values."""


@dataclass(frozen=True)
class Requests:
    """What is known of R requests before candidates: codes by key field, and values by "View.feature"."""

    keys: Mapping[str, NDArray[np.uint32]]
    values: Mapping[str, Array]
    now: NDArray[np.int64]

    def lists(self, i: int) -> dict[str, NDArray[np.uint32]]:
        """Request i's lists of codes, by "View.feature" and by plain feature name; attributes count as lists."""
        out = {name: codes[i : i + 1] for name, codes in self.keys.items()}
        for name, value in self.values.items():
            if value.ndim == 2:
                out[name] = value[i]
                out.setdefault(name.partition(".")[2], value[i])
        return out


@dataclass(frozen=True)
class Matrix:
    """Feature rows (n, features) float64, and the candidates' attributes as (n,) codes by name.

    `editions` (n, views) has for each candidate the editions of the views that give the `lasting` columns: where they
    are the same, so are these columns. None where the reader gives no editions.
    """

    rows: NDArray[np.float64]
    attributes: Mapping[str, NDArray[np.uint32]]
    editions: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Assembler:
    """The plan of one decision's feature matrix.

    Args:
        views: whose features the ranker sees, and whose attributes (`Latest` features) key further views.
        by: the key field of the request, such as ``"user"``.
        item: the key field of the candidates, such as ``"item"``; None where a request is about nothing but itself.
        context: text fields that requests may carry, usable as keys.
        scores: the score columns of the candidate sources.
        requests: request-time columns by name.
    """

    views: Sequence[View]
    by: str
    item: str | None = None
    context: tuple[str, ...] = ()
    scores: tuple[str, ...] = ()
    requests: Mapping[str, Request] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _ = self._split

    @cached_property
    def _split(self) -> tuple[tuple[View, ...], tuple[View, ...]]:
        known = {self.by, *self.context}
        early, late = [], []
        for view in self.views:
            if set(view.by) <= known:
                early.append(view)
                known |= _attributes(view)
            else:
                late.append(view)
        known |= {self.item} if self.item is not None else set()
        # Views by the item alone come first: their attributes may key the others.
        late.sort(key=lambda view: view.by != (self.item,))
        for view in late:
            missing = [f for f in view.by if f not in known]
            if missing:
                raise DefinitionError(
                    f"every key field of view {view.name} comes from the request ({self.by}), the candidate "
                    f"({self.item}) or a latest feature of that name",
                    got=f"{missing[0]!r}, which none gives",
                    remedy=f"add {missing[0]} = ps.latest({missing[0]!r}) to the view by {self.item}",
                )
            known |= _attributes(view)
        return tuple(early), tuple(late)

    @cached_property
    def early(self) -> tuple[View, ...]:
        """Views read once a request."""
        return self._split[0]

    @cached_property
    def late(self) -> tuple[View, ...]:
        """Views read once a candidate."""
        return self._split[1]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The matrix's columns: number features as "View.feature", source scores, request-time columns."""
        features = (
            f"{view.name}.{name}"
            for view in (*self.early, *self.late)
            for name, aggregate in view.features.items()
            if not aggregate.is_list
        )
        return (*features, *self.scores, *self.requests)

    @cached_property
    def places(self) -> dict[str, int]:
        """Where each column stands, by name."""
        return {name: place for place, name in enumerate(self.names)}

    @cached_property
    def lasting(self) -> tuple[int, ...]:
        """The columns that say of a candidate, whoever asks and whenever, what its record says."""
        found, place = [], 0
        for view in (*self.early, *self.late):
            for aggregate in view.features.values():
                if not aggregate.is_list:
                    if view.by == (self.item,) and aggregate.timeless:
                        found.append(place)
                    place += 1
        return tuple(found)

    def open(self, read: Read, keys: Mapping[str, NDArray[np.uint32]], now: NDArray[np.int64]) -> Requests:
        """Reads the views of R requests; `keys` holds (R,) codes for `by` and the context fields given."""
        n = len(now)
        columns = dict(keys)
        values: dict[str, Array] = {}
        everyone = np.arange(n)
        for view in self.early:
            _read_into(values, columns, view, read, everyone)
        return Requests(columns, values, now)

    def matrix(
        self, read: Read, opened: Requests, owner: NDArray[np.int64], items: NDArray[np.uint32], scores: Array
    ) -> Matrix:
        """The rows, (n, len(names)), of n candidates; `owner` (n,) is each one's request."""
        columns = {name: codes[owner] for name, codes in opened.keys.items()}
        if self.item is not None:
            columns[self.item] = items
        late: dict[str, Array] = {}
        for view in self.late:
            _read_into(late, columns, view, read, owner)
        out = np.empty((len(items), len(self.names)), np.float64)
        place = 0
        for view in (*self.early, *self.late):
            for name, aggregate in view.features.items():
                if not aggregate.is_list:
                    full = f"{view.name}.{name}"
                    out[:, place] = late[full] if full in late else opened.values[full][owner]
                    place += 1
        out[:, place : place + len(self.scores)] = scores
        place += len(self.scores)
        if self.requests:
            early = {n: v[owner] for n, v in opened.values.items() if n in self._wanted}
            self._derive(out, place, {**early, **late}, opened.now[owner])
        editions = [late.get(f"{view.name}.{EDITION}") for view in self.late if view.by == (self.item,)]
        known = [edition for edition in editions if edition is not None]
        return Matrix(out, columns, np.stack(known, axis=1) if known and len(known) == len(editions) else None)

    @cached_property
    def _wanted(self) -> frozenset[str]:
        return frozenset(n for r in self.requests.values() for n in r.expression.meta.root_names())

    @cached_property
    def _derived(self) -> list[pl.Expr]:
        return [finite(r.expression).alias(name) for name, r in self.requests.items()]

    @cached_property
    def _one_by_one(self) -> tuple[list[tuple[str, int]], list[Function]] | None:
        """For single rows: the columns that expressions read and their places, and the expressions as functions."""
        places = {name: place for place, name in enumerate(self.names) if name not in self.requests}
        types: dict[str, Type] = {**dict.fromkeys(places, "float"), "now": "time"}
        found = compiled([request.expression for request in self.requests.values()], types.get)
        return None if found is None else ([(n, places[n]) for n in self._wanted if n in places], found)

    def _derive(self, out: Array, place: int, values: Mapping[str, Array], now: Array) -> None:
        if len(out) == 1 and self._one_by_one is not None:
            reads, functions = self._one_by_one
            given = out[0].tolist()
            row = {name: None if isnan(given[at]) else given[at] for name, at in reads} | {"now": int(now[0])}
            out[0, place:] = [as_float(function(row)) for function in functions]
            return
        columns: dict[str, Array | pl.Series] = {"now": pl.Series(now).cast(pl.Datetime("us", "UTC"))}
        for position, name in enumerate(self.names[:place]):
            if name in self._wanted:
                columns[name] = pl.Series(name, out[:, position], nan_to_null=True)
        for name in self._wanted & values.keys():
            if values[name].ndim == 2:
                columns[name] = values[name][:, 0] if values[name].shape[1] == 1 else values[name]
        derived = evaluated(pl.DataFrame(columns), self._derived)
        for offset, series in enumerate(derived.get_columns()):
            out[:, place + offset] = series.to_numpy()


def _attributes(view: View) -> set[str]:
    return {name for name, aggregate in view.features.items() if isinstance(aggregate, Latest)}


def _read_into(
    values: dict[str, Array], columns: dict[str, NDArray[np.uint32]], view: View, read: Read, at: NDArray[np.int64]
) -> None:
    keys = np.stack([columns[name] for name in view.by], axis=1) if view.by else np.zeros((len(at), 0), np.uint32)
    for name, column in read(view, keys, at).items():
        values[f"{view.name}.{name}"] = column
        if isinstance(view.features.get(name), Latest):
            columns.setdefault(name, column[:, 0])
