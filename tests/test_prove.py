"""Engines, stores and shards agree on whatever apps and streams are drawn, and a defect in any of them is found."""

from __future__ import annotations

import numpy as np
import pytest
from benchmarks import skew

from penstock.audit import drawn, prove


def test_random_apps_agree_on_every_engine_store_and_shard() -> None:
    """To the byte, with late events, torn writes and batches delivered twice."""
    proof = prove(apps=8, events=200, seed=5)
    assert proof.mismatches == {}
    assert proof.streams == 8
    assert proof.crashes > 8
    assert proof.values > 10_000


@pytest.mark.parametrize("name", drawn.classes())
def test_every_registered_aggregate_can_be_drawn(name: str) -> None:
    """So that a new class is proved without being named anywhere else."""
    made = drawn.aggregate(np.random.default_rng(1), name)
    assert type(made).__name__.lower() == name.replace("_", "")


def test_streams_are_untidy() -> None:
    """Late events, missing values, equal times, jumps, and a hot key: what the proof is worth rests on them."""
    rows, _ = drawn.stream(np.random.default_rng(2), 2_000)
    assert np.all(np.diff(rows.arrived) >= 0)
    assert np.all(rows.time <= rows.arrived)
    assert np.mean(np.diff(rows.time) < 0) > 0.1
    assert np.mean(rows.fields["item"] == 0) > 0.05
    assert len(np.unique(rows.time)) < 0.9 * len(rows)
    assert np.bincount(rows.fields["user"]).max() > 0.3 * len(rows)
    assert np.diff(np.sort(rows.time)).max() > 3_600_000_000


@pytest.mark.parametrize("defect", skew.DEFECTS)
def test_a_defect_is_found(defect: str) -> None:
    """And is gone again afterwards."""
    assert skew.broken(defect).mismatches
    assert prove(apps=1, events=60).mismatches == {}
