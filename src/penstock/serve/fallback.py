"""Answers from memory alone: what is popular, for decisions that cannot be personal in time."""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from penstock.clock import Clock
from penstock.errors import DefinitionError
from penstock.releases import Release
from penstock.retrieve import Popular, Popularity
from penstock.serve.definition import Decision, popularity_key
from penstock.serve.rerank import Slate
from penstock.types import Array, Micros, Strings


@dataclass(frozen=True)
class Outcome:
    """A decision made, before it is spelled out; `broken` names the rules whose promise its slate does not keep."""

    tier: str
    offset: int
    now: Micros
    items: NDArray[np.uint32]
    found_by: NDArray[np.uint32]
    order: NDArray[np.int64]
    scores: NDArray[np.float64]
    propensity: NDArray[np.float64]
    rows: NDArray[np.float64] | None = None
    lists: Mapping[str, NDArray[np.uint32]] = field(default_factory=dict)
    broken: tuple[str, ...] = ()


class Fallback:
    """The lower tiers of one decision: the segment's popular items, else everyone's, else the release's static list.

    Args:
        decision: its sources and rules.
        strings: those that `warm` has loaded are used, and no others.
        clock: says now.
        popularity: live counts by `popularity_key`.
    """

    def __init__(
        self, decision: Decision, strings: Strings, clock: Clock, popularity: Mapping[str, Popularity]
    ) -> None:
        self._decision = decision
        self._strings = strings
        self._clock = clock
        self._popularity = popularity
        self._warm: list[object] = []

    @property
    def names(self) -> list[str]:
        """The lists of the shopper that it looks at, where they are known."""
        recipe = self._decision.recipe
        needs = [need for source in self._decision.fallback for need in source.needs()]
        return list(dict.fromkeys([*recipe.leave_out, *(need for need in needs if need in recipe.lists)]))

    def warm(self, release: Release | None) -> None:
        """Loads the strings that answers may need from now on. Reads the log, so not for the event loop's thread."""
        counts = [self._counts(source).lists.by_group for source in self._decision.fallback]
        state: list[object] = [*counts, release]
        if len(state) == len(self._warm) and all(new is old for new, old in zip(state, self._warm, strict=True)):
            return
        static = [] if release is None else [release.defaults]
        groups = [np.fromiter(by_group, np.uint32) for by_group in counts]
        items = [items for by_group in counts for items in by_group.values()]
        self._strings.texts(np.unique(np.concatenate([np.zeros(0, np.uint32), *static, *groups, *items])))
        nothing = np.zeros(0, np.uint32)
        self._ruled(Slate(nothing, np.zeros(0, np.int64), {}, np.ones(0)), 1, self._strings)
        self._warm = state

    def make(self, context: Mapping[str, str], k: int, known: Mapping[str, Array], release: Release | None) -> Outcome:
        """The best that memory holds.

        Args:
            known: lists of the shopper, as far as they are at hand.
        """
        recipe, strings = self._decision.recipe, self._strings.cached
        none = np.zeros(0, np.uint32)
        out = np.concatenate([none, *(known[name] for name in recipe.leave_out if name in known)])
        tier, items = "default", none
        for source in self._decision.fallback:
            found = self._counts(source).lists.items(_groups(source, context, known, strings))
            items = _spelled(found[~np.isin(found, out)], strings)
            if len(items):
                tier = "segment" if source.by else "popular"
                break
        if not len(items) and release is not None:
            items = _spelled(release.defaults[~np.isin(release.defaults, out)], strings)
        slate = self._ruled(Slate(items, np.arange(len(items)), {}, np.ones(len(items))), k, strings)
        items = slate.items[slate.order[:k]]
        scores = 1.0 / (1.0 + np.arange(len(items), dtype=np.float64))
        return Outcome(
            tier, 0, self._clock.now(), items, np.zeros(len(items), np.uint32), np.arange(len(items)), scores,
            np.ones(len(items)),
        )  # fmt: skip

    def _counts(self, source: Popular) -> Popularity:
        return self._popularity[popularity_key(source, self._decision.recipe)]

    def _ruled(self, slate: Slate, k: int, strings: Strings) -> Slate:
        for rule in self._decision.rules:
            # Rules about fields of the items need features; those about items alone hold on every tier.
            with suppress(DefinitionError):
                slate = slate if rule.explores else rule.apply(slate, k, strings, random.Random(0))
        return slate


def _groups(source: Popular, context: Mapping[str, str], known: Mapping[str, Array], strings: Strings) -> list[int]:
    """The groups to take from: as the context says, else as the shopper was last known."""
    if source.by is None:
        return [0]
    (need,) = source.needs()
    said = context.get(need) or context.get(source.by)
    if said:
        return [strings.code(said)]
    return [int(code) for code in known.get(need, ()) if code]


def _spelled(items: NDArray[np.uint32], strings: Strings) -> NDArray[np.uint32]:
    """Those whose ids are at hand, which is all but those that became popular this instant."""
    return items[[bool(text) for text in strings.texts(items)]] if len(items) else items
