"""Builds an index: measures the engines that there are, and takes the fastest that meets recall and memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter

from penstock.registry import get, names
from penstock.retrieve.vectors.base import Engine, Floats, Matrix, Metric, VectorError, checked, drawn, prepared
from penstock.retrieve.vectors.live import Vectors, ids_of
from penstock.retrieve.vectors.report import Report, Trial
from penstock.retrieve.vectors.screening import SCREEN, Limits, Tried, label, screened, tried
from penstock.retrieve.vectors.tuning import MANY, Asked, apart
from penstock.types import Array, Progress

KIND = "vectors"


def build(
    vectors: Array, *, ids: Array | None = None, metric: Metric = "cosine", recall: float = 0.95, k: int = 10,
    memory: int | None = None, minutes: float = 10, queries: Array | None = None,
    engines: Sequence[Engine] | None = None, seed: int = 0, threads: int | None = None,
    progress: Progress | None = None,
) -> Vectors:  # fmt: skip
    """An index over `vectors`, by the engine that answers fastest, by itself on one thread, of those that find enough.

    Every engine is measured on a sample; the best few are then built in full and measured again. Recall is measured
    on `queries`, or on vectors that are held out of their own result. Which engines there are depends on what is
    installed: `Vectors.report` says what was measured, what was taken, why, and which command installs more.

    Args:
        vectors: (n, d) of any float type; may be a memory map, which is read a block at a time.
        ids: (n,) integers of at least 0 under which vectors are found, such as codes of items; by default their rows.
        metric: "cosine" (vectors are normalised, and need not be), "ip" (inner product) or "l2".
        recall: of the k nearest, the share that is to be found on average.
        k: how many neighbours are usually asked for.
        memory: bytes that the index may take.
        minutes: of all this together. One engine is built in any case; no further one that would take longer.
        queries: (m, d) that look like those that will be asked, where those do not look like the vectors; at least
            some hundred.
        engines: only these.
        seed: of whatever is drawn; the same seed and engine give the same index.
        threads: used for building; all by default.
        progress: called with (engines done, engines in all).

    Raises:
        VectorError: input that is no matrix of finite numbers, a recall outside 0 … 1, or no engine meets both.

    >>> import numpy as np
    >>> index = build(np.eye(4, dtype=np.float32), ids=np.array([3, 5, 7, 9]))
    >>> index.search(np.array([[0, 2, 1, 0]], np.float32), k=2)
    (array([[5, 7]]), array([[0.8944272, 0.4472136]], dtype=float32))
    >>> index.report.why.split(" of ")[0]
    'exact() is the fastest'
    """
    _fits(recall, k)
    raw = checked(vectors, metric)
    if not len(raw):
        raise VectorError("an index holds at least one vector", got="none", remedy="build it once there are some")
    matrix = Matrix(raw, metric, None if queries is not None else apart(len(raw), seed))
    named = None if ids is None else ids_of(ids, len(raw))
    n, d = len(raw), matrix.d
    threads = threads or os.cpu_count() or 1
    given: Floats | None = None
    if queries is not None:
        some = checked(queries, metric, d=d, what="queries")
        given = prepared(some[drawn(len(some), MANY, seed)], metric)
        if not len(given):
            raise VectorError("there are queries to measure with", got="none", remedy="pass some hundred, or leave it")
    kinds: list[type[Engine]] = [get(KIND, name) for name in names(KIND)]
    lacking = sorted({kind.lacks() for kind in kinds if engines is None} - {""})
    begun, trials, done = perf_counter(), list[Trial](), 0

    def say(of: int) -> None:
        nonlocal done
        if progress is not None:
            progress(done, max(of, done))
        done += 1

    if engines is not None:
        chosen = list(engines)
    elif n <= SCREEN:
        chosen = [one for kind in kinds if not kind.lacks() for one in kind.variants(n, d)]
    else:
        limits = Limits(recall, memory, minutes)
        chosen, trials = screened(
            [kind for kind in kinds if not kind.lacks()], matrix, given, k, limits, seed=seed, threads=threads, say=say
        )
    first = done
    asked = Asked.of(matrix, k, queries=given, seed=seed)
    best: Tried | None = None
    longest = 0.0
    for engine in chosen:
        say(first + len(chosen))
        started = perf_counter()
        if engines is None and best is not None and started - begun + longest > 60 * minutes:
            trials.append(Trial(label(engine), verdict=f"no time to build it within {minutes:g} minutes"))
            continue
        one = tried(engine, matrix, asked, recall, seed=seed, threads=threads, ids=named)
        longest = max(longest, perf_counter() - started)
        verdict = _verdict(one.trial, memory)
        if not verdict and (best is None or one.micros < best.micros):
            if best is not None:
                trials.append(replace(best.trial, verdict="others are faster"))
            best = one
        else:
            trials.append(replace(one.trial, verdict=verdict or "others are faster"))
    say(first + len(chosen))
    install = f"pip install 'penstock[{KIND}]'" if lacking else ""
    if best is None or best.main is None:
        told = "; ".join(f"{trial.engine}: {trial.verdict}" for trial in trials)
        remedy = "allow more memory or less recall" + (f", or {install}" if install else "")
        raise VectorError("an engine meets the recall within the memory", got=told or "none to try", remedy=remedy)
    report = Report(
        n, d, k, recall, memory, (replace(best.trial, verdict="taken"), *trials), tuple(lacking), install
    )  # fmt: skip
    return Vectors(best.main, metric, d=d, recall=recall, seed=seed, report=report, queries=given)


def _verdict(trial: Trial, memory: int | None) -> str:
    """Why an engine cannot be taken, empty where it can."""
    if trial.micros is None:
        return "misses the recall"
    if memory is not None and trial.nbytes is not None and trial.nbytes > memory:
        return "takes too much memory"
    return ""


def _fits(recall: float, k: int) -> None:
    if not 0 < recall <= 1:
        raise VectorError("recall is a share above 0, at most 1", got=str(recall), remedy="0.95 is usual")
    if k < 1:
        raise VectorError("k is at least 1", got=str(k), remedy="ask for one neighbour or more")
