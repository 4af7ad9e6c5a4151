"""One connection to a server, one request at a time, with the least between the line and the clock."""

from __future__ import annotations

import http.client
import json
from typing import Any

from benchmarks._serving.load import Address


class Line:
    """A connection that is kept, and opened anew once the server says that it closes it.

    Attributes:
        pid: the process that answers on it.
    """

    def __init__(self, address: Address) -> None:
        self._connection = http.client.HTTPConnection(*address, timeout=30)
        self.pid = 0
        self.greet()

    def greet(self) -> None:
        """Finds out who answers."""
        self.pid = int(self.ask("GET", "/healthz")[1]["pid"])

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Sends one request; returns the status and what the body says."""
        text = None if body is None else json.dumps(body)
        self._connection.request(method, path, text)
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read())

    def close(self) -> None:
        self._connection.close()


def lines(address: Address, workers: int) -> list[Line]:
    """One connection to each worker: connections are opened until every one has answered."""
    found: dict[int, Line] = {}
    spare = []
    while len(found) < workers:
        line = Line(address)
        if line.pid in found:
            # Kept open, so that the next one goes to somebody else sooner.
            spare.append(line)
        else:
            found[line.pid] = line
    for line in spare:
        line.close()
    return list(found.values())
