"""Candidates side by side on the same decisions, and the simplest one that is good enough."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from penstock.evaluate.checks import EvaluationError, equal_lengths
from penstock.evaluate.intervals import Interval, bootstrap_columns, false_discovery, p_value, paired
from penstock.evaluate.layout import (
    CandidateResult,
    Comparison,
    Metric,
    Scores,
    SliceCandidate,
    SliceChange,
    SliceResult,
)
from penstock.evaluate.ranking import Ranks, coverage, gains, goals_at, hits, reciprocal_ranks
from penstock.types import Array

_METRICS = {"hit_rate": hits, "ndcg": gains, "mrr": reciprocal_ranks}
METRIC_NAMES: Mapping[Metric, str] = {"hit_rate": "hit rate", "ndcg": "NDCG", "mrr": "MRR", "goals": "goals a list"}
SURE = 0.05
"""A slice is surely better or worse at a q-value of at most this."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """A ranker, or a baseline, and how it did on n held-out decisions.

    Args:
        name: unique among the candidates.
        complexity: the higher, the more there is to run and to understand; only the order counts.
        ranks: (n,) int64, the rank of the item that was taken, 0 where it was not in the list.
        train_seconds: what fitting it took.
        score_ms_p50: the median time to score one list, in milliseconds.
        lists: (n, width) codes shown, best first, 0 pads; for coverage, and for counting goals.
        find_ms_p50: the median time to find the candidates of one list, in milliseconds.
    """

    name: str
    complexity: int
    ranks: Ranks
    train_seconds: float
    score_ms_p50: float
    lists: Array | None = None
    find_ms_p50: float = 0.0


@dataclass(frozen=True, eq=False)
class Goals:
    """The items on which the goal followed, pair by pair: `owner` (m,) places of decisions, `item` (m,) codes."""

    owner: Array
    item: Array


def compare(
    candidates: Sequence[Candidate],
    users: Array,
    slices: Mapping[str, Array],
    *,
    k: int = 20,
    tolerance: float = 0.01,
    metric: Metric = "hit_rate",
    catalogue_size: int | None = None,
    goals: Goals | None = None,
    repeats: int = 500,
    level: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Measures every candidate, overall and by slice, and picks the simplest one close enough to the best.

    In every slice the one chosen is held against the best of the others (the rival): the difference on `metric`, pair
    by pair, with a p-value, and q-values that bound the false discoveries over all slices.

    Args:
        users: (n,) the user of each decision; intervals resample users.
        slices: name → (n,) label of each decision, such as those `binned` gives.
        tolerance: the largest loss to the best, as a share of the best's `metric`, at which a simpler candidate
            is preferred. The measured loss decides; its interval is reported beside it.
        catalogue_size: number of items, for coverage; none leaves coverage out.
        goals: the items on which the goal followed; how many of them are in the first k places is a metric of its
            own, ``goals``, and candidates then have lists.

    Raises:
        EvaluationError: no candidate, a repeated name, columns of different length, tolerance outside [0, 1).
    """
    _check(candidates, users, slices, tolerance)
    how: dict[str, Any] = {"repeats": repeats, "level": level, "seed": seed}
    values = {c.name: _values(c, goals, k) for c in candidates}
    column = _column(metric, goals)
    means = {name: float(value[:, column].mean()) for name, value in values.items()}
    best = min(candidates, key=lambda c: (-means[c.name], c.complexity, c.name))
    target = values[best.name][:, column]
    overall = _scores(values, users, how)
    rows = [
        CandidateResult(
            c.name,
            c.complexity,
            overall[c.name],
            paired(values[c.name][:, column], target, users, relative=True, **how) if means[best.name] else None,
            coverage(c.lists[:, :k], catalogue_size) if c.lists is not None and catalogue_size is not None else None,
            float(c.train_seconds),
            float(c.score_ms_p50),
            float(c.find_ms_p50),
        )
        for c in candidates
    ]
    chosen = _simplest(rows, means, tolerance)
    ranks = next(c.ranks for c in candidates if c.name == chosen.name)
    others = [c for c in candidates if c.name != chosen.name]
    rival = min(others, key=lambda c: (-means[c.name], c.complexity, c.name)).name if others else None
    against = (values[chosen.name][:, column], values[rival][:, column]) if rival is not None else None
    parts = [part for name, labels in slices.items() for part in _parts(name, labels)]
    changes = _changes(parts, against, users, how) if against is not None else [None] * len(parts)
    return Comparison(
        k=k,
        metric=metric,
        tolerance=tolerance,
        level=level,
        lists=len(users),
        users=len(np.unique(users)),
        best=best.name,
        chosen=chosen.name,
        reason=_reason(rows, chosen, best.name, metric, k, tolerance, level),
        candidates=rows,
        rival=rival,
        slices=[_slice(part, change, values, users, how) for part, change in zip(parts, changes, strict=True)],
        positions=np.bincount(ranks[(ranks > 0) & (ranks <= k)], minlength=k + 1)[1:].tolist(),
    )


def _check(candidates: Sequence[Candidate], users: Array, slices: Mapping[str, Array], tolerance: float) -> None:
    names = [c.name for c in candidates]
    if not names or len(set(names)) < len(names):
        raise EvaluationError(
            "a comparison has at least one candidate, each with a name of its own",
            got=", ".join(names) or "none",
            remedy="rename or add candidates",
        )
    if not 0 <= tolerance < 1:
        raise EvaluationError(
            "the tolerance is a share of the best, from 0 to below 1", got=str(tolerance), remedy="0.01 allows 1 %"
        )
    columns = {f"ranks of {c.name}": c.ranks for c in candidates} | {f"slice {name}": s for name, s in slices.items()}
    equal_lengths(users=users, **columns)


