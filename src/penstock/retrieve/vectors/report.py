"""What was measured of each engine when an index was built, and why one of them was taken."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Trial:
    """One engine. Figures are None where it was not measured; `on` is the number of vectors it was measured on.

    Attributes:
        engine: its name and what it is built with.
        on: 0 where it was not tried.
        build_s: seconds that building took, with all threads.
        nbytes: of its arrays.
        recall: measured on held-out queries, at the setting that was found.
        micros: processor time of one query by itself, in microseconds.
        verdict: "taken", or why not.
    """

    engine: str
    on: int = 0
    build_s: float | None = None
    nbytes: int | None = None
    recall: float | None = None
    micros: float | None = None
    verdict: str = ""


@dataclass(frozen=True)
class Report:
    """All trials, the one that was taken first.

    Attributes:
        n, d: vectors and dimensions.
        k, recall: what was asked: of the k nearest, the share to be found.
        memory: bytes that it may take, None where that was left open.
        missing: packages that further engines need, and the command that installs them.
    """

    n: int
    d: int
    k: int
    recall: float
    memory: int | None
    trials: tuple[Trial, ...]
    missing: tuple[str, ...] = ()
    install: str = ""

    @property
    def why(self) -> str:
        """One sentence: what was taken, and beside what."""
        taken = self.trials[0]
        measured = [trial for trial in self.trials[1:] if trial.on]
        room = f" within {_size(self.memory)}" if self.memory is not None else ""
        told = f"{taken.engine} is the fastest of {len(measured) + 1} that were measured"
        told += f" with recall@{self.k} of at least {self.recall}{room}: {_figures(taken)}"
        return told + (f"; without {', '.join(self.missing)} ({self.install})" if self.missing else "")

    @property
    def text(self) -> str:
        """`why`, and a line for each trial."""
        lines = [self.why]
        for trial in self.trials:
            on = f"on {trial.on:,}: {_figures(trial)}; " if trial.on else ""
            lines.append(f"  {trial.engine}: {on}{trial.verdict}")
        return "\n".join(lines)

    def spec(self) -> dict[str, Any]:
        """The report as JSON values."""
        return asdict(self)

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Report:
        """The report that `spec` wrote down."""
        trials = tuple(Trial(**trial) for trial in spec["trials"])
        return cls(**{**spec, "trials": trials, "missing": tuple(spec["missing"])})


def _figures(trial: Trial) -> str:
    recall = "recall missed" if trial.recall is None else f"recall {trial.recall:.3f}"
    micros = "" if trial.micros is None else f" at {trial.micros:,.0f} µs"
    return f"{recall}{micros}, {_size(trial.nbytes)}, built in {trial.build_s or 0:,.1f} s"


def _size(count: int | None) -> str:
    if count is None:
        return "no size"
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
