"""Columns of text as values of the log: each rule a mask over all rows, the first broken one rejects the row."""

from __future__ import annotations

import json
from collections.abc import Mapping as ReadOnly
from dataclasses import dataclass, field

import polars as pl

from penstock.clock import DAY, SECOND, duration
from penstock.errors import MappingError
from penstock.events.mapping import Mapping, Source, Spread, Time
from penstock.events.rejection import Rejection
from penstock.events.schema import EventType
from penstock.events.tabular import ROW, Table
from penstock.events.values import MAX_TIME, show
from penstock.types import Field, Micros

TIME, ARRIVED, ID = "_time", "_arrived", "_id"
_UNIT = {"auto": SECOND, "s": SECOND, "ms": 1_000, "us": 1}
_AMOUNT = r"^([+-]?)(\d{1,15})(?:\.(\d{0,2})0*)?$"
_ZONED = ("%z", "%:z", "%#z", "%+")
_CLOCK = ("%H", "%I", "%k", "%l", "%T", "%R", "%X", "%r", "%c", "%+", "%s")


@dataclass
class Rules:
    """Rows that break a rule, by the first one that they break; `broken` are (mask, source, field, rule, remedy)."""

    broken: list[tuple[pl.Expr, pl.Expr, str, str, str]] = field(default_factory=list)

    def refuse(self, mask: pl.Expr, source: pl.Expr, name: str, rule: str, remedy: str) -> None:
        """Rejects the rows where `mask` holds; `source` is what the message shows."""
        self.broken.append((mask, source, name, rule, remedy))


def convert(
    table: Table, mapping: Mapping, kind: EventType, mark: str, max_text: int, latest: Micros = MAX_TIME
) -> Converted:
    """Rows in the log's order, with `TIME`, `ARRIVED`, `ID` and the fields; and those refused or dropped.

    Args:
        table: the file's rows.
        mapping: how they become events.
        kind: of which type.
        mark: the file's fingerprint, for rows without an id of their own.
        max_text: the most characters in a text.
        latest: the latest time that a row may carry.
    """
    _check_names(mapping, kind)
    sources = {name: _source(mapping.source(name), f"fields.{name}") for name in mapping.fields}
    _check_columns(table.frame, mapping, sources)
    try:
        frame, dropped = _filtered(table.frame, mapping)
        rules = Rules()
        columns = [*_times(frame, mapping.time, latest, rules), _id(mapping, mark, max_text, rules)]
        for part in kind.schema.fields:
            if part.name in sources:
                columns.append(_field(part, kind, mapping.source(part.name), sources[part.name], max_text, rules))
            else:
                columns.append(pl.lit(None, pl.Float64 if part.kind == "float" else pl.Int64).alias(part.name))
        values = frame.select(ROW, *columns, *_order(mapping.time))
        good, rejected = _judge(frame, rules)
    except pl.exceptions.PolarsError as error:
        raise MappingError(
            "the mapping's expressions fit the file",
            got=str(error).splitlines()[0],
            remedy="columns are text: TRY_CAST them",
        ) from None
    values = values.filter(good)
    if mapping.time.spread is not None:
        values = _spread(values, frame.filter(good), mapping.time.spread, mapping.time.arrived is None)
    keys = [ARRIVED, *(name for name in values.columns if name.startswith("_order")), ROW]
    names = [part.name for part in kind.schema.fields]
    ordered = _apart(values.sort(keys, nulls_last=True)).select(ARRIVED, TIME, ID, *names)
    return Converted(ordered, [*table.broken, *rejected], dropped)


@dataclass(frozen=True)
class Converted:
    """Rows for the log in its order, those refused, and how many the filter dropped."""

    frame: pl.DataFrame
    rejected: list[Rejection]
    dropped: int


