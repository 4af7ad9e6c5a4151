"""One round over the machine and a home folder. Nothing is written, so it may run beside a server."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from penstock.doctor import machine
from penstock.doctor.finding import Finding, State
from penstock.doctor.folder import disk, folder, holder, weight
from penstock.doctor.log import decisions as decision_log
from penstock.doctor.log import log as event_log
from penstock.doctor.packages import packages, programs
from penstock.doctor.releases import releases
from penstock.doctor.store import store
from penstock.errors import PenstockError
from penstock.events import SqliteLog
from penstock.features import View
from penstock.releases import Registry, recipe_of
from penstock.types import Progress

Timed = Callable[[str], AbstractContextManager[Progress]]
"""Shows a step while it runs, and gives its progress callback."""


def visit(
    home: Path, *, port: int, views: Sequence[View], decisions: Sequence[str], named: bool, timed: Timed
) -> list[Finding]:
    """Looks at everything.

    Args:
        home: the folder; it is not made.
        port: where the server would listen.
        views, decisions: the app's; empty where it does not load.
        named: whether somebody asked for this very home, so that its absence is a mistake.
        timed: shows steps that may take long.
    """
    with timed("look at the machine"):
        found = [*packages(), *programs(), machine.files(), *machine.clock(), machine.port(port)]
    if not home.is_dir():
        state: State = "wrong" if named or home.exists() else "warn"
        remedy = f"correct --home, or begin: penstock ingest FILE --home {home}"
        told = f"{home} is {'no folder' if home.exists() else 'not there'}"
        return [*found, Finding("home", "folder", state, told, remedy), disk(home, 0, 0)]
    found += folder(home)
    if any(one.name == "folder" and one.state == "wrong" for one in found):
        return found
    found += _contents(home, views, decisions, timed)
    return found


def _contents(home: Path, views: Sequence[View], decisions: Sequence[str], timed: Timed) -> Iterator[Finding]:
    path = home / "log.sqlite"
    if not path.exists():
        yield disk(home, 0, 0)
        yield Finding("log", "events", "warn", "no log yet", "penstock ingest FILE")
        return
    try:
        log = SqliteLog(path, read_only=True)
    except PenstockError as error:
        yield Finding("log", "file", "wrong", error.got, error.remedy)
        return
    try:
        kept = sum(weight(one) for one in home.iterdir() if one.name != "releases")
        yield disk(home, log.end, kept)
        with timed("count the log"):
            yield from _guarded("log", event_log(log))
            yield from _guarded("decisions", iter([decision_log(home)]))
        with timed("weigh the store") as progress:
            names, needed = _versions(home, views)
            running, _ = holder(home / "lock")
            parts = store(
                home, end=log.end, strings=log.strings, names=names, kept=needed, running=running, progress=progress
            )
            yield from _guarded("store", parts)
        with timed("read the releases") as progress:
            yield from releases(home, log.id, decisions, progress)
    finally:
        log.close()


def _versions(home: Path, views: Sequence[View]) -> tuple[dict[bytes, str], set[bytes]]:
    """Names of all view versions that anything still knows, and those that the server keeps."""
    registry = Registry(home / "releases")
    names: dict[bytes, str] = {}
    needed = {view.version for view in views}
    for name in registry.ids():
        try:
            names.update({view.version: view.name for view in recipe_of(registry.folder, name).views})
        except PenstockError:
            continue  # the release is told as damaged
    try:
        needed |= registry.kept_views()
    except PenstockError:
        needed |= names.keys()
    return {**names, **{view.version: view.name for view in views}}, needed


def _guarded(part: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """What can be found, and what stopped the rest."""
    try:
        yield from findings
    except PenstockError as error:
        yield Finding(part, "file", "wrong", error.got, error.remedy)
    except (sqlite3.Error, OSError) as error:
        yield Finding(part, "file", "wrong", str(error), "restore the folder from a backup")
