"""The log keeps what it acknowledged: through kill -9, a full disk, restarts, duplicates, archives and new fields."""

from __future__ import annotations

import math
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.errors import DefinitionError, NotFoundError, UnavailableError
from penstock.events import Rejection, SqliteLog
from penstock.types import MISSING_INT, Accepted, Field, Rows, Schema

ACTION = Schema(
    "action",
    (
        Field("user", "text", False),
        Field("kind", "text", True),
        Field("price", "money", True),
        Field("n", "int", True),
        Field("weight", "float", True),
        Field("gift", "bool", True),
    ),
)
VISIT = Schema("visit", (Field("page", "text", False),))


def action(n: int, *, id_: str | None = None, user: str | None = None) -> Accepted:
    return Accepted("action", id_ or f"e{n}", n, (user or f"u{n % 7}", "view", None, n, None, None))


def numbers(rows: Rows) -> list[int]:
    return [int(n) for n in rows.fields["n"]]


def same(a: dict[str, Rows], b: dict[str, Rows]) -> None:
    assert a.keys() == b.keys()
    for stream, rows in a.items():
        for name in ("offset", "time", "raw_time", "arrived", "tie", "fields"):
            assert getattr(rows, name).tobytes() == getattr(b[stream], name).tobytes(), name


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    held = SqliteLog(tmp_path / "log.sqlite", [ACTION, VISIT])
    yield held
    held.close()


def test_events_come_back_as_columns_with_both_times(log: SqliteLog) -> None:
    """Values, order, offsets and both times are kept; an event dated after its arrival counts at its arrival."""
    events = [
        Accepted("action", "a", 50, ("ann", "buy", 1999, -5, 0.1, True)),
        Accepted("visit", "b", 500, ("/home",)),
        Accepted("action", "c", 10, ("bob", None, None, None, None, None)),
    ]
    appended = log.append(events, [100, 100, 101])
    assert (appended.accepted, appended.duplicates, appended.first, appended.end) == (3, 0, 0, 3)
    assert (log.end, log.newest) == (3, 100)
    rows = log.read(0, 10)
    assert rows["visit"].offset.tolist() == [1]
    assert (rows["visit"].time.tolist(), rows["visit"].raw_time.tolist()) == ([100], [500])
    actions = rows["action"]
    assert (actions.offset.tolist(), actions.arrived.tolist()) == ([0, 2], [100, 101])
    assert log.strings.texts(actions.fields["user"]) == ["ann", "bob"]
    assert actions.fields["kind"].tolist() == [log.strings.code("buy"), 0]
    assert actions.fields["price"].tolist() == [1999, MISSING_INT]
    assert actions.fields["gift"].tolist() == [1, MISSING_INT]
    assert actions.fields["weight"][0] == 0.1
    assert math.isnan(actions.fields["weight"][1])
    assert log.strings.text(0) == ""
    assert log.strings.code("never") == 0
    assert log.read(3, 9) == {}


VALUES = st.tuples(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20),
    st.none() | st.sampled_from(["view", "buy"]),
    st.none() | st.integers(-(2**60), 2**60),
    st.none() | st.integers(-(2**63) + 1, 2**63 - 1),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    st.none() | st.booleans(),
)


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(VALUES, st.integers(0, 2**50)), max_size=40), cut=st.integers(0, 40))
def test_any_values_survive_the_log_and_its_restart(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[tuple, int]], cut: int
) -> None:
    """Whatever a schema allows is read back bit for bit, by the writer and after opening the file again."""
    path = tmp_path_factory.mktemp("log") / "log.sqlite"
    events = [Accepted("action", f"e{i}", at, values) for i, (values, at) in enumerate(rows)]
    log = SqliteLog(path, [ACTION])
    log.append(events[:cut], 2**51)
    log.append(events[cut:], 2**51)
    before = log.read(0, log.end)
    log.close()
    log = SqliteLog(path, [ACTION])
    same(before, log.read(0, log.end))
    if rows:
        got = log.read(0, log.end)["action"]
        assert log.strings.texts(got.fields["user"]) == [values[0] for values, _ in rows]
        assert got.time.tolist() == [at for _, at in rows]
        for place, field in ((2, "price"), (3, "n"), (5, "gift")):
            wanted = [MISSING_INT if values[place] is None else int(values[place]) for values, _ in rows]
            assert got.fields[field].tolist() == wanted
        weights = np.array([math.nan if values[4] is None else values[4] for values, _ in rows])
        assert got.fields["weight"].tobytes() == weights.tobytes()
    log.close()


