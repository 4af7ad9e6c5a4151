"""Rules that show now and then what is not believed to be best, to learn from it; the chances are exact and logged."""

from __future__ import annotations

import random
from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from penstock.errors import DefinitionError
from penstock.learn import LinearReward, Posterior, Summary
from penstock.registry import registered
from penstock.serve.rerank.base import Explores, Floats, Reads, Slate, check_place
from penstock.types import Array, Strings

_MOST = 1e12
"""More tries than that say no more."""
_WIDE = 1_024
"""Candidates that draws are kept for, however many more may take part."""


@registered("rule")
@dataclass(frozen=True)
class Explore(Explores):
    """With a small chance at each place, shows a candidate drawn evenly from those left instead of the best.

    The propensity of every item shown is logged, so that estimators can weigh what was not shown.

    Args:
        rate: the chance, between 0 and 1.
        first: the first place (from 1) that explores.
    """

    rate: float
    first: int = 1

    def __post_init__(self) -> None:
        _check_rate(self.rate)
        check_place("first", self.first)

    def apply(self, slate: Slate, k: int, strings: Strings, draw: random.Random) -> Slate:
        left = slate.order.tolist()
        chosen: list[int] = []
        chance: list[float] = []
        for place in range(min(k, len(left))):
            rate = self.rate if place + 1 >= self.first else 0.0
            even = rate / len(left)
            at = draw.randrange(len(left)) if rate and draw.random() < rate else 0
            chance.append(1.0 - rate + even if at == 0 else even)
            chosen.append(left.pop(at))
        return slate.reordered(np.array([*chosen, *left], np.int64), np.r_[chance, np.zeros(len(left))])

    def chances(self, slate: Slate, shown: Array) -> Floats:
        """See `Explores`: 0 from the first place on that holds what is not in the order, or stood above already.

        >>> Explore(0.1).chances(Slate.of(np.array([7, 8], np.uint32), np.array([0, 1])), np.array([1, 0])).tolist()
        [0.05, 1.0]
        """
        left = slate.order.tolist()
        out = np.zeros(len(shown))
        for place, one in enumerate(shown.tolist()):
            if one not in left:
                break
            rate = self.rate if place + 1 >= self.first else 0.0
            out[place] = rate / len(left) + (1.0 - rate if left[0] == one else 0.0)
            left.remove(one)
        return out


class _Draws(Explores):
    """Each place shows what is best in one of several draws, evenly, among the first so many candidates."""

    among: int
    rate: float
    first: int
    draws: int

    def __post_init__(self) -> None:
        _check_rate(self.rate)
        check_place("first", self.first)
        if self.among < 1 or self.draws < 1:
            raise DefinitionError(
                "a bandit has candidates, and draws from what is believed of them",
                got=f"among={self.among}, draws={self.draws}", remedy="among=50, draws=128",
            )  # fmt: skip

    @abstractmethod
    def _values(self, slate: Slate, at: NDArray[np.int64]) -> NDArray[np.floating]:
        """What the candidates `at` (m,) are worth in each draw: (draws, m)."""

    def apply(self, slate: Slate, k: int, strings: Strings, draw: random.Random) -> Slate:
        values = self._values(slate, slate.order[: self.among])
        return _shown(slate, values, k, self.rate, self.first, draw)

    def chances(self, slate: Slate, shown: Array) -> Floats:
        values = self._values(slate, slate.order[: self.among])
        return _chances(values, slate.order, shown, self.rate, self.first)


