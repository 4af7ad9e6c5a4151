"""A bank's payments, generated: a history with a release of the fraud app over it, and payments without end."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import penstock as ps
from benchmarks._peers import KEPT
from penstock.clock import DAY, SECOND, EventsClock
from penstock.types import Accepted

APP = Path(ps.__file__).parent / "apps" / "fraud" / "app.py"
CUSTOMERS, TERMINALS, DAYS, A_DAY = 5_000, 10_000, 45, 4_000
BEGIN = 1_750_000_000
_FORM = ("aggregates", "events", "features", "stores", "engines", "learn", "releases", "apps")


@dataclass(frozen=True)
class Bank:
    """A home folder in which a release is in charge; its newest event is dated `newest`, in seconds."""

    home: Path
    newest: float


def built() -> Bank:
    """The bank, from `.bench` where it is there as this source makes it."""
    source = Path(ps.__file__).parent
    files = [Path(__file__), *(path for part in _FORM for path in sorted((source / part).rglob("*.py")))]
    key = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]
    folder = KEPT / f"bank-{key}"
    if not (folder / "facts.json").exists():
        for old in KEPT.glob("bank-*"):
            shutil.rmtree(old)
        _build(folder)
    return Bank(folder / "home", json.loads((folder / "facts.json").read_text())["newest"])


def _build(folder: Path) -> None:
    folder.mkdir(parents=True)
    with ps.load(APP) as app:
        app.clock, app.home = EventsClock(), folder / "home"
        app.home.mkdir()
        events = list(_history(np.random.default_rng(5)))
        log = app.log()
        for start in range(0, len(events), 50_000):
            part = events[start : start + 50_000]
            log.append(part, [event.time for event in part])
        log.close()
        app.train()
        app.open()
    (folder / "facts.json").write_text(json.dumps({"newest": events[-1].time / SECOND}))


def _history(random: np.random.Generator) -> Iterator[Accepted]:
    """Payments of some weeks by time, large ones and those at compromised terminals frauds, and their chargebacks."""
    found = []
    compromised = set(random.integers(0, TERMINALS, 30).tolist())
    for i in range(DAYS * A_DAY):
        customer, terminal = int(random.integers(CUSTOMERS)), int(random.integers(TERMINALS))
        amount = round(float(random.gamma(2, 2_500))) + 100
        if random.random() < 0.02:
            terminal = int(random.choice(list(compromised)))
        fraud = random.random() < (0.6 if terminal in compromised else 0.002)
        if fraud and terminal not in compromised:
            amount *= 5
        time = BEGIN * SECOND + i * (DAY // A_DAY)
        who = (f"c{customer}", f"t{terminal}", amount, f"d{customer}")
        found.append(Accepted("payment", f"h{i}", time, who))
        if fraud and i < (DAYS - 7) * A_DAY:
            found.append(Accepted("chargeback", f"b{i}", time + 7 * DAY, (f"h{i}", *who, None)))
    yield from sorted(found, key=lambda event: event.time)


class Feed:
    """Endless payments, `rate` a second of the bank's own time, each later than those before it."""

    def __init__(self, bank: Bank, rate: float) -> None:
        self._time = bank.newest
        self._gap = 1 / rate
        self._random = np.random.default_rng(9)
        self._made = 0

    def payment(self, customer: str | None = None, later: float | None = None) -> dict[str, Any]:
        """The next payment.

        Args:
            customer: who pays; anybody, where absent.
            later: seconds after the one before; the usual gap, where absent.
        """
        self._time += self._gap if later is None else later
        self._made += 1
        anybody = int(self._random.integers(CUSTOMERS))
        return {
            "stream": "payment", "id": f"l{self._made}", "time": round(self._time, 6),
            "customer": customer or f"c{anybody}", "terminal": f"t{self._random.integers(TERMINALS)}",
            "amount": f"{self._random.gamma(2, 25) + 1:.2f}", "device": f"d{anybody}",
        }  # fmt: skip
