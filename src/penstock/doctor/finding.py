"""What a check found, and how it is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["ok", "warn", "wrong"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        part: of what it is: machine, home, log, store, decisions, releases, app.
        name: what was looked at.
        state: ``warn`` is worth knowing, ``wrong`` stops something from working.
        text: what was found.
        remedy: the command that mends it; empty where nothing need be done.
        values: the same for programs, by name.
    """

    part: str
    name: str
    state: State
    text: str
    remedy: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """As JSON values."""
        told = {"part": self.part, "name": self.name, "state": self.state, "text": self.text, "remedy": self.remedy}
        return {**told, **({"values": dict(self.values)} if self.values else {})}


def summary(findings: Sequence[Finding]) -> dict[str, Any]:
    """All of them as JSON values, with how many are wrong."""
    states = Counter(finding.state for finding in findings)
    return {"wrong": states["wrong"], "warnings": states["warn"], "findings": [one.as_dict() for one in findings]}


def size(count: float) -> str:
    """Bytes for people.

    >>> size(512), size(2_500_000)
    ('512 B', '2.5 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1_000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1_000
    return f"{count:.1f} TB"


def span(seconds: float) -> str:
    """A time span for people, in its largest unit.

    >>> span(42), span(7_200), span(200_000)
    ('42 s', '2 h', '2 days')
    """
    for unit, width in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * width:
            return f"{seconds / width:.0f} {unit}"
    return f"{seconds:.0f} s"
