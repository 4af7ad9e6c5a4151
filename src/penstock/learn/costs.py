"""What acting on one event costs: approving, declining, or having a person look at it."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from penstock.clock import DAY
from penstock.errors import DefinitionError
from penstock.types import Micros

Action = Literal["approve", "review", "decline"]
ACTIONS: tuple[Action, ...] = ("approve", "review", "decline")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Costs:
    """The expected cost of each action on an event of amount a that is bad with chance p.

    Approving costs p·a. Declining costs (1 − p)·(`decline` + `decline_share`·a): somebody honest was turned away.
    A review costs `review`, and p·(1 − `caught`)·a for what it overlooks; there are `reviews` of them a day. Each
    action is taken where it is the cheapest (Bahnsen et al., "Example-dependent cost-sensitive decision trees", 2015).
    Where more events would be worth a review than there are reviewers, a review costs its `price` besides, which is
    what the last one that is done would have saved.

    Args:
        amount: the field of what is lost where a bad event is approved; money is in cents, and so are the costs.
        review: a person's look at one event.
        decline, decline_share: turning away somebody honest: a fixed part, and a share of the amount.
        caught: the share of bad events that a review finds.
        reviews: how many reviews a day there are people for.

    >>> costs = Costs("amount", review=300, decline=2_000)
    >>> costs.cheapest(np.array([0.001, 0.1, 0.9]), np.full(3, 10_000.0))
    array([0, 1, 2])
    """

    amount: str
    review: float = 300.0
    decline: float = 1_500.0
    decline_share: float = 0.0
    caught: float = 1.0
    reviews: float = 100.0

    def __post_init__(self) -> None:
        least = min(self.review, self.decline, self.decline_share, self.reviews)
        if not (least >= 0 and 0 <= self.caught <= 1 and self.decline + self.decline_share > 0):
            raise DefinitionError(
                "costs are 0 or more, declining costs something, and a review finds a share from 0 to 1",
                got=repr(self), remedy='write ps.Costs("amount", review=300, decline=1_500), in cents',
            )  # fmt: skip

    def of(self, chance: Floats, amount: Floats, price: float = 0.0) -> Floats:
        """The expected cost of approving, reviewing and declining, (n, 3), in the amounts' unit."""
        approve = chance * amount
        review = self.review + price + chance * (1 - self.caught) * amount
        decline = (1 - chance) * (self.decline + self.decline_share * amount)
        return np.stack([approve, review, decline], axis=1)

    def cheapest(self, chance: Floats, amount: Floats, price: float = 0.0) -> NDArray[np.int64]:
        """The place in `ACTIONS` of the cheapest action of each event, (n,); of equal ones the mildest."""
        return np.asarray(np.argmin(self.of(chance, amount, price), axis=1))

    def saving(self, chance: Floats, amount: Floats) -> Floats:
        """What a review of each event would save against the better of approving and declining it, (n,)."""
        cost = self.of(chance, amount)
        return np.asarray(np.minimum(cost[:, 0], cost[:, 2]) - cost[:, 1])

    def price(self, chance: Floats, amount: Floats, a_day: float, weight: Floats | None = None) -> float:
        """What a review costs beyond its own cost, where so many events like these (n,) come a day.

        Args:
            weight: (n,) how many events each stands for; 1 where absent.
        """
        return solve(self.saving(chance, amount), min(1.0, self.reviews / max(a_day, 1e-9)), weight)

    def came(
        self, action: NDArray[np.int64], amount: Floats, positive: NDArray[np.bool_], weight: Floats | None = None
    ) -> dict[str, float]:
        """What actions (n,), places in `ACTIONS`, have cost once it is known which events were bad.

        Args:
            weight: (n,) how many events each stands for; 1 where absent.

        Returns:
            lost: amounts of bad events that went through; saved: of those that did not; reviews: how many;
            declined_good: honest events turned away; cost: all of it, with the costs of reviews and of turning away;
            cost_of_approving: the same, had everything been approved.
        """
        each = np.ones(len(amount)) if weight is None else weight
        approved, reviewed, declined = (np.where(action == place, each, 0) for place in range(len(ACTIONS)))
        lost = np.where(positive, amount * (approved + (1 - self.caught) * reviewed), 0)
        good = np.where(positive, 0, declined)
        friction = float(((self.decline + self.decline_share * amount) * good).sum())
        bad = float((amount * each)[positive].sum())
        return {
            "lost": float(lost.sum()),
            "saved": bad - float(lost.sum()),
            "reviews": round(reviewed.sum()),
            "declined_good": round(good.sum()),
            "declined_bad": round(declined[positive].sum()),
            "cost": float(lost.sum()) + friction + self.review * float(reviewed.sum()),
            "cost_of_approving": bad,
        }


def solve(saving: Floats, share: float, weight: Floats | None = None) -> float:
    """The price at which no more than a share of events is worth a review.

    It is 0 where there are reviewers enough, and infinite where there are none.

    Args:
        saving: (n,) what a review of each event would save.
        weight: (n,) how many events each stands for; 1 where absent.

    >>> solve(np.array([5.0, 1.0, 3.0, -2.0]), share=0.25)
    3.0
    """
    if share <= 0:
        return math.inf
    if weight is not None and share < 1:
        order = np.argsort(-saving, kind="stable")
        more = order[np.cumsum(weight[order]) > share * weight.sum()]
        return max(0.0, float(saving[more[0]])) if len(more) else 0.0
    few = int(share * len(saving))
    if few >= len(saving):
        return 0.0
    return max(0.0, float(np.partition(saving, len(saving) - few - 1)[len(saving) - few - 1]))


