"""One writing process a home folder: two would count the same events twice."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType

from penstock.errors import UnavailableError


class HomeLock:
    """Holds the home folder for this process, until closed or the process ends.

    Raises:
        UnavailableError: another process (or another open app of this one) writes there.
    """

    def __init__(self, home: Path) -> None:
        try:
            home.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(home / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise UnavailableError(
                "a home is a folder that can be written",
                got=f"{home}: {error.strerror}",
                remedy="choose another --home",
            ) from None
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._handle)
            raise UnavailableError(
                "one process at a time writes a home folder",
                got=f"{home}, which another one holds",
                remedy="stop it, or send the events to the running server over HTTP",
            ) from None

    def close(self) -> None:
        os.close(self._handle)

    def __enter__(self) -> HomeLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
