"""The training report of a verdict as one HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penstock.evaluate.markup import Markup, join, tag
from penstock.evaluate.page import facts, page, section, table
from penstock.evaluate.plots import Bar, bars, line, number

_NAMES = {"ap": "Average precision", "auc": "AUC", "cost": "Cost an event"}
_DRAWN = 20
_CURVES = {
    "none": "As released: no curve gives better ones",
    "line": "Calibrated by a line in log-odds, on events that it was not fitted to",
    "isotonic": "Calibrated by isotonic regression, on events that it was not fitted to",
}


def render_verdict(report: Mapping[str, Any]) -> str:
    """The report of `penstock.releases.verdicts.train_verdict` as one self-contained HTML page."""
    title = f"{report['app']} {report['decision']}: training report"
    data = report["data"]
    return page(
        title,
        tag("h1", f"{report['app']}: decision {report['decision']}"),
        tag("p", f"Training report, {report['created']}.", class_="soft"),
        section(f"Chosen: {report['chosen']}", tag("p", report["reason"], class_="reason"), kind="lead"),
        section("Models side by side", _models(report)),
        section("What acting on it would have cost", _costs(report["costs"])),
        section("Do the chances hold?", _calibration(report["calibration"])),
        section("Features", _features(report["features"])),
        section("Data", facts([(name.replace("_", " "), _said(value)) for name, value in data.items()])),
        section("Time", table("Seconds a step", ("Step", "Seconds"),
                              [(t["step"], f"{t['seconds']:.2f}") for t in report["timings"]])),
    )  # fmt: skip


def _models(report: Mapping[str, Any]) -> Markup:
    names = [one["name"] for one in report["candidates"]]
    rows = [
        (one["name"], *(_interval(one["scores"][name], name) for name in _NAMES), f"{one['train_seconds']:.1f} s",
         f"{one['score_ms']:.3f} ms")
        for one in report["candidates"]
    ]  # fmt: skip
    drawn = [
        Bar(one["name"], one["scores"]["ap"]["mean"], one["scores"]["ap"]["low"], one["scores"]["ap"]["high"],
            one["name"] == report["chosen"])
        for one in report["candidates"]
    ]  # fmt: skip
    spoken = ", ".join(f"{bar.label} {bar.value:.3f}" for bar in drawn)
    return join(
        table("On the newest events, with 95 % intervals (whole entities drawn anew); costs in the amounts' unit",
              ("Model", *_NAMES.values(), "Fitted in", "One event scored in"), rows,
              strong=[names.index(report["chosen"])]),
        bars(drawn, title="Average precision", description=spoken),
    )  # fmt: skip


def _costs(costs: Mapping[str, float]) -> Markup:
    share = 1 - costs["cost"] / costs["cost_of_approving"] if costs["cost_of_approving"] else 0.0
    return facts(
        [
            ("Cost", _amount(costs["cost"])), ("Had all been approved", _amount(costs["cost_of_approving"])),
            ("Saved of that", f"{share:.0%}"), ("Reviews", number(costs["reviews"])),
            ("Good events declined", number(costs["declined_good"])),
            ("Bad events declined", number(costs["declined_bad"])), ("Price of a review", _amount(costs["price"])),
            ("Events", number(costs["events"])),
        ]
    )  # fmt: skip


def _calibration(found: Mapping[str, Any]) -> Markup:
    parts = []
    curve = _CURVES[found["curve"]]
    for name, title in (("before", "As the model gives them"), ("after", curve)):
        points = [(one["chance"], one["came"]) for one in found[name]]
        spoken = ", ".join(f"{x:.3f} said, {y:.3f} came" for x, y in points)
        parts.append(
            line(points, title=title, description=spoken, x_label="chance given", y_label="share that came",
                 joined=False, diagonal=True)
        )  # fmt: skip
    losses = [
        (title, f"{found[f'log_loss_{name}']:.6f}")
        for name, title in (("before", "Log loss before"), ("after", "after"))
    ]
    return join(*parts, facts(losses))


def _features(found: Sequence[Mapping[str, Any]]) -> Markup:
    drawn = [Bar(one["name"], one["importance"]) for one in found[:_DRAWN]]
    if not drawn or not drawn[0].value:
        return tag("p", "The model uses none.")
    return bars(drawn, title="What the model goes by", description=", ".join(bar.label for bar in drawn[:5]))


def _interval(found: Mapping[str, float], name: str) -> Markup:
    form = _amount if name == "cost" else "{:.4f}".format
    low, high = form(found["low"]), form(found["high"])
    return join(form(found["mean"]), tag("small", f"{low} to {high}"))


def _amount(cents: float) -> str:
    return f"{cents / 100:,.2f}"


def _said(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
