"""Every engine of the vector index finds what exact search finds, through adds, deletes, filters, merges and files."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.registry import get, names, registered
from penstock.releases.bundle import Index
from penstock.retrieve import vectors
from penstock.retrieve.vectors import (
    Balance,
    Engine,
    Exact,
    FaissGraph,
    FaissLists,
    Int8,
    Lists,
    Report,
    ScannTree,
    Searcher,
    Setting,
    Trial,
    VectorError,
    Vectors,
)
from penstock.retrieve.vectors.base import Matrix, Metric, State, best, drawn, prepared
from penstock.retrieve.vectors.choose import KIND
from penstock.retrieve.vectors.kmeans import assigned, kmeans
from penstock.retrieve.vectors.screening import Limits, Tried, finalists, foreseen, free, label
from penstock.retrieve.vectors.tuning import Asked, nearest, widened

N, D, K = 3_000, 16, 10
METRICS: tuple[Metric, ...] = ("cosine", "ip", "l2")
ENGINES: list[Engine] = [
    Exact(), Int8(), Int8(fine=False), Lists(40), Lists(40, "int16"), Lists(40, "int8"),
    FaissLists(40), FaissLists(40, fine="flat"), FaissLists(40, "sq8"), FaissLists(40, "flat"),
    FaissGraph(), FaissGraph(held="flat"), ScannTree(40), ScannTree(40, "int8"), ScannTree(40, "bfloat16"),
]  # fmt: skip
WHOLE: list[Engine] = [Exact(), Lists(40), FaissLists(40, "flat"), FaissGraph(held="flat"), ScannTree(40)]
"""Those that hold vectors as floats, so that scores are exact."""


def installed(engine: Engine) -> Engine:
    if engine.lacks():
        pytest.skip(f"pip install 'penstock[{engine.extra}]': no {engine.lacks()} here")
    return engine


@pytest.fixture(params=ENGINES, ids=label)
def engine(request: pytest.FixtureRequest) -> Engine:
    return installed(request.param)


@pytest.fixture(params=WHOLE, ids=label)
def whole(request: pytest.FixtureRequest) -> Engine:
    return installed(request.param)


def clusters(n: int, seed: int = 0, d: int = D) -> Any:
    """Vectors around a few dozen centres, of different lengths."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((30, d))
    found = centres[random.integers(0, 30, n)] + 0.7 * random.standard_normal((n, d))
    return (found * random.uniform(0.8, 1.25, (n, 1))).astype(np.float32)


def plain(held: dict[int, Any], query: Any, k: int, metric: Metric, allowed: set[int] | None = None) -> list[float]:
    """The k best scores, in plain Python: what every engine is held to."""
    scores = []
    for id, vector in held.items():
        if allowed is not None and id not in allowed:
            continue
        a, b = [float(x) for x in query], [float(x) for x in vector]
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        if metric == "cosine":
            lengths = (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5
            scores.append(dot / lengths if lengths else 0.0)
        elif metric == "ip":
            scores.append(dot)
        else:
            scores.append(-sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))
    return sorted(scores, reverse=True)[:k]


def truth(held: Any, queries: Any, k: int, metric: Metric, allowed: Any = None) -> Any:
    """Rows (m, k) of the nearest, by NumPy in float64."""
    a, b = np.asarray(queries, np.float64), np.asarray(held, np.float64)
    if metric == "cosine":
        a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    scores = a @ b.T if metric != "l2" else -((a[:, None] - b[None]) ** 2).sum(axis=2)
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def share(found: Any, true: Any) -> float:
    return float((found[:, :, None] == true[:, None, :]).any(axis=1).mean())


VECTORS, QUERIES = clusters(N), clusters(300, seed=5)
IDS = np.random.default_rng(3).permutation(10 * N)[:N]


def made(engine: Engine, metric: Metric = "cosine", n: int = N, recall: float = 0.9) -> Vectors:
    return vectors.build(VECTORS[:n], ids=IDS[:n], metric=metric, engines=[engine], recall=recall, k=K)


@cache
def once(engine: Engine, metric: Metric = "cosine") -> Vectors:
    """One that the tests share and none changes."""
    return made(engine, metric)


@pytest.mark.parametrize("metric", METRICS)
def test_every_engine_finds_what_exact_search_finds(engine: Engine, metric: Metric) -> None:
    """recall@10 on queries that it was not tuned on is near to what was asked, best first, under the ids given."""
    index = once(engine, metric)
    ids, scores = index.search(QUERIES, K)
    assert ids.shape == scores.shape == (300, K)
    assert share(ids, IDS[truth(VECTORS, QUERIES, K, metric)]) >= 0.87
    assert (np.diff(scores, axis=1) <= 1e-5).all()
    assert index.tuned.recall >= 0.9


