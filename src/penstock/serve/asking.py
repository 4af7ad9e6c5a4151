"""Asks for what may wait for the store: decisions within their budget, everything else within a second."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from time import perf_counter
from typing import TypeVar

from penstock.errors import UnavailableError
from penstock.serve.admission import LEAST_DELAY, Admission, too_busy
from penstock.serve.face import Face
from penstock.serve.lane import Lane
from penstock.serve.metrics import Metrics
from penstock.serve.replies import Waterfall
from penstock.serve.requests import Answer, DecideRequest, Judged
from penstock.serve.verdicts import undecided
from penstock.types import Accepted

R = TypeVar("R")

RESERVE = 0.1
"""The share of a decision's budget that is kept for a fallback and for sending the answer."""
STORE_WITHIN = 1.0
"""Seconds in which the store must answer what is no decision."""


class Asking:
    """Asks one running system on behalf of every address.

    Args:
        face: the running system.
        metrics: where decisions are counted.
        lane: runs what may wait for the store.
        admission: says how late the event loop is.
    """

    def __init__(self, face: Face, metrics: Metrics, lane: Lane, admission: Admission) -> None:
        self._face = face
        self._meters = metrics
        self._lane = lane
        self._admission = admission

    def admit(self, name: str, asked: DecideRequest, delay: float) -> float:
        """The budget of a decision, in milliseconds; refuses a request that has waited `delay` of it, and too long.

        An event's verdict is not refused, which nobody else can give: rules answer where no time is left.
        """
        budget = self._face.budget(name, asked)
        if self._face.judges(name):
            return budget
        bearable = max(budget / 2, LEAST_DELAY)
        if delay > bearable:
            raise too_busy(delay, bearable)
        return budget

    async def ask(
        self,
        name: str,
        asked: DecideRequest,
        waterfall: Waterfall,
        event: Accepted | None = None,
        looked: Callable[[], None] | None = None,
    ) -> Answer | Judged:
        """Decides, for whatever address; what queueing and reading took is gone from the budget, too.

        Where there is no time to wait for the lane, or none left when it does not answer, memory answers.

        Args:
            event: what was sent along, checked.
            looked: see `Face.decide`; called on the lane's thread.
        """
        budget = self._face.budget(name, asked)
        reserve = budget * RESERVE

        def decide() -> tuple[Answer | Judged, float]:
            began = perf_counter()
            return self._face.decide(name, asked, waterfall.total + reserve, event, looked), began

        # The loop must come round in time to see that the lane has not answered.
        due = budget - reserve - self._admission.lag
        left = (due - waterfall.total) / 1e3
        answer: Answer | Judged | None = None
        cause = "busy"
        if self._lane.wait < left:
            try:
                answer, began = await self._lane.run(decide, left)
                waterfall.lap("queue", began)
            except TimeoutError:
                cause = "late"
                self._admission.late(waterfall.total - due)
            finally:
                self.tell()
        if answer is None:
            waterfall.lap("queue")
            answer = self._face.fall_back(name, asked, waterfall.total, cause, event)
        waterfall.add(answer.timings)
        late = waterfall.total > budget - reserve / 2 and self._admission.lag > reserve
        if late and isinstance(answer, Answer):
            # Not the store is late but the loop itself, and sending takes time, too. An event's verdict goes out all
            # the same: nobody else can give one.
            raise too_busy(waterfall.total, budget)
        return answer

    def count(self, name: str, answer: Answer | Judged, waterfall: Waterfall) -> None:
        """Logs and takes down a decision whose answer is ready to be sent."""
        self._face.served(answer)
        self.tally(name, answer, waterfall)

    def tally(self, name: str, answer: Answer | Judged, waterfall: Waterfall) -> None:
        """Takes down a decision that is logged already."""
        stages = {**waterfall.stages, "total": waterfall.total}
        self._meters.decided(
            name, answer.tier, answer.release or "none", stages, answer.cause, answer.cached, answer.broken
        )

    async def read(self, work: Callable[[], R]) -> R:
        """What `work` returns, which may wait for the store.

        Raises:
            UnavailableError: not within a second.
        """
        try:
            return await self._lane.run(work, STORE_WITHIN)
        except TimeoutError:
            raise UnavailableError(
                f"the store answers within {STORE_WITHIN:g} s", got="nothing yet",
                remedy="try again after Retry-After seconds",
            ) from None  # fmt: skip
        finally:
            self.tell()

    def tell(self) -> None:
        """Says how things stand with the lane and the store."""
        self._meters.behind = self._face.behind
        self._meters.queue, self._meters.busy = self._lane.waiting, self._lane.busy


async def promised(first: Future[Judged]) -> Judged:
    """The verdict that another request is about to give."""
    if first.done():
        return first.result()
    try:
        async with asyncio.timeout(STORE_WITHIN):
            return await asyncio.shield(asyncio.wrap_future(first))
    except TimeoutError:
        raise undecided("one that is still on its way") from None


async def within(logged: Awaitable[list[bool]], ms: float) -> list[bool]:
    """Waits for the log so long, and gives which events were new; what it took later counts all the same."""
    try:
        async with asyncio.timeout(max(0.0, ms) / 1e3):
            return await logged
    except TimeoutError:
        raise UnavailableError(
            "an event sent along is durable before the answer", got="the log has not taken it in time",
            remedy="send the same request again: an event with an id counts once",
        ) from None  # fmt: skip
