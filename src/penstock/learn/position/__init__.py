"""How likely each position of a list is looked at, from clicks: by randomisation, by harvesting, by click models."""

from penstock.learn.position.cascade import Cascade, by_cascade
from penstock.learn.position.clicks import Clicks, Examination, PositionError
from penstock.learn.position.harvest import by_harvest
from penstock.learn.position.models import Believed, by_em
from penstock.learn.position.randomised import by_shuffles, by_swaps

__all__ = [
    "Believed", "Cascade", "Clicks", "Examination", "PositionError", "by_cascade", "by_em", "by_harvest",
    "by_shuffles", "by_swaps",
]  # fmt: skip
