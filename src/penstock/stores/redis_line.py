"""The line to a Redis: what goes wrong on it is one kind of error, and is told soon."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from penstock.errors import StoreError

PATIENCE = 20
"""Times as long may an answer take where much is written or read."""
REST = 0.5
"""Seconds after a timeout in which nothing is asked: whoever comes meanwhile need not wait for the next one."""
_RULE = "the Redis store answers"
_REMEDY = "start Redis or correct its address; what Redis lacks is filled in from the log"


class Line:
    """Two clients of one Redis. A connection that has ended is made anew before it is used.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``, as redis-py reads them.
        timeout: seconds that an answer, or a connection, may take.

    Attributes:
        quick: for whatever is small.
        patient: for whatever is large.
        place: where it leads, without what one needs to get in.

    Raises:
        StoreError: it is no such address.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self.quick = _client(url, timeout, timeout)
        self.patient = _client(url, timeout * PATIENCE, timeout)
        given = self.quick.get_connection_kwargs()
        at = given.get("path") or f"{given.get('host', 'localhost')}:{given.get('port', 6379)}"
        self.place = f"Redis at {at}, database {given.get('db') or 0}"
        self._resume = 0.0

    def client(self, large: bool) -> redis.Redis:
        """The one for what is large, or for what is not."""
        return self.patient if large else self.quick

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Around every question.

        Raises:
            StoreError: whatever goes wrong; at once where there was a timeout a moment ago.
        """
        if time.monotonic() < self._resume:
            raise StoreError(_RULE, got=f"a timeout at {self.place} a moment ago", remedy=_REMEDY)
        try:
            yield
        except redis.TimeoutError as error:
            self._resume = time.monotonic() + REST
            self._fail(error)
        except redis.WatchError:
            raise StoreError(
                "a store in Redis has one writer", got=f"another write at {self.place}",
                remedy="wait: what it lacks is filled in from the log",
            ) from None  # fmt: skip
        except redis.OutOfMemoryError as error:
            raise StoreError(
                "the feature store has room to write", got=f"{self.place}: {error}",
                remedy="raise Redis's maxmemory; what the log acknowledged is safe, and the store catches up from it",
            ) from None  # fmt: skip
        except (redis.RedisError, OSError) as error:
            self._fail(error)

    def _fail(self, error: Exception) -> NoReturn:
        raise StoreError(_RULE, got=f"{self.place}: {error}", remedy=_REMEDY) from None

    def close(self) -> None:
        self.quick.close()
        self.patient.close()


def _client(url: str, timeout: float, connecting: float) -> redis.Redis:
    try:
        # Not tried again by itself: a write could be made twice.
        made = redis.Redis.from_url(
            url, socket_timeout=timeout, socket_connect_timeout=connecting, retry=Retry(NoBackoff(), 0)
        )
        # Nothing is connected yet; but what the address asks for may be unknown.
        made.connection_pool.make_connection()
        return made
    except (ValueError, TypeError):
        # Which part it was is not said: it may be one of the password.
        raise StoreError(
            "a store in Redis has an address", got="one that cannot be read",
            remedy="write redis://HOST:PORT/DB, rediss://HOST:PORT/DB or unix://PATH?db=DB",
        ) from None  # fmt: skip
