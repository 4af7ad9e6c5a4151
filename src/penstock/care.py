"""What the commands do that look after a home folder: a round of checks."""

from __future__ import annotations

import json as json_
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from penstock.app import App
from penstock.commands import app_file, open_app
from penstock.doctor import Finding, summary, visit
from penstock.errors import PenstockError
from penstock.printing import Printer
from penstock.types import Progress


def doctor(*, app: Path | None, home: Path, named: bool, port: int, json: bool) -> None:
    printer = Printer(json)

    @contextmanager
    def timed(title: str) -> Iterator[Progress]:
        with printer.step(title) as step:
            yield step.progress

    system, loaded = _loaded(app, home)
    found = visit(
        home,
        port=port,
        views=list(system.views.values()) if system else [],
        decisions=list(system.decisions) if system else [],
        named=named,
        timed=timed,
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
    text = f"{file}: {len(system.views)} views, {len(system.decisions)} decisions"
    return system, Finding("app", "file", "ok", text)
