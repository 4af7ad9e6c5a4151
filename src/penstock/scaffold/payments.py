"""Sample card payments with frauds that can be learned: a small one of the Fraud Detection Handbook's simulator."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from penstock.clock import DAY, SECOND
from penstock.types import Micros

DAYS, CUSTOMERS, TERMINALS = 60, 150, 300
KNOWN_AFTER = 7
"""Days until the bank says that a payment was fraud; the newest frauds are not marked yet."""

_RADIUS = 25.0  # how far a customer goes, on a map of 100 by 100
_RUSH = 20_000  # seconds around noon, one standard deviation
_LARGE = 220.0
_SHARE, _TIMES = 1 / 3, 5.0  # of a compromised customer's payments, and how much larger those are


def sample_payments(midnight: Micros, seed: int = 7) -> pl.DataFrame:
    """Two months of payments up to a midnight, by time: payment_id, time, customer, terminal, amount, device, fraud.

    There are three kinds of fraud, as in chapter 3 of the Handbook: amounts above 220; every payment at a terminal
    while it is compromised (28 days); a third of a customer's payments while their card data are known to a thief
    (14 days), at five times the amount and from the thief's device. `fraud` holds what was known at that midnight.
    """
    rng = np.random.default_rng(seed)
    mean, daily = rng.uniform(5, 100, CUSTOMERS), rng.uniform(0.2, 4.2, CUSTOMERS)
    near = _near(rng)
    counts = rng.poisson(daily[:, None], (CUSTOMERS, DAYS))
    who, day = (np.repeat(index.ravel(), counts.ravel()) for index in np.indices(counts.shape))
    second = rng.normal(DAY // SECOND / 2, _RUSH, len(who))
    awake = (second > 0) & (second < DAY // SECOND)
    who, day, second = who[awake], day[awake], second[awake]
    terminal = np.array([rng.choice(near[customer]) for customer in who])
    amount = rng.normal(mean[who], mean[who] / 2)
    amount = np.where(amount > 0, amount, rng.uniform(0.5, 2 * mean[who]))
    second_one = np.where(rng.random(len(who)) < 0.2, "b", "a")
    device = np.char.add(np.char.add("d-", np.char.zfill(who.astype(str), 3)), second_one)

    stolen = _compromised(rng, CUSTOMERS, every=8, lasting=14)[who, day] & (rng.random(len(who)) < _SHARE)
    amount = np.where(stolen, _TIMES * amount, amount).round(2)
    bad = stolen | (amount > _LARGE) | _compromised(rng, TERMINALS, every=10, lasting=28)[terminal, day]
    frame = pl.DataFrame(
        {
            "time": midnight - (DAYS - day) * DAY + second.astype(np.int64) * SECOND,
            "customer": who,
            "terminal": terminal,
            "amount": amount,
            "device": np.where(stolen, np.char.replace(device, "d-", "x-"), device),
            "fraud": bad & (day < DAYS - KNOWN_AFTER),
        }
    ).sort("time", "customer", "terminal", "amount")
    # A payment at a terminal without a browser has no device.
    return frame.select(
        payment_id=pl.format("p-{}", pl.int_range(pl.len()).cast(pl.String).str.zfill(5)),
        time=pl.col("time").cast(pl.Datetime("us")).dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
        customer=pl.format("c-{}", pl.col("customer").cast(pl.String).str.zfill(3)),
        terminal=pl.format("t-{}", pl.col("terminal").cast(pl.String).str.zfill(3)),
        amount="amount",
        device=pl.when(pl.col("terminal") % 3 > 0).then("device"),
        fraud=pl.col("fraud").cast(pl.Int8),
    )


def _near(rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """The terminals that each customer goes to."""
    homes, places = rng.uniform(0, 100, (CUSTOMERS, 1, 2)), rng.uniform(0, 100, (1, TERMINALS, 2))
    far = np.sqrt(((homes - places) ** 2).sum(axis=2))
    return [np.flatnonzero(row < max(_RADIUS, row.min() + 1)) for row in far]


def _compromised(rng: np.random.Generator, many: int, *, every: int, lasting: int) -> NDArray[np.bool_]:
    """One more of `many` falls each `every` days, and is mended after `lasting`: `(many, DAYS) bool`."""
    out = np.zeros((many, DAYS), np.bool_)
    for one, first in zip(rng.permutation(many), range(0, DAYS, every), strict=False):
        out[one, first : first + lasting] = True
    return out
