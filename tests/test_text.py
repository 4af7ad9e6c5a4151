"""Search by words: stems are Porter's, BM25 is its formula, and beginnings of words find what they begin."""

from __future__ import annotations

from collections import Counter
from math import log
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import DefinitionError
from penstock.retrieve.text import Analyser, Bm25, latent
from penstock.retrieve.text.analyse import MOST_BYTES, STOP_WORDS
from penstock.retrieve.text.bm25 import BEGUN
from penstock.retrieve.text.latent import STEPS, Sparse, factored, nearest, rounded
from penstock.retrieve.text.porter import stem
from penstock.retrieve.text.semantic import MOST_DIMS

WORDS = ["oak", "oaks", "oaken", "lamp", "lamps", "la", "the", "of", "tea", "teacup", "teas", "running", "runs", "é"]
texts = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)
shelves = st.lists(st.tuples(texts, texts), min_size=1, max_size=12)
engines = st.builds(
    Bm25,
    analyser=st.builds(Analyser, stems=st.booleans(), stops=st.booleans()),
    k1=st.sampled_from([0.0, 0.9, 1.5]),
    b=st.sampled_from([0.0, 0.4, 1.0]),
    begun=st.booleans(),
    every_first=st.booleans(),
)


def naive(engine: Bm25, shelf: list[tuple[str, str]], weights: tuple[float, float], query: str) -> dict[int, float]:
    """The score of each document that has a word of the query, by the formula, from the texts themselves."""
    analyser, size = engine.analyser, len(shelf)
    counted: list[Counter[str]] = []
    spoken: list[set[str]] = []
    for fields in shelf:
        counted.append(Counter())
        spoken.append(set())
        for text, weight in zip(fields, weights, strict=True):
            for word in filter(analyser.counts, analyser.words(text)):
                counted[-1][analyser.term(word)] += weight  # type: ignore[assignment]
                spoken[-1].add(word)
    lengths = [sum(one.values()) for one in counted]
    mean = sum(lengths) / size

    def idf(having: int) -> float:
        return log(1 + (size - having + 0.5) / (having + 0.5))

    def part(doc: int, term: str) -> float:
        often = counted[doc][term]
        return often / (often + engine.k1 * (1 - engine.b + engine.b * lengths[doc] / mean)) if often else 0.0

    words = analyser.words(query)
    scores: dict[int, float] = {}
    for place, word in enumerate(words, 1):
        last = engine.begun and word == words[-1]
        if not analyser.counts(word) and not (engine.begun and place == len(words)):
            continue
        term = analyser.term(word)
        own = [doc for doc in range(size) if counted[doc][term] > 0]
        begun = [
            {analyser.term(w) for w in spoken[doc] if w.startswith(word)}
            if last or (engine.begun and not own)
            else set()
            for doc in range(size)
        ]
        having = sum(bool(counted[doc][term] > 0 or begun[doc]) for doc in range(size))
        for doc in range(size):
            values = [part(doc, term) * idf(len(own))] if doc in own else []
            values += [part(doc, t) * idf(having) * BEGUN for t in begun[doc]]
            if values:
                scores[doc] = scores.get(doc, 0.0) + max(values)
    return scores


@given(shelves, engines, st.lists(st.sampled_from([*WORDS, "o", "l", "te", "zz", "t"]), max_size=5), st.integers(1, 12))
def test_bm25_is_its_formula(shelf: list[tuple[str, str]], engine: Bm25, words: list[str], k: int) -> None:
    """Of random shelves with two fields, the index finds exactly the documents that the formula scores above nothing,
    with its scores, best first; `plain` agrees to the last bit."""
    query = " ".join(words)
    index = engine.build([([one[0] for one in shelf], 3.0), ([one[1] for one in shelf], 1.0)])
    found = engine.find(index, query, k)
    expected = naive(engine, shelf, (3.0, 1.0), query)
    assert set(engine.find(index, query, len(shelf)).place.tolist()) == set(expected)
    np.testing.assert_allclose(found.score, [expected[doc] for doc in found.place.tolist()], rtol=1e-6)
    assert len(found.place) == min(k, len(expected))
    if not engine.every_first and len(expected) > k:
        assert min(found.score) >= max(s for doc, s in expected.items() if doc not in found.place) * (1 - 1e-6)
    plain = engine.plain(index, query, k)
    assert plain == list(zip(found.place.tolist(), found.score.tolist(), found.share.tolist(), strict=True))


