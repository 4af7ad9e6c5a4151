"""A verdict: learned from what came of earlier events, decided within its budget, explained, logged and audited."""

from __future__ import annotations

import json
import math
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from polars import col

import paying
import penstock as ps
from paying import COMPROMISED, DAY, NOW, chargeback, payment
from penstock.audit import explain, served
from penstock.care import forget
from penstock.commands import served_audit
from penstock.errors import DefinitionError, EventError, ReleaseError, RequestError
from penstock.learn import ACTIONS, Acted, Trials, VerdictRecipe
from penstock.releases import VerdictRelease, read
from penstock.serve import admission
from penstock.serve.decisions import Decided, DecisionLog, logged
from penstock.serve.requests import Judged, checked
from penstock.serve.server import BackgroundServer
from penstock.serve.verdicts import Judge, Rules, Staffing, Watched
from serving import Client, until


@pytest.fixture
def app(tmp_path: Path) -> Iterator[ps.App]:
    """The fraud app with a release in charge."""
    with paying.paying(tmp_path) as app:
        yield app


@pytest.fixture
def untrained(tmp_path: Path) -> Iterator[ps.App]:
    with paying.paying(tmp_path, trained=False) as app:
        yield app


def written(app: ps.App) -> list[Decided]:
    log = app.open().decisions
    log.flush()
    return log.read()


def review_all(app: ps.App) -> None:
    """Before it is opened: every payment is looked at, those that the model would decline, too."""
    every = ps.rule("every", "review", col("amount") > 0, softens=True)
    app.verdicts["payment"] = replace(app.verdicts["payment"], last=(every,))


def trials(app: ps.App, acted: Acted | None = None) -> Trials:
    log = app.open().log
    return Trials(app.verdicts["payment"].recipe, log.read(0, log.end), log.strings, acted)


# What is learned


def test_only_known_outcomes_are_learned_from(untrained: ps.App) -> None:
    """A payment counts as good a week after it was made, as bad once its chargeback is there, else not at all."""
    untrained.ingest([payment("new", NOW - 3 * DAY, 10.0), old := payment("old", NOW - 2 * DAY, 10.0)])
    untrained.ingest([chargeback(old, after=DAY)])
    found = trials(untrained)
    cases = found.between(0, 2**62)
    times = found.rows.time[cases.at]
    assert found.rows.time.max() not in times[~cases.positive]
    young = times > found.newest - 7 * DAY * 1_000_000
    assert cases.positive[young].tolist() == [True]
    bad = {event["payment"] for event in paying.history() if event["stream"] == "chargeback"}
    assert cases.positive.sum() == len(bad) + 1


def test_a_review_settles_what_it_looked_at(untrained: ps.App) -> None:
    """Good or bad, at once, however young the payment is."""
    told = {"time": NOW - DAY + 60, "customer": "c1", "terminal": "t1"}
    untrained.ingest([payment("good", NOW - DAY, 10.0), payment("bad", NOW - DAY, 10.0)])
    untrained.ingest(
        [{"stream": "review", "payment": name, "fraud": name == "bad", **told} for name in ("good", "bad")]
    )
    found = trials(untrained)
    cases = found.between((NOW - 2 * DAY) * 1_000_000, 2**62)
    assert sorted(cases.positive.tolist()) == [False, True]


def test_declined_events_teach_nothing_and_explored_ones_stand_for_them(untrained: ps.App) -> None:
    """Of a payment that was turned away silence is no news; one let through with chance 0.05 counts twenty times."""
    first = trials(untrained)
    cases = first.between(0, 2**62)
    good = cases.at[~cases.positive][:2]
    made = first.rows.time[good]
    acted = Acted(first.rows.tie[good], np.array([True, False]), np.array([0.95, 0.05]), made, np.full(2, -1))
    again = trials(untrained, acted).between(0, 2**62)
    assert len(again) == len(cases) - 1
    assert good[0] not in again.at
    assert again.weight[again.at == good[1]].tolist() == [pytest.approx(20)]
    assert again.weight.sum() == pytest.approx(len(again) + 19)


def test_training_without_outcomes_says_what_is_missing(tmp_path: Path) -> None:
    """Neither an empty log nor one without frauds makes a release."""
    with paying.open_app(tmp_path) as app:
        with pytest.raises(ReleaseError, match="needs events of payment; got none"):
            app.train()
        app.ingest([payment(f"p{i}", paying.BEGIN + i * DAY, 10.0) for i in range(40)])
        with pytest.raises(ReleaseError, match=r"came out badly.*got .* 0 of them badly"):
            app.train()
        assert app.registry.ids() == []


