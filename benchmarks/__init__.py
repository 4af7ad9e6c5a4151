"""One file a claim: each module here has `run`, and `python -m benchmarks NAME --json` runs it.

A module that takes options of its own adds them in `arguments(parser)`; its `run` is given what was chosen.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True)
class Result:
    """One measured claim: `ratio` is how many times better than the peer, None where the peer is absent."""

    name: str
    ours: float
    peer: float | None
    ratio: float | None
    unit: str
    detail: str | Mapping[str, Any]


def circumstances() -> dict[str, Any]:
    """The machine, the day, and how busy the machine was before."""
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return {
        "machine": f"{os.cpu_count()} cores, {system}",
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "load_before": round(os.getloadavg()[0], 2),
    }
