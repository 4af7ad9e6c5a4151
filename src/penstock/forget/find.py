"""Where in a home folder an entity is named, and what was learned from its events. Nothing is written."""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.clock import Clock
from penstock.errors import PenstockError, RequestError
from penstock.events import SqliteLog
from penstock.features import View
from penstock.learn import Recipe, VerdictRecipe
from penstock.releases import Registry, recipe_of
from penstock.serve.decisions import DECISIONS, naming
from penstock.shop.catalogue import SHOPPERS, steppable
from penstock.stores import LmdbStore, trusted
from penstock.types import Code, Progress, Rows

_CHUNK = 200_000


@dataclass(frozen=True)
class App:
    """What forgetting needs to know of an app: its views, its decisions' recipes and its clock."""

    views: Sequence[View]
    recipes: Sequence[Recipe | VerdictRecipe]
    clock: Clock


@dataclass
class Found:
    """What an entity has left in a home folder.

    Attributes:
        events: by stream; `offsets` theirs, ascending; `archived` of them in Parquet segments.
        texts: codes of texts that only these events hold, the entity's own id among them; items' ids stay.
        kept: item ids that only these events hold: releases and other decisions refer to them.
        elsewhere: events of others that hold the same text in another field, by stream and field. They stay.
        rejects: numbers of dead letters that hold the id.
        decisions: ids of logged decisions made for it; `later` logged decisions of others that may have known it.
        shopper: whether the shop window's table of known shoppers lists it.
        records: of the store, by view, that go.
        releases: those that learned from its events.
        files: text files that name it, and that forgetting leaves alone.
        newest: the newest effective time of the events that stay, microseconds.
    """

    by: str
    value: str
    events: dict[str, int] = field(default_factory=dict)
    offsets: list[int] = field(default_factory=list)
    archived: int = 0
    texts: list[Code] = field(default_factory=list)
    kept: int = 0
    elsewhere: Counter[str] = field(default_factory=Counter)
    rejects: list[int] = field(default_factory=list)
    decisions: list[str] = field(default_factory=list)
    later: int = 0
    shopper: bool = False
    records: dict[str, int] = field(default_factory=dict)
    releases: list[dict[str, Any]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    newest: int = 0

    def __bool__(self) -> bool:
        return bool(self.offsets or self.rejects or self.decisions or self.shopper or self.texts)

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "field": self.by,
            "value": self.value,
            "events": sum(self.events.values()),
            "events_by_stream": self.events,
            "events_archived": self.archived,
            "texts": len(self.texts),
            "item_ids_kept": self.kept,
            "named_elsewhere": dict(self.elsewhere),
            "rejects": len(self.rejects),
            "decisions": len(self.decisions),
            "decisions_of_others": self.later,
            "known_shopper": self.shopper,
            "records": self.records,
            "releases": self.releases,
            "files": self.files,
        }


def entity(text: str, app: App) -> tuple[str, str]:
    """The field and the id of ``FIELD=VALUE``.

    Raises:
        RequestError: it is none, or the field names no entity of the app.
    """
    field, equals, value = text.partition("=")
    known = sorted({name for view in app.views for name in view.by} | {recipe.by for recipe in app.recipes})
    if not equals or not value or field not in known:
        raise RequestError(
            "an entity is named FIELD=VALUE, by a field that keys a view or a decision", got=repr(text),
            remedy="use one of " + ", ".join(f"{name}=ID" for name in known),
        )  # fmt: skip
    return field, value


def find(home: Path, log: SqliteLog, app: App, field: str, value: str, progress: Progress) -> Found:
    """Looks everywhere.

    Args:
        home: a folder with a log in it.
        log: open for reading.
        progress: told while the log is read.
    """
    found = Found(field, value)
    code = log.strings.code(value)
    _events(found, log, code, {recipe.item for recipe in app.recipes if isinstance(recipe, Recipe)}, progress)
    with closing(sqlite3.connect(f"file:{log.path}?mode=ro", uri=True, timeout=30)) as db:
        found.rejects = _rejects(db, value)
        if found.offsets:
            query = "SELECT first, stop FROM segments WHERE stop > ? AND first <= ?"
            places = np.array(found.offsets)
            for first, stop in db.execute(query, (found.offsets[0], found.offsets[-1])):
                found.archived += int(((places >= first) & (places < stop)).sum())
    found.decisions = naming(home / DECISIONS, value, {r.name for r in app.recipes if r.by != field})
    if found.offsets:
        found.later = _knowing(home / DECISIONS, found.offsets[0], found.decisions)
        found.releases = trained_with(home, log.id, found.offsets[0], log.end)
        found.records = _records(home, app, field, code)
    found.shopper = field in {recipe.by for recipe in app.recipes} and steppable(home, value)
    found.files = naming_files(home, value)
    return found


