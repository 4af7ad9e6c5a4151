"""Boosted trees for one request: the same scores as LightGBM's, to the last bit, in a fraction of the time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from penstock.types import Array

if TYPE_CHECKING:
    import lightgbm

# LightGBM reads a number this close to zero as zero.
_TINY = np.float32(1e-35)
# Objectives whose score is the plain sum of leaf values; a model fitted to a loss of one's own names none.
_SUMS = {"lambdarank", "rank_xendcg", "regression", None}
_WORDS = [np.dtype(name) for name in ("u1", "u2", "u4", "u8")]
# Fewer rows than this do not pay for the calls that walk over all columns; LightGBM does them at once.
_FEWEST = 24
# So many rows at a time keep what is worked on in the processor's cache.
_BLOCK = 256
_MOST_BYTES = 256 << 20
_MOST_KEPT = 64 << 20


class Scorer:
    """Sums the leaf values of boosted trees; `score` equals ``booster.predict(rows, num_threads=1)`` bit by bit.

    Instead of walking down trees row by row, whose branches a processor cannot foresee, it follows QuickScorer
    (Lucchese et al., "QuickScorer: a fast algorithm to rank documents with additive ensembles of regression trees",
    SIGIR 2015). A tree is a word with one bit a leaf. Each split clears the leaves of the side that a row does not
    take, and the one bit that remains is the row's leaf. All thresholds of a feature cut its values into bins; for
    each bin a table holds, of every tree, the word after all splits on that feature. A row's words are the bitwise
    and of one table row a feature, and a feature that is the same in all rows of a request costs one row.

    A tree with more than 64 leaves has several words. The tables are made from what LightGBM's own rule says about
    one value of each bin, which settles missing values, zeros and infinities.

    Args:
        booster: a trained booster; `of` says None where it is not covered.
        lasting: columns that hardly change from one request to the next, such as those of an item. What their
            splits leave of each tree is kept, for rows whose editions come again.

    Attributes:
        table: (bins of all features, words) unsigned, as wide as the largest tree needs.
        values: (words × (bits + 1),) float64, the leaf values; the last of each word, 0, stands for no leaf.

    >>> import lightgbm
    >>> rows = np.array([[0.0], [1.0], [2.0], [np.nan]] * 20, np.float32)
    >>> data = lightgbm.Dataset(rows, [0.0, 1.0, 3.0, 5.0] * 20)
    >>> parameters = {"min_data_in_leaf": 1, "min_data_in_bin": 1, "verbose": -1}
    >>> booster = lightgbm.train(parameters, data, num_boost_round=5)
    >>> scores = Scorer.of(booster).score(rows)
    >>> scores.shape, bool((scores == booster.predict(rows)).all())
    ((80,), True)
    """

    def __init__(self, booster: lightgbm.Booster, lasting: Sequence[int] = ()) -> None:
        trees = list(_trees(booster.model_to_string()))
        self.columns = booster.num_feature()
        most = max(len(tree["leaf_value"].split()) for tree in trees)
        word = next((word for word in _WORDS if word.itemsize * 8 >= most), _WORDS[-1])
        splits = _Splits(trees, word)
        self._all = splits.leaves
        self._ones = np.iinfo(word).max
        self.values = splits.values.ravel()
        self._first = (np.arange(len(splits.values)) * splits.values.shape[1])[:, None]
        self._features = np.unique(splits.feature)
        breaks = [_breaks(splits.threshold[splits.feature == f]) for f in self._features]
        sizes = np.array([len(found) + 2 for found in breaks], np.int64)
        if int(sizes.sum()) * len(self._all) * word.itemsize > _MOST_BYTES:
            raise _NotCoveredError
        # The last two bins of a feature: above every threshold, and NaN, which is sought beyond infinity.
        self._breaks = [np.append(found, np.float32(np.inf)) for found in breaks]
        self._start = np.cumsum(sizes) - sizes
        self.table = np.full((int(sizes.sum()), len(self._all)), self._ones, word)
        for feature, start, found in zip(self._features, self._start, breaks, strict=True):
            splits.fill(self.table[start : start + len(found) + 2], int(feature), found)
        self._lasting = np.isin(self._features, np.array(lasting, np.int64))
        self._kept = _Kept(len(self._all), word)

    @classmethod
    def of(cls, booster: lightgbm.Booster, lasting: Sequence[int] = ()) -> Self | None:
        """A scorer of the booster; None where only LightGBM itself will do: categories, linear leaves, several
        classes, an objective that transforms the sum, or tables of more than 256 MiB."""
        try:
            return cls(booster, lasting)
        except _NotCoveredError:
            return None

    def takes(self, rows: NDArray[Any]) -> bool:
        """Whether it can score these rows and is likely to be faster than LightGBM: float32, and not just a few."""
        return rows.dtype == np.float32 and len(rows) >= _FEWEST and rows.shape[1:] == (self.columns,)

    def score(self, rows: NDArray[np.float32], editions: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """The scores of rows (n, features) float32 → (n,) float64.

        Args:
            editions: (n, any) int64, the same only where the lasting columns are.
        """
        parts = [
            self._score(rows[i : i + _BLOCK], None if editions is None else editions[i : i + _BLOCK])
            for i in range(0, len(rows), _BLOCK)
        ]
        return np.concatenate(parts) if parts else np.zeros(0)

    def _score(self, rows: NDArray[np.float32], editions: NDArray[np.int64] | None) -> NDArray[np.float64]:
        columns = rows.T[self._features]
        bits = columns.view(np.int32)  # as numbers, NaN would differ from itself
        varies = (bits != bits[:, :1]).any(axis=1)
        kept = self._lasting & (editions is not None)
        words = np.tile(self._all, (len(rows), 1)) if editions is None else self._kept_words(columns, editions)
        once = self.table[self._bins(columns[:, :1], ~(varies | kept))[:, 0]]
        words &= np.bitwise_and.reduce(once, axis=0, initial=self._ones)
        self._narrow(words, columns, varies & ~kept)
        words -= words.dtype.type(1)  # one bit remains; the ones below it count its place
        added = self.values.take(np.add(np.bitwise_count(words).T, self._first, order="C"))
        # Tree after tree, as LightGBM adds, beginning with 0. NumPy's sum does so over rows of memory; a single
        # column, which lies in one piece, it would add in pairs.
        total = added.sum(axis=0) if len(rows) > 1 else added.cumsum(axis=0)[-1]
        return np.asarray(total + 0.0)

    def _narrow(self, words: Array, columns: NDArray[np.float32], which: NDArray[np.bool_]) -> None:
        """Clears in each row's words (n, words) the leaves that its values in some columns rule out."""
        found = np.empty_like(words)
        for bins in self._bins(columns, which):
            # Every bin is in the table; "clip" only spares the copy that the default makes of `out`.
            self.table.take(bins, axis=0, out=found, mode="clip")
            np.bitwise_and(words, found, out=words)

    def _kept_words(self, columns: NDArray[np.float32], editions: NDArray[np.int64]) -> Array:
        """What the lasting columns leave of all leaves, (n, words), for the caller to write on."""
        names = editions[:, 0].tolist() if editions.shape[1] == 1 else list(map(tuple, editions.tolist()))

        def make(rows: list[int]) -> Array:
            words = np.tile(self._all, (len(rows), 1))
            self._narrow(words, columns[:, rows], self._lasting)
            return words

        return self._kept.take(names, make)

    def _bins(self, columns: NDArray[np.float32], which: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The rows of the table for some features' columns (all features, n) → (some features, n)."""
        chosen = np.flatnonzero(which).tolist()
        found = np.empty((len(chosen), columns.shape[1]), np.int64)
        for row, feature in zip(found, chosen, strict=True):
            row[:] = self._breaks[feature].searchsorted(columns[feature])
        found += self._start[which, None]
        return found


class _Kept:
    """Rows of words by name, in memory; any thread may use it."""

    def __init__(self, words: int, word: np.dtype[Any]) -> None:
        self._most = _MOST_KEPT // (words * word.itemsize)
        self._places: dict[Hashable, int] = {}
        self._table = np.empty((0, words), word)
        self._lock = threading.Lock()

    def take(self, names: Sequence[Hashable], make: Callable[[list[int]], Array]) -> Array:
        """The rows (n, words) of n names, a copy; `make` gives those of some positions that are not there yet."""
        with self._lock:
            places = self._places
            new = {name: i for i, name in enumerate(names) if name not in places}
            if len(places) + len(new) > self._most:
                places.clear()
                new = {name: i for i, name in enumerate(names)}
            if new:
                made, begin = make(list(new.values())), len(places)
                places.update(zip(new, range(begin, begin + len(new)), strict=True))
                if len(places) > len(self._table):
                    more = np.empty((max(len(places), 256), self._table.shape[1]), self._table.dtype)
                    self._table = np.concatenate([self._table, more])
                self._table[begin : len(places)] = made
            at = np.array([places[name] for name in names])
            return self._table.take(at, axis=0, mode="clip")  # all are there: "clip" is only quicker


class _NotCoveredError(Exception):
    pass


class _Splits:
    """The splits of all trees as arrays, sorted by word; a split that clears leaves in two words stands twice."""

    def __init__(self, trees: list[Mapping[str, str]], word: np.dtype[Any]) -> None:
        bits = word.itemsize * 8
        ones = (1 << bits) - 1
        values: list[list[float]] = []
        leaves: list[int] = []
        rows: list[tuple[int, int, float, int, int, int]] = []
        for tree in trees:
            value, nodes = [float(text) for text in tree["leaf_value"].split()], _nodes(tree)
            for low in range(0, len(value), bits):
                part = value[low : low + bits]
                for feature, threshold, kind, left, right in nodes:
                    if (left | right) >> low & ones:
                        # Who goes left cannot reach the leaves on the right.
                        masks = ones & ~(right >> low), ones & ~(left >> low)
                        rows.append((len(values), feature, threshold, kind, *masks))
                values.append(part + [0.0] * (bits + 1 - len(part)))
                leaves.append((1 << len(part)) - 1)
        self.values = np.array(values)
        self.leaves = np.array(leaves, word)
        columns = list(zip(*rows, strict=True)) or [()] * 6
        self.word, self.feature = np.array(columns[0], np.int64), np.array(columns[1], np.int64)
        self.threshold, self.kind = np.array(columns[2], np.float64), np.array(columns[3], np.int64)
        self.if_left, self.if_right = np.array(columns[4], word), np.array(columns[5], word)

    def fill(self, table: NDArray[Any], feature: int, breaks: NDArray[np.float32]) -> None:
        """Sets a feature's part of the table, (bins, words), by LightGBM's rule for one value of each bin."""
        at = np.flatnonzero(self.feature == feature)
        value = np.r_[np.where(breaks == _TINY, 0.0, breaks.astype(np.float64)), np.inf, np.nan][:, None]
        default_left, missing = (self.kind[at] & 2) > 0, self.kind[at] >> 2 & 3  # 0: none, 1: zero, 2: NaN
        value = np.where(np.isnan(value) & (missing != 2), 0.0, value)
        unknown = ((missing == 1) & (value == 0)) | np.isnan(value)
        left = np.where(unknown, default_left, value <= self.threshold[at])
        words, first = np.unique(self.word[at], return_index=True)
        table[:, words] = np.bitwise_and.reduceat(np.where(left, self.if_left[at], self.if_right[at]), first, axis=1)


def _breaks(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """The upper ends of a feature's bins, ascending: of float32 values, ``x <= end`` is ``x <= threshold``.

    Around zero there is one bin for all that LightGBM reads as zero.
    """
    most = np.finfo(np.float32).max
    ends = np.clip(thresholds, -most, most).astype(np.float32)
    with np.errstate(all="ignore"):  # below the least float32 there is only -inf
        ends = np.where(ends > thresholds, np.nextafter(ends, np.float32(-np.inf)), ends)
    return np.unique(np.r_[ends[np.abs(ends) > _TINY], np.nextafter(-_TINY, np.float32(-np.inf)), _TINY])


def _trees(text: str) -> Iterator[Mapping[str, str]]:
    """The trees of a model's text, each as its fields; raises where it has something that is not covered."""
    head, *blocks = text.split("\nTree=")
    model = _fields(head)
    one = model.get("num_class") == "1" and model.get("num_tree_per_iteration") == "1"
    if not blocks or not one or model.get("objective") not in _SUMS or "average_output" in head.split("\n"):
        raise _NotCoveredError
    for block in blocks:
        tree = _fields(block.split("\n\n")[0])
        if tree["num_cat"] != "0" or tree.get("is_linear", "0") != "0":
            raise _NotCoveredError
        yield tree


def _fields(text: str) -> Mapping[str, str]:
    return dict(line.split("=", 1) for line in text.split("\n") if "=" in line)


def _nodes(tree: Mapping[str, str]) -> list[tuple[int, float, int, int, int]]:
    """A tree's splits: feature, threshold, kind, and the leaves on the left and on the right, one bit a leaf."""
    if int(tree["num_leaves"]) < 2:
        return []
    lefts, rights = ([int(c) for c in tree[f"{side}_child"].split()] for side in ("left", "right"))
    below = [0] * len(lefts)

    def leaves(child: int) -> int:
        return 1 << ~child if child < 0 else below[child]

    # LightGBM numbers a split after the one above it.
    for i in reversed(range(len(lefts))):
        below[i] = leaves(lefts[i]) | leaves(rights[i])
    named = zip(tree["split_feature"].split(), tree["threshold"].split(), tree["decision_type"].split(), strict=True)
    sides = zip(map(leaves, lefts), map(leaves, rights), strict=True)
    return [(int(f), float(t), int(k), left, right) for (f, t, k), (left, right) in zip(named, sides, strict=True)]
