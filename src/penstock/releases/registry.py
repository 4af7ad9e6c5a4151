"""Which release is champion: the last line of an append-only file. Moving the pointer appends a line."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from penstock.errors import NotFoundError, ReleaseError


@dataclass(frozen=True)
class Registry:
    """The releases in one folder and the history of promotions, `promotions.jsonl`.

    A line counts once its newline is there, so a crash while appending leaves the old champion.
    """

    folder: Path

    def ids(self) -> list[str]:
        """Every release, oldest first."""
        found = [path.parent for path in self.folder.glob("*/manifest.json") if not path.parent.name.startswith(".")]
        return [path.name for path in sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))]

    def listing(self) -> list[dict[str, Any]]:
        """Every release, oldest first: id, decision, model, whether it is champion, and the offset trained on.

        One whose manifest cannot be read is listed as damaged, so that it can be found.
        """
        champions = set(self.champions().values())
        out = []
        for name in self.ids():
            entry: dict[str, Any] = {"id": name, "decision": None, "model": "damaged", "champion": name in champions}
            try:
                manifest = self.manifest(name)
                entry |= {"decision": manifest["decision"], "model": manifest["model"]["model"]}
                entry["until"] = manifest["data"]["until"]
            except (ReleaseError, LookupError, TypeError):
                entry["until"] = None
            out.append(entry)
        return out

    def history(self, decision: str | None = None) -> list[dict[str, Any]]:
        """Promotions and rollbacks, oldest first; all decisions or one."""
        try:
            text = self._file.read_text()
        except FileNotFoundError:
            return []
        whole = [line for line in text.splitlines(keepends=True) if line.endswith("\n")]
        try:
            lines = [json.loads(line) for line in whole]
        except ValueError as error:
            raise ReleaseError(
                "each line of the promotions is JSON", got=f"{self._file}: {error}",
                remedy="delete the broken line, or restore the file",
            ) from None  # fmt: skip
        return [line for line in lines if decision in (None, line["decision"])]

    def champion(self, decision: str) -> str | None:
        """The release that serves `decision`, if any was promoted."""
        history = self.history(decision)
        return history[-1]["release"] if history else None

    def champions(self) -> dict[str, str]:
        """The champion of every decision that has one."""
        return {line["decision"]: line["release"] for line in self.history()}

    def stamp(self) -> tuple[int, int]:
        """Changes whenever the pointer moves; cheap to ask."""
        try:
            stat = self._file.stat()
        except FileNotFoundError:
            return (0, 0)
        return (stat.st_size, stat.st_mtime_ns)

    def promote(self, release: str) -> dict[str, Any]:
        """Makes `release` the champion of its decision."""
        if release not in self.ids():
            raise NotFoundError(
                "a release is promoted by its id", got=repr(release), remedy="penstock release list shows them"
            )
        return self._append(self.decision(release), release, "promote")

    def rollback(self, decision: str) -> dict[str, Any]:
        """Goes back to the champion before the present one. Rolling back twice goes back further."""
        stack: list[str] = []
        for line in self.history(decision):
            if line["action"] == "rollback":
                stack.pop()
            elif not stack or stack[-1] != line["release"]:
                stack.append(line["release"])
        if len(stack) < 2:
            raise ReleaseError(
                "a rollback returns to an earlier champion",
                got=f"{decision} has had {len(stack)}",
                remedy="promote a release by its id instead",
            )
        if stack[-2] not in self.ids():
            raise ReleaseError(
                "a rollback returns to a release that is still there", got=f"{stack[-2]}, whose folder is gone",
                remedy="restore it, or promote another release by its id",
            )  # fmt: skip
        return self._append(decision, stack[-2], "rollback")

    def decision(self, release: str) -> str:
        """The decision that a release serves."""
        return str(self.manifest(release)["decision"])

    def manifest(self, release: str) -> dict[str, Any]:
        try:
            manifest: dict[str, Any] = json.loads((self.folder / release / "manifest.json").read_text())
        except (OSError, ValueError) as error:
            raise ReleaseError(
                "a release has a manifest", got=f"{release}/manifest.json: {error}",
                remedy="restore the folder, or delete it",
            ) from None  # fmt: skip
        return manifest

    def kept_views(self) -> set[bytes]:
        """Versions of all views that some champion, present or past, needs: a rollback may ask for them."""
        return {
            bytes.fromhex(version)
            for line in self.history()
            if (self.folder / line["release"] / "manifest.json").exists()
            for version in self.manifest(line["release"])["views"].values()
        }

    @property
    def _file(self) -> Path:
        return self.folder / "promotions.jsonl"

    def _append(self, decision: str, release: str, action: str) -> dict[str, Any]:
        line = {"decision": decision, "release": release, "action": action, "at": datetime.now(UTC).isoformat()}
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._file.open("ab+") as file:
            # Two that move the pointer at once must not cut off one another's line.
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            # What a crash left of a line goes; the file then ends with a whole one.
            file.truncate(file.read().rfind(b"\n") + 1)
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        return line
