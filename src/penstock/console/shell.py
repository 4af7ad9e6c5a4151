"""The console's whole pages: the sign-in, and the one page with everything."""

from __future__ import annotations

import json

from penstock.console.sessions import Session
from penstock.evaluate.markup import Markup, join, tag
from penstock.web.files import Files

FORM = "form"
"""The field of a form that carries the session's own text."""
_SETTINGS = json.dumps(
    {
        # The page's policy allows no styles and scripts but files.
        "includeIndicatorStyles": False,
        "allowEval": False,
        "selfRequestsOnly": True,
        # What one saw must not be kept by the browser after the sign-out.
        "historyEnabled": False,
        "historyCacheSize": 0,
        # A refusal is a page, too.
        "responseHandling": [{"code": "204", "swap": False}, {"code": "...", "swap": True}],
    }
)
_SECTIONS = ("Traffic", "Views", "Releases", "Decisions")
_OPEN = (("/openapi.json", "OpenAPI"), ("/readyz", "Ready"), ("/healthz", "Alive"), ("/metrics", "Metrics"))


def document(title: str, files: Files, *body: str, script: bool = True) -> str:
    """A whole page."""
    scripts = ("htmx.min.js", "uPlot.min.js", "charts.js", "console.js") if script else ()
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="htmx-config", content=_SETTINGS) if script else "",
        tag("title", title),
        tag("link", rel="icon", href=files["icon.svg"], type="image/svg+xml"),
        tag("link", rel="stylesheet", href=files["uPlot.min.css"]) if script else "",
        tag("link", rel="stylesheet", href=files["console.css"]),
        *[tag("script", src=files[name], defer="defer") for name in scripts],
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', *body), lang='en')}\n"


def sign_in(files: Files, *, wrong: bool = False, wanted: str = "") -> str:
    """The page for who is not signed in.

    Args:
        wrong: whether another text than the token was just given.
        wanted: the decision that one came to see, shown after the sign-in.
    """
    problem = tag("p", "This is not the operator's token.", class_="problem", id="problem", role="alert")
    form = tag(
        "form",
        # For password managers, which keep a name with each secret.
        tag("input", type="text", name="username", value="operator", autocomplete="username", hidden="hidden"),
        tag("label", "Operator's token", for_="token"),
        tag(
            "input", id="token", name="token", type="password", required="required", autocomplete="current-password",
            spellcheck="false", autofocus="autofocus", aria_describedby="problem where" if wrong else "where",
            aria_invalid="true" if wrong else None,
        ),
        problem if wrong else "",
        tag("p", "It is the text of the file ", tag("code", "operator-token"), " in the server's home folder.",
            class_="soft", id="where"),
        tag("input", type="hidden", name="decision", value=wanted) if wanted else "",
        tag("button", "Sign in", class_="strong"),
        method="post", action="/console/sign-in",
    )  # fmt: skip
    main = tag("main", tag("h1", "penstock"), form, tag("nav", _links(), aria_label="Open to all"), class_="door")
    return document("Sign in · penstock", files, main, script=False)


def _links() -> Markup:
    return tag("ul", *[tag("li", tag("a", name, href=address)) for address, name in _OPEN])


def console(
    files: Files, session: Session, *, status: Markup, views: Markup, releases: Markup, decisions: Markup,
    explanation: Markup,
) -> str:  # fmt: skip
    """The page with everything; a script fills figures and charts, and the tables are loaded again and again.

    Args:
        status: the strip at the top.
        views, releases: their tables.
        decisions: the list of the newest decisions.
        explanation: of the decision that is asked for, if any.
    """
    links = [tag("li", tag("a", name, href=f"#{name.lower()}")) for name in _SECTIONS]
    leave = tag("form", hidden(session), tag("button", "Sign out"), method="post", action="/console/sign-out")
    header = tag(
        "header",
        tag("a", "penstock", href="/", class_="brand"),
        tag("nav", tag("ul", *links), aria_label="Sections"),
        leave,
    )
    main = tag(
        "main",
        tag("h1", "Console", class_="unseen"),
        status,
        tag(
            "p", "The server does not answer; trying again.", class_="problem", id="lost", role="alert", hidden="hidden"
        ),
        _section("Traffic", _traffic()),
        _section("Views", _again(views, "/console/views", "every 3s")),
        _section("Releases", _again(releases, "/console/releases", "every 5s")),
        _section("Decisions", decisions, tag("div", explanation, id="explanation", aria_live="polite")),
        id="main",
    )
    skip = tag("a", "Skip to the figures", href="#main", class_="skip")
    return document("penstock", files, skip, header, main)


def hidden(session: Session) -> Markup:
    """The field that shows that a form is of this session's pages."""
    return tag("input", type="hidden", name=FORM, value=session.form)


def _section(title: str, *content: str) -> Markup:
    name = title.lower()
    return tag("section", tag("h2", title, id=f"{name}-title"), *content, id=name, aria_labelledby=f"{name}-title")


def _again(content: Markup, address: str, when: str) -> Markup:
    """What is loaded again while it is looked at."""
    return tag("div", content, hx_get=address, hx_trigger=when, id=address.removeprefix("/console/") + "-table")


_TILES = (
    ("decisions", "Decisions/s"),
    ("p50", "Decide p50"),
    ("p99", "Decide p99"),
    ("events", "Events/s"),
    ("fresh50", "Freshness p50"),
    ("fresh99", "Freshness p99"),
    ("personal", "Personal"),
    ("refused", "4xx/s"),
    ("failed", "5xx/s"),
    ("flight", "In flight"),
)
_CHARTS = (
    ("rate", "Decisions and events a second"),
    ("decide", "Decisions, ms"),
    ("freshness", "Freshness, ms: accepted until visible to decisions"),
    ("tiers", "Share of tiers, %"),
    ("stages", "Stages of a decision, mean ms, stacked"),
    ("errors", "Errors a second"),
)


def _traffic() -> Markup:
    tiles = [tag("div", tag("dt", name), tag("dd", "–", data_figure=key)) for key, name in _TILES]
    charts = [
        tag("figure", tag("figcaption", title, id=f"chart-{key}"), tag("div", class_="plot", data_chart=key),
            aria_labelledby=f"chart-{key}")
        for key, title in _CHARTS
    ]  # fmt: skip
    return join(
        tag("p", "Rates and times of the last minute, over all processes of the server; charts of the last five.",
            class_="soft"),
        tag("p", "The figures need a script, which this browser does not run. ", tag("a", "/metrics", href="/metrics"),
            " has them.", class_="problem", id="no-script"),
        tag("dl", *tiles, class_="tiles"),
        tag("div", *charts, class_="charts"),
        tag(
            "div",
            _bars("Waterfall", ("Stage", "Mean ms", "p99 ms", "From first byte to answer"), "waterfall"),
            _bars("Tiers", ("Tier", "Decisions", "Share", ""), "tiers"),
            class_="pair",
        ),
    )  # fmt: skip


def _bars(caption: str, head: tuple[str, ...], name: str) -> Markup:
    """A table that the script fills, with a bar at the end of each row."""
    cells = [tag("th", cell, scope="col") if cell else tag("td") for cell in head]
    grid = tag("table", tag("caption", caption), tag("thead", tag("tr", *cells)), tag("tbody", data_rows=name))
    return tag("div", grid, class_="scroll", role="region", aria_label=caption, tabindex=0)
