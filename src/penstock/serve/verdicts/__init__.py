"""Decisions on one event: approve it, have it reviewed, or decline it."""

from penstock.serve.verdicts.definition import Verdict, define
from penstock.serve.verdicts.firsts import Firsts, again, judged, undecided
from penstock.serve.verdicts.judge import Judge
from penstock.serve.verdicts.queue import Queue, Waiting
from penstock.serve.verdicts.rules import ActionRule, Rules, rule
from penstock.serve.verdicts.staffing import Staffing
from penstock.serve.verdicts.watched import Watched

__all__ = [
    "ActionRule", "Firsts", "Judge", "Queue", "Rules", "Staffing", "Verdict", "Waiting", "Watched", "again", "define",
    "judged", "rule", "undecided",
]  # fmt: skip
