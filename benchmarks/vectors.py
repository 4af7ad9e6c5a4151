"""Claim: the vector index is at most a tenth slower than the fastest library there is for the same recall, whatever the
vectors look like, since it measures the engines that are installed and takes the best.

Each library runs in a process and an environment of its own, in whichever of its forms and settings is the fastest that
reaches the recall on one set of queries; another set is then asked one by one, on one thread, the libraries in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from benchmarks import Result, circumstances
from benchmarks._peers import KEPT, ROOT, SETUP, interpreter
from benchmarks._vectors import drawn

PEERS = Path(__file__).with_name("_vectors") / "peers"
LIBRARIES = ("scann", "faiss", "hnswlib", "usearch")
SIZES = {"100k": 100_000, "1m": 1_000_000, "10m": 10_000_000}
MEMORY = {"10m": 3 << 30}
"""Bytes that the index may take."""
ROUNDS = 5


def arguments(parser: argparse.ArgumentParser) -> None:
    """What this benchmark takes."""
    parser.add_argument("--size", choices=SIZES, default="1m", help="vectors that are drawn (default 1m)")
    parser.add_argument("--data", default="clustered,unclustered", help=f"some of {', '.join(drawn.KINDS)}")
    parser.add_argument("--vectors", type=Path, help="vectors (n, d) from an .npy file instead")
    parser.add_argument("--queries", type=Path, help="queries (m, d) to go with them; else some vectors are taken out")
    parser.add_argument("--recall", type=float, default=0.95, help="recall@10 that is asked (default 0.95)")
    parser.add_argument("--peers", default=None, help=f"some of {', '.join(LIBRARIES)}; none at 10m unless named")
    parser.add_argument("--keep", type=Path, help="a folder in which vectors and built indexes stay for the next run")
    parser.add_argument("--environments", type=Path, default=KEPT, help="where the peers are installed")


def run(chosen: argparse.Namespace) -> Result:
    """Draws or reads vectors, and measures on each kind of them."""
    named = "" if chosen.size == "10m" else ",".join(LIBRARIES)
    peers = [name for name in (chosen.peers if chosen.peers is not None else named).split(",") if name]
    kinds = ["given"] if chosen.vectors else chosen.data.split(",")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds:
            told = chosen.vectors.stem if chosen.vectors else chosen.size
            at = (chosen.keep or Path(folder)).resolve() / f"{kind}-{told}"
            _say(f"{kind}: vectors")
            if chosen.vectors:
                drawn.given(at, chosen.vectors, chosen.queries)
            else:
                drawn.write(at, kind, SIZES[chosen.size])
            found[kind] = measure(at, peers, chosen)
            # It takes long: what is measured already is not lost where the rest is given up.
            _say(f"{kind}: {json.dumps(found[kind])}")
    worst = min(kinds, key=lambda kind: found[kind]["ratio"] or np.inf)
    first = found[kinds[0]]
    detail: dict[str, Any] = {
        **circumstances(),
        "n": first["n"], "d": first["d"],
        **{key: first["penstock"][key] for key in ("recall10", "p50_ms", "p99_ms", "qps", "build_s", "gb")},
        "data": found,
    }  # fmt: skip
    absent = [name for name in peers if interpreter(name, chosen.environments) is None]
    if absent:
        detail["absent"] = dict.fromkeys(absent, SETUP)
    return Result(
        name="vectors", ours=found[worst]["penstock"]["qps"], peer=found[worst]["best_qps"],
        ratio=found[worst]["ratio"], unit="queries/s on one thread", detail=detail,
    )  # fmt: skip


def measure(folder: Path, peers: list[str], chosen: argparse.Namespace) -> dict[str, Any]:
    """Every library on the vectors of a folder; figures of an absent one are None."""
    answers = np.load(folder / "answers.npy")
    shape = np.load(folder / "vectors.npy", mmap_mode="r").shape
    figures: dict[str, Any] = {}
    with ExitStack() as stack:
        asked: dict[str, _Process] = {}
        for name in ("penstock", *peers):
            _say(f"{folder.name}: {name}")
            process = stack.enter_context(_started(name, folder, chosen))
            if process is None:
                figures[name] = None
                continue
            told = process.ask(do="prepare")
            figures[name] = {key: round(value, 4) if isinstance(value, float) else value for key, value in told.items()}
            if told["reached"]:
                asked[name] = process
        _say(f"{folder.name}: queries")
        edges = np.linspace(0, len(answers), ROUNDS + 1).astype(int)
        parts: dict[str, list[Mapping[str, Any]]] = {name: [] for name in asked}
        for process in asked.values():
            process.ask(do="time", first=0, end=200)  # caches
        for turn, (first, end) in enumerate(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)):
            names = list(asked)
            # Another one begins each time.
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                parts[name].append(asked[name].ask(do="time", first=first, end=end))
    for name, found in parts.items():
        figures[name] |= _figures(found, answers)
    others = {name: figures[name]["qps"] for name in asked if name != "penstock"}
    best = max(others, key=lambda name: others[name], default=None)
    ratio = round(figures["penstock"]["qps"] / others[best], 3) if best else None
    cpu = round(figures["penstock"]["cpu_qps"] / max(figures[name]["cpu_qps"] for name in others), 3) if best else None
    return {
        "n": shape[0], "d": shape[1], "ratio": ratio, "cpu_ratio": cpu, "best": best,
        "best_qps": others[best] if best else None, **figures,
    }  # fmt: skip


def _figures(found: list[Mapping[str, Any]], answers: Any) -> dict[str, float]:
    ms = np.concatenate([part["ms"] for part in found])
    ids = [line for part in found for line in part["ids"]]
    hits = [len(set(line) & set(true)) for line, true in zip(ids, answers.tolist(), strict=True)]
    p50, p99 = np.quantile(ms, (0.5, 0.99)).tolist()
    return {
        "recall10": round(float(np.mean(hits)) / answers.shape[1], 4),
        "p50_ms": round(p50, 4), "p99_ms": round(p99, 4), "qps": round(1e3 * len(ms) / float(ms.sum()), 1),
        # What it would be with a core of its own, where the machine had other things to do.
        "cpu_qps": round(1e3 * len(ms) / sum(part["cpu_ms"] for part in found), 1),
    }  # fmt: skip


class _Process:
    """A library that is asked by a line and answers by a line."""

    def __init__(self, to: IO[str], back: IO[str]) -> None:
        self._to, self._back = to, back

    def ask(self, **what: Any) -> dict[str, Any]:
        self._to.write(json.dumps(what) + "\n")
        self._to.flush()
        line = self._back.readline()
        if not line:
            raise SystemExit("a library's process ended; what it said stands above")
        found: dict[str, Any] = json.loads(line)
        return found


@contextmanager
def _started(name: str, folder: Path, chosen: argparse.Namespace) -> Iterator[_Process | None]:
    kept = folder / "kept"
    common = [str(folder), str(kept), str(chosen.recall)]
    if name == "penstock":
        command = [sys.executable, "-m", "benchmarks._vectors.ours", *common, str(MEMORY.get(chosen.size, 0))]
    else:
        python = interpreter(name, chosen.environments)
        if python is None:
            yield None
            return
        command = [str(python), str(PEERS / f"{name}_peer.py"), *common]
    # No thread waits by spinning: another one may need the core.
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield _Process(process.stdin, process.stdout)
        finally:
            process.stdin.close()
            process.wait()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
