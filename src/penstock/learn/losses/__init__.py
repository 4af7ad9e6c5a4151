"""What models minimise, each with its analytic derivatives: two classes, many items, several goals, whole lists."""

from penstock.learn.losses.apply import loss_of
from penstock.learn.losses.binary import ExpectedCost, Floats, Focal, LogLoss, Loss, chance
from penstock.learn.losses.catalogue import softmax_over, softmax_over_sample
from penstock.learn.losses.choice import ChoiceLoss, ContrastiveMargin, SampledSoftmax, false_negatives, log_expected
from penstock.learn.losses.goals import CalibratedList, Goals
from penstock.learn.losses.ranking import LambdaPairwise, Lists, ListSoftmax, Pairwise, RankingLoss, objective

__all__ = [
    "CalibratedList", "ChoiceLoss", "ContrastiveMargin", "ExpectedCost", "Floats", "Focal", "Goals", "LambdaPairwise",
    "ListSoftmax", "Lists", "LogLoss", "Loss", "Pairwise", "RankingLoss", "SampledSoftmax", "chance",
    "false_negatives", "log_expected", "loss_of", "objective", "softmax_over", "softmax_over_sample",
]  # fmt: skip
