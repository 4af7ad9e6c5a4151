"""Open Bandit Pipeline in a process of its own, given the same logs, targets and expected rewards."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks._peers import SETUP
from penstock.evaluate.off_policy import Logged
from penstock.types import Array

_SCRIPT = Path(__file__).parent / "peers" / "obp_estimates.py"
_DRAWS = 200
Answers = dict[str, list[float]]


class Rival:
    """A running peer."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process, self._file = process, folder / "log.npz"

    def ask(self, logged: Logged, target: Array, expected: Array) -> Answers:
        """By estimator the value and the ends of its 95 % interval, by the bootstrap."""
        np.savez(
            self._file, reward=logged.reward, action=logged.action, propensity=logged.propensity, target=target,
            expected=expected,
        )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{self._file}\n")
        self._process.stdin.flush()
        answer: Answers = json.loads(self._process.stdout.readline())
        return answer


@contextmanager
def rival(python: Path | None) -> Iterator[Rival | None]:
    """The peer, or None where it is not installed."""
    if python is None or not python.exists():
        yield None
        return
    with TemporaryDirectory() as folder:
        command = [str(python), str(_SCRIPT), str(_DRAWS)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            if process.stdout.readline().strip() != "ready":
                raise SystemExit(f"the peer did not start; install it with {SETUP}")
            yield Rival(process, Path(folder))
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(timeout=60)
