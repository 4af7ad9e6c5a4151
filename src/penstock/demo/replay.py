"""Replays events against a running server as live clients would, and measures what they get."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock.demo.client import Answer, Connection
from penstock.demo.figures import hit_rate, mrr, percentiles, rank_of, waterfall
from penstock.errors import PenstockError
from penstock.types import Progress

FRESH_WITHIN = 2.0
"""Seconds after which a post that no answer reflects is an error."""
SETTLED = 1.0
"""Seconds since a shopper's previous post after which it surely shows, so that a rise is due to the next one."""
_REPORT_EVERY = 100
T = TypeVar("T")


@dataclass(frozen=True)
class Worded:
    """What came of asking for words: `ranks` `(asks,) int64` of the item that came, `ms` `(answered,) float64`."""

    ranks: NDArray[np.int64]
    ms: NDArray[np.float64]

    def summary(self, name: str, k: int) -> dict[str, Any]:
        """Figures for JSON under the decision's name."""
        found = {f"hit_rate_{k}": hit_rate(self.ranks, k), f"mrr_{k}": mrr(self.ranks, k), "asks": len(self.ranks)}
        return {f"{name}_{key}": value for key, value in {**found, **percentiles("decide", self.ms)}.items()}


@dataclass(frozen=True)
class ReplayResult:
    """What the clients saw; times in milliseconds of their own clock, one value an answered request.

    `asked` `(asks,) int64` places in the events; `ranks` `(asks,) int64` of the item that came, from 1, and 0 where
    it was not in the list or the decision failed; `decide_ms`, `post_ms`, `freshness_ms` `(requests,) float64`;
    `waterfall_ms` the mean of each Server-Timing stage; `tiers`, `errors` counts by name, with the first text
    of each kind of error in `examples`.
    """

    k: int
    events: int
    seconds: float
    duplicates: int
    asked: NDArray[np.int64]
    ranks: NDArray[np.int64]
    decide_ms: NDArray[np.float64]
    post_ms: NDArray[np.float64]
    freshness_ms: NDArray[np.float64]
    waterfall_ms: dict[str, float]
    tiers: dict[str, int]
    errors: dict[str, int]
    examples: dict[str, str]
    worded: dict[str, Worded] = field(default_factory=dict)

    def summary(self) -> dict[str, Any]:
        """The same as figures for JSON; None where nothing was measured."""
        decided = sum(self.tiers.values())
        return {
            f"hit_rate_{self.k}": hit_rate(self.ranks, self.k),
            f"mrr_{self.k}": mrr(self.ranks, self.k),
            **percentiles("decide", self.decide_ms),
            **percentiles("post", self.post_ms),
            **percentiles("freshness", self.freshness_ms),
            "freshness_samples": len(self.freshness_ms),
            "waterfall_ms": self.waterfall_ms,
            "tiers": {tier: count / decided for tier, count in self.tiers.items()},
            "errors": sum(self.errors.values()),
            "errors_by_kind": self.errors,
            "error_examples": self.examples,
            "asks": len(self.asked),
            "events": self.events,
            "duplicates": self.duplicates,
            "events_per_second": self.events / self.seconds if self.seconds else None,
            "replay_seconds": self.seconds,
            **{key: value for name, found in self.worded.items() for key, value in found.summary(name, self.k).items()},
        }


