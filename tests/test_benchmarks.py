"""The benchmarks measure what they say: stalls count, percentiles are measured values, results have their form."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
from benchmarks import Result, ltr, ope
from benchmarks.__main__ import text
from benchmarks._peers import SETUP, interpreter
from benchmarks._serving import load
from benchmarks._serving.figures import highest, percentile

from penstock.errors import PenstockError

ROOT = Path(__file__).parents[1]
PAIRS: list[tuple[float, float | None]] = [(0.05, 0.06), (0.0, 0.06), (0.05, None)]
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@contextmanager
def server(stall: tuple[float, float] = (0.0, 0.0), answer: bytes = ANSWER) -> Iterator[load.Address]:
    """Answers one connection at a time; silent from `stall[0]` to `stall[1]` seconds after the greeting."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        silent = threading.Event()

        def serve() -> None:
            line, _ = listener.accept()
            with line:
                line.recv(1 << 16)
                line.sendall(ANSWER)
                began = perf_counter()
                while line.recv(1 << 16):
                    since = perf_counter() - began
                    if stall[0] < since < stall[1]:
                        silent.wait(stall[1] - since)
                    line.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()
        thread.join()


def test_a_stall_counts_for_every_request_that_was_due_in_it() -> None:
    """Of 100 requests a second, the 30 due in a stall of 0.3 s are late by what was left of it, though one
    connection had but one request on it, and a client that waits its turn would have seen a single slow answer."""
    with server(stall=(0.3, 0.6)) as address:
        stream = load.Stream(address, [load.post("/", b"{}")], load.evenly(100, 1.0), connections=1)
        (found,) = load.drive([stream])
    assert len(found.ms) == 100
    assert not found.errors
    assert sum(ms > 100 for ms in found.ms) >= 15
    assert max(found.ms) > 250


def test_what_is_not_a_good_answer_is_an_error() -> None:
    """A refusal and an answer without the wanted bytes are counted as errors, and are in no percentile."""
    refusal = b"HTTP/1.1 429 Too Many\r\nContent-Length: 2\r\n\r\n{}"
    for answer, name in ((refusal, "429"), (ANSWER, "unwanted")):
        with server(answer=answer) as address:
            stream = load.Stream(address, [b"x"], load.evenly(100, 0.1), connections=1, wanted=b"personal")
            (found,) = load.drive([stream])
        assert found.errors == {name: 10}
        assert not found.ms


def test_moments_are_those_asked_for() -> None:
    """Random moments come at the rate asked for, rise, and are the same for the same seed."""
    moments = load.poisson(200, 50, seed=3)
    assert 0.97 < len(moments) / 10_000 < 1.03
    assert (np.diff(moments) > 0).all()
    assert moments[-1] < 50
    np.testing.assert_array_equal(moments, load.poisson(200, 50, seed=3))


def test_percentiles_are_measured_values() -> None:
    """A percentile is the smallest measured value that the share does not exceed; nothing has none."""
    values = [float(i) for i in range(1, 1001)]
    assert [percentile(values[::-1], share) for share in (0.5, 0.99, 0.999, 1.0)] == [500, 990, 999, 1000]
    assert percentile([7.0], 0.99) == 7.0
    assert percentile([], 0.5) is None


@pytest.mark.parametrize("limit", [30.0, 61.0, 119.0])
def test_capacity_is_found_by_halving(limit: float) -> None:
    """The highest rate that is held is found to within a sixtieth of the bound, though one look in three fails."""
    looks: list[float] = []

    def takes(rate: float) -> bool:
        looks.append(rate)
        return rate <= limit and (len(looks) % 3 != 0 or looks[-1] == looks[-2])

    assert limit - 3 < highest(takes, 100.0, 6) <= limit
    assert highest(lambda rate: False, 100.0, 6) == 0.0


def test_a_result_without_a_ratio_is_printed_beside_its_peer() -> None:
    """Where ours never misses there is no ratio, and the peer's figure stands all the same."""
    assert ope._times(0.06, 0.05) == 1.2
    assert ope._times(0.06, 0.0) is ope._times(None, 0.05) is None
    told = [text(Result("ope", ours, peer, ope._times(peer, ours), "share", {})) for ours, peer in PAIRS]
    assert [one.split("share ")[1] for one in told] == [
        "(peer 0.06, 1.2 times better). {}", "(peer 0.06). {}", "(no peer here). {}",
    ]  # fmt: skip


def test_a_result_is_one_json_line_at_the_end() -> None:
    """`python -m benchmarks NAME --json` ends with one object of the six keys."""
    command = [sys.executable, "-m", "benchmarks", "simulator", "--json"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = json.loads(printed.splitlines()[-1])
    assert list(found) == ["name", "ours", "peer", "ratio", "unit", "detail"]
    assert found["ratio"] > 0


def test_one_world_has_no_interval() -> None:
    """The mean over a single world stands without ends, as null and not as NaN, which JSON does not know."""
    one = ltr.interval([0.5])
    assert one == {"mean": 0.5, "low": None, "high": None}
    assert json.loads(json.dumps(one, allow_nan=False)) == one
    assert ltr.interval([0.5, 0.7]) == {"mean": 0.6, "low": -0.671, "high": 1.871}
    with pytest.raises(PenstockError, match="got --seeds 0; give --seeds 2 or more"):
        ltr.run(Namespace(seeds=0, sessions=10))


def test_every_peer_is_installed_in_one_way(tmp_path: Path) -> None:
    """Each file of a folder `peers` names an environment that `make bench-setup` makes and a benchmark asks for."""
    files = sorted((ROOT / "benchmarks").glob("*/peers/*.txt"))
    assert {"obp", "bm25s", "feast", "faiss"} <= {file.stem for file in files}
    recipe = (ROOT / "Makefile").read_text().partition(f"\n{SETUP.removeprefix('make ')}:")[2].partition("\n\n")[0]
    assert "for file in benchmarks/*/peers/*.txt" in recipe
    sources = "".join(path.read_text() for path in (ROOT / "benchmarks").rglob("*.py"))
    assert [file.stem for file in files if f'"{file.stem}"' not in sources] == []
    assert interpreter("river", tmp_path) is None
    (tmp_path / "river" / "bin").mkdir(parents=True)
    (tmp_path / "river" / "bin" / "python").touch()
    assert interpreter("river", tmp_path) == tmp_path / "river" / "bin" / "python"
