"""A training run of a verdict: matured events, models side by side, the simplest good one calibrated and released."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.clock import DAY, duration
from penstock.errors import ReleaseError
from penstock.evaluate import average_precision, drawn_by_group, render_verdict, roc_auc
from penstock.learn import Acted, Cases, Costs, FittedClassifier, Trials, VerdictModel, VerdictRecipe
from penstock.learn.calibrate import Line, calibrated, log_loss
from penstock.registry import name_of
from penstock.releases.bundle import write
from penstock.releases.run import Run, Step, Trained, iso
from penstock.types import MISSING_INT, Log

_REPEATS = 200
_REFERENCE = 5_000
_WARM = 20
_BINS = 10
_LEVEL = (2.5, 97.5)


@dataclass(frozen=True)
class _Candidate:
    """A model fitted to the older events and asked about the newer ones: its chances are (n,)."""

    name: str
    place: int
    fitted: FittedClassifier
    chance: NDArray[np.float64]
    train_seconds: float
    score_ms: float


def train_verdict(
    recipe: VerdictRecipe,
    costs: Costs,
    log: Log,
    folder: Path,
    *,
    app: str,
    log_id: str,
    acted: Acted | None = None,
    until: int | None = None,
    step: Step | None = None,
) -> Trained:
    """Trains every model of one verdict on the log and writes a release; promoting it is another step.

    Only events whose outcome is known by now are used. The newest of them (`valid`) choose between models that
    learned from those before (`labels`), and calibrate the chosen one, which is then fitted once more on both.

    Args:
        recipe: what to learn.
        costs: what actions cost.
        log: where from; only events below offset `until` are read (all, by default).
        folder: where releases are kept.
        app, log_id: named in the report and the manifest.
        acted: what was done with events; those that were declined teach nothing, and those that were let through
            to learn from count for the others.
        step: told of each step, for progress bars.

    Raises:
        ReleaseError: there are no events of which it is known what came, or all came to the same.
    """
    run = Run(step or (lambda title: lambda done, total: None))
    until = log.end if until is None else until
    with run.timed("read the log"):
        trials = Trials(recipe, log.read(0, until) if until else {}, log.strings, acted)
    past, held = _spans(recipe, trials)
    with run.timed("features to learn from") as progress:
        rows = trials.matrix(past.at, progress)
    with run.timed("features to choose by") as progress:
        asked = trials.matrix(held.at, progress)
    amount = _amounts(recipe, costs, asked)
    candidates = []
    for place, model in enumerate(recipe.models):
        with run.timed(f"fit {name_of(model)}"):
            began = time.perf_counter()
            fitted = model.fit(rows, past.positive, _amounts(recipe, costs, rows), past.weight)
            seconds = time.perf_counter() - began
        candidates.append(
            _Candidate(name_of(model), place, fitted, fitted.score(asked), seconds, _speed(fitted, asked))
        )
    with run.timed("compare models"):
        results, chosen, reason = _compare(recipe, costs, trials, held, amount, candidates)
    best = candidates[chosen]
    with run.timed("calibrate"):
        # What the report says of the curve, it says of rows that the curve was not fitted to.
        calibration, chance = calibrated(best.chance, held.positive, held.weight)
    with run.timed("fit on the newest, too"):
        both = _joined(past, held)
        final = recipe.models[chosen].fit(
            np.concatenate([rows, asked]), both.positive, np.r_[_amounts(recipe, costs, rows), amount], both.weight
        )
    drawn = _in_proportion(held.weight, _REFERENCE, recipe.seed)
    time_of = trials.rows.time
    a_day = _a_day(trials, held)
    judged = VerdictModel(final, calibration, np.stack([calibration.of(best.chance), amount], axis=1)[drawn], a_day)
    report = {
        "app": app, "decision": recipe.name, "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "metric": "ap", "chosen": best.name, "reason": reason, "candidates": results,
        "calibration": {
            "curve": "none" if calibration == Line() else type(calibration).__name__.lower(),
            "before": _reliability(best.chance, held), "after": _reliability(chance, held),
            "log_loss_before": log_loss(best.chance, held.positive, held.weight),
            "log_loss_after": log_loss(chance, held.positive, held.weight),
        },
        "features": _features(recipe, final), "costs": _spent(costs, chance, amount, held, a_day),
        "data": {
            "events": len(trials.rows), "until": until, "train_events": len(past), "valid_events": len(held),
            "train_positive": int(past.positive.sum()), "valid_positive": int(held.positive.sum()),
            "train_from": iso(int(time_of[past.at].min())), "valid_from": iso(int(time_of[held.at].min())),
            "valid_to": iso(int(time_of[held.at].max())), "within_days": recipe.within / DAY,
        },
        "timings": [{"step": title, "seconds": seconds} for title, seconds in run.seconds.items()],
    }  # fmt: skip
    with run.timed("write the release"):
        release = write(
            folder, recipe=recipe, model=judged, report=report, report_html=render_verdict(report),
            baseline=_baseline(recipe, asked), warmup=[_event(recipe, trials, int(at)) for at in held.at[:_WARM]],
            data={"log": log_id, "from": 0, "until": until, "newest": trials.newest},
        )  # fmt: skip
    return Trained(release, best.name, report)


def _spans(recipe: VerdictRecipe, trials: Trials) -> tuple[Cases, Cases]:
    """The events to learn from, and the newer ones to choose by."""
    end = trials.newest - recipe.within + 1
    valid, labels = duration(recipe.valid), duration(recipe.labels)
    if end - trials.first < 2 * valid:
        # A short history still trains, and chooses by its newest quarter.
        valid = max(1, (end - trials.first) // 4)
    past, held = trials.between(end - valid - labels, end - valid), trials.between(end - valid, end)
    for cases, what in ((past, "learn from"), (held, "choose by")):
        if not 0 < cases.positive.sum() < len(cases):
            raise ReleaseError(
                f"some events of {recipe.schema.stream} to {what} came out badly, and some did not",
                got=f"{len(cases):,} of which it is known, {int(cases.positive.sum()):,} of them badly",
                remedy="ingest more history with its outcomes, or widen labels and valid",
            )
    past, held = (cases.sampled(trials.rows.tie[cases.at], recipe.most) for cases in (past, held))
    return past, held


def _a_day(trials: Trials, cases: Cases) -> float:
    """How many events there are a day, those included that sampled ones stand for."""
    time_of = trials.rows.time[cases.at]
    return float(cases.weight.sum()) / max((int(time_of.max()) - int(time_of.min())) / DAY, 1e-3)


def _in_proportion(weight: NDArray[np.float64], most: int, seed: int) -> NDArray[np.int64]:
    """Places of at most so many events, each as often as its weight is of them all, in random order.

    They are drawn at equal distances (systematic sampling; Madow, 1949): of a weight as many as it has room for.
    """
    random = np.random.default_rng(seed)
    ends, several = np.cumsum(weight), min(len(weight), most)
    drawn = np.searchsorted(ends, (np.arange(several) + random.random()) * (ends[-1] / several), side="right")
    return random.permutation(np.minimum(drawn, len(weight) - 1))


def _joined(a: Cases, b: Cases) -> Cases:
    return Cases(np.r_[a.at, b.at], np.r_[a.positive, b.positive], np.r_[a.weight, b.weight])


def _amounts(recipe: VerdictRecipe, costs: Costs, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    return np.nan_to_num(rows[:, recipe.assembler.names.index(costs.amount)].astype(np.float64))


def _speed(fitted: FittedClassifier, rows: NDArray[np.float32]) -> float:
    """Milliseconds to score one event, the median of some."""
    spent = []
    for place in range(min(len(rows), 50)):
        began = time.perf_counter()
        fitted.score(rows[place : place + 1])
        spent.append(time.perf_counter() - began)
    return float(np.median(spent)) * 1e3


def _compare(
    recipe: VerdictRecipe, costs: Costs, trials: Trials, held: Cases, amount: NDArray[np.float64],
    candidates: list[_Candidate],
) -> tuple[list[dict[str, Any]], int, str]:  # fmt: skip
    """Every candidate's figures with 95 % intervals, the one that is chosen, and why."""
    owner = trials.rows.fields[recipe.by][held.at]
    a_day = _a_day(trials, held)

    def figures(at: NDArray[np.int64], one: _Candidate) -> tuple[float, float, float]:
        cases, chance = held.take(at), one.chance[at]
        spent = _spent(costs, chance, amount[at], cases, a_day)
        parts = cases.positive, chance, cases.weight
        return average_precision(*parts), roc_auc(*parts), spent["cost"] / spent["events"]

    everyone = np.arange(len(held))
    found = np.array([figures(everyone, one) for one in candidates])
    drawn = np.array([
        [figures(at, one) for one in candidates] for at in drawn_by_group(owner, _REPEATS, recipe.seed)
    ])  # fmt: skip
    ends = np.percentile(drawn, _LEVEL, axis=0)
    names = ("ap", "auc", "cost")
    results = [
        {
            "name": one.name,
            "scores": {
                name: {"mean": float(found[i, j]), "low": float(ends[0, i, j]), "high": float(ends[1, i, j])}
                for j, name in enumerate(names)
            },
            "train_seconds": one.train_seconds,
            "score_ms": one.score_ms,
        }
        for i, one in enumerate(candidates)
    ]
    best = int(np.argmax(found[:, 0]))
    chosen = int(np.flatnonzero(found[:, 0] >= (1 - recipe.tolerance) * found[best, 0])[0])
    gain = np.percentile(drawn[:, best, 0] - drawn[:, 0, 0], _LEVEL)
    reason = f"{candidates[chosen].name}: average precision {found[chosen, 0]:.3f}"
    if chosen != best:
        reason += f", the simplest within {recipe.tolerance:.0%} of {candidates[best].name} ({found[best, 0]:.3f})"
    elif best:
        reason += (
            f", {found[best, 0] - found[0, 0]:+.3f} ({gain[0]:+.3f} to {gain[1]:+.3f}) "
            f"against {candidates[0].name}, the simplest"
        )
    return results, chosen, reason