async def replay(
    host: str,
    port: int,
    events: Sequence[Mapping[str, Any]],
    *,
    ask: Callable[[Mapping[str, Any]], bool],
    decision: str = "home",
    worded: Mapping[str, str] | None = None,
    k: int = 20,
    clients: int = 2,
    freshness_every: int = 20,
    freshness_probe: tuple[str, str] | None = None,
    timeout: float = 30.0,
    progress: Progress | None = None,
) -> ReplayResult:
    """Posts `events` one a request in their order, asking for a decision first where `ask` says so.

    At most `clients` steps (an ask and its post) run at once, and a shopper's next step starts only after their
    previous one was answered. A failed request is counted in `errors`, never repeated nor raised.

    Args:
        host: of a server without TLS.
        port: its port.
        events: as posted, in the order of time; `user` and `item` are read.
        ask: whether a decision is asked for just before an event.
        decision: the name in ``/v1/decide/{decision}``.
        worded: further decisions, each asked for the words of a field just before each such event that has the field.
        k: the length of the lists asked for.
        clients: shoppers served at once, each on a connection of its own.
        freshness_every: measure freshness once in so many posts, at the next shopper without a post in the last second.
        freshness_probe: a view by user and a count in it that every event raises and no passing of time
            lowers; freshness is from the start of a post to the end of the first answer that shows it.
        timeout: seconds until an unanswered request fails.
        progress: called with (events done, events).
    """
    run = _Replay(events, ask, decision, worded or {}, k, freshness_every, freshness_probe, progress)
    connections = [Connection(host, port, timeout) for _ in range(clients)]
    start = perf_counter()
    try:
        async with asyncio.TaskGroup() as group:
            for connection in connections:
                group.create_task(run.client(connection))
    finally:
        for connection in connections:
            connection.close()
    return run.result(perf_counter() - start)


