"""Fits two towers to pairs of a query and the item that was right for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from penstock.errors import DefinitionError
from penstock.learn.autodiff import Tensor, concat, gradients
from penstock.learn.losses import ChoiceLoss, SampledSoftmax, loss_of
from penstock.learn.optimise import Adam, schedule
from penstock.learn.two_tower.negatives import alike, best, hardest, listed, lists_by, named
from penstock.learn.two_tower.network import Bags, Form, begin, encode, tower
from penstock.types import Array, Progress


@dataclass(frozen=True, eq=False)
class Pairs:
    """Which item was right for which query: `query` and `item` (n,), numbers of bags."""

    query: NDArray[np.int64]
    item: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.query)


@dataclass(frozen=True)
class Course:
    """How two towers are trained.

    The batch's own items stand as negatives for one another. Each further argument changes what a query is compared
    with, and can be used by itself.

    Args:
        epochs: passes over all pairs, at most; batch: pairs a step.
        rate: Adam's, at its highest; it rises over the first steps and falls along a cosine.
        loss: of one right item among many; its temperature or margin is set there.
        log_q: corrects for popular items being drawn as negatives more often than others.
        masked: items known to be right for a query are none of its negatives.
        uniform: items drawn evenly from the whole catalogue a step, beside the batch's own (Yang et al., "Mixed
            negative sampling for learning two-tower neural networks in recommendations", WWW 2020).
        mined: so many items of each query's `depth` hardest, found anew before each epoch but the first; `skip` of the
            best are passed over.
        alike: what near-duplicates of the right item still count as negatives, from 0 to 1; 1 leaves them alone.
        by: what makes a near-duplicate: a share of attributes in common, or a cosine of the items' vectors, of `like`
            or more.
        cold: how often an item's id, the first of its codes, is left out, so that attributes learn to stand alone.
        patience: epochs without a better recall on held-out pairs after which training ends.
        k: of that recall.
        seed: of every random draw.
    """

    epochs: int = 10
    batch: int = 256
    rate: float = 3e-3
    loss: ChoiceLoss = field(default_factory=lambda: SampledSoftmax(0.1))
    log_q: bool = True
    masked: bool = True
    uniform: int = 0
    mined: int = 0
    depth: int = 100
    skip: int = 0
    alike: float = 1.0
    by: Literal["attributes", "cosine"] = "attributes"
    like: float = 0.6
    cold: float = 0.0
    patience: int = 3
    k: int = 50
    seed: int = 1

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch, self.depth, self.patience, self.k) < 1 or min(self.uniform, self.mined) < 0:
            raise DefinitionError(
                "a course has epochs, pairs a batch, and no less than no negatives", got=repr(self),
                remedy="epochs=10, batch=256, uniform=0, mined=0",
            )  # fmt: skip
        if not (0 <= self.alike <= 1 and 0 <= self.cold < 1 and 0 < self.like <= 1):
            raise DefinitionError(
                "alike, cold and like are shares", got=f"alike={self.alike}, cold={self.cold}, like={self.like}",
                remedy="alike=0.1, cold=0.1, like=0.6",
            )  # fmt: skip
        if self.by not in ("attributes", "cosine"):
            raise DefinitionError(
                "near-duplicates are told by attributes or by cosine", got=f"by={self.by!r}",
                remedy='write by="attributes" or by="cosine"',
            )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Epoch:
    """What one pass came to: its mean loss, the recall on held-out pairs (NaN without any), and the weights."""

    number: int
    loss: float
    recall: float
    weights: dict[str, Array]


def train(
    form: Form,
    course: Course,
    queries: Bags,
    items: Bags,
    pairs: Pairs,
    *,
    held: Pairs | None = None,
    weights: Mapping[str, Array] | None = None,
    each: Callable[[Epoch], bool] | None = None,
    progress: Progress | None = None,
) -> dict[str, Array]:
    """Weights that put, of all items, those first that were right.

    Args:
        queries, items: what each tower reads of each.
        pairs: what to learn from; n ≥ 1.
        held: pairs left out; the weights of the epoch with the best recall on them are given back.
        weights: to go on from, and left as they are; drawn anew where absent.
        each: called after each epoch; True ends the training.
    """
    random = np.random.default_rng(course.seed)
    weights = begin(form, random) if weights is None else {name: value.copy() for name, value in weights.items()}
    run = Run(form, course, queries, items, pairs, random)
    steps_an_epoch = math.ceil(len(pairs) / course.batch)
    steps = course.epochs * steps_an_epoch
    kept, highest, since = weights, -1.0, 0
    for number in range(course.epochs):
        run.refresh(weights, number)
        lost = 0.0
        order = random.permutation(len(pairs))
        for start in range(0, len(pairs), course.batch):
            which = order[start : start + course.batch]
            lost += run.step(weights, which, schedule(run.adam.steps, steps)) * len(which)
            if progress:
                progress(run.adam.steps, steps)
        recall = math.nan
        if held is not None and len(held):
            recall = recall_of(form, weights, queries, items, held, course.k)
            since += 1
            if recall > highest:
                kept, highest, since = {name: value.copy() for name, value in weights.items()}, recall, 0
        if each is not None and each(Epoch(number, lost / len(pairs), recall, weights)):
            break
        if since >= course.patience:
            break
    return kept


def recall_of(form: Form, weights: dict[str, Array], queries: Bags, items: Bags, held: Pairs, k: int) -> float:
    """The share of pairs whose item is among the k best of all items for its query."""
    asked, which = np.unique(held.query, return_inverse=True)
    found = best(encode(form, weights, "query", queries.taken(asked)), encode(form, weights, "item", items), k)
    return float((found[which] == held.item[:, None]).any(axis=1).mean())


@dataclass(frozen=True, eq=False)
class Drawn:
    """A batch: what was `asked` and `right` (n,); the candidates `shared` (m,) by all, of which the first n are right
    themselves; and each query's `own` hardest (n, h), None before there are any."""

    asked: NDArray[np.int64]
    right: NDArray[np.int64]
    shared: NDArray[np.int64]
    own: NDArray[np.int64] | None


