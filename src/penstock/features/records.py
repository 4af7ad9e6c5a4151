"""One entity's tiles as one record of bytes, and many records folded at once.

A record is, for each group of the view, a little-endian uint16 count of tiles, then the groups' tiles in
order. Only tiles that hold events are kept, so a quiet entity is small however many hops its window has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock.aggregates.runs import run_starts
from penstock.features.view import TILE, Group, View
from penstock.types import Array

FOREVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Tiles:
    """Tiles of many entities: `owner` (n,) says whose each is; sorted by (owner, tile)."""

    tiles: Array
    owner: NDArray[np.int64]


def decode(view: View, records: Sequence[bytes | None]) -> list[Tiles]:
    """The tiles of each group of the view; owners are positions in `records`."""
    groups = view.groups
    header = 2 * len(groups)
    sizes = [group.dtype.itemsize for group in groups]
    held = [(i, record) for i, record in enumerate(records) if record is not None]
    counts = np.frombuffer(b"".join(record[:header] for _, record in held), "<u2").reshape(-1, len(groups)).astype(int)
    who = np.array([i for i, _ in held], np.int64)
    if len(groups) == 1:
        joined = [b"".join([record[header:] for _, record in held])]
    else:
        edges = header + np.concatenate([np.zeros((len(held), 1), int), np.cumsum(counts * sizes, axis=1)], axis=1)
        cuts = edges.tolist()
        joined = [
            b"".join([record[cut[g] : cut[g + 1]] for (_, record), cut in zip(held, cuts, strict=True)])
            for g in range(len(groups))
        ]
    return [
        Tiles(np.frombuffer(joined[g], group.dtype), np.repeat(who, counts[:, g])) for g, group in enumerate(groups)
    ]


def encode(view: View, parts: Sequence[Tiles], n: int) -> list[bytes]:
    """The records of n entities; the inverse of `decode`."""
    edges = [np.searchsorted(part.owner, np.arange(n + 1)) for part in parts]
    counts = np.stack([np.diff(edge) for edge in edges], axis=1).astype("<u2")
    heads = [row.tobytes() for row in counts]
    bodies = []
    for group, part, edge in zip(view.groups, parts, edges, strict=True):
        data, size = part.tiles.tobytes(), group.dtype.itemsize
        cuts = (edge * size).tolist()
        bodies.append([data[cuts[i] : cuts[i + 1]] for i in range(n)])
    return [b"".join(row) for row in zip(heads, *bodies, strict=True)]


def merge_tiles(group: Group, owner: NDArray[np.int64], tiles: Array) -> Tiles:
    """Merges tiles of the same owner and number; earlier entries come first within a tile."""
    order = np.lexsort((tiles[TILE], owner))
    owner, tiles = owner[order], tiles[order]
    number = tiles[TILE]
    starts = run_starts(owner, number)
    if len(starts) == len(owner):
        return Tiles(tiles, owner)
    out = np.empty(len(starts), group.blocked)
    out[TILE] = number[starts]
    states = tiles.view(group.blocked)
    for block in group.blocks:
        out[block.field] = block.aggregate.reduce(states[block.field], starts)
    return Tiles(out.view(group.dtype), owner[starts])


def joined(a: Tiles, b: Tiles) -> tuple[NDArray[np.int64], Array]:
    """The owners and tiles of both, `a` first; NumPy's own concatenation compares the fields' types one by one."""
    tiles = np.empty(len(a.tiles) + len(b.tiles), a.tiles.dtype)
    tiles[: len(a.tiles)], tiles[len(a.tiles) :] = a.tiles, b.tiles
    return np.concatenate([a.owner, b.owner]), tiles


def fold(view: View, parts: Sequence[Tiles], now: NDArray[np.int64]) -> dict[str, Array]:
    """Feature values of len(now) entities at their times: float64 (n,) or uint32 codes (n, k)."""
    states, _ = merged(view, parts, now)
    return {name: aggregate.served(states[name], now) for name, aggregate in view.features.items()}


def merged(view: View, parts: Sequence[Tiles], now: NDArray[np.int64]) -> tuple[dict[str, Array], NDArray[np.int64]]:
    """One state an entity and feature at their times, and the moments (n,) at which windows leave a tile behind.

    Until then the same tiles give the same states.
    """
    states: dict[str, Array] = {}
    until = np.full(len(now), FOREVER)
    for group, part in zip(view.groups, parts, strict=True):
        tiles, owner = part.tiles, part.owner
        if group.window is not None and len(owner):
            covered = tiles[TILE] >= group.oldest(now)[owner]
            if not covered.all():
                tiles, owner = tiles[covered], owner[covered]
        starts = run_starts(owner)
        who = owner[starts]
        if group.window is not None:
            until[who] = np.minimum(until[who], group.left(tiles[TILE][starts]))
        for name, aggregate in group.features.items():
            states[name] = aggregate.empty(len(now))
        if not len(starts):
            continue
        blocked = tiles.view(group.blocked)
        for block in group.blocks:
            column = blocked[block.field]
            found = column if len(starts) == len(column) else block.aggregate.reduce(column, starts)
            for i, name in enumerate(block.features):
                states[name][who] = found if len(block.features) == 1 else found[:, i]
    return states, until