_LEAST, _STEP, _BINS = 1e-3, 0.02, 1_750
"""Savings are counted by their size, in steps of 2 %; so they are from a thousandth to some 10¹², whatever the unit."""
_FAR = 2**62
_PARTS = 24
"""Parts of a day that are forgotten one by one."""


class Price:
    """The price of a review, solved anew as events and the number of reviewers change.

    It is what the last review that can be done would save, going by the savings of the last 24 hours; as long as those
    are not full, by the events that a model was released with besides. Reviews that rules ask for are done first. And
    whatever is expected: where as many were asked for in 24 hours as can be done, the next one has no price.

    Args:
        costs: whose reviews a day are shared out.
        every: events after which it solves again.

    >>> price = Price(Costs("amount", reviews=2))
    >>> price.begin(np.array([100.0, 200.0, 300.0, 400.0]), a_day=4)
    >>> 190 < price.now < 210
    True
    """

    def __init__(self, costs: Costs, *, every: int = 100) -> None:
        self.costs = costs
        self.reviews = costs.reviews
        self.now = 0.0
        self._every = every
        self._seen = 0
        self._began = _FAR
        self._newest = 0
        self._solved = 0.0
        self._earlier, self._span = np.zeros(_BINS), 0.0  # of the release, and the days in which so many come
        self._lately = np.zeros((_PARTS, _BINS))  # by part of the day, in the place of the day before
        self._part = 0
        self._asked: deque[Micros] = deque()
        self._ruled: deque[Micros] = deque()
        # Events come on one thread, and word of the reviewers on another.
        self._lock = threading.RLock()
        self.solve()

    def begin(self, saving: Floats, a_day: float) -> None:
        """Starts from the savings (n,) of earlier events, of which there were so many a day."""
        with self._lock:
            useful = saving[saving > _LEAST]
            self._earlier = np.bincount(_bins(useful), minlength=_BINS).astype(float)
            self._span = len(saving) / a_day if a_day > 0 else 0.0
            self.solve()

    def remember(self, asked: Sequence[Micros]) -> None:
        """Takes down when, in order of time, reviews were asked for before this began."""
        with self._lock:
            self._asked.extend(asked)
            self._newest = max([self._newest, *asked])
            self.solve()

    def take_over(self, other: Price) -> None:
        """Goes on with the reviewers, and the reviews asked for, of the price of the release before."""
        with self._lock, other._lock:
            self.reviews = other.reviews
            self._asked, self._ruled = deque(other._asked), deque(other._ruled)
            self._newest = other._newest
            self.solve()

    def set(self, reviews: float) -> None:
        """Changes how many reviews a day there are people for."""
        with self._lock:
            self.reviews = reviews
            self.solve()

    def add(self, saving: float | None, time: Micros, *, asked: bool = False) -> None:
        """Takes down one event.

        Args:
            saving: what a review of it would save; None where a rule said what to do.
            asked: whether a review was asked for.
        """
        with self._lock:
            self._move(time)
            if saving is not None and saving > _LEAST:
                self._lately[self._part % _PARTS, _bin(saving)] += 1
            if asked:
                self._asked.append(self._newest)
                if saving is None:
                    self._ruled.append(self._newest)
            self._seen += 1
            if self._seen % self._every == 0 or (asked and saving is None) or self._solved == math.inf:
                self.solve()
            else:
                self._bound()

    def solve(self) -> None:
        """Finds the price for the events of the last 24 hours, and those of the release."""
        since = max(self._began, (self._part - _PARTS + 1) * (DAY // _PARTS))
        covered = max(0.0, (self._newest - since) / DAY)
        weight = min(1.0, (1 - covered) / self._span) if self._span else 0.0
        span = covered + weight * self._span
        _forget(self._ruled, self._newest - DAY)
        few = (self.reviews - len(self._ruled)) * span
        counts = self._lately.sum(axis=0) + weight * self._earlier
        if self.reviews - len(self._ruled) <= 0:
            self._solved = math.inf
        elif not span or counts.sum() <= few:
            self._solved = 0.0
        else:
            above = np.cumsum(counts[::-1])[::-1]
            place = int(np.flatnonzero(above > few)[-1])
            # As if those in one step of sizes lay evenly in it.
            within = (few - (above[place] - counts[place])) / counts[place]
            self._solved = _LEAST * math.exp(_STEP * (place + 1 - within))
        self._bound()

    def _bound(self) -> None:
        """No price but an infinite one, where as many reviews were asked for as can be done."""
        most = math.ceil(self.reviews)
        if not most:
            self.now = math.inf
            return
        # Of three reviews in four days the one before waits, too, until it is four days old.
        _forget(self._asked, self._newest - int(DAY * most / self.reviews))
        self.now = math.inf if len(self._asked) >= most else self._solved

    def _move(self, time: Micros) -> None:
        """Passes over the parts of the day between the newest event and `time`."""
        self._newest = max(self._newest, time)
        if self._began == _FAR:
            self._began, self._part = time, time * _PARTS // DAY
        part = self._newest * _PARTS // DAY
        for gone in range(self._part + 1, min(part, self._part + _PARTS) + 1):
            self._lately[gone % _PARTS] = 0
        self._part = part


def _bin(saving: float) -> int:
    return min(_BINS - 1, int(math.log(saving / _LEAST) / _STEP))


def _bins(saving: Floats) -> NDArray[np.int64]:
    return np.minimum(_BINS - 1, np.log(saving / _LEAST) / _STEP).astype(np.int64)


def _forget(times: deque[Micros], until: Micros) -> None:
    while times and times[0] <= until:
        times.popleft()
