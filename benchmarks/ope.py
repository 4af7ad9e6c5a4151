"""Claim: what another policy would have earned is told from logged decisions, with intervals of 95 % that cover the
truth in 93 % of cases or more wherever the log can answer, and a caution where it cannot.

In simulated worlds the truth is known: error, bias and coverage of every estimator over many logs. On Open Bandit data
two policies ran side by side: each one's value is estimated from the other's log, next to what it earned. Beside it the
estimators and intervals of Open Bandit Pipeline, on the first of the same logs and the same expected rewards.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import Result, circumstances
from benchmarks._ope import open_bandit
from benchmarks._ope.rival import Answers, Rival, rival
from benchmarks._ope.world import WORLDS, World
from benchmarks._peers import SETUP, interpreter
from penstock.evaluate.off_policy import Estimate, Logged, Ridge, Rounds, judge, weigh
from penstock.evaluate.off_policy.intervals import by_group
from penstock.evaluate.off_policy.rewards import cross_fitted

DATA = Path("../shared/data/bandit")
NAMES = ("dm", "ips", "snips", "dr", "sndr", "switch_dr", "dr_os")
BARRED = ("ips", "snips", "dr", "sndr")
"""Estimators whose intervals must cover."""
FLOOR = 0.93
_Z = 1.959964
_BLOCK = 25
_CLIP = 100


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes."""
    parser.add_argument("--data", type=Path, default=DATA, help=f"folder of Open Bandit data (default {DATA})")
    parser.add_argument("--repeats", type=int, default=1_000, help="logs a simulated world (default 1,000)")
    parser.add_argument(
        "--compared", type=int, default=200, help="logs on which other intervals are tried (default 200)"
    )
    parser.add_argument("--peer", type=Path, help=f"Python that has obp (default the one that `{SETUP}` makes)")


def run(chosen: argparse.Namespace) -> Result:
    """Worlds, then real logs."""
    worlds, others = {}, {}
    with ProcessPoolExecutor(2) as pool:
        for world in WORLDS:
            _say(f"world {world.name}")
            blocks = [range(start, min(start + _BLOCK, chosen.repeats)) for start in range(0, chosen.repeats, _BLOCK)]
            found = [one for block in pool.map(partial(_repeats, world), blocks) for one in block]
            worlds[world.name] = _figures(world, found)
            if world.overlap:
                _say(f"world {world.name}: other intervals")
                blocks = [range(b.start, min(b.stop, chosen.compared)) for b in blocks if b.start < chosen.compared]
                tried = [one for block in pool.map(partial(_tried, world), blocks) for one in block]
                others[world.name] = _covered(tried)
    with rival(chosen.peer or interpreter("obp")) as peer:
        theirs = None if peer is None else {w.name: _peer_covers(w, peer, chosen.compared) for w in WORLDS if w.overlap}
        real = _open_bandit(chosen.data, peer)
    answering = [worlds[world.name] for world in WORLDS if world.overlap]
    silent = [worlds[world.name] for world in WORLDS if not world.overlap]
    coverage = {name: min(one["estimators"][name]["coverage"] for one in answering) for name in NAMES}
    missed = round(1 - min(coverage[name] for name in BARRED), 4)
    peer_missed = None if theirs is None else round(1 - min(c for by in theirs.values() for c in by.values()), 4)
    detail: dict[str, Any] = {
        **circumstances(),
        "repeats": chosen.repeats,
        "coverage": coverage,
        "error": {name: _mean(answering, name, "error") for name in NAMES},
        "bias": {name: _mean(answering, name, "bias") for name in NAMES},
        "warned_with_overlap": {name: max(o["estimators"][name]["warned"] for o in answering) for name in NAMES},
        "warned_without": {name: min(o["estimators"][name]["warned"] for o in silent) for name in NAMES},
        "held": min(coverage[name] for name in BARRED) >= FLOOR
        and all(one["estimators"][name]["warned"] == 1 for one in silent for name in BARRED),
        "worlds": worlds,
        "other_intervals": others,
        "open_bandit": real,
        "peer": {"name": "obp", "coverage": theirs} if theirs is not None else {"name": "obp", "install": SETUP},
    }
    return Result(
        name="ope", ours=missed, peer=peer_missed,
        ratio=_times(peer_missed, missed),
        unit="share of 95 % intervals that miss the truth, at worst, where the log can answer", detail=detail,
    )  # fmt: skip


