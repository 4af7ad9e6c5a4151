"""The scorer's scores are LightGBM's, to the last bit, on values of every kind; where it cannot, LightGBM scores."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from penstock.learn import Candidates, Trees, load, scorer
from penstock.learn.scorer import Scorer

Rows = NDArray[np.float32]
COLUMNS = 6
TINY = np.float32(1e-35)
ODD = [0.0, -0.0, np.nan, np.inf, -np.inf, TINY, -TINY, 1e-44, -1e-36, np.finfo(np.float32).max, 2e-35, -2e-35]
NOBODY: Any = Candidates.__new__(Candidates)


def drawn(rows: int, seed: int, missing: float = 0.2) -> Rows:
    draw = np.random.default_rng(seed)
    found = draw.normal(size=(rows, COLUMNS)).astype(np.float32)
    found[:, 1] = draw.poisson(2, rows)
    found[:, 2] = np.where(draw.random(rows) < 0.5, 0, found[:, 2])
    found[draw.random(found.shape) < missing] = np.nan
    return found


def fitted(leaves: int = 31, trees: int = 20, missing: float = 0.2, seed: int = 1, **more: Any) -> lightgbm.Booster:
    rows = drawn(3_000, seed, missing)
    known = np.nan_to_num(rows)
    label = (known[:, 0] * known[:, 2] + np.sin(3 * known[:, 3]) + (known[:, 1] > 2) + np.isnan(rows[:, 4]) > 0.7) * 1
    parameters = {
        "objective": "lambdarank",
        "num_leaves": leaves,
        "min_data_in_leaf": 5,
        "min_sum_hessian_in_leaf": 0.001,
    }
    data = lightgbm.Dataset(rows, label, group=np.full(150, 20))
    return lightgbm.train({**parameters, "verbose": -1, "num_threads": 1, "seed": seed, **more}, data, trees)


MODELS: dict[str, dict[str, Any]] = {
    "none missing": {"missing": 0.0},
    "some missing": {},
    "zero is missing": {"zero_as_missing": True},
    "missing is zero": {"use_missing": False},
    "few leaves": {"leaves": 7},
    "up to 16 leaves": {"leaves": 16},
    "exactly 64 leaves": {"leaves": 64},
    "65 leaves": {"leaves": 65},
    "200 leaves": {"leaves": 200},
    "one tree": {"trees": 1},
    "trees of one leaf": {"min_data_in_leaf": 1_000_000},
    "a sum of squares": {"objective": "regression"},
    "an unused column": {"feature_fraction": 0.5, "trees": 2},
    "many thresholds": {"max_bin": 3_000, "leaves": 60},
}
BOOSTERS = {name: fitted(**more) for name, more in MODELS.items()}


LASTING = (0, 2, 3, 5)


def covered(booster: lightgbm.Booster, lasting: tuple[int, ...] = ()) -> Scorer:
    found = Scorer.of(booster, lasting)
    assert found is not None
    return found


SCORERS = {name: covered(booster) for name, booster in BOOSTERS.items()}
KEEPING = {name: covered(booster, LASTING) for name, booster in BOOSTERS.items()}


def thresholds(booster: lightgbm.Booster) -> NDArray[np.float64]:
    lines = re.findall(r"^threshold=(.*)$", booster.model_to_string(), re.MULTILINE)
    return np.array([float(text) for line in lines for text in line.split()])


def editions(rows: Rows) -> NDArray[np.int64]:
    """Numbers that tell the lasting columns' values apart."""
    kept = np.ascontiguousarray(rows[:, LASTING]).view(np.uint32)
    return np.array([[EDITIONS.setdefault(row.tobytes(), len(EDITIONS))] for row in kept], np.int64).reshape(-1, 1)


EDITIONS: dict[bytes, int] = {}


def same(name: str, rows: Rows) -> None:
    expected = np.asarray(BOOSTERS[name].predict(rows, num_threads=1))
    assert SCORERS[name].score(rows).tobytes() == expected.tobytes()
    # At first and again, from what was kept.
    for _ in range(2):
        assert KEEPING[name].score(rows, editions(rows)).tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", MODELS)
