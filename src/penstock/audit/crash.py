"""A writer that is killed: a process of its own which takes events as serving does, and dies by kill -9.

Whoever opens its folder afterwards finds what a crash leaves: no close, no flush, no farewell.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from penstock.engines import StreamEngine
from penstock.errors import UnavailableError
from penstock.events import SqliteLog
from penstock.features import View
from penstock.stores import LmdbStore
from penstock.types import Accepted, Appended, Log, Micros, Store

Delivery = tuple[Accepted, Micros]
MOMENTS = ("logged", "writing", "applied")
"""When it dies: the batch is durable and not applied; its records are half written; all of it is done."""

_START = "import sys; from penstock.audit.crash import work; work(sys.argv[1])"
_SECONDS = 120


def start(
    folder: Path, views: Sequence[View], batches: Sequence[Sequence[Delivery]], moment: str
) -> subprocess.Popen[bytes]:
    """Starts a process that takes the batches into `folder`, and dies at `moment` of the last one."""
    classes = {type(aggregate) for view in views for aggregate in view.features.values()}
    modules = {cls.__module__ for cls in classes if not cls.__module__.startswith("penstock.")}
    job = {
        "views": [view.spec() for view in views],
        "batches": [[[e.stream, e.id, e.time, e.values, arrived] for e, arrived in batch] for batch in batches],
        "moment": moment,
        # An app file is no module that could be found by its name.
        "modules": {name: getattr(sys.modules[name], "__file__", None) for name in sorted(modules)},
    }
    (folder / "job.json").write_text(json.dumps(job))
    # Without -P a file named numpy.py in the working folder would be taken for the library.
    command = [sys.executable, "-P", "-c", _START, str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "POLARS_MAX_THREADS": "1"}
    with (folder / "errors.txt").open("wb") as errors:
        return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)


def finish(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Waits until the process has been killed.

    Raises:
        UnavailableError: it ended otherwise.
    """
    try:
        code = process.wait(_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    else:
        if code == -signal.SIGKILL:
            return
    lines = (folder / "errors.txt").read_text(errors="replace").strip().splitlines()
    raise UnavailableError(
        "the process that crashes on purpose comes as far as its crash",
        got=lines[-1] if lines else f"exit {code}",
        remedy="define aggregates of your own in a file that can be imported by itself",
    )


def deliver(log: Log, engine: StreamEngine, batch: Sequence[Delivery]) -> Appended:
    """Makes a batch durable, then visible, as the writer of a server does."""
    appended = log.append([event for event, _ in batch], [arrived for _, arrived in batch])
    if appended.end > appended.first:
        engine.apply(log.read(appended.first, appended.end), appended.first, appended.end)
    return appended


def work(path: str) -> None:
    """What the process does."""
    folder = Path(path)
    job = json.loads((folder / "job.json").read_text())
    for name, file in job["modules"].items():
        _load(name, file)
    views = [View.from_spec(spec) for spec in job["views"]]
    log = SqliteLog(folder / "log.sqlite", list({view.stream: view.schema for view in views}.values()))
    store = Interrupted(LmdbStore(folder / "store"), _die)
    engine = StreamEngine(log, cast(Store, store), views)
    *before, last = ([(Accepted(s, i, t, tuple(v)), arrived) for s, i, t, v, arrived in b] for b in job["batches"])
    for batch in before:
        deliver(log, engine, batch)
    if job["moment"] == "logged":
        log.append([event for event, _ in last], [arrived for _, arrived in last])
    else:
        store.next = job["moment"] == "writing"
        deliver(log, engine, last)
    _die()


def _load(name: str, file: str | None) -> None:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        spec = importlib.util.spec_from_file_location(name, file) if file else None
        if spec is None or spec.loader is None:
            raise
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Interrupted:
    """A store that calls `stop` after half of the records of a write, while `next` says so."""

    def __init__(self, store: Store, stop: Callable[[], None]) -> None:
        self._store = store
        self._stop = stop
        self.next = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def write(
        self, records: Iterable[tuple[bytes, bytes, bytes]], applied: Mapping[bytes, int], offset: int, newest: Micros
    ) -> None:
        self._store.write(self._half(list(records)) if self.next else records, applied, offset, newest)

    def _half(self, records: Sequence[tuple[bytes, bytes, bytes]]) -> Iterator[tuple[bytes, bytes, bytes]]:
        yield from records[: len(records) // 2]
        self._stop()
