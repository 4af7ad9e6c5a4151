"""What the server asks of a running system."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Protocol

from penstock.events import Parsed
from penstock.serve.decisions import Decided
from penstock.serve.requests import Answer, DecideRequest, Judged
from penstock.types import Accepted, Micros


class Face(Protocol):
    """One app that runs.

    What may wait for the store is called on a thread of its own: `decide`, `earlier`, `features`, `now`, `popular`,
    `ready`, `reviews`, and the releases' methods. The others are called on the event loop's thread and must not wait.

    Every method may raise a `PenstockError`, which becomes the answer: `TooLargeError` 413, `NotFoundError` 404,
    `UnavailableError` 503, a `BodyError` of events 400, any other 422.
    """

    @property
    def behind(self) -> int:
        """Events that the log holds and decisions do not see yet, as of a tenth of a second ago."""

    def parse(self, body: bytes) -> Parsed:
        """Sorts a body of events; a large one is parsed on a thread of its own."""

    def submit(self, parsed: Parsed, source: str, *, shown: bool = True) -> Future[list[bool]]:
        """Resolves once durable and visible to the next decision, to which of the accepted were new.

        Without `shown` it resolves once durable; they become visible some milliseconds later.
        """

    def budget(self, name: str, request: DecideRequest) -> float:
        """The time in which an answer must leave, in milliseconds."""

    def decide(
        self,
        name: str,
        request: DecideRequest,
        spent_ms: float = 0.0,
        event: Accepted | None = None,
        looked: Callable[[], None] | None = None,
    ) -> Answer | Judged:
        """Answers within the budget, of which `spent_ms` is gone already, unless the store keeps it waiting.

        `event` is what was sent along; it is not in the log yet. `looked` is called, if at all, once what is read of
        the store is fixed: from then on the log may have the event.
        """

    def fall_back(
        self, name: str, request: DecideRequest, spent_ms: float, cause: str, event: Accepted | None = None
    ) -> Answer | Judged:
        """Answers from memory alone, because of `cause`."""

    def reviews(self, decision: str, most: int) -> list[dict[str, Any]]:
        """The events of a verdict that wait for a person, by falling saving."""

    def staff(self, decision: str, reviews: float) -> dict[str, Any]:
        """Says how many reviews a day a verdict has people for."""

    def served(self, answer: Answer | Judged, *, sure: bool = False) -> Future[Decided] | None:
        """Logs a decision; where it must not be lost, or `sure`, resolves once on disk, to the one that stands."""

    def judges(self, name: str) -> bool:
        """Whether a decision is on single events."""

    def claim(self, name: str, event: Accepted) -> tuple[Future[Judged], bool]:
        """The promise of the first verdict on an event; and whether it is the caller's to keep."""

    def give_up(self, name: str, event: str, error: BaseException) -> None:
        """Says that a promise is not kept."""

    def earlier(self, name: str, event: Accepted) -> Judged | None:
        """The verdict that was given before on an event that the log had already; reads the disk."""

    def again(self, name: str, first: Judged, event: Accepted) -> Judged:
        """The first verdict on an event, for whoever sends it again."""

    def standing(self, name: str, answer: Judged, stands: Decided, event: Accepted) -> Judged:
        """The answer, or the earlier one that stands in its place."""

    def features(self, view: str, key: str) -> dict[str, Any]:
        """The present values of one entity; `key` holds its URL-encoded ids, joined by commas."""

    def now(self) -> Micros:
        """The moment by the app's clock; no event that decisions see is dated later."""

    def popular(self, decision: str) -> Mapping[str, int]:
        """The items that a decision's shoppers lately touched, and how often; as old as its popular lists."""

    def releases(self) -> list[dict[str, Any]]: ...

    def promote(self, release: str) -> dict[str, Any]: ...

    def rollback(self, release: str) -> dict[str, Any]: ...

    def dial(self, release: str, share: float) -> dict[str, Any]: ...

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether decisions may be asked for, and what is waited for."""

    def describe(self) -> dict[str, Any]:
        """Streams with their fields, decisions and views."""

    def close(self) -> None:
        """Commits what was taken, then closes."""
