"""Mergeable summaries, one a class; each registers itself."""

from penstock.aggregates.base import Aggregate
from penstock.aggregates.frequent import Frequent
from penstock.aggregates.lists import First, Last, LastTimes, Latest, TopK
from penstock.aggregates.numbers import Count, Max, Mean, Min, Recency, Sum
from penstock.aggregates.rates import Rate, rate
from penstock.aggregates.ratios import Ratio, ratio
from penstock.aggregates.rings import DecayedCount, DecayedSum, SessionLength, Sessions
from penstock.aggregates.running import Running
from penstock.aggregates.samples import Sample
from penstock.aggregates.scored import Auc, CalibrationError, LogLoss, scored
from penstock.aggregates.series import MaxRun
from penstock.aggregates.sets import Distinct, Members
from penstock.aggregates.spread import Histogram, Quantile, Variance, median

count, sum, mean, min, max = Count, Sum, Mean, Min, Max
first, last, last_times, latest, top_k = First, Last, LastTimes, Latest, TopK
distinct, recency = Distinct, Recency
quantile, variance, histogram = Quantile, Variance, Histogram
decayed_count, decayed_sum = DecayedCount, DecayedSum
sessions, session_length = Sessions, SessionLength
members = Members
max_run, running = MaxRun, Running
auc, calibration_error, log_loss = Auc, CalibrationError, LogLoss
frequent = Frequent
sample = Sample

__all__ = [
    "Aggregate", "Auc", "CalibrationError", "Count", "DecayedCount", "DecayedSum", "Distinct", "First", "Frequent",
    "Histogram", "Last", "LastTimes", "Latest", "LogLoss", "Max", "MaxRun", "Mean", "Members", "Min", "Quantile",
    "Rate", "Ratio", "Recency", "Running", "Sample", "SessionLength", "Sessions", "Sum", "TopK", "Variance", "auc",
    "calibration_error", "count", "decayed_count", "decayed_sum", "distinct", "first", "frequent", "histogram",
    "last", "last_times", "latest", "log_loss", "max", "max_run", "mean", "median", "members", "min", "quantile",
    "rate", "ratio", "recency", "running", "sample", "scored", "session_length", "sessions", "sum", "top_k",
    "variance",
]  # fmt: skip
