"""What waits for a person: events that were sent to review and of which no outcome is known, dearest first."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from penstock.events import SqliteLog
from penstock.learn import VerdictRecipe
from penstock.serve.decisions import Decided, DecisionLog
from penstock.types import Micros

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


class Queue:
    """The open reviews of one verdict; reads no more of the log than what is new since it was last asked.

    Args:
        recipe: its outcomes close a review.
        decisions: where reviews are asked for.
        log: where outcomes are.
    """

    def __init__(self, recipe: VerdictRecipe, decisions: DecisionLog, log: SqliteLog) -> None:
        self._recipe = recipe
        self._decisions = decisions
        self._log = log
        self._settled: set[str] = set()
        self._read = -1
        self._lock = threading.Lock()

    def waiting(self, now: Micros, most: int = 50) -> list[Waiting]:
        """The reviews that are open, by falling saving; those of the time within which outcomes come.

        Args:
            now: the present moment.
            most: so many at most.
        """
        asked = self._decisions.reviews(self._recipe.name, now - self._recipe.within)
        with self._lock:
            if asked:
                self._settle(asked[0])
            found = [
                _told(one, one.verdict) for one in asked if one.verdict and one.verdict["event"] not in self._settled
            ]
        return sorted(found, key=lambda one: (-one.saving, one.time, one.decision_id))[:most]

    def _settle(self, oldest: Decided) -> None:
        """Reads on which events outcomes name; from where the log was before the oldest open review."""
        if self._read < 0:
            # Rules say nothing of the log; what was decided before does.
            self._read = oldest.offset or self._decisions.known_by(oldest.decision, oldest.time)
        end = self._log.refresh()
        for first in range(self._read, end, _CHUNK):
            self._read = min(first + _CHUNK, end)
            rows = self._log.read(first, self._read)
            for outcome in self._recipe.outcomes:
                part = rows.get(outcome.schema.stream)
                if part is not None:
                    self._settled.update(self._log.strings.texts(np.unique(part.fields[outcome.of])))


def _told(one: Decided, said: Mapping[str, Any]) -> Waiting:
    score = None if np.isnan(one.scores[0]) else float(one.scores[0])
    return Waiting(one.id, said["event"], one.time, score, said["saving"], said["reasons"], one.context)