def test_duplicates_are_dropped_in_a_batch_across_batches_and_restarts(tmp_path: Path) -> None:
    """The first event of an id is kept and the others counted; offsets stay without gaps; streams are apart."""
    path = tmp_path / "log.sqlite"
    log = SqliteLog(path, [ACTION, VISIT])
    appended = log.append([action(1), action(2), action(3, id_="e1"), action(4)], 9)
    assert list(appended.new) == [True, True, False, True]
    log.close()
    log = SqliteLog(path, [ACTION, VISIT])
    appended = log.append([action(5), action(2), action(6), action(5)], 9)
    assert (list(appended.new), appended.first, appended.end) == ([True, False, True, False], 3, 5)
    assert log.append([Accepted("visit", "e1", 1, ("/",))], 9).accepted == 1
    rows = log.read(0, log.end)["action"]
    assert numbers(rows) == [1, 2, 4, 5, 6]
    assert rows.offset.tolist() == [0, 1, 2, 3, 4]
    assert len(set(rows.tie.tolist())) == 5
    log.close()


def test_ids_are_forgotten_beyond_the_horizon_and_not_before(tmp_path: Path) -> None:
    """With a horizon of 10 events an id is known for exactly 10 more; its row is deleted after that."""
    path = tmp_path / "log.sqlite"
    log = SqliteLog(path, [ACTION], dedupe_last=10)
    for n in range(10):
        log.append([action(n)], n)
    assert log.append([action(0)], 10).duplicates == 1
    log.append([action(10)], 10)
    assert log.append([action(0)], 11).accepted == 1
    log.append([action(11)], 11)
    log.close()
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM ids").fetchone()[0] == 11
    db.close()


CHILD = """
import os, sys
from pathlib import Path
from penstock.events import SqliteLog
from penstock.types import Accepted, Field, Schema
schema = Schema("action", (Field("user", "text", False), Field("n", "int", True)))
log = SqliteLog(Path(sys.argv[1]), [schema])
def event(n): return Accepted("action", f"e{n}", n, (f"user {n}", n))
def say(text): os.write(1, (text + "\\n").encode())
"""


def child(code: str, path: Path, *before: str) -> list[str]:
    return [*before, sys.executable, "-c", CHILD + code, str(path)]


@pytest.mark.skipif(not shutil.which("strace"), reason="sees the system calls with strace: apt-get install strace")
def test_the_disk_is_synced_before_an_append_returns(tmp_path: Path) -> None:
    """After the last write to the write-ahead log comes an fsync of it, and only then the acknowledgement."""
    trace = tmp_path / "trace"
    loop = 'for n in range(1, 4):\n    say("appending"); log.append([event(n)], n); say("acked")'
    code = f"log.append([event(0)], 1)\n{loop}"
    calls = "trace=write,pwrite64,fsync,fdatasync"
    command = child(code, tmp_path / "log.sqlite", "strace", "-f", "-y", "-e", calls, "-o", str(trace))
    done = subprocess.run(command, capture_output=True, text=True)
    if "ptrace" in done.stderr and "not permitted" in done.stderr:
        pytest.skip("this machine forbids ptrace, through which strace sees system calls")
    assert done.returncode == 0, done.stderr
    parts = re.findall(r'"appending\\n".*?\n(.*?)"acked\\n"', trace.read_text(), re.S)
    assert len(parts) == 3
    for part in parts:
        lines = [line for line in part.splitlines() if "log.sqlite-wal>" in line]
        kinds = ["sync" if re.search(r"\bf(data)?sync\(", line) else "write" for line in lines]
        assert "write" in kinds
        assert kinds[-1] == "sync", lines


def test_the_writer_waits_for_the_disk(log: SqliteLog) -> None:
    """The writing connection runs with synchronous=FULL on a write-ahead log."""
    assert log._writer is not None
    assert log._writer.execute("PRAGMA synchronous").fetchone()[0] == 2
    assert log._writer.execute("PRAGMA journal_mode").fetchone()[0] == "wal"


