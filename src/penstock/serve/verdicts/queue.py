"""What waits for a person: events that were sent to review and of which no outcome is known, dearest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from penstock.learn import VerdictRecipe
from penstock.serve.decisions import Decided
from penstock.types import Log, Micros

_CHUNK = 200_000


@dataclass(frozen=True)
class Waiting:
    """One event that waits for a review; `saving` is what looking at it is expected to save, beyond its cost.

    `score` is None where rules alone decided.
    """

    decision_id: str
    event: str
    time: Micros
    score: float | None
    saving: float
    reasons: list[Any]
    fields: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def waiting(decided: Sequence[Decided], recipe: VerdictRecipe, log: Log, most: int = 50) -> list[Waiting]:
    """The reviews that are open, by falling saving.

    Args:
        decided: logged decisions of the verdict.
        recipe: its outcomes close a review.
        log: the event log.
        most: so many at most.
    """
    asked = [(one, one.verdict) for one in decided if one.verdict and one.verdict["action"] == "review"]
    if not asked:
        return []
    settled = _settled(recipe, log, min(one.offset for one, _ in asked))
    found = []
    for one, said in asked:
        if said["event"] not in settled:
            score = None if np.isnan(one.scores[0]) else float(one.scores[0])
            found.append(Waiting(one.id, said["event"], one.time, score, said["saving"], said["reasons"], one.context))
    return sorted(found, key=lambda one: (-one.saving, one.time, one.decision_id))[:most]


def _settled(recipe: VerdictRecipe, log: Log, start: int) -> set[str]:
    """The ids that outcomes name, of events from an offset on."""
    found: set[str] = set()
    for first in range(start, log.end, _CHUNK):
        rows = log.read(first, min(first + _CHUNK, log.end))
        for outcome in recipe.outcomes:
            part = rows.get(outcome.schema.stream)
            if part is not None:
                found.update(log.strings.texts(np.unique(part.fields[outcome.of])))
    return found
