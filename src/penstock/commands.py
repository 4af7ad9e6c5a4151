"""What the commands do, on top of the app; signatures and help are in `cli`."""

from __future__ import annotations

import json as json_
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import asdict
from os.path import relpath
from pathlib import Path
from shlex import quote
from typing import Any

from penstock import audit as audits
from penstock import console, scaffold, shop
from penstock.app import App, load
from penstock.engines.opening import local_spark
from penstock.errors import MappingError, NotFoundError, PenstockError, ReleaseError, RequestError
from penstock.events import Event, Mapping, ingest_file
from penstock.printing import Printer, compared
from penstock.releases import Bundle, Registry, read
from penstock.serve.decisions import DECISIONS, DecisionLog, logged
from penstock.serve.lock import HomeLock
from penstock.serve.requests import checked_staff
from penstock.serve.runtime import STAFFING
from penstock.serve.server import run
from penstock.serve.token import operator_token
from penstock.serve.verdicts import Queue, Staffing
from penstock.types import Progress
from penstock.workers import Plan, Supervisor, clock_of

BUILT_IN = Path(__file__).parent / "apps" / "nextbest" / "app.py"
MAPPINGS = BUILT_IN.parent / "mappings"


def open_app(file: Path | None, home: Path) -> App:
    """The app of a file, of ./app.py, or the one that comes along, over a home folder."""
    app = load(app_file(file))
    app.home = home
    return app


def app_file(file: Path | None) -> Path:
    """The file given, ./app.py, or the one that comes along."""
    here = Path("app.py")
    return file or (here if here.is_file() else BUILT_IN)


def existing(home: Path) -> None:
    """Checks that a home folder has a log: whoever only reads must not make one under a mistyped name.

    Raises:
        NotFoundError: there is none.
    """
    if not (home / "log.sqlite").exists():
        raise NotFoundError(
            "a home is a folder with a log in it",
            got=f"{home}, which {'has none' if home.is_dir() else 'is not there'}",
            remedy="correct --home, or begin with penstock ingest FILE or penstock serve",
        )


def say(result: dict[str, Any], text: str, json: bool) -> None:
    """Prints for people, or one JSON object."""
    print(json_.dumps(result) if json else text)


def steps(printer: Printer) -> tuple[Callable[[str], Progress], Callable[[], None]]:
    """Turns "a step begins" calls into the printer's blocks; the second function ends the last one."""
    going: list[Iterator[Progress]] = []

    def end() -> None:
        if going:
            next(going.pop(), None)

    def begin(title: str) -> Progress:
        end()
        block = _block(printer, title)
        going.append(block)
        return next(block)

    return begin, end


def _block(printer: Printer, title: str) -> Iterator[Progress]:
    with printer.step(title) as step:
        yield step.progress


def init(*, folder: Path, history: Path | None, starter: str, force: bool, json: bool) -> None:
    chosen = scaffold.started(starter, guessing=history is not None)
    sample = scaffold.sampled(history) if history else None
    guess = scaffold.guess(sample) if sample else None
    events = str(history.resolve() if history.is_absolute() else relpath(history, folder)) if history else None
    files = scaffold.files_of(starter, folder, events, guess)
    scaffold.write(folder, files, force=force)
    result: dict[str, Any] = {"folder": str(folder), "files": list(files)}
    lines = [f"wrote {', '.join(files)} in {folder}"]
    if sample and guess:
        cls = event_type(load(folder / "app.py"), guess.mapping)
        checked = scaffold.check(sample, guess.mapping, cls)
        result |= {**scaffold.told(guess), **checked.counts()}
        lines += ["", *scaffold.lines(guess), str(checked), *(str(one.error) for one in checked.refused[:3])]
    ingests = (f"penstock ingest {quote(events or chosen.sample)} --mapping {name}" for name in chosen.mappings)
    lines += ["", " && ".join([f"next: cd {quote(str(folder))}", *ingests])]
    say(result, "\n".join(lines), json)


def ingest(
    *, files: list[Path], app: Path | None, home: Path, mapping: Path | None, rejects: bool, most: int, archive: bool,
    json: bool,
) -> None:  # fmt: skip
    system = open_app(app, home)
    if rejects or archive:
        existing(home)
    printer = Printer(json)
    # Listing needs no lock; writing beside a running server would go unseen by it.
    with nullcontext() if rejects else HomeLock(home), _log(system) as log:
        if rejects:
            found = log.rejects(most)
            refused = [(one.source, one.rejection) for one in found]
            lines = [f"{source} #{one.index} {one.field}: {one.error}" for source, one in refused]
            rows = [{"time": one.time, "source": one.source, **asdict(one.rejection)} for one in found]
            say({"rejects": rows}, "\n".join(lines) or "nothing was refused", json)
            return
        if archive:
            moved = log.archive(log.end)
            say({"archived": moved}, f"moved {moved:,} events to Parquet", json)
            return
        if not files:
            raise RequestError("ingest names files", got="none", remedy="penstock ingest FILE… --mapping MAPPING")
        out = []
        for file in files:
            chosen = Mapping.load(mapping) if mapping else known_mapping(file)
            with printer.step(f"ingest {file.name}") as step:
                done = ingest_file(log, file, chosen, event_type(system, chosen), progress=step.progress)
                step.note(str(done))
            out.append({"file": str(file), **asdict(done)})
        say({"files": out, "end": log.end}, f"the log holds {log.end:,} events", json)


