"""Whether a guess holds: the rows that were looked at, made events by the mapping and the app as they were written."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.clock import SystemClock
from penstock.events.convert import convert
from penstock.events.mapping import Mapping
from penstock.events.rejection import Rejection
from penstock.events.schema import Event, event_type
from penstock.events.tabular import ROW, Table
from penstock.scaffold.sample import Sample


@dataclass(frozen=True)
class Checked:
    """How many rows became events or were filtered out, and those that were refused."""

    events: int
    dropped: int
    refused: list[Rejection]

    def counts(self) -> dict[str, int]:
        """Rows in all, and by what became of them."""
        refused = len(self.refused)
        rows = self.events + self.dropped + refused
        return {"rows": rows, "events": self.events, "dropped": self.dropped, "refused": refused}

    def __str__(self) -> str:
        rows = self.counts()["rows"]
        rest = f", {self.dropped:,} are filtered out" if self.dropped else ""
        rest += f", {len(self.refused):,} are refused" if self.refused else ""
        return f"of {rows:,} rows {self.events:,} become events{rest}"


def check(sample: Sample, mapping: Mapping, cls: type[Event]) -> Checked:
    """Converts the rows of a sample as `penstock ingest` converts those of the file."""
    frame = sample.frame
    if mapping.csv.columns:
        frame = frame.rename(dict(zip(frame.columns, mapping.csv.columns, strict=True)))
    table = Table(frame.with_row_index(ROW), [])
    done = convert(table, mapping, event_type(cls), "sample", 512, SystemClock().latest())
    return Checked(len(done.frame), done.dropped, done.rejected)