def _check_names(mapping: Mapping, kind: EventType) -> None:
    if mapping.stream != kind.stream:
        raise MappingError("the mapping is for this stream", got=mapping.stream, remedy=f"write {kind.stream!r}")
    known = [part.name for part in kind.schema.fields]
    for name in mapping.fields:
        if name not in known:
            raise MappingError(f"{kind.stream} has the field", got=name, remedy="use " + ", ".join(known), field=name)
    for part in kind.schema.fields:
        if not part.optional and part.name not in mapping.fields:
            raise MappingError(
                f"every required field of {kind.stream} is mapped",
                got=f"none for {part.name}",
                remedy="add it to [fields]",
            )


def _check_columns(frame: pl.DataFrame, mapping: Mapping, sources: ReadOnly[str, pl.Expr]) -> None:
    time, spread = mapping.time, mapping.time.spread
    wanted = [*time.columns, *time.order, *mapping.id, *([time.arrived] if time.arrived else [])]
    wanted += [name for name in (spread.order, spread.by) if name] if spread else []
    for expression in [*sources.values(), *([_sql(mapping.filter.keep, "filter")] if mapping.filter else [])]:
        wanted += expression.meta.root_names()
    for name in wanted:
        if name not in frame.columns:
            raise MappingError(
                "the mapping's columns are in the file",
                got=name,
                remedy="the file has " + ", ".join(c for c in frame.columns if c != ROW),
                field=name,
            )


def _sql(text: str, where: str) -> pl.Expr:
    try:
        return pl.sql_expr(text)
    except pl.exceptions.PolarsError as error:
        raise MappingError(f"{where} is a Polars SQL expression", got=str(error), remedy="correct it") from None


def _source(source: Source, where: str) -> pl.Expr:
    if source.sql is not None:
        expression = _sql(source.sql, where)
    elif source.column is not None:
        expression = pl.col(source.column)
    else:
        value = source.constant
        expression = pl.lit(json.dumps(value) if isinstance(value, bool) else str(value))
    return expression.cast(pl.String)


def _filtered(frame: pl.DataFrame, mapping: Mapping) -> tuple[pl.DataFrame, int]:
    if mapping.filter is None:
        return frame, 0
    kept = frame.filter(_sql(mapping.filter.keep, "filter").fill_null(True))
    return kept, len(frame) - len(kept)


# Times


def _times(frame: pl.DataFrame, time: Time, latest: Micros, rules: Rules) -> list[pl.Expr]:
    out = []
    late, remedy = "time is", "mend the row, or [time] of the mapping"
    if time.after is not None:
        late, remedy = f"time and {time.after} after it are", "ingest a later export, or mend time.after"
    for name, columns in ((TIME, time.columns), (ARRIVED, (time.arrived,) if time.arrived else time.columns)):
        shown = pl.concat_str([pl.col(column).cast(pl.String) for column in columns], separator=" ")
        value = _instant(frame, time, columns, shown) + (duration(time.after) if time.after else 0)
        form = f"fits {time.format!r}" if time.format else "is RFC 3339 text or a number"
        outside = value.is_null() | (value < 0) | (value >= MAX_TIME)
        rules.refuse(outside, shown, "time", f"time {form}, from 1970 on", "mend the row, or [time] of the mapping")
        rules.refuse(value > latest, shown, "time", f"{late} not in the future", remedy)
        out.append(value.alias(name))
    return out


def _instant(frame: pl.DataFrame, time: Time, columns: tuple[str, ...], text: pl.Expr) -> pl.Expr:
    dtype = frame.schema[columns[0]]
    if len(columns) == 1 and isinstance(dtype, pl.Datetime | pl.Date):
        moment = pl.col(columns[0]).cast(pl.Datetime("us")) if isinstance(dtype, pl.Date) else pl.col(columns[0])
        return _in_zone(moment, getattr(dtype, "time_zone", None), time.zone)
    if time.format is not None:
        return _formatted(text, time.format, time.zone)
    unit = _UNIT[time.unit]
    number = text.cast(pl.Float64, strict=False)
    whole = text.cast(pl.Int64, strict=False) * unit
    # The float says whether the product fits; the integer is exact.
    fits = (number * unit).abs() < float(MAX_TIME)
    value = pl.when(fits).then(whole.fill_null((number * unit).round().cast(pl.Int64, strict=False)))
    if time.unit == "auto":
        written = text.str.strptime(pl.Datetime("us", "UTC"), "%+", strict=False).dt.timestamp("us")
        return pl.coalesce(value, written)
    return value.otherwise(None)


