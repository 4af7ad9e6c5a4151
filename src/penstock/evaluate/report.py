"""The training report: one dict, written as JSON for machines and as one HTML page for people."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from penstock.evaluate.checks import EvaluationError
from penstock.evaluate.compare import METRIC_NAMES, SURE
from penstock.evaluate.intervals import Interval
from penstock.evaluate.layout import Metric, Report, Scores, SliceChange, SliceResult
from penstock.evaluate.markup import Markup, join, tag
from penstock.evaluate.page import details, facts, page, section, table
from penstock.evaluate.plots import Bar, bars, histogram, line, number

_FEATURES_DRAWN = 20
_MARKS = {"better": "▲ surely better", "worse": "▼ surely worse", "unsure": "unsure", "untested": "untested"}
_LEAKS = {
    "alone": "it alone ranks the item that came next first (AUC)",
    "changes": "what it was changes with what happened later (values)",
}


def render(report: Mapping[str, Any]) -> str:
    """The report as one self-contained HTML page; `report` is laid out as `penstock.evaluate.layout.Report`.

    Raises:
        EvaluationError: a key is missing or unknown, or a value has the wrong type or is not finite.
    """
    return _html(_checked(report))


def write_report(folder: Path, report: Mapping[str, Any]) -> tuple[Path, Path]:
    """Writes report.json and report.html into `folder`, each whole or not at all; returns their paths."""
    checked = _checked(report)
    plain, html = msgspec.json.format(msgspec.json.encode(checked), indent=2) + b"\n", _html(checked).encode()
    folder.mkdir(parents=True, exist_ok=True)
    return _write(folder / "report.json", plain), _write(folder / "report.html", html)


def _checked(report: Mapping[str, Any]) -> Report:
    try:
        # Through JSON, where NaN and infinity become null: what cannot be read back is refused here.
        checked = msgspec.json.decode(msgspec.json.encode(dict(report)), type=Report)
    except (msgspec.MsgspecError, TypeError) as error:
        raise EvaluationError(
            "a report has every fact of its layout and no other",
            got=str(error),
            remedy="compare the dict with penstock.evaluate.layout.Report",
        ) from None
    names = [row.name for row in checked.candidates]
    same = all([row.name for row in result.candidates] == names for result in checked.slices)
    if not {checked.chosen, checked.best} <= set(names) or not same or len(checked.positions) != checked.k:
        raise EvaluationError(
            "chosen, best and every slice name the same candidates, and there is a count for each of k places",
            got=f"chosen {checked.chosen!r}, best {checked.best!r}, k {checked.k}, {len(checked.positions)} places",
            remedy="fill the report from one comparison",
        )
    return checked


def _write(path: Path, content: bytes) -> Path:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def _html(report: Report) -> str:
    parts = [
        tag("h1", f"{report.app}: decision {report.decision}"),
        tag("p", f"Training report, {report.created}. Goal: {report.goal}.", class_="soft"),
        _chosen(report),
    ]
    if report.leaks:
        parts.append(_leaks(report))
    parts += [_comparison(report), _slices(report), _cost(report)]
    if report.ablations:
        parts.append(_ablations(report))
    if report.features:
        parts.append(_features(report))
    parts.append(_data(report))
    if report.calibration:
        parts.append(_calibration(report))
    if report.notes:
        parts.append(section("Notes", tag("ul", *[tag("li", note) for note in report.notes])))
    return page(f"{report.app} {report.decision}: training report", *parts)


def _chosen(report: Report) -> Markup:
    row = next(row for row in report.candidates if row.name == report.chosen)
    figures = [
        *[(f"{METRIC_NAMES[key]}@{report.k}", _figure(getattr(row.scores, key).mean)) for key in _metrics(report)],
        (f"Coverage@{report.k}", _share(row.coverage)),
        ("Scoring a list, p50", _milliseconds(row.score_ms_p50)),
        ("Best candidate", report.best),
    ]
    reason = tag("p", report.reason, class_="reason")
    return section(f"Chosen: {report.chosen}", reason, facts(figures), kind="lead")


def _comparison(report: Report) -> Markup:
    head = [
        "Candidate", *[f"{METRIC_NAMES[key]}@{report.k}" for key in _metrics(report)], "Against the best",
        f"Coverage@{report.k}", "Complexity",
    ]  # fmt: skip
    rows = [
        [row.name, *_cells(report, row.scores), _change(row.change), _share(row.coverage), number(row.complexity)]
        for row in report.candidates
    ]
    said = f"{METRIC_NAMES[report.metric]}@{report.k}"
    rule = (
        f"{report.lists:,} held-out decisions of {report.users:,} users. Below each figure stands its "
        f"{report.level:.0%} interval, from resampling users. What decides is {said}: the simplest candidate within "
        f"{100 * report.tolerance:.4g}% of the best is taken. An item that was never retrieved counts as a miss."
    )
    drawn = [_bar(row.name, getattr(row.scores, report.metric), row.name == report.chosen) for row in report.candidates]
    chart = bars(drawn, title=f"{said} by candidate", description=_spoken(drawn))
    places = [[str(i + 1), number(count), _share(count / report.lists)] for i, count in enumerate(report.positions)]
    hits = histogram(
        report.positions,
        [place[0] for place in places],
        title=f"Where {report.chosen} placed the item that was taken",
        description=f"Hits by place from 1 to {report.k}; place 1 has {report.positions[0]:,}.",
        x_label="place in the list",
    )
    strong = [i for i, row in enumerate(report.candidates) if row.name == report.chosen]
    listed = table("Hits of the chosen candidate by place", ["Place", "Hits", "Share of decisions"], places)
    return section(
        "Comparison", tag("p", rule), table("All candidates", head, rows, strong), chart, hits,
        details("Hits by place, as a table", listed),
    )  # fmt: skip


def _slices(report: Report) -> Markup:
    names = dict.fromkeys(result.slice for result in report.slices)
    blocks = [_one_slice(report, name, [s for s in report.slices if s.slice == name]) for name in names]
    intro = tag("p", "The same decisions, split. A small slice has a wide interval: read it before the bar.")
    return section(
        "Slices", *([intro, _surely(report), *blocks] if blocks else [tag("p", "No slices were asked for.")])
    )


def _surely(report: Report) -> Markup:
    """Where the chosen candidate is better or worse than the rival beyond doubt."""
    if report.rival is None:
        return join()
    rule = (
        f"In each slice {report.chosen} is held against {report.rival}, the best of the others. Of all slices that are "
        f"called better or worse (q at most {SURE:g}), {SURE:.0%} at most are so by chance, on average; those "
        "of too few users are not tested."
    )
    parts = [tag("p", rule)]
    for verdict in ("better", "worse"):
        found = [f"{r.slice}: {r.value}" for r in report.slices if r.change and r.change.verdict == verdict]
        parts.append(tag("p", f"{_MARKS[verdict]}: {'; '.join(found) or 'nowhere'}."))
    return join(*parts)


def _changes(report: Report, name: str, results: Sequence[SliceResult]) -> Markup:
    rows = [[r.value, *_against(r.change)] for r in results if r.change is not None]
    if not rows:
        return join()
    said = f"{report.chosen} against {report.rival} by {name}, {METRIC_NAMES[report.metric]}@{report.k}"
    strong = [i for i, r in enumerate(results) if r.change and r.change.verdict in ("better", "worse")]
    return table(said, [name.capitalize(), "Difference", "p", "q", "Verdict"], rows, strong)


def _against(change: SliceChange) -> list[Markup]:
    chances = [join(_chance(value)) for value in (change.p, change.q)]
    return [_signed(change.difference), *chances, join(_MARKS[change.verdict])]


def _signed(interval: Interval) -> Markup:
    if interval.low is None or interval.high is None:
        return join(f"{interval.mean:+z.4f}")
    return join(f"{interval.mean:+z.4f}", _ends(f"{interval.low:+z.3f}", f"{interval.high:+z.3f}"))


def _one_slice(report: Report, name: str, results: Sequence[SliceResult]) -> Markup:
    said = f"{METRIC_NAMES[report.metric]}@{report.k}"
    drawn = [
        _bar(f"{result.value}, {_share(result.share)}", getattr(row.scores, report.metric), True)
        for result in results
        for row in result.candidates
        if row.name == report.chosen
    ]
    head = [name.capitalize(), *[row.name for row in report.candidates], "Decisions", "Share"]
    tables = [
        table(
            f"{METRIC_NAMES[key]}@{report.k} by {name}",
            head,
            [
                [r.value, *[_estimate(getattr(c.scores, key)) for c in r.candidates], number(r.lists), _share(r.share)]
                for r in results
            ],
        )
        for key in sorted(_metrics(report), key=lambda key: key != report.metric)
    ]
    title = f"{said} of {report.chosen} by {name}, each with its share of decisions"
    chart = bars(drawn, title=title, description=_spoken(drawn))
    changes = _changes(report, name, results)
    return join(tag("h3", f"By {name}"), chart, tables[0], changes, details("The other metrics", *tables[1:]))


def _cost(report: Report) -> Markup:
    rows = [
        [row.name, _seconds(row.train_seconds), _milliseconds(row.find_ms_p50), _milliseconds(row.score_ms_p50)]
        for row in report.candidates
    ]
    strong = [i for i, row in enumerate(report.candidates) if row.name == report.chosen]
    head = ["Candidate", "Training", "Finding candidates, p50", "Scoring a list, p50"]
    parts = [table("Cost of each candidate", head, rows, strong)]
    if report.timings:
        total = sum(timing.seconds for timing in report.timings)
        steps = [[t.step, _seconds(t.seconds), _share(t.seconds / (total or 1.0))] for t in report.timings]
        parts.append(table("Time of each step", ["Step", "Time", "Share"], steps))
    if report.learning_curve:
        points = [(float(p.rows), p.value) for p in report.learning_curve]
        said = f"{METRIC_NAMES[report.metric]}@{report.k}"
        first, last = (f"{_figure(y)} at {number(x)} rows" for x, y in (points[0], points[-1]))
        chart = line(
            points, title=f"Learning curve: {said} by training rows", description=f"From {first} to {last}.",
            x_label="training rows", y_label=said,
        )  # fmt: skip
        listed = table(
            "Learning curve",
            ["Rows", said],
            [[number(p.rows), _estimate(Interval(p.value, p.low, p.high))] for p in report.learning_curve],
        )
        parts += [chart, details("The curve as a table", listed)]
    return section("Training cost and scoring latency", *parts)


def _ablations(report: Report) -> Markup:
    said = f"{METRIC_NAMES[report.metric]}@{report.k}"
    drawn = [Bar(f"without {row.without}", row.value) for row in report.ablations]
    rows = [[row.without, _figure(row.value), _change(row.change)] for row in report.ablations]
    rule = (
        "The ranker, fitted again without one view or one source: without a view its features are missing, without a "
        "source the candidates that only it finds, too. Changes are relative to the whole ranker, decision by decision."
    )
    return section(
        "What each part adds",
        tag("p", rule),
        bars(drawn, title=f"{said} without each part", description=_spoken(drawn)),
        table("Ablations", ["Without", said, "Against the whole ranker"], rows),
    )


def _leaks(report: Report) -> Markup:
    rows = [[leak.name, _LEAKS[leak.check], _share(leak.figure)] for leak in report.leaks]
    rule = (
        "These columns look as if they knew what came after the moment of decision. Until it is clear why, read no "
        "figure below: a leak makes all of them too good."
    )
    return section(
        "May know the future", tag("p", rule), table("Suspicious columns", ["Column", "Found by", "Figure"], rows),
        kind="lead",
    )  # fmt: skip


def _features(report: Report) -> Markup:
    ordered = sorted(report.features, key=lambda feature: -feature.importance)
    drawn = [Bar(feature.name, feature.importance, strong=True) for feature in ordered[:_FEATURES_DRAWN]]
    title = f"Importance, the first {len(drawn)} of {len(ordered)}"
    rows = [[f.name, number(f.importance), _share(f.missing_share)] for f in ordered]
    listed = table("All features", ["Feature", "Importance", "Missing"], rows)
    return section(
        "Features", bars(drawn, title=title, description=_spoken(drawn)), details("All features, with missing", listed)
    )


def _data(report: Report) -> Markup:
    data = report.data
    optional = [
        ("Items retrieved at all", data.candidate_recall, _share),
        ("Label delay, p50", data.label_delay_s_p50, _seconds),
        ("Label delay, p99", data.label_delay_s_p99, _seconds),
    ]
    pairs = [
        ("First event", data.first),
        ("Last event", data.last),
        ("Events", number(data.events)),
        ("Log offset", number(data.offset)),
        ("Users", number(data.users)),
        ("Items", number(data.items)),
        ("Labels to train on", number(data.train_labels)),
        ("Labels held out", number(data.valid_labels)),
        *[(name, form(value)) for name, value, form in optional if value is not None],
    ]
    return section("Data used", facts(pairs))


def _calibration(report: Report) -> Markup:
    points = [(b.predicted, b.observed) for b in report.calibration]
    chart = line(
        points, title="Calibration: what came true against what was predicted", joined=False, diagonal=True,
        description="Points on the dashed diagonal are perfectly calibrated.", x_label="predicted", y_label="observed",
    )  # fmt: skip
    rows = [[_figure(b.predicted), _figure(b.observed), number(b.rows)] for b in report.calibration]
    listed = table("Calibration", ["Predicted", "Observed", "Rows"], rows)
    error = report.calibration_error
    parts = [] if error is None else [tag("p", f"Expected calibration error: {number(error)}.")]
    return section("Calibration", *parts, chart, details("The points as a table", listed))


def _bar(label: str, interval: Interval, strong: bool) -> Bar:
    return Bar(label, interval.mean, interval.low, interval.high, strong)


def _spoken(drawn: Sequence[Bar]) -> str:
    return "; ".join(f"{bar.label}: {number(bar.value)}" for bar in drawn) + "."


def _metrics(report: Report) -> list[Metric]:
    """The metrics that candidates were measured by."""
    return [key for key in METRIC_NAMES if getattr(report.candidates[0].scores, key) is not None]


def _cells(report: Report, scores: Scores) -> list[Markup]:
    return [_estimate(getattr(scores, key)) for key in _metrics(report)]


def _estimate(interval: Interval) -> Markup:
    if interval.low is None or interval.high is None:
        return join(_figure(interval.mean))
    return join(_figure(interval.mean), _ends(f"{interval.low:.3f}", f"{interval.high:.3f}"))


def _change(change: Interval | None) -> Markup:
    if change is None:
        return join("n/a")
    if change.low is None or change.high is None or change.low == change.high == change.mean == 0:
        return join(f"{change.mean:+z.1%}" if change.mean else "best")
    return join(f"{change.mean:+z.1%}", _ends(f"{change.low:+z.1%}", f"{change.high:+z.1%}"))


def _ends(low: str, high: str) -> Markup:
    """An interval below its figure; where the column is narrow it breaks in two lines, and no more."""
    return tag("small", f"{low} to\u00a0{high}")


def _figure(value: float) -> str:
    return f"{value:.4f}"


def _chance(value: float | None) -> str:
    """A p-value: never 0, which none is."""
    return "n/a" if value is None else _least(value, 0.001, f"{value:.3f}")


def _share(value: float | None) -> str:
    return "n/a" if value is None else f"{100 * value:.3g}%" if 0 < value < 0.1 else f"{100 * value:.1f}%"


def _seconds(value: float) -> str:
    return f"{_least(value, 0.001, number(value))} s"


def _milliseconds(value: float) -> str:
    return f"{_least(value, 0.001, number(value))} ms"


def _least(value: float, least: float, said: str) -> str:
    """What is next to nothing is said to be below the least that is told apart, not with an exponent."""
    return f"<{least:g}" if 0 < value < least else said