def test_checkpoints_beside_appends_keep_the_write_ahead_log_short(log: SqliteLog) -> None:
    """With them an append begins at the front of the file again; without, the file grows with each append."""
    journal = log.path.with_name(f"{log.path.name}-wal")

    def grown(first: int, after: Callable[[], None]) -> int:
        before = journal.stat().st_size
        for n in range(first, first + 40):
            log.append([action(n)], n)
            after()
        return journal.stat().st_size - before

    alone = grown(0, lambda: None)
    log.checkpoint()
    assert grown(100, log.checkpoint) < alone / 4
    assert [rows.offset.tolist() for rows in log.read(0, 80).values()] == [list(range(80))]


@pytest.mark.parametrize("seed", range(4))
def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path, seed: int) -> None:
    """A child killed in the middle of appends has kept every acknowledged batch, whole; the rest can be resent."""
    path = tmp_path / "log.sqlite"
    code = "while True:\n    n = log.end\n    say(str(log.append([event(i) for i in range(n, n + 1 + n % 37)], n).end))"
    rng = random.Random(seed)
    for _ in range(3):
        running = subprocess.Popen(child(code, path), stdout=subprocess.PIPE, text=True)
        assert running.stdout is not None
        for _ in range(rng.randrange(1, 60)):
            line = running.stdout.readline()
        running.send_signal(signal.SIGKILL)
        rest = running.stdout.read()
        running.wait()
        running.stdout.close()
        acknowledged = int([line, *(part for part in rest.splitlines(True) if part.endswith("\n"))][-1])
        log = SqliteLog(path)
        assert log.end >= acknowledged
        rows = log.read(0, log.end)["action"]
        assert numbers(rows) == list(range(log.end))
        assert log.strings.texts(rows.fields["user"]) == [f"user {n}" for n in range(log.end)]
        again = [Accepted("action", f"e{n}", n, (f"user {n}", n)) for n in range(log.end + 5)]
        assert log.append(again, 1).duplicates == len(again) - 5
        log.close()


FULL = """
import resource
from penstock.errors import UnavailableError
limited = len(sys.argv) > 2
log.append([event(n) for n in range(100)], 1)
held = log.read(0, 100)["action"].fields.tobytes()
if limited:
    size = max(file.stat().st_size for file in Path(sys.argv[1]).parent.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100_000, resource.RLIM_INFINITY))
refused = 0
for n in range(100, 100_000_000, 10_000):
    try:
        log.append([event(i) for i in range(n, n + 10_000)], 1, notes={"at": str(n)})
    except UnavailableError as error:
        assert "free disk space" in str(error), error
        say(str(error))
        break
assert log.end == n, (log.end, n)
assert log.note("at") == (str(n - 10_000) if n > 100 else None)
assert log.strings.code(f"user {n}") == 0
assert log.read(0, 100)["action"].fields.tobytes() == held
if limited:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
else:
    (Path(sys.argv[1]).parent / "ballast").unlink()
assert log.append([event(i) for i in range(n, n + 3)], 1).accepted == 3
log.close()
log = SqliteLog(Path(sys.argv[1]), [schema])
rows = log.read(0, log.end)["action"]
assert rows.fields["n"].tolist() == list(range(n + 3))
assert log.strings.texts(rows.fields["user"]) == [f"user {i}" for i in range(n + 3)]
say("whole")
"""


