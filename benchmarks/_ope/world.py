"""Contextual bandits whose policies' true values are known: a pool of contexts, from which rounds are drawn.

What an action is worth in a context is a chance of reward that bends with the context, so that a linear reward model is
wrong; the logging policy and the target are softmax policies on different noisy views of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from penstock.evaluate.off_policy import Logged

Floats = NDArray[np.float64]
_POOL = 2_000


@dataclass(frozen=True)
class World:
    """One setting of the simulator.

    Args:
        rounds, actions, contexts: of a log; contexts are so many normal numbers.
        rate: the share of rounds with a reward, roughly.
        spend: whether a reward is an amount, log-normal, instead of 1.
        greed: of the logging policy, 0 for an even draw; `explored` the share that it draws evenly besides.
        aim: the greed of the target policy.
        never: the share of actions that the logging policy never takes.
        shopper: how many rounds a shopper has; a shopper's rewards go together.
        overlap: whether the log can answer: what the benchmark expects intervals to cover, or cautions to be raised.
    """

    name: str
    overlap: bool = True
    rounds: int = 2_000
    actions: int = 10
    contexts: int = 5
    rate: float = 0.2
    spend: bool = False
    greed: float = 1.0
    explored: float = 0.2
    aim: float = 3.0
    never: float = 0.0
    shopper: int = 1

    @cached_property
    def _pool(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Contexts (pool, d), chances of reward, of logging and of the target (pool, K)."""
        draw = np.random.default_rng(5)
        context = draw.normal(size=(_POOL, self.contexts))
        merit = draw.normal(size=self.actions) + context @ draw.normal(size=(self.contexts, self.actions)) / 2
        merit += np.sin(2 * context[:, :1]) * draw.normal(size=self.actions) / 2
        reward = self.rate * np.exp(merit / 2) / np.exp(merit / 2).mean()
        seen = [merit + draw.normal(size=self.actions) for _ in range(2)]
        logging = _softmax(self.greed * seen[0])
        hidden = int(self.never * self.actions)
        logging[:, :hidden] = 0
        logging /= logging.sum(1, keepdims=True)
        even = (np.arange(self.actions) >= hidden) / (self.actions - hidden)
        reward = np.minimum(reward, 0.95 if self.shopper == 1 else 0.475)
        return context, reward, (1 - self.explored) * logging + self.explored * even, _softmax(self.aim * seen[1])

    @property
    def truth(self) -> float:
        """What the target policy earns a round."""
        _, reward, _, target = self._pool
        return float((target * reward).sum(1).mean())

    def draw(self, seed: int, *, told: bool = False) -> tuple[Logged, Floats]:
        """A log, and the target's chances (rounds, K) in it.

        Args:
            told: whether the log says the logging policy's chance of every action.
        """
        random = np.random.default_rng([7, seed])
        context, reward, logging, target = self._pool
        shoppers = self.rounds // self.shopper
        shopper = np.repeat(np.arange(shoppers), self.shopper)
        at = random.integers(0, _POOL, shoppers)[shopper]
        action = (logging[at].cumsum(1) < random.random((len(at), 1))).sum(1)
        action = np.minimum(action, self.actions - 1)
        chance = reward[at, action]
        if self.shopper > 1:  # half of the shoppers buy twice as readily, the others never; the mean stays
            chance = chance * 2 * random.integers(0, 2, shoppers)[shopper]
        came = (random.random(len(at)) < chance).astype(np.float64)
        if self.spend:  # a mean of 1 where something is bought
            came *= random.lognormal(-0.5, 1.0, len(at))
        logged = Logged(
            action, came, logging[at, action], context[at], group=shopper if self.shopper > 1 else None,
            chances=logging[at] if told else None,
        )  # fmt: skip
        return logged, target[at]


def _softmax(score: Floats) -> Floats:
    raised = np.exp(score - score.max(1, keepdims=True))
    return np.asarray(raised / raised.sum(1, keepdims=True))


WORLDS = (
    World("even", greed=0.0, explored=0.0),
    World("learned"),
    World("rare", rounds=10_000, rate=0.01, aim=1.5),
    World("spend", rounds=5_000, rate=0.1, spend=True),
    World("shoppers", rounds=3_000, shopper=5),
    World("greedy", rounds=5_000, greed=4.0, explored=0.1),
    World("never", overlap=False, never=0.3),
    World("hardly", overlap=False, greed=4.0, explored=0.002, aim=8.0),
    World("few", overlap=False, rounds=100, greed=2.0),
)
