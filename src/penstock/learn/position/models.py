"""Examination by expectation-maximisation on click models: relevance is estimated beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from penstock.errors import DefinitionError
from penstock.learn.position.clicks import Clicks, Examination, Floats, check_first, summed

Relevance = Callable[[Floats, Floats], Floats]
"""Of P targets from 0 to 1 and their weights, (P,) each, the relevance (P,) that a model of the pairs expects."""

_SURE, _LEAST_NOISE = 1e-6, 1e-4


@dataclass(frozen=True, eq=False)
class Believed:
    """A click model after expectation-maximisation.

    `examination` of the positions; `relevance` (P,) of the pairs in ascending order of their codes; `steps` that were
    taken, and whether the last ones `settled`.
    """

    examination: Examination
    relevance: Floats
    steps: int
    settled: bool


def by_em(
    clicks: Clicks,
    *,
    trust: bool = False,
    relevance: Relevance | None = None,
    steps: int = 2_000,
    close: float = 1e-6,
    last_noise: float = 0.0,
) -> Believed:
    """The position-based model: an item is clicked if its position is looked at and it is relevant, each by chance of
    its own (Richardson, Dominowska and Ragno, WWW 2007; by EM: Wang, Golbandi, Bendersky, Metzler and Najork,
    "Position bias estimation for unbiased learning to rank in personal search", WSDM 2018).

    With `trust`, what is looked at and not relevant is clicked too, with a noise that depends on the position
    (Agarwal, Wang, Li, Bendersky and Najork, "Addressing trust bias for unbiased learning-to-rank", WWW 2019).
    Clicks fix that model only up to two constants, so two are set: the noise of the last position, and that what is
    relevant and looked at is clicked (a lesser chance of that counts as lesser examination).

    Pairs have to be seen at several positions, and often enough: a relevance estimated from two or three showings
    biases examination, where `by_harvest` needs none. Steps are accelerated (SQUAREM; Varadhan and Roland, 2008).
    Standard errors come from the expected information with the pairs' relevance profiled out; where `relevance` is
    given, they take it for known, and are too small.

    Args:
        relevance: what a pair's features say of its relevance, fitted anew in each step (regression EM); without it,
            each pair has a relevance of its own.
        steps: at most so many.
        close: ended when no step moves a position's figure by more.
        last_noise: with `trust`, the noise of the last position.

    >>> slates = np.array([[1, 2], [2, 1]] * 40)
    >>> clicked = np.array([[1, 1], [1, 1], [1, 0], [1, 0]] * 20, bool)
    >>> by_em(Clicks.of_slates(slates, clicked)).examination.probability.round(3).tolist()
    [1.0, 0.5]
    """
    if steps < 1 or not 0 <= last_noise < 1:
        raise DefinitionError(
            "there is one step or more, and noise is a chance", got=f"steps={steps!r}, last_noise={last_noise!r}",
            remedy="steps=2000, last_noise=0.0",
        )  # fmt: skip
    model = _Model(clicks, trust, last_noise, relevance)
    here, taken, settled = model.start(), 0, False
    while taken < steps and not settled:
        once = model.step(here)
        twice = model.step(once)
        taken += 2
        settled = float(np.abs(twice - once)[: model.shared].max()) < close
        here = _further(model, here, once, twice) if relevance is None else twice
    look, noise, liked = model.parts(here)
    spread = _errors(clicks.table[0], look, noise, liked, trust, profiled=relevance is None)
    seen = np.bincount(clicks.position, minlength=len(look)) > 0
    probability = np.where(seen, look, np.nan)
    error = np.where(seen, look * spread[: len(look)], np.nan)
    found = Examination(probability, error, noise, spread[len(look) :]) if trust else Examination(probability, error)
    return Believed(found, liked, taken, settled)


class _Model:
    """Parameters as one vector: examination (K,), noise (K,), relevance (P,).

    Clicks are added up by cells, the different (pair, position), since pairs may be many and most positions of each
    never seen.
    """

    def __init__(self, clicks: Clicks, trust: bool, last_noise: float, relevance: Relevance | None) -> None:
        (place, self.pairs), self.width = clicks.place, clicks.positions
        self.shared = 2 * self.width
        self.trust, self.last_noise, self.regress = trust, last_noise, relevance
        cells, cell = np.unique(place * self.width + clicks.position, return_inverse=True)
        self.pair, self.position = np.divmod(cells, self.width)
        self.shown = np.bincount(cell).astype(np.float64)
        self.hits = summed(cell, clicks.clicked, len(cells))
        self.missed = self.shown - self.hits
        self._by_pair = self._over_pairs(self.shown)
        self._by_position = np.maximum(self._over_positions(self.shown), 1e-300)
        check_first(self._over_positions(self.hits))

    def start(self) -> Floats:
        """Examination falls with the position, and relevance is what clicks then say, held away from 0 and 1."""
        look = (1.0 + np.arange(self.width)) ** -0.5
        noise = 0.2 * look**4 * self.trust
        if self.trust:
            noise[-1] = self.last_noise
        seen = self._over_pairs(self.shown * look[self.position])
        liked = (self._over_pairs(self.hits) + 0.2) / (seen + 1.0)
        return np.concatenate([look, noise, np.clip(liked, 0.01, 0.9)])

    def parts(self, x: Floats) -> tuple[Floats, Floats, Floats]:
        return x[: self.width], x[self.width : self.shared], x[self.shared :]

    def step(self, x: Floats) -> Floats:
        """One expectation and maximisation."""
        look, noise, good = self._cells(x)
        bad = 1 - good
        # Of a click: was it for the item itself? Of none: was it looked at, and was it relevant?
        deserved = good / (good + bad * noise)
        quiet = np.maximum(1 - look * (good + bad * noise), 1e-12)
        passed = self.missed * look * bad * (1 - noise) / quiet
        unseen = self.missed * (1 - look) * good / quiet
        new_look = self._over_positions(self.hits + passed) / self._by_position
        new_look[0] = 1.0
        target = self._over_pairs(self.hits * deserved + unseen) / self._by_pair
        new_noise = x[self.width : self.shared]
        if self.trust:
            undeserved = self._over_positions(self.hits * (1 - deserved))
            new_noise = undeserved / np.maximum(undeserved + self._over_positions(passed), 1e-300)
            new_noise[-1] = self.last_noise
        if self.regress is not None:
            target = self.regress(target, self._by_pair)
        return self.bounded(np.concatenate([new_look, new_noise, target]))

    def _cells(self, x: Floats) -> tuple[Floats, Floats, Floats]:
        look, noise, liked = self.parts(x)
        return look[self.position], noise[self.position], liked[self.pair]

    def _over_pairs(self, values: Floats) -> Floats:
        return summed(self.pair, values, self.pairs)

    def _over_positions(self, values: Floats) -> Floats:
        return summed(self.position, values, self.width)

    def bounded(self, x: Floats) -> Floats:
        """Chances stay inside (0, 1); the fixed ones stay as they are."""
        out = np.clip(x, _SURE, 1 - _SURE)
        out[0] = 1.0
        # From no noise at all, no step leads away: an extrapolation must not end there.
        least = _LEAST_NOISE if self.trust else 0.0
        out[self.width : self.shared] = np.clip(x[self.width : self.shared], least, 1 - _SURE)
        if self.trust:
            out[self.shared - 1] = self.last_noise
        return np.asarray(out, np.float64)

    def likelihood(self, x: Floats) -> float:
        look, noise, good = self._cells(x)
        chance = np.clip(look * (good + (1 - good) * noise), 1e-12, 1 - 1e-12)
        return float((self.hits * np.log(chance) + self.missed * np.log1p(-chance)).sum())


def _further(model: _Model, here: Floats, once: Floats, twice: Floats) -> Floats:
    """An extrapolated step (SQUAREM's third scheme), where the likelihood agrees; the plain one else."""
    first, bend = once - here, (twice - once) - (once - here)
    size = float(np.linalg.norm(bend))
    if size == 0:
        return twice
    length = max(float(np.linalg.norm(first)) / size, 1.0)
    if length == 1.0:
        return twice
    reached = model.step(model.bounded(here + 2 * length * first + length**2 * bend))
    return reached if model.likelihood(reached) >= model.likelihood(twice) else twice


def _errors(shown: Floats, look: Floats, noise: Floats, liked: Floats, trust: bool, *, profiled: bool) -> Floats:
    """Standard errors of the logarithms of examination (K,), and of noise (K,) where there is `trust`.

    The information of the pairs' relevance is a number each, so that it is taken out exactly (Schur complement).
    """
    width = len(look)
    good = liked[:, None]
    whole = good + (1 - good) * noise
    chance = np.clip(look * whole, 1e-9, 1 - 1e-9)
    weight = shown / (chance * (1 - chance))
    by_look, by_noise, by_liked = chance, look * (1 - good), look * (1 - noise)
    slopes = [by_look, by_noise] if trust else [by_look]
    size = width * len(slopes)
    information = np.zeros((size, size))
    for a, one in enumerate(slopes):
        for b, other in enumerate(slopes):
            at = np.arange(width)
            information[a * width + at, b * width + at] = (weight * one * other).sum(axis=0)
    if profiled:
        own = (weight * by_liked**2).sum(axis=1)
        # Relevance at its bound is not estimated, but held there.
        free = (liked > 2 * _SURE) & (liked < 1 - 2 * _SURE) & (own > 0)
        cross = np.concatenate([weight * one * by_liked for one in slopes], axis=1)[free]
        information -= (cross / own[free][:, None]).T @ cross
    kept = np.diag(information) > 0
    kept[0] = False
    if trust:
        # Noise at its bound is not estimated either, and nothing is said of its error.
        kept[width:] &= noise > 2 * _LEAST_NOISE
        kept[-1] = False
    out = np.full(size, np.nan)
    out[0] = 0.0
    if trust:
        out[-1] = 0.0  # given, not estimated
    inverse = np.linalg.pinv(information[np.ix_(kept, kept)])
    out[kept] = np.sqrt(np.maximum(np.diag(inverse), 0.0))
    return out
