"""The HTML report shows every fact of the JSON one, escapes all text, and needs nothing from outside itself."""

from __future__ import annotations

import copy
import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from penstock.evaluate import Candidate, EvaluationError, Goals, binned, compare, render, write_report
from penstock.evaluate.plots import Bar, bars, histogram, line, lines, ticks

HOSTILE = "<script>alert(1)</script> & \"quoted\" 'too'"
NAMES = {"name", "chosen", "best", "rival", "metric", "slice"}
WORDS = {"verdict", "check"}
"""Facts that are one of a few words."""


def test_a_p_value_is_never_printed_as_nothing() -> None:
    """What is below a thousandth is said to be; none is 0."""
    report = sample()
    for value, text in ((4e-5, "&lt;0.001"), (0.0009, "&lt;0.001"), (0.0014, "0.001"), (None, "n/a")):
        for one in report["slices"]:
            one["change"] = {**one["change"], "p": value, "q": value}
        page = render(report)
        assert page.count(f">{text}<") >= 2 * len(report["slices"])
        assert ">0.000<" not in page


def sample() -> dict[str, Any]:
    rng = np.random.default_rng(7)
    users, popular = rng.integers(0, 40, 400), rng.integers(0, 300, 400)
    candidates = [
        Candidate("popular", 0, rng.integers(0, 90, 400), 0.25, 0.0125, rng.integers(1, 9, (400, 20)), 0.5),
        Candidate("co-visits", 2, rng.integers(0, 45, 400), 2.5, 0.375, rng.integers(1, 60, (400, 20)), 0.75),
        Candidate("lambdarank", 5, rng.integers(0, 30, 400), 41.5, 1.75, rng.integers(1, 80, (400, 20)), 2.25),
    ]
    slices = {"user activity": binned(np.bincount(users)[users], (9, 11)), "item popularity": binned(popular)}
    goals = Goals(rng.integers(0, 400, 900), rng.integers(1, 80, 900))
    return compare(candidates, users, slices, catalogue_size=100, goals=goals).as_dict() | {
        "app": "shop",
        "decision": "home",
        "goal": "buy within 30min",
        "created": "2024-05-09T11:32:07Z",
        "data": {
            "events": 1_843_211,
            "users": 38_112,
            "items": 12_345,
            "first": "2017-11-25T00:00:02Z",
            "last": "2017-12-02T23:59:41Z",
            "offset": 1_843_333,
            "train_labels": 214_311,
            "valid_labels": 12_001,
            "candidate_recall": 0.4341,
            "label_delay_s_p50": 14.25,
            "label_delay_s_p99": 1312.0,
        },
        "features": [
            {"name": f"Shopper.f{i}", "importance": 900.5 / (i + 1), "missing_share": i / 50} for i in range(25)
        ],
        "timings": [{"step": "read the log", "seconds": 3.5}, {"step": "fit", "seconds": 47.25}],
        "learning_curve": [
            {"rows": 10_000 * 2**i, "value": 0.19 + 0.01 * i, "low": 0.1, "high": 0.3} for i in range(4)
        ],
        "calibration": [{"predicted": x, "observed": 0.9 * x, "rows": 123 + i} for i, x in enumerate((0.1, 0.3, 0.6))],
        "calibration_error": 0.0375,
        "ablations": [
            {"without": name, "value": 0.15 - 0.01 * i, "change": {"mean": -0.1 - i / 9, "low": -0.3, "high": -0.02}}
            for i, name in enumerate(("view Shopper", "source covisits"))
        ],
        "leaks": [
            {"name": "Item.sold", "check": "alone", "figure": 0.9925},
            {"name": "Item.later", "check": "changes", "figure": 0.25},
        ],
        "notes": ["The last day is held out."],
    }


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    return sample()


