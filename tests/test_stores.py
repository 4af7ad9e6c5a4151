"""Every store moves records and offsets together: all or nothing, seen whole or not at all, kept until told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import penstock.stores.lmdb as lmdb_module
from penstock.errors import StoreError
from penstock.stores import LmdbStore, MemoryStore
from penstock.stores.changes import KEPT, NAMED
from penstock.stores.redis import RedisStore
from penstock.types import Store
from redis_server import RedisServer

A, B = b"view-a..", b"view-b.."
Make = Callable[[Path], Store]
STORES: dict[str, Callable[[pytest.FixtureRequest], Make]] = {
    "memory": lambda request: lambda path: MemoryStore(),
    "lmdb": lambda request: LmdbStore,
    "redis": lambda request: in_redis(request.getfixturevalue("redis_server")),
}


def in_redis(server: RedisServer) -> Make:
    """Stores named by a path, which share a Redis that may be slow."""
    return lambda path: RedisStore(server.url, name=str(path), timeout=20)


@pytest.fixture(scope="module", params=STORES)
def make(request: pytest.FixtureRequest) -> Make:
    return STORES[request.param](request)


@pytest.fixture
def store(make: Make, tmp_path: Path) -> Iterator[Store]:
    made = make(tmp_path / "store")
    yield made
    made.close()


def sizes(records: Mapping[bytes, Mapping[bytes, bytes]]) -> dict[bytes, tuple[int, int]]:
    """Records and bytes of each view that has some, by definition."""
    return {
        view: (len(held), sum(len(view) + len(key) + len(record) for key, record in held.items()))
        for view, held in records.items()
        if held
    }


def content(store: Store) -> tuple[dict[bytes, int], dict[bytes, dict[bytes, bytes]], int, int]:
    """All that a store holds."""
    views = store.views()
    with store.snapshot() as snapshot:
        at = snapshot.offset, snapshot.newest
    return views, {view: dict(store.scan(view)) for view in views}, *at


def test_an_empty_store_holds_nothing(store: Store) -> None:
    assert content(store) == ({}, {}, 0, 0)
    with store.snapshot() as snapshot:
        assert snapshot.get(A, [b"k"]) == [None]
        assert snapshot.applied(A) == 0
    assert list(store.scan(A)) == []


def test_records_and_offsets_move_together(store: Store) -> None:
    """What is written is read by key, absent keys as None, in the order asked; views do not mix."""
    store.write([(A, b"k", b"1"), (B, b"k", b"2"), (A, b"", b"empty key"), (A, b"e", b"")], {A: 5, B: 4}, 5, 77)
    with store.snapshot() as snapshot:
        assert snapshot.get(A, [b"x", b"k", b"", b"e", b"k"]) == [None, b"1", b"empty key", b"", b"1"]
        assert snapshot.get(B, [b"k", b""]) == [b"2", None]
        assert (snapshot.offset, snapshot.newest) == (5, 77)
        assert (snapshot.applied(A), snapshot.applied(B), snapshot.applied(b"view-c..")) == (5, 4, 0)
    store.write([(A, b"k", b"3")], {A: 6}, 6, 78)
    assert content(store) == ({A: 6, B: 4}, {A: {b"k": b"3", b"": b"empty key", b"e": b""}, B: {b"k": b"2"}}, 6, 78)


def test_a_write_that_fails_midway_leaves_nothing(store: Store) -> None:
    """Records before the failure, later ones and the offsets: none is kept."""
    store.write([(A, b"k", b"old")], {A: 1}, 1, 10)
    before = content(store)

    def torn() -> Iterator[tuple[bytes, bytes, bytes]]:
        yield A, b"k", b"new"
        yield A, b"l", b"new"
        raise RuntimeError("the source of records fails")

    with pytest.raises(RuntimeError, match="fails"):
        store.write(torn(), {A: 2}, 2, 20)
    assert content(store) == before


def test_scan_gives_one_view_in_key_order(store: Store) -> None:
    keys = [b"\xff\xff", b"\x00\x01", b"\x00\x00\x00", b"a"]
    store.write([(A, key, key * 2) for key in keys] + [(B, b"b", b"b")], {A: 1, B: 1}, 1, 1)
    assert list(store.scan(A)) == [(key, key * 2) for key in sorted(keys)]
    assert list(store.scan(B)) == [(b"b", b"b")]


def test_drop_forgets_one_view_and_its_offset(store: Store) -> None:
    store.write([(A, b"k", b"1"), (A, b"l", b"1"), (B, b"k", b"2")], {A: 5, B: 5}, 5, 77)
    store.drop(A)
    store.drop(b"unknown.")
    assert content(store) == ({B: 5}, {B: {b"k": b"2"}}, 5, 77)
    assert list(store.scan(A)) == []
    store.write([(A, b"l", b"again")], {A: 6}, 6, 78)
    assert dict(store.scan(A)) == {b"l": b"again"}


WRITES = st.lists(
    st.tuples(
        st.lists(st.tuples(st.sampled_from([A, B]), st.binary(max_size=2), st.binary(max_size=5)), max_size=5),
        st.sampled_from(["write", "drop a", "drop b"]),
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(writes=WRITES)
def test_any_writes_leave_what_a_dictionary_would(
    make: Make, tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[list[tuple[bytes, bytes, bytes]], str]]
) -> None:
    """Every store equals the plain definition after any sequence of writes and drops."""
    store = make(tmp_path_factory.mktemp("store"))
    records: dict[bytes, dict[bytes, bytes]] = {A: {}, B: {}}
    applied: dict[bytes, int] = {}
    last = 0
    for i, (triples, action) in enumerate(writes, start=1):
        if action != "write":
            view = {"drop a": A, "drop b": B}[action]
            store.drop(view)
            records[view] = {}
            applied.pop(view, None)
        else:
            store.write(triples, dict.fromkeys([A, B], i), i, 10 * i)
            applied, last = {A: i, B: i}, i
            for view, key, record in triples:
                records[view][key] = record
        assert content(store) == (applied, {view: records[view] for view in applied}, last, 10 * last)
        assert {view: size for view, size in store.sizes().items() if size[0]} == sizes(records)
    store.close()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(writes=WRITES)
def test_what_changed_since_a_write_is_named(
    make: Make, tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[list[tuple[bytes, bytes, bytes]], str]]
) -> None:
    """Every record that differs from how an earlier write left it is named, or the store says that it cannot."""
    store = make(tmp_path_factory.mktemp("store"))
    seen: dict[int, dict[bytes, bytes]] = {}
    for i, (triples, action) in enumerate(writes, start=1):
        if action == "write":
            store.write(triples, dict.fromkeys([A, B], i), i, 10 * i)
        else:
            store.drop({"drop a": A, "drop b": B}[action])
        held = {view + key: record for view in (A, B) for key, record in store.scan(view)}
        with store.snapshot() as snapshot:
            assert snapshot.commit not in seen
            assert snapshot.commit > max(seen, default=0)
            assert snapshot.changed(snapshot.commit + 1) is None
            for commit, before in seen.items():
                named = snapshot.changed(commit)
                differ = {name for name in {*held, *before} if held.get(name) != before.get(name)}
                assert named is None or differ <= set(named)
            seen[snapshot.commit] = held
            if action == "write":
                assert set(snapshot.changed(snapshot.commit - 1) or ()) <= {view + key for view, key, _ in triples}
                assert list(snapshot.changed(snapshot.commit) or ()) == []
    store.close()


def test_only_so_much_is_remembered_of_what_changed(store: Store) -> None:
    """Of the newest writes, over restarts; a large one may have changed anything."""
    store.write([(A, b"k", b"0")], {A: 1}, 1, 1)
    with store.snapshot() as snapshot:
        first = snapshot.commit
    for i in range(KEPT):
        store.write([(A, b"%d" % i, b"1")], {A: 2 + i}, 2 + i, 1)
    with store.snapshot() as snapshot:
        assert snapshot.changed(first - 1) is None
        assert set(snapshot.changed(first) or ()) == {A + b"%d" % i for i in range(KEPT)}
        now = snapshot.commit
    store.write(((B, b"%d" % i, b"2") for i in range(NAMED + 1)), {B: 1}, KEPT + 2, 1)
    store.write([(A, b"k", b"3")], {A: KEPT + 3}, KEPT + 3, 1)
    with store.snapshot() as snapshot:
        assert snapshot.changed(now) is None
        assert list(snapshot.changed(now + 1) or ()) == [A + b"k"]


def test_writes_by_a_version_that_does_not_count_them_are_noticed(tmp_path: Path) -> None:
    """A worker may be newer than the process that writes: then nothing is said to be unchanged."""
    store = LmdbStore(tmp_path)
    store.write([(A, b"k", b"1")], {A: 1}, 1, 10)
    with store._env.begin(write=True) as txn:
        txn.put(A + b"k", b"2")
        txn.put(lmdb_module._META, lmdb_module._OFFSETS.pack(2, 10))
    with store.snapshot() as snapshot:
        assert snapshot.commit == 0
        assert snapshot.changed(1) is None
    store.close()


def test_a_snapshot_does_not_see_a_later_write(tmp_path: Path) -> None:
    """A reader of LMDB keeps the state it opened, records and offsets, while writers go on."""
    store = LmdbStore(tmp_path)
    store.write([(A, b"k", b"old")], {A: 1}, 1, 10)
    with store.snapshot() as before:
        store.write([(A, b"k", b"new"), (A, b"l", b"new")], {A: 2}, 2, 20)
        with store.snapshot() as after:
            assert (before.get(A, [b"k", b"l"]), before.applied(A)) == ([b"old", None], 1)
            assert (after.get(A, [b"k", b"l"]), after.applied(A)) == ([b"new", b"new"], 2)
        store.drop(A)
        assert before.get(A, [b"k"]) == [b"old"]
        assert (before.offset, before.newest) == (1, 10)
    store.close()


def test_a_store_that_took_down_no_sizes_is_measured_when_it_is_opened(tmp_path: Path) -> None:
    """As an earlier version left it; readers that come before a writer find none."""
    store = LmdbStore(tmp_path)
    store.write([(A, b"k", b"1"), (A, b"l", b"22"), (B, b"k", b"333")], {A: 1, B: 1}, 1, 10)
    expected = store.sizes()
    with store._env.begin(write=True) as txn:
        for view in (A, B):
            assert txn.delete(lmdb_module._SIZES + view)
    store.close()
    reader = LmdbStore(tmp_path, read_only=True)
    assert reader.sizes() == {}
    reader.close()
    store = LmdbStore(tmp_path)
    assert store.sizes() == expected == {A: (2, 8 * 2 + 2 + 3), B: (1, 8 + 1 + 3)}
    store.close()


def test_records_outlive_their_snapshot(tmp_path: Path) -> None:
    """What was read are copies, not views of a map that later writes reuse."""
    store = LmdbStore(tmp_path)
    store.write([(A, b"k", b"x" * 100)], {A: 1}, 1, 1)
    with store.snapshot() as snapshot:
        [record] = snapshot.get(A, [b"k"])
    for i in range(20):
        store.write([(A, b"k", b"y" * 100)], {A: i}, i, i)
    assert record == b"x" * 100
    store.close()


def test_a_new_writer_lets_no_reader_go_by_what_was_taken_down_before(tmp_path: Path) -> None:
    """Between the two there may have been a version of penstock that takes down nothing."""
    with closing(LmdbStore(tmp_path)) as store:
        for offset in range(1, 4):
            store.write([(A, b"k", bytes([offset]))], {A: offset}, offset, 0)
        with store.snapshot() as snapshot:
            known = snapshot.commit
            assert list(snapshot.changed(known - 1) or []) == [A + b"k"]
    with closing(LmdbStore(tmp_path)) as store:
        store.write([(A, b"l", b"x")], {A: 4}, 4, 0)
        with store.snapshot() as snapshot:
            assert snapshot.changed(known) is None
            assert list(snapshot.changed(snapshot.commit - 1) or []) == [A + b"l"]


def test_what_was_closed_is_kept_over_restarts_and_boots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clean end is trusted, also after the machine was started again."""
    store = LmdbStore(tmp_path)
    store.write([(A, b"k", b"1")], {A: 3}, 3, 30)
    before = content(store)
    store.close()
    for boot in (lmdb_module._boot(), b"another boot"):
        monkeypatch.setattr(lmdb_module, "_boot", lambda boot=boot: boot)
        store = LmdbStore(tmp_path)
        assert not store.rebuilt
        assert content(store) == before
        store.close()