@dataclass
class _Replay:
    events: Sequence[Mapping[str, Any]]
    ask: Callable[[Mapping[str, Any]], bool]
    decision: str
    worded: Mapping[str, str]
    k: int
    every: int
    probe: tuple[str, str] | None
    progress: Progress | None

    def __post_init__(self) -> None:
        self._turns: Iterator[int] = iter(range(len(self.events)))
        self._tails: dict[str, asyncio.Future[None]] = {}
        self._posted_at: dict[str, float] = {}
        self._unmeasured = 0
        self._done = 0
        self._duplicates = 0
        self._ranks: dict[int, int] = {}
        self._word_ranks: dict[str, dict[int, int]] = {name: {} for name in self.worded}
        kinds = ("decide", "post", "features", "freshness", *self.worded)
        self._seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
        self._timings: list[str] = []
        self._tiers: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._examples: dict[str, str] = {}

    async def client(self, connection: Connection) -> None:
        """Takes the next event, waits for its shopper's previous step, and so on until none is left."""
        for place in self._turns:
            user = self.events[place]["user"]
            previous = self._tails.get(user)
            mine = self._tails[user] = asyncio.get_running_loop().create_future()
            if previous is not None:
                await previous
            await self._step(connection, place)
            mine.set_result(None)
            self._done += 1
            if self.progress and (self._done % _REPORT_EVERY == 0 or self._done == len(self.events)):
                self.progress(self._done, len(self.events))

    async def _step(self, connection: Connection, place: int) -> None:
        event = self.events[place]
        if self.ask(event):
            self._ranks[place] = await self._decide(connection, event, "decide", self.decision, {})
            for name, said in self.worded.items():
                if event.get(said):
                    context = {"context": {said: event[said]}}
                    self._word_ranks[name][place] = await self._decide(connection, event, name, name, context)
        self._unmeasured += 1
        settled = perf_counter() - self._posted_at.get(event["user"], -SETTLED) >= SETTLED
        if self.probe is not None and self._unmeasured >= self.every and settled:
            self._unmeasured = 0
            await self._freshness(connection, event, *self.probe)
        else:
            await self._post(connection, event)
        self._posted_at[event["user"]] = perf_counter()

    async def _decide(
        self, connection: Connection, event: Mapping[str, Any], kind: str, decision: str, more: Mapping[str, Any]
    ) -> int:
        body = msgspec.json.encode({"user": event["user"], "k": self.k, **more})
        path = f"/v1/decide/{quote(decision, safe='')}"
        answer = await self._request(connection, kind, "POST", path, body, 200)
        decided = self._read(kind, answer, _DECIDED)
        if answer is None or decided is None:
            return 0
        if decision == self.decision:
            self._tiers[decided.tier] += 1
            self._timings.append(answer.timing)
        return rank_of(event["item"], [item.id for item in decided.items])

    async def _post(self, connection: Connection, event: Mapping[str, Any]) -> bool:
        answer = await self._request(connection, "post", "POST", "/v1/events", msgspec.json.encode(event), 202)
        posted = self._read("post", answer, _POSTED)
        if posted is None:
            return False
        self._duplicates += posted.duplicates
        for rejected in posted.rejected:
            self._fail("post rejected", f"{rejected.field}: {rejected.error}")
        return posted.accepted == 1

    async def _freshness(self, connection: Connection, event: Mapping[str, Any], view: str, feature: str) -> None:
        path = f"/v1/features/{quote(view, safe='')}/{quote(event['user'], safe='')}"
        before = await self._count(connection, path, feature)
        start = perf_counter()
        if not await self._post(connection, event) or before is None:
            return
        while (count := await self._count(connection, path, feature)) is not None:
            waited = perf_counter() - start
            if count > before:
                self._seconds["freshness"].append(waited)
                return
            if waited > FRESH_WITHIN:
                self._fail("freshness not shown", f"{view}.{feature} stayed {count:g} for {waited:.1f} s after a post")
                return

    async def _count(self, connection: Connection, path: str, feature: str) -> float | None:
        shown = self._read("features", await self._request(connection, "features", "GET", path, b"", 200), _SHOWN)
        if shown is None:
            return None
        value = shown.features.get(feature)
        if isinstance(value, int | float):
            return value
        self._fail("features unreadable", f"{feature} is {value!r} in {path}, not a count")
        return None

    async def _request(
        self, connection: Connection, kind: str, method: str, path: str, body: bytes, good: int
    ) -> Answer | None:
        """The answer and its time taken down; None and an error counted where its status is not `good`."""
        start = perf_counter()
        try:
            answer = await connection.request(method, path, body)
        except (OSError, PenstockError) as error:
            self._fail(f"{kind} {type(error).__name__}", str(error))
            return None
        if answer.status != good:
            self._fail(f"{kind} {answer.status}", answer.body[:500].decode(errors="replace"))
            return None
        self._seconds[kind].append(perf_counter() - start)
        return answer

    def _read(self, kind: str, answer: Answer | None, form: msgspec.json.Decoder[T]) -> T | None:
        if answer is None:
            return None
        try:
            return form.decode(answer.body)
        except msgspec.MsgspecError as error:
            self._fail(f"{kind} unreadable", f"{error}: {answer.body[:200].decode(errors='replace')}")
            return None

    def _fail(self, kind: str, text: str) -> None:
        self._errors[kind] += 1
        self._examples.setdefault(kind, text)

    def result(self, seconds: float) -> ReplayResult:
        asked = sorted(self._ranks)
        ms = {kind: np.array(taken, np.float64) * 1_000 for kind, taken in self._seconds.items()}
        return ReplayResult(
            k=self.k,
            events=len(self._seconds["post"]),
            seconds=seconds,
            duplicates=self._duplicates,
            asked=np.array(asked, np.int64),
            ranks=np.array([self._ranks[place] for place in asked], np.int64),
            decide_ms=ms["decide"],
            post_ms=ms["post"],
            freshness_ms=ms["freshness"],
            waterfall_ms=waterfall(self._timings),
            tiers=dict(self._tiers.most_common()),
            errors=dict(self._errors.most_common()),
            examples=self._examples,
            worded={
                name: Worded(np.array([ranks[place] for place in sorted(ranks)], np.int64), ms[name])
                for name, ranks in self._word_ranks.items()
            },
        )


class _Item(msgspec.Struct):
    id: str


class _Decided(msgspec.Struct):
    items: list[_Item]
    tier: str


class _Rejected(msgspec.Struct):
    error: str
    field: str | None = None


class _Posted(msgspec.Struct):
    accepted: int
    duplicates: int
    rejected: list[_Rejected]


class _Shown(msgspec.Struct):
    features: dict[str, Any]


_DECIDED = msgspec.json.Decoder(_Decided)
_POSTED = msgspec.json.Decoder(_Posted)
_SHOWN = msgspec.json.Decoder(_Shown)
