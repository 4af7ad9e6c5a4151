"""A store in Redis, for features that stand outside the machine that serves.

One hash a view holds its records, one more hash the offsets, sizes and the number of the last write. A write is one
MULTI/EXEC, which also keeps, for a while, the records that it replaced: a snapshot that was opened before it reads
those, so that all it reads belongs together however many writes come between. What was written is not waited for to
be on Redis's disk: the log is the truth, and whatever Redis loses is filled in from it.
"""

from __future__ import annotations

import os
import struct
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import msgspec

from penstock.errors import StoreError
from penstock.stores.changes import KEPT, NAMED
from penstock.stores.redis_line import Line

TIMEOUT = 0.5
"""Seconds that Redis may take for an answer, or for a connection."""
_LARGE = 1 << 20
"""Bytes of a write for which Redis may take longer."""
_MANY = 2_000
"""Records of a question for which it may."""
_REMEMBERED = 600
"""Seconds for which it is known what a write changed."""
_PAST = 5
"""Seconds for which replaced records are kept, longer than any snapshot is open."""
_MOST_PAST = 1 << 22
"""Bytes of replaced records that are kept of a write."""

_STATE = struct.Struct("<qqq")  # commit, offset, newest
_SIZE = struct.Struct("<qq")
_AT, _WRITER = b"at", b"writer"
_APPLIED, _SIZES = b"applied:", b"sizes:"
_NAMES = msgspec.msgpack.Decoder(list[bytes])
_RECORDS = msgspec.msgpack.Decoder(dict[bytes, bytes | None])


