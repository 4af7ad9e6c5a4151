"""One decision: retrieve, features, score, re-rank, under a budget, with tiers to fall back on."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from penstock.clock import Clock
from penstock.errors import RequestError, StoreError
from penstock.features.assemble import EDITION, Read, Requests
from penstock.features.folded import Folded
from penstock.learn import Candidates, Recipe, popular_lists, retrieve
from penstock.registry import name_of
from penstock.releases import Bundle, Release
from penstock.retrieve import Popular, Popularity, PopularLists, Query
from penstock.serve.budget import Costs, Timer
from penstock.serve.cache import Cache
from penstock.serve.decisions import Decided, new_id
from penstock.serve.definition import Decision, able, popularity_key
from penstock.serve.fallback import Fallback, Outcome
from penstock.serve.faults import FAULTS
from penstock.serve.known import LastKnown
from penstock.serve.requests import Answer, DecideRequest, Item, Reason, user_of
from penstock.serve.rerank import Facts, Slate
from penstock.serve.why import reasons
from penstock.types import Accepted, Micros, Snapshot, Store, Strings

_log = logging.getLogger("penstock.serve")


@dataclass
class Decider:
    """Makes one kind of decision from a store, popularity counts and the release in charge.

    `popularity` holds live counts by `popularity_key`, of the release's sources and the fallback's. `costs` are
    kept across requests: the time left chooses the tier before the deadline is missed. `folded` are the features that
    were read before.
    """

    decision: Decision
    store: Store
    strings: Strings
    clock: Clock
    popularity: Mapping[str, Popularity]
    folded: Folded = field(default_factory=Folded)
    release: Release | None = None
    failures: int = 0

    def __post_init__(self) -> None:
        self.costs = self._no_costs()
        self._fallback = Fallback(self.decision, self.strings, self.clock, self.popularity)
        self._known = LastKnown(self._fallback.names)
        self._cache = Cache(self.decision.cache / 1e6)

    def _no_costs(self) -> Costs:
        return Costs(2 * self.decision.budget_ms)

    def take(self, release: Bundle) -> None:
        """Puts a release in charge, after answering its warm-up requests unheard."""
        assert isinstance(release, Release), "the follower checks the kind"
        for name, why in able(self.decision, release.recipe).left_out:
            _log.warning("over release %s, %s goes without its rule %s: %s", release.id, self.decision.name, name, why)
        costs = self._no_costs()
        for place, request in enumerate(release.warmup):
            timer = Timer(math.inf)
            try:
                # A code in place of an id, so that releases name nobody; one that was erased asks for a stranger.
                user = request["user"] if isinstance(request["user"], str) else self.strings.text(request["user"])
                said = {name: self.strings.text(code) for name, code in request.get("context", {}).items()}
                self._personal(release, user, said, self.decision.k, timer, random.Random(place))
            except Exception:
                # What fails here fails in front of shoppers too, where a fallback answers.
                _log.exception("a warm-up request of release %s failed", release.id)
            # The first answers load and build what later ones find ready.
            if place >= len(release.warmup) // 2 and "score" in timer.stages:
                costs.add(timer.stages)
        # Nobody has seen those answers.
        self._cache = Cache(self.decision.cache / 1e6)
        self._fallback.warm(release)
        # One reference moves: requests before it end on the old release, those after begin on the new.
        self.costs, self.release = costs, release

    @property
    def left_out(self) -> list[str]:
        """The names of the rules that the release in charge lacks something for; a release trained now does not."""
        release = self.release
        return [] if release is None else [name for name, _ in able(self.decision, release.recipe).left_out]

    def warm(self) -> None:
        """Loads what fallbacks need from now on, so that they find it in memory."""
        self._fallback.warm(self.release)

    def budget(self, request: DecideRequest) -> float:
        """The time in which an answer must leave, in milliseconds."""
        return request.budget_ms or self.decision.budget_ms

    def decide(
        self,
        request: DecideRequest,
        spent_ms: float = 0.0,
        event: Accepted | None = None,
        looked: Callable[[], None] | None = None,
    ) -> Answer:
        """Answers one request; whatever fails inside, some tier answers.

        Args:
            spent_ms: what is gone of the budget already.
            event: what was sent along; it is not in its own features.
        """
        timer = Timer(self.budget(request) - spent_ms)
        user = user_of(request)
        k = request.k or self.decision.k
        name = new_id()
        context = self._context(request)
        release, costs = self.release, self.costs
        cause = "release"
        if release is None:
            pass
        elif timer.left <= costs.expected:
            costs.forget()
            cause = "cost"
        else:
            try:
                outcome = self._personal(release, user, context, k, timer, random.Random(name))
                if outcome is not None:
                    if "score" in timer.stages:
                        costs.add(timer.stages)
                    self._known.keep(user, outcome.lists)
                    return self._answer(name, request, release, outcome, timer)
                cause = "candidates"
            except FAULTS as error:
                # A store or model that fails must not take the shop down; the failure is counted and logged.
                self.failures += 1
                cause = "failed"
                # A store that is away says why; where in the code that is said helps nobody.
                _log.error("decision %s falls back: %s", name, error, exc_info=not isinstance(error, StoreError))
        if cause != "failed" and timer.left > costs.of("features"):
            self._look(user, context)
            timer.lap("features")
        return self._lower(name, request, context, timer, cause)

    def fall_back(self, request: DecideRequest, spent_ms: float, cause: str, event: Accepted | None = None) -> Answer:
        """Answers one request from memory alone: neither the store nor the log is read.

        Args:
            spent_ms: what is gone of the budget already.
            cause: why.
            event: what was sent along.
        """
        timer = Timer(self.budget(request) - spent_ms)
        return self._lower(new_id(), request, self._context(request), timer, cause)

    def popular(self) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        """The items of the decision's broadest popular source, and how many events each has in its window."""
        recipe = self.decision.recipe
        sources = [s for s in (*recipe.sources, *self.decision.fallback) if isinstance(s, Popular)]
        # Counts by a group miss the items that have none, so those over all are preferred.
        chosen = min(reversed(sources), key=lambda source: source.by is not None, default=None)
        if chosen is None:
            return np.zeros(0, np.uint32), np.zeros(0, np.int64)
        return self.popularity[popularity_key(chosen, recipe)].counts

    def _context(self, request: DecideRequest) -> dict[str, str]:
        given = request.context or {}
        for field_name, value in given.items():
            if field_name in self.decision.recipe.context and not isinstance(value, str | None):
                raise RequestError(
                    "context fields that key features are text",
                    got=f"{field_name}={value!r}",
                    remedy="send a string, or null for none",
                    field=f"context.{field_name}",
                )
        return {name: str(given[name]) for name in self.decision.recipe.context if given.get(name) is not None}

    def _personal(
        self, release: Release, user: str, context: Mapping[str, str], k: int, timer: Timer, draw: random.Random
    ) -> Outcome | None:
        recipe = release.recipe
        with self.store.snapshot() as snapshot:
            now, read, opened = self._open(snapshot, recipe, user, context)
            timer.lap("features")
            asked, editions = (release.id, user, k, *sorted(context.items())), _editions(recipe, opened)
            again = self._cache.of(asked, editions)
            if again is not None:
                return again
            lists = opened.lists(0)
            popular = popular_lists(recipe, lists, self._popular(recipe))
            query = Query(lists, popular, context)
            found = retrieve(recipe, query, release.indexes)
            timer.lap("retrieve")
            if not len(found.items):
                return None
            owner = np.zeros(len(found.items), np.int64)
            matrix = recipe.assembler.matrix(read, opened, owner, found.items, found.scores)
            timer.lap("features")
        # Training saw float32; the digest is of what was computed, in full.
        scores = release.model.score(matrix.rows.astype(np.float32), found, matrix.editions)
        timer.lap("score")
        order = np.argsort(-scores, kind="stable")
        facts = Facts(matrix.rows, recipe.assembler.places, release.sources, query, release.learned)
        slate = Slate(found.items, order, matrix.attributes, np.ones(len(order)), scores, facts)
        rules = able(self.decision, recipe).rules
        for rule in rules:
            slate = rule.apply(slate, k, self.strings, draw)
        broken = tuple(name_of(rule) for rule in rules if not rule.holds(slate, k, self.strings))
        timer.lap("rerank")
        needs = {need for source in recipe.sources for need in source.needs()}
        own = any(lists[need].any() for need in needs.difference(recipe.context)) or any(map(context.get, recipe.asks))
        tier = "personal" if own else "segment" if any(lists[n].any() for n in needs if n in lists) else "popular"
        padded = np.r_[scores, np.zeros(len(slate.items) - len(scores))]
        result = (slate.order[:k], padded[slate.order[:k]], slate.propensity[:k])
        outcome = Outcome(
            tier, snapshot.offset, now, slate.items, _found_by(found), *result, matrix.rows, lists, broken
        )
        self._cache.keep(asked, editions, outcome)
        return outcome

    def _open(
        self, snapshot: Snapshot, recipe: Recipe, user: str, context: Mapping[str, str]
    ) -> tuple[Micros, Read, Requests]:
        """The moment of a request, how views are read at it, and what they say of the shopper."""
        now = max(self.clock.now(), snapshot.newest)
        read = self.folded.reader(snapshot, now)
        given = {recipe.by: user, **{name: context.get(name, "") for name in recipe.context}}
        keys = {name: np.array([self.strings.code(text)], np.uint32) for name, text in given.items()}
        return now, read, recipe.assembler.open(read, keys, np.array([now]))

    def _look(self, user: str, context: Mapping[str, str]) -> None:
        """Reads what a fallback wants to know of a shopper, as far as the store can say."""
        recipe = self.decision.recipe
        if not self._known.names:
            return
        try:
            with self.store.snapshot() as snapshot:
                _, _, opened = self._open(snapshot, recipe, user, context)
                self._known.keep(user, opened.lists(0))
        except Exception:
            _log.exception("what is left out could not be read")

    def _popular(self, recipe: Recipe) -> dict[str, PopularLists]:
        return {
            source.label: self.popularity[popularity_key(source, recipe)].lists
            for source in recipe.sources
            if isinstance(source, Popular)
        }

    def _lower(self, name: str, request: DecideRequest, context: Mapping[str, str], timer: Timer, cause: str) -> Answer:
        """The answer of a lower tier, from memory."""
        release = self.release
        k = request.k or self.decision.k
        outcome = self._fallback.make(context, k, self._known.of(user_of(request)), release)
        timer.lap("retrieve")
        return self._answer(name, request, release, outcome, timer, cause)

    def _answer(
        self,
        name: str,
        request: DecideRequest,
        release: Release | None,
        outcome: Outcome,
        timer: Timer,
        cause: str | None = None,
    ) -> Answer:
        shown = outcome.items[outcome.order]
        strings = self.strings if cause is None else self.strings.cached
        rows = zip(strings.texts(shown), outcome.scores.tolist(), outcome.propensity.tolist(), strict=True)
        items = [Item(text, score, chance) for text, score, chance in rows]
        served = release.id if release is not None else None
        decided = Decided(
            name, self.decision.name, served, outcome.tier, "champion", user_of(request), outcome.now, outcome.offset,
            dict(request.context or {}), outcome.items, outcome.found_by, outcome.order.astype(np.uint32),
            outcome.scores.astype(np.float32), outcome.propensity.astype(np.float32),
            timings={stage: round(ms, 3) for stage, ms in timer.stages.items()}, rows=outcome.rows,
        )  # fmt: skip
        why = None
        if request.why:
            why = self._why(release, outcome)
            timer.lap("why")
        cached = cause is None and "score" not in timer.stages
        return Answer(
            name, items, outcome.tier, served, "champion", timer.stages, why, cause, cached, decided, outcome.broken
        )

    def _why(self, release: Release | None, outcome: Outcome) -> list[list[Reason]]:
        if release is None or not outcome.lists:
            return [[] for _ in outcome.order]
        # Items that a rule added stand behind those that sources found.
        found_by = np.r_[outcome.found_by, np.zeros(len(outcome.items) - len(outcome.found_by), np.uint32)]
        shown = outcome.items[outcome.order]
        return reasons(release, outcome.lists, shown, found_by[outcome.order], self.strings)


def _editions(recipe: Recipe, opened: Requests) -> list[int]:
    """Of what was read of the shopper; other numbers than before where they have done something since."""
    own = [view.name for view in recipe.assembler.early if recipe.by in view.by]
    return [int(opened.values[f"{name}.{EDITION}"][0]) for name in own]


def _found_by(found: Candidates) -> NDArray[np.uint32]:
    bits = np.left_shift(1, np.arange(found.place.shape[1]))
    return ((~np.isnan(found.place)) @ bits).astype(np.uint32)
