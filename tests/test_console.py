"""The console shows what is so, to nobody but the operator, and moves releases for nobody else."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

import helpers
import penstock as ps
from penstock.console import pages
from penstock.console.panels import size
from penstock.console.routes import COOKIE
from penstock.console.sessions import LASTS, Sessions
from penstock.serve.access import AccessLog
from penstock.serve.server import BackgroundServer
from serving import Client, Response, problem, until

KNOWN = str(helpers.history()[-1]["user"])
TOKEN = "the-token-of-these-tests"
HTML = {"Accept": "text/html"}
OWN = {**HTML, "Sec-Fetch-Site": "same-origin"}
BAD_USER, BAD_ITEM = '"><img src=x onerror=alert(1)>', "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ps.App]:
    """Two releases over the simulated history, the second in charge."""
    with helpers.trained(tmp_path_factory.mktemp("console")) as app:
        app.ingest(
            [{"user": BAD_USER, "item": BAD_ITEM, "kind": "view", "time": helpers.next_time(helpers.history(), 1)}]
        )
        app.train()
        yield app


@pytest.fixture(scope="module")
def server(app: ps.App, tmp_path_factory: pytest.TempPathFactory) -> Iterator[BackgroundServer]:
    path = tmp_path_factory.mktemp("log") / "access.jsonl"
    access = AccessLog(path)
    with BackgroundServer(app.open(), token=TOKEN, pages=pages(app.open(), TOKEN), access=access) as running:
        yield running
    access.close()
    text = path.read_text()
    assert text
    assert TOKEN not in text


class Operator:
    """A browser that may be signed in: it keeps the cookie, and sends what browsers send."""

    def __init__(self, call: Client) -> None:
        self.call = call
        self.cookie = ""

    def get(self, path: str, **headers: str) -> Response:
        return self.call("GET", path, **{**HTML, "Cookie": f"{COOKIE}={self.cookie}", **headers})

    def post(self, path: str, headers: dict[str, str] | None = None, **fields: str) -> Response:
        sent = {**OWN, "Cookie": f"{COOKIE}={self.cookie}", **(headers or {})}
        return self.call("POST", path, urlencode(fields).encode(), **{k: v for k, v in sent.items() if v})

    def sign_in(self, token: str = TOKEN) -> Response:
        answer = self.post("/console/sign-in", token=token)
        found = re.match(rf"{COOKIE}=([^;]+)", answer.headers.get("set-cookie", ""))
        self.cookie = found[1] if found else ""
        return answer

    @property
    def form(self) -> str:
        """What the forms of the page carry."""
        return Page(self.get("/").text).inputs["form"]


class Page(HTMLParser):
    """What tests look for in a page."""

    def __init__(self, text: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self.feed(text.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.words += data + " "

    @property
    def inputs(self) -> dict[str, str]:
        return {a["name"]: a.get("value", "") for tag, a in self.tags if tag == "input"}

    @property
    def runs(self) -> list[str]:
        """Scripts that are no files of the server, and attributes that are code."""
        inline = [
            tag for tag, a in self.tags if tag == "script" and not a.get("src", "").startswith("/console/static/")
        ]
        return inline + [
            name for _, a in self.tags for name in a if name.startswith(("on", "hx-on")) or name == "style"
        ]


@pytest.fixture
def stranger(server: BackgroundServer) -> Iterator[Operator]:
    with Client(server) as call:
        yield Operator(call)


@pytest.fixture
def operator(server: BackgroundServer) -> Iterator[Operator]:
    with Client(server) as call:
        one = Operator(call)
        assert one.sign_in().status == 303
        yield one


def decided(operator: Operator, user: str = KNOWN, **more: Any) -> str:
    answer = operator.call("POST", "/v1/decide/home", {"user": user, **more})
    assert answer.status == 200, answer.text
    return str(answer.json["decision_id"])


def champion(app: ps.App) -> str | None:
    return app.registry.champion("home")


# Who is let in


def test_the_token_opens_the_console_by_a_cookie_that_scripts_and_other_sites_do_not_get(stranger: Operator) -> None:
    door = stranger.get("/")
    assert "token" in Page(door.text).inputs
    assert b'href="/openapi.json"' in door.text
    assert b"Releases" not in door.text
    answer = stranger.sign_in()
    assert (answer.status, answer.headers["location"]) == (303, "/")
    parts = answer.headers["set-cookie"].split("; ")
    assert parts[1:] == ["Path=/", f"Max-Age={LASTS}", "HttpOnly", "SameSite=Strict"]
    page = Page(stranger.get("/").text)
    assert {"traffic", "views", "releases", "decisions"} <= {a.get("id") for _, a in page.tags}


def test_behind_tls_the_cookie_is_for_tls_only(stranger: Operator) -> None:
    answer = stranger.post("/console/sign-in", {"Origin": "https://shop.example"}, token=TOKEN)
    assert answer.headers["set-cookie"].endswith("; Secure")


@pytest.mark.parametrize("token", ["", "wrong", TOKEN[:-1], TOKEN.upper(), f"Bearer {TOKEN}", "é\0\ud800", "x" * 9_000])
def test_no_other_text_opens_it(stranger: Operator, token: str) -> None:
    answer = stranger.post("/console/sign-in", token=token.encode("utf-8", "replace").decode())
    assert answer.status == 401
    assert "set-cookie" not in answer.headers
    assert "This is not the operator's token" in Page(answer.text).words
    assert "token" in Page(answer.text).inputs


def test_a_cookie_that_was_not_made_here_opens_nothing(operator: Operator) -> None:
    """Another key, a changed date, a changed signature, an expired session, nonsense."""
    expires, nonce, signature = operator.cookie.split(".")
    now = time.time()
    forged = [
        Sessions("another token").begin(),
        Sessions(TOKEN, now=lambda: now - LASTS).begin(),
        f"{int(expires) + 1}.{nonce}.{signature}",
        f"{expires}.x{nonce}.{signature}",
        f"{expires}.{nonce}.{'0' * len(signature)}",
        f"{expires}.{nonce}.",
        f"{expires}.{nonce}.{operator.form}",
        *("", ".", "..", "x", "9" * 300, "é.é.é", f"{operator.cookie}0", operator.cookie[:-1]),
    ]
    assert operator.get("/console/status").status == 200
    for cookie in forged:
        operator.cookie = cookie
        assert operator.get("/console/status").status == 401, cookie
        assert "token" in Page(operator.get("/").text).inputs, cookie


def test_a_session_lasts_until_it_expires_and_no_longer() -> None:
    now = [1_000_000.0]
    sessions = Sessions(TOKEN, now=lambda: now[0])
    cookie = sessions.begin()
    assert sessions.begin() != cookie
    now[0] += LASTS - 1
    assert sessions.read(cookie) is not None
    now[0] += 1
    assert sessions.read(cookie) is None


def test_signing_out_ends_the_session_in_this_browser(operator: Operator) -> None:
    answer = operator.post("/console/sign-out", form=operator.form)
    assert answer.status == 303
    assert answer.headers["set-cookie"].startswith(f"{COOKIE}=; Path=/; Max-Age=0;")


def test_every_address_but_the_door_is_shut_to_strangers(server: BackgroundServer, stranger: Operator) -> None:
    """401 with the remedy, before anything is looked up; and a part of a page that was open leads to the door."""
    routes = [route for route in server.app.routes if route.path.startswith("/console")]
    shut = [route for route in routes if "/static/" not in route.path and route.path != "/console/sign-in"]
    assert len(shut) >= 10
    for route in shut:
        path = route.path.replace("{id}", "any")
        answer = stranger.get(path) if route.method == "GET" else stranger.post(path)
        assert answer.status == 401, path
        assert answer.headers["hx-refresh"] == "true"
        problem(answer)


def test_the_api_takes_no_cookie_for_a_token(operator: Operator) -> None:
    assert operator.get("/v1/releases").status == 401


# Who may post


def test_only_a_form_of_the_same_session_moves_a_release(
    app: ps.App, server: BackgroundServer, operator: Operator
) -> None:
    """Other sites, other sessions and no form at all are refused, and nothing moves."""
    first, second = app.registry.ids()
    assert champion(app) == second
    path, form = f"/console/releases/{first}/promote", operator.form
    with Client(server) as call:
        other = Operator(call)
        other.sign_in()
        foreign = other.form
    assert foreign != form
    own = f"http://{server.host}:{server.port}"
    refusals: list[tuple[dict[str, str], str]] = [
        ({}, ""),
        ({}, foreign),
        ({}, operator.cookie),
        ({"Sec-Fetch-Site": "cross-site"}, form),
        ({"Sec-Fetch-Site": "same-site"}, form),
        ({"Sec-Fetch-Site": "", "Origin": "https://evil.example"}, form),
        ({"Sec-Fetch-Site": "", "Origin": "null"}, form),
        ({"Sec-Fetch-Site": ""}, form),
    ]
    for headers, given in refusals:
        answer = operator.post(path, headers, form=given)
        assert answer.status == 403, (headers, given)
        problem(answer)
    assert operator.post("/console/sign-out", {"Sec-Fetch-Site": "cross-site"}, form=form).status == 403
    assert operator.post("/console/sign-in", {"Sec-Fetch-Site": "cross-site"}, token=TOKEN).status == 403
    assert champion(app) == second
    assert operator.post(path, {"Sec-Fetch-Site": "", "Origin": own}, form=form).status == 303
    assert champion(app) == first
    assert operator.post(f"/console/releases/{first}/rollback", form=form).status == 303
    assert champion(app) == second


# What a browser may do with it


def addresses(app: ps.App, operator: Operator) -> list[str]:
    """Every page and part that there is."""
    one = decided(operator)
    release = app.registry.ids()[0]
    parts = ["live", "status", "views", "releases", "newest", f"explain?decision={one}", f"releases/{release}/report"]
    return ["/", f"/?decision={one}", *(f"/console/{part}" for part in parts)]


def test_pages_run_nothing_but_the_servers_files_and_are_kept_and_framed_by_nobody(
    app: ps.App, operator: Operator, stranger: Operator
) -> None:
    answers = {path: operator.get(path) for path in addresses(app, operator)}
    answers |= {"door": stranger.get("/"), "wrong": stranger.sign_in("wrong")}
    for path, answer in answers.items():
        assert answer.status in (200, 401), path
        rules = dict(
            part.strip().split(" ", 1)
            for part in answer.headers["content-security-policy"].split(";")
            if " " in part.strip()
        )
        assert rules["default-src"] == "'none'", path
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        if path.endswith("/report"):
            assert "script-src" not in rules
            assert answer.headers["content-security-policy"].startswith("sandbox;")
        else:
            for kind in ("script-src", "style-src", "connect-src", "form-action"):
                assert rules[kind] == "'self'"
            assert (rules["frame-ancestors"], rules["base-uri"]) == ("'none'", "'none'")
            assert Page(answer.text).runs == []


def test_neither_the_token_nor_the_key_is_in_anything_that_is_sent(app: ps.App, operator: Operator) -> None:
    secrets = [TOKEN.encode(), Sessions(TOKEN)._key, Sessions(TOKEN)._key.hex().encode()]
    for path in [*addresses(app, operator), "/openapi.json", "/metrics"]:
        answer = operator.get(path)
        sent = answer.text + json.dumps(answer.headers).encode()
        assert not [secret for secret in secrets if secret in sent], path
    assert TOKEN not in operator.sign_in().headers["set-cookie"]


def test_files_are_kept_by_browsers_and_change_their_name_with_their_content(operator: Operator) -> None:
    page = Page(operator.get("/").text)
    files = [
        a.get("src") or a["href"] for tag, a in page.tags if tag == "script" or a.get("rel") in ("stylesheet", "icon")
    ]
    assert {Path(file).name for file in files} == {
        "htmx.min.js", "uPlot.min.js", "charts.js", "console.js", "uPlot.min.css", "console.css", "icon.svg",
    }  # fmt: skip
    for file in files:
        answer = operator.get(file)
        assert answer.status == 200
        assert "immutable" in answer.headers["cache-control"]
        assert operator.get(file.replace("static/", "static/0")).status == 404


def test_the_licences_of_what_comes_along_lie_beside_it() -> None:
    folder = Path(ps.__file__).parent
    assert "MIT" in (folder / "console" / "static" / "uPlot-LICENSE.txt").read_text()
    assert "Permission to use" in (folder / "web" / "static" / "htmx-LICENSE.txt").read_text()


def test_what_shoppers_and_items_are_called_is_text_wherever_it_stands(app: ps.App, operator: Operator) -> None:
    one = decided(operator, BAD_USER)
    shown = [
        operator.get(path) for path in ("/", "/console/newest", f"/console/explain?decision={one}", f"/?decision={one}")
    ]
    for asked in (BAD_ITEM, '"><svg onload=alert(1)>'):
        shown.append(operator.get(f"/?decision={quote(asked)}"))
        shown.append(operator.get(f"/console/explain?decision={quote(asked)}"))
        shown.append(operator.post(f"/console/releases/{quote(asked, safe='')}/promote", form=operator.form))
        shown.append(Operator(operator.call).get(f"/?decision={quote(asked)}"))
        shown.append(operator.post("/console/sign-in", token="wrong", decision=asked))
    for answer in shown:
        page = Page(answer.text)
        assert page.runs == []
        assert not [tag for tag, _ in page.tags if tag in ("img", "svg")]
    for page in (Page(shown[1].text), Page(shown[2].text)):
        assert BAD_USER in page.words
    assert BAD_ITEM in Page(shown[2].text).words


# What it shows


def test_the_figures_are_the_counters_and_leave_out_the_console(server: BackgroundServer, operator: Operator) -> None:
    before = operator.get("/console/live").json
    time_ = helpers.next_time(helpers.history(), 2)
    for n in range(3):
        decided(operator, KNOWN)
        event = {"user": KNOWN, "item": f"i{n}", "kind": "view", "id": f"figures-{n}", "time": time_}
        operator.call("POST", "/v1/events", [event, event, {}])
    operator.call("GET", "/v1/features/None/u1")
    for path in ("/", "/console/views", "/console/none"):
        operator.get(path)
    after = operator.get("/console/live").json
    assert after["time"] > before["time"]
    grown = {name: after[name] - before[name] for name in ("decisions", "requests", "refused", "failed")}
    # The address that there is not is counted as other, and refused.
    assert grown == {"decisions": 3, "requests": 8, "refused": 2, "failed": 0}
    for result in ("accepted", "duplicate", "rejected"):
        assert after["events"][result] - before["events"].get(result, 0) == 3
    assert after["tiers"]["personal"] - before["tiers"].get("personal", 0) == 3
    for histogram, count in ((after["stages"]["total"], 3), (after["stages"]["score"], 3), (after["freshness"], 3)):
        assert histogram["sum"] > 0
        assert len(histogram["counts"]) == len(after["bounds"]) + 1
        assert histogram["counts"] == sorted(histogram["counts"])
        assert histogram["counts"][-1] >= count
    assert after["bounds"] == sorted(after["bounds"])


def rows(answer: Response) -> list[list[str]]:
    """The texts of a table's rows."""
    found = re.findall(r"<tr>(.*?)</tr>", answer.text.decode(), re.DOTALL)
    return [[re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row)] for row in found]


