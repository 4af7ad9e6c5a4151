"""Where the demo's events come from: a file, or the simulated shop."""

from __future__ import annotations

from collections.abc import Mapping as ReadOnly
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from penstock.app import App
from penstock.commands import event_type, known_mapping
from penstock.errors import MappingError, RequestError
from penstock.events import Mapping, read_file, schema_of
from penstock.simulator import World
from penstock.types import Accepted, Micros, Schema

SEARCHES = 0.15
"""The share of the simulated shop's views that came from a search."""


@dataclass(frozen=True)
class Stream:
    """Events in the order of their arrival, and what was not taken; `world` is where simulated ones happened."""

    events: Sequence[Accepted]
    arrived: Sequence[Micros]
    schema: Schema
    rejected: int = 0
    world: World | None = None

    def cut(self, last: Micros) -> tuple[int, Micros]:
        """Where the newest span of length `last` begins: a place in the events, and the time."""
        start = self.arrived[-1] - last
        place = next((i for i, at in enumerate(self.arrived) if at > start), len(self.arrived))
        if not 0 < place < len(self.arrived):
            raise RequestError(
                "the demo learns from what came before the span that it replays",
                got=f"{place:,} events before it and {len(self.arrived) - place:,} in it",
                remedy="choose another --last",
            )
        return place, start

    def as_json(self, event: Accepted) -> dict[str, Any]:
        """An event as a client sends it."""
        body: dict[str, Any] = {"stream": event.stream, "id": event.id, "time": _rfc3339(event.time)}
        for field, value in zip(self.schema.fields, event.values, strict=True):
            if value is not None:
                body[field.name] = f"{value // 100}.{value % 100:02d}" if field.kind == "money" else value
        return body


def from_file(app: App, file: Path, mapping: Path | None) -> Stream:
    """The events of a file, through its mapping."""
    chosen = Mapping.load(mapping) if mapping else known_mapping(file)
    cls = event_type(app, chosen)
    found = read_file(file, chosen, cls)
    events: list[Accepted] = []
    arrived: list[Micros] = []
    for part, times in found.chunks():
        events += part
        arrived += times
    if not events:
        raise MappingError("a file holds events", got=f"none in {file}", remedy="check its mapping")
    return Stream(events, arrived, schema_of(cls), len(found.rejected))


def from_simulator(app: App, size: int, seed: int) -> Stream:
    """About `size` events of the simulated shop."""
    cls = next(iter(app.events.values()))
    schema = schema_of(cls)
    world = World.of_size(size, seed=seed, searches=SEARCHES)
    frame = world.events().frame().join(world.products["item", "name", "brand"], on="item", maintain_order="left")
    columns: ReadOnly[str, list[Any]] = {
        f.name: frame[f.name].to_list() if f.name in frame.columns else [None] * len(frame) for f in schema.fields
    }
    values = zip(*columns.values(), strict=True)
    rows = zip(frame["id"].to_list(), frame["time"].to_list(), values, strict=True)
    events = [Accepted(schema.stream, name, time, given) for name, time, given in rows]
    return Stream(events, [event.time for event in events], schema, world=world)


def _rfc3339(micros: Micros) -> str:
    whole, part = divmod(micros, 1_000_000)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{part:06d}Z"