class TestEachModel:
    def test_scores_are_the_boosters_bit_by_bit(self, name: str) -> None:
        same(name, drawn(700, 2))
        same(name, drawn(200, 3, missing=0.0))

    def test_odd_values_are_read_as_the_booster_reads_them(self, name: str) -> None:
        for column in range(COLUMNS):
            rows = np.repeat(drawn(3, 4), len(ODD), axis=0)
            rows[:, column] = np.tile(np.array(ODD, np.float32), 3)
            same(name, rows)
        same(name, np.array(list(itertools.product(ODD[:6], repeat=2)), np.float32)[:, [0, 1, 0, 1, 0, 1]])

    def test_ties_at_a_threshold_and_its_neighbours_go_the_boosters_way(self, name: str) -> None:
        cuts = np.r_[thresholds(BOOSTERS[name]), 0.0].astype(np.float32)[:300]
        ends = np.float32(np.inf)
        values = np.r_[cuts, np.nextafter(cuts, ends), np.nextafter(cuts, -ends)]
        for seed in range(3):
            same(name, np.random.default_rng(seed).choice(values, size=(1_000, COLUMNS)))

    def test_columns_that_do_not_vary_change_nothing(self, name: str) -> None:
        for kept in range(COLUMNS + 1):
            rows = drawn(60, 5)
            rows[:, kept:] = rows[0, kept:]
            same(name, rows)

    def test_any_number_of_rows(self, name: str) -> None:
        for rows in (0, 1, 2, 3, 255, 256, 257, 513):
            if rows:
                same(name, drawn(rows, rows))
        assert SCORERS[name].score(drawn(0, 1)).shape == (0,)

    def test_rows_in_any_layout_of_memory(self, name: str) -> None:
        rows = drawn(120, 6)
        wide = np.c_[rows, rows]
        for laid in (np.asfortranarray(rows), wide[:, COLUMNS:], rows[::-1], rows[::3]):
            same(name, laid)


@settings(deadline=None, max_examples=60)
@given(name=st.sampled_from(sorted(MODELS)), data=st.data())
def test_any_floats_score_as_the_booster_scores_them(name: str, data: st.DataObject) -> None:
    value = st.one_of(st.floats(width=32), st.sampled_from(ODD).map(float))
    row = st.lists(value, min_size=COLUMNS, max_size=COLUMNS)
    same(name, np.array(data.draw(st.lists(row, min_size=1, max_size=30)), np.float32))


def test_what_is_kept_is_bounded_and_taken_for_rows_that_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, name = drawn(100, 8), "some missing"
    expected = np.asarray(BOOSTERS[name].predict(rows, num_threads=1))
    monkeypatch.setattr(scorer, "_MOST_KEPT", 250 * 20 * 4)  # 250 rows of 20 trees with up to 32 leaves
    found = covered(BOOSTERS[name], LASTING)
    for seed in range(5):
        found.score(drawn(100, seed), editions(drawn(100, seed)))
        assert len(found._kept._places) <= 250
    assert found.score(rows, editions(rows)).tobytes() == expected.tobytes()
    found._kept._table[:] = found._all  # as if no split of these columns cleared a leaf
    assert found.score(rows, editions(rows)).tobytes() != expected.tobytes()


def test_the_models_of_these_tests_are_what_their_names_say() -> None:
    kinds = {}
    for name, booster in BOOSTERS.items():
        text = booster.model_to_string()
        lines = re.findall(r"^decision_type=(.*)$", text, re.MULTILINE)
        kinds[name] = {int(kind) for line in lines for kind in line.split()}
    assert {kind >> 2 for kind in kinds["missing is zero"]} == {0}
    assert 1 in {kind >> 2 for kind in kinds["zero is missing"]}
    assert 2 in {kind >> 2 for kind in kinds["some missing"]}
    assert {kind & 2 for kind in kinds["some missing"]} == {0, 2}
    assert not kinds["trees of one leaf"]
    assert [SCORERS[name].table.dtype for name in ("few leaves", "up to 16 leaves", "exactly 64 leaves")] == [
        np.uint8, np.uint16, np.uint64,
    ]  # fmt: skip
    assert SCORERS["exactly 64 leaves"].table.shape[1] == 20
    assert SCORERS["65 leaves"].table.shape[1] > 20
    assert SCORERS["200 leaves"].table.shape[1] > 3 * 20
    assert len(np.unique(thresholds(BOOSTERS["many thresholds"]))) > 256


