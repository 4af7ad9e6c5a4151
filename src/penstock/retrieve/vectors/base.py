"""What an engine of the vector index is: built once from a matrix, kept as named arrays, searched by many workers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from penstock.errors import PenstockError
from penstock.types import Array

Metric = Literal["cosine", "ip", "l2"]
State = Mapping[str, Array]
"""An engine's built form: named arrays, which a release keeps as .npy files and every worker maps."""
Rows = NDArray[np.int64]
Scores = NDArray[np.float32]
Floats = NDArray[np.float32]

BLOCK = 1 << 16
"""Rows that are prepared at a time, so that a matrix on disk is never copied whole."""


FEW = 5_000
"""Vectors below which comparing all of them is fast enough, and nothing else is worth its training."""


class VectorError(PenstockError):
    """Vectors, queries or settings that an index cannot take."""


class Setting(NamedTuple):
    """How much of an index one search looks at: `probes` of its lists (or nodes of its graph), and how many
    candidates `keep` is ranked anew by better codes. 0 where an engine has no such choice."""

    probes: int = 0
    keep: int = 0


class Searcher(ABC):
    """An opened index over n vectors of d dimensions; it never changes, and may be searched by several threads.

    Attributes:
        size: n.
        probes: the most that a setting may probe, 0 where there is no choice.
        keeps: whether candidates are ranked anew.
    """

    size: int
    probes: int = 0
    keeps: bool = False

    @abstractmethod
    def search(self, queries: Floats, k: int, setting: Setting) -> tuple[Rows, Scores]:
        """The rows (m, k) int64 of what is nearest to queries (m, d), best first, and scores (m, k) float32.

        Higher is better under every metric: of "l2" it is minus the squared distance. Where fewer are found the
        rows end in -1, their scores in -inf.
        """

    @abstractmethod
    def take(self, rows: NDArray[np.int64]) -> Floats:
        """The vectors at `rows` (r,) as they are held, (r, d) float32: normalised for "cosine"."""

    def lists(self) -> tuple[Floats, NDArray[np.int64]] | None:
        """Centres (c, d) float32 and the list (n,) that each row is in; None where there are no lists."""
        return None


class Engine(ABC):
    """One way to index vectors: a frozen dataclass of what it is built with, registered as "vectors"."""

    extra: ClassVar[str] = ""
    """The extra of penstock that installs its library, empty where it needs none."""
    heavy: ClassVar[bool] = False
    """Whether it takes so long to build that it is tried only where the others miss."""

    @classmethod
    @abstractmethod
    def variants(cls, n: int, d: int) -> Sequence[Engine]:
        """Those of its kind that are worth measuring for n vectors of d dimensions."""

    @classmethod
    def lacks(cls) -> str:
        """The name of the package that is not installed, empty where nothing is missing."""
        return ""

    def room(self, n: int, d: int) -> int:
        """Bytes of memory that building takes beside the index, where that depends on n."""
        return 0

    @abstractmethod
    def fit(self, vectors: Matrix, *, seed: int, threads: int) -> State:
        """Builds the index; the same seed gives the same bytes."""

    @abstractmethod
    def open(self, state: State, metric: Metric) -> Searcher:
        """Makes built arrays searchable; they may be memory maps, and are not copied where that can be helped."""


@dataclass(frozen=True, eq=False)
class Matrix:
    """n vectors of d dimensions, (n, d) of any float type, perhaps a memory map; normalised as they are read.

    Args:
        raw: what was given.
        metric: for "cosine" every vector that is read has length 1; a vector of zeros stays one, and is
            nobody's neighbour: its scores are 0.
        apart: rows from which nothing is learned, since they are to measure with.
        learned: what was, for engines that learn the same.

    >>> Matrix(np.array([[3.0, 4.0], [0.0, 0.0]]), "cosine").rows(slice(None))
    array([[0.6, 0.8],
           [0. , 0. ]], dtype=float32)
    """

    raw: Array
    metric: Metric
    apart: NDArray[np.int64] | None = None
    learned: dict[tuple[str, int, int], Array] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.raw)

    @property
    def d(self) -> int:
        return int(self.raw.shape[1])

    def rows(self, index: Array | slice) -> Floats:
        """The vectors at `index`, (r, d) float32, of which the caller may keep no reference into `raw`."""
        return prepared(self.raw[index], self.metric)

    def blocks(self, size: int = BLOCK) -> Iterator[tuple[int, Floats]]:
        """All of them in order, `size` at a time, each block with the number of its first row."""
        for first in range(0, len(self), size):
            yield first, self.rows(slice(first, first + size))

    def whole(self) -> Floats:
        """All of them as one contiguous array (n, d) float32."""
        if self.metric != "cosine" and self.raw.dtype == np.float32:
            return np.ascontiguousarray(self.raw)
        out = np.empty(self.raw.shape, np.float32)
        for first, block in self.blocks():
            out[first : first + len(block)] = block
        return out

    def sample(self, most: int, seed: int) -> Floats:
        """At most `most` of them to learn from, drawn without replacement, in order."""
        if self.apart is None:
            return self.rows(drawn(len(self), most, seed))
        others = np.ones(len(self), np.bool_)
        others[self.apart] = False
        at = np.flatnonzero(others)
        return self.rows(at[drawn(len(at), most, seed)])


