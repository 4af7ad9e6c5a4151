"""The endpoints: what each address does with a request whose body has been read."""

from __future__ import annotations

import asyncio
import hmac
import html
import os
import secrets
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TypeVar
from urllib.parse import unquote

import msgspec

from penstock.errors import PenstockError, UnavailableError
from penstock.events import BodyError, Parsed
from penstock.serve.admission import Admission
from penstock.serve.asking import STORE_WITHIN, Asking, promised, within
from penstock.serve.face import Face
from penstock.serve.lane import Lane
from penstock.serve.metrics import CONTENT_TYPE, Metrics
from penstock.serve.openapi import document
from penstock.serve.replies import RETRY, Header, Refused, Reply, Waterfall, encode, refusal, refused
from penstock.serve.requests import Answer, DecideRequest, DialRequest, Invocation, Judged, StaffRequest, read

MAX_DECIDE = 256 << 10
_INLINE = 32 << 10
_DECIDE = msgspec.json.Decoder(DecideRequest)
_INVOCATION = msgspec.json.Decoder(Invocation)
_DIAL = msgspec.json.Decoder(DialRequest)
_STAFF = msgspec.json.Decoder(StaffRequest)
MOST_REVIEWS = 200
T = TypeVar("T", bound=msgspec.Struct)

MAX_BODY = 4 << 20


@dataclass(frozen=True)
class Request:
    """One request, its body read. `params` and `query`, what follows the ``?``, are in their URL encoding.

    `delay` is how many milliseconds it has probably waited before it was begun.
    """

    params: Sequence[str]
    headers: Sequence[Header]
    body: bytes
    waterfall: Waterfall
    query: bytes = b""
    delay: float = 0.0


@dataclass(frozen=True)
class Route:
    """One method of one address.

    Attributes:
        path: its template, ``{name}`` standing for one part.
        takes: bytes of body at most; where 0, a body is not read.
        guarded: whether it needs the operator's token.
        bounded: whether it counts among the requests in flight; probes and metrics answer under any load.
    """

    method: str
    path: str
    answer: Callable[[Request], Awaitable[Reply]]
    takes: int = 0
    guarded: bool = False
    bounded: bool = True