@pytest.mark.parametrize("metric", METRICS)
def test_scores_are_those_of_the_metric(whole: Engine, metric: Metric) -> None:
    """A cosine, an inner product or minus the squared distance, equal to plain Python's; those of codes are near."""
    ids, scores = once(whole, metric).search(QUERIES[:5], K)
    place = {int(id): row for row, id in enumerate(IDS)}
    for query, line, score in zip(QUERIES[:5], ids.tolist(), scores.tolist(), strict=True):
        for id, value in zip(line, score, strict=True):
            assert value == pytest.approx(plain({id: VECTORS[place[id]]}, query, 1, metric)[0], rel=1e-4, abs=1e-3)


def test_one_query_and_many_are_answered_alike(engine: Engine) -> None:
    """Searching one by one gives what searching at once gives."""
    index = once(engine)
    many, scores = index.search(QUERIES, K)
    for i in range(40):
        ids, score = index.search(QUERIES[i : i + 1], K)
        np.testing.assert_allclose(score[0], scores[i], rtol=1e-4, atol=1e-4)
        assert len(set(ids[0].tolist()) & set(many[i].tolist())) >= K - 1  # equal scores may change places


def test_exact_search_is_exact() -> None:
    """recall is 1, blocks and the raised floor lose nothing, and of equal vectors the first rows are found."""
    random = np.random.default_rng(0)
    many = random.integers(-2, 3, (40_000, 4)).astype(np.float32)  # full of ties, several blocks
    index = vectors.build(many, metric="ip", engines=[Exact()])
    queries = random.integers(-2, 3, (20, 4)).astype(np.float32)
    ids, scores = index.search(queries, 25)
    np.testing.assert_array_equal(ids, truth(many, queries, 25, "ip"))
    np.testing.assert_array_equal(scores, np.take_along_axis(queries @ many.T, ids, 1))


@pytest.mark.parametrize("metric", METRICS)
def test_nearest_goes_through_a_matrix_in_blocks(metric: Metric) -> None:
    """What recall is measured against equals the plain definition."""
    matrix = Matrix(VECTORS, metric)
    np.testing.assert_array_equal(nearest(matrix, prepared(QUERIES, metric), K), truth(VECTORS, QUERIES, K, metric))


def test_int8_with_its_remainder_is_as_good_as_16_bits() -> None:
    """Ranked anew by the remainder, scores err by less than an 8,000th of the largest; by int8 alone by more."""
    exact = made(Exact(), "ip").search(QUERIES, K)[1]
    fine = made(Int8(), "ip").search(QUERIES, K)[1]
    rough = made(Int8(fine=False), "ip").search(QUERIES, K)[1]
    scale = float(np.abs(exact).max())
    assert np.abs(fine - exact).max() < scale / 8_000 < np.abs(rough - exact).max()


@pytest.mark.parametrize("share_allowed", [0.5, 0.1, 0.01, 0.001])
@pytest.mark.parametrize("how", ["mask", "ids", "set"])
def test_a_filter_still_gives_k(engine: Engine, share_allowed: float, how: str) -> None:
    """However few are allowed, as many as asked are found where there are so many, all of them allowed, the nearest."""
    index = once(engine)
    row = np.random.default_rng(1).random(N) < share_allowed
    row[:3] = True
    mask = np.zeros(10 * N, np.bool_)
    mask[IDS[row]] = True
    allowed = {"mask": mask, "ids": IDS[row], "set": set(IDS[row].tolist())}[how]
    ids, scores = index.search(QUERIES, K, allowed)
    found = np.sort(ids, axis=1)[:, ::-1][:, : min(K, row.sum())]
    assert mask[found].all()
    assert all(len(set(line)) == len(line) for line in found.tolist())
    assert (ids[:, min(K, int(row.sum())) :] == -1).all()
    assert np.isneginf(scores[ids == -1]).all()
    true = IDS[truth(VECTORS, QUERIES, min(K, int(row.sum())), "cosine", row)]
    assert share(ids, true) >= 0.85


