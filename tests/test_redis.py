"""The store in Redis: one snapshot is of one moment, there is one writer, and Redis may be away or lose everything."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from penstock.errors import StoreError
from penstock.stores import redis_line
from penstock.stores.changes import KEPT, NAMED
from penstock.stores.redis import RedisStore
from redis_server import RedisServer
from serving import until

A, B = b"view-a..", b"view-b.."
SLOW = 20.0
"""Seconds that a busy machine may take."""


@pytest.fixture
def store(redis_server: RedisServer, tmp_path: Path) -> Iterator[RedisStore]:
    made = RedisStore(redis_server.url, name=str(tmp_path), timeout=SLOW)
    yield made
    made.close()


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url) as made:
        yield made


def test_a_snapshot_reads_what_stood_when_it_was_opened(store: RedisStore) -> None:
    """Records that were replaced since, once or again, are read as they were; so are those that were not there."""
    store.write([(A, b"k", b"1"), (A, b"l", b"1"), (B, b"k", b"1")], {A: 1, B: 1}, 1, 10)
    with store.snapshot() as before:
        assert before.get(A, [b"k"]) == [b"1"]
        store.write([(A, b"k", b"2"), (A, b"new", b"2")], {A: 2}, 2, 20)
        store.write([(A, b"k", b"3"), (B, b"k", b"3")], {A: 3, B: 3}, 3, 30)
        assert before.get(A, [b"l", b"k", b"new", b"k"]) == [b"1", b"1", None, b"1"]
        assert before.get(B, [b"k"]) == [b"1"]
        assert (before.offset, before.newest, before.applied(A)) == (1, 10, 1)
        with store.snapshot() as after:
            assert after.get(A, [b"k", b"new"]) == [b"3", b"2"]


@pytest.mark.parametrize("much", ["many writes", "a large write", "a drop", "all lost"])
def test_a_snapshot_that_cannot_be_kept_is_refused(store: RedisStore, much: str) -> None:
    """It never mixes two moments: where the older one is gone, reading raises."""
    store.write([(A, b"k", b"1")], {A: 1}, 1, 10)
    with store.snapshot() as before:
        if much == "many writes":
            for i in range(KEPT + 1):
                store.write([(A, b"k", b"%d" % i)], {A: i}, i, i)
        elif much == "a large write":
            store.write([(A, b"%d" % i, b"2") for i in range(NAMED + 1)], {A: 2}, 2, 20)
        elif much == "a drop":
            store.drop(A)
        else:
            store._line.quick.flushall()
        with pytest.raises(StoreError, match=r"all that a snapshot reads belongs together; got writes .*; ask again"):
            before.get(A, [b"k"])


CHILD = """
import sys
from penstock.stores.redis import RedisStore
store = RedisStore(sys.argv[1], name=sys.argv[2], timeout=20)
i = 0
while True:
    i += 1
    store.write([(b"view-a..", k.to_bytes(4, "big"), i.to_bytes(8, "big")) for k in range(200)], {b"view-a..": i}, i, i)
    if i == 20:
        print("on", flush=True)
"""


def test_all_that_readers_see_is_of_one_write(redis_server: RedisServer, tmp_path: Path) -> None:
    """While a process writes all records over and over, every reader's gets, records and offset are of one write."""
    command = [sys.executable, "-c", CHILD, redis_server.url, str(tmp_path)]
    reader = RedisStore(redis_server.url, name=str(tmp_path), timeout=SLOW, read_only=True)
    seen = set()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        for _ in range(300):
            try:
                with reader.snapshot() as snapshot:
                    first = snapshot.get(A, [k.to_bytes(4, "big") for k in range(100)])
                    other = snapshot.get(A, [k.to_bytes(4, "big") for k in range(100, 200)])
            except StoreError:
                continue  # on a busy machine more writes may have come than are kept
            assert {int.from_bytes(record or b"", "big") for record in [*first, *other]} == {snapshot.offset}
            assert snapshot.applied(A) == snapshot.newest == snapshot.offset
            seen.add(snapshot.offset)
        child.send_signal(signal.SIGKILL)
    assert len(seen) > 10
    reader.close()


def test_many_keys_are_one_round_trip(store: RedisStore, client: redis.Redis) -> None:
    """Redis reads from its clients once for 201 keys."""
    store.write([(A, b"%d" % i, b"1") for i in range(201)], {A: 1}, 1, 1)
    with store.snapshot() as snapshot:
        before = client.info("stats")["total_reads_processed"]
        assert snapshot.get(A, [b"%d" % i for i in range(201)]) == [b"1"] * 201
        # The other one is this question.
        assert client.info("stats")["total_reads_processed"] - before == 2


def test_the_newest_writer_is_the_one(store: RedisStore, redis_server: RedisServer, tmp_path: Path) -> None:
    """One before it is refused, whatever it writes, and reads on; one that only reads is refused, too."""
    store.write([(A, b"k", b"1")], {A: 1}, 1, 10)
    newer = RedisStore(redis_server.url, name=str(tmp_path), timeout=SLOW)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"one process at a time writes .* another one .* stop one of the two"):
            store.write([(A, b"k", b"old")], {A: 2}, 2, 20)
        with pytest.raises(StoreError, match="one process at a time writes"):
            store.drop(A)
    newer.write([(A, b"k", b"new")], {A: 2}, 2, 20)
    with store.snapshot() as snapshot:
        assert snapshot.get(A, [b"k"]) == [b"new"]
    newer.close()
    reader = RedisStore(redis_server.url, name=str(tmp_path), timeout=SLOW, read_only=True)
    with pytest.raises(StoreError, match="one that only reads"):
        reader.write([], {A: 3}, 3, 30)
    reader.close()


