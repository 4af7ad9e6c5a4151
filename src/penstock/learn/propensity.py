"""How likely each position of a decision's answers is looked at, from what its decisions showed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from penstock.clock import duration
from penstock.learn.dataset import Replay
from penstock.learn.impressions import Impressions, join_outcomes
from penstock.learn.position import Examination, by_em, by_harvest
from penstock.learn.position.models import Relevance
from penstock.retrieve import Index
from penstock.types import Array, Micros, Progress

_STEPS, _CLOSE = 60, 2e-3
_TREES = 15


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
    features, and so draws at most `most_labels` decisions; their relevance is what trees expect, fitted anew in each
    step.

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
    if rank.position_bias == "em" and len(shown.asks) > rank.most_labels:
        drawn = np.random.default_rng(rank.seed).choice(len(shown.asks), rank.most_labels, replace=False)
        shown = shown.take(np.sort(drawn))
    came = join_outcomes(shown.flat(), replay.recipe, rows, replay.strings, window=window, as_of=as_of)
    clicks = shown.clicks(came)
    if clicks is None:
        return None
    if rank.position_bias == "harvest":
        return by_harvest(clicks).falling()
    data = replay.judge(shown, indexes, window=window, as_of=as_of, progress=progress, every=True)
    alone = type(clicks)(clicks.session, np.arange(len(data.rows)), clicks.position, clicks.clicked)
    regress = _forest(data.rows, rank.seed)
    return by_em(alone, relevance=regress, steps=_STEPS, close=_CLOSE).examination.falling()


def _forest(rows: NDArray[np.float32], seed: int) -> Relevance:
    """A relevance for each row (n, features), by a few small trees under the log loss of soft targets."""
    import lightgbm

    data = lightgbm.Dataset(rows, np.zeros(len(rows)), free_raw_data=False)
    settings = {
        "objective": "cross_entropy", "num_leaves": 15, "learning_rate": 0.3, "min_data_in_leaf": 50,
        "num_threads": 1, "seed": seed, "deterministic": True, "force_row_wise": True, "verbose": -1,
    }  # fmt: skip

    def regress(target: Array, weight: Array) -> NDArray[np.float64]:
        data.set_label(target)
        return np.asarray(lightgbm.train(settings, data, _TREES).predict(rows, num_threads=1), np.float64)

    return regress
