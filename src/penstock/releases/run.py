"""What every training run has: steps that are timed and told, and a result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from penstock.clock import SECOND
from penstock.types import Progress

Step = Callable[[str], Progress]
"""Called when a step begins, with its title; gives the step's progress callback."""


@dataclass(frozen=True)
class Trained:
    """A finished run. `report` is the evaluation, as in the release's report.json."""

    release: str
    chosen: str
    report: Mapping[str, Any]


@dataclass
class Run:
    """One run's clock and notes."""

    step: Step
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, title: str) -> Iterator[Progress]:
        """Times what happens inside, under a title."""
        progress = self.step(title)
        start = time.perf_counter()
        yield progress
        self.seconds[title] = self.seconds.get(title, 0.0) + time.perf_counter() - start


def iso(micros: int) -> str:
    """A moment as people read it."""
    return datetime.fromtimestamp(micros / SECOND, UTC).isoformat(timespec="seconds")