def _formatted(text: pl.Expr, form: str, zone: str) -> pl.Expr:
    if any(part in form for part in _ZONED):
        return text.str.strptime(pl.Datetime("us", "UTC"), form, strict=False).dt.timestamp("us")
    if any(part in form for part in _CLOCK):
        return _in_zone(text.str.strptime(pl.Datetime("us"), form, strict=False), None, zone)
    return _in_zone(text.str.strptime(pl.Date, form, strict=False).cast(pl.Datetime("us")), None, zone)


def _in_zone(moment: pl.Expr, held: str | None, zone: str) -> pl.Expr:
    if held is None:
        # The hour that a clock shows twice in autumn is taken as its first; one that it skips is refused.
        moment = moment.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return moment.dt.timestamp("us")


def _order(time: Time) -> list[pl.Expr]:
    out = []
    for n, name in enumerate(time.order):
        text = pl.col(name).cast(pl.String)
        out += [text.cast(pl.Float64, strict=False).alias(f"_order{n}_number"), text.alias(f"_order{n}_text")]
    return out


def _spread(values: pl.DataFrame, rows: pl.DataFrame, spread: Spread, arrives: bool) -> pl.DataFrame:
    step = duration(spread.step)
    order = rows[spread.order].cast(pl.Int64, strict=False).fill_null(0).clip(lower_bound=0)
    by = rows[spread.by] if spread.by else None
    frame = pl.DataFrame({"day": values[TIME], "row": rows[ROW], "order": order})
    if by is None:
        late = (pl.col("order") * step).clip(upper_bound=DAY - 1)
    else:
        frame = frame.with_columns(by.alias("by"))
        first = pl.col("row").min().over("day", "by")
        frame = frame.with_columns(
            place=first.rank("dense").over("day").cast(pl.Int64), most=pl.col("order").max().over("day", "by")
        )
        slot = pl.lit(DAY, pl.Int64) // pl.col("place").max().over("day")
        gap = pl.min_horizontal(pl.lit(step, pl.Int64), slot // (pl.col("most") + 1))
        late = (pl.col("place") - 1) * slot + pl.col("order") * gap
    times = frame.select(late=late)["late"]
    moved = [(pl.col(TIME) + times).alias(TIME)] + ([(pl.col(ARRIVED) + times).alias(ARRIVED)] if arrives else [])
    return values.with_columns(moved)


def _apart(values: pl.DataFrame) -> pl.DataFrame:
    """Rows of one time, each a microsecond after the one before it, as far as the next time leaves room.

    A clock of seconds or minutes says nothing of the order within one; the file does, and features that look at
    the newest values need it.
    """
    same = values.select(ARRIVED, TIME, run=pl.struct(ARRIVED, TIME).rle_id(), row=pl.int_range(pl.len()))
    after = same[TIME].unique().sort()
    room = pl.DataFrame({TIME: after, "room": after.shift(-1, fill_value=MAX_TIME) - after - 1})
    late = same.join(room, on=TIME, how="left", maintain_order="left").select(
        late=pl.min_horizontal(pl.col("row") - pl.col("row").min().over("run"), "room")
    )["late"]
    return values.with_columns(pl.col(ARRIVED) + late, pl.col(TIME) + late)


# Fields


def _id(mapping: Mapping, mark: str, max_text: int, rules: Rules) -> pl.Expr:
    if not mapping.id:
        return (pl.lit(f"{mark}:") + pl.col(ROW).cast(pl.String)).alias(ID)
    key = pl.concat_str([pl.col(name).cast(pl.String) for name in mapping.id], separator=":")
    rules.refuse(
        key.is_null(), pl.lit(None, pl.String), "id", "the columns of the id have values", "fill them, or leave id out"
    )
    rules.refuse(
        key.str.len_chars() > max_text, key, "id", f"id has at most {max_text} characters", "use fewer columns"
    )
    return key.alias(ID)


def _field(part: Field, kind: EventType, given: Source, source: pl.Expr, max_text: int, rules: Rules) -> pl.Expr:
    name, text = part.name, source
    if given.map is not None:
        text = source.replace_strict(given.map, default=None, return_dtype=pl.String)
        rules.refuse(
            source.is_not_null() & text.is_null(), source, name,
            f"{name} is one of the mapped {', '.join(given.map)}", f"add the word to fields.{name}.map",
        )  # fmt: skip
    if not part.optional:
        rules.refuse(text.is_null(), source, name, f"{name} is present", "fill the column, or filter such rows out")
    if part.kind == "text":
        _text_rules(name, text, kind.choices.get(name, ()), max_text, rules)
        return text.alias(name)
    value, noun, remedy = _number(part, given, text)
    rules.refuse(text.is_not_null() & value.is_null(), text, name, f"{name} is {noun}", remedy)
    return value.alias(name)


def _text_rules(name: str, text: pl.Expr, choices: tuple[str, ...], max_text: int, rules: Rules) -> None:
    if choices:
        allowed = ", ".join(choices)
        rules.refuse(
            ~text.is_in(choices), text, name, f"{name} is one of {allowed}", f"map its words in fields.{name}.map"
        )
    rules.refuse(text.str.len_chars() > max_text, text, name, f"{name} has at most {max_text} characters", "shorten it")
    rules.refuse(text.str.contains("\0", literal=True), text, name, f"{name} has no NUL character", "remove it")


def _number(part: Field, given: Source, text: pl.Expr) -> tuple[pl.Expr, str, str]:
    """The column's values, null where they are none, and the words for those."""
    if part.kind == "bool":
        word = text.str.to_lowercase()
        return (
            word.replace_strict({"true": 1, "1": 1, "false": 0, "0": 0}, default=None, return_dtype=pl.Int64),
            ("true or false, or 1 or 0"),
            "map its words",
        )
    if part.kind == "float":
        value = text.cast(pl.Float64, strict=False)
        return pl.when(value.is_finite()).then(value), "a finite number", "mend the row, or name it in csv.missing"
    if part.kind == "int" or given.cents:
        value = text.str.replace(r"\.0+$", "").cast(pl.Int64, strict=False)
        return pl.when(value > -(2**63)).then(value), "a whole number of 64 bits", "round it, or keep it as text"
    sign, whole, part_ = (text.str.extract(_AMOUNT, n) for n in (1, 2, 3))
    exact = whole.cast(pl.Int64) * 100 + part_.fill_null("").str.pad_end(2, "0").cast(pl.Int64)
    exact = pl.when(sign == "-").then(-exact).otherwise(exact)
    if not given.round:
        return exact, "an amount with at most 2 decimals", f"mend the row, or set fields.{part.name}.round = true"
    number = text.cast(pl.Float64, strict=False)
    near = pl.when(number.abs() < 1e15).then((number * 100).round().cast(pl.Int64, strict=False))
    return pl.coalesce(exact, near), "an amount", "mend the row"


def _judge(frame: pl.DataFrame, rules: Rules) -> tuple[pl.Series, list[Rejection]]:
    """Which rows are good, and a rejection for each of the others."""
    masks = frame.select(mask.fill_null(False).alias(str(n)) for n, (mask, *_) in enumerate(rules.broken))
    good = pl.Series("good", [True] * len(frame), pl.Boolean)
    rejected = []
    for mask, (_, source, name, rule, remedy) in zip(masks, rules.broken, strict=True):
        hit = mask & good
        if not hit.any():
            continue
        good = good & ~mask
        rows = frame.filter(hit)
        shown = rows.select(pl.lit(None, pl.String).alias("null"), source.alias("shown"))["shown"]
        for got, row in zip(shown, rows.iter_rows(named=True), strict=True):
            index = row.pop(ROW)
            rejected.append(
                Rejection(index, name, rule, show(got), remedy, json.dumps(row, default=str, ensure_ascii=False))
            )
    return good, sorted(rejected, key=lambda rejection: rejection.index)
