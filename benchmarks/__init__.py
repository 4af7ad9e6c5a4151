"""One file a claim: each module here has `run`, and `python -m benchmarks NAME --json` runs it.

A module that takes options of its own adds them in `arguments(parser)`; its `run` is given what was chosen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
