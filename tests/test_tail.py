"""The benchmark of rare queries measures what it says: its world's truth, its deciles, and what each row changes."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
from benchmarks import tail
from benchmarks._tail import world as shop
from benchmarks._tail.world import World, world

from penstock.learn.two_tower import Bags, Pairs


@pytest.fixture(scope="module")
def drawn() -> World:
    return world(3)


def test_a_world_is_the_same_for_the_same_seed_and_another_for_another(drawn: World) -> None:
    again, other = world(3), world(4)
    assert np.array_equal(again.clicks.item, drawn.clicks.item)
    assert np.array_equal(again.relevant, drawn.relevant)
    assert not np.array_equal(other.clicks.item[:100], drawn.clicks.item[:100])


def test_clicks_follow_relevance_popularity_and_the_zipf_law(drawn: World) -> None:
    """Most clicks are on what is relevant or near it and some astray, none on dead stock; the first tenth of the
    queries gets most of them, and within one query clicks are far from even."""
    relevant = drawn.relevant[drawn.clicks.query, drawn.clicks.item]
    assert 0.4 < relevant.mean() < 0.95
    items = np.bincount(drawn.clicks.item, minlength=len(drawn.items))
    assert shop.DEAD <= (items == 0).mean() < shop.DEAD + 0.1
    asked = np.sort(np.bincount(drawn.clicks.query, minlength=shop.QUERIES))[::-1]
    assert asked[: shop.QUERIES // 10].sum() > 0.6 * len(drawn.clicks)
    many = np.where(drawn.relevant.sum(axis=1) >= 10, np.bincount(drawn.clicks.query, minlength=shop.QUERIES), 0)
    mine = np.bincount(drawn.clicks.item[drawn.clicks.query == many.argmax()], minlength=len(drawn.items))
    mine = mine[drawn.relevant[many.argmax()]]
    assert mine.max() > 3 * max(np.median(mine), 1)


def test_queries_and_items_are_told_apart_and_every_code_has_a_row(drawn: World) -> None:
    """Ids are different, codes lie below the towers' sizes, and every query that is asked has something relevant."""
    for bags, size in zip((drawn.queries, drawn.items), drawn.codes, strict=True):
        ids = bags.codes[bags.starts[:-1]]
        assert len(set(ids.tolist())) == len(bags)
        assert 0 < bags.codes.min() <= bags.codes.max() < size
    assert (drawn.relevant.any(axis=1) == (drawn.frequency > 0)).all()


def test_recall_and_ndcg_by_decile_are_those_of_a_loop() -> None:
    """Query by query; those that nobody asks are in no decile."""
    random = np.random.default_rng(0)
    queries, items = 43, 120
    relevant = random.random((queries, items)) < random.choice([0.02, 0.6], (queries, 1))
    relevant[:, 0] = True
    frequency = random.permutation(queries) + 1.0
    frequency[[4, 9, 11]] = 0.0
    none = Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64))
    bags = Bags.of([[1]] * queries)
    found = np.argsort(random.random((queries, items)), axis=1)[:, :50]
    recall, ndcg = tail.by_decile(World(bags, bags, (2, 2), relevant, frequency, none, none), found)
    asked = sorted((q for q in range(queries) if frequency[q]), key=lambda q: frequency[q])
    for decile in range(10):
        each = asked[decile * 4 : decile * 4 + 4]
        recalls, gains = [], []
        for q in each:
            right = set(np.flatnonzero(relevant[q]).tolist())
            line = found[q].tolist()
            recalls.append(len(right & set(line)) / min(len(right), 50))
            ideal = sum(1 / np.log2(place + 2) for place in range(min(10, len(right))))
            gains.append(sum(1 / np.log2(p + 2) for p, item in enumerate(line[:10]) if item in right) / ideal)
        assert recall[decile] == pytest.approx(np.mean(recalls))
        assert ndcg[decile] == pytest.approx(np.mean(gains))


def test_each_row_changes_one_thing_and_keeps_those_before_it() -> None:
    """Of the course above it; the standard one has none of the changes."""
    found = tail.courses()
    assert list(found) == ["standard", *tail.CHANGES, "margin"]
    above = found["standard"]
    for name, what in tail.CHANGES.items():
        assert found[name] == replace(above, **what)
        assert found[name] != above
        above = found[name]
    changed = {name for name, value in asdict(found["margin"]).items() if value != asdict(above)[name]}
    assert changed <= {"loss"}
    assert type(found["margin"].loss) is not type(above.loss)
    standard = found["standard"]
    assert (standard.log_q, standard.masked, standard.uniform, standard.mined) == (False, False, 0, 0)
    assert (standard.alike, standard.cold) == (1.0, 0.0)


def test_the_result_is_what_the_rows_say() -> None:
    """Tail and head before and after, their relative change, and each row against the one above it."""

    def judged(low: float, high: float) -> tail.Judged:
        recall = np.tile(np.r_[np.full(3, low), np.full(6, 0.5), high], (2, 1))
        return tail.Judged(recall, recall / 2, np.array([0.1, 0.2]), {"anisotropy": 0.3, "collision": 0.0}, 1.0)

    rows = {name: [judged(0.5, 0.8), judged(0.4, 0.9)] for name in tail.courses()}
    rows["uniform"] = [judged(0.6, 0.8), judged(0.6, 0.9)]
    last = list(tail.CHANGES)[-1]
    rows[last] = [judged(0.75, 0.88), judged(0.6, 0.9)]
    found = tail.result(rows, 1.0)
    assert isinstance(found.detail, dict)
    assert found.detail["tail_recall_before"] == 0.45
    assert found.detail["tail_recall_after"] == 0.675
    assert found.ratio == 1.5
    assert found.detail["head_change"] == pytest.approx(0.05)
    assert found.detail["tail_change"][0] == 0.5
    uniform = found.detail["changes"]["uniform"]
    assert uniform["tail_change"][0] == pytest.approx((0.6 / 0.5 + 0.6 / 0.4) / 2 - 1)
    assert uniform["against"] == "known_right_hidden"
    assert found.detail["changes"]["margin"]["against"] == last