CHILD = """
import os, sys
from penstock.stores import LmdbStore
store = LmdbStore(sys.argv[1])
view, n = b"view-a..", 200
i = 0
while True:
    i += 1
    # Each commit rewrites every record: all of them say which commit they are of.
    store.write([(view, k.to_bytes(4, "big"), i.to_bytes(8, "big")) for k in range(n)], {view: i}, i, i)
    os.write(1, f"{i}\\n".encode())
"""


def killed(path: Path, after: int) -> int:
    """A child that commits without end, killed -9 after some; gives the last commit that it reported."""
    with subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) >= after:
                break
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().split("\n")
    assert child.returncode == -signal.SIGKILL
    # The last line may be torn.
    return max([after, *(int(n) for n in rest[:-1])])


@pytest.mark.parametrize("after", [1, 40, 333])
def test_kill_9_amid_writes_leaves_one_whole_commit(tmp_path: Path, after: int) -> None:
    """What is found is the last commit or the one under way, records and offsets of the same one."""
    reported = killed(tmp_path, after)
    store = LmdbStore(tmp_path)
    assert not store.rebuilt
    with store.snapshot() as snapshot:
        at = snapshot.offset
        assert at in (reported, reported + 1)
        assert (snapshot.newest, snapshot.applied(A)) == (at, at)
        records = snapshot.get(A, [k.to_bytes(4, "big") for k in range(200)])
    assert {int.from_bytes(record or b"", "big") for record in records} == {at}
    store.close()


