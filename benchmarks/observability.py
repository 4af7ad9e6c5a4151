"""Claim: all metrics, the waterfall, the access log and the decision log with its digests cost at most 5 % of a
decision's p50.

One process answers the same requests with all of it and without, in blocks that take turns in random order.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks import Result
from benchmarks._peers import ROOT
from benchmarks._serving.world import built
from penstock.serve.metrics import FOLDER

GOAL_PERCENT = 5.0
_RESAMPLES = 2_000


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes."""
    parser.add_argument("--quick", action="store_true", help="a tenth of the requests: a look, not a measurement")


def run(chosen: argparse.Namespace) -> Result:
    """The cost where one process keeps its metrics in memory, and where several share them by files."""
    blocks = 12 if chosen.quick else 120
    load_before = os.getloadavg()[0]
    shop = built()
    detail: dict[str, Any] = {"goal_percent": GOAL_PERCENT, "load_before": round(load_before, 2)}
    for name, shared in (("process", False), ("workers", True)):
        print(f"metrics of one {name}" if not shared else "metrics of several workers", file=sys.stderr, flush=True)
        with TemporaryDirectory() as folder:
            environment = {**os.environ, **({FOLDER: folder} if shared else {})}
            command = [sys.executable, "-m", "benchmarks._serving.watched", str(shop.home.parent), str(blocks)]
            done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
        detail |= {f"{name}_{key}": value for key, value in _figures(json.loads(done.stdout)).items()}
    cost = detail["workers_cost_percent"]
    return Result(name="observability", ours=cost, peer=None, ratio=None, unit="% of p50", detail=detail)


def _figures(found: dict[str, dict[str, list[Any]]]) -> dict[str, Any]:
    """Medians of both, and what the difference is in percent, with an interval over resampled blocks."""
    on, off = (np.array(found["ms"][name]) for name in ("on", "off"))
    draw = np.random.default_rng(3)
    picked = draw.integers(len(on), size=(_RESAMPLES, len(on)))
    costs = [100 * (np.median(on[at]) / np.median(off[at]) - 1) for at in picked]
    cpu = [float(np.median(found["cpu"][name])) for name in ("on", "off")]
    return {
        "p50_ms_on": round(float(np.median(on)), 3),
        "p50_ms_off": round(float(np.median(off)), 3),
        "cost_percent": round(float(100 * (np.median(on) / np.median(off) - 1)), 2),
        "cost_interval": [round(float(q), 2) for q in np.quantile(costs, (0.025, 0.975))],
        "cpu_ms_on": round(cpu[0], 3),
        "cpu_ms_off": round(cpu[1], 3),
        "requests": int(on.size + off.size),
    }