def test_what_is_near_and_not_allowed_is_fetched_past(engine: Engine) -> None:
    """Where the nearest of all are deleted or not allowed, more are fetched until k pass; none of those comes back."""
    index = made(engine, recall=0.95)
    near = truth(VECTORS, QUERIES[:1], 400, "cosine")[0]
    index.delete(IDS[near[:5]])
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (QUERIES[:1], VECTORS[near])]
    cosine = (unit[0] @ unit[1].T)[0]
    ids, scores = index.search(QUERIES[:1], 3)
    assert not np.isin(ids, IDS[near[:5]]).any()
    np.testing.assert_allclose(scores[0], cosine[5:8], atol=0.03)
    mask = np.ones(10 * N, np.bool_)
    mask[IDS[near[:390]]] = False
    ids, scores = index.search(QUERIES[:1], 3, mask)
    assert mask[ids].all()
    np.testing.assert_allclose(scores[0], cosine[390:393], atol=0.03)


def test_more_neighbours_than_there_are(engine: Engine) -> None:
    """k beyond the number of vectors gives all of them, then -1; a k that lists fall short of is filled from others."""
    index = made(engine, n=300, recall=0.5)
    ids, scores = index.search(QUERIES[:3], 400)
    for line in ids.tolist():
        assert sorted(line[:300]) == sorted(IDS[:300].tolist())
    assert (ids[:, 300:] == -1).all()
    assert np.isneginf(scores[:, 300:]).all()
    assert np.isfinite(scores[:, :300]).all()


def test_a_vector_of_zeros_is_nobodys_neighbour() -> None:
    """Under "cosine" its scores are 0, not NaN; a query of zeros scores 0 with everything."""
    some = np.concatenate([VECTORS[:5], np.zeros((1, D), np.float32)])
    index = vectors.build(some)
    ids, scores = index.search(VECTORS[:1], 6)
    assert scores[0][ids[0] == 5] == [0.0]
    assert (index.search(np.zeros((1, D)), 6)[1] == 0).all()


def test_the_same_seed_builds_the_same_bytes(engine: Engine) -> None:
    """Building twice gives equal arrays, those of the engine to the last bit."""
    first, again = (engine.fit(Matrix(VECTORS, "cosine"), seed=4, threads=2) for _ in range(2))
    assert first.keys() == again.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], again[name], err_msg=name)


@pytest.mark.parametrize("metric", METRICS)
def test_saved_and_opened_it_is_the_same(engine: Engine, metric: Metric, tmp_path: Path) -> None:
    """A folder of .npy files, changes and all, answers as the index that wrote it; so do the arrays of a release."""
    index = made(engine, metric)
    index.add(np.array([7, int(IDS[0])]) if 7 not in IDS else IDS[:2], clusters(2, seed=8))
    index.delete(IDS[5:9])
    index.save(tmp_path / "index")
    arrays: Index = {name: np.array(array) for name, array in index.arrays().items()}
    for other in (Vectors.open(tmp_path / "index"), Vectors.from_arrays(arrays)):
        for some, true in zip(other.search(QUERIES, K), index.search(QUERIES, K), strict=True):
            np.testing.assert_array_equal(some, true)
        assert len(other) == len(index)
        assert other.report == index.report
        assert other.engine == index.engine
        assert (other.recall, other.tuned) == (index.recall, index.tuned)
    index.delete(IDS[9:20])
    index.save(tmp_path / "index")
    assert len(Vectors.open(tmp_path / "index")) == len(index)
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_arrays_are_mapped_not_copied(tmp_path: Path) -> None:
    """What was opened from a folder lies in the file, for NumPy's engines and for the codes of faiss."""
    made(Lists(40)).save(tmp_path / "index")
    index = Vectors.open(tmp_path / "index")
    held = index._parts.main.state["vectors"]
    while not isinstance(held, np.memmap):
        assert held.base is not None
        held = held.base
    assert str(held.filename) == str(tmp_path / "index" / "main.vectors.npy")


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="says what is mapped on Linux alone")
def test_an_opened_index_has_all_its_pages_mapped(tmp_path: Path) -> None:
    """No search waits for one: each would fault on a hundred of them, for thousands of searches."""
    vectors.build(clusters(50_000, d=128), metric="ip", engines=[Lists(200)]).save(tmp_path / "index")
    index = Vectors.open(tmp_path / "index")
    file = tmp_path / "index" / "main.vectors.npy"
    said = Path("/proc/self/smaps").read_text().split(str(file))[1:]
    resident = [int(part.split("Rss:")[1].split()[0]) << 10 for part in said]
    assert sum(resident) >= 0.99 * file.stat().st_size
    assert len(index) == 50_000


