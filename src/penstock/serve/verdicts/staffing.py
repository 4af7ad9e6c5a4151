"""How many reviews a day there are people for, as it was last said; in a file, for all processes and restarts."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from penstock.errors import PenstockError
from penstock.serve.requests import checked_staff

_log = logging.getLogger("penstock.serve")


class Staffing:
    """The reviews a day of each verdict of a home folder.

    Args:
        file: holds them; it need not be there.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stamp: tuple[int, int] | None = None
        self._said: dict[str, float] = {}

    def of(self, decision: str) -> float | None:
        """What was last said of a verdict; None where nothing was."""
        try:
            stat = self._file.stat()
        except FileNotFoundError:
            return None
        if (stat.st_size, stat.st_mtime_ns) != self._stamp:
            self._stamp = (stat.st_size, stat.st_mtime_ns)
            try:
                said = json.loads(self._file.read_text())
                self._said = {str(name): checked_staff(value) for name, value in said.items()}
            except (PenstockError, ValueError, TypeError, AttributeError) as error:
                # What was said before holds; decisions go on.
                _log.error("%s is not read: %s; penstock reviews --staff N writes it anew", self._file, error)
        return self._said.get(decision)

    def set(self, decision: str, reviews: float) -> None:
        """Says it, durably."""
        self.of(decision)
        part = self._file.with_suffix(".part")
        with part.open("w") as file:
            json.dump({**self._said, decision: reviews}, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._file)
