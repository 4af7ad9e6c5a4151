"""Each event is drawn with the stated probability, whatever the order, the split and the size of its stratum."""

from __future__ import annotations

import numpy as np
import pytest

import penstock.aggregates as ps
from penstock.clock import SECOND
from penstock.engines import StreamEngine
from penstock.events.rows import RowsLog
from penstock.features import View
from penstock.features.records import decode, merged
from penstock.stores import MemoryStore
from penstock.types import Array, Field, Rows, Schema

SCHEMA = Schema("shown", (Field("stratum", "text", False), Field("item", "text", False)))
COMMON, RARE, ALONE = 1, 2, 3


def state_of(sample: ps.Sample, codes: Array, tie: Array) -> Array:
    return sample.collect(codes.astype(np.uint32), np.zeros(len(codes), np.int64), tie, np.zeros(1, np.int64))


def ids(random: np.random.Generator, n: int) -> Array:
    return random.integers(0, 2**64, n, dtype=np.uint64)


@pytest.mark.parametrize("consecutive", [False, True])
def test_every_event_is_drawn_with_the_stated_probability(consecutive: bool) -> None:
    """k / N each, within five standard errors over 2,000 draws of 5 among 40; even of ids that are consecutive."""
    sample, drawn, times = ps.sample("item", k=5), np.zeros(41), 2_000
    random = np.random.default_rng(11)
    for i in range(times):
        tie = np.arange(40, dtype=np.uint64) + np.uint64(40 * i) if consecutive else ids(random, 40)
        state = state_of(sample, np.arange(1, 41), tie)
        drawn[state["code"][0]] += 1
        assert sample.inclusion(state).tolist() == [5 / 40]
    assert np.abs(drawn[1:] - times / 8).max() < 5 * np.sqrt(times / 8 * 7 / 8)
    assert drawn[0] == 0


def test_what_is_not_there_has_no_weight() -> None:
    """Fewer events than places stand for themselves alone."""
    sample = ps.sample("item", k=4)
    state = state_of(sample, np.array([1, 1, 2]), ids(np.random.default_rng(1), 3))
    assert sample.weights(state).tolist() == [[1.0, 1.0, 1.0, 0.0]]
    assert sample.weights(sample.empty(1)).tolist() == [[0.0] * 4]


def test_samples_of_other_seeds_are_others() -> None:
    tie = ids(np.random.default_rng(3), 1_000)
    codes = np.arange(1, 1_001)
    one, same, other = (
        set(state_of(ps.sample("item", k=50, seed=s), codes, tie)["code"][0].tolist()) for s in (1, 1, 2)
    )
    assert one == same
    assert len(one & other) < 15


def test_weighted_sums_are_unbiased() -> None:
    """Over 400 draws the mean of sum(value times weight) is the sum of all values, within five standard errors."""
    random = np.random.default_rng(5)
    sample, codes = ps.sample("item", k=30), random.integers(1, 1_000, 500)
    found = []
    for _ in range(400):
        state = state_of(sample, codes, ids(random, 500))
        found.append(float((state["code"][0] * sample.weights(state)[0]).sum()))
    assert abs(np.mean(found) - codes.sum()) < 5 * np.std(found) / np.sqrt(len(found))


def test_a_stratum_that_is_rare_and_late_is_drawn_in_full() -> None:
    """100,000 events of one stratum, one of another, and a third that is first seen in the last batch.

    Each has its own places and weights, in whatever batches and order the events came.
    """
    random = np.random.default_rng(9)
    n = 100_000
    stratum = np.full(n + 4, COMMON)
    stratum[70_000], stratum[n + 1 :] = RARE, ALONE
    fields = np.zeros(n + 4, SCHEMA.dtype)
    fields["stratum"], fields["item"] = stratum, 10 + np.arange(n + 4)
    time = SECOND * (1_000 + np.arange(n + 4))
    time[n + 1 :] = SECOND * np.array([5, 1, 3])  # of long ago
    rows = Rows("shown", np.arange(n + 4), time, time, np.full(n + 4, time.max()), ids(random, n + 4), fields)
    view = View("Strata", ("stratum",), {"drawn": ps.sample("item", k=200)}, SCHEMA)
    records = []
    for batch in (7_001, 40_000):
        store = MemoryStore()
        StreamEngine(RowsLog({"shown": rows}, None), store, [view]).catch_up(batch=batch)  # type: ignore[arg-type]
        with store.snapshot() as snapshot:
            records.append(snapshot.get(view.version, [view.key([code]) for code in (COMMON, RARE, ALONE)]))
    assert records[0] == records[1]
    states, _ = merged(view, decode(view, records[0]), np.full(3, int(time.max())))
    state, sample = states["drawn"], ps.sample("item", k=200)
    assert state["count"].tolist() == [n, 1, 3]
    assert (state["code"] > 0).sum(axis=1).tolist() == [200, 1, 3]
    assert sample.inclusion(state).tolist() == [200 / n, 1.0, 1.0]
    assert sample.weights(state).sum(axis=1).round(6).tolist() == [n, 1, 3]
    # A late half of the common stratum is drawn as often as an early one.
    early = (state["code"][0] < 10 + n // 2).sum()
    assert 65 < early < 135
    everything = state_of(sample, fields["item"][stratum == COMMON], rows.tie[stratum == COMMON])
    assert everything["code"].tobytes() == state["code"][:1].tobytes()