class Live(RuleBasedStateMachine):
    """Any adds, replacements, deletes, merges and reopenings leave what a dictionary would."""

    engine: Engine = Exact()
    off: float = 1e-4

    @initialize(n=st.integers(1, 60), metric=st.sampled_from(METRICS))
    def start(self, n: int, metric: Metric) -> None:
        self.metric = metric
        self.held = {3 * i: self._vector(i) for i in range(n)}
        self.drawn = n
        ids = np.array(list(self.held))
        self.index = vectors.build(
            np.stack(list(self.held.values())), ids=ids, metric=metric, engines=[self.engine], recall=1e-9
        )

    def _vector(self, seed: int) -> Any:
        return np.random.default_rng(seed).standard_normal(4).astype(np.float32)

    @rule(ids=st.lists(st.integers(0, 200), max_size=8, unique=True))
    def add(self, ids: list[int]) -> None:
        some = np.stack([self._vector(self.drawn + i) for i in range(len(ids))] or [np.zeros(4)])[: len(ids)]
        self.drawn += len(ids)
        self.index.add(np.array(ids, np.int64), some)
        self.held |= dict(zip(ids, some, strict=True))

    @rule(ids=st.lists(st.integers(0, 200), max_size=40))
    def delete(self, ids: list[int]) -> None:
        known = self.held.keys() & set(ids)
        assert self.index.delete(np.array(ids, np.int64)) == len(known)
        for id in known:
            del self.held[id]

    @precondition(lambda self: self.held)
    @rule()
    def merge(self) -> None:
        self.index.merge()
        assert self.index.balance().added == self.index.balance().gone == 0

    @rule()
    def reopen(self) -> None:
        self.index = Vectors.from_arrays(self.index.arrays())

    @rule(k=st.integers(1, 30), seed=st.integers(0, 99), allowed=st.none() | st.sets(st.integers(0, 200)))
    def search(self, k: int, seed: int, allowed: set[int] | None) -> None:
        query = self._vector(1_000 + seed)
        ids, scores = self.index.search(query[None], k, allowed)
        want = plain(self.held, query, k, self.metric, allowed)
        found = [id for id in ids[0].tolist() if id >= 0]
        assert len(found) == len(set(found)) == len(want)
        assert set(found) <= self.held.keys() & (self.held.keys() if allowed is None else allowed)
        np.testing.assert_allclose(scores[0][: len(want)], want, rtol=self.off, atol=self.off)
        for id, score in zip(found, scores[0].tolist(), strict=False):
            mine = plain({id: self.held[id]}, query, 1, self.metric)[0]
            assert score == pytest.approx(mine, rel=self.off, abs=self.off)

    @invariant()
    def counts(self) -> None:
        if hasattr(self, "index"):
            assert len(self.index) == len(self.held)
            assert all((id in self.index) == (id in self.held) for id in (0, 3, 7, 100))


class LiveLists(Live):
    engine = Lists(1)  # of several, some may be left out


class LiveInt16(Live):
    engine = Int8()
    off = 1e-3  # a step of the remainder is the largest number over 127 · 254; of four, times a query's, twice rounded


class LiveFaiss(Live):
    engine = FaissLists(1, "flat")


for machine in (Live, LiveLists, LiveInt16, LiveFaiss):
    machine.TestCase.settings = settings(
        max_examples=25, stateful_step_count=15, deadline=None, derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )  # fmt: skip
TestLive = Live.TestCase
TestLiveInt16 = LiveInt16.TestCase


class TestLiveLists(LiveLists.TestCase):  # type: ignore[name-defined, misc]
    """In lists, too."""


if not FaissLists.lacks():
    TestLiveFaiss = LiveFaiss.TestCase


@registered("vectors test")
@dataclass(frozen=True)
class Slow(Engine):
    """Exact search that is built once a gate is open."""

    gate = threading.Event()
    going = threading.Event()

    @classmethod
    def variants(cls, n: int, d: int) -> list[Engine]:
        return [cls()]

    def fit(self, vectors: Matrix, *, seed: int, threads: int) -> State:
        self.going.set()
        assert self.gate.wait(30)
        return Exact().fit(vectors, seed=seed, threads=threads)

    def open(self, state: State, metric: Metric) -> Searcher:
        return Exact().open(state, metric)


def test_a_merge_keeps_what_changes_meanwhile() -> None:
    """Adds and deletes during a merge are neither lost nor undone by it, and searches go on."""
    gate, going = Slow.gate, Slow.going
    gate.set()
    index = vectors.build(VECTORS[:100], engines=[Slow()])
    gate.clear()
    going.clear()
    index.add(np.array([200, 201, 202]), clusters(3, seed=1))
    index.delete(np.array([0]))
    done = index.merge_in_background()
    assert going.wait(30)
    index.add(np.array([300, 200]), clusters(2, seed=2))
    index.delete(np.array([1, 201]))
    assert set(index.search(QUERIES[:1], 200)[0][0].tolist()) - {-1} == set(range(2, 100)) | {200, 202, 300}
    gate.set()
    assert done.result(30)
    assert set(index.search(QUERIES[:1], 200)[0][0].tolist()) - {-1} == set(range(2, 100)) | {200, 202, 300}
    new = clusters(2, seed=2)[1]
    assert index.search(new[None], 1, [200])[1][0, 0] == pytest.approx(1, abs=1e-5)
    balance = index.balance()
    assert (balance.size, balance.added, balance.gone) == (99, 2, 3)
    assert index.merge()
    assert not index.merge()


