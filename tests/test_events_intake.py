"""Every bad event is rejected by itself with field, rule, what came and the remedy; every good one is exact."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.clock import DAY, MINUTE, SECOND, EventsClock, SystemClock
from penstock.errors import DefinitionError, EventError, TooLargeError
from penstock.events import BodyError, Event, Intake, Money, schema_of

NOW = 1_700_000_000 * SECOND


class Action(Event):
    user: str
    item: str
    kind: Literal["view", "cart", "fav", "buy", "return"]
    category: str | None = None
    price: Money | None = None
    quantity: int | None = None
    weight: float | None = None
    gift: bool | None = None


class PageView(Event):
    page: str
    country: str = "GB"


class Fixed:
    def now(self) -> int:
        return NOW

    def saw(self, time_: int) -> None:
        """The test's clock stands."""

    def latest(self, after: int = 0) -> int:
        return NOW + 5 * MINUTE


GOOD = {"user": "u1", "item": "i1", "kind": "view", "time": 1_699_999_999}


@pytest.fixture
def intake() -> Intake:
    return Intake([Action], Fixed())


def changed(**parts: object) -> bytes:
    event = {**GOOD, **parts}
    return json.dumps({name: value for name, value in event.items() if value != "absent"}).encode()


def test_a_class_becomes_a_schema_in_the_order_of_its_fields() -> None:
    """The stream is the class name in snake case; kinds and optionality follow the annotations."""
    schema = schema_of(Action)
    assert schema.stream == "action"
    assert schema_of(PageView).stream == "page_view"
    assert [(f.name, f.kind, f.optional) for f in schema.fields] == [
        ("user", "text", False), ("item", "text", False), ("kind", "text", False), ("category", "text", True),
        ("price", "money", True), ("quantity", "int", True), ("weight", "float", True), ("gift", "bool", True),
    ]  # fmt: skip


class Wrong1(Event):
    tags: list[str]


class Wrong2(Event):
    stream: str


class Wrong3(Event):
    level: Literal[1, 2]


class Wrong4(Event):
    price: Decimal


class Wrong5(Event, kw_only=True):
    user: str
    time: int = 0


class Wrong6(Event):
    either: str | int


class Wrong7(Event):
    pass


class Wrong8(Event):
    user: "Missing"  # noqa: F821, UP037


@pytest.mark.parametrize(
    ("cls", "words"),
    [
        (Wrong1, "Wrong1.tags"), (Wrong2, "Wrong2.stream"), (Wrong3, "Wrong3.level"), (Wrong4, "write ps.Money"),
        (Wrong5, "Wrong5.time"), (Wrong6, "Wrong6.either"), (Wrong7, "has fields"), (Wrong8, "'Missing'"),
        (Event, "subclass of ps.Event"),
    ],
)  # fmt: skip
def test_a_class_that_the_log_cannot_keep_is_refused_by_name(cls: type[Event], words: str) -> None:
    """A wrong annotation is a DefinitionError that names the class and the field, when the app is defined."""
    with pytest.raises(DefinitionError) as caught:
        schema_of(cls)
    assert words in str(caught.value)


