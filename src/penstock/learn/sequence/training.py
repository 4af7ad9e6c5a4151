"""Fits a network to sequences: what comes next, at every place of every sequence at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.errors import DefinitionError
from penstock.learn.autodiff import Gradient, Tensor, gradients, rows, total
from penstock.learn.losses import softmax_over, softmax_over_sample
from penstock.learn.optimise import Adam, schedule
from penstock.learn.sequence.network import TABLES, Attributes, Form, Tokens, begin, encode, vectors
from penstock.learn.threads import one_blas_thread
from penstock.types import Array, Progress


@dataclass(frozen=True, eq=False)
class Sequences:
    """Many sequences in one piece: the events of sequence i are those from begins[i] to ends[i] - 1, oldest first.

    `kind` (n,) are codes of the events' kinds, and `time` (n,) their times in microseconds; None where not known.
    """

    begins: NDArray[np.int64]
    ends: NDArray[np.int64]
    item: NDArray[np.int64]
    kind: NDArray[np.int64] | None = None
    time: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.begins)

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> Sequences:
        """From lists of item codes."""
        ends = np.cumsum([len(part) for part in lists], dtype=np.int64)
        begins = np.r_[0, ends[:-1]] if len(ends) else ends
        return cls(begins, ends, np.array([code for part in lists for code in part], np.int64))

    @property
    def size(self) -> NDArray[np.int64]:
        """How many events each has, (n,)."""
        return np.asarray(self.ends - self.begins)

    def cut(self, most: int) -> Sequences:
        """The same in pieces of at most `most` events, each of which begins with the last event of the one before.

        Every event but the first of a sequence then follows another one in just one piece.
        """
        several = np.maximum(1, -(-(self.size - 1) // (most - 1)))
        owner = np.repeat(np.arange(len(self)), several)
        back = (np.cumsum(several) - 1)[owner] - np.arange(len(owner))
        ends = self.ends[owner] - back * (most - 1)
        return replace(self, begins=np.maximum(self.begins[owner], ends - most), ends=ends)

    def tokens(self, which: Array, length: int) -> Tokens:
        """The newest `length` events of some sequences (n,), aligned at their beginnings."""
        end, begin = self.ends[which], self.begins[which]
        first = np.maximum(begin, end - length)
        size = end - first
        at = first[:, None] + np.arange(int(size.max(initial=0)))
        there = at < end[:, None]
        at = np.where(there, at, 0)

        def column(values: Array) -> Array:
            return np.where(there, values[at], 0)

        gap = None
        if self.time is not None:
            since = np.diff(self.time, prepend=self.time[:1]) / 1e6
            # The first of a window has no event before it that the network sees.
            gap = np.where(there & (at > first[:, None]), np.maximum(since[at], 0.0), 0.0)
        return Tokens(column(self.item), None if self.kind is None else column(self.kind), gap)


@dataclass(frozen=True)
class Course:
    """How a network is trained.

    Args:
        epochs: passes over all sequences; batch: sequences a step.
        rate: Adam's, at its highest; it rises over the first steps and falls along a cosine.
        drop: the share of values dropped.
        length: events that are looked at; longer sequences are learned from in pieces.
        negatives: items drawn a step, uniformly, to compare with; 0 compares with all of them.
        smoothing: see `softmax_over`; with negatives those stand for all items.
        decay: what is taken off matrices and tables a step, as a share of the rate.
        seed: of every random draw.
    """

    epochs: int = 10
    batch: int = 128
    rate: float = 2e-3
    drop: float = 0.2
    length: int = 50
    negatives: int = 0
    smoothing: float = 0.0
    decay: float = 0.0
    seed: int = 1

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch, self.length) < 1 or self.negatives < 0 or not self.rate > 0:
            raise DefinitionError(
                "a course has epochs, sequences a batch, events in a sequence, a rate, and no less than no negatives",
                got=repr(self), remedy="epochs=10, batch=128, length=50, rate=2e-3, negatives=0",
            )  # fmt: skip
        if not (0 <= self.drop < 1 and 0 <= self.smoothing < 1 and self.decay >= 0):
            raise DefinitionError(
                "drop and smoothing are shares below 1, and decay is 0 or more",
                got=f"drop={self.drop!r}, smoothing={self.smoothing!r}, decay={self.decay!r}",
                remedy="drop=0.2, smoothing=0.0, decay=0.0",
            )


def train(
    form: Form,
    course: Course,
    sequences: Sequences,
    attributes: Attributes | None = None,
    *,
    weights: dict[str, Array] | None = None,
    each: Callable[[int, float, dict[str, Array]], bool] | None = None,
    progress: Progress | None = None,
) -> dict[str, Array]:
    """Weights that say best, by cross-entropy, what came next in each place of each sequence.

    Args:
        weights: to go on from, and left as they are; drawn anew where absent.
        each: called after each epoch with its number, its mean loss and the weights; True ends the training.
    """
    random = np.random.default_rng(course.seed)
    weights = begin(form, random) if weights is None else {name: value.copy() for name, value in weights.items()}
    adam = Adam(course.rate)
    sequences = sequences.cut(course.length + 1)
    usable = np.flatnonzero(sequences.size > 1)
    steps = course.epochs * max(1, math.ceil(len(usable) / course.batch))
    # Each half of a batch has a thread; the products of matrices would take two more.
    with one_blas_thread(), ThreadPoolExecutor(2, "penstock-train") as pool:
        for epoch in range(course.epochs):
            lost, counted = 0.0, 0
            for which in batches(usable, sequences.size, course.batch, random):
                tokens = sequences.tokens(which, course.length + 1)
                loss, n = _step(form, course, weights, tokens, attributes, adam, random, steps, pool)
                lost, counted = lost + loss * n, counted + n
                if progress:
                    progress(adam.steps, steps)
            if each is not None and each(epoch, lost / max(counted, 1), weights):
                break
    return weights


def _step(
    form: Form,
    course: Course,
    weights: dict[str, Array],
    tokens: Tokens,
    attributes: Attributes | None,
    adam: Adam,
    random: np.random.Generator,
    steps: int,
    pool: ThreadPoolExecutor,
) -> tuple[float, int]:
    """One step, each half of the batch on a thread of its own: most of NumPy's work runs on one core by itself."""
    drawn = random.integers(1, form.items, course.negatives) if course.negatives else None
    middle = (len(tokens.item) + 1) // 2
    halves = [tokens.take(slice(0, middle)), tokens.take(slice(middle, None))]
    seeds = random.spawn(len(halves))
    whole = int((tokens.item[:, 1:] > 0).sum())

    def work(half: Tokens, seed: np.random.Generator) -> tuple[float, dict[str, Gradient]]:
        return _part(form, course, weights, half, attributes, seed, drawn, whole)

    parts = list(pool.map(work, halves, seeds))
    slopes = {name: total([part[name] for _, part in parts]) for name in weights}
    rate = schedule(adam.steps, steps)
    for name, value in weights.items():
        if course.decay and decays(name, value.ndim):
            value *= 1 - course.rate * rate * course.decay
    adam.step(weights, slopes, rate)
    for name in TABLES:
        if name in weights:
            weights[name][0] = 0
    return sum(loss for loss, _ in parts), whole


