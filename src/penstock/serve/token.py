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
        UnavailableError: the file is empty, or others may read it.
    """
    path = home / NAME
    home.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read(path)
    token = secrets.token_urlsafe(32)
    with os.fdopen(handle, "w") as file:
        file.write(token + "\n")
    return token


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
