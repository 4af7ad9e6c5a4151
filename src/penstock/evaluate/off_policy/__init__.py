"""What another policy would have earned, from decisions that were logged with the chances of what was done."""

from penstock.evaluate.off_policy.cautions import Caution, Check
from penstock.evaluate.off_policy.estimators import (
    DirectMethod,
    DoublyRobust,
    Estimator,
    InversePropensity,
    OptimisticShrinkage,
    SelfNormalised,
    SelfNormalisedDoublyRobust,
    SwitchDoublyRobust,
    Terms,
)
from penstock.evaluate.off_policy.logged import Logged, Rounds
from penstock.evaluate.off_policy.rewards import Means, RewardModel, Ridge
from penstock.evaluate.off_policy.run import Estimate, estimate, judge, weigh
from penstock.evaluate.off_policy.slates import slates

__all__ = [
    "Caution",
    "Check",
    "DirectMethod",
    "DoublyRobust",
    "Estimate",
    "Estimator",
    "InversePropensity",
    "Logged",
    "Means",
    "OptimisticShrinkage",
    "RewardModel",
    "Ridge",
    "Rounds",
    "SelfNormalised",
    "SelfNormalisedDoublyRobust",
    "SwitchDoublyRobust",
    "Terms",
    "estimate",
    "judge",
    "slates",
    "weigh",
]
