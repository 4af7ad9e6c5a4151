"""Engines compared on a sample, so that only the best of them are built in full."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from time import perf_counter

import numpy as np

from penstock.registry import name_of
from penstock.retrieve.vectors.allowed import Ids
from penstock.retrieve.vectors.base import Engine, Floats, Matrix, VectorError, drawn
from penstock.retrieve.vectors.exact import Exact
from penstock.retrieve.vectors.live import Main
from penstock.retrieve.vectors.report import Trial
from penstock.retrieve.vectors.tuning import Asked, apart, grown, tune

SCREEN = 30_000
"""Vectors on which engines are compared before the best of them are built in full."""
_FINALISTS = 4
_CLOSE = 2.0
"""How many times the time of the best an engine may be expected to take and still be built in full."""


@dataclass(frozen=True)
class Limits:
    """What an index has to keep to: recall, bytes of memory (None where open), minutes of building."""

    recall: float
    memory: int | None
    minutes: float


@dataclass(frozen=True, eq=False)
class Tried:
    """An engine that was measured; `expected` are microseconds of a query of all vectors, where these were some."""

    engine: Engine
    trial: Trial
    main: Main | None = None
    expected: float = np.inf

    @property
    def micros(self) -> float:
        """Processor time of a query; infinite where the recall was missed."""
        return np.inf if self.trial.micros is None else self.trial.micros


def screened(
    kinds: Sequence[type[Engine]], vectors: Matrix, queries: Floats | None, k: int, limits: Limits, *, seed: int,
    threads: int, say: Callable[[int], None],
) -> tuple[list[Engine], list[Trial]]:  # fmt: skip
    """The engines to build in full, the most promising first, and why the others are none of them."""
    n, d = len(vectors), vectors.d
    held_out = None if queries is not None else apart(SCREEN, seed)
    sample = Matrix(vectors.rows(drawn(n, SCREEN, seed)), vectors.metric, held_out)
    pairs = [pair for kind in kinds for pair in zip(kind.variants(len(sample), d), kind.variants(n, d), strict=True)]
    asked = Asked.of(sample, k, queries=queries, seed=seed)
    found: list[Tried] = []
    for small, full in sorted(pairs, key=lambda pair: pair[1].heavy):
        say(len(pairs) + _FINALISTS)
        if full.heavy and any(np.isfinite(one.micros) and not one.trial.verdict for one in found):
            found.append(Tried(full, Trial(label(full), verdict="not tried: others that build faster do")))
            continue
        one = tried(small, sample, asked, limits.recall, seed=seed, threads=threads, times=n / len(sample))
        trial = replace(one.trial, verdict=foreseen(one.trial, full, n, d, limits))
        found.append(replace(one, engine=full, main=None, trial=trial))
    ready = sorted((one for one in found if not one.trial.verdict), key=lambda one: one.expected)
    chosen = [one.engine for one in finalists(ready)]
    # Whatever the sample said of the others, exact search keeps the recall.
    if not ready and (limits.memory is None or 4 * n * d <= limits.memory):
        chosen = [Exact()]
    left = [one.trial for one in found if one.engine not in chosen]
    return chosen, [replace(trial, verdict=trial.verdict or "others are faster") for trial in left]


def tried(
    engine: Engine, vectors: Matrix, asked: Asked, recall: float, *, seed: int, threads: int, ids: Ids | None = None,
    times: float = 1.0,
) -> Tried:  # fmt: skip
    """Builds, tunes and measures one engine; what it would take for `times` as many vectors is estimated."""
    if engine.lacks():
        install = f"pip install 'penstock[{engine.extra}]'"
        raise VectorError("an engine's library is installed", got=f"no {engine.lacks()} here", remedy=install)
    began = perf_counter()
    state = engine.fit(vectors, seed=seed, threads=threads)
    took = perf_counter() - began
    searcher = engine.open(state, vectors.metric)
    found = tune(searcher, asked, recall)
    size = sum(array.nbytes for array in state.values())
    trial = Trial(label(engine), len(vectors), round(took, 3), size)
    if found is None:
        return Tried(engine, trial)
    trial = replace(trial, recall=round(found.recall, 4), micros=round(found.seconds * 1e6, 1))
    expected = 1e6 * (found.seconds if times == 1 else grown(searcher, asked, found, times))
    return Tried(engine, trial, Main(engine, state, searcher, ids, found, asked.k), expected)


def finalists(ready: Sequence[Tried]) -> list[Tried]:
    """Of engines by time, those to build in full: the best of each kind, then the next best, none much slower."""
    near = [one for one in ready if one.expected <= _CLOSE * ready[0].expected]
    kinds = [type(one.engine) for one in near]
    first = [one for at, one in enumerate(near) if kinds.index(type(one.engine)) == at]
    return [*first, *(one for one in near if one not in first)][:_FINALISTS]


def foreseen(trial: Trial, full: Engine, n: int, d: int, limits: Limits) -> str:
    """Why an engine cannot be built for n vectors, as far as a sample tells; empty where nothing is against it."""
    times = n / trial.on
    if trial.micros is None:
        return "misses the recall"
    if limits.memory is not None and (trial.nbytes or 0) * times > limits.memory:
        return "would take too much memory"
    if full.room(n, d) > free() / 2:
        return f"would need {full.room(n, d) / 2**30:,.1f} GiB while it is built"
    # Of lists a sample tells little: most of its time went into what takes as long for many.
    needed = (trial.build_s or 0) * times * float(np.log(n) / np.log(trial.on)) / 60
    if full.heavy and needed > limits.minutes:
        return f"would take some {needed:,.0f} minutes to build"
    return ""


def free() -> int:
    """Bytes of memory that the machine has to spare."""
    try:
        told = Path("/proc/meminfo").read_text()
        return int(told.split("MemAvailable:")[1].split()[0]) * 1024
    except (OSError, LookupError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def label(engine: Engine) -> str:
    """An engine in words.

    >>> label(Exact())
    'exact()'
    """
    held = ", ".join(f"{field.name}={getattr(engine, field.name)!r}" for field in fields(engine))  # type: ignore[arg-type]
    return f"{name_of(engine)}({held})"
