"""The home folder: who may read it, who writes there, how much room it has."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from penstock.doctor.finding import Finding, size
from penstock.serve.token import NAME

LITTLE = 500_000_000
"""Free bytes below which a server soon refuses events."""


def folder(home: Path) -> Iterator[Finding]:
    """Permissions, the operator's token, and who holds the lock."""
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        yield Finding("home", "folder", "wrong", f"{home} cannot be read and written", f"chown -R $USER {home}")
        return
    foreign = _foreign(home)
    if foreign:
        told = f"{foreign[0]} belongs to another user" + (f", and {len(foreign) - 1} more" if foreign[1:] else "")
        yield Finding("home", "folder", "wrong", told, f"chown -R $USER {home}", {"foreign": foreign[:20]})
    else:
        yield Finding("home", "folder", "ok", f"{home}, {size(weight(home))}", values={"bytes": weight(home)})
    yield token(home)
    yield lock(home)


def _foreign(home: Path) -> list[str]:
    """Files at the top of the home that this user cannot write."""
    return [str(path) for path in sorted(home.iterdir()) if not path.is_socket() and not os.access(path, os.W_OK)]


def token(home: Path) -> Finding:
    """Whether only its owner reads the operator's token."""
    path = home / NAME
    if not path.exists():
        return Finding("home", NAME, "ok", "none yet: the first start writes it")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        told = f"mode {mode:o}: others may read it, and the server does not start"
        return Finding("home", NAME, "wrong", told, f"rm {path}: the next start writes a new one")
    if not path.stat().st_size:
        return Finding("home", NAME, "wrong", "empty", f"rm {path}: the next start writes a new one")
    return Finding("home", NAME, "ok", f"mode {mode:o}")


def lock(home: Path) -> Finding:
    """Which process writes the home, if any."""
    path = home / "lock"
    held, pid = holder(path)
    if not held:
        return Finding("home", "lock", "ok", "free: nobody writes here", values={"held": False})
    who = f"process {pid}" + (f" ({command})" if (command := _command(pid)) else "") if pid else "another process"
    return Finding("home", "lock", "ok", f"held by {who}", values={"held": True, "pid": pid})


def holder(path: Path) -> tuple[bool, int | None]:
    """Whether a file is locked, and by which process where the system tells."""
    if not path.exists():
        return False, None
    table = Path("/proc/locks")
    inode = str(path.stat().st_ino)
    # Reading the system's table leaves the lock alone: a server may start this very moment.
    for line in table.read_text().splitlines() if table.exists() else ():
        words = line.split()
        if "FLOCK" in words and words[-3].split(":")[-1] == inode:
            return True, int(words[4]) or None
    if table.exists():
        return False, None
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True, None
    return False, None


def _command(pid: int | None) -> str:
    path = Path(f"/proc/{pid}/cmdline")
    try:
        words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
    return words if len(words) <= 60 else f"{words[:57]}..."


def disk(home: Path, events: int, held: int) -> Finding:
    """Free space, against what an event takes in the log, the store and the decision log together.

    Args:
        events: that the log holds; `held` bytes of the home, releases not counted.
    """
    there = home
    while not there.exists():
        there = there.absolute().parent
    free = shutil.disk_usage(there).free
    each = held / events if events else 0.0
    values = {"free": free, "bytes_an_event": round(each, 1)}
    text = f"{size(free)} free"
    if each:
        text += f", room for about {free / each:,.0f} more events at {size(each)} each"
    if free < LITTLE:
        return Finding("home", "disk", "wrong", text, "free some disk: without room, events are refused", values)
    if free < held:
        text += "; less than the home holds, which erasing a person and archiving need for a while"
        return Finding("home", "disk", "warn", text, "free some disk", values)
    return Finding("home", "disk", "ok", text, values=values)


def weight(path: Path) -> int:
    """Bytes on disk of a file, or of all files in a folder."""
    files = [path] if path.is_file() else path.rglob("*")
    total = 0
    for file in files:
        try:
            found = file.lstat()
        except OSError:  # it went meanwhile
            continue
        # LMDB's file may be longer than what it occupies.
        total += found.st_blocks * 512 if stat.S_ISREG(found.st_mode) else 0
    return total