def test_the_simplest_good_model_is_released_with_its_report(app: ps.App) -> None:
    """The report has every model's figures with intervals, and the page shows them; the recipe survives the disk."""
    (name,) = app.registry.ids()
    release = read(app.registry.folder, name)
    assert isinstance(release, VerdictRelease)
    report = json.loads((app.registry.folder / name / "report.json").read_text())
    assert [one["name"] for one in report["candidates"]] == ["logistic", "classifier"]
    best = max(one["scores"]["ap"]["mean"] for one in report["candidates"])
    chosen = next(one for one in report["candidates"] if one["name"] == report["chosen"])
    assert chosen["scores"]["ap"]["mean"] >= 0.98 * best > 0.3
    assert chosen["scores"]["ap"]["low"] <= chosen["scores"]["ap"]["mean"] <= chosen["scores"]["ap"]["high"]
    assert report["costs"]["cost"] < 0.6 * report["costs"]["cost_of_approving"]
    calibration = report["calibration"]
    assert calibration["log_loss_after"] <= calibration["log_loss_before"]
    assert (calibration["curve"] == "none") == (calibration["before"] == calibration["after"])
    page = (app.registry.folder / name / "report.html").read_text()
    assert "Do the chances hold?" in page
    assert VerdictRecipe.from_spec(release.recipe.spec()).spec() == app.verdicts["payment"].recipe.spec()


def test_a_release_names_nobody(app: ps.App) -> None:
    """No customer's or terminal's id is in any of its files."""
    folder = app.registry.folder / app.registry.ids()[0]
    texts = [path.read_text() for path in folder.iterdir() if path.suffix in (".json", ".txt", ".html")]
    assert len(texts) > 3
    for text in texts:
        assert '"c1"' not in text
        assert '"t3"' not in text


# Deciding


def test_rules_answer_before_anything_is_learned(untrained: ps.App) -> None:
    """Within the budget, with a reason code; a payment that no rule names is approved."""
    large = untrained.judge("payment", payment("x1", NOW, 500.0))
    small = untrained.judge("payment", payment("x2", NOW, 5.0))
    assert (large.action, large.tier, [r.code for r in large.reasons]) == ("review", "rules", ["large"])
    assert (small.action, small.score, small.cause) == ("approve", None, "release")


def test_the_action_is_the_cheapest_at_the_price_of_a_review(app: ps.App) -> None:
    """For payments of all kinds the action follows from the score, unless a rule or exploration says otherwise."""
    costs = app.verdicts["payment"].costs
    seen: Counter[str] = Counter()
    random = np.random.default_rng(3)
    for i in range(150):
        terminal = COMPROMISED[0] if i % 4 == 0 else f"t{random.integers(0, 80)}"
        amount = 400.0 if i % 5 == 0 else float(random.gamma(4, 10)) + 1
        price = app.open()._judges["payment"].price.now
        answer = app.judge("payment", payment(f"x{i}", NOW + i * 600, amount, f"c{i % 40}", terminal))
        assert answer.tier == "model"
        assert answer.score is not None
        cents = np.array([round(amount * 100)], float)
        cheapest = ACTIONS[int(costs.cheapest(np.array([answer.score]), cents, price)[0])]
        explored = answer.propensity < 0.5
        assert answer.action == ("approve" if explored else cheapest)
        assert bool(answer.reasons) == (answer.action != "approve")
        assert all(reason.effect is not None and reason.effect > 0 for reason in answer.reasons)
        seen[answer.action] += 1
    assert min(seen[action] for action in ACTIONS) > 3


def test_a_payment_is_durable_and_not_in_its_own_features(app: ps.App) -> None:
    """The first of two is unknown to itself and known to the second, a moment later."""
    before = app.features("Customer", "someone")["payments_1h"]
    for name in ("first", "second"):
        app.judge("payment", payment(name, NOW, 20.0, "someone"))
    first, second = written(app)[-2:]
    assert before == 0
    assert app.features("Customer", "someone")["payments_1h"] == 2
    assert second.offset == first.offset + 1
    values = explain(second, read(app.registry.folder, str(second.release)), app.open().log).values
    assert values["verdict"]["features"]["Customer.payments_1h"]["value"] == 1


def test_rules_come_before_and_after_the_model(app: ps.App) -> None:
    """Ten payments in a minute are declined whatever the model says, and five thousand is looked at."""
    for i in range(11):
        answer = app.judge("payment", payment(f"fast{i}", NOW + i, 5.0, "hurried"))
    assert (answer.action, [r.code for r in answer.reasons]) == ("decline", ["too_fast"])
    assert answer.propensity == 1
    huge = app.judge("payment", payment("huge", NOW + 60, 6_000.0, "rich"))
    assert (huge.action, [r.code for r in huge.reasons]) == ("review", ["limit"])


