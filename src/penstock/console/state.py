"""What the console's tables show of a running system. All of it reads files, so none of it is for the event loop."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from penstock.audit import Explanation, explain
from penstock.errors import NotFoundError, PenstockError
from penstock.releases import Bundle, read
from penstock.serve.runtime import Runtime


@dataclass(frozen=True)
class ViewState:
    """One view version in the store.

    Attributes:
        name: the view's; "" where neither the app nor a release knows it any more.
        by: its key fields.
        features: how many, None where the app no longer defines it.
        applied: only events below this offset are in it.
        records, bytes: its size, keys included.
    """

    name: str
    version: str
    by: tuple[str, ...]
    features: int | None
    applied: int
    records: int
    bytes: int


@dataclass(frozen=True)
class ReleaseState:
    """One release.

    Attributes:
        score: the metric of its report with its interval, "" where there is no report.
        trained: when, ISO 8601; "" where there is no report.
        until: only events below this offset were learned from.
        state: champion, loading (champion once its views have caught up), or "".
        earlier: whether a champion came before it, to go back to.
        report: whether there is one for people.
    """

    id: str
    decision: str
    model: str
    score: str
    trained: str
    until: int | None
    state: str
    earlier: bool
    report: bool


@dataclass(frozen=True)
class Health:
    """Whether the system takes traffic, and how far the store has come. Offsets count events."""

    ready: bool
    loading: tuple[str, ...]
    without_release: tuple[str, ...]
    applied: int
    end: int


def health(runtime: Runtime) -> Health:
    """How the system is just now; cheap."""
    ready, waits = runtime.ready()
    end = runtime.log.end
    return Health(ready, tuple(waits["loading"]), tuple(waits["without_release"]), end - waits["behind"], end)


def views(runtime: Runtime) -> list[ViewState]:
    """The app's views, then what the store keeps besides for releases that may come back."""
    own = {view.version: view for view in runtime.views.values()}
    applied, sizes = runtime.store.views(), runtime.store.sizes()
    out = [
        ViewState(
            view.name, version.hex(), tuple(view.by), len(view.features), applied.get(version, 0),
            *sizes.get(version, (0, 0)),
        )
        for version, view in own.items()
    ]  # fmt: skip
    names = _older(runtime)
    return out + [
        ViewState(names.get(version.hex(), ""), version.hex(), (), None, done, *sizes.get(version, (0, 0)))
        for version, done in applied.items()
        if version not in own
    ]


def _older(runtime: Runtime) -> dict[str, str]:
    """The names of all view versions that some release reads."""
    names: dict[str, str] = {}
    for release in runtime.registry.ids():
        try:
            names |= {version: name for name, version in runtime.registry.manifest(release)["views"].items()}
        except (PenstockError, LookupError, AttributeError):
            # The list of releases says that it is damaged.
            continue
    return names


def releases(runtime: Runtime) -> list[ReleaseState]:
    """Every release, newest first."""
    loading = runtime.ready()[1]["loading"]
    before: dict[str, set[str]] = {}
    for line in runtime.registry.history():
        before.setdefault(line["decision"], set()).add(line["release"])
    out = []
    for row in reversed(runtime.registry.listing()):
        score, trained = _report(runtime, row["id"])
        state = "loading" if row["id"] in loading else "champion" if row["champion"] else ""
        earlier = row["champion"] and len(before.get(row["decision"] or "", ())) > 1
        out.append(
            ReleaseState(
                row["id"], row["decision"] or "?", row["model"], score, trained, row["until"], state, earlier,
                report_file(runtime, row["id"]) is not None,
            )
        )  # fmt: skip
    return out


def _report(runtime: Runtime, release: str) -> tuple[str, str]:
    try:
        report: dict[str, Any] = json.loads((runtime.registry.folder / release / "report.json").read_text())
        chosen = next(one for one in report["candidates"] if one["name"] == report["chosen"])
        found = chosen["scores"][report["metric"]]
        names = {"mrr": "MRR", "ndcg": "NDCG", "hit_rate": "Hit rate", "ap": "Average precision"}
        name = names.get(report["metric"], report["metric"]) + (f"@{report['k']}" if "k" in report else "")
        score = f"{name} {found['mean']:.4f} ({found['low']:.4f} to {found['high']:.4f})"
        return score, str(report["created"])
    except (OSError, ValueError, LookupError, TypeError, StopIteration):
        return "", ""


def report_file(runtime: Runtime, release: str) -> bytes | None:
    """The page that a release's training wrote; None where the release or the page is not there."""
    if release not in runtime.registry.ids():
        return None
    try:
        return (runtime.registry.folder / release / "report.html").read_bytes()
    except OSError:
        return None


def explained(runtime: Runtime, decision: str) -> Explanation:
    """One decision, explained; as slow as reading the log up to it.

    Raises:
        NotFoundError: no decision of this id is in the decision log.
    """
    found = runtime.decisions.find(decision)
    if found is None:
        raise NotFoundError(
            "a decision is explained by the decision_id of its answer", got=repr(decision[:100]),
            remedy="take one from an answer",
        )  # fmt: skip
    return explain(found, _of(runtime, found.release), runtime.log)


def _of(runtime: Runtime, release: str | None) -> Bundle | None:
    return None if release is None else read(runtime.registry.folder, release)
