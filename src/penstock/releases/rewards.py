"""What a release knows of rewards: the linear models that rules explore by, fitted on what was shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from penstock.clock import SECOND, duration
from penstock.learn import (
    Dataset,
    Examination,
    Impressions,
    LinearReward,
    Model,
    Posterior,
    Replay,
    Summary,
)
from penstock.releases.parts import label_part
from penstock.retrieve import Index
from penstock.types import Progress


def learn_rewards(
    replay: Replay,
    spans: Sequence[tuple[int, int]],
    rewards: Sequence[LinearReward],
    models: Sequence[Model | None],
    indexes: Mapping[str, Index],
    shown: Impressions | None = None,
    looked: Examination | None = None,
    progress: Progress | None = None,
) -> dict[str, Posterior]:
    """What is believed of each model's weights, by `LinearReward.key`.

    The rows are what decisions of these spans showed, those of which nothing came as well, once their window has
    closed; a reward is what came of it, in the goal's worth, over how likely its position was looked at, where that is
    known. Where nothing of that kind was shown, they are the candidates of what shoppers did next. Each span is
    a summary of its own, and the summaries are merged.

    Args:
        models: what scores each span's rows, where the score is a column: like the one released, but learned from other
            spans, since a model scores what it learned from better than what comes. Without one a span is left out.
        indexes: those released: a network's vectors mean something only beside others of the same network.
    """
    parts = [_shown_part(replay, span, shown, progress) for span in spans] if shown is not None else []
    if not any(part is not None and len(part.rows) for part in parts):
        looked = None
        negatives = replay.recipe.rank.negatives
        parts = [label_part(replay, span, negatives=negatives, progress=progress)[1] for span in spans]
    known = {source.label: source for source in replay.recipe.sources}
    places = replay.recipe.assembler.places
    out: dict[str, Posterior] = {}
    for reward in rewards:
        total: Summary | None = None
        for part, model in zip(parts, models, strict=True):
            if part is not None and len(part.rows) and (model is not None or "score" not in reward.columns):
                weight = 1.0 if looked is None else looked.weights(part.place, replay.recipe.rank.most_weight)
                score = _scores(model, part) if model is not None and "score" in reward.columns else None
                columns = [
                    score if name == "score" and score is not None else part.rows[:, places[name]]
                    for name in reward.columns
                ]
                source = known.get(reward.source)
                products = None if source is None else replay.products(part, source, indexes[source.label])
                summary = Summary.of(reward.inputs(columns, products), part.gain * weight)
                total = summary if total is None else total.merged(summary)
        if total is not None:
            out[reward.key] = Posterior(total, reward.penalty)
    return out


def _shown_part(replay: Replay, span: tuple[int, int], shown: Impressions, progress: Progress | None) -> Dataset | None:
    """The rows of what was shown in a span; None where nothing was."""
    rank, as_of = replay.recipe.rank, int(replay.rows.arrived.max())
    mine = shown.between(*span)
    if not len(mine.asks):
        return None
    drawn = np.random.default_rng(rank.seed + span[0] // SECOND).permutation(len(mine.asks))
    mine = mine.take(np.sort(drawn[: rank.most_labels]))
    near = replay.newest(int(mine.asks.known[0]))
    return replay.judge(mine, near, window=duration(rank.window), as_of=as_of, progress=progress, every=True)


def _scores(model: Model, part: Dataset) -> np.ndarray:
    """The model's score of each row, request by request."""
    edges = np.r_[0, np.cumsum(part.groups)]
    scores = [
        model.score(part.rows[begin:end], candidates)
        for begin, end, candidates in zip(edges[:-1].tolist(), edges[1:].tolist(), part.candidates, strict=True)
    ]
    return np.concatenate([np.zeros(0), *scores])