def test_a_rule_makes_an_action_stricter_and_never_milder_unless_it_says_so(app: ps.App) -> None:
    """What the model declines stays declined where a rule asks for a review; one that softens, and one that approves,
    have their way; and what the model would approve is reviewed."""
    verdict = app.verdicts["payment"]
    many = col("amount") > 1_00
    rules = {
        "at_least": ps.rule("look", "review", many), "softened": ps.rule("look", "review", many, softens=True),
        "trusted": ps.rule("trusted", "approve", many), "alike": ps.rule("never", "decline", many),
    }  # fmt: skip
    # So dear a review that none pays, and so cheap a decline that any suspicion is enough.
    costs = replace(verdict.costs, review=1_000_00, decline=1.0)
    found = {}
    for explore in (0.0, 0.999):
        for name, rule in rules.items():
            judge = app.open()._judges["payment"]
            own = replace(judge, decision=replace(verdict, costs=costs, first=(), last=(rule,), explore=explore))
            event = app.open().intake.check(payment("x", NOW, 400.0, "c1", "t3"))
            answer = own.decide(checked(), 0.0, event)
            found[name, explore] = (answer.action, answer.propensity, [r.code for r in answer.reasons][:1])
    plain = found["at_least", 0.0]
    assert plain[:2] == ("decline", 1.0)
    assert plain[2] != ["look"]
    assert found["softened", 0.0] == found["softened", 0.999] == ("review", 1.0, ["look"])
    assert found["trusted", 0.0] == found["trusted", 0.999] == ("approve", 1.0, ["trusted"])
    assert found["alike", 0.0] == found["alike", 0.999] == ("decline", 1.0, ["never"])
    # Let through to learn from, it is looked at.
    assert found["at_least", 0.999] == ("review", 0.999, ["look"])
    costs = replace(costs, decline=1e9)
    judge = replace(app.open()._judges["payment"], decision=replace(verdict, costs=costs, last=(rules["at_least"],)))
    answer = judge.decide(checked(), 0.0, app.open().intake.check(payment("y", NOW, 4.0)))
    assert (answer.action, answer.propensity, answer.reasons[0].code) == ("review", 1.0, "look")


def test_a_share_of_declines_is_let_through_with_its_chance_logged(tmp_path: Path) -> None:
    """Of declines of a usual amount about half, of larger ones as much less as they are larger, down to a tenth."""
    shutil.copytree(paying._home(True), tmp_path / "home")
    app = ps.load(paying.APP)
    app.home, app.clock = tmp_path / "home", paying.EventsClock()
    plain = app.verdicts["payment"]
    # Neither a review nor approving pays.
    costs = ps.Costs("amount", review=1e9, decline=1)
    app.verdicts["payment"] = replace(plain, explore=0.5, budget=10_000_000, costs=costs)
    with app:
        release = app.open()._judges["payment"].release
        assert release is not None
        usual = float(np.median(release.model.reference[:, 1])) / 100
        for name, times, chance in (("x", 1.0, 0.5), ("y", 4.0, 0.125), ("z", 50.0, 0.05)):
            made = [payment(f"{name}{i}", NOW, usual * times, f"c{i % 40}", "t3") for i in range(120)]
            answers = [app.judge("payment", one) for one in made]
            drawn = [a for a in answers if not a.reasons or a.propensity < 1]
            let = [a for a in drawn if a.action == "approve" and a.propensity < 0.9]
            assert len(drawn) > 50
            assert [a.propensity for a in let] == pytest.approx([chance] * len(let), rel=0.01)
            assert abs(len(let) / len(drawn) - chance) < 0.15
        explored = [one for one in written(app) if one.verdict and 0 < one.propensities[0] < 1]
        assert {one.verdict["action"] for one in explored if one.verdict} == {"approve", "decline"}


