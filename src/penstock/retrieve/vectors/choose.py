"""Builds an index: measures the engines that there are, and takes the fastest that meets recall and memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from time import perf_counter

import numpy as np

from penstock.registry import get, name_of, names
from penstock.retrieve.vectors.base import Engine, Floats, Matrix, Metric, State, VectorError, checked, drawn, prepared
from penstock.retrieve.vectors.exact import Exact
from penstock.retrieve.vectors.live import Main, Vectors, ids_of
from penstock.retrieve.vectors.report import Report, Trial
from penstock.retrieve.vectors.tuning import MANY, Asked, apart, tune
from penstock.types import Array, Progress

SCREEN = 30_000
"""Vectors on which engines are compared before the best of them are built in full."""
_FINALISTS = 4
_CLOSE = 3.0
"""How many times the time of the best an engine may take in the screening and still be built in full."""
KIND = "vectors"


@dataclass(frozen=True, eq=False)
class _Tried:
    engine: Engine
    trial: Trial
    main: Main | None

    @property
    def micros(self) -> float:
        """Processor time of a query; infinite where the recall was missed."""
        return np.inf if self.trial.micros is None else self.trial.micros


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
        minutes: a graph that would take longer to build is left out.
        queries: (m, d) that look like those that will be asked, where those do not look like the vectors; at least
            some hundred.
        engines: only these.
        seed: of whatever is drawn; the same seed and engine give the same index.
        threads: used for building; all by default.
        progress: called with (engines done, engines in all).

    Raises:
        VectorError: input that is no matrix of finite numbers, a recall outside 0 … 1, or no engine meets both.

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
    trials: list[Trial] = []

    def say(done: int, total: int) -> None:
        if progress is not None:
            progress(done, total)

    if engines is None and n > SCREEN:
        sample = Matrix(
            matrix.rows(drawn(n, SCREEN, seed)), metric, None if queries is not None else apart(SCREEN, seed)
        )
        pairs = [
            pair for kind in kinds if not kind.lacks()
            for pair in zip(kind.variants(len(sample), d), kind.variants(n, d), strict=True)
        ]  # fmt: skip
        asked = Asked.of(sample, k, queries=given, seed=seed)
        tried: list[_Tried] = []
        for done, (small, full) in enumerate(sorted(pairs, key=lambda pair: pair[1].heavy)):
            say(done, len(pairs) + _FINALISTS)
            if full.heavy and any(np.isfinite(one.micros) and not one.trial.verdict for one in tried):
                tried.append(_Tried(full, Trial(label(full), verdict="not tried: others that build faster do"), None))
                continue
            one = _try(small, sample, asked, recall, seed, threads, named)
            verdict = _foreseen(one.trial, full, n, d, memory, minutes)
            tried.append(replace(one, engine=full, main=None, trial=replace(one.trial, verdict=verdict)))
        ready = sorted((one for one in tried if not one.trial.verdict), key=lambda one: one.micros)
        chosen = [one.engine for one in finalists(ready)]
        # Of whatever the sample promised, exact search keeps the recall.
        if not ready and (memory is None or 4 * n * d <= memory):
            chosen = [Exact()]
        trials += [
            replace(one.trial, verdict=one.trial.verdict or "others are faster")
            for one in tried if one.engine not in chosen
        ]  # fmt: skip
        given_total = len(pairs)
    else:
        chosen = list(engines) if engines is not None else [
            one for kind in kinds if not kind.lacks() for one in kind.variants(n, d)
        ]  # fmt: skip
        given_total = 0
    asked = Asked.of(matrix, k, queries=given, seed=seed)
    best: _Tried | None = None
    for done, engine in enumerate(chosen):
        say(given_total + done, given_total + len(chosen))
        one = _try(engine, matrix, asked, recall, seed, threads, named)
        verdict = _verdict(one.trial, memory)
        if not verdict and (best is None or one.micros < best.micros):
            if best is not None:
                trials.append(replace(best.trial, verdict="others are faster"))
            best = one
        else:
            trials.append(replace(one.trial, verdict=verdict or "others are faster"))
    say(given_total + len(chosen), given_total + len(chosen))
    install = f"pip install 'penstock[{KIND}]'" if lacking else ""
    if best is None or best.main is None:
        told = "; ".join(f"{trial.engine}: {trial.verdict}" for trial in trials)
        remedy = "allow more memory or less recall" + (f", or {install}" if install else "")
        raise VectorError("an engine meets the recall within the memory", got=told or "none to try", remedy=remedy)
    report = Report(
        n, d, k, recall, memory, (replace(best.trial, verdict="taken"), *trials), tuple(lacking), install
    )  # fmt: skip
    return Vectors(best.main, metric, d=d, recall=recall, seed=seed, report=report, queries=given)


def finalists(ready: Sequence[_Tried]) -> list[_Tried]:
    """Of engines by time, those to build in full: the best of each kind, then the next best, none much slower.

    On a sample most of the time is spent on what takes as long whatever the size, so that the order may change.
    """
    near = [one for one in ready if one.micros <= _CLOSE * ready[0].micros]
    kinds = [type(one.engine) for one in near]
    first = [one for at, one in enumerate(near) if kinds.index(type(one.engine)) == at]
    return [*first, *(one for one in near if one not in first)][:_FINALISTS]


def label(engine: Engine) -> str:
    """An engine in words.

    >>> label(Exact())
    'exact()'
    """
    held = ", ".join(f"{field.name}={getattr(engine, field.name)!r}" for field in fields(engine))  # type: ignore[arg-type]
    return f"{name_of(engine)}({held})"


def _try(
    engine: Engine, vectors: Matrix, asked: Asked, recall: float, seed: int, threads: int,
    named: Array | None,
) -> _Tried:  # fmt: skip
    """Builds, tunes and measures one engine."""
    if engine.lacks():
        install = f"pip install 'penstock[{engine.extra}]'"
        raise VectorError("an engine's library is installed", got=f"no {engine.lacks()} here", remedy=install)
    began = perf_counter()
    state: State = engine.fit(vectors, seed=seed, threads=threads)
    took = perf_counter() - began
    searcher = engine.open(state, vectors.metric)
    found = tune(searcher, asked, recall)
    size = sum(array.nbytes for array in state.values())
    trial = Trial(label(engine), len(vectors), round(took, 3), size)
    if found is None:
        return _Tried(engine, trial, None)
    trial = replace(trial, recall=round(found.recall, 4), micros=round(found.seconds * 1e6, 1))
    return _Tried(engine, trial, Main(engine, state, searcher, named, found, asked.k))


def _verdict(trial: Trial, memory: int | None) -> str:
    """Why an engine cannot be taken, empty where it can."""
    if trial.micros is None:
        return "misses the recall"
    if memory is not None and trial.nbytes is not None and trial.nbytes > memory:
        return "takes too much memory"
    return ""


def _foreseen(trial: Trial, full: Engine, n: int, d: int, memory: int | None, minutes: float) -> str:
    """The same for all n vectors, as far as a sample tells."""
    times = n / trial.on
    if trial.micros is None:
        return "misses the recall"
    if memory is not None and (trial.nbytes or 0) * times > memory:
        return "would take too much memory"
    if full.room(n, d) > free() / 2:
        return f"would need {full.room(n, d) / 2**30:,.1f} GiB while it is built"
    # Of lists a sample tells little: most of its time went into what takes as long for many.
    needed = (trial.build_s or 0) * times * float(np.log(n) / np.log(trial.on)) / 60
    if full.heavy and needed > minutes:
        return f"would take some {needed:,.0f} minutes to build"
    return ""


def free() -> int:
    """Bytes of memory that the machine has to spare."""
    try:
        told = Path("/proc/meminfo").read_text()
        return int(told.split("MemAvailable:")[1].split()[0]) * 1024
    except (OSError, LookupError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _fits(recall: float, k: int) -> None:
    if not 0 < recall <= 1:
        raise VectorError("recall is a share above 0, at most 1", got=str(recall), remedy="0.95 is usual")
    if k < 1:
        raise VectorError("k is at least 1", got=str(k), remedy="ask for one neighbour or more")
