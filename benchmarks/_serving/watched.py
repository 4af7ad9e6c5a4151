"""A server that is watched and one that is not, in one process, asked in turns; prints what each request took.

Run by `benchmarks.observability` in a process of its own, since it decides at import where metrics are kept.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import penstock as ps
from benchmarks._serving.world import APP, DECIDE, Shop
from penstock.clock import EventsClock
from penstock.serve.access import AccessLog
from penstock.serve.http import HttpApp
from penstock.serve.requests import Answer, Judged
from penstock.serve.runtime import Runtime

BLOCK = 40
Message = MutableMapping[str, Any]


class Silent:
    """Takes every call and attribute, and does nothing."""

    in_flight = 0

    def __getattr__(self, name: str) -> Silent:
        return self

    def __call__(self, *args: Any, **named: Any) -> Silent:
        return self


class Unlogged:
    """The runtime, whose decisions nobody takes down."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def served(self, answer: Answer | Judged, *, sure: bool = False) -> None:
        """Forgets it."""


async def _ask(app: HttpApp, body: bytes) -> float:
    """Milliseconds of one request, from the server's first line to its last."""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    scope = {"type": "http", "method": "POST", "path": DECIDE, "raw_path": DECIDE.encode(), "headers": headers,
             "query_string": b"", "state": {}}  # fmt: skip
    status = 0

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)

    began = time.perf_counter()
    await app(scope, receive, send)
    took = time.perf_counter() - began
    if status != 200:
        raise SystemExit(f"a decision was answered with {status}")
    return took * 1e3


async def _turns(
    ask: Callable[[bool, bytes], Awaitable[float]], end: Callable[[], None], users: list[str], blocks: int
) -> Any:
    draw = random.Random(5)
    ms: dict[str, list[list[float]]] = {"on": [], "off": []}
    cpu: dict[str, list[float]] = {"on": [], "off": []}
    for _ in range(blocks):
        bodies = [json.dumps({"user": draw.choice(users), "k": 20}).encode() for _ in range(BLOCK)]
        for name in draw.sample(["on", "off"], 2):
            before = time.process_time()
            found = [await ask(name == "on", body) for body in bodies]
            end()
            cpu[name].append((time.process_time() - before) / BLOCK * 1e3)
            ms[name].append(found)
    return {"ms": ms, "cpu": cpu}


def main(folder: str, blocks: str) -> None:
    """Prints {"ms": {"on": blocks of milliseconds, "off": …}, "cpu": {"on": means by block, "off": …}}."""
    shop = Shop(Path(folder))
    with TemporaryDirectory() as home, ps.load(APP) as app:
        shutil.copytree(shop.home, home, dirs_exist_ok=True)
        app.clock, app.home = EventsClock(), Path(home)
        runtime = app.open()
        access = AccessLog(Path(home) / "access.jsonl")
        on = HttpApp(runtime, token="t", access=access)
        off = HttpApp(Unlogged(runtime), token="t")
        off._metrics = off._endpoints.meters = Silent()  # type: ignore[assignment]

        async def ask(watched: bool, body: bytes) -> float:
            return await _ask(on if watched else off, body)

        async def run() -> Any:
            await _turns(ask, runtime.decisions.flush, shop.users, 10)
            return await _turns(ask, runtime.decisions.flush, shop.users, int(blocks))

        print(json.dumps(asyncio.run(run())))
        on.close()
        off.close()
        access.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
