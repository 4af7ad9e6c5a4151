"""The servers that are measured, each started as its users start it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

from benchmarks._peers import KEPT, interpreter
from benchmarks._serving.load import Address
from benchmarks._serving.world import APP, Shop
from penstock.errors import UnavailableError
from penstock.stores.redis import RedisStore

PEERS = Path(__file__).with_name("peers")
_PATIENCE = 90.0


def present(name: str) -> bool:
    """Whether a peer's environment and Redis are there."""
    return interpreter(name) is not None and shutil.which("redis-server") is not None


@contextmanager
def penstock(shop: Shop, workers: int, folder: Path | None = None) -> Iterator[Address]:
    """`penstock serve` on a copy of the shop, in processes of its own."""
    with TemporaryDirectory(dir=folder) as home:
        shutil.copytree(shop.home, home, dirs_exist_ok=True)
        with serving(APP, Path(home), workers) as address:
            yield address


@contextmanager
def serving(app: Path, home: Path, workers: int = 1) -> Iterator[Address]:
    """`penstock serve` of an app over a home folder, going by the time of events."""
    command = [sys.executable, "-m", "penstock.cli", "serve", "--app", str(app), "--home", str(home), "--clock"]
    command += ["events", "--port", "0", "--workers", str(workers), "--json"]
    with _process(command, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        if not line:
            raise UnavailableError("penstock serve starts", got=f"exit {server.wait()}", remedy="see above")
        address = "127.0.0.1", int(json.loads(line)["url"].rsplit(":", 1)[1])
        _until_answering(address, "/readyz")
        yield address


@contextmanager
def redis(shop: Shop, workers: int) -> Iterator[Address]:
    """FastAPI over Redis, rows of features as packed bytes; events to the same server."""
    with redis_server() as (_, line):
        environment = {"PEER_DATA": str(shop.peers), "PEER_REDIS": line}
        _once("redis", "redis_app.py", environment)
        with _uvicorn("redis", "redis_app", workers, environment) as address:
            yield address


@contextmanager
def feast(shop: Shop, workers: int) -> Iterator[tuple[Address, Address]]:
    """FastAPI over Feast's online store on Redis; events to a process of their own, the second address."""
    with redis_server() as (port, _), TemporaryDirectory() as folder:
        environment = {"PEER_DATA": str(shop.peers), "PEER_REDIS_PORT": str(port), "PEER_REPOSITORY": folder}
        _once("feast", "feast_app.py", environment)
        with (
            _uvicorn("feast", "feast_app", workers, environment) as address,
            _uvicorn("feast", "feast_events", 1, environment) as consumer,
        ):
            yield address, consumer


@contextmanager
def redis_store(name: str = "bench") -> Iterator[Callable[[Path], RedisStore]]:
    """A Redis of its own, and what makes an empty store in it for a folder; the caller closes the stores."""
    with redis_server() as (_, line):
        yield lambda path: RedisStore(f"unix://{line}", name=f"{name}:{path}")


@contextmanager
def redis_server() -> Iterator[tuple[int, str]]:
    """A Redis of its own, in memory only: its port and its Unix socket."""
    port = _free_port()
    with TemporaryDirectory() as folder, ExitStack() as opened:
        line = f"{folder}/redis.sock"
        command = ["redis-server", "--port", str(port), "--unixsocket", line, "--save", "", "--appendonly", "no"]
        opened.enter_context(_process([*command, "--dir", folder], stdout=subprocess.DEVNULL))
        until = time.monotonic() + _PATIENCE
        while not Path(line).exists():
            _wait(until, "redis-server")
        yield port, line


def _once(name: str, script: str, environment: dict[str, str]) -> None:
    """Fills a peer's stores."""
    subprocess.run(
        [KEPT / name / "bin" / "python", PEERS / script],
        env={**os.environ, **environment},
        check=True,
        stdout=subprocess.DEVNULL,
    )


@contextmanager
def _uvicorn(name: str, module: str, workers: int, environment: dict[str, str]) -> Iterator[Address]:
    port = _free_port()
    command = [str(KEPT / name / "bin" / "uvicorn"), f"{module}:app", "--app-dir", str(PEERS), "--port", str(port)]
    command += ["--workers", str(workers), "--loop", "uvloop", "--http", "httptools"]
    command += ["--no-access-log", "--log-level", "warning"]
    with _process(command, env={**os.environ, **environment}):
        address = "127.0.0.1", port
        _until_answering(address, "/healthz")
        # The other workers of the same server start at the same time.
        time.sleep(1.0 if workers > 1 else 0.0)
        yield address


@contextmanager
def _process(
    command: Sequence[str], stdout: int | None = None, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdout=stdout, env=env)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _until_answering(address: Address, path: str) -> None:
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            with urlopen(f"http://{address[0]}:{address[1]}{path}", timeout=5) as answer:
                if answer.status == 200:
                    return
        except OSError:
            pass
        _wait(until, f"the server on port {address[1]}")


def _wait(until: float, what: str) -> None:
    if time.monotonic() > until:
        raise UnavailableError(f"{what} starts within {_PATIENCE:g} s", got="no answer", remedy="see above for why")
    time.sleep(0.02)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
