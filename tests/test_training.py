"""Training is split by time: nothing that a label could not know reaches its candidates or features, the plain
baselines are in the comparison, and the simplest ranker within the tolerance is released."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import helpers
import penstock as ps
from penstock.clock import DAY, HOUR, MINUTE
from penstock.errors import ReleaseError
from penstock.learn import Dataset, Labels, Model, Recipe, Replay
from penstock.releases import read
from penstock.releases.training import Trained, train
from penstock.serve.decisions import impressions


@pytest.fixture
def app(tmp_path: Path) -> Iterator[ps.App]:
    with helpers.load_app(tmp_path) as app:
        yield app


def recipe_of(app: ps.App) -> Recipe:
    return app.decisions["home"].recipe


def built(app: ps.App, start: int, stop: int) -> tuple[Labels, Dataset]:
    """The labels of a span and all that a ranker would see of them."""
    log = app.open().log
    replay = Replay(recipe_of(app), log.read(0, log.end), log.strings)
    labels = replay.labels(start, stop)
    return labels, replay.build(labels, replay.fit(int(labels.asks.known[0])))


def same(a: tuple[Labels, Dataset], b: tuple[Labels, Dataset]) -> bool:
    (labels_a, data_a), (labels_b, data_b) = a, b
    pairs = [(getattr(labels_a.asks, name), getattr(labels_b.asks, name)) for name in ("key", "now", "known")]
    pairs += [(labels_a.item, labels_b.item)]
    pairs += [(data_a.rows, data_b.rows), (data_a.positive, data_b.positive), (data_a.groups, data_b.groups)]
    pairs += [(c.items, d.items) for c, d in zip(data_a.candidates, data_b.candidates, strict=True)]
    return all(x.shape == y.shape and x.tobytes() == y.tobytes() for x, y in pairs)


def newest(app: ps.App) -> int:
    return app.open().log.newest


def test_events_after_the_labels_change_nothing_that_they_see(app: ps.App) -> None:
    app.ingest(helpers.history())
    stop = newest(app) + 1
    before = built(app, stop - DAY, stop)
    assert len(before[0]) > 100
    history = helpers.history()
    # The same shoppers and items, loudly, just after the labels.
    app.ingest(
        [
            {**event, "id": f"later-{i}", "time": helpers.next_time(history, 1.0 + i)}
            for i, event in enumerate(history[-200:])
        ]
    )
    assert same(before, built(app, stop - DAY, stop))


def test_an_event_that_happened_before_a_label_and_came_after_it_is_unknown_to_it(app: ps.App) -> None:
    app.ingest(helpers.history())
    stop = newest(app) + 1
    labels, data = built(app, stop - DAY, stop)
    # Dated long before the span of the labels, delivered after the last of them.
    late = [{**event, "id": f"late-{i}"} for i, event in enumerate(helpers.history()[:100])]
    app.ingest(late)
    assert same((labels, data), built(app, stop - DAY, stop))


def test_an_event_known_before_a_label_does_change_what_it_sees(tmp_path: Path) -> None:
    # Otherwise the two tests above would pass for rows that see nothing at all.
    found = []
    for name, extra in (("plain", False), ("more", True)):
        folder = tmp_path / name
        folder.mkdir()
        with helpers.load_app(folder) as app:
            history = helpers.history()
            if extra:
                history.insert(0, {**history[-1], "id": "early", "time": history[0]["time"]})
            app.ingest(history)
            stop = newest(app) + 1
            found.append(built(app, stop - DAY, stop)[1].rows)
    assert found[0].tobytes() != found[1].tobytes()


def test_a_label_is_not_in_its_own_features(app: ps.App) -> None:
    history = helpers.history()
    fresh = {"stream": "action", "id": "first-ever", "time": helpers.next_time(history, 5.0)}
    app.ingest([*history, {**fresh, "user": "nobody-before", "item": history[0]["item"], "kind": "view"}])
    labels, data = built(app, newest(app), newest(app) + 1)
    assert len(labels) == 1
    names = recipe_of(app).assembler.names
    for name in ("Shopper.actions", "Interest.actions"):
        column = data.rows[:, names.index(name)]
        assert np.nan_to_num(column).tolist() == [0.0] * len(column), name


def fitted(app: ps.App, **rank: Any) -> tuple[Trained, Path]:
    recipe = recipe_of(app)
    changed = replace(recipe, rank=replace(recipe.rank, **rank))
    folder = app.home / "releases"
    log = app.open().log
    return train(changed, log, folder, app="small", log_id=log.id), folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ps.App, Trained, Path]]:
    with helpers.load_app(tmp_path_factory.mktemp("run")) as app:
        app.ingest(helpers.history())
        yield app, *fitted(app)


def test_the_comparison_holds_the_plain_baselines_and_their_order_of_complexity(
    run: tuple[ps.App, Trained, Path],
) -> None:
    rows = {row["name"]: row for row in run[1].report["candidates"]}
    labels = [source.label for source in recipe_of(run[0]).sources]
    assert set(labels) | {ps.session_neighbours("recent").label, "lambdarank"} == set(rows)
    assert any("popular" in label for label in labels)
    assert "covisits" in labels
    assert run[1].chosen in rows


def test_a_release_holds_its_report_for_people_and_for_machines(run: tuple[ps.App, Trained, Path]) -> None:
    _, trained, folder = run
    release = folder / trained.release
    report = json.loads((release / "report.json").read_text())
    assert report["chosen"] == trained.chosen
    assert report["data"]["valid_labels"] > 100
    assert 0 < report["data"]["candidate_recall"] <= 1
    page = (release / "report.html").read_text()
    assert trained.chosen in page
    assert "MRR@20" in page
    for name in ("manifest.json", "recipe.json", "baseline.json", "defaults.npy", "warmup.json"):
        assert (release / name).is_file(), name


def mrr_of(report: Any) -> dict[str, float]:
    return {row["name"]: row["scores"]["mrr"]["mean"] for row in report["candidates"]}


@pytest.mark.parametrize("tolerance", [0.0, 0.3, 0.99])
def test_the_simplest_ranker_within_the_tolerance_is_chosen(app: ps.App, tolerance: float) -> None:
    app.ingest(helpers.history())
    trained, _ = fitted(app, tolerance=tolerance)
    means = mrr_of(trained.report)
    best = max(means.values())
    complexity = {row["name"]: row["complexity"] for row in trained.report["candidates"]}
    close = [name for name, mean in means.items() if mean >= best * (1 - tolerance) - 1e-12]
    assert trained.chosen == min(close, key=lambda name: complexity[name])


def model_of(trained: Trained, folder: Path) -> Any:
    return json.loads((folder / trained.release / "manifest.json").read_text())["model"]


def test_a_source_that_is_chosen_is_what_the_release_runs(app: ps.App) -> None:
    app.ingest(helpers.history())
    trained, folder = fitted(app, tolerance=0.99)
    sources = [source.label for source in recipe_of(app).sources]
    assert model_of(trained, folder) == {"model": "source", "place": sources.index(trained.chosen)}


def test_a_baseline_that_the_recipe_lacks_is_released_when_it_is_chosen(app: ps.App) -> None:
    app.ingest(helpers.history())
    trained, folder = fitted(app, tolerance=0.0)
    assert (trained.chosen == "lambdarank") == (model_of(trained, folder)["model"] == "trees")


def test_equal_data_gives_an_equal_model(app: ps.App) -> None:
    app.ingest(helpers.history())
    models = []
    for _ in range(2):
        trained, folder = fitted(app, tolerance=0.0)
        models.append(json.loads((folder / trained.release / "manifest.json").read_text())["files"].get("model.txt"))
    assert models[0] == models[1]


def test_events_beyond_until_are_not_learned_from(app: ps.App) -> None:
    app.ingest(helpers.history())
    log = app.open().log
    short = train(recipe_of(app), log, app.home / "releases", app="small", log_id=log.id, until=log.end // 2)
    assert short.report["data"]["events"] == log.end // 2


def gappy(folder: Path, days: list[int], each: int = 60) -> ps.App:
    """An app whose shoppers came on these days only, `each` times a day."""
    app = helpers.load_app(folder)
    app.ingest(
        {
            "time": helpers.rfc3339(day * DAY + n * 10 * MINUTE + 1_767_225_600_000_000), "id": f"{day}-{n}",
            "user": f"u{n % 7}", "item": f"i{n * n % 11}", "kind": "view",
        }
        for day in days for n in range(each)
    )  # fmt: skip
    return app


def test_days_without_events_are_passed_over(tmp_path: Path) -> None:
    """A shop that was closed for nine days before the last one learns from the days before those."""
    with gappy(tmp_path, [0, 1, 2, 3, 4, 5, 15]) as app:
        report = app.train().report
    assert report["data"]["valid_labels"] == 60
    assert report["data"]["train_labels"] >= 60


def test_a_history_of_one_moment_is_told_with_the_remedy(tmp_path: Path) -> None:
    """Where there is nothing to learn from before what chooses, the message says what to do."""
    with gappy(tmp_path, [0], each=1) as app, pytest.raises(ReleaseError, match="ingest more history"):
        app.train()


def test_a_newest_span_without_the_goal_is_told_with_a_wider_one(tmp_path: Path) -> None:
    """The message says which span is empty and what to write in the app file; written so, it trains."""
    with gappy(tmp_path, list(range(20))) as app:
        late = {"user": "u1", "item": "i1", "kind": "cart", "time": helpers.rfc3339(22 * DAY + 1_767_225_600_000_000)}
        app.ingest([late])
        with pytest.raises(ReleaseError) as refused:
            app.train()
        assert 'valid="3d"' in str(refused.value)
        assert refused.value.got.startswith("none between 2026-01-22")
        home = app.decisions["home"]
        rank = replace(home.recipe.rank, valid="3d", labels="6d")
        app.decisions["home"] = replace(home, recipe=replace(home.recipe, rank=rank))
        assert app.train().release


def test_an_empty_log_and_a_goal_that_never_happens_are_refused(app: ps.App) -> None:
    with pytest.raises(ReleaseError, match="empty log"):
        fitted(app)
    app.ingest(helpers.history())
    with pytest.raises(ReleaseError, match="goal"):
        fitted(app, goal="never")


# Learning from what was shown


def serving(app: ps.App) -> str | None:
    return app.decide("home", user="anyone").release


def shop_and_click(app: ps.App, decisions: int, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Asks for decisions; every other shopper then views the second item of their list, 10 s later.

    Gives for each decision its id, the items shown, what the model scored of each, and the item viewed.
    """
    scored: list[tuple[Any, Any]] = []
    release = read(app.home / "releases", str(serving(app)))
    score = type(release.model).score

    def spy(self: Model, rows: Any, candidates: Any, *more: Any) -> Any:
        scored.append((rows, candidates))
        return score(self, rows, candidates, *more)

    monkeypatch.setattr(type(release.model), "score", spy)
    users = sorted({event["user"] for event in helpers.history()})
    out = []
    log = app.open().log
    for i in range(decisions):
        user = users[i % len(users)]
        answer = app.decide("home", user=user)
        assert answer.tier == "personal"
        rows, candidates = scored[-1]
        shown = [log.strings.code(item.id) for item in answer.items]
        place = [candidates.items.tolist().index(code) for code in shown]
        viewed = answer.items[1].id if i % 2 else "p-00001"
        event = {"user": user if i % 2 else "nobody", "item": viewed, "kind": "view", "stream": "action"}
        app.ingest([{**event, "id": f"shown-{i}", "time": helpers.next_time(helpers.history(), 10.0 * (i + 1))}])
        out.append(
            {"id": answer.decision_id, "shown": shown, "rows": rows[place], "viewed": shown[1] if i % 2 else None}
        )
    app.open().decisions.flush()
    return out