class Watched(Vectors):
    """Notes what a search finds after each step in which anything changes that a search looks at."""

    seen: list[list[int]]

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "_parts" and hasattr(self, "seen"):
            self.seen.append(sorted(set(self.search(QUERIES[:1], 30)[0][0].tolist()) - {-1}))
            assert len(self) == len(self.seen[-1])

    @classmethod
    def over(cls, index: Vectors) -> Watched:
        """The same index, watched from now on."""
        index.__class__ = cls
        assert isinstance(index, Watched)
        index.seen = []
        return index


def test_searches_never_see_half_a_change() -> None:
    """A change is one step for whoever searches: an id that moves is found once before and after, whether it was
    built or added, several go at once, and a merge takes over with all that changed meanwhile."""
    Slow.gate.set()
    index = Watched.over(vectors.build(VECTORS[:8], engines=[Slow()]))
    index.add(np.array([5, 8]), clusters(2, seed=1))
    index.add(np.array([8, 5, 9]), clusters(3, seed=2))
    index.delete(np.array([0, 9]))
    assert index.seen == [list(range(9)), list(range(10)), list(range(1, 9))]
    Slow.gate.clear()
    Slow.going.clear()
    done = index.merge_in_background()
    assert Slow.going.wait(30)
    index.add(np.array([5, 12]), clusters(2, seed=3))
    index.delete(np.array([1, 8]))
    Slow.gate.set()
    assert done.result(30)
    left = [*range(2, 8), 12]
    assert index.seen[3:] == [[*range(1, 9), 12], left, left]


def test_an_id_is_there_all_the_while_its_vector_is_replaced() -> None:
    """Whoever asks whether an id is held, in the middle of a change that gives it a new vector, is told that it is."""
    index = vectors.build(VECTORS[:8], engines=[Exact()])
    index.add(np.array([20]), VECTORS[:1])
    told: list[bool] = []

    class Asking(dict[int, int]):
        def update(self, *args: Any, **named: Any) -> None:
            told.append(20 in index)
            super().update(*args, **named)
            told.append(20 in index)

    index._where = Asking(index._where)
    index.add(np.array([20]), VECTORS[1:2])
    assert told == [True, True]


def test_lists_that_become_uneven_are_reported(tmp_path: Path) -> None:
    """Vectors that pile up in one list raise the imbalance, and the reasons say so; merging evens the lists."""
    index = made(Lists(40))
    before = index.balance()
    assert before.lists == 40
    assert before.now == before.built < 1.5
    assert not before.rebuild
    same = VECTORS[:1] + 0.01 * np.random.default_rng(0).standard_normal((2_000, D)).astype(np.float32)
    index.add(np.arange(10 * N, 10 * N + 2_000), same)
    after = index.balance()
    assert after.now > 3 * before.now
    assert after.longest >= 2_000
    assert [reason for reason in after.reasons if "uneven" in reason]
    assert [reason for reason in after.reasons if "one by one" in reason]
    index.delete(IDS[:1_000])
    assert [reason for reason in index.balance().reasons if "deleted" in reason]
    index.merge()
    assert index.balance().built < after.now
    assert len(index) == N + 1_000


def test_every_engine_in_lists_tells_its_lists(engine: Engine) -> None:
    """Balance counts every vector once, and a delete takes it out of its list."""
    index = once(engine)
    lists = index._parts.main.searcher.lists()
    if isinstance(engine, (Exact, Int8, FaissGraph)):
        assert lists is None
        return
    assert lists is not None
    centres, member = lists
    assert len(member) == N
    near = assigned(Matrix(VECTORS, "cosine").whole(), centres)[0]
    assert (near == member).mean() > 0.9


