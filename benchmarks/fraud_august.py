"""Claim: over a month of live payments every served feature is what the log says, and the system costs less than rules.

It is compared with the model of the first day, too: the served one is trained anew every week, on labels that come a
week late and of what was let through only.

August 2018 of the Handbook's payments is streamed through `penstock serve`, and each payment is decided on the way.
The features of a sample of decisions are recomputed from the log by the audit. The other two policies are asked
afterwards about the same features; they explore nothing, which costs the one that was served a share of its declines.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

import penstock as ps
from benchmarks import Result, circumstances
from benchmarks._fraud.bank import APP
from benchmarks._fraud.month import Month, remember
from benchmarks._fraud.protocol import Payments
from benchmarks._peers import KEPT
from benchmarks._serving import systems
from penstock.clock import DAY, EventsClock
from penstock.commands import served_audit
from penstock.evaluate.markup import tag
from penstock.evaluate.page import page, section, table
from penstock.evaluate.plots import lines
from penstock.events import ties
from penstock.learn import ACTIONS, Costs, Price, Trials
from penstock.releases import VerdictRelease, read
from penstock.serve.decisions import DECISIONS, logged
from penstock.serve.verdicts import Rules

DATA = Path("../shared/data/fraud/transactions.parquet")
PAGE = KEPT / "fraud_august.html"
AUDITED = 150
WORKERS = 2
_NAMES = {
    "approve_all": "everything approved", "rules": "rules alone", "frozen": "the first day's model",
    "weekly": "trained anew every week",
}  # fmt: skip
_BLOCK = 20_000


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes."""
    parser.add_argument("--data", type=Path, default=DATA, help=f"Parquet of the Handbook's table (default {DATA})")
    parser.add_argument("--start", type=date.fromisoformat, default=date(2018, 8, 1), help="default 2018-08-01")
    parser.add_argument("--days", type=int, default=31, help="days to stream (default 31)")
    parser.add_argument("--page", type=Path, default=PAGE, help=f"where the table and the plot go (default {PAGE})")


def run(chosen: argparse.Namespace) -> Result:
    """History, first release, the month with its weekly releases, then the books."""
    if not chosen.data.is_file():
        raise SystemExit(f"payments are read from a Parquet file; {chosen.data} is not there: give --data FILE")
    before = circumstances()
    payments = Payments.read(chosen.data)
    begin = (chosen.start - date(1970, 1, 1)).days * DAY
    at = np.flatnonzero((payments.time >= begin) & (payments.time < begin + chosen.days * DAY))
    month = Month(payments, at)
    releases, trained = [], []
    with TemporaryDirectory() as folder, ps.load(APP) as app:
        app.home, app.clock = Path(folder) / "home", EventsClock()
        _say(f"what was known on {chosen.start}")
        remember(app, payments, begin)

        def train(now: int) -> None:
            began = perf_counter()
            releases.append(app.train().release)
            trained.append(round(perf_counter() - began, 1))
            _say(f"release {releases[-1]} on day {(now - begin) // DAY} after {trained[-1]} s")

        train(begin)
        began = perf_counter()
        with systems.serving(APP, app.home, WORKERS) as address:
            month.stream(address, train)
        streamed = perf_counter() - began
        _say("the books")
        log = app.log(read_only=True)
        trials = Trials(app.verdicts["payment"].recipe, log.read(0, log.end), log.strings)
        wanted = ties("payment", [f"p{place}" for place in at.tolist()])
        order = np.argsort(trials.rows.tie)
        rows = order[np.searchsorted(trials.rows.tie, wanted, sorter=order)]
        matrix = trials.matrix(rows)
        release = read(app.registry.folder, releases[0])
        assert isinstance(release, VerdictRelease)
        policies = {
            "approve_all": np.zeros(len(at), np.int64),
            "rules": _by_rules(app, matrix, payments, at),
            "frozen": _by_model(app, release, matrix, payments, at),
            "weekly": month.action.astype(np.int64),
        }
        verdicts = [one for one in logged(app.home / DECISIONS) if one.verdict]
        explored = sum(bool(one.propensities[0] < 0.5) for one in verdicts)
        audit = served_audit(app, log, AUDITED, 1, None)
        log.close()
    books = {name: _book(app.verdicts["payment"].costs, action, payments, at) for name, action in policies.items()}
    daily = {name: _daily(app.verdicts["payment"].costs, action, payments, at, begin)
             for name, action in policies.items()}  # fmt: skip
    _write(chosen.page, books, daily)
    weekly, frozen, rules = (books[name]["cost"] for name in ("weekly", "frozen", "rules"))
    detail: dict[str, Any] = {
        **before, "payments": len(at), "frauds": int(payments.fraud[at].sum()), "books": books,
        "cost_by_day": daily, "releases": releases, "train_seconds": trained, "stream_seconds": round(streamed, 1),
        "decided_per_s": round(len(at) / streamed, 1), "decided_by_rules": month.rules, "explored": explored,
        "errors": month.errors, "audited_decisions": audit.decisions, "audited_values": audit.values,
        "mismatches": sum(audit.mismatches.values()), "saved_against_rules": round(1 - weekly / rules, 3),
        "saved_against_frozen": round(1 - weekly / frozen, 3), "page": str(chosen.page),
    }  # fmt: skip
    return Result("fraud_august", round(weekly / 100, 2), round(frozen / 100, 2), round(frozen / weekly, 3),
                  "cost of the month", detail)  # fmt: skip