def test_a_write_over_a_state_that_its_writer_has_not_seen_is_refused(
    store: RedisStore, redis_server: RedisServer, tmp_path: Path
) -> None:
    """After a loss, or a write of which no answer came, the writer has to look before it writes again."""
    store.write([(A, b"k", b"1")], {A: 1}, 1, 10)
    # The same writer, on a line that was cut before the answer.
    unheard = RedisStore(redis_server.url, name=str(tmp_path), timeout=SLOW, read_only=True)
    unheard._token = store._token
    with unheard.snapshot():
        pass
    unheard.write([(A, b"k", b"2")], {A: 2}, 2, 20)
    for lost in (lambda: None, unheard._line.quick.flushall):
        lost()
        for _ in range(2):
            with pytest.raises(StoreError, match="as its writer last saw it; got another state"):
                store.write([(A, b"k", b"3")], {A: 3}, 3, 30)
        with store.snapshot():
            pass
        store.write([(A, b"k", b"3")], {A: 3}, 3, 30)
        with store.snapshot() as snapshot:
            assert (snapshot.get(A, [b"k"]), snapshot.offset) == ([b"3"], 3)
    unheard.close()


def test_numbers_of_writes_never_come_again(store: RedisStore) -> None:
    """After a loss nothing is said to be unchanged since a write that was lost."""
    store.write([(A, b"k", b"1"), (A, b"l", b"1")], {A: 1}, 1, 10)
    with store.snapshot() as snapshot:
        lost = snapshot.commit
    store._line.quick.flushall()
    with store.snapshot() as snapshot:
        assert snapshot.changed(lost) is None
    for i in range(3):
        store.write([(A, b"k", b"2")], {A: i}, i, i)
        with store.snapshot() as snapshot:
            assert snapshot.commit > lost
            assert snapshot.changed(lost) is None


def test_a_redis_that_does_not_answer_is_an_error_soon(
    redis_server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A timeout is waited for once; who comes just after it is told at once; then all goes on over the same store."""
    monkeypatch.setattr(redis_line, "REST", 3.0)
    store = RedisStore(redis_server.url, name=str(tmp_path))
    store.write([(A, b"k", b"1")], {A: 1}, 1, 10)
    redis_server.pause()
    try:
        began = time.monotonic()
        with pytest.raises(StoreError, match=r"the Redis store answers; got Redis at .*; start Redis"):
            store.meta()
        assert 0.4 < time.monotonic() - began < 10
        with pytest.raises(StoreError, match=r"a timeout at Redis at .* a moment ago"):
            store.meta()
    finally:
        redis_server.resume()
    until(lambda: answers(store))
    assert store.views() == {A: 1}
    store.close()


def answers(store: RedisStore) -> bool:
    try:
        store.meta()
    except StoreError:
        return False
    return True


def test_a_redis_that_was_started_again_is_found_again(redis_server: RedisServer, tmp_path: Path) -> None:
    """While nobody listens every question is an error at once; afterwards none is, over the same store."""
    store = RedisStore(redis_server.url, name=str(tmp_path), timeout=SLOW)
    store.write([(A, b"k", b"1")], {A: 1}, 1, 10)
    redis_server.kill()
    try:
        for _ in range(3):
            with pytest.raises(StoreError, match="the Redis store answers"):
                store.views()
        with pytest.raises(StoreError, match="the Redis store answers"):
            RedisStore(redis_server.url)
    finally:
        redis_server.start()
    assert store.views() == {}
    store.close()


def test_a_redis_without_room_refuses_and_stays_whole(store: RedisStore, client: redis.Redis) -> None:
    """A write that does not fit is refused with the remedy, and leaves what was there."""
    store.write([(A, b"k", b"1")], {A: 1}, 1, 1)
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreError, match=r"has room to write; got .*; raise Redis's maxmemory"):
            store.write([(A, b"k", b"2"), (A, b"l", b"2")], {A: 2}, 2, 2)
    finally:
        client.config_set("maxmemory", 0)
    assert dict(store.scan(A)) == {b"k": b"1"}
    assert store.views() == {A: 1}
    store.write([(A, b"k", b"2")], {A: 2}, 2, 2)
    assert store.views() == {A: 2}


def test_a_redis_that_evicts_any_key_is_refused(redis_server: RedisServer, client: redis.Redis) -> None:
    client.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(
            StoreError, match=r"got maxmemory-policy allkeys-lru .*; set maxmemory-policy to noeviction"
        ):
            RedisStore(redis_server.url)
    finally:
        client.config_set("maxmemory-policy", "noeviction")


@pytest.mark.parametrize(
    "url",
    [
        "redis://:secret@127.0.0.1:1/0",
        "unix:///nowhere?password=secret",
        "http://:secret@x",
        "redis://:secret/9@x/0",
        "redis://:secret@127.0.0.1:1/0?unknown=1",
    ],
)
def test_an_address_that_leads_nowhere_is_told_without_its_password(url: str) -> None:
    with pytest.raises(StoreError) as told:
        RedisStore(url)
    assert "secret" not in str(told.value)
    assert told.value.remedy
