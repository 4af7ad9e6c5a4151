"""A running system: what answers for one app in one home folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from math import isfinite
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from penstock.clock import DAY, Clock
from penstock.errors import NotFoundError, ReleaseError, RequestError
from penstock.events import Intake, Parsed, SqliteLog
from penstock.features import View
from penstock.features.folded import Folded
from penstock.releases import Registry
from penstock.retrieve import Popularity
from penstock.serve.decide import Decider
from penstock.serve.decisions import DECISIONS, Decided, DecisionLog
from penstock.serve.definition import Decision, unknown_decision
from penstock.serve.follower import Follower
from penstock.serve.ingestor import Inlet
from penstock.serve.requests import Answer, DecideRequest, Judged
from penstock.serve.verdicts import Firsts, Judge, Queue, Staffing, Verdict, Watched, again, judged
from penstock.serve.writer import MOST
from penstock.types import Accepted, Micros, Schema, Store

_WAIT = 0.005
STAFFING = "staffing.json"
"""The file in a home folder that says how many reviews a day there are people for."""


class Runtime:
    """What answers for one app: it decides from a store and a log that an ingestor keeps, here or elsewhere.

    Close it, or use it in a with block.

    Args:
        home: the folder that holds everything durable.
        log: open for reading.
        store: open for reading.
        inlet: takes events.
        intake: checks events from outside.
        views: the app's views.
        decisions: the app's decisions that answer lists; `verdicts`: those on one event.
        clock: says now.
        closing: closes, with this, what was opened for it.
        workers: processes that share the requests.

    Attributes:
        views: the app's views, by name.
    """

    def __init__(
        self,
        home: Path,
        *,
        log: SqliteLog,
        store: Store,
        inlet: Inlet,
        intake: Intake,
        views: Sequence[View],
        decisions: Sequence[Decision],
        verdicts: Sequence[Verdict],
        clock: Clock,
        closing: ExitStack,
        workers: int = 1,
    ) -> None:
        self.home = home
        self.log = log
        self.store = store
        self.intake = intake
        self.registry = Registry(home / "releases")
        self.decisions = DecisionLog(home / DECISIONS)
        self._inlet = inlet
        self.views = {view.name: view for view in views}
        self._clock = clock
        self._closing = closing
        self._folded = Folded()
        popularity: dict[str, Popularity] = {}
        self._deciders = {d.name: Decider(d, store, log.strings, clock, popularity, self._folded) for d in decisions}
        self.staffing = Staffing(home / STAFFING)
        self._judges = {
            v.name: Judge(
                v, store, log.strings, clock, self._folded, self.staffing, workers,
                Watched(v.recipe, [*v.first, *v.last], log),
            )
            for v in verdicts
        }  # fmt: skip
        self._queues = {v.name: Queue(v.recipe, self.decisions, log) for v in verdicts}
        self._firsts = Firsts()
        self._workers = workers
        self._deciding: dict[str, Decider | Judge] = {**self._deciders, **self._judges}
        self._follower = Follower(log, store, self.registry, self._deciding, popularity, clock)
        for name, judge in self._judges.items():
            # What was asked for before a restart is yet to be done; each worker has its part of it.
            asked = self.decisions.reviews(name, clock.now() - DAY)
            judge.price.remember([one.time for one in asked[::workers]])
        closing.callback(self.decisions.close)
        closing.callback(self._follower.close)

    def __enter__(self) -> Runtime:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Commits what was taken, then closes everything."""
        self._closing.close()

    # Events

    @property
    def behind(self) -> int:
        """Events that the log holds and decisions do not see yet, as of a tenth of a second ago."""
        return self._follower.behind

    def parse(self, body: bytes) -> Parsed:
        """Checks a body of events: an object, an array or NDJSON."""
        return self.intake.parse(body)

    def submit(self, parsed: Parsed, source: str, *, shown: bool = True) -> Future[list[bool]]:
        """Appends what was accepted and keeps what was rejected as dead letters; see `Inlet.submit`."""
        if parsed.rejected:
            self._inlet.reject(parsed.rejected, source)
        return self._inlet.submit(parsed.accepted, shown=shown)

    def append(self, events: Sequence[Accepted]) -> list[bool]:
        """Appends checked events and waits until they are durable, visible and counted."""
        new = self._inlet.submit(events).result()
        self._follower.follow()
        return new

    # Decisions and features

    def budget(self, name: str, request: DecideRequest) -> float:
        """The time in which an answer must leave, in milliseconds."""
        return self._decider(name).budget(request)

    def decide(
        self,
        name: str,
        request: DecideRequest,
        spent_ms: float = 0.0,
        event: Accepted | None = None,
        looked: Callable[[], None] | None = None,
    ) -> Answer | Judged:
        """Answers one request of a decision, `spent_ms` of whose budget are gone already. `served` logs it.

        Args:
            event: what was sent along, checked and not yet in the log.
            looked: called once what a verdict reads is fixed: from then on the log may have the event.
        """
        return self._decider(name).decide(request, spent_ms, event, looked)

    def fall_back(
        self, name: str, request: DecideRequest, spent_ms: float, cause: str, event: Accepted | None = None
    ) -> Answer | Judged:
        """Answers one request of a decision from memory alone, because of `cause`."""
        return self._decider(name).fall_back(request, spent_ms, cause, event)

    def served(self, answer: Answer | Judged, *, sure: bool = False) -> Future[Decided] | None:
        """Logs a decision: of a list once its answer is sent, of a verdict before.

        Args:
            sure: wait for the disk in any case.

        Returns:
            For verdicts that must not be lost, all but plain approvals: what resolves once it is on disk, to the
            verdict that stands, which is an earlier one where there was one already.
        """
        if answer.decided is None or (isinstance(answer, Judged) and answer.cached):
            return None
        if isinstance(answer, Judged):
            self._judges[answer.decided.decision].count(answer)
            if sure or answer.action != "approve" or answer.propensity < 1:
                return self.decisions.keep(answer.decided)
        self.decisions.add(answer.decided)
        return None

    # One verdict an event

    def judges(self, name: str) -> bool:
        """Whether a decision is on single events."""
        return name in self._judges

    def claim(self, name: str, event: Accepted) -> tuple[Future[Judged], bool]:
        """See `Firsts.claim`.

        Raises:
            RequestError: the verdict is on events of another stream.
        """
        return self._firsts.claim(name, self._judge(name).check(event).id)

    def give_up(self, name: str, event: str, error: BaseException) -> None:
        """See `Firsts.give_up`."""
        self._firsts.give_up(name, event, error)

    def earlier(self, name: str, event: Accepted) -> Judged | None:
        """The verdict that was given before on an event that the log had already, by whatever process."""
        found = self.decisions.first(name, event.id, others=self._workers > 1)
        return None if found is None else self.again(name, judged(found), event)

    def again(self, name: str, first: Judged, event: Accepted) -> Judged:
        """The first verdict on an event, for whoever sends it again.

        Raises:
            RequestError: it is another event under the same id.
        """
        return again(first, event, self._judge(name).decision.recipe.schema)

    def standing(self, name: str, answer: Judged, stands: Decided, event: Accepted) -> Judged:
        """The answer, or the earlier one that stands in its place."""
        return answer if stands.id == answer.decision_id else self.again(name, judged(stands), event)

    def judge(self, name: str, request: DecideRequest, event: Accepted) -> Judged:
        """Decides on one event, logs both and waits for the disk; what was decided before is given again."""
        promise, mine = self.claim(name, event)
        if not mine:
            first = promise.result()
            self.append([event])
            return self.again(name, first, event)
        try:
            answer = self.decide(name, request, event=event)
            assert isinstance(answer, Judged)
            (new,) = self.append([event])
            earlier = None if new else self.earlier(name, event)
            if earlier is not None:
                answer = earlier
            kept = self.served(answer, sure=not new)
            if kept is not None:
                answer = self.standing(name, answer, kept.result(), event)
        except BaseException as error:
            self.give_up(name, event.id, error)
            raise
        promise.set_result(answer)
        return answer

    def reviews(self, decision: str, most: int = 50) -> list[dict[str, Any]]:
        """The events of a verdict that wait for a person, by falling saving; those of the time that outcomes take."""
        self._judge(decision)
        return [one.as_dict() for one in self._queues[decision].waiting(self.now(), most)]

    def staff(self, decision: str, reviews: float) -> dict[str, Any]:
        """Says how many reviews a day a verdict has people for; kept in the home folder, for all processes."""
        judge = self._judge(decision)
        self.staffing.set(decision, reviews)
        judge.staff(reviews)
        price = judge.price.now
        return {"decision": decision, "reviews": reviews, "price": price if isfinite(price) else None}

    def features(self, view: str, key: str) -> dict[str, Any]:
        """The present values of one entity: `key` is its id, or several joined by commas, URL-encoded."""
        if view not in self.views:
            raise NotFoundError("a view is named", got=repr(view), remedy="use one of " + ", ".join(self.views))
        found = self.views[view]
        parts = [unquote(part) for part in key.split(",")] if found.by else []
        if len(parts) != len(found.by):
            raise RequestError(
                f"view {view} is keyed by {', '.join(found.by)}", got=repr(key), remedy="join the ids by commas"
            )
        codes = [self.log.strings.code(part) for part in parts]
        with self.store.snapshot() as snapshot:
            now = max(self._clock.now(), snapshot.newest)
            read = self._folded.reader(snapshot, now)
            columns = read(found, np.array([codes], np.uint32).reshape(1, len(codes)), np.zeros(1, int))
            offset = snapshot.offset
        values: dict[str, Any] = {}
        for name, aggregate in found.features.items():
            column = columns[name]
            if column.ndim == 2:
                listed = column[0][column[0] != 0]
                values[name] = listed.tolist() if aggregate.numbers else self.log.strings.texts(listed)
            else:
                values[name] = None if np.isnan(column[0]) else float(column[0])
        return {"view": view, "version": found.version.hex(), "key": key, "offset": offset, "features": values}

    def now(self) -> Micros:
        """The moment by the app's clock; no event that decisions see is dated later."""
        with self.store.snapshot() as snapshot:
            return max(self._clock.now(), snapshot.newest)

    def popular(self, decision: str) -> dict[str, int]:
        """The items that a decision's shoppers lately touched, and how often; as old as its popular lists."""
        if decision not in self._deciders:
            raise unknown_decision(decision, self._deciders)
        items, counts = self._deciders[decision].popular()
        return dict(zip(self.log.strings.texts(items), counts.tolist(), strict=True))

    # Releases

    def releases(self) -> list[dict[str, Any]]:
        """Every release with its decision and whether it is in charge."""
        return self.registry.listing()

    def promote(self, release: str) -> dict[str, Any]:
        """Moves the pointer; the release takes traffic once its views have caught up."""
        moved = self.registry.promote(release)
        self.refresh()
        return moved

    def rollback(self, release: str) -> dict[str, Any]:
        """Takes `release` out of charge, back to the champion before it."""
        if release not in self.registry.ids():
            raise NotFoundError("a release is named by its id", got=repr(release), remedy="GET /v1/releases lists them")
        decision = self.registry.decision(release)
        if self.registry.champion(decision) != release:
            raise ReleaseError(
                "a release that is champion is rolled back", got=release, remedy="ask again with the champion's id"
            )
        moved = self.registry.rollback(decision)
        self.refresh()
        return moved

    def dial(self, release: str, share: float) -> dict[str, Any]:
        """Shares of traffic need a rollout, which this version does not have."""
        raise RequestError(
            "a release serves all of the traffic or none", got=f"a share of {share}", remedy="promote it, or leave it"
        )

    def refresh(self, *, wait: bool = False) -> None:
        """Notices soon that a pointer moved, here or in another process.

        Args:
            wait: return only when every new champion has taken charge.
        """
        self._inlet.look()
        self._follower.wake()
        while wait:
            self._follower.follow()
            wait = bool(self._follower.loading)
            if wait:
                time.sleep(_WAIT)

    # What the server asks

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Whether decisions come from releases that have caught up; what is waited for, and what is left out."""
        with self.store.snapshot() as snapshot:
            behind = max(0, self.log.end - snapshot.offset)
        loading = self._follower.loading
        waiting = [name for name, d in self._deciding.items() if d.release is None]
        # A batch is between log and store at any moment under load; a backlog is more than one.
        ok = not loading and behind <= MOST
        left_out = {name: d.left_out for name, d in self._deciders.items() if d.left_out}
        return ok, {
            "behind": behind, "loading": loading, "without_release": waiting, "rules_left_out": left_out,
        }  # fmt: skip

    def describe(self) -> dict[str, Any]:
        """Streams, decisions and views, for the OpenAPI document."""
        return {
            "streams": {schema.stream: _fields(schema) for schema in self.intake.schemas.values()},
            "decisions": {
                name: {"by": d.decision.recipe.by, "words": list(d.decision.recipe.asks)}
                for name, d in self._deciders.items()
            },
            "verdicts": {
                name: {"by": j.decision.recipe.by, "on": j.decision.recipe.schema.stream}
                for name, j in self._judges.items()
            },
            "views": {
                name: {"by": list(view.by), "features": list(view.features)} for name, view in self.views.items()
            },
        }

    def _decider(self, name: str) -> Decider | Judge:
        if name not in self._deciding:
            raise unknown_decision(name, self._deciding)
        return self._deciding[name]

    def _judge(self, name: str) -> Judge:
        if name not in self._judges:
            raise unknown_decision(name, self._judges)
        return self._judges[name]


def _fields(schema: Schema) -> list[dict[str, Any]]:
    return [{"name": f.name, "kind": f.kind, "optional": f.optional} for f in schema.fields]
