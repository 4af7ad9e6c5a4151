"""A small history of card payments with frauds that can be learned, and the fraud app over it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
from polars import col

import penstock as ps
from penstock.clock import EventsClock

APP = Path(ps.__file__).parent / "apps" / "fraud" / "app.py"
DAY = 86_400
BEGIN = 1_700_000_000
DAYS = 50
CUSTOMERS, TERMINALS = 40, 80
COMPROMISED = ("t3", "t11")
"""Terminals where half of all payments are frauds."""


def payment(name: str, time: float, amount: float, customer: str = "c1", terminal: str = "t1") -> dict[str, Any]:
    return {
        "stream": "payment", "id": name, "time": time, "customer": customer, "terminal": terminal,
        "amount": f"{amount:.2f}",
    }  # fmt: skip


def chargeback(of: dict[str, Any], after: float = 7 * DAY) -> dict[str, Any]:
    named = {name: of[name] for name in ("customer", "terminal", "amount")}
    return {"stream": "chargeback", "id": f"b-{of['id']}", "time": of["time"] + after, "payment": of["id"], **named}


@cache
def history(seed: int = 1) -> list[dict[str, Any]]:
    """Payments, large ones and those at compromised terminals frauds, and their chargebacks a week later, by time."""
    random = np.random.default_rng(seed)
    events = []
    for i in range(DAYS * 160):
        amount, terminal = float(random.gamma(4, 10)) + 1, f"t{random.integers(0, TERMINALS)}"
        bad = terminal in COMPROMISED and random.random() < 0.5
        if random.random() < 0.004:
            amount, bad = 400.0, True
        made = payment(f"p{i}", BEGIN + i * DAY / 160, amount, f"c{random.integers(0, CUSTOMERS)}", terminal)
        events += [made, *([chargeback(made)] if bad else [])]
    return sorted(events, key=lambda event: event["time"])


NOW = BEGIN + DAYS * DAY + 8 * DAY
"""After the last chargeback."""


@cache
def _home(trained: bool) -> Path:
    home = Path(mkdtemp(prefix="penstock-paying-"))
    with open_app(home) as app:
        events = history()
        for start in range(0, len(events), 5_000):
            app.ingest(events[start : start + 5_000])
        if trained:
            app.train()
    return home


@contextmanager
def open_app(home: Path) -> Iterator[ps.App]:
    app = ps.load(APP)
    app.home, app.clock = home, EventsClock()
    # So wide a budget that a slow machine does not choose the tier.
    app.verdicts["payment"] = replace(app.verdicts["payment"], budget=10_000_000)
    with app:
        yield app


@contextmanager
def paying(folder: Path, *, trained: bool = True) -> Iterator[ps.App]:
    """The fraud app over a copy of the history, with a release in charge or none."""
    shutil.copytree(_home(trained), folder / "home")
    with open_app(folder / "home") as app:
        yield app


def look_at_large(app: ps.App) -> ps.App:
    """Before it is opened: payments above the app's limit are reviewed, those that the model would decline, too."""
    limit = ps.rule("limit", "review", col("amount") > 5_000_00, softens=True)
    app.verdicts["payment"] = replace(app.verdicts["payment"], last=(limit,))
    return app
