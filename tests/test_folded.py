"""Reading through what was folded before gives, byte for byte, what decoding and folding every record gives."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.clock import HOUR, MINUTE, SECOND
from penstock.engines import StreamEngine
from penstock.events.rows import RowsLog
from penstock.features import View
from penstock.features.assemble import EDITION
from penstock.features.folded import Folded
from penstock.features.records import decode, fold
from penstock.stores import LmdbStore, MemoryStore
from penstock.types import Array, Snapshot
from test_engines import EVENT, TEXTS, VIEWS, rows_of

BACK, SOON = -20 * MINUTE, 2 * SECOND


def plainly(snapshot: Snapshot, view: View, keys: Array, now: int) -> dict[str, Array]:
    """Every record decoded and folded."""
    records = snapshot.get(view.version, [view.key(key) for key in keys.tolist()])
    return fold(view, decode(view, records), np.full(len(keys), now))


def alike(found: Mapping[str, Array], wanted: Mapping[str, Array]) -> None:
    assert list(found) == [*wanted, EDITION]
    for name, column in wanted.items():
        assert (found[name].dtype, found[name].shape) == (column.dtype, column.shape), name
        assert found[name].tobytes() == column.tobytes(), name


def drawn(view: View, draw: np.random.Generator) -> Array:
    """Keys of a view, known and unknown, some of them twice."""
    most = {"user": 8, "item": 19}
    columns = [draw.integers(0, most[field], 12) for field in view.by]
    return np.stack(columns, axis=1).astype(np.uint32) if columns else np.zeros((1, 0), np.uint32)


class Uncounted(MemoryStore):
    """A store that cannot say what has changed."""

    def changed(self, since: int) -> None:
        return None


@settings(max_examples=80, deadline=None)
@given(
    st.lists(EVENT, min_size=1, max_size=40),
    st.lists(st.sampled_from([0, 0, SOON, MINUTE, HOUR, BACK]), min_size=1, max_size=12),
    st.sampled_from([2, 15, 10_000]),
    st.sampled_from([MemoryStore, Uncounted]),
    st.integers(0, 2**32),
)
def test_whatever_happens_between_looks(
    events: list, pauses: list[int], most: int, kind: type[MemoryStore], seed: int
) -> None:
    """Events, windows that leave tiles behind, moments that lie further back, and more entities than are kept.

    Where an edition is the same, so are all values that do not look at the time.
    """
    rows = rows_of(events)
    log, store, folded = RowsLog({"action": rows}, TEXTS), kind(), Folded(most)
    engine = StreamEngine(log, store, VIEWS)
    draw = np.random.default_rng(seed)
    editions: dict[int, list[bytes]] = {}
    now = int(rows.time[0])
    for pause in pauses:
        engine.step(int(draw.integers(1, 12)))
        now += pause
        for view in VIEWS:
            # One by itself is read another way than many are.
            keys = drawn(view, draw)[: int(draw.choice([1, 12]))]
            with store.snapshot() as snapshot:
                found = folded.reader(snapshot, now)(view, keys, np.zeros(len(keys), np.int64))
                alike(found, plainly(snapshot, view, keys, now))
            lasting = [found[name] for name, aggregate in view.features.items() if aggregate.timeless]
            for i, edition in enumerate(found[EDITION].tolist()):
                row = [column[i].tobytes() for column in lasting]
                assert editions.setdefault(edition, row) == row


def test_what_has_not_changed_is_not_folded_again() -> None:
    """Else nothing would be gained: the rows of unchanged records are handed out as they are."""
    rows = rows_of([(i, 0, i % 4, i % 12, 0, 100, 0.5) for i in range(40)])
    log, store, folded = RowsLog({"action": rows}, TEXTS), MemoryStore(), Folded()
    StreamEngine(log, store, VIEWS).catch_up()
    view, now = VIEWS[0], int(rows.time[-1])
    keys = np.arange(3, 7, dtype=np.uint32)[:, None]
    with store.snapshot() as snapshot:
        read = folded.reader(snapshot, now)
        before = read(view, keys, np.zeros(4, np.int64))
        table = folded._tables[view.version]
        table._columns["n"][:4] += 1_000
        assert (read(view, keys, np.zeros(4, np.int64))["n"] == before["n"] + 1_000).all()
        # An hour on, the windows have moved: then all is folded anew.
        later = folded.reader(snapshot, now + HOUR)(view, keys, np.zeros(4, np.int64))
        alike(later, plainly(snapshot, view, keys, now + HOUR))


def test_an_older_snapshot_is_read_as_it_is_and_spoils_nothing(tmp_path: Path) -> None:
    """Two requests at once: the one that began later has read already what the other one must not see."""
    rows = rows_of([(i, 0, i % 4, i % 12, i % 2, 100 + i, 0.5) for i in range(120)])
    store, folded = LmdbStore(tmp_path), Folded()
    engine = StreamEngine(RowsLog({"action": rows}, TEXTS), store, VIEWS)
    engine.step(40)
    view, now = VIEWS[0], int(rows.time[-1])
    keys = np.arange(1, 9, dtype=np.uint32)[:, None]

    def looked(snapshot: Snapshot) -> None:
        for part in (keys, *keys[:, None]):  # many at once, and each by itself
            found = folded.reader(snapshot, now)(view, part, np.zeros(len(part), np.int64))
            alike(found, plainly(snapshot, view, part, now))

    def late() -> None:
        with store.snapshot() as snapshot:
            looked(snapshot)

    for _ in range(3):
        with store.snapshot() as early:
            looked(early)
            engine.step(20)
            with ThreadPoolExecutor(1) as other:  # of LMDB's readers each has a thread of its own
                other.submit(late).result()
                looked(early)
                other.submit(late).result()
    store.close()
