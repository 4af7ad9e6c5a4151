"""What an app file says of a decision, beyond what is learned, and the counts of popular items that it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from penstock.learn import Recipe
from penstock.registry import fingerprint, to_spec
from penstock.releases import Release
from penstock.retrieve import Popular
from penstock.serve.rerank import Rule
from penstock.types import Micros


@dataclass(frozen=True, eq=False)
class Decision:
    """What an app file says of one decision, beyond what is learned.

    Attributes:
        budget: the time within which an answer leaves, microseconds.
        cache: how long an answer may be given again, microseconds.
    """

    recipe: Recipe
    rules: tuple[Rule, ...] = ()
    fallback: tuple[Popular, ...] = ()
    budget: Micros = 50_000
    k: int = 20
    cache: Micros = 0

    @property
    def name(self) -> str:
        return self.recipe.name

    @property
    def budget_ms(self) -> float:
        return self.budget / 1_000


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
