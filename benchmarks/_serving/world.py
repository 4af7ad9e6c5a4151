"""The shop's history, its release, and what its peers need of both; built once and kept in `.bench`."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

import penstock as ps
from benchmarks._peers import KEPT
from benchmarks._serving import load
from penstock.clock import EventsClock
from penstock.errors import ReleaseError
from penstock.events import schema_of
from penstock.releases import Release, read
from penstock.retrieve import Query
from penstock.simulator import World
from penstock.types import Accepted

APP = Path(__file__).with_name("app.py")
EVENTS = 60_000
USERS = 500
TREES, LEAVES, COLUMNS, CANDIDATES = 300, 63, 40, 200
DECIDE, POST = "/v1/decide/home", "/v1/events"
_FORM = ("aggregates", "events", "features", "stores", "engines", "retrieve", "learn", "releases", "simulator")


class Shop:
    """The built shop.

    Attributes:
        home: to be copied before it is served.
        peers: a folder of plain files: the model, rows of features, candidates.
        users: who is asked for.
        items: every item with features.
        newest: the time of the newest event, in seconds since 1970.
    """

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.peers = folder / "peers"
        facts: dict[str, Any] = json.loads((folder / "facts.json").read_text())
        self.users: list[str] = facts["users"]
        self.items: list[str] = facts["items"]
        self.newest: float = facts["newest"]

    def asks(self, seed: int) -> list[bytes]:
        """Requests for decisions on drawn shoppers."""
        drawn = np.random.default_rng(seed).integers(len(self.users), size=2_000)
        return [load.post(DECIDE, json.dumps({"user": self.users[i], "k": 20}).encode()) for i in drawn]


class Feed:
    """Endless events of a shop, each later than those before it: nothing is ever sent twice."""

    def __init__(self, shop: Shop, rate: float) -> None:
        self._shop = shop
        self._gap = 1 / rate
        self._time = shop.newest
        self._draw = np.random.default_rng(11)

    def posts(self, count: int, size: int) -> list[bytes]:
        """So many requests of so many events each."""
        return [load.post(POST, json.dumps([self.event() for _ in range(size)]).encode()) for _ in range(count)]

    def event(self) -> dict[str, Any]:
        """The next event."""
        self._time += self._gap
        user, item = self._draw.integers(len(self._shop.users)), self._draw.integers(len(self._shop.items))
        kind = ("view", "view", "view", "view", "cart", "buy")[self._draw.integers(6)]
        return {
            "user": self._shop.users[user],
            "item": self._shop.items[item],
            "kind": kind,
            "price": "19.99",
            "time": round(self._time, 6),
        }


def built() -> Shop:
    """The shop, from `.bench` where it is there as this source makes it."""
    source = Path(ps.__file__).parent
    files = [Path(__file__), APP, *(path for part in _FORM for path in sorted((source / part).rglob("*.py")))]
    key = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]
    folder = KEPT / f"shop-{key}"
    if not (folder / "facts.json").exists():
        for old in KEPT.glob("shop-*"):
            shutil.rmtree(old)
        _build(folder)
    return Shop(folder)


def _build(folder: Path) -> None:
    (folder / "peers").mkdir(parents=True)
    with ps.load(APP) as app:
        app.clock = EventsClock()
        app.home = folder / "home"
        schema = schema_of(next(iter(app.events.values())))
        frame = World.of_size(EVENTS).events().frame().select("id", "time", *(f.name for f in schema.fields))
        events = [Accepted(schema.stream, id, time, tuple(values)) for id, time, *values in frame.rows()]
        log = app.log()
        log.append(events, [event.time for event in events])
        log.close()
        trained = app.train()
        model = app.home / "releases" / trained.release / "model.txt"
        _check(lightgbm.Booster(model_file=model))
        shutil.copy(model, folder / "peers" / "model.txt")
        counts = frame["user"].value_counts(sort=True)["user"].to_list()
        users, items = sorted(counts[:USERS]), sorted(set(frame["item"].to_list()))
        _export(app, trained.release, users, items, folder / "peers")
        facts = {"users": users, "items": items, "newest": events[-1].time / 1e6}
    (folder / "facts.json").write_text(json.dumps(facts))


def _check(booster: lightgbm.Booster) -> None:
    leaves = [tree["num_leaves"] for tree in booster.dump_model()["tree_info"]]
    if (len(leaves), min(leaves), max(leaves), booster.num_feature()) != (TREES, LEAVES, LEAVES, COLUMNS):
        raise ReleaseError(
            f"the benchmark's ranker has {TREES} trees of {LEAVES} leaves over {COLUMNS} columns",
            got=f"{len(leaves)} trees of {min(leaves)} to {max(leaves)} leaves over {booster.num_feature()}",
            remedy="see benchmarks/_serving/app.py",
        )


def _export(app: ps.App, release: str, users: Sequence[str], items: Sequence[str], folder: Path) -> None:
    """What a peer would have in its own stores: rows by shopper and item, and candidates with sources' scores."""
    served = read(app.home / "releases", release)
    assert isinstance(served, Release)
    place = {item: i for i, item in enumerate(items)}
    columns = {
        view: [name.partition(".")[2] for name in served.recipe.assembler.names if name.startswith(f"{view}.")]
        for view in ("Shopper", "Product")
    }
    np.save(folder / "user_rows.npy", _rows(app, "Shopper", users, columns["Shopper"]))
    np.save(folder / "item_rows.npy", _rows(app, "Product", items, columns["Product"]))
    chosen = np.zeros((len(users), CANDIDATES), np.int32)
    scores = np.full((len(users), CANDIDATES, len(served.recipe.assembler.scores)), np.nan, np.float32)
    strings = app.open().log.strings
    for i, user in enumerate(users):
        found = [item.id for item in app.decide("home", user=user, k=CANDIDATES).items]
        chosen[i] = [place[item] for item in found]
        at = {strings.code(item): j for j, item in enumerate(found)}
        recent = np.array([strings.code(item) for item in app.features("Shopper", user)["recent"]])
        query, column = Query({"recent": recent.astype(np.uint32)}, {}), 0
        for source in served.recipe.sources:
            if not source.columns:
                continue
            part = source.find(query, served.indexes.get(source.label, {}))
            for code, row in zip(part.items.tolist(), part.scores, strict=True):
                if code in at:
                    scores[i, at[code], column : column + len(row)] = row
            column += len(source.columns)
    np.save(folder / "candidates.npy", chosen)
    np.save(folder / "scores.npy", scores)
    (folder / "names.json").write_text(json.dumps({"users": users, "items": items, "columns": columns}))


def _rows(app: ps.App, view: str, keys: Sequence[str], columns: Sequence[str]) -> NDArray[np.float32]:
    found = [app.features(view, key) for key in keys]
    return np.array([[np.nan if row[name] is None else row[name] for name in columns] for row in found], np.float32)