def test_a_threshold_that_float32_cannot_hold_is_compared_as_it_stands() -> None:
    text = re.sub(r"^tree_sizes=.*\n", "", fitted(leaves=2, trees=1).model_to_string(), flags=re.M)
    limit = float(np.float32(0.1))
    near = np.array([np.nextafter(limit, 0), limit, np.nextafter(limit, 1), np.nextafter(np.float32(limit), 1)])
    for cut in (*near.tolist(), 0.1, 1e300, -1e300, 1e-40, -1e-40, 5e-36, float(TINY), -float(TINY), 2e-35):
        booster = lightgbm.Booster(model_str=re.sub(r"^threshold=.*$", f"threshold={cut!r}", text, flags=re.M))
        assert thresholds(booster).tolist() == [cut]
        rows = np.repeat(np.r_[near, ODD].astype(np.float32)[:, None], COLUMNS, axis=1)
        assert covered(booster).score(rows).tobytes() == np.asarray(booster.predict(rows)).tobytes()


def test_what_is_not_a_plain_sum_of_plain_splits_is_left_to_the_booster() -> None:
    rows = drawn(3_000, 1, missing=0.0)
    rows[:, 1] %= 5
    label = (rows[:, 0] > 0) * 1 + (rows[:, 1] == 3)
    plain = {"verbose": -1, "num_threads": 1}
    others: list[dict[str, Any]] = [
        {"objective": "binary"},
        {"objective": "multiclass", "num_class": 3},
        {"objective": "regression", "reg_sqrt": True},
        {"objective": "regression", "linear_tree": True},
        {"objective": "regression", "categories": [1]},
        {"objective": "regression", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
    ]
    for more in others:
        target = label > 0 if more["objective"] == "binary" else label
        categories = more.pop("categories", [])
        data = lightgbm.Dataset(rows, target, categorical_feature=categories)
        booster = lightgbm.train({**plain, **more}, data, 5)
        assert Scorer.of(booster) is None, more
        if "num_class" not in more:
            assert (Trees(booster).score(rows[:50], NOBODY) == booster.predict(rows[:50], num_threads=1)).all()


def test_tables_that_would_be_too_large_are_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    table = SCORERS["some missing"].table
    monkeypatch.setattr(scorer, "_MOST_BYTES", table.nbytes)
    assert Scorer.of(BOOSTERS["some missing"]) is not None
    monkeypatch.setattr(scorer, "_MOST_BYTES", table.nbytes - 1)
    assert Scorer.of(BOOSTERS["some missing"]) is None


def test_a_model_scores_alike_before_it_is_saved_and_after_it_is_loaded(tmp_path: Path) -> None:
    trees = Trees(BOOSTERS["some missing"])
    again = load(tmp_path, trees.save(tmp_path))
    rows = drawn(200, 8)
    assert trees.score(rows, NOBODY).tobytes() == again.score(rows, NOBODY).tobytes()


def test_requests_are_scored_without_the_booster(monkeypatch: pytest.MonkeyPatch) -> None:
    trees = Trees(BOOSTERS["some missing"])
    asked: list[int] = []

    def predict(self: lightgbm.Booster, rows: Rows, **_: Any) -> NDArray[np.float64]:
        asked.append(len(rows))
        return np.zeros(len(rows))

    monkeypatch.setattr(lightgbm.Booster, "predict", predict)
    for rows in (0, 1, 200, 5_000):
        assert trees.score(drawn(rows, 9), NOBODY).shape == (rows,)
    # A handful is sooner done by the booster, which also answers for what is not float32.
    assert asked == [1]
    trees.score(drawn(200, 9).astype(np.float64), NOBODY)
    assert asked == [1, 200]


def test_rows_of_another_width_are_refused_as_the_booster_refuses_them() -> None:
    with pytest.raises(lightgbm.basic.LightGBMError, match="number of features"):
        Trees(BOOSTERS["some missing"]).score(drawn(200, 9)[:, :4], NOBODY)
