"""Decisions on one event: approve it, have it reviewed, or decline it."""

from penstock.serve.verdicts.definition import Verdict, define
from penstock.serve.verdicts.judge import Judge
from penstock.serve.verdicts.queue import Waiting, waiting
from penstock.serve.verdicts.rules import ActionRule, Rules, rule
from penstock.serve.verdicts.staffing import Staffing

__all__ = ["ActionRule", "Judge", "Rules", "Staffing", "Verdict", "Waiting", "define", "rule", "waiting"]
