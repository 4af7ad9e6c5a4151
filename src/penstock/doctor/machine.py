"""The machine: open files, time, the port."""

from __future__ import annotations

import http.client
import json
import resource
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from penstock.doctor.finding import Finding

FEW_FILES = 4_096
"""A connection is an open file: below this many, crowds are refused by the system."""
_SET = datetime(2025, 1, 1, tzinfo=UTC).timestamp()
_ASK = 2.0


def files() -> Finding:
    """How many files, and so connections, one process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"{soft:,} at once" if soft != resource.RLIM_INFINITY else "no limit"
    values = {"soft": soft, "hard": hard}
    if soft != resource.RLIM_INFINITY and soft < FEW_FILES:
        return Finding("machine", "open files", "warn", text + ", a connection each", "ulimit -n 65536", values)
    return Finding("machine", "open files", "ok", text, values=values)


def clock() -> Iterator[Finding]:
    """Whether the clock is set, and time zones are known."""
    now = time.time()
    if now < _SET:
        told = f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M} UTC, which has been"
        yield Finding("machine", "clock", "wrong", told, "timedatectl set-ntp true")
    else:
        yield Finding("machine", "clock", "ok", f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M} UTC")
    try:
        ZoneInfo("Europe/Berlin")
    except Exception as error:  # whatever is wrong with the data, files with local times cannot be read
        yield Finding("machine", "time zones", "wrong", str(error), "pip install --upgrade tzdata")
    else:
        yield Finding("machine", "time zones", "ok", "known")


def port(number: int, host: str = "127.0.0.1") -> Finding:
    """Whether the port is free, or who answers there."""
    name = f"port {number}"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, number))
        except PermissionError:
            remedy = "penstock serve --port 8000: below 1024 only root may listen"
            return Finding("machine", name, "wrong", "not allowed", remedy)
        except OSError:
            return _taken(name, number, host)
    return Finding("machine", name, "ok", "free", values={"free": True})


def _taken(name: str, number: int, host: str) -> Finding:
    alive, ready = _ask(host, number, "/healthz"), _ask(host, number, "/readyz")
    if alive is None or alive.get("status") != "alive" or "pid" not in alive:
        text = "another program listens there"
        return Finding(
            "machine", name, "wrong", text, f"penstock serve --port {number + 1}, or stop it", {"free": False}
        )
    values = {"free": False, "pid": alive["pid"], "ready": bool(ready and ready.get("ready"))}
    text = f"a penstock server answers, process {alive['pid']}"
    if values["ready"]:
        return Finding("machine", name, "ok", f"{text}, ready", values=values)
    return Finding("machine", name, "warn", f"{text}, not ready", f"curl {host}:{number}/readyz", values)


def _ask(host: str, port: int, path: str) -> dict[str, Any] | None:
    connection = http.client.HTTPConnection(host, port, timeout=_ASK)
    try:
        connection.request("GET", path)
        found = json.loads(connection.getresponse().read(65_536))
    except (OSError, ValueError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return found if isinstance(found, dict) else None
