"""What every test may ask for: the real data and programs of the system; and where CI looks on, nothing is skipped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from redis_server import RedisServer

BESIDE = "beside the repository"
DATA = Path(os.environ.get("PENSTOCK_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
CI = os.environ.get("CI", "").lower() not in ("", "0", "false")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; it is never copied."""
    if not DATA.is_dir():
        pytest.skip(f"the real data is not {BESIDE}, in {DATA}; PENSTOCK_SHARED_DATA names another folder")
    return DATA


@pytest.fixture(scope="session")
def need() -> Callable[[str, str], str]:
    """`need("strace", "strace")`: the path of a program, given the Debian package that has it."""

    def path(program: str, package: str) -> str:
        found = shutil.which(program)
        if found is None:
            pytest.skip(f"{program} is missing: apt-get install {package}")
        return found

    return path


@pytest.fixture(scope="session")
def redis_server(need: Callable[[str, str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that runs; a test that stops or kills it starts it again."""
    from redis_server import RedisServer

    server = RedisServer(need("redis-server", "redis-server"), tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture(scope="session")
def spark(need: Callable[[str, str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """A Spark of one machine, where the first `python3` of PATH is another than the one that runs the tests."""
    pytest.importorskip("pyspark", reason="pyspark is missing: .venv/bin/pip install 'penstock[spark]'")
    need("java", "default-jre-headless")
    from penstock.engines.spark import local_session

    other = tmp_path_factory.mktemp("bin") / "python3"
    other.write_text("#!/bin/sh\necho 'not this Python' >&2\nexit 1\n")
    other.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(other.parent), prepend=os.pathsep)
        patch.delenv("PYSPARK_PYTHON", raising=False)
        session = local_session()
    # As with much data: Spark would put the little that tests have into one partition.
    session.conf.set("spark.sql.adaptive.enabled", "false")
    yield session
    session.stop()


def refuse(report: Any) -> None:
    """Turns a skip into a failure, unless what it misses is the real data and that is absent indeed."""
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if BESIDE not in reason or DATA.is_dir():
            report.outcome = "failed"
            report.longrepr = f"CI skips nothing. {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if CI:
        refuse(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if CI:
        refuse(report)
    return report
