"""What is made of an index once: by one thread, in the way of nobody else, for as long as the index lives."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from penstock.retrieve.beside import Beside

WAIT = 30
"""Seconds after which a thread is taken to hang."""


def test_making_one_thing_holds_up_no_other() -> None:
    """While something is made of one array, others are made of theirs, and what is there is given at once."""
    opened: Beside[str] = Beside()
    slow, quick, there = np.zeros(1), np.zeros(1), np.zeros(1)
    opened.of(there, lambda: "there")
    going, gate = threading.Event(), threading.Event()

    def make() -> str:
        going.set()
        assert gate.wait(WAIT)
        return "slow"

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(opened.of, slow, make)
        try:
            assert going.wait(WAIT)
            assert pool.submit(opened.of, quick, lambda: "quick").result(WAIT) == "quick"
            assert pool.submit(opened.of, there, lambda: "anew").result(WAIT) == "there"
        finally:
            gate.set()
        assert first.result(WAIT) == "slow"


def test_one_thing_is_made_once() -> None:
    """Of threads that ask for the same at once one makes it, and all are given that."""
    opened: Beside[object] = Beside()
    array, start, made = np.zeros(1), threading.Barrier(8), []

    def make() -> object:
        made.append(object())
        return made[-1]

    def ask(_: int) -> object:
        start.wait(WAIT)
        return opened.of(array, make)

    with ThreadPoolExecutor(8) as pool:
        given = list(pool.map(ask, range(8)))
    assert len(made) == 1
    assert all(one is made[0] for one in given)


def test_what_failed_is_made_at_the_next_asking_and_nothing_outlives_its_array() -> None:
    """An error is the asker's alone; with the array all that was held for it goes."""
    opened: Beside[str] = Beside()
    array = np.zeros(1)
    with pytest.raises(ZeroDivisionError):
        opened.of(array, lambda: str(1 // 0))
    assert opened.of(array, lambda: "made") == "made"
    assert len(opened) == len(opened._making) == 1
    del array
    assert len(opened) == len(opened._making) == 0
