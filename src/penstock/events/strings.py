"""The log's dictionary: every string once, as a code that all engines share."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from penstock.types import Array, Code


class SqliteStrings:
    """Codes of strings, kept in the log's database and cached in memory. Code 0 is the missing string.

    New codes belong to the appending transaction: they are seen by others once it is committed.
    """

    def __init__(self, db: Callable[[], sqlite3.Connection]) -> None:
        self._db = db
        self._codes: dict[str, Code] = {}
        self._texts: dict[Code, str] = {0: ""}
        self._fresh: dict[str, Code] = {}
        for code, text in db().execute("SELECT code, text FROM strings"):
            self._codes[text], self._texts[code] = code, text
        self._next = max(self._texts) + 1

    def code(self, text: str) -> Code:
        """The code of `text`, or 0 where the log has never seen it."""
        found = self._codes.get(text)
        if found is None and text:
            # Another process may have interned it since.
            row = self._db().execute("SELECT code FROM strings WHERE text = ?", (text,)).fetchone()
            found = row[0] if row else 0
            if row:
                self._texts[row[0]] = text
                self._codes[text] = row[0]
        return found or 0

    def text(self, code: Code) -> str:
        """The string of a code."""
        found = self._texts.get(code)
        if found is None:
            row = self._db().execute("SELECT text FROM strings WHERE code = ?", (code,)).fetchone()
            found = row[0] if row else ""
            if row:
                self._texts[code] = found
                self._codes[found] = code
        return found

    def texts(self, codes: Array) -> list[str]:
        """The strings of many codes."""
        return [self.text(code) for code in codes.tolist()]

    def intern(self, texts: Sequence[str | None]) -> NDArray[np.uint32]:
        """Codes of texts (n,), new ones where needed; inside the appending transaction only."""
        known, fresh = self._codes, self._fresh
        out = []
        for text in texts:
            code = 0 if not text else known.get(text) or fresh.get(text)
            if code is None:
                assert text
                code = self.code(text)
                if not code:
                    code = fresh[text] = self._next
                    self._next += 1
            out.append(code)
        return np.array(out, np.uint32)

    def write_new(self, db: sqlite3.Connection) -> None:
        """Writes the new codes into the transaction."""
        db.executemany("INSERT INTO strings (text, code) VALUES (?, ?)", self._fresh.items())

    def keep_new(self) -> None:
        """The transaction is committed."""
        self._texts.update((code, text) for text, code in self._fresh.items())
        self._codes.update(self._fresh)
        self._fresh = {}

    def forget_new(self) -> None:
        """The transaction failed."""
        self._fresh = {}
        self._next = max(self._texts) + 1
