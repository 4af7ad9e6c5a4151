"""A month of payments streamed through a running server, and what came of each."""

from __future__ import annotations

import heapq
import itertools
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

import penstock as ps
from benchmarks._fraud.protocol import Payments
from benchmarks._serving.asking import Line
from benchmarks._serving.load import Address
from penstock.clock import DAY, HOUR, SECOND
from penstock.learn import ACTIONS
from penstock.types import Accepted

DELAY = 7 * DAY
"""After how long a fraud that went through becomes known."""
LOOK = HOUR
"""After how long a review is done."""
SLICE = HOUR // 2
"""Outcomes are posted at the end of each such span."""
_LINES = 12
_SAID = 5_000


def payment(payments: Payments, at: int) -> dict[str, Any]:
    """One payment as it is sent."""
    cents = int(payments.amount[at])
    return {
        "stream": "payment", "id": f"p{at}", "time": int(payments.time[at]) / SECOND,
        "customer": f"c{payments.customer[at]}", "terminal": f"t{payments.terminal[at]}",
        "amount": f"{cents // 100}.{cents % 100:02d}",
    }  # fmt: skip


def remember(app: ps.App, payments: Payments, start: int) -> None:
    """Puts what was known at `start`, microseconds, into the app's log: payments, and chargebacks of old frauds."""
    known = np.flatnonzero(payments.time < start)
    late = known[payments.fraud[known] & (payments.time[known] + DELAY < start)]
    time = np.r_[payments.time[known], payments.time[late] + DELAY]
    about = np.r_[known, late]
    app.home.mkdir(parents=True, exist_ok=True)
    log = app.log()
    order = np.argsort(time, kind="stable")
    for part in np.array_split(order, max(1, len(order) // 50_000)):
        events = []
        for place in part.tolist():
            at = int(about[place])
            who = (f"c{payments.customer[at]}", f"t{payments.terminal[at]}", int(payments.amount[at]), None)
            if place < len(known):
                events.append(Accepted("payment", f"p{at}", int(time[place]), who))
            else:
                events.append(
                    Accepted(
                        "chargeback", f"b{at}", int(time[place]), (f"p{at}", *who, int(payments.usual[at]) or None)
                    )
                )
        log.append(events, [event.time for event in events])
    log.close()


@dataclass
class Month:
    """Payments as they were decided: (n,) places among all payments, and what was done with each.

    Args:
        payments: all of them; those of the month are at `at`.
    """

    payments: Payments
    at: NDArray[np.int64]
    action: NDArray[np.int8] = field(init=False)
    rules: int = 0
    explored: int = 0
    errors: int = 0

    def __post_init__(self) -> None:
        self.action = np.full(len(self.at), -1, np.int8)

    def stream(self, address: Address, weekly: Callable[[int], None]) -> None:
        """Sends every payment in its order, and outcomes as they become known.

        Args:
            weekly: called between two payments whenever a week has passed, with the time.
        """
        lines = [Line(address) for _ in range(_LINES)]
        waiting = [(round(event["time"] * SECOND), -place, event) for place, event in enumerate(self._still_to_come())]
        heapq.heapify(waiting)
        numbers = itertools.count(1)
        week = int(self.payments.time[self.at[0]]) + 7 * DAY
        for first, last, end in self._slices():
            while week <= end:
                for line in lines:
                    line.close()
                weekly(week)
                # Training takes longer than the server keeps a connection that is not used.
                lines = [Line(address) for _ in range(_LINES)]
                week += 7 * DAY
            self._decide(lines, first, last)
            for place in range(first, last):
                for event in self._came(place):
                    heapq.heappush(waiting, (round(event["time"] * SECOND), next(numbers), event))
            due = []
            while waiting and waiting[0][0] <= end:
                due.append(heapq.heappop(waiting)[2])
            if due and lines[0].ask("POST", "/v1/events", due)[0] != 202:
                self.errors += 1
            if first // _SAID < last // _SAID:
                print(f"{last:,} of {len(self.at):,} payments", file=sys.stderr, flush=True)
        for line in lines:
            line.close()

    def _still_to_come(self) -> Iterator[dict[str, Any]]:
        """The chargebacks of frauds before the month that were not known when it began."""
        begin = int(self.payments.time[self.at[0]])
        before = np.flatnonzero(self.payments.fraud & (self.payments.time < begin))
        for at in before[self.payments.time[before] + DELAY >= begin].tolist():
            yield self._chargeback(payment(self.payments, at), at)

    def _slices(self) -> Iterator[tuple[int, int, int]]:
        """Places [first, last) of the payments of each span, and when it ends."""
        time = self.payments.time[self.at]
        edges = np.arange(int(time[0]) + SLICE, int(time[-1]) + 2 * SLICE, SLICE)
        cuts = np.searchsorted(time, edges).tolist()
        yield from zip([0, *cuts[:-1]], cuts, edges.tolist(), strict=True)

    def _decide(self, lines: Sequence[Line], first: int, last: int) -> None:
        """Each line takes the next payment once it is answered, so that they arrive nearly in their order."""
        places = iter(range(first, last))
        taking = threading.Lock()

        def work(line: Line) -> None:
            while True:
                with taking:
                    place = next(places, None)
                if place is None:
                    return
                event = payment(self.payments, int(self.at[place]))
                status, said = line.ask("POST", "/v1/decide/payment", {"event": event, "budget_ms": 1_000})
                if status != 200:
                    self.errors += 1
                    continue
                self.action[place] = ACTIONS.index(said["action"])
                self.rules += said["tier"] == "rules"

        threads = [threading.Thread(target=work, args=(line,)) for line in lines]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _came(self, place: int) -> Iterator[dict[str, Any]]:
        """What becomes known of a payment: a review says at once what it was, a fraud that went through comes back.

        Of a payment that was declined nothing is ever heard.
        """
        at, action = int(self.at[place]), int(self.action[place])
        sent = payment(self.payments, at)
        fraud = bool(self.payments.fraud[at])
        named = {name: sent[name] for name in ("customer", "terminal")}
        if action == ACTIONS.index("review"):
            time = sent["time"] + LOOK / SECOND
            yield {"stream": "review", "id": f"r{at}", "time": time, "payment": sent["id"], "fraud": fraud, **named}
        elif action == ACTIONS.index("approve") and fraud:
            yield self._chargeback(sent, at)

    def _chargeback(self, sent: dict[str, Any], at: int) -> dict[str, Any]:
        named = {name: sent[name] for name in ("customer", "terminal", "amount")}
        if cents := int(self.payments.usual[at]):
            named["usual"] = f"{cents // 100}.{cents % 100:02d}"
        time = sent["time"] + DELAY / SECOND
        return {"stream": "chargeback", "id": f"b{sent['id']}", "time": time, "payment": sent["id"], **named}
