"""The access log: a JSON line for each request, with its waterfall."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from penstock.errors import UnavailableError
from penstock.serve.batches import Batches

_log = logging.getLogger("penstock.serve")


class AccessLog:
    """Appends lines to a file, on a thread of its own; several processes may append to the same one.

    Neither ids of shoppers nor headers are written. Reopened by name for each batch, so a rotated file is let go.

    Args:
        path: of the file.

    Raises:
        UnavailableError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._encode = msgspec.json.Encoder().encode
        try:
            self._append(b"")
        except OSError as error:
            raise UnavailableError(
                "the access log is a file that can be written", got=f"{path}: {error.strerror}",
                remedy="choose another --access-log",
            ) from None  # fmt: skip
        self._batches = Batches("access-log", self._write)

    def add(self, method: str, path: str, status: int, stages: Mapping[str, float], note: Mapping[str, Any]) -> None:
        """Takes down one request; `path` is the route's template, `stages` milliseconds. Never waits."""
        line = {
            "time": time.time(),
            "pid": os.getpid(),
            "method": method,
            "path": path,
            "status": status,
            **note,
            "ms": {stage: round(ms, 3) for stage, ms in stages.items()},
        }
        self._batches.put(self._encode(line) + b"\n")

    def close(self) -> None:
        """Writes what was taken."""
        self._batches.close()

    def _write(self, lines: list[bytes]) -> None:
        try:
            self._append(b"".join(lines))
        except OSError:
            # Requests go on; what is lost is said once a batch.
            _log.exception("%d lines of the access log could not be written", len(lines))

    def _append(self, text: bytes) -> None:
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        try:
            while text:
                text = text[os.write(handle, text) :]
        finally:
            os.close(handle)