def test_views_are_shown_with_offset_and_size_as_the_store_has_them(app: ps.App, operator: Operator) -> None:
    runtime = app.open()
    found = {row[0]: row for row in rows(operator.get("/console/views"))[1:]}
    assert set(found) == set(app.views)
    for name, view in app.views.items():
        records = list(runtime.store.scan(view.version))
        total = sum(len(view.version) + len(key) + len(record) for key, record in records)
        _, by, behind, applied, count, bytes_, features, version = found[name]
        assert (by, version, features) == (", ".join(view.by), view.version.hex(), str(len(view.features)))
        assert (applied, behind, count, bytes_) == (f"{runtime.log.end:,}", "0", f"{len(records):,}", size(total))


def test_a_view_of_an_older_release_is_shown_as_kept(tmp_path: Path) -> None:
    """The app has changed since: what a rollback may need is named by the release that reads it."""
    with helpers.trained(tmp_path) as app:
        old = app.views["Shopper"].version.hex()
    changed = helpers.APP.replace('actions_1h = ps.count(window="1h")', 'actions_1h = ps.count(window="2h")')
    with helpers.load_app(tmp_path, changed) as app:
        with (
            BackgroundServer(app.open(), token=TOKEN, pages=pages(app.open(), TOKEN)) as server,
            Client(server) as call,
        ):
            operator = Operator(call)
            operator.sign_in()
            found = rows(operator.get("/console/views"))[1:]
        assert [row[0] for row in found] == ["Shopper", "Product", "Interest", "Shopper"]
        assert found[0][7] == app.views["Shopper"].version.hex()
        assert (found[3][1], found[3][7]) == ("kept for a release", old)


