"""Where the peers are: each in an environment of its own under `.bench`, named as its file in a folder `peers` here."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
KEPT = ROOT / ".bench"
SETUP = "make bench-setup"


def interpreter(name: str, kept: Path = KEPT) -> Path | None:
    """The Python that has a peer, None where it is not installed; `SETUP` installs all."""
    path = kept / name / "bin" / "python"
    return path if path.exists() else None
