"""Python and what penstock needs of it: packages that load, extras, and programs that the tests start."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import re
import shutil
import sys
from collections.abc import Iterator

from penstock.doctor.finding import Finding

OLDEST = (3, 11)
PROGRAMS = {
    "make": (("make",), "make", "make demo, make test"),
    "strace": (("strace",), "strace", "the test that sees each fsync"),
    "chromium": (("chromium", "chromium-browser", "google-chrome"), "chromium", "the tests in a browser"),
}
"""What only tests and make start: the names that it may have, its Debian package, what it is for."""
_REQUIREMENT = re.compile(r"^([\w.-]+)(?:\[[^]]*\])?\s*([^;]*)(?:;(.*))?$")
_EXTRA = re.compile(r"extra == ['\"](\w+)['\"]")


def packages() -> Iterator[Finding]:
    """Python, every required package and each extra."""
    held = platform.python_version()
    if sys.version_info < OLDEST:
        yield Finding("machine", "python", "wrong", f"{held}, older than 3.11", "install Python 3.11 or newer")
    else:
        yield Finding("machine", "python", "ok", held)
    try:
        lines = importlib.metadata.requires("penstock") or []
    except importlib.metadata.PackageNotFoundError:
        yield Finding("machine", "packages", "warn", "penstock is not installed, only on the path", "pip install .")
        return
    wanted: dict[str, list[tuple[str, str]]] = {}
    for line in lines:
        found = _REQUIREMENT.match(line)
        if found and found[1] != "penstock" and not ("Windows" in (found[3] or "") and sys.platform == "win32"):
            extra = _EXTRA.search(found[3] or "")
            wanted.setdefault(extra[1] if extra else "", []).append((found[1], found[2].strip()))
    yield _required(wanted.pop("", []))
    for name, needs in sorted(wanted.items()):
        yield _extra(name, needs)


def _required(needs: list[tuple[str, str]]) -> Finding:
    wrong, versions = [], {}
    for name, bound in needs:
        try:
            importlib.import_module(name.replace("-", "_"))
            versions[name] = importlib.metadata.version(name)
        except Exception as error:  # a package may fail to load in any way: that it does is the finding
            wrong.append(f"{name} does not load ({str(error).splitlines()[0] if str(error) else type(error).__name__})")
            continue
        if too_old(versions[name], bound):
            wrong.append(f"{name} {versions[name]} is not {bound}")
    if wrong:
        remedy = "pip install --upgrade penstock" + (
            "; apt-get install libgomp1" if any("gomp" in one for one in wrong) else ""
        )
        return Finding("machine", "packages", "wrong", ", ".join(wrong), remedy, versions)
    return Finding("machine", "packages", "ok", f"all {len(needs)} load", values=versions)


def _extra(extra: str, needs: list[tuple[str, str]]) -> Finding:
    missing, versions = [], {}
    for name, bound in needs:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
            continue
        if too_old(versions[name], bound):
            missing.append(f"{name} {bound}")
    if missing:
        lacks = f"optional; lacks {', '.join(missing)}"
        return Finding("machine", f"extra {extra}", "warn", lacks, f"pip install 'penstock[{extra}]'", versions)
    return Finding("machine", f"extra {extra}", "ok", f"all {len(needs)} there", values=versions)


def too_old(version: str, bound: str) -> bool:
    """Whether a version is below the bound ``>=X`` of a requirement.

    >>> too_old("1.9.2", ">=1.10"), too_old("2.0", ">=2.0"), too_old("3.1", "")
    (True, False, False)
    """
    least = re.search(r">=\s*([\d.]+)", bound)
    return least is not None and _numbers(version) < _numbers(least[1])


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(?:\.\d+)*", version)
    parts = [int(part) for part in found[0].split(".")] if found else []
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def programs() -> Iterator[Finding]:
    """Programs that the tests start; serving needs none of them."""
    for program, (names, package, use) in PROGRAMS.items():
        path = next(filter(None, map(shutil.which, names)), None)
        if path is None:
            yield Finding("machine", program, "warn", f"optional; not there, for {use}", f"apt-get install {package}")
        else:
            yield Finding("machine", program, "ok", path)