def test_releases_are_shown_with_report_and_moved_by_their_buttons(app: ps.App, operator: Operator) -> None:
    first, second = app.registry.ids()
    listed = rows(operator.get("/console/releases"))[1:]
    assert [(row[0], row[1], row[2]) for row in listed] == [
        (second, "Champion", "Roll back"), (first, "–", "Promote"),
    ]  # fmt: skip
    report = json.loads((app.home / "releases" / first / "report.json").read_text())
    chosen = next(one for one in report["candidates"] if one["name"] == report["chosen"])
    assert f"MRR@{report['k']} {chosen['scores']['mrr']['mean']:.4f} (" in listed[1][6]
    page = operator.get(f"/console/releases/{first}/report")
    assert page.text == (app.home / "releases" / first / "report.html").read_bytes()
    part = {"HX-Request": "true"}
    for path, then in ((f"{first}/promote", first), (f"{first}/rollback", second)):
        answer = operator.post(f"/console/releases/{path}", part, form=operator.form)
        assert answer.status == 200
        assert f"{then} is champion of home" in Page(answer.text).words
        until(lambda then=then: operator.call("POST", "/v1/decide/home", {"user": KNOWN}).json["release"] == then)
        assert {row[0]: row[1] for row in rows(operator.get("/console/releases"))[1:]}[then] == "Champion"