def test_documents_with_every_word_come_first_where_asked() -> None:
    """Three documents have one rare word often, one has both words in a long text: it comes first only where asked."""
    shelf = [
        "walnut " * 3,
        "walnut walnut",
        "lamp " + "of brass and copper for a quiet evening at home " * 3 + "walnut",
    ]
    for every, first in ((False, 0), (True, 2)):
        engine = Bm25(k1=2.0, b=1.0, every_first=every)
        index = engine.build([([*shelf, *["lamp"] * 40], 1.0)])
        found = engine.find(index, "walnut lamp", 3)
        assert found.place[0] == first
        assert (found.share == 1.0).tolist() == [place == 2 for place in found.place.tolist()]


def test_a_word_that_is_meant_counts_more_than_one_that_begins_with_it() -> None:
    """While "tea" is typed, tea comes before teacups, whatever is rarer."""
    engine = Bm25(begun=True)
    index = engine.build([(["teacup", "tea", "tealight", *["tea towel"] * 5], 1.0)])
    assert engine.find(index, "tea", 10).place.tolist()[0] == 1
    assert set(engine.find(index, "tea", 10).place.tolist()) == set(range(8))
    assert Bm25().find(index, "tea", 10).share.tolist() == [1.0] * 6


def test_a_stop_word_at_the_end_asks_for_nothing_unless_it_begins_something() -> None:
    """ "lamp for" has every word in a lamp, as nothing begins with "for"; "lamp of" asks for an office lamp."""
    engine = Bm25(begun=True, every_first=True)
    index = engine.build([(["desk lamp", "office lamp"], 1.0)])
    assert engine.find(index, "lamp for", 5).share.tolist() == [1.0, 1.0]
    found = engine.find(index, "lamp of", 5)
    assert (found.place.tolist(), found.share.tolist()) == ([1, 0], [1.0, 0.5])


def test_beginnings_find_words_whose_stems_have_other_letters() -> None:
    """ "happi" and "happy" both find happiness and happy; "runni" finds running, of which the stem is run."""
    engine = Bm25(begun=True)
    index = engine.build([(["happiness", "happy", "running shoes"], 1.0)])
    for typed, expected in {"happ": {0, 1}, "happi": {0, 1}, "runni": {2}, "runs": {2}, "shoe": {2}}.items():
        assert set(engine.find(index, typed, 5).place.tolist()) == expected, typed


def test_stems_are_porters() -> None:
    """Examples of each step of Porter's paper, and of what he leaves alone."""
    examples = {
        "caresses": "caress", "ponies": "poni", "ties": "ti", "cats": "cat", "feed": "feed", "agreed": "agre",
        "plastered": "plaster", "bled": "bled", "motoring": "motor", "sing": "sing", "conflated": "conflat",
        "hopping": "hop", "falling": "fall", "hissing": "hiss", "failing": "fail", "filing": "file", "sky": "sky",
        "happy": "happi", "relational": "relat", "conditional": "condit", "vietnamization": "vietnam",
        "formaliti": "formal", "triplicate": "triplic", "hopefulness": "hope", "goodness": "good", "revival": "reviv",
        "adjustable": "adjust", "replacement": "replac", "adoption": "adopt", "probate": "probat", "rate": "rate",
        "cease": "ceas", "controll": "control", "roll": "roll", "yes": "ye", "is": "is", "2nd": "2nd", "naïve": "naïve",
    }  # fmt: skip
    assert {word: stem(word) for word in examples} == examples


