"""A training run: time-split labels, rankers side by side, the simplest good one released."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock.clock import DAY, SECOND, duration
from penstock.errors import ReleaseError
from penstock.evaluate import Candidate, Comparison, Goals, compare, list_values, render
from penstock.learn import (
    Dataset,
    Examination,
    Fusion,
    Impressions,
    Labels,
    LinearReward,
    Model,
    Recipe,
    Replay,
    SourceOrder,
    Trees,
    examination,
    fit_trees,
)
from penstock.releases.bundle import write
from penstock.releases.leaks import leaks
from penstock.releases.lean import cut, lean, without
from penstock.releases.measures import goals_of, slices_of
from penstock.releases.parts import Spent, find_seconds, label_part
from penstock.releases.propensity import propensity
from penstock.releases.rewards import learn_rewards
from penstock.releases.run import Run, Step, Trained, iso
from penstock.releases.study import Study
from penstock.retrieve import Popular, SessionNeighbours
from penstock.types import Log, Micros, Progress

K = 20
FUSION = "fusion"
"""The name of fused sources in a comparison."""


def train(
    recipe: Recipe,
    log: Log,
    folder: Path,
    *,
    app: str,
    log_id: str,
    shown: Impressions | None = None,
    rewards: Sequence[LinearReward] = (),
    wanted: Collection[str] = (),
    until: int | None = None,
    study: bool = False,
    step: Step | None = None,
) -> Trained:
    """Trains every ranker of one decision on the log and writes a release; promoting it is another step.

    The newest span of labels (`valid`) chooses between rankers that learned from the spans before it
    (`labels`), each with candidate indexes built only from what came before. The chosen ranker is then fitted
    once more on the newest spans, and released with indexes over the whole log.

    Args:
        recipe: what to learn.
        log: where from; only events below offset `until` are read (all, by default).
        folder: where releases are kept.
        app, log_id: named in the report and the manifest.
        shown: what decisions showed, for a ranker or a rule that learns from it.
        rewards: linear models of what items earn, which rules explore by.
        wanted: columns, and labels of sources, that stay in the release whatever they bring.
        study: whether to fit again with fewer labels, and without each view and source.
        step: told of each step, for progress bars.
    """
    run = Run(step or (lambda title: lambda done, total: None))
    until = log.end if until is None else until
    with run.timed("read the log"):
        replay = Replay(recipe, log.read(0, until), log.strings) if until else None
    spans = _spans(recipe, replay)
    assert replay is not None
    with run.timed("find candidates for training") as progress:
        # What comes of a decision may come within the newest span, by which rankers are chosen: nobody knew it before.
        before = spans[-1][0] - 1
        earlier = _examples(replay, spans[:-1], shown, before, progress)
    train_parts: Sequence[Dataset] = list(earlier.values())
    looked = None
    if recipe.rank.position_bias is not None and shown is not None:
        with run.timed("estimate examination of positions") as progress:
            looked = _examination(replay, shown.between(0, before + 1), before, progress)
    start = time.perf_counter()
    with run.timed("fit trees"):
        trees = _fit(recipe, train_parts, looked)
    took = time.perf_counter() - start
    with run.timed("find candidates for validation") as progress:
        spent = Spent()
        valid, held = label_part(replay, spans[-1], negatives=None, progress=progress, spent=spent)
    rankers = [_Ranker(replay, trees, took, train_parts, held)]
    leaner = lean(recipe, wanted)
    if leaner is not None:
        with run.timed("find candidates without what is costly") as progress:
            lighter = replay.of(leaner)
            if cut(held, recipe):
                # What a costly source left no room for has room without it.
                parts = list(_examples(lighter, spans[:-1], shown, before, progress).values())
                fewer = lighter.build(valid, spent.indexes, progress=progress)
            else:
                parts = [without(part, recipe, leaner) for part in train_parts]
                fewer = without(held, recipe, leaner)
        start = time.perf_counter()
        with run.timed("fit trees without what is costly"):
            lean_trees = _fit(leaner, parts, looked)
        rankers.insert(0, _Ranker(lighter, lean_trees, time.perf_counter() - start, parts, fewer))
    with run.timed("compare rankers"):
        goals = goals_of(replay, valid)
        comparison = _compare(replay, valid, held, rankers, spent, goals)
    with run.timed("look for leaks"):
        found = leaks(replay, valid, held, spent.slow)
    studied = _study(replay, train_parts, looked, valid, held, goals, run) if study else {}
    costly = {rankers[-1].name, *(source.label for source in recipe.sources if source.costly)}
    if leaner is not None and comparison.chosen not in costly:
        held, replay, recipe = rankers[0].held, rankers[0].replay, leaner
        trees, train_parts = rankers[0].trees, rankers[0].parts
    plain = _session_source(recipe)
    if comparison.chosen == plain.label and plain not in recipe.sources:
        # The baseline that was only compared wins: it becomes a source of what is released.
        recipe = replace(recipe, sources=(*recipe.sources, plain))
    chosen = next((i for i, source in enumerate(recipe.sources) if source.label == comparison.chosen), None)
    model: Model = trees
    if chosen is not None:
        model = SourceOrder(chosen)
    elif comparison.chosen == FUSION:
        model = Fusion(_worded(recipe))
    # Where a baseline that was only compared won, the rows at hand are not of its candidates.
    chances = (
        propensity(model.score, held, valid.asks.key) if len(recipe.sources) == len(replay.recipe.sources) else None
    )
    apart: Sequence[Model | None] = [model] * len(spans)
    if model is trees:
        with run.timed("fit on the newest labels"):
            by_span = dict(zip(earlier, train_parts, strict=True))
            newest = _newest_examples(replay, spans[1:], shown, by_span)
            model = trees = _fit(recipe, list(newest.values()), looked)
        if any("score" in reward.columns for reward in rewards):
            with run.timed("fit without each span"):
                apart = _apart(recipe, spans, by_span | newest, apart[-1], looked)
    with run.timed("build the release's indexes"):
        indexes = replay.of(recipe).fit(until)
    learned = {}
    if rewards:
        with run.timed("fit what rules learn") as progress:
            learned = learn_rewards(replay.of(recipe), spans, rewards, apart, indexes, shown, looked, progress)
    with run.timed("index the release's vectors"):
        indexes = {source.label: source.released(indexes[source.label]) for source in recipe.sources}
    report = _report(
        replay,
        comparison,
        trees,
        held,
        valid,
        sum(len(part.groups) for part in train_parts),
        run,
        app,
        until,
        _weighed(looked),
    )
    report["notes"] += [f"How {label} learns was not looked at for leaks: it takes long." for label in spent.slow]
    report |= {"leaks": [msgspec.to_builtins(leak) for leak in found], **studied}
    if chances is not None:
        bins = [msgspec.to_builtins(one) for one in chances.bins]
        report |= {"calibration": bins, "calibration_error": chances.error}
    with run.timed("write the release"):
        release = write(
            folder,
            recipe=recipe,
            model=model,
            indexes=indexes,
            defaults=_defaults(replay),
            learned=learned,
            report=report,
            report_html=render(report),
            baseline=_baseline(replay.recipe, held),
            propensity=None if chances is None else chances.map,
            warmup=[_request(recipe, valid, at) for at in range(min(20, len(valid)))],
            data={"log": log_id, "from": 0, "until": until, "newest": int(replay.rows.time.max())},
        )
    return Trained(release, comparison.chosen, report)


def _request(recipe: Recipe, labels: Labels, at: int) -> dict[str, Any]:
    """A request to warm up with, of codes in place of texts; its words are given where a source reads them."""
    said = {name: int(labels.asks.context[name][at]) for name in recipe.asks}
    return {"user": int(labels.asks.key[at]), **({"context": said} if said else {})}


def _worded(recipe: Recipe) -> list[int]:
    """The places of the sources that read the request's words."""
    return [i for i, source in enumerate(recipe.sources) if source.asks()]


