"""The log's dictionary: every string once, as a code that all engines share."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from penstock.events.tables import guarded, lookup
from penstock.types import Array, Code


class SqliteStrings:
    """Codes of strings, kept in the log's database and cached as they are used. Code 0 is the missing string.

    A miss asks the database, so strings that another process has interned are found too.

    Args:
        path: of the database.
        reader: gives the calling thread's connection.
    """

    def __init__(self, path: Path, reader: Callable[[], sqlite3.Connection]) -> None:
        self._path = path
        self._reader = reader
        self._codes: dict[str, Code] = {"": 0}
        self._texts: dict[Code, str] = {0: ""}

    def code(self, text: str) -> Code:
        """The code of `text`, or 0 where the log has never seen it."""
        found = self._codes.get(text)
        if found is None:
            with guarded(self._path, "read"):
                row = self._reader().execute("SELECT code FROM strings WHERE text = ?", (text,)).fetchone()
            if row is None:
                return 0
            found = row[0]
            self._keep([(text, found)])
        return found

    def text(self, code: Code) -> str:
        """The string of a code; "" for 0 and for one that the log never gave."""
        if code not in self._texts:
            self._load([code])
        return self._texts.get(code, "")

    def texts(self, codes: Array) -> list[str]:
        """The strings of many codes, as a list of the same length."""
        wanted = codes.tolist()
        unknown = set(wanted).difference(self._texts)
        if unknown:
            self._load(sorted(unknown))
        get = self._texts.get
        return [get(code, "") for code in wanted]

    @property
    def cached(self) -> CachedStrings:
        """The same from memory alone: nothing is asked of the database."""
        return CachedStrings(self._codes, self._texts)

    def intern(self, db: sqlite3.Connection, texts: Iterable[str | None]) -> dict[str | None, Code]:
        """Codes of all `texts`, new ones where needed, inside the writer's transaction.

        The cache learns nothing of it: a transaction may fail. `keep` tells it once it has not.
        """
        wanted: dict[str | None, Code] = {None: 0}
        # Counted first: another thread may be loading codes meanwhile.
        held = len(self._codes)
        unknown = []
        for text in dict.fromkeys(texts):
            code = 0 if text is None else self._codes.get(text)
            if code is None:
                unknown.append(text)
            else:
                wanted[text] = code
        if unknown:
            last = db.execute("SELECT coalesce(max(code), 0) FROM strings").fetchone()[0]
            # A cache that holds every code need not ask which of the unknown strings exist.
            if last >= held:
                wanted.update(lookup(db, "SELECT text, code FROM strings WHERE text IN (?)", unknown))
            new = [text for text in unknown if text not in wanted]
            db.executemany("INSERT INTO strings (code, text) VALUES (?, ?)", enumerate(new, last + 1))
            wanted.update((text, code) for code, text in enumerate(new, last + 1))
        return wanted

    def keep(self, codes: dict[str | None, Code]) -> None:
        """Caches what `intern` gave, once it is committed."""
        self._keep((text, code) for text, code in codes.items() if text is not None)

    def _keep(self, pairs: Iterable[tuple[str, Code]]) -> None:
        for text, code in pairs:
            # Of an erased text only the place is left, which no text begins with.
            self._texts[code] = "" if text.startswith("\0") else text
            self._codes[text] = code

    def _load(self, codes: list[Code]) -> None:
        with guarded(self._path, "read"):
            db = self._reader()
            if len(codes) * 4 > codes[-1] - codes[0]:
                query = "SELECT text, code FROM strings WHERE code BETWEEN ? AND ?"
                self._keep(db.execute(query, (codes[0], codes[-1])))
            else:
                self._keep(lookup(db, "SELECT text, code FROM strings WHERE code IN (?)", codes))


class CachedStrings:
    """Strings as far as they are in memory: code 0 and "" stand for what is not."""

    def __init__(self, codes: Mapping[str, Code], texts: Mapping[Code, str]) -> None:
        self._codes = codes
        self._texts = texts

    def code(self, text: str) -> Code:
        return self._codes.get(text, 0)

    def text(self, code: Code) -> str:
        return self._texts.get(code, "")

    def texts(self, codes: Array) -> list[str]:
        get = self._texts.get
        return [get(code, "") for code in codes.tolist()]

    @property
    def cached(self) -> CachedStrings:
        return self


def codes_of(codes: dict[str | None, Code], texts: Iterable[str | None]) -> Array:
    """A column of codes (n,) uint32."""
    return np.fromiter(map(codes.__getitem__, texts), np.uint32)
