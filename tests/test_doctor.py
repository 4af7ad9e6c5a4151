"""`penstock doctor` finds each fault, names the command that mends it, and leaves everything as it was."""

from __future__ import annotations

import json
import shutil
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import helpers
from helpers import cli
from penstock.doctor.folder import holder
from penstock.doctor.packages import too_old
from penstock.serve.lock import HomeLock
from penstock.serve.token import operator_token
from penstock.stores import LmdbStore


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small.py and a home in which all is well."""
    folder = tmp_path_factory.mktemp("sound")
    with helpers.trained(folder) as app:
        app.decide("home", user=helpers.history()[0]["user"])
        operator_token(app.home)
    return folder


@pytest.fixture
def shop(sound: Path, tmp_path: Path) -> Path:
    """A copy, free to be damaged."""
    shutil.copytree(sound, tmp_path / "shop")
    return tmp_path / "shop"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def doctor(shop: Path, *more: str, port: int | None = None) -> tuple[int, dict[str, Any]]:
    """The exit code and what was found."""
    done = cli(
        "doctor",
        "--app",
        shop / "small.py",
        "--home",
        shop / "home",
        "--port",
        str(port or free_port()),
        "--json",
        *more,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, json.loads(done.stdout.strip().splitlines()[-1])


def finding(told: dict[str, Any], part: str, name: str) -> dict[str, Any]:
    (found,) = [one for one in told["findings"] if (one["part"], one["name"]) == (part, name)]
    return dict(found)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_sound_home_has_nothing_wrong_and_its_figures_are_those_of_the_files(sound: Path) -> None:
    code, told = doctor(sound)
    assert (code, told["wrong"]) == (0, 0), told
    assert finding(told, "log", "events")["values"]["events"] == len(helpers.history())
    assert finding(told, "store", "offset")["values"] == {"offset": len(helpers.history()), "behind": 0}
    assert finding(told, "decisions", "log")["values"]["count"] == 1
    with helpers.load_app(sound) as app:
        store, views = app.open().store, app.views
        sizes = []
        for name, view in views.items():
            records = [(8 + len(key) + len(record), key) for key, record in store.scan(view.version)]
            held = finding(told, "store", f"view {name}")["values"]
            assert (held["records"], held["bytes"]) == (len(records), sum(length for length, _ in records))
            for length, key in records:
                codes = [int.from_bytes(key[at : at + 4], "big") for at in range(0, len(key), 4)]
                sizes.append((length, name, ",".join(map(app.open().log.strings.text, codes))))
    largest = finding(told, "store", "largest keys")["values"]["largest"]
    assert [row["bytes"] for row in largest] == sorted((length for length, *_ in sizes), reverse=True)[:10]
    assert {(row["bytes"], row["view"], row["key"]) for row in largest} <= set(sizes)


def test_it_writes_nothing(shop: Path) -> None:
    before = contents(shop / "home")
    assert doctor(shop)[0] == 0
    after = contents(shop / "home")
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    # LMDB's table of readers, and the shared memory of SQLite, are for whoever reads.
    assert all(name.endswith(("lock.mdb", "-shm", "-wal")) for name in changed)


def _open_token(home: Path) -> None:
    (home / "operator-token").chmod(0o644)


def _damage_release(home: Path) -> None:
    path = next(home.glob("releases/*/defaults.npy"))
    path.write_bytes(path.read_bytes() + b"\0")


def _lose_champion(home: Path) -> None:
    shutil.rmtree(next(home.glob("releases/*/manifest.json")).parent)


def _lose_events(home: Path) -> None:
    with closing(sqlite3.connect(home / "log.sqlite", isolation_level=None)) as db:
        db.execute("DELETE FROM events WHERE offset BETWEEN 100 AND 109")


def _lose_segment(home: Path) -> None:
    with closing(sqlite3.connect(home / "log.sqlite", isolation_level=None)) as db:
        db.execute("DELETE FROM events WHERE offset < 100")
        db.execute("INSERT INTO segments VALUES (0, 100, 'gone.parquet')")


def _scramble_log(home: Path) -> None:
    (home / "log.sqlite").write_bytes(b"nothing of the kind" * 1_000)


FAULTS: dict[str, tuple[Callable[[Path], None], str, str, str]] = {
    "token": (_open_token, "home", "operator-token", "rm "),
    "release": (_damage_release, "releases", "", "penstock train"),
    "champion": (_lose_champion, "releases", "champion of home", "penstock release rollback"),
    "events": (_lose_events, "log", "events", "backup"),
    "segment": (_lose_segment, "log", "segments", "backup"),
    "log": (_scramble_log, "log", "file", ""),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_wrong_and_has_a_remedy(shop: Path, fault: str) -> None:
    harm, part, name, remedy = FAULTS[fault]
    harm(shop / "home")
    code, told = doctor(shop)
    wrong = [one for one in told["findings"] if one["state"] == "wrong"]
    assert code == 1
    assert {one["part"] for one in wrong} == {part}, wrong
    assert any(one["name"].startswith(name) and remedy in one["remedy"] for one in wrong), wrong
    assert all(one["text"] and one["remedy"] for one in wrong)


def test_what_dead_trainings_and_old_definitions_left_is_named(shop: Path) -> None:
    """Worth knowing, not wrong: the exit code stays 0."""
    left = shop / "home" / "releases" / ".part-999999999"
    left.mkdir()
    (left / "model.txt").write_text("x" * 10_000)
    store = LmdbStore(shop / "home" / "store")
    with store.snapshot() as snapshot:
        offset, newest = snapshot.offset, snapshot.newest
    store.write([(b"obsolete", b"\0\0\0\1", b"x" * 500)], {b"obsolete": 7}, offset, newest)
    store.close()
    code, told = doctor(shop)
    assert code == 0, told
    part = finding(told, "releases", left.name)
    assert (part["state"], part["remedy"]) == ("warn", f"rm -r {left}")
    assert part["values"]["bytes"] >= 10_000
    old = finding(told, "store", f"view {b'obsolete'.hex()}")
    assert (old["state"], old["values"]["bytes"], old["values"]["obsolete"]) == ("warn", 512, True)


def test_an_app_file_that_breaks_is_wrong_and_the_rest_is_looked_at(shop: Path) -> None:
    (shop / "small.py").write_text("import penstock as ps\nraise ValueError('early')\n")
    code, told = doctor(shop)
    assert code == 1
    assert "early" in finding(told, "app", "file")["text"]
    assert finding(told, "log", "events")["state"] == "ok"


def test_many_dead_letters_are_worth_a_look(shop: Path) -> None:
    with helpers.load_app(shop) as app:
        runtime = app.open()
        parsed = runtime.parse(json.dumps([{"user": 7}] * 500).encode())
        assert len(parsed.rejected) == 500
        app.log().reject(parsed.rejected, "http")
    assert finding(doctor(shop)[1], "log", "rejects")["remedy"] == "penstock ingest --rejects"


def test_beside_a_running_server_it_says_who_is_there(shop: Path) -> None:
    """The port answers, the lock's holder is named, and the server goes on."""
    with helpers.server(shop / "small.py", shop / "home") as server:
        code, told = doctor(shop, port=server.port)
        assert code == 0, told
        port = finding(told, "machine", f"port {server.port}")
        assert port["values"] == {"free": False, "pid": server.process.pid, "ready": True}
        assert finding(told, "home", "lock")["values"] == {"held": True, "pid": server.process.pid}
        assert server("POST", "/v1/events", {"user": "u", "item": "i", "kind": "view"})["accepted"] == 1


