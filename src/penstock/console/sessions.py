"""Who is signed in: a cookie signed with a key made from the operator's token, good in every process of a server."""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

LASTS = 12 * 3600
"""Seconds after which one signs in again."""
_MOST = 200


@dataclass(frozen=True)
class Session:
    """One browser that is signed in.

    Attributes:
        expires: unix seconds.
        form: what its forms carry, so that no page of another site can post in its name.
    """

    expires: int
    form: str


class Sessions:
    """Makes and reads session cookies; the server keeps nothing of them.

    Another token makes another key, so that every session ends with the token it began with.

    Args:
        token: the operator's.
        now: gives unix seconds.
        lasts: seconds a session lasts.
    """

    def __init__(self, token: str, now: Callable[[], float] = time.time, lasts: int = LASTS) -> None:
        self._token = token.encode()
        self._key = hmac.digest(self._token, b"penstock: sessions of the console", sha256)
        self._now = now
        self._lasts = lasts

    def admits(self, token: str) -> bool:
        """Whether this is the operator's token."""
        return hmac.compare_digest(token.strip().encode("utf-8", "replace"), self._token)

    def begin(self) -> str:
        """The value of a new session's cookie."""
        body = f"{int(self._now()) + self._lasts}.{secrets.token_urlsafe(12)}"
        return f"{body}.{self._sign('session', body)}"

    def read(self, value: str) -> Session | None:
        """The session of a cookie; None where it was not made here, or has expired."""
        body, _, signature = value.rpartition(".")
        if len(value) > _MOST or not value.isascii() or not hmac.compare_digest(signature, self._sign("session", body)):
            return None
        expires = int(body.partition(".")[0])
        return Session(expires, self._sign("form", body)) if self._now() < expires else None

    def _sign(self, use: str, body: str) -> str:
        return hmac.new(self._key, f"{use} {body}".encode(), sha256).hexdigest()
