"""One logged decision, explained: what it knew, where each item came from, and what put it in its place."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.audit.served import Recomputed, recomputed, recomputed_rows
from penstock.clock import SECOND
from penstock.engines import NaiveEngine
from penstock.learn import Trees
from penstock.releases import Bundle, Release, VerdictRelease
from penstock.serve.decisions import DIGEST, Decided, digests
from penstock.serve.why import reasons
from penstock.types import Log

REASONS = 3


@dataclass(frozen=True)
class Explanation:
    """A decision as JSON values, and as lines for people."""

    values: dict[str, Any]

    def lines(self) -> list[str]:
        """The same for people, widest fact first."""
        v = self.values
        took = ", ".join(f"{stage} {ms:.2f}" for stage, ms in v["timings_ms"].items())
        out = [
            f"{v['decision']} for {v['entity']} at {v['time']}: tier {v['tier']}, release {v['release'] or 'none'}",
            f"knew the events below {v['offset']:,}; took {took} ms",
        ]
        if v["features_agree"] is not None:
            out.append("recomputed features agree" if v["features_agree"] else "RECOMPUTED FEATURES DIFFER")
        elif v["erased_since"]:
            out.append("recomputed features differ: events that this decision knew were erased since")
        if "verdict" in v:
            out += _told(v["verdict"])
        for item in v["items"]:
            chance = "" if item["propensity"] == 1 else f", shown with chance {item['propensity']:.3g}"
            out.append(f"{item['place']:>3}  {item['item']}  score {item['score']:.4f}{chance}")
            out += [f"     {reason}" for reason in item["why"]]
        return out


def _told(v: dict[str, Any]) -> list[str]:
    chance = "" if v["propensity"] == 1 else f", done with chance {v['propensity']:.3g}"
    score = "no score" if v["score"] is None else f"score {v['score']:.4f}"
    out = [f"event {v['event']}: {v['action']}, {score}{chance}"]
    out += [f"     {code}" + ("" if effect is None else f" = {value:g} ({effect:+.3f})" if value is not None
            else f" missing ({effect:+.3f})") for code, value, effect in v["reasons"]]  # fmt: skip
    return out


def explain(one: Decided, release: Bundle | None, log: Log, *, most: int = 20) -> Explanation:
    """Explains one decision; its features are recomputed from the log as they were known to it.

    Args:
        one: the decision, from the decision log.
        release: the one that it names; None where it is gone or there was none.
        log: the event log that it was served from.
        most: items to explain, from the first place on.
    """
    strings = log.strings
    shown = one.items[one.shown][:most]
    items: list[dict[str, Any]] = [
        {"place": place, "item": text, "score": score, "propensity": chance, "why": []}
        for place, text, score, chance in zip(
            range(1, len(shown) + 1), strings.texts(shown), one.scores.tolist(), one.propensities.tolist(), strict=False
        )
    ]
    values: dict[str, Any] = {
        "decision_id": one.id,
        "decision": one.decision,
        "entity": one.entity,
        "time": datetime.fromtimestamp(one.time / SECOND, UTC).isoformat(),
        "offset": one.offset,
        "tier": one.tier,
        "release": one.release,
        "arm": one.arm,
        "context": one.context,
        "timings_ms": one.timings,
        "features_agree": None,
        "erased_since": any(erasure.concerns(one.offset) for erasure in log.erasures),
        "candidates": len(one.items),
        "items": items,
    }
    if one.verdict is not None:
        score = None if np.isnan(one.scores[0]) else float(one.scores[0])
        values["verdict"] = {**one.verdict, "score": score, "propensity": float(one.propensities[0])}
    if release is None or not one.digests:
        for item in items:
            item["why"] = ["one of the popular items: this answer used no features"]
        return Explanation(values)
    naive = NaiveEngine(log.read(0, one.offset), list(release.recipe.views), strings)
    known = recomputed(one, release, naive, strings) if isinstance(release, Release) else None
    rows = known.rows if known is not None else recomputed_rows(one, release, naive, strings)
    expected = digests(rows)
    agree = expected == one.digests and len(expected) == DIGEST * len(release.recipe.assembler.names)
    # What differs after an erasure proves nothing.
    values["features_agree"] = None if values["erased_since"] and not agree else agree
    if isinstance(release, VerdictRelease):
        _moved(values["verdict"], rows, release)
    elif known is not None and isinstance(release, Release):
        _reasons(values, one, release, known, log)
    return Explanation(values)


def _moved(verdict: dict[str, Any], rows: NDArray[np.float64], release: VerdictRelease) -> None:
    """Every feature of the event that was decided on, and what each adds to the log-odds."""
    names = release.recipe.assembler.names
    effect = release.model.classifier.contributions(rows.astype(np.float32))[0]
    verdict["features"] = {
        name: {"value": None if np.isnan(value) else value, "effect": round(added, 4)}
        for name, value, added in zip(names, rows[0].tolist(), effect.tolist(), strict=True)
    }


def _reasons(values: dict[str, Any], one: Decided, release: Release, known: Recomputed, log: Log) -> None:
    names = release.recipe.assembler.names
    weights = None
    if isinstance(release.model, Trees):
        # Shapley values of the trees (Lundberg et al., 2020); the last column is the mean score.
        weights = np.asarray(release.model.booster.predict(known.rows.astype(np.float32), pred_contrib=True))[:, :-1]
    for item, place in zip(values["items"], one.shown.tolist(), strict=False):
        if place >= len(known.items):
            item["why"] = ["put there by a rule: no source proposed it"]
            continue
        item["features"] = {
            name: None if np.isnan(value) else float(value)
            for name, value in zip(names, known.rows[place].tolist(), strict=True)
        }
        at = slice(place, place + 1)
        found = reasons(release, known.lists, known.items[at], one.found_by[at], log.strings)[0]
        item["sources"] = [{"source": reason.source, "because": reason.because} for reason in found]
        item["why"] = ["proposed by " + ", ".join(map(_because, item["sources"]))]
        if item["propensity"] < 0.5:
            item["why"].append("drawn at random, to explore")
        if weights is not None:
            first = np.argsort(-np.abs(weights[place]), kind="stable")[:REASONS]
            pushed = [f"{names[i]} = {known.rows[place, i]:g} ({weights[place, i]:+.3f})" for i in first.tolist()]
            item["why"].append("most moved by " + ", ".join(pushed))


def _because(found: dict[str, Any]) -> str:
    led = f" (because of {found['because']})" if found["because"] else ""
    return f"{found['source']}{led}"