@pytest.mark.parametrize("name", ["none", "..", "%2e%2e", "..%2f..%2fetc", "promotions.jsonl", "%ff"])
def test_a_release_that_there_is_not_is_refused_with_a_remedy(operator: Operator, name: str) -> None:
    answer = operator.get(f"/console/releases/{name}/report")
    assert answer.status == 404
    problem(answer)
    for action in ("promote", "rollback"):
        answer = operator.post(f"/console/releases/{name}/{action}", form=operator.form)
        assert answer.status == 422
        assert "Remedy:" in Page(answer.text).words


def test_a_damaged_release_is_listed_and_cannot_be_moved(tmp_path: Path) -> None:
    with helpers.trained(tmp_path) as app:
        (app.home / "releases" / "damaged").mkdir()
        (app.home / "releases" / "damaged" / "manifest.json").write_text("{")
        with (
            BackgroundServer(app.open(), token=TOKEN, pages=pages(app.open(), TOKEN)) as server,
            Client(server) as call,
        ):
            operator = Operator(call)
            operator.sign_in()
            listed = {row[0]: row for row in rows(operator.get("/console/releases"))[1:]}
            assert listed["damaged"][1:] == ["–", "–", "–", "?", "damaged", "–", "–", "–"]
            assert operator.get("/console/views").status == 200