def leaves(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(node, dict | list):
        for key, child in node.items() if isinstance(node, dict) else enumerate(node):
            yield from leaves(child, (*path, key))
    else:
        yield path, node


def changed(report: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    twin = copy.deepcopy(report)
    node = twin
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return twin


def text_of(html: str) -> str:
    """What a reader sees, markup and style dropped."""
    seen: list[str] = []
    reader = HTMLParser()
    reader.handle_data = seen.append  # type: ignore[method-assign]
    reader.feed(re.sub(r"<(style|svg).*?</\1>", "", html, flags=re.DOTALL))
    return "\n".join(seen)


def test_no_fact_of_the_json_can_change_without_the_text_of_the_page_changing(report):
    shown = text_of(render(report))
    for path, value in leaves(report):
        if path[-1] in (*NAMES, *WORDS, "k") or value is None:
            continue
        other = f"{value}!" if isinstance(value, str) else value + 7 if isinstance(value, int) else value * 1.3 + 0.011
        assert text_of(render(changed(report, path, other))) != shown, path


def test_every_text_of_the_json_stands_in_the_page(report):
    shown = text_of(render(report))
    for path, value in leaves(report):
        if isinstance(value, str) and path[-1] != "metric":
            assert value in shown or value.capitalize() in shown, path


def test_no_text_of_the_report_becomes_markup(report):
    plain = json.loads(json.dumps(report).replace("lambdarank", "RANKER").replace("user activity", "SLICE"))
    hostile = plain
    for path, value in leaves(plain):
        if isinstance(value, str) and path[-1] not in NAMES | WORDS:
            hostile = changed(hostile, path, HOSTILE)
    hostile["features"] = [{"name": HOSTILE, "importance": 1.0, "missing_share": 0.0}]
    quoted = json.dumps(HOSTILE)[1:-1]
    html = render(json.loads(json.dumps(hostile).replace("RANKER", quoted).replace("SLICE", quoted)))
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;quoted&quot;" in html
    assert HOSTILE in text_of(html)


def test_the_page_loads_nothing_and_runs_nothing(report):
    html = render(report)
    assert not re.search(r"<script|<link|<img|<iframe|\ssrc=|\shref=|url\(|@import|https?:|\son\w+=", html)
    assert "prefers-color-scheme: dark" in html


def test_every_chart_is_well_formed_and_says_in_words_what_it_shows(report):
    charts = re.findall(r"<svg.*?</svg>", render(report), flags=re.DOTALL)
    assert len(charts) == 8
    for chart in charts:
        root = ElementTree.fromstring(chart)
        assert root.get("role") == "img"
        assert root[0].tag == "title"
        assert len(root.get("aria-label", "")) > 20


def test_every_element_is_closed_and_every_table_cell_has_its_head(report):
    open_tags: list[str] = []
    html = render(report)
    for closing, name in re.findall(r"<(/?)([a-z][a-z0-9]*)", re.sub(r"<style.*?</style>", "", html, flags=re.DOTALL)):
        if name == "meta":
            continue
        if closing:
            assert open_tags.pop() == name
        else:
            open_tags.append(name)
    assert open_tags == []
    for table in re.findall(r"<table.*?</table>", html, flags=re.DOTALL):
        widths = {len(re.findall(r"<t[hd][ >]", row)) for row in re.findall(r"<tr.*?</tr>", table, flags=re.DOTALL)}
        assert len(widths) == 1


def test_the_written_json_reads_back_to_the_same_report_and_the_same_page(report, tmp_path):
    plain, html = write_report(tmp_path / "new", report)
    assert json.loads(plain.read_text()) == report
    assert html.read_text() == render(json.loads(plain.read_text()))


def test_writing_replaces_both_files_and_leaves_nothing_else(report, tmp_path):
    write_report(tmp_path, report)
    write_report(tmp_path, report | {"app": "another"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.json"]
    assert json.loads((tmp_path / "report.json").read_text())["app"] == "another"
    assert "another: decision home" in (tmp_path / "report.html").read_text()


def test_a_report_that_cannot_be_rendered_leaves_the_old_one_in_place(report, tmp_path):
    write_report(tmp_path, report)
    with pytest.raises(EvaluationError):
        write_report(tmp_path, report | {"k": "many"})
    assert json.loads((tmp_path / "report.json").read_text()) == report


OPTIONAL = {"features", "learning_curve", "calibration", "calibration_error", "ablations", "leaks"}


def test_the_optional_parts_can_be_left_out(report):
    short = {key: value for key, value in report.items() if key not in OPTIONAL}
    short |= {"slices": [], "timings": [], "notes": []}
    short["data"] = {key: value for key, value in report["data"].items() if "delay" not in key}
    shown = text_of(render(short))
    assert "Label delay" not in shown
    assert "Calibration" not in shown
    assert "What each part adds" not in shown
    assert "May know the future" not in shown


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("goal", None, "goal"),
        ("surprise", 1, "surprise"),
        ("tolerance", float("nan"), "tolerance"),
        ("chosen", "nobody", "nobody"),
        ("k", 21, "20 places"),
    ],
)
def test_a_report_with_a_fact_missing_unknown_or_contradicted_is_refused(report, key, value, said):
    with pytest.raises(EvaluationError, match=said) as caught:
        render(report | {key: value})
    assert caught.value.remedy


@pytest.mark.parametrize(("low", "high"), [(0, 0.23), (0, 1e-12), (0, 7), (-3, 12), (0.19, 0.2251), (5, 5), (0, 3e9)])
def test_ticks_are_few_rising_and_span_the_values(low, high):
    found = ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    assert 2 <= len(found) <= 8
    assert found == sorted(set(found))


def test_charts_of_nothing_but_zeros_are_drawn():
    for chart in (
        bars([Bar("none", 0.0, 0.0, 0.0)], title="t", description="d"),
        histogram([0, 0], ["1", "2"], title="t", description="d", x_label="x"),
        line([(0.0, 0.0)], title="t", description="d", x_label="x", y_label="y"),
        line([(0.0, 0.0)], title="t", description="d", x_label="x", y_label="y", joined=False, diagonal=True),
    ):
        assert "nan" not in chart
        assert "inf" not in chart


def test_small_figures_are_read_without_exponents(report):
    """A time or a chance that is next to nothing is said to be below the least that is told apart."""
    small = copy.deepcopy(report)
    small["candidates"][0] |= {"train_seconds": 2.4e-05, "find_ms_p50": 1e-07, "score_ms_p50": 0.0}
    for one in small["slices"]:
        one["change"] |= {"p": 1e-09, "q": 0.00012}
    shown = text_of(render(small))
    assert shown.count("<0.001 s") == shown.count("<0.001 ms") == 1
    assert shown.split("\n").count("<0.001") == 2 * len(small["slices"])
    assert not re.search(r"\de-\d", shown)


def test_names_at_the_ends_of_lines_cover_no_other():
    """Lines that end close together, also at the lower edge, have their names at least a line's height apart."""
    for ends in ([1.0, 1.01, 1.02, 5.0], [0.0, 0.0, 0.01, 0.0], [5.0, 5.0, 5.0]):
        series = {f"line {i}": [(0.0, 0.0), (1.0, end)] for i, end in enumerate(ends)} | {
            "top": [(0.0, 5.0), (1.0, 3.0)]
        }
        chart = lines(series, title="t", description="d", x_label="x", y_label="y")
        found = [float(y) for y in re.findall(r'<text [^>]*?y="([-\d.]+)"[^>]*class="label', chart)]
        assert len(found) == len(series)
        assert np.diff(sorted(found)).min() >= 16
        assert max(found) <= 220
