"""Claim: the features that many past decisions would have had, windows and sketches among them, are made within a
minute and a laptop's memory.

Ten features over windows for labels over events with Zipf keys; beside it the counts and sums among them, written by
hand in Polars and for DuckDB; then the newest values of ten fields, beside Feast's DuckDB offline store. Each reads the
same Parquet files in a process of its own, and what they give is compared number by number.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks import Result, circumstances
from benchmarks._peers import SETUP, interpreter
from benchmarks._serving.systems import PEERS
from penstock.audit.drawn import zipf
from penstock.clock import SECOND

KEYS, START, STEP = 100_000, 1_700_000_000 * SECOND, 86_400
FIELDS = [f"v{i}" for i in range(10)]


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes."""
    parser.add_argument("--events", type=int, default=10_000_000, help="of the stream (default 10,000,000)")
    parser.add_argument("--labels", type=int, default=1_000_000, help="moments in the past (default 1,000,000)")
    parser.add_argument("--memory", type=int, default=18, help="GiB that Feast may take with Zipf keys (default 18)")


def run(chosen: argparse.Namespace) -> Result:
    """Every system on the same files, one after the other."""
    detail: dict[str, Any] = {**circumstances(), "events": chosen.events, "labels": chosen.labels, "absent": {}}
    with tempfile.TemporaryDirectory() as made:
        large, uniform, skewed = (Path(made) / name for name in ("large", "uniform", "skewed"))
        _say("events and labels")
        windows_data(large, chosen.events, chosen.labels)
        last_data(uniform, chosen.events // 10, chosen.labels // 10, skewed=False)
        last_data(skewed, chosen.events // 10, chosen.labels // 10, skewed=True)

        ours = _ours(large, "windows")
        detail |= {"seconds": ours["seconds"], "reading_seconds": ours["reading"], "peak_gb": ours["peak_gb"]}
        counts = _ours(large, "counts")
        detail |= {"counts_seconds": counts["seconds"] + counts["reading"], "counts_peak_gb": counts["peak_gb"]}
        different: dict[str, int] = {}
        for name, python in (("polars", sys.executable), ("duckdb", _python("duckdb"))):
            detail |= _peer(name, python, f"{name}_pit.py", large, "counts", different, detail)
        small = _ours(uniform, "last")
        detail |= {"small_seconds": small["seconds"] + small["reading"], "small_peak_gb": small["peak_gb"]}
        detail |= _peer("polars_small", sys.executable, "polars_last.py", uniform, "last", different, detail)
        detail |= _peer("feast_small", _python("feast"), "feast_pit.py", uniform, "last", different, detail)
        detail["feast_seconds_small"] = detail.pop("feast_small_seconds", None)
        detail["zipf_small_seconds"] = (one := _ours(skewed, "last"))["seconds"] + one["reading"]
        detail |= _peer(
            "feast_zipf", _python("feast"), "feast_pit.py", skewed, "last", different, detail, chosen.memory
        )
    faster = min((detail[f"{n}_seconds"] for n in ("polars", "duckdb") if detail.get(f"{n}_seconds")), default=None)
    detail["different_numbers"] = different
    detail["counts_ratio"] = faster and round(faster / detail["counts_seconds"], 2)
    peer = detail["feast_seconds_small"]
    return Result(
        name="pit", ours=detail["seconds"], peer=peer,
        ratio=peer and round(peer / detail["small_seconds"], 2), unit="s",
        detail={name: round(value, 3) if isinstance(value, float) else value for name, value in detail.items()},
    )  # fmt: skip


def windows_data(folder: Path, events: int, labels: int) -> None:
    """Zipf keys, one event every 86 ms: 10 million are ten days."""
    draw = np.random.default_rng(7)
    folder.mkdir()
    time = START + np.arange(events) * STEP
    columns = {
        "key": 10 + zipf(draw, KEYS, events),
        "time": time,
        "item": 10 + KEYS + draw.integers(5_000, size=events),
        "category": 10 + KEYS + 5_000 + zipf(draw, 12, events),
        "price": draw.integers(100, 20_000, events),
    }
    small = [pl.col("key", "item", "category").cast(pl.UInt32)]
    pl.DataFrame(columns).with_columns(small).write_parquet(folder / "events.parquet")
    _labels(folder, draw, 10 + zipf(draw, KEYS, labels), events)


def last_data(folder: Path, events: int, labels: int, *, skewed: bool) -> None:
    """Ten fields that change with every event."""
    draw = np.random.default_rng(8)
    folder.mkdir()
    keys, asked = (zipf(draw, KEYS, n) if skewed else draw.integers(KEYS, size=n) for n in (events, labels))
    columns = {"key": 10 + keys, "time": START + np.arange(events) * STEP}
    columns |= {name: draw.integers(1, 2**31, events) for name in FIELDS}
    small = [pl.col("key", *FIELDS).cast(pl.UInt32)]
    pl.DataFrame(columns).with_columns(small).write_parquet(folder / "events.parquet")
    _labels(folder, draw, 10 + asked, events)


def _labels(folder: Path, draw: np.random.Generator, keys: Any, events: int) -> None:
    time = START + draw.integers(events // 10, events, len(keys)) * STEP + 1
    frame = pl.DataFrame({"key": keys, "time": time}, schema={"key": pl.UInt32, "time": pl.Int64})
    frame.write_parquet(folder / "labels.parquet")


def _ours(folder: Path, kind: str) -> dict[str, float]:
    _say(f"penstock, {kind}, {folder.name}")
    out = folder / f"{kind}.npz"
    command = [sys.executable, "-m", "benchmarks._pit.ours", str(folder), kind, str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _python(peer: str) -> str | None:
    path = interpreter(peer)
    return None if path is None else str(path)


def _peer(
    name: str, python: str | None, script: str, folder: Path, kind: str, different: dict[str, int],
    detail: dict[str, Any], memory: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Its seconds and peak memory, or why it has none; what it gives is compared with ours."""
    _say(name)
    if python is None:
        detail["absent"][name] = SETUP
        return {f"{name}_seconds": None}
    out = folder / f"{name}.npz"
    environment = {**os.environ, "PIT_MEMORY_GB": str(memory), "FEAST_USAGE": "False"}
    command = [python, str(PEERS / script), str(folder), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        why = [line for line in done.stderr.splitlines() if "Error" in line or "Exception" in line]
        return {f"{name}_seconds": None, f"{name}_failed": (why or [f"exit {done.returncode}"])[-1][:300]}
    told = json.loads(done.stdout.splitlines()[-1])
    with np.load(folder / f"{kind}.npz") as ours, np.load(out) as theirs:
        different[name] = int(sum((ours[column] != theirs[column]).sum() for column in theirs.files))
    return {f"{name}_seconds": told["seconds"], f"{name}_peak_gb": told["peak_gb"]}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
