"""What a comparison of rankers is measured by and split into, from the log."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from penstock.clock import duration
from penstock.evaluate import Goals, binned, query_type, tenths, top_values
from penstock.features.columns import matches
from penstock.learn import Labels, Replay
from penstock.retrieve.base import between
from penstock.types import Array, Strings


def slices_of(replay: Replay, labels: Labels) -> dict[str, NDArray[np.str_]]:
    """Name → the label of each held-out decision (n,): by who asked, what was taken, and what the request carried.

    Counts are of what was known before the first of the decisions. A context field whose words
    are read, or that is named query, is split by the kind of words and by how often they were asked; every other by its
    commonest values.
    """
    recipe = replay.recipe
    past = replay.rows.take(slice(0, int(np.searchsorted(replay.rows.offset, labels.asks.known[0]))))
    seen = counts_of(past.fields[recipe.item], labels.item)
    out = {
        "user activity": binned(counts_of(past.fields[recipe.by], labels.asks.key)),
        "item popularity": binned(seen),
        "item frequency": tenths(seen),
    }
    for name, codes in labels.asks.context.items():
        texts = _texts(codes, replay.strings)
        if name in recipe.asks or name == "query":
            out[f"{name} type"] = np.array([query_type(text) for text in texts], dtype=np.str_)
            out[f"{name} frequency"] = tenths(counts_of(past.fields[name], codes))
        else:
            out[name] = top_values(texts)
    return out


def goals_of(replay: Replay, labels: Labels) -> Goals:
    """The items on which the goal followed each held-out decision, by the same shopper within the ranker's window.

    The event that made the label is the first of them.
    """
    recipe, rows = replay.recipe, replay.rows
    later = rows.take(slice(int(np.searchsorted(rows.offset, labels.asks.known[0])), None))
    hit = matches(recipe.rank.filter, later, recipe.views[0].schema, replay.strings)
    hit &= (later.fields[recipe.by] != 0) & (later.fields[recipe.item] != 0)
    at = np.flatnonzero(hit)
    key, offset = later.fields[recipe.by][at], later.offset[at]
    order = np.argsort(key, kind="stable")  # a shopper's events stay in the order in which they came
    at, key, offset = at[order], key[order], offset[order]
    first, end = (np.searchsorted(key, labels.asks.key, side=side) for side in ("left", "right"))
    pairs = between(first, end)
    owner = np.repeat(np.arange(len(labels)), end - first)
    until = labels.asks.now + duration(recipe.rank.window)
    inside = (offset[pairs] >= labels.asks.known[owner]) & (later.time[at[pairs]] <= until[owner])
    return Goals(owner[inside], later.fields[recipe.item][at[pairs[inside]]])


def counts_of(codes: NDArray[np.uint32], asked: NDArray[np.uint32]) -> NDArray[np.int64]:
    """How often each of `asked` (n,) is among `codes`."""
    known, counts = np.unique(codes, return_counts=True)
    if not len(known):
        return np.zeros(len(asked), np.int64)
    at = np.minimum(np.searchsorted(known, asked), len(known) - 1)
    return np.where(known[at] == asked, counts[at], 0)


def _texts(codes: Array, strings: Strings) -> list[str]:
    """The texts of codes (n,), "" for a missing one."""
    known = np.unique(codes[codes != 0])
    texts = {0: "", **dict(zip(known.tolist(), strings.texts(known), strict=True))}
    return [texts[code] for code in codes.tolist()]
