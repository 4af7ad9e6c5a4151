"""The main job, end to end: events in, decisions out, and the proof that both sides saw the same."""

from __future__ import annotations

import json as json_
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop

from penstock.aggregates import Count
from penstock.app import App
from penstock.clock import HOUR, duration
from penstock.commands import app_file, open_app, served_audit, steps
from penstock.demo.baselines import score_baselines, touch
from penstock.demo.figures import hit_rate, mrr
from penstock.demo.replay import replay
from penstock.demo.source import Stream, from_file, from_simulator
from penstock.demo.window import catalogue_of
from penstock.errors import ReleaseError, RequestError, UnavailableError
from penstock.learn import Attention
from penstock.printing import Printer
from penstock.types import Accepted

K = 20
CHUNK = 20_000
MARK = "made-by-demo"


def run(
    *, app: Path | None, home: Path, events: Path | None, mapping: Path | None, last: str, clients: int,
    workers: int, size: int, seed: int, stay: bool, port: int, attention: bool,
    smoke: bool, json: bool,
) -> None:  # fmt: skip
    """Runs the demo and prints what it did; see ``penstock demo --help``."""
    # Told to end, it ends its server too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    printer = Printer(json)
    began = time.perf_counter()
    _empty(home)
    file = app_file(app)
    system = open_app(file, home)
    with printer.step(f"read {events.name}" if events else "simulate a shop") as step:
        size = 12_000 if smoke else size
        stream = from_file(system, events, mapping) if events else from_simulator(system, size, seed)
        step.note(f"{len(stream.events):,} events" + (f", {stream.rejected:,} refused" if stream.rejected else ""))
    if stream.world is not None:
        catalogue_of(stream.world).write(home)
    place, _ = stream.cut(duration(last))
    history, live = stream.events[:place], list(stream.events[place:])
    live = live[:400] if smoke else live
    goal = _goal(stream, history)
    _tune(system, goal, duration(last))
    if attention:
        _attend(system)
    worded = _worded(system, history)
    result: dict[str, Any] = {}
    result.update(_ingest(system, stream, place, printer))
    result.update(_train(system, next(iter(system.decisions)), printer))
    for name in list(worded):
        try:
            result.update(_train(system, name, printer))
        except ReleaseError as error:
            # A file may hold words long ago, or none that led to its goal.
            del worded[name]
            printer.line(f"{name} is passed over: {error}")
    posts = [stream.as_json(event) for event in live]
    with _server(file, home, port, workers) as url:
        result.update(_replay(url, system, posts, goal, worded, clients, printer))
        result.update(_baselines(stream, history, posts, goal, printer))
        with printer.step("audit") as step:
            log = system.log()
            found = served_audit(system, log, 500, 0, step.progress)
            log.close()
            result.update(found.summary())
            step.note(f"{found.decisions:,} decisions, {found.values:,} values, {len(found.wrong):,} decisions differ")
        result["seconds"] = time.perf_counter() - began
        result["home_mb"] = sum(p.stat().st_size for p in home.rglob("*.*") if p.is_file()) / 1e6
        printer.table(result)
        if stay:
            window = "" if stream.world is None else f"; the shop window is {url}/shop"
            printer.line(f"still serving on {url}{window}; Ctrl-C stops")
            _wait()


def _empty(home: Path) -> None:
    """Makes a fresh home; only a folder that an earlier demo made is emptied."""
    if home.exists() and not (home / MARK).exists() and (home.is_file() or any(home.iterdir())):
        raise RequestError(
            "the demo empties its home folder first", got=f"{home}, which no demo made", remedy="choose another --home"
        )
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    (home / MARK).write_text("penstock demo empties this folder when it starts\n")


def _goal(stream: Stream, history: Sequence[Accepted]) -> str:
    """What is asked before: views where there are any, purchases otherwise."""
    names = [f.name for f in stream.schema.fields]
    if not {"kind", "user", "item"} <= set(names):
        raise RequestError(
            "the demo replays events with the fields user, item and kind", got=", ".join(names),
            remedy="rename fields, or use penstock ingest, train and serve",
        )  # fmt: skip
    place = names.index("kind")
    kinds = Counter(event.values[place] for event in history)
    return "view" if kinds["view"] else "buy"


def _tune(system: App, goal: str, last: int) -> None:
    """Fits the decision's goal and time split to the file: the span that is replayed is the span that validates."""
    decision = next(iter(system.decisions.values()))
    span = f"{max(1, round(last / HOUR))}h"
    labels = f"{max(1, round(3 * last / HOUR))}h"
    for name, one in system.decisions.items():
        rank = replace(one.recipe.rank, valid=span, labels=labels)
        rank = replace(rank, goal=goal) if one is decision else rank
        system.decisions[name] = replace(one, recipe=replace(one.recipe, rank=rank))


