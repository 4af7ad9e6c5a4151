"""The files that sessions and sequences are read from: text, packed by gzip or not, whatever they are named."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from penstock.errors import PenstockError


class DataError(PenstockError):
    """A file that is not there, or not in the layout that is asked for."""


def lines(file: Path, option: str) -> list[tuple[int, str]]:
    """The lines of a text file that hold anything, without their ends, each with its number from 1.

    Args:
        option: what names the file on the command line, for errors.

    Raises:
        DataError: no file, or no text in it.
    """
    try:
        raw = file.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(
            f"{option} names a text file, packed by gzip or not", got=f"{file}, {_why(error)}",
            remedy=f"give {option} FILE",
        ) from None  # fmt: skip
    return [(number, line.rstrip("\r")) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _why(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else f"which is damaged or no text ({error})"


def same(one: Path, other: Path) -> bool:
    """Whether two paths name one file."""
    return one.resolve() == other.resolve()
