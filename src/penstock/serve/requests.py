"""What a decision is asked with, and what it answers."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec


class DecideRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a decision request."""

    user: str
    context: dict[str, str | int | float | bool | None] | None = None
    event: dict[str, Any] | None = None
    k: Annotated[int, msgspec.Meta(ge=1, le=500)] | None = None
    budget_ms: Annotated[float, msgspec.Meta(gt=0, le=10_000)] | None = None


class Item(msgspec.Struct, frozen=True):
    """One item of an answer; `propensity` is the chance that it stood there, given those above it."""

    id: str
    score: float
    propensity: float


class Answer(msgspec.Struct):
    """A decision. `timings` are milliseconds a stage and go into the Server-Timing header."""

    decision_id: str
    items: list[Item]
    tier: str
    release: str | None
    arm: str
    timings: dict[str, float]