def _events(found: Found, log: SqliteLog, code: Code, items: Collection[str], progress: Progress) -> None:
    mine, others, named = _Codes(), _Codes(), _Codes()
    places: list[NDArray[np.int64]] = []
    for start in range(0, log.end, _CHUNK):
        for stream, rows in log.read(start, start + _CHUNK).items():
            texts = [f.name for f in log.schemas[stream].fields if f.kind == "text"]
            hit = rows.fields[found.by] == code if code and found.by in texts else np.zeros(len(rows), bool)
            gone, stays = rows.take(hit), rows.take(~hit)
            found.newest = max(found.newest, int(stays.time.max(initial=0)))
            if len(gone):
                found.events[stream] = found.events.get(stream, 0) + len(gone)
                places.append(gone.offset)
            for name in texts:
                mine.add(gone, name)
                others.add(stays, name)
                if name in items and name != found.by:
                    named.add(gone, name)
                if code and (count := int((stays.fields[name] == code).sum())):
                    found.elsewhere[f"{stream}.{name}"] += count
        progress(min(start + _CHUNK, log.end), log.end)
    found.offsets = np.sort(np.concatenate([np.zeros(0, np.int64), *places])).tolist()
    only = mine.all() - others.all()
    kept = (only & named.all()) - {code}
    found.kept = len(kept)
    # An id without events may still be in the dictionary, for dead letters and decisions speak of it.
    found.texts = sorted((only - kept) | ({code} - others.all() if code else set()))


class _Codes:
    """The different codes of many columns."""

    def __init__(self) -> None:
        self._held: set[int] = set()

    def add(self, rows: Rows, name: str) -> None:
        self._held.update(np.unique(rows.fields[name]).tolist())

    def all(self) -> set[int]:
        return self._held - {0}


def _rejects(db: sqlite3.Connection, value: str) -> list[int]:
    """Dead letters that hold the id as a word of its own, plain or as JSON writes it."""
    spelled = {value, json.dumps(value)[1:-1]}
    whole = re.compile("|".join(rf"(?<!\w){re.escape(one)}(?!\w)" for one in sorted(spelled)))
    found = []
    for one in sorted(spelled):
        query = "SELECT number, got, raw, source FROM rejects WHERE instr(raw, ?) OR instr(got, ?) OR instr(source, ?)"
        for number, *texts in db.execute(query, (one, one, one)):
            if any(whole.search(text) for text in texts):
                found.append(number)
    return sorted(set(found))


def _knowing(path: Path, first: int, own: Collection[str]) -> int:
    """How many logged decisions of others may have known an event at offset `first`."""
    if not path.exists():
        return 0
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as db:
        query = "SELECT id FROM decisions WHERE offset > ? AND length(digests) > 0"
        return len({row[0] for row in db.execute(query, (first,))} - set(own))


def trained_with(home: Path, log_id: str, first: int, before: int) -> list[dict[str, Any]]:
    """The releases of a log that learned from an event at offset `first`, and not from offsets above `before`."""
    registry = Registry(home / "releases")
    return [
        {key: row[key] for key in ("id", "decision", "champion", "until")}
        for row in registry.listing()
        if row["until"] is not None
        and first < row["until"] <= before
        and registry.manifest(row["id"])["data"]["log"] == log_id
    ]


def _records(home: Path, app: App, field: str, code: Code) -> dict[str, int]:
    """Records of the store whose key holds the entity."""
    path = home / "store"
    if not (path / "data.mdb").exists() or not trusted(path):
        return {}
    views = {view.version: view for view in app.views}
    registry = Registry(home / "releases")
    for name in registry.ids():
        try:
            views.update({view.version: view for view in recipe_of(registry.folder, name).views})
        except PenstockError:
            continue  # its views cannot be told apart; the store is built anew in any case
    counts: Counter[str] = Counter()
    store = LmdbStore(path, read_only=True)
    try:
        for version in store.views():
            view = views.get(version)
            if view is not None and field in view.by:
                at = slice(4 * view.by.index(field), 4 * view.by.index(field) + 4)
                wanted = code.to_bytes(4, "big")
                counts[view.name] += sum(key[at] == wanted for key, _ in store.scan(version))
    finally:
        store.close()
    return dict(counts)


def naming_files(home: Path, value: str) -> list[str]:
    """Files of the home that hold the id, as a JSON text or as a cell of a table, and are not erased from."""
    cell = re.compile(rf'(?:^|[,"]){re.escape(value)}(?:$|[,"\r])'.encode(), re.MULTILINE)
    quoted = json.dumps(value).encode()
    tables = [path for path in home.rglob("*.csv") if path.name != SHOPPERS and cell.search(path.read_bytes())]
    others = [path for path in home.rglob("*.json*") if path.is_file() and quoted in path.read_bytes()]
    return sorted(str(path.relative_to(home)) for path in [*tables, *others])
