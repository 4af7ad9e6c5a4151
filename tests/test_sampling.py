"""A stratified sample is the same whatever order and pieces its rows come in, and stands for all of them."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import DefinitionError
from penstock.learn.sampling import StratifiedSample, stratified


def drawn(n: int, share: float, seed: int, hashes: int = 2**63) -> tuple[Any, Any, Any]:
    random = np.random.default_rng(seed)
    rows = random.normal(size=(n, 3)).astype(np.float32)
    return rows, random.random(n) < share, random.integers(0, hashes, n).astype(np.uint64)


def sampled(parts: Any, most: int = 20, positives: int | None = None) -> StratifiedSample:
    sample = StratifiedSample(most, positives)
    for part in parts:
        sample.add(*part)
    return sample


def held(sample: StratifiedSample) -> tuple[bytes, ...]:
    found = (sample.rows, sample.positive, sample.ids, sample.weight, sample.seen)
    return tuple(np.ascontiguousarray(part).tobytes() for part in found)


def naive(rows: Any, positive: Any, ids: Any, most: int, positives: int) -> Any:
    """The positions that a sample of all rows at once keeps, by hash."""
    own = np.flatnonzero(positive)
    chosen = own[np.argsort(ids[own])][:positives]
    others = np.flatnonzero(~positive)
    chosen = np.r_[chosen, others[np.argsort(ids[others])][: most - len(chosen)]]
    return chosen[np.argsort(ids[chosen])]


Streams = {
    "n": st.integers(1, 300), "share": st.sampled_from([0.0, 0.01, 0.1, 0.5, 0.97, 1.0]), "seed": st.integers(0, 999),
    "most": st.integers(2, 60), "cuts": st.lists(st.integers(0, 300), max_size=8), "data": st.data(),
}  # fmt: skip


@given(**Streams)
def test_it_keeps_the_smallest_hashes_of_each_kind(
    n: int, share: float, seed: int, most: int, cuts: list[int], data: Any
) -> None:
    """As the naive sample of all rows at once does, however they are cut, with weights that make up for the rest."""
    positives = data.draw(st.integers(1, most - 1))
    rows, positive, ids = drawn(n, share, seed)
    pieces = zip(*(np.split(part, sorted(min(cut, n) for cut in cuts)) for part in (rows, positive, ids)), strict=True)
    sample = sampled(pieces, most, positives)
    wanted = naive(rows, positive, ids, most, positives)
    np.testing.assert_array_equal(sample.ids, ids[wanted])
    np.testing.assert_array_equal(sample.rows, rows[wanted])
    np.testing.assert_array_equal(sample.positive, positive[wanted])
    for kind in (False, True):
        there = wanted[positive[wanted] == kind]
        mine = sample.weight[sample.positive == kind]
        assert mine.sum() == pytest.approx((positive == kind).sum() if len(there) else 0)
        assert len(np.unique(mine)) <= 1


@given(n=Streams["n"], share=Streams["share"], seed=Streams["seed"], most=Streams["most"])
def test_places_are_chosen_as_rows_are(n: int, share: float, seed: int, most: int) -> None:
    """Which rows a sample keeps, and for how many each counts, can be known before there are rows."""
    rows, positive, ids = drawn(n, share, seed)
    sample = sampled([(rows, positive, ids)], most)
    places, weight = stratified(positive, ids, most)
    by_hash = np.argsort(ids[places])
    np.testing.assert_array_equal(ids[places][by_hash], sample.ids)
    np.testing.assert_array_equal(weight[by_hash], sample.weight)


@given(**Streams, hashes=st.sampled_from([3, 40, 2**63]))
def test_order_and_pieces_do_not_matter(
    n: int, share: float, seed: int, most: int, cuts: list[int], data: Any, hashes: int
) -> None:
    """Shuffled, and cut elsewhere: the same bytes, even where many rows have one hash."""
    stream = drawn(n, share, seed, hashes)
    order = np.array(data.draw(st.permutations(range(n))))
    pieces = zip(*(np.split(part[order], sorted(min(cut, n) for cut in cuts)) for part in stream), strict=True)
    assert held(sampled(pieces, most)) == held(sampled([stream], most))


@given(**Streams, hashes=st.sampled_from([3, 2**63]))
def test_samples_merge_into_that_of_the_whole(
    n: int, share: float, seed: int, most: int, cuts: list[int], data: Any, hashes: int
) -> None:
    """Either way round, and with an empty one."""
    stream = drawn(n, share, seed, hashes)
    at = data.draw(st.integers(0, n))
    whole = held(sampled([stream], most))
    for way in (1, -1):
        first, second = [sampled([part], most) for part in zip(*(np.split(p, [at]) for p in stream), strict=True)][
            ::way
        ]
        first.merge(second)
        first.merge(StratifiedSample(most))
        assert held(first) == whole


def test_rare_positives_are_all_kept_and_others_have_what_they_leave() -> None:
    """30 of 10,000 rows, a sample of 100: all 30, of weight 1, and 70 of weight 9,970 / 70."""
    rows, _, ids = drawn(10_000, 0.0, 1)
    sample = sampled([(rows, np.arange(10_000) % 333 == 1, ids)], 100)
    positives = int((np.arange(10_000) % 333 == 1).sum())
    assert sample.positive.sum() == positives
    assert set(sample.weight[sample.positive]) == {1.0}
    assert (~sample.positive).sum() == 100 - positives
    np.testing.assert_allclose(sample.weight[~sample.positive], (10_000 - positives) / (100 - positives))


def test_weighted_sums_are_those_of_all_rows() -> None:
    """Over 200 samples, the mean of a weighted sum comes to the sum over all rows (Horvitz and Thompson), by kind."""
    rows, positive, _ = drawn(2_000, 0.3, 2)
    found = []
    for seed in range(200):
        ids = np.random.default_rng(seed).integers(0, 2**63, 2_000).astype(np.uint64)
        sample = sampled([(rows, positive, ids)], 200)
        worth = sample.weight * sample.rows[:, 0]
        found.append([worth[~sample.positive].sum(), worth[sample.positive].sum()])
    wanted = [rows[~positive, 0].sum(), rows[positive, 0].sum()]
    off = 4 * np.std(found, axis=0) / np.sqrt(len(found))
    assert (np.abs(np.mean(found, axis=0) - wanted) < off).all()


@pytest.mark.parametrize("features", [2, 40])
def test_memory_stays_within_its_bound(features: int) -> None:
    """A stream fifty times as long as the sample never takes more than the limit, besides the piece being added."""
    limit = 8 << 20
    sample = StratifiedSample.of_memory(limit, features)
    assert sample.most * features * 4 > limit / (15 if features == 2 else 2)
    size = sample.most // 10
    random = np.random.default_rng(3)
    rows = random.normal(size=(size, features)).astype(np.float32)
    pieces = [(random.random(size) < 0.2, random.integers(0, 2**63, size).astype(np.uint64)) for _ in range(10)]
    tracemalloc.start()
    try:
        for step in range(500):
            positive, ids = pieces[step % 10]
            sample.add(rows, positive, ids ^ np.uint64(step))
        assert len(sample.rows) == sample.most
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # What is chosen of a piece is copied once.
    assert peak < limit + 2 * rows.nbytes


def test_what_does_not_fit_together_is_refused() -> None:
    """Lengths, numbers of features, sizes: each with a remedy."""
    rows, positive, ids = drawn(10, 0.5, 1)
    for most, positives in ((1, None), (10, 10), (10, 0)):
        with pytest.raises(DefinitionError, match="room for rows of both kinds"):
            StratifiedSample(most, positives)
    sample = sampled([(rows, positive, ids)])
    with pytest.raises(DefinitionError, match="its outcome and its hash"):
        sample.add(rows, positive[:9], ids)
    with pytest.raises(DefinitionError, match="features of those before"):
        sample.add(rows[:, :2], positive, ids)
    with pytest.raises(DefinitionError, match="keep as many rows"):
        sample.merge(StratifiedSample(21))
    assert sample.seen.sum() == len(sample.rows) == 10
