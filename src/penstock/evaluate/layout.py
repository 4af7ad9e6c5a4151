"""The layout of a training report: what report.json holds, and what report.html shows, on one page.

Every fact of the JSON stands in the HTML. A key that is not listed here is refused, so that none is lost silently.
Shares and rates are fractions of 1; times are ISO 8601 in UTC; seconds and milliseconds are named as such.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from penstock.evaluate.intervals import Interval

Metric = Literal["hit_rate", "ndcg", "mrr", "goals"]


class Scores(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The metrics of one candidate, each cut after k places."""

    hit_rate: Interval
    ndcg: Interval
    mrr: Interval
    goals: Interval | None = None
    """How many of the items on which the goal followed each list holds, on average."""


class CandidateResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row of the comparison."""

    name: str
    complexity: int
    """The higher, the more there is to run and to understand; only the order counts."""
    scores: Scores
    change: Interval | None
    """Relative to the best on the deciding metric: -0.1 is 10 % worse; none where the best is 0."""
    coverage: float | None
    train_seconds: float
    score_ms_p50: float
    find_ms_p50: float = 0.0


class SliceCandidate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    scores: Scores


class SliceChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The chosen candidate against the rival in one slice, on the deciding metric."""

    difference: Interval
    """Positive where the chosen one is better."""
    p: float | None
    """Of a two-sided test; none where there are too few users to test."""
    q: float | None
    """The least rate of false discoveries, over all slices, at which this one is called."""
    verdict: Literal["better", "worse", "unsure", "untested"]


class SliceResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All candidates on the lists where `slice` (such as "user activity") is `value` (such as "5 to 19")."""

    slice: str
    value: str
    lists: int
    share: float
    candidates: list[SliceCandidate]
    change: SliceChange | None = None


class Comparison(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What `compare` finds; the first half of a report."""

    k: int
    metric: Metric
    tolerance: float
    level: float
    lists: int
    users: int
    best: str
    chosen: str
    reason: str
    candidates: list[CandidateResult]
    slices: list[SliceResult]
    positions: list[int]
    """How many of the chosen candidate's hits stood at place 1 … k; (k,)."""
    rival: str | None = None
    """The best of the others, which the chosen one is held against in every slice."""

    def as_dict(self) -> dict[str, Any]:
        """The plain form, ready for JSON."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    importance: float
    """Total gain, or any measure that is comparable between features."""
    missing_share: float


class Data(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What the candidates learned from and were measured on."""

    events: int
    users: int
    items: int
    first: str
    last: str
    offset: int
    """Only events below this log offset were read."""
    train_labels: int
    valid_labels: int
    candidate_recall: float | None = None
    """The share of labels whose item was retrieved at all: no ranking can hit more."""
    label_delay_s_p50: float | None = None
    label_delay_s_p99: float | None = None


class Timing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    step: str
    seconds: float


class CurvePoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The deciding metric after training on so many rows (or rounds), with the bounds of its interval if known."""

    rows: int
    value: float
    low: float | None = None
    high: float | None = None


class Ablation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the ranker has without one view or source."""

    without: str
    value: float
    """The deciding metric."""
    change: Interval
    """Relative to the whole ranker, on the same decisions: -0.1 is 10 % worse."""


class Leak(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A column that looks as if it knew the future."""

    name: str
    check: Literal["alone", "changes"]
    """``alone``: it ranks the item that came next first by itself. ``changes``: values of the past change with what
    happened later."""
    figure: float
    """``alone``: the AUC within lists; ``changes``: the share of values that differ."""


class CalibrationBin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of `rows` scores that averaged `predicted`, the share `observed` came true."""

    predicted: float
    observed: float
    rows: int


class Report(Comparison, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """A whole report; as a dict: ``{**comparison.as_dict(), "app": …, "data": {…}, …}``."""

    app: str
    decision: str
    goal: str
    created: str
    data: Data
    features: list[Feature] = []
    timings: list[Timing] = []
    learning_curve: list[CurvePoint] = []
    calibration: list[CalibrationBin] = []
    calibration_error: float | None = None
    """The mean distance of chance and share, over the rows of all bins."""
    ablations: list[Ablation] = []
    leaks: list[Leak] = []
    notes: list[str] = []
