"""What more labels would bring, and what each view and source adds: the ranker, fitted again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from penstock.evaluate.intervals import bootstrap, paired
from penstock.evaluate.layout import Ablation, CurvePoint
from penstock.learn import Dataset, Recipe
from penstock.types import Array, Progress

SHARES = (0.25, 0.5, 1.0)
"""Of the training labels, at the points of a learning curve."""


@dataclass(frozen=True, eq=False)
class Study:
    """Fits again, on the same held-out decisions.

    Args:
        recipe: what the columns are.
        parts: the training rows.
        held: the held-out candidates.
        users: (requests,) who asked; intervals resample them.
        judge: fits on parts and gives the deciding metric of each held-out request, (requests,).
    """

    recipe: Recipe
    parts: Sequence[Dataset]
    held: Dataset
    users: Array
    judge: Callable[[Sequence[Dataset], Dataset], NDArray[np.float64]]

    def learning_curve(self, progress: Progress | None = None) -> list[CurvePoint]:
        """The metric after 25, 50 and 100 % of the training labels, each share holding the smaller ones."""
        seed = self.recipe.rank.seed
        points = []
        for at, share in enumerate(SHARES):
            parts = [_drawn(part, share, seed) for part in self.parts]
            found = bootstrap(self.judge(parts, self.held), self.users, seed=seed)
            points.append(CurvePoint(sum(len(part.rows) for part in parts), found.mean, found.low, found.high))
            if progress:
                progress(at + 1, len(SHARES))
        return points

    def ablations(self, progress: Progress | None = None) -> list[Ablation]:
        """The metric without each view and each source, against the whole ranker on the same decisions.

        Without a view its features are missing, and request-time columns that read them; candidates stay. Without a
        source its scores are missing, and the candidates that no other source found. What would leave nothing to
        learn from is passed over.
        """
        seed = self.recipe.rank.seed
        whole = self.judge(self.parts, self.held)
        cases = [case for case in self._without() if any(len(part.rows) for part in case[1])]
        out = []
        for at, (name, parts, held) in enumerate(cases):
            values = self.judge(parts, held)
            change = paired(values, whole, self.users, relative=bool(whole.any()), seed=seed)
            out.append(Ablation(name, float(values.mean()), change))
            if progress:
                progress(at + 1, len(cases))
        return out

    def _without(self) -> Iterator[tuple[str, list[Dataset], Dataset]]:
        for view in self.recipe.views:
            gone = self._columns(lambda name, view=view: name.startswith(f"{view.name}."))  # type: ignore[misc]
            if gone.any():
                yield f"view {view.name}", [_blank(part, gone) for part in self.parts], _blank(self.held, gone)
        if len(self.recipe.sources) < 2:
            return
        for at, source in enumerate(self.recipe.sources):
            gone = self._columns(lambda name, columns=source.columns: name in columns)  # type: ignore[misc]
            parts = [_blank(_others(part, at), gone) for part in self.parts]
            yield f"source {source.label}", parts, _blank(_others(self.held, at), gone)

    def _columns(self, mine: Callable[[str], bool]) -> NDArray[np.bool_]:
        """Which columns are chosen by name, or are computed at request time from such a one."""
        assembler = self.recipe.assembler
        reads = {name: request.expression.meta.root_names() for name, request in assembler.requests.items()}
        return np.array([mine(name) or any(map(mine, reads.get(name, ()))) for name in assembler.names])


def _drawn(part: Dataset, share: float, seed: int) -> Dataset:
    """A share of the requests, drawn at random; a larger share holds a smaller one."""
    order = np.random.default_rng(seed).permutation(len(part.groups))
    chosen = np.zeros(len(part.groups), bool)
    chosen[order[: int(np.ceil(share * len(order)))]] = True
    return part.keep(chosen[part.owner])


def _blank(part: Dataset, gone: NDArray[np.bool_]) -> Dataset:
    return replace(part, rows=np.where(gone, np.float32(np.nan), part.rows))


def _others(part: Dataset, source: int) -> Dataset:
    """Without what only one source found; rows that none found are there for another reason, and stay."""
    place = [~np.isnan(one.place) for one in part.candidates]
    kept = [~found[:, source] | np.delete(found, source, axis=1).any(axis=1) for found in place]
    return part.keep(np.concatenate([np.zeros(0, bool), *kept]))
