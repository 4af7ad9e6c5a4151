"""Vectors whose neighbours are known: drawn, or read, with the exact answers to two sets of queries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from penstock.retrieve.vectors.base import Floats, Matrix
from penstock.retrieve.vectors.tuning import nearest

D, K = 128, 10
CLUSTERS = 1_000
TUNE, TEST = 1_000, 2_000
_BLOCK = 1 << 16
Draw = Callable[[np.random.Generator, int], Floats]


def clustered(seed: int) -> Draw:
    """Clusters whose noise is as large as their centres."""
    centres = np.random.default_rng([seed, 1]).standard_normal((CLUSTERS, D), np.float32)

    def draw(random: np.random.Generator, n: int) -> Floats:
        found = random.standard_normal((n, D), np.float32)
        found += centres[random.integers(0, CLUSTERS, n)]
        return found

    return draw


def overlapping(seed: int) -> Draw:
    """Clusters that lie in one another, most of what varies in a few directions, as embeddings are."""
    own = np.random.default_rng([seed, 2])
    scale = (np.arange(1, D + 1) ** -0.5).astype(np.float32)
    turn: Floats = np.linalg.qr(own.standard_normal((D, D)))[0].astype(np.float32)
    centres = own.standard_normal((CLUSTERS, D), np.float32) * scale * np.float32(0.7)

    def draw(random: np.random.Generator, n: int) -> Floats:
        found: Floats = random.standard_normal((n, D), np.float32) * scale
        found += centres[random.integers(0, CLUSTERS, n)]
        turned: Floats = found @ turn
        return turned

    return draw


def unclustered(seed: int) -> Draw:
    """Points all over the sphere, of which none is much nearer than others: the hardest there is."""
    return lambda random, n: random.standard_normal((n, D), np.float32)


KINDS: dict[str, Callable[[int], Draw]] = {
    "clustered": clustered, "overlapping": overlapping, "unclustered": unclustered
}  # fmt: skip


def write(folder: Path, kind: str, n: int, seed: int = 0) -> None:
    """Draws n vectors and writes them to a folder, normalised, with queries and answers; leaves what is there."""
    if (folder / "answers.npy").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    draw, random = KINDS[kind](seed), np.random.default_rng([seed, n])
    held = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (n, D))
    for first in range(0, n, _BLOCK):
        held[first : first + _BLOCK] = _normal(draw(random, min(_BLOCK, n - first)))
    held.flush()
    _answers(folder, held, _normal(draw(random, TUNE + TEST)))


def given(folder: Path, vectors: Path, queries: Path | None) -> None:
    """The same from files (n, d); without queries some of the vectors are taken out to be asked."""
    if (folder / "answers.npy").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    raw = np.load(vectors, mmap_mode="r", allow_pickle=False)
    if queries is None:
        order = np.random.default_rng(0).permutation(len(raw))
        asked, kept = raw[order[: TUNE + TEST]], np.sort(order[TUNE + TEST :])
    else:
        asked, kept = np.load(queries, allow_pickle=False)[: TUNE + TEST], np.arange(len(raw))
    held = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (len(kept), raw.shape[1]))
    for first in range(0, len(kept), _BLOCK):
        held[first : first + _BLOCK] = _normal(np.asarray(raw[kept[first : first + _BLOCK]], np.float32))
    held.flush()
    _answers(folder, held, _normal(np.asarray(asked, np.float32)))


def _answers(folder: Path, vectors: NDArray[np.float32], queries: Floats) -> None:
    found = nearest(Matrix(vectors, "ip"), queries, K)
    tune = min(TUNE, len(queries) // 3)
    np.save(folder / "tune.npy", queries[:tune])
    np.save(folder / "truth.npy", found[:tune])
    np.save(folder / "queries.npy", queries[tune:])
    np.save(folder / "answers.npy", found[tune:])


def _normal(vectors: Floats) -> Floats:
    out: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
    return out
