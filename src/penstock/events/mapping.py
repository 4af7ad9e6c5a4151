"""Mapping files: how the columns of a shop's own file become events of one stream."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from penstock.clock import DAY, duration
from penstock.errors import MappingError, PenstockError
from penstock.registry import fingerprint
from penstock.types import Schema

_MOST_AFTER = 36_525 * DAY


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of a mapping: unknown keys are errors."""


class Csv(Part, frozen=True):
    """The look of a delimited file.

    Attributes:
        separator: between columns; a comma by default, in .tsv a tab.
        header: whether the first line names the columns.
        columns: their names, in place of a header or over it.
        encoding: of the text.
        missing: texts that stand for "nothing", beside the empty one.
    """

    separator: str | None = None
    header: bool = True
    columns: tuple[str, ...] = ()
    encoding: str = "utf-8"
    missing: tuple[str, ...] = ()


class Spread(Part, frozen=True):
    """Times within a day, for a file that knows only the day and an order.

    Without `by` an event lies `order` steps after midnight. With `by` (a session) the day is cut into equal
    slots, one for each session in order of first appearance; its events lie `order` steps into its slot, the
    step made shorter where they would not fit. So sessions of a day never overlap.
    """

    order: str
    by: str | None = None
    step: str = "1s"


class Time(Part, frozen=True):
    """When an event happened, and in which order equal times come.

    Rows of one time keep their order: each is dated a microsecond after the one before.

    Attributes:
        columns: one, or several joined by a space.
        unit: of a number since 1970 UTC; "auto" takes seconds or RFC 3339 text.
        format: of a text, as in ``strptime``; then `zone` says which clock it was read from.
        arrived: a column that says when the event arrived, in the same form; when it happened by default.
        after: a span added to the time, such as "7d": when something becomes known that long after the row's own
            moment.
        order: columns that break ties between equal times, before the row number.
        spread: makes times of days.
    """

    columns: tuple[str, ...]
    unit: Literal["auto", "s", "ms", "us"] = "auto"
    format: str | None = None
    zone: str = "UTC"
    arrived: str | None = None
    after: str | None = None
    order: tuple[str, ...] = ()
    spread: Spread | None = None


class Source(Part, frozen=True):
    """Where one field comes from: exactly one of `column`, `constant`, `sql`.

    Attributes:
        column: a column of the file.
        constant: the same value for every row.
        sql: a Polars SQL expression over the columns, which are text.
        map: the file's words → ours; any other word is rejected.
        cents: the amount is in cents already.
        round: amounts with more than 2 decimals are rounded to the nearest cent instead of rejected.
    """

    column: str | None = None
    constant: str | int | float | bool | None = None
    sql: str | None = None
    map: dict[str, str] | None = None
    cents: bool = False
    round: bool = False


class Filter(Part, frozen=True):
    """`keep` is a Polars SQL expression; rows for which it is false are dropped and counted.

    Where it is unknown (a value cannot be read) the row goes on, and is judged by its fields.
    """

    keep: str


class Mapping(Part, frozen=True):
    """One mapping file.

    Attributes:
        stream: the stream that the rows become events of.
        fields: field → column name, or a `Source`.
        time: see `Time`.
        id: columns that together are the idempotency key; by default the file's content and the row number,
            so that the same file counts once.
        csv: see `Csv`.
        filter: see `Filter`.

    >>> mapping = Mapping.parse('stream = "visit"\\n[time]\\ncolumns = ["at"]\\n[fields]\\npage = "url"')
    >>> mapping.source("page").column, mapping.time.unit
    ('url', 'auto')
    """

    stream: str
    fields: dict[str, str | Source]
    time: Time
    id: tuple[str, ...] = ()
    csv: Csv = Csv()
    filter: Filter | None = None

    @staticmethod
    def load(path: Path | str) -> Mapping:
        """Reads a mapping file (TOML).

        Raises:
            MappingError: it cannot be read, or says something that no mapping says.
        """
        try:
            text = Path(path).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise MappingError("a mapping file can be read", got=str(error), remedy="name an existing one") from None
        return Mapping.parse(text, str(path))

    @staticmethod
    def parse(text: str, name: str = "mapping") -> Mapping:
        """A mapping from TOML text; `name` is for messages."""
        try:
            mapping = msgspec.toml.decode(text, type=Mapping)
            _check(mapping)
        except (msgspec.MsgspecError, PenstockError) as error:
            raise MappingError(
                f"{name} is a mapping", got=str(error), remedy="compare it with the documented example"
            ) from None
        return mapping

    @staticmethod
    def plain(schema: Schema, columns: tuple[str, ...]) -> Mapping:
        """For a file whose columns are named as the event's fields, `time` and `id` among them."""
        return Mapping(
            stream=schema.stream,
            fields={field.name: field.name for field in schema.fields if field.name in columns},
            time=Time(columns=("time",)),
            id=("id",) if "id" in columns else (),
        )

    def source(self, field: str) -> Source:
        """Where a field comes from, spelled out."""
        given = self.fields[field]
        return Source(column=given) if isinstance(given, str) else given

    @property
    def fingerprint(self) -> str:
        """Changes with anything that the mapping says."""
        said = msgspec.to_builtins(self)
        if self.time.after is None:
            # As it was before there was `after`: files that were ingested then are still known.
            del said["time"]["after"]
        return fingerprint(said)


def _check(mapping: Mapping) -> None:
    for name in mapping.fields:
        source = mapping.source(name)
        given = [part for part in (source.column, source.constant, source.sql) if part is not None]
        if len(given) != 1:
            raise MappingError(
                f"fields.{name} has one of column, constant and sql", got=f"{len(given)} of them", remedy="keep one"
            )
    if not mapping.time.columns:
        raise MappingError("time.columns names a column", got="none", remedy='write columns = ["at"]')
    if mapping.time.format is not None and mapping.time.unit != "auto":
        raise MappingError("time has a unit or a format", got="both", remedy="keep one")
    if mapping.time.after is not None:
        if duration(mapping.time.after) > _MOST_AFTER:
            raise MappingError("time.after is at most 100 years", got=mapping.time.after, remedy="write a shorter one")
        if mapping.time.arrived is not None:
            raise MappingError("time has after or arrived", got="both", remedy="keep one: what comes after has arrived")
    if mapping.time.spread is not None:
        duration(mapping.time.spread.step)
    if mapping.csv.separator is not None and len(mapping.csv.separator.encode()) != 1:
        raise MappingError("csv.separator is one byte", got=repr(mapping.csv.separator), remedy='write "," or ";"')
