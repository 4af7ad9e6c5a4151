"""Mergeable summaries, one a class; each registers itself."""

from penstock.aggregates.base import Aggregate
from penstock.aggregates.frequent import Frequent
from penstock.aggregates.lists import Last, Latest, TopK
from penstock.aggregates.numbers import Count, Max, Mean, Min, Recency, Sum
from penstock.aggregates.running import Running
from penstock.aggregates.samples import Sample
from penstock.aggregates.scored import Auc, CalibrationError, LogLoss, scored
from penstock.aggregates.series import MaxRun
from penstock.aggregates.sets import Distinct

count, sum, mean, min, max = Count, Sum, Mean, Min, Max
last, latest, top_k, distinct, recency = Last, Latest, TopK, Distinct, Recency
max_run, running = MaxRun, Running
auc, calibration_error, log_loss = Auc, CalibrationError, LogLoss
frequent = Frequent
sample = Sample

__all__ = [
    "Aggregate", "Auc", "CalibrationError", "Count", "Distinct", "Frequent", "Last", "Latest", "LogLoss", "Max",
    "MaxRun", "Mean", "Min", "Recency", "Running", "Sample", "Sum", "TopK",
    "auc", "calibration_error", "count", "distinct", "frequent", "last", "latest", "log_loss", "max", "max_run",
    "mean", "min", "recency", "running", "sample", "scored", "sum", "top_k",
]  # fmt: skip