def test_kmeans_parts_what_shares_a_centre(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of clusters far apart Lloyd's steps alone leave several with one centre; moved centres part most of them."""
    random = np.random.default_rng(0)
    centres = (10 * random.standard_normal((64, 32))).astype(np.float32)
    some = (centres[random.integers(0, 64, 6_400)] + random.standard_normal((6_400, 32))).astype(np.float32)
    moved = kmeans(Matrix(some, "l2"), 64, seed=0)
    monkeypatch.setattr("penstock.retrieve.vectors.kmeans._UNEQUAL", np.inf)
    lloyd = kmeans(Matrix(some, "l2"), 64, seed=0)
    parted = [len(set(assigned(centres, found)[0].tolist())) for found in (moved, lloyd)]
    assert parted[0] >= 63 > parted[1]
    assert assigned(some, moved)[1].mean() < 0.5 * assigned(some, lloyd)[1].mean()


def test_the_fastest_that_meets_the_recall_is_taken() -> None:
    """Of those measured no one that reaches the recall and fits is faster than the one taken; the report says why."""
    index = vectors.build(VECTORS, engines=[Exact(), Lists(40), Int8()], recall=0.9)
    taken, *others = index.report.trials
    assert taken.verdict == "taken"
    assert taken.recall is not None
    assert taken.recall >= 0.9
    assert all(other.micros is None or taken.micros <= other.micros for other in others)  # type: ignore[operator]
    assert taken.engine == label(index.engine)
    assert index.report.why.startswith(f"{taken.engine} is the fastest of 3 that were measured with recall@10")
    assert len(index.report.text.splitlines()) == 4


def test_memory_is_kept_to() -> None:
    """With room for a byte a dimension and not for four, codes are taken; with less the error says that nothing is."""
    room = N * (D + 12) + 4 * 40 * D
    index = vectors.build(VECTORS, engines=[Exact(), Lists(40), Lists(40, "int8")], recall=0.9, memory=room)
    assert index.engine == Lists(40, "int8")
    assert {trial.verdict for trial in index.report.trials[1:]} == {"takes too much memory"}
    with pytest.raises(VectorError, match=r"within the memory; got exact.*takes too much memory.*allow more memory"):
        vectors.build(VECTORS, engines=[Exact()], memory=100)


def test_a_recall_that_codes_miss_falls_to_exact_search() -> None:
    """Int8 alone cannot reach recall 1: it is reported as missing it, and exact search is taken."""
    index = vectors.build(VECTORS, engines=[Int8(fine=False), Exact()], recall=1.0)
    assert index.engine == Exact()
    assert index.report.trials[1].verdict == "misses the recall"


def test_large_ones_are_screened_on_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many vectors engines are compared on some, and only the best are built in full; the result still holds."""
    for module in ("choose", "screening"):
        monkeypatch.setattr(f"penstock.retrieve.vectors.{module}.SCREEN", 6_000)
    many = clusters(12_000, seed=1)
    calls: list[tuple[int, int | None]] = []
    index = vectors.build(many, recall=0.9, progress=lambda done, total: calls.append((done, total)))
    full = [trial for trial in index.report.trials if trial.on == 12_000]
    assert 1 <= len(full) <= 4
    assert {trial.on for trial in index.report.trials if trial.on} == {6_000, 12_000}
    assert calls[-1][0] == calls[-1][1]
    assert share(index.search(QUERIES, K)[0], truth(many, QUERIES, K, "cosine")) >= 0.87


def test_the_time_left_bounds_how_many_are_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """With no minutes at all one engine is built in full, and the report says of the others that there was no time."""
    for module in ("choose", "screening"):
        monkeypatch.setattr(f"penstock.retrieve.vectors.{module}.SCREEN", 6_000)
        monkeypatch.setattr("penstock.retrieve.vectors.screening._CLOSE", 1e9)
    index = vectors.build(clusters(8_000, seed=1), recall=0.9, minutes=0)
    assert len([trial for trial in index.report.trials if trial.on == 8_000]) == 1
    assert len([trial for trial in index.report.trials if trial.verdict.startswith("no time")]) == 3


def test_each_kind_that_is_close_gets_to_the_final() -> None:
    """The best of each kind goes before the second best of another; what is far slower does not go on."""
    engines = [(FaissLists(1), 8.0), (FaissLists(2), 8.1), (FaissLists(3), 8.2), (FaissLists(4), 8.3),
               (ScannTree(), 9.0), (Exact(), 25.0)]  # fmt: skip
    ready = [Tried(one, Trial(""), expected=micros) for one, micros in engines]
    assert [one.engine for one in finalists(ready)] == [FaissLists(1), ScannTree(), FaissLists(2), FaissLists(3)]
    assert finalists([]) == []


def test_what_would_take_too_long_or_too_much_is_foreseen() -> None:
    """From a sample of a tenth: ten times the memory, a graph's time, and the room that the library takes meanwhile."""
    trial = Trial("x", on=1_000, build_s=6.0, nbytes=1_000, recall=0.96, micros=5.0)
    assert foreseen(trial, Exact(), 10_000, D, Limits(0.95, 10_000, 1.0)) == ""
    assert "too much memory" in foreseen(trial, Exact(), 10_000, D, Limits(0.95, 9_999, 1.0))
    assert foreseen(trial, FaissGraph(), 10_000, D, Limits(0.95, None, 1.3)) == "would take some 1 minutes to build"
    assert foreseen(trial, FaissGraph(), 10_000, D, Limits(0.95, None, 1.4)) == ""
    assert "while it is built" in foreseen(trial, ScannTree(), 10**10, 10**4, Limits(0.95, None, 1.0))
    assert free() > 1 << 20


def test_queries_that_look_otherwise_are_measured_with() -> None:
    """Recall is tuned on the queries given: for queries far from all vectors more lists are read."""
    far = np.random.default_rng(0).standard_normal((400, D)).astype(np.float32)
    own = vectors.build(VECTORS, engines=[Lists(40)], recall=0.95)
    other = vectors.build(VECTORS, engines=[Lists(40)], recall=0.95, queries=far)
    assert other.tuned.setting.probes > own.tuned.setting.probes
    true = truth(VECTORS, far, K, "cosine")
    assert share(other.search(far, K)[0], true) >= 0.95 > share(own.search(far, K)[0], true)
    other.add(np.array([N]), far[:1])
    other.merge()
    assert other.tuned.setting.probes > own.tuned.setting.probes


def test_a_vector_that_asks_is_held_out_of_its_answer() -> None:
    """Recall measured on vectors of the index counts others only: of a copy of each query none is its own row."""
    matrix = Matrix(VECTORS, "cosine", drawn(N, 50, 0))
    asked = Asked.of(matrix, K)
    assert asked.own is not None
    assert not (asked.truth == asked.own[:, None]).any()
    searcher = Exact().open(Exact().fit(matrix, seed=0, threads=1), "cosine")
    assert (asked.recalls(searcher, Setting()) == 1).all()
    assert not np.isin(matrix.sample(N, 0), VECTORS[asked.own]).all(axis=1).any()


def test_widened_settings_grow_with_k() -> None:
    """Candidates grow in proportion to k, probes by less; fewer neighbours keep what was tuned."""
    assert widened(Setting(10, 40), 10, 5) == Setting(10, 40)
    found = widened(Setting(10, 40), 10, 160)
    assert found.keep == 640
    assert 10 < found.probes < 160


@pytest.mark.parametrize(
    ("what", "match"),
    [
        ({"vectors": np.zeros(3)}, r"vectors are a matrix.*got float64 \(3,\)"),
        ({"vectors": np.zeros((3, 0))}, "vectors are a matrix"),
        ({"vectors": np.array([["a"]])}, "vectors are a matrix of numbers"),
        ({"vectors": np.array([[1.0, 2.0], [np.nan, 0.0]])}, "finite; got NaN or infinity in row 1"),
        ({"vectors": np.array([[np.inf]])}, "finite"),
        ({"vectors": np.array([[1.0, 2.0], [3.0, 1e39]])}, "finite; got NaN or infinity in row 1, as float32"),
        ({"vectors": np.zeros((0, 4))}, "at least one vector"),
        ({"metric": "euclid"}, "metric.*'euclid'.*use one of cosine, ip, l2"),
        ({"recall": 0.0}, "recall is a share"),
        ({"recall": 1.1}, "recall is a share"),
        ({"k": 0}, "k is at least 1"),
        ({"ids": np.arange(3)}, r"each vector has an id.*\(3,\) for 5 vectors"),
        ({"ids": np.array([1, 2, 3, 3, 4])}, "ids differ.*3 twice"),
        ({"ids": np.array([0, 1, 2, 3, -1])}, "an id is at least 0"),
        ({"ids": np.arange(5.0)}, "an integer"),
        ({"queries": np.zeros((1, 9))}, "as many dimensions as the index; got 9, not 4"),
        ({"queries": np.zeros((0, 4))}, "there are queries to measure with"),
    ],
)
def test_what_cannot_be_built_says_why(what: dict[str, Any], match: str) -> None:
    """Bad input is refused with the rule, what came, and the remedy."""
    given: dict[str, Any] = {"vectors": VECTORS[:5, :4], **what}
    with pytest.raises(VectorError, match=match) as error:
        vectors.build(given.pop("vectors"), **given)
    assert error.value.remedy


def test_what_cannot_be_asked_or_added_says_why(tmp_path: Path) -> None:
    """So is a query, a filter, a change or a folder that does not fit, and the index stays as it was."""
    index = made(Exact(), n=20)
    bad: list[tuple[Any, str]] = [
        (lambda: index.search(QUERIES[0]), "queries are a matrix"),
        (lambda: index.search(QUERIES[:, :3]), "got 3, not 16"),
        (lambda: index.search(QUERIES[:1] * np.nan), "queries are finite"),
        (lambda: index.search(np.full((1, D), np.inf)), "queries are finite"),
        (lambda: index.search(np.full((1, D), 1e39)), "queries are finite"),
        (lambda: index.search(np.full((2, D), 1e39)), "queries are finite"),
        (lambda: index.add(np.array([1]), np.full((1, D), -1e300)), "finite"),
        (lambda: index.search(QUERIES, 0), "k is at least 1"),
        (lambda: index.search(QUERIES, 3, np.array([0.5])), "a mask by id, or ids"),
        (lambda: index.search(QUERIES, 3, ["a"]), "a mask by id, or ids"),
        (lambda: index.add(np.array([1]), QUERIES[:2]), "each vector has an id"),
        (lambda: index.add(np.array([1, 1]), QUERIES[:2]), "1 twice"),
        (lambda: index.add(np.array([-5]), QUERIES[:1]), "at least 0"),
        (lambda: index.add(np.array([1]), np.full((1, D), np.nan)), "finite"),
        (lambda: Vectors.open(tmp_path), "a folder that Vectors.save wrote"),
        (lambda: Vectors.from_arrays({}), "read from the arrays that it gave"),
    ]
    for call, match in bad:
        with pytest.raises(VectorError, match=match):
            call()
    assert len(index) == 20
    index.delete(IDS[:20])
    assert (index.search(QUERIES, 3)[0] == -1).all()
    with pytest.raises(VectorError, match="all of them deleted"):
        index.merge()
    index.save(tmp_path / "index")
    (tmp_path / "index" / "main.vectors.npy").write_bytes(b"no array")
    with pytest.raises(VectorError, match=r"an index is a folder of \.npy files"):
        Vectors.open(tmp_path / "index")
    (tmp_path / "index" / "main.vectors.npy").unlink()
    with pytest.raises(VectorError, match="read from the arrays that it gave; got KeyError"):
        Vectors.open(tmp_path / "index")


@pytest.mark.parametrize("kind", [FaissLists, FaissGraph, ScannTree])
def test_a_library_that_is_absent_is_named(kind: type[Engine], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the engine is left out, the report names the package and the command, and asking for it says so."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    index = vectors.build(VECTORS[:200])
    assert index.engine == Exact()
    assert index.report.missing == ("faiss-cpu", "scann")
    assert "without faiss-cpu, scann (pip install 'penstock[vectors]')" in index.report.why
    with pytest.raises(VectorError, match=r"an engine's library is installed; got no .*penstock\[vectors\]"):
        vectors.build(VECTORS[:200], engines=[kind()])


def test_every_engine_is_in_this_suite() -> None:
    """Each class registered as "vectors" is tried here, and has variants once there are enough vectors."""
    assert {get(KIND, name) for name in names(KIND)} == {type(engine) for engine in ENGINES}
    for name in names(KIND):
        kind: type[Engine] = get(KIND, name)
        assert kind.variants(100_000, D)
        assert len(kind.variants(100_000, D)) == len(kind.variants(10_000_000, D))


def test_reports_survive_json() -> None:
    """What is written into a release is read as it was; sizes and times are in words."""
    report = Report(10, 4, 3, 0.9, 2**31, (Trial("a", 10, 1.0, 2**30, 0.95, 12.0, "taken"),), ("scann",), "pip x")
    assert Report.from_spec(report.spec()) == report
    assert "within 2.00 GiB" in report.why


def test_balance_names_each_reason() -> None:
    """An index that has not changed needs no merge; each kind of change has its bar."""
    assert not Balance(100, 10, 20, lists=4, built=1.0, now=1.3).rebuild
    for changed in (Balance(100, 11, 0), Balance(100, 0, 26), Balance(100, 0, 0, 4, 1.0, 1.31)):
        assert len(changed.reasons) == 1


def test_best_takes_the_first_of_equals() -> None:
    """However many are equal at the edge."""
    scores = np.array([1, 2] * 50, np.float32)
    assert best(scores, 3).tolist() == [1, 3, 5]


@pytest.fixture(autouse=True)
def quiet(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """ScaNN writes to standard error whatever it does."""
    yield
    capfd.readouterr()