def _spans(recipe: Recipe, replay: Replay | None) -> list[tuple[int, int]]:
    """[start, stop) of each label span, oldest first; the last one validates."""
    if replay is None or not len(replay.rows):
        raise ReleaseError("training needs events", got="an empty log", remedy="penstock ingest FILE first")
    width = duration(recipe.rank.valid)
    end = int(replay.rows.time.max()) + 1
    first = int(replay.rows.time.min())
    count = max(1, duration(recipe.rank.labels) // width) + 1
    # A short history still trains, on spans of a fifth of what there is.
    width = min(width, max(1, (end - first) // 5))
    count = min(count, 4) if width < duration(recipe.rank.valid) else count
    # A shop may be closed for days: to learn from, the newest spans count in which something happened.
    held = _held(replay, first, end, width)
    if held[:1] != [0] or len(held) < 2:
        raise _nothing(recipe, (first, end), width, held)
    places = list(range(count)) if recipe.rank.examples == "shown" else held[:count]
    spans = [(end - (i + 1) * width, end - i * width) for i in reversed(places)]
    whole = [span for span in spans if span[0] > first]
    return whole if len(whole) > 1 else spans[-2:]


def _held(replay: Replay, first: int, end: int, width: int) -> list[int]:
    """The spans that hold labels, by their places counted back from the newest, 0."""
    rows, labels = replay.rows, replay.labels(first, end)
    time = rows.time[np.searchsorted(rows.offset, labels.asks.known)]
    return [int(place) for place in np.unique((end - 1 - time) // width)]


def _nothing(recipe: Recipe, whole: tuple[int, int], width: int, held: Sequence[int]) -> ReleaseError:
    """What to do where the newest span or all before it hold no label."""
    first, end = whole
    empty = (first, end - width) if held[:1] == [0] else (end - width, end)
    wider = ""
    if held and held[0]:
        days = -(-(held[0] + 1) * width // DAY)
        # Spans are never wider than a fifth of the history.
        wider = f' write valid="{days}d" in the app file,' if days * DAY <= (end - first) // 5 else ""
    return ReleaseError(
        f"events match the goal {recipe.rank.goal} in the newest span, to choose a ranker by, and before it",
        got=f"none between {iso(empty[0])} and {iso(empty[1])}",
        remedy=f"ingest more history,{wider} or name another goal",
    )


def _examples(
    replay: Replay,
    spans: Sequence[tuple[int, int]],
    shown: Impressions | None,
    as_of: Micros,
    progress: Progress | None = None,
) -> dict[tuple[int, int], Dataset]:
    """What the ranker learns from, by span; none where nothing was shown.

    Args:
        as_of: the moment of training, microseconds: of what was shown, what had come of it by then counts.
    """
    rank = replay.recipe.rank
    if rank.examples == "next":
        return {span: label_part(replay, span, negatives=rank.negatives, progress=progress)[1] for span in spans}
    parts = {}
    for span in spans:
        mine = shown.between(*span) if shown is not None else None
        if mine is not None and len(mine.asks):
            indexes = replay.fit(int(mine.asks.known[0]))
            parts[span] = replay.judge(mine, indexes, window=duration(rank.window), as_of=as_of, progress=progress)
    return parts


def _newest_examples(
    replay: Replay,
    spans: Sequence[tuple[int, int]],
    shown: Impressions | None,
    older: Mapping[tuple[int, int], Dataset],
) -> dict[tuple[int, int], Dataset]:
    """The same of the newest spans, as of now; `older` has those of all but the last, as they were known before it."""
    now = int(replay.rows.arrived.max())
    if replay.recipe.rank.examples == "next":
        # What came next is known at once.
        return {span: older[span] for span in spans[:-1]} | _examples(replay, spans[-1:], shown, now)
    return _examples(replay, spans, shown, now)


def _apart(
    recipe: Recipe,
    spans: Sequence[tuple[int, int]],
    parts: Mapping[tuple[int, int], Dataset],
    last: Model | None,
    looked: Examination | None,
) -> list[Model | None]:
    """For each span trees that did not learn from it: what they score there is what a release scores of new requests.

    None where no other span has anything to learn from.

    Args:
        last: those of the newest span, which were fitted to be measured on it.
    """
    out: list[Model | None] = []
    for span in spans[:-1]:
        others = [part for other, part in parts.items() if other != span]
        out.append(_fit(recipe, others, looked) if any(len(part.rows) for part in others) else None)
    return [*out, last]


def _examination(replay: Replay, shown: Impressions, as_of: Micros, progress: Progress) -> Examination | None:
    """How positions are looked at, from all that was shown before the validation span and had come of it by then."""
    if not len(shown.asks):
        return None
    indexes = replay.fit(int(shown.asks.known[0]))
    return examination(replay, shown, indexes, as_of=as_of, progress=progress)


def _weighed(looked: Examination | None) -> list[str]:
    """What the report says of how outcomes were weighed."""
    if looked is None:
        return []
    places = ", ".join(f"{i + 1}: {p:.3f}" for i, p in enumerate(looked.known().tolist()))
    return [f"Outcomes weigh one over the chance that their position is looked at, relative to the first ({places})."]


def _fit(recipe: Recipe, parts: Sequence[Dataset], looked: Examination | None = None) -> Trees:
    kept = [part for part in parts if len(part.rows)]
    if not kept and recipe.rank.examples == "shown":
        raise ReleaseError(
            f"a ranker learns from decisions of {recipe.name} of which something came",
            got="none in the spans that it learns from",
            remedy='serve decisions first, or widen labels; examples="next" needs none',
        )
    if not kept:
        raise ReleaseError(
            "some label's item is among its candidates",
            got="none",
            remedy="add candidate sources, or check that item ids of history and catalogue agree",
        )
    rows = np.concatenate([part.rows for part in kept])
    groups = np.concatenate([part.groups[part.groups > 0] for part in kept])
    gain = np.concatenate([part.gain for part in kept])
    weight = None
    if looked is not None:
        weight = looked.weights(np.concatenate([part.place for part in kept]), recipe.rank.most_weight)
    return fit_trees(recipe.rank, rows, gain, groups, recipe.assembler.names, weight)


@dataclass(frozen=True, eq=False)
class _Ranker:
    """Trees over the candidates of a recipe, the seconds that fitting them took, what they learned from, and all
    candidates of the held-out decisions."""

    replay: Replay
    trees: Trees
    seconds: float
    parts: Sequence[Dataset]
    held: Dataset

    @property
    def recipe(self) -> Recipe:
        return self.replay.recipe

    @property
    def name(self) -> str:
        """`lambdarank`, and the costly sources that it has."""
        return "+".join(["lambdarank", *(source.label for source in self.recipe.sources if source.costly)])


def _compare(
    replay: Replay, labels: Labels, held: Dataset, rankers: Sequence[_Ranker], spent: Spent, goals: Goals
) -> Comparison:
    recipe = replay.recipe
    edges = np.r_[0, np.cumsum(held.groups)]
    candidates = []
    for i, source in enumerate(recipe.sources):
        if not isinstance(source, Popular) or source.by is None:
            one = _judge(source.label, i + 1, SourceOrder(i), held, edges, spent.fit[source.label], only=i)
            candidates.append(replace(one, find_ms_p50=1e3 * spent.find[source.label]))
    several = len(recipe.sources)
    if len(_worded(recipe)) > 1:
        spent_fitting = sum(spent.fit[recipe.sources[i].label] for i in _worded(recipe))
        fused = _judge(FUSION, several + 1, Fusion(_worded(recipe)), held, edges, spent_fitting)
        candidates.append(replace(fused, find_ms_p50=1e3 * spent.find[""]))
    # Where the request says in words what is wanted, past sessions do not.
    if not recipe.asks and not any(isinstance(source, SessionNeighbours) for source in recipe.sources):
        candidates.append(_session_neighbours(replay, labels, several + 1))
    for more, ranker in enumerate(rankers):
        mine, rows = {source.label for source in ranker.recipe.sources}, ranker.held
        # The trees need every source's candidates.
        took = ranker.seconds + sum(seconds for label, seconds in spent.fit.items() if label in mine)
        one = _judge(ranker.name, several + 2 + more, ranker.trees, rows, np.r_[0, np.cumsum(rows.groups)], took)
        left_out = sum(seconds for label, seconds in spent.find.items() if label and label not in mine)
        candidates.append(replace(one, find_ms_p50=1e3 * (spent.find[""] - left_out)))
    return compare(
        candidates,
        labels.asks.key,
        slices_of(replay, labels),
        k=K,
        tolerance=recipe.rank.tolerance,
        metric=recipe.rank.metric,
        catalogue_size=len(np.unique(replay.rows.fields[recipe.item])),
        goals=goals,
        seed=recipe.rank.seed,
    )


def _study(
    replay: Replay,
    parts: Sequence[Dataset],
    looked: Examination | None,
    labels: Labels,
    held: Dataset,
    goals: Goals,
    run: Run,
) -> dict[str, Any]:
    """The learning curve and the ablations, as they stand in the report."""
    recipe = replay.recipe

    def judge(parts: Sequence[Dataset], held: Dataset) -> NDArray[np.float64]:
        trees = _fit(recipe, parts, looked)
        found = _judge("lambdarank", 1, trees, held, np.r_[0, np.cumsum(held.groups)], 0.0)
        return list_values(found, recipe.rank.metric, K, goals)

    study = Study(recipe, parts, held, labels.asks.key, judge)
    with run.timed("fit with fewer labels") as progress:
        curve = study.learning_curve(progress)
    with run.timed("fit without each part") as progress:
        ablations = study.ablations(progress)
    return {"learning_curve": msgspec.to_builtins(curve), "ablations": msgspec.to_builtins(ablations)}


def _judge(
    name: str,
    complexity: int,
    model: Model,
    held: Dataset,
    edges: NDArray[np.int64],
    train_seconds: float,
    only: int | None = None,
) -> Candidate:
    ranks = np.zeros(len(held.groups), np.int64)
    lists = np.zeros((len(held.groups), K), np.uint32)
    spent = []
    for i, candidates in enumerate(held.candidates):
        rows, positive = held.rows[edges[i] : edges[i + 1]], held.positive[edges[i] : edges[i + 1]]
        start = time.perf_counter()
        scores = model.score(rows, candidates)
        spent.append(time.perf_counter() - start)
        order = np.argsort(-scores, kind="stable")
        if only is not None:
            order = order[~np.isnan(candidates.place[order, only])]
        at = np.flatnonzero(positive[order])
        ranks[i] = at[0] + 1 if len(at) else 0
        shown = candidates.items[order[:K]]
        lists[i, : len(shown)] = shown
    return Candidate(name, complexity, ranks, train_seconds, float(np.median(spent)) * 1e3, lists)


def _session_neighbours(replay: Replay, labels: Labels, complexity: int) -> Candidate:
    """The strong plain baseline, even where the recipe does not use it."""
    source = _session_source(replay.recipe)
    start = time.perf_counter()
    other = replay.of(replace(replay.recipe, sources=(source,)))
    index = other.fit(int(labels.asks.known[0]))
    fitted = time.perf_counter() - start
    find = find_seconds(other, labels, index)[""]
    held = other.candidates(labels, index)
    positive = np.concatenate([c.items == item for c, item in zip(held, labels.item, strict=True)])
    groups = np.array([len(c.items) for c in held], np.int64)
    data = Dataset(
        np.zeros((len(positive), 0), np.float32), np.repeat(np.arange(len(held)), groups), positive, groups, held,
        positive.astype(np.float64), np.full(len(positive), -1),
    )  # fmt: skip
    found = _judge(source.label, complexity, SourceOrder(0), data, np.r_[0, np.cumsum(groups)], fitted, only=0)
    return replace(found, find_ms_p50=1e3 * find)


def _session_source(recipe: Recipe) -> SessionNeighbours:
    """The recipe's own session neighbours, or those of the list that its first source reads."""
    own = [source for source in recipe.sources if isinstance(source, SessionNeighbours)]
    needs = [need for source in recipe.sources for need in source.needs() if need in recipe.lists]
    return own[0] if own else SessionNeighbours(needs[0] if needs else "recent")


def _defaults(replay: Replay) -> NDArray[np.uint32]:
    items, counts = np.unique(replay.rows.fields[replay.recipe.item], return_counts=True)
    order = np.lexsort((items, -counts))
    return np.array([code for code in items[order].tolist() if code][:100], np.uint32)


def _baseline(recipe: Recipe, held: Dataset) -> dict[str, Any]:
    """What each feature looked like in training: shares missing, and deciles."""
    out = {}
    for i, name in enumerate(recipe.assembler.names):
        column = held.rows[:, i]
        present = column[~np.isnan(column)]
        deciles = np.quantile(present, np.linspace(0, 1, 11)).tolist() if len(present) else []
        out[name] = {"missing": float(np.isnan(column).mean()) if len(column) else 1.0, "deciles": deciles}
    return out


def _report(
    replay: Replay,
    comparison: Comparison,
    trees: Trees,
    held: Dataset,
    valid: Labels,
    train_labels: int,
    run: Run,
    app: str,
    until: int,
    notes: Sequence[str],
) -> dict[str, Any]:
    recipe, rows = replay.recipe, replay.rows
    importance = trees.importance
    missing = np.isnan(held.rows).mean(axis=0) if len(held.rows) else np.ones(len(importance))
    delays = np.quantile((rows.arrived - rows.time) / SECOND, [0.5, 0.99]).tolist()
    found = np.zeros(len(held.groups), bool)
    found[held.owner[held.positive]] = True
    order = np.argsort(-importance, kind="stable").tolist()
    return {
        **comparison.as_dict(),
        "app": app,
        "decision": recipe.name,
        "goal": str(recipe.rank.filter),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": {
            "events": len(rows),
            "users": len(np.unique(rows.fields[recipe.by])),
            "items": len(np.unique(rows.fields[recipe.item])),
            "first": iso(int(rows.time.min())),
            "last": iso(int(rows.time.max())),
            "offset": until,
            "train_labels": train_labels,
            "valid_labels": len(valid),
            "candidate_recall": float(found.mean()),
            "label_delay_s_p50": delays[0],
            "label_delay_s_p99": delays[1],
        },
        "features": [
            {
                "name": recipe.assembler.names[i],
                "importance": float(importance[i]),
                "missing_share": float(missing[i]),
            }
            for i in order
        ],
        "timings": [{"step": step, "seconds": seconds} for step, seconds in run.seconds.items()],
        "notes": [
            "Labels are split by time; every feature and candidate index is as known just before its label.",
            "All candidates are ranked (no sampled negatives); an item that was not retrieved counts as a miss.",
            *notes,
        ],
    }