@pytest.mark.parametrize("boot", [b"another boot", b""], ids=["another boot", "no name of the boot"])
def test_what_a_lost_boot_left_open_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, boot: bytes) -> None:
    """After a power loss unsynced pages cannot be trusted: the store is empty and says so, once."""
    killed(tmp_path, 3)
    monkeypatch.setattr(lmdb_module, "_boot", lambda: boot)
    store = LmdbStore(tmp_path)
    assert store.rebuilt
    assert content(store) == ({}, {}, 0, 0)
    store.write([(A, b"k", b"1")], {A: 1}, 1, 1)
    store.close()
    store = LmdbStore(tmp_path)
    assert not store.rebuilt
    assert content(store)[0] == {A: 1}
    store.close()


DAMAGED = {
    "garbage": lambda data: b"not a database" * 1000,
    "two torn pages": lambda data: bytes(8192),
    "the meta pages without the rest": lambda data: data[:8192],
    "nothing": lambda data: b"",
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_what_a_power_loss_tore_is_deleted_unopened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """Whatever a lost boot left in the environment's files, opening neither fails nor crashes: the store is empty."""
    killed(tmp_path, 40)
    data = tmp_path / "data.mdb"
    data.write_bytes(DAMAGED[damage](data.read_bytes()))
    monkeypatch.setattr(lmdb_module, "_boot", lambda: b"another boot")
    store = LmdbStore(tmp_path)
    assert store.rebuilt
    assert content(store) == ({}, {}, 0, 0)
    store.close()


def test_a_torn_mark_is_distrusted(tmp_path: Path) -> None:
    """A mark that was being written when the machine went down names no boot, so the store is dropped."""
    killed(tmp_path, 3)
    mark = tmp_path / lmdb_module._MARK
    mark.write_bytes(mark.read_bytes()[:7])
    store = LmdbStore(tmp_path)
    assert store.rebuilt
    assert content(store) == ({}, {}, 0, 0)
    store.close()


class Synced:
    """An environment that notes when it is synced, and what stands beside it then."""

    def __init__(self, env: Any, note: Callable[[str], None]) -> None:
        self._env, self._note = env, note

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def sync(self, force: bool) -> None:
        self._env.sync(force)
        self._note("environment")


def test_the_mark_is_on_disk_while_anything_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is synced before LMDB makes or opens its files, and goes, synced again, after their last sync."""
    notes: list[tuple[str, bool, bool]] = []
    mark, data = tmp_path / "store" / lmdb_module._MARK, tmp_path / "store" / "data.mdb"
    sync = os.fsync

    def note(what: str) -> None:
        notes.append((what, mark.exists(), data.exists()))

    def fsync(handle: int) -> None:
        sync(handle)
        note(Path(os.readlink(f"/proc/self/fd/{handle}")).name)

    monkeypatch.setattr(os, "fsync", fsync)
    store = LmdbStore(tmp_path / "store")
    store.write([(A, b"k", b"1")], {A: 1}, 1, 1)
    assert notes == [(mark.name, True, False), ("store", True, False)]
    assert mark.read_bytes() == lmdb_module._boot()
    store._env = Synced(store._env, note)  # type: ignore[assignment]
    store.close()
    assert notes[2:] == [("environment", True, True), ("store", False, True)]


def test_a_store_without_room_refuses_and_stays_whole(tmp_path: Path) -> None:
    """A commit that does not fit is refused with the remedy, and leaves what was there."""
    store = LmdbStore(tmp_path, map_size=1 << 18)
    store.write([(A, b"k", b"1")], {A: 1}, 1, 1)
    before = content(store)
    with pytest.raises(StoreError, match=r"the feature store has room to write; got .*; free some disk"):
        store.write([(A, k.to_bytes(4, "big"), bytes(1000)) for k in range(1000)], {A: 2}, 2, 2)
    assert content(store) == before
    store.close()


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(StoreError, match=r"feature store's folder is readable.*; got .*; stop the other .* or delete"):
        LmdbStore(tmp_path)
