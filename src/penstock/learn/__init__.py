"""From the log to a model: recipes, point-in-time datasets, rankers."""

from penstock.learn.bandit import LinearReward, Posterior, Summary
from penstock.learn.cases import Acted, Cases, Trials
from penstock.learn.classify import Classifier, FittedClassifier, Logistic
from penstock.learn.costs import ACTIONS, Action, Costs, Price
from penstock.learn.dataset import Dataset, Labels, Replay
from penstock.learn.impressions import Asks, Impressions, Outcomes, Shown, join_outcomes
from penstock.learn.models import Fusion, Model, SourceOrder, Trees, fit_trees, load, prepare
from penstock.learn.position import Examination
from penstock.learn.propensity import examination
from penstock.learn.recipe import Candidates, LambdaRank, Recipe, check_group, popular_lists, retrieve
from penstock.learn.sequence.source import Attention
from penstock.learn.two_tower.source import TwoTower
from penstock.learn.verdict import Outcome, VerdictRecipe, outcome
from penstock.learn.verdict_model import VerdictModel

__all__ = [
    "ACTIONS", "Acted", "Action", "Asks", "Attention", "Candidates", "Cases", "Classifier", "Costs", "Dataset",
    "Examination", "FittedClassifier", "Fusion", "Impressions", "Labels", "LambdaRank", "LinearReward", "Logistic",
    "Model", "Outcome", "Outcomes", "Posterior", "Price", "Recipe", "Replay", "Shown", "SourceOrder", "Summary",
    "Trees", "Trials", "TwoTower", "VerdictModel", "VerdictRecipe", "check_group", "examination", "fit_trees",
    "join_outcomes", "load", "outcome", "popular_lists", "prepare", "retrieve",
]  # fmt: skip
