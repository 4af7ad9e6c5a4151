"""penstock: real-time machine learning for a shop's decisions, from events to decisions and back.

>>> import penstock as ps
>>> ps.count(window="1h").window
'1h'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.aggregates import (
        auc,
        calibration_error,
        count,
        decayed_count,
        decayed_sum,
        distinct,
        first,
        frequent,
        histogram,
        last,
        last_times,
        latest,
        log_loss,
        max,
        max_run,
        mean,
        median,
        members,
        min,
        quantile,
        rate,
        ratio,
        recency,
        running,
        sample,
        scored,
        session_length,
        sessions,
        sum,
        top_k,
        variance,
    )
    from penstock.app import App, load
    from penstock.errors import PenstockError
    from penstock.evaluate import roc_auc
    from penstock.events import Event, Money
    from penstock.events.merging import merge_sorted, merge_sorted_async
    from penstock.features import request
    from penstock.learn import Classifier, Costs, LambdaRank, Logistic, outcome
    from penstock.learn.sequence.source import attention
    from penstock.learn.two_tower.source import two_tower
    from penstock.retrieve import covisits, lexical, popular, seen, semantic, session_neighbours, similar
    from penstock.serve import rerank
    from penstock.serve.rerank import block, cap, diversify, explore, pin
    from penstock.serve.verdicts import rule
    from penstock.simulator import World

__version__ = "0.1.0"

# Loaded when first used: `penstock --help` must not wait for Polars.
_WHERE = {
    "penstock.aggregates": "auc calibration_error count decayed_count decayed_sum distinct first frequent histogram "
    "last last_times latest log_loss max max_run mean median members min quantile rate ratio recency running sample "
    "scored session_length sessions sum top_k variance",
    "penstock.app": "App load",
    "penstock.errors": "PenstockError",
    "penstock.evaluate": "roc_auc",
    "penstock.events": "Event Money",
    "penstock.events.merging": "merge_sorted merge_sorted_async",
    "penstock.features": "request",
    "penstock.learn": "Classifier Costs LambdaRank Logistic outcome",
    "penstock.learn.sequence.source": "attention",
    "penstock.learn.two_tower.source": "two_tower",
    "penstock.retrieve": "covisits lexical popular seen semantic session_neighbours similar",
    "penstock.serve.rerank": "block cap diversify explore pin",
    "penstock.serve.verdicts": "rule",
    "penstock.simulator": "World",
}
_MODULES = {"rerank": "penstock.serve.rerank"}
_MODULE = {name: module for module, names in _WHERE.items() for name in names.split()}

__all__ = [
    "App", "Classifier", "Costs", "Event", "LambdaRank", "Logistic", "Money", "PenstockError", "World", "attention",
    "auc", "block", "calibration_error", "cap", "count", "covisits", "decayed_count", "decayed_sum", "distinct",
    "diversify", "explore", "first", "frequent", "histogram", "last", "last_times", "latest", "lexical", "load",
    "log_loss", "max", "max_run", "mean", "median", "members", "merge_sorted", "merge_sorted_async", "min", "outcome",
    "pin", "popular", "quantile", "rate", "ratio", "recency", "request", "rerank", "roc_auc", "rule", "running",
    "sample", "scored", "seen", "semantic", "session_length", "session_neighbours", "sessions", "similar", "sum",
    "top_k", "two_tower", "variance",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name in _MODULE:
        return getattr(importlib.import_module(_MODULE[name]), name)
    raise AttributeError(f"module 'penstock' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
