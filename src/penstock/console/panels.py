"""The parts of the console that are loaded again and again: status, views, releases."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from urllib.parse import quote

from penstock.clock import SECOND
from penstock.console.sessions import Session
from penstock.console.shell import hidden
from penstock.console.state import Health, ReleaseState, ViewState
from penstock.errors import PenstockError
from penstock.evaluate.markup import Markup, join, tag

Cell = str


def grid(
    caption: str,
    head: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    texts: Sequence[int] = (),
    name: str | None = None,
) -> Markup:
    """A table whose first column names the row.

    Args:
        texts: columns that hold text, not numbers.
        name: its class, where it has looks of its own.
    """
    kinds = dict.fromkeys(texts, "text")
    top = tag("tr", *[tag("th", cell, scope="col", class_=kinds.get(at)) for at, cell in enumerate(head)])
    body = [
        tag("tr", tag("th", row[0], scope="row"),
            *[tag("td", cell, class_=kinds.get(at)) for at, cell in enumerate(row[1:], 1)])
        for row in rows
    ]  # fmt: skip
    table = tag("table", tag("caption", caption), tag("thead", top), tag("tbody", *body), class_=name)
    return tag("div", table, class_="scroll", role="region", aria_label=caption, tabindex=0)


def status(health: Health) -> Markup:
    """The strip at the top, which loads itself anew."""
    parts = [tag("b", "Ready" if health.ready else "Not ready", class_="good" if health.ready else "bad")]
    parts += [tag("span", f"{health.end:,} events in the log")]
    behind = health.end - health.applied
    parts += [tag("span", "store up to date" if not behind else f"store {behind:,} events behind")]
    parts += [tag("span", f"release {release} is loading") for release in health.loading]
    parts += [tag("span", f"{decision} has no release", class_="bad") for decision in health.without_release]
    return tag(
        "p", *parts, class_="status", id="status", hx_get="/console/status", hx_trigger="every 2s",
        hx_swap="outerHTML",
    )  # fmt: skip


def views(found: Sequence[ViewState], end: int) -> Markup:
    """Every view version that the store holds, how far it has come, and its size.

    Args:
        end: where the log ends, as this process last saw it.
    """
    end = max([end, *(view.applied for view in found)])
    rows = [
        (
            view.name or "?",
            ", ".join(view.by) or ("one for all" if view.features is not None else "kept for a release"),
            "0" if view.applied >= end else tag("b", f"{end - view.applied:,}", class_="bad"),
            f"{view.applied:,}",
            f"{view.records:,}",
            size(view.bytes),
            "–" if view.features is None else f"{view.features:,}",
            tag("code", view.version),
        )
        for view in found
    ]
    head = ("View", "By", "Behind", "Applied offset", "Records", "Size", "Features", "Version")
    return grid(f"The log ends at offset {end:,}", head, rows, (1, 7))


def releases(found: Sequence[ReleaseState], session: Session, notice: str | Markup = "") -> Markup:
    """Every release with its report and the buttons that move it."""
    if not found:
        return join(notice, tag("p", "No release yet: ", tag("code", "penstock train"), " makes one.", class_="soft"))
    rows = [
        (
            tag("code", one.id),
            tag("b", one.state.capitalize(), class_="good") if one.state else "–",
            _move(one, session),
            tag("a", "Report", href=f"/console/releases/{quote(one.id, safe='')}/report", target="_blank",
                rel="noopener", aria_label=f"Report of {one.id}") if one.report else "–",
            one.decision,
            one.model,
            one.score or "–",
            moment(one.trained),
            f"{one.until:,}" if one.until is not None else "–",
        )
        for one in found
    ]  # fmt: skip
    head = ("Release", "State", "Move", "Report", "Decision", "Model", "Score (95%)", "Trained (UTC)", "Events below")
    return join(notice, grid("Newest first", head, rows, range(1, 8)))


def _move(one: ReleaseState, session: Session) -> Markup | str:
    if one.model == "damaged":
        return "–"
    if not one.state:
        return _button(one, session, "promote", "Promote", f"Put {one.id} in charge of {one.decision}?")
    if one.earlier:
        return _button(one, session, "rollback", "Roll back", f"Take {one.id} out of charge of {one.decision}?")
    return "–"


def _button(one: ReleaseState, session: Session, action: str, label: str, question: str) -> Markup:
    address = f"/console/releases/{quote(one.id, safe='')}/{action}"
    # Its id keeps the focus on it when the table is loaded anew.
    button = tag("button", label, id=f"{action}-{one.id}", aria_label=f"{label} {one.id}")
    return tag(
        "form", hidden(session), button, method="post", action=address, hx_post=address, hx_confirm=question,
        hx_target="#releases-table",
    )  # fmt: skip


def notice(text: str) -> Markup:
    """What has just been done."""
    return tag("p", text, class_="notice", role="status")


def problem(error: PenstockError) -> Markup:
    """Which rule was broken, by what, and what to do."""
    got = f" Got {error.got}." if error.got else ""
    return tag("p", f"{error.rule[:1].upper()}{error.rule[1:]}.{got} Remedy: {error.remedy or 'none'}.",
               class_="problem", role="alert")  # fmt: skip


def moment(when: str | int) -> Markup | str:
    """A time, from ISO 8601 or microseconds, in UTC to the second."""
    try:
        found = datetime.fromtimestamp(when / SECOND, UTC) if isinstance(when, int) else datetime.fromisoformat(when)
    except (ValueError, OverflowError, OSError):
        return "–"
    return tag("time", f"{found.astimezone(UTC):%Y-%m-%d %H:%M:%S}", datetime=found.isoformat())


def size(count: int) -> str:
    """Bytes for people.

    >>> size(999), size(1_500), size(20_000_000)
    ('999 B', '1.5 kB', '20.0 MB')
    """
    value = float(count)
    for unit in ("B", "kB", "MB"):
        if value < 1_000:
            return f"{value:,.0f} B" if unit == "B" else f"{value:,.1f} {unit}"
        value /= 1_000
    return f"{value:,.1f} GB"
