"""A small real app as a file, a small simulated history, and a child process that serves both."""

from __future__ import annotations

import hashlib
import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import penstock as ps
from penstock.clock import EventsClock

APP = """
import penstock as ps

app = ps.App("small")


class Action(ps.Event):
    user: str
    item: str
    kind: str


@app.view(on=Action, by="user")
class Shopper:
    recent = ps.last("item", k=20)
    actions = ps.count()
    actions_1h = ps.count(window="1h")
    since = ps.recency()


@app.view(on=Action, by="item")
class Product:
    actions = ps.count()
    actions_1d = ps.count(window="1d")
    shoppers = ps.distinct("user", precision=4)


@app.view(on=Action, by=("user", "item"))
class Interest:
    actions = ps.count()
    since = ps.recency()


@app.decision("home", by="user", budget="10s", k=10)
class Home:
    candidates = [ps.seen("recent", k=20), ps.covisits("recent", k=20), ps.popular(window="1d", k=20)]
    rank = ps.LambdaRank(goal="view", trees=10, min_leaf=20, most_labels=150, valid="1d", labels="2d")
    fallback = [ps.popular(window="7d", k=20, name="popular_all")]
"""
"""The app of these tests; its budget is wide, so that a slow machine does not choose the tier."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rfc3339(micros: int) -> str:
    return (EPOCH + timedelta(microseconds=micros)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@cache
def _history() -> tuple[dict[str, Any], ...]:
    frame = ps.World(seed=3, shoppers=80, items=60, categories=6, days=4, sessions=5).events().frame()
    columns = (frame[name].to_list() for name in ("id", "time", "user", "item", "kind"))
    return tuple(
        {"stream": "action", "id": id, "time": rfc3339(time), "user": user, "item": item, "kind": kind}
        for id, time, user, item, kind in zip(*columns, strict=True)
    )


def history() -> list[dict[str, Any]]:
    """Some 2,500 events of a simulated shop, in the order of time."""
    return list(_history())


def load_app(folder: Path, text: str = APP, *, name: str = "small.py", home: str = "home") -> ps.App:
    """The app of `text`, over a home folder in `folder`, with the events' clock. Close it."""
    file = folder / name
    file.write_text(text)
    app = ps.load(file)
    app.home = folder / home
    app.clock = EventsClock()
    app.open()
    return app


def trained(folder: Path, text: str = APP, events: list[dict[str, Any]] | None = None) -> ps.App:
    """The same, with the history in its log and a release in charge."""
    app = load_app(folder, text)
    app.ingest(history() if events is None else events)
    app.train()
    return app


def next_time(events: list[dict[str, Any]], seconds: float) -> str:
    """A time after the last of `events`."""
    last = datetime.fromisoformat(events[-1]["time"])
    return (last + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def tie(id: str) -> int:
    """The eight bytes by which the log's rows tell actions apart."""
    return int.from_bytes(hashlib.blake2b(f"action\0{id}".encode(), digest_size=16).digest()[:8], "little")


def cli(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the command line in a process of its own."""
    command = [sys.executable, "-m", "penstock.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120, check=False)


class Server:
    """`penstock serve` as a child process, and one connection to it."""

    def __init__(self, app: Path, home: Path, *more: str) -> None:
        command = [sys.executable, "-m", "penstock.cli", "serve", "--app", str(app), "--home", str(home)]
        command += ["--clock", "events", "--port", "0", "--json", *more]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the server ended with {self.process.wait()}"
        address = urlsplit(json.loads(line)["url"])
        self.host, self.port = str(address.hostname), int(address.port or 0)
        self.connection = http.client.HTTPConnection(self.host, self.port, timeout=30)

    def send(self, method: str, path: str, body: Any = None) -> None:
        self.connection.request(method, path, None if body is None else json.dumps(body))

    def answer(self) -> Any:
        with self.connection.getresponse() as response:
            text = response.read()
            assert response.status < 300, text
            return json.loads(text)

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        self.send(method, path, body)
        return self.answer()

    def kill(self) -> None:
        """kill -9: nothing is flushed, nothing is closed."""
        self.process.kill()
        self._gone()

    def stop(self) -> int:
        self.process.terminate()
        return self._gone()

    def _gone(self) -> int:
        code = self.process.wait()
        self.connection.close()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@contextmanager
def server(app: Path, home: Path, *more: str) -> Iterator[Server]:
    found = Server(app, home, *more)
    try:
        yield found
    finally:
        if found.process.returncode is None:
            found.stop()