def test_rules_answer_when_the_store_fails(app: ps.App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every payment is answered, by rules, and says why."""
    judge = app.open()._judges["payment"]

    def broken() -> Any:
        raise OSError("the disk is gone")

    monkeypatch.setattr(judge.store, "snapshot", broken)
    request = checked()
    for amount, action in ((500_00, "review"), (5_00, "approve")):
        event = app.open().intake.check(payment(f"x{amount}", NOW, amount / 100))
        answer = judge.decide(request, 0.0, event)
        assert (answer.action, answer.tier, answer.cause) == (action, "rules", "failed")
    assert judge.failures == 2


def test_no_time_left_means_rules(app: ps.App) -> None:
    """A budget that the model would not keep is kept by rules."""
    judge = app.open()._judges["payment"]
    for _ in range(3):
        app.judge("payment", payment("warm", NOW, 5.0))
    event = app.open().intake.check(payment("x", NOW, 5.0))
    answer = judge.decide(checked(budget_ms=0.01), 0.0, event)
    assert (answer.tier, answer.cause) == ("rules", "cost")


def test_a_verdict_is_asked_with_an_event_of_its_stream(app: ps.App) -> None:
    """Nothing else is decided on, and a bad event is refused before anything is logged."""
    end = app.open().log.end
    with pytest.raises(RequestError, match="asked with an event of payment; got one of review"):
        app.judge("payment", {"stream": "review", "payment": "p", "customer": "c", "terminal": "t", "fraud": True})
    with pytest.raises(EventError, match="amount"):
        app.judge("payment", {"stream": "payment", "customer": "c1", "terminal": "t1", "amount": "much"})
    with pytest.raises(RequestError, match=r"app\.judge"):
        app.decide("payment", user="c1")
    assert app.open().log.end == end
    assert written(app) == []


def test_the_price_that_is_logged_is_the_one_that_was_used(app: ps.App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it changes before the decision is written; none where there was nobody to review."""
    judge = app.open()._judges["payment"]
    judge.staff(1)
    used, plain = judge.price.now, Judge._judge

    def moved(self: Judge, *args: Any) -> Any:
        found = plain(self, *args)
        judge.staff(1e9)
        return found

    monkeypatch.setattr(Judge, "_judge", moved)
    event = app.open().intake.check(payment("x", NOW, 5.0))
    assert used > 0
    assert judge.decide(checked(), 0.0, event).decided.verdict["price"] == used
    assert judge.price.now == 0
    judge.staff(0)
    assert judge.decide(checked(), 0.0, event).decided.verdict["price"] is None


def test_finding_reasons_counts_as_time(app: ps.App) -> None:
    """What the stage after the score takes is reckoned with, where time is short."""
    judge = app.open()._judges["payment"]
    judge.costs = judge._no_costs()
    for _ in range(30):
        judge.costs.add({"features": 0.0, "score": 0.0, "act": 8.0})
    assert judge.costs.expected == judge.costs.of("act") > 6
    judge.costs = judge._no_costs()
    judge.decide(checked(), 0.0, app.open().intake.check(payment("x", NOW, 400.0, "c2", "t3")))
    assert judge.costs.of("act") > 0


# Rules without the model


def block(**who: str) -> dict[str, Any]:
    return {"stream": "block", "time": NOW, **who}


def test_block_lists_hold_before_there_is_a_release(untrained: ps.App) -> None:
    """So do rules about how fast somebody pays, for as long as their window; others are left alone."""
    untrained.ingest([block(customer="evil"), block(terminal="bad")])
    found = [untrained.judge("payment", payment(f"b{i}", NOW + i, 5.0, *who)) for i, who in enumerate(WHO)]
    assert [[a.action, a.reasons[0].code if a.reasons else None, a.tier] for a in found] == [
        ["decline", "blocked_customer", "rules"], ["decline", "blocked_terminal", "rules"],
        ["approve", "otherwise", "rules"],
    ]  # fmt: skip
    for i in range(11):
        hurried = untrained.judge("payment", payment(f"fast{i}", NOW + 10 + i, 5.0, "hurried"))
    assert (hurried.action, [r.code for r in hurried.reasons]) == ("decline", ["too_fast"])
    assert untrained.judge("payment", payment("later", NOW + 200, 5.0, "hurried")).action == "approve"


WHO = (("evil", "t1"), ("c1", "bad"), ("c1", "t1"))


@pytest.mark.parametrize("trouble", ["busy", "late", "failed"])
def test_block_lists_hold_whatever_keeps_the_model(app: ps.App, trouble: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over HTTP: with no time for the model, a thread that does not answer, and a store that is away."""
    runtime = app.open()
    app.ingest([block(customer="evil"), block(terminal="bad")])
    go = threading.Event()

    class Away:
        """A store that does not answer, to the one that decides."""

        def snapshot(self) -> Any:
            if trouble == "late":
                go.wait(20)
            raise OSError("the disk is gone")

    if trouble != "busy":
        monkeypatch.setattr(runtime._judges["payment"], "store", Away())
    budget = {"budget_ms": {"busy": 0.001, "late": 100, "failed": 10_000}[trouble]}
    with BackgroundServer(runtime) as server, Client(server) as call:
        answers = [
            call("POST", "/v1/decide/payment", {"event": payment(f"b{i}", NOW + i, 5.0, *who), **budget})
            for i, who in enumerate(WHO)
        ]
        go.set()
    assert [answer.status for answer in answers] == [200] * 3
    assert [answer.json["action"] for answer in answers] == ["decline", "decline", "approve"]
    assert {answer.json["tier"] for answer in answers} == {"rules"}


def test_a_rule_on_a_view_that_the_release_does_not_know_holds(app: ps.App, tmp_path: Path) -> None:
    """The app's file has a new block list, by device; the release in charge was trained before."""
    source = paying.APP.read_text()
    for old, new in (
        ("    first = [\n", '    first = [\n        ps.rule("stolen", "decline", col("Stolen.blocks_90d") > 0),\n'),
        ('    terminal: str | None = None\n', '    terminal: str | None = None\n    device: str | None = None\n'),
        (
            '@app.view(on=Block, by="customer")',
            '@app.view(on=Block, by="device")\nclass Stolen:\n    blocks_90d = ps.count(window="90d")\n\n\n'
            '@app.view(on=Block, by="customer")',
        ),
    ):  # fmt: skip
        assert source.count(old) == 1
        source = source.replace(old, new)
    (tmp_path / "app.py").write_text(source)
    home = app.home
    app.close()
    changed = ps.load(tmp_path / "app.py")
    changed.home, changed.clock = home, paying.EventsClock()
    changed.verdicts["payment"] = replace(changed.verdicts["payment"], budget=10_000_000)
    with changed:
        changed.ingest([block(device="d9")])
        found = [changed.judge("payment", {**payment(f"q{d}", NOW + 1, 5.0), "device": d}) for d in ("d9", "d1")]
        assert [(a.tier, a.action) for a in found] == [("model", "decline"), ("model", "approve")]
        assert [r.code for r in found[0].reasons] == ["stolen"]


def test_what_rules_read_from_memory_is_what_the_store_says(app: ps.App) -> None:
    """At any moment, whatever came: of those that had an event in the window, and of those that had none."""
    runtime, verdict = app.open(), app.verdicts["payment"]
    watched = runtime._judges["payment"].watched
    assert watched is not None
    assert watched.views == {"Customer", "BlockedCustomer", "BlockedTerminal"}
    random = np.random.default_rng(5)
    now = NOW
    for i in range(60):
        now += 45 if i < 40 else 8 * DAY
        who = {"customer": f"c{random.integers(6)}", "terminal": f"t{random.integers(6)}"}
        app.ingest([payment(f"m{i}", now, 5.0, *who.values())])
        if i % 5 == 0:
            app.ingest([{**block(**dict([list(who.items())[i % 2]])), "time": now}])
        names = [f"c{random.integers(8)}", f"t{random.integers(8)}"]
        found = watched.values(dict(zip(who, names, strict=True)), runtime.now())
        for view, name in (("Customer", names[0]), ("BlockedCustomer", names[0]), ("BlockedTerminal", names[1])):
            held = app.features(view, name)
            mine = {key.partition(".")[2]: value for key, value in found.items() if key.startswith(f"{view}.")}
            assert mine
            assert mine == {key: held[key] for key in mine}
    assert {rule.code for rule in verdict.first} == {"blocked_customer", "blocked_terminal", "too_fast"}


def test_memory_knows_names_that_this_process_never_spelled(untrained: ps.App) -> None:
    """A worker that has only the log finds who was blocked, without asking the disk when a payment comes."""
    untrained.ingest([block(customer="evil")])
    log = untrained.log(read_only=True)
    verdict = untrained.verdicts["payment"]
    watched = Watched(verdict.recipe, verdict.first, log)
    watched.follow()
    log.close()
    found = watched.values({"customer": "evil", "terminal": "never seen"}, (NOW + 1) * 1_000_000)
    assert found["BlockedCustomer.blocks_90d"] == 1
    assert found["BlockedTerminal.blocks_90d"] == 0


def test_memory_lets_go_of_who_has_long_done_nothing(untrained: ps.App) -> None:
    """Of a window of a minute, those of the last two are kept, not everybody who ever paid."""
    watched = untrained.open()._judges["payment"].watched
    assert watched is not None
    version = watched._views["Customer"].version
    for minute in range(8):
        untrained.ingest(
            [payment(f"g{minute}-{i}", NOW + 60 * minute + i / 10, 5.0, f"new{minute}-{i}") for i in range(100)]
        )
    assert 100 <= len(list(watched._records.scan(version))) <= 300


# What is served is what the log says


def test_served_features_are_the_trained_ones(app: ps.App) -> None:
    """Naive recomputation agrees with every served value, and so does the training matrix of the same payments."""
    for i in range(40):
        app.judge("payment", payment(f"x{i}", NOW + i * 50, 10.0 + i, f"c{i % 3}", f"t{i % 5}"))
    decided = written(app)
    release = read(app.registry.folder, str(decided[0].release))
    audit = served(app.open().log, decided, {release.id: release})
    assert audit.decisions == 40
    assert audit.values == 40 * len(release.recipe.assembler.names)
    assert audit.late == audit.stale == 0
    assert not audit.mismatches
    found = trials(app)
    at = np.flatnonzero(found.rows.time >= NOW * 1_000_000)
    scores = release.model.score(found.matrix(at)) if isinstance(release, VerdictRelease) else np.zeros(0)
    np.testing.assert_array_equal(scores.astype(np.float32), [one.scores[0] for one in decided])


def test_the_audit_finds_a_wrong_feature(app: ps.App) -> None:
    """Were serving to see another amount than was paid, that column and those made of it differ."""
    app.judge("payment", payment("x", NOW, 10.0))
    (one,) = written(app)
    release = read(app.registry.folder, str(one.release))
    audit = served(app.open().log, [replace(one, context={**one.context, "amount": 1_100})], {release.id: release})
    assert {"amount", "amount_to_usual"} <= set(audit.mismatches)
    assert "Customer.mean_7d" not in audit.mismatches


def test_a_decision_log_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    """Its table lacks what verdicts need; it gets it, and keeps what it had."""
    log = DecisionLog(tmp_path / "decisions.sqlite")
    log.close()
    db = log._connect()
    for index in ("by_event", "reviews"):
        db.execute(f"DROP INDEX {index}")
    db.execute("ALTER TABLE decisions DROP COLUMN verdict")
    db.close()
    again = DecisionLog(tmp_path / "decisions.sqlite")
    none = np.zeros(0, np.uint32)
    verdict = {"event": "e", "action": "review"}
    again.add(
        Decided("a", "d", None, "rules", "champion", "u", 1, 2, {}, none, none, none, none, none, verdict=verdict)
    )
    again.flush()
    assert [one.verdict for one in again.read()] == [verdict]
    again.close()


# Reviews


def test_the_queue_is_ordered_by_what_a_review_saves_and_shrinks_as_they_are_done(app: ps.App) -> None:
    """The dearest first; one that was reviewed is gone."""
    review_all(app)
    for i in range(30):
        terminal = COMPROMISED[0] if i % 3 == 0 else f"t{20 + i}"
        app.judge("payment", payment(f"x{i}", NOW + i * 600, 6_000.0 + i, f"c{i}", terminal))
    queue = app.open().reviews("payment")
    assert len(queue) == 30
    assert len({one["saving"] for one in queue}) > 3
    savings = [one["saving"] for one in queue]
    assert savings == sorted(savings, reverse=True)
    done = queue[0]
    told = {"time": NOW + DAY, "customer": done["fields"]["customer"], "terminal": done["fields"]["terminal"]}
    app.ingest([{"stream": "review", "payment": done["event"], "fraud": True, **told}])
    assert done["event"] not in [one["event"] for one in app.open().reviews("payment")]
    assert len(app.open().reviews("payment")) == len(queue) - 1


def test_workers_share_the_reviewers(app: ps.App) -> None:
    """Each of four looks at a quarter of the events, and has a quarter of the reviews; so the price is the same."""
    alone = app.open()._judges["payment"]
    shared = replace(alone, workers=4)
    assert alone.release is not None
    shared.take(alone.release)
    assert shared.price.reviews == alone.price.reviews / 4
    assert shared.price.now == alone.price.now


def test_fewer_people_mean_a_higher_price_everywhere(app: ps.App) -> None:
    """What is said to one process is heard by the others and outlives them."""
    runtime = app.open()
    judge = runtime._judges["payment"]
    judge.warm()
    enough = runtime.staff("payment", 10_000)["price"]
    few = runtime.staff("payment", 1)["price"]
    assert enough == 0 < few
    home = app.home
    app.close()
    with paying.open_app(home) as again:
        other = again.open()._judges["payment"]
        other.warm()
        assert other.price.reviews == 1
        assert other.price.now > 0


@pytest.mark.parametrize("number", ["-5", "NaN", "1e400", '"many"', "null"])
def test_a_senseless_number_of_reviewers_changes_nothing_and_stops_nothing(app: ps.App, number: str) -> None:
    """What was said before holds, whatever stands in the file, and a release is taken all the same."""
    runtime = app.open()
    runtime.staff("payment", 7)
    (app.home / "staffing.json").write_text(f'{{"payment": {number}}}')
    judge = runtime._judges["payment"]
    old, judge.release = judge.release, None
    app.train()
    assert judge.release is not None
    assert judge.release is not old
    assert judge.price.reviews == 7


def test_what_one_decision_cannot_hear_stops_no_release(
    app: ps.App, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each look goes on to the releases, and says what failed."""
    runtime = app.open()
    judge = runtime._judges["payment"]

    def broken(name: str) -> float:
        raise OSError("the disk is gone")

    monkeypatch.setattr(runtime.staffing, "of", broken)
    judge.release = None
    app.train()
    assert judge.release is not None
    assert "the disk is gone" in caplog.text


def test_a_staffing_file_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    """What was said before holds, and saying it anew mends the file."""
    staffing = Staffing(tmp_path / "staffing.json")
    staffing.set("payment", 40)
    assert Staffing(tmp_path / "staffing.json").of("payment") == 40
    assert staffing.of("payment") == 40
    (tmp_path / "staffing.json").write_text("[4")
    assert staffing.of("payment") == 40
    staffing.set("payment", 7)
    assert Staffing(tmp_path / "staffing.json").of("payment") == 7


def test_a_customer_is_forgotten_with_the_verdicts_about_them(app: ps.App) -> None:
    """Their payments, features and logged decisions are gone; those of others stay."""
    for name, customer in (("x1", "gone"), ("x2", "stays"), ("x3", "gone")):
        app.judge("payment", payment(name, NOW, 10.0, customer))
    home = app.home
    app.open().decisions.flush()
    app.close()
    forget(entity="customer=gone", app=paying.APP, home=home, yes=True, dry_run=False, json=True)
    assert [one.entity for one in logged(home / "decisions.sqlite")] == ["stays"]
    with paying.open_app(home) as again:
        assert again.features("Customer", "gone")["payments_1h"] == 0
        assert again.features("Customer", "stays")["payments_1h"] == 1


# Over HTTP


def test_one_call_logs_the_payment_and_answers(app: ps.App) -> None:
    """The answer has its seven fields, the event is in the log, and bad requests say what to send."""
    runtime = app.open()
    with BackgroundServer(runtime) as server, Client(server) as call:
        end = runtime.log.end
        answer = call("POST", "/v1/decide/payment", {"event": payment("h1", NOW, 400.0, "c2", "t3")})
        assert answer.status == 200
        fields = ["decision_id", "action", "score", "reasons", "tier", "release", "arm"]
        assert list(answer.json) == fields
        assert answer.json["action"] in ACTIONS
        assert runtime.log.refresh() == end + 1
        again = call("POST", "/invocations", {"event": payment("h2", NOW, 4.0)})
        assert (again.status, again.json["tier"]) == (200, "model")
        nothing = call("POST", "/v1/decide/payment", {"user": "c1"})
        assert (nothing.status, nothing.json["field"]) == (422, "event")
        bad = call("POST", "/v1/decide/payment", {"event": {**payment("h3", NOW, 4.0), "amount": "much"}})
        assert (bad.status, bad.json["field"]) == (422, "event.amount")
        assert runtime.log.refresh() == end + 2
        described = call("GET", "/openapi.json").json["components"]["schemas"]["Judged"]
        assert sorted(described["properties"]) == sorted(fields)


def test_a_payment_is_on_the_disk_before_it_is_decided_and_not_in_its_own_features(
    app: ps.App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged while it is decided; others may see it by then, its own decision does not."""
    runtime = app.open()
    end = runtime.log.end
    plain, found = Judge._rows, []

    def late(judge: Judge, *args: Any) -> Any:
        until(lambda: app.features("Customer", "fresh")["payments_1h"] == 1)
        found.append(plain(judge, *args))
        return found[-1]

    monkeypatch.setattr(Judge, "_rows", late)
    with BackgroundServer(runtime) as server, Client(server) as call:
        answer = call("POST", "/v1/decide/payment", {"event": payment("h1", NOW, 40.0, "fresh", "t3")})
        assert (answer.status, answer.json["tier"]) == (200, "model")
    names = app.verdicts["payment"].recipe.assembler.names
    assert found[0][0, names.index("Customer.payments_1h")] == 0
    assert written(app)[-1].offset == end
    assert runtime.log.refresh() == end + 1


def test_a_verdict_comes_late_rather_than_never(app: ps.App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the disk takes longer than the budget, the answer waits for it."""
    runtime = app.open()
    end, plain, began = runtime.log.end, runtime.log.append, perf_counter()

    def slow(*args: Any) -> Any:
        until(lambda: perf_counter() > began + 0.3)
        return plain(*args)

    monkeypatch.setattr(runtime.log, "append", slow)
    with BackgroundServer(runtime) as server, Client(server) as call:
        asked = {"event": payment("h1", NOW, 40.0), "budget_ms": 200}
        assert call("POST", "/v1/decide/payment", asked).status == 200
        assert perf_counter() > began + 0.3
    assert runtime.log.refresh() == end + 1


def test_an_overloaded_server_answers_payments_by_rules(app: ps.App, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where requests wait longer than half of the budget, lists are refused, and a verdict is given all the same."""
    monkeypatch.setattr(admission, "_QUIET", math.inf)
    with BackgroundServer(app.open()) as server, Client(server) as call:
        server.app._admission._mean = 100.0
        asked = {"event": payment("h1", NOW, 5.0), "budget_ms": 20}
        answer = call("POST", "/v1/decide/payment", asked)
        assert (answer.status, answer.json["tier"], answer.json["action"]) == (200, "rules", "approve")
        server.app._admission._mean = 1_000.0
        assert call("POST", "/v1/decide/payment", asked).status == 429  # beyond what anything may wait


def test_reviews_are_the_operators(app: ps.App) -> None:
    """Without the token neither the queue nor the staffing is told or changed; with it both are."""
    review_all(app)
    with BackgroundServer(app.open()) as server, Client(server) as call:
        for i in range(5):
            call("POST", "/v1/decide/payment", {"event": payment(f"h{i}", NOW + i * 600, 6_000.0, f"c{i}", "t3")})
        assert call("GET", "/v1/reviews/payment").status == 401
        assert call("POST", "/v1/reviews/payment/staff", {"reviews": 5}).status == 401
        bearer = {"Authorization": f"Bearer {server.token}"}
        found = call("GET", "/v1/reviews/payment", **bearer)
        assert found.status == 200
        assert {one["fields"]["terminal"] for one in found.json["reviews"]} == {"t3"}
        assert call("GET", "/v1/reviews/home", **bearer).status == 404
        assert call("POST", "/v1/reviews/payment/staff", {"reviews": -1}, **bearer).status == 422
        assert call("POST", "/v1/reviews/payment/staff", {"reviews": 5}, **bearer).json["reviews"] == 5


# Definitions


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        ({"costs": None}, "has costs"),
        ({"costs": ps.Costs("device")}, "costs of other are of a number"),
        ({"outcomes": []}, "learns from outcomes"),
        ({"first": [ps.rule("x", "decline", col("Customer.nothing") > 1)]}, "use View.feature|did you mean"),
        ({"fallback": [ps.rule("x", "decline", col("Customer.since") > 1)]}, "a fallback reads nothing but the event"),
        ({"last": [ps.rule("x", "decline", col("scor") > 1)]}, "did you mean score"),
        ({"explore": 1.0}, "a share of declines"),
        (
            {"request": {"unknown_device": col("device").is_null()}},
            "request-time columns of other read features, numbers of payment and now; got 'device' in unknown_device",
        ),
        ({"otherwise": "refuse"}, "otherwise is an action"),
        ({"cost": 1}, "a verdict's body holds"),
    ],
)
def test_senseless_verdicts_are_refused(body: dict[str, Any], rule: str) -> None:
    """At definition, with what came and what to write."""
    app = ps.load(paying.APP)
    recipe = app.verdicts["payment"].recipe
    whole = {"costs": ps.Costs("amount"), "outcomes": list(recipe.outcomes), **body}
    event = app.events["payment"]
    with pytest.raises(DefinitionError, match=rule):
        app.verdict("other", on=event, by="customer")(type("Other", (), whole))


def test_rules_see_missing_values_as_unknown() -> None:
    """A condition over what is missing does not hold, and neither does its opposite."""
    schema = ps.load(paying.APP).verdicts["payment"].recipe.schema
    rules = Rules(
        [ps.rule("same", "decline", col("device") == "d1"), ps.rule("other", "review", col("device") != "d1")], schema
    )
    found = [rules.first({"device": device}) for device in ("d1", "d2", None)]
    assert [None if rule is None else rule.code for rule in found] == ["same", "other", None]


@pytest.mark.parametrize(("code", "action"), [("two words", "review"), ("fine", "refuse")])
def test_senseless_rules_are_refused(code: str, action: Any) -> None:
    with pytest.raises(DefinitionError, match="a rule has a code"):
        ps.rule(code, action, col("amount") > 1)
    with pytest.raises(DefinitionError, match="one event at a time"):
        ps.rule("mean", "review", col("amount") > col("amount").mean())


def test_the_command_line_audits_verdicts(app: ps.App) -> None:
    """`penstock audit` takes them in, as the decisions that they are."""
    for i in range(5):
        app.judge("payment", payment(f"x{i}", NOW + i, 10.0))
    app.open().decisions.flush()
    assert len(logged(app.home / "decisions.sqlite")) == 5
    found = served_audit(app, app.open().log, 100, 0, None)
    assert (found.decisions, sum(found.mismatches.values())) == (5, 0)
    assert isinstance(app.judge("payment", payment("last", NOW + 9, 10.0)), Judged)


def test_files_read_one_after_the_other_are_known_as_they_arrived(tmp_path: Path) -> None:
    """Payments first and all chargebacks after them train on the same features as the same events in their order."""
    events = paying.history()[:3_000]
    found = []
    for name, order in (("live", None), ("files", "stream")):
        with paying.open_app(tmp_path / name) as app:
            app.clock = ps.load(paying.APP).clock
            log = app.log()
            ordered = events if order is None else sorted(events, key=lambda event: str(event[order]), reverse=True)
            intake = app.intake()
            accepted = [intake.check(event) for event in ordered]
            log.append(accepted, [event.time for event in accepted])
            trial = Trials(app.verdicts["payment"].recipe, log.read(0, log.end), log.strings)
            found.append(trial.matrix(np.arange(len(trial.rows))[-300:]))
            log.close()
    np.testing.assert_array_equal(*found)
    names = app.verdicts["payment"].recipe.assembler.names
    assert found[0][:, names.index("TerminalFraud.known_28d")].max() > 0
