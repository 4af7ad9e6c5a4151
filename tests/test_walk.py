"""The README's ten minutes, from one's own file to live decisions, run as they are printed and print what they say."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest

import penstock as ps
import serving

README = (Path(__file__).parents[1] / "README.md").read_text()
TITLE = "Ten minutes: from your own file to live decisions"
SERVE = "penstock serve"
PORT = 8000


class Part(NamedTuple):
    """Commands that stand in one block, and the lines that the next block says they print."""

    commands: list[str]
    printed: list[str]


def walk() -> list[Part]:
    """The blocks of the README's section."""
    section = re.search(rf"^## {TITLE}$(.*?)^## ", README, re.MULTILINE | re.DOTALL)
    assert section, f"README.md has no section '## {TITLE}'"
    parts: list[Part] = []
    for language, body in re.findall(r"^```(\w+)\n(.*?)^```", section[1], re.MULTILINE | re.DOTALL):
        if language == "sh":
            parts.append(Part(body.splitlines(), []))
        else:
            parts[-1].printed.extend(body.splitlines())
    return parts


def simulated(file: Path) -> None:
    """A simulated shop's history in the look of the file that the README shows."""
    frame = ps.World(seed=5, shoppers=120, items=80, categories=6, days=30, sessions=8).events().frame()
    frame = frame.filter(pl.col("kind") != "return")
    best = frame["item"].value_counts(sort=True)["item"][0]
    frame.select(
        timestamp=pl.col("time").cast(pl.Datetime("us")).dt.strftime("%Y-%m-%d %H:%M:%S.%3f"),
        visitorid=pl.col("user").str.slice(2),
        event=pl.col("kind").replace_strict({"view": "0", "cart": "1", "buy": "2"}),
        itemid=pl.when(pl.col("item") == best).then(pl.lit("29196")).otherwise(pl.col("item").str.slice(2)),
        transactionid=pl.when(pl.col("kind") == "buy").then(pl.lit("7")),
        country="country",
    ).write_csv(file, compression="gzip")


def pattern(line: str) -> str:
    """What a printed line must look like: figures and hashes differ, … stands for anything."""
    if line.startswith((" ", "{")) and '":' in line:
        return ".*".join(["", *(re.escape(name) for name in re.findall(r'"\w+":', line)), ""])
    if " is chosen: " in line:
        return r"\w+ is chosen: MRR@20 \d\.\d+ .*"
    text = re.sub(r"[0-9a-f]{16}|\d[\d,.]*", "\0", line)
    return re.escape(text).replace("\0", "[0-9a-f][0-9a-f,.]*").replace("…", ".*")


def check(printed: list[str], output: str) -> None:
    """Holds what the README shows against what was printed, in order."""
    at = 0
    for line in printed:
        if line.strip() in ("", "…"):
            continue
        found = re.compile(pattern(line), re.MULTILINE).search(output, at)
        assert found, f"the README shows\n  {line}\nand this was printed:\n{output}"
        # A JSON answer is shown on several lines.
        at = found.start() if '":' in line else found.end()


class Shell:
    """A shell that keeps its folder between commands, with this environment's programs first on the path."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": programs, "COLUMNS": "200"}

    def here(self, command: str) -> str:
        """The command as printed, but for the port where another program has the usual one."""
        if self.port == PORT:
            return command
        return command.replace(f"localhost:{PORT}", f"localhost:{self.port}").replace(
            SERVE, f"{SERVE} --port {self.port}"
        )

    def __call__(self, command: str) -> str:
        where = self.folder / ".where"
        script = f'{self.here(command)}\nstatus=$?\npwd > "{where}"\nexit $status'
        done = subprocess.run(
            ["bash", "-c", script], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=300,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        self.folder = Path(where.read_text().strip())
        where.unlink()
        return done.stdout + "\n"

    @contextmanager
    def serving(self) -> Iterator[str]:
        """The walk's server, as long as the block runs; gives what it printed until it listened."""
        command = ["bash", "-c", f"exec {self.here(SERVE)}"]
        server = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        try:
            lines = []
            for line in server.stdout:
                lines.append(line)
                if line.startswith("serving "):
                    break
            yield "".join(lines)
        finally:
            server.send_signal(signal.SIGINT)
            code = server.wait(timeout=60)
            server.stdout.close()
        assert code == 0


def free_port() -> int:
    if not serving.listens(PORT):
        return PORT
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("source", ["simulated", "real"])
def test_the_walk_runs_as_printed(
    source: str, tmp_path: Path, need: Callable[[str, str], str], request: pytest.FixtureRequest
) -> None:
    """Each command ends well and prints what the README shows, and the click is in the decision after it."""
    need("curl", "curl")
    history = tmp_path / "history.csv.gz"
    if source == "real":
        data = request.getfixturevalue("shared_data")
        history.symlink_to(data / "clickstream" / "retailrocket_sample.csv.gz")
    else:
        simulated(history)
    shell = Shell(tmp_path, free_port())
    before, live, after = divided(walk())
    for part in before:
        check(part.printed, "".join(map(shell, part.commands)))
    said = ""
    with shell.serving() as started:
        check(live[0].printed, started)
        for part in live[1:]:
            said = "".join(map(shell, part.commands))
            check(part.printed, said)
    assert '"tier":"personal"' in said
    assert '"because":"29196"' in said
    for part in after:
        check(part.printed, "".join(map(shell, part.commands)))


def divided(parts: list[Part]) -> tuple[list[Part], list[Part], list[Part]]:
    """The parts before the server starts, those while it runs, and those after it was stopped."""
    start = next(at for at, part in enumerate(parts) if part.commands == [SERVE])
    stop = next(at for at, part in enumerate(parts) if at > start and not part.commands[0].startswith("curl "))
    return parts[:start], parts[start:stop], parts[stop:]


def test_the_walk_has_every_step() -> None:
    """From init to audit, in this order; what is checked above is all of it."""
    commands = [command for part in walk() for command in part.commands]
    steps = [command.split()[1] for command in commands if command.startswith("penstock ")]
    assert steps == ["init", "ingest", "train", "serve", "audit"]
    assert sum(command.startswith("curl ") for command in commands) >= 2
    assert all(part.printed for part in walk())


def test_a_figure_may_differ_and_a_word_may_not() -> None:
    """The comparison of shown with printed would notice a changed word."""
    check(["the log holds 5,169 events", "…", "every value agrees"], "the log holds 12 events\nx\nevery value agrees\n")
    for shown in ("the log has 5,169 events", '{"accepted":1,"lost":0}'):
        with pytest.raises(AssertionError, match="README"):
            check([shown], 'the log holds 12 events\n{"accepted":1,"duplicates":0}\n')
