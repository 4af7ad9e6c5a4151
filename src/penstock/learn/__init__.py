"""From the log to a model: recipes, point-in-time datasets, rankers."""

from penstock.learn.dataset import Dataset, Labels, Replay
from penstock.learn.impressions import Asks, Impressions, Outcomes, Shown, join_outcomes
from penstock.learn.models import Model, SourceOrder, Trees, fit_trees, load, prepare
from penstock.learn.recipe import Candidates, LambdaRank, Recipe, check_group, popular_lists, retrieve

__all__ = [
    "Asks", "Candidates", "Dataset", "Impressions", "Labels", "LambdaRank", "Model", "Outcomes", "Recipe", "Replay",
    "Shown", "SourceOrder", "Trees", "check_group", "fit_trees", "join_outcomes", "load", "popular_lists", "prepare",
    "retrieve",
]  # fmt: skip
