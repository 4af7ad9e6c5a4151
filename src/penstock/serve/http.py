"""The HTTP face of a running system: a thin ASGI application of its own, without a framework."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from penstock.errors import PenstockError, TooLargeError
from penstock.serve.access import AccessLog
from penstock.serve.admission import MOST_DELAY, Admission, too_busy
from penstock.serve.face import Face
from penstock.serve.faults import FAULTS
from penstock.serve.lane import Lane
from penstock.serve.metrics import Metrics
from penstock.serve.replies import CLOSE, RETRY, Header, Refused, Reply, Waterfall, of_error, refusal, refused
from penstock.serve.routes import Endpoints, Pages, Request, Route, unexpected

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BEGAN = "began"
"""Where the server leaves, in a scope's state, when a request's first byte was read."""
HANDED = "handed"
"""The same of when it was handed over to be answered: after a slow head, and after what its client had sent before."""
MAX_IN_FLIGHT = 256
MAX_BODIES = 64 << 20
"""Bytes of all bodies that a process has begun to read."""
BODY_WITHIN = 30.0
"""Seconds in which a body must have arrived."""
OTHER = "other"
_log = logging.getLogger("penstock.serve")


class HttpApp:
    """An ASGI application that answers for `face`; all answers carry Server-Timing. Close it once it has ended.

    Args:
        face: the running system.
        token: the operator's, see `operator_token`.
        in_flight: requests answered at once, from when their bodies are there; one more is refused with 429.
        bodies: bytes of all bodies that are not yet whole; what goes beyond is refused with 429.
        body_within: seconds in which a body must have arrived.
        access: told of every request; closed by its owner.
        pages: further routes; one that has the method and path of a route before it takes its place.

    Attributes:
        in_flight: requests that are being answered now.
        draining: set when the server is about to end, so that clients are told to connect anew.
    """

    def __init__(
        self,
        face: Face,
        *,
        token: str,
        in_flight: int = MAX_IN_FLIGHT,
        bodies: int = MAX_BODIES,
        body_within: float = BODY_WITHIN,
        access: AccessLog | None = None,
        pages: Sequence[Pages] = (),
    ) -> None:
        self._access = access
        self.draining = False
        self._places = in_flight
        self.in_flight = 0
        self._bodies = bodies
        self._held = 0
        self._body_within = body_within
        self._metrics = Metrics()
        self._admission = Admission()
        self._lane = Lane()
        self._endpoints = Endpoints(face, self._metrics, token, self._lane, self._admission)
        routes = (*self._endpoints.routes, *(route for page in pages for route in page(self._endpoints)))
        self._routes = tuple({(route.method, route.path): route for route in routes}.values())
        self._table = Table(self._routes)

    def close(self) -> None:
        """Ends the thread that decides, and takes down what is still to be counted; before `face` is closed."""
        self._lane.close()
        self._metrics.close()

    @property
    def routes(self) -> Sequence[Route]:
        """Every route, in the order of the documentation."""
        return self._routes

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answers one request, as ASGI 3 has it."""
        waterfall = Waterfall(scope["state"].get(BEGAN) if "state" in scope else None)
        found = self._table.find(scope["raw_path"].decode("latin-1"))
        path, methods, params = found or (OTHER, {}, ())
        route = methods.get("GET" if scope["method"] == "HEAD" else scope["method"])
        try:
            if route is None:
                reply, received = _no_route(scope, methods), _length(scope["headers"])
            else:
                reply, received = await self._answer(route, params, scope, receive, waterfall)
            await _send(send, reply, waterfall, *((CLOSE,) if self.draining else ()))
            self._metrics.answered(path, reply.status, received, len(reply.body))
            if self._access is not None:
                note = {**reply.note, "received": received, "sent": len(reply.body)}
                self._access.add(scope["method"], path, reply.status, waterfall.stages, note)
        except ConnectionAbortedError:
            # The client went away in the middle of its body: nobody is there to be answered.
            return

    def turned_away(self, reply: Reply) -> None:
        """Counts a reply to what never became a request."""
        self._metrics.answered(OTHER, reply.status, 0, len(reply.body))

    async def _answer(
        self, route: Route, params: Sequence[str], scope: Mapping[str, Any], receive: Receive, waterfall: Waterfall
    ) -> tuple[Reply, int]:
        """The reply, and the bytes of the body that it is to."""
        headers: Sequence[Header] = scope["headers"]
        received = _length(headers)
        try:
            if route.guarded:
                self._endpoints.admit(headers)
            handed = scope["state"].get(HANDED) if "state" in scope else None
            delay = self._admission.delay(handed)
            if route.bounded and delay > MOST_DELAY:
                raise too_busy(delay, MOST_DELAY)
            # A place is taken only now: who sends slowly keeps nobody else waiting.
            body = await self._body(headers, route.takes, receive) if route.takes else b""
            received = len(body) or received
            with self._place() if route.bounded else nullcontext():
                request = Request(params, headers, body, waterfall, scope["query_string"], delay)
                reply = await route.answer(request)
        except Refused as refusal_:
            reply = refusal_.reply
        except PenstockError as error:
            reply = of_error(error)
        except ConnectionAbortedError:
            raise
        except FAULTS:
            name, reply = unexpected()
            _log.exception("%s %s failed, id %s", route.method, route.path, name)
        return reply, received

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self.in_flight >= self._places:
            raise refused(
                429, f"at most {self._places} requests are answered at once", RETRY, got="one more",
                remedy="try again after Retry-After seconds",
            )  # fmt: skip
        self.in_flight += 1
        self._metrics.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
            self._metrics.in_flight -= 1

    async def _body(self, headers: Sequence[Header], most: int, receive: Receive) -> bytes:
        """The whole body; refused as soon as it is known to be too large, without reading the rest."""
        length = _length(headers)
        waits = any(name == b"expect" for name, _ in headers)
        if length > most:
            # Whoever waits for leave to send will not: what comes next on the line would be unclear.
            raise _too_large(most, length, *((CLOSE,) if waits else ()))
        parts: list[bytes] = []
        size = held = 0
        try:
            async with asyncio.timeout(self._body_within):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise ConnectionAbortedError
                    part = message["body"]
                    size += len(part)
                    if size > most:
                        raise _too_large(most, size)
                    parts.append(part)
                    if not message["more_body"]:
                        return b"".join(parts)
                    self._held += len(part)
                    held += len(part)
                    if self._held > self._bodies:
                        raise refused(
                            429, "bodies are read while there is room for them", RETRY, CLOSE,
                            got=f"{self._held:,} bytes of unfinished ones",
                            remedy="try again after Retry-After seconds",
                        )  # fmt: skip
        except TimeoutError:
            raise refused(
                408, f"a body arrives within {self._body_within:g} s", CLOSE, got=f"{size:,} bytes of it",
                remedy="send smaller bodies, or all at once",
            ) from None  # fmt: skip
        finally:
            self._held -= held


