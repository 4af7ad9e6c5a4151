"""What was guessed, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penstock.scaffold.guess import Guess


def lines(guess: Guess) -> Iterator[str]:
    """A line for each field: the column, why it is that one, and below it what is unsure."""
    width = max(len(part.name) for part in guess.found.values())
    for field, part in guess.found.items():
        yield f"  {field:<9} {part.name:<{width}}  {part.why}"
        yield from (f"          ? {doubt}" for doubt in part.doubts)
    if guess.extras:
        yield f"  further   {', '.join(extra.column for extra in guess.extras.values())}"
    if guess.left:
        yield f"  left out  {', '.join(name or '(no name)' for name in guess.left)}"


def told(guess: Guess) -> dict[str, Any]:
    """The same as plain values."""
    fields = [
        {"field": field, "column": part.column, "why": part.why, "doubts": list(part.doubts)}
        for field, part in guess.found.items()
    ]
    extras = [{"field": field, "column": extra.column, "type": extra.type} for field, extra in guess.extras.items()]
    return {"fields": fields, "further": extras, "left_out": list(guess.left)}