def train(*, app: Path | None, home: Path, decision: str | None, promote: bool, study: bool, json: bool) -> None:
    system = open_app(app, home)
    existing(home)
    names: list[str | None] = [decision] if decision else [*system.decisions, *system.verdicts]
    names = names or [None]
    done: dict[str, dict[str, Any]] = {}
    lines: list[str] = []
    refused: list[ReleaseError] = []
    for name in names:
        printer = Printer(json)
        begin, end = steps(printer)
        # Who names a verdict is told that it cannot be studied; where everything is trained, it goes without.
        mine = study and (decision is not None or name not in system.verdicts)
        if study and not mine:
            lines.append(f"{name} is a verdict: a study is made of a ranker")
        try:
            trained = system.train(name, promote=promote, study=mine, step=begin)
        except ReleaseError as error:
            refused.append(error)
            done[str(name)] = {"passed_over": str(error)}
            lines.append(f"{name} is passed over: {error}")
            continue
        finally:
            end()
        printer.comparison(trained.report)
        report = system.home / "releases" / trained.release / "report.html"
        now = ", now champion" if promote else ""
        lines += [trained.report["reason"], f"release {trained.release} of {name}{now}", f"report {report}"]
        done[str(name)] = {
            "release": trained.release, "chosen": trained.chosen, "report": str(report), "promoted": promote,
            "candidates": compared(trained.report), "leaks": trained.report.get("leaks", []),
        }  # fmt: skip
    if len(refused) == len(names):
        raise refused[0]
    first = next(one for one in done.values() if "release" in one)
    say({**first, "decisions": done} if len(names) > 1 else first, "\n".join(lines), json)


def serve(
    *, app: Path | None, home: Path, host: str, port: int, workers: int, clock: str, future: str | None,
    store: str | None, access_log: Path | None, json: bool,
) -> None:  # fmt: skip
    if clock not in ("system", "events"):
        raise RequestError("--clock is system or events", got=repr(clock), remedy="leave it out for the wall clock")
    system = open_app(app, home)
    token = operator_token(home)

    def ready(url: str) -> None:
        say({"url": url}, f"serving {system.name} on {url} (Ctrl-C stops; operator's token in {home})", json)
        sys.stdout.flush()

    if workers > 1:
        plan = Plan(
            str(app_file(app)),
            str(home),
            clock,
            future,
            token,
            None if access_log is None else str(access_log),
            store,
            workers,
        )
        Supervisor(plan, host, port, workers).run(ready)
        return
    system.clock = clock_of(clock, future)
    system.store = store or system.store
    with Printer(json).step("open the store") as step:
        runtime = system.open(progress=step.progress)
    pages = (*shop.pages(home), *console.pages(runtime, token))
    run(runtime, host, port, token=token, on_ready=ready, access_log=access_log, pages=pages)


def audit(*, app: Path | None, home: Path, decisions: int, seed: int, prove: bool, spark: bool, json: bool) -> None:
    system = open_app(app, home)
    existing(home)
    printer = Printer(json)
    result: dict[str, Any] = {}
    with _log(system) as log:
        with printer.step("recompute served decisions") as step:
            found = served_audit(system, log, decisions, seed, step.progress)
            result.update(found.summary())
            step.note(
                f"{found.decisions:,} decisions, {found.values:,} values, {sum(found.mismatches.values()):,} mismatches"
            )
        with printer.step("shuffle, duplicate, delay, crash") as step:
            proof = audits.shuffled(list(system.views.values()), log, seed=seed, progress=step.progress)
            result.update(proof.summary())
            step.note(
                f"{proof.values:,} values, {proof.crashes:,} kills, {proof.duplicates:,} duplicates, "
                f"{sum(proof.mismatches.values()):,} mismatches"
            )
    differ = {**found.mismatches, **proof.mismatches}
    if prove or spark:
        with printer.step("compare engines and stores on random apps") as step, ExitStack() as opened:
            engines = dict(audits.ENGINES)
            if spark:
                engines["spark"] = opened.enter_context(local_spark())
            drawn = audits.prove(seed=seed, engines=engines, progress=step.progress)
            differing = sum(drawn.mismatches.values())
            result.update(random_apps=drawn.streams, random_values=drawn.values, random_mismatches=differing)
            step.note(f"{drawn.streams:,} apps, {drawn.values:,} values, {differing:,} mismatches")
        differ |= drawn.mismatches
    lines = [f"  {name}: {rows:,} rows differ" for name, rows in differ.items()]
    lines += [f"freshness: {found.stale:,} decisions missed an accepted event, by at most {found.stale_ms:.1f} ms"]
    lines += [f"lateness: for {found.late:,} decisions an event had happened and not yet arrived"]
    if found.changed:
        lines += [
            f"{found.changed:,} decisions knew events erased since: {found.lost:,} of their values are passed over"
        ]
    agree = "every other value agrees" if found.changed else "every value agrees"
    if not found.decisions:
        agree = "no served decision could be audited: serve some first"
    lines += [agree if not differ else "SERVING AND LOG DISAGREE"]
    say(result, "\n".join(lines), json)
    if differ or not found.decisions:
        raise SystemExit(1)


