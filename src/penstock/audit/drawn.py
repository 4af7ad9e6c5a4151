"""Apps and streams drawn at random, as untidy as real ones: late events, missing values, clocks that jump."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from penstock.aggregates import Aggregate, rate, scored
from penstock.clock import DAY, HOUR, MINUTE, SECOND
from penstock.features import View
from penstock.registry import get, names
from penstock.types import MISSING_INT, Array, Code, Field, Rows, Schema

Random = np.random.Generator

SCHEMA = Schema(
    "action",
    (
        Field("user", "text", False),
        Field("item", "text", True),
        Field("kind", "text", False),
        Field("price", "money", True),
        Field("weight", "float", True),
    ),
)
KINDS = ("view", "cart", "buy")
WINDOWS = (None, "10min", "1h", "24h", "7d")
KEYS: Sequence[tuple[str, ...]] = (("user",), ("item",), ("user", "item"), ())
_START = 1_700_000_000 * SECOND
_FILTERS = (None, None, pl.col("kind") == "buy", pl.col("kind") != "view", pl.col("price") > 2_000)
_SHOWN = rate(pl.col("kind") == "cart", pl.col("kind") == "view").column
_PAIR = scored(pl.col("kind") == "buy", pl.col("weight").abs() / 100)
# What a class takes beside column, window and filter.
_MORE: Mapping[str, Callable[[Random], dict[str, Any]]] = {
    "decayed_count": lambda random: {"half_life": str(random.choice(["10min", "1d"]))},
    "decayed_sum": lambda random: {"half_life": str(random.choice(["10min", "1d"]))},
    "histogram": lambda random: {"edges": tuple(np.unique(random.integers(-5_000, 5_000, 3)).tolist())},
    "members": lambda random: {"capacity": int(random.integers(1, 40)), "error": float(random.uniform(0.01, 0.3))},
    "ratio": lambda random: {"above": _part(random), "below": _part(random)},
    "session_length": lambda random: {"gap": "10min", "span": str(random.choice(["1h", "1d"]))},
    "sessions": lambda random: {"gap": "10min", "span": str(random.choice(["1h", "1d"]))},
    "first": lambda random: {"k": int(random.integers(1, 6))},
    "quantile": lambda random: {"q": float(random.random()), "error": float(random.uniform(0.05, 0.5))},
    "rate": lambda random: {"column": _SHOWN, "prior": 0.1, "strength": float(random.integers(0, 20))},
    "variance": lambda random: {"ddof": int(random.integers(2))},
    "last": lambda random: {"k": int(random.integers(1, 6))},
    "top_k": lambda random: {"k": int(random.integers(1, 4)), "capacity": int(random.integers(4, 9))},
    "frequent": lambda random: {"k": int(random.integers(1, 4)), "capacity": int(random.integers(4, 9))},
    "sample": lambda random: {"k": int(random.integers(1, 6)), "seed": int(random.integers(9))},
    "auc": lambda random: {"column": _PAIR, "bins": int(random.integers(1, 20))},
    "calibration_error": lambda random: {"column": _PAIR, "bins": int(random.integers(1, 20))},
    "log_loss": lambda random: {"column": _PAIR},
    "distinct": lambda random: {"precision": int(random.integers(4, 9))},
}


class Texts:
    """A log's dictionary, as a list."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = ["", *texts]
        self._codes = {text: code for code, text in enumerate(self._texts)}

    def code(self, text: str) -> Code:
        return self._codes.get(text, 0)

    def text(self, code: Code) -> str:
        return self._texts[code]

    def texts(self, codes: Array) -> list[str]:
        return [self._texts[code] for code in codes.tolist()]

    @property
    def cached(self) -> Texts:
        return self


def views(random: Random, *, most: int = 3, features: int = 6) -> list[View]:
    """Up to `most` views of up to `features` aggregates each, of any registered class."""
    found = []
    for place in range(int(random.integers(1, most + 1))):
        by = KEYS[int(random.integers(len(KEYS)))]
        body = {f"f{i}": aggregate(random) for i in range(int(random.integers(1, features + 1)))}
        found.append(View(f"View{place}", by, body, SCHEMA))
    return found


def classes() -> list[str]:
    """The registered aggregates that a view can hold."""
    found: list[tuple[str, Any]] = [(name, get("aggregate", name)) for name in names("aggregate")]
    return [name for name, cls in found if cls.commutative]


def aggregate(random: Random, name: str | None = None, windows: Sequence[str | None] = WINDOWS) -> Aggregate:
    """One aggregate of a class, or of any: column, window, filter and sizes at random."""
    name = name or str(random.choice(classes()))
    cls: Any = get("aggregate", name)
    more = _MORE[name](random) if name in _MORE else {}
    if cls.reads and "column" not in more:
        fitting = [f.name for f in SCHEMA.fields if f.kind in cls.reads]
        more["column"] = fitting[int(random.integers(len(fitting)))]
        if more["column"] == "weight" and name in ("decayed_sum", "sum", "mean", "variance"):
            more["unit"] = 0.01
    window, where = (options[int(random.integers(len(options)))] for options in (windows, _FILTERS))
    made: Aggregate = cls(window=window if cls.windowed else None, where=where, **more)
    return made


def _part(random: Random) -> Aggregate:
    """What a ratio may be of."""
    return aggregate(random, str(random.choice(["count", "distinct", "max", "mean", "recency", "sum"])), [None])


def stream(random: Random, events: int, *, users: int = 8, items: int = 12) -> tuple[Rows, Texts]:
    """Events of Zipf-drawn users and items in the order in which they arrive, and their dictionary.

    A third arrive late by up to two hours; the clock stands still for whole seconds and jumps ahead by up to three
    days; a tenth of items, prices and weights are missing.
    """
    texts = Texts([*KINDS, *(f"u{i}" for i in range(users)), *(f"i{i}" for i in range(items))])
    steps = random.choice([0, 1, 40, 10 * MINUTE // SECOND], events, p=[0.3, 0.4, 0.25, 0.05]) * SECOND
    steps[random.random(events) < 0.01] += int(random.integers(HOUR, 3 * DAY))
    time = _START + np.cumsum(steps)
    late = random.integers(0, 2 * HOUR, events) * (random.random(events) < 1 / 3)
    order = np.argsort(time + late, kind="stable")
    fields = np.zeros(events, SCHEMA.dtype)
    fields["user"] = 1 + len(KINDS) + zipf(random, users, events)
    fields["item"] = 1 + len(KINDS) + users + zipf(random, items, events)
    fields["kind"] = 1 + random.integers(len(KINDS), size=events)
    fields["price"] = random.integers(-5_000, 5_000, events)
    fields["weight"] = np.round(random.normal(0, 100, events), 3)
    for name, missing in (("item", 0), ("price", MISSING_INT), ("weight", np.nan)):
        fields[name][random.random(events) < 0.1] = missing
    tie = random.integers(1, 2**63, events).astype(np.uint64)
    at, arrived = time[order], np.maximum.accumulate((time + late)[order])
    return Rows("action", np.arange(events), at, at, arrived, tie[order], fields[order]), texts


def zipf(random: Random, n: int, size: int) -> NDArray[np.int64]:
    """Numbers below n, each drawn in proportion to 1 / (1 + number), (size,)."""
    weights = 1 / np.arange(1, n + 1)
    return random.choice(n, size, p=weights / weights.sum())
