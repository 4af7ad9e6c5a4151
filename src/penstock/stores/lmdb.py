"""The default store: LMDB, a memory-mapped B-tree with one writer and many readers.

Commits are not synced one by one: the log is the truth. After a power loss (another boot of the machine,
and the store was not closed) what LMDB left is not trusted: its files are deleted unopened, and the store is
rebuilt from the log. A file beside them, `open-since-boot`, says in which boot the store was opened; it goes
at a clean end.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import lmdb
import msgspec

from penstock.errors import StoreError
from penstock.events.archive import sync_folder
from penstock.stores.changes import KEPT, NAMED

_OFFSETS = struct.Struct("<qq")
_SIZE = struct.Struct("<qq")
_COMMITS = struct.Struct("<qqq")
_APPLIED = b"\0applied"
_META = b"\0meta"
_SIZES = b"\0sizes"
_COMMIT = b"\0commit"
_CHANGED = b"\0changed"
_NAMES = msgspec.msgpack.Decoder(list[bytes])
_MARK = "open-since-boot"
_FILES = ("data.mdb", "lock.mdb")


def _boot() -> bytes:
    """Names this boot of the machine; empty (trust nothing unclean) where the system has no such name."""
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_bytes().strip() if path.exists() else b""


def trusted(path: Path) -> bool:
    """Whether LMDB may look at a store's files: the machine has not gone down while they were open."""
    mark = path / _MARK
    return not mark.exists() or mark.read_bytes() == _boot() != b""


