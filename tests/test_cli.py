"""The command line teaches: every command explains itself, a user's error is one line that names the remedy, and
--json ends with exactly one JSON object."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

import helpers
from helpers import cli
from penstock.serve.lock import HomeLock

COMMANDS = [
    [], ["demo"], ["init"], ["ingest"], ["train"], ["serve"], ["audit"], ["release"], ["release", "list"],
    ["release", "promote"], ["release", "rollback"],
]  # fmt: skip


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small.py, and a home with a release in it."""
    folder = tmp_path_factory.mktemp("shop")
    helpers.trained(folder).close()
    return folder


def last_object(text: str) -> dict[str, Any]:
    """The one JSON object that a command prints last."""
    lines = text.strip().splitlines()
    found = json.loads(lines[-1])
    assert isinstance(found, dict)
    assert not any(line.lstrip().startswith("{") for line in lines[:-1])
    return found


def one_line_error(*arguments: str | Path, cwd: Path | None = None) -> str:
    done = cli(*arguments, cwd=cwd)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr + done.stdout, done.stderr
    lines = [line for line in done.stderr.strip().splitlines() if line.startswith("penstock:")]
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: " ".join(words) or "penstock")
def test_help_says_what_a_command_does_and_what_each_option_is(command: list[str]) -> None:
    done = cli(*command, "--help")
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout
    assert len(done.stdout.split()) > 25
    if command not in ([], ["release"], ["init"]):
        assert "--home" in done.stdout


def test_the_first_help_names_every_command() -> None:
    text = cli("--help").stdout
    assert all(name in text for name in ("demo", "init", "ingest", "train", "serve", "audit", "release"))


def test_users_errors_are_one_line_with_a_remedy(shop: Path, tmp_path: Path) -> None:
    file, home = shop / "small.py", shop / "home"
    assert "--app" in one_line_error("train", "--app", tmp_path / "none.py", "--home", home)
    missing = one_line_error("ingest", tmp_path / "none.csv", "--app", file, "--home", tmp_path / "h")
    assert "none.csv" in missing
    bad = tmp_path / "bad.toml"
    bad.write_text("this is = = not TOML")
    data = tmp_path / "data.csv"
    data.write_text("a,b\n1,2\n")
    assert "bad.toml" in one_line_error("ingest", data, "--mapping", bad, "--app", file, "--home", tmp_path / "h")
    assert "ingest" in one_line_error("train", "--app", file, "--home", tmp_path / "empty")
    assert "release list" in one_line_error("release", "promote", "0" * 16, "--home", home)
    assert "promote" in one_line_error("release", "rollback", "home", "--home", home)
    assert "--clock" in one_line_error("serve", "--clock", "sun", "--app", file, "--home", home)
    assert "FILE" in one_line_error("ingest", "--app", file, "--home", home)