def _by_rules(app: ps.App, matrix: NDArray[np.float32], payments: Payments, at: NDArray[np.int64]) -> NDArray[np.int64]:
    """What the app's rules say of each payment, (n,) places in `ACTIONS`, as when there is no model."""
    verdict = app.verdicts["payment"]
    names = verdict.recipe.assembler.names
    rules = Rules([*verdict.first, *verdict.fallback, *verdict.last], verdict.recipe.schema)
    read_ = [name for name in names if any(name in r.when.meta.root_names() for r in rules.rules)]
    out = np.empty(len(at), np.int64)
    for place, place_of in enumerate(at.tolist()):
        known = {name: float(matrix[place, names.index(name)]) for name in read_}
        rule = rules.first({**known, "amount": int(payments.amount[place_of])})
        out[place] = ACTIONS.index(verdict.otherwise if rule is None else rule.action)
    return out


def _by_model(
    app: ps.App, release: VerdictRelease, matrix: NDArray[np.float32], payments: Payments, at: NDArray[np.int64]
) -> NDArray[np.int64]:
    """What one release would have done with each payment, with as many reviewers as there are, (n,)."""
    costs = app.verdicts["payment"].costs
    price = Price(costs)
    chance, amount = release.model.reference.T
    price.begin(costs.saving(chance, amount), release.model.a_day)
    amounts = payments.amount[at].astype(np.float64)
    chances = np.concatenate(
        [release.model.score(matrix[i : i + _BLOCK]) for i in range(0, len(matrix), _BLOCK)]
    )  # fmt: skip
    savings = costs.saving(chances, amounts)
    each = np.stack([costs.of(chances, amounts)[:, place] for place in range(len(ACTIONS))], axis=1)
    out = np.empty(len(at), np.int64)
    for place, time in enumerate(payments.time[at].tolist()):
        priced = each[place] + np.array([0.0, price.now, 0.0])
        out[place] = int(np.argmin(priced))
        price.add(float(savings[place]), time, asked=ACTIONS[out[place]] == "review")
    return out


def _book(costs: Costs, action: NDArray[np.int64], payments: Payments, at: NDArray[np.int64]) -> dict[str, float]:
    return costs.came(action, payments.amount[at].astype(np.float64), payments.fraud[at])


def _daily(
    costs: Costs, action: NDArray[np.int64], payments: Payments, at: NDArray[np.int64], begin: int
) -> list[float]:
    """The cost up to the end of each day, in whole units."""
    day = (payments.time[at] - begin) // DAY
    spent = [_book(costs, action[day == one], payments, at[day == one])["cost"] / 100 for one in np.unique(day)]
    return [round(one, 2) for one in np.cumsum(spent).tolist()]


def _write(path: Path, books: Mapping[str, Mapping[str, float]], daily: Mapping[str, list[float]]) -> None:
    """The table and the plot, as a page."""
    head = ("", "Cost", "Lost to fraud", "Saved", "Reviews", "Good declined", "Frauds declined")
    rows = [
        (_NAMES[name], *(f"{book[key] / 100:,.0f}" for key in ("cost", "lost", "saved")),
         *(f"{book[key]:,.0f}" for key in ("reviews", "declined_good", "declined_bad")))
        for name, book in books.items()
    ]  # fmt: skip
    drawn = {
        _NAMES[name]: [(day + 1.0, cost) for day, cost in enumerate(costs)]
        for name, costs in daily.items()
        if name != "approve_all"
    }
    spoken = ", ".join(f"{name} {points[-1][1]:,.0f}" for name, points in drawn.items())
    text = page(
        "A month of payments",
        tag("h1", "A month of payments"),
        section("What it cost", table("Money lost, reviews and friction", head, rows, strong=[len(rows) - 1])),
        section("Day by day", lines(drawn, title="Cost since the first day", description=spoken, x_label="day",
                                    y_label="cost")),
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