@registered("rule")
@dataclass(frozen=True)
class Thompson(_Draws):
    """Thompson sampling: each place takes what is best in one draw from what is believed of every item's success.

    An item that won w of t tries is believed to win with a chance that is Beta(prior · strength + w,
    (1 − prior) · strength + t − w). There are `draws` draws from all beliefs at once, the same ones whenever the same
    counts stand at the same places. Each place throws for one of them, evenly, and takes the candidate left
    that is best in it. So the chance of an item is the share of draws in which it is best: exact, not an estimate,
    for a policy that is Thompson sampling but for the grain of 1 / draws. A chance below that grain may be none at
    all; `rate` sees to it that every candidate keeps one.

    Chapelle and Li, "An empirical evaluation of Thompson sampling", NIPS 2011; a fixed set of draws in place of the
    posterior is ensemble sampling (Lu and Van Roy, NIPS 2017). The Beta is a ratio of Gammas by Wilson and Hilferty
    (1931): at most 0.02 off in distribution where prior · strength is 1 or more, as it should be.

    Args:
        wins, tries: feature columns that count, such as ``"Product.clicks"`` and ``"Product.views"``; what is no finite
            number is 0.
        prior: the share of tries won by an item of which nothing is known; `strength` how many tries that is worth.
        among: so many candidates from the first place on may be shown; the others follow in their order.
        rate: the chance of showing one of those left drawn evenly.
        first: the first place (from 1) that explores.
        draws: from what is believed.
        seed: of the draws.
    """

    wins: str
    tries: str
    prior: float = 0.05
    strength: float = 20.0
    among: int = 50
    rate: float = 0.0
    first: int = 1
    draws: int = 128
    seed: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 < self.prior < 1 and self.strength > 0):
            raise DefinitionError(
                "a prior is a share between 0 and 1 of more than no tries",
                got=f"prior={self.prior}, strength={self.strength}", remedy="prior=0.05, strength=20",
            )  # fmt: skip

    def reads(self) -> Reads:
        return Reads(columns=(self.wins, self.tries))

    def _values(self, slate: Slate, at: NDArray[np.int64]) -> NDArray[np.float32]:
        """Chances of success (draws, m) of the candidates `at` (m,)."""
        wins, tries = (_counts(slate.column(name)[at]) for name in (self.wins, self.tries))
        won = self.prior * self.strength + wins
        lost = (1.0 - self.prior) * self.strength + np.maximum(tries - wins, 0.0)
        # Always as wide, so that they are drawn once, however many candidates a request has.
        width = max(len(at), min(self.among, _WIDE))
        normals = _normals(self.seed, 2 * self.draws, width)[:, : len(at)]
        up, down = _gammas(won, normals[: self.draws]), _gammas(lost, normals[self.draws :])
        return np.asarray(up / (up + down + np.float32(1e-30)))


@registered("rule")
@dataclass(frozen=True)
class Contextual(_Draws):
    """A contextual bandit: a linear model of what an item earns, by how it looks and how little is known of it.

    Training fits what is believed of the model's weights (`Posterior`), on what decisions showed and what came of it,
    or, where nothing was shown yet, on what shoppers did next; it lies in the release. ``how="thompson"`` draws
    weights from it (Agrawal and Goyal, ICML 2013), as `Thompson` draws: exact chances, in a grain of 1 / draws.
    ``how="ucb"`` takes the mean and `scale` deviations (LinUCB; Li et al., WWW 2010), which chooses for certain: then
    only `rate` gives the others a chance, without which no other policy could be judged from what is logged. It must
    be above 0.

    Args:
        columns: feature columns, by name; ``"score"`` is the ranker's score.
        vectors: a candidate source with vectors, to learn over a network's last layer ("neural-linear"): the model
            then sees the product of what the network looks for and the item's vector, element by element.
        how: ``"thompson"`` or ``"ucb"``.
        scale: times the deviation of what is believed; 0 is greedy.
        penalty: see `LinearReward`.
        among, rate, first, draws, seed: see `Thompson`.
    """

    columns: tuple[str, ...] = ("score",)
    vectors: str = ""
    how: Literal["thompson", "ucb"] = "thompson"
    scale: float = 1.0
    penalty: float = 1.0
    among: int = 50
    rate: float = 0.02
    first: int = 1
    draws: int = 128
    seed: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        self.learns()
        if self.how not in ("thompson", "ucb") or not self.scale >= 0:
            raise DefinitionError(
                "a contextual bandit is thompson or ucb, and its scale 0 or more",
                got=f"how={self.how!r}, scale={self.scale}", remedy='how="thompson", scale=1.0',
            )  # fmt: skip
        if self.how == "ucb" and not self.rate > 0:
            raise DefinitionError(
                "an upper bound chooses for certain, so some chance is left to the others", got=f"rate={self.rate}",
                remedy="rate=0.02",
            )  # fmt: skip

    def reads(self) -> Reads:
        return Reads(columns=self.columns, vectors=(self.vectors,) if self.vectors else ())

    def learns(self) -> LinearReward:
        return LinearReward(self.columns, self.vectors, self.penalty)

    def _values(self, slate: Slate, at: NDArray[np.int64]) -> Floats:
        """What the candidates `at` (m,) earn, in each draw: (draws, m), or (1, m) for an upper bound."""
        model = self.learns()
        columns = [slate.column(name)[at] for name in self.columns]
        rows = model.inputs(columns, slate.products(self.vectors, at) if self.vectors else None)
        learned = slate.facts.learned.get(model.key) if slate.facts is not None else None
        if learned is None or learned.width != rows.shape[1]:
            # A release of before the rule: nothing is known.
            learned = Posterior(Summary.empty(rows.shape[1]), self.penalty)
        if self.how == "ucb":
            return (learned.mean(rows) + self.scale * learned.deviation(rows))[None]
        return learned.drawn(rows, self.scale * _normals(self.seed, self.draws, rows.shape[1]))