def test_a_port_in_use_is_one_line(shop: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = one_line_error("serve", "--app", shop / "small.py", "--home", shop / "home", "--port", port)
    assert "--port" in line


def test_a_home_that_cannot_be_written_is_one_line(shop: Path, tmp_path: Path) -> None:
    # A file where the folder should be: root, who may write everywhere, cannot use it either.
    (tmp_path / "home").write_text("a file")
    for command in ("train", "serve", "audit"):
        one_line_error(command, "--app", shop / "small.py", "--home", tmp_path / "home")


def test_an_app_file_that_fails_is_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import penstock as ps\napp = ps.App('x'\n")
    assert "broken.py" in one_line_error("train", "--app", broken, "--home", tmp_path / "h")


def test_the_demo_does_not_empty_a_folder_it_did_not_make(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("keep")
    assert "--home" in one_line_error("demo", "--smoke", "--home", tmp_path)
    assert (tmp_path / "precious").read_text() == "keep"


def test_json_is_one_object_at_the_end(shop: Path) -> None:
    at = ("--home", shop / "home", "--json")
    with_app = ("--app", shop / "small.py", *at)
    releases = last_object(cli("release", "list", *at).stdout)["releases"]
    assert [row["champion"] for row in releases] == [True]
    assert last_object(cli("release", "promote", releases[0]["id"], *at).stdout)["release"] == releases[0]["id"]
    trained = last_object(cli("train", "--no-promote", *with_app).stdout)
    assert trained["promoted"] is False
    assert Path(trained["report"]).is_file()
    assert trained["leaks"] == []
    assert [row["name"] for row in trained["candidates"] if row["chosen"]] == [trained["chosen"]]
    for row in trained["candidates"]:
        assert row["low"] <= row["mean"] <= row["high"]
        assert row["answer_ms_p50"] > 0
    assert last_object(cli("audit", *with_app).stdout)["audit_mismatches"] == 0


def test_training_prints_its_candidates_simplest_first(shop: Path) -> None:
    """Each with its figure, what it took to train and to answer; the chosen one is marked."""
    done = cli("train", "--no-promote", "--app", shop / "small.py", "--home", shop / "home")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("simplest first"))
    rows = lines[head + 1 : head + 6]
    names = [row[2:].split()[0] for row in rows]
    assert names == ["seen", "covisits", "popular_1d", "session_neighbours", "lambdarank"]
    assert [row.startswith("* ") for row in rows].count(True) == 1
    assert all(row.rstrip().endswith(" ms") and " s " in row for row in rows)


def test_ingest_reads_a_file_and_lists_what_it_refused(tmp_path: Path) -> None:
    app = tmp_path / "small.py"
    app.write_text(helpers.APP)
    data = tmp_path / "events.ndjson"
    events = [*helpers.history()[:5], {**helpers.history()[5], "item": ""}]
    data.write_text("".join(json.dumps(event) + "\n" for event in events))
    at = ("--app", app, "--home", tmp_path / "home", "--json")
    first = last_object(cli("ingest", data, *at).stdout)
    assert first["end"] == 5
    assert last_object(cli("ingest", data, *at).stdout)["end"] == 5
    done = cli("ingest", "--rejects", *at)
    assert done.returncode == 0, done.stderr
    refused = last_object(done.stdout)["rejects"]
    assert [row["field"] for row in refused] == ["item"]
    people = cli("ingest", "--rejects", "--app", app, "--home", tmp_path / "home")
    assert " item: " in people.stdout


def test_a_demo_has_a_shop_window_and_leaves_no_process_behind(tmp_path: Path) -> None:
    """The simulated shop is open while it serves; on SIGTERM its server, writer and workers are gone with it."""
    command = [sys.executable, "-m", "penstock.cli", "demo", "--smoke", "--serve", "--home", str(tmp_path / "home")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as demo:
        assert demo.stdout is not None
        said = next(line for line in demo.stdout if "still serving" in line)
        window = re.search(r"http://\S+/shop", said)
        assert window is not None
        with urlopen(window[0], timeout=20) as page:
            assert "Popular now" in page.read().decode()
        demo.terminate()
        assert demo.wait(60) == 128 + signal.SIGTERM
        # The lock is free only once nobody writes there.
        HomeLock(tmp_path / "home").close()


def test_a_demo_of_a_file_without_searches_to_learn_from_goes_on(tmp_path: Path) -> None:
    """Words that led to nothing, long ago: search is passed over in a line, and the rest is played through."""
    events = helpers.history()
    events[0] = {**events[0], "query": "lamp", "kind": "buy"}
    kept = [{name: value for name, value in event.items() if name != "stream"} for event in events]
    file = tmp_path / "events.ndjson"
    file.write_text("".join(json.dumps(event) + "\n" for event in kept))
    done = cli("demo", "--smoke", "--json", "--events", file, "--home", tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    found = last_object(done.stdout)
    assert (found["audit_mismatches"], found["errors"]) == (0, 0)
    assert found["release"]
    assert "search_release" not in found
    assert "search is passed over: events match the goal" in " ".join(done.stderr.split())


def test_the_demo_runs_the_whole_system_and_gives_its_figures(tmp_path: Path) -> None:
    done = cli("demo", "--smoke", "--json", "--home", tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    found = last_object(done.stdout)
    documented = [
        "hit_rate_20", "mrr_20", "popular_hit_rate_20", "covisit_hit_rate_20", "recent_hit_rate_20", "decide_p50_ms",
        "decide_p99_ms", "freshness_p50_ms", "freshness_p99_ms", "audit_rows", "audit_mismatches", "tiers", "errors",
        "seconds",
    ]  # fmt: skip
    assert [name for name in documented if name not in found] == []
    assert found["audit_mismatches"] == 0
    assert found["errors"] == 0
    assert found["audit_rows"] > 1_000
    assert found["hit_rate_20"] > found["popular_hit_rate_20"]
