"""penstock's index as one of the libraries: the same commands and answers as theirs (peers/common.py)."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from penstock.retrieve import vectors as index

K = 10
MINUTES = 5


def build(folder: Path, kept: Path, recall: float, memory: int | None) -> None:
    """Builds, saves, and writes down how long it took and why the engine was taken."""
    began = time.perf_counter()
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    made = index.build(vectors, metric="cosine", recall=recall, k=K, memory=memory, minutes=MINUTES, progress=_progress)
    took = time.perf_counter() - began
    print(made.report.text, file=sys.stderr, flush=True)
    made.save(kept / "index")
    (kept / "ours.json").write_text(json.dumps({"build_s": took, "report": made.report.spec()}))


def main() -> None:
    """The commands; with --build only that."""
    folder, kept, recall = Path(sys.argv[1]), Path(sys.argv[2]) / "ours", float(sys.argv[3])
    memory = int(sys.argv[4]) or None
    kept.mkdir(parents=True, exist_ok=True)
    if "--build" in sys.argv:
        build(folder, kept, recall, memory)
        return
    queries = np.load(folder / "queries.npy")
    held: index.Vectors | None = None
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["do"] == "prepare":
            if not (kept / "ours.json").exists():
                # Elsewhere, so that what building took is not counted as what serving takes.
                command = [sys.executable, "-m", "benchmarks._vectors.ours", *sys.argv[1:5], "--build"]
                subprocess.run(command, check=True, stdout=sys.stderr)
            before = _resident()
            held = index.Vectors.open(kept / "index")
            held.search(queries[:1], K)
            answer = _told(held, json.loads((kept / "ours.json").read_text()), _resident() - before)
        else:
            assert held is not None
            answer = _timed(held, queries[asked["first"] : asked["end"]])
        print(json.dumps(answer), flush=True)


def _told(held: index.Vectors, built: dict[str, Any], rss: int) -> dict[str, Any]:
    taken = built["report"]["trials"][0]
    return {
        "reached": True, "form": taken["engine"], "setting": list(held.tuned.setting), "build_s": built["build_s"],
        "engine_build_s": taken["build_s"], "gb": held.nbytes / 2**30, "rss_gb": rss / 2**30,
        "cpu_us": held.tuned.seconds * 1e6,
        "trials": [
            [trial["engine"], trial["on"], trial["recall"], trial["micros"], trial["verdict"]]
            for trial in built["report"]["trials"]
        ],
    }  # fmt: skip


def _timed(held: index.Vectors, queries: Any) -> dict[str, Any]:
    wall, found, cpu = [], [], time.process_time()
    for i in range(len(queries)):
        began = time.perf_counter()
        ids, _ = held.search(queries[i : i + 1], K)
        wall.append((time.perf_counter() - began) * 1e3)
        found.append(ids[0].tolist())
    return {"ms": wall, "cpu_ms": (time.process_time() - cpu) * 1e3, "ids": found}


def _resident() -> int:
    """Bytes of this process that are no mapped file."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0


def _progress(done: int, total: int | None) -> None:
    print(f"\r{done} of {total} engines", end="" if done != total else "\n", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
