"""The console's addresses: who may open them, and what they answer."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from penstock.console import decisions, panels, shell
from penstock.console.figures import figures
from penstock.console.sessions import LASTS, Session, Sessions
from penstock.console.state import explained, health, releases, report_file, views
from penstock.errors import NotFoundError, PenstockError
from penstock.evaluate.markup import Markup
from penstock.serve.replies import Header, Reply, encode, refused
from penstock.serve.routes import Endpoints, Pages, Request, Route
from penstock.serve.runtime import Runtime
from penstock.web.answers import MAX_FORM, SAFE, cookies, form, header, page, same_site, to
from penstock.web.files import HTMX, Files

COOKIE = "penstock-console"
NEWEST = 15
_STATIC = Path(__file__).parent / "static"
_FILES = ("console.css", "uPlot.min.css", "uPlot.min.js", "charts.js", "console.js", "icon.svg")
# A report brings its style along, and runs nothing.
_REPORT: tuple[Header, ...] = (
    (b"content-security-policy", b"sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"),
    (b"cache-control", b"no-store"),
    *[pair for pair in SAFE if pair[0] != b"content-security-policy"],
)
Answer = Callable[[Request, Session], Awaitable[Reply]]


def pages(runtime: Runtime, token: str) -> Sequence[Pages]:
    """The console of a running system, for `HttpApp`.

    Args:
        runtime: what it shows.
        token: the operator's; whoever signs in with it may look and move releases.
    """
    return (lambda endpoints: Console(runtime, token, endpoints).routes,)


class Console:
    """The console of one process; any process of a server answers for all.

    Args:
        runtime: what it shows.
        token: the operator's.
        endpoints: the server's own.
        sessions: who is signed in, by the token unless given.
    """

    def __init__(self, runtime: Runtime, token: str, endpoints: Endpoints, sessions: Sessions | None = None) -> None:
        self._runtime = runtime
        self._endpoints = endpoints
        self._sessions = sessions or Sessions(token)
        self._files = Files("/console/static", [HTMX, *(_STATIC / name for name in _FILES)])
        # One at a time: each reads the log up to its decision into memory.
        self._explaining = asyncio.Semaphore(1)

    @property
    def routes(self) -> Sequence[Route]:
        """Every address of the console."""
        return (
            # The operator looks under any load; only what reads the log takes its turn.
            Route("GET", "/", self.front, bounded=False),
            Route("POST", "/console/sign-in", self.sign_in, MAX_FORM, bounded=False),
            Route("POST", "/console/sign-out", self._posted(self.sign_out), MAX_FORM, bounded=False),
            Route("GET", "/console/live", self._behind(self.live), bounded=False),
            Route("GET", "/console/status", self._behind(self.status), bounded=False),
            Route("GET", "/console/views", self._behind(self.views), bounded=False),
            Route("GET", "/console/releases", self._behind(self.releases), bounded=False),
            Route("GET", "/console/releases/{id}/report", self._behind(self.report), bounded=False),
            Route("POST", "/console/releases/{id}/promote", self._posted(self.promote), MAX_FORM, bounded=False),
            Route("POST", "/console/releases/{id}/rollback", self._posted(self.rollback), MAX_FORM, bounded=False),
            Route("GET", "/console/newest", self._behind(self.newest), bounded=False),
            Route("GET", "/console/explain", self._behind(self.explain)),
            *self._files.routes,
        )

    # Who is signed in

    def _session(self, request: Request) -> Session | None:
        return self._sessions.read(cookies(request.headers).get(COOKIE, ""))

    def _behind(self, answer: Answer) -> Callable[[Request], Awaitable[Reply]]:
        """Only for who is signed in."""

        async def signed_in(request: Request) -> Reply:
            session = self._session(request)
            if session is None:
                raise refused(
                    401, "the console is the operator's, who signs in", (b"hx-refresh", b"true"),
                    got="no session, or one that has expired", remedy="sign in at /",
                )  # fmt: skip
            return await answer(request, session)

        return signed_in

    def _posted(self, answer: Answer) -> Callable[[Request], Awaitable[Reply]]:
        """Only for forms of the pages of the same session."""

        async def of_this_session(request: Request, session: Session) -> Reply:
            same_site(request.headers)
            given = form(request.body).get(shell.FORM, "").encode("utf-8", "replace")
            if not hmac.compare_digest(given, session.form.encode()):
                raise refused(
                    403, "a form is of a page of the session that posts it", got="one of another or of none",
                    remedy="load the page again",
                )  # fmt: skip
            return await answer(request, session)

        return self._behind(of_this_session)

    async def front(self, request: Request) -> Reply:
        """The console for who is signed in, the sign-in for other people, and a page of links for machines."""
        if "text/html" not in header(request.headers, b"accept"):
            return await self._endpoints.index(request)
        asked = form(request.query).get("decision", "")
        session = self._session(request)
        if session is None:
            return page(shell.sign_in(self._files, wanted=asked))
        runtime, to_thread = self._runtime, asyncio.to_thread
        status = await to_thread(health, runtime)
        return page(
            shell.console(
                self._files, session,
                status=panels.status(status),
                views=panels.views(await to_thread(views, runtime), status.end),
                releases=panels.releases(await to_thread(releases, runtime), session),
                decisions=decisions.asking(await to_thread(runtime.decisions.newest, NEWEST), asked),
                explanation=await self._explanation(asked) if asked else Markup(""),
            )
        )  # fmt: skip

    async def sign_in(self, request: Request) -> Reply:
        """Begins a session for who knows the token."""
        same_site(request.headers)
        given = form(request.body)
        if not self._sessions.admits(given.get("token", "")):
            return page(shell.sign_in(self._files, wrong=True, wanted=given.get("decision", "")), status=401)
        wanted = given.get("decision", "")
        after = f"/?decision={quote(wanted, safe='')}" if wanted else "/"
        return to(after, self._cookie(request, self._sessions.begin(), LASTS))

    async def sign_out(self, request: Request, session: Session) -> Reply:
        """Ends the session in this browser."""
        return to("/", self._cookie(request, "", 0))

    def _cookie(self, request: Request, value: str, lasts: int) -> Header:
        # The browser says by which scheme it came, whatever stands between.
        secure = "; Secure" if header(request.headers, b"origin").startswith("https:") else ""
        text = f"{COOKIE}={value}; Path=/; Max-Age={lasts}; HttpOnly; SameSite=Strict{secure}"
        return (b"set-cookie", text.encode())

    # What is shown

    async def live(self, request: Request, session: Session) -> Reply:
        """The counters, for the charts."""
        found = figures(await asyncio.to_thread(self._endpoints.meters.samples))
        return Reply(200, encode({"time": time.time(), **found}), headers=((b"cache-control", b"no-store"), *SAFE))

    async def status(self, request: Request, session: Session) -> Reply:
        """The strip at the top."""
        return page(panels.status(await asyncio.to_thread(health, self._runtime)))

    async def views(self, request: Request, session: Session) -> Reply:
        """The table of views."""
        found = await asyncio.to_thread(views, self._runtime)
        return page(panels.views(found, self._runtime.log.end))

    async def releases(self, request: Request, session: Session) -> Reply:
        """The table of releases."""
        return await self._releases(session)

    async def _releases(self, session: Session, notice: str | Markup = "", status: int = 200) -> Reply:
        found = await asyncio.to_thread(releases, self._runtime)
        return page(panels.releases(found, session, notice), status=status)

    async def report(self, request: Request, session: Session) -> Reply:
        """What a release's training found."""
        name = unquote(request.params[0])
        body = await asyncio.to_thread(report_file, self._runtime, name)
        if body is None:
            raise NotFoundError("a report is of a release", got=repr(name[:100]), remedy="take one from the console")
        return Reply(200, body, b"text/html; charset=utf-8", _REPORT)

    async def promote(self, request: Request, session: Session) -> Reply:
        """Puts a release in charge."""
        return await self._moved(request, session, self._runtime.promote)

    async def rollback(self, request: Request, session: Session) -> Reply:
        """Goes back to the champion before."""
        return await self._moved(request, session, self._runtime.rollback)

    async def _moved(self, request: Request, session: Session, move: Callable[[str], dict[str, Any]]) -> Reply:
        try:
            line = await asyncio.to_thread(move, unquote(request.params[0]))
        except PenstockError as error:
            return await self._releases(session, panels.problem(error), 422)
        if not header(request.headers, b"hx-request"):
            return to("/#releases")
        return await self._releases(
            session, panels.notice(f"{line['release']} is champion of {line['decision']}; it takes traffic once its "
                                   "views have caught up.")
        )  # fmt: skip

    async def newest(self, request: Request, session: Session) -> Reply:
        """The list of the newest decisions, those of the other workers included."""
        log = self._runtime.decisions
        await asyncio.to_thread(log.settle)
        return page(decisions.newest(await asyncio.to_thread(log.newest, NEWEST)))

    async def explain(self, request: Request, session: Session) -> Reply:
        """One decision, explained."""
        return page(await self._explanation(form(request.query).get("decision", "")))

    async def _explanation(self, decision: str) -> Markup:
        async with self._explaining:
            try:
                return decisions.explanation(await asyncio.to_thread(explained, self._runtime, decision.strip()))
            except PenstockError as error:
                return panels.problem(error)
