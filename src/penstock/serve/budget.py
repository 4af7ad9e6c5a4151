"""The time that a decision has, and what its stages are expected to take of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

STAGES = ("features", "retrieve", "score", "rerank", "act")
_A_SECOND = 20.0


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

    def forget(self, times: float = 1.0) -> None:
        """Trusts the past a little less: what is never tried again would never be found to be quick again."""
        kept = 0.95**times
        self._mean *= kept
        self._deviation *= kept

    @property
    def expected(self) -> float:
        """What to reckon with: the mean and four deviations."""
        return self._mean + 4 * self._deviation


class Costs:
    """The costs of a decision's stages.

    Args:
        most: milliseconds; a stage that took longer counts as much, so that one stall is not remembered for long.
        elapsed: seconds on a clock that only goes forward.
    """

    def __init__(self, most: float, elapsed: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._elapsed = elapsed
        self._stages = {stage: Cost() for stage in STAGES}
        self._looked = elapsed()

    def add(self, stages: Mapping[str, float]) -> None:
        """Takes down what a whole decision took, in milliseconds a stage."""
        self._looked = self._elapsed()
        for stage, cost in self._stages.items():
            cost.add(min(stages.get(stage, 0.0), self._most))

    def forget(self) -> None:
        """Trusts the past less, by the number of times that it was gone by, or by the time where that is more."""
        now = self._elapsed()
        times = max(1.0, (now - self._looked) * _A_SECOND)
        self._looked = now
        for cost in self._stages.values():
            cost.forget(times)

    @property
    def expected(self) -> float:
        """Milliseconds to reckon with for all stages."""
        return sum(cost.expected for cost in self._stages.values())

    def of(self, stage: str) -> float:
        """Milliseconds to reckon with for one stage."""
        return self._stages[stage].expected


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
