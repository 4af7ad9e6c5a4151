"""Forgetting, in steps each of which may be cut short: the same command again goes on to the end."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.events import SqliteLog
from penstock.events.archive import sync_folder
from penstock.events.erasure import begin, begun, end, erase, rewrite, scour
from penstock.forget.find import App, Found, naming_files, trained_with
from penstock.releases import Registry
from penstock.serve.decisions import DECISIONS, drop
from penstock.serve.ingestor import Ingestor
from penstock.shop.catalogue import leave_out
from penstock.stores import LmdbStore
from penstock.types import Progress

LOG = "log.sqlite"
Timed = Callable[[str], AbstractContextManager[Progress]]
"""Shows a step while it runs, and gives its progress callback."""


@dataclass(frozen=True)
class Done:
    """What forgetting did beyond what was found.

    Attributes:
        segments: archived segments that were written anew.
        files: text files that still name the entity.
    """

    segments: int
    files: list[str]


def forget(home: Path, found: Found, app: App, timed: Timed) -> Done:
    """Erases what was found; the home's lock is held by the caller, and its log is closed.

    The log's transaction is the moment at which the events are gone. What comes before it finds the entity by its
    id; what comes after it needs no id, so that it can be finished without one.
    """
    log = home / LOG
    before = begun(log)
    begin(log)
    with timed("erase from the decision log"):
        drop(home / DECISIONS, found.decisions)
        if found.shopper:
            leave_out(home, found.value)
    with timed("erase from the log"):
        segments = erase(
            log, found.offsets, texts=found.texts, rejects=found.rejects, newest=found.newest,
            now=time.time_ns() // 1_000,
        )  # fmt: skip
    _finish(home, app, timed, rebuild=before or bool(found.offsets))
    return Done(segments, naming_files(home, found.value))


def finish(home: Path, app: App, timed: Timed) -> list[dict[str, Any]] | None:
    """Goes on with an erasure that was cut short, under the same conditions as `forget`.

    Returns:
        The releases trained with what it erased; None where there was none to finish.
    """
    log = home / LOG
    if not begun(log):
        return None
    _finish(home, app, timed, rebuild=True)
    with closing(SqliteLog(log, read_only=True)) as held:
        last = held.erasures[-1:]
        return [one for erasure in last for one in trained_with(home, held.id, erasure.first, erasure.offset)]


def _finish(home: Path, app: App, timed: Timed, *, rebuild: bool) -> None:
    with timed("overwrite what was erased"):
        scour(home / LOG)
        if (home / DECISIONS).exists():
            rewrite(home / DECISIONS)
    if rebuild:
        with timed("rebuild the store from the log") as progress:
            _rebuild(home, app, progress)
    end(home / LOG)


def _rebuild(home: Path, app: App, progress: Progress) -> None:
    """A new store: the old one's files go, since LMDB leaves old records in pages that it has yet to use again."""
    folder = home / "store"
    if folder.exists():
        shutil.rmtree(folder)
        sync_folder(home)
    schemas = {view.stream: view.schema for view in app.views}
    with closing(SqliteLog(home / LOG, list(schemas.values()))) as log, closing(LmdbStore(folder)) as store:
        Ingestor(log, store, Registry(home / "releases"), app.views, app.clock, progress).close()
