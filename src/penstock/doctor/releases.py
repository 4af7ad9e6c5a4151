"""The releases: whole or changed, which is champion, and what dead training runs left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from penstock.doctor.finding import Finding, size
from penstock.doctor.folder import weight
from penstock.errors import PenstockError
from penstock.releases import Registry, read
from penstock.types import Progress


def releases(home: Path, log_id: str | None, decisions: Sequence[str], progress: Progress) -> Iterator[Finding]:
    """Reads every release as the server would.

    Args:
        log_id: the log's; None where there is none.
        decisions: the app's.
    """
    registry = Registry(home / "releases")
    damaged = {}
    ids = registry.ids()
    for done, name in enumerate(ids):
        progress(done, len(ids))
        try:
            found = read(registry.folder, name)
            other = found.manifest["data"]["log"]
            if log_id is not None and other != log_id:
                damaged[name] = "was trained on another log, and is not taken"
        except PenstockError as error:
            damaged[name] = error.got or error.rule
        except (LookupError, TypeError, ValueError) as error:
            damaged[name] = f"cannot be read: {error}"
    for name, why in damaged.items():
        remedy = f"restore {registry.folder / name}, or penstock train and rm -r it"
        yield Finding("releases", name, "wrong", why, remedy)
    whole = len(ids) - len(damaged)
    held = weight(registry.folder) if registry.folder.exists() else 0
    values = {"whole": whole, "damaged": sorted(damaged), "bytes": held}
    yield Finding("releases", "folders", "ok", f"{whole} whole, {size(held)}", values=values)
    yield from _champions(registry, ids, decisions)
    yield from _left(registry.folder)


def _champions(registry: Registry, ids: Sequence[str], decisions: Sequence[str]) -> Iterator[Finding]:
    try:
        champions = registry.champions()
    except PenstockError as error:
        yield Finding("releases", "champions", "wrong", error.got, error.remedy)
        return
    for decision in sorted({*decisions, *champions}):
        name = f"champion of {decision}"
        champion = champions.get(decision)
        if champion is None:
            text = "none: popular items answer"
            yield Finding("releases", name, "warn", text, f"penstock train --decision {decision}")
        elif champion not in ids:
            remedy = f"penstock release rollback {decision}"
            yield Finding("releases", name, "wrong", f"{champion}, whose folder is gone", remedy)
        else:
            yield Finding("releases", name, "ok", champion, values={"release": champion})


def _left(folder: Path) -> Iterator[Finding]:
    """What training runs that were killed left."""
    for part in sorted(folder.glob(".part-*")):
        pid = part.name.removeprefix(".part-")
        if pid.isdecimal() and _alive(int(pid)):
            yield Finding("releases", part.name, "ok", f"being written by process {pid}")
        else:
            told = f"{size(weight(part))} that a training run left when it was killed"
            yield Finding("releases", part.name, "warn", told, f"rm -r {part}", {"bytes": weight(part)})


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
