"""The simple peer, measured on the same files: what was seen close together, what is further apart counting less.

Written apart from penstock's own sources, in plain Python.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_STEPS, _RECENT, _DECAY = 10, 10, 0.8
Weights = dict[int, dict[int, float]]


def learned(lists: Sequence[Sequence[int]]) -> Weights:
    """Of each item the weights of others: 0.8 to the power of the places between, over the root of both's visits.

    >>> learned([[1, 2, 3]])[1] == {2: 1.0, 3: 0.8}
    True
    """
    out: Weights = {}
    visits: dict[int, int] = {}
    for part in lists:
        for place, item in enumerate(part):
            visits[item] = visits.get(item, 0) + 1
            for between, other in enumerate(part[place + 1 : place + 1 + _STEPS]):
                if other != item:
                    for one, two in ((item, other), (other, item)):
                        held = out.setdefault(one, {})
                        held[two] = held.get(two, 0.0) + _DECAY**between
    for item, near in out.items():
        for other in near:
            near[other] /= (visits[item] * visits[other]) ** 0.5
    return out


def ranks(weights: Weights, before: Sequence[Sequence[int]], after: NDArray[np.uint32]) -> NDArray[np.int64]:
    """The rank of each answer, 0 where nothing was seen beside it: the ten newest items add up, each older one less.

    Of items that score the same the answer stands in the middle, a half rounded up.

    >>> ranks(learned([[1, 2, 3], [1, 4]]), [[1], []], np.array([3, 3], np.uint32)).tolist()
    [3, 0]
    """
    out = np.zeros(len(after), np.int64)
    for number, (past, answer) in enumerate(zip(before, after.tolist(), strict=True)):
        sums: dict[int, float] = {}
        for place, item in enumerate(list(dict.fromkeys(past[::-1]))[:_RECENT]):
            for other, weight in weights.get(item, {}).items():
                sums[other] = sums.get(other, 0.0) + weight * _DECAY**place
        if answer in sums:
            mine = sums[answer]
            better = sum(score > mine for score in sums.values())
            level = sum(score == mine for score in sums.values())
            out[number] = better + (level + 2) // 2
    return out
