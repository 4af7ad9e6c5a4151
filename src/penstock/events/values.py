"""Single values from outside: times and amounts, each exact or refused."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from penstock.clock import SECOND
from penstock.errors import EventError
from penstock.types import Micros

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_CENT = Decimal("0.01")
MAX_MONEY = Decimal("90000000000000000")  # in int64 cents with room to spare
MAX_TIME = 253_402_300_800 * SECOND  # the year 10000, where datetime ends
_SHOWN = 80


def show(value: Any) -> str:
    """A value as a message quotes it: JSON, cut to 80 characters.

    >>> show("a"), show(float("nan")), show(None)
    ('"a"', 'NaN', 'null')
    """
    text = value if isinstance(value, Decimal) else json.dumps(value, default=repr)
    return str(text) if len(str(text)) <= _SHOWN else f"{str(text)[:_SHOWN]}…"


def micros(value: str | int | float, latest: Micros) -> Micros:
    """A time from outside in microseconds, at most `latest`.

    >>> micros(1.5, MAX_TIME), micros("1970-01-01T01:00:00+01:00", MAX_TIME)
    (1500000, 0)
    """
    at = _text_time(value) if isinstance(value, str) else _number_time(value)
    if at < 0:
        raise EventError("time is not before 1970", got=show(value), remedy="send seconds since 1970 UTC", field="time")
    if at > latest:
        limit, remedy = "the year 9999", "send seconds, not milliseconds, since 1970 UTC"
        if latest < MAX_TIME - 1:
            limit = (_EPOCH + latest * _MICROSECOND).isoformat()
            remedy += ", and set the sender's clock; if events do lie so far ahead, serve with a larger --future"
        raise EventError(f"time is not after {limit}", got=show(value), remedy=remedy, field="time")
    return at


def _number_time(value: int | float) -> Micros:
    if isinstance(value, float) and not math.isfinite(value * SECOND):
        raise EventError("time is finite", got=show(value), remedy="send seconds since 1970 UTC", field="time")
    return round(value * SECOND)


def _text_time(value: str) -> Micros:
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise EventError(
            "time is RFC 3339 text with a zone, or a number of seconds",
            got=show(value),
            remedy='write it like "2024-05-01T12:00:00Z" or 1714564800',
            field="time",
        )
    return (at - _EPOCH) // _MICROSECOND


def cents(value: Decimal, field: str) -> int:
    """An amount in cents, exactly.

    >>> cents(Decimal("19.99"), "price")
    1999
    """
    if not value.is_finite():
        raise EventError(f"{field} is a finite amount", got=show(value), remedy="send a number", field=field)
    if abs(value) > MAX_MONEY:
        raise EventError(
            f"{field} is at most {MAX_MONEY:,} either way", got=show(value), remedy="check its unit", field=field
        )
    rounded = value.quantize(_CENT)
    if rounded != value:
        raise EventError(
            f"{field} has at most 2 decimals", got=show(value), remedy="round it where the amount is made", field=field
        )
    return int(rounded.scaleb(2))
