"""The shoppers of the simulated shop, and what they truly like."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.simulator.catalogue import Catalogue
from penstock.simulator.knobs import Knobs

COUNTRIES = ("DE", "FR", "GB", "IT", "NL", "PL")
_COUNTRY_SHARE = np.array([0.3, 0.2, 0.2, 0.12, 0.1, 0.08])
_ACTIVITY_SPREAD, _ACTIVITY_LIMIT = 0.7, 6.0
_INTEREST = 0.4


@dataclass(frozen=True)
class Crowd:
    """All shoppers, as columns of length `shoppers`; a shopper's place is the code.

    `vector` is `(shoppers, tastes) float32`, `interest` `(shoppers, categories) float32`, each row summing to 1;
    `activity` is the expected number of sessions in the span; `thrift` scales the response to price.
    """

    id: NDArray[np.object_]
    country: NDArray[np.int64]
    activity: NDArray[np.float64]
    thrift: NDArray[np.float32]
    interest: NDArray[np.float32]
    vector: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.id)


def build_crowd(knobs: Knobs) -> Crowd:
    """Draws the shoppers of the world that `knobs` describe."""
    rng = knobs.rng(4)
    n = knobs.shoppers
    country = rng.choice(len(COUNTRIES), size=n, p=_COUNTRY_SHARE)
    fashion = np.exp(0.5 * rng.standard_normal((len(COUNTRIES), knobs.categories)))
    interest = rng.gamma(0.25, size=(n, knobs.categories)) * fashion[country] + 1e-3
    activity = np.exp(_ACTIVITY_SPREAD * rng.standard_normal(n) - _ACTIVITY_SPREAD**2 / 2)
    return Crowd(
        id=np.array([f"u-{i:05d}" for i in range(n)], dtype=object),
        country=country,
        activity=knobs.sessions * np.minimum(activity, _ACTIVITY_LIMIT),
        thrift=np.exp(0.3 * rng.standard_normal(n)).astype(np.float32),
        interest=(interest / interest.sum(axis=1, keepdims=True)).astype(np.float32),
        vector=rng.standard_normal((n, knobs.tastes)).astype(np.float32),
    )


def liking(catalogue: Catalogue, crowd: Crowd, shoppers: NDArray[np.int64]) -> NDArray[np.float32]:
    """How much each of `shoppers` likes each product, before price: `(shoppers, items) float32` log-odds."""
    score = crowd.vector[shoppers] @ catalogue.vector.T
    score += catalogue.quality
    score += _leaning(crowd.interest[shoppers])[:, catalogue.category]
    return np.asarray(score)


def liking_of(
    catalogue: Catalogue, crowd: Crowd, shoppers: NDArray[np.int64], items: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The same for pairs: `shoppers` and `items` broadcast against each other."""
    taste = np.einsum("...t,...t->...", crowd.vector[shoppers], catalogue.vector[items])
    leaning = _leaning(crowd.interest[shoppers, catalogue.category[items]], crowd.interest.shape[1])
    return np.asarray(taste + catalogue.quality[items] + leaning, dtype=np.float64)


def _leaning(interest: NDArray[np.float32], categories: int | None = None) -> NDArray[np.float32]:
    return np.asarray(_INTEREST * np.clip(np.log(interest * (categories or interest.shape[-1])), -2, 2), np.float32)