def _spent(
    costs: Costs, chance: NDArray[np.float64], amount: NDArray[np.float64], cases: Cases, a_day: float
) -> dict[str, float]:
    """What acting on these chances would have cost, against approving everything, of all events they stand for."""
    price = costs.price(chance, amount, a_day, cases.weight)
    action = costs.cheapest(chance, amount, price)
    came = costs.came(action, amount, cases.positive, cases.weight)
    return {**came, "price": price, "events": round(cases.weight.sum())}


def _reliability(chance: NDArray[np.float64], held: Cases) -> list[dict[str, float]]:
    """Mean chance and share of positives in groups of equal numbers of positives' chances, low to high."""
    order = np.argsort(chance, kind="stable")
    reached = np.cumsum((chance * held.weight)[order])
    edges = np.searchsorted(reached / max(float(reached[-1]), 1e-12), np.linspace(0, 1, _BINS + 1))
    out = []
    for start, stop in zip(edges[:-1].tolist(), [*edges[1:-1].tolist(), len(order)], strict=True):
        at = order[start:stop]
        if len(at):
            weight = held.weight[at]
            out.append(
                {
                    "chance": float(np.average(chance[at], weights=weight)),
                    "came": float(np.average(held.positive[at], weights=weight)),
                    "events": len(at),
                }
            )
    return out


def _features(recipe: VerdictRecipe, fitted: FittedClassifier) -> list[dict[str, Any]]:
    names, importance = recipe.assembler.names, fitted.importance
    order = np.argsort(-importance, kind="stable").tolist()
    return [{"name": names[i], "importance": float(importance[i])} for i in order]


def _baseline(recipe: VerdictRecipe, rows: NDArray[np.float32]) -> dict[str, Any]:
    """What each feature looked like in training: shares missing, and deciles."""
    out = {}
    for name, column in zip(recipe.assembler.names, rows.T, strict=True):
        present = column[~np.isnan(column)]
        deciles = np.quantile(present, np.linspace(0, 1, 11)).tolist() if len(present) else []
        out[name] = {"missing": float(np.isnan(column).mean()), "deciles": deciles}
    return out


def _event(recipe: VerdictRecipe, trials: Trials, at: int) -> Mapping[str, Any]:
    """One event's fields: texts as codes, so that a release names nobody; null where missing."""
    out: dict[str, Any] = {}
    for field in recipe.schema.fields:
        value = trials.rows.fields[field.name][at].item()
        missing = math.isnan(value) if field.kind == "float" else value == MISSING_INT
        out[field.name] = None if missing else value
    return out