class RedisStore:
    """Records in one Redis database, which other stores and other users may share.

    The newest process that opens it for writing is its writer; one before it is refused from then on. What a thread
    writes is made over what its last snapshot, or write, saw; over anything else it is refused.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``, as redis-py reads them.
        name: what its keys begin with; each log has its own, since codes and offsets mean something only beside it.
        timeout: seconds that Redis may take for an answer.
        read_only: for a process that only reads, while another one writes.

    Raises:
        StoreError: Redis cannot be reached, or evicts what it likes.
    """

    def __init__(self, url: str, *, name: str = "penstock", timeout: float = TIMEOUT, read_only: bool = False) -> None:
        self._name = name.encode()
        self._meta = self._key(b"meta")
        self._token = b"" if read_only else os.urandom(16)
        self._written = 0
        # The write that each thread last looked at: the next one is made over that, or not at all.
        self._seen = threading.local()
        self._line = Line(url, timeout)
        self._asking = self._line.asking
        if not read_only:
            with self._asking():
                self._claim()

    def _claim(self) -> None:
        """Takes over from any writer before."""
        policy = self._line.quick.info("memory").get("maxmemory_policy", "noeviction")
        if policy.startswith("allkeys"):
            raise StoreError(
                "a Redis that holds features keeps them until they are deleted",
                got=f"maxmemory-policy {policy} at {self._line.place}",
                remedy="set maxmemory-policy to noeviction or one of volatile-…, or give penstock a Redis of its own",
            )
        with self._line.quick.pipeline() as pipe:
            pipe.hset(self._meta, _WRITER, self._token)
            pipe.hget(self._meta, _AT)
            self._seen.commit = _state(pipe.execute()[1])[0]

    # Reading

    @contextmanager
    def snapshot(self) -> Iterator[RedisSnapshot]:
        found = RedisSnapshot(self, self.meta())
        self._seen.commit = found.commit
        yield found

    def meta(self) -> dict[bytes, bytes]:
        """Everything but the records."""
        with self._asking():
            held: Any = self._line.quick.hgetall(self._meta)
        return dict(held)

    def read(self, view: bytes, keys: Sequence[bytes]) -> tuple[int, list[bytes | None]]:
        """Records, and the number of the write that left them so, in one round trip."""
        with self._asking(), self._line.client(len(keys) > _MANY).pipeline() as pipe:
            pipe.hget(self._meta, _AT)
            pipe.hmget(self._of(view), keys)
            at, found = pipe.execute()
            return _state(at)[0], found

    def named(self, first: int, last: int) -> list[list[bytes] | None]:
        """What each of the writes first … last changed; None of one that is not remembered."""
        with self._asking():
            held: Any = self._line.quick.mget([self._changed(number) for number in range(first, last + 1)])
        return [None if one is None else _NAMES.decode(one) for one in held]

    def replaced(self, number: int) -> dict[bytes, bytes | None] | None:
        """The records that a write replaced, None where there was none; None where it is not remembered."""
        with self._asking():
            held: Any = self._line.quick.get(self._past(number))
        return None if held is None else _RECORDS.decode(held)

    def scan(self, view: bytes) -> Iterator[tuple[bytes, bytes]]:
        # Of one moment only where nobody writes meanwhile.
        with self._asking():
            held = dict(self._line.patient.hscan_iter(self._of(view), count=1_000))
        yield from sorted(held.items())

    def views(self) -> dict[bytes, int]:
        return {view: int.from_bytes(done, "little") for view, done in _under(self.meta(), _APPLIED)}

    def sizes(self) -> dict[bytes, tuple[int, int]]:
        return {view: _SIZE.unpack(size) for view, size in _under(self.meta(), _SIZES)}

    # Writing

    def write(
        self, records: Iterable[tuple[bytes, bytes, bytes]], applied: Mapping[bytes, int], offset: int, newest: int
    ) -> None:
        whole: dict[bytes, dict[bytes, bytes]] = {}
        for view, key, record in records:
            whole.setdefault(view, {})[key] = record
        named = [view + key for view, new in whole.items() for key in new]
        large = sum(len(record) for new in whole.values() for record in new.values()) > _LARGE
        with self._asking(), self._writing(large) as (pipe, meta):
            before = self._before(whole, large)
            number = self._number(meta)
            pipe.multi()
            state: dict[bytes, bytes] = {_AT: _STATE.pack(number, offset, newest), _WRITER: self._token}
            for view, new in whole.items():
                pipe.hset(self._of(view), mapping=new)
                state[_SIZES + view] = _grown(meta.get(_SIZES + view), view, new, before)
            for view, done in applied.items():
                state[_APPLIED + view] = done.to_bytes(8, "little")
            pipe.hset(self._meta, mapping=state)
            if len(named) <= NAMED:
                pipe.set(self._changed(number), msgspec.msgpack.encode(named), ex=_REMEMBERED)
                past = msgspec.msgpack.encode(before)
                if len(past) <= _MOST_PAST:
                    pipe.set(self._past(number), past, ex=_PAST)
            pipe.delete(self._changed(number - KEPT))
            pipe.execute()
            self._written = self._seen.commit = number

    def drop(self, view: bytes) -> None:
        with self._asking(), self._writing(False) as (pipe, meta):
            number = self._number(meta)
            pipe.multi()
            pipe.unlink(self._of(view))
            pipe.hdel(self._meta, _APPLIED + view, _SIZES + view)
            pipe.hset(self._meta, mapping={_AT: _STATE.pack(number, *_state(meta.get(_AT))[1:]), _WRITER: self._token})
            pipe.delete(self._changed(number - KEPT))
            pipe.execute()
            self._written = self._seen.commit = number

    def close(self) -> None:
        self._line.close()

    @contextmanager
    def _writing(self, large: bool) -> Iterator[tuple[Any, dict[bytes, bytes]]]:
        """A transaction that only goes through where this is the writer, and Redis holds what it last looked at."""
        with self._line.client(large).pipeline() as pipe:
            pipe.watch(self._meta)  # type: ignore[no-untyped-call]
            meta = self.meta()
            commit = _state(meta.get(_AT))[0]
            if not self._token or meta.get(_WRITER, self._token) != self._token:
                raise StoreError(
                    "one process at a time writes a store in Redis",
                    got="one that only reads"
                    if not self._token
                    else f"another one that has taken over {self._line.place}",
                    remedy="stop one of the two, then start the other again",
                )
            if commit != getattr(self._seen, "commit", self._written):
                # Lost, older, or a write of which no answer came.
                raise StoreError(
                    "a store in Redis is as its writer last saw it", got=f"another state at {self._line.place}",
                    remedy="wait: what it lacks is filled in from the log",
                )  # fmt: skip
            yield pipe, meta

    def _number(self, meta: Mapping[bytes, bytes]) -> int:
        before = _state(meta.get(_AT))[0]
        if before and before == self._written:
            return before + 1
        # Far from all before, of which some may be lost: a number never comes again.
        return max(before + KEPT + 1, time.time_ns() // 1_000)

    def _before(self, whole: Mapping[bytes, Mapping[bytes, bytes]], large: bool) -> dict[bytes, bytes | None]:
        """The records that are about to be replaced, by view and key."""
        with self._line.client(large).pipeline(transaction=False) as pipe:
            for view, new in whole.items():
                pipe.hmget(self._of(view), list(new))
            found = pipe.execute()
        return {
            view + key: record
            for (view, new), records in zip(whole.items(), found, strict=True)
            for key, record in zip(new, records, strict=True)
        }

    def _key(self, *parts: bytes) -> bytes:
        return b":".join([self._name, *parts])

    def _of(self, view: bytes) -> bytes:
        return self._key(b"view", view)

    def _changed(self, number: int) -> bytes:
        return self._key(b"changed", b"%d" % number)

    def _past(self, number: int) -> bytes:
        return self._key(b"past", b"%d" % number)


class RedisSnapshot:
    """What a store held at one moment.

    Records that a later write replaced are read from what it kept of them; where it did not, reading raises.
    """

    def __init__(self, store: RedisStore, meta: Mapping[bytes, bytes]) -> None:
        self._store = store
        self._meta = meta
        self.commit, self.offset, self.newest = _state(meta.get(_AT))

    def get(self, view: bytes, keys: Sequence[bytes]) -> list[bytes | None]:
        if not keys:
            return []
        number, found = self._store.read(view, keys)
        return found if number == self.commit else self._as_it_was(number, view, keys, found)

    def _as_it_was(
        self, number: int, view: bytes, keys: Sequence[bytes], found: list[bytes | None]
    ) -> list[bytes | None]:
        """Undoes, for `keys`, the writes that came since."""
        if not 0 < self.commit < number <= self.commit + KEPT:
            self._refuse()
        wanted = {view + key for key in keys}
        settled: dict[bytes, bytes | None] = {}
        for at, names in enumerate(self._store.named(self.commit + 1, number), start=self.commit + 1):
            if names is None:
                self._refuse()
            touched = wanted.intersection(names).difference(settled)
            if touched:
                replaced = self._store.replaced(at)
                if replaced is None:
                    self._refuse()
                settled.update((name, replaced[name]) for name in touched)
        return [settled.get(view + key, record) for key, record in zip(keys, found, strict=True)]

    def _refuse(self) -> NoReturn:
        raise StoreError(
            "all that a snapshot reads belongs together",
            got="writes since it was opened that cannot be undone",
            remedy="ask again",
        )

    def applied(self, view: bytes) -> int:
        return int.from_bytes(self._meta.get(_APPLIED + view, b""), "little")

    def changed(self, since: int) -> list[bytes] | None:
        if not 0 < since <= self.commit or self.commit - since > KEPT:
            return None
        if since == self.commit:
            return []
        named: list[bytes] = []
        for names in self._store.named(since + 1, self.commit):
            if names is None:
                return None
            named += names
        return named


def _state(held: bytes | None) -> tuple[int, int, int]:
    """The number of the last write, the offset and the newest time."""
    return _STATE.unpack(held) if held else (0, 0, 0)


def _under(meta: Mapping[bytes, bytes], prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    return ((name[len(prefix) :], value) for name, value in meta.items() if name.startswith(prefix))


def _grown(held: bytes | None, view: bytes, new: Mapping[bytes, bytes], before: Mapping[bytes, bytes | None]) -> bytes:
    """A view's size with `new` records in it."""
    count, size = _SIZE.unpack(held) if held else (0, 0)
    for key, record in new.items():
        old = before[view + key]
        count += old is None
        size += len(record) - len(old) if old is not None else len(view) + len(key) + len(record)
    return _SIZE.pack(count, size)
