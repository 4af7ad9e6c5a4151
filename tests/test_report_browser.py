"""The training report in a real browser: it fits a desk's screen and half of one, and nothing covers another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import browsing
from penstock.evaluate import Candidate, Goals, binned, compare, render
from test_report import sample

NAMES = ("seen", "covisits", "together", "popular_1d", "session_neighbours", "lambdarank")


@pytest.fixture(scope="module")
def chromium(need: Callable[[str, str], str]) -> Iterator[Any]:
    with browsing.chromium(need("chromium", "chromium")) as browser:
        yield browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on as many candidates as the app that comes along has, with intervals and long names."""
    random = np.random.default_rng(3)
    users, popular = random.integers(0, 400, 4_000), random.integers(0, 300, 4_000)
    ranks = [random.integers(0, 90 - 9 * i, 4_000) for i in range(len(NAMES))]
    lists = random.integers(1, 9, (4_000, 20))
    candidates = [Candidate(name, i, ranks[i], 2.4e-05, 0.0124, lists, 3.0) for i, name in enumerate(NAMES)]
    slices = {"user activity": binned(np.bincount(users)[users], (9, 11)), "item popularity": binned(popular)}
    goals = Goals(random.integers(0, 4_000, 9_000), random.integers(1, 80, 9_000))
    found = compare(candidates, users, slices, catalogue_size=100, goals=goals).as_dict()
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render({**sample(), **found}))
    return path


@pytest.mark.parametrize(("width", "fits"), [(1200, True), (800, True), (375, False)])
def test_tables_fit_the_page_or_scroll_by_themselves(chromium: Any, page: Path, width: int, fits: bool) -> None:
    """No table is cut at 1200 and 800 pixels; on a phone wide ones scroll within the page, which does not."""
    visit = browsing.Visit(chromium, page.as_uri(), (width, 900))
    visit.page.goto(page.as_uri())
    visit.check()
    visit.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    cut = visit.page.evaluate(
        "[...document.querySelectorAll('.scroll')].filter(d => d.scrollWidth > d.clientWidth).map(d => d.ariaLabel)"
    )
    assert (cut == []) == fits
    visit.context.close()


@pytest.mark.parametrize("width", [1200, 800, 375])
def test_no_text_of_a_chart_covers_another(chromium: Any, page: Path, width: int) -> None:
    """Labels, figures and axes of every chart stand beside one another, on any screen."""
    visit = browsing.Visit(chromium, page.as_uri(), (width, 900))
    visit.page.goto(page.as_uri())
    covered = visit.page.evaluate("""[...document.querySelectorAll('svg')].flatMap(svg => {
      const boxes = [...svg.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
      return boxes.flatMap(([one, a], i) => boxes.slice(i + 1).filter(([, b]) => a.left < b.right - 1
        && b.left < a.right - 1 && a.top < b.bottom - 4 && b.top < a.bottom - 4).map(([two]) => one + ' / ' + two));
    })""")
    assert covered == []
    visit.context.close()