def drawn(n: int, most: int, seed: int) -> NDArray[np.int64]:
    """At most `most` different numbers below n, sorted.

    >>> drawn(3, 5, 0)
    array([0, 1, 2])
    """
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False, shuffle=False))


def floats(values: Array) -> Floats:
    """The same in 32 bits, contiguous; what is too large for them becomes infinity, without a warning."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, np.float32)


def prepared(vectors: Array, metric: Metric) -> Floats:
    """Vectors (r, d) as the metric compares them: float32, and of length 1 for "cosine"."""
    out = floats(vectors)
    if metric != "cosine":
        return out
    length = np.sqrt(np.einsum("ij,ij->i", out, out, dtype=np.float64))[:, None]
    scaled: Floats = np.divide(out, length, out=np.zeros_like(out), where=length > 0, casting="same_kind")
    return scaled


def checked(vectors: Array, metric: str, *, d: int | None = None, what: str = "vectors") -> Array:
    """Refuses what is no matrix of numbers that are finite in 32 bits; otherwise gives it as it came.

    Raises:
        VectorError: another shape, another number of dimensions than `d`, NaN, infinity or what becomes infinity in
            float32, an unknown metric.
    """
    if metric not in get_args(Metric):
        known = ", ".join(get_args(Metric))
        raise VectorError("a metric is one that is known", got=repr(metric), remedy=f"use one of {known}")
    vectors = np.asarray(vectors)
    if vectors.ndim != 2 or not vectors.shape[1] or vectors.dtype.kind not in "fiu":
        raise VectorError(
            f"{what} are a matrix of numbers, a row each", got=f"{vectors.dtype} {vectors.shape}",
            remedy="pass an array (n, d); of a single one, vector[None]",
        )  # fmt: skip
    if d is not None and vectors.shape[1] != d:
        raise VectorError(
            f"{what} have as many dimensions as the index", got=f"{vectors.shape[1]}, not {d}",
            remedy="embed them with the model that the index was built from, or build the index anew",
        )  # fmt: skip
    for first in range(0, len(vectors), BLOCK):
        # A sum is finite only where all its parts are; float64 holds the sum of any squares of float32.
        part = floats(vectors[first : first + BLOCK])
        lengths = np.einsum("ij,ij->i", part, part, dtype=np.float64)
        if not np.isfinite(lengths).all():
            row = first + int(np.flatnonzero(~np.isfinite(lengths))[0])
            raise VectorError(
                f"{what} are finite", got=f"NaN or infinity in row {row}, as float32",
                remedy="leave it out, or look into what made it; float32 ends at 3.4e38",
            )  # fmt: skip
    return vectors


def padded(rows: Rows, scores: Scores, k: int) -> tuple[Rows, Scores]:
    """Rows and scores (m, at most k), filled up to k columns."""
    short = k - rows.shape[1]
    if short <= 0:
        return rows, scores
    edge = ((0, 0), (0, short))
    return np.pad(rows, edge, constant_values=-1), np.pad(scores, edge, constant_values=-np.inf)


def best(scores: Scores, k: int) -> NDArray[np.int64]:
    """Where the k highest of `scores` (n,) are, highest first; of equal ones the first.

    >>> best(np.array([1, 3, 2, 3], np.float32), 3)
    array([1, 3, 2])
    """
    if len(scores) > 4 * k:
        edge = np.partition(scores, len(scores) - k)[len(scores) - k]
        held = np.flatnonzero(scores >= edge)
        return held[np.argsort(-scores[held], kind="stable")[:k]]
    return np.argsort(-scores, kind="stable")[:k]