class LmdbStore:
    """Records in one LMDB environment at `path`; keys are the view's 8 bytes and the entity's codes.

    Args:
        path: a folder, made if it is not there.
        map_size: the most it may grow to, in bytes; address space, not disk, is reserved.
        read_only: for a process that only reads, while another one writes or has written.
    """

    def __init__(self, path: Path | str, *, map_size: int = 1 << 36, read_only: bool = False) -> None:
        self.path = Path(path)
        self._read_only = read_only
        self.rebuilt = False
        try:
            if not read_only:
                self.path.mkdir(parents=True, exist_ok=True)
                self.rebuilt = self._distrust()
            self._env = lmdb.open(
                str(self.path), map_size=map_size, sync=False, metasync=False, max_readers=512, readahead=False,
                readonly=read_only,
            )  # fmt: skip
        except (lmdb.Error, OSError) as error:
            raise StoreError(
                "the feature store's folder is readable and not open for writing elsewhere in this process",
                got=f"{self.path}: {error}",
                remedy="stop the other process, or delete the folder: it is rebuilt from the log",
            ) from None
        self._env.reader_check()
        if not read_only:
            self._measure()
            self._forget()

    def _measure(self) -> None:
        """Counts once what a version wrote that took down no sizes."""
        known = self.sizes()
        for view in [view for view in self.views() if view not in known]:
            count, size = 0, 0
            for key, record in self.scan(view):
                count, size = count + 1, size + len(view) + len(key) + len(record)
            if count:
                with self._env.begin(write=True) as txn:
                    _grow(txn, view, (count, size))

    def _forget(self) -> None:
        """Lets no reader go by what was taken down before: a version that takes down nothing may have written since."""
        with self._env.begin(write=True) as txn:
            held, meta = txn.get(_COMMIT), txn.get(_META)
            if held is None or meta is None:
                return
            before = _COMMITS.unpack(held)[0]
            txn.put(_COMMIT, _COMMITS.pack(before + KEPT + 1, *_OFFSETS.unpack(meta)))
            for number in range(before - KEPT, before + 1):
                txn.delete(_CHANGED + max(0, number).to_bytes(8, "big"))

    def _distrust(self) -> bool:
        """Deletes what another boot left open, and marks the folder before the first unsynced write."""
        mark, boot = self.path / _MARK, _boot()
        before = mark.read_bytes() if mark.exists() else None
        if boot and before == boot:
            return False
        if before is not None:
            # LMDB must not even look at pages that a power loss may have torn: it may crash on them.
            for name in _FILES:
                (self.path / name).unlink(missing_ok=True)
        with mark.open("wb") as file:
            file.write(boot or b"?")
            file.flush()
            os.fsync(file.fileno())
        sync_folder(self.path)
        return before is not None

    @contextmanager
    def snapshot(self) -> Iterator[LmdbSnapshot]:
        try:
            with self._env.begin() as txn:
                yield LmdbSnapshot(txn)
        except lmdb.Error as error:
            raise StoreError(
                "the feature store can be read", got=f"{self.path}: {error}",
                remedy="ask again, or restart the server: the store is rebuilt from the log where need be",
            ) from error  # fmt: skip

    def write(
        self, records: Iterable[tuple[bytes, bytes, bytes]], applied: Mapping[bytes, int], offset: int, newest: int
    ) -> None:
        try:
            with self._env.begin(write=True) as txn:
                grown: dict[bytes, tuple[int, int]] = {}
                named: list[bytes] = []
                for view, key, record in records:
                    named.append(view + key)
                    old = txn.replace(named[-1], record)
                    count, size = grown.get(view, (0, 0))
                    if old is None:
                        grown[view] = count + 1, size + len(view) + len(key) + len(record)
                    else:
                        grown[view] = count, size + len(record) - len(old)
                for view, more in grown.items():
                    _grow(txn, view, more)
                for view, done in applied.items():
                    txn.put(_APPLIED + view, done.to_bytes(8, "little"))
                txn.put(_META, _OFFSETS.pack(offset, newest))
                _number(txn, named if len(named) <= NAMED else None, offset, newest)
        except lmdb.Error as error:
            raise StoreError(
                "the feature store has room to write",
                got=f"{self.path}: {error}",
                remedy="free some disk; what the log acknowledged is safe, and the store catches up from it",
            ) from None

    def scan(self, view: bytes) -> Iterator[tuple[bytes, bytes]]:
        yield from self._under(view)

    @property
    def records(self) -> int:
        """How many records there are, a few of the store's own among them."""
        return int(self._env.stat()["entries"])

    @property
    def room(self) -> tuple[int, int]:
        """Bytes taken so far, pages that are free again included, and the most that it may grow to."""
        info = self._env.info()
        return (info["last_pgno"] + 1) * self._env.stat()["psize"], info["map_size"]

    def views(self) -> dict[bytes, int]:
        return {view: int.from_bytes(done, "little") for view, done in self._under(_APPLIED)}

    def sizes(self) -> dict[bytes, tuple[int, int]]:
        return {view: _SIZE.unpack(size) for view, size in self._under(_SIZES)}

    def _under(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """What stands under a prefix, without it."""
        with self._env.begin() as txn, txn.cursor() as cursor:
            if cursor.set_range(prefix):
                for key, value in cursor:
                    if not key.startswith(prefix):
                        break
                    yield key[len(prefix) :], value

    def drop(self, view: bytes) -> None:
        keys = [view + key for key, _ in self.scan(view)]
        with self._env.begin(write=True) as txn:
            for key in keys:
                txn.delete(key)
            txn.delete(_APPLIED + view)
            txn.delete(_SIZES + view)
            meta = txn.get(_META)
            _number(txn, None, *(_OFFSETS.unpack(meta) if meta else (0, 0)))

    def close(self) -> None:
        if self._read_only:
            self._env.close()
            return
        # The mark goes only once everything that it warns of is on disk.
        self._env.sync(True)
        self._env.close()
        (self.path / _MARK).unlink(missing_ok=True)
        sync_folder(self.path)


def _grow(txn: lmdb.Transaction, view: bytes, more: tuple[int, int]) -> None:
    before = txn.get(_SIZES + view)
    count, size = _SIZE.unpack(before) if before else (0, 0)
    txn.put(_SIZES + view, _SIZE.pack(count + more[0], size + more[1]))


def _number(txn: lmdb.Transaction, named: Sequence[bytes] | None, offset: int, newest: int) -> None:
    """Counts a write, and takes down what it changed; None where that is too much to say."""
    before = txn.get(_COMMIT)
    number = 1 + (_COMMITS.unpack(before)[0] if before else 0)
    txn.put(_COMMIT, _COMMITS.pack(number, offset, newest))
    if named is not None:
        txn.put(_CHANGED + number.to_bytes(8, "big"), msgspec.msgpack.encode(named))
    if number > KEPT:
        txn.delete(_CHANGED + (number - KEPT).to_bytes(8, "big"))


class LmdbSnapshot:
    """One read transaction."""

    def __init__(self, txn: lmdb.Transaction) -> None:
        self._txn = txn
        meta = txn.get(_META)
        self.offset, self.newest = _OFFSETS.unpack(meta) if meta else (0, 0)

    def get(self, view: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        # Copies, not views of the map: a transaction must not outlive its snapshot.
        get = self._txn.get
        found: list[Any] = [get(view + key) for key in keys]
        return found

    def applied(self, view: bytes) -> int:
        done = self._txn.get(_APPLIED + view)
        return int.from_bytes(done, "little") if done else 0

    @cached_property
    def commit(self) -> int:
        held = self._txn.get(_COMMIT)
        number, *at = _COMMITS.unpack(held) if held else (0, 0, 0)
        # Another version of penstock may be writing, which does not count.
        return number if at == [self.offset, self.newest] else 0

    def changed(self, since: int) -> list[bytes] | None:
        if not 0 < since <= self.commit or self.commit - since > KEPT:
            return None
        named: list[bytes] = []
        for number in range(since + 1, self.commit + 1):
            entry = self._txn.get(_CHANGED + number.to_bytes(8, "big"))
            if entry is None:
                return None
            named += _NAMES.decode(entry)
        return named
