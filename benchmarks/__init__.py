"""One file a claim: each module here has `run() -> Result`, and `python -m benchmarks NAME --json` runs it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """One measured claim: `ratio` is how many times better than the peer, None where the peer is absent."""

    name: str
    ours: float
    peer: float | None
    ratio: float | None
    unit: str
    detail: str
