"""Studies fit what they say they fit: fewer labels, the sources without one, the columns without a view's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import helpers
import paying
import penstock as ps
from penstock import commands
from penstock.clock import DAY
from penstock.learn import Dataset, Labels, Recipe, Replay
from penstock.releases.study import SHARES, Study
from penstock.releases.training import train

Opened = tuple[Replay, Labels, Dataset]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """The log, some labels of its last day, and all their candidates."""
    text = helpers.APP.replace("trees=10", 'trees=10, request={"twice": col("covisits") * 2}')
    text = text.replace("import penstock as ps", "import penstock as ps\nfrom polars import col")
    with helpers.load_app(tmp_path_factory.mktemp("study"), text) as app:
        app.ingest(helpers.history())
        log = app.open().log
        replay = Replay(app.decisions["home"].recipe, log.read(0, log.end), log.strings)
        labels = replay.labels(log.newest - DAY, log.newest + 1)
        labels = labels.take(np.arange(0, len(labels), 4))
        yield replay, labels, replay.build(labels, replay.fit(int(labels.asks.known[0])))


def watched(opened: Opened) -> tuple[Study, list[tuple[list[Dataset], Dataset]]]:
    """A study that learns from what it is judged by, and what it was asked to fit."""
    replay, labels, held = opened
    asked: list[tuple[list[Dataset], Dataset]] = []

    def judge(parts: list[Dataset], other: Dataset) -> np.ndarray:
        asked.append((list(parts), other))
        return 1.0 + other.groups + (~np.isnan(other.rows)).sum()

    return Study(replay.recipe, [held], held, labels.asks.key, judge), asked


def test_a_source_left_out_leaves_what_retrieval_without_it_finds(opened: Opened) -> None:
    """The same items for each request, and the same numbers in every column that is not the source's."""
    replay, labels, _ = opened
    recipe = replay.recipe
    study, asked = watched(opened)
    names = [row.without for row in study.ablations()]
    found = dict(zip(names, (held for _, held in asked[1:]), strict=True))
    for source in recipe.sources:
        rank = replace(recipe.rank, request={})
        short: Recipe = replace(recipe, rank=rank, sources=tuple(s for s in recipe.sources if s is not source))
        other = replay.of(short)
        plain = other.build(labels, other.fit(int(labels.asks.known[0])))
        mine = found[f"source {source.label}"]
        assert mine.groups.tolist() == plain.groups.tolist()
        assert mine.positive.sum() == plain.positive.sum()
        items = [np.sort(one.items).tolist() for one in mine.candidates]
        assert items == [np.sort(one.items).tolist() for one in plain.candidates]
        edges = np.r_[0, np.cumsum(mine.groups)]
        columns = [recipe.assembler.names.index(name) for name in short.assembler.names]
        for i, (a, b) in enumerate(zip(mine.candidates, plain.candidates, strict=True)):
            rows = slice(edges[i], edges[i + 1])
            mine_rows, plain_rows = mine.rows[rows][np.argsort(a.items)], plain.rows[rows][np.argsort(b.items)]
            np.testing.assert_array_equal(mine_rows[:, columns], plain_rows)
        gone = [recipe.assembler.names.index(name) for name in source.columns]
        assert np.isnan(mine.rows[:, gone]).all()


def test_a_view_left_out_is_missing_from_rows_and_from_what_reads_it(opened: Opened) -> None:
    """Its own columns and no others; all candidates stay. A column computed from a source goes with the source."""
    replay, _, held = opened
    names = np.array(replay.recipe.assembler.names)
    study, asked = watched(opened)
    rows = dict(zip([row.without for row in study.ablations()], (other for _, other in asked[1:]), strict=True))
    before = set(names[np.isnan(held.rows).all(axis=0)])
    for view in replay.recipe.views:
        found = rows[f"view {view.name}"]
        assert found.groups.tolist() == held.groups.tolist()
        gone = set(names[np.isnan(found.rows).all(axis=0)]) - before
        assert gone == {name for name in names if name.startswith(f"{view.name}.")} - before
    assert {"covisits", "twice"} <= set(names[np.isnan(rows["source covisits"].rows).all(axis=0)])


