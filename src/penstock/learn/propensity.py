"""How likely each position of a decision's answers is looked at, from what its decisions showed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.clock import duration
from penstock.learn.dataset import Replay
from penstock.learn.impressions import Impressions, join_outcomes
from penstock.learn.losses import chance
from penstock.learn.position import Examination, by_harvest
from penstock.learn.position.clicks import check_first, summed
from penstock.retrieve import Index
from penstock.types import Micros, Progress

Floats = NDArray[np.float64]
_TREES, _INNER = 120, 3
_MOST = 4_000


def examination(
    replay: Replay,
    shown: Impressions,
    indexes: Mapping[str, Index],
    *,
    as_of: Micros,
    progress: Progress | None = None,
) -> Examination | None:
    """The examination of positions as the recipe's ranker asks for it (`position_bias`), held to fall.

    ``"harvest"`` takes all items whose outcome is final, a pair being a shopper and an item. ``"em"`` needs their
    features, and so draws at most 4,000 decisions; their relevance is what trees expect (`beside_trees`).

    Args:
        shown: what decisions showed.
        indexes: candidate indexes from before the first of them, for the features that sources give.
        as_of: the moment of training, microseconds.

    Returns:
        None where the outcome of nothing shown is final yet.

    Raises:
        PositionError: what was shown does not tell.
    """
    rank = replay.recipe.rank
    rows = {replay.recipe.stream: replay.rows}
    window = duration(rank.window)
    if rank.position_bias == "em" and len(shown.asks) > _MOST:
        drawn = np.random.default_rng(rank.seed).choice(len(shown.asks), _MOST, replace=False)
        shown = shown.take(np.sort(drawn))
    came = join_outcomes(shown.flat(), replay.recipe, rows, replay.strings, window=window, as_of=as_of)
    clicks = shown.clicks(came)
    if clicks is None:
        return None
    if rank.position_bias == "harvest":
        return by_harvest(clicks).falling()
    data = replay.judge(shown, indexes, window=window, as_of=as_of, progress=progress, every=True)
    return beside_trees(data.rows, clicks.position, clicks.clicked, seed=rank.seed).falling()


def beside_trees(
    rows: NDArray[np.float32], position: NDArray[np.int64], clicked: NDArray[np.bool_], *, seed: int = 1
) -> Examination:
    """The position-based click model with trees for relevance, where pairs are seen too seldom for one each.

    Relevance and examination are fitted in turns: a tree is added along the gradient of the clicks' likelihood, then
    each position's examination is set to where it is highest. That is regression EM (Wang et al., WSDM 2018) without
    the hidden variables between, which make it slow. Standard errors hold relevance for known, and so are
    somewhat too small.

    Args:
        rows: (n, features) of what was shown; not the position, nor what depends on it alone.
        position: (n,) from 0.
        clicked: (n,) what came of it.

    Raises:
        PositionError: nothing came of the first position, which the others are relative to.
    """
    import lightgbm

    width = int(position.max(initial=0)) + 1
    check_first(summed(position, clicked, width))
    model = _Turns(position, clicked.astype(np.float64), np.full(width, 0.5))

    def slopes(score: Floats, data: Any) -> tuple[Floats, Floats]:
        # A function, not the bound method: LightGBM copies its settings, and would copy the model along.
        return model.slopes(score)

    settings = {
        "objective": slopes, "num_leaves": 15, "learning_rate": 0.15, "min_data_in_leaf": 50, "num_threads": 1,
        "seed": seed, "deterministic": True, "force_row_wise": True, "verbose": -1,
    }  # fmt: skip
    data = lightgbm.Dataset(rows, clicked.astype(np.int8), init_score=np.full(len(rows), model.start))
    lightgbm.train(settings, data, _TREES)
    look = model.look / model.look[0]
    seen = np.bincount(position, minlength=width) > 0
    weight = model.looked_chance / (1 - model.looked_chance)
    error = look / np.sqrt(np.maximum(np.bincount(position, weight, width), 1e-300))
    error = np.hypot(error, look * (error / look)[0])
    error[0] = 0.0
    return Examination(np.where(seen, look, np.nan), np.where(seen, error, np.nan))


class _Turns:
    """Examination (K,), set anew from the scores of relevance whenever LightGBM asks for slopes."""

    def __init__(self, position: NDArray[np.int64], clicked: Floats, look: Floats) -> None:
        self.position, self.clicked, self.look = position, clicked, look
        rate = float(clicked[position == 0].mean()) if (position == 0).any() else 0.5
        rate = min(max(rate, 0.01), 0.9)
        self.start = float(np.log(rate / (1 - rate)))
        self.looked_chance = clicked

    def slopes(self, score: Floats) -> tuple[Floats, Floats]:
        """The gradient and the expected curvature of −log likelihood in the log-odds of relevance, (n,) each."""
        liked = np.clip(chance(np.asarray(score, np.float64)), 1e-6, 1 - 1e-6)
        for _ in range(_INNER):
            quiet = 1 - np.minimum(self.look[self.position] * liked, 1 - 1e-6)
            found = self._over(self.clicked / quiet) / np.maximum(self._over(liked / quiet), 1e-300)
            self.look = np.clip(found / max(found[0], 1e-9), 1e-4, 1.0)
        self.looked_chance = np.minimum(self.look[self.position] * liked, 1 - 1e-6)
        rest = (1 - liked) / (1 - self.looked_chance)
        return -rest * (self.clicked - self.looked_chance), np.maximum(self.looked_chance * rest * (1 - liked), 1e-6)

    def _over(self, values: Floats) -> Floats:
        return np.asarray(np.bincount(self.position, values, len(self.look)), np.float64)
