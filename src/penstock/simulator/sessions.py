"""When shoppers come, what for, and how long they stay: everything about a visit but the products."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.clock import DAY, HOUR, SECOND
from penstock.simulator.catalogue import Catalogue
from penstock.simulator.crowd import Crowd
from penstock.simulator.knobs import Knobs
from penstock.simulator.names import STYLES

_HOURS = np.array([4, 2, 1, 1, 1, 2, 4, 7, 9, 10, 11, 12, 13, 12, 11, 11, 12, 14, 17, 20, 22, 20, 14, 8], np.float64)
_WEEKEND = 1.35
_GO_ON = 0.5
_GAP_MEDIAN, _GAP_SPREAD = 35 * SECOND, 0.9


@dataclass(frozen=True)
class Plan:
    """All views of some shoppers, step by step: step t of every shopper who has one lies in `edges[t]:edges[t + 1]`.

    Rows are shoppers, the longest history first, so that each step is a prefix of the one before. Columns of length
    views: `row` and `session` (codes), `opening` (a session's first view), `category` and `style` (the session's
    intent), `time`, `gap` (microseconds until the shopper may go on) and `day`. `shopper` is the code of each row.
    """

    shopper: NDArray[np.int64]
    edges: NDArray[np.int64]
    row: NDArray[np.int64]
    session: NDArray[np.int64]
    opening: NDArray[np.bool_]
    category: NDArray[np.int64]
    style: NDArray[np.int64]
    time: NDArray[np.int64]
    gap: NDArray[np.int64]
    day: NDArray[np.int64]


def plan_visits(
    rng: np.random.Generator, knobs: Knobs, catalogue: Catalogue, crowd: Crowd, shoppers: NDArray[np.int64]
) -> Plan:
    """Draws the sessions of `shoppers`; views past the end of the span are left out later."""
    visits = rng.poisson(crowd.activity[shoppers])
    length = rng.geometric(1 / knobs.views, size=visits.sum())
    place = np.repeat(np.arange(len(shoppers)), visits)
    total = np.bincount(place, weights=length, minlength=len(shoppers)).astype(np.int64)
    longest = np.argsort(-total, kind="stable")
    row = np.argsort(longest)[place]
    start = _starts(rng, knobs, len(row))
    order = np.lexsort((start, row))
    row, start, length = row[order], start[order], length[order]
    ordered = shoppers[longest]
    category, style = _intents(rng, knobs, catalogue, crowd, ordered[row], start)

    session = np.repeat(np.arange(len(row)), length)
    opening = np.diff(session, prepend=-1) > 0
    total = total[longest]
    step = np.arange(len(session)) - np.repeat(np.cumsum(total) - total, total)
    by_step = np.argsort(step, kind="stable")
    edges = np.searchsorted(step[by_step], np.arange(total.max(initial=0) + 1)).astype(np.int64)
    session, opening = session[by_step], opening[by_step]
    gap = np.exp(_GAP_SPREAD * rng.standard_normal(len(session))) * _GAP_MEDIAN
    gap = np.clip(gap, 3 * SECOND, HOUR / 3).astype(np.int64)
    time = _times(edges, start[session], opening, gap)
    return Plan(
        shopper=ordered,
        edges=edges,
        row=row[session],
        session=session,
        opening=opening,
        category=category[session],
        style=style[session],
        time=time,
        gap=gap,
        day=np.minimum((time - knobs.start) // DAY, knobs.days - 1),
    )


def _starts(rng: np.random.Generator, knobs: Knobs, n: int) -> NDArray[np.int64]:
    weekday = (knobs.start // DAY + 3 + np.arange(knobs.days)) % 7  # 1970 began on a Thursday
    days = np.where(weekday >= 5, _WEEKEND**knobs.season, 1.0)
    hours = _HOURS**knobs.season
    day = rng.choice(knobs.days, size=n, p=days / days.sum())
    hour = rng.choice(24, size=n, p=hours / hours.sum())
    return np.asarray(knobs.start + day * DAY + hour * HOUR + rng.integers(HOUR, size=n))


def _intents(
    rng: np.random.Generator,
    knobs: Knobs,
    catalogue: Catalogue,
    crowd: Crowd,
    shopper: NDArray[np.int64],
    start: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What each session is for: a category and a look. Half of the sessions go on with the one before."""
    phase = (start[:, None] / (365.25 * DAY) + np.arange(knobs.categories) / knobs.categories) * 2 * np.pi
    fashion = catalogue.fashion[(start - knobs.start) // DAY]
    wish = np.cumsum(crowd.interest[shopper] * np.exp(0.5 * knobs.season * np.sin(phase) + fashion), axis=1)
    category = (wish < rng.random((len(shopper), 1)) * wish[:, -1:]).sum(axis=1)
    pull = 1.5 * np.einsum("st,sjt->sj", crowd.vector[shopper], catalogue.style_vector[category])
    style = np.argmax(pull + rng.gumbel(size=(len(shopper), STYLES)), axis=1)
    fresh = (rng.random(len(shopper)) >= _GO_ON) | (np.diff(shopper, prepend=-1) != 0)
    source = np.maximum.accumulate(np.where(fresh, np.arange(len(shopper)), 0))
    return category[source], style[source]


def _times(
    edges: NDArray[np.int64], start: NDArray[np.int64], opening: NDArray[np.bool_], gap: NDArray[np.int64]
) -> NDArray[np.int64]:
    """A session begins as planned, or where the last one still runs, after it: a shopper's times only grow."""
    time = start.copy()
    for before, low, high in zip(edges[:-2].tolist(), edges[1:-1].tolist(), edges[2:].tolist(), strict=True):
        last = slice(before, before + high - low)
        going_on = time[last] + gap[last]
        time[low:high] = np.where(opening[low:high], np.maximum(time[low:high], going_on), going_on)
    return time
