"""What the commands do that look after a home folder: a round of checks, and forgetting a person."""

from __future__ import annotations

import json as json_
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from penstock import forget as forgetting
from penstock.app import App
from penstock.commands import app_file, existing, open_app, say
from penstock.doctor import Finding, summary, visit
from penstock.errors import NotFoundError, PenstockError, RequestError, UnavailableError
from penstock.learn import Recipe, VerdictRecipe
from penstock.printing import Printer
from penstock.serve.lock import HomeLock
from penstock.types import Progress


def doctor(*, app: Path | None, home: Path, named: bool, port: int, json: bool) -> None:
    printer = Printer(json)
    system, loaded = _loaded(app, home)
    found = visit(
        home,
        port=port,
        views=list(system.views.values()) if system else [],
        decisions=[*system.decisions, *system.verdicts] if system else [],
        named=named,
        timed=_timed(printer),
    )
    findings = [*found, loaded]
    part = ""
    for one in findings:
        if one.part != part:
            part = one.part
            printer.line(f"\n{part}")
        printer.verdict(one.state, one.name, one.text, one.remedy)
    told = summary(findings)
    printer.line(f"\n{told['wrong']} wrong, {told['warnings']} worth knowing, of {len(findings)} looked at")
    if json:
        print(json_.dumps(told))
    if told["wrong"]:
        raise SystemExit(1)


def _loaded(app: Path | None, home: Path) -> tuple[App | None, Finding]:
    """The app, where its file loads."""
    file = app_file(app)
    try:
        system = open_app(app, home)
    except PenstockError as error:
        told = error.rule + (f": {error.got}" if error.got else "")
        return None, Finding("app", "file", "wrong", told, error.remedy)
    text = f"{file}: {len(system.views)} views, {len(system.decisions) + len(system.verdicts)} decisions"
    return system, Finding("app", "file", "ok", text)


def _timed(printer: Printer) -> Callable[[str], AbstractContextManager[Progress]]:
    """Shows a step of what runs, and gives its progress callback."""

    @contextmanager
    def timed(title: str) -> Iterator[Progress]:
        with printer.step(title) as step:
            yield step.progress

    return timed


def forget(*, entity: str, app: Path | None, home: Path, yes: bool, dry_run: bool, json: bool) -> None:
    system = open_app(app, home)
    existing(home)
    recipes: list[Recipe | VerdictRecipe] = [
        *(d.recipe for d in system.decisions.values()),
        *(v.recipe for v in system.verdicts.values()),
    ]
    known = forgetting.App(list(system.views.values()), recipes, system.clock)
    field, value = forgetting.entity(entity, known)
    timed = _timed(Printer(json))
    with nullcontext() if dry_run else _alone(home):
        with closing(system.log(read_only=True)) as log, timed("look for it everywhere") as progress:
            found = forgetting.find(home, log, known, field, value, progress)
        result: dict[str, Any] = {**found.as_dict(), "dry_run": dry_run, "finished": False}
        unfinished = forgetting.begun(home / forgetting.LOG)
        if not found and (dry_run or not unfinished):
            raise NotFoundError(
                f"{field} is one that events, decisions or dead letters name", got=repr(value),
                remedy="check its spelling; somebody who was forgotten is not found again",
            )  # fmt: skip
        if dry_run:
            say(result, "\n".join([f"this would go of {entity}", *_lines(result, home)]), json)
            return
        if not found:
            result |= {"finished": True, "releases": forgetting.finish(home, known, timed)}
            say(result, "\n".join(["finished what was begun before", *_releases(result, home)]), json)
            return
        if not yes:
            _confirm(entity, _lines(result, home))
        done = forgetting.forget(home, found, known, timed)
        result |= {"segments": done.segments, "files": done.files}
        say(result, "\n".join([f"erased {entity}", *_lines(result, home)]), json)


def _alone(home: Path) -> HomeLock:
    try:
        return HomeLock(home)
    except UnavailableError as error:
        remedy = "stop the server, forget, start it again; --dry-run works beside it"
        raise UnavailableError(
            "nobody else writes the home while somebody is forgotten", got=error.got, remedy=remedy
        ) from None


def _confirm(entity: str, lines: list[str]) -> None:
    print("\n".join([f"this goes of {entity}, and cannot be brought back", *lines]), file=sys.stderr)
    print("erase it? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise RequestError(
            "erasing is confirmed", got="another answer", remedy="nothing was erased; answer y, or --yes"
        )


def _lines(result: dict[str, Any], home: Path) -> list[str]:
    """What goes, or went, for people."""
    archived = f", {result['events_archived']:,} of them archived" if result["events_archived"] else ""
    records = ", ".join(f"{name} {count:,}" for name, count in result["records"].items())
    lines = [
        f"  events        {result['events']:,}{archived}",
        f"  texts         {result['texts']:,} that only these events hold",
        f"  dead letters  {result['rejects']:,}",
        f"  decisions     {result['decisions']:,}",
        f"  store         {records or 'nothing'}" + ("; built anew, since counts of items change" if records else ""),
    ]
    if result["known_shopper"]:
        lines.append("  shop window   its line in the table of known shoppers")
    if result["decisions_of_others"]:
        count = result["decisions_of_others"]
        lines.append(f"  {count:,} decisions of others may have known these events: the audit tells them apart")
    for place, count in result["named_elsewhere"].items():
        lines.append(f"  the same text stays as {place} of {count:,} events of others, and so in the dictionary")
    lines += [f"  not touched: {home / file} names it" for file in result["files"]]
    return lines + _releases(result, home)


def _releases(result: dict[str, Any], home: Path) -> list[str]:
    lines = [
        f"  release {one['id']} of {one['decision']} learned from it" + (", and is champion" if one["champion"] else "")
        for one in result["releases"]
    ]
    if lines:
        lines.append(f"  to have none of it: penstock train, then rm -r their folders in {home / 'releases'}")
    return lines