class Endpoints:
    """Every endpoint of one app.

    Args:
        face: the running system.
        metrics: where everything is counted.
        token: the operator's; whoever sends it may read and move releases.
        lane: runs what may wait for the store.
        admission: says how late the event loop is.

    Attributes:
        face: the running system.
        meters: where everything is counted.
        asking: asks for decisions, and for what else may wait for the store.
        routes: the server's own; pages come on top.
    """

    def __init__(self, face: Face, metrics: Metrics, token: str, lane: Lane, admission: Admission) -> None:
        self.face = face
        self.meters = metrics
        self.asking = Asking(face, metrics, lane, admission)
        self._bearer = f"Bearer {token}".encode()
        self.routes = (
            Route("GET", "/", self.index),
            Route("POST", "/v1/events", self.events, MAX_BODY),
            Route("POST", "/v1/decide/{decision}", self.decide, MAX_DECIDE),
            Route("POST", "/invocations", self.invocations, MAX_DECIDE),
            Route("GET", "/ping", self.ping, bounded=False),
            Route("GET", "/v1/features/{view}/{key}", self.features),
            Route("GET", "/v1/reviews/{decision}", self.reviews, guarded=True),
            Route("POST", "/v1/reviews/{decision}/staff", self.staff, MAX_DECIDE, guarded=True),
            Route("GET", "/v1/releases", self.releases, guarded=True),
            Route("POST", "/v1/releases/{id}/promote", self.promote, MAX_DECIDE, guarded=True),
            Route("POST", "/v1/releases/{id}/rollback", self.rollback, MAX_DECIDE, guarded=True),
            Route("POST", "/v1/releases/{id}/dial", self.dial, MAX_DECIDE, guarded=True),
            Route("GET", "/healthz", self.healthz, bounded=False),
            Route("GET", "/readyz", self.readyz, bounded=False),
            Route("GET", "/metrics", self.metrics, bounded=False),
            Route("GET", "/openapi.json", self.openapi),
        )

    def admit(self, headers: Sequence[Header]) -> None:
        """Refuses whoever does not send the operator's token."""
        given = next((value for name, value in headers if name == b"authorization"), b"")
        if not hmac.compare_digest(given, self._bearer):
            raise refused(
                401,
                "this is the operator's, who sends the token",
                (b"www-authenticate", b"Bearer"),
                got="another token" if given else "no Authorization header",
                remedy="send Authorization: Bearer TOKEN, with the text of the file operator-token in the home folder",
            )

    # Events and decisions

    async def events(self, request: Request) -> Reply:
        """Takes events; answers once they are durable and visible to the next decision."""
        parsed, new = await self.take(request.body, "http", request.waterfall)
        accepted = sum(new)
        rejected = [{"index": r.index, "field": r.field or None, "error": r.error} for r in parsed.rejected]
        return Reply(202, encode({"accepted": accepted, "duplicates": len(new) - accepted, "rejected": rejected}))

    async def take(self, body: bytes, source: str, waterfall: Waterfall) -> tuple[Parsed, list[bool]]:
        """Takes a body of events, for whatever address; returns once they are durable and visible.

        Args:
            source: what dead letters are filed under.

        Returns:
            What was accepted and rejected, and which of the accepted were new.
        """
        try:
            parsed = await self._parse(body)
        except BodyError as error:
            raise Refused(refusal(400, error)) from None
        waterfall.lap("parse")
        new = await self._submit(parsed, source)
        waterfall.lap("log")
        return parsed, new

    async def decide(self, request: Request) -> Reply:
        """Decides; an event sent along is not in its own features, and durable before the answer."""
        return await self._decide(unquote(request.params[0]), _read(request.body, _DECIDE), request)

    async def invocations(self, request: Request) -> Reply:
        """The same, as SageMaker's containers are asked."""
        asked = _read(request.body, _INVOCATION)
        described = self.face.describe()
        names = [*described["decisions"], *described["verdicts"]]
        return await self._decide(asked.decision or next(iter(names), ""), asked, request)

    async def _decide(self, name: str, asked: DecideRequest, request: Request) -> Reply:
        waterfall = request.waterfall
        budget = self.asking.admit(name, asked, request.delay)
        parsed = await self._event(asked)
        waterfall.lap("parse")
        if parsed is not None and self.face.judges(name):
            return await self._judge(name, asked, waterfall, parsed)
        answer = await self.asking.ask(name, asked, waterfall, parsed.accepted[0] if parsed is not None else None)
        # Not before, so that the decision cannot have seen it.
        logged = None if parsed is None else self._submit(parsed, "decide")
        body = encode(answer.body())
        waterfall.lap("serialise")
        if logged is not None:
            await within(logged, budget - waterfall.total)
            waterfall.lap("log")
        self.asking.count(name, answer, waterfall)
        return Reply(200, body, note=note_of(answer))

    async def _judge(self, name: str, asked: DecideRequest, waterfall: Waterfall, parsed: Parsed) -> Reply:
        """One event's verdict: the first one, however often and from wherever the event is sent."""
        event = parsed.accepted[0]
        promise, mine = self.face.claim(name, event)
        if mine:
            try:
                answer = await self._first(name, asked, waterfall, parsed, promise)
            except BaseException as error:
                if not promise.done():
                    self.face.give_up(name, event.id, error)
                raise
        else:
            answer = self.face.again(name, await promised(promise), event)
            # The first request may have given up before the log took it.
            await within(self._submit(parsed, "decide", shown=False), 1e3 * STORE_WITHIN)
        waterfall.lap("log")
        body = encode(answer.body())
        waterfall.lap("serialise")
        self.asking.tally(name, answer, waterfall)
        return Reply(200, body, note=note_of(answer))

    async def _first(
        self, name: str, asked: DecideRequest, waterfall: Waterfall, parsed: Parsed, promise: Future[Judged]
    ) -> Judged:
        """Decides on an event that this process has not been asked about; `promise` is kept where one can be given."""
        event = parsed.accepted[0]
        # Sent once what is read is fixed, so that the decision cannot have seen it, and computed while the log syncs.
        sending = _Once(lambda: self.face.submit(parsed, "decide", shown=False))
        answer = await self.asking.ask(name, asked, waterfall, event, sending.early)
        assert isinstance(answer, Judged)
        logged = self._submit(parsed, "decide", sending.now(), shown=False)
        try:
            # It waits for the disk, rather late than never; that the next decision sees it nobody waits for.
            (new,) = await within(logged, 1e3 * STORE_WITHIN)
        except BaseException:
            # It may be durable yet: then this is what was decided of it, whenever it is sent again.
            self.face.served(answer)
            promise.set_result(answer)
            raise
        if not new:
            earlier = await asyncio.to_thread(self.face.earlier, name, event)
            if earlier is not None:
                promise.set_result(earlier)
                return earlier
        kept = self.face.served(answer, sure=not new)
        if kept is not None:
            # Where that fails the answer goes out all the same: the decision log has said so to the operator.
            with suppress(TimeoutError, UnavailableError):
                async with asyncio.timeout(STORE_WITHIN):
                    stands = await asyncio.shield(asyncio.wrap_future(kept))
                answer = self.face.standing(name, answer, stands, event)
        promise.set_result(answer)
        return answer

    async def _event(self, asked: DecideRequest) -> Parsed | None:
        if asked.event is None:
            return None
        parsed = await self._parse(encode(asked.event))
        if parsed.rejected:
            await self._submit(parsed, "decide")
            first = parsed.rejected[0]
            error = PenstockError(
                first.rule, got=first.got, remedy=first.remedy, field=".".join(filter(None, ["event", first.field]))
            )
            raise Refused(refusal(422, error))
        return parsed

    async def _parse(self, body: bytes) -> Parsed:
        # A large body takes tens of milliseconds, in which no decision may have to wait.
        return self.face.parse(body) if len(body) <= _INLINE else await asyncio.to_thread(self.face.parse, body)

    def _submit(
        self, parsed: Parsed, source: str, early: Future[list[bool]] | None = None, *, shown: bool = True
    ) -> asyncio.Future[list[bool]]:
        """Hands the events to the log now, if not `early`; what it returns may be awaited later."""
        began = perf_counter()
        waiting = asyncio.wrap_future(early or self.face.submit(parsed, source, shown=shown))

        def count(done: asyncio.Future[list[bool]]) -> None:
            if done.cancelled() or done.exception() is not None:
                return
            if parsed.accepted and shown:
                self.meters.fresh(perf_counter() - began)
            accepted = sum(done.result())
            self.meters.events(
                accepted=accepted, duplicates=len(parsed.accepted) - accepted, rejected=len(parsed.rejected)
            )

        waiting.add_done_callback(count)
        # Whoever goes away must not cancel what the log is about to do.
        return asyncio.shield(waiting)

    async def features(self, request: Request) -> Reply:
        """The present values of one entity."""
        view, key = request.params
        return Reply(200, encode(await self.asking.read(lambda: self.face.features(unquote(view), key))))

    async def reviews(self, request: Request) -> Reply:
        """What waits for a person, by falling saving."""
        name = unquote(request.params[0])
        return Reply(200, encode({"reviews": await asyncio.to_thread(self.face.reviews, name, MOST_REVIEWS)}))

    async def staff(self, request: Request) -> Reply:
        """Says how many reviews a day there are people for."""
        name, said = unquote(request.params[0]), _read(request.body, _STAFF)
        return await _moved(self.face.staff, name, said.reviews)

    # Releases: disk and models are read, so none of this runs on the loop's thread

    async def releases(self, request: Request) -> Reply:
        """Every release, and which one is in charge."""
        return Reply(200, encode({"releases": await asyncio.to_thread(self.face.releases)}))

    async def promote(self, request: Request) -> Reply:
        """Puts a release in charge."""
        return await _moved(self.face.promote, unquote(request.params[0]))

    async def rollback(self, request: Request) -> Reply:
        """Takes a release out of charge, back to the one before it."""
        return await _moved(self.face.rollback, unquote(request.params[0]))

    async def dial(self, request: Request) -> Reply:
        """Gives a release a share of the traffic."""
        return await _moved(self.face.dial, unquote(request.params[0]), _read(request.body, _DIAL).share)

    # What machines and people ask about the server

    async def healthz(self, request: Request) -> Reply:
        """Alive, whatever it is doing."""
        return Reply(200, encode({"status": "alive", "pid": os.getpid()}))

    async def readyz(self, request: Request) -> Reply:
        """Whether it should get traffic; if not, what it waits for."""
        ready, waits_for = await self.asking.read(self.face.ready)
        if ready:
            return Reply(200, encode({"ready": True, **waits_for}))
        refusal_ = {"error": "the server is not ready", "field": None, "remedy": "wait until /readyz answers 200"}
        return Reply(503, encode({"ready": False, **waits_for, **refusal_}), headers=(RETRY,))

    async def ping(self, request: Request) -> Reply:
        """The same for SageMaker: 200 where it should get traffic."""
        ready, _ = await self.asking.read(self.face.ready)
        return Reply(200 if ready else 503, b"{}", headers=() if ready else (RETRY,))

    async def metrics(self, request: Request) -> Reply:
        """Everything counted, for Prometheus."""
        self.asking.tell()
        # Adding up what many requests left must not hold up the next ones.
        return Reply(200, await asyncio.to_thread(self.meters.text), CONTENT_TYPE)

    async def openapi(self, request: Request) -> Reply:
        """This interface, described for machines."""
        return Reply(200, encode(document(self.face.describe())))

    async def index(self, request: Request) -> Reply:
        """A page of links."""
        described = self.face.describe()
        links = "".join(
            f'<li><a href="{route.path}">{route.path}</a></li>'
            for route in self.routes
            if route.method == "GET" and "{" not in route.path and route.path != "/" and not route.guarded
        )
        names = [
            f"{kind}: {', '.join(described[kind]) or 'none'}" for kind in ("streams", "views", "decisions", "verdicts")
        ]
        facts = "".join(f"<li>{html.escape(line)}</li>" for line in names)
        page = (
            '<!doctype html><html lang="en"><meta charset="utf-8"><title>penstock</title>'
            f"<h1>penstock</h1><ul>{facts}</ul><ul>{links}</ul></html>"
        )
        return Reply(200, page.encode(), b"text/html; charset=utf-8")


