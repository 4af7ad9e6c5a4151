"""Mergeable summaries, one a class; each registers itself."""

from penstock.aggregates.base import Aggregate
from penstock.aggregates.lists import Last, Latest, TopK
from penstock.aggregates.numbers import Count, Max, Mean, Min, Recency, Sum
from penstock.aggregates.running import Running
from penstock.aggregates.series import MaxRun
from penstock.aggregates.sets import Distinct

count, sum, mean, min, max = Count, Sum, Mean, Min, Max
last, latest, top_k, distinct, recency = Last, Latest, TopK, Distinct, Recency
max_run, running = MaxRun, Running

__all__ = [
    "Aggregate", "Count", "Distinct", "Last", "Latest", "Max", "MaxRun", "Mean", "Min", "Recency", "Running", "Sum",
    "TopK",
    "count", "distinct", "last", "latest", "max", "max_run", "mean", "min", "recency", "running", "sum", "top_k",
]  # fmt: skip