def test_what_was_shown_is_learned_from_with_the_very_numbers_that_serving_scored(
    app: ps.App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes of float32 rows, and positives exactly where the shopper viewed the item inside the window."""
    app.ingest(helpers.history())
    release = read(app.home / "releases", app.train().release)
    recipe = release.recipe
    served = shop_and_click(app, 40, monkeypatch)
    log = app.open().log
    shown = impressions(app.open().decisions.read("home"), recipe, log.strings)
    replay = Replay(recipe, log.read(0, log.end), log.strings)
    data = replay.judge(shown, release.indexes, window=HOUR, as_of=log.newest + 2 * HOUR)
    useful = [one for one in served if one["viewed"] is not None]
    assert len(useful) == len(data.groups) == 20
    edges = np.r_[0, np.cumsum(data.groups)]
    for one, start, stop in zip(useful, edges, edges[1:], strict=False):
        assert data.rows[start:stop].tobytes() == one["rows"].tobytes()
        assert data.positive[start:stop].tolist() == [code == one["viewed"] for code in one["shown"]]


def test_a_ranker_of_what_was_shown_needs_decisions_and_then_learns_from_those_with_an_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = 'goal="view", examples="shown", window="1h", '
    text = helpers.APP.replace('goal="view", ', shown).replace(
        'valid="1d", labels="2d"', 'valid="5min", labels="10min"'
    )
    with helpers.load_app(tmp_path, text, name="early.py", home="early") as early:
        early.ingest(helpers.history())
        with pytest.raises(ReleaseError, match=r"decisions of home of which something came; got none.*serve decisions"):
            early.train()
    with helpers.trained(tmp_path) as app:
        served = shop_and_click(app, 60, monkeypatch)
        times = {one.id: one.time for one in app.open().decisions.read("home")}
    with helpers.load_app(tmp_path, text, name="shown.py") as app:
        end = app.open().log.newest + 1
        report = app.train(promote=False).report
    learned = [one for one in served if one["viewed"] and end - 15 * MINUTE <= times[one["id"]] < end - 5 * MINUTE]
    assert len(learned) > 10
    assert report["data"]["train_labels"] == len(learned)