def _times(theirs: float | None, ours: float) -> float | None:
    """How many times as often the peer's intervals miss; None without the peer, or where ours never do.

    >>> _times(0.06, 0.05), _times(0.06, 0.0), _times(None, 0.05)
    (1.2, None, None)
    """
    return round(theirs / ours, 2) if theirs is not None and ours else None


def _rounds(world: World, seed: int) -> Rounds:
    logged, target = world.draw(seed)
    return weigh(logged, target, Ridge(), seed=seed)


def _repeats(world: World, seeds: Sequence[int]) -> list[dict[str, Estimate]]:
    """Every estimator on the log of each seed."""
    return [{name: judge(rounds, name) for name in NAMES} for rounds in (_rounds(world, seed) for seed in seeds)]


def _figures(world: World, found: Sequence[Mapping[str, Estimate]]) -> dict[str, Any]:
    truth = world.truth
    by_name = {name: [one[name] for one in found] for name in NAMES}
    return {
        "overlap": world.overlap,
        "truth": round(truth, 5),
        "rounds": world.rounds,
        "ess": round(float(np.mean([one.ess for one in by_name["ips"]])), 1),
        "max_share": round(float(np.mean([one.max_share for one in by_name["ips"]])), 4),
        "estimators": {name: _figure(truth, each) for name, each in by_name.items()},
    }


def _figure(truth: float, found: Sequence[Estimate]) -> dict[str, Any]:
    """Coverage; error (root mean square), bias and median width as shares of the truth; the cautions, by share."""
    off = np.array([one.value for one in found]) / truth - 1
    codes = sorted({caution.code for one in found for caution in one.warnings})
    return {
        "coverage": round(float(np.mean([one.low <= truth <= one.high for one in found])), 4),
        "error": round(float(np.sqrt(np.mean(off**2))), 4),
        "bias": round(float(off.mean()), 4),
        "width": round(float(np.median([one.high - one.low for one in found])) / truth, 4),
        "warned": round(float(np.mean([bool(one.warnings) for one in found])), 4),
        "cautions": {
            code: round(float(np.mean([code in [c.code for c in one.warnings] for one in found])), 4) for code in codes
        },
    }  # fmt: skip


def _tried(world: World, seeds: Sequence[int]) -> list[dict[str, dict[str, tuple[bool, float]]]]:
    """By interval and estimator: whether it covers, and its width as a share of the truth."""
    return [_other_intervals(_rounds(world, seed), world.truth, seed) for seed in seeds]


def _other_intervals(rounds: Rounds, truth: float, seed: int) -> dict[str, dict[str, tuple[bool, float]]]:
    groups = int(rounds.group.max()) + 1
    drawn = np.random.default_rng([11, seed]).integers(0, groups, (200, groups))
    times = np.stack([np.bincount(one, minlength=groups) for one in drawn]).astype(np.float64)
    out: dict[str, dict[str, tuple[bool, float]]] = {"shipped": {}, "normal": {}, "bootstrap": {}, "bernstein": {}}
    for name in BARRED:
        a, b = _sums(rounds, name)
        value = a.sum() / b.sum()
        spread = math.sqrt(float(((a - value * b) ** 2).sum()) * groups / (groups - 1)) / float(b.sum())
        shipped = judge(rounds, name)
        resampled = (times @ a) / (times @ b)
        ends = {
            "shipped": (shipped.low, shipped.high),
            "normal": (value - _Z * spread, value + _Z * spread),
            "bootstrap": tuple(np.quantile(resampled, [0.025, 0.975]).tolist()),
        }
        if name in ("ips", "dr"):  # Maurer and Pontil, 2009; the range seen stands for the one that is known
            term = math.log(4 / 0.05)
            each = a / b
            half = math.sqrt(2 * float(each.var(ddof=1)) * term / groups)
            half += 7 * float(np.ptp(each)) * term / (3 * (groups - 1))
            ends["bernstein"] = (value - half, value + half)
        for kind, (low, high) in ends.items():
            out[kind][name] = (bool(low <= truth <= high), float(high - low) / truth)
    return out


