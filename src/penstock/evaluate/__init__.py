"""Ranking metrics, their intervals, comparison of candidates, other policies' worth, and the training report."""

from penstock.evaluate import off_policy
from penstock.evaluate.checks import EvaluationError
from penstock.evaluate.classification import average_precision, drawn_by_group, roc_auc
from penstock.evaluate.compare import Candidate, binned, compare
from penstock.evaluate.intervals import Interval, bootstrap, paired
from penstock.evaluate.layout import Comparison, Report
from penstock.evaluate.ranking import coverage, hit_rate, mrr, ndcg, rank_in_list, rank_of_positive, recall_at_k
from penstock.evaluate.report import render, write_report
from penstock.evaluate.verdicts import render_verdict

__all__ = [
    "Candidate",
    "Comparison",
    "EvaluationError",
    "Interval",
    "Report",
    "average_precision",
    "binned",
    "bootstrap",
    "compare",
    "coverage",
    "drawn_by_group",
    "hit_rate",
    "mrr",
    "ndcg",
    "off_policy",
    "paired",
    "rank_in_list",
    "rank_of_positive",
    "recall_at_k",
    "render",
    "render_verdict",
    "roc_auc",
    "write_report",
]
