"""Mergeable summaries, one a class; each registers itself."""

from penstock.aggregates.base import Aggregate
from penstock.aggregates.lists import Last, Latest, TopK
from penstock.aggregates.numbers import Count, Max, Mean, Min, Recency, Sum
from penstock.aggregates.sets import Distinct

count, sum, mean, min, max = Count, Sum, Mean, Min, Max
last, latest, top_k, distinct, recency = Last, Latest, TopK, Distinct, Recency

__all__ = [
    "Aggregate", "Count", "Distinct", "Last", "Latest", "Max", "Mean", "Min", "Recency", "Sum", "TopK",
    "count", "distinct", "last", "latest", "max", "mean", "min", "recency", "sum", "top_k",
]  # fmt: skip