def test_a_source_that_everything_comes_from_is_not_left_out(opened: Opened) -> None:
    """Without it there would be nothing to fit; what every other part adds is still told."""
    replay, _, held = opened
    recipe, edges = replay.recipe, np.r_[0, np.cumsum(held.groups)]
    one = [~np.isnan(part.place[:, 0]) & np.isnan(part.place[:, 1:]).all(axis=1) for part in held.candidates]
    alone = held.keep(np.concatenate(one))
    assert 0 < len(alone.rows) < edges[-1]
    study = Study(recipe, [alone], held, np.arange(len(held.groups)), lambda parts, other: np.ones(len(held.groups)))
    names = {row.without for row in study.ablations()}
    first, *others = (f"source {source.label}" for source in recipe.sources)
    assert first not in names
    assert set(others) < names


def test_a_learning_curve_fits_a_quarter_a_half_and_all_of_the_labels(opened: Opened) -> None:
    """Whole requests, and a larger share holds the smaller ones; what they are judged by stays whole."""
    _, _, held = opened
    study, asked = watched(opened)
    points = study.learning_curve()
    kept = [set(np.flatnonzero(parts[0].groups).tolist()) for parts, _ in asked]
    assert [len(one) / np.count_nonzero(held.groups) for one in kept] == pytest.approx(SHARES, abs=0.05)
    assert kept[0] < kept[1] < kept[2]
    assert all(other is held for _, other in asked)
    for parts, _ in asked:
        mine = parts[0].groups[parts[0].groups > 0]
        assert mine.tolist() == held.groups[np.flatnonzero(parts[0].groups)].tolist()
    assert [point.rows for point in points] == [len(parts[0].rows) for parts, _ in asked]


def test_a_study_is_in_the_report_and_its_last_point_is_the_ranker_that_was_compared(opened: Opened, tmp_path) -> None:
    """Three points, each view and source with its change, bars on the page; without asking there is none of it."""
    with helpers.load_app(tmp_path) as app:
        app.ingest(helpers.history())
        log = app.open().log
        recipe = app.decisions["home"].recipe
        found = train(recipe, log, app.home / "releases", app="small", log_id=log.id, study=True)
        page = (app.home / "releases" / found.release / "report.html").read_text()
    report = found.report
    whole = next(row for row in report["candidates"] if row["name"] == "lambdarank")
    assert len(report["learning_curve"]) == 3
    assert report["learning_curve"][-1]["value"] == pytest.approx(whole["scores"]["mrr"]["mean"])
    names = {f"view {view.name}" for view in recipe.views} | {f"source {source.label}" for source in recipe.sources}
    assert {row["without"] for row in report["ablations"]} == names
    for row in report["ablations"]:
        assert row["value"] == pytest.approx(whole["scores"]["mrr"]["mean"] * (1 + row["change"]["mean"]))
    assert "What each part adds" in page
    assert "Learning curve" in page


def test_a_verdict_goes_without_a_study_where_everything_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is trained all the same, and a line says so; named, it is refused."""
    with paying.paying(tmp_path, trained=False) as app:
        home = app.home
    chosen = {"app": paying.APP, "home": home, "promote": True, "study": True, "json": False}
    commands.train(decision=None, **chosen)
    assert "payment is a verdict: a study is made of a ranker" in capsys.readouterr().out
    with pytest.raises(ps.PenstockError, match="a study is made of a ranker; got the verdict payment"):
        commands.train(decision="payment", **chosen)


def test_a_study_of_a_verdict_is_refused(tmp_path) -> None:
    """It is told before anything is read."""
    app = ps.load(ps.__path__[0] + "/apps/fraud/app.py")
    app.home = tmp_path
    with app, pytest.raises(ps.PenstockError, match="a study is made of a ranker"):
        app.train(study=True)
