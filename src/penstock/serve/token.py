"""The operator's token: who may move releases."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from penstock.errors import UnavailableError

NAME = "operator-token"


def operator_token(home: Path) -> str:
    """The token in the home folder's file ``operator-token``, written at first start; only its owner reads it.

    Raises:
        UnavailableError: the file is empty, others may read it, or it cannot be written.
    """
    path = home / NAME
    try:
        home.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        if path.exists():
            return _read(path)
        raise _unwritable(home, "a file") from None
    except OSError as error:
        raise _unwritable(home, str(error.strerror)) from None
    token = secrets.token_urlsafe(32)
    with os.fdopen(handle, "w") as file:
        file.write(token + "\n")
    return token


def _unwritable(home: Path, got: str) -> UnavailableError:
    return UnavailableError(
        "a home is a folder that can be written", got=f"{home}: {got}", remedy="choose another --home"
    )


def _read(path: Path) -> str:
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        raise UnavailableError(
            "the operator's token is read by its owner only",
            got=f"{path} with mode {mode:o}",
            remedy="delete it for a new one, or chmod 600 it if nobody else has read it",
        )
    token = path.read_text().strip()
    if not token:
        raise UnavailableError(
            "the operator's token is not empty", got=f"an empty {path}", remedy="delete the file and start again"
        )
    return token