@given(st.text(max_size=80))
def test_no_text_breaks_the_analyser(text: str) -> None:
    """Words are lower case, without marks, never empty for long and short enough to be kept; the same each time."""
    words = Analyser().words(text)
    assert words == Analyser().words(text)
    assert all(len(word.encode()) <= MOST_BYTES and not any(c.isspace() for c in word) for word in words)
    assert not set(Analyser().terms(text)) & STOP_WORDS - {stem(word) for word in words}
    Bm25(begun=True).find(Bm25().build([([text, "lamp"], 1.0)]), text, 5)


def test_what_cannot_be_indexed_is_refused_with_the_remedy() -> None:
    """Fields of different lengths, weights of nothing, and parameters out of range."""
    with pytest.raises(DefinitionError, match="a text for every document"):
        Bm25().build([(["a"], 1.0), (["a", "b"], 1.0)])
    with pytest.raises(DefinitionError, match="a weight above 0"):
        Bm25().build([(["a"], 0.0)])
    with pytest.raises(DefinitionError, match="b from 0 to 1"):
        Bm25(b=2.0)


def sparse(dense: np.ndarray) -> Sparse:
    row, column = np.nonzero(dense)
    return Sparse(row, column, dense[row, column].astype(np.float32), dense.shape)


def drawn(seed: int, rows: int, columns: int) -> np.ndarray:
    """A sparse matrix whose singular values fall."""
    random = np.random.default_rng(seed)
    falling = random.standard_normal((rows, columns)) * 0.9 ** np.arange(columns)
    return np.where(random.random((rows, columns)) < 0.4, falling, 0.0)


@pytest.mark.parametrize("at_once", [1 << 20, 40])
def test_a_sparse_product_is_the_dense_one(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either way round, also where it is taken in parts that cut through rows, and where rows are empty."""
    monkeypatch.setattr(latent, "_AT_ONCE", at_once)
    dense = drawn(1, 50, 30)
    dense[[0, 7, 49]] = 0.0
    other = np.random.default_rng(2).standard_normal((50, 8)).astype(np.float32)
    np.testing.assert_allclose(sparse(dense).times(other[:30]), dense @ other[:30], atol=1e-5)
    np.testing.assert_allclose(sparse(dense).transposed().times(other), dense.T @ other, atol=1e-5)


@pytest.mark.parametrize("shape", [(200, 60), (40, 90), (5, 5), (1, 3), (3, 1)])
def test_the_factors_are_those_of_the_whole_decomposition(shape: tuple[int, int]) -> None:
    """Singular values within a thousandth, and right vectors that span the same space and are orthogonal."""
    dense = drawn(3, *shape)
    right, values = factored(sparse(dense), 4, seed=5)
    _, exact, rows = np.linalg.svd(dense, full_matrices=False)
    kept = len(values)
    assert kept == min(4, int((exact > 1e-4 * exact[0]).sum()))
    np.testing.assert_allclose(values, exact[:kept], rtol=1e-3)
    np.testing.assert_allclose(right.T @ right, np.eye(kept), atol=1e-4)
    assert np.linalg.norm(rows[:kept] @ right) ** 2 > kept * 0.99


@given(st.lists(st.integers(-99, 99), min_size=3, max_size=MOST_DIMS), st.randoms())
def test_products_of_vectors_have_the_same_bits_in_any_order(values: list[int], random: Any) -> None:
    """Vectors hold whole numbers, so a shuffle of the dimensions changes nothing, at full length too."""
    order = list(range(len(values)))
    random.shuffle(order)
    one, other = rounded(np.array(values, np.float64)), rounded(np.array(values[::-1], np.float64) + 0.3)
    assert (one == np.rint(one)).all()
    exact = sum(int(a) * int(b) for a, b in zip(one.tolist(), other.tolist(), strict=True))
    place, cosine = nearest(np.stack([one, one]), other, 1)
    shuffled = nearest(one[order][None], other[order], 1)[1]
    assert place.tolist() == ([0] if exact > 0 else [])
    assert cosine.tolist() == shuffled.tolist() == ([exact / STEPS**2] if exact > 0 else [])