def _part(
    form: Form,
    course: Course,
    weights: dict[str, Array],
    tokens: Tokens,
    attributes: Attributes | None,
    random: np.random.Generator,
    drawn: NDArray[np.int64] | None,
    whole: int,
) -> tuple[float, dict[str, Gradient]]:
    """The part of some sequences in the mean loss over `whole` places, and its gradients."""
    held = {name: Tensor(value) for name, value in weights.items()}
    before, target, there = split(tokens)
    if not len(target):
        return 0.0, {name: np.zeros_like(value) for name, value in weights.items()}
    share = len(target) / whole
    if drawn is None:
        table = vectors(form, held, attributes)
        found = encode(form, held, table, before, drop=course.drop, random=random)[there]
        loss = softmax_over(found, table[1:], target - 1, scale=form.scale, smoothing=course.smoothing)
    else:
        # Of the table only what is looked at: with many items the rest would take most of the time.
        used = np.unique(np.concatenate([[0], tokens.item.ravel(), drawn]))
        table = vectors(form, held, attributes, used)
        inner = Tokens(np.searchsorted(used, before.item), before.kind, before.gap)
        found = encode(form, held, table, inner, drop=course.drop, random=random)[there]
        mine, others = np.searchsorted(used, target), np.searchsorted(used, drawn)
        loss = _sampled(form, found, table, mine, others, course.smoothing)
    names = list(held)
    slopes = gradients(loss * np.asarray(share, loss.value.dtype), [held[name] for name in names])
    return float(loss.value) * share, dict(zip(names, slopes, strict=True))


def _sampled(form: Form, found: Tensor, table: Tensor, target: Array, drawn: Array, smoothing: float) -> Tensor:
    """Each place against its own item and one draw of others for all."""
    log_q = np.full(len(drawn), math.log(len(drawn) / (form.items - 1)))
    return softmax_over_sample(
        found, rows(table, target), rows(table, drawn), (target, drawn), log_q, scale=form.scale, smoothing=smoothing
    )  # fmt: skip


def decays(name: str, dimensions: int) -> bool:
    """Whether decay takes something off a weight: off matrices and tables, but those of distances."""
    return dimensions == 2 and not name.endswith("distance")


def split(tokens: Tokens) -> tuple[Tokens, NDArray[np.int64], NDArray[np.bool_]]:
    """What is read, what comes after each place of it that is filled, (n,), and which places are, (batch, length)."""
    kind = None if tokens.kind is None else tokens.kind[:, :-1]
    gap = None if tokens.gap is None else tokens.gap[:, :-1]
    after = tokens.item[:, 1:]
    there = after > 0
    return Tokens(tokens.item[:, :-1], kind, gap), after[there], there


def batches(
    usable: NDArray[np.int64], size: NDArray[np.int64], batch: int, random: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """All sequences once, in batches of about one length, so that little is padded; in random order."""
    order = random.permutation(usable)
    pool = batch * 32
    parts: list[Any] = []
    for start in range(0, len(order), pool):
        chunk = order[start : start + pool]
        chunk = chunk[np.argsort(size[chunk], kind="stable")]
        parts += [chunk[i : i + batch] for i in range(0, len(chunk), batch)]
    for place in random.permutation(len(parts)):
        yield parts[place]