class Table:
    """Finds the routes of an address.

    Args:
        routes: no two with the same method and path.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        self._exact: dict[str, dict[str, Route]] = {}
        self._open: dict[int, dict[str, tuple[Sequence[str], dict[str, Route]]]] = {}
        for route in routes:
            parts = route.path.split("/")
            if "{" in route.path:
                self._open.setdefault(len(parts), {}).setdefault(route.path, (parts, {}))[1][route.method] = route
            else:
                self._exact.setdefault(route.path, {})[route.method] = route

    def find(self, path: str) -> tuple[str, Mapping[str, Route], Sequence[str]] | None:
        """The template that `path` fits, its routes by method, and what stands for each name; None if none fits."""
        exact = self._exact.get(path)
        if exact is not None:
            return path, exact, ()
        given = path.split("/")
        for template, (parts, methods) in self._open.get(len(given), {}).items():
            if all(part == came or (part.startswith("{") and came) for part, came in zip(parts, given, strict=True)):
                params = [came for part, came in zip(parts, given, strict=True) if part.startswith("{")]
                return template, methods, params
        return None


def _no_route(scope: Mapping[str, Any], methods: Mapping[str, Route]) -> Reply:
    if not methods:
        error = PenstockError(
            "an address is one of the server's", got=repr(scope["path"][:200]), remedy="GET /openapi.json lists them"
        )
        return refusal(404, error)
    allowed = ", ".join(sorted({*methods, *(["HEAD"] if "GET" in methods else [])}))
    error = PenstockError(f"this address takes {allowed}", got=scope["method"], remedy="GET /openapi.json says which")
    return refusal(405, error, (b"allow", allowed.encode()))


def _length(headers: Sequence[Header]) -> int:
    """What the client said of its body's length; 0 where it did not say."""
    return next((int(value) for name, value in headers if name == b"content-length"), 0)


def _too_large(most: int, size: int, *headers: Header) -> Refused:
    limit = f"{most >> 20} MiB" if most >= 1 << 20 else f"{most >> 10} KiB"
    got = f"{size:,} bytes or more"
    error = TooLargeError(f"a body here is at most {limit}", got=got, remedy="send smaller batches")
    return Refused(refusal(413, error, *headers))


async def _send(send: Send, reply: Reply, waterfall: Waterfall, *more: Header) -> None:
    headers = [
        (b"content-type", reply.kind),
        (b"content-length", str(len(reply.body)).encode()),
        (b"server-timing", waterfall.header()),
        *reply.headers,
        *more,
    ]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