def test_a_disk_that_takes_no_more_refuses_and_keeps_the_rest(tmp_path: Path) -> None:
    """Past a limit on file size an append is refused whole, and works again once there is room."""
    done = subprocess.run([*child(FULL, tmp_path / "log.sqlite"), "limited"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("whole\n")


def test_a_full_file_system_refuses_and_keeps_the_rest(tmp_path: Path) -> None:
    """On a file system of 4 MB, filled up, the same holds: SQLite's own "disk is full" loses nothing."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m", "penstock-test", str(disk)], capture_output=True
        ).returncode
    )
    if not mounted:
        pytest.skip("a small file system can be mounted by root only")
    try:
        (disk / "ballast").write_bytes(b"\0" * 1_500_000)
        done = subprocess.run(child(FULL, disk / "log.sqlite"), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "database or disk is full" in done.stdout
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_failed_transaction_leaves_no_string_behind(log: SqliteLog) -> None:
    """Strings of an append that fails are not in the dictionary, and their codes go to the next ones."""
    log.append([action(0, user="ann")], 1)
    bad = Accepted("action", "bad", 1, ("ghost", "view", None, 2**70, None, None))
    with pytest.raises(OverflowError):
        log.append([action(1, user="bob"), bad], 1)
    assert (log.end, log.strings.code("ghost"), log.strings.code("bob")) == (1, 0, 0)
    log.append([action(1, user="cid")], 2)
    rows = log.read(0, 2)["action"]
    assert log.strings.texts(rows.fields["user"]) == ["ann", "cid"]
    assert sorted([*rows.fields["user"].tolist(), log.strings.code("view")]) == [1, 2, 3]


def test_what_is_archived_is_read_as_before(tmp_path: Path) -> None:
    """Whole segments move to Parquet and leave SQLite; any range reads the same; ids stay known; offsets go on."""
    path = tmp_path / "log.sqlite"
    log = SqliteLog(path, [ACTION, VISIT], segment=100)
    events = [Accepted("visit", f"v{n}", n, (f"/{n % 5}",)) if n % 3 == 0 else action(n) for n in range(450)]
    log.append(events, 1_000)
    ranges = [(0, 450), (0, 1), (99, 101), (150, 320), (299, 450), (410, 420), (0, 100)]
    before = [log.read(*part) for part in ranges]
    seen: list[tuple[int, int | None]] = []
    assert log.archive(399, lambda done, total: seen.append((done, total))) == 300
    assert seen == [(100, 300), (200, 300), (300, 300)]
    assert log.archive(399) == 0
    for part, rows in zip(ranges, before, strict=True):
        same(rows, log.read(*part))
    log.close()
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT min(offset) FROM events").fetchone()[0] == 300
    db.close()
    log = SqliteLog(path, [ACTION, VISIT], segment=100)
    for part, rows in zip(ranges, before, strict=True):
        same(rows, log.read(*part))
    assert (log.end, log.newest) == (450, 449)
    assert log.append(events, 1_000).duplicates == 450
    assert log.append([action(999)], 1_000).first == 450
    assert log.archive(10_000) == 100
    assert [file.suffix for file in sorted((tmp_path / "log-archive").iterdir())] == [".parquet"] * 4
    log.close()


def test_a_stream_may_gain_optional_fields_and_nothing_else(tmp_path: Path) -> None:
    """Old events, archived ones too, read with missing values in new fields; any other change is told at opening."""
    path = tmp_path / "log.sqlite"
    log = SqliteLog(path, [VISIT], segment=2)
    log.append([Accepted("visit", f"v{n}", n, (f"/{n}",)) for n in range(3)], 9)
    log.archive(3)
    log.close()
    extra = (Field("shop", "text", True), Field("price", "money", True), Field("score", "float", True))
    grown = Schema("visit", (*VISIT.fields, *extra))
    log = SqliteLog(path, [grown], segment=2)
    log.append([Accepted("visit", "v3", 3, ("/3", "north", 5, 0.5))], 9)
    rows = log.read(0, 4)["visit"]
    assert rows.offset.tolist() == [0, 1, 2, 3]
    assert log.strings.texts(rows.fields["page"]) == ["/0", "/1", "/2", "/3"]
    assert log.strings.texts(rows.fields["shop"]) == ["", "", "", "north"]
    assert rows.fields["price"].tolist() == [MISSING_INT, MISSING_INT, MISSING_INT, 5]
    assert np.isnan(rows.fields["score"]).tolist() == [True, True, True, False]
    assert log.schemas["visit"] == grown
    log.close()
    wrong = {
        "shop is gone": VISIT,
        "page (text) is now page (int)": Schema("visit", (Field("page", "int", False), *extra)),
        "page (text) is now page (text, optional)": Schema("visit", (Field("page", "text", True), *extra)),
        "the new field x is not optional": Schema("visit", (*grown.fields, Field("x", "int", False))),
        "page (text) is now shop": Schema("visit", (extra[0], VISIT.fields[0], *extra[1:])),
    }
    for words, schema in wrong.items():
        with pytest.raises(DefinitionError) as caught:
            SqliteLog(path, [schema])
        assert words in str(caught.value)
        assert "give the event class a new name" in str(caught.value)
    log = SqliteLog(path, [grown])
    same({"visit": rows}, log.read(0, 4))
    log.close()


def test_dead_letters_are_kept_newest_first(log: SqliteLog) -> None:
    """Rejections survive with source and remedy, whatever characters they hold; raw text is cut at 4 KB."""
    log.reject([Rejection(0, "user", "user is text", "5", "quote it", "x" * 9_000)], "http")
    log.reject([Rejection(7, "", "an event is valid JSON", "\ud800", "check", "\ud800\0")], "events.csv")
    second, first = log.rejects(10)
    assert (second.source, second.rejection.index, second.rejection.raw) == ("events.csv", 7, "?\0")
    assert (first.source, first.rejection.error) == ("http", "user is text; got 5; quote it")
    assert len(first.rejection.raw) == 4096
    assert first.time <= second.time
    assert len(log.rejects(1)) == 1


def test_dead_letters_are_capped(log: SqliteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the newest are kept, so that a broken sender cannot fill the disk."""
    monkeypatch.setattr("penstock.events.log.MOST_REJECTS", 10)
    for n in range(4):
        log.reject([Rejection(n * 6 + i, "", "r", "", "", "") for i in range(6)], "http")
    assert [letter.rejection.index for letter in log.rejects(100)] == list(range(23, 13, -1))


def test_other_threads_and_processes_read_while_one_appends(tmp_path: Path) -> None:
    """Readers in other threads see only whole batches; a read-only log of another process sees them on refresh."""
    path = tmp_path / "log.sqlite"
    log = SqliteLog(path, [ACTION])
    log.append([action(0)], 1)
    other = SqliteLog(path, read_only=True)
    stop = threading.Event()
    faults: list[object] = []

    def look() -> None:
        while not stop.is_set():
            end = log.end
            rows = log.read(0, end + 50)["action"]
            if len(rows) < end or numbers(rows) != list(range(len(rows))):
                faults.append((end, len(rows)))
            if "" in log.strings.texts(rows.fields["user"]):
                faults.append("string")

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for n in range(1, 400, 3):
        log.append([action(i, user=f"new {i}") for i in range(n, n + 3)], 1)
    stop.set()
    for thread in threads:
        thread.join()
    assert not faults
    assert other.end == 1
    assert other.refresh() == log.end == 400
    assert other.id == log.id
    assert other.strings.texts(other.read(399, 400)["action"].fields["user"]) == ["new 399"]
    assert other.strings.code("new 399") == log.strings.code("new 399")
    with pytest.raises(UnavailableError, match=r"the log is open for writing; got .*read only"):
        other.append([action(1)], 1)
    other.close()
    log.close()


def test_two_writers_in_turn_keep_one_order(tmp_path: Path) -> None:
    """A second process that ingests beside the first neither reuses its offsets nor its codes."""
    path = tmp_path / "log.sqlite"
    first, second = SqliteLog(path, [ACTION]), SqliteLog(path, [ACTION])
    first.append([action(0, user="a")], 1)
    second.append([action(1, user="b")], 1)
    appended = first.append([action(2, user="c"), action(1)], 1)
    assert (appended.first, appended.end, appended.duplicates) == (2, 3, 1)
    rows = first.read(0, 3)["action"]
    assert numbers(rows) == [0, 1, 2]
    assert first.strings.texts(rows.fields["user"]) == second.strings.texts(rows.fields["user"]) == ["a", "b", "c"]
    first.close()
    second.close()


def test_what_cannot_be_opened_says_why(tmp_path: Path) -> None:
    """A missing log, a file that is none, a foreign format and an undeclared stream are told in words."""
    with pytest.raises(NotFoundError, match=r"the log exists; got .*none\.sqlite; ingest some events first"):
        SqliteLog(tmp_path / "none.sqlite", read_only=True)
    (tmp_path / "text.sqlite").write_text("no database " * 1_000)
    with pytest.raises(UnavailableError, match=r"the log can be opened; got .*file is not a database"):
        SqliteLog(tmp_path / "text.sqlite", [ACTION])
    with sqlite3.connect(tmp_path / "old.sqlite") as db:
        db.execute("CREATE TABLE events (x)")
    db.close()
    with pytest.raises(UnavailableError, match="the log has format 1; got format 0"):
        SqliteLog(tmp_path / "old.sqlite", [ACTION])
    log = SqliteLog(tmp_path / "log.sqlite", [ACTION])
    with pytest.raises(DefinitionError, match="a stream is declared when the log opens; got visit; known: action"):
        log.append([Accepted("visit", "a", 1, ("/",))], 1)
    log.close()
