"""What a verdict learns from: rows that its decisions saw, of events of which is known what was done and what came."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Thread
from time import time
from typing import Any

import numpy as np
import pytest

import paying
import penstock as ps
from paying import DAY, NOW, chargeback, payment
from penstock.audit.served import recomputed_rows
from penstock.clock import SystemClock
from penstock.engines import NaiveEngine
from penstock.events import ties
from penstock.features import View
from penstock.learn import Acted, Trials, VerdictRecipe
from penstock.releases import VerdictRelease, read
from penstock.serve.decisions import DECISIONS, Decided, acted, logged
from penstock.serve.server import BackgroundServer
from penstock.types import Rows
from serving import Client


@pytest.fixture
def app(tmp_path: Path) -> Iterator[ps.App]:
    """The fraud app with a release in charge."""
    with paying.paying(tmp_path) as app:
        yield app


@pytest.fixture
def untrained(tmp_path: Path) -> Iterator[ps.App]:
    with paying.paying(tmp_path, trained=False) as app:
        yield app


def trials(app: ps.App, acted: Acted | None = None) -> Trials:
    log = app.log(read_only=True)
    try:
        return Trials(app.verdicts["payment"].recipe, log.read(0, log.end), log.strings, acted)
    finally:
        log.close()


def places(found: Trials, names: list[str]) -> Any:
    """Where the payments of these ids stand."""
    order = np.argsort(found.rows.tie)
    return order[np.searchsorted(found.rows.tie, ties("payment", names), sorter=order)]


def seen(app: ps.App, decided: list[Decided]) -> Any:
    """What decisions saw, as the naive engine recomputes it at the moment and the offset of each, (n, features)."""
    release = read(app.registry.folder, str(decided[0].release))
    assert isinstance(release, VerdictRelease)
    log = app.log(read_only=True)
    try:
        naive = NaiveEngine(log.read(0, log.end), list(app.views.values()), log.strings)
        return np.concatenate([recomputed_rows(one, release, naive, log.strings) for one in decided]).astype(np.float32)
    finally:
        log.close()


def plainly(recipe: VerdictRecipe, naive: NaiveEngine, one: Rows, now: int, known: int) -> Any:
    """The row of one event, (1, features), by the naive engine."""

    def table(view: View, keys: Any, at: Any) -> Any:
        return naive.table(view, keys, now, known)

    keys = {name: one.fields[name].astype(np.uint32) for name in recipe.keys}
    opened = recipe.assembler.open(table, keys, np.array([now]))
    numbers = np.array([[float(one.fields[name][0]) for name in recipe.numbers]])
    first = np.zeros(1, np.int64)
    return recipe.assembler.matrix(table, opened, first, first.astype(np.uint32), numbers).rows.astype(np.float32)


def did(found: Trials, at: Any, *, declined: bool = False, propensity: float = 1.0, after: int = 0) -> Acted:
    """Decisions on the events at these places, each of which read nothing."""
    n = len(at)
    return Acted(
        found.rows.tie[at], np.full(n, declined), np.full(n, propensity), found.rows.time[at] + after, np.full(n, -1)
    )


def joined(*parts: Acted) -> Acted:
    names = ("tie", "declined", "propensity", "time", "offset")
    return Acted(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def test_training_sees_what_decisions_saw_over_http(tmp_path: Path) -> None:
    """Payments that come at once on four connections, after one dated hours ago, and chargebacks read from a file later
    that are older than the decisions: of every payment the row to train on is the one that was decided on."""
    with paying.paying(tmp_path) as app:
        app.clock = SystemClock()
        now = time()
        old = payment("old", now - 6 * 3_600, 20.0, "burst")
        events = [[payment(f"u{k}-{i}", now, 20.0 + i, "burst", f"t{k}") for i in range(25)] for k in range(4)]
        with BackgroundServer(app.open()) as server:

            def ask(mine: list[dict[str, Any]]) -> None:
                with Client(server) as call:
                    for event in mine:
                        assert call("POST", "/v1/decide/payment", {"event": event}).status == 200

            ask([old])
            threads = [Thread(target=ask, args=(mine,)) for mine in events]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        app.close()
        log, intake = app.log(), app.intake()
        back = intake.check(chargeback(old, after=60))
        log.append([back], [back.time])
        log.close()
        decided = [one for one in logged(app.home / DECISIONS, "payment") if one.tier == "model"]
        assert len(decided) == 101
        names = [str((one.verdict or {})["event"]) for one in decided]
        wanted, found = seen(app, decided), trials(app, acted(decided, "payment"))
        np.testing.assert_array_equal(found.matrix(places(found, names)), wanted)
        # Going by the events alone would not do.
        plain = trials(app)
        columns = app.verdicts["payment"].recipe.assembler.names
        differ = (plain.matrix(places(plain, names)) != wanted) & ~np.isnan(wanted)
        for column in ("hour", "Customer.payments_1min", "CustomerFraud.known_30d"):
            assert differ[:, columns.index(column)].any()


def test_any_moment_and_offset_of_a_decision_is_kept(untrained: ps.App) -> None:
    """With decisions made at any time after what they knew, from any offset below their payments, in a log whose parts
    were not written in the order in which they arrived: rows are what the naive engine says; others stay put."""
    random = np.random.default_rng(4)
    log, intake = untrained.log(), untrained.intake()
    late = [intake.check({**event, "id": f"late-{event['id']}"}) for event in paying.history()[5_000:5_400]]
    log.append(late, [event.time for event in late])
    rows, strings = log.read(0, log.end), log.strings
    recipe = untrained.verdicts["payment"].recipe
    plain = Trials(recipe, rows, strings)
    paid = rows["payment"]
    at = np.sort(random.choice(len(paid), 60, replace=False))
    known = np.maximum(0, paid.offset[at] - random.integers(0, 2_000, 60))
    everything = np.argsort(np.concatenate([part.offset for part in rows.values()]))
    times = np.concatenate([part.time for part in rows.values()])[everything]
    newest = np.maximum.accumulate(np.r_[0, times])[known]
    moment = newest + random.integers(0, 10**10, 60)
    found = Trials(recipe, rows, strings, Acted(paid.tie[at], np.zeros(60, bool), np.ones(60), moment, known))
    naive = NaiveEngine(rows, list(recipe.views), strings)
    wanted = [plainly(recipe, naive, paid.take(at[[i]]), int(moment[i]), int(known[i])) for i in range(60)]
    order = np.argsort(found.rows.tie)
    own = order[np.searchsorted(found.rows.tie, paid.tie[at], sorter=order)]
    np.testing.assert_array_equal(found.matrix(own), np.concatenate(wanted))
    others = np.setdiff1d(np.arange(len(found.rows)), own)[-500:]
    np.testing.assert_array_equal(found.matrix(others), plain.matrix(others))
    log.close()


def test_the_first_decision_on_an_event_counts(untrained: ps.App) -> None:
    """Whatever came of asking again: declined first it teaches nothing, let through first it counts for its chance."""
    first = trials(untrained)
    cases = first.between(0, 2**62)
    good = cases.at[~cases.positive][:2]
    declined, explored = did(first, good, declined=True, propensity=0.95), did(first, good, propensity=0.05, after=9)
    found = trials(untrained, joined(explored, declined)).between(0, 2**62)
    assert not np.isin(good, found.at).any()
    declined = replace(declined, time=declined.time + 10)
    found = trials(untrained, joined(declined, explored)).between(0, 2**62)
    assert found.weight[np.isin(found.at, good)].tolist() == [pytest.approx(20)] * 2


def test_an_event_whose_decision_was_lost_teaches_nothing(untrained: ps.App) -> None:
    """Nearly all payments of the last days were decided on, but for some: nobody knows whether those were declined.
    Where many others were only counted, they count as ever."""
    first = trials(untrained)
    cases = first.between(0, 2**62)
    live = np.sort(np.argsort(first.rows.offset)[-2_000:])
    lost = live[100:110]
    found = trials(untrained, did(first, np.setdiff1d(live, lost))).between(0, 2**62)
    assert sorted(set(cases.at) - set(found.at)) == sorted(set(lost) & set(cases.at)) != []
    found = trials(untrained, did(first, live[::2])).between(0, 2**62)
    np.testing.assert_array_equal(found.at, cases.at)


def test_events_only_sent_along_are_learned_from_after_a_trial(app: ps.App) -> None:
    """One decision does not make the payments that come after it unknown."""
    app.judge("payment", payment("tried", NOW, 10.0))
    later = [payment(f"l{i}", NOW + 60 * i, 10.0) for i in range(50)]
    app.ingest([*later, payment("end", NOW + 20 * DAY, 10.0)])
    app.open().decisions.flush()
    found = trials(app, acted(logged(app.home / DECISIONS, "payment"), "payment"))
    assert found.known[places(found, [event["id"] for event in later])].all()


def test_a_sample_is_reckoned_as_all_that_it_stands_for(tmp_path: Path) -> None:
    """Trained on a third of the payments: as many a day, as much lost were all approved, and about the same price of a
    review, with as few reviewers as make one; the price begins with events as they come."""
    found = []
    for most in (400_000, 400):
        with paying.paying(tmp_path / str(most), trained=False) as app:
            verdict = app.verdicts["payment"]
            costs = replace(verdict.costs, reviews=3)
            app.verdicts["payment"] = replace(verdict, recipe=replace(verdict.recipe, most=most), costs=costs)
            trained = app.train()
            release = read(app.registry.folder, trained.release)
            assert isinstance(release, VerdictRelease)
            chance, amount = release.model.reference.T
            price = costs.price(chance, amount, release.model.a_day)
            found.append({**trained.report, "a_day": release.model.a_day, "begins": price})
    every, sample = found
    assert sample["data"]["valid_events"] == 400 < every["data"]["valid_events"] / 2
    assert sample["a_day"] == pytest.approx(every["a_day"], rel=0.02)
    for name in ("events", "cost_of_approving"):
        assert sample["costs"][name] == pytest.approx(every["costs"][name], rel=0.001)
    assert every["costs"]["price"] > 100
    assert sample["costs"]["price"] == pytest.approx(every["costs"]["price"], rel=0.5)
    assert sample["begins"] == pytest.approx(sample["costs"]["price"], rel=0.3)