def _shown(slate: Slate, values: NDArray[np.floating], k: int, rate: float, first: int, draw: random.Random) -> Slate:
    """The slate with its first k places drawn; `values` (draws, m) are of the first m of its order."""
    order, pool = slate.order.tolist(), _Pool(values)
    places: list[int] = []
    chance: list[float] = []
    for place in range(min(k, len(order))):
        even = rate if place + 1 >= first else 0.0
        if place + 1 < first or not pool.left:
            at = pool.first() if pool.left else len(places)
        elif even and draw.random() < even:
            at = pool.nth(draw.randrange(pool.left))
        else:
            at = int(pool.best[draw.randrange(len(pool.best))])
        chance.append(pool.chance(at, even) if place + 1 >= first and pool.left else 1.0)
        pool.take(at)
        places.append(at)
    rest = sorted(set(range(len(order))).difference(places))
    return slate.reordered(slate.order[np.array([*places, *rest], np.int64)], np.r_[chance, np.zeros(len(rest))])


def _chances(values: NDArray[np.floating], order: NDArray[np.int64], shown: Array, rate: float, first: int) -> Floats:
    """What `_shown` would have logged, had it shown `shown`; 0 from the first place on that it never would."""
    pool, place_of = _Pool(values), {one: place for place, one in enumerate(order.tolist())}
    out = np.zeros(len(shown))
    for place, one in enumerate(shown.tolist()):
        at = place_of.pop(one, -1)
        if at < 0:
            break
        if place + 1 < first or not pool.left:
            out[place] = float(at == (pool.first() if pool.left else place))
        else:
            out[place] = pool.chance(at, rate)
        if not out[place]:
            break
        pool.take(at)
    return out


class _Pool:
    """Candidates that may be drawn: which is best in each draw, as they are taken one after the other.

    Attributes:
        best: (draws,) the place of the best one left in each draw; of equals the first.
        left: how many are left.
    """

    def __init__(self, values: NDArray[np.floating]) -> None:
        self._values = np.array(values)
        self.left = values.shape[1]
        self._free = np.ones(self.left, bool)
        self.best = self._values.argmax(axis=1) if self.left else np.zeros(len(values), np.int64)

    def chance(self, at: int, rate: float) -> float:
        """Of drawing the candidate `at`, where every one left is drawn evenly with chance `rate`."""
        if at >= len(self._free):
            return 0.0
        return float((1.0 - rate) * np.count_nonzero(self.best == at) / len(self.best) + rate / self.left)

    def first(self) -> int:
        return int(self._free.argmax())

    def nth(self, n: int) -> int:
        return int(np.flatnonzero(self._free)[n])

    def take(self, at: int) -> None:
        if at >= len(self._free):
            return
        self._free[at] = False
        self.left -= 1
        self._values[:, at] = -np.inf
        moved = np.flatnonzero(self.best == at)
        if len(moved) and self.left:
            self.best[moved] = self._values[moved].argmax(axis=1)


@lru_cache(maxsize=64)
def _normals(seed: int, draws: int, width: int) -> NDArray[np.float32]:
    """Standard normals (draws, width), the same for the same numbers.

    Each column has the normal's quantiles, mixed: few draws then stand for it without leaning to one side.
    """
    middle = [NormalDist().inv_cdf((place + 0.5) / draws) for place in range(draws)]
    quantiles = np.array(middle, np.float32) / (np.std(middle) if draws > 1 else 1.0)
    columns = np.tile(quantiles.astype(np.float32), (width, 1))
    return np.ascontiguousarray(np.random.default_rng([seed, draws, width]).permuted(columns, axis=1).T)


def _counts(column: Floats) -> Floats:
    """A column (n,) as counts, 0 where there is none that can be."""
    return np.clip(np.where(np.isfinite(column), column, 0.0), 0.0, _MOST)


def _gammas(shape: Floats, normals: NDArray[np.float32]) -> NDArray[np.float32]:
    """Gamma variables (draws, n) of the shapes (n,), from standard normals."""
    a = shape.astype(np.float32)
    root = 1.0 - 1.0 / (9.0 * a) + normals / (3.0 * np.sqrt(a))
    np.maximum(root, 0.0, out=root)
    return np.asarray(a * (root * root * root))


def _check_rate(rate: float) -> None:
    if not 0 <= rate <= 1:
        raise DefinitionError("a chance is between 0 and 1", got=str(rate), remedy="0.02 is usual")


def explore(rate: float, first: int = 1) -> Explore:
    """Shows something else with chance `rate` at each place from `first` on, and logs the propensities."""
    return Explore(rate, first)


thompson, contextual = Thompson, Contextual