class Run:
    """What stays from step to step: how often items are right, what is known to be right, and the hardest."""

    def __init__(
        self, form: Form, course: Course, queries: Bags, items: Bags, pairs: Pairs, random: np.random.Generator
    ) -> None:
        if not len(pairs):
            raise DefinitionError(
                "two towers learn from pairs", got="none", remedy="pass at least one query with its item"
            )
        self.form, self.course, self.queries, self.items, self.pairs = form, course, queries, items, pairs
        self.random = random
        self.adam = Adam(course.rate)
        self.share = np.bincount(pairs.item, minlength=len(items)) / len(pairs)
        self.known = lists_by(pairs.query, pairs.item, len(queries))
        self.twins = alike(items, course.like) if course.alike < 1 and course.by == "attributes" else None
        self.hard: NDArray[np.int64] | None = None

    def refresh(self, weights: dict[str, Array], epoch: int) -> None:
        """Finds the hardest items anew; before the first epoch nothing is hard."""
        if not self.course.mined or not epoch:
            return
        asked = np.unique(self.pairs.query)
        query = encode(self.form, weights, "query", self.queries.taken(asked))
        item = encode(self.form, weights, "item", self.items)
        found = hardest(query, item, self.course.depth, self.known.taken(asked), self.course.skip)
        self.hard = np.zeros((len(self.queries), found.shape[1]), np.int64)
        self.hard[asked] = found

    def draw(self, which: NDArray[np.int64]) -> Drawn:
        """The candidates of some pairs (n,)."""
        asked, right = self.pairs.query[which], self.pairs.item[which]
        shared = np.r_[right, self.random.integers(0, len(self.items), self.course.uniform)]
        if self.hard is None:
            return Drawn(asked, right, shared, None)
        column = self.random.integers(0, self.hard.shape[1], (len(which), self.course.mined))
        return Drawn(asked, right, shared, self.hard[asked[:, None], column])

    def step(self, weights: dict[str, Array], which: NDArray[np.int64], rate: float) -> float:
        """One step of some pairs; their loss."""
        held = {name: Tensor(value) for name, value in weights.items()}
        drawn, n = self.draw(which), len(which)
        query = tower(self.form, held, "query", self.queries.taken(drawn.asked))
        item = tower(self.form, held, "item", self.bags(drawn.shared))
        scores, beside = query @ item.T, None
        if drawn.own is not None:
            hard = tower(self.form, held, "item", self.bags(drawn.own.reshape(-1))).reshape(n, -1, self.form.width)
            scores = concat([scores, (query.reshape(n, 1, self.form.width) * hard).sum(axis=2)], axis=1)
            beside = hard.value
        log_q, hidden = self.weigh(drawn, item.value, beside)
        loss = loss_of(
            self.course.loss, scores, np.arange(n), log_q=log_q.astype(scores.value.dtype), hidden=hidden
        )  # fmt: skip
        names = list(held)
        slopes = dict(zip(names, gradients(loss, [held[name] for name in names]), strict=True))
        self.adam.step(weights, slopes, rate)
        for name in ("code", "query", "item"):
            if name in weights:
                weights[name][0] = 0
        return float(loss.value)

    def weigh(
        self, drawn: Drawn, item: Array, beside: Array | None
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
        """How often each candidate counts as drawn, as a logarithm, and which are hidden, (n, m + h) each.

        Args:
            item, beside: the vectors of what is shared (m, d), and of each query's own (n, h, d).
        """
        course, n, m = self.course, len(drawn.right), len(drawn.shared)
        own = drawn.own
        log_q = np.zeros((n, m if own is None else m + own.shape[1]), np.float32)
        if course.log_q:
            log_q[:, :m] = np.log(n * self.share[drawn.shared] + course.uniform / len(self.items))
            if self.hard is not None:
                log_q[:, m:] = math.log(course.mined / self.hard.shape[1])
        hidden: NDArray[np.bool_] | None = None
        mine = np.arange(n)
        if course.masked:
            hidden = named(self.known, drawn.asked, drawn.shared, len(self.items))
            if own is not None:
                hidden = np.concatenate([hidden, listed(self.known, drawn.asked, own)], axis=1)
            hidden[mine, mine] = False
        if course.alike < 1:
            near = self._near(drawn, item)
            if own is not None:
                near = np.concatenate([near, self._near_own(drawn, item, beside)], axis=1)
            log_q[near] -= math.log(max(course.alike, 1e-9))
        # The right item is there for certain, not by a draw.
        log_q[mine, mine] = 0.0
        return log_q, hidden

    def bags(self, which: Array) -> Bags:
        """The items' bags, some without their ids."""
        part = self.items.taken(which)
        if self.course.cold:
            first = part.starts[:-1][np.diff(part.starts) > 1]
            part.codes[first[self.random.random(len(first)) < self.course.cold]] = 0
        return part

    def _near(self, drawn: Drawn, item: Array) -> NDArray[np.bool_]:
        """Which of the shared items are near-duplicates of each right one, (n, m)."""
        if self.twins is None:
            return np.asarray(item[: len(drawn.right)] @ item.T >= self.course.like)
        near = named(self.twins, drawn.right, drawn.shared, len(self.items))
        return np.asarray(near | (drawn.right[:, None] == drawn.shared))

    def _near_own(self, drawn: Drawn, item: Array, beside: Array | None) -> NDArray[np.bool_]:
        """The same of each query's own, (n, h)."""
        assert drawn.own is not None
        assert beside is not None
        if self.twins is None:
            return np.asarray(np.einsum("nd,nhd->nh", item[: len(drawn.right)], beside) >= self.course.like)
        return listed(self.twins, drawn.right, drawn.own)
