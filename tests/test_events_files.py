"""Files become history through a mapping: exact, in the order of arrival, bad rows aside, resumable."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pytest

import penstock as ps
from penstock.clock import DAY, SECOND
from penstock.errors import MappingError
from penstock.events import Event, Mapping, Money, SqliteLog, ingest_file, read_file, schema_of, ties
from penstock.types import MISSING_INT, Rows

DATA = Path(__file__).parents[2] / "shared" / "data" / "clickstream"
APPS = Path(ps.__file__).parent / "apps"
MAPPINGS = APPS / "nextbest" / "mappings"


class Action(Event):
    user: str
    item: str
    kind: Literal["view", "cart", "fav", "buy", "return"]
    category: str | None = None
    price: Money | None = None
    quantity: int | None = None
    country: str | None = None


class Reading(Event):
    sensor: str
    level: float | None = None
    ok: bool | None = None
    cost: Money | None = None


BASIC = """
stream = "action"
[time]
columns = ["at"]
unit = "s"
order = ["seq"]
[fields]
user = "who"
item = "what"
kind = { column = "did", map = { pv = "view", buy = "buy" } }
price = "price"
quantity = "n"
"""


def opened(path: Path) -> SqliteLog:
    return SqliteLog(path, [schema_of(Action), schema_of(Reading)])


def micros(text: str) -> int:
    return int(datetime.fromisoformat(text).astimezone(UTC).timestamp()) * SECOND


def texts(log: SqliteLog, rows: Rows, name: str) -> list[str]:
    return log.strings.texts(rows.fields[name])


def write(path: Path, lines: list[str]) -> Path:
    data = "".join(line + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


ROWS = [
    {"who": "u2", "what": "b", "did": "buy", "at": "30", "price": "1.5", "n": "2", "seq": "1"},
    {"who": "u1", "what": "a", "did": "pv", "at": "20", "price": "", "n": "", "seq": "10"},
    {"who": "u1", "what": "c", "did": "pv", "at": "20", "price": "-0.07", "n": "-3", "seq": "9"},
    {"who": "u3", "what": "d", "did": "pv", "at": "20", "price": "1000000.00", "n": "1.0", "seq": "9"},
]


@pytest.mark.parametrize("form", ["csv", "csv.gz", "tsv", "ndjson", "jsonl.gz", "parquet"])
def test_every_format_gives_the_same_events_in_order(tmp_path: Path, form: str) -> None:
    """Rows are sorted by time, then by the order columns (as numbers), then as they stand; amounts are exact."""
    path = tmp_path / f"data.{form}"
    if form == "parquet":
        kinds = {"at": pl.Int64, "price": pl.Float64, "n": pl.Float64, "seq": pl.Int32}
        frame = pl.DataFrame(ROWS).with_columns(pl.col(c).cast(kind, strict=False) for c, kind in kinds.items())
        frame.write_parquet(path)
    elif "json" in form:
        numbers = {"at", "price", "n", "seq"}
        rows = [{k: json.loads(v) if k in numbers and v else v or None for k, v in row.items()} for row in ROWS]
        write(path, [json.dumps(row) for row in rows])
    else:
        separator = "\t" if "tsv" in form else ","
        write(path, [separator.join(ROWS[0]), *(separator.join(row.values()) for row in ROWS)])
    log = opened(tmp_path / "log.sqlite")
    done = ingest_file(log, path, Mapping.parse(BASIC), Action)
    assert (done.accepted, done.duplicates, done.rejected, done.dropped) == (4, 0, 0, 0)
    rows = log.read(0, 4)["action"]
    assert texts(log, rows, "item") == ["c", "d", "a", "b"]
    # Equal times keep the order of the file, a microsecond apart.
    assert rows.time.tolist() == rows.arrived.tolist() == [20 * SECOND + n for n in range(3)] + [30 * SECOND]
    assert rows.fields["price"].tolist() == [-7, 100_000_000, MISSING_INT, 150]
    assert rows.fields["quantity"].tolist() == [-3, 1, MISSING_INT, 2]
    assert texts(log, rows, "kind") == ["view", "view", "view", "buy"]
    log.close()


def bad(**parts: str) -> str:
    row = {**ROWS[0], **parts}
    return ",".join(row.values())


BAD_ROWS = {
    "time": (bad(at="soon"), "time", 'time is RFC 3339 text or a number, from 1970 on; got "soon"; mend the row'),
    "negative": (bad(at="-5"), "time", 'from 1970 on; got "-5"'),
    "milliseconds": (bad(at="1700000000000"), "time", 'got "1700000000000"'),
    "future": (bad(at="250000000000"), "time", 'time is not in the future; got "250000000000"; mend the row'),
    "unmapped": (bad(did="fav"), "kind", 'is one of the mapped pv, buy; got "fav"; add the word to fields.kind.map'),
    "missing": (bad(who=""), "user", "user is present; got null; fill the column, or filter such rows out"),
    "decimals": (bad(price="1.555"), "price", 'an amount with at most 2 decimals; got "1.555"; mend the row, or set'),
    "amount": (bad(price="free"), "price", 'got "free"'),
    "integer": (bad(n="2.5"), "quantity", 'quantity is a whole number of 64 bits; got "2.5"'),
    "overflow": (bad(n="9223372036854775808"), "quantity", "a whole number of 64 bits"),
    "long": (bad(who="u" * 513), "user", "user has at most 512 characters"),
    "NUL": (bad(who="a\0"), "user", "user has no NUL character"),
    "ragged": (bad(seq="1,2,3"), "", "a row has 7 columns; got 9; quote values that hold the separator"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_a_bad_row_becomes_a_dead_letter_and_the_rest_goes_on(tmp_path: Path, name: str) -> None:
    """The dead letter says file, row number, field, what came and the remedy; the rows around are taken."""
    row, field, words = BAD_ROWS[name]
    path = write(tmp_path / "data.csv", [",".join(ROWS[0]), bad(), row, bad(at="31")])
    log = opened(tmp_path / "log.sqlite")
    done = ingest_file(log, path, Mapping.parse(BASIC), Action)
    assert (done.accepted, done.rejected) == (2, 1)
    (letter,) = log.rejects()
    assert (letter.source, letter.rejection.index, letter.rejection.field) == ("data.csv", 1, field)
    assert words in letter.rejection.error
    assert "u2" in letter.rejection.raw or name in ("missing", "long", "NUL")
    log.close()


def test_broken_lines_and_bytes_are_set_aside(tmp_path: Path) -> None:
    """NDJSON with a broken line, and CSV with bytes of another encoding, lose only those rows."""
    lines = [json.dumps({"sensor": f"s{n}", "time": n, "level": n / 2, "ok": n % 2 == 0}) for n in range(3)]
    path = write(tmp_path / "data.ndjson", [lines[0], '{"sensor": "s', lines[1], lines[2]])
    log = opened(tmp_path / "log.sqlite")
    assert ingest_file(log, path, None, Reading).accepted == 3
    rows = log.read(0, 3)["reading"]
    assert rows.fields["level"].tolist() == [0.0, 0.5, 1.0]
    assert rows.fields["ok"].tolist() == [1, 0, 1]
    assert (log.rejects()[0].rejection.index, log.rejects()[0].rejection.rule) == (1, "a line is one JSON object")

    latin = tmp_path / "latin.csv"
    latin.write_bytes("sensor,time\nkühl,1\nwarm,2\n".encode("latin-1"))
    assert ingest_file(log, latin, None, Reading).accepted == 1
    assert 'encoding = "latin-1"' in log.rejects(1)[0].rejection.remedy
    head = 'stream="reading"\n[csv]\nencoding="latin-1"\n'
    mapping = Mapping.parse(head + '[time]\ncolumns=["time"]\n[fields]\nsensor="sensor"')
    assert [event.values[0] for part in read_file(latin, mapping, Reading) for event in part] == ["kühl", "warm"]
    log.close()


def test_without_a_mapping_columns_bear_the_fields_names(tmp_path: Path) -> None:
    """Seconds and RFC 3339 times are both taken, ids deduplicate across files, and non-finite numbers are refused."""
    head = "id,time,sensor,level,cost"
    one = write(tmp_path / "a.csv", [head, "x,1.5,s,1e3,2.50", "y,1970-01-01T01:00:02+01:00,s,,", "z,3,s,inf,"])
    two = write(tmp_path / "b.csv", [head, "y,2,s,,", "w,4,s,,"])
    log = opened(tmp_path / "log.sqlite")
    done = ingest_file(log, one, None, Reading)
    assert (done.accepted, done.rejected) == (2, 1)
    assert "level is a finite number" in log.rejects()[0].rejection.error
    done = ingest_file(log, two, None, Reading)
    assert (done.accepted, done.duplicates) == (1, 1)
    rows = log.read(0, 3)["reading"]
    assert rows.time.tolist() == [1_500_000, 2 * SECOND, 4 * SECOND]
    assert rows.fields["cost"].tolist() == [250, MISSING_INT, MISSING_INT]
    log.close()


def times_of(tmp_path: Path, time: str, column: list[str]) -> list[int]:
    path = write(tmp_path / "times.csv", ["at|day|n|s", *column])
    text = f'stream = "reading"\n[csv]\nseparator = "|"\n[time]\n{time}\n[fields]\nsensor = {{ constant = "s" }}'
    return [event.time for part in read_file(path, Mapping.parse(text), Reading) for event in part]


def test_times_have_units_formats_and_zones(tmp_path: Path) -> None:
    """Milliseconds, microseconds, a format in a zone with summer time, and joined columns are what they say."""
    ms = times_of(tmp_path, 'columns = ["at"]\nunit = "ms"', ["1700000000123|||"])
    assert ms == [1_700_000_000_123_000]
    assert times_of(tmp_path, 'columns = ["at"]\nunit = "us"', ["1700000000123456|||"]) == [1_700_000_000_123_456]
    london = 'columns = ["at"]\nformat = "%d/%m/%Y %H:%M"\nzone = "Europe/London"'
    got = times_of(tmp_path, london, ["1/7/2011 12:00|||", "01/12/2011 12:00|||", "27/03/2011 01:30|||"])
    assert got == [micros("2011-07-01T11:00:00+00:00"), micros("2011-12-01T12:00:00+00:00")]
    joined = 'columns = ["day", "at"]\nformat = "%Y-%m-%d %H:%M:%S"\nzone = "Asia/Shanghai"'
    assert times_of(tmp_path, joined, ["08:00:01|2017-11-25||"]) == [micros("2017-11-25T00:00:01+00:00")]
    zoned = 'columns = ["at"]\nformat = "%Y-%m-%d %H:%M:%S %z"'
    assert times_of(tmp_path, zoned, ["2017-11-25 08:00:01 +0800|||"]) == [micros("2017-11-25T00:00:01+00:00")]


def test_days_are_spread_into_times_that_keep_the_order(tmp_path: Path) -> None:
    """Without sessions: order seconds after midnight. With them: equal slots, no two sessions of a day overlap."""
    rows = ["|2008-04-01|2|a", "|2008-04-01|1|b", "|2008-04-01|2|b", "|2008-04-01|1|a", "|2008-04-02|1|c"]
    plain = 'columns = ["day"]\nformat = "%Y-%m-%d"\nspread = { order = "n" }'
    day = micros("2008-04-01T00:00:00+00:00")
    wanted = [SECOND, SECOND + 1, 2 * SECOND, 2 * SECOND + 1, DAY + SECOND]
    assert [at - day for at in times_of(tmp_path, plain, rows)] == wanted
    slots = plain.replace('"n" }', '"n", by = "s", step = "1min" }')
    minute, noon = 60 * SECOND, DAY // 2
    wanted = [minute, 2 * minute, noon + minute, noon + 2 * minute, DAY + minute]
    assert [at - day for at in times_of(tmp_path, slots, rows)] == wanted
    crowded = [f"|2008-04-01|{n}|s{s}" for s in range(300) for n in range(1, 400)]
    got = np.array(times_of(tmp_path, slots, crowded))
    assert (np.diff(got) > 0).all()
    assert got[-1] < day + DAY


def test_rows_of_one_time_keep_their_order_and_never_pass_the_next_time(tmp_path: Path) -> None:
    """Ties are broken by microseconds in file order, as far as there is room before the next time in the file."""
    at = [5_000_000] * 3 + [5_000_002] * 2 + [9_000_000]
    path = write(tmp_path / "ties.csv", ["sensor,time", *(f"s{n},{t}" for n, t in enumerate(at))])
    mapping = Mapping.parse('stream="reading"\n[time]\ncolumns=["time"]\nunit="us"\n[fields]\nsensor="sensor"')
    log = opened(tmp_path / "log.sqlite")
    ingest_file(log, path, mapping, Reading)
    rows = log.read(0, log.end)["reading"]
    assert texts(log, rows, "sensor") == [f"s{n}" for n in range(6)]
    assert (rows.time - 5_000_000).tolist() == [0, 1, 1, 2, 3, 4_000_000]
    log.close()


def test_a_mapped_arrival_orders_the_log_and_keeps_when_it_happened(tmp_path: Path) -> None:
    """With an arrived column late events stand where they arrived, with their own time."""
    path = write(tmp_path / "late.csv", ["sensor,time,came", "late,10,99", "early,20,21"])
    mapping = Mapping.parse('stream="reading"\n[time]\ncolumns=["time"]\narrived="came"\n[fields]\nsensor="sensor"')
    log = opened(tmp_path / "log.sqlite")
    ingest_file(log, path, mapping, Reading)
    rows = log.read(0, 2)["reading"]
    assert texts(log, rows, "sensor") == ["early", "late"]
    assert (rows.time.tolist(), rows.arrived.tolist()) == ([20 * SECOND, 10 * SECOND], [21 * SECOND, 99 * SECOND])
    log.close()


def test_what_is_known_later_is_dated_later(tmp_path: Path) -> None:
    """`after` moves when a row happened and arrived alike; what would not be known yet is refused and says so."""
    rows = ["pump,2026-01-05", "valve,2026-01-04", "pump,2026-01-20"]
    path = write(tmp_path / "late.csv", ["sensor,day", *rows])
    text = 'stream="reading"\nid=["sensor","day"]\n[time]\ncolumns=["day"]\nformat="%Y-%m-%d"\nafter="7d"\n'
    mapping = Mapping.parse(text + '[fields]\nsensor="sensor"')
    events = read_file(path, mapping, Reading, latest=micros("2026-01-21T00:00:00+00:00"))
    ((read, arrived),) = events.chunks()
    times = [micros("2026-01-11T00:00:00+00:00"), micros("2026-01-12T00:00:00+00:00")]
    assert [event.time for event in read] == arrived == times
    assert [event.id for event in read] == ["valve:2026-01-04", "pump:2026-01-05"]
    (refused,) = events.rejected
    assert (refused.index, refused.field, refused.got) == (2, "time", '"2026-01-20"')
    assert "7d after it" in refused.rule


@pytest.mark.parametrize(
    ("lines", "rule"),
    [
        ('after="7d"\narrived="day"', "after or arrived"),
        ('after="200000w"', "100 years"),
        ('after="a week"', "duration"),
    ],
)
def test_a_span_that_cannot_be_is_refused(lines: str, rule: str) -> None:
    with pytest.raises(MappingError, match=rule):
        Mapping.parse(f'stream="reading"\n[time]\ncolumns=["day"]\n{lines}\n[fields]\nsensor="sensor"')


def test_an_id_of_one_column_is_its_text(tmp_path: Path) -> None:
    """So that an event of another stream can name it; a number of a Parquet file is its digits."""
    mapping = Mapping.parse('stream="reading"\nid=["n"]\n[time]\ncolumns=["at"]\n[fields]\nsensor="n"')
    frame = pl.DataFrame({"n": [7, 0], "at": pl.Series([1, 2]).cast(pl.Datetime("ms"))})
    frame.write_parquet(tmp_path / "read.parquet")
    log = opened(tmp_path / "log.sqlite")
    ingest_file(log, tmp_path / "read.parquet", mapping, Reading)
    rows = log.read(0, 2)["reading"]
    assert texts(log, rows, "sensor") == ["7", "0"]
    assert rows.tie.tolist() == ties("reading", ["7", "0"]).tolist()
    log.close()


def test_sources_filters_rounding_and_ids(tmp_path: Path) -> None:
    """Constants, SQL, cents, rounding and ids do as documented; filtered rows are counted, unknown ones judged."""
    text = """
    stream = "reading"
    id = ["a", "b"]
    [csv]
    missing = ["NA"]
    [time]
    columns = ["b"]
    [filter]
    keep = "TRY_CAST(b AS BIGINT) < 100"
    [fields]
    sensor = { sql = "UPPER(a)" }
    ok = { constant = true }
    level = "c"
    cost = { column = "d", round = true }
    """
    lines = ["a,b,c,d", "x,1,NA,1.005", "x,1,2,9", "y,500,1,1", "z,?,1,1", "w,3,1,-2.349"]
    log = opened(tmp_path / "log.sqlite")
    done = ingest_file(log, write(tmp_path / "f.csv", lines), Mapping.parse(text), Reading)
    assert (done.accepted, done.duplicates, done.rejected, done.dropped) == (2, 1, 1, 1)
    rows = log.read(0, 9)["reading"]
    assert texts(log, rows, "sensor") == ["X", "W"]
    assert rows.fields["ok"].tolist() == [1, 1]
    assert rows.fields["cost"].tolist() in ([100, -235], [101, -235])
    assert np.isnan(rows.fields["level"]).tolist() == [True, False]
    cents = Mapping.parse(text.replace("round = true", "cents = true"))
    frame = write(tmp_path / "g.csv", ["a,b,c,d", "q,1,1,250"])
    assert [event.values[3] for part in read_file(frame, cents, Reading) for event in part] == [250]
    log.close()


MISTAKES = {
    BASIC.replace('user = "who"', 'user = "whom"'): "the mapping's columns are in the file; got whom; the file has who",
    BASIC.replace('user = "who"\n', ""): "every required field of action is mapped; got none for user",
    BASIC.replace("price =", "cost ="): "action has the field; got cost; use user, item, kind",
    BASIC.replace('"action"', '"acts"', 1): "the mapping is for this stream; got acts",
    BASIC.replace('"who"', '{ sql = "UPPER(" }'): "fields.user is a Polars SQL expression",
    BASIC + '[filter]\nkeep = "CAST(who AS BIGINT) > 1"': "columns are text: TRY_CAST them",
}
WRONG_FILES = {
    "stream = 1": "Expected `str`, got `int` - at `$.stream`",
    BASIC.replace("unit", "units"): "unknown field `units` - at `$.time`",
    BASIC.replace('unit = "s"', 'unit = "h"'): "Invalid enum value 'h'",
    BASIC.replace('unit = "s"', 'unit = "s"\nformat = "%Y"'): "time has a unit or a format",
    BASIC.replace('"who"', '{ column = "who", constant = "x" }'): "one of column, constant and sql; got 2",
    "stream = ": "Invalid value",
}


def test_a_mapping_that_does_not_fit_says_where(tmp_path: Path) -> None:
    """Unknown keys, columns, fields and expressions are MappingErrors with the place and the choices."""
    path = write(tmp_path / "data.csv", [",".join(ROWS[0]), bad()])
    for text, words in MISTAKES.items():
        with pytest.raises(MappingError) as caught:
            read_file(path, Mapping.parse(text), Action)
        assert words in str(caught.value)
    for text, words in WRONG_FILES.items():
        with pytest.raises(MappingError) as caught:
            Mapping.parse(text, "shop.toml")
        assert words in str(caught.value)
    with pytest.raises(MappingError, match=r"a data file ends in \.csv, \.tsv"):
        read_file(write(tmp_path / "data.xlsx", ["x"]), None, Action)
    with pytest.raises(MappingError, match=r"the data file can be read; got .*none\.csv"):
        read_file(tmp_path / "none.csv", None, Action)
    with pytest.raises(MappingError, match="a mapping file can be read"):
        Mapping.load(tmp_path / "none.toml")


class Stopped(KeyboardInterrupt):
    """Ctrl-C, at a chosen moment."""


@pytest.mark.parametrize("stop_after", [1, 2, 4])
def test_an_interrupted_file_goes_on_where_it_stopped(tmp_path: Path, stop_after: int) -> None:
    """Stopped and run again, the log equals that of an uninterrupted run; dead letters are not doubled."""
    lines = [f"{i % 13 - 1},s{i % 7},{i}" for i in range(1_000)]
    path = write(tmp_path / "data.csv", ["time,sensor,level", *lines])
    whole = opened(tmp_path / "whole.sqlite")
    wanted = ingest_file(whole, path, None, Reading, chunk=200)
    log = opened(tmp_path / "log.sqlite")
    calls: list[int] = []

    def stop(done: int, total: int | None) -> None:
        calls.append(done)
        if len(calls) == stop_after:
            raise Stopped

    with pytest.raises(Stopped):
        ingest_file(log, path, None, Reading, chunk=200, progress=stop)
    assert log.end == calls[-1] == 200 * stop_after
    log.close()
    log = opened(tmp_path / "log.sqlite")
    done = ingest_file(log, path, None, Reading, chunk=200)
    assert (done.resumed, done.accepted) == (200 * stop_after, wanted.accepted - 200 * stop_after)
    for name in ("time", "arrived", "tie", "fields"):
        a, b = (getattr(held.read(0, held.end)["reading"], name) for held in (whole, log))
        assert a.tobytes() == b.tobytes()
    assert len(log.rejects(1_000)) == len(whole.rejects(1_000)) == wanted.rejected == 77
    again = ingest_file(log, path, None, Reading)
    assert again.already
    assert str(again) == f"finished before: its {wanted.accepted:,} events are in the log"
    log.close()
    whole.close()


def test_an_empty_file_is_finished_at_once(tmp_path: Path) -> None:
    """A header without rows, or only bad rows, is done and known as done."""
    log = opened(tmp_path / "log.sqlite")
    for name, lines in (("head.csv", ["time,sensor"]), ("bad.csv", ["time,sensor", "x,s"])):
        path = write(tmp_path / name, lines)
        assert ingest_file(log, path, None, Reading).accepted == 0
        assert ingest_file(log, path, None, Reading).already
    assert len(log.rejects()) == 1
    log.close()


needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the real data sets are not beside this checkout")
REAL = {
    # file: events, dropped, kinds, first and last time
    "taobao": (84_440, 35, {"view": 75_837, "cart": 4_497, "fav": 2_356, "buy": 1_750},
               "2017-11-25T00:00:17+08:00", "2017-12-03T23:59:23+08:00"),
    "online_retail": (404_876, 137_033, {"buy": 396_337, "return": 8_539},
                      "2010-12-01T08:26:00+00:00", "2011-12-09T12:50:00+00:00"),
    "eshop_clothing": (165_474, 0, {"view": 165_474}, "2008-04-01T00:00:01+02:00", None),
    "retailrocket": (5_169, 0, {"view": 4_732, "cart": 377, "buy": 60}, None, None),
}  # fmt: skip


@needs_data
@pytest.mark.parametrize("name", REAL)
def test_the_shipped_mappings_fit_their_files(tmp_path: Path, name: str) -> None:
    """Counts by kind and the first and last instants are those of the files; nothing is rejected unseen."""
    accepted, dropped, kinds, first, last = REAL[name]
    (path,) = DATA.glob(f"{name}*")
    log = opened(tmp_path / "log.sqlite")
    done = ingest_file(log, path, Mapping.load(MAPPINGS / f"{name}.toml"), Action)
    assert (done.accepted, done.dropped, done.rejected, done.duplicates) == (accepted, dropped, 0, 0)
    rows = log.read(0, log.end)["action"]
    codes, counts = np.unique(rows.fields["kind"], return_counts=True)
    assert dict(zip(log.strings.texts(codes), counts.tolist(), strict=True)) == kinds
    assert (np.diff(rows.time) >= 0).all()
    if first:
        assert rows.time[0] == micros(first)
    if last:
        # Rows of one minute or second keep their order by microseconds.
        assert 0 <= rows.time[-1] - micros(last) < SECOND
    log.close()


def test_the_handbooks_file_becomes_payments_and_chargebacks(shared_data: Path, tmp_path: Path) -> None:
    """One Parquet file, two mappings: every row a payment, every fraud a chargeback a week later that names it."""
    source = pl.read_parquet(shared_data / "fraud" / "transactions.parquet", n_rows=50_000)
    source.write_parquet(tmp_path / "transactions.parquet")
    app = ps.load(APPS / "fraud" / "app.py")
    app.home = tmp_path
    log = app.log()
    done = []
    for name in ("transactions", "transactions_chargebacks"):
        mapping = Mapping.load(APPS / "fraud" / "mappings" / f"{name}.toml")
        done.append(ingest_file(log, tmp_path / "transactions.parquet", mapping, app.events[mapping.stream]))
    frauds = source.filter(pl.col("TX_FRAUD") == 1)
    assert [(one.accepted, one.dropped, one.rejected) for one in done] == [
        (50_000, 0, 0), (len(frauds), 50_000 - len(frauds), 0),
    ]  # fmt: skip
    rows = log.read(0, log.end)
    assert texts(log, rows["payment"], "terminal") == source["TERMINAL_ID"].cast(pl.String).to_list()
    assert (rows["payment"].fields["amount"] == (source["TX_AMOUNT"].to_numpy() * 100).round()).all()
    moments = frauds["TX_DATETIME"].dt.timestamp("us").to_numpy()
    late = rows["chargeback"].time - moments
    assert ((late >= 7 * DAY) & (late < 7 * DAY + 100)).all(), "rows of one second are microseconds apart"
    named = ties("payment", texts(log, rows["chargeback"], "payment"))
    assert named.tolist() == rows["payment"].tie[source["TX_FRAUD"].to_numpy() == 1].tolist()
    log.close()


@needs_data
def test_eshop_sessions_keep_their_clicks_in_order(tmp_path: Path) -> None:
    """In the log each session is one run of clicks within its day, in the order of the file."""
    path = DATA / "eshop_clothing.csv.gz"
    mapping = Mapping.load(MAPPINGS / "eshop_clothing.toml")
    events = [event for part in read_file(path, mapping, Action) for event in part]
    source = pl.read_csv(path, separator=";", infer_schema=False)
    by_session = source.with_columns(pl.col("order").cast(pl.Int64)).sort(
        pl.col("session ID").cast(pl.Int64), "order", maintain_order=True
    )
    order = sorted(range(len(events)), key=lambda i: (int(events[i].values[0]), i))
    assert [events[i].values[1] for i in order] == by_session["page 2 (clothing model)"].to_list()
    users = [event.values[0] for event in events]
    runs = 1 + sum(a != b for a, b in pairwise(users))
    assert runs == len(set(users))
    assert events[0].values[3:] == ("trousers", 2800, None, "29")