def test_a_port_that_another_program_has_is_wrong(shop: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        # It takes connections and never answers.
        number = other.getsockname()[1]
        code, told = doctor(shop, port=number)
    assert code == 1
    assert f"--port {number + 1}" in finding(told, "machine", f"port {number}")["remedy"]


def test_a_lock_is_seen_without_taking_it(tmp_path: Path) -> None:
    with HomeLock(tmp_path):
        assert holder(tmp_path / "lock")[0]
    assert holder(tmp_path / "lock") == (False, None)


@pytest.mark.parametrize(
    "command", [["doctor"], ["audit"], ["train"], ["ingest", "--rejects"], ["ingest", "--archive"], ["explain", "0"]]
)
def test_a_mistyped_home_is_said_and_not_made(sound: Path, tmp_path: Path, command: list[str]) -> None:
    home = tmp_path / "mistyped"
    done = cli(*command, "--app", sound / "small.py", "--home", home)
    assert done.returncode == 1
    assert str(home) in done.stdout + done.stderr
    assert "--home" in done.stdout + done.stderr
    assert not home.exists()


def test_without_a_home_yet_nothing_is_wrong(tmp_path: Path) -> None:
    """Before the first start, in the folder where it will be."""
    done = cli("doctor", "--port", str(free_port()), cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "penstock ingest FILE" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("version", "bound", "old"),
    [("1.9", ">=1.10", True), ("2.0.0", ">=2.0", False), ("3.0rc1", ">=2", False), ("0.9", "", False)],
)
def test_versions_are_compared_as_numbers(version: str, bound: str, old: bool) -> None:
    assert too_old(version, bound) is old
