"""Claim: a request over 200 events is answered sooner by NumPy than by PyTorch; one click more costs a step and not
the whole sequence, to the same numbers; and training takes at most twice as long as PyTorch's on the same cores.

Like is held against like. `ratio` is PyTorch's time over NumPy's for the same work: one request, a whole sequence of
200 events encoded from nothing (`whole_sequence_against_pytorch` has other lengths). `speedup` stays with NumPy: that
whole sequence, over one event added to a kept state, which PyTorch's form cannot do.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import Any

import numpy as np

from benchmarks import Result, circumstances
from benchmarks._next.forms import LENGTHS

_ROUNDS = 3
_ASKED = "200"
"""The length of which `ratio` and `speedup` are."""
_COMMAND = ".venv/bin/pip install torch==2.13.0"


def run() -> Result:
    """Each form in a process of its own, in turns; the median of the rounds."""
    before = circumstances()
    there = importlib.util.find_spec("torch") is not None
    rounds: dict[str, list[dict[str, Any]]] = {"numpy": [], "pytorch": []}
    for turn in range(_ROUNDS):
        for form in ["numpy", "pytorch"] if there else ["numpy"]:
            print(f"round {turn + 1} of {_ROUNDS}: {form}", file=sys.stderr, flush=True)
            command = [sys.executable, "-m", "benchmarks._next.forms", form]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            rounds[form].append(json.loads(done.stdout.splitlines()[-1]))
    ours, peer = (_median(rounds[form]) if rounds[form] else None for form in ("numpy", "pytorch"))
    assert ours is not None
    speedup = {length: round(ours["whole_ms"][length] / ours["one_more_ms"][length], 1) for length in map(str, LENGTHS)}
    detail: dict[str, Any] = {
        **before, "max_difference": max(ours["difference"].values()), "speedup": speedup[_ASKED],
        "speedup_by_length": speedup, "numpy": ours, "pytorch": peer if peer is not None else _COMMAND,
    }  # fmt: skip
    if peer is not None:
        detail["training_times_pytorch"] = {
            name: round(ours["train_ms"][name] / peer["train_ms"][name], 2) for name in ours["train_ms"]
        }
        detail["whole_sequence_against_pytorch"] = {
            length: round(peer["whole_ms"][length] / ours["whole_ms"][length], 2) for length in ours["whole_ms"]
        }
    mine = ours["whole_ms"][_ASKED]
    theirs = None if peer is None else peer["whole_ms"][_ASKED]
    ratio = None if theirs is None else round(theirs / mine, 2)
    return Result("attention", round(mine, 4), theirs, ratio, f"ms a request, a whole sequence of {_ASKED}", detail)


def _median(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of each number, by name."""
    out: dict[str, Any] = {}
    for name, value in rounds[0].items():
        if isinstance(value, dict):
            out[name] = {key: float(np.median([part[name][key] for part in rounds])) for key in value}
        else:
            out[name] = value
    return out
