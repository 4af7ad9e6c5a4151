"""One decision: retrieve, features, score, re-rank, under a budget, with tiers to fall back on."""

from __future__ import annotations

import logging
import math
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from penstock.clock import Clock
from penstock.errors import DefinitionError, RequestError
from penstock.features.assemble import Read, Requests
from penstock.features.folded import Folded
from penstock.learn import Candidates, Recipe, popular_lists, retrieve
from penstock.registry import fingerprint, to_spec
from penstock.releases import Release
from penstock.retrieve import Popular, Popularity, PopularLists, Query
from penstock.serve.decisions import Decided, digests
from penstock.serve.requests import Answer, DecideRequest, Item, Reason
from penstock.serve.rerank import Explore, Rule, Slate
from penstock.serve.why import reasons
from penstock.types import Micros, Snapshot, Store, Strings

STAGES = ("features", "retrieve", "score", "rerank")
_log = logging.getLogger("penstock.serve")


@dataclass(frozen=True, eq=False)
class Decision:
    """What an app file says of one decision, beyond what is learned."""

    recipe: Recipe
    rules: tuple[Rule, ...] = ()
    fallback: tuple[Popular, ...] = ()
    budget: Micros = 50_000
    k: int = 20

    @property
    def name(self) -> str:
        return self.recipe.name


class Cost:
    """What a stage has lately cost: a moving mean and deviation, in milliseconds.

    >>> cost = Cost(); cost.add(2.0); cost.expected < 10
    True
    """

    def __init__(self) -> None:
        self._mean = 0.0
        self._deviation = 0.0

    def add(self, ms: float) -> None:
        # One request in twenty: fast enough to notice trouble, slow enough not to follow a single stall.
        self._deviation += (abs(ms - self._mean) - self._deviation) / 20
        self._mean += (ms - self._mean) / 20

    def forget(self) -> None:
        """Trusts the past a little less: what is never tried again would never be found to be quick again."""
        self._mean *= 0.95
        self._deviation *= 0.95

    @property
    def expected(self) -> float:
        """What to reckon with: the mean and four deviations."""
        return self._mean + 4 * self._deviation


class Timer:
    """Milliseconds a stage, and what is left of the budget."""

    def __init__(self, budget_ms: float) -> None:
        self._start = self._last = time.perf_counter()
        self._budget = budget_ms
        self.stages: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        now = time.perf_counter()
        self.stages[stage] = self.stages.get(stage, 0.0) + (now - self._last) * 1e3
        self._last = now

    @property
    def left(self) -> float:
        return self._budget - (time.perf_counter() - self._start) * 1e3


