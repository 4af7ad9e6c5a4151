"""What every library here does: build, find its fastest setting for a recall, answer one query at a time.

Reads commands from standard input, a JSON line each, and answers with one. The arguments are a folder of arrays
(vectors, tune, truth and queries), a folder to keep the built index in, and the recall.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

K = 10
SURE = 1.64
TIMED = 200


class Peer:
    """A library in some of its forms, of which the fastest is taken.

    A form has a name, and `probes`: how much of the index may be searched; `keeps`: how many candidates may be ranked
    anew, (0,) where that is no choice.
    """

    forms = ("",)
    keeps = (0,)

    def __init__(self, folder: Path, kept: Path, recall: float) -> None:
        self.vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        self.tune_, self.truth, self.queries = (
            np.load(folder / f"{name}.npy") for name in ("tune", "truth", "queries")
        )
        self.kept, self.recall = kept, recall

    def build(self, form: str):
        """Builds one form with two threads and gives it."""
        raise NotImplementedError

    def save(self, index, path: Path) -> None:
        raise NotImplementedError

    def load(self, path: Path, form: str):
        raise NotImplementedError

    def probes(self, index) -> int:
        raise NotImplementedError

    def choices(self, index):
        """Those of `keeps` that make a difference."""
        return self.keeps

    def use(self, index, probes: int, keep: int) -> None:
        """Sets what the next searches do, with one thread."""
        raise NotImplementedError

    def many(self, index, queries):
        """Ids (m, K) of a batch."""
        raise NotImplementedError

    def one(self, index, query):
        """Ids of one query (d,), in the library's fastest way."""
        raise NotImplementedError

    def recalls(self, index, probes: int, keep: int, most: int):
        self.use(index, probes, keep)
        found = np.asarray(self.many(index, self.tune_[:most])).astype(np.int64)
        return (found[:, :, None] == self.truth[:most, None, :]).any(axis=1).mean(axis=1)

    def enough(self, index, probes: int, keep: int, most: int, margin: bool) -> bool:
        found = self.recalls(index, probes, keep, most)
        return found.mean() - (SURE * found.std() / len(found) ** 0.5 if margin else 0) >= self.recall

    def seconds(self, index) -> float:
        best = np.inf
        for _ in range(3):
            began = time.process_time()
            for query in self.tune_[:TIMED]:
                self.one(index, query)
            best = min(best, (time.process_time() - began) / TIMED)
        return best

    def tuned(self, index):
        """The fastest (seconds, probes, keep) that reaches the recall; None where nothing does."""
        best, highest = None, self.probes(index)
        for keep in self.choices(index):
            if not self.enough(index, highest, keep, 100, False):
                continue
            low, high, probe = 0, highest, 1
            while probe < high:
                if self.enough(index, probe, keep, 250, False):
                    high = probe
                    break
                low, probe = probe, probe * 2
            while high - low > max(1, int(low * 0.05)):
                middle = (low + high) // 2
                low, high = (low, middle) if self.enough(index, middle, keep, 250, False) else (middle, high)
            while not self.enough(index, high, keep, 1_000, True) and high < self.probes(index):
                high = min(self.probes(index), max(high + 1, int(high * 1.05)))
            if not self.enough(index, high, keep, 1_000, True):
                continue
            highest = high
            self.use(index, high, keep)
            found = self.seconds(index), high, keep
            if best is not None and found[0] > 1.3 * best[0]:
                break
            if best is None or found < best:
                best = found
        return best

    def prepare(self):
        """Builds or loads every form, and keeps the fastest."""
        best = None
        for form in self.forms:
            path, told = self.kept / f"{type(self).__name__}-{form}", self.kept / f"{type(self).__name__}-{form}.json"
            before = resident()
            if told.exists():
                index, took = self.load(path, form), json.loads(told.read_text())["build_s"]
            else:
                began = time.perf_counter()
                index = self.build(form)
                took = time.perf_counter() - began
                self.save(index, path)
                told.write_text(json.dumps({"build_s": took}))
            size = sum(p.stat().st_size for p in ([path] if path.is_file() else path.rglob("*")) if p.is_file())
            found = self.tuned(index)
            print(f"{type(self).__name__} {form}: {took:.0f} s, {found}", file=sys.stderr, flush=True)
            if found is not None and (best is None or found < best[0]):
                best = found, form, index, took, size, resident() - before
        if best is None:
            return {"reached": False}
        (seconds, probes, keep), form, self.index, took, size, rss = best
        self.use(self.index, probes, keep)
        return {
            "reached": True,
            "form": form,
            "setting": [probes, keep],
            "build_s": took,
            "gb": size / 2**30,
            "rss_gb": rss / 2**30,
            "cpu_us": seconds * 1e6,
        }

    def time(self, first: int, end: int):
        """Milliseconds of each query first … end - 1, by the clock and of processor, and the ids found."""
        wall, cpu, ids = [], time.process_time(), []
        for query in self.queries[first:end]:
            began = time.perf_counter()
            found = self.one(self.index, query)
            wall.append((time.perf_counter() - began) * 1e3)
            ids.append(np.asarray(found).ravel()[:K].astype(int).tolist())
        return {"ms": wall, "cpu_ms": (time.process_time() - cpu) * 1e3, "ids": ids}

    def run(self) -> None:
        for line in sys.stdin:
            asked = json.loads(line)
            answer = self.prepare() if asked["do"] == "prepare" else self.time(asked["first"], asked["end"])
            print(json.dumps(answer), flush=True)


def resident() -> int:
    """Bytes of this process that are no mapped file."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0


def arguments():
    folder, kept, recall = sys.argv[1:4]
    Path(kept).mkdir(parents=True, exist_ok=True)
    return Path(folder), Path(kept), float(recall)
