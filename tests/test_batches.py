"""What may wait a moment is taken in batches, all of it and in order; the library is told what was counted."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.exceptions import PanicException
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from penstock.serve.batches import MOST, Batches
from penstock.serve.metrics import _SECONDS, _Tally


def test_all_that_is_put_is_taken_in_order_and_in_few_batches() -> None:
    """By several threads at once; whoever flushes finds all of its own taken, and nothing comes after the close."""
    taken: list[list[tuple[int, int]]] = []
    batches = Batches("test", taken.append)

    def put(thread: int) -> None:
        for i in range(2_000):
            assert batches.put((thread, i))
        batches.flush()
        assert [i for batch in list(taken) for owner, i in batch if owner == thread] == list(range(2_000))

    threads = [threading.Thread(target=put, args=(n,)) for n in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    batches.put((9, 0))
    batches.close()
    assert taken[-1][-1] == (9, 0)
    assert sum(map(len, taken)) == 8_001
    assert max(map(len, taken)) <= MOST
    assert len(taken) < 100


@pytest.mark.parametrize("error", [OSError("the disk is full"), PanicException("the disk is full")])
def test_what_fails_is_logged_and_the_next_batch_is_taken(
    caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    """Also where Polars panics, which is no Exception."""
    taken: list[int] = []

    def take(batch: list[int]) -> None:
        if 1 in batch:
            raise error
        taken.extend(batch)

    batches = Batches("test", take)
    for entry in (1, 2):
        batches.put(entry)
        batches.flush()
    batches.close()
    assert taken == [2]
    assert "the disk is full" in caplog.text


def test_only_so_much_may_wait() -> None:
    """While the thread is held up, what is beyond the bound is refused, and told so."""
    held, taken = threading.Event(), []

    def take(batch: list[int]) -> None:
        held.wait()
        taken.extend(batch)

    batches = Batches("test", take, most_waiting=5)
    kept = [i for i in range(2 * MOST) if batches.put(i)]
    held.set()
    batches.close()
    assert taken == kept
    assert 5 <= len(kept) < 2 * MOST


def test_many_entries_are_not_held_up_by_the_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a pause that nobody could wait for, many batches go through at once, also behind a flush."""
    monkeypatch.setattr("penstock.serve.batches.PAUSE", 1_000.0)
    held, taken = threading.Event(), []

    def take(batch: list[int]) -> None:
        held.wait(20)
        taken.extend(batch)

    batches: Batches[int] = Batches("test", take)
    for i in range(20 * MOST):
        batches.put(i)
    held.set()
    batches.flush()
    assert taken == list(range(20 * MOST))
    batches.close()


def test_a_close_beside_a_flush_takes_everything_and_returns() -> None:
    """Although the flush was asked for earlier, with more entries behind it."""
    begun, held, taken = threading.Event(), threading.Event(), []

    def take(batch: list[int]) -> None:
        begun.set()
        held.wait(20)
        taken.extend(batch)

    batches: Batches[int] = Batches("test", take)
    batches.put(0)
    assert begun.wait(20)
    flushing = threading.Thread(target=batches.flush)
    for i in range(1, 500):
        batches.put(i)
    flushing.start()
    for i in range(500, 2_000):
        batches.put(i)
    closing = threading.Thread(target=batches.close)
    closing.start()
    held.set()
    for one in (flushing, closing):
        one.join(20)
        assert not one.is_alive()
    assert sorted(taken) == list(range(2_000))


def test_without_an_entry_there_is_no_thread() -> None:
    """And flushing and closing return at once."""
    before = threading.active_count()
    batches: Batches[int] = Batches("test", lambda batch: None)
    batches.flush()
    batches.close()
    assert threading.active_count() == before


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 10) | st.sampled_from(_SECONDS)))
def test_a_tally_tells_a_histogram_what_one_observation_after_the_other_would(values: Sequence[float]) -> None:
    """Each value in its bucket, those on an edge too, and the sum of all."""
    told, seen = ("told", CollectorRegistry()), ("seen", CollectorRegistry())
    one, other = (Histogram("h", "h", ["x"], registry=r, buckets=_SECONDS).labels("1") for _, r in (told, seen))
    tally = _Tally()
    for value in values:
        tally.see(one, value)
        other.observe(value)
    tally.tell()

    def counts(registry: CollectorRegistry) -> list[str]:
        lines = generate_latest(registry).decode().splitlines()
        return [line for line in lines if not line.startswith(("#", "h_created", "h_sum"))]

    assert counts(told[1]) == counts(seen[1])
    assert one._sum.get() == pytest.approx(other._sum.get())
