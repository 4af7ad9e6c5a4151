"""Optimisers over named parameters, in place. Of a table of which only rows were used, only these rows are touched."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from penstock.errors import DefinitionError
from penstock.learn.autodiff import Gradient, RowGradient
from penstock.types import Array

Parameters = Mapping[str, Array]


@dataclass(eq=False)
class Optimiser(ABC):
    """Moves parameters against their gradients.

    Args:
        rate: the learning rate.
    """

    rate: float = 1e-3
    steps: int = field(default=0, init=False)
    _state: dict[str, tuple[Array, ...]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.rate > 0:
            raise DefinitionError("a learning rate is above 0", got=str(self.rate), remedy="1e-3 is usual")

    def step(self, parameters: Parameters, gradients: Mapping[str, Gradient], scale: float = 1.0) -> None:
        """One step.

        Args:
            scale: times the learning rate, for schedules.
        """
        self.steps += 1
        for name, gradient in gradients.items():
            value = parameters[name]
            if name not in self._state:
                self._state[name] = self.begin(value)
            state = self._state[name]
            if isinstance(gradient, RowGradient):
                rows, part = gradient.summed()
                held = tuple(array[rows] for array in state)
                value[rows] -= self.move(part, held, self.rate * scale)
                for array, new in zip(state, held, strict=True):
                    array[rows] = new
            else:
                value -= self.move(gradient, state, self.rate * scale)

    @abstractmethod
    def begin(self, value: Array) -> tuple[Array, ...]:
        """What is kept of a parameter, all zeros."""

    @abstractmethod
    def move(self, gradient: Array, state: tuple[Array, ...], rate: float) -> Array:
        """What is taken off the parameter; changes `state` in place."""


@dataclass(eq=False)
class SGD(Optimiser):
    """Stochastic gradient descent, with momentum (Polyak, 1964).

    >>> x = {"x": np.array([1.0])}
    >>> SGD(0.5).step(x, {"x": np.array([1.0])}); x["x"]
    array([0.5])
    """

    momentum: float = 0.0

    def begin(self, value: Array) -> tuple[Array, ...]:
        return (np.zeros_like(value),) if self.momentum else ()

    def move(self, gradient: Array, state: tuple[Array, ...], rate: float) -> Array:
        if not self.momentum:
            return rate * gradient
        state[0][...] = self.momentum * state[0] + gradient
        return rate * state[0]


@dataclass(eq=False)
class Adagrad(Optimiser):
    """Each number's rate falls with the squares of its gradients (Duchi et al., JMLR 2011)."""

    eps: float = 1e-10

    def begin(self, value: Array) -> tuple[Array, ...]:
        return (np.zeros_like(value),)

    def move(self, gradient: Array, state: tuple[Array, ...], rate: float) -> Array:
        state[0][...] += gradient * gradient
        return rate * gradient / (np.sqrt(state[0]) + self.eps)


@dataclass(eq=False)
class Adam(Optimiser):
    """Steps by the mean of gradients over the root of the mean of their squares (Kingma and Ba, ICLR 2015).

    Rows of a table that a batch did not use keep their means as they were (as PyTorch's SparseAdam does).

    Args:
        mean, square: what a step keeps of the mean of gradients and of that of their squares.
        eps: what keeps the root above 0.
    """

    mean: float = 0.9
    square: float = 0.999
    eps: float = 1e-8

    def begin(self, value: Array) -> tuple[Array, ...]:
        return np.zeros_like(value), np.zeros_like(value)

    def move(self, gradient: Array, state: tuple[Array, ...], rate: float) -> Array:
        first, second = state
        first *= self.mean
        first += (1 - self.mean) * gradient
        second *= self.square
        squared = gradient * gradient
        squared *= 1 - self.square
        second += squared
        # Both means start from 0, and are drawn to it for a while.
        root = np.sqrt(second, out=squared)
        root *= 1 / np.sqrt(1 - self.square**self.steps)
        root += self.eps
        moved = np.divide(first, root, out=root)
        moved *= rate / (1 - self.mean**self.steps)
        return moved


def schedule(step: int, steps: int) -> float:
    """The share of the learning rate at a step: it rises over the first fiftieth, then falls along a cosine.

    >>> [round(schedule(step, 100), 3) for step in (0, 1, 50, 100)]
    [0.5, 1.0, 0.51, 0.02]
    """
    warm = min(1.0, (step + 1) / max(1, steps // 50))
    return warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(step / max(steps, 1), 1.0))))
