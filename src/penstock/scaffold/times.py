"""Which columns say when, and how they write it."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from penstock.clock import SECOND
from penstock.events.mapping import Time
from penstock.scaffold.words import TIME, fit, tokens

ENOUGH = 0.98
"""The share of values that must be readable."""
_LOOKED_AT = 2_000
_FIRST, _LAST = 631_152_000, 4_102_444_800  # 1990 and 2100, in seconds
_UNITS = (("s", 1), ("ms", 1_000), ("us", 1_000_000))
_DAYS = ("%Y-%m-%d", "%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y%m%d", "%d.%m.%y",
         "%d/%m/%y", "%m/%d/%y", "%d %b %Y", "%b %d, %Y", "%d %B %Y", "%B %d, %Y")  # fmt: skip
_CLOCKS = ("%H:%M:%S", "%H:%M:%S%.f", "%H:%M", "%I:%M:%S %p", "%I:%M %p", "%H:%M:%S UTC")
_ZONED = ("%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S %z", "%Y-%m-%dT%H:%M:%S%.f%#z", "%d/%b/%Y:%H:%M:%S %z")
_FORMATS = (
    *_ZONED, *(f"{day}{gap}{clock}" for day in _DAYS for gap in (" ", "T") for clock in _CLOCKS), "%Y%m%d%H%M%S", *_DAYS
)  # fmt: skip
_SWAP = {"%d/%m": "%m/%d", "%m/%d": "%d/%m", "%d-%m": "%m-%d", "%m-%d": "%d-%m"}


@dataclass(frozen=True)
class Form:
    """How a column writes moments, or days.

    Attributes:
        unit: of a number, else None.
        format: of a text, else None; both None for RFC 3339 text and for true dates.
        days: whether it knows only the day.
        doubt: what else it could mean.
    """

    unit: str | None = None
    format: str | None = None
    days: bool = False
    doubt: str = ""

    def __str__(self) -> str:
        if self.unit:
            return {"s": "seconds", "ms": "milliseconds", "us": "microseconds"}[self.unit] + " since 1970"
        return f"text as {self.format!r}" if self.format else "dates with a time"


@dataclass(frozen=True)
class When:
    """The guessed `[time]` of a mapping: the part itself, how it is written, why, and what is unsure."""

    time: Time
    form: Form
    why: str
    doubts: tuple[str, ...]


def form_of(values: pl.Series) -> Form | None:
    """How a column writes moments; None where it does not."""
    if isinstance(values.dtype, pl.Date | pl.Datetime):
        return Form(days=isinstance(values.dtype, pl.Date))
    values = values.drop_nulls()
    if values.dtype != pl.String or not len(values):
        return None
    some = values.gather_every(max(1, len(values) // _LOOKED_AT)).head(_LOOKED_AT)
    number = some.cast(pl.Float64, strict=False)
    if number.null_count() == 0:
        dated = form_by(some, ("%Y%m%d%H%M%S", "%Y%m%d"))
        return dated or next((Form(unit=unit) for unit, factor in _UNITS if _in_range(number, factor)), None)
    return form_by(some, ("%+", *_FORMATS))


def form_by(some: pl.Series, formats: tuple[str, ...]) -> Form | None:
    """The first format that reads the values; of two that swap day and month the one that keeps them in order."""
    for form in formats:
        if _reads(some, form):
            swap = next((form.replace(a, b) for a, b in _SWAP.items() if a in form), None)
            days = form in _DAYS
            if form == "%+":
                return Form()
            if swap is None or swap == form or not _reads(some, swap):
                return Form(format=form, days=days)
            best = max((form, swap), key=lambda one: _order(some, one))
            return Form(format=best, days=days, doubt="day and month could be the other way round")
    return None


def when(frame: pl.DataFrame, headed: bool) -> When | None:
    """The columns that say when: one, a day and a clock, or year, month and day."""
    forms = {name: form for name in frame.columns if (form := form_of(frame[name])) is not None}
    apart = _apart(frame)
    if apart is not None and all(form.days or _number(name, form) for name, form in forms.items()):
        return apart
    scores = {name: fit(name, TIME) + (0 if form.days else 1) for name, form in forms.items()}
    # A number in the range of a clock may be an id as well: its name has to say so, where it has one.
    scores = {name: score for name, score in scores.items() if not headed or forms[name].unit is None or score > 1}
    if not scores:
        return None
    name = max(scores, key=lambda one: (scores[one], forms[one].unit is None, frame[one].n_unique()))
    form, others = forms[name], [one for one in scores if one != name]
    if form.days and (joined := _with_clock(frame, name, form)):
        return joined
    doubts = [form.doubt] if form.doubt else []
    if others and scores[name] - max(scores[one] for one in others) < 1:
        doubts.append("it could also be " + ", ".join(others))
    return _made((name,), form, f"{form}, in every row that was looked at", doubts)


def moments(frame: pl.DataFrame, found: When) -> pl.Series:
    """When each row happened, in microseconds; null where it cannot be read."""
    columns, time = found.time.columns, found.time
    if frame[columns[0]].dtype != pl.String:
        return frame[columns[0]].cast(pl.Datetime("us")).dt.timestamp("us")
    text = frame.select(pl.concat_str([pl.col(name) for name in columns], separator=" ")).to_series()
    if found.form.unit is not None:
        factor = {"s": 1_000_000, "ms": 1_000, "us": 1}[found.form.unit]
        return (text.cast(pl.Float64, strict=False) * factor).cast(pl.Int64, strict=False)
    return _parsed(text, time.format or "%+")


def _made(columns: tuple[str, ...], form: Form, why: str, doubts: list[str]) -> When:
    time = Time(columns=columns, format=form.format)
    if form.unit is not None:
        time = Time(columns=columns, unit=form.unit)  # type: ignore[arg-type]
    if form.format is not None and "z" not in form.format and "UTC" not in form.format:
        doubts = [*doubts, "UTC is assumed: the text names no zone"]
    return When(time, form, why, tuple(doubts))


def _number(name: str, form: Form) -> bool:
    return form.unit is not None and fit(name, TIME) <= 0


def _apart(frame: pl.DataFrame) -> When | None:
    """Year, month and day as three columns."""
    found = [next((c for c in frame.columns if tokens(c) == [part]), None) for part in ("year", "month", "day")]
    if None in found:
        return None
    columns = tuple(str(name) for name in found)
    joined = frame.select(pl.concat_str([pl.col(c).cast(pl.String) for c in columns], separator=" ")).to_series()
    form = Form(format="%Y %m %d", days=True)
    return _made(columns, form, "year, month and day", []) if _reads(joined, "%Y %m %d") else None


def _with_clock(frame: pl.DataFrame, day: str, form: Form) -> When | None:
    """A day in one column and the time of day in another."""
    if form.format is None:
        return None
    for name in frame.columns:
        if name != day and frame[name].dtype == pl.String and fit(name, TIME) >= 0 and frame[name].null_count() == 0:
            joined = frame.select(pl.concat_str(day, name, separator=" ")).to_series().drop_nulls()
            some = joined.gather_every(max(1, len(joined) // _LOOKED_AT)).head(_LOOKED_AT)
            clock = next((clock for clock in _CLOCKS if _reads(some, f"{form.format} {clock}")), None)
            if clock is not None:
                whole = Form(format=f"{form.format} {clock}", doubt=form.doubt)
                return _made((day, name), whole, "a day and a time of day", [form.doubt] if form.doubt else [])
    return None


def _in_range(number: pl.Series, factor: int) -> bool:
    return bool(((number / factor).is_between(_FIRST, _LAST)).mean() >= ENOUGH)  # type: ignore[operator]


def _parsed(some: pl.Series, form: str) -> pl.Series:
    try:
        if form == "%+" or "z" in form:
            return some.str.strptime(pl.Datetime("us", "UTC"), form, strict=False).dt.timestamp("us")
        if "%H" in form or "%I" in form:
            return some.str.strptime(pl.Datetime("us"), form, strict=False).dt.timestamp("us")
        return some.str.strptime(pl.Date, form, strict=False).cast(pl.Datetime("us")).dt.timestamp("us")
    except pl.exceptions.PolarsError:
        return pl.Series([None] * len(some), dtype=pl.Int64)


def _reads(some: pl.Series, form: str) -> bool:
    parsed = _parsed(some, form)
    good = (parsed // SECOND).is_between(_FIRST, _LAST).fill_null(False)
    return bool(len(good)) and float(good.mean() or 0.0) >= ENOUGH  # type: ignore[arg-type]


def _order(some: pl.Series, form: str) -> tuple[float, int]:
    """How far the file is in the order of time by this format; then how short a span it covers."""
    parsed = _parsed(some, form).drop_nulls()
    steps = parsed.diff().drop_nulls()
    rising = float((steps >= 0).mean() or 0.0) if len(steps) else 0.0  # type: ignore[arg-type]
    span = int(parsed.max()) - int(parsed.min()) if len(parsed) else 0  # type: ignore[arg-type]
    return max(rising, 1 - rising), -span