@dataclass(frozen=True)
class _Outcome:
    """A decision made, before it is spelled out and logged."""

    tier: str
    offset: int
    now: Micros
    items: NDArray[np.uint32]
    found_by: NDArray[np.uint32]
    order: NDArray[np.int64]
    scores: NDArray[np.float64]
    propensity: NDArray[np.float64]
    digests: bytes
    lists: Mapping[str, NDArray[np.uint32]] = field(default_factory=dict)


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
    log: Callable[[Decided], None]
    folded: Folded = field(default_factory=Folded)
    release: Release | None = None
    costs: dict[str, Cost] = field(default_factory=lambda: {stage: Cost() for stage in STAGES})
    failures: int = 0

    def take(self, release: Release) -> None:
        """Puts a release in charge, after answering its warm-up requests unheard."""
        costs = {stage: Cost() for stage in STAGES}
        for place, request in enumerate(release.warmup):
            timer = Timer(math.inf)
            try:
                # A code in place of an id, so that releases name nobody; one that was erased asks for a stranger.
                user = request["user"] if isinstance(request["user"], str) else self.strings.text(request["user"])
                self._personal(release, user, {}, self.decision.k, timer, random.Random(place))
            except Exception:
                # What fails here fails in front of shoppers too, where a fallback answers.
                _log.exception("a warm-up request of release %s failed", release.id)
            # The first answers load and build what later ones find ready.
            for stage in STAGES if place >= len(release.warmup) // 2 else ():
                costs[stage].add(timer.stages.get(stage, 0.0))
        # One reference moves: requests before it end on the old release, those after begin on the new.
        self.costs, self.release = costs, release

    def decide(self, request: DecideRequest, spent_ms: float = 0.0) -> Answer:
        """Answers one request; whatever fails inside, some tier answers.

        Args:
            spent_ms: what is gone of the budget already.
        """
        timer = Timer((request.budget_ms or self.decision.budget / 1_000) - spent_ms)
        k = request.k or self.decision.k
        name = f"{time.time_ns() // 1_000_000:012x}{os.urandom(8).hex()}"
        context = self._context(request)
        release = self.release
        outcome = None
        if release is None:
            pass
        elif timer.left <= sum(cost.expected for cost in self.costs.values()):
            for cost in self.costs.values():
                cost.forget()
        else:
            try:
                outcome = self._personal(release, request.user, context, k, timer, random.Random(name))
                for stage in STAGES:
                    self.costs[stage].add(timer.stages.get(stage, 0.0))
            except Exception:
                # A store or model that fails must not take the shop down; the failure is counted and logged.
                self.failures += 1
                _log.exception("decision %s falls back", name)
        if outcome is None:
            outcome = self._fallback(request.user, context, k, timer)
        return self._answer(name, request, release, outcome, timer)

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
            if field_name in self.decision.recipe.context and not isinstance(value, str):
                raise RequestError(
                    "context fields that key features are text",
                    got=f"{field_name}={value!r}",
                    remedy="send a string",
                    field=f"context.{field_name}",
                )
        return {name: str(given[name]) for name in self.decision.recipe.context if given.get(name) is not None}

    def _personal(
        self, release: Release, user: str, context: Mapping[str, str], k: int, timer: Timer, draw: random.Random
    ) -> _Outcome | None:
        recipe = release.recipe
        with self.store.snapshot() as snapshot:
            now, read, opened = self._open(snapshot, recipe, user, context)
            timer.lap("features")
            lists = opened.lists(0)
            popular = popular_lists(recipe, lists, self._popular(recipe))
            found = retrieve(recipe, Query(lists, popular), release.indexes)
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
        slate = Slate(found.items, order, matrix.attributes, np.ones(len(order)))
        for rule in self.decision.rules:
            slate = rule.apply(slate, k, self.strings, draw)
        timer.lap("rerank")
        needs = {need for source in recipe.sources for need in source.needs()}
        own = any(lists[need].any() for need in needs.difference(recipe.context))
        tier = "personal" if own else "segment" if any(lists[n].any() for n in needs if n in lists) else "popular"
        padded = np.r_[scores, np.zeros(len(slate.items) - len(scores))]
        result = (slate.order[:k], padded[slate.order[:k]], slate.propensity[:k])
        return _Outcome(tier, snapshot.offset, now, slate.items, _found_by(found), *result, digests(matrix.rows), lists)

    def _open(
        self, snapshot: Snapshot, recipe: Recipe, user: str, context: Mapping[str, str]
    ) -> tuple[Micros, Read, Requests]:
        """The moment of a request, how views are read at it, and what they say of the shopper."""
        now = max(self.clock.now(), snapshot.newest)
        read = self.folded.reader(snapshot, now)
        given = {recipe.by: user, **{name: context.get(name, "") for name in recipe.context}}
        keys = {name: np.array([self.strings.code(text)], np.uint32) for name, text in given.items()}
        return now, read, recipe.assembler.open(read, keys, np.array([now]))

    def _left_out(self, user: str, context: Mapping[str, str]) -> NDArray[np.uint32]:
        """The items that must not be shown, as far as the store can say."""
        recipe = self.decision.recipe
        if not recipe.leave_out:
            return np.zeros(0, np.uint32)
        try:
            with self.store.snapshot() as snapshot:
                _, _, opened = self._open(snapshot, recipe, user, context)
                lists = opened.lists(0)
        except Exception:
            _log.exception("what is left out could not be read")
            return np.zeros(0, np.uint32)
        return np.concatenate([lists[name] for name in recipe.leave_out])

    def _popular(self, recipe: Recipe) -> dict[str, PopularLists]:
        return {
            source.label: self.popularity[popularity_key(source, recipe)].lists
            for source in recipe.sources
            if isinstance(source, Popular)
        }

    def _fallback(self, user: str, context: Mapping[str, str], k: int, timer: Timer) -> _Outcome:
        """The segment's popular items, else everyone's, else the release's static list."""
        tier, items = "default", np.zeros(0, np.uint32)
        out = self._left_out(user, context)
        timer.lap("features")
        for source in self.decision.fallback:
            groups = [self.strings.code(context.get(source.by, ""))] if source.by else [0]
            items = self.popularity[popularity_key(source, self.decision.recipe)].lists.items(groups)
            items = items[~np.isin(items, out)]
            if len(items):
                tier = "segment" if source.by else "popular"
                break
        if not len(items) and self.release is not None:
            items = self.release.defaults[~np.isin(self.release.defaults, out)]
        timer.lap("retrieve")
        slate = Slate(items, np.arange(len(items)), {}, np.ones(len(items)))
        for rule in self.decision.rules:
            # Rules about fields of the items need features; those about items alone hold on every tier.
            with suppress(DefinitionError):
                slate = slate if isinstance(rule, Explore) else rule.apply(slate, k, self.strings, random.Random(0))
        items = slate.items[slate.order[:k]]
        scores = 1.0 / (1.0 + np.arange(len(items), dtype=np.float64))
        return _Outcome(
            tier, 0, self.clock.now(), items, np.zeros(len(items), np.uint32), np.arange(len(items)), scores,
            np.ones(len(items)), b"",
        )  # fmt: skip

    def _answer(
        self, name: str, request: DecideRequest, release: Release | None, outcome: _Outcome, timer: Timer
    ) -> Answer:
        shown = outcome.items[outcome.order]
        rows = zip(self.strings.texts(shown), outcome.scores.tolist(), outcome.propensity.tolist(), strict=True)
        items = [Item(text, score, chance) for text, score, chance in rows]
        served = release.id if release is not None else None
        self.log(
            Decided(
                name, self.decision.name, served, outcome.tier, "champion", request.user, outcome.now, outcome.offset,
                dict(request.context or {}), outcome.items, outcome.found_by, outcome.order.astype(np.uint32),
                outcome.scores.astype(np.float32), outcome.propensity.astype(np.float32), outcome.digests,
                {stage: round(ms, 3) for stage, ms in timer.stages.items()},
            )
        )  # fmt: skip
        why = None
        if request.why:
            why = self._why(release, outcome)
            timer.lap("why")
        return Answer(name, items, outcome.tier, served, "champion", timer.stages, why)

    def _why(self, release: Release | None, outcome: _Outcome) -> list[list[Reason]]:
        if release is None or not outcome.lists:
            return [[] for _ in outcome.order]
        # Items that a rule added stand behind those that sources found.
        found_by = np.r_[outcome.found_by, np.zeros(len(outcome.items) - len(outcome.found_by), np.uint32)]
        shown = outcome.items[outcome.order]
        return reasons(release, outcome.lists, shown, found_by[outcome.order], self.strings)


def _found_by(found: Candidates) -> NDArray[np.uint32]:
    bits = np.left_shift(1, np.arange(found.place.shape[1]))
    return ((~np.isnan(found.place)) @ bits).astype(np.uint32)


@lru_cache(maxsize=1_024)
def popularity_key(source: Popular, recipe: Recipe) -> str:
    """What a count of popular items is: the same for equal sources over the same stream and item field."""
    return fingerprint([to_spec(source), recipe.stream, recipe.item])


def live_sources(decisions: Sequence[Decision], releases: Sequence[Release]) -> dict[str, tuple[Popular, Recipe]]:
    """Every popularity count that these decisions and releases need, by `popularity_key`."""
    wanted = [(source, d.recipe) for d in decisions for source in d.fallback]
    for recipe in [*(d.recipe for d in decisions), *(r.recipe for r in releases)]:
        wanted += [(source, recipe) for source in recipe.sources if isinstance(source, Popular)]
    return {popularity_key(source, recipe): (source, recipe) for source, recipe in wanted}