class _Once:
    """Sends something once, on whichever thread is the first to ask for it."""

    def __init__(self, send: Callable[[], Future[list[bool]]]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._sent: Future[list[bool]] | None = None

    def early(self) -> None:
        """Sends it; what cannot be sent now is heard of later."""
        with suppress(PenstockError):
            self.now()

    def now(self) -> Future[list[bool]]:
        """Sends it, unless it was sent."""
        with self._lock:
            if self._sent is None:
                self._sent = self._send()
            return self._sent


Pages = Callable[[Endpoints], Sequence[Route]]
"""Further routes of a server, made from its own endpoints."""


def note_of(answer: Answer | Judged) -> dict[str, str | None]:
    """What the access log says of a decision."""
    note = {"decision_id": answer.decision_id, "tier": answer.tier, "release": answer.release}
    return note if answer.cause is None else {**note, "cause": answer.cause}


async def _moved(move: Callable[..., dict[str, Any]], *args: Any) -> Reply:
    return Reply(200, encode(await asyncio.to_thread(move, *args)))


def _read(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    try:
        return read(body, decoder)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        got = str(error) if body.strip() else "an empty body"
        raise refused(400, "a request's body is JSON", got=got, remedy="send an object: {…}") from None


def unexpected() -> tuple[str, Reply]:
    """An id and the reply that tells the client no more than the id."""
    name = secrets.token_hex(6)
    remedy = f"tell the operator the id {name}: the server's log has the cause under it"
    return name, Reply(500, encode({"error": "the server failed", "field": None, "remedy": remedy, "id": name}))