def _attend(system: App) -> None:
    """Adds self-attention over what a shopper did lately to the first decision, small enough to be trained beside."""
    decision = next(iter(system.decisions.values()))
    need = next((need for source in decision.recipe.sources for need in source.needs()), "recent")
    source = Attention(
        need, length=40, width=48, epochs=12, batch=32, rate=4e-3, drop=0.1, negatives=2_048, always=True
    )
    recipe = replace(decision.recipe, sources=(*decision.recipe.sources, source))
    system.decisions[decision.name] = replace(decision, recipe=recipe)


def _worded(system: App, history: Sequence[Accepted]) -> dict[str, str]:
    """The decisions, but the first, that read words of the request, by the field of the events that holds them.

    Without any such words in the history there is nothing to learn from, and they are not asked.
    """
    found = {}
    for name, decision in list(system.decisions.items())[1:]:
        schema = decision.recipe.views[0].schema
        places = {f.name: place for place, f in enumerate(schema.fields)}
        for word in decision.recipe.asks[:1]:
            if any(event.stream == schema.stream and event.values[places[word]] for event in history):
                found[name] = word
    return found


def _ingest(system: App, stream: Stream, place: int, printer: Printer) -> dict[str, Any]:
    log = system.log()
    start = time.perf_counter()
    with printer.step("ingest all but the last of it") as step:
        for at in range(0, place, CHUNK):
            to = min(at + CHUNK, place)
            log.append(stream.events[at:to], stream.arrived[at:to])
            step.progress(to, place)
        rate = place / (time.perf_counter() - start)
        size = sum(part.stat().st_size for part in system.home.glob("log.sqlite*"))
        step.note(f"{place:,} events, {rate:,.0f}/s, {size / 1e6:.1f} MB")
    log.close()
    return {"ingested": place, "ingest_events_per_second": rate}


def _train(system: App, name: str, printer: Printer) -> dict[str, Any]:
    start = time.perf_counter()
    begin, end = steps(printer)
    try:
        trained = system.train(name, step=begin)
    finally:
        end()
    folder = system.home / "releases" / trained.release
    printer.comparison(trained.report)
    printer.line(trained.report["reason"])
    printer.line(f"release {trained.release}, report {folder / 'report.html'}")
    told = {
        "release": trained.release,
        "chosen": trained.chosen,
        "report": str(folder / "report.html"),
        "train_seconds": time.perf_counter() - start,
        "release_mb": sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6,
    }
    first = name == next(iter(system.decisions))
    return told if first else {f"{name}_{key}": value for key, value in told.items()}


@contextmanager
def _server(app: Path, home: Path, port: int, workers: int) -> Iterator[str]:
    """A server of its own process, with the events' clock; stopped and drained at the end."""
    command = [sys.executable, "-m", "penstock.cli", "serve", "--app", str(app), "--home", str(home)]
    command += ["--clock", "events", "--port", str(port), "--workers", str(workers), "--json"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        line = server.stdout.readline()
        if not line:
            raise UnavailableError(
                "the demo's server starts", got=f"exit {server.wait()}", remedy="see the lines above for why"
            )
        yield json_.loads(line)["url"]
    finally:
        server.terminate()
        server.wait()


def _probe(system: App) -> tuple[str, str] | None:
    """A view by shopper and a count in it that every event raises: it shows when a post has arrived."""
    decision = next(iter(system.decisions.values()))
    for view in system.views.values():
        for name, aggregate in view.features.items():
            always = aggregate.window is None and aggregate.where is None
            if view.by == (decision.recipe.by,) and isinstance(aggregate, Count) and always:
                return view.name, name
    return None


def _replay(
    url: str, system: App, posts: list[dict[str, Any]], goal: str, worded: Mapping[str, str], clients: int,
    printer: Printer,
) -> dict[str, Any]:  # fmt: skip
    address = urlsplit(url)
    decision = next(iter(system.decisions))
    with printer.step("replay the rest as live clients") as step:
        found = uvloop.run(
            replay(
                str(address.hostname), int(address.port or 0), posts, ask=lambda event: event["kind"] == goal,
                decision=decision, worded=worded, k=K, clients=clients, freshness_probe=_probe(system),
                progress=step.progress,
            )
        )  # fmt: skip
        step.note(f"{found.events:,} events posted, {len(found.asked):,} decisions")
    return found.summary()


def _baselines(
    stream: Stream, history: Sequence[Accepted], posts: list[dict[str, Any]], goal: str, printer: Printer
) -> Mapping[str, float | None]:
    """Popularity, co-visits and most recent, live over the same events; a pass of its own costs the server nothing."""
    asked = [event["kind"] == goal for event in posts]
    with printer.step("the same for popularity, co-visits and most recent") as step:
        past = (touch(stream.as_json(event)) for event in history)
        ranks = score_baselines(past, [touch(event) for event in posts], asked, k=K, progress=step.progress)
    out: dict[str, float | None] = {}
    for name, found in ranks.items():
        out[f"{name}_hit_rate_{K}"] = hit_rate(found, K)
        out[f"{name}_mrr_{K}"] = mrr(found, K)
    return out


def _wait() -> None:
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
