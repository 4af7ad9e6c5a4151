"""What acting on one event costs: approving, declining, or having a person look at it."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

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
    """The price at which no more than a share of events is worth a review; 0 where there are reviewers enough.

    Args:
        saving: (n,) what a review of each event would save.
        weight: (n,) how many events each stands for; 1 where absent.

    >>> solve(np.array([5.0, 1.0, 3.0, -2.0]), share=0.25)
    3.0
    """
    if weight is not None and share < 1:
        order = np.argsort(-saving, kind="stable")
        more = order[np.cumsum(weight[order]) > share * weight.sum()]
        return max(0.0, float(saving[more[0]])) if len(more) else 0.0
    few = int(share * len(saving))
    if few >= len(saving):
        return 0.0
    return max(0.0, float(np.partition(saving, len(saving) - few - 1)[len(saving) - few - 1]))


class Price:
    """The price of a review, solved anew as events and the number of reviewers change.

    It looks at the newest events only; before there are any, at those that a model was released with.

    Args:
        costs: whose reviews a day are shared out.
        most: events that it looks back on.
        every: events after which it solves again.
    """

    def __init__(self, costs: Costs, *, most: int = 5_000, every: int = 100) -> None:
        self.costs = costs
        self.reviews = costs.reviews
        self.now = 0.0
        self._savings: deque[float] = deque(maxlen=most)
        self._times: deque[Micros] = deque(maxlen=most)
        self._every = every
        self._seen = 0
        self._a_day = 0.0
        # Events come on one thread, and word of the reviewers on another.
        self._lock = threading.RLock()

    def begin(self, saving: Floats, a_day: float) -> None:
        """Starts from the savings (n,) of earlier events, of which there were so many a day."""
        with self._lock:
            self._savings.extend(saving.tolist())
            self._a_day = a_day
            self.solve()

    def set(self, reviews: float) -> None:
        """Changes how many reviews a day there are people for."""
        with self._lock:
            self.reviews = reviews
            self.solve()

    def add(self, saving: float, time: Micros) -> None:
        """Takes down one event."""
        with self._lock:
            self._savings.append(saving)
            self._times.append(time)
            self._seen += 1
            if self._seen % self._every == 0:
                self.solve()

    def solve(self) -> None:
        """Finds the price for the events it looks back on."""
        if len(self._times) >= self._every * 5:
            span = (max(self._times) - min(self._times)) / 86_400e6
            self._a_day = len(self._times) / span if span > 0 else self._a_day
        if self._a_day and self._savings:
            self.now = solve(np.array(self._savings), min(1.0, self.reviews / self._a_day))
