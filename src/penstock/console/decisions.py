"""The console's decisions: the newest ones, and one of them explained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from penstock.audit import Explanation
from penstock.console.panels import grid, moment
from penstock.evaluate.markup import Markup, join, tag
from penstock.serve.decisions import Brief

_TARGET = "#explanation"


def asking(found: Sequence[Brief], asked: str = "") -> Markup:
    """The form for a decision's id, and the list of the newest."""
    form = tag(
        "form",
        tag("label", "Decision id", for_="decision"),
        tag("input", id="decision", name="decision", value=asked, required="required", maxlength=100,
            autocomplete="off", spellcheck="false"),
        tag("button", "Explain", class_="strong"),
        tag("span", "Reading the log …", class_="busy", role="status"),
        action="/#decisions", class_="ask", hx_get="/console/explain", hx_target=_TARGET,
    )  # fmt: skip
    return join(form, tag("div", newest(found), id="newest"))


def newest(found: Sequence[Brief]) -> Markup:
    """The newest decisions, newest first; each leads to its explanation."""
    again = tag("button", "Load the newest", hx_get="/console/newest", hx_target="#newest", type="button", id="again")
    if not found:
        return join(tag("p", "No decision yet. ", again, class_="soft"))
    rows = [(_link(one), one.decision, one.entity, one.tier, tag("code", one.release or "none"), f"{one.items:,}",
             f"{sum(one.timings.values()):.2f}", moment(one.time)) for one in found]  # fmt: skip
    head = ("Decision id", "Decision", "For", "Tier", "Release", "Items", "Took, ms", "Time (UTC)")
    return join(tag("p", again), grid("The newest decisions", head, rows, (1, 2, 3, 4, 7)))


def _link(one: Brief) -> Markup:
    address = quote(one.id, safe="")
    return tag(
        "a", tag("code", one.id), href=f"/?decision={address}#explanation",
        hx_get=f"/console/explain?decision={address}", hx_target=_TARGET, hx_swap="innerHTML show:top",
    )  # fmt: skip


def explanation(told: Explanation) -> Markup:
    """What one decision knew, where each item came from, and what put it in its place."""
    v = told.values
    unknown = "differ: events that it knew were erased since" if v["erased_since"] else "not used"
    agree = {True: "agree", False: tag("b", "DIFFER", class_="bad"), None: unknown}[v["features_agree"]]
    facts: list[tuple[str, str]] = [
        ("Decision", v["decision"]), ("For", v["entity"]), ("Time (UTC)", moment(v["time"])), ("Tier", v["tier"]),
        ("Release", v["release"] or "none"), ("Arm", v["arm"]), ("Knew events below", f"{v['offset']:,}"),
        ("Candidates", f"{v['candidates']:,}"), ("Features recomputed", agree),
        *((f"Context: {name}", str(value)) for name, value in v["context"].items()),
        *((f"{stage}, ms", f"{ms:.2f}") for stage, ms in v["timings_ms"].items()),
    ]  # fmt: skip
    if "verdict" in v:
        return _verdict(v, facts)
    rows = [
        (str(item["place"]), item["item"], f"{item['score']:.4f}", f"{item['propensity']:.3g}",
         tag("ul", *[tag("li", reason) for reason in item["why"]]), _features(item.get("features", {})))
        for item in v["items"]
    ]  # fmt: skip
    return join(
        tag("h3", "Decision ", tag("code", v["decision_id"])),
        tag("dl", *[tag("div", tag("dt", name), tag("dd", value)) for name, value in facts], class_="facts"),
        grid("Items in the order of the answer", ("Place", "Item", "Score", "Propensity", "Why", "Features"), rows,
             (1, 4, 5), "items"),
    )  # fmt: skip


def _verdict(v: Mapping[str, Any], facts: Sequence[tuple[str, str]]) -> Markup:
    said = v["verdict"]
    more = [
        ("Event", str(said["event"])), ("Action", said["action"]),
        ("Score", "none" if said["score"] is None else f"{said['score']:.4f}"),
        ("Propensity", f"{said['propensity']:.3g}"), ("Rule", said["rule"] or "none"),
        ("A review would save", f"{said['saving'] / 100:,.2f}"),
    ]  # fmt: skip
    features = sorted(said.get("features", {}).items(), key=lambda one: -abs(one[1]["effect"]))
    rows = [
        (name, "missing" if one["value"] is None else f"{one['value']:g}", f"{one['effect']:+.4f}")
        for name, one in features
    ]  # fmt: skip
    return join(
        tag("h3", "Decision ", tag("code", v["decision_id"])),
        tag("dl", *[tag("div", tag("dt", name), tag("dd", value)) for name, value in (*more, *facts)], class_="facts"),
        grid("Features, and what each adds to the log-odds", ("Feature", "Value", "Effect"), rows, (0,), "items"),
    )


def _features(values: Mapping[str, Any]) -> Markup | str:
    if not values:
        return "–"
    pairs = [
        tag("div", tag("dt", name), tag("dd", "missing" if value is None else f"{value:g}"))
        for name, value in values.items()
    ]
    return tag("details", tag("summary", f"{len(values)} features"), tag("dl", *pairs))