def _sums(rounds: Rounds, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums by group whose ratio is the estimate; written anew, apart from what is measured."""
    residual = rounds.reward if "ips" in name else rounds.reward - rounds.modelled[0]
    base = np.zeros(len(rounds)) if "ips" in name else rounds.modelled[1]
    if name.startswith("sn"):
        above = rounds.weight * (residual + base.mean()) + rounds.weight.mean() * (base - base.mean())
        return by_group(above, rounds.group), by_group(rounds.weight, rounds.group)
    return by_group(base + rounds.weight * residual, rounds.group), by_group(np.ones(len(rounds)), rounds.group)


def _covered(tried: Sequence[Mapping[str, Mapping[str, tuple[bool, float]]]]) -> dict[str, Any]:
    return {
        kind: {
            name: {
                "coverage": round(float(np.mean([one[kind][name][0] for one in tried])), 4),
                "width": round(float(np.median([one[kind][name][1] for one in tried])), 4),
            }
            for name in tried[0][kind]
        }
        for kind in tried[0]
    }


def _peer_covers(world: World, peer: Rival, repeats: int) -> dict[str, float]:
    """The share of the peer's intervals that cover, by estimator."""
    _say(f"world {world.name}: the peer")
    hits: dict[str, list[bool]] = {name: [] for name in BARRED}
    for seed in range(repeats):
        logged, target = world.draw(seed)
        answers = peer.ask(logged, target, cross_fitted(Ridge(), logged, world.actions, seed=seed).values)
        for name in BARRED:
            hits[name].append(answers[name][1] <= world.truth <= answers[name][2])
    return {name: round(float(np.mean(found)), 4) for name, found in hits.items()}


def _open_bandit(folder: Path, peer: Rival | None) -> dict[str, Any] | str:
    """Each campaign in both directions; a line instead where the data is absent."""
    if not (folder / "obd_random_men.csv.gz").is_file():
        return f"Open Bandit data is not in {folder}: give --data FOLDER"
    out: dict[str, Any] = {}
    for campaign in open_bandit.CAMPAIGNS:
        logs = {policy: open_bandit.read(folder, policy, campaign) for policy in open_bandit.POLICIES}
        for source, aim in (open_bandit.POLICIES, open_bandit.POLICIES[::-1]):
            _say(f"Open Bandit, {campaign}: {source} to {aim}")
            target = open_bandit.chances(aim, logs[aim], logs[source].rounds)
            out[f"{campaign}_{source}_to_{aim}"] = _direction(logs[source].rounds, logs[aim].rounds, target, peer)
    return out


def _direction(logged: Logged, own: Logged, target: NDArray[np.float64], peer: Rival | None) -> dict[str, Any]:
    model = Ridge(penalty=100.0, interactions=False)
    expected = cross_fitted(model, logged, target.shape[1]).values
    rounds = weigh(logged, target, model)
    clipped = weigh(logged, target, model, clip=_CLIP)
    earned = judge(weigh(own, own.propensity), "ips")
    answers: Answers = {} if peer is None else peer.ask(logged, target, expected)
    return {
        "on_policy": _ends(earned),
        "clicks": int(logged.reward.sum()),
        "ess": round(judge(rounds, "ips").ess, 1),
        "mean_weight": round(judge(rounds, "ips").mean_weight, 4),
        "estimators": {name: _beside(judge(rounds, name), earned) for name in NAMES},
        f"clipped_at_{_CLIP}": {name: _beside(judge(clipped, name), earned) for name in BARRED},
        "peer": {name: [round(float(number), 6) for number in found] for name, found in answers.items()} or None,
    }


def _beside(found: Estimate, earned: Estimate) -> dict[str, Any]:
    """An estimate next to what the policy earned; `agrees` where 0 lies in the interval of their difference."""
    gap = found.value - earned.value
    low = gap - math.hypot(found.value - found.low, earned.high - earned.value)
    high = gap + math.hypot(found.high - found.value, earned.value - earned.low)
    return {
        "estimate": _ends(found), "relative_error": round(abs(gap) / earned.value, 4), "agrees": low <= 0 <= high,
        "cautions": [caution.code for caution in found.warnings],
    }  # fmt: skip


def _ends(found: Estimate) -> list[float]:
    return [round(number, 6) for number in (found.value, found.low, found.high)]


def _mean(worlds: Sequence[Mapping[str, Any]], name: str, figure: str) -> float:
    return round(float(np.mean([one["estimators"][name][figure] for one in worlds])), 4)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
