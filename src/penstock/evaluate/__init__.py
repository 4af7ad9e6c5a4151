"""Ranking metrics, their intervals, comparison of candidates, other policies' worth, and the training report."""

from penstock.evaluate import off_policy
from penstock.evaluate.checks import EvaluationError
from penstock.evaluate.classification import average_precision, drawn_by_group, roc_auc
from penstock.evaluate.compare import Candidate, Goals, compare, list_values
from penstock.evaluate.graded import (
    Ranked,
    average_precision_at,
    dcg_at,
    ips_ndcg,
    ndcg_at,
    precision_at,
    recall_at,
    reciprocal_rank_at,
    sampled_rank_of_positive,
)
from penstock.evaluate.intervals import Interval, bootstrap, false_discovery, p_value, paired
from penstock.evaluate.layout import Comparison, Report
from penstock.evaluate.ranking import (
    coverage,
    goals_at,
    hit_rate,
    mrr,
    ndcg,
    rank_in_list,
    rank_of_positive,
    recall_at_k,
)
from penstock.evaluate.report import render, write_report
from penstock.evaluate.slices import binned, query_type, tenths, top_values
from penstock.evaluate.verdicts import render_verdict

__all__ = [
    "Candidate", "Comparison", "EvaluationError", "Goals", "Interval", "Ranked", "Report", "average_precision",
    "average_precision_at", "binned", "bootstrap", "compare", "coverage", "dcg_at", "drawn_by_group",
    "false_discovery", "goals_at", "hit_rate", "ips_ndcg", "list_values", "mrr", "ndcg", "ndcg_at", "off_policy",
    "p_value", "paired", "precision_at", "query_type", "rank_in_list", "rank_of_positive", "recall_at", "recall_at_k",
    "reciprocal_rank_at", "render", "render_verdict", "roc_auc", "sampled_rank_of_positive", "tenths", "top_values",
    "write_report",
]  # fmt: skip
