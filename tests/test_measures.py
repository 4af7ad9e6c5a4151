"""What followed each held-out decision is counted, and decisions are split by what their requests carried."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime

import numpy as np
import pytest

import helpers
import penstock as ps
from penstock.clock import HOUR
from penstock.errors import DefinitionError
from penstock.evaluate import query_type
from penstock.learn import Labels, Replay
from penstock.releases.measures import goals_of, slices_of

QUERIES = ["", "kettle", "steel kettle", "wk-300"]
TEXT = (
    helpers.APP.replace(
        "    kind: str\n", "    kind: str\n    query: str | None = None\n    country: str | None = None\n"
    )
    .replace("budget=", 'context=["query", "country"], budget=')
    .replace('goal="view", trees=10', 'goal="cart", window="6h", metric="goals", trees=10')
)


def asked() -> list[dict[str, object]]:
    """The history, with what was searched for and from where, and more carts, so that several follow one another."""
    out = []
    for i, event in enumerate(helpers.history()):
        more = {"query": QUERIES[i % 4], "country": "de" if i % 3 else "at"}
        more = {name: value for name, value in more.items() if value}
        out.append({**event, **more, "kind": "cart" if i % 4 else event["kind"]})
    return out


Opened = tuple[ps.App, Replay, Labels]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """The log and the carts of its last twelve hours."""
    with helpers.load_app(tmp_path_factory.mktemp("measures"), TEXT) as app:
        app.ingest(asked())
        log = app.open().log
        replay = Replay(app.decisions["home"].recipe, log.read(0, log.end), log.strings)
        yield app, replay, replay.labels(log.newest - 12 * HOUR, log.newest + 1)


def test_goals_are_the_items_that_the_shopper_took_within_the_window_from_the_decision_on(opened: Opened) -> None:
    """Held against a loop over the events as they were sent."""
    _, replay, labels = opened
    goals = goals_of(replay, labels)
    text = replay.strings.text
    found = [Counter(text(code) for code in goals.item[goals.owner == i].tolist()) for i in range(len(labels))]
    sent = [
        (i, event["user"], event["item"], int(datetime.fromisoformat(str(event["time"])).timestamp() * 1e6))
        for i, event in enumerate(asked()) if event["kind"] == "cart"
    ]  # fmt: skip
    for i in range(len(labels)):
        user, known, now = text(int(labels.asks.key[i])), int(labels.asks.known[i]), int(labels.asks.now[i])
        plain = Counter(item for at, who, item, time in sent if who == user and at >= known and time <= now + 6 * HOUR)
        assert found[i] == plain
        assert text(int(labels.item[i])) in plain
    assert max(len(one) for one in found) > 1


def test_decisions_are_split_by_every_field_of_their_context(opened: Opened) -> None:
    """The query by its kind and how often it was asked, the country by its value, items by how often they were seen."""
    _, replay, labels = opened
    slices = slices_of(replay, labels)
    assert set(slices) == {
        "user activity", "item popularity", "item frequency", "query type", "query frequency", "country",
    }  # fmt: skip
    events = asked()
    before = int(labels.asks.known[0])
    seen = Counter(event["item"] for event in events[:before])
    for i, known in enumerate(labels.asks.known.tolist()):
        event = events[known]  # the label's own
        assert slices["country"][i] == event["country"]
        assert slices["query type"][i] == query_type(str(event.get("query", "")))
        bounds = [int(word) for word in re.findall(r"\d+", slices["item frequency"][i])][1:]
        assert bounds[0] <= seen[event["item"]] <= bounds[-1]


def test_training_can_choose_by_goals(opened: Opened) -> None:
    """The report's metric is what the ranker names, and every candidate has its figure."""
    app, *_ = opened
    report = app.train(promote=False).report
    assert report["metric"] == "goals"
    means = {row["name"]: row["scores"]["goals"]["mean"] for row in report["candidates"]}
    assert report["best"] == max(means, key=lambda name: means[name])
    assert "goals a list@20" in report["reason"]


def test_sources_cost_what_they_took_and_the_ranker_what_all_took(opened: Opened) -> None:
    """Fitting and finding are timed by source; the ranker needs every source's candidates."""
    app, *_ = opened
    rows = {row["name"]: row for row in app.train(promote=False).report["candidates"]}
    assert rows["covisits"]["train_seconds"] > 0
    assert rows["covisits"]["find_ms_p50"] > 0
    assert rows["lambdarank"]["train_seconds"] > sum(rows[name]["train_seconds"] for name in ("covisits", "seen"))
    assert rows["lambdarank"]["find_ms_p50"] > rows["covisits"]["find_ms_p50"]


def test_a_metric_that_is_not_known_is_refused() -> None:
    """With those that are."""
    with pytest.raises(DefinitionError, match="mrr, ndcg, hit_rate or goals"):
        ps.LambdaRank(goal="buy", metric="auc")  # type: ignore[arg-type]


def test_a_dataset_keeps_rows_with_their_requests(opened: Opened) -> None:
    """Rows, owners and positives of what is kept, counts and candidates by request, empty ones included."""
    _, replay, labels = opened
    held = replay.build(labels, replay.fit(int(labels.asks.known[0])))
    which = np.random.default_rng(1).random(len(held.rows)) < 0.3
    which[held.owner == 1] = False
    found = held.keep(which)
    assert found.rows.tobytes() == held.rows[which].tobytes()
    assert found.positive.tolist() == held.positive[which].tolist()
    assert found.groups.tolist() == [int(which[held.owner == i].sum()) for i in range(len(held.groups))]
    items = np.concatenate([one.items for one in held.candidates])
    assert np.concatenate([one.items for one in found.candidates]).tolist() == items[which].tolist()
    assert len(found.candidates[1].items) == 0
