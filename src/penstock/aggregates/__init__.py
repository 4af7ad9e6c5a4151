"""Mergeable summaries, one a class; each registers itself."""

from penstock.aggregates.base import Aggregate
from penstock.aggregates.frequent import Frequent
from penstock.aggregates.lists import First, Last, Latest, TopK
from penstock.aggregates.numbers import Count, Max, Mean, Min, Recency, Sum
from penstock.aggregates.rates import Rate, rate
from penstock.aggregates.running import Running
from penstock.aggregates.samples import Sample
from penstock.aggregates.scored import Auc, CalibrationError, LogLoss, scored
from penstock.aggregates.series import MaxRun
from penstock.aggregates.sets import Distinct
from penstock.aggregates.spread import Quantile, Variance, median

count, sum, mean, min, max = Count, Sum, Mean, Min, Max
first, last, latest, top_k, distinct, recency = First, Last, Latest, TopK, Distinct, Recency
quantile, variance = Quantile, Variance
max_run, running = MaxRun, Running
auc, calibration_error, log_loss = Auc, CalibrationError, LogLoss
frequent = Frequent
sample = Sample

__all__ = [
    "Aggregate", "Auc", "CalibrationError", "Count", "Distinct", "First", "Frequent", "Last", "Latest", "LogLoss",
    "Max", "MaxRun", "Mean", "Min", "Quantile", "Rate", "Recency", "Running", "Sample", "Sum", "TopK", "Variance",
    "auc", "calibration_error", "count", "distinct", "first", "frequent", "last", "latest", "log_loss", "max",
    "max_run", "mean", "median", "min", "quantile", "rate", "recency", "running", "sample", "scored", "sum", "top_k",
    "variance",
]  # fmt: skip
