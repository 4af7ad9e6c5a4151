"""One verdict: features around an event, the chance that it is bad, the cheapest action, and the reasons."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.clock import Clock
from penstock.errors import RequestError, StoreError
from penstock.features.folded import Folded
from penstock.learn import ACTIONS, Action, Price
from penstock.releases import Bundle, VerdictRelease
from penstock.serve.budget import Costs as Stages
from penstock.serve.budget import Timer
from penstock.serve.decisions import Decided, new_id
from penstock.serve.faults import FAULTS
from penstock.serve.requests import Because, DecideRequest, Judged
from penstock.serve.verdicts.definition import Verdict
from penstock.serve.verdicts.rules import ActionRule, Rules
from penstock.serve.verdicts.staffing import Staffing
from penstock.serve.verdicts.watched import Watched
from penstock.types import Accepted, Micros, Snapshot, Store, Strings

REASONS = 3
"""The features named as reasons, at most."""
RARELY = 0.1
"""The share of `explore` with which the largest amounts are explored: their weight in training stays bounded."""
_UNKNOWN = 1e-3
"""The chance that an event is bad, before there is a release that says it."""
_NOBODY = np.zeros(0, np.uint32)
_FIRST = np.zeros(1, np.int64)
_log = logging.getLogger("penstock.serve")


@dataclass(frozen=True)
class _Found:
    """What was read of one event and made of it, before anything is done; `chance` is NaN without a model.

    `price` is what a review cost besides when it was decided; None where none was to be had, or rules decided.
    """

    action: Action
    propensity: float
    reasons: list[Because]
    offset: int
    now: Micros
    chance: float = math.nan
    saving: float = 0.0
    rule: str | None = None
    rows: NDArray[np.float64] | None = None
    price: float | None = None


@dataclass(frozen=True)
class _Usual:
    """How events are as a rule, going by those that a release was chosen by: how often bad, and of what amount."""

    chance: float = _UNKNOWN
    amount: float = math.inf


@dataclass
class Judge:
    """Decides on the events of one verdict, from a store and the release in charge.

    `price` is what a review costs beyond its own cost, so that no more are asked for than there are people for; of
    several `workers` each has its part of them. `watched` holds what rules read where the model does not answer.
    """

    decision: Verdict
    store: Store
    strings: Strings
    clock: Clock
    folded: Folded = field(default_factory=Folded)
    staffing: Staffing | None = None
    workers: int = 1
    watched: Watched | None = None
    release: VerdictRelease | None = None
    failures: int = 0

    def __post_init__(self) -> None:
        verdict, schema = self.decision, self.decision.recipe.schema
        self.price = Price(verdict.costs)
        self.staff(verdict.costs.reviews)
        self._names = [f.name for f in schema.fields]
        # One look at all of them costs little more than one at some: the first rules stand before the last.
        self._rules = Rules([*verdict.first, *verdict.last], schema)
        # What reads the score does not hold without one.
        self._fallback = Rules([*verdict.first, *verdict.fallback, *verdict.last], schema)
        self._least = self._fallback.without_features(schema)
        self._usual = _Usual()
        self._lacking: frozenset[str] = frozenset()
        self.costs = self._no_costs()

    def _no_costs(self) -> Stages:
        return Stages(2 * self.decision.budget_ms)

    def take(self, release: Bundle) -> None:
        """Puts a release in charge, after deciding on its warm-up events unheard."""
        assert isinstance(release, VerdictRelease), "the follower checks the kind"
        price, costs = Price(self.decision.costs), self._no_costs()
        chance, amount = release.model.reference.T
        price.begin(self.decision.costs.saving(chance, amount), release.model.a_day / self.workers)
        price.take_over(self.price)
        for place, values in enumerate(release.warmup):
            timer = Timer(math.inf)
            try:
                # Codes in place of texts, so that releases name nobody.
                self._judge(release, self._warm(values), timer, random.Random(place))
            except FAULTS:
                # What fails here fails in front of customers too, where rules answer.
                _log.exception("a warm-up event of release %s failed", release.id)
            # The first load and build what later ones find ready.
            if place >= len(release.warmup) // 2 and "score" in timer.stages:
                costs.add(timer.stages)
        if len(amount):
            self._usual = _Usual(float(np.mean(chance)), float(np.median(amount)))
        if self.watched is not None:
            self._lacking = self.watched.lacking(release.recipe.views)
        # One reference moves: events before it are decided by the old release, those after by the new.
        self.price, self.costs, self.release = price, costs, release

    def _warm(self, values: Mapping[str, Any]) -> dict[str, Any]:
        texts = {f.name for f in self.decision.recipe.schema.fields if f.kind == "text"}
        return {n: self.strings.text(v) if n in texts and v else v for n, v in values.items()}

    def warm(self) -> None:
        """Hears how many reviews a day there are people for, and of the newest events."""
        if self.watched is not None:
            self.watched.follow()
        said = self.staffing.of(self.decision.name) if self.staffing is not None else None
        if said is not None and said / self.workers != self.price.reviews:
            self.staff(said)

    def staff(self, reviews: float) -> None:
        """Hears that there are people for so many reviews a day, in all processes together."""
        self.price.set(reviews / self.workers)

    def count(self, answer: Judged) -> None:
        """Takes down a verdict that was given, and the review that it asked for, if any."""
        said = answer.decided.verdict
        saving = said["saving"] if said["rule"] is None else None
        self.price.add(saving, answer.decided.time, asked=answer.action == "review")

    def budget(self, request: DecideRequest) -> float:
        """The time in which an answer must leave, in milliseconds."""
        return request.budget_ms or self.decision.budget_ms

    def decide(
        self,
        request: DecideRequest,
        spent_ms: float = 0.0,
        event: Accepted | None = None,
        looked: Callable[[], None] | None = None,
    ) -> Judged:
        """Decides on one event, which the log does not hold yet; whatever fails inside, rules answer.

        Args:
            spent_ms: what is gone of the budget already.
            event: the checked event.
            looked: called once what is read of the store is fixed: from then on the log may have the event.

        Raises:
            RequestError: there is none, or it is of another stream.
        """
        timer = Timer(self.budget(request) - spent_ms)
        event = self.check(event)
        values = self._values(event)
        name, release, cause = new_id(), self.release, "release"
        if release is not None and timer.left <= self.costs.expected:
            self.costs.forget()
            cause = "cost"
        elif release is not None:
            try:
                # A clock that goes by events has not seen this one yet.
                self.clock.saw(event.time)
                found = self._judge(release, values, timer, random.Random(name), looked)
                self.costs.add(timer.stages)
                return self._answer(name, event, values, release, found, timer, None)
            except FAULTS as error:
                # A store or model that fails must not stop payments; the failure is counted and logged.
                self.failures += 1
                cause = "failed"
                _log.error("decision %s falls back: %s", name, error, exc_info=not isinstance(error, StoreError))
        return self._by_rules(name, event, values, timer, cause)

    def fall_back(self, request: DecideRequest, spent_ms: float, cause: str, event: Accepted | None = None) -> Judged:
        """Decides on one event by rules alone: neither the store nor the log is read.

        Args:
            spent_ms: what is gone of the budget already.
            cause: why.
        """
        timer = Timer(self.budget(request) - spent_ms)
        event = self.check(event)
        values = self._values(event)
        return self._by_rules(new_id(), event, values, timer, cause)

    def check(self, event: Accepted | None) -> Accepted:
        """The event that is asked about.

        Raises:
            RequestError: there is none, or it is of another stream.
        """
        stream = self.decision.recipe.schema.stream
        if event is None or event.stream != stream:
            raise RequestError(
                f"{self.decision.name} is asked with an event of {stream}",
                got="none" if event is None else f"one of {event.stream}",
                remedy='send {"event": {…}}', field="event",
            )  # fmt: skip
        return event

    def _values(self, event: Accepted) -> dict[str, Any]:
        return dict(zip(self._names, event.values, strict=True))

    def _judge(
        self,
        release: VerdictRelease,
        values: Mapping[str, Any],
        timer: Timer,
        draw: random.Random,
        looked: Callable[[], None] | None = None,
    ) -> _Found:
        recipe, verdict = release.recipe, self.decision
        with self.store.snapshot() as snapshot:
            if looked is not None:
                looked()
            now = max(self.clock.now(), snapshot.newest)
            rows = self._rows(snapshot, release, values, now)
            offset = snapshot.offset
        timer.lap("features")
        # Training saw float32; the digest is of what was computed, in full.
        single = rows.astype(np.float32)
        chance = release.model.score(single)
        timer.lap("score")
        amount, price = self._amount(values), self.price.now
        action = ACTIONS[int(verdict.costs.cheapest(chance, amount, price)[0])]
        saving = float(verdict.costs.saving(chance, amount)[0])
        features = dict(zip(recipe.assembler.names, rows[0].tolist(), strict=True))
        if self.watched is not None and self._lacking:
            # The release was trained on other views than those that the rules are about now.
            features |= self.watched.values(values, now, self._lacking)
        rule = self._rules.first({**features, **values, "now": now, "score": float(chance[0])})
        propensity, reasons = 1.0, []
        if action == "decline" and verdict.explore and not (rule is not None and rule.acts(action)):
            # Letting a bad event through costs its amount: large ones are explored less often.
            share = min(1.0, self._usual.amount / float(amount[0])) if amount[0] > 0 else 1.0
            chosen = verdict.explore * max(RARELY, share)
            explored = draw.random() < chosen
            action = "approve" if explored else action
            propensity = chosen if explored else 1 - chosen
        # What is let through to learn from is still looked at where a rule asks for it.
        rule = rule if rule is not None and rule.acts(action) else None
        if rule is not None:
            action = rule.action
            reasons.append(Because(rule.code))
        if action != "approve" and rule is None:
            reasons = _reasons(release, single, rows[0])
        timer.lap("act")
        return _Found(
            action, propensity, reasons, offset, now, float(chance[0]), saving, rule.code if rule else None, rows,
            price if math.isfinite(price) else None,
        )  # fmt: skip

    def _amount(self, values: Mapping[str, Any]) -> NDArray[np.float64]:
        """The amount of an event, (1,)."""
        return np.array([float(values[self.decision.costs.amount] or 0)])

    def _rows(
        self, snapshot: Snapshot, release: VerdictRelease, values: Mapping[str, Any], now: Micros
    ) -> NDArray[np.float64]:
        recipe = release.recipe
        read = self.folded.reader(snapshot, now)
        keys = {name: np.array([self.strings.code(values[name] or "")], np.uint32) for name in recipe.keys}
        opened = recipe.assembler.open(read, keys, np.array([now]))
        numbers = np.array([[_number(values[name]) for name in recipe.numbers]])
        return recipe.assembler.matrix(read, opened, _FIRST, np.zeros(1, np.uint32), numbers).rows

    def _by_rules(self, name: str, event: Accepted, values: Mapping[str, Any], timer: Timer, cause: str) -> Judged:
        now = max(self.clock.now(), event.time)
        rule: ActionRule | None = None
        own = {**values, "now": now}
        try:
            features = self.watched.values(values, now) if self.watched is not None else {}
            rule = self._fallback.first({**features, **own})
        except FAULTS:
            _log.exception("decision %s: the fallback's rules failed", name)
            with suppress(*FAULTS):
                rule = self._least.first(own)
        action = self.decision.otherwise if rule is None else rule.action
        code = "otherwise" if rule is None else rule.code
        timer.lap("act")
        # Without a score a look saves what is lost, on the whole, with events of such an amount.
        costs = self.decision.costs
        saving = self._usual.chance * costs.caught * float(self._amount(values)[0]) - costs.review
        found = _Found(action, 1.0, [Because(code)], 0, now, saving=saving, rule=code)
        return self._answer(name, event, values, self.release, found, timer, cause)

    def _answer(
        self,
        name: str,
        event: Accepted,
        values: Mapping[str, Any],
        release: VerdictRelease | None,
        found: _Found,
        timer: Timer,
        cause: str | None,
    ) -> Judged:
        served = release.id if release is not None else None
        tier = "model" if cause is None else "rules"
        score = None if math.isnan(found.chance) else found.chance
        decided = Decided(
            name, self.decision.name, served, tier, "champion", str(values[self.decision.recipe.by] or ""), found.now,
            found.offset, dict(values), _NOBODY, _NOBODY, _NOBODY, np.array([found.chance], np.float32),
            np.array([found.propensity], np.float32),
            timings={stage: round(ms, 3) for stage, ms in timer.stages.items()}, rows=found.rows,
            verdict={
                "event": event.id, "action": found.action, "rule": found.rule, "saving": found.saving,
                "price": found.price, "score": score, "reasons": [(r.code, r.value, r.effect) for r in found.reasons],
            },
        )  # fmt: skip
        return Judged(
            name,
            found.action,
            score,
            found.reasons,
            tier,
            served,
            "champion",
            timer.stages,
            found.propensity,
            cause,
            decided=decided,
        )


def _reasons(release: VerdictRelease, single: NDArray[np.float32], row: NDArray[np.float64]) -> list[Because]:
    """The features that speak most for the event being bad."""
    effect = release.model.classifier.contributions(single)[0]
    names = release.recipe.assembler.names
    most = [place for place in np.argsort(-effect, kind="stable")[:REASONS].tolist() if effect[place] > 0]
    return [
        Because(names[i], None if np.isnan(row[i]) else float(row[i]), round(float(effect[i]), 4)) for i in most
    ]  # fmt: skip


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
