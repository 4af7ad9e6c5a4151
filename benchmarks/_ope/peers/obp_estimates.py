"""Open Bandit Pipeline's estimators on logs that come as .npz files, a path a line; answers a JSON object a line.

It runs in an environment of its own, and shares nothing with penstock but the files.
"""

import json
import sys
import warnings

import numpy as np

warnings.filterwarnings("ignore")

from obp.ope import (  # noqa: E402
    DirectMethod,
    DoublyRobust,
    InverseProbabilityWeighting,
    SelfNormalizedDoublyRobust,
    SelfNormalizedInverseProbabilityWeighting,
)

ESTIMATORS = {
    "dm": DirectMethod(),
    "ips": InverseProbabilityWeighting(),
    "snips": SelfNormalizedInverseProbabilityWeighting(),
    "dr": DoublyRobust(),
    "sndr": SelfNormalizedDoublyRobust(),
}


def answer(path, draws):
    held = np.load(path)
    given = {
        "reward": held["reward"],
        "action": held["action"],
        "pscore": held["propensity"],
        "action_dist": held["target"][:, :, None],
        "estimated_rewards_by_reg_model": held["expected"][:, :, None],
        "position": np.zeros(len(held["reward"]), int),
    }
    out = {}
    for name, estimator in ESTIMATORS.items():
        value = estimator.estimate_policy_value(**given)
        ends = estimator.estimate_interval(**given, alpha=0.05, n_bootstrap_samples=draws, random_state=0)
        out[name] = [float(value), float(ends["95.0% CI (lower)"]), float(ends["95.0% CI (upper)"])]
    return out


def main():
    draws = int(sys.argv[1])
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(line.strip(), draws)), flush=True)


if __name__ == "__main__":
    main()