REJECTED = {
    "missing": (changed(user="absent"), "user", "user is present; got nothing; send text"),
    "wrong type": (changed(user=5), "user", "user is text; got 5; send user as text"),
    "null": (changed(item=None), "item", "item is text; got null"),
    "choice": (changed(kind="vew"), "kind", 'kind is one of view, cart, fav, buy, return; got "vew"'),
    "unknown field": (changed(quantty=3), "quantty", 'action has no field "quantty"; got 3; did you mean quantity?'),
    "unknown stream": (changed(stream="actoin"), "stream", 'the stream is known; got "actoin"; use one of action'),
    "negative time": (changed(time=-1), "time", "time is not before 1970; got -1; send seconds since 1970"),
    "future": (changed(time=1_700_000_301), "time", "time is not after 2023-11-14T22:18:20+00:00; got 1700000301"),
    "milliseconds": (changed(time=1_700_000_000_000), "time", "send seconds, not milliseconds"),
    "no zone": (changed(time="2023-01-01T00:00:00"), "time", "time is RFC 3339 text with a zone"),
    "no time": (changed(time="yesterday"), "time", 'got "yesterday"; write it like "2024-05-01T12:00:00Z"'),
    "time type": (changed(time=True), "time", "time is a number of seconds or RFC 3339 text; got true"),
    "NaN": (b'{"user":"u","item":"i","kind":"buy","weight":NaN}', "weight", "weight is a finite number; got NaN"),
    "Infinity": (b'{"user":"u","item":"i","kind":"buy","weight":-Infinity}', "weight", "finite number; got -Infinity"),
    "1e999": (b'{"user":"u","item":"i","kind":"buy","weight":1e999}', "weight", "finite number; got Infinity"),
    "NaN price": (changed(price="NaN"), "price", "price is a finite amount; got NaN"),
    "NaN time": (b'{"user":"u","item":"i","kind":"buy","time":NaN}', "time", "time is finite; got NaN"),
    "64 bits": (changed(quantity=2**63), "quantity", "quantity fits 64 bits; got 9223372036854775808"),
    "missing mark": (changed(quantity=-(2**63)), "quantity", "quantity fits 64 bits"),
    "fraction": (changed(quantity=1.5), "quantity", "quantity is a whole number; got 1.5"),
    "bool": (changed(quantity=True), "quantity", "quantity is a whole number; got true"),
    "not bool": (changed(gift=1), "gift", "gift is true or false; got 1"),
    "three decimals": (changed(price=1.999), "price", "price has at most 2 decimals; got 1.999; round it where"),
    "huge price": (changed(price=1e18), "price", "price is at most 90,000,000,000,000,000 either way"),
    "words": (changed(price="ten"), "price", 'price is an amount, as number or text; got "ten"'),
    "too long": (changed(user="u" * 513), "user", "user has at most 512 characters; got 513 characters"),
    "empty": (changed(user=""), "user", 'user is not empty; got ""; send a value, or make the field optional'),
    "NUL": (changed(user="a\0b"), "user", 'user has no NUL character; got "a\\u0000b"; remove it'),
    "surrogate": (changed(user="\ud800"), "user", 'user is valid Unicode; got "\\ud800"; send UTF-8'),
    "bytes": (changed().replace(b"u1", b"\xff"), "user", "user is valid Unicode"),
    "huge time": (changed(time=1e305), "time", "time is finite; got 1e+305"),
    "huge negative time": (changed(time=-1e305), "time", "time is finite"),
    "surrogate name": (changed(**{"us\ud800": "a"}), "us?", "action has no field"),
    "empty id": (changed(id=""), "id", 'id is non-empty text; got ""; quote it, or leave it out'),
    "number id": (changed(id=7), "id", "id is non-empty text; got 7"),
    "long id": (changed(id="x" * 600), "id", "id has at most 512 characters"),
    "no object": (b"5", "", "an event is a JSON object; got 5"),
}  # fmt: skip


@pytest.mark.parametrize("name", REJECTED)
@pytest.mark.parametrize("form", ["object", "array", "lines"])
def test_each_bad_event_is_rejected_alone_and_says_what_to_do(intake: Intake, name: str, form: str) -> None:
    """In an array or in lines the events before and after a bad one are taken; the message is the same."""
    bad, field, words = REJECTED[name]
    good = changed()
    body = {"object": bad, "array": b"[" + b",".join([good, bad, good]) + b"]", "lines": b"\n".join([good, bad, good])}
    parsed = intake.parse(body[form])
    assert len(parsed.accepted) == (0 if form == "object" else 2)
    (rejection,) = parsed.rejected
    assert rejection.index == (0 if form == "object" else 1)
    assert rejection.field == field
    assert words in rejection.error
    assert rejection.remedy
    assert rejection.raw.encode("utf-8", "replace") == bad.decode("utf-8", "replace").encode("utf-8", "replace")
    assert rejection.as_dict() == {"index": rejection.index, "field": field, "error": rejection.error}


def test_a_broken_line_is_rejected_and_the_others_are_taken(intake: Intake) -> None:
    """NDJSON survives a line that is not JSON; blank lines do not count."""
    parsed = intake.parse(changed() + b'\n\n{"user": "u\n' + changed() + b"\r\n")
    assert len(parsed.accepted) == 2
    assert [(r.index, r.rule) for r in parsed.rejected] == [(1, "an event is valid JSON")]
    one = intake.parse(b'{"user', "application/x-ndjson")
    assert one.rejected[0].error.startswith("an event is valid JSON; got '{\"user'")


@pytest.mark.parametrize("body", [b"", b"[1,{]", b'{"user', b"[{}", b"[{}] x", b"[{},]", b"[" * 100_000])
def test_a_body_that_is_no_json_is_refused_as_a_whole(intake: Intake, body: bytes) -> None:
    """Where single events cannot be told apart the whole body is refused, with the place of the fault."""
    with pytest.raises(BodyError, match="a body is one JSON object, an array of them, or one a line; got"):
        intake.parse(body)