def list_values(candidate: Candidate, metric: Metric, k: int, goals: Goals | None = None) -> Array:
    """One metric of each of a candidate's lists, (n,) float64."""
    return _values(candidate, goals, k)[:, _column(metric, goals)]


def _values(candidate: Candidate, goals: Goals | None, k: int) -> Array:
    """The metrics of each list, (n, metrics)."""
    columns = [metric(candidate.ranks, k) for metric in _METRICS.values()]
    if goals is not None:
        if candidate.lists is None:
            raise EvaluationError(
                "goals are counted in the candidates' lists", got=f"{candidate.name} without", remedy="pass lists"
            )
        columns.append(goals_at(candidate.lists, goals.owner, goals.item, k))
    return np.stack(columns, axis=1)


def _column(metric: Metric, goals: Goals | None) -> int:
    if metric == "goals" and goals is None:
        raise EvaluationError("a comparison by goals knows them", got="none", remedy="pass goals=Goals(owner, item)")
    return [*_METRICS, "goals"].index(metric)


def _scores(values: Mapping[str, Array], users: Array, how: dict[str, Any]) -> dict[str, Scores]:
    flat = iter(bootstrap_columns(np.concatenate(list(values.values()), axis=1), users, **how))
    return {name: Scores(*(next(flat) for _ in range(value.shape[1]))) for name, value in values.items()}


def _parts(name: str, labels: Array) -> list[tuple[str, str, Array]]:
    """The values of a slice in their natural order: its name, the value, and which rows have it."""
    return [(name, str(value), labels == value) for value in sorted(np.unique(labels).tolist(), key=_natural)]


def _changes(
    parts: Sequence[tuple[str, str, Array]], against: tuple[Array, Array], users: Array, how: dict[str, Any]
) -> list[SliceChange]:
    """Of each part the chosen one's difference to the rival, and what may be said of it beside all others."""
    mine, other = against
    found = [paired(mine[rows], other[rows], users[rows], **how) for _, _, rows in parts]
    p = [p_value(mine[rows], other[rows], users[rows], seed=how["seed"]) for _, _, rows in parts]
    out = []
    for difference, one, q in zip(found, p, false_discovery(p), strict=True):
        out.append(SliceChange(difference, one, q, _verdict(difference.mean, q)))
    return out


def _verdict(difference: float, q: float | None) -> Literal["better", "worse", "unsure", "untested"]:
    if q is None:
        return "untested"
    if q > SURE or difference == 0:
        return "unsure"
    return "better" if difference > 0 else "worse"


def _slice(
    part: tuple[str, str, Array],
    change: SliceChange | None,
    values: Mapping[str, Array],
    users: Array,
    how: dict[str, Any],
) -> SliceResult:
    name, value, rows = part
    scores = _scores({candidate: matrix[rows] for candidate, matrix in values.items()}, users[rows], how)
    size = int(rows.sum())
    table = [SliceCandidate(candidate, scores[candidate]) for candidate in values]
    return SliceResult(name, value, size, size / len(rows), table, change)


def _natural(label: object) -> tuple[float, str]:
    number = re.search(r"\d+(\.\d+)?", str(label))
    return (float(number[0]) if number else -1.0, str(label))


def _simplest(rows: Sequence[CandidateResult], means: Mapping[str, float], tolerance: float) -> CandidateResult:
    close = [row for row in rows if row.change is None or row.change.mean >= -tolerance - 1e-12]
    return min(close, key=lambda row: (row.complexity, -means[row.name], row.name))


def _reason(
    rows: Sequence[CandidateResult],
    chosen: CandidateResult,
    best: str,
    metric: Metric,
    k: int,
    tolerance: float,
    level: float,
) -> str:
    figure: Interval = getattr(chosen.scores, metric)
    named = f"{METRIC_NAMES[metric]}@{k}"
    opening = f"{chosen.name} is chosen: {named} {figure.mean:.4f}{_range(figure, level)}"
    allowed = _percent(tolerance)
    if len(rows) == 1:
        return f"{opening}. It is the only candidate."
    if chosen.change is None:
        return f"{opening}. No candidate hit anything, so the simplest is taken."
    if chosen.name == best:
        standing = "is the best of all"
    else:
        top: Interval = next(getattr(row.scores, metric) for row in rows if row.name == best)
        standing = f"is within {allowed} of the best, {best} ({top.mean:.4f}): it loses {_loss(chosen.change)}"
        if chosen.change.low is not None and chosen.change.low < -tolerance:
            standing += f", so that a loss above {allowed} is not ruled out"
    simpler = sorted((row for row in rows if row.complexity < chosen.complexity), key=lambda row: -row.complexity)
    if not simpler:
        return f"{opening} {standing}, and no candidate is simpler."
    losses = ", ".join(f"{row.name} {_loss(row.change)}" for row in simpler if row.change is not None)
    return f"{opening} {standing}. Each simpler candidate loses more than {allowed}: {losses}."


def _range(interval: Interval, level: float) -> str:
    if interval.low is None or interval.high is None:
        return ""
    return f" ({level:.0%} interval {interval.low:.4f} to {interval.high:.4f})"


def _loss(change: Interval) -> str:
    """The loss to the best with its bounds, in per cent; the bounds of a loss are those of the change, swapped."""
    if change.low is None or change.high is None:
        return f"{-change.mean:z.1%}"
    return f"{-change.mean:z.1%} ({-change.high:z.1%} to {-change.low:z.1%})"


def _percent(share: float) -> str:
    return f"{100 * share:.4g}%"