def test_a_decision_is_explained_as_the_command_explains_it(app: ps.App, operator: Operator) -> None:
    one = decided(operator, KNOWN)
    app.open().decisions.flush()
    found = [row for row in rows(operator.get("/console/newest")) if row[0] == one]
    assert found[0][1:5] == ["home", KNOWN, "personal", champion(app)]
    told = json.loads(
        helpers.cli("explain", one, "--app", app.home.parent / "small.py", "--home", app.home, "--json").stdout
    )
    page = Page(operator.get(f"/console/explain?decision={one}").text)
    for item in told["items"]:
        assert item["item"] in page.words
        for reason in item["why"]:
            assert reason in page.words
    assert "agree" in page.words
    whole = Page(operator.get(f"/?decision={one}").text)
    assert told["items"][0]["why"][0] in whole.words


def test_a_decision_that_there_is_not_is_a_message_with_a_remedy(operator: Operator) -> None:
    for asked in ("", "none", "' OR 1=1 --", "%00", "%ff", "x" * 5_000):
        answer = operator.get(f"/console/explain?decision={quote(asked, safe='%')}")
        assert answer.status == 200
        assert "Remedy: take one from an answer" in Page(answer.text).words


def test_who_does_not_ask_for_html_gets_a_page_of_links(stranger: Operator) -> None:
    answer = stranger.call("GET", "/")
    assert b'href="/openapi.json"' in answer.text
    assert b"<form" not in answer.text


def test_the_console_answers_under_any_load(app: ps.App) -> None:
    more = {"token": TOKEN, "pages": pages(app.open(), TOKEN), "in_flight": 0}
    with BackgroundServer(app.open(), **more) as server, Client(server) as call:
        operator = Operator(call)
        assert operator.call("POST", "/v1/decide/home", {"user": KNOWN}).status == 429
        assert operator.sign_in().status == 303
        assert operator.get("/console/live").json["refused"] >= 1