def served_audit(system: App, log: Any, most: int, seed: int, progress: Progress | None) -> audits.Audit:
    """Audits the decisions that the home folder's decision log holds."""
    path = system.home / DECISIONS
    decided = logged(path)
    releases: dict[str, Bundle] = {}
    for name in {d.release for d in decided if d.release}:
        try:
            releases[name] = read(system.home / "releases", name)
        except PenstockError as error:
            print(f"penstock: decisions of {name} are passed over: {error}", file=sys.stderr)
    return audits.served(log, decided, releases, most=most, seed=seed, progress=progress)


def explain(*, id: str, app: Path | None, home: Path, most: int, json: bool) -> None:
    system = open_app(app, home)
    existing(home)
    found = next(iter(logged(home / DECISIONS, id=id)), None)
    if found is None:
        raise NotFoundError(
            "a decision is explained by the decision_id of its answer", got=repr(id),
            remedy="take one from an answer",
        )  # fmt: skip
    release = None
    if found.release is not None:
        release = read(home / "releases", found.release)
    with _log(system) as log:
        told = audits.explain(found, release, log, most=most)
    say(told.values, "\n".join(told.lines()), json)


def reviews(*, decision: str | None, app: Path | None, home: Path, most: int, staff: float | None, json: bool) -> None:
    system = open_app(app, home)
    existing(home)
    verdict = system.named_verdict(decision)
    if staff is not None:
        Staffing(home / STAFFING).set(verdict.name, checked_staff(staff))
        say({"decision": verdict.name, "reviews": staff}, f"{verdict.name}: people for {staff:g} reviews a day", json)
        return
    found: list[dict[str, Any]] = []
    if (home / DECISIONS).exists():
        with _log(system) as log, closing(DecisionLog(home / DECISIONS)) as decisions:
            # By the clock of whoever serves, the newest event is not far from now.
            waiting = Queue(verdict.recipe, decisions, log).waiting(log.newest, most)
            found = [one.as_dict() for one in waiting]
    lines = []
    for one in found:
        score = "     " if one["score"] is None else f"{one['score']:.3f}"
        codes = ", ".join(code for code, *_ in one["reasons"])
        lines.append(f"{one['saving'] / 100:>10,.2f}  {score}  {one['event']}  {codes}")
    head = [f"{'saving':>10}  score  {verdict.recipe.schema.stream}  reasons"] if lines else []
    say({"reviews": found}, "\n".join([*head, *lines]) or "nothing waits for a review", json)


def release_list(*, home: Path, json: bool) -> None:
    rows = Registry(home / "releases").listing()
    lines = [
        f"{'*' if r['champion'] else ' '} {r['id']}  {r['decision'] or '?'}  {r['model']}"
        + (f"  events below {r['until']:,}" if r["until"] is not None else "")
        for r in rows
    ]
    say({"releases": rows}, "\n".join(lines) or "no release yet: penstock train makes one", json)


def release_promote(*, id: str, home: Path, json: bool) -> None:
    line = Registry(home / "releases").promote(id)
    say(line, f"{id} is champion of {line['decision']}", json)


def release_rollback(*, decision: str, home: Path, json: bool) -> None:
    line = Registry(home / "releases").rollback(decision)
    say(line, f"{line['release']} is champion of {decision} again", json)


def known_mapping(file: Path) -> Mapping | None:
    """The mapping that comes along for a file of this name, if any."""
    stem = file.name.split(".")[0]
    return next((Mapping.load(m) for m in sorted(MAPPINGS.glob("*.toml")) if stem.startswith(m.stem)), None)


def event_type(system: App, mapping: Mapping | None) -> type[Event]:
    if mapping is None and len(system.events) == 1:
        return next(iter(system.events.values()))
    if mapping is None or mapping.stream not in system.events:
        raise MappingError(
            "a mapping names a stream of the app",
            got="no mapping" if mapping is None else repr(mapping.stream),
            remedy="use one of " + ", ".join(system.events),
        )
    return system.events[mapping.stream]


@contextmanager
def _log(system: App) -> Iterator[Any]:
    log = system.log()
    try:
        yield log
    finally:
        log.close()