def test_an_oversized_body_is_refused_before_it_is_read() -> None:
    """Too many bytes or events are an error of their own, for which HTTP has a status."""
    intake = Intake([Action], Fixed(), max_body=1_000, max_events=3)
    with pytest.raises(TooLargeError, match="a body has at most 1,000 bytes; got 1,001; send several smaller"):
        intake.parse(b" " * 1_001)
    for body in (b"[" + b",".join([changed()] * 4) + b"]", b"\n".join([changed()] * 4), b"[1,2,3,4]"):
        with pytest.raises(TooLargeError, match="a body has at most 3 events; got 4"):
            intake.parse(body)


def test_what_is_taken_is_exact(intake: Intake) -> None:
    """Amounts become cents without a float, times microseconds, empty optional text is missing, ids are kept."""
    body = b"""[
      {"id": "a", "user": "u", "item": "i", "kind": "buy", "price": 19.99, "category": "", "gift": true},
      {"user": "u", "item": "i", "kind": "buy", "price": "70000000000000000.01", "time": "2023-11-14T23:13:20.5+01:00"},
      {"stream": "action", "user": "u", "item": "i", "kind": "buy", "price": 0.1, "time": 1699999999.25, "weight": 3}
    ]"""
    parsed = intake.parse(body)
    assert not parsed.rejected
    first, second, third = parsed.accepted
    assert (first.stream, first.id, first.time) == ("action", "a", NOW)
    assert first.values == ("u", "i", "buy", None, 1999, None, None, True)
    assert (second.values[4], second.time) == (7_000_000_000_000_000_001, NOW + SECOND // 2)
    assert (third.values[4], third.values[6], third.time) == (10, 3.0, NOW - SECOND + SECOND // 4)
    assert len({event.id for event in parsed.accepted}) == 3
    assert intake.parse(b"[]").accepted == []


def test_many_streams_need_a_name_and_defaults_hold() -> None:
    """With several event types an event names its stream; a field left out takes the default of its class."""
    intake = Intake([Action, PageView], Fixed())
    body = b'[{"stream": "page_view", "page": "/"}, {"page": "/"}, {"stream": "action", "page": "/"}]'
    parsed = intake.parse(body)
    assert [(e.stream, e.values) for e in parsed.accepted] == [("page_view", ("/", "GB"))]
    assert [r.error for r in parsed.rejected] == [
        'an event names its stream, as this app has several; got no stream; add "stream" with one of action, page_view',
        'action has no field "page"; got "/"; its fields are user, item, kind, category, price, quantity, weight, '
        "gift, stream, time, id",
    ]
    with pytest.raises(DefinitionError, match="at least one event type"):
        Intake([], Fixed())


def times(*seconds: float) -> bytes:
    return b"\n".join(changed(time=second) for second in seconds)


YEAR_9999 = 253_400_000_000
DAYS = DAY // SECOND


def test_an_absurd_date_does_not_move_the_events_clock() -> None:
    """More than 30 days beyond the newest event is refused alone, with the option that widens it; a pause is not."""
    clock = EventsClock(NOW)
    intake = Intake([Action], clock)
    last = NOW // SECOND + 30 * DAYS
    parsed = intake.parse(times(YEAR_9999, last + 1, last, NOW // SECOND))
    assert [event.time for event in parsed.accepted] == [last * SECOND, NOW]
    assert [rejection.index for rejection in parsed.rejected] == [0, 1]
    assert parsed.rejected[0].error == (
        "time is not after 2023-12-14T22:13:20+00:00; got 253400000000; send seconds, not milliseconds, since 1970 "
        "UTC, and set the sender's clock; if events do lie so far ahead, serve with a larger --future"
    )
    with pytest.raises(EventError, match="time is not after 2023-12-14"):
        intake.check({**GOOD, "time": YEAR_9999})
    wider = Intake([Action], EventsClock(NOW, future="90d"))
    assert len(wider.parse(times(NOW // SECOND + 90 * DAYS, YEAR_9999)).accepted) == 1


@pytest.mark.parametrize("broken", [False, True], ids=["all at once", "one by one"])
def test_each_event_of_a_body_may_follow_those_before_it(broken: bool) -> None:
    """A year of a quiet shop in one body is taken, though its end lies far beyond the newest event in the log."""
    intake = Intake([Action], EventsClock(NOW))
    year = [NOW // SECOND + day * DAYS for day in range(20, 365, 20)]
    parsed = intake.parse(times(*year, YEAR_9999) + (b'\n{"user' if broken else b""))
    assert len(parsed.accepted) == len(year)
    assert [rejection.index for rejection in parsed.rejected][:1] == [len(year)]


def test_the_first_event_of_all_is_bounded_by_the_wall() -> None:
    """An empty log may begin at any past date, and not beyond the wall clock; from then on its events are the bound."""
    clock = EventsClock(wall=Fixed())
    intake = Intake([Action], clock)
    assert len(intake.parse(times(YEAR_9999, NOW // SECOND + 301)).rejected) == 2
    for first in (86_400, NOW // SECOND + 300):
        assert intake.parse(times(first)).accepted[0].time == first * SECOND
    clock.saw(DAY)
    assert intake.parse(times(NOW // SECOND)).accepted == []


def test_no_span_reaches_beyond_the_year_9999() -> None:
    """However wide the span, a time is one that dates can be written for."""
    intake = Intake([Action], EventsClock(NOW, future="1000000w"))
    assert "not after the year 9999" in intake.parse(changed(time=1e300)).rejected[0].error
    assert intake.parse(times(YEAR_9999)).accepted[0].time == YEAR_9999 * SECOND


def test_the_wall_clock_bounds_by_its_own_span() -> None:
    """Five minutes unless told otherwise."""
    for clock, span in ((SystemClock(), 5 * MINUTE), (SystemClock(future="1h"), 60 * MINUTE)):
        before = clock.now()
        assert before + span <= clock.latest() <= clock.now() + span


def test_in_process_events_obey_the_same_rules(intake: Intake) -> None:
    """check() takes a mapping or an event object, and raises for what parse() would reject."""
    event = Action(user="u", item="i", kind="buy", price=Decimal("1.20"), time=5, id="x")
    assert intake.check(event).values == ("u", "i", "buy", None, 120, None, None, None)
    assert intake.check({**GOOD, "price": 19.99}).values[4] == 1999
    bad: list[tuple[dict[str, object], str]] = [
        ({**GOOD, "weight": float("nan")}, "weight is a finite number; got NaN"),
        ({**GOOD, "price": float("inf")}, "price is a finite amount; got Infinity"),
        ({**GOOD, "user": "a\0"}, "NUL"),
        ({**GOOD, "user": "\ud800"}, "valid Unicode"),
        ({**GOOD, "time": float("nan")}, "time is finite"),
        ({**GOOD, "extra": 1}, "no field"),
    ]
    for event_, words in bad:
        with pytest.raises(EventError) as caught:
            intake.check(event_)
        assert words in str(caught.value)
    with pytest.raises(EventError, match="the event's class is one of the app's; got PageView; use one of Action"):
        intake.check(PageView(page="/"))


@given(
    st.lists(
        st.tuples(st.booleans(), st.decimals(-(10**12), 10**12, places=2), st.text(min_size=1, max_size=40)),
        max_size=30,
    )
)
def test_amounts_and_texts_survive_any_form_of_sending(rows: list[tuple[bool, Decimal, str]]) -> None:
    """Array and lines, amounts as number or text: the same values, and a NUL is rejected wherever it stands."""
    parts = []
    for as_text, amount, user in rows:
        price = json.dumps(str(amount)) if as_text else str(amount)
        rest = '"item": "i", "kind": "buy", "time": 1'
        parts.append(f'{{"user": {json.dumps(user)}, "price": {price}, {rest}}}'.encode())
    intake = Intake([Action], Fixed())
    forms: list[Callable[[], bytes]] = [lambda: b"[" + b", ".join(parts) + b"]"]
    if parts:
        forms.append(lambda: b"\n".join(parts) + b"\n")
    sendable = [_sendable(user) for _, _, user in rows]
    expected = [(user, int(amount * 100)) for (_, amount, user), ok in zip(rows, sendable, strict=True) if ok]
    for form in forms:
        parsed = intake.parse(form(), "application/x-ndjson" if form is forms[-1] and len(forms) > 1 else None)
        assert [(event.values[0], event.values[4]) for event in parsed.accepted] == expected
        assert [r.index for r in parsed.rejected] == [i for i, ok in enumerate(sendable) if not ok]


def _sendable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= char <= "\udfff" for char in text)
